"""The layers against torch.nn: PyTorch's own samples, checkpoints, transforms, errors.

PyTorch tests its normalizations with `module_db` and `op_db`. All their entries for
them run here on our layers and functions, with no list of exceptions.
"""

import copy
import io
import itertools

import pytest
import torch
import torch.nn.functional as F
from company import ALL, TWINS, build, input_of, pairs, resnet, shaken, train_or_eval
from torch import nn
from torch.func import functional_call, grad, hessian, jacfwd, jacrev, jvp, vmap
from torch.testing import assert_close
from torch.testing._internal.common_methods_invocations import op_db
from torch.testing._internal.common_modules import module_db

import bnlib.nn as ours_nn
from bnlib import fold
from bnlib.nn import BatchNorm1d, BatchNorm2d, SyncBatchNorm, _batch_norm
from bnlib.nn import functional as ours_f
from bnlib.nn.functional import batch_norm

LAYERS = {
    getattr(nn, name): getattr(ours_nn, name)
    for name in (*(cls for cls, *_ in TWINS.values()),)
    if name != "SyncBatchNorm"  # which PyTorch has no samples of
}
MODULES = {info.module_cls: info for info in module_db if info.module_cls in LAYERS}
NAMES = "batch_norm", "layer_norm", "rms_norm", "group_norm", "instance_norm"
NAMES += ("local_response_norm",)
OPERATORS = [o for o in op_db if o.name.rpartition(".")[2] in NAMES and o.dtypes]
NATIVE = {"native_layer_norm": "layer_norm", "native_group_norm": "group_norm"}
assert len(MODULES) == 10 and len({op.name for op in OPERATORS}) == len(NAMES)
TOLERANCE = {
    torch.float64: {"rtol": 1e-11, "atol": 1e-11},
    torch.float32: {"rtol": 1e-5, "atol": 1e-5},
    torch.bfloat16: {"rtol": 1.6e-2, "atol": 1e-2},
    torch.float16: {"rtol": 2e-3, "atol": 2e-3},
}
# Names in `company`; the others differ from one of these in the number of axes alone.
BUILT = "BatchNorm1d", "BatchNorm2d", "LayerNorm", "LayerNorm, two axes", "RMSNorm"
BUILT += "GroupNorm", "InstanceNorm1d", "InstanceNorm2d, tracking"
COUNTING = [name for name in ALL if "running_mean" in build(name).state_dict()]

every_layer = pytest.mark.parametrize(
    ("theirs", "ours"), LAYERS.items(), ids=lambda cls: cls.__module__.split(".")[0]
)
every_built = pytest.mark.parametrize("name", BUILT)
exact = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)


def rand(*shape, dtype=torch.float64):
    return torch.randn(*shape, dtype=dtype)


def pair(theirs, ours, *args, **kwargs):
    """The same layer from torch.nn and from us, in the same random state."""
    reference = shaken(theirs(*args, **kwargs))
    layer = ours(*args, **kwargs)
    assert list(layer.state_dict()) == list(reference.state_dict())
    layer.load_state_dict(reference.state_dict())
    return reference, layer


def twins(name, **options):
    """The same from the tables of `company`, and an input's shape."""
    reference = build(name, nn, **options)
    return reference, build(name, **options), ALL[name][-1][0]


def steps(layer, *inputs, dy=None):
    """Everything that can be seen of some forward and backward passes."""
    given = dy
    seen = []
    for x in inputs:
        x = x.detach().clone(memory_format=torch.preserve_format).requires_grad_()
        y = layer(x)
        dy = torch.randn(y.shape, generator=torch.Generator().manual_seed(1)).to(y)
        y.backward(dy if given is None else given)
        seen += [y.detach(), x.grad, *(p.grad.clone() for p in layer.parameters())]
        seen += [buffer.clone() for buffer in layer.buffers()]
    return seen


def assert_same(ours, theirs, dtype):
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        if a is None or b is None:
            assert a is b
        else:
            assert_close(a, b, **TOLERANCE[dtype.to_real()], equal_nan=True)


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
    assert len(samples) >= (1 if theirs is nn.LocalResponseNorm else 6)
    for sample in samples:
        given = sample.constructor_input
        options = {} if theirs is nn.LocalResponseNorm else {"dtype": dtype}
        reference, layer = pair(theirs, ours, *given.args, **given.kwargs, **options)
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
            given = sample.module_error_input
            made = given.constructor_input
            with pytest.raises(sample.error_type, match=sample.error_regex):
                layer = LAYERS[theirs](*made.args, **made.kwargs)
                layer(*given.forward_input.args)
            count += 1
    assert count >= 8


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


