"""The layers against torch.nn: PyTorch's own samples, checkpoints, transforms, errors.

PyTorch tests its batch normalization with `module_db` and `op_db`. All their entries
for it run here on our layers, with no list of exceptions.
"""

import copy
import io
import itertools
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call, grad, hessian, jacfwd, jacrev, jvp, vmap
from torch.testing import assert_close
from torch.testing._internal.common_methods_invocations import op_db
from torch.testing._internal.common_modules import module_db

import bnlib.nn._batch_norm as inference
from bnlib import fold
from bnlib.nn import BatchNorm1d, BatchNorm2d, BatchNorm3d, SyncBatchNorm
from bnlib.nn.functional import batch_norm

LAYERS = {
    nn.BatchNorm1d: BatchNorm1d,
    nn.BatchNorm2d: BatchNorm2d,
    nn.BatchNorm3d: BatchNorm3d,
}
SHAPES = {BatchNorm1d: (4, 3), BatchNorm2d: (4, 3, 2, 5), BatchNorm3d: (2, 3, 2, 3, 2)}
MODULES = {info.module_cls: info for info in module_db if info.module_cls in LAYERS}
FUNCTIONS = [op for op in op_db if op.name == "nn.functional.batch_norm"]
assert len(MODULES) == 3 and FUNCTIONS
TOLERANCE = {
    torch.float64: {"rtol": 1e-11, "atol": 1e-11},
    torch.float32: {"rtol": 1e-5, "atol": 1e-5},
    torch.bfloat16: {"rtol": 1.6e-2, "atol": 1e-2},
    torch.float16: {"rtol": 2e-3, "atol": 2e-3},
}

every_layer = pytest.mark.parametrize(
    ("theirs", "ours"), LAYERS.items(), ids=lambda cls: cls.__module__.split(".")[0]
)
exact = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
train_or_eval = pytest.mark.parametrize(
    "training", [True, False], ids=["train", "eval"]
)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def rand(*shape, dtype=torch.float64):
    return torch.randn(*shape, dtype=dtype)


def shaken(layer):
    """The layer with parameters and running statistics that are not 0 and 1."""
    with torch.no_grad():
        for name, tensor in layer.state_dict().items():
            if tensor.is_floating_point():
                value = torch.randn(tensor.shape, dtype=torch.float64)
                tensor.copy_(value.abs() + 0.5 if name == "running_var" else value)
    return layer


def pair(theirs, ours, *args, **kwargs):
    """The same layer from torch.nn and from us, in the same random state."""
    reference = shaken(theirs(*args, **kwargs))
    layer = ours(*args, **kwargs)
    assert list(layer.state_dict()) == list(reference.state_dict())
    layer.load_state_dict(reference.state_dict())
    return reference, layer


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


# --- PyTorch's own samples ------------------------------------------------------------


@every_layer
@exact
@train_or_eval
def test_every_sample_of_module_db(theirs, ours, dtype, training):
    info = MODULES[theirs]
    samples = info.module_inputs_func(
        info, "cpu", dtype, requires_grad=True, training=training
    )
    assert len(samples) >= 7
    for sample in samples:
        given = sample.constructor_input
        reference, layer = pair(theirs, ours, *given.args, **given.kwargs, dtype=dtype)
        reference.train(training), layer.train(training)
        assert repr(layer) == repr(reference)
        (x,) = sample.forward_input.args
        inputs = x, 2 * x + 1
        assert_same(steps(layer, *inputs), steps(reference, *inputs), dtype)
        assert list(layer.state_dict()) == list(reference.state_dict())


@every_layer
def test_every_error_of_module_db(theirs, ours):
    info = MODULES[theirs]
    samples = info.module_error_inputs_func(
        info, "cpu", torch.float64, requires_grad=True, training=True
    )
    assert len(samples) >= 2
    for sample in samples:
        given = sample.module_error_input.constructor_input
        (x,) = sample.module_error_input.forward_input.args
        with pytest.raises(sample.error_type, match=sample.error_regex):
            ours(*given.args, **given.kwargs)(x)


