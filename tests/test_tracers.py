"""Layers under whatever keeps the graph, and over whatever wraps their state.

Under a tracer a layer is torch.nn.functional's own operator: what is recorded of ours
is compared with what is recorded of torch.nn's, node by node, and what comes out of the
recording with what the layer computes.
"""

import collections
import contextlib
import copy
import inspect
import io
from typing import ClassVar

import onnx
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from company import (
    ALL,
    BATCH_NORMS,
    OWN,
    TWINS,
    C,
    Wrong,
    build,
    every_layer,
    every_twin,
    input_of,
    plain,
    resnet,
    shaken,
    train_or_eval,
)
from torch import fx, nn
from torch._subclasses import FakeTensorMode
from torch.ao.quantization import get_default_qconfig_mapping
from torch.ao.quantization.quantize_fx import prepare_fx
from torch.func import functional_call, functionalize
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn.utils import parametrize, prune
from torch.nn.utils._per_sample_grad import call_for_per_sample_grads
from torch.overrides import TorchFunctionMode, resolve_name
from torch.testing import assert_close
from torch.testing._internal.two_tensor import TwoTensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

import bnlib.nn as ours
from bnlib.nn import functional as ours_f

pytestmark = [
    pytest.mark.filterwarnings(f"ignore:{text}")
    for text in (
        "`torch.jit.*is deprecated:DeprecationWarning",
        "torch.ao.quantization is deprecated:DeprecationWarning",
        "You are using the legacy TorchScript-based ONNX export:DeprecationWarning",
        "Setting `training` to something other than default:DeprecationWarning",
        "The feature will be removed:DeprecationWarning",
        ".*isinstance.treespec, LeafSpec:FutureWarning",
        "Converting a tensor to a Python boolean:torch.jit.TracerWarning",
        "Converting a tensor with requires_grad=True to a scalar:UserWarning",
        "ONNX Preprocess - Removing mutation:UserWarning",
        "It is recommended that constant folding be turned off:UserWarning",
        "Constant folding - Only steps=1:UserWarning",
        "ONNX export mode is set to TrainingMode.EVAL, but operator:UserWarning",
        "Exporting a model while it is in training mode:UserWarning",
        "Please use quant_min and quant_max:UserWarning",
    )
]
PLAIN = [name for name in OWN if name != "DecorrelatedBatchNorm"]  # which is exact
every_plain = pytest.mark.parametrize("name", PLAIN)
# As torch: to rounding, since under a tracer the same operator runs.
CLOSE = {"rtol": 1e-5, "atol": 1e-5}
STATEFUL = "BatchNorm1d", "BatchNorm2d", "BatchNorm3d", "SyncBatchNorm"
STATEFUL += ("InstanceNorm2d, tracking",)


def pair(name, training=True, dtype=torch.float32):
    """The same layer of both libraries, and an input."""
    layers = [build(name, lib).to(dtype).train(training) for lib in (ours, torch.nn)]
    return *layers, input_of(name, "small", dtype=dtype)[0]


def equation(layer, x):
    """What a layer of our own computes, in float64."""
    wide = copy.deepcopy(layer).double()
    y = plain(wide, x.double(), wide.weight, wide.bias)
    return y.detach().to(x.dtype)


# --- torch.jit.trace ------------------------------------------------------------------


def through_a_file(traced):
    file = io.BytesIO()
    torch.jit.save(traced, file)
    file.seek(0)
    return torch.jit.load(file)


def operators(traced):
    kinds = (node.kind() for node in traced.inlined_graph.nodes())
    return collections.Counter(kind for kind in kinds if kind.startswith("aten"))


@every_twin
@train_or_eval
def test_a_trace_is_that_of_torch_and_goes_through_a_file(name, training):
    layer, reference, x = pair(name, training)
    traced, wanted = (torch.jit.trace(m, x) for m in (layer, reference))
    assert operators(traced) == operators(wanted)
    loaded, wanted = through_a_file(traced), through_a_file(wanted)
    for given in (x, 2 * x + 1):
        assert_close(loaded(given), wanted(given), **CLOSE)
    buffers = dict(wanted.named_buffers())
    assert_close(dict(loaded.named_buffers()), buffers, **CLOSE)


@every_plain
@train_or_eval
def test_a_trace_of_a_layer_of_our_own_is_right_in_a_file(name, training):
    options = {"momentum": 0.0} if "Renorm" in name else {}  # it reads what it writes
    layer, (x, _) = build(name, **options).train(training), input_of(name, "small")
    loaded = through_a_file(torch.jit.trace(copy.deepcopy(layer), x))
    for given in (x, input_of(name, "small", seed=1)[0]):
        assert_close(loaded(given), equation(layer, given), rtol=1e-3, atol=1e-3)


def test_a_frozen_trace_has_folded_the_batch_norm():
    net = nn.Sequential(nn.Conv2d(3, C, 3), ours.BatchNorm2d(C), nn.ReLU())
    x = torch.randn(2, 3, 8, 8)
    frozen = torch.jit.freeze(torch.jit.trace(shaken(net).eval(), x))
    kinds = [kind for kind in operators(frozen) if "norm" in kind]
    assert not kinds
    assert_close(frozen(x), net(x), **CLOSE)


