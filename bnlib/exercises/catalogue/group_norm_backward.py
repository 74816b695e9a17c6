"""From chapters/14_other_axes.ipynb.

Extracted by `make export`: edit the notebook, not this file.
"""

import numpy as np

import bnlib
from bnlib.exercises._cases import (
    DBETA_IS_THE_SUM,
    Case,
    Property,
    same_slope,
)
from bnlib.exercises._exercise import Exercise
from bnlib.exercises.catalogue.group_norm import FOUR, group_cases


def _group_backward_cases():
    unlike = {**FOUR, "gamma": np.array([1.0, 3.0, 1.0, 1.0])}
    unlike = Case("gamma differs in a group", unlike)
    tiny, wide = [[[[1]], [[3]], [[1]], [[3]]]], [[[[1]], [[3]], [[1]], [[7]]]]
    yield from group_cases(tiny, wide, unlike, gamma=2, eps=3)


def _sums_of_groups(args, out):
    sums = out["dx"].reshape(len(out["dx"]), args["num_groups"], -1).sum(axis=2)
    return sums, 0 * sums


def _interleaved(array):
    """The same reshape to groups, of every second (third ...) channel."""
    return (
        f"{array} = {array}.reshape(len(x), -1, num_groups, *shape[2:]).swapaxes(1, 2)"
        ".reshape(len(x), num_groups, -1)"
    )


def _back(array):
    return (
        f"{array} = {array}.reshape(len(x), num_groups, -1, *shape[2:]).swapaxes(1, 2)"
        ".reshape(shape)"
    )


_about = {
    "reference": lambda dy, x, gamma, num_groups, eps: bnlib.group_norm_backward(
        dy, bnlib.group_norm(x, gamma, num_groups=num_groups, eps=eps)[1]
    ),
    "inputs": _group_backward_cases,
    "properties": (
        Property(
            "dx should sum to 0 over each group of each image: adding a constant to "
            "the group changes no output",
            _sums_of_groups,
        ),
        DBETA_IS_THE_SUM,
        same_slope(bnlib.group_norm, "num_groups"),
    ),
    "wrong_lines": {
        "axes = 2": {
            "wrong-axis": "axes = (0, 1)",
            "batch-in-statistics": "axes = (0, 2)",
            "batch-norm-instead": "axes = (0, 2)",
        },
        "x = x.reshape(len(x), num_groups, -1)": {
            "interleaved-groups": _interleaved("x"),
            "group-size-for-count": "x = x.reshape(len(x), shape[1] // num_groups, -1)",
            "instance-norm-instead": "x = x.reshape(len(x), shape[1], -1)",
            "batch-norm-instead": "x = x.reshape(len(x), shape[1], -1)",
            "layer-norm-instead": "x = x.reshape(len(x), 1, -1)",
        },
        "dxhat = dy * gamma": {
            "gamma-after-averaging": "dxhat = dy",
        },
        "dxhat = dxhat.reshape(x.shape)": {
            "interleaved-groups": _interleaved("dxhat"),
        },
        "via_mean = dxhat.mean(axis=axes, keepdims=True)": {
            "missing-gamma: in the averages": (
                "via_mean = dy.reshape(x.shape).mean(axis=axes, keepdims=True)"
            ),
            "batch-in-statistics: mean's term": (
                "via_mean = dxhat.mean(axis=(0, 2), keepdims=True)"
            ),
            "batch-in-statistics: of dx": (
                "via_mean = dxhat.mean(axis=(0, 2), keepdims=True)"
            ),
            "wrong-count: pixels": (
                "via_mean = dxhat.sum(axis=axes, keepdims=True) / (shape[2] * shape[3])"
            ),
            "per-channel-averages": (
                "by = dxhat.reshape(*shape[:2], -1); via_mean = np.repeat("
                "by.mean(axis=2), by.shape[2], axis=1).reshape(x.shape)"
            ),
        },
        "via_var = (dxhat * xhat).mean(axis=axes, keepdims=True)": {
            "missing-gamma: in the averages": (
                "via_var = (dy.reshape(x.shape) * xhat).mean(axis=axes, keepdims=True)"
            ),
            "batch-in-statistics: variance's term": (
                "via_var = (dxhat * xhat).mean(axis=(0, 2), keepdims=True)"
            ),
            "batch-in-statistics: of dx": (
                "via_var = (dxhat * xhat).mean(axis=(0, 2), keepdims=True)"
            ),
            "wrong-count: pixels": (
                "via_var = (dxhat * xhat).sum(axis=axes, keepdims=True)"
                " / (shape[2] * shape[3])"
            ),
            "per-channel-averages": (
                "by = (dxhat * xhat).reshape(*shape[:2], -1); via_var = np.repeat("
                "by.mean(axis=2), by.shape[2], axis=1).reshape(x.shape)"
            ),
        },
        "dx = dx.reshape(shape)": {
            "interleaved-groups": _back("dx"),
            "gamma-after-averaging": "dx = dx.reshape(shape) * gamma",
        },
        "xhat = xhat.reshape(shape)": {
            "interleaved-groups": _back("xhat"),
        },
    },
    "words": """
detached-statistics
You treat mean and variance as constants: only the straight path is left.
x reaches y on three paths. Which two go through the rest of its group?

instance-norm-instead
This is instance normalization: every channel has its own mean.
How many channels share a mean in this exercise?

interleaved-groups
Your groups take every second (third …) channel instead of neighbours.
With 4 channels and 2 groups, channels 0 and 1 belong together. And yours?

group-size-for-count
You take num_groups for the number of channels in a group.
With 6 channels and 2 groups, how many channels are in each?

wrong-count: pixels
The averages inside dx divide by the pixels of one channel; a group has several.
How many values share one mean? By that many it divides.

per-channel-averages
The averages inside dx run over one channel; they belong over its group.
Which values shared a mean in the forward pass? Over them dx averages.

batch-in-statistics: of dx
The two averages inside dx run over the batch too; a group is of one image.
Which values shared a mean in the forward pass? Over them dx averages.

batch-in-statistics: mean's term
The mean's term of dx runs over the batch too; a group is of one image.
Which values shared a mean in the forward pass? Over them dx averages.

batch-in-statistics: variance's term
The variance's term of dx runs over the batch too; a group is of one image.
Which values shared a variance in the forward pass? Over them dx averages.

gamma-after-averaging
You multiply by gamma after averaging; here gamma differs inside a group.
A constant factor may leave an average. Is gamma constant in a group?
    """,
}


