"""Layers in company: two calls before one backward pass, checkpoints, third order.

A layer that is right alone may be wrong beside another call of itself. Here every kind
of input meets every other, and what comes out is compared with torch.nn in float64, or,
where torch.nn has no such layer or is wrong itself, with the layer's equation.
"""

import copy
import functools
import itertools
import pickle
import random

import pytest
import torch
from company import (
    ALL,
    BATCH_NORMS,
    ONE_DERIVATIVE,
    TWINS,
    C,
    Wrong,
    build,
    every_layer,
    input_of,
    kinds_of,
    noise,
    pairwise,
    plain,
    repeated,
    shaken,
    train_or_eval,
)
from torch import nn
from torch.autograd import gradcheck, gradgradcheck
from torch.autograd.graph import allow_mutation_on_saved_tensors, save_on_cpu
from torch.func import functional_call, grad, jvp, stack_module_state, vmap
from torch.testing import assert_close
from torch.utils.checkpoint import (
    CheckpointPolicy,
    checkpoint,
    create_selective_checkpoint_contexts,
    set_checkpoint_early_stop,
)

import bnlib.nn as ours

pytestmark = pytest.mark.filterwarnings(
    "ignore:`torch.jit.script` is deprecated:DeprecationWarning"  # within torch.func
)
every_batch_norm = pytest.mark.parametrize("name", BATCH_NORMS)
OTHERS = [name for name in ALL if name not in BATCH_NORMS]
# Of y and statistics, of gradients: relative to the largest value.
TOLERANCE = {
    torch.float32: (5e-6, 1e-4),
    torch.float64: (1e-10, 1e-8),
    torch.bfloat16: (1e-2, 5e-2),
}


def differs(mine, wanted, tolerance, least=0.0):
    """Whether a tensor is off by more than a part of the wanted one's largest value."""
    if mine is None or wanted is None:
        return mine is not wanted
    if mine.shape != wanted.shape:
        return True
    if not wanted.numel():
        return False
    size = wanted.abs().max().clamp(min=least)
    return not (mine.double() - wanted).abs().max() <= tolerance * size


def widened(tensor):
    tensor = tensor.detach().clone()
    return tensor.double() if tensor.is_floating_point() else tensor


def pull_for(y, how="dense", seed=0, axis=-1):
    """A gradient that comes from above, and how it lies in memory."""
    dy = noise(tuple(y.shape), 100 + seed).to(y.dtype)
    if how == "expanded" and y.numel():
        return dy.narrow(axis, 0, 1).expand(y.shape)
    return dy.transpose(0, -1).contiguous().transpose(0, -1) if how == "other" else dy


# --- two calls of one layer, one backward pass ----------------------------------------


def by_torch(twin, state, x):
    """y of torch.nn in float64, from these statistics.

    torch.nn's evaluation reads running_var once more in its backward pass, as it is
    then. Here nobody else writes to it: the gradient is that of what was computed.
    """
    return functional_call(twin, state, (x.contiguous(),))


def by_equation(twin, state, x):
    twin.load_state_dict(state, strict=False)
    return plain(twin, x, twin.weight, twin.bias)