# --- ONNX -----------------------------------------------------------------------------


class Beside(nn.Module):
    """x + layer(x) for several layers: what is exported must be y, not a statistic."""

    def __init__(self, lib, names):
        super().__init__()
        self.layers = nn.ModuleList(build(name, lib) for name in names)
        self.names = list(names)

    def forward(self, *inputs):
        pairs = zip(inputs, self.layers, strict=True)
        return tuple(x + layer(x) for x, layer in pairs)

    def inputs(self):
        return tuple(input_of(name, "small")[0] for name in self.names)


def exported(model, inputs, dynamo, **options):
    """The graph of an ONNX file."""
    if dynamo:
        program = torch.onnx.export(
            model, inputs, dynamo=True, verbose=False, **options
        )
        return program.model_proto
    file, mode = io.BytesIO(), torch.onnx.TrainingMode
    mode = mode.TRAINING if model.training else mode.EVAL
    torch.onnx.export(model, inputs, file, dynamo=False, training=mode, **options)
    return onnx.load_from_string(file.getvalue())


def types(proto):
    return collections.Counter(node.op_type for node in proto.graph.node)


def run(proto, inputs):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    names = [given.name for given in session.get_inputs()]
    feed = {name: x.numpy() for name, x in zip(names, inputs, strict=True)}
    return [torch.from_numpy(y) for y in session.run(None, feed)]


# torch.onnx's older exporter knows no rms_norm, and writes no training instance norm
# that onnxruntime would load: ours may be refused there, too, but not be wrong.
REFUSED = {("RMSNorm", True), ("RMSNorm", False), ("InstanceNorm2d, tracking", True)}


@every_twin
@train_or_eval
def test_the_older_onnx_file_is_that_of_torch(name, training):
    models = [Beside(lib, [name]).train(training) for lib in (ours, torch.nn)]
    inputs = models[0].inputs()
    wanted = copy.deepcopy(models[1])(*inputs)
    try:
        proto = exported(models[0], inputs, dynamo=False)
        found = run(proto, inputs)
    except Exception as error:
        assert (name, training) in REFUSED, error
        return
    assert_close(found, list(wanted), **CLOSE)
    if (name, training) not in REFUSED:
        assert types(proto) == types(exported(models[1], inputs, dynamo=False))


def convnet(lib):
    net = nn.Sequential(nn.Conv2d(3, C, 3, bias=False), lib.BatchNorm2d(C))
    return shaken(net)


def test_a_batch_norm_is_folded_into_the_convolution_before_it():
    x = torch.randn(2, 3, 8, 8)
    assert types(exported(convnet(ours).eval(), (x,), dynamo=False)) == {"Conv": 1}
    mine, theirs = (resnet(lib).eval() for lib in (ours, torch.nn))
    protos = [exported(net, (x,), dynamo=False) for net in (mine, theirs)]
    assert types(protos[0]) == types(protos[1])
    assert_close(run(protos[0], [x])[0], theirs(x), **CLOSE)


ONE_OF_EACH = "BatchNorm2d", "LayerNorm", "RMSNorm", "GroupNorm", "InstanceNorm1d"
ONE_OF_EACH += "InstanceNorm2d, tracking", "LocalResponseNorm", "SyncBatchNorm"


class Network(Beside):
    """A convnet beside a layer of each kind."""

    def __init__(self, lib):
        super().__init__(lib, ONE_OF_EACH)
        self.convnet = resnet(lib)

    def forward(self, x, *inputs):
        return self.convnet(x), *super().forward(*inputs)

    def inputs(self):
        return torch.randn(2, 3, 8, 8), *super().inputs()


def test_the_newer_onnx_file_is_that_of_torch():
    """Of training torch.onnx writes batch norm in evaluation: there is no right one."""
    models = [Network(lib).eval() for lib in (ours, torch.nn)]
    inputs = models[0].inputs()
    mine, theirs = (exported(m, inputs, dynamo=True) for m in models)
    assert types(mine) == types(theirs)
    assert_close(run(mine, inputs), list(models[1](*inputs)), **CLOSE)


@pytest.mark.parametrize("dynamo", [True, False], ids=["newer", "older"])
def test_an_onnx_file_of_layers_of_our_own_is_right(dynamo):
    model = Beside(ours, PLAIN).eval()
    inputs = model.inputs()
    found = run(exported(model, inputs, dynamo), inputs)
    for y, x, layer in zip(found, inputs, model.layers, strict=True):
        assert_close(y, x + equation(layer, x), rtol=1e-3, atol=1e-3)


WRITTEN = {
    "torch.jit": lambda model, x: through_a_file(torch.jit.trace(model, x))(x)[0],
    "older ONNX": lambda model, x: run(exported(model, (x,), False), [x])[0],
    "newer ONNX": lambda model, x: run(exported(model, (x,), True), [x])[0],
}