def leaf_like(a):
    return None if a is None else a.detach().clone().requires_grad_(a.requires_grad)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_every_sample_of_op_db(dtype):
    count = 0
    for op in FUNCTIONS:
        for sample in op.sample_inputs("cpu", dtype, requires_grad=True):
            answers = []
            for function in (batch_norm, F.batch_norm):
                arguments = [leaf_like(a) for a in (sample.input, *sample.args)]
                y = function(*arguments, **sample.kwargs)
                weights = torch.linspace(-1, 2, y.numel()).reshape(y.shape).to(y)
                leaves = [a for a in arguments if a is not None and a.requires_grad]
                answers.append([y.detach(), *torch.autograd.grad(y, leaves, weights)])
                answers[-1] += [a for a in arguments[1:3] if a is not None]
            assert_same(*answers, dtype)
            count += 1
    assert count >= 12


@exact
def test_the_same_defaults_as_the_function(dtype):
    arguments = rand(4, 3, dtype=dtype), rand(3, dtype=dtype), torch.ones(3).to(dtype)
    assert_close(batch_norm(*arguments), F.batch_norm(*arguments))


# --- one import swapped in a model ----------------------------------------------------


class Block(nn.Module):
    def __init__(self, norm, inputs, outputs, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn1 = norm(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = norm(outputs)
        self.shortcut = nn.Sequential(
            nn.Conv2d(inputs, outputs, 1, stride, bias=False), norm(outputs)
        )

    def forward(self, x):
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(y + self.shortcut(x))


def resnet(norm):
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False),
        norm(8),
        nn.ReLU(),
        Block(norm, 8, 8, 1),
        Block(norm, 8, 16, 2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, 4),
    )


def optimizer_of(net):
    return torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)


def train(net, optimizer, seed):
    generator = torch.Generator().manual_seed(seed)
    losses = []
    for _ in range(10):
        x = torch.randn(16, 3, 8, 8, generator=generator).to(net[0].weight.dtype)
        labels = x.mean(dim=(2, 3)).argmax(dim=1)
        loss = F.cross_entropy(net(x), labels)
        optimizer.zero_grad(), loss.backward(), optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize(
    ("first", "then"), [(nn.BatchNorm2d, BatchNorm2d), (BatchNorm2d, nn.BatchNorm2d)]
)
@pytest.mark.parametrize(
    # In float32 the two sum in another order, and twenty steps of training spread that.
    ("dtype", "loose"),
    [(torch.float64, 1e-9), (torch.float32, 1e-4)],
)
def test_a_checkpoint_continues_in_the_other_library(first, then, dtype, loose):
    net = resnet(first).to(dtype)
    optimizer = optimizer_of(net)
    train(net, optimizer, seed=0)
    file = io.BytesIO()
    torch.save([net.state_dict(), optimizer.state_dict()], file)
    file.seek(0)
    states = torch.load(file)
    other = resnet(then).to(dtype)
    other_optimizer = optimizer_of(other)
    other.load_state_dict(states[0]), other_optimizer.load_state_dict(states[1])
    losses = train(net, optimizer, seed=1)
    assert max(losses) - min(losses) > 0.01  # it does train
    again = train(other, other_optimizer, seed=1)
    assert_close(again, losses, rtol=min(loose, 1e-5), atol=min(loose, 1e-5))
    for (name, a), b in zip(
        other.state_dict().items(), net.state_dict().values(), strict=True
    ):
        at = {"rtol": loose, "atol": loose / 10}
        assert_close(a, b, **at, msg=lambda m, name=name: f"{name} {m}")
    x = torch.randn(5, 3, 8, 8, dtype=dtype)
    assert_close(other.eval()(x), net.eval()(x), rtol=loose, atol=loose)


@every_layer
def test_other_peoples_code_still_recognises_the_layer(theirs, ours):
    layer = ours(3)
    assert isinstance(layer, theirs)
    assert ours.__name__ == theirs.__name__
    converted = nn.SyncBatchNorm.convert_sync_batchnorm(nn.Sequential(layer))
    assert isinstance(converted[0], nn.SyncBatchNorm)


def test_a_checkpoint_from_before_num_batches_tracked():
    old = {"weight": torch.ones(3), "bias": torch.ones(3)}
    old |= {"running_mean": torch.ones(3), "running_var": torch.full((3,), 2.0)}
    layer = BatchNorm1d(3)
    layer.load_state_dict(old)
    assert layer.num_batches_tracked == 0 and layer.running_var[0] == 2
    with pytest.raises(RuntimeError, match="size mismatch"):
        BatchNorm1d(4).load_state_dict(old)


