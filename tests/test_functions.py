"""The array functions against PyTorch, finite differences and their own algebra.

A new normalizer joins by a row in NORMALIZERS; shapes, dtypes, both libraries and
gradients are then tested for it too. Bad input is in BAD, one row per mistake.
"""

import copy
import inspect
import itertools
import pickle
import re
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from company import pairs
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import bnlib
from bnlib import dmax_schedule, gradcheck, relative_error, rmax_schedule
from bnlib._declare import Number, guarded, takes


def running_of(x):
    """Running statistics for batch_renorm, of the library and dtype of x."""
    channels = np.arange(x.shape[1])
    stats = 0.3 * channels - 0.2, 0.5 + 0.4 * channels
    if isinstance(x, torch.Tensor):
        return [torch.tensor(a).to(x.dtype) for a in stats]
    return [a.astype(x.dtype) for a in stats]


def renorm(**limits):
    """Batch renormalization with fixed running statistics: a row of NORMALIZERS."""

    def forward(x, gamma=None, beta=None, *, eps=1e-5):
        running = running_of(x)
        return bnlib.batch_renorm(x, gamma, beta, *running, **limits, eps=eps)

    def reference(x, gamma, beta, eps):
        dims, shape = [0, *range(2, x.ndim)], [1, -1, *[1] * (x.ndim - 2)]
        running_mean, running_std = (a.reshape(shape) for a in running_of(x))
        var, mean = torch.var_mean(x, dims, correction=0, keepdim=True)
        std, (rmax, dmax) = torch.sqrt(var + eps), limits.values()
        with torch.no_grad():
            r = torch.clamp(std / running_std, 1 / rmax, rmax)
            d = torch.clamp((mean - running_mean) / running_std, -dmax, dmax)
        y = F.batch_norm(x, None, None, training=True, eps=eps) * r + d
        return y * gamma.reshape(shape) + beta.reshape(shape)

    return forward, bnlib.batch_renorm_backward, reference


def _rms_norm(x, gamma=None, beta=None, *, eps=1e-5):
    """RMS norm over axis 1, which has no beta, with one added: as the others here."""
    y, cache = bnlib.rms_norm(x, gamma, axes=1, eps=eps)
    return y if beta is None else y + beta.reshape(-1, *[1] * (x.ndim - 2)), cache


def _rms_norm_backward(dy, cache):
    dx, dgamma = bnlib.rms_norm_backward(dy, cache)
    return dx, dgamma, dy.sum(axis=(0, *range(2, dy.ndim)))


def _torch_rms_norm(x, gamma, beta, eps):
    last = x.movedim(1, -1)
    return (F.rms_norm(last, gamma.shape, gamma, eps) + beta).movedim(-1, 1)


# name: (forward, backward, the same in PyTorch)
NORMALIZERS = {
    "batch_norm": (
        bnlib.batch_norm,
        bnlib.batch_norm_backward,
        lambda x, gamma, beta, eps: F.batch_norm(
            x, None, None, gamma, beta, training=True, eps=eps
        ),
    ),
    "batch_renorm": renorm(rmax=3.0, dmax=5.0),
    "batch_renorm, tight": renorm(rmax=1.1, dmax=0.3),
    "batch_renorm, no limits": renorm(rmax=float("inf"), dmax=float("inf")),
    "batch_renorm as batch_norm": renorm(rmax=1, dmax=0),
    "layer_norm": (  # over the channels, at every position
        lambda *a, **options: bnlib.layer_norm(*a, axes=1, **options),
        bnlib.layer_norm_backward,
        lambda x, gamma, beta, eps: F.layer_norm(
            x.movedim(1, -1), gamma.shape, gamma, beta, eps
        ).movedim(-1, 1),
    ),
    "rms_norm": (_rms_norm, _rms_norm_backward, _torch_rms_norm),
    "group_norm": (
        lambda *a, **options: bnlib.group_norm(*a, num_groups=1, **options),
        bnlib.group_norm_backward,
        lambda x, gamma, beta, eps: F.group_norm(x, 1, gamma, beta, eps),
    ),
    "instance_norm": (
        bnlib.instance_norm,
        bnlib.instance_norm_backward,
        lambda x, gamma, beta, eps: F.instance_norm(
            x, weight=gamma, bias=beta, eps=eps
        ),
    ),
}
# Their forward pass has constants in it that finite differences move (chapter 13).
STOPPED = {"batch_renorm", "batch_renorm, tight", "batch_renorm, no limits"}
SHAPES = [(8, 3), (2, 5), (7, 1), (4, 3, 6), (1, 3, 6), (4, 3, 2, 5), (1, 1, 2, 2)]
SHAPES += [(3, 2, 2, 3, 2)]
DATA = {
    "plain": lambda rng, shape: rng.normal(size=shape),
    "mean 1e4": lambda rng, shape: rng.normal(1e4, 1, size=shape),
    "tiny": lambda rng, shape: rng.normal(size=shape) * 1e-4,
    "one constant channel": lambda rng, shape: _constant(rng.normal(size=shape)),
    "non-contiguous": lambda rng, shape: rng.normal(size=shape[::-1]).T,
    "every second row": lambda rng, shape: rng.normal(size=(2 * shape[0], *shape[1:]))[
        ::2
    ],
}


def _constant(x):
    x[:, 0] = 2.5
    return x


def problem(data, shape, dtype=np.float64, seed=0):
    """x, gamma, beta, dy of a given shape and kind."""
    rng = np.random.default_rng(seed)
    x = DATA[data](rng, shape).astype(dtype, copy=False)
    gamma, beta = (rng.normal(size=shape[1]).astype(dtype) for _ in range(2))
    return x, gamma, beta, rng.normal(size=shape).astype(dtype)


def torch_answers(reference, x, gamma, beta, dy, eps):
    leaves = [torch.tensor(a, requires_grad=True) for a in (x, gamma, beta)]
    y = reference(*leaves, eps)
    y.backward(torch.tensor(dy))
    return [a.detach().numpy() for a in (y, *(leaf.grad for leaf in leaves))]


every_normalizer = pytest.mark.parametrize("name", NORMALIZERS)
every_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)


