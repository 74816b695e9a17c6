"""From chapters/14_other_axes.ipynb.

Extracted by `make export`: edit the notebook, not this file.
"""

import bnlib
from bnlib.exercises._cases import (
    XHAT_HAS_MEAN_SQUARE,
    row_cases,
)
from bnlib.exercises._exercise import Exercise

_about = {
    "reference": lambda x, gamma, eps: bnlib.rms_norm(x, gamma, eps=eps)[0],
    "inputs": lambda: row_cases([[1, 7]], level=0.0, far=False, gamma=2, eps=11),
    "properties": (XHAT_HAS_MEAN_SQUARE,),
    "wrong_lines": {
        "square = (x**2).mean(axis=axes, keepdims=True)": {
            "layer-norm-instead": (
                "x0 = x; mean = x.mean(axis=axes, keepdims=True); square = ((x"
                " - mean) ** 2).mean(axis=axes, keepdims=True)"
            ),
            "affine-before-normalization": (
                "x = gamma * x; square = (x**2).mean(axis=axes, keepdims=True)"
            ),
        },
        "xhat = x / rms": {
            "layer-norm-instead": "xhat = (x - mean) / rms",
            "layer-norm-instead: above": (
                "xhat = (x - x.mean(axis=axes, keepdims=True)) / rms"
            ),
            "missing-scale": "xhat = x",
            "multiplies-by-std": "xhat = x * rms",
        },
        "y = gamma * xhat": {
            "missing-gamma": "y = xhat",
            "gamma-added": "y = xhat + gamma",
            "gamma-plus-one": "y = (1 + gamma) * xhat",
            "divides-by-gamma": "y = xhat / gamma",
            "affine-before-normalization": "y = xhat",
        },
    },
    "words": """
layer-norm-instead
The mean is subtracted; RMS normalization leaves it in.
Read the formula again: which of layer norm's steps is missing in it?

missing-scale
You never divide by the root mean square.
Multiply x by 10. What should become of y?

sum-instead-of-mean
You divide by the length of the row: its squares are summed up.
Write the row twice in a row: y must not change.
    """,
}


EXERCISE = Exercise(
    name="rms_norm",
    title="RMS normalization",
    chapter="14_other_axes",
    outputs=("y",),
    hints=(
        ("Read the name backwards: square, mean, root."),
        ("Nothing is subtracted. keepdims=True keeps the roots in line with the rows."),
    ),
    stub='''\
def rms_norm(x, gamma, eps):
    """Divide every row of x (N, D) by its root mean square, eps added under the root;
    multiply by gamma (D,). Return y.
    """
    raise NotImplementedError("write rms_norm")
''',
    source="""\
def rms_norm(x, gamma, eps):
    axes = 1
    square = (x**2).mean(axis=axes, keepdims=True)
    rms = np.sqrt(square + eps)
    xhat = x / rms
    y = gamma * xhat
    return y
""",
    **_about,
)