@pytest.mark.parametrize("way", WRITTEN)
def test_exact_whitening_is_written_right_or_refused(way):
    for training in (True, False):
        model = Beside(ours, ["DecorrelatedBatchNorm"]).train(training)
        (x,) = model.inputs()
        wanted = x + equation(model.layers[0], x)
        try:
            y = WRITTEN[way](model, x)
        except Exception:  # of which kind is the exporter's affair
            continue
        assert_close(y, wanted, rtol=1e-3, atol=1e-3)


def test_an_onnx_file_takes_batches_of_any_size():
    net, x = resnet(ours).eval(), torch.randn(2, 3, 8, 8)
    names = {"input_names": ["x"], "output_names": ["y"]}
    proto = exported(net, (x,), False, dynamic_axes={"x": {0: "n"}}, **names)
    x = torch.randn(5, 3, 8, 8)
    assert_close(run(proto, [x])[0], net(x), **CLOSE)


# --- torch.export ---------------------------------------------------------------------


def targets(graph):
    return collections.Counter(
        str(node.target) for node in graph.nodes if node.op == "call_function"
    )


def program_of(layer, x):
    """The exported program, for any batch, and maps of any height and width."""
    free = [0, 2, 3] if x.ndim > 3 else [0]
    sizes = {axis: torch.export.Dim(f"size{axis}", min=2, max=64) for axis in free}
    return torch.export.export(layer, (x,), dynamic_shapes=(sizes,))


EXPORTED = [(name, False) for name in TWINS if name != "LayerNorm, two axes"]
EXPORTED += [(name, True) for name in STATEFUL]


@pytest.mark.parametrize(("name", "training"), EXPORTED)
def test_an_exported_program_is_that_of_torch_for_any_size(name, training):
    *layers, x = pair(name, training)
    programs = [program_of(layer, x) for layer in layers]
    assert targets(programs[0].graph) == targets(programs[1].graph)
    other = torch.randn(5, *x.shape[1:] if x.ndim < 4 else (C, 9, 7, *x.shape[4:]))
    mine, theirs = (program.module() for program in programs)
    assert_close(mine(other), theirs(other), **CLOSE)
    buffers = dict(theirs.named_buffers())
    assert_close(dict(mine.named_buffers()), buffers, **CLOSE)


def test_a_strictly_exported_program_is_that_of_torch():
    models = [Network(lib).train() for lib in (ours, torch.nn)]
    given = models[0].inputs()
    programs = [torch.export.export(m, given, strict=True) for m in models]
    assert targets(programs[0].graph) == targets(programs[1].graph)
    assert_close(*(program.module()(*given) for program in programs), **CLOSE)


@every_plain
def test_an_exported_layer_of_our_own_is_right(name):
    layer, (x, _) = build(name).eval(), input_of(name, "small")
    module = torch.export.export(layer, (x,)).module()
    assert_close(module(x), equation(layer, x), rtol=1e-3, atol=1e-3)


def moved_to_evaluation(module):
    """What the tools that move an exported program to evaluation do to batch norm."""
    for node in module.graph.nodes:
        if node.target is torch.ops.aten.batch_norm.default:
            node.args = (*node.args[:5], False, *node.args[6:])
    module.recompile()
    return module


@pytest.mark.parametrize("net", [convnet, resnet])
def test_a_program_exported_in_training_can_be_moved_to_evaluation(net):
    net, x = net(ours).train(), torch.randn(4, 3, 8, 8)
    module = moved_to_evaluation(torch.export.export(net, (x,)).module())
    assert torch.equal(module(x), net.eval()(x))


# --- torch.fx -------------------------------------------------------------------------


class Named(nn.Module):
    """A layer within a network, given its input by position or by name."""

    def __init__(self, layer, argument=None):
        super().__init__()
        self.block = nn.Sequential(collections.OrderedDict(norm=layer))
        self.argument = argument

    def forward(self, x):
        if self.argument is None:
            return 2 * self.block(x)
        return 2 * self.block.norm(**{self.argument: x})


@every_layer
def test_a_symbolic_trace_holds_the_layer_itself(name):
    layer, (x, _) = build(name), input_of(name, "small")
    traced = fx.symbolic_trace(Named(layer))
    nodes = [(node.op, node.target) for node in traced.graph.nodes][:2]
    assert nodes == [("placeholder", "x"), ("call_module", "block.norm")]
    assert traced.get_submodule("block.norm") is layer
    for training in (True, False, True):
        traced.train(training)
        assert layer.training is training
        wanted = copy.deepcopy(layer)
        assert torch.equal(traced(x), 2 * wanted(x))
        state, after = dict(layer.state_dict()), dict(wanted.state_dict())
        assert_close(state, after, rtol=0, atol=0)


@every_twin
def test_a_symbolic_trace_passes_the_input_by_the_name_that_torch_gives_it(name):
    layer, reference, x = pair(name)
    (argument,) = inspect.signature(reference.forward).parameters
    traced = fx.symbolic_trace(Named(layer, argument))
    assert [node.op for node in traced.graph.nodes][1] == "call_module"
    assert_close(traced(x), 2 * reference(x), **CLOSE)


