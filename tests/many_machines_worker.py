"""What each worker of tests/test_many_machines.py does, and what one process does.

Each runs `main(name, rank, size, folder)`. The name is that of a function below; its
result is saved in the folder, beside a log.
"""

import datetime
import os
import time

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

import bnlib
from bnlib.nn import BatchNorm1d, BatchNorm2d, SyncBatchNorm

N = 12
SPLITS = {
    2: [(6, 6), (9, 3), (12, 0), (0, 12), (11, 1)],
    4: [(3, 3, 3, 3), (7, 0, 1, 4), (0, 0, 12, 0), (0, 2, 10, 0)],
}
SHAPES = [(3,), (3, 5), (3, 4, 2), (3, 2, 3, 2)]
DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
OPTIONS = {
    "default": {},
    "cumulative": {"momentum": None},
    "no statistics": {"track_running_stats": False},
    "not affine": {"affine": False},
    "no bias": {"bias": False},
    "other numbers": {"eps": 0.3, "momentum": 0.7},
}


def batches(shape=(3,), dtype=torch.float64, steps=2, loc=1.0, seed=0):
    """Whole batches x and upstream gradients dy, the same in every process."""
    g = torch.Generator().manual_seed(seed)
    scale = torch.arange(1, shape[0] + 1).reshape(-1, *[1] * (len(shape) - 1))
    for _ in range(steps):
        x, dy = torch.randn(2, N, *shape, generator=g, dtype=torch.float64)
        # Sorted: what one worker has differs from what the others have.
        x = x.sort(dim=0).values
        yield (x * scale + loc).to(dtype), dy.to(dtype)


def mine(whole, split, rank):
    start = sum(split[:rank])
    return whole[start : start + split[rank]]


def shaken(layer):
    with torch.no_grad():
        for k, p in enumerate(layer.parameters()):
            p.copy_(torch.linspace(0.5 + k, 2, len(p)))
    return layer


def steps(layer, data, take=lambda whole: whole):
    """Everything that can be seen of some steps: y, dx, dweight, dbias, buffers."""
    seen = []
    for x, dy in data:
        x = take(x).clone().requires_grad_()
        layer.zero_grad()
        y = layer(x)
        y.backward(take(dy))
        seen += [y.detach(), x.grad, *(p.grad.clone() for p in layer.parameters())]
        seen += [buffer.clone() for buffer in layer.buffers()]
    return seen


def equality(rank, size):
    found = {}
    for split in SPLITS[size]:
        part = lambda whole, split=split: mine(whole, split, rank)  # noqa: E731
        for shape in SHAPES:
            for dtype in DTYPES if shape == SHAPES[-2] else DTYPES[:1]:
                layer = shaken(SyncBatchNorm(shape[0]))
                layer = layer.to(dtype) if dtype == torch.float64 else layer
                found[split, shape, dtype] = steps(layer, batches(shape, dtype), part)
        for name, options in OPTIONS.items():
            layer = shaken(SyncBatchNorm(3, **options).double())
            found[split, name] = steps(layer, batches(), part)
            if layer.track_running_stats:
                data = batches(seed=3)
                found[split, name, "evaluation"] = steps(layer.eval(), data, part)
        layer = SyncBatchNorm(3)
        found[split, "far"] = steps(layer, batches(dtype=torch.float32, loc=1e4), part)
    return found


def collectives(work):
    """The names of the collectives that some work does, as the backend reports them."""
    with torch.autograd.profiler.profile() as p:  # torch.profiler loads for a second
        work()
    return sorted(e.name for e in p.function_events if e.name.startswith("gloo:"))


def messages(rank, size):
    layer, found = SyncBatchNorm(3).double(), {}
    split = SPLITS[size][1]
    (x, dy), _ = batches()
    x, dy = mine(x, split, rank).requires_grad_(), mine(dy, split, rank)
    found["forward"] = collectives(lambda: outputs.append(layer(x)))
    found["backward"] = collectives(lambda: outputs.pop().backward(dy))
    found["data"] = collectives(lambda: layer(x.detach()).backward(dy))
    with torch.no_grad():
        found["no_grad"] = collectives(lambda: layer(x))
    layer.eval()
    found["evaluation"] = collectives(lambda: layer(x).backward(dy))
    return found


outputs = []