def together(
    name, kinds, modes=(True, True), grads=(True, True), dtype=torch.float32,
    layer_dtype=None, frozen=(), upstream="dense", calls=(None, None), **options,
):  # fmt: skip
    """Return what is wrong after two calls of one layer and one backward pass."""
    exact, loose = TOLERANCE[dtype]
    layer = build(name, **options).to(layer_dtype or dtype)
    twin = build(name, torch.nn if name in TWINS else ours, **options).double()
    twin.load_state_dict(layer.state_dict())
    if name == "RMSNorm":  # whose default depends on the dtype
        twin.eps = torch.finfo(torch.promote_types(dtype, torch.float32)).eps
    for module in (layer, twin):
        for key, p in module.named_parameters():
            p.requires_grad_(key not in frozen)
    reference = by_torch if name in TWINS else by_equation
    ys, wanted_ys, dys, wrong, leaves = [], [], [], [], []
    for k in range(2):
        stored, view = input_of(name, kinds[k], k, dtype)
        wide = widened(stored).requires_grad_(grads[k])
        stored.requires_grad_(grads[k])
        layer.train(modes[k]), twin.train(modes[k])
        state = {key: widened(b) for key, b in layer.named_buffers()}
        before = {key: b.abs().max().item() for key, b in state.items()}
        wanted = reference(twin, state, view(wide))
        y = (calls[k] or type(layer).__call__)(layer, view(stored))
        if differs(y.detach(), wanted.detach(), exact, 1.0):
            wrong.append(f"y of call {k}")
        if y.dtype is not dtype or y.requires_grad is not wanted.requires_grad:
            wrong.append(f"dtype or requires_grad of call {k}")
        for key, b in layer.named_buffers() if name in TWINS else ():
            if differs(b, state[key].double(), exact, before[key]):
                wrong.append(f"{key} after call {k}")
        if y.requires_grad:
            ys.append(y), wanted_ys.append(wanted)
            dys.append(pull_for(y, upstream, k, repeated(name)))
        leaves.append((f"dx of call {k}", stored, wide))
    torch.autograd.backward(ys, dys)
    torch.autograd.backward(wanted_ys, [dy.double() for dy in dys])
    parameters = dict(twin.named_parameters())
    leaves += [(f"d{key}", p, parameters[key]) for key, p in layer.named_parameters()]
    return wrong + [key for key, a, b in leaves if differs(a.grad, b.grad, loose)]


AFFINE = {"affine": {}, "bare": {"affine": False}, "no bias": {"bias": False}}
DTYPES = {
    "float32": {"dtype": torch.float32},
    "float64": {"dtype": torch.float64},
    "bfloat16": {"dtype": torch.bfloat16},
    "mixed": {"dtype": torch.bfloat16, "layer_dtype": torch.float32},
}
MODES = [(True, True), (True, False), (False, True), (False, False)]
OPTIONS = {
    "affine": list(AFFINE),
    "momentum": [0.1, None, 0.0, 1.0, 0.37],
    "track_running_stats": [True, False],
    "frozen": [(), ("weight",), ("weight", "bias")],
    "dtype": list(DTYPES),
    "grads": [(True, True), (True, False), (False, True), (False, False)],
    "upstream": ["dense", "other", "expanded"],
}


def all_that_is_wrong(name, rows):
    """Return the rows of `pairwise` in which something is wrong."""
    lines = Wrong()
    for row in rows:
        given = dict(row, kinds=(row["first"], row["second"]))
        del given["first"], given["second"]
        given |= AFFINE[given.pop("affine", "affine")]
        given |= DTYPES[given.pop("dtype", "float32")]
        if "calls" in given:
            given["calls"] = tuple(CALLS[call] for call in given["calls"])
        with lines.where(row):
            assert together(name, **given) == []
    return lines


@every_batch_norm
def test_two_training_calls_before_one_backward_pass(name):
    kinds = kinds_of(name)
    rows = pairwise(first=kinds, second=kinds, **OPTIONS)
    assert len(rows) >= len(kinds) ** 2
    wrong = all_that_is_wrong(name, rows)
    assert not wrong, str(wrong)


@every_batch_norm
@pytest.mark.parametrize("modes", MODES[1:], ids=str)
def test_evaluation_beside_other_calls_before_one_backward_pass(name, modes):
    kinds = kinds_of(name, without=("large", "large, last", "sliced", "tiny"))
    rows = pairwise(1, first=kinds, second=kinds, modes=[modes], **OPTIONS)
    wrong = all_that_is_wrong(name, rows)
    assert not wrong, str(wrong)


FEW = "drifted", "sliced", "tiny", "large, last", "far, large", "far, last"


def dtypes_for(name):
    return ["float64"] if name.startswith("Decorrelated") else ["float32", "float64"]


