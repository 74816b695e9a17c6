"""Layer, instance, group and RMS norm: PyTorch's own samples, derivatives, bad input.

All entries of PyTorch's `module_db` and `op_db` for these layers and functions run here
on ours, samples and error samples, with no list of exceptions. The array functions are
tested together with batch norm in test_functions.py; what is theirs alone is here.
"""

import copy
import io
import itertools
import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from test_nn import (  # noqa: F401  _seed is used by being here
    TOLERANCE,
    _seed,
    assert_same,
    exact,
    rand,
    shaken,
    steps,
    train_or_eval,
)
from torch import nn
from torch.func import functional_call, grad, hessian, jacfwd, jacrev, jvp, vmap
from torch.testing import assert_close
from torch.testing._internal.common_methods_invocations import op_db
from torch.testing._internal.common_modules import module_db

import bnlib
import bnlib.nn as ours_nn
from bnlib.nn import functional as ours_f

NAMES = "LayerNorm", "RMSNorm", "GroupNorm"
NAMES += "InstanceNorm1d", "InstanceNorm2d", "InstanceNorm3d"
LAYERS = {getattr(nn, name): getattr(ours_nn, name) for name in NAMES}
MODULES = {info.module_cls: info for info in module_db if info.module_cls in LAYERS}
FUNCTIONS = {
    f"nn.functional.{name}": (getattr(ours_f, name), getattr(F, name))
    for name in ("layer_norm", "rms_norm", "group_norm", "instance_norm")
}
OPERATORS = [op for op in op_db if op.name in FUNCTIONS]
NATIVE = {"native_layer_norm": "layer_norm", "native_group_norm": "group_norm"}
assert len(MODULES) == 6 and {op.name for op in OPERATORS} == set(FUNCTIONS)
# name: how to build the layer with either library, and an input for it
BUILT = {
    "LayerNorm": (lambda lib, **k: lib.LayerNorm((3, 4), **k), (5, 2, 3, 4)),
    "RMSNorm": (lambda lib, **k: lib.RMSNorm(4, **k), (5, 3, 4)),
    "GroupNorm": (lambda lib, **k: lib.GroupNorm(2, 6, **k), (4, 6, 3, 2)),
    "one group": (lambda lib, **k: lib.GroupNorm(1, 6, **k), (4, 6)),
    "InstanceNorm1d": (
        lambda lib, **k: lib.InstanceNorm1d(3, affine=True, **k),
        (4, 3, 5),
    ),
    "InstanceNorm2d": (
        lambda lib, **k: lib.InstanceNorm2d(3, affine=True, **k),
        (4, 3, 2, 3),
    ),
    "tracking": (
        lambda lib, **k: lib.InstanceNorm2d(
            3, affine=True, track_running_stats=True, **k
        ),
        (4, 3, 2, 3),
    ),
    "InstanceNorm3d": (
        lambda lib, **k: lib.InstanceNorm3d(3, affine=True, **k),
        (2, 3, 2, 3, 2),
    ),
}

every_layer = pytest.mark.parametrize(
    ("theirs", "ours"), LAYERS.items(), ids=lambda cls: cls.__module__.split(".")[0]
)
every_built = pytest.mark.parametrize("name", BUILT)
every_operator = pytest.mark.parametrize("op", OPERATORS, ids=lambda op: op.name)


def pair(name, **options):
    """A layer from torch.nn and the same from us, in the same random state."""
    build, shape = BUILT[name]
    reference, layer = shaken(build(nn, **options)), build(ours_nn, **options)
    layer.load_state_dict(reference.state_dict())
    return reference, layer, shape


def assert_as_good(ours, theirs, exact, dtype):
    """Ours agrees with theirs, or is nearer to what float64 says than theirs is."""
    assert len(ours) == len(theirs) == len(exact)
    for a, b, right in zip(ours, theirs, exact, strict=True):
        assert a.dtype == b.dtype and a.shape == b.shape
        if not torch.allclose(a, b, **TOLERANCE[dtype.to_real()], equal_nan=True):
            assert (a.isnan() == b.isnan()).all()
            off, theirs_off = ((c - right).abs().nan_to_num().max() for c in (a, b))
            assert off <= theirs_off, f"off by {off}, torch by {theirs_off}"


# --- PyTorch's own samples ------------------------------------------------------------


@every_layer
@exact
@train_or_eval
def test_every_sample_of_module_db(theirs, ours, dtype, training):
    info = MODULES[theirs]
    samples = info.module_inputs_func(
        info, "cpu", dtype, requires_grad=True, training=training
    )
    assert len(samples) >= 6
    for sample in samples:
        given = sample.constructor_input
        reference = shaken(theirs(*given.args, **given.kwargs, dtype=dtype))
        layer = ours(*given.args, **given.kwargs, dtype=dtype)
        assert list(layer.state_dict()) == list(reference.state_dict())
        layer.load_state_dict(reference.state_dict())
        reference.train(training), layer.train(training)
        assert repr(layer) == repr(reference)
        (x,) = sample.forward_input.args
        inputs = x, 2 * x + 1
        assert_same(steps(layer, *inputs), steps(reference, *inputs), dtype)
        assert list(layer.state_dict()) == list(reference.state_dict())


