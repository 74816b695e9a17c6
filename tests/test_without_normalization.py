"""Normalized weights: arrays, PyTorch's and timm's definitions, the layer."""

import copy
import inspect
import pickle

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from test_experiments import check_provenance, check_script, load, options_for
from torch import nn
from torch.nn.utils.parametrizations import weight_norm as parametrized
from torch.testing import assert_close

import bnlib
from bnlib import gradcheck
from bnlib.nn import WSConv2d
from experiments import without_normalization as deep
from experiments.provenance import RESULTS

SHAPES = [(4, 3), (1, 5), (3, 2, 4), (4, 3, 2, 5), (2, 1, 2, 2, 3)]
PAIRS = {
    "weight_norm": (bnlib.weight_norm, bnlib.weight_norm_backward),
    "weight_standardize": (
        bnlib.weight_standardize,
        bnlib.weight_standardize_backward,
    ),
}
every_pair = pytest.mark.parametrize("name", PAIRS)
every_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)


def problem(shape, seed=0):
    """Weights, a gain of every unit (one is negative), a gradient."""
    rng = np.random.default_rng(seed)
    gain = rng.uniform(0.5, 2, shape[0])
    gain[-1] *= -1
    return rng.normal(0.3, 1, shape), gain, rng.normal(size=shape)


def by_torch(name, weight, gain, eps=1e-6):
    """The same by what PyTorch has, for tensors."""
    if name == "weight_norm":
        return torch._weight_norm(weight, gain.view(-1, *[1] * (weight.ndim - 1)), 0)
    rows = weight.reshape(1, len(weight), -1)  # as timm's StdConv2d
    y = F.batch_norm(rows, None, None, gain, training=True, eps=eps)
    return y.reshape(weight.shape)


@every_shape
@every_pair
def test_arrays_tensors_and_pytorch_agree(name, shape):
    forward, backward = PAIRS[name]
    weight, gain, dy = problem(shape)
    y, cache = forward(weight, gain)
    leaves = [torch.tensor(a, requires_grad=True) for a in (weight, gain)]
    theirs = by_torch(name, *leaves)
    theirs.backward(torch.tensor(dy))
    y_t, cache_t = forward(torch.tensor(weight), torch.tensor(gain))
    for out in (y, y_t):
        np.testing.assert_allclose(out, theirs.detach(), rtol=1e-11, atol=1e-12)
    for found in (backward(dy, cache), backward(torch.tensor(dy), cache_t)):
        for ours, leaf in zip(found, leaves, strict=True):
            np.testing.assert_allclose(ours, leaf.grad, rtol=1e-9, atol=1e-11)
    errors = gradcheck(
        lambda *a: forward(*a)[0],
        lambda dy, *a: backward(dy, forward(*a)[1]),
        weight,
        gain,
    )
    assert max(errors) < 1e-6
    plain, _ = forward(weight)
    np.testing.assert_allclose(plain, forward(weight, gain * 0 + 1)[0], rtol=1e-14)


@every_pair
def test_autograd_follows_the_formula_twice(name):
    forward, backward = PAIRS[name]
    weight, gain, dy = (torch.tensor(a).requires_grad_() for a in problem((3, 2, 2)))
    assert torch.autograd.gradcheck(lambda *a: forward(*a)[0], (weight, gain))
    assert torch.autograd.gradgradcheck(lambda *a: forward(*a)[0], (weight, gain))
    assert torch.autograd.gradcheck(
        lambda dy, *a: backward(dy, forward(*a)[1]), (dy, weight, gain)
    )


