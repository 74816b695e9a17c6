"""Measure ratios: forward and backward passes, memory and error, ours and others'.

    make bench                      prints the tables, about eight minutes
    python -m benchmarks --write    also writes benchmarks/results/cpu.json

All that is compared is timed in turns, in one process with one thread, each after a
call of its own that is not timed, as in a training loop; what is reported is the ratio
of medians of processor time. The allocator keeps large blocks, or
it would be what is measured. Other work on the machine still takes caches and bandwidth
away: then the ratios move by a tenth, or by much more.
"""

import argparse
import math
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PINNED = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "GLIBC_TUNABLES": "glibc.malloc.mmap_threshold=4294967296:"
    "glibc.malloc.trim_threshold=8589934592",
}
if __name__ == "__main__" and any(os.environ.get(k) != v for k, v in PINNED.items()):
    arguments = [sys.executable, "-m", "benchmarks", *sys.argv[1:]]
    os.execve(sys.executable, arguments, os.environ | PINNED)

import numba  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402

import bnlib  # noqa: E402
import bnlib.fast as fast  # noqa: E402
import bnlib.nn as ours  # noqa: E402
from benchmarks import rivals  # noqa: E402
from experiments import provenance  # noqa: E402

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
RESULT = Path(__file__).parent / "results" / "cpu.json"


def in_turns(functions, seconds, clock=time.process_time_ns):
    """Median time of each function; they take turns, in random order, for so long.

    Each runs twice, and the second time counts: the caches are then its own, and not
    those of whatever had the turn before.
    """
    order, chance = list(functions), random.Random(0)
    times = {name: [] for name in functions}
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times[next(iter(times))]) < 7:
        chance.shuffle(order)
        for name in order:
            functions[name]()
            start = clock()
            functions[name]()
            times[name].append((clock() - start) / 1e9)
    return {name: statistics.median(t) for name, t in times.items()}


def without_numba(function):
    """The same function, with nothing compiled."""

    def run(*args):
        found, fast.kernels = fast.kernels, lambda: None
        try:
            return function(*args)
        finally:
            fast.kernels = found

    return run


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


def layers(shape, layout=torch.contiguous_format):
    """Training steps of the layers, PyTorch's first."""
    x, dy = (t.to(memory_format=layout) for t in data(shape))
    found, end = {}, "" if layout is torch.contiguous_format else ", channels last"
    for name, library in LIBRARIES.items():
        norm = layer(library, shape)
        found[name + end] = torch_step(norm, x, dy, norm.parameters())
    norm = layer(ours, shape)
    step = torch_step(norm, x, dy, norm.parameters())
    return found | {f"bnlib.nn, no numba{end}": without_numba(step)}


def functions(shape):
    """Training steps of the functions of numpy arrays, and PyTorch's layer."""
    x, dy = (t.numpy() for t in data(shape))
    affine = np.ones(shape[1], x.dtype), np.zeros(shape[1], x.dtype)
    found = {n: numpy_step(m, "batch_norm", x, dy, *affine) for n, m in ARRAYS.items()}
    found["bnlib.fast, no numba"] = without_numba(found["bnlib.fast"])
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
    norms = {n: layer(lib, shape).eval() for n, lib in LIBRARIES.items()}
    with torch.no_grad():
        return in_turns({n: lambda m=m: m(x) for n, m in norms.items()}, 1.5)


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
        run["bnlib.fast, no numba"] = without_numba(run["bnlib.fast"])
        found[name] = relative(in_turns(run, seconds))
    return found


def relative(times, to="torch.nn"):
    return {name: t / times[to] for name, t in times.items()}


