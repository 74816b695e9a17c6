"""The array functions on unusual arrays: far from 0, other bytes, without values, jax.

CALLS holds every public function, forward and backward; what numpy answers in float64
is what each kind of array has to give.
"""

import warnings

import numpy as np
import pytest
import torch
from torch._subclasses import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx

import bnlib
from bnlib import fast


def pair(name, affine=2, of=bnlib, **options):
    """A function (x, dy, gamma, beta, ...) -> y and the gradients of a normalizer."""

    def call(x, dy, gamma, beta, mean, std):
        given = [gamma, beta][:affine]
        given += [mean, std] if name == "batch_renorm" else []
        y, cache = getattr(of, name)(x, *given, **options)
        found = getattr(of, f"{name}_backward")(dy, cache)
        return (y, *found) if isinstance(found, tuple) else (y, found)

    return call


def _whiten(x, dy, *_):
    y, cache = bnlib.zca_whiten(x[:, :, 0])
    return y, bnlib.zca_whiten_backward(dy[:, :, 0], cache)


def _dynamic_tanh(x, dy, gamma, beta, *_):
    x, dy = x.swapaxes(1, 2), dy.swapaxes(1, 2)
    y = bnlib.dynamic_tanh(x, 0.01, gamma, beta)
    return y, *bnlib.dynamic_tanh_backward(dy, x, 0.01, gamma)


def along(p):
    return p.reshape(1, -1, 1)


CALLS = {
    "batch_norm": pair("batch_norm"),
    "layer_norm": pair("layer_norm", axes=(1,)),
    "rms_norm": pair("rms_norm", 1, axes=(1,)),
    "group_norm": pair("group_norm", num_groups=2),
    "instance_norm": pair("instance_norm"),
    "batch_renorm": pair("batch_renorm", rmax=1.5, dmax=0.5),
    "local_response_norm": pair("local_response_norm", 0, size=3),
    "dynamic_tanh": _dynamic_tanh,
    "zca_whiten": _whiten,
    "covariance": lambda x, *_: (bnlib.covariance(x[:, :, 0]),),
    "newton_schulz": lambda x, *_: (bnlib.newton_schulz(bnlib.covariance(x[:, :, 0])),),
    "moments": lambda x, *_: bnlib.moments(x, (0, 2)),
    "normalize": lambda x, dy, g, b, mean, std: (
        bnlib.normalize(x, along(mean), along(std)),
    ),
    "normalize_backward": lambda x, dy, g, b, mean, std: (
        bnlib.normalize_backward(dy, x, along(std), (0, 2)),
    ),
    "batch_norm_inference": lambda x, dy, *ps: (bnlib.batch_norm_inference(x, *ps),),
    "update_running": lambda x, dy, g, b, *ps: bnlib.update_running(*ps, x),
    "fold_linear": lambda x, dy, *ps: bnlib.fold_linear(x[0], None, *ps),
}
FAST = {
    f"fast.{name}": pair(name, *options.pop("affine", ()), of=fast, **options)
    for name, options in {
        "batch_norm": {},
        "layer_norm": {"affine": (0,)},
        "rms_norm": {"affine": (0,)},
        "group_norm": {"num_groups": 2},
        "instance_norm": {},
    }.items()
}
every_call = pytest.mark.parametrize("name", CALLS)
every_tensor_call = pytest.mark.parametrize("name", CALLS | FAST)
both_libraries = pytest.mark.parametrize("convert", [np.asarray, torch.from_numpy])


def problem(shape=(6, 4, 5), mean=0.0, dtype="float64"):
    """x, dy, gamma, beta, running mean and running std."""
    rng = np.random.default_rng(0)
    deviations, noise = rng.normal(size=(2, *shape))
    affine = rng.uniform(0.5, 2, size=(4, shape[1]))
    affine[2] += mean
    given = deviations + mean, deviations + noise, *affine
    return [a.astype(dtype) for a in given]


def assert_close(ours, wanted, digits):
    for a, b in zip(ours, wanted, strict=True):
        assert a.shape == b.shape
        a = np.asarray(a.detach() if hasattr(a, "detach") else a, dtype=float)
        np.testing.assert_allclose(a, b, rtol=0, atol=digits * abs(b).max())


# --- sums -----------------------------------------------------------------------------


