"""The layers of batch renormalization: definition, limits, state, batch norm beside it.

PyTorch has no such layer to compare with. The reference is the definition, written with
`detach` in `plain`; at the ends of the limits it is torch.nn's batch normalization.
"""

import copy
import functools
import pickle

import numpy as np
import pytest
import torch
from company import shaken
from torch import nn
from torch.testing import assert_close

import bnlib
from bnlib import dmax_schedule, rmax_schedule
from bnlib.nn import BatchRenorm1d, BatchRenorm2d, BatchRenorm3d, fold
from bnlib.nn.functional import batch_renorm

BATCH_NORMS = {
    BatchRenorm1d: nn.BatchNorm1d,
    BatchRenorm2d: nn.BatchNorm2d,
    BatchRenorm3d: nn.BatchNorm3d,
}
SHAPES = [(8, 3), (4, 3, 6), (4, 3, 2, 5), (2, 3, 2, 3, 2)]
LAYERS = dict(zip(SHAPES, (BatchRenorm1d, *BATCH_NORMS), strict=True))
LIMITS = {"free": (1e9, 1e9), "usual": (3.0, 5.0), "tight": (1.2, 0.3), "off": (1, 0)}
TOLERANCE = {
    torch.float64: {"rtol": 1e-11, "atol": 1e-11},
    torch.float32: {"rtol": 1e-5, "atol": 1e-5},
    torch.bfloat16: {"rtol": 1.6e-2, "atol": 1e-2},
    torch.float16: {"rtol": 2e-3, "atol": 2e-3},
}
STATE = ["weight", "bias", "running_mean", "running_std", "num_batches_tracked"]

every_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)
every_limit = pytest.mark.parametrize("limits", LIMITS.values(), ids=list(LIMITS))
every_layer = pytest.mark.parametrize("ours", BATCH_NORMS, ids=lambda c: c.__name__)
exact = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)


def rand(*shape, dtype=torch.float64):
    return torch.randn(*shape, dtype=torch.float64).to(dtype)


def plain(state, x, rmax, dmax, momentum=0.01, eps=1e-5):
    """The definition of Ioffe 2017, Algorithm 1: y, and the new running statistics."""
    axes, shape = [0, *range(2, x.ndim)], [1, -1, *[1] * (x.ndim - 2)]
    mean = x.mean(axes)
    std = torch.sqrt(((x - mean.reshape(shape)) ** 2).mean(axes) + eps)
    mu, sigma = state["running_mean"], state["running_std"]
    r = torch.clamp(std.detach() / sigma, 1 / rmax, rmax)
    d = torch.clamp((mean.detach() - mu) / sigma, -dmax, dmax)
    xhat = (x - mean.reshape(shape)) / std.reshape(shape)
    y = xhat * r.reshape(shape) + d.reshape(shape)
    y = y * state["weight"].reshape(shape) + state["bias"].reshape(shape)
    new = mu + momentum * (mean - mu), sigma + momentum * (std - sigma)
    return y, *(v.detach() for v in new)


# --- the definition -------------------------------------------------------------------


@every_shape
@every_limit
@exact
def test_outputs_gradients_and_statistics_are_the_definitions(shape, limits, dtype):
    layer = shaken(LAYERS[shape](3, rmax=limits[0], dmax=limits[1], dtype=dtype))
    for step in range(3):
        before = {k: v.detach().double().clone() for k, v in layer.state_dict().items()}
        leaves = {k: before[k].clone().requires_grad_() for k in ("weight", "bias")}
        x, dy = 2 * rand(*shape, dtype=dtype) + 1, rand(*shape, dtype=dtype)
        ours, theirs = (x.to(t).requires_grad_() for t in (dtype, torch.float64))
        y, wanted = layer(ours), plain(before | leaves, theirs, *limits)
        grads = torch.autograd.grad(y, [ours, layer.weight, layer.bias], dy)
        inputs = [theirs, *leaves.values()]
        wanted_grads = torch.autograd.grad(wanted[0], inputs, dy.double())
        seen = [y, *grads, layer.running_mean, layer.running_std]
        expected = [wanted[0], *wanted_grads, *wanted[1:]]
        for a, b in zip(seen, expected, strict=True):
            assert a.dtype == dtype
            at = TOLERANCE[dtype]
            assert_close(a.double(), b, rtol=10 * at["rtol"], atol=10 * at["atol"])
        assert layer.num_batches_tracked == step + 1


