"""From chapters/14_other_axes.ipynb.

Extracted by `make export`: edit the notebook, not this file.
"""

import bnlib
from bnlib.exercises._cases import (
    DBETA_IS_THE_SUM,
    row_cases,
    same_slope,
    sums_to_zero,
)
from bnlib.exercises._exercise import Exercise

_about = {
    "reference": lambda dy, x, gamma, eps: bnlib.layer_norm_backward(
        dy, bnlib.layer_norm(x, gamma, eps=eps)[1]
    ),
    "inputs": lambda: row_cases([[1, 3, 1, 3]], gamma=2, eps=3),
    "properties": (
        sums_to_zero(1, "each row"),
        DBETA_IS_THE_SUM,
        same_slope(bnlib.layer_norm),
    ),
    "wrong_lines": {
        "var = ((x - mean) ** 2).mean(axis=axes, keepdims=True)": {
            "rms-norm-instead": "var = (x**2).mean(axis=axes, keepdims=True)",
        },
        "xhat = (x - mean) / std": {
            "rms-norm-instead": "xhat = x / std",
        },
        "dxhat = dy * gamma": {
            "gamma-after-averaging": "dxhat = dy",
        },
        "dx = (dxhat - via_mean - xhat * via_var) / std": {
            "gamma-after-averaging": (
                "dx = (dxhat - via_mean - xhat * via_var) / std * gamma"
            ),
        },
        "via_mean = dxhat.mean(axis=axes, keepdims=True)": {
            "batch-in-statistics: mean's term": (
                "via_mean = dxhat.mean(axis=0, keepdims=True)"
            ),
            "batch-in-statistics: of dx": (
                "via_mean = dxhat.mean(axis=0, keepdims=True)"
            ),
        },
        "via_var = (dxhat * xhat).mean(axis=axes, keepdims=True)": {
            "batch-in-statistics: variance's term": (
                "via_var = (dxhat * xhat).mean(axis=0, keepdims=True)"
            ),
            "batch-in-statistics: of dx": (
                "via_var = (dxhat * xhat).mean(axis=0, keepdims=True)"
            ),
        },
    },
    "words": """
detached-statistics
You treat mean and variance as constants: only the straight path is left.
x reaches y on three paths. Which two go through the rest of its row?

batch-in-statistics: of dx
The two averages inside dx run over the batch; they belong along the row.
Which values shared a mean in the forward pass? Along them dx averages.

batch-in-statistics: mean's term
The mean's term of dx runs over the batch; it belongs along the row.
Which values shared a mean in the forward pass? Along them dx averages.

batch-in-statistics: variance's term
The variance's term of dx runs over the batch; it belongs along the row.
Which values shared a variance in the forward pass? Along them dx averages.

gamma-after-averaging
You multiply by gamma after averaging; here gamma differs along the row.
A constant factor may leave an average. Is gamma constant along a row?
    """,
}


EXERCISE = Exercise(
    name="layer_norm_backward",
    title="Layer normalization, backward",
    chapter="14_other_axes",
    outputs=("dx", "dgamma", "dbeta"),
    hints=(
        (
            "Two sets of axes: statistics along the row, sums for dgamma along "
            "the batch."
        ),
        (
            "dx is the formula of chapter 4 with axis=1; gamma comes before the "
            "averages."
        ),
    ),
    stub='''\
def layer_norm_backward(dy, x, gamma, eps):
    """The gradient of layer normalization of the rows of x (N, D); gamma (D,).
    Return (dx, dgamma, dbeta); dgamma and dbeta (D,).
    """
    raise NotImplementedError("write layer_norm_backward")
''',
    source="""\
def layer_norm_backward(dy, x, gamma, eps):
    axes = 1
    param_axes = 0
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