def test_every_error_of_module_db():
    count = 0
    for theirs, info in MODULES.items():
        if info.module_error_inputs_func is None:
            continue
        samples = info.module_error_inputs_func(
            info, "cpu", torch.float64, requires_grad=True, training=True
        )
        for sample in samples:
            given = sample.module_error_input.constructor_input
            with pytest.raises(sample.error_type, match=sample.error_regex):
                LAYERS[theirs](*given.args, **given.kwargs)
            count += 1
    assert count >= 2


def leaf_like(a, dtype):
    if not isinstance(a, torch.Tensor):
        return a
    return a.detach().clone().to(dtype or a.dtype).requires_grad_(a.requires_grad)


def answers(function, sample, dtype=None):
    """Output, gradients and what became of the arguments for one sample of op_db."""
    args = [leaf_like(a, dtype) for a in (sample.input, *sample.args)]
    kwargs = {name: leaf_like(a, dtype) for name, a in sample.kwargs.items()}
    y = function(*args, **kwargs)
    assert isinstance(y, torch.Tensor)
    tensors = [a for a in (*args, *kwargs.values()) if isinstance(a, torch.Tensor)]
    leaves = [a for a in tensors if a.requires_grad]
    weights = torch.linspace(-1, 2, y.numel()).reshape(y.shape).to(sample.input)
    gradients = torch.autograd.grad(y, leaves, weights.to(y))
    return [y.detach(), *gradients, *(a.detach() for a in tensors)]


def with_its_eps(op, sample, dtype):
    """The sample with the eps of its own dtype, where torch's depends on that."""
    if "rms" not in op.name or sample.kwargs.get("eps") is not None:
        return sample
    eps = torch.finfo(torch.promote_types(dtype, torch.float32)).eps
    given = {**sample.kwargs, "eps": eps}
    return type(sample)(sample.input, args=sample.args, kwargs=given)


@every_operator
@pytest.mark.parametrize(
    "dtype", [*TOLERANCE, torch.complex64, torch.complex128], ids=str
)
def test_every_sample_of_op_db(op, dtype):
    if dtype not in op.dtypes:
        assert dtype.is_complex and "rms" not in op.name  # torch has no samples either
        return
    count = 0
    for source in (op.sample_inputs, op.reference_inputs):
        for sample in source("cpu", dtype, requires_grad=True):
            ours, theirs = FUNCTIONS[op.name]
            wide = torch.promote_types(dtype, torch.float64)
            exact = answers(theirs, with_its_eps(op, sample, dtype), wide)
            assert_as_good(answers(ours, sample), answers(theirs, sample), exact, dtype)
            count += 1
    assert count >= 12


def test_every_error_of_op_db():
    count = 0
    for op in op_db:
        name = NATIVE.get(op.name, op.name.removeprefix("nn.functional."))
        known = f"nn.functional.{name}" in FUNCTIONS
        if not known or op.error_inputs_func is None:
            continue
        for error in op.error_inputs("cpu"):
            sample = error.sample_input
            with pytest.raises(error.error_type, match=error.error_regex):
                getattr(ours_f, name)(sample.input, *sample.args, **sample.kwargs)
            count += 1
    assert count >= 9


@exact
def test_the_same_defaults_as_the_functions(dtype):
    x = rand(4, 6, 5, dtype=dtype)
    for name, arguments in (
        ("layer_norm", ((5,),)),
        ("rms_norm", ((5,),)),
        ("group_norm", (3,)),
        ("instance_norm", ()),
    ):
        small = x * 1e-4  # so that eps is seen
        wanted = getattr(F, name)(small, *arguments)
        assert_close(getattr(ours_f, name)(small, *arguments), wanted)
    stats = torch.zeros(6, dtype=dtype), torch.ones(6, dtype=dtype)
    both = [[s.clone() for s in stats] for _ in "ab"]
    assert_close(ours_f.instance_norm(x, *both[0]), F.instance_norm(x, *both[1]))
    assert_close(both[0], both[1])


# --- one import swapped in a model ----------------------------------------------------


@every_layer
def test_other_peoples_code_still_recognises_the_layer(theirs, ours):
    assert issubclass(ours, theirs) and ours.__name__ == theirs.__name__
    assert ours.__init__ is theirs.__init__
    assert ours._load_from_state_dict is theirs._load_from_state_dict


def transformer(lib):
    torch.manual_seed(3)
    layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True)
    layer.norm1, layer.norm2 = lib.LayerNorm(16), lib.LayerNorm(16)
    model = nn.Sequential(nn.Linear(5, 16), layer, lib.RMSNorm(16), nn.Linear(16, 4))
    return model.double()


def convnet(lib):
    torch.manual_seed(3)
    return nn.Sequential(
        nn.Conv2d(5, 8, 3),
        lib.GroupNorm(4, 8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3),
        lib.InstanceNorm2d(8, affine=True, track_running_stats=True),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 4),
    ).double()


