"""Isolated layers and functions: forward and backward, memory and error, torch.nn = 1.

One thread and processor time. All that is compared is timed in turns, each after a call
of its own that is not timed, as in a training loop; what is reported is the ratio of
medians. Other work on the machine still takes caches and bandwidth away: then the
ratios move by a tenth, or by much more. What they are worth in a network, `networks`
says: a layer is alone with the caches here, and with the processor's other cores.
"""

import math
import os
import time

import numpy as np
import torch

import bnlib
import bnlib.fast as fast
import bnlib.nn as ours
from benchmarks import rivals, timing
from benchmarks.timing import relative
from experiments import provenance

SHAPES = [
    (32, 64, 56, 56),
    (64, 128, 28, 28),
    (32, 256, 14, 14),
    (256, 1024),
    (60, 100),
    (8, 2048, 7, 7),
]
GROWTH = {
    "N": [(n, 64, 28, 28) for n in (1, 4, 16, 64)],
    "C": [(16, c, 28, 28) for c in (4, 16, 64, 256)],
    "H·W": [(16, 64, s, s) for s in (7, 14, 28, 56)],
}


def in_turns(functions, seconds, clock=time.process_time):
    return timing.medians(timing.in_turns(functions, seconds, clock))


def layer(library, shape, **options):
    dims = max(len(shape) - 2, 1)
    return getattr(library, f"BatchNorm{dims}d")(shape[1], **options)


def data(shape, mean=0.0):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(shape, generator=generator) + mean
    return x, torch.randn(shape, generator=generator)


def torch_step(function, x, dy, parameters):
    """A training step of something that autograd differentiates."""
    x = x.detach().requires_grad_()

    def step():
        function(x).backward(dy)
        for leaf in (x, *parameters):
            leaf.grad = None

    return step


def numpy_step(library, name, x, dy, *parameters, **options):
    forward, backward = (getattr(library, name + end) for end in ("", "_backward"))

    def step():
        _, cache = forward(x, *parameters, **options)
        return backward(dy, cache)

    return step


def norms(shape, kernels=True):
    """The layers that are compared, PyTorch's first."""
    found = {name: layer(library, shape) for name, library in LIBRARIES.items()}
    if kernels and len(shape) == 4 and rivals.kernels():
        found["kernels"] = rivals.KernelBatchNorm2d(shape[1])
    return found


def layers(shape, layout=torch.contiguous_format, kernels=True):
    """Training steps of the layers."""
    x, dy = (t.to(memory_format=layout) for t in data(shape))
    first = layout is torch.contiguous_format
    found = norms(shape, kernels and first)
    end = "" if first else ", channels last"
    return {n + end: torch_step(m, x, dy, m.parameters()) for n, m in found.items()}


def functions(shape):
    """Training steps of the functions of numpy arrays, and PyTorch's layer."""
    x, dy = (t.numpy() for t in data(shape))
    affine = np.ones(shape[1], x.dtype), np.zeros(shape[1], x.dtype)
    found = {n: numpy_step(m, "batch_norm", x, dy, *affine) for n, m in ARRAYS.items()}
    for name in ("staged", "simplified"):
        rule = getattr(rivals, name)
        step = lambda rule=rule: rule(x, *affine, dy)  # noqa: E731
        found[f"CS231n-style, {name}"] = step
    return native(shape) | found


def native(shape):
    return {"torch.nn": layers(shape)["torch.nn"]}


def formulas(shape):
    """Training steps of formulas that autograd follows, and PyTorch's layer."""
    x, dy = data(shape)
    gamma, beta = (torch.full(shape[1:2], v, requires_grad=True) for v in (1.0, 0.0))
    norm = layer(torch.nn, shape)
    compiled = torch_step(torch.compile(norm), x, dy, norm.parameters())
    found = native(shape) | {"torch.compile": compiled}
    for name in ("d2l", "labml"):
        rule = getattr(rivals, f"as_in_{name}")
        run = lambda x, rule=rule: rule(x, gamma, beta)  # noqa: E731
        found[f"{name}-style"] = torch_step(run, x, dy, (gamma, beta))
    return found


def training(shape, seconds):
    """Every implementation's training step: ratio to torch.nn, share of the floor.

    Few at a time take turns, always with torch.nn: whoever fills the memory with
    temporaries does not disturb the others.
    """
    groups = [layers(shape), functions(shape), formulas(shape)]
    least, found = floor(shape, bandwidth()), {}
    if len(shape) == 4:
        last = layers(shape, torch.channels_last)
        groups.insert(1, native(shape) | last)
    for group in groups:
        times = in_turns(group, seconds)
        for name, ratio in relative(times).items():
            cell = {"ratio": ratio, "floor": least / times[name]}
            found.setdefault(name, cell)
    return found