def for_each(name, shape):
    """The shape, with positions where the normalizer has to average over some."""
    return shape if len(shape) > 2 or name != "instance_norm" else (*shape, 4)


@pairs(name=NORMALIZERS, data=DATA, shape=SHAPES, eps=[1e-5, 0.1])
def test_arrays_and_tensors_give_what_pytorch_gives(name, data, shape, eps):
    forward, backward, reference = NORMALIZERS[name]
    given = problem(data, for_each(name, shape))
    theirs = torch_answers(reference, *given, eps)
    for kind, convert in ((np.ndarray, np.asarray), (torch.Tensor, torch.tensor)):
        *leaves, dy = map(convert, given)
        y, cache = forward(*leaves, eps=eps)
        # At mean 1e4 both sides lose four digits to the subtraction of the mean.
        tolerance = 1e-8 if data == "mean 1e4" else 1e-11
        for a, b in zip((y, *backward(dy, cache)), theirs, strict=True):
            assert isinstance(a, kind) and a.shape == b.shape
            assert str(a.dtype).endswith("float64")
            np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


@every_normalizer
@every_shape
def test_backward_is_the_derivative_of_forward(name, shape):
    """By autograd; by finite differences too, where they see what the gradient sees."""
    forward, backward, _ = NORMALIZERS[name]
    x, gamma, beta, dy = problem("plain", for_each(name, shape))
    leaves = [torch.tensor(a, requires_grad=True) for a in (x, gamma, beta)]
    forward(*leaves)[0].backward(torch.tensor(dy))
    ours = backward(dy, forward(x, gamma, beta)[1])
    for mine, leaf in zip(ours, leaves, strict=True):
        np.testing.assert_allclose(mine, leaf.grad.numpy(), rtol=1e-10, atol=1e-12)
    if name not in STOPPED:
        gradcheck(
            lambda *a: forward(*a)[0],
            lambda dy, *a: backward(dy, forward(*a)[1]),
            x, gamma, beta,
        )  # fmt: skip


@every_normalizer
@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(np.float16, 2e-2), (np.float32, 2e-5), (np.float64, 1e-12)],
)
def test_dtype_is_kept_and_low_precision_stays_close(name, dtype, tolerance):
    forward, backward, reference = NORMALIZERS[name]
    x, gamma, beta, dy = problem("plain", (8, 3, 5), dtype)
    y, cache = forward(x, gamma, beta)
    ours = (y, *backward(dy, cache))
    exact = [a.astype(np.float64) for a in (x, gamma, beta, dy)]
    theirs = torch_answers(reference, *exact, 1e-5)
    for a, b in zip(ours, theirs, strict=True):
        assert a.dtype == dtype
        np.testing.assert_allclose(a, b, atol=tolerance * abs(b).max())
    wanted = getattr(torch, dtype.__name__)
    assert (
        forward(torch.tensor(x), *map(torch.tensor, (gamma, beta)))[0].dtype == wanted
    )


LOW = {
    "numpy float16": lambda a: a.astype("float16"),
    "torch float16": lambda a: torch.tensor(a).half(),
    "torch bfloat16": lambda a: torch.tensor(a).bfloat16(),
}


# Whose cache holds x as it came. The others keep what is rounded to half precision.
EXACT = "layer_norm", "rms_norm", "group_norm", "instance_norm"


@every_normalizer
@pytest.mark.parametrize("low", LOW)
def test_half_precision_is_the_float64_answer_rounded_once(name, low):
    forward, backward, _ = NORMALIZERS[name]
    x, gamma, _, dy = problem("plain", (16, 3, 40))
    if name == "batch_renorm, no limits":
        x = x / 100  # its r has no bound, and float16 has one
    half = [LOW[low](a) for a in (500 * x + 100, gamma, dy)]  # squares overflow float16
    wide = [a.double() if "torch" in low else a.astype(float) for a in half]
    (y, cache), (exact, kept) = forward(*half[:2]), forward(*wide[:2])
    ours, wanted = (y, *backward(half[2], cache)), (exact, *backward(wide[2], kept))
    pairs = list(zip(ours, wanted, strict=True))
    for a, b in pairs[:3] if name == "rms_norm" else pairs:  # which has no beta
        assert a.dtype == half[0].dtype
        a, b = torch.as_tensor(a), torch.as_tensor(b)
        near = 0 if name in EXACT else 2 * torch.finfo(a.dtype).eps * b.abs().max()
        assert ((a.double() - b.to(a.dtype).double()).abs() <= near).all()


@every_normalizer
@pytest.mark.parametrize("given", [(False, False), (True, False), (False, True)])
def test_parameters_left_out_are_one_and_zero(name, given):
    forward, backward, _ = NORMALIZERS[name]
    x, gamma, beta, dy = problem("plain", (6, 3, 2))
    some = [p if g else None for p, g in zip((gamma, beta), given, strict=True)]
    full = [gamma if given[0] else np.ones(3), beta if given[1] else np.zeros(3)]
    y, cache = forward(x, *some)
    wanted, wanted_cache = forward(x, *full)
    np.testing.assert_array_equal(y, wanted)
    for a, b in zip(backward(dy, cache), backward(dy, wanted_cache), strict=True):
        np.testing.assert_array_equal(a, b)


# --- the algebra of batch normalization, on whatever hypothesis comes up with ---------

sizes = st.tuples(st.integers(2, 6), st.integers(1, 4)) | st.tuples(
    st.integers(2, 4), st.integers(1, 3), st.integers(1, 4)
)
values = st.floats(-100, 100, width=64).map(lambda v: round(v, 3))
batches = sizes.flatmap(lambda shape: arrays(np.float64, shape, elements=values))


def over_batch(x):
    return (0, *range(2, x.ndim))


@settings(max_examples=60, deadline=None)
@given(batches, st.floats(1e-5, 1.0))
def test_outputs_have_mean_zero_and_a_known_mean_square(x, eps):
    xhat, _ = bnlib.batch_norm(x, eps=eps)
    axes, var = over_batch(x), x.var(axis=over_batch(x))
    np.testing.assert_allclose(xhat.mean(axis=axes), 0, atol=1e-9)
    square = (xhat**2).mean(axis=axes)
    np.testing.assert_allclose(square, var / (var + eps), atol=1e-9)