@every_shape
@every_limit
@exact
def test_evaluation_is_batch_norms_whatever_the_limits(shape, limits, dtype):
    ours = shaken(LAYERS[shape](3, rmax=limits[0], dmax=limits[1], dtype=dtype)).eval()
    theirs = BATCH_NORMS[LAYERS[shape]](3, dtype=dtype).eval()
    state = ours.state_dict()
    var = state.pop("running_std").double() ** 2 - 1e-5
    theirs.load_state_dict({**state, "running_var": var})
    x = rand(*shape, dtype=dtype)
    assert_close(ours(x), theirs(x), **TOLERANCE[dtype])
    assert ours.num_batches_tracked == 0


# --- derivatives ----------------------------------------------------------------------


def test_forward_derivatives_and_torch_func():
    x, dx, far, wide = rand(5, 3), rand(5, 3), 100 + rand(3), 9 + rand(3)

    def function(x, mean=far, std=wide):
        statistics = mean.clone(), std.clone()
        return batch_renorm(x, *statistics, training=True, rmax=2.0, dmax=1.0)

    jacobian = torch.autograd.functional.jacobian(function, x)
    _, tangent = torch.func.jvp(function, (x,), (dx,))
    assert_close(tangent, (jacobian * dx).sum((2, 3)))
    assert_close(torch.func.jacrev(function)(x), jacobian)
    arguments = rand(4, 5, 3), 100 + rand(4, 3), 9 + rand(4, 3)
    wanted = torch.stack([function(*a) for a in zip(*arguments, strict=True)])
    assert_close(torch.func.vmap(function)(*arguments), wanted)


@pytest.mark.parametrize("options", [{"rmax": 3.0, "dmax": 5.0}, {}], ids=str)
def test_compiled_training_is_the_same(options):
    torch._dynamo.reset()
    layer = shaken(BatchRenorm2d(3, **options, dtype=torch.float64))
    layer.num_batches_tracked.fill_(20_000)
    other = copy.deepcopy(layer)
    # A schedule reads the counter: the compiler leaves its graph for that.
    compiled = torch.compile(layer, backend="eager", fullgraph=bool(options))
    for _ in range(3):
        x = rand(4, 3, 2, 2)
        assert_close(compiled(x), other(x))
    assert_close(dict(layer.state_dict()), dict(other.state_dict()))


# --- schedules ------------------------------------------------------------------------


def test_limits_follow_the_counter():
    asked = []

    def rmax(step):
        asked.append(step)
        return 1 + step

    layer = BatchRenorm1d(3, rmax=rmax, dmax=0.0, dtype=torch.float64)
    layer.running_std.fill_(1e3)
    for step in range(3):
        x = rand(6, 3)
        layer.running_std.fill_(1e3)
        assert_close(layer(x).std(0, correction=0), (1 / (1 + step)) * one_of(x))
    layer.eval()(rand(6, 3))
    assert asked == [0, 1, 2]  # not asked in evaluation


def one_of(x):
    """What is left of a deviation of 1 after eps."""
    var = x.var(0, correction=0)
    return (var / (var + 1e-5)) ** 0.5


def test_by_default_the_papers_schedules():
    layer = BatchRenorm1d(3)
    assert layer.rmax is rmax_schedule and layer.dmax is dmax_schedule
    theirs = nn.BatchNorm1d(3)
    x = torch.randn(8, 3) * 3 + 1
    for step, same in ((0, True), (5_000, True), (30_000, False)):
        layer.num_batches_tracked.fill_(step)
        assert torch.allclose(layer(x), theirs(x), atol=1e-5) == same


def test_a_schedule_survives_saving():
    layer = BatchRenorm1d(
        3, rmax=functools.partial(bnlib.ramp, start=0, end=9, low=1, high=3)
    )
    x = torch.randn(8, 3)
    for _ in range(5):
        layer(x)
    for copied in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert repr(copied) == repr(layer)
        kept = copy.deepcopy(layer)
        assert_close(copied(x), kept(x), rtol=0, atol=0)
        assert copied.num_batches_tracked == 6 and layer.num_batches_tracked == 5


@pytest.mark.parametrize("bad", [0.5, float("nan"), "3", None, True])
def test_a_limit_that_is_none(bad):
    with pytest.raises(ValueError, match="rmax must be a number >= 1, got"):
        BatchRenorm1d(3, rmax=bad)
    with pytest.raises(ValueError, match="rmax must be a number >= 1, got"):
        BatchRenorm1d(3, rmax=lambda step: bad)(torch.randn(4, 3))
    if bad != 0.5:
        with pytest.raises(ValueError, match="dmax must be a number >= 0, got"):
            BatchRenorm1d(3, dmax=bad)


# --- state ----------------------------------------------------------------------------