def bandwidth():
    """Bytes a second of a copy much larger than the cache, read and written."""
    x, y = torch.ones(64, 1 << 18), torch.empty(64, 1 << 18)  # 64 MiB each
    return 2 * x.nbytes / in_turns({"copy": lambda: y.copy_(x)}, 2)["copy"]


def floor(shape, speed):
    """Seconds to move each of the five tensors once: x, y; dy, x, dx."""
    return 5 * 4 * math.prod(shape) / speed


def evaluation(shape):
    x, _ = data(shape)
    found = {n: m.eval() for n, m in norms(shape, kernels=False).items()}
    with torch.no_grad():
        return in_turns({n: lambda m=m: m(x) for n, m in found.items()}, 1.5)


LIBRARIES = {"torch.nn": torch.nn, "bnlib.nn": ours}
ARRAYS = {"bnlib.fast": fast, "bnlib, numpy": bnlib}


def others(seconds):
    """numpy layer, group and RMS norm against torch.nn's."""
    cases = {
        "layer_norm": ((32, 512, 768), torch.nn.LayerNorm(768), {}),
        "rms_norm": ((32, 512, 768), torch.nn.RMSNorm(768), {}),
        "group_norm": (
            (32, 64, 56, 56),
            torch.nn.GroupNorm(32, 64),
            {"num_groups": 32},
        ),
    }
    found = {}
    for name, (shape, norm, options) in cases.items():
        x, dy = data(shape)
        given = [p.detach().numpy() for p in norm.parameters()]
        arrays = x.numpy(), dy.numpy(), *given
        run = {
            "torch.nn": torch_step(norm, x, dy, norm.parameters()),
            "bnlib.fast": numpy_step(fast, name, *arrays, **options),
            "bnlib": numpy_step(bnlib, name, *arrays, **options),
        }
        found[name] = relative(in_turns(run, seconds))
    return found


def errors(mean):
    """Largest error of y, float32, for deviation 1 about this mean."""
    x, dy = data((32, 16, 28, 28), mean)
    exact = rivals.as_in_d2l(x.double(), *torch.tensor([[1.0], [0.0]]).expand(2, 16))
    one, zero = torch.ones(16), torch.zeros(16)
    last = x.to(memory_format=torch.channels_last)
    compiled = torch.compile(layer(torch.nn, x.shape))
    arrays = x.numpy(), one.numpy(), zero.numpy()
    graph = torch.compile(layer(ours, x.shape))
    found = {name: norm(x) for name, norm in norms(x.shape).items()} | {
        "torch.nn, channels last": layer(torch.nn, x.shape)(last),
        "bnlib.nn, channels last": layer(ours, x.shape)(last),
        "torch.compile": compiled(x),
        "torch.compile of bnlib.nn": graph(x),
        "d2l-style": rivals.as_in_d2l(x, one, zero),
        "labml-style": rivals.as_in_labml(x, one, zero),
        "CS231n-style, staged": rivals.staged(*arrays, dy.numpy())[0],
        "CS231n-style, simplified": rivals.simplified(*arrays, dy.numpy())[0],
        "bnlib.fast": fast.batch_norm(*arrays)[0],
        "bnlib, numpy": bnlib.batch_norm(*arrays)[0],
    }
    found = {n: torch.as_tensor(y).detach().double() for n, y in found.items()}
    return {n: error_of(y, exact) for n, y in found.items()}


def error_of(y, exact):
    error = (y - exact).abs().max().item()
    return error if np.isfinite(error) else "nan"


class Native(torch.nn.Sequential):
    def __init__(self, channels):
        super().__init__(torch.nn.BatchNorm2d(channels), torch.nn.LeakyReLU(0.01))