# --- derivatives ----------------------------------------------------------------------

GIVEN = list(itertools.product([True, False], repeat=2))


def problem(shape=(4, 3), given=(True, True)):
    x = rand(*shape).requires_grad_()
    weight, bias = (rand(3).requires_grad_() if g else None for g in given)
    return x, weight, bias


def with_stats(training):
    """Batch normalization as a function of (x, weight, bias)."""
    mean, var = (None, None) if training else (rand(3), torch.rand(3).double() + 0.5)
    return lambda x, weight, bias: batch_norm(x, mean, var, weight, bias, training)


@train_or_eval
@pytest.mark.parametrize("given", GIVEN, ids=str)
@pytest.mark.parametrize("shape", [(4, 3), (2, 3, 2, 2)], ids=str)
def test_first_and_second_derivatives_in_both_modes(training, given, shape):
    arguments, function = problem(shape, given), with_stats(training)
    assert torch.autograd.gradcheck(
        function, arguments, check_forward_ad=True, check_batched_grad=True
    )
    assert torch.autograd.gradgradcheck(
        function, arguments, check_fwd_over_rev=True, check_rev_over_rev=True
    )


def test_half_of_the_gradients_can_be_asked_for():
    for wanted in itertools.product([True, False], repeat=3):
        results = []
        for function in (batch_norm, F.batch_norm):
            torch.manual_seed(1)
            arguments = [
                a.detach().requires_grad_(w)
                for a, w in zip(problem(), wanted, strict=True)
            ]
            y = function(arguments[0], None, None, *arguments[1:], training=True)
            assert y.requires_grad == any(wanted)
            if any(wanted):
                y.pow(3).sum().backward()
            results.append([a.grad for a in arguments])
        assert_same(*results, torch.float64)


def test_our_backward_is_what_runs():
    y = inference.BatchNorm1d(3)(torch.randn(4, 3))
    assert "NormalizeFunctionBackward" in str(y.grad_fn)  # chapter 17's: test_fast.py


@train_or_eval
def test_every_second_derivative_of_torch_func_agrees(training):
    function = with_stats(training)
    x, *affine = (a.detach() for a in problem())

    def loss(x):
        return function(x, *affine).pow(3).sum()

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


@train_or_eval
def test_vmap_and_jvp(training):
    function = with_stats(training)
    _, *affine = problem()
    x, dx = rand(5, 4, 3), rand(4, 3)
    wanted = torch.stack([function(row, *affine) for row in x])
    assert_close(vmap(function, (0, None, None))(x, *affine), wanted)
    _, tangent = jvp(lambda x: function(x, *affine), (x[0],), (dx,))
    assert_close(tangent, (jacrev(function)(x[0], *affine) * dx).sum(dim=(2, 3)))
    ensemble = vmap(function, (None, 0, 0))(x[0], rand(5, 3), rand(5, 3))
    assert ensemble.shape == (5, 4, 3)


def test_vmap_over_running_statistics_given_as_arguments():
    x, mean, var = rand(2, 4, 3), torch.zeros(2, 3).double(), torch.ones(2, 3).double()
    wanted = mean.clone(), var.clone()
    vmap(lambda *a: batch_norm(*a, None, None, True))(x, mean, var)
    for k in range(2):
        F.batch_norm(x[k], wanted[0][k], wanted[1][k], training=True)
    assert_same([mean, var], list(wanted), torch.float64)


def test_functional_call_with_parameters_and_buffers():
    results = []
    for layer in pair(nn.BatchNorm1d, BatchNorm1d, 3, dtype=torch.float64):
        x = torch.arange(12.0).double().reshape(4, 3) ** 2
        buffers = {k: v.clone() for k, v in layer.named_buffers()}

        def loss(parameters, buffers, layer=layer, x=x):
            y = functional_call(layer, (parameters, buffers), (x,))
            return y.pow(3).sum(), buffers

        result = grad(loss, has_aux=True)(dict(layer.named_parameters()), buffers)
        results.append([*result[0].values(), *result[1].values()])
        assert layer.num_batches_tracked == 0
    assert_same(*results, torch.float64)


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
@train_or_eval
def test_compile_in_one_graph(backend, training):
    torch._dynamo.reset()
    results = []
    for layer in pair(nn.BatchNorm2d, BatchNorm2d, 3, dtype=torch.float64):
        torch.manual_seed(1)
        layer.train(training)
        run = layer
        if isinstance(layer, BatchNorm2d):
            run = torch.compile(layer, backend=backend, fullgraph=True)
        results.append(steps(run, rand(4, 3, 2, 2), rand(4, 3, 2, 2)))
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