@settings(max_examples=60, deadline=None)
@given(batches, st.floats(0.1, 10), st.floats(-50, 50))
def test_invariance_to_shift_and_scale(x, scale, shift):
    y, _ = bnlib.batch_norm(x)
    moved, _ = bnlib.batch_norm(scale * x + shift, eps=scale**2 * 1e-5)
    np.testing.assert_allclose(moved, y, atol=1e-6)


@settings(max_examples=60, deadline=None)
@given(batches, st.randoms(use_true_random=False))
def test_the_order_of_examples_and_channels_does_not_matter(x, random):
    rows, columns = (random.sample(range(n), n) for n in x.shape[:2])
    y, _ = bnlib.batch_norm(x)
    mixed, _ = bnlib.batch_norm(x[rows][:, columns])
    np.testing.assert_allclose(mixed, y[rows][:, columns], atol=1e-9)


@settings(max_examples=60, deadline=None)
@given(batches, st.integers(0, 2**32 - 1))
def test_gradients_neither_shift_nor_stretch(x, seed):
    dy = np.random.default_rng(seed).normal(size=x.shape)
    _, cache = bnlib.batch_norm(x)
    xhat, std, _ = cache
    dx, dgamma, dbeta = bnlib.batch_norm_backward(dy, cache)
    axes, std = over_batch(x), std.reshape(-1)
    scale = abs(dy).sum() / std.min()
    np.testing.assert_allclose(dx.sum(axis=axes) / scale, 0, atol=1e-12)
    stretch = (dx * xhat).sum(axis=axes)
    rounding = 1e-15 * abs(x).max() / std.min()  # of the mean, in xhat
    np.testing.assert_allclose(
        stretch / scale, 1e-5 / std**3 * dgamma / scale, atol=1e-12 + rounding
    )
    np.testing.assert_allclose(dbeta, dy.sum(axis=axes))


@settings(max_examples=60, deadline=None)
@given(batches)
def test_nobody_is_farther_out_than_sqrt_m_minus_1(x):
    m = x.size / x.shape[1]
    y, _ = bnlib.batch_norm(x)
    assert abs(y).max() <= (m - 1) ** 0.5 + 1e-9


def test_one_value_per_channel_gives_beta_and_no_gradient():
    beta = np.array([3.0, -1.0])
    y, cache = bnlib.batch_norm(np.array([[5.0, 7.0]]), np.array([2.0, 2.0]), beta)
    np.testing.assert_array_equal(y[0], beta)
    dx, dgamma, dbeta = bnlib.batch_norm_backward(np.ones((1, 2)), cache)
    assert not dx.any() and not dgamma.any() and (dbeta == 1).all()


def test_moments_over_any_axes():
    x = np.random.default_rng(0).normal(size=(4, 3, 2, 5))
    for axes in itertools.chain([0, 1], [(0, 2, 3), (1, 2, 3), (2, 3)]):
        mean, var = bnlib.moments(x, axes)
        np.testing.assert_allclose(mean, x.mean(axis=axes, keepdims=True))
        np.testing.assert_allclose(var, x.var(axis=axes, keepdims=True))
    np.testing.assert_array_equal(bnlib.moments(np.array([0.0, 2, 4, 6]))[1], [5.0])


def test_gamma_and_beta_can_restore_the_input():
    x = np.random.default_rng(0).normal(size=(5, 3))
    mean, var = bnlib.moments(x)
    xhat = bnlib.normalize(x, mean, var)
    restored = bnlib.affine(xhat, (var + 1e-5) ** 0.5, mean)
    np.testing.assert_allclose(restored, x, atol=1e-14)


@pytest.mark.parametrize("shape", [(6, 3), (4, 3, 5), (2, 3, 4, 4)], ids=str)
@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_inference_and_running_statistics_agree_with_torch(shape, library):
    x, gamma, beta, _ = problem("plain", shape)
    mean, var = np.random.default_rng(1).uniform(0.5, 2, size=(2, 3))
    wanted = [torch.tensor(a) for a in (mean, var)]
    F.batch_norm(torch.tensor(x), *wanted, training=True, momentum=0.3)
    y = F.batch_norm(torch.tensor(x), *wanted, *map(torch.tensor, (gamma, beta)))
    arrays = (x, gamma, beta, mean, var)
    if library == "torch":
        arrays = [torch.tensor(a) for a in arrays]
    x, gamma, beta, mean, var = arrays
    copies = np.asarray(mean).copy(), np.asarray(var).copy()
    stats = bnlib.update_running(mean, var, x, 0.3)
    for a, b in zip(stats, wanted, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)
    ours = bnlib.batch_norm_inference(x, gamma, beta, *stats)
    np.testing.assert_allclose(ours, y, rtol=1e-11, atol=1e-11)
    for a, b in zip((mean, var), copies, strict=True):  # nothing changed in place
        np.testing.assert_array_equal(np.asarray(a), b)


@pytest.mark.parametrize("missing", [(), (1,), (2,), (3,), (1, 2, 3)], ids=str)
def test_folding_a_linear_layer_is_exact(missing):
    rng = np.random.default_rng(0)
    u, weight = rng.normal(size=(6, 5)), rng.normal(size=(3, 5))
    bias, gamma, beta, mean = rng.normal(size=(4, 3))
    var = rng.uniform(0.5, 2, size=3)
    some = [None if k in missing else p for k, p in enumerate((0, bias, gamma, beta))]
    _, bias, gamma, beta = some
    z = u @ weight.T + (0 if bias is None else bias)
    wanted = bnlib.batch_norm_inference(z, gamma, beta, mean, var)
    w, b = bnlib.fold_linear(weight, bias, gamma, beta, mean, var)
    np.testing.assert_allclose(u @ w.T + b, wanted, atol=1e-12)


# --- batch renormalization ------------------------------------------------------------


