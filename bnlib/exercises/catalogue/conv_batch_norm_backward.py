"""From chapters/06_convolution.ipynb.

Extracted by `make export`: edit the notebook, not this file.
"""

import bnlib
from bnlib.exercises._cases import (
    DBETA_IS_THE_SUM,
    image_cases,
    same_slope,
    sums_to_zero,
)
from bnlib.exercises._exercise import Exercise

_TINY_IMAGES = ([[[[1, 3]]], [[[1, 3]]]], [[[[0, 2]]], [[[4, 6]]]])

_about = {
    "reference": lambda dy, x, gamma, eps: bnlib.batch_norm_backward(
        dy, bnlib.batch_norm(x, gamma, eps=eps)[1]
    ),
    "inputs": lambda: image_cases(*_TINY_IMAGES, gamma=2, eps=3),
    "properties": (
        sums_to_zero((0, 2, 3), "each channel"),
        DBETA_IS_THE_SUM,
        same_slope(bnlib.batch_norm),
    ),
    "wrong_lines": {
        "axes = (0, 2, 3)": {
            "missing-transpose": (
                "axes = 0; shape = x.shape; x = x.reshape(-1, shape[1]); "
                "dy = dy.reshape(-1, shape[1])"
            ),
        },
        "param_axes = (0, 2, 3)": {"missing-transpose": "param_axes = 0"},
        "gamma = gamma.reshape(1, -1, 1, 1)": {"missing-transpose": "gamma = gamma"},
        "return dx, dgamma, dbeta": {
            "missing-transpose": "return dx.reshape(shape), dgamma, dbeta",
            "missing-transpose: on the way back": (
                "return dx.transpose(0, 2, 3, 1).reshape(x.shape), dgamma, dbeta"
            ),
        },
        "via_mean = dxhat.mean(axis=axes, keepdims=True)": {
            "missing-parentheses: of the count": (
                "n, _, h, w = x.shape; "
                "via_mean = dxhat.sum(axis=axes, keepdims=True) / n * h * w"
            ),
            "missing-parentheses: of the count, mean's term": (
                "n, _, h, w = x.shape; "
                "via_mean = dxhat.sum(axis=axes, keepdims=True) / n * h * w"
            ),
        },
        "via_var = (dxhat * xhat).mean(axis=axes, keepdims=True)": {
            "missing-parentheses: of the count": (
                "n, _, h, w = x.shape; "
                "via_var = (dxhat * xhat).sum(axis=axes, keepdims=True) / n * h * w"
            ),
            "missing-parentheses: of the count, variance's term": (
                "n, _, h, w = x.shape; "
                "via_var = (dxhat * xhat).sum(axis=axes, keepdims=True) / n * h * w"
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

missing-parentheses: of the count, mean's term
In the mean's term you divide by N and multiply by H*W: 1/N*H*W is not 1/(N*H*W).
Which is the number of values that share one mean? Put it into parentheses.

missing-parentheses: of the count, variance's term
In the variance's term you divide by N, and multiply by the rest.
Which is the number of values that share one mean? Put it into parentheses.
    """,
}


EXERCISE = Exercise(
    name="conv_batch_norm_backward",
    title="Batch normalization of images, backward",
    chapter="06_convolution",
    outputs=("dx", "dgamma", "dbeta"),
    hints=(
        ("The collapsed formula of chapter 4, with other axes."),
        ("n is now N * H * W. Sums over (0, 2, 3) leave one number per channel."),
    ),
    stub='''\
def conv_batch_norm_backward(dy, x, gamma, eps):
    """The gradient of batch normalization of images: dy and x (N, C, H, W), gamma (C,).
    Return (dx, dgamma, dbeta); dgamma and dbeta (C,).
    """
    raise NotImplementedError("write conv_batch_norm_backward")
''',
    source="""\
def conv_batch_norm_backward(dy, x, gamma, eps):
    axes = (0, 2, 3)
    param_axes = (0, 2, 3)
    gamma = gamma.reshape(1, -1, 1, 1)
    mean = x.mean(axis=axes, keepdims=True)
    var = ((x - mean) ** 2).mean(axis=axes, keepdims=True)
    std = np.sqrt(var + eps)
    xhat = (x - mean) / std
    dxhat = dy * gamma
    via_mean = dxhat.mean(axis=axes, keepdims=True)
    via_var = (dxhat * xhat).mean(axis=axes, keepdims=True)
    dx = (dxhat - via_mean - xhat * via_var) / std
    dgamma = (dy * xhat).sum(axis=param_axes)
    dbeta = dy.sum(axis=param_axes)
    return dx, dgamma, dbeta
""",
    **_about,
)