def repickled(layer):
    return pickle.loads(pickle.dumps(layer))


@every_layer
@pytest.mark.parametrize("how", [copy.deepcopy, repickled])
def test_copies_are_equal_and_apart(theirs, ours, how):
    layer = ours(3, eps=1e-3, momentum=0.3)
    layer(torch.randn(SHAPES[ours]))
    other = how(layer)
    assert type(other) is ours and repr(other) == repr(layer)
    before = copy.deepcopy(layer.state_dict())
    assert_close(dict(other.state_dict()), dict(before))
    other(torch.randn(SHAPES[ours]))
    assert_close(dict(layer.state_dict()), dict(before))
    assert other.num_batches_tracked == 2


@pytest.mark.parametrize("momentum", [0.1, None, 1.0, 0.0, 1])
@pytest.mark.parametrize("tracking", [True, False])
def test_running_statistics_over_train_and_eval(momentum, tracking):
    options = {"momentum": momentum, "track_running_stats": tracking}
    results = []
    for layer in pair(nn.BatchNorm1d, BatchNorm1d, 3, dtype=torch.float64, **options):
        torch.manual_seed(1)
        seen = steps(layer, rand(4, 3), rand(6, 3), rand(2, 3, 5))
        seen += steps(layer.eval(), rand(4, 3))
        seen += steps(layer.train(), rand(4, 3))
        layer.reset_running_stats()
        seen += [b.clone() for b in layer.buffers()]
        results.append([*seen, *steps(layer, rand(4, 3))])
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


def test_running_statistics_keep_no_graph():
    layer = BatchNorm1d(3)
    for _ in range(2):
        layer(torch.randn(4, 3, requires_grad=True)).sum().backward()
    assert layer.running_mean.grad_fn is None and not layer.running_var.requires_grad


@every_layer
def test_no_grad_and_inference_mode(theirs, ours):
    x = torch.randn(SHAPES[ours])
    for mode in (torch.no_grad, torch.inference_mode):
        reference, layer = pair(theirs, ours, 3)
        with mode():
            y = layer(x)
            assert not y.requires_grad
            assert_close(y, reference(x))
        assert_close(dict(layer.state_dict()), dict(reference.state_dict()))


# --- dtypes, memory, devices, sizes ---------------------------------------------------