def errors(mean):
    """Largest error of y, float32, for deviation 1 about this mean."""
    x, dy = data((32, 16, 28, 28), mean)
    exact = rivals.as_in_d2l(x.double(), *torch.tensor([[1.0], [0.0]]).expand(2, 16))
    one, zero = torch.ones(16), torch.zeros(16)
    last = x.to(memory_format=torch.channels_last)
    compiled = torch.compile(layer(torch.nn, x.shape))
    arrays = x.numpy(), one.numpy(), zero.numpy()
    graph = torch.compile(layer(ours, x.shape))
    found = {
        "torch.nn": layer(torch.nn, x.shape)(x),
        "torch.nn, channels last": layer(torch.nn, x.shape)(last),
        "bnlib.nn": layer(ours, x.shape)(x),
        "bnlib.nn, channels last": layer(ours, x.shape)(last),
        "bnlib.nn, no numba": without_numba(layer(ours, x.shape))(x),
        "bnlib.nn, no numba, channels last": without_numba(layer(ours, x.shape))(last),
        "torch.compile": compiled(x),
        "torch.compile of bnlib.nn": graph(x),
        "d2l-style": rivals.as_in_d2l(x, one, zero),
        "labml-style": rivals.as_in_labml(x, one, zero),
        "CS231n-style, staged": rivals.staged(*arrays, dy.numpy())[0],
        "CS231n-style, simplified": rivals.simplified(*arrays, dy.numpy())[0],
        "bnlib.fast": fast.batch_norm(*arrays)[0],
        "bnlib.fast, no numba": without_numba(fast.batch_norm)(*arrays)[0],
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
    norms = {
        "torch.nn": Native(shape[1]),
        "bnlib.nn.InPlaceABN": ours.InPlaceABN(shape[1]),
    }
    run = {n: torch_step(m, x, dy, m.parameters()) for n, m in norms.items()}
    times = relative(in_turns(run, seconds))
    return {n: {"units": saved(m, shape), "ratio": times[n]} for n, m in norms.items()}


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
    run |= kernel_parts(x.numpy().reshape(n, c, 1, m))
    return relative(in_turns(run, seconds), "torch.nn forward")


def kernel_parts(x):
    """Our forward pass, with stores past the caches and without, and its first half."""
    kernels, parts = fast.kernels(), x.shape[1]
    one, zero = np.ones((parts, 1), x.dtype), np.zeros((parts, 1), x.dtype)
    y, stats = fast.room_for(x), np.empty((4, parts))
    beside = fast.room_for(np.empty((x.size + 16,), x.dtype))[1 : 1 + x.size]

    def forward(y):
        kernels.write_maps(x, one, zero, 1e-5, y, stats, 0, parts)

    return {
        "our moments": lambda: [kernels.moments(x, s) for s in range(parts)],
        "our forward": lambda: forward(y),
        "with ordinary stores": lambda: forward(beside.reshape(x.shape)),
    }


def both(shape, seconds, clock=time.process_time_ns):
    """Seconds that a training step takes, for either library."""
    x, dy = data(shape)
    norms = {n: layer(library, shape) for n, library in LIBRARIES.items()}
    run = {n: torch_step(m, x, dy, m.parameters()) for n, m in norms.items()}
    return in_turns(run, seconds, clock)


def growth(seconds):
    """Our training step as one side of the input grows: nanoseconds for each value, and
    in units of torch.nn's."""
    found = {}
    for axis, shapes in GROWTH.items():
        for shape in shapes:
            times = both(shape, seconds)
            cell = {"ns": times["bnlib.nn"] / math.prod(shape) * 1e9}
            cell["ratio"] = times["bnlib.nn"] / times["torch.nn"]
            found.setdefault(axis, {})["x".join(map(str, shape))] = cell
    return found


def scaling(shape, seconds):
    """Time that passes in a training step, with one and more threads; torch.nn = 1."""
    found = {}
    for threads in range(1, os.cpu_count() + 1)[:4]:
        torch.set_num_threads(threads)
        found[threads] = both(shape, seconds, time.perf_counter_ns)
    torch.set_num_threads(1)
    one = found[1]["torch.nn"]
    return {n: {name: t / one for name, t in row.items()} for n, row in found.items()}


FIRST = """
import time, torch, bnlib.nn
x = torch.randn(32, 64, 28, 28, requires_grad=True)
start = time.perf_counter()
bnlib.nn.BatchNorm2d(64)(x).sum().backward()
print(time.perf_counter() - start)
"""


def compiling():
    """Seconds of a first training step: compiling, and with what is found on disk."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in ("first", "again"):
            run = subprocess.run(
                [sys.executable, "-c", FIRST],
                env=os.environ | {"NUMBA_CACHE_DIR": folder},
                capture_output=True,
                text=True,
                check=True,
            )
            found[name] = float(run.stdout)
    return found


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
        "compiling": compiling(),
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
    for title in ("parts", "growth", "threads", "compiling"):
        print(f"\n{title}: {provenance.rounded(result[title], 3)}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=6.0, help="per comparison")
    parser.add_argument("--write", action="store_true", help="replace the results file")
    options = parser.parse_args()
    torch.set_num_threads(1)
    start = time.perf_counter()
    result = measure(options.seconds)
    show_rest(result)
    if options.write:
        config = {"seconds": options.seconds, "shapes": [list(s) for s in SHAPES]}
        config |= {"environment": PINNED}
        about = provenance.provenance(
            "python -m benchmarks --write", config, [0], [], start
        )
        about["cpu"] = torch.backends.cpu.get_cpu_capability()
        about["versions"]["numba"] = numba.__version__
        provenance.write(RESULT, provenance.rounded({"provenance": about, **result}, 3))


if __name__ == "__main__":
    main()