@every_twin
@train_or_eval
def test_a_symbolic_trace_of_a_layer_alone_is_that_of_torch_or_its_error(
    name, training
):
    layer, reference, x = pair(name, training)
    try:
        wanted = fx.symbolic_trace(reference)
    except fx.proxy.TraceError:
        wanted = None
    try:
        found = fx.symbolic_trace(layer)
    except fx.proxy.TraceError:
        assert wanted is None
        return
    if wanted is not None:
        assert targets(found.graph) == targets(wanted.graph)
    assert_close(found(x), reference(x), **CLOSE)


class Paths(fx.Tracer):
    """Remembers from which layer each node comes, as feature extractors do."""

    def __init__(self):
        super().__init__()
        self.where, self.paths = "", {}

    def call_module(self, m, forward, args, kwargs):
        before = self.where
        try:
            self.where = self.path_of_module(m)
            return super().call_module(m, forward, args, kwargs)
        finally:
            self.where = before

    def create_proxy(self, kind, target, args, kwargs, *others, **more):
        proxy = super().create_proxy(kind, target, args, kwargs, *others, **more)
        self.paths[proxy.node] = self.where, kind
        return proxy


def test_feature_extractors_find_every_layer_where_it_is():
    seen = []
    for lib in (ours, torch.nn):
        tracer = Paths()
        net = resnet(lib)
        graph = tracer.trace(net)
        seen.append([tracer.paths.get(node) for node in graph.nodes])
        features = fx.GraphModule(tracer.root, graph)
        norm = next(node for node in graph.nodes if node.target == "3.norm2")
        output = next(node for node in graph.nodes if node.op == "output")
        output.args = (norm,)
        graph.eliminate_dead_code()
        features.recompile()
        x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
        seen.append(features.eval()(x))
    assert seen[0] == seen[2]
    assert_close(seen[1], seen[3], **CLOSE)


def test_one_layer_in_two_places_is_two_nodes_of_one_layer():
    layer = ours.BatchNorm1d(C)
    traced = fx.symbolic_trace(nn.Sequential(layer, nn.ReLU(), layer))
    calls = [node.target for node in traced.graph.nodes if node.op == "call_module"]
    assert len(calls) == 3
    assert traced.get_submodule(calls[0]) is traced.get_submodule(calls[2]) is layer


@every_twin
def test_graph_mode_quantization_takes_every_layer(name):
    net, (x, _) = nn.Sequential(build(name), nn.ReLU()).eval(), input_of(name, "small")
    prepared = prepare_fx(net, get_default_qconfig_mapping("fbgemm"), (x,))
    assert_close(prepared(x), net(x), **CLOSE)


def test_graph_mode_quantization_takes_a_convnet():
    net, x = resnet(ours).eval(), torch.randn(2, 3, 8, 8)
    prepared = prepare_fx(net, get_default_qconfig_mapping("fbgemm"), (x,))
    assert_close(prepared(x), net(x), **CLOSE)


# --- modes and subclasses that watch --------------------------------------------------


def name_of(function):
    return resolve_name(function) or str(function)


class Functions(TorchFunctionMode):
    """Remembers the functions that make tensors."""

    def __init__(self):
        super().__init__()
        self.seen = collections.Counter()

    def __torch_function__(self, function, types, args=(), kwargs=None):
        result = function(*args, **kwargs or {})
        if isinstance(result, torch.Tensor):
            self.seen[name_of(function)] += 1
        return result


class Operators(TorchDispatchMode):
    """Remembers the operators."""

    def __init__(self):
        super().__init__()
        self.seen = collections.Counter()

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        self.seen[str(operator)] += 1
        return operator(*args, **kwargs or {})


class Watched(torch.Tensor):
    """A tensor that tells of the functions that it is given to."""

    seen: ClassVar = collections.Counter()

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        result = super().__torch_function__(function, types, args, kwargs or {})
        if isinstance(result, torch.Tensor):
            cls.seen[name_of(function)] += 1
        return result


def function_of(name):
    """The one event that a call is: torch.nn.functional's function."""
    kind = TWINS[name][0].rstrip("123d").removeprefix("Sync").removesuffix("Norm")
    words = {"LocalResponse": "local_response"}
    return f"torch.nn.functional.{words.get(kind, kind.lower())}_norm"


def seen_by_a_mode(mode):
    def watch(layer, x):
        with mode() as watching:
            return layer(x), watching.seen

    return watch


def seen_by_a_tensor(layer, x):
    Watched.seen = collections.Counter()
    y = layer(x.as_subclass(Watched))
    assert type(y) is Watched
    return y.as_subclass(torch.Tensor), Watched.seen


WATCHES = {
    "functions": seen_by_a_mode(Functions),
    "operators": seen_by_a_mode(Operators),
    "a tensor": seen_by_a_tensor,
}


@every_twin
@train_or_eval
@pytest.mark.parametrize("watch", WATCHES)
def test_who_watches_sees_of_ours_what_it_sees_of_torchs(name, training, watch):
    *layers, x = pair(name, training)
    ys, seen = zip(*(WATCHES[watch](layer, x) for layer in layers), strict=True)
    assert seen[0] == seen[1]
    assert watch == "operators" or seen[0][function_of(name)] == 1
    assert_close(*ys, **CLOSE)