def groups(rank, size):
    """Pairs that synchronize among themselves; then one pair, the others alone."""
    pairs = [[r, r + 1] for r in range(0, size, 2)]
    made = [distributed.new_group(pair) for pair in pairs]
    (x, _), _ = batches()
    x = mine(x, [3] * size, rank)
    found = {"pair": SyncBatchNorm(3, process_group=made[rank // 2]).double()(x)}
    found["first pair"] = SyncBatchNorm(3, process_group=made[0]).double()(x)
    layer = SyncBatchNorm.convert_sync_batchnorm(BatchNorm1d(3), made[rank // 2])
    found["converted"] = layer.double()(x)
    return {name: y.detach() for name, y in found.items()}


def error_of(work):
    try:
        work()
    except Exception as error:
        return type(error).__name__, str(error)


def errors(rank, size):
    layer, found = SyncBatchNorm(3), {}
    lonely = torch.ones(int(rank == size - 1), 3)
    found["one value"] = error_of(lambda: layer(lonely))
    poisoned = torch.randn(4, 3)
    poisoned[0, 1] = float("nan") if rank == 0 else 0.0
    found["NaN"] = error_of(lambda: layer(poisoned))
    found["eps"] = error_of(lambda: SyncBatchNorm(3, eps=0)(poisoned))
    found["channels"] = error_of(lambda: layer(torch.ones(4, 2)))
    found["1D"] = error_of(lambda: layer(torch.ones(4)))
    found["no channels"] = error_of(lambda: layer(torch.ones(4, 0)))
    found["integers"] = error_of(lambda: layer(torch.ones(4, 3).long()))
    found["no tensor"] = error_of(lambda: layer([1.0]))
    found["momentum"] = error_of(
        lambda: SyncBatchNorm(3, momentum=float("nan"))(lonely)
    )
    found["buffers"] = [b.clone() for b in layer.buffers()]
    return found


def nothing(rank, size):
    """All batches empty; then one value on each worker."""
    layer = SyncBatchNorm(3).double()
    x = torch.ones(0, 3, 2).double().requires_grad_()
    y = layer(x)
    y.sum().backward()
    found = {"shapes": (y.shape, x.grad.shape), "empty": list(layer.buffers())}
    found["empty"] = [b.clone() for b in found["empty"]]
    found["gradients"] = [p.grad for p in layer.parameters()]
    layer = SyncBatchNorm(3).double()
    (x, _), _ = batches()
    found["one each"] = [layer(x[rank : rank + 1]).detach(), layer.running_var.clone()]
    return found


def second_loss(layer, x, dy):
    """A number that depends on the input through a first derivative."""
    (dx,) = torch.autograd.grad((layer(x) ** 3 * dy).sum(), x, create_graph=True)
    return (dx**2 * dy).sum()


def second(rank, size):
    split, layer = SPLITS[size][1], shaken(SyncBatchNorm(3).double())
    (x, dy), _ = batches()
    x, dy = mine(x, split, rank).requires_grad_(), mine(dy, split, rank)
    second_loss(layer, x, dy).backward()
    return [x.grad, *(p.grad for p in layer.parameters())]


def model(norm):
    torch.manual_seed(0)
    return nn.Sequential(
        *(nn.Conv2d(1, 4, 3), norm(4), nn.ReLU(), nn.Conv2d(4, 5, 3)),
        *(norm(5), nn.ReLU(), nn.Flatten(), nn.Linear(80, 3)),
    ).double()


def train(net, take=lambda whole: whole):
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    for x, dy in batches((1, 8, 8), steps=3):
        optimizer.zero_grad()
        (net(take(x)).pow(2).mean(1) * take(dy)[:, 0, 0, 0]).mean().backward()
        optimizer.step()
    return net.state_dict()


def diagnosed(net, x):
    """Whether the statistics of a model in training are found to be unsynchronized."""
    return ["unsynchronized" in {f.code for f in bnlib.diagnose(net, x)}]


def ddp(rank, size):
    part = lambda whole: mine(whole, [N // size] * size, rank)  # noqa: E731
    found = {}
    for name, options in (("sync", {}), ("no broadcast", {"broadcast_buffers": False})):
        net = SyncBatchNorm.convert_sync_batchnorm(model(BatchNorm2d))
        found[name] = train(DistributedDataParallel(net, **options), part)
    found["diagnosed"] = diagnosed(net, part(next(batches((1, 8, 8)))[0]))
    net = DistributedDataParallel(model(nn.BatchNorm2d))
    found["diagnosed"] += diagnosed(net, part(next(batches((1, 8, 8)))[0]))
    for x, _ in batches((1, 8, 8), steps=3):
        net(part(x))
    found["own"] = net.module[1].running_mean.clone()
    net(part(x))
    found["momentum"] = net.module[1].momentum
    found["convolved"] = net.module[0](part(x)).mean((0, 2, 3)).detach()
    found["after"] = net.module[1].running_mean.clone()
    return found


def autocast(rank, size):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 4), SyncBatchNorm(4))
    (x, _), _ = batches(dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = net(mine(x, SPLITS[size][1], rank))
    y.float().pow(2).sum().backward()
    return y.detach(), net[1].running_var.clone()


def layered(norm, rank=0):
    """Two batch norms, one behind the other; every worker has other statistics."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 4), norm(4), nn.ReLU(), nn.Linear(4, 4), norm(4))
    net[1].running_mean += rank
    return net.double()


def parts(whole, split, rank):
    """The batches of one worker, none if it has no rows."""
    return [b for b in mine(whole, split, rank).split(5) if len(b)]


def told(function):
    try:
        function()
    except (RuntimeError, TypeError, ValueError) as error:
        return f"{type(error).__name__}: {error}"
    return "no error"


def measured(rank, size):
    """What `recalibrate` makes of data in several processes, and what it refuses."""
    x, _ = next(batches())
    options, found = {"progress": False}, {}
    for split in SPLITS[size]:
        for norm in (nn.BatchNorm1d, SyncBatchNorm, nn.SyncBatchNorm):
            net = layered(norm, rank)
            wrapped = DistributedDataParallel(net) if norm is SyncBatchNorm else net
            bnlib.recalibrate(wrapped, parts(x, split, rank), **options)
            found[split, norm.__name__] = list(net.buffers())
    pairs = [distributed.new_group([k, k + 1]) for k in range(0, size, 2)]
    net = layered(nn.BatchNorm1d, rank)
    mine_ = {"process_group": pairs[rank // 2], **options}
    bnlib.recalibrate(net, [x + rank], **mine_)
    found["pair"] = list(net.buffers())

    net, last = layered(nn.BatchNorm1d, rank), rank == size - 1
    before = [b.clone() for b in net.buffers()]
    bad = [x, x * float("nan") if last else x]
    found["nan"] = told(lambda: bnlib.recalibrate(net, bad, **options))
    text = [x, "text" if last else x]
    found["text"] = told(lambda: bnlib.recalibrate(net, text, **options))
    layers = ["1"] if last else ["1", "4"]
    found["layers"] = told(
        lambda: bnlib.recalibrate(net, [x], layers=layers, **options)
    )
    found["as before"] = all(
        torch.equal(a, b) for a, b in zip(net.buffers(), before, strict=True)
    )
    return found


def sharded(rank, size):
    """The tools on a model whose weights are spread over the workers."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    x, _ = next(batches())
    net, found = layered(nn.BatchNorm1d), {}
    for layer in (net[0], net[3], net):
        fully_shard(layer, mesh=init_device_mesh("cpu", (size,)))
    net.eval()
    found["before"] = {f.code for f in bnlib.diagnose(net, x)}
    part = mine(x, [N // size] * size, rank)
    bnlib.recalibrate(net, [part], progress=False)
    found["buffers"] = [b.clone() for b in net.buffers()]
    found["after"] = {f.code for f in bnlib.diagnose(net, x, severity="warning")}
    uneven = [part] * (1 + (rank == 0))
    found["uneven"] = told(lambda: bnlib.recalibrate(net, uneven, progress=False))
    net.train()
    net(part).sum().backward()  # all still works
    found["gradient"] = net[0].weight.grad is not None
    return found


def everything(rank, size):
    works = equality, messages, groups, errors, nothing, second, ddp, autocast
    works += measured, sharded
    return {work.__name__: work(rank, size) for work in works}


# --- what goes wrong ------------------------------------------------------------------


def lonely_step(rank, size, leave):
    """One step, in which the last worker leaves before its forward or backward."""
    patience = datetime.timedelta(seconds=3)
    group = distributed.new_group(timeout=patience) if leave[0] == "sleep" else None
    layer, x = SyncBatchNorm(3, process_group=group), torch.ones(4, 3).requires_grad_()
    layer(x).sum().backward()  # all have met
    start = time.monotonic()
    try:
        if rank == size - 1 and leave[0] != "backward":
            leave[1]()
        y = layer(x)
        if rank == size - 1:
            leave[1]()
        y.sum().backward()
    except RuntimeError as error:
        return str(error), str(error.__cause__), time.monotonic() - start
    return "no error", "", time.monotonic() - start


def dies_forward(rank, size):
    return lonely_step(rank, size, ("forward", lambda: os._exit(3)))


def dies_backward(rank, size):
    return lonely_step(rank, size, ("backward", lambda: os._exit(3)))


def sticks(rank, size):
    return lonely_step(rank, size, ("sleep", lambda: time.sleep(300)))


def main(name, rank, size, folder):
    torch.set_num_threads(1)
    log = os.open(folder / f"log{rank}", os.O_WRONLY | os.O_CREAT)
    os.dup2(log, 1), os.dup2(log, 2)
    distributed.init_process_group(
        "gloo",
        init_method=f"file://{folder}/meeting",
        rank=rank,
        world_size=size,
        timeout=datetime.timedelta(seconds=60),
    )
    found = globals()[name](rank, size)
    torch.save(found, folder / f"{rank}.pt")
    distributed.destroy_process_group()