@pytest.mark.parametrize("op", OPERATORS, ids=lambda op: op.name)
@pytest.mark.parametrize(
    "dtype", [*TOLERANCE, torch.complex64, torch.complex128], ids=str
)
def test_every_sample_of_op_db(op, dtype):
    name = op.name.rpartition(".")[2]
    if dtype not in op.dtypes:  # torch has no samples either
        assert dtype.is_complex or (dtype == torch.float16 and "local" in name)
        return
    count = 0
    for source in (op.sample_inputs, op.reference_inputs):
        for sample in source("cpu", dtype, requires_grad=True):
            ours, theirs = getattr(ours_f, name), getattr(F, name)
            wide = torch.promote_types(dtype, torch.float64)
            exact = answers(theirs, with_its_eps(op, sample, dtype), wide)
            assert_as_good(answers(ours, sample), answers(theirs, sample), exact, dtype)
            count += 1
    assert count >= 10


def test_every_error_of_op_db():
    count = 0
    for op in op_db:
        name = NATIVE.get(op.name, op.name.removeprefix("nn.functional."))
        if name not in NAMES or op.error_inputs_func is None:
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
    stats = torch.zeros(6, dtype=dtype), torch.ones(6, dtype=dtype)
    for name, arguments in (
        ("batch_norm", stats),
        ("layer_norm", ((5,),)),
        ("rms_norm", ((5,),)),
        ("group_norm", (3,)),
        ("instance_norm", ()),
        ("local_response_norm", (3,)),
    ):
        small = x * 1e-4  # so that eps is seen
        wanted = getattr(F, name)(small, *arguments)
        assert_close(getattr(ours_f, name)(small, *arguments), wanted)
    both = [[s.clone() for s in stats] for _ in "ab"]
    assert_close(ours_f.instance_norm(x, *both[0]), F.instance_norm(x, *both[1]))
    assert_close(both[0], both[1])


# --- one import swapped in a model ----------------------------------------------------


def transformer(lib):
    layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True)
    layer.norm1, layer.norm2 = lib.LayerNorm(16), lib.LayerNorm(16)
    return nn.Sequential(nn.Linear(5, 16), layer, lib.RMSNorm(16), nn.Linear(16, 4))


def convnet(lib):
    head = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)
    tracking = lib.InstanceNorm2d(8, affine=True, track_running_stats=True)
    first = nn.Conv2d(5, 8, 3), lib.GroupNorm(4, 8), nn.ReLU()
    second = nn.Conv2d(8, 8, 3), tracking, nn.ReLU()
    return nn.Sequential(*first, *second, *head)


def train(net, optimizer, seed, shape, dtype):
    generator = torch.Generator().manual_seed(seed)
    losses = []
    for _ in range(10):
        x = torch.randn(16, *shape, generator=generator, dtype=torch.float64)
        labels = (x * torch.arange(x[0].numel()).reshape(shape)).flatten(1).sum(1) > 0
        scores = net(x.to(dtype))
        scores = scores if scores.ndim == 2 else scores.mean(1)
        loss = F.cross_entropy(scores, labels.long())
        optimizer.zero_grad(), loss.backward(), optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize(
    ("build", "shape"),
    [(resnet, (3, 8, 8)), (transformer, (6, 5)), (convnet, (5, 8, 8))],
)
@pytest.mark.parametrize(("first", "then"), [(nn, ours_nn), (ours_nn, nn)])
@pytest.mark.parametrize(
    # In float32 the two sum in another order, and twenty steps of training spread that.
    ("dtype", "loose"),
    [(torch.float64, 1e-7), (torch.float32, 1e-4)],
)
def test_a_checkpoint_continues_in_the_other_library(
    build, shape, first, then, dtype, loose
):
    nets = [build(lib).to(dtype) for lib in (first, then)]
    optimizers = [torch.optim.SGD(n.parameters(), 0.05, momentum=0.9) for n in nets]
    net, other = nets
    train(net, optimizers[0], 0, shape, dtype)
    file = io.BytesIO()
    torch.save([net.state_dict(), optimizers[0].state_dict()], file)
    file.seek(0)
    states = torch.load(file)
    other.load_state_dict(states[0]), optimizers[1].load_state_dict(states[1])
    losses = train(net, optimizers[0], 1, shape, dtype)
    assert max(losses) - min(losses) > 0.01  # it does train
    at = {"rtol": loose, "atol": loose / 10}
    assert_close(train(other, optimizers[1], 1, shape, dtype), losses, **at)
    assert_close(dict(other.state_dict()), dict(net.state_dict()), **at)
    x = rand(5, *shape, dtype=dtype)
    assert_close(other.eval()(x), net.eval()(x), rtol=loose, atol=loose)