X = torch.arange(48.0).reshape(4, C, 3).sin()
WEIGHT, BIAS = torch.linspace(0.5, 2, C), torch.linspace(-1, 1, C)
MEAN, VAR = torch.linspace(-0.1, 0.3, C), torch.linspace(0.3, 2, C)
FUNCTIONS = {
    "batch_norm": [
        lambda f, x: f.batch_norm(x, MEAN, VAR, WEIGHT, BIAS),
        lambda f, x: f.batch_norm(x, None, None, WEIGHT, BIAS, training=True, eps=1e-3),
    ],
    "layer_norm": [
        lambda f, x: f.layer_norm(x, (3,)),
        lambda f, x: f.layer_norm(x, (3,), WEIGHT[:3], bias=BIAS[:3], eps=1e-3),
    ],
    "rms_norm": [
        lambda f, x: f.rms_norm(x, (3,)),
        lambda f, x: f.rms_norm(x, (3,), weight=WEIGHT[:3], eps=1e-3),
    ],
    "group_norm": [
        lambda f, x: f.group_norm(x, 2),
        lambda f, x: f.group_norm(x, 2, WEIGHT, BIAS, eps=1e-3),
    ],
    "instance_norm": [
        lambda f, x: f.instance_norm(x),
        lambda f, x: f.instance_norm(x, MEAN, VAR, WEIGHT, BIAS, use_input_stats=False),
    ],
    "local_response_norm": [
        lambda f, x: f.local_response_norm(x, 3),
        lambda f, x: f.local_response_norm(x, 3, alpha=0.5, beta=0.6, k=2.0),
    ],
}


def of_ours(call):
    return lambda x: call(ours_f, x)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_function_is_one_event_and_one_node(name):
    for call in FUNCTIONS[name]:
        wanted = call(F, X)
        with Functions() as mode:
            assert_close(call(ours_f, X), wanted, **CLOSE)
        assert mode.seen[f"torch.nn.functional.{name}"] == 1
        Watched.seen = collections.Counter()
        y = call(ours_f, X.as_subclass(Watched))
        assert Watched.seen == {f"torch.nn.functional.{name}": 1}
        assert_close(y.as_subclass(torch.Tensor), wanted, **CLOSE)
        traced = fx.symbolic_trace(of_ours(call))
        assert targets(traced.graph) == {str(getattr(F, name)): 1}
        assert_close(traced(X), wanted, **CLOSE)


def test_flops_are_counted_as_of_torch():
    x, counts = torch.randn(2, 3, 8, 8), []
    for lib in (ours, torch.nn):
        net = resnet(lib)
        with FlopCounterMode(display=False) as counter:
            net(x).sum().backward()
        counts.append(counter.get_flop_counts())
    assert counts[0] == counts[1] and counts[0]["Global"]


@every_twin
@train_or_eval
def test_make_fx_records_of_ours_what_it_records_of_torchs(name, training):
    *layers, x = pair(name, training)
    mine, theirs = (make_fx(layer)(x) for layer in layers)
    assert targets(mine.graph) == targets(theirs.graph)
    assert_close(mine(x), theirs(x), **CLOSE)


@pytest.mark.parametrize("name", [n for n in ALL if "Decorrelated" not in n])
@train_or_eval
def test_fake_tensors_go_forward_and_backward(name, training):
    x, made = input_of(name, "small")[0], []
    wanted = build(name).train(training)(x)
    with FakeTensorMode():
        for lib in (ours, torch.nn if name in TWINS else ours):
            given = torch.empty(x.shape, requires_grad=True)
            cls, arguments, options, _ = ALL[name]
            layer = getattr(lib, cls)(*arguments, **options).train(training)
            y = layer(given)
            y.sum().backward()
            made.append((y.shape, y.stride(), y.dtype, given.grad.shape))
    assert made[0] == made[1] == (x.shape, wanted.stride(), x.dtype, x.shape)


@pytest.mark.parametrize("name", [n for n in ALL if "Decorrelated" not in n])
@train_or_eval
def test_the_meta_device_goes_forward_and_backward(name, training):
    layer, x = build(name).to("meta").train(training), input_of(name, "small")[0]
    x = x.to("meta").requires_grad_()
    y = layer(x)
    y.sum().backward()
    assert y.is_meta and y.shape == x.shape == x.grad.shape


@every_twin
@train_or_eval
def test_functionalization_changes_nothing(name, training):
    layer, reference, x = pair(name, training)
    assert_close(functionalize(lambda x: layer(x))(x), reference(x), **CLOSE)
    assert_close(dict(layer.state_dict()), dict(reference.state_dict()), **CLOSE)


PER_SAMPLE = {
    "LayerNorm",
    "GroupNorm",
    "InstanceNorm1d",
    "InstanceNorm2d",
    "InstanceNorm3d",
}