@pytest.mark.parametrize("name", OTHERS)
def test_two_calls_of_any_other_layer_before_one_backward_pass(name):
    kinds = kinds_of(name, without=FEW)
    axes = {"dtype": dtypes_for(name), "grads": OPTIONS["grads"], "modes": MODES}
    axes["upstream"] = OPTIONS["upstream"]
    wrong = all_that_is_wrong(name, pairwise(first=kinds, second=kinds, **axes))
    assert not wrong, str(wrong)


class Pyramid(nn.Module):
    """A head that maps of many sizes share, as in object detection."""

    def __init__(self, lib, norm):
        super().__init__()
        self.conv = nn.Conv2d(C, C, 3, padding=1, bias=False)
        self.norm = norm(lib)

    def forward(self, maps):
        return sum(self.norm(self.conv(x)).relu().square().mean() for x in maps)


class Twice(Pyramid):
    """One layer in two places, the second behind the first."""

    def forward(self, maps):
        return sum(self.norm(self.conv(self.norm(x)).relu()).abs().mean() for x in maps)


NORMS = {
    "BatchNorm2d": lambda lib: lib.BatchNorm2d(C),
    "GroupNorm": lambda lib: lib.GroupNorm(2, C),
    "InstanceNorm2d": lambda lib: lib.InstanceNorm2d(C, affine=True),
}


@pytest.mark.parametrize("network", [Pyramid, Twice])
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("order", [1, -1], ids=["large first", "small first"])
@pytest.mark.parametrize("shift", [0.0, 30.0])
def test_one_layer_in_many_places_of_a_network(network, norm, order, shift):
    maps = [torch.randn(2, C, size, size) + shift for size in (160, 64, 16, 7, 4)]
    nets = [shaken(network(lib, NORMS[norm])) for lib in (ours, torch.nn)]
    nets[1].double()
    for net, given in zip(nets, (maps, [x.double() for x in maps]), strict=True):
        for _ in range(2):  # the second pass finds what the first has left
            net.zero_grad()
            net(given[::order]).backward()
    mine, theirs = nets
    for (key, a), b in zip(mine.named_parameters(), theirs.parameters(), strict=True):
        assert not differs(a.grad, b.grad, 1e-3), key
    for (key, a), b in zip(mine.named_buffers(), theirs.buffers(), strict=True):
        assert not differs(a, b.double(), 1e-5), key


# --- a layer remembers nothing --------------------------------------------------------


def step(layer, stored, view=lambda s: s, call=None):
    """Output and gradients of one call, which is the layer's own or another way."""
    for p in layer.parameters():
        p.grad = None
    stored = stored.detach().requires_grad_()
    y = (call or type(layer).__call__)(layer, view(stored))
    y.backward(pull_for(y))
    seen = {"y": y.detach(), "dx": stored.grad}
    return seen | {f"d{key}": p.grad for key, p in layer.named_parameters()}


def unequal(mine, wanted):
    """The names under which two dicts of tensors differ in a single bit."""
    assert mine.keys() == wanted.keys()
    return [key for key in mine if not torch.equal(mine[key], wanted[key])]


def with_a_past(name, seed, calls=12):
    """A layer after random calls: kinds, modes, with and without gradients."""
    layer, rng, kinds = build(name), random.Random(seed), kinds_of(name)
    for k in range(calls):
        layer.train(rng.random() < 0.6)
        stored, view = input_of(name, rng.choice(kinds), k)
        way = rng.choice(["step", "no grad", "no backward pass"])
        if way == "step":
            step(layer, stored, view)
        with torch.set_grad_enabled(way != "no grad"):
            layer(view(stored.requires_grad_()))
    layer.zero_grad()
    return layer.train()


def as_new(layer, name):
    """A new layer with the state of another, and nothing else of it."""
    new = build(name)
    new.load_state_dict(layer.state_dict())
    return new.train(layer.training)


@every_layer
def test_a_layer_with_a_past_does_what_a_new_one_does_to_the_bit(name):
    layer, wrong = with_a_past(name, seed=0), Wrong()
    for training, kind in itertools.product((True, False, True), kinds_of(name)):
        with wrong.where(kind, training):
            new, given = as_new(layer.train(training), name), input_of(name, kind, 50)
            assert unequal(step(layer, *given), step(new, *given)) == []
            assert unequal(layer.state_dict(), new.state_dict()) == []
    assert not wrong, str(wrong)


