"""The page on other frameworks: what can be run here is run, line by line."""

import inspect

import numpy as np
import onnx
import parity
import pytest
import torch
from onnx.reference import ReferenceEvaluator

import bnlib
import bnlib.nn

FACTS = {facts["name"]: facts for facts in parity.frameworks()}
X = np.random.default_rng(0).normal(2.0, 0.05, size=(4, 3, 2, 2)).astype(np.float32)


def onnx_step(x, mean, var, **attributes):
    """One training step of ONNX's reference implementation."""
    names = ["X", "scale", "B", "input_mean", "input_var"]
    node = onnx.helper.make_node(
        "BatchNormalization", names, ["Y", "m", "v"], training_mode=1, **attributes
    )
    types = [
        onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, None)
        for n in [*names, "Y", "m", "v"]
    ]
    graph = onnx.helper.make_graph([node], "step", types[:5], types[5:])
    model = onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid("", 15)]
    )
    ones = np.ones_like(mean)
    feed = dict(zip(names, [x, ones, 0 * ones, mean, var], strict=True))
    return ReferenceEvaluator(model).run(None, feed)


def torch_step(layer, x):
    y = layer.train()(torch.from_numpy(x))
    return [t.detach().numpy() for t in (y, layer.running_mean, layer.running_var)]


def step(name):
    """Output, running mean and running variance after one batch, from 0 and 1."""
    if name == "ONNX":
        c = np.zeros(3, np.float32)
        return onnx_step(X, c, c + 1)
    kind = bnlib.nn if name == "bnlib" else torch.nn
    return torch_step(kind.BatchNorm2d(3), X)


def defaults(name):
    if name == "ONNX":
        found = onnx.defs.get_schema("BatchNormalization", 15).attributes
        return {k: found[k].default_value.f for k in ("momentum", "epsilon")}
    layer = (bnlib.nn if name == "bnlib" else torch.nn).BatchNorm2d(3)
    return {"momentum": layer.momentum, "epsilon": layer.eps}


@pytest.mark.parametrize("name", [n for n, f in FACTS.items() if f["checked"] == "run"])
class TestRun:
    def test_defaults(self, name):
        found = defaults(name)
        assert found["momentum"] == pytest.approx(FACTS[name]["momentum"])
        assert found["epsilon"] == pytest.approx(FACTS[name]["eps"])

    def test_output_axis_and_place_of_eps(self, name):
        facts, (y, *_) = FACTS[name], step(name)
        axes = tuple({0, 1, 2, 3} - {facts["axis"]})
        mean = X.astype(float).mean(axis=axes, keepdims=True)
        ddof = {"biased": 0, "unbiased": 1}[facts["normalizes_with"]]
        var = X.astype(float).var(axis=axes, keepdims=True, ddof=ddof)
        inside = {"inside the root": True, "outside the root": False}
        eps = facts["eps"]
        places = {True: (var + eps) ** 0.5, False: var**0.5 + eps}
        want = {place: (X - mean) / std for place, std in places.items()}
        place = inside[facts["eps_place"]]
        assert np.abs(y - want[place]).max() < 5e-4
        # This batch, of small variance, tells the two apart.
        assert np.abs(want[True] - want[False]).max() > 2e-3

    def test_sense_of_momentum_and_stored_variance(self, name):
        facts, (_, mean, var) = FACTS[name], step(name)
        new = {"the new batch": facts["momentum"]}.get(
            facts["momentum_weighs"], 1 - facts["momentum"]
        )
        ddof = {"biased": 0, "unbiased": 1}[facts["stores"]]
        batch = X.astype(float).var(axis=(0, 2, 3), ddof=ddof)
        assert mean == pytest.approx(new * X.mean(axis=(0, 2, 3)), rel=1e-5)
        assert np.abs(var - ((1 - new) + new * batch)).max() < 2e-6
        other = X.astype(float).var(axis=(0, 2, 3), ddof=1 - ddof)
        assert new * np.abs(other - batch).min() > 4e-6

    def test_names(self, name):
        if name == "ONNX":
            schema = onnx.defs.get_schema("BatchNormalization", 15)
            known = {i.name for i in schema.inputs}
        else:
            layer = (bnlib.nn if name == "bnlib" else torch.nn).BatchNorm2d(3)
            known = set(layer.state_dict())
        for key in ("scale_and_shift", "statistics"):
            assert set(FACTS[name][key].split(", ")) <= known