@every_layer
def test_other_peoples_code_still_recognises_the_layer(theirs, ours):
    assert issubclass(ours, theirs) and ours.__name__ == theirs.__name__
    if issubclass(ours, nn.modules.batchnorm._BatchNorm):
        converted = nn.SyncBatchNorm.convert_sync_batchnorm(nn.Sequential(ours(3)))
        assert isinstance(converted[0], nn.SyncBatchNorm)
    else:
        assert ours.__init__ is theirs.__init__
        assert ours._load_from_state_dict is theirs._load_from_state_dict


def test_a_checkpoint_from_before_num_batches_tracked():
    old = {"weight": torch.ones(3), "bias": torch.ones(3)}
    old |= {"running_mean": torch.ones(3), "running_var": torch.full((3,), 2.0)}
    layer = BatchNorm1d(3)
    layer.load_state_dict(old)
    assert layer.num_batches_tracked == 0 and layer.running_var[0] == 2
    with pytest.raises(RuntimeError, match="size mismatch"):
        BatchNorm1d(4).load_state_dict(old)


# --- derivatives ----------------------------------------------------------------------


def problems(given=(True, True), f=ours_f):
    """name: (function of tensors, its arguments, None for what is not given)."""
    weights = [{n: rand(n).requires_grad_() if g else None for n in (4, 3)}
               for g in given]  # fmt: skip
    w4, b4, w3, b3 = (w[n] for n in (4, 3) for w in weights)
    x, stats = rand(2, 4, 3).requires_grad_(), (rand(4), rand(4).abs() + 0.5)
    return {
        "batch": (
            lambda x, w, b: f.batch_norm(x, None, None, w, b, True),
            (x, w4, b4),
        ),
        "rows": (
            lambda x, w, b: f.batch_norm(x.mT.flatten(0, 1), None, None, w, b, True),
            (x, w4, b4),
        ),
        "evaluation": (lambda x, w, b: f.batch_norm(x, *stats, w, b), (x, w4, b4)),
        "layer": (lambda x, w, b: f.layer_norm(x, (3,), w, b), (x, w3, b3)),
        "RMS": (lambda x, w: f.rms_norm(x, (3,), w), (x, w3)),
        "group": (lambda x, w, b: f.group_norm(x, 2, w, b), (x, w4, b4)),
        "instance": (lambda x, w, b: f.instance_norm(x, weight=w, bias=b), (x, w4, b4)),
        "response": (lambda x: f.local_response_norm(x, 4, 1.0), (x,)),
    }


every_problem = pytest.mark.parametrize("name", problems())


@every_problem
@pytest.mark.parametrize("given", [(1, 1), (1, 0), (0, 1), (0, 0)], ids=str)
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
    arguments = problems()[name][1]
    for wanted in itertools.product([True, False], repeat=len(arguments)):
        results = []
        for lib in (ours_f, F):
            torch.manual_seed(1)
            leaves = [
                a.detach().requires_grad_(w)
                for a, w in zip(arguments, wanted, strict=True)
            ]
            y = problems(f=lib)[name][0](*leaves)
            assert y.requires_grad == any(wanted)
            if any(wanted):
                y.pow(3).sum().backward()
            results.append([a.grad for a in leaves])
        assert_same(*results, torch.float64)


@pytest.mark.parametrize("name", [*BUILT, "BatchRenorm1d"])
def test_our_backward_is_what_runs(name):
    x = input_of(name, "small")[0].requires_grad_()
    seen, queue = set(), [build(name)(x).grad_fn]
    while queue:
        node = queue.pop()
        seen.add(type(node).__name__)
        queue += [n for n, _ in node.next_functions if n is not None]
    mine = {f"{kind}FunctionBackward" for kind in ("Native", "Normalize", "RMS")}
    assert seen & mine and not seen & {"MeanBackward1", "PowBackward0"}
    derived = _batch_norm.BatchNorm1d(3)(torch.randn(4, 3))  # what chapter 21 replaces
    assert "NormalizeFunctionBackward" in str(derived.grad_fn)


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
    assert_close(tangent, (jacobian * dx).sum(dim=(-3, -2, -1)))


def test_vmap_over_running_statistics_given_as_arguments():
    x, mean, var = rand(2, 4, 3), torch.zeros(2, 3).double(), torch.ones(2, 3).double()
    wanted = mean.clone(), var.clone()
    vmap(lambda *a: batch_norm(*a, None, None, True))(x, mean, var)
    for k in range(2):
        F.batch_norm(x[k], wanted[0][k], wanted[1][k], training=True)
    assert_same([mean, var], list(wanted), torch.float64)