@every_pair
def test_what_weights_cannot_be_seen(name):
    forward, backward = PAIRS[name]
    weight, gain, dy = problem((4, 3, 2))
    options = {} if name == "weight_norm" else {"eps": 0}
    y, cache = forward(weight, gain, **options)
    np.testing.assert_allclose(forward(7 * weight, gain, **options)[0], y, rtol=1e-12)
    found, _ = backward(dy, cache)
    assert abs((found * weight).sum(axis=(1, 2))).max() < 1e-14
    moved = forward(weight + 5, gain, **options)[0]
    sums = abs(found.sum(axis=(1, 2))).max()
    if name == "weight_norm":
        np.testing.assert_allclose(np.linalg.norm(y.reshape(4, -1), axis=1), abs(gain))
        assert abs(moved - y).max() > 0.1 and sums > 0.1
    else:
        np.testing.assert_allclose(moved, y, atol=1e-12)
        assert sums < 1e-14 and abs(y.sum(axis=(1, 2))).max() < 1e-13


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@every_pair
def test_half_precision_is_summed_wider(name, dtype):
    forward, backward = PAIRS[name]
    weight, gain, dy = (torch.tensor(a).to(dtype) for a in problem((4, 30, 3)))
    weight = weight * 300  # squares overflow float16
    y, cache = forward(weight, gain)
    found = y, *backward(dy, cache)
    exact, cache = forward(weight.double(), gain.double())
    wanted = exact, *backward(dy.double(), cache)
    for ours, right in zip(found, wanted, strict=True):
        assert ours.dtype == dtype
        error = (ours.double() - right).abs().max()
        assert error <= 2 * torch.finfo(dtype).eps * right.abs().max()


BAD = {
    "one axis": (ValueError, r"v must have shape \(O, I", "weight_norm", np.ones(3)),
    "zero": (ValueError, "no direction; draw it anew", "weight_norm", np.zeros((2, 3))),
    "zero, float32": (
        ValueError,
        "no direction",
        "weight_norm",
        torch.zeros(2, 3),
    ),
    "too long": (
        ValueError,
        "length of v overflows float64; convert v",
        "weight_norm",
        np.full((2, 3), 1e200),
    ),
    "integers": (TypeError, "v must hold", "weight_norm", np.ones((2, 3), int)),
    "nan": (
        ValueError,
        "must be finite",
        "weight_standardize",
        np.full((2, 3), np.nan),
    ),
    "a list": (TypeError, "weight must be a numpy", "weight_standardize", [[1.0]]),
}


@pytest.mark.filterwarnings("ignore:overflow")
@pytest.mark.parametrize(("error", "word", "name", "x"), BAD.values(), ids=BAD)
def test_bad_input(error, word, name, x):
    with pytest.raises(error, match=word):
        PAIRS[name][0](x)


def test_bad_gains_and_eps():
    weight, gain, _ = problem((4, 3))
    for name, of in (("weight_norm", "g"), ("weight_standardize", "gain")):
        with pytest.raises(ValueError, match=rf"{of} must have shape \(4,\)"):
            PAIRS[name][0](weight, gain[:3])
        with pytest.raises(TypeError, match="float32"):
            PAIRS[name][0](weight, gain.astype(np.float32))
    with pytest.raises(ValueError, match="eps must be a finite number"):
        bnlib.weight_standardize(weight, eps=-1)
    with pytest.raises(ValueError, match="does not vary and eps is 0"):
        bnlib.weight_standardize(np.ones((2, 3)), eps=0)
    assert not bnlib.weight_standardize(np.ones((2, 3)))[0].any()


def test_the_parametrization_of_torch():
    torch.manual_seed(0)
    layer = parametrized(nn.Conv2d(3, 4, 2))
    g, v = (p.detach() for p in layer.parametrizations.weight.parameters())
    assert_close(bnlib.weight_norm(v, g.flatten())[0], layer.weight.detach())


# --- the layer ------------------------------------------------------------------------

ARGUMENTS = {
    "plain": ((3, 4, 3), {}),
    "everything": (
        (4, 6, (3, 2)),
        {
            "stride": (2, 1),
            "padding": 1,
            "dilation": 2,
            "groups": 2,
            "bias": False,
            "padding_mode": "reflect",
        },
    ),
    "by name": ((), {"in_channels": 2, "out_channels": 4, "kernel_size": 1}),
}
every_layer = pytest.mark.parametrize(("args", "options"), ARGUMENTS.values())
gamma_or_not = pytest.mark.parametrize("gamma", [None, 1.7])


def standardized(layer):
    """timm's StdConv2d, and ScaledStdConv2d with gamma."""
    fan_in = layer.weight[0].numel()
    gain = layer.weight.new_ones(len(layer.weight))
    if layer.gamma is not None:
        gain = layer.gain.flatten() * layer.gamma * fan_in**-0.5
    return by_torch("weight_standardize", layer.weight, gain, layer.eps)