@every_layer
def test_what_a_state_dict_holds(ours):
    assert list(ours(3).state_dict()) == STATE
    assert list(ours(3, affine=False).state_dict()) == STATE[2:]
    assert list(ours(3, bias=False).state_dict()) == [STATE[0], *STATE[2:]]
    new = ours(3).state_dict()
    values = [new[name].unique().tolist() for name in STATE]
    assert values == [[1], [0], [0], [1], [0]]


@every_shape
@pytest.mark.parametrize("nested", [False, True])
def test_a_batch_norms_checkpoint_loads_and_goes_back(shape, nested):
    theirs = shaken(BATCH_NORMS[LAYERS[shape]](3, eps=1e-3))
    theirs.num_batches_tracked.fill_(7)
    ours = LAYERS[shape](3, eps=1e-3)
    state = nn.Sequential(theirs).state_dict() if nested else theirs.state_dict()
    names = list(state)
    (nn.Sequential(ours) if nested else ours).load_state_dict(state)
    assert list(state) == names and ours.num_batches_tracked == 7
    x = torch.randn(shape)
    assert_close(ours.eval()(x), theirs.eval()(x))
    assert_close(ours.running_std, (theirs.running_var + 1e-3).sqrt())
    back = ours.as_batch_norm()
    assert isinstance(back, type(theirs)) and not back.training
    assert_close(dict(back.state_dict()), dict(theirs.state_dict()))
    assert_close(back(x), theirs(x))
    assert back.weight is not ours.weight and back.eps == 1e-3


def test_batch_norm_refuses_our_checkpoint_by_name():
    with pytest.raises(
        RuntimeError, match=r"Missing.*running_var.*\n.*Unexpected.*running_std"
    ):
        nn.BatchNorm1d(3).load_state_dict(BatchRenorm1d(3).state_dict())
    both = {**BatchRenorm1d(3).state_dict(), "running_var": torch.ones(3)}
    with pytest.raises(RuntimeError, match=r"Unexpected.*running_var"):
        BatchRenorm1d(3).load_state_dict(both)
    with pytest.raises(RuntimeError, match="size mismatch for running_std"):
        BatchRenorm1d(4).load_state_dict(nn.BatchNorm1d(3).state_dict())


def test_the_way_back_to_batch_norm_keeps_what_is_there():
    for options in ({}, {"affine": False}, {"bias": False}):
        layer = shaken(BatchRenorm2d(3, **options, dtype=torch.float64)).train()
        back = layer.as_batch_norm()
        assert back.training and (back.weight is None) == (layer.weight is None)
        assert (back.bias is None) == (layer.bias is None)
        x = rand(4, 3, 2, 2)
        assert_close(back.eval()(x), layer.eval()(x), rtol=1e-12, atol=1e-12)
    half = shaken(BatchRenorm1d(3, dtype=torch.float16))
    half.running_std.fill_(300.0)  # its square overflows float16
    assert_close(half.as_batch_norm().running_var, torch.full((3,), 9e4))
    least = BatchRenorm1d(3)  # a constant channel, and rounding the wrong way
    root = torch.tensor(1e-5).sqrt()
    least.running_std.fill_(torch.nextafter(root, torch.tensor(0.0)))
    assert (least.running_std**2 < 1e-5).all()
    assert (least.as_batch_norm().running_var == 0).all()
    least.running_std.fill_(0.9 * root)
    with pytest.raises(ValueError, match=r"must be at least sqrt\(eps\); set eps to"):
        least.as_batch_norm()


def test_fold_by_way_of_batch_norm():
    conv, layer = nn.Conv2d(2, 3, 3).double(), shaken(BatchRenorm2d(3).double()).eval()
    x = rand(2, 2, 6, 6)
    folded = fold(conv, layer.as_batch_norm())
    assert_close(folded(x), layer(conv(x)), rtol=1e-12, atol=1e-12)
    with pytest.raises(
        TypeError, match="must be a BatchNorm1d, 2d or 3d, got BatchRenorm2d"
    ):
        fold(conv, layer)


def test_no_converter_takes_it_for_a_batch_norm():
    model = nn.Sequential(BatchRenorm1d(3))
    assert isinstance(nn.SyncBatchNorm.convert_sync_batchnorm(model)[0], BatchRenorm1d)
    assert not isinstance(model[0], nn.modules.batchnorm._BatchNorm)