@pytest.mark.parametrize("name", ["BatchNorm1d", "InstanceNorm2d, tracking"])
def test_a_transform_that_is_given_parameters_and_buffers(name):
    results = []
    for layer in twins(name)[:2]:
        layer, x = layer.double(), input_of(name, "small", dtype=torch.float64)[0]
        buffers = {k: v.clone() for k, v in layer.named_buffers()}

        def loss(parameters, buffers, layer=layer, x=x):
            y = functional_call(layer, (parameters, buffers), (x,))
            return y.pow(3).sum(), buffers

        result = grad(loss, has_aux=True)(dict(layer.named_parameters()), buffers)
        results.append([*result[0].values(), *result[1].values()])
        assert layer.num_batches_tracked == 0
    assert_same(*results, torch.float64)


def test_compiled_code_keeps_nan_out_of_the_running_statistics():
    torch._dynamo.reset()
    layer = BatchNorm1d(2)
    x = torch.tensor([[1.0, float("nan")], [3.0, 1.0]])
    y = torch.compile(layer, backend="eager", fullgraph=True)(x)
    assert y[:, 1].isnan().all()
    assert_close(layer.running_mean, torch.tensor([0.2, 0.0]))
    assert_close(layer.running_var, torch.tensor([1.1, 1.0]))


# --- state ----------------------------------------------------------------------------


def test_the_variance_that_is_stored_is_unbiased():
    """By chapter 5's way and by chapter 21's, and averaged over a batch's instances."""
    x = rand(3, 4, 5)
    pooled, own = x.var((0, 2)), x.var(2).mean(0)
    cases = (_batch_norm.BatchNorm1d, pooled), (BatchNorm1d, pooled)
    for cls, wanted in (*cases, (ours_nn.InstanceNorm1d, own)):
        layer = cls(4, momentum=1.0, track_running_stats=True).double()
        layer(x)
        assert_close(layer.running_var, wanted)


@pytest.mark.parametrize("kind", ["BatchNorm1d", "InstanceNorm1d"])
@pytest.mark.parametrize("momentum", [0.1, None, 1.0, 0.0, 1, -0.5])
@pytest.mark.parametrize("tracking", [True, False])
def test_running_statistics_over_train_and_eval(kind, momentum, tracking):
    options = {"momentum": momentum, "track_running_stats": tracking, "affine": True}
    classes = getattr(nn, kind), getattr(ours_nn, kind)
    results, other = [], rand(6, 3) if kind == "BatchNorm1d" else rand(3, 7)
    for layer in pair(*classes, 3, dtype=torch.float64, **options):
        torch.manual_seed(1)
        seen = steps(layer, rand(4, 3, 5), other, rand(1, 3, 2))
        seen += steps(layer.eval(), rand(4, 3, 5), other, rand(2, 3, 1)[..., :0])
        seen += steps(layer.train(), rand(4, 3, 5))
        layer.reset_running_stats()
        seen += [b.clone() for b in layer.buffers()]
        results.append([*seen, *steps(layer, rand(4, 3, 5))])
    assert_same(*results, torch.float64)


def test_switches_that_people_flip_later():
    for change in (
        {"num_batches_tracked": None},
        {"num_batches_tracked": None, "momentum": None},
        {"momentum": None},
        {"track_running_stats": False},
        {"eps": 0.5},
        {"running_mean": None, "running_var": None, "training": False},
        {"track_running_stats": False, "training": False},
    ):
        results = []
        for layer in pair(nn.BatchNorm1d, BatchNorm1d, 3, dtype=torch.float64):
            torch.manual_seed(1)
            for name, value in change.items():
                setattr(layer, name, value)
            results.append(steps(layer, rand(4, 3), rand(4, 3)))
        assert_same(*results, torch.float64)


def test_arguments_are_not_changed():
    arguments = [rand(4, 3), rand(3), rand(3)]
    copies = copy.deepcopy(arguments)
    mean, var = torch.zeros(3).double(), torch.ones(3).double()
    batch_norm(arguments[0], mean, var, *arguments[1:], training=True)
    assert mean.any() and (var != 1).all()  # these, alone, are updated
    before = mean.clone(), var.clone()
    batch_norm(arguments[0], mean, var, *arguments[1:])
    assert_close([*arguments, mean, var], [*copies, *before], rtol=0, atol=0)