def test_renorm_clips_both_ways_and_in_each_channel():
    x = np.array([[-1.0, -1, -1, 4], [1, 1, 1, 6]])
    mean, std = np.array([0.0, 9, -9, 5]), np.array([10.0, 1, 1, 0.1])
    _, cache = bnlib.batch_renorm(x, None, None, mean, std, rmax=4, dmax=3, eps=0)
    np.testing.assert_allclose(cache[3].ravel(), [0.25, 1, 1, 4])
    np.testing.assert_allclose(cache[4].ravel(), [0, -3, 3, 0])


def test_schedules_are_the_papers():
    steps = 0, 5_000, 15_000, 22_500, 25_000, 40_000, 10**7
    assert [rmax_schedule(k) for k in steps][::3] == [1, 2, 3]
    assert [rmax_schedule(k) for k in steps][1] == 1
    assert [dmax_schedule(k) for k in steps] == [0, 0, 2.5, 4.375, 5, 5, 5]
    assert bnlib.ramp(5, start=0, end=10, low=3, high=1) == 2


# --- bad input ------------------------------------------------------------------------


def _record(layer, batch):
    with bnlib.ActivationRecorder(layer).at(0):
        layer(batch)


class Series:
    """Looks like an array, as a column of a table does."""

    dtype, ndim, shape = np.dtype(float), 1, (3,)

    def __abs__(self):
        return GAMMA


X, GAMMA = np.arange(12.0).reshape(4, 3), np.ones(3)
NAN = np.where(X == 5, np.nan, X)
HUGE = np.full((4, 3), 3e200) * np.array([[1], [-1], [1], [-1]])
HALF = np.array([[1000], [-1000]], np.float16)
BAD = {
    "vector": (
        lambda: bnlib.batch_norm(GAMMA),
        ValueError,
        r"x must have shape \(N, C\) or \(N, C, ...\), got shape \(3,\)",
    ),
    "NaN": (lambda: bnlib.batch_norm(NAN), ValueError, "NaN or infinity in 1 values"),
    "long gamma": (
        lambda: bnlib.batch_norm(X, np.ones(4)),
        ValueError,
        r"gamma must have shape \(3,\) because x has 3 channels in axis 1, got \(4,\)",
    ),
    "gamma of a third library": (
        lambda: bnlib.batch_norm(X, Series()),
        TypeError,
        "gamma is from test_functions, x from numpy; use one library",
    ),
    "negative variance": (
        lambda: bnlib.normalize(X, X[:1], -np.ones((1, 3))),
        ValueError,
        "var must be >= 0, got a negative value; did you pass the mean",
    ),
    "moments of a number": (
        lambda: bnlib.moments(np.array(3.0)),
        ValueError,
        r"x must have shape \(N,\) or \(N, ...\), got shape \(\)",
    ),
    "0/0": (
        lambda: bnlib.batch_norm(np.ones((4, 3)), eps=0),
        ValueError,
        "a feature does not vary and eps is 0, so 0/0; pass a positive eps",
    ),
    "overflow": (
        lambda: bnlib.batch_norm(HUGE),
        ValueError,
        "the variance of x overflows float64; convert x",
    ),
    "layer norm over no axis": (
        lambda: bnlib.layer_norm(X, axes=()),
        ValueError,
        r"axes must be different axes of x, shape \(4, 3\), got \(\); \(-1,\) is usual",
    ),
    "layer norm over an axis that is not there": (
        lambda: bnlib.layer_norm(X, axes=(2,)),
        ValueError,
        r"axes must be different axes of x, shape \(4, 3\), got \(2,\)",
    ),
    "layer norm over an axis twice": (
        lambda: bnlib.layer_norm(X, axes=(1, -1)),
        ValueError,
        r"axes must be different axes of x, shape \(4, 3\), got \(1, -1\)",
    ),
    "RMS norm over axes in floats": (
        lambda: bnlib.rms_norm(X, axes=(1.0,)),
        TypeError,
        r"axes must be a tuple of integers, got \(1.0,\); try \(-1,\)",
    ),
    "RMS norm over True": (
        lambda: bnlib.rms_norm(X, axes=(True,)),
        TypeError,
        "axes must be a tuple of integers",
    ),
    "layer norm with gamma per example": (
        lambda: bnlib.layer_norm(X, np.ones(4)),
        ValueError,
        r"gamma must have shape \(3,\) because x \(4, 3\) has it along axes \(1,\)",
    ),
    "RMS norm of zero by zero": (
        lambda: bnlib.rms_norm(0 * X, eps=0),
        ValueError,
        "an example of x is zero and eps is 0, so 0/0; pass a positive eps",
    ),
    "RMS norm that overflows": (
        lambda: bnlib.rms_norm(HUGE),
        ValueError,
        "the mean square of x overflows float64; convert x",
    ),
    "groups that do not divide": (
        lambda: bnlib.group_norm(X, num_groups=2),
        ValueError,
        r"num_groups must divide the 3 channels of x, got 2; possible: \[1, 3\]",
    ),
    "no groups": (
        lambda: bnlib.group_norm(X, num_groups=0),
        ValueError,
        "num_groups must divide the 3 channels of x, got 0",
    ),
    "half a group": (
        lambda: bnlib.group_norm(X, num_groups=1.5),
        TypeError,
        "num_groups must be an integer, got 1.5; 32 is usual",
    ),
    "instance norm without positions": (
        lambda: bnlib.instance_norm(X),
        ValueError,
        r"x must have shape \(N, C, L\) or .*, with positions, got shape \(4, 3\)",
    ),
    "whitening images": (
        lambda: bnlib.covariance(np.ones((2, 3, 4))),
        ValueError,
        r"x must have shape \(N, C\), got \(2, 3, 4\); flatten",
    ),
    "singular covariance": (
        lambda: bnlib.zca_whiten(X, eps=0),
        ValueError,
        r"the covariance of x \(4, 3\) is singular; pass a positive eps",
    ),
    "not a covariance": (
        lambda: bnlib.newton_schulz(X),
        ValueError,
        r"sigma must have shape \(4, 4\) because a covariance is square",
    ),
    "zero covariance": (
        lambda: bnlib.newton_schulz(np.zeros((2, 2))),
        ValueError,
        "positive, finite trace, got 0.0; add eps",
    ),
    "not symmetric": (
        lambda: bnlib.newton_schulz(np.array([[1.0, 0.5], [0.0, 1.0]])),
        ValueError,
        "sigma must be symmetric",
    ),
    "indefinite": (
        lambda: bnlib.newton_schulz(np.diag([3.0, -2.0]), iterations=50),
        ValueError,
        "sigma is not positive definite",
    ),
    "negative iterations": (
        lambda: bnlib.newton_schulz(np.eye(2), iterations=-1),
        ValueError,
        "iterations must be a whole number from 0 to 10,000, got -1",
    ),
    "overflowing covariance": (
        lambda: bnlib.covariance(X * 1e200),
        ValueError,
        "covariance of x overflows float64",
    ),
    "comparing shapes": (
        lambda: bnlib.relative_error(np.ones((3, 1)), np.ones((1, 3))),
        ValueError,
        r"numeric must have shape \(3, 1\)",
    ),
    "recording an LSTM": (
        lambda: _record(torch.nn.LSTM(3, 2), torch.ones(1, 4, 3)),
        TypeError,
        "output must be one tensor, got tuple",
    ),
    "comparing NaN": (
        lambda: bnlib.relative_error(np.zeros(2), np.array([np.nan, 1])),
        ValueError,
        "numeric must be finite",
    ),
    "updating with one example": (
        lambda: bnlib.update_running(GAMMA, GAMMA, X[:1]),
        ValueError,
        r"x \(1, 3\) has one value per channel; use at least two",
    ),
    "folding other outputs": (
        lambda: bnlib.fold_linear(X, None, None, None, GAMMA, GAMMA),
        ValueError,
        r"mean must have shape \(4,\) because weight has 4 outputs",
    ),
    "rmax below 1": (
        lambda: bnlib.batch_renorm(X, None, None, GAMMA, GAMMA, rmax=0.5, dmax=0),
        ValueError,
        "rmax must be a number >= 1, got 0.5; 3 is usual, 1 turns the correction off",
    ),
    "negative dmax": (
        lambda: bnlib.batch_renorm(X, None, None, GAMMA, GAMMA, rmax=1, dmax=-1),
        ValueError,
        "dmax must be a number >= 0, got -1; 5 is usual, 0 turns",
    ),
    "a schedule for the function": (
        lambda: bnlib.batch_renorm(
            X, None, None, GAMMA, GAMMA, rmax=rmax_schedule, dmax=0
        ),
        ValueError,
        "rmax must be a number >= 1, got <function",
    ),
    "dmax as bool": (
        lambda: bnlib.batch_renorm(X, None, None, GAMMA, GAMMA, rmax=1, dmax=False),
        ValueError,
        "dmax must be a number >= 0, got False",
    ),
    "ramp that goes back": (
        lambda: bnlib.ramp(3, start=5, end=5, low=0, high=1),
        ValueError,
        "end must be after start = 5, got 5",
    ),
    "drift of a matrix": (lambda: bnlib.drift(X), ValueError, r"\(steps, 3, C\)"),
    "drift of a dead unit": (
        lambda: bnlib.drift(np.ones((2, 3, 1))),
        ValueError,
        "1 units are constant",
    ),
    "recording a function": (
        lambda: bnlib.ActivationRecorder(np.tanh),
        TypeError,
        "module must be a torch.nn.Module, got ufunc",
    ),
    "no axes": (lambda: bnlib.layer_norm(X, axes=None), TypeError, "got None; try"),
    "a variance that half precision cannot hold": (
        lambda: bnlib.moments(np.array([[1000], [-1000]], np.float16)),
        ValueError,
        "moments of x overflows float16; convert x",
    ),
    "running statistics that cannot hold it": (
        lambda: bnlib.update_running(*np.ones((2, 1), np.float16), HALF),
        ValueError,
        "update_running of x overflows float16",
    ),
}


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # numpy's own, before our error
@pytest.mark.parametrize("case", BAD)
def test_bad_input_gets_the_documented_error(case):
    call, kind, message = BAD[case]
    with pytest.raises(kind, match=message):
        call()