@pytest.mark.parametrize("momentum", [0.0, 0.3, 1.0, None])
def test_running_statistics_average_mean_and_std(momentum):
    layer = BatchRenorm1d(3, momentum=momentum, dtype=torch.float64)
    mean, std, seen = torch.zeros(3).double(), torch.ones(3).double(), []
    for step in range(1, 4):
        x = rand(6, 3)
        seen.append((x.mean(0), (x.var(0, correction=0) + 1e-5).sqrt()))
        weight = 1 / step if momentum is None else momentum
        mean = (1 - weight) * mean + weight * seen[-1][0]
        std = (1 - weight) * std + weight * seen[-1][1]
        layer(x)
        assert_close(layer.running_mean, mean)
        assert_close(layer.running_std, std)
    if momentum is None:
        assert_close(layer.running_std, torch.stack([s for _, s in seen]).mean(0))


def test_reset():
    layer = shaken(BatchRenorm1d(3))
    layer(torch.randn(4, 3))
    weight = layer.weight.clone()
    layer.reset_running_stats()
    assert layer.num_batches_tracked == 0 and (layer.weight == weight).all()
    layer.reset_parameters()
    new = BatchRenorm1d(3).state_dict()
    assert_close(dict(layer.state_dict()), dict(new), rtol=0, atol=0)


def test_repr_names_the_limits():
    assert repr(BatchRenorm2d(3, rmax=2, bias=False)) == (
        "BatchRenorm2d(3, eps=1e-05, momentum=0.01, affine=True, bias=False, rmax=2, "
        "dmax=dmax_schedule)"
    )


# --- Keras ----------------------------------------------------------------------------


def test_the_documented_formulas_of_keras():
    # BatchNormalization(renorm=True): epsilon inside the root of the batch's deviation,
    # which the averages take over; momentum weighs the old value; no limits by default.
    rng, eps, keep = np.random.default_rng(0), 1e-3, 0.99
    gamma, beta = rng.normal(size=(2, 4))
    layer = BatchRenorm1d(4, eps=eps, momentum=1 - keep, rmax=1e9, dmax=1e9).double()
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(gamma)), layer.bias.copy_(torch.tensor(beta))
    renorm_mean, renorm_stddev = np.zeros(4), np.ones(4)
    moving_mean, moving_stddev = np.zeros(4), np.ones(4)
    for _ in range(5):
        x = rng.normal(2, [1e-3, 0.1, 1, 10], size=(6, 4))
        mean, stddev = x.mean(0), np.sqrt(x.var(0) + eps)
        r, d = stddev / renorm_stddev, (mean - renorm_mean) / renorm_stddev
        y = ((x - mean) / stddev * r + d) * gamma + beta
        np.testing.assert_allclose(layer(torch.tensor(x)).detach(), y, rtol=1e-9)
        renorm_mean = keep * renorm_mean + (1 - keep) * mean
        renorm_stddev = keep * renorm_stddev + (1 - keep) * stddev
        moving_mean = keep * moving_mean + (1 - keep) * mean
        moving_stddev = keep * moving_stddev + (1 - keep) * stddev
    moving_variance = moving_stddev**2 - eps
    y = (x - moving_mean) / np.sqrt(moving_variance + eps) * gamma + beta
    got = layer.eval()(torch.tensor(x)).detach()
    np.testing.assert_allclose(got, y, rtol=1e-9)