@both_libraries
@pytest.mark.parametrize(
    ("shape", "mean"), [((200_000, 4, 1), 1e3), ((60_000, 4, 1), 255), ((9, 4, 3), 1e4)]
)
@pytest.mark.parametrize("name", CALLS.keys() - {"newton_schulz"})
def test_float32_is_right_to_rounding_however_long_the_sum(name, shape, mean, convert):
    x, dy, gamma, beta, *running = problem(shape, mean, "float32")
    if name == "fold_linear":
        x = x[:1]
    elif shape[2] == 1 and name == "instance_norm":  # a long sum: over positions
        x, dy = x.reshape(1, 4, -1), dy.reshape(1, 4, -1)
    given = x, dy, gamma, beta, *running
    wanted = CALLS[name](*(a.astype(float) for a in given))
    ours = CALLS[name](*(convert(a) for a in given))
    assert {str(a.dtype).removeprefix("torch.") for a in ours} == {"float32"}
    # Those have no sums of their own, and round in the dtype they are given.
    far = {"normalize", "batch_norm_inference", "update_running"}
    assert_close(ours, wanted, 1e-6 if name in far else 3e-7)


@both_libraries
def test_a_million_equal_numbers_give_beta(convert):
    x = convert(np.full((1_000_000, 2), 1000.1, np.float32))
    beta = convert(np.array([3.0, -1.0], np.float32))
    y, _ = bnlib.batch_norm(x, None, beta)
    assert (y == beta).all() and (bnlib.moments(x)[0] == x[0]).all()
    zero, one = beta * 0, beta * 0 + 1
    assert (bnlib.update_running(zero, one, x, 1.0)[0] == x[0]).all()


@both_libraries
@pytest.mark.parametrize("name", [name.removeprefix("fast.") for name in FAST])
def test_squares_that_float32_cannot_hold(name, convert):
    given = problem(dtype="float32")
    given[0] *= np.float32(1e30)
    wanted = CALLS[name](*(a.astype(float) for a in given))
    ours = CALLS[name](*(convert(a) for a in given))
    assert_close(ours, wanted, 3e-7)
    assert_close(FAST[f"fast.{name}"](*map(convert, given))[:1], ours[:1], 10)


# --- kinds of numbers -----------------------------------------------------------------


@every_call
@pytest.mark.parametrize("dtype", [">f4", ">f8"])
def test_either_order_of_bytes_is_taken_and_the_machines_comes_out(name, dtype):
    given = [a.astype(dtype) for a in problem()]
    native = [a.astype(dtype.replace(">", "=")) for a in given]
    wanted = CALLS[name](*native)
    # Products of matrices depend, in the last digits, on where a copy lies in memory.
    near = 64 * np.finfo(dtype).eps
    for mixed in (given, [given[0], *native[1:]], [native[0], *given[1:]]):
        for a, b in zip(CALLS[name](*mixed), wanted, strict=True):
            assert a.dtype == b.dtype and a.dtype.isnative
            np.testing.assert_allclose(a, b, rtol=near, atol=near)


@pytest.mark.parametrize("name", FAST)
def test_the_fast_ones_take_either_order_of_bytes(name):
    given = problem()
    ours = FAST[name](*(a.astype(">f8") for a in given))
    assert_close(ours, FAST[name](*given), 1e-12)


def test_gradcheck_takes_either_order_of_bytes():
    x = np.arange(3.0).astype(">f8")
    assert bnlib.gradcheck(lambda a: a**2, lambda dy, a: 2 * a * dy, x)[0] < 1e-9
    assert bnlib.numerical_gradient(lambda a: a**2, x).dtype.isnative


SMALL = ["float8_e4m3fn", "float8_e5m2", "float8_e8m0fnu", "float4_e2m1fn"]


@pytest.mark.parametrize("kind", SMALL)
@pytest.mark.parametrize("library", ["torch", "numpy"])
def test_floats_of_few_bits_are_refused_with_a_cure(kind, library):
    if library == "numpy":
        ml_dtypes = pytest.importorskip("ml_dtypes")
        x = np.ones((4, 3), getattr(ml_dtypes, kind))
    elif hasattr(torch, kind):
        x = torch.ones(4, 3).to(getattr(torch, kind))
    else:
        pytest.skip("torch has none that holds one number")
    says = f"x must hold floats of 16 bits or more, got .*{kind}; convert it: x.astype"
    calls = bnlib.moments, bnlib.batch_norm, bnlib.layer_norm, bnlib.zca_whiten
    for call in (*calls, fast.batch_norm, fast.rms_norm):
        with pytest.raises(TypeError, match=says):
            call(x)