@every_built
def test_no_grad_and_inference_mode(name):
    for mode in (torch.no_grad, torch.inference_mode):
        reference, layer, shape = twins(name)
        x = torch.randn(shape)
        with mode():
            y = layer(x)
            assert not y.requires_grad
            assert_close(y, reference(x))
        assert_close(dict(layer.state_dict()), dict(reference.state_dict()))


@pytest.mark.parametrize(
    ("name", "options"),
    [*((name, {}) for name in COUNTING), ("BatchNorm1d", {"momentum": None})],
)
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_nan_never_reaches_the_running_statistics(name, options, bad):
    layer = build(name, **options)
    before = copy.deepcopy(layer.state_dict())
    x = input_of(name, "small")[0]
    x[1, 2] = bad
    says = r"running_mean would .* channels \[2\]; drop|input must be finite"
    with pytest.raises(ValueError, match=says):
        layer(x)
    assert_close(dict(layer.state_dict()), dict(before), rtol=0, atol=0)
    layer(input_of(name, "small")[0])
    assert layer.running_mean.isfinite().all()


# --- dtypes, memory, sizes ------------------------------------------------------------


@pairs(name=BUILT, low=[torch.float16, torch.bfloat16], mixed=[True, False],
       training=[True, False])  # fmt: skip
def test_half_precision(name, low, mixed, training):
    dtype = torch.float32 if mixed else low
    reference, layer, shape = twins(name, dtype=dtype)
    x = (rand(*shape) * 3).to(low)
    exact, dy = copy.deepcopy(reference).double(), torch.Generator().manual_seed(1)
    dy = torch.randn(shape, generator=dy).to(low).double()
    if name == "RMSNorm":
        exact.eps = torch.finfo(torch.float32).eps
    for module in (layer, reference, exact):
        module.train(training)
    results = steps(layer, x), steps(reference, x), steps(exact, x.double(), dy=dy)
    assert_as_good(*results, low)


@every_built
@pytest.mark.parametrize("low", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_is_the_float32_answer_rounded_once(name, low):
    _, layer, shape = twins(name)
    x = (rand(*shape) + 40).to(low)
    assert (layer(x) == layer(x.float()).to(low)).all()


def test_a_half_precision_layer_far_from_zero_is_closer_than_torchs():
    x = (rand(64, 3) + 40).half()
    reference, layer = pair(nn.BatchNorm1d, BatchNorm1d, 3, dtype=torch.float16)
    theirs = reference(x)
    exact = reference.double()(x.double())
    assert (layer(x) - exact).abs().max() < 4e-3 < (theirs - exact).abs().max()


def test_half_precision_statistics_are_taken_in_float32():
    x = (torch.randn(4096, 2) + 100).bfloat16()
    layer = BatchNorm1d(2, momentum=1.0)
    layer(x)
    assert_close(layer.running_mean, x.float().mean(0))
    assert_close(layer.running_var, x.float().var(0))


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
    "channels of channels last": lambda: rand(2, 3, 4, 8).movedim(-1, 1)[:, ::2],
    "permuted": lambda: rand(4, 3, 4, 2).permute(3, 2, 1, 0),
    "sequence": lambda: rand(2, 4, 4).transpose(1, 2),
    "every second": lambda: rand(4, 4, 3, 4)[::2],
    "expanded": lambda: rand(2, 4, 1, 4).expand(2, 4, 3, 4),
    "one pixel": lambda: rand(2, 4, 1, 4).to(memory_format=torch.channels_last),
}


STATS = torch.linspace(-1, 1, 4).double(), torch.linspace(1, 2, 4).double()
ARGUMENTS = [
    ("batch_norm", (None, None, None, None, True)),
    ("batch_norm", STATS),
    ("layer_norm", ((4,),)),
    ("rms_norm", ((4,),)),
    ("group_norm", (2,)),
    ("instance_norm", ()),
]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("name", "arguments"), ARGUMENTS)
def test_memory_layout_of_the_output(layout, name, arguments):
    x = LAYOUTS[layout]()
    y, wanted = (getattr(lib, name)(x, *arguments) for lib in (ours_f, F))
    assert_close(y, wanted)
    # The stride of an axis with one entry means nothing.
    strides = zip(x.shape, y.stride(), wanted.stride(), strict=True)
    assert all(ours == theirs for size, ours, theirs in strides if size > 1)


def test_memory_layout_in_evaluation_with_running_statistics():
    reference, layer, shape = twins("InstanceNorm2d, tracking")
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