COPIES = {
    "itself": lambda layer: layer,
    "deepcopy": copy.deepcopy,
    "pickle": lambda layer: pickle.loads(pickle.dumps(layer)),
}


@every_layer
@pytest.mark.parametrize("copied", COPIES)
def test_a_layer_with_a_past_holds_what_a_new_one_of_torch_holds(name, copied):
    layer = COPIES[copied](with_a_past(name, seed=1))
    new = build(name, torch.nn if name in TWINS else ours)
    assert vars(layer).keys() == vars(new).keys()
    for key, value in vars(layer).items():
        if key in ("_buffers", "_parameters"):
            assert value.keys() == vars(new)[key].keys()
        else:
            assert value == vars(new)[key], key


def in_place(layer, name, value):
    with torch.no_grad():
        getattr(layer, name).copy_(value)


def through_data(layer, name, value):
    getattr(layer, name).data.copy_(value)


def moving_average(layer, name, value):
    getattr(layer, name).data.mul_(0.01).add_(value, alpha=0.99)


def other_memory(layer, name, value):
    getattr(layer, name).data = value.clone()


def by_state_dict(layer, name, value):
    layer.load_state_dict({**layer.state_dict(), name: value})


def assigned_state_dict(layer, name, value):
    state = {**layer.state_dict(), name: value.clone()}
    layer.load_state_dict(state, assign=True)


def another_tensor(layer, name, value):
    parameter = isinstance(getattr(layer, name), nn.Parameter)
    setattr(layer, name, nn.Parameter(value.clone()) if parameter else value.clone())


def by_an_array(layer, name, value):
    getattr(layer, name).detach().numpy()[...] = value.numpy()


def by_foreach(layer, name, value):
    with torch.no_grad():
        torch._foreach_lerp_([getattr(layer, name)], [value], 0.99)


WRITERS = [
    in_place, through_data, moving_average, other_memory, by_state_dict,
    assigned_state_dict, another_tensor, by_an_array, by_foreach,
]  # fmt: skip


@pytest.mark.parametrize("name", [n for n in ALL if n != "LocalResponseNorm"])
@train_or_eval
def test_what_is_written_is_seen_by_the_next_call(name, training):
    """Far from 0 and back: what held before must not be believed."""
    given, wrong = input_of(name, "small"), Wrong()
    for write in WRITERS:
        layer = build(name).train(training)
        state = layer.state_dict().items()
        state = {key: v.clone() for key, v in state if v.is_floating_point()}
        before = step(layer, *given)
        for scale, shift in ((3.0, 1e4), (2.0, 0.0), (1.5, -300.0)):
            for key, value in state.items():
                write(layer, key, value * scale + shift * (key == "running_mean"))
            with wrong.where(write.__name__, scale, shift):
                wanted = step(as_new(layer, name), *given)
                found = step(layer, *given)
                assert unequal(found, wanted) == [] and "y" in unequal(found, before)
    assert not wrong, str(wrong)


# --- checkpoints ----------------------------------------------------------------------


def checkpointed(layer, x, reentrant=False, **options):
    return checkpoint(layer, x, use_reentrant=reentrant, **options)


def to_the_end(layer, x):
    with set_checkpoint_early_stop(False):
        return checkpointed(layer, x)


def nested(layer, x):
    return checkpointed(functools.partial(checkpointed, layer), x)


CALLS = {
    "direct": None,
    "checkpointed": checkpointed,
    "reentrant": functools.partial(checkpointed, reentrant=True),
    "no rng": functools.partial(checkpointed, preserve_rng_state=False),
    "to the end": to_the_end,
    "nested": nested,
}
CHECKPOINTED = [
    ("checkpointed", "direct"),
    ("direct", "checkpointed"),
    ("checkpointed", "checkpointed"),
    ("reentrant", "direct"),
    ("direct", "reentrant"),
    ("reentrant", "reentrant"),
    ("checkpointed", "reentrant"),
    ("no rng", "to the end"),
    ("nested", "direct"),
]