def test_every_framework_answers_every_question():
    keys = set(parity.QUESTIONS.values())
    for facts in FACTS.values():
        assert keys <= set(facts)
        assert (facts["checked"] == "read") == ("source" in facts)
        if "source" in facts:  # at one commit, so that the answer stays there
            assert len(facts["source"].split("/blob/")[1].split("/")[0]) == 40


def test_numbers_of_the_prose():
    ratio = ((0.01 + 1e-5) / (0.01 + 1e-3)) ** 0.5
    assert 1 - ratio == pytest.approx(0.046, abs=5e-4)
    assert abs(32 / 31 - 1 - 0.03) < 3e-3
    assert 1 - FACTS["Keras 3"]["momentum"] == pytest.approx(0.01)


NORMS = [
    (n["what"], name, n[name]) for n in parity.norms() for name in n if name != "what"
]
RUN = [row for row in NORMS if "source" not in row[2] and row[2]["name"] != "none"]
LIBRARIES = {"bnlib": bnlib, "PyTorch": torch}
SMALL = torch.tensor(
    [[[1.0, -1.0, 2.0, -3.0, 4.0, 5.0], [3.0, 1.0, -2.0, 0.5, -4.0, 1.5]]]
)


def looked_up(framework, name):
    found = LIBRARIES[framework]
    for part in name.split("."):
        found = getattr(found, part)
    return found


def kind(row):
    return f"{row[0]}: {row[1]}"


def outcome(framework, what, name, x):
    """What a norm makes of x (1, 2, 6), by its default eps."""
    found = looked_up(framework, name)
    if "group" in what:
        return found(1, 2)(x)
    if name == "nn.functional.rms_norm":
        return found(x, (6,))
    if not isinstance(found, type):
        return found(x, axes=(-1,))[0]
    return found(6, dtype=x.dtype)(x)


@pytest.mark.parametrize("row", [r for r in RUN if r[1] != "ONNX"], ids=kind)
def test_default_eps_is_where_the_table_says(row):
    _, framework, facts = row
    found = looked_up(framework, facts["name"])
    defaults = inspect.signature(found).parameters
    said = facts.get("eps")
    assert ("eps" in defaults) == (said is not None)
    if said is not None:
        default = defaults["eps"].default
        assert default == (None if said == "of the dtype" else said)


AVERAGING = "layer norm", "RMS norm, the layer", "RMS norm, the function", "group norm"
COMPUTED = [row for row in RUN if row[1] != "ONNX" and row[0] in AVERAGING]


@pytest.mark.parametrize("row", COMPUTED, ids=kind)
def test_norms_compute_with_that_eps(row):
    what, framework, facts = row
    x = 1e-3 * SMALL.double()
    y = outcome(framework, what, facts["name"], x.float()).detach().double()
    eps = (
        torch.finfo(torch.float32).eps
        if facts["eps"] == "of the dtype"
        else facts["eps"]
    )
    axes = (1, 2) if what == "group norm" else (2,)
    mean = 0 if "RMS" in what else x.mean(axes, keepdim=True)
    var = ((x - mean) ** 2).mean(axes, keepdim=True)
    want, without = ((x - mean) / (var + e) ** 0.5 for e in (eps, 0.0))
    assert (y - want).abs().max() < 1e-4 < (want - without).abs().max()


@pytest.mark.parametrize("row", [r for r in RUN if r[1] == "ONNX"], ids=kind)
def test_default_eps_of_onnx(row):
    found = onnx.defs.get_schema(row[2]["name"], 23).attributes["epsilon"]
    assert found.default_value.f == pytest.approx(row[2]["eps"])