def test_an_empty_batch_changes_nothing_but_the_count():
    for shape, momentum, training in itertools.product(
        [(0, 3), (0, 3, 4), (2, 3, 0)], [0.1, None], [True, False]
    ):
        results = []
        for layer in pair(nn.BatchNorm1d, BatchNorm1d, 3, momentum=momentum):
            results.append(steps(layer.train(training), torch.zeros(shape)))
        assert_same(*results, torch.float32)


def test_an_empty_batch_leaves_the_statistics_of_instance_norm_alone():
    _, ours, shape = twins("InstanceNorm2d, tracking")
    before = copy.deepcopy(ours.state_dict())
    for empty in ((0, *shape[1:]), (2, *shape[1:3], 0)):
        assert ours(torch.zeros(empty)).shape == empty
    assert_close(dict(ours.state_dict()), dict(before), rtol=0, atol=0)
    theirs = nn.InstanceNorm2d(shape[1], track_running_stats=True)
    theirs(torch.zeros(0, *shape[1:]))
    assert theirs.running_mean.isnan().all()  # what torch does


@every_built
def test_autocast_agrees_with_torch(name):
    for dtype in (torch.float32, torch.bfloat16):
        reference, layer, shape = twins(name)
        x, near = torch.randn(shape).to(dtype), {"rtol": 2e-2, "atol": 2e-2}
        with torch.autocast("cpu", dtype=torch.bfloat16):
            a, b = reference(x), layer(x)
        assert a.dtype == b.dtype
        assert_close(a, b, **near)
        assert_close(dict(layer.state_dict()), dict(reference.state_dict()), **near)


# --- bad input ------------------------------------------------------------------------

X = torch.arange(12.0).reshape(4, 3)
BAD = {
    "other channels": (
        lambda new: new(4)(X),
        "running_mean should contain 3 elements not 4; .*num_features=3",
    ),
    "other channels in eval": (
        lambda new: new(4).eval()(X),
        "running_mean should contain 3 elements not 4",
    ),
    "other channels, untracked": (
        lambda new: new(4, track_running_stats=False)(X),
        "weight should contain 3 elements not 4",
    ),
    "vector": (lambda new: new(3)(X[0]), r"expected 2D or 3D input \(got 1D input\)"),
    "images": (lambda new: new(3)(X[:, :, None, None]), r"got 4D input"),
    "one value": (
        lambda new: new(3)(X[:1]),
        "Expected more than 1 value per channel when training, got input size .*1, 3",
    ),
    "one value, untracked, in eval": (
        lambda new: new(3, track_running_stats=False).eval()(X[:1]),
        "Expected more than 1 value per channel",
    ),
    "integers": (
        lambda new: new(3)(X.long()),
        '"batch_norm" not implemented for .*; convert the input: input.float()',
    ),
    "complex": (lambda new: new(3).eval()(X + 0j), "not implemented for"),
    "other dtype": (lambda new: new(3)(X.double()), "mixed dtype"),
    "half layer": (lambda new: new(3, dtype=torch.float16)(X), "mixed dtype"),
    "half a state": (
        lambda new: _without(new(3), "running_var")(X),
        "must either both be None or neither be None",
    ),
    "half a state in eval": (
        lambda new: _without(new(3), "running_var").eval()(X),
        "running_var must be defined in evaluation mode",
    ),
    "eps": (lambda new: new(3, eps=0.0)(X), "eps must be positive during training"),
    "eps in eval": (lambda new: new(3, eps=-1.0).eval()(X), "eps must be non-negative"),
    "momentum": (lambda new: new(3, momentum="a")(X), None),
    "other device": (lambda new: new(3)(X.to("meta")), None),
}


def _without(layer, name):
    setattr(layer, name, None)
    return layer


@pytest.mark.parametrize("case", BAD)
def test_bad_input_raises_torchs_error_and_says_more(case):
    call, message = BAD[case]
    with pytest.raises(Exception) as theirs:
        call(nn.BatchNorm1d)
    with pytest.raises(type(theirs.value), match=message):
        call(BatchNorm1d)


@pytest.mark.parametrize("training", [True, False])
def test_bad_arguments_of_the_function(training):
    with pytest.raises(TypeError, match="'input' must be Tensor, not list; convert it"):
        batch_norm([1.0], None, None, training=training)
    with pytest.raises(TypeError, match="'input' must be Tensor, not ndarray"):
        BatchNorm1d(3).train(training)(X.numpy())
    with pytest.raises(ValueError, match=r"at least 2D input \(got 1D"):
        batch_norm(X[0], X[0], X[0], training=training)
    with pytest.raises(RuntimeError, match="bias should contain 3 elements not 4"):
        batch_norm(X, X[0], X[0], None, torch.ones(4), training=training)