@pytest.mark.parametrize("name", [n for n in TWINS if TWINS[n][0] in PER_SAMPLE])
def test_gradients_per_sample_are_those_of_torch(name):
    layer, reference, x = pair(name)
    for module in (layer, reference):
        call_for_per_sample_grads(module)(x).square().sum().backward()
    for mine, theirs in zip(layer.parameters(), reference.parameters(), strict=True):
        assert mine.grad_sample.shape == (len(x), *mine.shape)
        assert_close(mine.grad_sample, theirs.grad_sample, **CLOSE)


@pytest.mark.parametrize("name", [*BATCH_NORMS, "RMSNorm", "SyncBatchNorm"])
def test_gradients_per_sample_are_refused_as_by_torch(name):
    layer, _, x = pair(name)
    with pytest.raises(
        RuntimeError, match=f"cannot handle function {function_of(name)[20:]}"
    ):
        call_for_per_sample_grads(layer)(x)


@pytest.mark.parametrize(
    ("backend", "training"),
    [("eager", True), ("aot_eager", True), ("aot_eager", False)],
)
@pytest.mark.parametrize("names", [TWINS, PLAIN], ids=["twins", "own"])
def test_compiled_layers_do_what_eager_ones_do(names, backend, training):
    torch._dynamo.reset()
    layers, single = Beside(ours, names).train(training), names is TWINS
    other, inputs = copy.deepcopy(layers), layers.inputs()
    # The schedules of renormalization leave the graph; numbers, as here, do not.
    compiled = torch.compile(layers, backend=backend, fullgraph=single)
    for module in (compiled, other):
        sum(y.square().mean() for y in module(*inputs)).backward()
    near = {"rtol": 1e-5, "atol": 1e-5} if single else {"rtol": 1e-4, "atol": 1e-4}
    assert_close(compiled(*inputs), other(*inputs), **near)
    assert_close(dict(layers.state_dict()), dict(other.state_dict()), **near)
    for (key, a), b in zip(layers.named_parameters(), other.parameters(), strict=True):
        assert_close(a.grad, b.grad, rtol=1e-4, atol=near["atol"], msg=key)


@contextlib.contextmanager
def deterministic():
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


CONTEXTS = {
    "a default device": lambda: torch.device("cpu"),
    "anomalies": torch.autograd.detect_anomaly,
    "deterministic": deterministic,
}


@every_twin
@pytest.mark.filterwarnings("ignore:Anomaly Detection has been enabled:UserWarning")
@train_or_eval
def test_a_context_around_a_step_changes_nothing(name, training):
    wrong = Wrong()
    for context, enter in CONTEXTS.items():
        found = []
        for layer in pair(name, training, torch.float64)[:2]:
            x = input_of(name, "small", dtype=torch.float64)[0]
            with enter(), wrong.where(context):
                found.append(step(layer, x)[1])
        with wrong.where(context):
            assert_close(*found, rtol=1e-9, atol=1e-9)
    assert not wrong, str(wrong)


# --- state that is wrapped, or a view -------------------------------------------------


class Plain(torch.Tensor):
    """A subclass that changes nothing."""


WRAPPERS = {
    "TwoTensor": lambda t: TwoTensor(t.clone(), t + 0.5),
    "subclass": lambda t: t.clone().as_subclass(Plain),
    "negative bit": lambda t: torch._neg_view(-t),
    "strided": lambda t: torch.stack([t, t], -1)[..., 0],
    "expanded": lambda t: t.flatten()[:1].expand(t.shape),
}


KINDS_OF_TENSOR = "TwoTensor", "subclass"  # the others are ways to lie in memory


def unwrapped(tensor):
    if tensor is None:
        return torch.zeros(())
    if isinstance(tensor, TwoTensor):
        return torch.stack([tensor.a, tensor.b])
    return tensor.as_subclass(torch.Tensor).resolve_neg()


def dense(tensor):
    return tensor.resolve_neg().contiguous().clone()


def with_wrapped(layer, x, wrap, chosen):
    """A layer and an input of which some tensors, by name, are wrapped."""
    for key in set(chosen) - {"input"}:
        value = wrap(getattr(layer, key).detach())
        setattr(layer, key, nn.Parameter(value) if key in layer._parameters else value)
    return layer, wrap(x) if "input" in chosen else x


def step(layer, x):
    """Kinds and values of all that can be seen of a step, statistics last."""
    x = x.detach().requires_grad_()
    y = layer(x)
    y.square().sum().backward()
    tensors = [y.detach(), x.grad, *(p.grad for p in layer.parameters())]
    tensors += list(layer.buffers())
    return list(map(type, tensors)), list(map(unwrapped, tensors))


