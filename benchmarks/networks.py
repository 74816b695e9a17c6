"""Whole training steps of networks that differ in their norm alone; torch.nn = 1.

A step: forward, cross entropy, backward, a step of SGD, gradients set to None. Each
comparison has a process of its own. Wall clock, because that is what passes for whoever
trains: threads that wait for each other take processor time too.

torch.nn again  the same built a second time: the control, without which no row counts
bnlib.nn        our layers
Function        torch.nn's own kernels inside a torch.autograd.Function: `rivals`
kernels         loops compiled by numba, with threads of their own: `rivals`
InPlaceABN      bnlib.nn.InPlaceABN for batch norm and ReLU
no norm         batch norm left out, the floor
"""

import multiprocessing
import os
import time
from concurrent.futures import ProcessPoolExecutor

import torch
from torch.nn import Conv2d, Linear, ReLU, Sequential, Sigmoid

import bnlib.nn as ours
from benchmarks import rivals, timing

IMAGES, DIGITS = (32, 3, 48, 48), (60, 784)
COLUMNS = "torch.nn again", "bnlib.nn", "Function", "kernels", "InPlaceABN", "no norm"


def convolution(before, channels, stride=1, size=3):
    """A convolution without bias: batch norm would subtract it."""
    return Conv2d(before, channels, size, stride, size // 2, bias=False)


def classifier(channels):
    return torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), Linear(channels, 10)


def build_convnet(norm):
    """Seven convolutions, each with norm and ReLU."""
    sizes = (32, 1), (32, 2), (64, 1), (64, 2), (64, 1), (128, 2), (128, 1)
    layers, before = [], 3
    for channels, stride in sizes:
        layers += convolution(before, channels, stride), *norm(channels, ReLU())
        before = channels
    return Sequential(*layers, *classifier(before))


class Block(torch.nn.Module):
    """Two convolutions beside a shortcut; the second norm stands before the sum."""

    def __init__(self, norm, before, channels, stride):
        super().__init__()
        self.inside = Sequential(
            convolution(before, channels, stride),
            *norm(channels, ReLU()),
            convolution(channels, channels),
            *norm(channels),
        )
        shortcut = convolution(before, channels, stride, 1), *norm(channels)
        self.shortcut = Sequential(*(shortcut if stride > 1 else ()))
        self.last = ReLU()

    def forward(self, x):
        return self.last(self.inside(x) + self.shortcut(x))


def build_residual(norm):
    """A convolution and three blocks, in the manner of a ResNet."""
    sizes = (32, 32, 1), (32, 64, 2), (64, 128, 2)
    stem = convolution(3, 32, 2), *norm(32, ReLU())
    blocks = (Block(norm, *size) for size in sizes)
    return Sequential(*stem, *blocks, *classifier(128))


def build_small(norm):
    """The network of section 4.1: three times 100 sigmoids, a norm before each."""
    layers, before = [], 784
    for _ in range(3):
        layers += Linear(before, 100, bias=False), *norm(100, Sigmoid())
        before = 100
    return Sequential(*layers, Linear(100, 10))


NETWORKS = {  # builder, shape of a batch, layouts
    "convnet": (build_convnet, IMAGES, ("NCHW", "channels last")),
    "residual": (build_residual, IMAGES, ("NCHW", "channels last")),
    "small": (build_small, DIGITS, ("NC",)),
}


def followed(norm):
    """What a builder asks for: a norm, and what follows it."""
    return lambda channels, *then: (norm(channels), *then)


def in_place(channels, *then):
    """Norm and ReLU in one; a norm that nothing follows stays what it is."""
    return ((ours.InPlaceABN if then else ours.BatchNorm2d)(channels),)


def norms(layout):
    """The norms that are compared, each as a function (channels, what follows)."""
    name = "BatchNorm1d" if layout == "NC" else "BatchNorm2d"
    libraries = {"torch.nn": torch.nn, "torch.nn again": torch.nn, "bnlib.nn": ours}
    found = {n: followed(getattr(lib, name)) for n, lib in libraries.items()}
    found["Function"] = followed(getattr(rivals, name.replace("Batch", "NativeBatch")))
    if layout == "NCHW" and rivals.kernels():
        found["kernels"] = followed(rivals.KernelBatchNorm2d)
    if layout != "NC":  # its activation is no sigmoid
        found["InPlaceABN"] = in_place
    return found | {"no norm": lambda channels, *then: then}


def training_step(network, x, labels):
    """A step that hardly moves the weights: every one is then the same work."""
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-4)

    def step():
        torch.nn.functional.cross_entropy(network(x), labels).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def compare(name, layout, threads, seconds):
    """A network's step with each norm: ratios, quartiles, and how many rounds."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    build, shape, _ = NETWORKS[name]
    last = layout == "channels last"
    memory = {"memory_format": torch.channels_last} if last else {}
    x, labels = torch.randn(shape).to(**memory), torch.randint(10, shape[:1])
    steps = {}
    for column, norm in norms(layout).items():
        torch.manual_seed(0)
        steps[column] = training_step(build(norm).to(**memory), x, labels)
    times = timing.in_turns(steps, seconds, time.perf_counter, rounds=5)
    rounds = len(times["torch.nn"])
    return {"rounds": rounds, "steps": timing.round_by_round(times)}


def in_process(function, *given):
    """The function's result, from a fresh process."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn) as pool:
        return pool.submit(function, *given).result()


def show_heading():
    print("\nA training step, torch.nn = 1: median ± half the interquartile range")
    names = "".join(f"{name:>{max(len(name), 8) + 2}}" for name in COLUMNS)
    print(f"{'network':23}{'threads':7}{'ms':>8}{names}")


def show(name, layout, threads, steps):
    line = f"{f'{name}, {layout}':23}{threads:7}{steps['torch.nn']['ms']:8.1f}"
    for column in COLUMNS:
        cell = ""
        if column in steps:
            first, third = steps[column]["quartiles"]
            cell = f"{steps[column]['ratio']:.2f}±{(third - first) / 2:.2f}"
        line += f"{cell:>{max(len(column), 8) + 2}}"
    print(line, flush=True)


def main(seconds, write, environment):
    start, default = time.perf_counter(), torch.get_num_threads()
    found = {}
    show_heading()
    for name, (_, _, layouts) in NETWORKS.items():
        for layout in layouts:
            cells = found.setdefault(name, {})[layout] = {}
            for threads in sorted({1, default}):
                cell = in_process(compare, name, layout, threads, seconds)
                show(name, layout, threads, cell["steps"])
                cells[str(threads)] = cell
    # Do torch's threads, waiting for work, keep the cores from ours? Let them sleep.
    os.environ["OMP_WAIT_POLICY"] = "passive"
    asleep = in_process(compare, "convnet", "NCHW", default, seconds)
    show("convnet", "NCHW, asleep", default, asleep["steps"])
    if write:
        config = {"seconds": seconds, "environment": environment}
        result = {"networks": found, "asleep": {str(default): asleep}}
        config |= {"default_threads": default, "batches": [IMAGES, DIGITS]}
        timing.write("networks", seconds, config, start, result)