@every_layer
@gamma_or_not
def test_the_layer_is_timms(args, options, gamma):
    torch.manual_seed(0)
    theirs = nn.Conv2d(*args, **options).double()
    torch.manual_seed(0)
    layer = WSConv2d(*args, **options, gamma=gamma).double()
    assert list(layer.state_dict()) == list(theirs.state_dict()) + ["gain"] * bool(
        gamma
    )
    assert torch.equal(layer.weight, theirs.weight)
    x = torch.randn(2, layer.in_channels, 7, 8).double().requires_grad_()
    parameters = [x, *layer.parameters()]
    y = layer(x)
    wanted = theirs._conv_forward(x, standardized(layer), layer.bias)
    assert_close(y, wanted, rtol=1e-9, atol=1e-9)
    pull = torch.randn_like(y)
    found, right = (torch.autograd.grad(out, parameters, pull) for out in (y, wanted))
    assert_close(found, right, rtol=1e-8, atol=1e-8)
    with torch.no_grad():  # used as a plain convolution, the weights are those
        theirs.weight.copy_(layer.standardized())
        if theirs.bias is not None:
            theirs.bias.copy_(layer.bias)
    assert_close(theirs(x), y)


@gamma_or_not
def test_derivatives_of_the_layer(gamma):
    torch.manual_seed(0)
    layer = WSConv2d(2, 3, 2, gamma=gamma).double()
    leaves = [p.detach().clone().requires_grad_() for p in layer.parameters()]
    names = [name for name, _ in layer.named_parameters()]

    def run(x, *values):
        given = dict(zip(names, values, strict=True))
        return torch.func.functional_call(layer, given, (x,))

    x = torch.randn(2, 2, 3, 3).double().requires_grad_()
    assert torch.autograd.gradcheck(run, (x, *leaves))
    assert torch.autograd.gradgradcheck(run, (x, *leaves))


@pytest.mark.filterwarnings("ignore:.*deprecated")
@gamma_or_not
def test_under_tracers_it_is_torchs_layer_norm(gamma):
    torch.manual_seed(0)
    layer, x = WSConv2d(2, 3, 2, gamma=gamma), torch.randn(2, 2, 5, 5)
    wanted = layer(x)
    exported = torch.export.export(layer, (x,))
    called = {str(node.target) for node in exported.graph.nodes}
    assert "aten.layer_norm.default" in called and "aten.conv2d.default" in called
    recorded = torch.jit.trace(layer, x)
    assert "aten::layer_norm" in str(recorded.inlined_graph)
    compiled = torch.compile(layer, backend="eager", fullgraph=True)
    for other in (exported.module(), recorded, compiled):
        assert_close(other(x), wanted)
    graph = torch.fx.symbolic_trace(nn.Sequential(layer, nn.ReLU()))
    assert [n.op for n in graph.graph.nodes].count("call_module") == 2


def test_the_layer_among_others():
    torch.manual_seed(0)
    layer, x = WSConv2d(2, 3, 2, gamma=1.7), torch.randn(2, 2, 5, 5)
    for same in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(same(x), layer(x))
    ours, theirs = (
        inspect.signature(kind).parameters for kind in (WSConv2d, nn.Conv2d)
    )
    assert [*ours] == [*theirs, "gamma", "eps"]
    assert all(ours[name].default == theirs[name].default for name in theirs)
    for dtype in (torch.float16, torch.bfloat16):
        with torch.autocast("cpu", dtype):
            assert layer(x).dtype == dtype
        half = copy.deepcopy(layer).to(dtype)
        assert_close(
            half.standardized().float(), layer.standardized(), atol=0.01, rtol=0.02
        )
    assert WSConv2d(2, 3, 2, device="meta", gamma=1.0)(x.to("meta")).is_meta
    assert (
        repr(layer)
        == "WSConv2d(2, 3, kernel_size=(2, 2), stride=(1, 1), gamma=1.7, eps=1e-06)"
    )
    with pytest.raises(RuntimeError, match="expected input"):
        layer(torch.randn(2, 4, 5, 5))


# --- the long runs --------------------------------------------------------------------