@every_twin
@pytest.mark.parametrize("wrapper", WRAPPERS)
@train_or_eval
def test_wrapped_state_is_taken_as_torch_takes_it(name, wrapper, training):
    """Views are taken as torch takes the same values in dense memory.

    Of a parameter that is a view torch's own batch norm of (N, C) reads other values in
    its backward pass. It does not write to statistics with the negative bit: whether
    ours does is not asked. Nobody can write to expanded ones.
    """
    wrap, names = WRAPPERS[wrapper], [key for key, _ in build(name).named_parameters()]
    statistics = [key for key, b in build(name).named_buffers() if b.ndim]
    names += [] if training and wrapper == "expanded" else statistics
    names += [] if wrapper == "expanded" else ["input"]
    wrong = Wrong()
    for chosen in (*([key] for key in names), names):
        *layers, x = pair(name, training, torch.float64)
        theirs = wrap if wrapper in KINDS_OF_TENSOR else lambda t: dense(wrap(t))
        with wrong.where(chosen):
            mine = step(*with_wrapped(layers[0], x, wrap, chosen))
            wanted = step(*with_wrapped(layers[1], x, theirs, chosen))
            assert mine[0] == wanted[0]
            if training and wrapper == "negative bit":
                known = len(wanted[1]) - len(list(layers[0].buffers()))
                mine, wanted = ((None, seen[1][:known]) for seen in (mine, wanted))
            assert_close(mine[1], wanted[1], rtol=1e-9, atol=1e-9)
    assert not wrong, str(wrong)


class Positive(nn.Module):
    def forward(self, raw):
        return F.softplus(raw)


def parametrized(layer):
    parametrize.register_parametrization(layer, "weight", Positive())


def pruned(layer):
    mask = torch.arange(layer.weight.numel()).reshape(layer.weight.shape) % 3 > 0
    prune.custom_from_mask(layer, "weight", mask)


def hooked(layer):
    layer.weight.register_hook(lambda slope: 2 * slope)


def frozen(layer):
    layer.weight.requires_grad_(False)


def without(*names):
    def change(layer):
        for name in names:
            setattr(layer, name, None)

    return change


# change: what it needs, and how it is made.
CHANGES = {
    "parametrized": ("weight", parametrized),
    "pruned": ("weight", pruned),
    "hooked": ("weight", hooked),
    "frozen": ("weight", frozen),
    "no weight": ("weight", without("weight")),
    "no bias": ("bias", without("bias")),
    "no weight, no bias": ("bias", without("weight", "bias")),
    "no counter": ("num_batches_tracked", without("num_batches_tracked")),
    "no statistics": ("running_mean", without("running_mean", "running_var")),
}


def after_a_change(layer, change, x):
    """What two steps show of a layer that was changed, or the kind of its error."""
    change(layer)
    try:
        return [step(layer, x)[1], step(layer, 2 * x + 1)[1]]
    except (RuntimeError, ValueError) as error:
        return type(error)


@every_twin
@train_or_eval
def test_what_is_changed_by_hand_is_taken_as_torch_takes_it(name, training):
    wrong = Wrong()
    for case, (needed, change) in CHANGES.items():
        *layers, x = pair(name, training, torch.float64)
        if getattr(layers[0], needed, None) is None:
            continue
        if (name, case) == ("SyncBatchNorm", "no counter"):  # torch.nn's demands it
            continue
        with wrong.where(case):
            mine, theirs = (after_a_change(layer, change, x) for layer in layers)
            if mine is theirs:  # the same error
                continue
            if isinstance(theirs, type):  # torch's alone, as of a group norm's bias
                y = plain(layers[0], x, layers[0].weight, layers[0].bias)
                mine, theirs = mine[0][0], y.detach()
            assert_close(mine, theirs, rtol=1e-9, atol=1e-9)
    assert not wrong, str(wrong)


@every_twin
@train_or_eval
def test_state_that_is_given_for_one_call_is_used(name, training):
    found = []
    for layer in pair(name, training, torch.float64)[:2]:
        before = {key: value.clone() for key, value in layer.state_dict().items()}
        given = {key: 2 * value for key, value in before.items()}
        x = input_of(name, "small", dtype=torch.float64)[0].requires_grad_()
        leaves = [
            x,
            *(given[key].requires_grad_() for key, _ in layer.named_parameters()),
        ]
        y = functional_call(layer, given, (x,))
        slopes = torch.autograd.grad(y.square().sum(), leaves)
        assert_close(dict(layer.state_dict()), before, rtol=0, atol=0)
        found.append(
            [y.detach(), *slopes, *(value.detach() for value in given.values())]
        )
    assert_close(*found, rtol=1e-9, atol=1e-9)


# --- smaller things -------------------------------------------------------------------


@pytest.mark.parametrize("name", ["BatchNorm2d", "SyncBatchNorm"])
@train_or_eval
def test_the_layout_of_mkldnn_is_taken_as_torch_takes_it(name, training):
    found = []
    for layer in pair(name, training)[:2]:
        x = input_of(name, "small")[0].requires_grad_()
        y = layer(x.to_mkldnn())
        assert y.layout is torch._mkldnn
        found.append([y.to_dense().detach(), *layer.buffers()])
    assert_close(*found, **CLOSE)


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_rms_norm_over_any_axes_keeps_the_layout_that_torch_keeps(axes):
    x = torch.randn(2, 5, 6, C).movedim(-1, 1)
    for given in (x, x.contiguous(), x.transpose(0, 1), x[:, ::2]):
        shape = given.shape[-axes:]
        y, wanted = (lib.RMSNorm(shape)(given) for lib in (ours, torch.nn))
        assert y.stride() == wanted.stride()
        assert_close(y, wanted, **CLOSE)