def train(net, optimizer, seed, shape):
    generator = torch.Generator().manual_seed(seed)
    losses = []
    for _ in range(10):
        x = torch.randn(16, *shape, generator=generator).double()
        labels = (x * torch.arange(x[0].numel()).reshape(shape)).flatten(1).sum(1) > 0
        scores = net(x) if net(x).ndim == 2 else net(x).mean(1)
        loss = F.cross_entropy(scores, labels.long())
        optimizer.zero_grad(), loss.backward(), optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize(
    ("build", "shape"), [(transformer, (6, 5)), (convnet, (5, 8, 8))]
)
@pytest.mark.parametrize(("first", "then"), [(nn, ours_nn), (ours_nn, nn)])
def test_a_checkpoint_continues_in_the_other_library(build, shape, first, then):
    net, other = build(first), build(then)
    optimizers = [torch.optim.Adam(n.parameters(), lr=0.01) for n in (net, other)]
    train(net, optimizers[0], 0, shape)
    file = io.BytesIO()
    torch.save([net.state_dict(), optimizers[0].state_dict()], file)
    file.seek(0)
    states = torch.load(file)
    other.load_state_dict(states[0]), optimizers[1].load_state_dict(states[1])
    losses = train(net, optimizers[0], 1, shape)
    assert max(losses) - min(losses) > 0.01  # it does train
    assert_close(train(other, optimizers[1], 1, shape), losses, rtol=1e-8, atol=1e-8)
    at = {"rtol": 1e-6, "atol": 1e-8}
    assert_close(dict(other.state_dict()), dict(net.state_dict()), **at)
    x = rand(3, *shape)
    assert_close(other.eval()(x), net.eval()(x), **at)


# --- derivatives ----------------------------------------------------------------------

GIVEN = list(itertools.product([True, False], repeat=2))


def problems(given=(True, True)):
    """name: (function of tensors, its arguments, None for what is not given)."""
    weights = [{n: rand(n).requires_grad_() if g else None for n in (4, 3)}
               for g in given]  # fmt: skip
    w4, b4, w3, b3 = (w[n] for n in (4, 3) for w in weights)
    x = rand(2, 4, 3).requires_grad_()
    return {
        "layer": (lambda x, w, b: ours_f.layer_norm(x, (3,), w, b), (x, w3, b3)),
        "RMS": (lambda x, w: ours_f.rms_norm(x, (3,), w), (x, w3)),
        "group": (lambda x, w, b: ours_f.group_norm(x, 2, w, b), (x, w4, b4)),
        "instance": (
            lambda x, w, b: ours_f.instance_norm(x, weight=w, bias=b),
            (x, w4, b4),
        ),
    }


every_problem = pytest.mark.parametrize("name", ["layer", "RMS", "group", "instance"])


@every_problem
@pytest.mark.parametrize("given", GIVEN, ids=str)
def test_first_and_second_derivatives(name, given):
    function, arguments = problems(given)[name]
    assert torch.autograd.gradcheck(
        function, arguments, check_forward_ad=True, check_batched_grad=True
    )
    assert torch.autograd.gradgradcheck(
        function, arguments, check_fwd_over_rev=True, check_rev_over_rev=True
    )


@every_problem
def test_some_of_the_gradients_can_be_asked_for(name):
    reference = {
        "layer": lambda x, w, b: F.layer_norm(x, (3,), w, b),
        "RMS": lambda x, w: F.rms_norm(x, (3,), w),
        "group": lambda x, w, b: F.group_norm(x, 2, w, b),
        "instance": lambda x, w, b: F.instance_norm(x, weight=w, bias=b),
    }
    function, arguments = problems()[name]
    for wanted in itertools.product([True, False], repeat=len(arguments)):
        results = []
        for f in (function, reference[name]):
            leaves = [
                a.detach().requires_grad_(w)
                for a, w in zip(arguments, wanted, strict=True)
            ]
            y = f(*leaves)
            assert y.requires_grad == any(wanted)
            if any(wanted):
                y.pow(3).sum().backward()
            results.append([a.grad for a in leaves])
        assert_same(*results, torch.float64)


@every_built
def test_our_backward_is_what_runs(name):
    _, layer, shape = pair(name)
    seen, queue = set(), [layer(torch.randn(shape)).grad_fn]
    while queue:
        node = queue.pop()
        seen.add(type(node).__name__)
        queue += [n for n, _ in node.next_functions if n is not None]
    mine = {"NormalizeFunctionBackward", "RMSFunctionBackward"}
    assert seen & mine and not seen & {"MeanBackward1", "PowBackward0"}


@every_problem
def test_every_second_derivative_of_torch_func_agrees(name):
    function, (x, *parameters) = problems()[name]
    x, parameters = x.detach(), [p.detach() for p in parameters]

    def loss(x):
        return function(x, *parameters).pow(3).sum()

    leaf = x.clone().requires_grad_()
    wanted = torch.autograd.functional.hessian(loss, leaf)
    assert wanted.abs().max() > 0.1
    assert_close(torch.autograd.functional.jacobian(loss, leaf), grad(loss)(x))
    for transform in (
        hessian(loss),
        jacrev(jacrev(loss)),
        jacrev(jacfwd(loss)),
        jacfwd(jacfwd(loss)),
    ):
        assert_close(transform(x), wanted, rtol=1e-9, atol=1e-9)


