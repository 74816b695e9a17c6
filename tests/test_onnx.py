"""The array functions against the conformance cases of ONNX's BatchNormalization.

Two conventions differ. ONNX's momentum is the weight of the OLD value, ours that of the
new batch. And its training mode stores the BIASED variance, ours the unbiased one.
"""

import numpy as np
import onnx.backend.test.case.node as onnx_cases
import onnx.backend.test.case.node.batch_normalization  # noqa: F401  registers its cases
import pytest
from onnx.helper import get_node_attr_value

from bnlib.batch_normalization import batch_norm
from bnlib.inference import batch_norm_inference, update_running

# `collect_testcases`, the public way, would run the cases of every operator first.
CASES = {
    case.name: case
    for case in onnx_cases._NodeTestCases
    if case.model.graph.node[0].op_type == "BatchNormalization"
}


def attributes(node):
    """The node's attributes, with the defaults of the operator's specification."""
    given = {a.name: get_node_attr_value(node, a.name) for a in node.attribute}
    assert set(given) <= {"epsilon", "momentum", "training_mode"}
    return {"epsilon": 1e-5, "momentum": 0.9, "training_mode": 0} | given


def in_training(x, gamma, beta, mean, var, eps, onnx_momentum):
    """ONNX's training mode, said with our functions."""
    y, _ = batch_norm(x, gamma, beta, eps=eps)
    new_mean, new_var = update_running(mean, var, x, momentum=1 - onnx_momentum)
    m = x.size / x.shape[1]
    kept = onnx_momentum * var
    biased = kept + (new_var - kept) * (m - 1) / m
    return y, new_mean, biased


def test_all_cases_are_here():
    modes = [attributes(c.model.graph.node[0])["training_mode"] for c in CASES.values()]
    assert len(CASES) >= 4 and set(modes) == {0, 1}


@pytest.mark.parametrize("name", CASES)
def test_case(name):
    case = CASES[name]
    given = attributes(case.model.graph.node[0])
    for inputs, outputs in case.data_sets:
        eps = given["epsilon"]
        if given["training_mode"]:
            answers = in_training(*inputs, eps, given["momentum"])
        else:
            answers = (batch_norm_inference(*inputs, eps=eps),)
        for answer, wanted in zip(answers, outputs, strict=True):
            assert answer.dtype == wanted.dtype and answer.shape == wanted.shape
            np.testing.assert_allclose(answer, wanted, rtol=1e-5, atol=1e-5)
            assert case.rtol >= 1e-5  # ours is the stricter test