# What else a function needs than its declared arrays, or in another form.
NEEDED = {"alpha": 0.5, "rmax": 3.0, "dmax": 5.0, "num_groups": 1, "size": 3}
SPECIAL = {"normalize_backward": {"axes": 0}, "newton_schulz": {"sigma": np.eye(3)}}
SIZES = {"N": (4,), "C": (3,), "D": (3,), "O": (4,), "I": (3,), "L": (5,), "...": (2,)}
DECLARED = [n for n in bnlib.__all__ if hasattr(getattr(bnlib, n), "declared")]


def sound(name, convert=np.asarray):
    """Arguments that a function takes, made from its declaration."""
    function, rng = getattr(bnlib, name), np.random.default_rng(0)
    given = dict(SPECIAL.get(name, {}))
    for argument, what in function.declared.items():
        layout = what.rstrip("?").partition(" >")[0] if isinstance(what, str) else ""
        if argument == "cache":
            forward = name.removesuffix("_backward")
            y, cache = getattr(bnlib, forward)(**sound(forward, convert))
            given |= {"dy": y, "cache": cache}
        elif argument in NEEDED:
            given[argument] = NEEDED[argument]
        elif layout and argument not in given:
            shape = sum((SIZES.get(letter, ()) for letter in layout.split()), ())
            shape = (3,) if layout == "axes" else shape
            shape = given[layout].shape if layout in given else shape
            given[argument] = convert(rng.uniform(1, 2, shape))
    return given