@every_layer
def test_two_calls_of_which_some_are_checkpointed(name):
    """What a layer remembers of the second call must not change the first one's.

    Recomputation moves running statistics on, as in torch.nn. No layer can give the
    gradient of what has read them before: so both calls are in one mode, and batch
    renormalization, which reads them in training, keeps them by a momentum of 0.
    """
    few = () if name in BATCH_NORMS else (*FEW, "constant")
    few += "empty", "sliced", "transposed", "expanded", "tiny", "large, last"
    kinds = kinds_of(name, without=few)
    axes = {"dtype": dtypes_for(name), "modes": [MODES[0], MODES[-1]]}
    axes["calls"] = CHECKPOINTED
    axes |= {"momentum": [0.0]} if name.startswith("BatchRenorm") else {}
    wrong = all_that_is_wrong(name, pairwise(first=kinds, second=kinds, **axes))
    assert not wrong, str(wrong)


SWEPT = {
    "rows": ((64, C), "BatchNorm1d"),
    "many rows": ((1200, C), "BatchNorm1d"),
    "sequences": ((8, C, 36), "BatchNorm1d"),
    "maps": ((8, C, 6, 6), "BatchNorm2d"),
    "pale maps": ((8, C, 6, 6), "BatchNorm2d"),
    "channels last": ((8, 6, 6, C), "BatchNorm2d"),
    "wide maps": ((3, C, 40, 40), "BatchNorm2d"),
    "solids": ((3, C, 2, 3, 5), "BatchNorm3d"),
}
MEANS = *(k / 2 for k in range(26)), *range(13, 50, 3), *range(50, 101, 10), 1e3, 1e4


@pytest.mark.parametrize("way", ["checkpointed", "reentrant"])
@train_or_eval
@pytest.mark.parametrize("swept", SWEPT)
def test_checkpoints_at_every_mean_from_near_to_far(swept, training, way):
    """Whatever a threshold decides is decided in recomputation as it was before."""
    shape, name = SWEPT[swept]
    noise, wrong = torch.randn(shape), Wrong()
    noise = noise.movedim(-1, 1) if swept == "channels last" else noise
    noise = noise / 10 if swept == "pale maps" else noise
    for mean in MEANS:
        layer = build(name).train(training)
        if not training:
            layer.running_mean.fill_(mean)
        with wrong.where(mean):
            wanted = step(copy.deepcopy(layer), noise + mean)
            found = step(layer, noise + mean, call=CALLS[way])
            assert unequal(found, wanted) == []
    assert not wrong, str(wrong)


aten = torch.ops.aten
KEPT = [
    aten.native_batch_norm.default, aten.native_layer_norm.default,
    aten.native_group_norm.default, aten.convolution.default,
]  # fmt: skip


def only_the_kept(context, operator, *_, **__):
    must = CheckpointPolicy
    return must.MUST_SAVE if operator in KEPT else must.MUST_RECOMPUTE


def nothing(*_, **__):
    return CheckpointPolicy.PREFER_RECOMPUTE


def selective(kept):
    contexts = functools.partial(create_selective_checkpoint_contexts, kept)
    return functools.partial(checkpointed, context_fn=contexts)


def keeping(keep):
    def call(layer, x):
        with keep():
            return layer(x)

    return call


def packed(pack, unpack):
    hooks = torch.autograd.graph.saved_tensors_hooks
    return keeping(lambda: hooks(pack, unpack))


KEEPERS = {
    "these operators' results": selective(KEPT),
    "what a policy says": selective(only_the_kept),
    "nothing": selective(nothing),
    "all, on the CPU": keeping(save_on_cpu),
    "all, as bytes": packed(pickle.dumps, pickle.loads),
    "all, as dense copies": packed(lambda t: t.detach().clone(), torch.clone),
}