def test_what_pytorch_does_not_have():
    here = {
        n.lower()
        for m in (torch.nn, torch.nn.functional, torch.nn.utils)
        for n in dir(m)
    }
    absent = {what for what, name, facts in NORMS if facts["name"] == "none"}
    assert {name for _, name, facts in NORMS if facts["name"] == "none"} == {"PyTorch"}
    words = (
        "adaptiveinstance",
        "adaptive_instance",
        "tanhnorm",
        "dynamic_tanh",
        "dynamictanh",
    )
    words += "standardiz", "wsconv", "stdconv"
    assert absent and not [n for n in here for word in words if word in n]


@pytest.mark.parametrize(
    "dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64]
)
@pytest.mark.parametrize("framework", LIBRARIES)
def test_eps_of_rms_norm_follows_the_dtype_down_to_float32(framework, dtype):
    x = (1e-3 * SMALL).to(dtype)
    y = outcome(framework, "RMS norm", "nn.RMSNorm", x).detach().double()
    eps = torch.finfo(torch.float64 if dtype == torch.float64 else torch.float32).eps
    square = (x.double() ** 2).mean(-1, keepdim=True)
    digits = torch.finfo(dtype).eps
    assert (y - x.double() / (square + eps) ** 0.5).abs().max() < 4 * max(digits, 1e-9)
    if dtype.itemsize == 2:  # its own would show
        own = x.double() / (square + digits) ** 0.5
        assert (y - own).abs().max() > 0.1


def test_weight_norm_starts_where_the_weights_are():
    layer = torch.nn.Linear(3, 4)
    before = layer.weight.detach().clone()
    wrapped = torch.nn.utils.parametrizations.weight_norm(layer)
    assert (wrapped.weight - before).abs().max() < 1e-6
    length = wrapped.parametrizations.weight.original0.flatten()
    assert torch.allclose(length, before.norm(dim=1))
    y, _ = bnlib.weight_norm(before, before.norm(dim=1))
    assert (y - before).abs().max() < 1e-6


@pytest.mark.parametrize("gamma", [None, 1.0])
def test_standardized_convolutions_have_the_state_of_timms(gamma):
    layer = bnlib.nn.WSConv2d(3, 4, 3, gamma=gamma)
    assert set(layer.state_dict()) == {"weight", "bias"} | (
        {"gain"} if gamma else set()
    )
    weight = layer.weight.detach()
    like = torch.nn.functional.batch_norm(
        weight.reshape(1, 4, -1), None, None, training=True, momentum=0.0, eps=1e-6,
        weight=torch.full((4,), (gamma or 0) * 27**-0.5) if gamma else None,
    )  # fmt: skip
    assert torch.allclose(layer.standardized(), like.reshape_as(weight), atol=1e-5)
    assert isinstance(layer, torch.nn.Conv2d)


def test_what_has_no_twin_stays():
    kinds = bnlib.nn.DynamicTanh(6), bnlib.nn.WSConv2d(3, 4, 3)
    kinds += bnlib.nn.DecorrelatedBatchNorm(4), bnlib.nn.BatchRenorm2d(4)
    model = torch.nn.Sequential(*kinds)
    with pytest.warns(UserWarning, match="DecorrelatedBatchNorm.*BatchRenorm2d"):
        bnlib.nn.convert(model, to=torch.nn)
    assert [type(m) for m in model] == [type(m) for m in kinds]
    assert all(type(m).__module__.startswith("bnlib") for m in model)


def test_sizes_of_the_prose_on_rms_norm():
    sizes = {eps: (1e-6 / (1e-6 + eps)) ** 0.5 for eps in (1.2e-7, 1e-6, 1e-5)}
    assert 1 - sizes[1.2e-7] == pytest.approx(0.055, abs=0.005)
    assert 1 - sizes[1e-6] == pytest.approx(0.29, abs=0.005) and sizes[1e-5] < 1 / 3


def test_the_page_has_both_tables():
    page = (parity.FACTS.parent / "parity.md").read_text(encoding="utf-8")
    filled = parity.fill(page)
    assert parity.MARK not in filled and parity.OTHERS not in filled
    for what, _, facts in NORMS:
        assert what in filled and facts["name"] in filled
        if "source" in facts:
            assert len(facts["source"].split("/blob/")[1].split("/")[0]) == 40
            assert facts["source"] in filled
