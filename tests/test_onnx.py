"""The array functions against the conformance cases of ONNX's normalizations.

Two conventions of batch norm differ. ONNX's momentum is the weight of the OLD value,
ours that of the new batch. And its training mode stores the BIASED variance, ours the
unbiased one. For the others: ONNX gives the first of the axes to normalize, ours all.
"""

from collections import Counter

import numpy as np
import onnx.backend.test.case.node as onnx_cases
import onnx.backend.test.case.node.batch_normalization  # each registers its cases
import onnx.backend.test.case.node.groupnormalization
import onnx.backend.test.case.node.instance_normalization
import onnx.backend.test.case.node.layernormalization
import onnx.backend.test.case.node.meanvariancenormalization
import onnx.backend.test.case.node.rmsnormalization  # noqa: F401
import pytest
from onnx.helper import get_node_attr_value

from bnlib import (
    batch_norm,
    batch_norm_inference,
    group_norm,
    instance_norm,
    layer_norm,
    rms_norm,
    update_running,
)


def batch_normalization(
    x, gamma, beta, mean, var, *, epsilon=1e-5, momentum=0.9, training_mode=0
):
    if not training_mode:
        return (batch_norm_inference(x, gamma, beta, mean, var, eps=epsilon),)
    y, _ = batch_norm(x, gamma, beta, eps=epsilon)
    new_mean, new_var = update_running(mean, var, x, momentum=1 - momentum)
    m, kept = x.size / x.shape[1], momentum * var
    return y, new_mean, kept + (new_var - kept) * (m - 1) / m


def from_axis(x, axis):
    return tuple(range(axis % x.ndim, x.ndim))


def layer_normalization(x, gamma, beta, *, axis=-1, epsilon=1e-5):
    y, cache = layer_norm(x, gamma, beta, axes=from_axis(x, axis), eps=epsilon)
    # ONNX returns the mean and 1 / std as well, in float32.
    return y, *(a.astype("float32") for a in (cache[1], 1 / cache[2]))


def rms_normalization(x, gamma, *, axis=-1, epsilon=1e-5):
    return (rms_norm(x, gamma, axes=from_axis(x, axis), eps=epsilon)[0],)


def group_normalization(x, gamma, beta, *, num_groups, epsilon=1e-5):
    return (group_norm(x, gamma, beta, num_groups=num_groups, eps=epsilon)[0],)


def instance_normalization(x, gamma, beta, *, epsilon=1e-5):
    return (instance_norm(x, gamma, beta, eps=epsilon)[0],)


def mean_variance_normalization(x, *, axes=(0, 2, 3)):
    # eps is 1e-9 and added to the root: next to a variance of order one, nothing.
    return (layer_norm(x, axes=tuple(axes), eps=0)[0],)


SAID_WITH_OURS = {
    "BatchNormalization": batch_normalization,
    "LayerNormalization": layer_normalization,
    "RMSNormalization": rms_normalization,
    "GroupNormalization": group_normalization,
    "InstanceNormalization": instance_normalization,
    "MeanVarianceNormalization": mean_variance_normalization,
}

# Cases that have one node of a type that we say too. `collect_testcases`, the public
# way, would run the cases of every operator first.
CASES = {
    case.name: case
    for case in onnx_cases._NodeTestCases
    if len(case.model.graph.node) == 1
    and case.model.graph.node[0].op_type in SAID_WITH_OURS
}


def test_all_cases_are_here():
    found = Counter(c.model.graph.node[0].op_type for c in CASES.values())
    assert found["BatchNormalization"] >= 4 and found["LayerNormalization"] >= 19
    assert found["RMSNormalization"] >= 19 and len(found) == len(SAID_WITH_OURS)


@pytest.mark.parametrize("name", CASES)
def test_case(name):
    case = CASES[name]
    node = case.model.graph.node[0]
    given = {a.name: get_node_attr_value(node, a.name) for a in node.attribute}
    for inputs, outputs in case.data_sets:
        answers = SAID_WITH_OURS[node.op_type](*inputs, **given)
        for answer, wanted in zip(answers, outputs, strict=True):
            assert answer.dtype == wanted.dtype and answer.shape == wanted.shape
            np.testing.assert_allclose(answer, wanted, rtol=1e-5, atol=1e-5)
            assert case.rtol >= 1e-5  # ours is the stricter test