ARRAY = TypeError, "must be a numpy array or torch tensor, got"
# What an array may be instead: how it comes about, and what has to be said.
SPOILED = {
    "a list": (lambda a: a.tolist(), *ARRAY),
    "a number": (lambda a: 1.0, *ARRAY),
    "None": (lambda a: None, *ARRAY),
    "integers": (lambda a: a.astype(int), TypeError, "must hold .* got .*int64; conv"),
    "complex": (lambda a: a * 1j, TypeError, "must hold .* got .*complex128; take"),
    "empty": (lambda a: a[:0], ValueError, r"is empty, shape \(0.*; drop empty"),
    "NaN": (
        lambda a: np.where(a == a.max(), np.nan, a),
        ValueError,
        "must be finite, got NaN or infinity in .* find where they come from",
    ),
    "infinity": (lambda a: np.full_like(a, np.inf), ValueError, "must be finite"),
    # Of the second array and those behind it:
    "dtype": (
        lambda a: a.astype(np.float32),
        TypeError,
        "must have the dtype of .*float64, got .*float32; convert",
    ),
    "library": (torch.tensor, TypeError, "is from torch, .* numpy; use one library"),
    # Of those whose size another one has said:
    "size": (lambda a: np.concatenate([a, a], -1), ValueError, "must have shape"),
    "axes": (lambda a: a[None], ValueError, "must have shape"),
    # Of those that are declared so:
    "zero": (lambda a: 0 * a, ValueError, "must be > 0, got a value that is not"),
    "negative": (lambda a: -a, ValueError, "must be >=? 0, got a"),
}


ANY = "a list", "a number", "integers", "complex", "empty", "NaN", "infinity"


def ways_to_spoil(name):
    """Every array of a function with all that can be wrong with it."""
    declared = getattr(bnlib, name).declared
    arrays = [key for key, what in declared.items() if isinstance(what, str)]
    for argument in arrays:
        what, ways = declared[argument], [*ANY]
        ways += [] if what.endswith("?") else ["None"]
        ways += ["negative"] if " >" in what else []
        ways += ["zero"] if " > " in what else []
        if argument != arrays[0] or "cache" in declared:
            ways += ["dtype", "library"]
            ways += [] if what.startswith("...") else ["axes"]  # it broadcasts
            layout = what.partition(" >")[0]
            ways += (
                [] if layout.endswith("...") else ["size"]
            )  # any number of positions
        yield name, argument, ways


@pytest.mark.parametrize(
    ("name", "argument", "ways"), [w for name in DECLARED for w in ways_to_spoil(name)]
)
@pytest.mark.parametrize("convert", [np.asarray, torch.tensor])
def test_every_array_that_is_spoiled_is_named(name, argument, ways, convert):
    for way in ways:
        spoil, kind, message = SPOILED[way]
        given = sound(name, convert)
        getattr(bnlib, name)(**given)
        bad = spoil(np.asarray(given[argument]))
        if isinstance(bad, np.ndarray):
            bad = convert(bad)
        elif isinstance(bad, torch.Tensor) and convert is torch.tensor:
            continue  # of the same library
        with pytest.raises(kind, match=f"^{argument} {message}"):
            getattr(bnlib, name)(**given | {argument: bad})


NO_NUMBERS = None, "1e-5", True, float("nan"), float("inf"), np.ones(3)


@pytest.mark.parametrize("name", DECLARED)
def test_every_number_that_is_none_is_named(name):
    function = getattr(bnlib, name)
    for argument, what in function.declared.items():
        if isinstance(what, Number):
            for bad in (*NO_NUMBERS, what.low - 1, what.high + 1):
                message = rf"^{argument} must be a finite number in .* is usual"
                with pytest.raises(ValueError, match=message):
                    function(**sound(name) | {argument: bad})


KEPT = [n.removesuffix("_backward") for n in DECLARED if n.endswith("m_backward")]


@pytest.mark.parametrize("name", KEPT)
def test_a_cache_goes_back_to_where_it_came_from(name):
    backward, given = getattr(bnlib, f"{name}_backward"), sound(name)
    y, cache = getattr(bnlib, name)(**given)
    others = [
        getattr(bnlib, other)(**sound(other))[1] for other in KEPT if other != name
    ]
    for bad in (None, (y, cache), tuple(cache), *others):
        with pytest.raises(ValueError, match=f"^cache must be what {name} returned"):
            backward(y, bad)


def declared(**layouts):
    def formula(x, w=None, m=None, v=None):
        return x, w, m, v

    return guarded(takes(**layouts)(formula))


def test_letters_agree_and_lay_parameters_along_their_axes():
    call = declared(x="N C ...", w="D C", m="N C", v="C?")
    x = np.ones((4, 3, 2))
    _, w, m, v = call(x, np.ones((5, 3)), x[..., 0], np.ones(3))
    assert (w.shape, m.shape, v.shape) == ((5, 3), (4, 3, 1), (1, 3, 1))
    with pytest.raises(ValueError, match=r"w must have shape \(5, 3\) because x has 3"):
        call(x, np.ones((5, 4)), x[..., 0])
    with pytest.raises(ValueError, match=r"m must have shape \(4, 3\) because x has 4"):
        call(x, np.ones((5, 3)), x[:2, :, 0])
    with pytest.raises(ValueError, match=r"v must have shape \(3,\) because x has 3"):
        call(x, np.ones((5, 3)), x[..., 0], np.ones(4))


@pytest.mark.parametrize(
    ("layouts", "message"),
    [
        ({"gama": "C"}, "formula has no argument gama"),
        *(({"x": bad}, "is no layout") for bad in ("C>=0", "C >= 1", "N,C", "NC", "")),
    ],
)
def test_a_declaration_that_cannot_be_meant_is_refused(layouts, message):
    with pytest.raises(TypeError, match=message):
        declared(**layouts)


def test_a_face_of_a_face_is_the_same_and_caches_are_pickled():
    again = guarded(bnlib.batch_norm)
    assert again.__doc__ == bnlib.batch_norm.__doc__
    _, cache = again(X, GAMMA)
    back = pickle.loads(pickle.dumps(cache))
    dx = bnlib.batch_norm_backward(X, back)[0]
    np.testing.assert_array_equal(dx, bnlib.batch_norm_backward(X, cache)[0])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_what_a_call_costs(dtype):
    """A dozen Python calls, numpy's own included: nothing is looked at twice."""
    calls, gamma = [], np.ones(100, dtype)
    x = np.random.default_rng(0).normal(size=(60, 100)).astype(dtype)
    sys.setprofile(lambda frame, event, _: calls.append(event))
    bnlib.batch_norm(x, gamma, gamma)
    sys.setprofile(None)
    assert calls.count("call") <= 12


