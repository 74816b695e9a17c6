"""From chapters/14_other_axes.ipynb.

Extracted by `make export`: edit the notebook, not this file.
"""

import numpy as np

import bnlib
from bnlib.exercises._cases import (
    TINY,
    Case,
    around_zero,
    drawn,
    far_from_zero,
    one_change_at_a_time,
    plain,
    spreads,
    xhat_has_mean_zero,
)
from bnlib.exercises._exercise import Exercise

__all__ = ["FOUR", "group_cases"]


FOUR = {**plain([[[[1]], [[3]], [[7]], [[9]]]], 1, num_groups=2), "eps": 3.0}


def group_cases(tiny, wide, *more, **changes):
    """Inputs for group norm: the smallest with changes, a wide one, and all others."""
    yield from one_change_at_a_time(plain(tiny, 1), **changes)
    yield from spreads(around_zero(wide))
    yield Case("one channel", drawn((2, 1, 2, 2), 1, 0.5))
    yield Case("one value in a group", drawn((2, 2, 1, 1), 1, 0.5, num_groups=2))
    yield Case("two groups of two channels", FOUR)
    yield from more
    yield Case("two images", {**plain([[[[1]], [[3]]], [[[5]], [[9]]]], 1), "eps": 3.0})
    yield Case("six channels, two groups", drawn((1, 6, 1, 2), 1, TINY, num_groups=2))
    yield Case("six channels, three groups", drawn((2, 6, 2, 1), 1, 0.5, num_groups=3))
    yield Case("one channel per group", drawn((2, 3, 2, 3), 1, 0.1, num_groups=3))
    yield Case("all axes alike", drawn((4, 4, 4, 4), 1, 1e-5, num_groups=2, digits=6))
    yield Case("five images, two channels", drawn((5, 2, 1, 2), 1, 0.1))
    flat = drawn((2, 4, 2, 1), 1, 1e-3, flat=np.s_[0, :2], num_groups=2)
    yield Case("a group that does not vary", flat)
    yield Case("eps as large as the variance", drawn((2, 4, 1, 3), 1, 4, num_groups=2))
    yield from far_from_zero((2, 4, 3, 2), 1, num_groups=2)


_about = {
    "reference": lambda x, gamma, beta, num_groups, eps: bnlib.group_norm(
        x, gamma, beta, num_groups=num_groups, eps=eps
    )[0],
    "inputs": lambda: group_cases(
        [[[[1]], [[3]]]], [[[[1]], [[3]]]], gamma=2, beta=5, eps=3
    ),
    "properties": (
        xhat_has_mean_zero(
            lambda args, xhat: xhat.reshape(len(xhat), args["num_groups"], -1),
            "each group of each example",
        ),
    ),
    "wrong_lines": {
        "axes = 2": {
            "wrong-axis": "axes = (0, 1)",
            "batch-in-statistics": "axes = (0, 2)",
            "batch-norm-instead": "axes = (0, 2)",
        },
        "shape = x.shape": {
            "affine-before-normalization": "shape = x.shape; x = gamma * x + beta",
        },
        "x = x.reshape(len(x), num_groups, -1)": {
            "interleaved-groups": (
                "x = x.reshape(len(x), -1, num_groups, *shape[2:]).swapaxes(1"
                ", 2).reshape(len(x), num_groups, -1)"
            ),
            "group-size-for-count": "x = x.reshape(len(x), shape[1] // num_groups, -1)",
            "instance-norm-instead": "x = x.reshape(len(x), shape[1], -1)",
            "batch-norm-instead": "x = x.reshape(len(x), shape[1], -1)",
            "layer-norm-instead": "x = x.reshape(len(x), 1, -1)",
            "per-pixel-statistics": "x = x.reshape(len(x), num_groups, -1, *shape[2:])",
        },
        "xhat = xhat.reshape(shape)": {
            "interleaved-groups": (
                "xhat = xhat.reshape(len(x), num_groups, -1, *shape[2:]).swapaxes(1"
                ", 2).reshape(shape)"
            ),
        },
        "y = gamma * xhat + beta": {
            "affine-before-normalization": "y = xhat",
        },
    },
    "words": """
instance-norm-instead
This is instance normalization: every channel has its own mean.
How many channels share a mean in this exercise?

interleaved-groups
Your groups take every second (third …) channel instead of neighbours.
With 4 channels and 2 groups, channels 0 and 1 belong together. And yours?

group-size-for-count
You take num_groups for the number of channels in a group.
With 6 channels and 2 groups, how many channels are in each?
    """,
}


EXERCISE = Exercise(
    name="group_norm",
    title="Group normalization",
    chapter="14_other_axes",
    outputs=("y",),
    hints=(
        ("Reshape so that a group is one axis, normalize along it, reshape back."),
        ("(N, C, H, W) becomes (N, num_groups, C / num_groups * H * W)."),
    ),
    stub='''\
def group_norm(x, gamma, beta, num_groups, eps):
    """Group normalization of x (N, C, H, W): the C channels form num_groups groups of
    neighbours; each group of each example has one mean and one biased variance. Then
    scale and shift every channel by gamma and beta (C,). Return y.
    """
    raise NotImplementedError("write group_norm")
''',
    source="""\
def group_norm(x, gamma, beta, num_groups, eps):
    axes = 2
    gamma = gamma.reshape(1, -1, 1, 1)
    beta = beta.reshape(1, -1, 1, 1)
    shape = x.shape
    x = x.reshape(len(x), num_groups, -1)
    mean = x.mean(axis=axes, keepdims=True)
    var = ((x - mean) ** 2).mean(axis=axes, keepdims=True)
    std = np.sqrt(var + eps)
    xhat = (x - mean) / std
    xhat = xhat.reshape(shape)
    y = gamma * xhat + beta
    return y
""",
    **_about,
)