RENORMS = {1: ours.BatchRenorm1d, 2: ours.BatchRenorm2d, 3: ours.BatchRenorm3d}
every_renorm = pytest.mark.parametrize("dims", RENORMS)


def renorm_input(dims):
    return 3 * torch.randn({1: (5, C), 2: (5, C, 4, 3), 3: (5, C, 2, 4, 3)}[dims]) + 1


@every_renorm
def test_renormalization_loads_checkpoints_from_before_the_counter(dims):
    norm = shaken(getattr(nn, f"BatchNorm{dims}d")(C)).eval()
    old = {key: v for key, v in norm.state_dict().items() if v.is_floating_point()}
    layer, x = RENORMS[dims](C).eval(), renorm_input(dims)
    layer.load_state_dict(dict(old))
    assert layer.num_batches_tracked == 0
    assert_close(layer(x), norm(x), **CLOSE)
    for metadata in ({}, {"0": {"version": 1}}):  # as torch.nn wrote it then
        net = nn.Sequential(RENORMS[dims](C)).eval()
        state = collections.OrderedDict((f"0.{key}", v) for key, v in old.items())
        state._metadata = metadata
        net.load_state_dict(state)
        assert_close(net(x), norm(x), **CLOSE)


@every_renorm
def test_renormalization_demands_the_counter_of_checkpoints_that_have_it(dims):
    state = RENORMS[dims](C).state_dict()
    del state["num_batches_tracked"]  # the version of the rest says that it was there
    with pytest.raises(RuntimeError, match=r"Missing key.*num_batches_tracked"):
        RENORMS[dims](C).load_state_dict(state)


@every_renorm
@pytest.mark.parametrize("momentum", [0.1, None])
def test_renormalization_does_without_a_counter(dims, momentum):
    """With numbers for its limits, and with schedules, which then stay at step 0."""
    x = renorm_input(dims)
    for options in ({"rmax": 1.2, "dmax": 0.3}, {}):
        layer = shaken(RENORMS[dims](C, momentum=momentum, **options))
        layer.num_batches_tracked, other = None, copy.deepcopy(layer)
        given = {"rmax": 1, "dmax": 0} | options
        other.rmax, other.dmax = given["rmax"], given["dmax"]
        wanted = plain(other, x, other.weight, other.bias)
        assert_close(layer(x), wanted, rtol=1e-4, atol=1e-4)
        assert layer.num_batches_tracked is None
        assert layer.running_mean.isfinite().all()
        layer.eval()(x)


@pytest.mark.parametrize("converter", [nn.SyncBatchNorm, ours.SyncBatchNorm],
                         ids=["torch.nn", "ours"])  # fmt: skip
def test_no_converter_turns_an_in_place_layer_into_a_plain_one(converter):
    net = shaken(
        nn.Sequential(nn.Conv2d(3, C, 3), ours.InPlaceABN(C), nn.BatchNorm2d(C))
    )
    x, wanted = torch.randn(2, 3, 7, 7), copy.deepcopy(net)
    converted = converter.convert_sync_batchnorm(net)
    assert type(converted[1]) is ours.InPlaceABN and type(converted[2]) is converter
    assert torch.equal(converted[:2](x), wanted[:2](x))
    alone = ours.InPlaceABN(C)
    assert converter.convert_sync_batchnorm(alone) is alone


# Input that cannot be taken: ours says more than torch, but not under a tracer.
BAD = {
    "channels": ("BatchNorm2d", torch.ones(2, 3, 4, 4)),
    "dimensions": ("BatchNorm2d", torch.ones(2, C)),
    "whole numbers": ("BatchNorm1d", torch.ones(2, C, dtype=torch.long)),
    "one value": ("BatchNorm1d", torch.ones(1, C)),
    "other dtype": ("BatchNorm1d", torch.ones(2, C, dtype=torch.float64)),
    "last axis": ("LayerNorm", torch.ones(2, 7)),
    "shape": ("RMSNorm", torch.ones(2, 7)),
    "groups": ("GroupNorm", torch.ones(2, 3, 4)),
    "one position": ("InstanceNorm2d", torch.ones(2, C, 1, 1)),
}
BAD_TRACERS = {
    "a function mode": lambda layer, x: in_mode(Functions(), layer, x),
    "a dispatch mode": lambda layer, x: in_mode(Operators(), layer, x),
    "torch.jit.trace": torch.jit.trace,
    "make_fx": lambda layer, x: make_fx(layer)(x),
}


def in_mode(mode, layer, x):
    with mode:
        layer(x)


@pytest.mark.parametrize("case", BAD)
def test_under_a_tracer_bad_input_raises_what_torch_says(case):
    name, x = BAD[case]
    for tracer, trace in BAD_TRACERS.items():
        said = []
        for lib in (ours, torch.nn):
            with pytest.raises(Exception) as error:
                trace(build(name, lib), x)
            said.append((error.type, str(error.value)))
        assert said[0] == said[1], tracer
