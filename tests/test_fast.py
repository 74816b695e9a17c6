"""The fast ways against the plain ones: values, derivatives, far means, odd input."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from company import pairs

import bnlib
import bnlib.fast as fast
from benchmarks import rivals

# Several blocks, whole or not: of many maps, of one larger than a block, of rows.
EDGES = [(16, 80, 30, 30), (2, 12, 300, 300), (5, 4, 1, 70_000), (41, 3_504)]


@pairs(
    shape=EDGES,
    dtype=["float32", "float64"],
    name=["batch_norm", "layer_norm", "rms_norm", "group_norm"],
)
def test_large_results_equal_the_reference(name, shape, dtype):
    """More values than a block has."""
    rng = np.random.default_rng(0)
    x, dy = rng.normal(size=(2, *shape)).astype(dtype)
    size = shape[-1] if name in ("layer_norm", "rms_norm") else shape[1]
    affine = rng.normal(size=(1 if name == "rms_norm" else 2, size)).astype(dtype)
    groups = size // (3 if size % 4 else 4)
    options = {"num_groups": groups} if name == "group_norm" else {}
    a = run(fast, name, x, dy, affine, options)
    b = run(
        bnlib, name, x.astype(float), dy.astype(float), affine.astype(float), options
    )
    for mine, wanted in zip(a, b, strict=True):
        off = abs(mine - wanted).max() / abs(wanted).max()
        assert off < (5e-6 if dtype == "float32" else 1e-13) and mine.dtype == dtype


@pytest.mark.parametrize("scale", [1e-17, 1e-12, 1e12, 1e17])
@pytest.mark.parametrize("name", ["batch_norm", "layer_norm"])
def test_deviations_of_any_size(name, scale):
    """Where float32 coefficients would leave their range, float64 takes over."""
    rng = np.random.default_rng(0)
    x, dy = rng.normal(size=(2, 16, 4, 9, 9)).astype("float32")
    x = (x * np.float32(scale)).astype("float32")
    wide = x.astype(float), dy.astype(float)
    a = run(fast, name, x, dy, [], {"eps": 0.0})
    b = run(bnlib, name, *wide, [], {"eps": 0.0})
    for mine, wanted in zip(a, b, strict=True):
        np.testing.assert_allclose(
            mine, wanted, rtol=1e-4, atol=2e-5 * abs(wanted).max()
        )


# --- arrays ---------------------------------------------------------------------------

FUNCTIONS = {
    "batch_norm": ({}, 2),
    "instance_norm": ({}, 2),
    "group_norm": ({"num_groups": 2}, 2),
    "layer_norm": ({}, 2),
    "rms_norm": ({}, 1),
}
ARRAYS = [(6, 4), (1, 4, 9), (40, 4, 3), (3, 4, 20, 20), (2, 4, 3, 4, 5), (300, 4, 17)]
# Those that take the shape: instance norm needs positions.
CASES = [(n, s) for n in FUNCTIONS for s in ARRAYS if n != "instance_norm" or s[2:]]
CENTRED = [name for name in FUNCTIONS if name != "rms_norm"]  # which subtract a mean


def arrays(name, shape, dtype="float64", mean=0.0, given=True):
    rng = np.random.default_rng(0)
    x = (rng.normal(size=shape) + mean).astype(dtype)
    dy = rng.normal(size=shape).astype(dtype)
    size = shape[-1] if name in ("layer_norm", "rms_norm") else shape[1]
    options, count = FUNCTIONS[name]
    affine = rng.normal(size=(count, size)).astype(dtype) if given else [None] * count
    return x, dy, list(affine), options


def run(library, name, x, dy, affine, options):
    y, cache = getattr(library, name)(x, *affine, **options)
    return [y, *getattr(library, f"{name}_backward")(dy, cache)]


@pairs(case=CASES, given=[True, False], order=["C", "F"])
def test_arrays_equal_the_reference(case, given, order):
    name, shape = case
    x, dy, affine, options = arrays(name, shape, given=given, mean=0.5)
    x, dy = np.asarray(x, order=order), np.asarray(dy, order=order)
    before = x.copy(), dy.copy()
    a, b = (run(library, name, x, dy, affine, options) for library in (fast, bnlib))
    for mine, wanted in zip(a, b, strict=True):
        assert mine.dtype == wanted.dtype and mine.shape == wanted.shape
        np.testing.assert_allclose(mine, wanted, rtol=1e-10, atol=1e-10)
    assert (x == before[0]).all() and (dy == before[1]).all()


FAR = [
    (name, shape, mean)
    for name in FUNCTIONS
    for shape in ((64, 12), (300_000, 2), (8, 4, 30, 30), (300, 4, 17))
    for mean in ((0.0, 3.0, 1e4, 1e5, 1e6) if name in CENTRED else (0.0,))
    if name != "instance_norm" or shape[2:]
]


@pytest.mark.parametrize("case", FAR)
def test_arrays_are_exact_at_any_mean(case):
    name, shape, mean = case
    x, _, _, options = arrays(name, shape, "float32", mean)
    y, _ = getattr(fast, name)(x, **options)
    wanted, _ = getattr(bnlib, name)(x.astype(float), **options)
    assert abs(y - wanted).max() < 5e-6 and y.dtype == np.float32


class Sub(np.ndarray):
    """An array that the blocks are not for."""


ODD = {
    "tensor": torch.from_numpy,
    "subclass": lambda a: a.view(Sub),
}


@pairs(name=CENTRED, mean=[0.0, 1e4, 1e6], odd=list(ODD))
def test_what_is_unusual_keeps_its_digits(name, mean, odd):
    x, dy, affine, options = arrays(name, (16, 4, 30, 30), "float32", mean)
    x[0, :, 0, 0] += 3  # a first value that is not the nearest to the mean
    given = ODD[odd](x), ODD[odd](dy), [ODD[odd](p) for p in affine]
    mine = run(fast, name, *given, options)
    wide = x.astype(float), dy.astype(float), [p.astype(float) for p in affine]
    wanted = run(bnlib, name, *wide, options)
    for a, b in zip(mine, wanted, strict=True):
        assert abs(np.asarray(a) - b).max() < 5e-6 * max(1, abs(b).max())
    constant, beta = ODD[odd](np.full_like(x, mean + 0.1)), ODD[odd](affine[1])
    y, _ = getattr(fast, name)(constant, None, beta, **options)
    shape = (-1,) if name == "layer_norm" else (1, -1, 1, 1)
    assert (np.asarray(y) == np.asarray(beta).reshape(shape)).all()


@pairs(name=CENTRED, value=[0.1, -1234.567])
def test_a_constant_array_gives_exactly_beta(name, value):
    for shape in ARRAYS[1:]:
        x, _, (_, beta), options = arrays(name, shape, "float32")
        y, _ = getattr(fast, name)(np.full_like(x, value), None, beta, **options)
        last = name == "layer_norm"
        wanted = beta if last else beta.reshape(1, -1, *[1] * (len(shape) - 2))
        assert (y == wanted).all()


@pytest.mark.parametrize("name", FUNCTIONS)
def test_what_is_unusual_is_the_reference(name):
    for convert in (torch.from_numpy, lambda a: a.astype("float16")):
        x, dy, affine, options = arrays(name, (3, 4, 20, 20))
        x, dy, *affine = (convert(a) for a in (x, dy, *affine))
        a, b = (run(library, name, x, dy, affine, options) for library in (fast, bnlib))
        for mine, wanted in zip(a, b, strict=True):
            assert type(mine) is type(wanted) and (mine == wanted).all()


BAD = {
    "nan": lambda x: np.where(x == x.max(), np.nan, x),
    "infinity": lambda x: np.where(x == x.max(), np.inf, x),
    "overflow": lambda x: x * 1e200,
    "integers": lambda x: x.astype(int),
    "empty": lambda x: x[:0],
    "list": lambda x: x.tolist(),
}


@pairs(name=list(FUNCTIONS), bad=list(BAD))
def test_bad_arrays_raise_what_the_reference_raises(name, bad):
    x, _, _, options = arrays(name, (3, 4, 20, 20))
    x = BAD[bad](x)
    with pytest.raises((TypeError, ValueError)) as wanted:
        getattr(bnlib, name)(x, **options)
    with pytest.raises(wanted.type, match=re.escape(str(wanted.value))):
        getattr(fast, name)(x, **options)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_bad_arguments_raise_what_the_reference_raises(name):
    x, dy, affine, options = arrays(name, (3, 4, 20, 20))
    wrong = affine[0][:-1], affine[0].astype("float32"), affine[0] * np.nan
    for gamma in wrong:
        with pytest.raises((TypeError, ValueError)) as wanted:
            getattr(bnlib, name)(x, gamma, **options)
        with pytest.raises(wanted.type, match=re.escape(str(wanted.value))):
            getattr(fast, name)(x, gamma, **options)
    for eps in (-1.0, float("nan"), None):
        with pytest.raises((TypeError, ValueError)):
            getattr(fast, name)(x, eps=eps, **options)
    _, cache = getattr(fast, name)(x, **options)
    backward = getattr(fast, f"{name}_backward")
    for bad in (dy[:-1], dy.astype("float32"), dy * np.nan, None):
        with pytest.raises((TypeError, ValueError), match="dy"):
            backward(bad, cache)
    with pytest.raises(ValueError, match="cache"):
        backward(dy, (x,))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_cache_goes_back_to_where_it_came_from(name):
    x, dy, affine, options = arrays(name, (3, 4, 20, 20))
    _, cache = getattr(fast, name)(x, *affine, **options)
    pair = {name, "group_norm" if name == "instance_norm" else name}
    pair |= {"instance_norm"} if name == "group_norm" else set()
    for other in FUNCTIONS.keys() - pair:
        with pytest.raises((TypeError, ValueError)):
            getattr(fast, f"{other}_backward")(dy, cache)


# --- the benchmark --------------------------------------------------------------------

RESULTS = Path(__file__).parent.parent / "benchmarks/results"


def test_what_is_compared_computes_the_same():
    rng = np.random.default_rng(0)
    x, dy = rng.normal(size=(2, 5, 3, 4, 6))
    gamma, beta = rng.normal(size=(2, 3))
    y, cache = bnlib.batch_norm(x, gamma, beta)
    wanted = [y, *bnlib.batch_norm_backward(dy, cache)]
    for rule in (rivals.staged, rivals.simplified):
        for mine, right in zip(rule(x, gamma, beta, dy), wanted, strict=True):
            np.testing.assert_allclose(mine, right, rtol=1e-9, atol=1e-11)
    for rule in (rivals.as_in_d2l, rivals.as_in_labml):
        leaves = [torch.from_numpy(a).requires_grad_() for a in (x, gamma, beta)]
        out = rule(*leaves)
        gradients = torch.autograd.grad(out, leaves, torch.from_numpy(dy))
        for mine, right in zip((out, *gradients), wanted, strict=True):
            np.testing.assert_allclose(mine.detach(), right, rtol=1e-9, atol=1e-11)


def test_the_kernels_that_networks_are_timed_with_are_a_batch_norm():
    x, dy = torch.randn(2, 4, 32, 9, 8)
    steps = []
    for layer in (rivals.KernelBatchNorm2d(32), torch.nn.BatchNorm2d(32)):
        leaf = x.clone().requires_grad_()
        y = layer(leaf)
        y.backward(dy)
        found = y.detach(), leaf.grad, layer.weight.grad, layer.bias.grad
        steps.append([*found, *layer.buffers()])
    for mine, wanted in zip(*steps, strict=True):
        torch.testing.assert_close(mine, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["layers", "layers_avx512", "networks"])
def test_a_committed_benchmark_says_how_it_came_about(name):
    about = json.loads((RESULTS / f"{name}.json").read_text())["provenance"]
    assert {"command", "config", "versions", "machine", "threads", "date"} <= set(about)
    assert about["config"]["environment"]["GLIBC_TUNABLES"]


def test_the_committed_errors_and_memory_are_those_promised():
    result = json.loads((RESULTS / "layers.json").read_text())
    assert result["provenance"]["threads"] == 1
    for row in result["error"].values():
        own = {n: e for n, e in row.items() if "bnlib.nn" in n or "bnlib.fast" in n}
        assert len(own) == 4 and max(own.values()) < 5e-6
    units = {name: cell["units"] for name, cell in result["memory"].items()}
    assert units["bnlib.nn.InPlaceABN"] <= 0.6 * units["torch.nn"]


def test_every_network_has_its_control_and_its_floor():
    """A second torch.nn beside the first, and no norm at all."""
    networks = json.loads((RESULTS / "networks.json").read_text())["networks"]
    cells = [
        c for layouts in networks.values() for t in layouts.values() for c in t.values()
    ]
    assert len(cells) >= 10
    for cell in cells:
        assert {"torch.nn", "torch.nn again", "bnlib.nn", "no norm"} <= set(
            cell["steps"]
        )
        assert cell["rounds"] >= 5