@every_layer
@train_or_eval
def test_it_does_not_matter_what_is_kept_for_the_backward_pass(name, training):
    """Recomputation moves renormalization's statistics on, unless momentum is 0."""
    options, wrong = {"momentum": 0.0} if "Renorm" in name else {}, Wrong()
    kinds = kinds_of(name, only=("small", "large", "last", "far"))
    for (keeper, call), kind in itertools.product(KEEPERS.items(), kinds):
        layer = build(name, **options).double().train(training)
        given = input_of(name, kind, dtype=torch.float64)
        with wrong.where(keeper, kind):
            wanted = step(copy.deepcopy(layer), *given)
            assert_close(step(layer, *given, call), wanted, rtol=1e-7, atol=1e-7)
    assert not wrong, str(wrong)


@every_layer
@train_or_eval
def test_the_input_may_change_where_what_is_saved_is_guarded(name, training):
    def call(layer, x):
        x = x * 1
        y = layer(x)
        x.add_(1)
        return y

    layer = build(name).double().train(training)
    given = input_of(name, "small", dtype=torch.float64)
    wanted = step(copy.deepcopy(layer), *given)
    with allow_mutation_on_saved_tensors():
        found = step(layer, *given, call)
    assert_close(found, wanted, rtol=1e-9, atol=1e-9)


# --- to third order -------------------------------------------------------------------

THREE = [0.229082, 0.196355, 0.182328]  # derivatives of y_0 for (t, 1, 3) at t = 0
VIEWS = {
    "rows": ((3, 1), lambda lib: lib.BatchNorm1d(1)),
    "one sequence": ((1, 1, 3), lambda lib: lib.BatchNorm1d(1)),
    "untracked": ((3, 1), lambda lib: lib.BatchNorm1d(1, track_running_stats=False)),
    "bare": ((3, 1), lambda lib: lib.BatchNorm1d(1, affine=False)),
    "a row of pixels": ((1, 1, 1, 3), lambda lib: lib.BatchNorm2d(1)),
    "a column of pixels": ((1, 1, 3, 1), lambda lib: lib.BatchNorm2d(1)),
    "maps of a pixel": ((3, 1, 1, 1), lambda lib: lib.BatchNorm2d(1)),
    "a solid": ((1, 1, 3, 1, 1), lambda lib: lib.BatchNorm3d(1)),
    "SyncBatchNorm": ((3, 1), lambda lib: lib.SyncBatchNorm(1)),
    "LayerNorm": ((1, 3), lambda lib: lib.LayerNorm(3)),
    "GroupNorm": ((1, 3), lambda lib: lib.GroupNorm(1, 3)),
    "InstanceNorm1d": ((1, 1, 3), lambda lib: lib.InstanceNorm1d(1)),
    "InstanceNorm2d": ((1, 1, 3, 1), lambda lib: lib.InstanceNorm2d(1, affine=True)),
    "BatchRenorm1d": ((3, 1), lambda lib: lib.BatchRenorm1d(1, rmax=1, dmax=0)),
    "DecorrelatedBatchNorm": (
        (3, 1),
        lambda lib: lib.DecorrelatedBatchNorm(1, iterations=30),
    ),
}


@pytest.mark.parametrize("view", VIEWS)
def test_three_values_and_their_three_derivatives(view):
    shape, make = VIEWS[view]
    t = torch.zeros((), dtype=torch.float64, requires_grad=True)
    x = torch.stack([t, torch.ones_like(t), torch.full_like(t, 3.0)]).reshape(shape)
    value, found = make(ours).double()(x).flatten()[0], []
    for _ in range(3):
        (value,) = torch.autograd.grad(value, t, create_graph=True)
        found.append(value.item())
    assert found == pytest.approx(THREE, abs=1e-6)


def on_a_line(function, tensors, directions, pull):
    """The function of t that is <pull, function(tensors + t directions)>."""

    def value(t):
        pairs = zip(tensors, directions, strict=True)
        moved = [a if d is None else a + t * d for a, d in pairs]
        return (function(*moved) * pull).sum() + 0 * t

    return value