def test_bfloat16_of_numpy_is_taken():
    kind = pytest.importorskip("ml_dtypes").bfloat16
    for name in ("batch_norm", "group_norm", "local_response_norm", "moments"):
        given = [a.astype(kind) for a in problem()]
        wanted = CALLS[name](*(a.astype(float) for a in given))
        ours = CALLS[name](*given)
        assert {a.dtype for a in ours} == {np.dtype(kind)}
        assert_close([a.astype(float) for a in ours], wanted, 2**-8)


# --- what is not written into ---------------------------------------------------------


@every_tensor_call
def test_no_argument_is_written_into(name):
    call, given = (CALLS | FAST)[name], problem()
    for a in given:
        a.flags.writeable = False
    wanted = call(*given)
    tensors = [torch.tensor(a) for a in given]
    ours = call(*tensors)
    assert_close(ours, wanted, 1e-10)
    for a, b in zip(tensors, given, strict=True):
        assert a._version == 0 and (a.numpy() == b).all()


@both_libraries
def test_whitening_of_half_precision(convert):
    x, dy, *_ = (convert(a.astype(np.float16)) for a in problem((9, 4)))
    y, cache = bnlib.zca_whiten(x)
    dx = bnlib.zca_whiten_backward(dy, cache)
    exact, cache = bnlib.zca_whiten(np.asarray(x, dtype=float))
    assert str(y.dtype).endswith("float16") and str(dx.dtype).endswith("float16")
    assert_close(
        (y, dx),
        (exact, bnlib.zca_whiten_backward(np.asarray(dy, dtype=float), cache)),
        2e-3,
    )


def test_whitening_of_a_tensor_is_that_of_the_array():
    x, dy, *_ = (torch.tensor(a) for a in problem((9, 4)))
    leaf = x.clone().requires_grad_()
    y, cache = bnlib.zca_whiten(leaf)
    y.backward(dy)
    with torch.no_grad():
        ours = bnlib.zca_whiten_backward(dy, cache)
    np.testing.assert_allclose(ours, leaf.grad, rtol=1e-9, atol=1e-12)
    with pytest.raises(ValueError, match=r"covariance of x \(4, 3\) is singular"):
        bnlib.zca_whiten(torch.arange(12.0).reshape(4, 3), eps=0)
    with pytest.raises(TypeError, match="dy is from numpy, y from torch"):
        bnlib.zca_whiten_backward(dy.numpy(), cache)


# --- where there are no values to look at ---------------------------------------------


def tensors():
    return [torch.tensor(a) for a in problem()]


def alike(ours, wanted):
    for a, b in zip(ours, wanted, strict=True):
        assert a.shape == b.shape and a.dtype == b.dtype


@every_tensor_call
def test_under_vmap(name):
    call = (CALLS | FAST)[name]
    stacked = [torch.stack([a, a]) for a in tensors()]
    ours = torch.vmap(call)(*stacked)
    for k in range(2):
        torch.testing.assert_close([a[k] for a in ours], list(call(*tensors())))


@every_tensor_call
def test_tensors_without_data(name):
    call, wanted = (CALLS | FAST)[name], (CALLS | FAST)[name](*tensors())
    alike(call(*(a.to("meta") for a in tensors())), wanted)
    mode = FakeTensorMode()
    fake = [mode.from_tensor(a) for a in tensors()]
    alike(call(*fake), wanted)
    with mode:
        alike(call(*fake), wanted)


@every_tensor_call
def test_under_tracers(name):
    call, wanted = (CALLS | FAST)[name], list((CALLS | FAST)[name](*tensors()))

    def traced(*given):
        return tuple(call(*given))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the shapes, and that trace is old
        found = torch.jit.trace(traced, tensors())
    torch.testing.assert_close(list(found(*tensors())), wanted)
    for mode in ("real", "fake", "symbolic"):
        graph = make_fx(traced, tracing_mode=mode)(*tensors())
        torch.testing.assert_close(list(graph(*tensors())), wanted)


