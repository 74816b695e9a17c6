"""Where a run computes: on which device, and by how many processes together.

    python -m experiments.inception_table --device cuda
    torchrun --nproc-per-node 4 -m experiments.inception_table

Under torchrun every batch is divided among the processes, and their gradients are
averaged (DistributedDataParallel). Only the first one reads and writes checkpoints,
writes results and shows progress. Batch norm then takes its statistics over the part of
the batch that one process has: other numbers, and a results file says so.
"""

import os
import platform
import time

import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel


def device():
    """The device that BNLIB_DEVICE names (--device), the CPU without it."""
    name = os.environ.get("BNLIB_DEVICE", "cpu")
    if name == "cuda" and "LOCAL_RANK" in os.environ:
        name = f"cuda:{os.environ['LOCAL_RANK']}"
    return torch.device(name)


def name():
    """What the results file says of the machine."""
    where = f"{platform.system()} {platform.machine()}"
    if device().type == "cuda":
        where += f", {torch.cuda.get_device_name(device())}"
    return where if processes() == 1 else f"{where}, {processes()} processes"


def clock():
    """Seconds of work: on the CPU its own time, whatever else the machine is doing."""
    return time.process_time() if device().type == "cpu" else time.perf_counter()


def joined():
    return distributed.is_available() and distributed.is_initialized()


def processes():
    return distributed.get_world_size() if joined() else 1


def first():
    """Whether this is the process that writes."""
    return not joined() or distributed.get_rank() == 0


def join():
    """Take part in what torchrun started, if it did."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not joined():
        distributed.init_process_group("nccl" if device().type == "cuda" else "gloo")


def leave():
    if joined():
        distributed.destroy_process_group()


def agree(value):
    """The first process's value, for all."""
    values = [value]
    if joined():
        distributed.broadcast_object_list(values, src=0, device=device())
    return values[0]


def together(model):
    """The model as it is called in training: with gradients averaged over processes."""
    return DistributedDataParallel(model) if joined() else model


def part(batch):
    """This process's share of the indices of a batch."""
    return batch[distributed.get_rank() :: processes()] if joined() else batch


def seed(number):
    """Seed the global random generators, differently in each process."""
    torch.manual_seed(number + 1_000_000 * (distributed.get_rank() if joined() else 0))


def random_states():
    """The states of the global random generators, those of each process."""
    states = {"cpu": torch.get_rng_state()}
    if device().type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device())
    gathered = [states] * processes()
    if joined():
        distributed.all_gather_object(gathered, states)
    return gathered


def set_random_states(gathered):
    states = gathered[distributed.get_rank() if joined() else 0]
    torch.set_rng_state(states["cpu"])
    if "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"], device())