def test_a_variance_that_overflows_its_buffer_is_an_error():
    layer = BatchNorm1d(2, dtype=torch.float16)
    before = copy.deepcopy(layer.state_dict())
    x = torch.tensor([[3e4, 0], [-3e4, 1]], dtype=torch.float16)
    with pytest.raises(ValueError, match=r"running_var would .* in channels \[0\]"):
        layer(x)
    assert_close(dict(layer.state_dict()), dict(before), rtol=0, atol=0)


def test_a_poisoned_checkpoint_is_an_error_in_training():
    layer = BatchNorm1d(3)
    layer.running_var[1] = float("nan")
    with pytest.raises(ValueError, match=r"channels \[1\].*reset_running_stats"):
        layer(X)
    layer.reset_running_stats()
    layer(X)


# --- fold -----------------------------------------------------------------------------


def frozen(norm, channels, **options):
    return shaken(norm(channels, dtype=torch.float64, **options)).eval()


def convolutions():
    for n in (1, 2, 3):
        for groups, bias, modes in itertools.product((1, 2), (True, False), (0, 1)):
            options = {"groups": groups, "bias": bias, "stride": 2, "padding": 1}
            mode = ("zeros", "reflect", "replicate", "circular")[2 * modes + groups - 1]
            conv = getattr(nn, f"Conv{n}d")
            yield conv(4, 6, 3, dilation=2, padding_mode=mode, **options), n
            up = getattr(nn, f"ConvTranspose{n}d")
            yield up(4, 6, 3, output_padding=1, dilation=2, **options), n


@pytest.mark.parametrize("library", [nn, BatchNorm1d], ids=["torch.nn", "ours"])
@pytest.mark.parametrize("affine", [True, False, "no bias"])
def test_a_folded_convolution_is_the_same_function(library, affine):
    norms = list(LAYERS) if library is nn else list(LAYERS.values())
    options = {"bias": False} if affine == "no bias" else {"affine": affine}
    count = 0
    for conv, n in convolutions():
        conv, batch_norm = conv.double(), frozen(norms[n - 1], 6, **options)
        x = rand(2, 4, *[7] * n)
        before = copy.deepcopy(conv.state_dict())
        folded = fold(conv, batch_norm)
        assert type(folded) is type(conv) and folded is not conv
        assert repr(folded).replace(", bias=False", "") == repr(conv).replace(
            ", bias=False", ""
        )
        assert_close(folded(x), batch_norm(conv(x)), rtol=0, atol=1e-12)
        assert_close(dict(conv.state_dict()), dict(before), rtol=0, atol=0)
        count += 1
    assert count == 48


@pytest.mark.parametrize(
    "norm", [nn.BatchNorm1d, BatchNorm1d, nn.SyncBatchNorm, SyncBatchNorm]
)
@pytest.mark.parametrize("bias", [True, False])
def test_a_folded_linear_layer_is_the_same_function(norm, bias):
    linear, batch_norm = nn.Linear(4, 3, bias=bias).double(), frozen(norm, 3)
    x = rand(5, 4)
    folded = fold(linear, batch_norm)
    assert_close(folded(x), batch_norm(linear(x)), rtol=0, atol=1e-12)


def test_folding_keeps_dtype_mode_gradients_and_layout():
    conv = nn.Conv2d(4, 6, 3, bias=False).half().eval()
    conv.to(memory_format=torch.channels_last).requires_grad_(False)
    folded = fold(conv, frozen(BatchNorm2d, 6))
    assert folded.weight.dtype == folded.bias.dtype == torch.float16
    assert not folded.weight.requires_grad and not folded.bias.requires_grad
    assert not folded.training and folded.weight.stride() == conv.weight.stride()
    assert folded.weight.is_leaf and list(folded.state_dict()) == ["weight", "bias"]
    linear = nn.Linear(4, 3, device="meta")
    linear.bias.requires_grad_(False)
    folded = fold(linear, BatchNorm1d(3, device="meta").eval())
    assert folded.weight.requires_grad and not folded.bias.requires_grad
    assert folded.training and folded.weight.device.type == "meta"
    assert fold(nn.Linear(4, 3, bias=False), BatchNorm1d(3).eval()).bias.requires_grad


def test_a_half_precision_pair_is_folded_in_float32():
    pair = nn.Linear(16, 8).half(), frozen(BatchNorm1d, 8).half()
    exact = fold(*(copy.deepcopy(layer).double() for layer in pair))
    folded = fold(*pair)
    one_rounding = {"rtol": 2**-11, "atol": 1e-6}
    assert_close(folded.weight.double(), exact.weight, **one_rounding)
    assert_close(folded.bias.double(), exact.bias, **one_rounding)