EXERCISE = Exercise(
    name="group_norm_backward",
    title="Group normalization, backward",
    chapter="14_other_axes",
    outputs=("dx", "dgamma", "dbeta"),
    hints=(
        (
            "Statistics belong to a group, gamma to a channel: two shapes, two "
            "sets of axes."
        ),
        (
            "Multiply dy by gamma channel by channel; then reshape to groups, as "
            "x, for dx."
        ),
    ),
    stub='''\
def group_norm_backward(dy, x, gamma, num_groups, eps):
    """The gradient of group normalization of x (N, C, H, W), whose C channels form
    num_groups groups of neighbours; gamma (C,). Return (dx, dgamma, dbeta); dgamma and
    dbeta (C,).
    """
    raise NotImplementedError("write group_norm_backward")
''',
    source="""\
def group_norm_backward(dy, x, gamma, num_groups, eps):
    axes = 2
    param_axes = (0, 2, 3)
    gamma = gamma.reshape(1, -1, 1, 1)
    shape = x.shape
    x = x.reshape(len(x), num_groups, -1)
    mean = x.mean(axis=axes, keepdims=True)
    var = ((x - mean) ** 2).mean(axis=axes, keepdims=True)
    std = np.sqrt(var + eps)
    xhat = (x - mean) / std
    dxhat = dy * gamma
    dxhat = dxhat.reshape(x.shape)
    via_mean = dxhat.mean(axis=axes, keepdims=True)
    via_var = (dxhat * xhat).mean(axis=axes, keepdims=True)
    dx = (dxhat - via_mean - xhat * via_var) / std
    dx = dx.reshape(shape)
    xhat = xhat.reshape(shape)
    dgamma = (dy * xhat).sum(axis=param_axes)
    dbeta = dy.sum(axis=param_axes)
    return dx, dgamma, dbeta
""",
    **_about,
)