@train_or_eval
@pytest.mark.parametrize("low", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("mixed", [True, False], ids=["float32 layer", "half layer"])
def test_half_precision(low, mixed, training):
    results = []
    dtype = torch.float32 if mixed else low
    for layer in pair(nn.BatchNorm2d, BatchNorm2d, 3, dtype=dtype):
        torch.manual_seed(1)
        x = (rand(8, 3, 4, 4) * 3).to(low)
        results.append(steps(layer.train(training), x))
    assert [a.dtype for a in results[0]] == [b.dtype for b in results[1]]
    assert_same(*results, low)


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


LAYOUTS = {
    "channels last": lambda: rand(2, 3, 4, 5).to(memory_format=torch.channels_last),
    "channels last, 3d": lambda: rand(2, 4, 5, 2, 3).movedim(-1, 1),
    "channels of channels last": lambda: rand(2, 4, 5, 6).movedim(-1, 1)[:, ::2],
    "permuted": lambda: rand(5, 4, 3, 2).permute(3, 2, 1, 0),
    "transposed": lambda: rand(3, 4).t(),
    "sequence": lambda: rand(2, 5, 3).transpose(1, 2),
    "every second": lambda: rand(8, 3)[::2],
    "expanded": lambda: rand(4, 3, 1, 1).expand(4, 3, 2, 2),
    "one pixel": lambda: rand(4, 3, 1, 1).to(memory_format=torch.channels_last),
}


@train_or_eval
@pytest.mark.parametrize("layout", LAYOUTS)
def test_memory_layout_of_the_output(layout, training):
    x = LAYOUTS[layout]()
    kinds = list(LAYERS.items())[max(x.ndim - 3, 0)]
    reference, layer = pair(*kinds, 3, dtype=torch.float64)
    wanted, y = reference.train(training)(x), layer.train(training)(x)
    assert_close(y, wanted)
    # The stride of an axis with one entry means nothing.
    strides = zip(x.shape, y.stride(), wanted.stride(), strict=True)
    assert all(ours == theirs for size, ours, theirs in strides if size > 1)
    assert_same(steps(layer, x), steps(reference, x), torch.float64)


@every_layer
def test_meta_device(theirs, ours):
    layer = ours(3, device="meta")
    x = torch.empty(SHAPES[ours], device="meta", requires_grad=True)
    y = layer(x)
    y.sum().backward()
    assert y.shape == x.shape == x.grad.shape and y.device.type == "meta"
    layer.eval()(x)


def test_an_empty_batch_changes_nothing_but_the_count():
    for shape, momentum, training in itertools.product(
        [(0, 3), (0, 3, 4), (2, 3, 0)], [0.1, None], [True, False]
    ):
        results = []
        for layer in pair(nn.BatchNorm1d, BatchNorm1d, 3, momentum=momentum):
            results.append(steps(layer.train(training), torch.zeros(shape)))
        assert_same(*results, torch.float32)


def test_exactness_far_from_zero():
    x = torch.randn(4096, 3) + 1e4
    y = BatchNorm1d(3)(x)
    wanted = nn.BatchNorm1d(3).double()(x.double()).float()
    assert (y - wanted).abs().max() < 1e-3


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


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("momentum", [0.1, None])
def test_nan_never_reaches_the_running_statistics(bad, momentum):
    layer = shaken(BatchNorm1d(3, momentum=momentum))
    before = copy.deepcopy(layer.state_dict())
    x = X.clone()
    x[1, 2] = bad
    with pytest.raises(ValueError, match=r"running_mean would .* channels \[2\]; drop"):
        layer(x)
    assert_close(dict(layer.state_dict()), dict(before), rtol=0, atol=0)
    layer(X)
    assert layer.num_batches_tracked == 1 and layer.running_mean.isfinite().all()


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


def test_torchs_fusion_fails_on_grouped_transposed_convolutions():
    conv = nn.ConvTranspose2d(4, 6, 3, groups=2).double().eval()
    batch_norm = frozen(nn.BatchNorm2d, 6)
    with pytest.raises(RuntimeError, match="size of tensor"):
        nn.utils.fusion.fuse_conv_bn_eval(conv, batch_norm, transpose=True)
    x = rand(2, 4, 5, 5)
    assert_close(fold(conv, batch_norm)(x), batch_norm(conv(x)), rtol=0, atol=1e-12)


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


def test_float32_parameters_are_not_rounded_to_half():
    torch.manual_seed(0)
    layer, x = BatchNorm1d(2), torch.randn(64, 2).bfloat16()
    with torch.no_grad():
        layer.weight.fill_(1 + 2**-10)
    exact = layer(x.float())
    twice_rounded = BatchNorm1d(2)(x.float()).bfloat16()  # weight 1
    ours = layer(x)
    assert (ours == exact.bfloat16()).all() and not (ours == twice_rounded).all()


def test_every_poisoned_channel_is_named():
    x = torch.randn(8, 4)
    x[0, 1] = x[3, 3] = float("nan")
    with pytest.raises(ValueError, match=r"channels \[1, 3\]"):
        BatchNorm1d(4)(x)


def test_autocast_agrees_with_torch():
    torch.manual_seed(0)
    theirs, ours = (
        nn.Sequential(nn.Conv2d(3, 4, 3), norm(4))
        for norm in (nn.BatchNorm2d, BatchNorm2d)
    )
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(5, 3, 8, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        a, b = theirs(x), ours(x)
    assert a.dtype == b.dtype
    assert_close(a, b, rtol=2e-2, atol=2e-2)
    assert_close(ours[1].running_var, theirs[1].running_var, rtol=2e-2, atol=2e-3)


@pytest.mark.parametrize("momentum", [float("nan"), float("inf")])
def test_a_momentum_that_is_no_number_is_named(momentum):
    with pytest.raises(ValueError, match="momentum must be finite"):
        BatchNorm1d(2, momentum=momentum)(torch.randn(4, 2))


def test_an_eps_that_is_no_number_is_named():
    with pytest.raises(ValueError, match="eps must be"):
        BatchNorm1d(2, eps=float("nan")).eval()(torch.randn(4, 2))