def lines_through(name, kind, training, moving, dtype=torch.float64, **options):
    """One line through the layer, and through its equation in float64."""
    layer = build(name, **options).to(dtype).train(training)
    wide = copy.deepcopy(layer).double()
    if name == "RMSNorm":
        wide.eps = torch.finfo(dtype).eps
    stored, view = input_of(name, kind, 0, dtype)
    keys = [key for key, _ in layer.named_parameters()]
    tensors = [stored, *(p.detach() for p in layer.parameters())]
    pairs = zip(["input", *keys], tensors, strict=True)
    directions = [torch.randn_like(a) if key in moving else None for key, a in pairs]

    def by_layer(x, *parameters):
        given = dict(zip(keys, parameters, strict=True))
        return functional_call(layer, given, (view(x),))

    def by_equation(x, *parameters):
        given = dict(zip(keys, parameters, strict=True))
        return plain(wide, view(x), given.get("weight"), given.get("bias"))

    pull, lines = torch.randn_like(view(stored)), []
    for function, to in ((by_layer, dtype), (by_equation, torch.float64)):
        given = ([a if a is None else a.to(to) for a in many] for many in
                 (tensors, directions))  # fmt: skip
        lines.append(on_a_line(function, *given, pull.to(to)))
    return lines


def derivatives(value, dtype=torch.float64):
    """Value and three derivatives of a function of t at 0, by autograd."""
    t = torch.zeros((), dtype=dtype, requires_grad=True)
    found = [value(t)]
    for _ in range(3):
        (slope,) = torch.autograd.grad(found[-1], t, create_graph=True)
        found.append(slope + 0 * t)
    return torch.stack(found).detach().double()


MOVING = [("input",), ("weight", "bias"), ("input", "weight", "bias")]
TO_THIRD = [name for name in ALL if name not in ONE_DERIVATIVE]
WITH_OPTIONS = [(name, {}) for name in TO_THIRD] + [
    (name, options)
    for name in (*BATCH_NORMS, "SyncBatchNorm", "BatchRenorm2d")
    for options in ({"affine": False}, {"bias": False}, {"momentum": None})
]
WITH_OPTIONS += [(name, {"track_running_stats": False}) for name in BATCH_NORMS]
with_options = pytest.mark.parametrize(
    ("name", "options"), WITH_OPTIONS, ids=lambda given: str(given).strip("{}") or "-"
)


@with_options
@train_or_eval
def test_derivatives_to_third_order_are_those_of_the_equation(name, options, training):
    """Along a line on which input and parameters move: all mixed ones are in it."""
    kinds = "small", "far", "other", "last", "far, last", "large"
    wrong = Wrong()
    for kind in kinds_of(name, only=kinds[:2] if options else kinds):
        for moving in MOVING if kind in ("small", "far") else MOVING[2:]:
            lines = lines_through(name, kind, training, moving, **options)
            with wrong.where(kind, moving):
                mine, wanted = map(derivatives, lines)
                least = 1e-10 * wanted.abs().max().item()
                assert_close(mine, wanted, rtol=1e-7, atol=least)
    assert not wrong, str(wrong)


@pytest.mark.parametrize("name", TO_THIRD)
@train_or_eval
def test_derivatives_to_third_order_in_single_precision(name, training):
    for kind in kinds_of(name, only=("small", "other", "last", "drifted", "far")):
        lines = lines_through(name, kind, training, MOVING[-1], torch.float32)
        mine, wanted = derivatives(lines[0], torch.float32), derivatives(lines[1])
        assert not differs(mine, wanted, 1e-3), (kind, mine, wanted)


def forward_slope(value):
    return lambda t: jvp(value, (t,), (torch.ones_like(t),))[1]


WAYS = [
    (grad, grad, grad),
    (forward_slope, forward_slope, forward_slope),
    (grad, forward_slope, grad),
    (forward_slope, grad, forward_slope),
]