@every_problem
def test_vmap_and_jvp(name):
    function, (x, *parameters) = problems()[name]
    x, dx = rand(5, 2, 4, 3), rand(2, 4, 3)
    wanted = torch.stack([function(row, *parameters) for row in x])
    alone = (0, *[None] * len(parameters))
    assert_close(vmap(function, alone)(x, *parameters), wanted)
    _, tangent = jvp(lambda x: function(x, *parameters), (x[0],), (dx,))
    jacobian = jacrev(function)(x[0], *parameters)
    assert_close(tangent, (jacobian * dx).sum(dim=(3, 4, 5)))


def test_functional_call_with_parameters_and_buffers():
    results = []
    for layer in pair("tracking", dtype=torch.float64)[:2]:
        x = torch.arange(36.0).double().reshape(2, 3, 2, 3) ** 2
        buffers = {k: v.clone() for k, v in layer.named_buffers()}

        def loss(parameters, buffers, layer=layer, x=x):
            y = functional_call(layer, (parameters, buffers), (x,))
            return y.pow(3).sum(), buffers

        result = grad(loss, has_aux=True)(dict(layer.named_parameters()), buffers)
        results.append([*result[0].values(), *result[1].values()])
    assert_same(*results, torch.float64)


@every_built
@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_compile_in_one_graph(name, backend):
    torch._dynamo.reset()
    reference, layer, shape = pair(name, dtype=torch.float64)
    compiled = torch.compile(layer, backend=backend, fullgraph=True)
    inputs = rand(*shape), rand(*shape)
    assert_same(steps(compiled, *inputs), steps(reference, *inputs), torch.float64)


# --- state of instance norm -----------------------------------------------------------


@pytest.mark.parametrize("momentum", [0.1, None, 1.0, 0.0, -0.5])
@pytest.mark.parametrize("tracking", [True, False])
def test_running_statistics_over_train_and_eval(momentum, tracking):
    options = {"momentum": momentum, "track_running_stats": tracking, "affine": True}
    reference = shaken(nn.InstanceNorm1d(3, **options).double())
    layer = ours_nn.InstanceNorm1d(3, **options).double()
    layer.load_state_dict(reference.state_dict())
    results = []
    for module in (reference, layer):
        torch.manual_seed(1)
        seen = steps(module, rand(4, 3, 5), rand(3, 7), rand(1, 3, 2))
        seen += steps(module.eval(), rand(4, 3, 5), rand(3, 7), rand(2, 3, 1)[..., :0])
        seen += steps(module.train(), rand(4, 3, 5))
        module.reset_running_stats()
        results.append([*seen, *steps(module, rand(4, 3, 5))])
    assert_same(*results, torch.float64)


def test_an_empty_batch_leaves_the_running_statistics_alone():
    _, ours, shape = pair("tracking")
    before = copy.deepcopy(ours.state_dict())
    for empty in ((0, *shape[1:]), (2, 3, 0, 4)):
        assert ours(torch.zeros(empty)).shape == empty
    assert_close(dict(ours.state_dict()), dict(before), rtol=0, atol=0)
    theirs = nn.InstanceNorm2d(3, track_running_stats=True)
    theirs(torch.zeros(0, *shape[1:]))
    assert theirs.running_mean.isnan().all()  # what torch does


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_nan_never_reaches_the_running_statistics(bad):
    _, layer, shape = pair("tracking")
    before = copy.deepcopy(layer.state_dict())
    x = torch.randn(shape)
    x[1, 2, 0, 1] = bad
    with pytest.raises(ValueError, match=r"running_mean would .* channels \[2\]; drop"):
        layer(x)
    assert_close(dict(layer.state_dict()), dict(before), rtol=0, atol=0)


def test_the_statistics_keep_no_graph_and_copies_are_apart():
    _, layer, shape = pair("tracking")
    for _ in range(2):
        layer(torch.randn(shape, requires_grad=True)).sum().backward()
    assert layer.running_mean.grad_fn is None and not layer.running_var.requires_grad
    other, before = copy.deepcopy(layer), copy.deepcopy(layer.state_dict())
    other(torch.randn(shape))
    assert_close(dict(layer.state_dict()), dict(before), rtol=0, atol=0)
    assert (other.running_mean != layer.running_mean).all()


# --- dtypes, memory, devices ----------------------------------------------------------