@every_tensor_call
def test_under_a_compiler_in_one_graph(name):
    call = (CALLS | FAST)[name]
    torch._dynamo.reset()
    compiled = torch.compile(call, fullgraph=True, backend="eager")
    torch.testing.assert_close(list(compiled(*tensors())), list(call(*tensors())))


def test_values_are_looked_at_where_there_are_some():
    nan = torch.full((4, 3), float("nan"))
    with pytest.raises(ValueError, match="x must be finite"):
        bnlib.batch_norm(nan)
    with torch.device("cpu"), pytest.raises(ValueError, match="x must be finite"):
        bnlib.batch_norm(nan.requires_grad_())
    with pytest.raises(ValueError, match="x must be finite"):
        torch.func.grad(lambda x: bnlib.moments(x)[0].sum())(nan.detach())
    assert torch.vmap(bnlib.moments)(nan.detach()[None])[0].isnan().all()


# --- jax ------------------------------------------------------------------------------


@every_call
def test_jax(name):
    jax = pytest.importorskip("jax")
    call, given = CALLS[name], problem(dtype="float32")
    arrays = [jax.numpy.asarray(a) for a in given]
    wanted = CALLS[name](*(a.astype(float) for a in given))
    ours = call(*arrays)
    assert all(isinstance(a, jax.Array) and a.dtype == np.float32 for a in ours)
    assert_close(ours, wanted, 1e-5)
    assert_close(jax.jit(call)(*arrays), wanted, 1e-5)
    several = jax.vmap(call)(*(jax.numpy.stack([a, a]) for a in arrays))
    assert_close([a[1] for a in several], wanted, 1e-5)
    with pytest.raises(ValueError, match="must be finite"):
        call(arrays[0] * np.nan, *arrays[1:])


@pytest.mark.parametrize(
    "name", [*(name.removeprefix("fast.") for name in FAST), "batch_renorm"]
)
def test_jax_differentiates_as_our_backward_does(name):
    jax = pytest.importorskip("jax")
    call, given = CALLS[name], problem(dtype="float32")
    x, dy, *affine, mean, std = (jax.numpy.asarray(a) for a in given)

    def loss(x, gamma, beta):
        return (dy * call(x, dy, gamma, beta, mean, std)[0]).sum()

    found = jax.grad(loss, argnums=(0, 1, 2))(x, *affine)
    wanted = CALLS[name](*(a.astype(float) for a in given))[1:]
    assert_close(found[: len(wanted)], wanted, 1e-5)


PLAIN = {
    "batch_norm": {},
    "layer_norm": {},
    "rms_norm": {},
    "group_norm": {"num_groups": 2},
    "instance_norm": {},
    "batch_renorm": {"rmax": 1.5, "dmax": 0.5},
}


@pytest.mark.parametrize(
    ("of", "made", "name"),
    [(bnlib, made, name) for made in (np.array, torch.tensor) for name in PLAIN]
    + [(fast, np.array, name) for name in PLAIN if hasattr(fast, name)],
)
def test_who_writes_into_y_does_not_write_into_the_cache(of, made, name):
    x, dy = (made(a) for a in np.random.default_rng(0).normal(size=(2, 6, 4, 3)))
    more = (made(np.zeros(4)), made(np.ones(4))) if name == "batch_renorm" else ()
    given = [x, None, None] if name != "rms_norm" else [x, None]
    y, cache = getattr(of, name)(*given, *more, **PLAIN[name])
    backward = getattr(of, f"{name}_backward")
    right = backward(dy, cache)[0]
    y *= 0
    assert abs(backward(dy, cache)[0] - right).max() == 0


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda x: bnlib.covariance(np.ma.array(x)), "x must be a plain array"),
        (lambda x: bnlib.batch_norm(np.matrix(x)), "x must be a plain array"),
        (lambda x: bnlib.normalize(x, 0 * x, -0.5 + 0 * x, 1.0), "var must be >= 0"),
        (lambda x: bnlib.normalize_backward(x, x, 0 * x, 0), "std must be > 0"),
    ],
)
def test_what_would_be_silently_wrong_is_refused(call, says):
    x = np.random.default_rng(0).normal(size=(6, 3))
    with pytest.raises((TypeError, ValueError), match=says):
        call(x)
