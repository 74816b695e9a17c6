"""The page on other frameworks: what can be run here is run, line by line."""

import numpy as np
import onnx
import parity
import pytest
import torch
from onnx.reference import ReferenceEvaluator

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