@pytest.mark.parametrize(
    "copies", [copy.copy, copy.deepcopy, lambda f: pickle.loads(pickle.dumps(f))]
)
def test_public_functions_are_copied_and_pickled(copies):
    for name in bnlib.__all__:
        if inspect.isfunction(thing := getattr(bnlib, name)):
            assert copies(thing) is thing


@pytest.mark.parametrize("name", DECLARED)
def test_what_python_itself_says_of_a_call_stays(name):
    function = getattr(bnlib, name)
    assert inspect.signature(function) == inspect.signature(function.__wrapped__)
    with pytest.raises(TypeError, match=rf"{name}\(\) missing"):
        function()
    with pytest.raises(TypeError, match="unexpected keyword argument 'axis'"):
        function(X, axis=0)
    with pytest.raises(TypeError, match="positional argument"):
        function(*[X] * 9)
    documented = re.findall(r"^(\w+) : ", function.__doc__, re.M)
    assert sorted(documented) == sorted(function.declared)


# --- gradient checking ----------------------------------------------------------------


def xhat_of(x):
    return (x - x.mean(axis=0)) / (x.var(axis=0) + 1e-5) ** 0.5


def full(dy, x):
    std = (x.var(axis=0) + 1e-5) ** 0.5
    xhat = xhat_of(x)
    return (dy - dy.mean(axis=0) - xhat * (dy * xhat).mean(axis=0)) / std


WRONG = {
    "detached": lambda dy, x: dy / (x.var(axis=0) + 1e-5) ** 0.5,
    "no variance": lambda dy, x: (dy - dy.mean(axis=0)) / (x.var(axis=0) + 1e-5) ** 0.5,
    "zero": lambda dy, x: np.zeros_like(x),
    "sign": lambda dy, x: -full(dy, x),
    "slightly off": lambda dy, x: full(dy, x) * (1 + 1e-5),
}


@pytest.fixture
def x():
    return np.random.default_rng(0).normal(size=(5, 3))


def test_gradcheck_passes_a_right_gradient(x):
    (error,) = gradcheck(xhat_of, full, x)
    assert 0 < error < 1e-8


@pytest.mark.parametrize("mistake", WRONG)
@pytest.mark.parametrize("seed", range(3))
def test_gradcheck_finds_every_wrong_gradient(x, mistake, seed):
    with pytest.raises(AssertionError, match="gradient of input 0 is wrong"):
        gradcheck(xhat_of, WRONG[mistake], x, seed=seed)


@pytest.mark.parametrize("seed", range(3))
def test_gradcheck_does_not_draw_the_inputs_it_is_given(seed):
    # The pull of an upstream gradient equal to x is a stretch, which batch norm erases.
    x = np.random.default_rng(seed).normal(size=(5, 3))
    with pytest.raises(AssertionError, match="gradient of input 0 is wrong"):
        gradcheck(xhat_of, WRONG["slightly off"], x, seed=seed)


@pytest.mark.parametrize("rtol", [float("nan"), float("inf"), -1.0])
def test_gradcheck_refuses_a_limit_that_nothing_exceeds(x, rtol):
    with pytest.raises(ValueError, match="rtol must be a finite number"):
        gradcheck(xhat_of, full, x, rtol=rtol)


def test_gradcheck_refuses_to_test_nothing(x):
    with pytest.raises(ValueError, match=r"this check cannot fail.*use a random dy"):
        gradcheck(xhat_of, WRONG["zero"], x, dy=np.ones_like(x))


def test_gradcheck_accepts_a_gradient_that_is_really_zero(x):
    # The bias in front of a normalization: zero for every upstream gradient.
    errors = gradcheck(
        lambda b: xhat_of(x + b), lambda dy, b: np.zeros_like(b), np.ones(3)
    )
    assert errors == (0.0,)


@pytest.mark.parametrize("offset", [1e8, 1e9, 1e12])
def test_gradcheck_says_when_rounding_drowns_the_gradient(x, offset):
    for forward in (lambda a: a + offset, lambda a: np.r_[offset, a.ravel()]):
        with pytest.raises((ValueError, AssertionError)):
            gradcheck(forward, lambda dy, a: 0 * a, x)


@pytest.mark.parametrize("factor", [-1, 0, 2])
@pytest.mark.parametrize(("offset", "slope"), [(1e5, 1e-4), (1e3, 1e-6)])
def test_gradcheck_never_passes_a_wrong_gradient_below_its_noise(
    x, factor, offset, slope
):
    with pytest.raises((ValueError, AssertionError)):
        gradcheck(lambda a: offset + slope * a, lambda dy, a: factor * slope * dy, x)


def test_gradcheck_takes_lists_and_names_what_is_missing(x):
    gradcheck(lambda a, b: a * b, lambda dy, a, b: [dy * b, dy * a], x, x + 1)
    with pytest.raises(ValueError, match="gradient 0 must be finite, got NaN"):
        gradcheck(xhat_of, lambda dy, a: a * np.nan, x)
    with pytest.raises(TypeError, match="gradient 0 must be a numpy array"):
        gradcheck(xhat_of, lambda dy, a: None, x)
    with pytest.raises(TypeError, match="float64 numpy array"):
        gradcheck(lambda a: a, lambda dy, a: dy, torch.ones(3).double())
    with pytest.raises(ValueError, match="the output of forward must be finite"):
        gradcheck(lambda a: np.where(a > 1, np.nan, a), lambda dy, a: dy, x)
    with pytest.raises(ValueError, match="step must be"):
        bnlib.numerical_gradient(lambda a: a, x, step=0)


def test_gradcheck_counts_and_measures_what_backward_returns(x):
    with pytest.raises(ValueError, match="got 2 for 1 inputs"):
        gradcheck(xhat_of, lambda dy, x: (dy, dy), x)
    with pytest.raises(ValueError, match=r"gradient 0 must have shape \(5, 3\)"):
        gradcheck(xhat_of, lambda dy, x: dy[0], x)


def test_gradcheck_survives_functions_that_return_their_argument(x):
    assert gradcheck(lambda a: a, lambda dy, a: dy, x)[0] < 1e-9


