"""From chapters/14_other_axes.ipynb.

Extracted by `make export`: edit the notebook, not this file.
"""

import bnlib
from bnlib.exercises._cases import (
    image_cases,
    xhat_has_mean_zero,
)
from bnlib.exercises._exercise import Exercise

_about = {
    "reference": lambda *args: bnlib.instance_norm(*args[:3], eps=args[3])[0],
    "inputs": lambda: image_cases(
        [[[[1, 3]]]], [[[[0, 2]]], [[[4, 6]]]], gamma=2, beta=5, eps=3
    ),
    "properties": (
        xhat_has_mean_zero(
            lambda args, xhat: xhat.reshape(*xhat.shape[:2], -1),
            "the pixels of each channel of each image",
        ),
    ),
    "wrong_lines": {
        "axes = (2, 3)": {
            "wrong-axis: everything": "axes = None",
            "wrong-axis: channels": "axes = 1",
            "per-pixel-statistics: rows": "axes = 2",
            "per-pixel-statistics: images": "axes = 0",
        },
        "var = ((x - mean) ** 2).mean(axis=axes, keepdims=True)": {
            "mean-of-variances": (
                "var = x.var(axis=axes, keepdims=True).mean(axis=0, keepdims=True)"
            ),
            "rms-norm-instead": "var = (x**2).mean(axis=axes, keepdims=True)",
        },
        "xhat = (x - mean) / std": {
            "rms-norm-instead": "xhat = x / std",
        },
    },
    "words": """
mean-of-variances
You average the images' variances; each image should keep its own.
Change one image only: the results of the others should not move.

per-pixel-statistics
Your mean runs along one axis of the pixels; it belongs over both.
Print the shape of your mean: how many means does a channel of an image need?

per-pixel-statistics: images
Every pixel is averaged over the images; each image has means of its own.
Change one image only: the results of the others should not move.
    """,
}


EXERCISE = Exercise(
    name="instance_norm",
    title="Instance normalization",
    chapter="14_other_axes",
    outputs=("y",),
    hints=(
        ("One mean for each image and channel: over which axes do you average?"),
        ("Over axes 2 and 3. gamma needs shape (1, C, 1, 1) to meet the channels."),
    ),
    stub='''\
def instance_norm(x, gamma, beta, eps):
    """Normalize every channel of every image of x (N, C, H, W) by the mean and the
    biased variance of its own pixels; then scale and shift every channel by gamma and
    beta (C,). Return y.
    """
    raise NotImplementedError("write instance_norm")
''',
    source="""\
def instance_norm(x, gamma, beta, eps):
    axes = (2, 3)
    gamma = gamma.reshape(1, -1, 1, 1)
    beta = beta.reshape(1, -1, 1, 1)
    mean = x.mean(axis=axes, keepdims=True)
    var = ((x - mean) ** 2).mean(axis=axes, keepdims=True)
    std = np.sqrt(var + eps)
    xhat = (x - mean) / std
    y = gamma * xhat + beta
    return y
""",
    **_about,
)