# In training without running statistics: they cannot be written within a transform.
UNTRACKED = *BATCH_NORMS, "SyncBatchNorm"
TRANSFORMED = [(name, False, {}) for name in TO_THIRD] + [
    (name, True, {"track_running_stats": False} if name in UNTRACKED else {})
    for name in TO_THIRD
    if name in TWINS
]


@pytest.mark.parametrize(("name", "training", "options"), TRANSFORMED)
def test_every_transform_of_a_transform_is_right(name, training, options):
    for kind, way in [*(("small", way) for way in WAYS), ("far", WAYS[0])]:
        lines = lines_through(name, kind, training, MOVING[-1], **options)
        wanted, t = derivatives(lines[1]), torch.zeros((), dtype=torch.float64)
        value = lines[0]
        for order, transform in enumerate(way, 1):
            value = transform(value)
            assert_close(value(t), wanted[order], rtol=1e-6, atol=1e-6)


PER_EXAMPLE = [*TWINS, "BatchRenorm1d", "BatchRenorm2d", "InPlaceABN"]


@pytest.mark.parametrize("name", PER_EXAMPLE)
def test_gradients_per_example_in_evaluation(name):
    layer = build(name).double().eval()
    x, _ = input_of(name, "small", dtype=torch.float64)
    parameters = {key: p.detach() for key, p in layer.named_parameters()}
    pull = torch.randn_like(x[0])

    def loss(parameters, row):
        return (functional_call(layer, parameters, (row[None],))[0] * pull).sum()

    slopes = vmap(grad(loss, argnums=(0, 1)), (None, 0))(parameters, x)
    for k, row in enumerate(x):
        leaves = {key: p.clone().requires_grad_() for key, p in parameters.items()}
        row = row.clone().requires_grad_()
        y = plain(layer, row[None], leaves.get("weight"), leaves.get("bias"))[0]
        wanted = torch.autograd.grad(y, [*leaves.values(), row], pull)
        found = [*(slopes[0][key][k] for key in leaves), slopes[1][k]]
        assert_close(found, list(wanted), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", [n for n in PER_EXAMPLE if "Local" not in n])
def test_an_ensemble_of_layers_is_one_call(name):
    layers = [shaken(build(name).double().eval(), seed) for seed in range(3)]
    x, _ = input_of(name, "small", dtype=torch.float64)

    def function(state, x):
        return functional_call(layers[0], state, (x,))

    y = vmap(function, (0, None))(stack_module_state(layers), x)
    wanted = [plain(m, x, m.weight, getattr(m, "bias", None)) for m in layers]
    assert_close(y, torch.stack(wanted), rtol=1e-9, atol=1e-9)


def by_its_tensors(layer):
    """The layer as a function of input and parameters, from the state it has now."""
    keys = [key for key, _ in layer.named_parameters()]
    buffers = dict(layer.named_buffers())

    def function(x, *parameters):
        state = {key: b.clone() for key, b in buffers.items()}
        state |= dict(zip(keys, parameters, strict=True))
        return functional_call(layer, state, (x,))

    return function


TINY = {2: (7, C), 3: (3, C, 6), 4: (2, C, 2, 3), 5: (2, C, 1, 2, 2)}


@every_layer
@train_or_eval
def test_first_and_second_derivatives_by_finite_differences(name, training):
    shape = TINY[len(ALL[name][-1][0])]
    # Where r and d are constants: elsewhere no derivative is taken of them.
    options = {"rmax": 1, "dmax": 0} if "Renorm" in name else {}
    layer = build(name, **options).double().train(training)
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    leaves = x, *layer.parameters()
    function = by_its_tensors(layer)
    assert gradcheck(function, leaves, fast_mode=True)
    if name not in ONE_DERIVATIVE:
        assert gradgradcheck(function, leaves, fast_mode=True)


@pytest.mark.parametrize("name", ONE_DERIVATIVE)
def test_what_promises_one_derivative_raises_at_the_second(name):
    layer = build(name).double()
    x, _ = input_of(name, "small", dtype=torch.float64)
    y = layer(x.requires_grad_())
    (slope,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        slope.square().sum().backward()
