"""From chapters/06_convolution.ipynb.

Extracted by `make export`: edit the notebook, not this file.
"""

import bnlib
from bnlib.exercises._cases import image_cases, mean_is_beta
from bnlib.exercises._exercise import Exercise

_TINY_IMAGES = ([[[[1, 3]]], [[[1, 3]]]], [[[[0, 2]]], [[[4, 6]]]])

_about = {
    "reference": lambda *args: bnlib.batch_norm(*args[:3], eps=args[3])[0],
    "inputs": lambda: image_cases(*_TINY_IMAGES, gamma=2, beta=5, eps=3),
    "properties": (mean_is_beta((0, 2, 3), "each channel"),),
    "wrong_lines": {
        "axes = (0, 2, 3)": {
            "missing-transpose": (
                "axes = 0; shape = x.shape; x = x.reshape(-1, shape[1])"
            ),
        },
        "gamma = gamma.reshape(1, -1, 1, 1)": {
            "missing-transpose": "gamma = gamma",
        },
        "beta = beta.reshape(1, -1, 1, 1)": {
            "missing-transpose": "beta = beta",
        },
        "return y": {
            "missing-transpose": "return y.reshape(shape)",
            "missing-transpose: on the way back": (
                "return y.transpose(0, 2, 3, 1).reshape(x.shape)"
            ),
        },
    },
    "words": """
missing-transpose
You reshape without moving the channels to the end: the channels get mixed.
reshape never reorders. In x.reshape(-1, C), which values stand in a column?

missing-transpose: on the way back
You reshape back without moving the channels to their old place.
reshape never reorders. Undo your steps in the reverse order.
    """,
}


EXERCISE = Exercise(
    name="conv_batch_norm",
    title="Batch normalization of images",
    chapter="06_convolution",
    outputs=("y",),
    hints=(
        ("Average over everything but the channels: three axes at once."),
        (
            "keepdims=True keeps the mean in line with x; gamma needs shape (1, "
            "C, 1, 1)."
        ),
    ),
    stub='''\
def conv_batch_norm(x, gamma, beta, eps):
    """Batch normalization of images x (N, C, H, W): one mean, one biased variance per
    channel, shared by all examples and positions; gamma and beta (C,). Return y.
    """
    raise NotImplementedError("write conv_batch_norm")
''',
    source="""\
def conv_batch_norm(x, gamma, beta, eps):
    axes = (0, 2, 3)
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