@pytest.mark.parametrize("value", [np.ones(3, np.float32), torch.ones(3).double()])
def test_numerical_gradient_wants_float64_arrays(value):
    with pytest.raises(TypeError, match="float64 numpy array"):
        bnlib.numerical_gradient(lambda a: a, value)


def test_numerical_gradient_reaches_nine_digits_far_from_zero():
    x = np.array([1e4, -1e4, 3.0])
    got = bnlib.numerical_gradient(lambda a: a**2, x)
    np.testing.assert_allclose(got, 2 * x, rtol=1e-6)


def test_relative_error_of_zeros_is_zero():
    assert relative_error(np.zeros(3), np.zeros(3)) == 0
    assert relative_error(np.zeros(3), np.ones(3)) == 1


# --- whitening ------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(20, 4), (9, 1), (200, 30)], ids=str)
def test_whitened_data_has_the_identity_as_covariance(shape):
    rng = np.random.default_rng(0)
    x = rng.normal(size=shape) @ rng.normal(size=(shape[1], shape[1])) + 10
    y, _ = bnlib.zca_whiten(x, eps=0)
    np.testing.assert_allclose(bnlib.covariance(y), np.eye(shape[1]), atol=1e-8)
    np.testing.assert_allclose(y.mean(axis=0), 0, atol=1e-10)


@pytest.mark.parametrize("shape", [(6, 3), (5, 1), (4, 6)], ids=str)
def test_whitening_backward_is_the_derivative(shape):
    x = np.random.default_rng(1).normal(size=shape)
    gradcheck(
        lambda x: bnlib.zca_whiten(x, eps=1e-2)[0],
        lambda dy, x: bnlib.zca_whiten_backward(dy, bnlib.zca_whiten(x, eps=1e-2)[1]),
        x,
    )


def test_whitening_backward_where_eigenvalues_coincide():
    x = np.array([[1.0, 1], [1, -1], [-1, 1], [-1, -1]])
    gradcheck(
        lambda x: bnlib.zca_whiten(x)[0],
        lambda dy, x: bnlib.zca_whiten_backward(dy, bnlib.zca_whiten(x)[1]),
        x,
    )


def test_whitening_one_feature_is_batch_norm():
    x, _, _, dy = problem("plain", (7, 1))
    (y, cache), (wanted, bn_cache) = bnlib.zca_whiten(x), bnlib.batch_norm(x)
    np.testing.assert_allclose(y, wanted, atol=1e-13)
    dx = bnlib.zca_whiten_backward(dy, cache)
    np.testing.assert_allclose(dx, bnlib.batch_norm_backward(dy, bn_cache)[0])


def test_covariance_agrees_with_numpy_and_speaks_torch():
    x, *_ = problem("plain", (8, 3))
    np.testing.assert_allclose(bnlib.covariance(x), np.cov(x.T, bias=True))
    np.testing.assert_allclose(bnlib.covariance(torch.tensor(x)), np.cov(x.T, bias=1))


@pytest.mark.parametrize("condition", [1.0, 50.0, 1e4])
@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_newton_schulz_converges_and_stays(condition, library):
    rng = np.random.default_rng(0)
    basis, _ = np.linalg.qr(rng.normal(size=(6, 6)))
    spectrum = np.geomspace(1, 1 / condition, 6)
    sigma, exact = ((basis * spectrum**p) @ basis.T for p in (1, -0.5))
    sigma = torch.tensor(sigma) if library == "torch" else sigma
    for iterations in (30, 200):
        got = bnlib.newton_schulz(sigma, iterations=iterations)
        np.testing.assert_allclose(np.asarray(got), exact, atol=1e-9 * abs(exact).max())


def test_newton_schulz_passes_torchs_gradcheck():
    leaf = torch.randn(7, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda x: bnlib.newton_schulz(bnlib.covariance(x), iterations=4), leaf
    )


# --- recording activations ------------------------------------------------------------


def test_recorder_records_one_pass_and_leaves_no_trace():
    layer = torch.nn.Linear(4, 3)
    model = torch.nn.Sequential(layer, torch.nn.ReLU())
    recorder = bnlib.ActivationRecorder(layer, percentiles=(0, 50, 100))
    x = torch.randn(9, 4)
    for step in (0, 10):
        with recorder.at(step):
            model(x).sum().backward()
    out = layer(x).detach().numpy()
    assert recorder.steps == [0, 10] and recorder.percentiles.shape == (2, 3, 3)
    extremes = [out.min(axis=0), np.median(out, axis=0), out.max(axis=0)]
    np.testing.assert_allclose(recorder.percentiles[1], extremes, rtol=1e-6)
    assert not layer._forward_hooks


@pytest.mark.parametrize("passes", [0, 2])
def test_recorder_wants_exactly_one_pass(passes):
    layer = torch.nn.Linear(4, 3)
    recorder = bnlib.ActivationRecorder(layer)
    with (
        pytest.raises(RuntimeError, match=f"ran {passes} times, not once"),
        recorder.at(0),
    ):
        for _ in range(passes):
            layer(torch.ones(2, 4))
    assert not recorder.steps and not layer._forward_hooks


def test_recorder_lets_the_models_own_error_through():
    layer = torch.nn.Linear(4, 3)
    recorder = bnlib.ActivationRecorder(layer)
    with pytest.raises(ZeroDivisionError), recorder.at(0):
        layer(torch.ones(2, 4)), 1 / 0
    assert not recorder.steps and not layer._forward_hooks


def test_recorder_refuses_nan():
    layer = torch.nn.Identity()
    recorder = bnlib.ActivationRecorder(layer)
    with pytest.raises(ValueError, match="output must be finite"), recorder.at(0):
        layer(torch.full((2, 3), float("nan")))


def test_recorder_takes_bfloat16_and_a_single_percentile():
    layer = torch.nn.Linear(4, 3).bfloat16()
    recorder = bnlib.ActivationRecorder(layer, percentiles=50)
    with recorder.at(0):
        layer(torch.ones(2, 4).bfloat16())
    assert recorder.percentiles.shape == (1, 1, 3)


def test_drift_counts_widths():
    row = np.array([[-1.0], [0.0], [1.0]])
    assert bnlib.drift(np.array([row, row + 3, row + 1]))[0] == 1.5
