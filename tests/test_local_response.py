"""Local response normalization: arrays, ONNX's samples, errors. Layer: test_nn.py."""

import numpy as np
import onnx.backend.test.case.node as onnx_cases
import onnx.backend.test.case.node.lrn  # noqa: F401  registers its cases
import pytest
import torch
import torch.nn.functional as F
from onnx.helper import get_node_attr_value

import bnlib
from bnlib import gradcheck
from bnlib.nn import LocalResponseNorm
from bnlib.nn.functional import local_response_norm as functional

CASES = {
    case.name: case
    for case in onnx_cases._NodeTestCases
    if case.model.graph.node[0].op_type == "LRN"
}
assert len(CASES) >= 2
SIZES = [1, 2, 3, 4, 5, 8, 30]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("shape", [(2, 6, 3), (2, 1, 3, 2), (3, 5, 2, 1, 2)], ids=str)
def test_arrays_tensors_and_pytorch_agree(size, shape):
    rng = np.random.default_rng(0)
    x, dy = rng.normal(size=shape), rng.normal(size=shape)
    given = {"alpha": 0.7, "beta": 0.6, "k": 1.5}
    y, cache = bnlib.local_response_norm(x, size=size, **given)
    dx = bnlib.local_response_norm_backward(dy, cache)
    leaf = torch.tensor(x, requires_grad=True)
    theirs = F.local_response_norm(leaf, size, **given)
    theirs.backward(torch.tensor(dy))
    np.testing.assert_allclose(y, theirs.detach(), rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(dx, leaf.grad, rtol=1e-12, atol=1e-13)
    y_t, cache = bnlib.local_response_norm(torch.tensor(x), size=size, **given)
    np.testing.assert_allclose(y_t, y, rtol=1e-14)
    dx_t = bnlib.local_response_norm_backward(torch.tensor(dy), cache)
    np.testing.assert_allclose(dx_t, dx, rtol=1e-12, atol=1e-14)
    errors = gradcheck(
        lambda x: bnlib.local_response_norm(x, size=size, **given)[0],
        lambda dy, x: bnlib.local_response_norm_backward(
            dy, bnlib.local_response_norm(x, size=size, **given)[1]
        ),
        x,
    )
    assert max(errors) < 1e-7


@pytest.mark.parametrize("name", CASES)
def test_onnx_case(name):
    """ONNX's window of an even size leans the other way; its cases have odd sizes."""
    case = CASES[name]
    node = case.model.graph.node[0]
    given = {a.name: get_node_attr_value(node, a.name) for a in node.attribute}
    assert given["size"] % 2
    for inputs, outputs in case.data_sets:
        y, _ = bnlib.local_response_norm(
            *inputs,
            size=given["size"],
            alpha=given.get("alpha", 1e-4),
            beta=given.get("beta", 0.75),
            k=given.get("bias", 1.0),
        )
        assert y.dtype == outputs[0].dtype
        np.testing.assert_allclose(y, outputs[0], rtol=1e-5, atol=1e-6)


X = np.random.default_rng(0).normal(size=(2, 5, 3))
BAD = {
    "two axes": (ValueError, "x must have shape", (X[0],), {"size": 3}),
    "size zero": (ValueError, "size must be", (X,), {"size": 0}),
    "size 2.5": (ValueError, "size must be", (X,), {"size": 2.5}),
    "size true": (ValueError, "size must be", (X,), {"size": True}),
    "zero": (ValueError, "pass a positive k", (0 * X,), {"size": 3, "k": 0}),
    "overflow": (
        ValueError,
        "scale x down",
        (1e200 * X,),
        {"size": 3},
    ),
}


@pytest.mark.filterwarnings("ignore:overflow")
@pytest.mark.parametrize(("error", "word", "args", "kwargs"), BAD.values(), ids=BAD)
def test_bad_input(error, word, args, kwargs):
    with pytest.raises(error, match=word):
        bnlib.local_response_norm(*args, **kwargs)


def test_bad_input_of_the_layer():
    for function in (functional, F.local_response_norm):
        with pytest.raises(ValueError, match="Expected 3D or higher"):
            function(torch.ones(2, 3), 3)
    for size in (0, 2.5, "5", True):
        with pytest.raises(ValueError, match="size must be a whole number"):
            functional(torch.ones(2, 3, 1), size)
    for x in (torch.ones(2, 3, 1, dtype=int), np.ones((2, 3, 1))):
        with pytest.raises(TypeError, match="must be a floating-point tensor, got"):
            LocalResponseNorm(3)(x)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_is_summed_in_float32(dtype):
    x = (1e3 * torch.tensor(X)).to(dtype)  # the squares overflow float16
    options = {"size": 3, "alpha": 1e-4}
    y, cache = bnlib.local_response_norm(x, **options)
    dx = bnlib.local_response_norm_backward(x, cache)
    layer = functional(x, **options)
    wanted, cache = bnlib.local_response_norm(x.double(), **options)
    slope = bnlib.local_response_norm_backward(x.double(), cache)
    step = torch.finfo(dtype).eps
    for ours, exact in ((y, wanted), (layer, wanted), (dx, slope)):
        assert ours.dtype == dtype
        assert (ours.double() - exact).abs().max() <= step * exact.abs().max()