# --- dtypes, memory, devices, bad input -----------------------------------------------


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("low", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("mixed", [True, False], ids=["float32 layer", "half layer"])
def test_half_precision(low, mixed, training):
    dtype = torch.float32 if mixed else low
    layer = shaken(BatchRenorm2d(3, rmax=1.5, dmax=1, dtype=dtype)).train(training)
    exact = copy.deepcopy(layer).double()
    x = (rand(8, 3, 4, 4) * 3).to(low)
    got, wanted = x.clone().requires_grad_(), x.double().requires_grad_()
    y, expected = layer(got), exact(wanted)
    dy = rand(8, 3, 4, 4).to(low)
    y.backward(dy), expected.backward(dy.double())
    assert y.dtype == low and layer.running_std.dtype == dtype
    assert_close(y.double(), expected, **TOLERANCE[low])
    assert_close(got.grad.double(), wanted.grad, **TOLERANCE[low])
    at = (
        {"rtol": 2e-3, "atol": 1e-2}
        if low == torch.float16
        else {"rtol": 2e-2, "atol": 0.3}
    )
    assert_close(layer.weight.grad.double(), exact.weight.grad, **at)


def test_half_precision_statistics_are_taken_in_float32():
    x = (torch.randn(4096, 2) + 100).bfloat16()
    layer = BatchRenorm1d(2, momentum=1.0, rmax=3, dmax=5)
    y = layer(x)
    assert_close(layer.running_mean, x.float().mean(0))
    assert_close(layer.running_std, (x.float().var(0, correction=0) + 1e-5).sqrt())
    assert y.dtype == torch.bfloat16


def test_half_precision_is_rounded_once():
    # r and d are not powers of two: rounding xhat first would show.
    layer = BatchRenorm1d(2, rmax=1e9, dmax=1e9)
    layer.running_mean.fill_(0.3), layer.running_std.fill_(0.7)
    x = (3 * torch.randn(64, 2)).bfloat16()
    wide = copy.deepcopy(layer)
    assert (layer(x) == wide(x.float()).bfloat16()).all()


def test_memory_layout_and_gradients_of_channels_last():
    x = torch.randn(4, 3, 5, 6).to(memory_format=torch.channels_last)
    layer = BatchRenorm2d(3, rmax=3, dmax=5)
    assert layer(x).is_contiguous(memory_format=torch.channels_last)
    assert layer.eval()(x).is_contiguous(memory_format=torch.channels_last)


def test_an_empty_batch_changes_nothing_but_the_count():
    layer = shaken(BatchRenorm1d(3))
    before = copy.deepcopy(layer.state_dict())
    assert layer(torch.zeros(0, 3)).shape == (0, 3)
    assert layer.num_batches_tracked == 1
    layer.num_batches_tracked.zero_()
    assert_close(dict(layer.state_dict()), dict(before), rtol=0, atol=0)


X = torch.arange(12.0).reshape(4, 3)
BAD = {
    "list": (lambda: BatchRenorm1d(3)([1.0]), TypeError, "must be Tensor, not list"),
    "integers": (
        lambda: BatchRenorm1d(3)(X.long()),
        NotImplementedError,
        "not implemented for torch.int64; convert the input",
    ),
    "other channels": (
        lambda: BatchRenorm1d(4)(X),
        RuntimeError,
        "weight should contain 3 elements not 4; .*num_features=3",
    ),
    "other channels, not affine": (
        lambda: BatchRenorm1d(4, affine=False).eval()(X),
        RuntimeError,
        "running_mean should contain 3 elements not 4; .*num_features=3",
    ),
    "other dtype": (
        lambda: BatchRenorm1d(3, affine=False)(X.double()),
        RuntimeError,
        "mixed dtype: the input is torch.float64, running_mean is torch.float32",
    ),
    "vector": (
        lambda: BatchRenorm1d(3)(X[0]),
        ValueError,
        r"expected 2D or 3D input \(got 1D input\)",
    ),
    "sequence for 2d": (
        lambda: BatchRenorm2d(3)(X),
        ValueError,
        r"expected 4D input \(got 2D input\)",
    ),
    "images for 3d": (
        lambda: BatchRenorm3d(3)(X[..., None, None]),
        ValueError,
        r"expected 5D input \(got 4D input\)",
    ),
    "one value": (
        lambda: BatchRenorm1d(3)(X[:1]),
        ValueError,
        "Expected more than 1 value per channel when training",
    ),
    "no statistics": (
        lambda: BatchRenorm1d(3, track_running_stats=False),
        ValueError,
        "track_running_stats must be True, got False; leave the argument out",
    ),
    "no mean": (
        lambda: batch_renorm(X, None, torch.ones(3), training=True),
        ValueError,
        "running_mean must be a tensor, got None; batch renormalization needs it",
    ),
    "no std in evaluation": (
        lambda: batch_renorm(X, torch.ones(3), None),
        ValueError,
        "running_std must be a tensor, got None",
    ),
    "std of zero": (
        lambda: batch_renorm(X, torch.ones(3), torch.zeros(3), training=True),
        ValueError,
        "running_std must be > 0, got a value that is not; load it again, or",
    ),
    "std of NaN in evaluation": (
        lambda: batch_renorm(X, torch.ones(3), torch.full((3,), float("nan"))),
        ValueError,
        "running_std must be > 0",
    ),
    "momentum": (
        lambda: BatchRenorm1d(3, momentum=float("nan"))(X),
        ValueError,
        "momentum must be finite, got nan; 0.01 is usual",
    ),
    "eps": (
        lambda: BatchRenorm1d(3, eps=0.0)(X),
        ValueError,
        "eps must be positive during training",
    ),
    "dmax": (
        lambda: batch_renorm(X, X[0], X[1], training=True, dmax=-1),
        ValueError,
        "dmax must be a number >= 0, got -1",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_gets_an_error_that_says_what_to_do(case):
    call, kind, message = BAD[case]
    with pytest.raises(kind, match=message):
        call()


def test_one_value_per_channel_is_fine_in_evaluation():
    assert BatchRenorm1d(3).eval()(X[:1]).shape == (1, 3)