NORM = BatchNorm1d(3).eval()
UNFOLDABLE = {
    "lazy": (nn.LazyLinear(3), NORM, TypeError, "layer must have weights, got LazyLin"),
    "activation": (nn.ReLU(), NORM, TypeError, "layer must be a Linear, .* got ReLU; "),
    "parametrized": (
        nn.utils.parametrizations.weight_norm(nn.Linear(4, 3)),
        NORM,
        TypeError,
        "layer.weight must be a Parameter, got a computed one in .*; remove",
    ),
    "swapped": (NORM, nn.Linear(4, 3), TypeError, "layer must be a Linear"),
    "layer norm": (
        nn.Linear(4, 3),
        nn.LayerNorm(3),
        TypeError,
        "batch_norm must be a BatchNorm1d, 2d or 3d, got LayerNorm; pass",
    ),
    "training": (
        nn.Linear(4, 3),
        BatchNorm1d(3),
        ValueError,
        r"batch_norm must be in evaluation mode, got training mode; call .*eval\(\)",
    ),
    "no statistics": (
        nn.Linear(4, 3),
        BatchNorm1d(3, track_running_stats=False).eval(),
        ValueError,
        "batch_norm must have running statistics, got None; train it with",
    ),
    "channels": (
        nn.Conv2d(3, 4, 1),
        BatchNorm2d(3).eval(),
        ValueError,
        "batch_norm must have 4 channels, as many as layer puts out, got 3; pass",
    ),
}


@pytest.mark.parametrize("case", UNFOLDABLE)
def test_what_cannot_be_folded_says_why(case):
    layer, batch_norm, kind, message = UNFOLDABLE[case]
    with pytest.raises(kind, match=message):
        fold(layer, batch_norm)


# What a fold would lose without a word, or spread as NaN.


class Rectified(nn.Conv2d):
    def forward(self, x):
        return F.relu(super().forward(x))


def hooked():
    layer = nn.Conv2d(3, 4, 1)
    layer.register_forward_hook(lambda *_: None)
    return layer


def parametrized_bias():
    layer = nn.Conv2d(3, 4, 1)
    nn.utils.parametrize.register_parametrization(layer, "bias", nn.Tanh())
    return layer


@pytest.mark.parametrize("layer", [hooked, lambda: Rectified(3, 4, 1)])
def test_fold_refuses_a_layer_that_does_more(layer):
    norm = BatchNorm2d(4).eval()
    nn.init.constant_(norm.bias, -1.0)
    with pytest.raises(TypeError, match="must do what a Conv2d does"):
        fold(layer(), norm)


def test_fold_refuses_a_computed_bias():
    with pytest.raises(TypeError, match=r"layer\.bias must be a Parameter"):
        fold(parametrized_bias(), BatchNorm2d(4).eval())


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0])
def test_fold_refuses_poisoned_statistics(value):
    norm = BatchNorm2d(4).eval()
    norm.running_var[1] = value
    with pytest.raises(ValueError, match="finite statistics and a positive variance"):
        fold(nn.Conv2d(3, 4, 1), norm)


@pytest.mark.parametrize(
    ("layer", "norm"),
    [(nn.Conv2d(3, 4, 1), BatchNorm1d), (nn.Linear(3, 4), BatchNorm2d)],
)
def test_fold_refuses_a_batch_norm_of_other_dimensions(layer, norm):
    with pytest.raises(TypeError, match="after this layer, got BatchNorm"):
        fold(layer, norm(4).eval())


def test_bias_gradients_of_half_inputs_are_summed_in_float32():
    x = torch.randn(4096, 2).half()
    layer = BatchNorm1d(2)
    layer(x).backward(torch.full((4096, 2), 100.0).half())
    assert_close(layer.bias.grad, torch.full((2,), 409_600.0))


def test_every_poisoned_channel_is_named():
    x = torch.randn(8, 4)
    x[0, 1] = x[3, 3] = float("nan")
    with pytest.raises(ValueError, match=r"channels \[1, 3\]"):
        BatchNorm1d(4)(x)


@pytest.mark.parametrize("momentum", [float("nan"), float("inf")])
def test_a_momentum_that_is_no_number_is_named(momentum):
    with pytest.raises(ValueError, match="momentum must be finite"):
        BatchNorm1d(2, momentum=momentum)(torch.randn(4, 2))


def test_an_eps_that_is_no_number_is_named():
    with pytest.raises(ValueError, match="eps must be"):
        BatchNorm1d(2, eps=float("nan")).eval()(torch.randn(4, 2))