def saved(norm, shape):
    """Activations that autograd keeps, and the result, in units of the input."""
    kept = {}

    def pack(t):
        kept[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
        return t

    x, _ = data(shape)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        z = norm(x * torch.ones(1, requires_grad=True))
    kept[z.untyped_storage().data_ptr()] = z.untyped_storage().nbytes()
    kept.pop(x.untyped_storage().data_ptr(), None)  # the multiplication's, not ours
    return sum(kept.values()) / x.nbytes


def memory(shape, seconds):
    x, dy = data(shape)
    both = {
        "torch.nn": Native(shape[1]),
        "bnlib.nn.InPlaceABN": ours.InPlaceABN(shape[1]),
    }
    run = {n: torch_step(m, x, dy, m.parameters()) for n, m in both.items()}
    times = relative(in_turns(run, seconds))
    return {n: {"units": saved(m, shape), "ratio": times[n]} for n, m in both.items()}


def parts(shape, seconds):
    """What the training forward pass of torch.nn consists of, and what replaces it."""
    x, _ = data(shape)
    n, c, m = shape[0], shape[1], shape[2] * shape[3]
    one, zero = torch.ones(c), torch.zeros(c)
    run = {
        "torch.nn forward": lambda: torch.native_batch_norm(
            x, one, zero, None, None, True, 0.1, 1e-5
        ),
        "its moments": lambda: torch.batch_norm_update_stats(x, None, None, 0.1),
        "its transform": lambda: torch.native_batch_norm(
            x, one, zero, zero, one, False, 0.1, 1e-5
        ),
        "group-norm moments": lambda: torch.native_group_norm(
            x, None, None, n, c, m, c, 0.0
        ),
        "copy": lambda: x.clone(),
    }
    run |= kernel_parts(x.numpy().reshape(n, c, m))
    return relative(in_turns(run, seconds), "torch.nn forward")


def kernel_parts(x):
    """The loops' forward pass, past the caches and through them, and its first half."""
    kernels, channels = rivals.kernels(), x.shape[1]
    if kernels is None:
        return {}
    one, zero = np.ones(channels, x.dtype), np.zeros(channels, x.dtype)
    y, stats = torch.empty(x.shape).numpy(), np.empty((4, channels))
    beside = torch.empty(x.size + 1).numpy()[1:]  # does not begin a line of memory

    def forward(y):
        kernels.write_maps(x, one, zero, 1e-5, y, stats, 0, channels)

    return {
        "kernels' moments": lambda: [kernels.moments(x, s) for s in range(channels)],
        "kernels' forward": lambda: forward(y),
        "with ordinary stores": lambda: forward(beside.reshape(x.shape)),
    }


def growth(seconds):
    """Our training step as one side of the input grows: nanoseconds for each value, and
    in units of torch.nn's."""
    found = {}
    for axis, shapes in GROWTH.items():
        for shape in shapes:
            times = in_turns(layers(shape, kernels=False), seconds)
            cell = {"ns": times["bnlib.nn"] / math.prod(shape) * 1e9}
            cell["ratio"] = times["bnlib.nn"] / times["torch.nn"]
            found.setdefault(axis, {})["x".join(map(str, shape))] = cell
    return found


def scaling(shape, seconds):
    """Time that passes in a training step, with one and more threads; torch.nn = 1."""
    found = {}
    for threads in range(1, os.cpu_count() + 1)[:4]:
        torch.set_num_threads(threads)
        found[threads] = in_turns(layers(shape), seconds, time.perf_counter)
    torch.set_num_threads(1)
    one = found[1]["torch.nn"]
    return {n: {name: t / one for name, t in row.items()} for n, row in found.items()}


def measure(seconds):
    table, evaluated = {}, {}
    for shape in SHAPES:
        key = "x".join(map(str, shape))
        table[key] = training(shape, seconds)
        evaluated[key] = relative(evaluation(shape))["bnlib.nn"]
        show(key, table[key], evaluated[key])
    return {
        "training": table,
        "evaluation": evaluated,
        "others": others(seconds),
        "error": {f"{mean:g}": errors(mean) for mean in (0, 1e4, 1e6)},
        "memory": memory(SHAPES[0], seconds),
        "parts": parts(SHAPES[0], seconds / 2),
        "growth": growth(seconds / 3),
        "threads": scaling(SHAPES[0], seconds / 2),
    }


def show(key, row, evaluated):
    print(f"\n{key}: training step, torch.nn = 1; share of the bandwidth floor")
    for name, cell in row.items():
        print(f"  {name:34s}{cell['ratio']:8.2f}{cell['floor']:8.0%}")
    print(f"  bnlib.nn, evaluation      {evaluated:8.2f}", flush=True)


def show_rest(result):
    for name, row in result["others"].items():
        print(f"\n{name}: " + ", ".join(f"{n} {r:.2f}" for n, r in row.items()))
    print("\nlargest error of y, float32, deviation 1, mean 0 / 1e4 / 1e6")
    for name in result["error"]["0"]:
        row = (result["error"][m][name] for m in ("0", "10000", "1e+06"))
        print(f"  {name:34s}" + "".join(f"{float(e):10.1e}" for e in row))
    print("\nbatch norm and leaky ReLU: saved activations, training step")
    for name, cell in result["memory"].items():
        print(f"  {name:34s}{cell['units']:8.2f}{cell['ratio']:8.2f}")
    for title in ("parts", "growth", "threads"):
        print(f"\n{title}: {provenance.rounded(result[title], 3)}")


def main(seconds, write, environment):
    each = seconds / 4  # a layer's step is that much shorter than a network's
    torch.set_num_threads(1)
    start = time.perf_counter()
    result = measure(each)
    show_rest(result)
    if write:
        config = {"seconds": each, "shapes": [list(s) for s in SHAPES]}
        config |= {"environment": environment}
        timing.write("layers", seconds, config, start, result)