@every_built
@pytest.mark.parametrize("low", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("mixed", [True, False], ids=["float32 layer", "half layer"])
def test_half_precision(name, low, mixed):
    dtype = torch.float32 if mixed else low
    reference, layer, shape = pair(name, dtype=dtype)
    x = (rand(*shape) * 3).to(low)
    exact, dy = copy.deepcopy(reference).double(), torch.Generator().manual_seed(1)
    dy = torch.randn(shape, generator=dy).to(low).double()
    if name == "RMSNorm":
        exact.eps = torch.finfo(torch.float32).eps
    results = steps(layer, x), steps(reference, x), steps(exact, x.double(), dy=dy)
    assert_as_good(*results, low)


@every_built
@pytest.mark.parametrize("low", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_is_the_float32_answer_rounded_once(name, low):
    _, layer, shape = pair(name)
    x = (rand(*shape) + 40).to(low)
    assert (layer(x) == layer(x.float()).to(low)).all()


def test_the_default_eps_of_rms_norm_is_that_of_the_dtype_computed_in():
    for dtype, wide in (
        (torch.float16, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ):
        x = torch.full((3, 4), 1e-4, dtype=dtype)
        y = ours_f.rms_norm(x, (4,))
        assert_close(y, F.rms_norm(x, (4,)))
        assert_close(y, ours_f.rms_norm(x, (4,), eps=torch.finfo(wide).eps))
        assert (y < 0.9).all() or dtype == torch.float64


LAYOUTS = {
    "channels last": lambda: rand(2, 4, 3, 4).to(memory_format=torch.channels_last),
    "channels last, 3d": lambda: rand(2, 3, 2, 4, 4).movedim(-1, 1),
    "permuted": lambda: rand(4, 3, 4, 2).permute(3, 2, 1, 0),
    "sequence": lambda: rand(2, 4, 4).transpose(1, 2),
    "every second": lambda: rand(4, 4, 3, 4)[::2],
    "expanded": lambda: rand(2, 4, 1, 4).expand(2, 4, 3, 4),
    "one pixel": lambda: rand(2, 4, 1, 4).to(memory_format=torch.channels_last),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    ("name", "arguments"),
    [("layer_norm", ((4,),)), ("rms_norm", ((4,),)), ("group_norm", (2,)),
     ("instance_norm", ())],
)  # fmt: skip
def test_memory_layout_of_the_output(layout, name, arguments):
    x = LAYOUTS[layout]()
    y, wanted = (getattr(lib, name)(x, *arguments) for lib in (ours_f, F))
    assert_close(y, wanted)
    # The stride of an axis with one entry means nothing.
    strides = zip(x.shape, y.stride(), wanted.stride(), strict=True)
    assert all(ours == theirs for size, ours, theirs in strides if size > 1)


def test_memory_layout_in_evaluation_with_running_statistics():
    reference, layer, shape = pair("tracking")
    x = torch.randn(shape).to(memory_format=torch.channels_last)
    y, wanted = layer.eval()(x), reference.eval()(x)
    assert_close(y, wanted)
    assert y.stride() == wanted.stride() != x.stride()


def test_group_norm_far_from_zero_in_both_layouts():
    x = torch.randn(4, 16, 8, 8) + 1000
    exact = F.group_norm(x.double(), 4)
    last = x.to(memory_format=torch.channels_last)
    assert (ours_f.group_norm(x, 4) - exact).abs().max() < 1e-3
    assert (ours_f.group_norm(last, 4) - exact).abs().max() < 1e-3
    assert (F.group_norm(last, 4) - exact).abs().max() > 0.05  # torch cancels here


@every_built
def test_meta_device_and_no_grad(name):
    build, shape = BUILT[name]
    layer = build(ours_nn, device="meta")
    x = torch.empty(shape, device="meta", requires_grad=True)
    y = layer(x)
    y.sum().backward()
    assert y.shape == x.shape == x.grad.shape and y.device.type == "meta"
    reference, layer, _ = pair(name)
    x = torch.randn(shape)
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            y = layer(x)
            assert not y.requires_grad
            assert_close(y, reference(x))


@every_built
def test_autocast_agrees_with_torch(name):
    reference, layer, shape = pair(name)
    for dtype in (torch.float32, torch.bfloat16):
        x = torch.randn(shape).to(dtype)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            a, b = reference(x), layer(x)
        assert a.dtype == b.dtype
        assert_close(a, b, rtol=2e-2, atol=2e-2)


# --- bad input ------------------------------------------------------------------------

X = torch.arange(24.0).reshape(2, 3, 4)
ONES = torch.ones(3)
BAD = {
    "layer, list": (lambda f: f.layer_norm([1.0], (1,)), "must be Tensor, not list"),
    "layer, integers": (
        lambda f: f.layer_norm(X.long(), (4,)),
        '"layer_norm" not implemented for torch.int64; convert the input',
    ),
    "layer, complex": (lambda f: f.layer_norm(X + 0j, (4,)), "not implemented for"),
    "layer, number": (
        lambda f: f.layer_norm(X, 4),
        "must be tuple of ints, not 4; for",
    ),
    "layer, floats": (lambda f: f.layer_norm(X, (4.0,)), "must be tuple of ints"),
    "layer, no shape": (lambda f: f.layer_norm(X, None), "must be tuple of ints"),
    "layer, empty shape": (lambda f: f.layer_norm(X, ()), "at least 1-dimensional"),
    "layer, other shape": (
        lambda f: f.layer_norm(X, (3,)),
        r"Given normalized_shape=\[3\], expected input with shape \[\*, 3\], but got "
        r"input of size \[2, 3, 4\]; move",
    ),
    "layer, long shape": (lambda f: f.layer_norm(X, (1, 2, 3, 4)), "Given normalized"),
    "layer, scalar": (lambda f: f.layer_norm(torch.tensor(1.0), (1,)), "Given norm"),
    "layer, weight": (
        lambda f: f.layer_norm(X, (4,), ONES),
        r"Expected weight to be of same shape .* got weight of shape \[3\]",
    ),
    "layer, bias": (
        lambda f: f.layer_norm(X, (4,), None, torch.ones(1, 4)),
        "Expected bias to be of same shape as normalized_shape",
    ),
    "layer, dtype": (
        lambda f: f.layer_norm(X, (4,), torch.ones(4).double()),
        r"mixed dtype: input torch.float32, parameters \['torch.float64'\]; convert",
    ),
    "layer, half weight": (
        lambda f: f.layer_norm(X, (4,), torch.ones(4).half()),
        "mixed dtype",
    ),
    "layer, two dtypes": (
        lambda f: f.layer_norm(X.half(), (4,), torch.ones(4), torch.ones(4).half()),
        "mixed dtype",
    ),
    "layer, eps": (lambda f: f.layer_norm(X, (4,), eps="a"), None),
    "layer, no eps": (lambda f: f.layer_norm(X, (4,), eps=None), None),
    "layer, device": (
        lambda f: f.layer_norm(X, (4,), torch.ones(4, device="meta")),
        None,
    ),
    "RMS, list": (lambda f: f.rms_norm([1.0], (1,)), "must be Tensor, not list"),
    "RMS, integers": (lambda f: f.rms_norm(X.long(), (4,)), '"rms_norm" not implem'),
    "RMS, other shape": (lambda f: f.rms_norm(X, (3,)), "Given normalized_shape="),
    "RMS, long shape": (
        lambda f: f.rms_norm(X, (1, 2, 3, 4)),
        "Input tensor must have at least 4 dimensions, but got 3",
    ),
    "RMS, number": (lambda f: f.rms_norm(X, 4), "must be tuple of ints"),
    "RMS, weight": (lambda f: f.rms_norm(X, (4,), ONES), "Expected weight to be of"),
    "group, integers": (lambda f: f.group_norm(X.long(), 3), "not implemented for"),
    "group, vector": (lambda f: f.group_norm(X[0, 0], 1), "Expected at least 2 dimens"),
    "group, negative": (lambda f: f.group_norm(X, -1), "greater than 0, got -1"),
    "group, two of three": (
        lambda f: f.group_norm(X, 2),
        r"divisible by num_groups, .* of shape \[2, 3, 4\] and num_groups=2; pass",
    ),
    "group, float": (lambda f: f.group_norm(X, 1.0), "'num_groups' must be int, not 1"),
    "group, True": (lambda f: f.group_norm(X, True), "must be int, not True"),
    "group, weight": (
        lambda f: f.group_norm(X, 3, torch.ones(4)),
        r"Expected weight to be a vector .* got weight of shape \[4\]",
    ),
    "group, bias": (
        lambda f: f.group_norm(X, 3, None, torch.ones(1, 3)),
        r"Expected bias to be a vector .* got bias of shape \[1, 3\]",
    ),
    "group, dtype": (lambda f: f.group_norm(X, 3, ONES.double()), "mixed dtype"),
    "group, one value": (
        lambda f: f.group_norm(X[:1, :, 0], 3),
        r"Expected more than 1 value per channel .* \[1, 3\]; every group has one",
    ),
    "group, layer for other channels": (
        lambda f: (nn if f is F else ours_nn).GroupNorm(2, 6)(X[:, :2]),
        "Expected weight to be a vector",
    ),
    "instance, integers": (lambda f: f.instance_norm(X.long()), "not implemented for"),
    "instance, one position": (
        lambda f: f.instance_norm(X[..., :1]),
        r"Expected more than 1 spatial element .* \(2, 3, 1\); their variance is 0",
    ),
    "instance, no positions": (lambda f: f.instance_norm(X[..., 0]), "1 spatial elem"),
    "instance, vector": (lambda f: f.instance_norm(X[0, 0]), "1 spatial element"),
    "instance, no statistics": (
        lambda f: f.instance_norm(X, use_input_stats=False),
        "Expected running_mean and running_var to be defined when use_input_stats is",
    ),
    "instance, one statistic": (
        lambda f: f.instance_norm(X, ONES, use_input_stats=False),
        "Expected running_mean and running_var to be defined",
    ),
    "instance, only the variance": (
        lambda f: f.instance_norm(X, None, ONES),
        "must either both be None or neither be None; running_mean is None",
    ),
    "instance, other statistics": (
        lambda f: f.instance_norm(X, torch.ones(4), torch.ones(4)),
        "running_mean should contain 3 elements not 4",
    ),
    "instance, weight": (
        lambda f: f.instance_norm(X, weight=torch.ones(4)),
        "weight should contain 3 elements not 4",
    ),
    "instance, dtype": (
        lambda f: f.instance_norm(X, weight=ONES.double()),
        "mixed dtype",
    ),
    "instance, layer for other channels": (
        lambda f: (nn if f is F else ours_nn).InstanceNorm1d(4, affine=True)(X),
        r"expected input's size at dim=1 to match num_features \(4\), but got: 3",
    ),
    "instance, images in 1d": (
        lambda f: (nn if f is F else ours_nn).InstanceNorm1d(3)(X[None, None]),
        "expected 2D or 3D input",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_raises_torchs_error_and_says_more(case):
    call, message = BAD[case]
    with pytest.raises(Exception) as theirs:
        call(F)
    with pytest.raises(type(theirs.value), match=message):
        call(ours_f)


def test_what_torch_refuses_in_words_of_python_gets_an_error_of_ours():
    # torch: "'list' object has no attribute 'dim'", "integer modulo by zero", ...
    for name, arguments in (("group_norm", (2,)), ("instance_norm", ())):
        with pytest.raises(TypeError, match="must be Tensor, not list; convert it"):
            getattr(ours_f, name)([1.0], *arguments)
    with pytest.raises(RuntimeError, match="greater than 0, got 0; 1 is layer norm"):
        ours_f.group_norm(X, 0)
    with pytest.raises(TypeError, match="must be int, not None"):
        ours_f.group_norm(X, None)


def test_the_warning_about_unused_features_is_kept():
    with pytest.warns(UserWarning, match="does not match num_features"):
        ours_nn.InstanceNorm1d(4)(X)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ours_nn.InstanceNorm1d(3)(X)


# --- the array functions, beyond what test_functions.py asks of all -------------------

rng = np.random.default_rng(0)


def finite_differences(forward, backward, *arguments):
    bnlib.gradcheck(
        lambda *a: forward(*a)[0],
        lambda dy, *a: backward(dy, forward(*a)[1]),
        *arguments,
    )


SHAPE = (3, 2, 4)
EVERY_AXES = [
    axes for r in (1, 2, 3) for axes in itertools.combinations(range(len(SHAPE)), r)
]


@pytest.mark.parametrize("axes", [*EVERY_AXES, -1, (-1, 0), [1], (2, 1)], ids=str)
@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_any_axes_forward_and_backward(axes, library):
    x = rng.normal(size=SHAPE)
    listed = [axes] if isinstance(axes, int) else axes
    positive = tuple(sorted(a % 3 for a in listed))
    shape = [SHAPE[a] for a in positive]
    gamma, beta, dy = (
        rng.normal(size=shape),
        rng.normal(size=shape),
        rng.normal(size=x.shape),
    )
    last = [a for a in range(3) if a not in positive] + list(positive)

    def turned(a):  # the axes to the end, as torch wants them
        return torch.tensor(np.transpose(a, last))

    leaves = [turned(x), torch.tensor(gamma), torch.tensor(beta)]
    leaves = [a.requires_grad_() for a in leaves]
    for name, n in (("layer", 3), ("rms", 2)):
        forward, backward = (
            getattr(bnlib, f"{name}_norm{s}") for s in ("", "_backward")
        )
        given = x, gamma, beta, dy
        if library == "torch":
            given = [torch.tensor(a) for a in given]
        y, cache = forward(*given[:n], axes=axes, eps=0.1)
        answers = [y, *backward(given[3], cache)]
        wanted = getattr(F, f"{name}_norm")(leaves[0], shape, *leaves[1:n], eps=0.1)
        gradients = torch.autograd.grad(wanted, leaves[:n], turned(dy))
        back = np.argsort(last)
        wanted = [wanted.detach().permute(*back), gradients[0].permute(*back)]
        for a, b in zip(answers, [*wanted, *gradients[1:]], strict=True):
            assert tuple(a.shape) == tuple(b.shape)
            np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("num_groups", [1, 2, 3, 6])
@pytest.mark.parametrize("shape", [(4, 6), (2, 6, 3), (2, 6, 2, 2)], ids=str)
def test_groups_of_neighbouring_channels(num_groups, shape):
    x, dy = rng.normal(size=(2, *shape))
    gamma, beta = rng.normal(size=(2, 6))
    leaves = [torch.tensor(a, requires_grad=True) for a in (x, gamma, beta)]
    wanted = F.group_norm(leaves[0], num_groups, *leaves[1:])
    wanted.backward(torch.tensor(dy))
    y, cache = bnlib.group_norm(x, gamma, beta, num_groups=num_groups)
    wanted = [wanted.detach(), *(leaf.grad for leaf in leaves)]
    answers = [y, *bnlib.group_norm_backward(dy, cache)]
    for a, b in zip(answers, wanted, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10)


def test_rms_norm_of_centred_data_is_layer_norm():
    x = rng.normal(size=(5, 4))
    x -= x.mean(axis=1, keepdims=True)
    np.testing.assert_allclose(bnlib.rms_norm(x)[0], bnlib.layer_norm(x)[0], atol=1e-14)


def test_backward_without_parameters():
    x, dy = rng.normal(size=(2, 3, 4, 5))
    for name, options, ones in (
        ("layer_norm", {}, 5),
        ("rms_norm", {}, 5),
        ("group_norm", {"num_groups": 2}, 4),
        ("instance_norm", {}, 4),
    ):
        forward, backward = (getattr(bnlib, name + s) for s in ("", "_backward"))
        plain = backward(dy, forward(x, **options)[1])
        given = backward(dy, forward(x, np.ones(ones), **options)[1])
        for a, b in zip(plain, given, strict=True):
            np.testing.assert_array_equal(a, b)


HALVES = {
    "layer_norm": ((5, 40), 40, {}),
    "rms_norm": ((5, 40), 40, {}),
    "group_norm": ((5, 6, 20), 6, {"num_groups": 2}),
    "instance_norm": ((5, 3, 40), 3, {}),
}


@pytest.mark.parametrize("name", HALVES)
@pytest.mark.parametrize("low", ["numpy float16", "torch float16", "torch bfloat16"])
def test_half_precision_arrays_are_the_float64_answer_rounded_once(name, low):
    shape, n, options = HALVES[name]
    library, dtype = low.split()

    def convert(a):
        if library == "numpy":
            return a.astype(dtype)
        return torch.tensor(a).to(getattr(torch, dtype))

    def wide(a):
        return a.astype("float64") if library == "numpy" else a.double()

    x = convert(300 * rng.normal(size=shape) + 300)  # squares overflow float16
    gamma, dy = convert(rng.normal(size=n)), convert(rng.normal(size=shape))
    forward, backward = (getattr(bnlib, name + s) for s in ("", "_backward"))
    y, cache = forward(x, gamma, **options)
    exact, wide_cache = forward(wide(x), wide(gamma), **options)
    answers = [y, *backward(dy, cache)]
    wanted = [exact, *backward(wide(dy), wide_cache)]
    for a, b in zip(answers, wanted, strict=True):
        assert a.dtype == x.dtype and b.dtype == wide(x).dtype
        assert (np.asarray(wide(a)) == np.asarray(wide(convert_like(b, a)))).all()


def convert_like(b, a):
    return b.astype(a.dtype) if isinstance(b, np.ndarray) else b.to(a.dtype)


def test_what_the_cache_holds_is_what_onnx_asks_for():
    x = rng.normal(size=(3, 4))
    _, (_, mean, std, _, axes) = bnlib.layer_norm(x, eps=0.1)
    np.testing.assert_allclose(mean, x.mean(axis=1, keepdims=True))
    np.testing.assert_allclose(std, (x.var(axis=1, keepdims=True) + 0.1) ** 0.5)
    assert axes == (1,)


@pytest.mark.parametrize("scale", [1e-3, 7.0])
@pytest.mark.parametrize("shift", [0.0, 5.0])
def test_invariances(scale, shift):
    x = rng.normal(size=(3, 4, 6))
    first = np.array([1.0, 0, 0])[:, None, None]
    for f, keeps_shift in (
        (lambda x: bnlib.layer_norm(x, eps=0)[0], True),
        (lambda x: bnlib.group_norm(x, num_groups=2, eps=0)[0], True),
        (lambda x: bnlib.instance_norm(x, eps=0)[0], True),
        (lambda x: bnlib.rms_norm(x, eps=0)[0], False),
    ):
        moved = f(x * (1 + (scale - 1) * first) + shift * first)
        same = np.allclose(moved, f(x), atol=1e-9)
        assert same == (keeps_shift or shift == 0)
        np.testing.assert_array_equal(f(x)[:1], f(x[:1]))  # nobody else matters


FAR = {
    "LayerNorm": lambda library: library.LayerNorm(64),
    "GroupNorm": lambda library: library.GroupNorm(4, 12),
    "InstanceNorm2d": lambda library: library.InstanceNorm2d(12, affine=True),
}


@pytest.mark.parametrize("name", FAR)
@pytest.mark.parametrize("mean", [0.0, 1e4, 1e6])
def test_layers_keep_their_digits_far_from_zero(name, mean):
    x = torch.randn(16, 12, 8, 64) + mean
    a, b = (x.to(t, copy=True).requires_grad_() for t in (torch.float32, torch.float64))
    mine, wanted = FAR[name](ours_nn)(a), FAR[name](nn).double()(b)
    assert (mine - wanted).abs().max() < 5e-6
    dy = torch.randn(x.shape)
    mine.backward(dy), wanted.backward(dy.double())
    assert (a.grad - b.grad).abs().max() < 5e-6
    constant = FAR[name](ours_nn)(torch.full_like(x, mean + 0.1))
    assert constant.abs().max() < 1e-5


@pytest.mark.parametrize("name", FAR)
def test_a_variance_that_overflows_is_not_silent(name):
    """PyTorch's group norm returns zeros: the inverse of an infinite deviation."""
    assert FAR[name](ours_nn)(torch.randn(4, 12, 8, 64) * 1e30).isnan().all()