@pytest.fixture
def one_thread():
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def check_results(result, seeds):
    """Every best rate is that of its losses, and nothing is missing."""
    config = result["provenance"]["config"]
    parts = {
        "depth": (config["networks"], config["layers"], config["lrs"]),
        "clip": (config["clipped"], config["clips"], config["lrs"]),
        "micro": (config["norms"], config["micro_batches"], config["micro_lrs"]),
    }
    for part, (whom, what, lrs) in parts.items():
        assert set(result[part]) == {f"{a} {b}" for a in whom for b in what}
        for found in result[part].values():
            loss = np.array(found["loss"], dtype=float)
            assert loss.shape == (len(seeds), len(lrs))
            mean = loss.mean(axis=0)
            if np.isnan(mean).all():
                assert found["best"] == {"lr": None}
                continue
            assert found["best"]["lr"] == lrs[np.nanargmin(mean)]
            least = pytest.approx(np.nanmin(mean), rel=1e-3)
            assert found["best"]["loss"]["mean"] == least
            low = [lr for lr, m in zip(lrs, mean, strict=True) if m < 0.1]
            assert found["best"]["largest"] == max(low, default=None)


def test_recorded():
    result = load(RESULTS / "without_normalization.json")
    check_results(result, [0, 1, 2])
    check_script(result, deep, steps=300)


def test_script(tmp_path, monkeypatch, one_thread):
    small = {"lrs": [0.01, 1.0], "layers": [4], "clipped_layers": 6}
    monkeypatch.setattr(deep, "CONFIG", {**deep.CONFIG, **small})
    deep.main(["--seeds", "7", "--steps", "4", *options_for(tmp_path, "new.json")])
    result = load(tmp_path / "new.json")
    check_provenance(result)
    check_results(result, [7])


@pytest.mark.parametrize("network", deep.NETWORKS)
def test_what_a_network_begins_with(network):
    torch.manual_seed(0)
    p = deep.drawn(network, 10, 2)
    (x, _), _ = deep.load()
    h = x[None, :200] @ p["first"]
    size = (h**2).mean()
    for k in range(10):
        z = deep.branch(p, k, h, network, 10)
        h = z if network.startswith("chain") else h + z
    grown = ((h**2).mean() / size).item()
    if network in ("gain", "fixup"):
        assert grown == 1
    elif network == "plain":
        assert 300 < grown < 3000  # 2^10
    elif network == "constant":
        assert 2 < grown < 3.2  # 1.1^10
    elif network == "batch_norm":
        assert (grown - 1) * size == pytest.approx(10, rel=0.2)
    same = [p_.shape[0] == 2 and torch.equal(p_[0], p_[1]) for p_ in p.values()]
    assert all(same)


@pytest.mark.parametrize("clip", deep.CLIPS)
def test_clipped_gradients(clip):
    torch.manual_seed(0)
    p = deep.drawn("gain", 2, 3)
    gradients = [torch.randn_like(v) * 10 for v in p.values()]
    found = deep.clipped(p, gradients, clip)
    how, _, limit = clip.partition(" ")
    for (name, v), before, after in zip(p.items(), gradients, found, strict=True):
        same = torch.nn.functional.cosine_similarity(before, after, dim=1)
        assert (same > 0).all()
        if how == "none" or (how == "unit" and name.endswith("last")):
            assert torch.equal(before, after)
        elif how == "unit":
            axis = 2 if name[0] in "bga" else 1
            most = float(limit) * v.norm(dim=axis).clamp(min=1e-3)
            assert_close(after.norm(dim=axis), most)
    if how == "all":
        length = sum((d**2).sum((1, 2)) for d in found) ** 0.5
        assert_close(length, torch.full((3,), float(limit)))


@pytest.mark.parametrize("gamma", [None, 1.7])
@pytest.mark.filterwarnings("ignore:fold_model")
def test_a_norm_behind_standardized_weights_is_not_folded_into_them(gamma):
    """They would be standardized again, and the norm's scale be gone."""
    model = nn.Sequential(WSConv2d(3, 4, 3, gamma=gamma), nn.BatchNorm2d(4))
    x = torch.randn(8, 3, 6, 6)
    model(x)
    nn.init.uniform_(model[1].weight, 2, 3)
    folded = bnlib.fold_model(model.eval())
    assert torch.equal(folded(x), model(x)) and type(folded[1]) is nn.BatchNorm2d
