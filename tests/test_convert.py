"""bnlib.nn.convert: every norm of a model becomes ours in place, and back."""

import copy
import pickle
import types
import warnings

import pytest
import torch
from company import OWN, TWINS, C, build, every_twin, input_of, shaken
from torch import nn
from torch.ao.quantization import fuse_modules
from torch.testing import assert_close

import bnlib.nn as ours

every_own = pytest.mark.parametrize("name", OWN)
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


@pytest.fixture(autouse=True)
def _nothing_is_left_without_a_reason():
    """A warning that a test does not expect is an error in it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("error", category=UserWarning)
        yield


def left_by(model, *arguments, **options):
    """What one conversion says that it has left alone."""
    with pytest.warns(UserWarning) as caught:
        assert ours.convert(model, *arguments, **options) is model
    return "\n".join(str(warning.message) for warning in caught)


def convnet(lib):
    net = nn.Sequential(
        nn.Conv2d(3, C, 3, bias=False),  # the slope of a bias would be mere rounding
        lib.BatchNorm2d(C),
        nn.ReLU(),
        nn.Sequential(nn.Conv2d(C, C, 1), lib.GroupNorm(2, C)),
        nn.Flatten(),
        lib.LayerNorm(36 * C),
        nn.Linear(36 * C, 2),
    )
    return shaken(net)


X = torch.randn(5, 3, 8, 8, generator=torch.Generator().manual_seed(0))


@every_twin
def test_every_norm_becomes_ours_and_back_with_all_that_it_has(name):
    layer = build(name, torch.nn).eval()
    model, said = nn.Sequential(nn.ModuleList([layer])), repr(layer)
    tensors = dict(layer.state_dict(keep_vars=True))
    wanted, x = copy.deepcopy(layer), input_of(name, "small")[0]
    for lib, given in ((ours, {}), (torch.nn, {"to": torch.nn}), (ours, {"to": ours})):
        assert ours.convert(model, **given) is model
        found = model[0][0]
        assert type(found) is getattr(lib, TWINS[name][0])
        assert repr(found) == said and not found.training
        state = found.state_dict(keep_vars=True)
        assert list(state) == list(tensors)
        assert all(state[key] is tensors[key] for key in tensors)
        assert vars(found).keys() == vars(wanted).keys()
        assert_close(found(x), wanted(x), **CLOSE)
        pair = (copy.deepcopy(m).train()(x) for m in (found, wanted))
        assert_close(*pair, **CLOSE)


def test_a_model_that_is_itself_a_norm():
    layer = build("BatchNorm2d", torch.nn)
    assert type(mine := ours.convert(layer)) is ours.BatchNorm2d
    assert mine.weight is layer.weight
    assert type(ours.convert(mine, to=torch.nn)) is nn.BatchNorm2d


def test_a_network_computes_learns_and_remembers_as_before():
    net = convnet(torch.nn)
    other = copy.deepcopy(net)
    pairs = [(m, torch.optim.Adam(m.parameters(), lr=1e-3)) for m in (net, other)]
    for k in range(4):
        for model, optimizer in pairs:
            optimizer.zero_grad()
            model(X + k).square().mean().backward()
            optimizer.step()
        ours.convert(net, **[{}, {"to": torch.nn}][k % 2])  # the optimizer goes on
    assert_close(dict(net.state_dict()), dict(other.state_dict()), rtol=1e-4, atol=1e-4)
    assert_close(net.eval()(X), other.eval()(X), rtol=1e-4, atol=1e-4)


def test_what_is_frozen_and_what_is_in_evaluation_stays_so():
    net = convnet(torch.nn).train()
    net[1].eval().requires_grad_(False)
    net[5].bias.requires_grad_(False)
    ours.convert(net)
    assert not net[1].training and net[5].training and net.training
    assert [p.requires_grad for p in net[1].parameters()] == [False, False]
    assert [p.requires_grad for p in net[5].parameters()] == [True, False]


HOOKS = "before", "after", "backward", "weight", "state", "load"


def test_hooks_are_kept():
    net, seen = convnet(torch.nn), []
    layer = net[1]
    hooks = [
        layer.register_forward_pre_hook(lambda *_: seen.append("before")),
        layer.register_forward_hook(lambda *_: seen.append("after")),
        layer.register_full_backward_hook(lambda *_: seen.append("backward")),
        layer.weight.register_hook(lambda *_: seen.append("weight")),
        layer.register_state_dict_pre_hook(lambda *_: seen.append("state")),
        layer.register_load_state_dict_post_hook(lambda *_: seen.append("load")),
    ]
    for lib, given in ((ours, {}), (torch.nn, {"to": torch.nn})):
        ours.convert(net, **given)
        assert type(net[1]) is lib.BatchNorm2d
        net(X).sum().backward()
        net.load_state_dict(net.state_dict())
        assert sorted(seen) == sorted(HOOKS)
        seen.clear()
    for hook in hooks:  # and can be removed
        hook.remove()
    net(X).sum().backward()
    net.load_state_dict(net.state_dict())
    assert not seen


class Sharing(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.BatchNorm1d(C)
        self.again = nn.Sequential(nn.Linear(C, C), self.first)
        self.alias = self.first


def test_one_layer_in_several_places_stays_one():
    model = Sharing()
    for lib in (ours, torch.nn):
        ours.convert(model, to=lib)
        assert type(model.first) is lib.BatchNorm1d
        assert model.first is model.again[1] is model.alias
    tied = nn.Sequential(nn.LayerNorm(C), nn.LayerNorm(C))
    tied[1].weight = tied[0].weight
    ours.convert(tied)
    assert tied[0] is not tied[1] and tied[0].weight is tied[1].weight


def kinds(model):
    return [type(module) for module in model.modules()]


def test_twice_is_as_once_and_what_is_ours_already_stays():
    net = ours.convert(convnet(torch.nn))
    before = list(net.modules())
    ours.convert(net)
    assert all(a is b for a, b in zip(net.modules(), before, strict=True))
    assert kinds(net) == kinds(convnet(ours))
    for _ in range(2):
        ours.convert(net, to=torch.nn)
        assert kinds(net) == kinds(convnet(torch.nn))


def test_a_converted_model_can_be_pickled():
    net = ours.convert(convnet(torch.nn)).eval()
    other = pickle.loads(pickle.dumps(net))
    assert kinds(other) == kinds(net)
    assert torch.equal(other(X), net(X))


class Scaled(nn.BatchNorm2d):
    """A subclass that does more than its parent."""

    def forward(self, x):
        return 2 * super().forward(x)


def test_a_subclass_with_a_forward_of_its_own_stays_and_is_named():
    net = nn.Sequential(nn.Conv2d(3, C, 3), nn.Sequential(Scaled(C), nn.BatchNorm2d(C)))
    wanted = copy.deepcopy(net)(X)
    said = left_by(net)
    assert type(net[1][0]) is Scaled and type(net[1][1]) is ours.BatchNorm2d
    assert "1.0" in said and "Scaled" in said and "forward" in said
    assert "1.1" not in said
    assert_close(net(X), wanted, **CLOSE)


def test_a_lazy_layer_stays_and_is_named_until_it_knows_its_size():
    net = nn.Sequential(nn.Conv2d(3, C, 3), nn.LazyBatchNorm2d(), nn.BatchNorm2d(C))
    said = left_by(net)
    assert type(net[1]) is nn.LazyBatchNorm2d and type(net[2]) is ours.BatchNorm2d
    assert "1" in said and "LazyBatchNorm2d" in said and "batch" in said
    net(X)
    assert type(ours.convert(net)[1]) is ours.BatchNorm2d


@every_own
def test_a_layer_that_torch_has_not_stays_on_the_way_back_and_is_named(name):
    layer = build(name)
    net = nn.Sequential(nn.Linear(3, C), layer, ours.LayerNorm(6))
    ours.convert(net)
    said = left_by(net, to=torch.nn)
    assert net[1] is layer and type(layer) is getattr(ours, OWN[name][0])
    assert type(net[2]) is nn.LayerNorm
    assert "1" in said and OWN[name][0] in said and "torch.nn" in said


def test_sync_batch_norm_keeps_its_group():
    group = object()
    net = nn.Sequential(nn.SyncBatchNorm(C, process_group=group))
    assert type(ours.convert(net)[0]) is ours.SyncBatchNorm
    assert net[0].process_group is group
    assert type(ours.convert(net, to=torch.nn)[0]) is nn.SyncBatchNorm
    assert net[0].process_group is group


def test_layers_with_half_a_state_are_converted():
    layers = [
        nn.BatchNorm1d(C, affine=False),
        nn.BatchNorm1d(C, bias=False),
        nn.BatchNorm1d(C, track_running_stats=False),
        nn.BatchNorm1d(C, momentum=None, eps=0.5),
        nn.LayerNorm(C, bias=False),
        nn.LayerNorm(C, elementwise_affine=False),
        nn.RMSNorm(C, eps=0.1),
        nn.GroupNorm(2, C, affine=False),
    ]
    net, x = nn.Sequential(*layers), torch.randn(6, C)
    wanted, said = copy.deepcopy(net), [repr(layer) for layer in layers]
    ours.convert(net)
    assert all(type(layer).__module__.startswith("bnlib") for layer in net)
    assert [repr(layer) for layer in net] == said
    assert_close(net(x), wanted(x), **CLOSE)
    assert list(net.state_dict()) == list(wanted.state_dict())


def test_a_model_without_memory_or_values_is_converted():
    net = ours.convert(
        nn.Sequential(nn.BatchNorm1d(C, device="meta"), nn.LayerNorm(C).half())
    )
    assert net[0].weight.is_meta and net[1].weight.dtype is torch.float16
    assert type(net[0]) is ours.BatchNorm1d and type(net[1]) is ours.LayerNorm


@pytest.mark.filterwarnings("ignore:torch.ao.quantization is deprecated")
def test_what_goes_by_exact_type_works_after_the_way_back():
    net = nn.Sequential(nn.Conv2d(3, C, 3), nn.BatchNorm2d(C), nn.ReLU())
    net = shaken(net).eval()
    wanted = net(X)
    back = ours.convert(ours.convert(net), to=torch.nn)
    assert_close(fuse_modules(back, ["0", "1"])(X), wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("model", [nn.BatchNorm1d, [nn.BatchNorm1d(C)], None])
def test_what_is_no_model_is_named(model):
    with pytest.raises(TypeError, match=r"model must be .*Module, got"):
        ours.convert(model)


@pytest.mark.parametrize("to", ["torch.nn", torch, types.ModuleType("nn")])
def test_what_is_no_library_is_named(to):
    net = convnet(torch.nn)
    with pytest.raises((TypeError, ValueError), match=r"to must be .*torch\.nn.*got"):
        ours.convert(net, to=to)
    assert type(net[1]) is nn.BatchNorm2d
