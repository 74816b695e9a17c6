"""From chapters/04_backward.ipynb.

Extracted by `make export`: edit the notebook, not this file.
"""

import bnlib
from bnlib.exercises._cases import (
    DBETA_IS_THE_SUM,
    batch_cases,
    same_slope,
    sums_to_zero,
)
from bnlib.exercises._exercise import Exercise

_about = {
    "reference": lambda dy, x, gamma, eps: bnlib.batch_norm_backward(
        dy, bnlib.batch_norm(x, gamma, eps=eps)[1]
    ),
    "inputs": lambda: batch_cases([[1], [3], [1], [3]], gamma=2, eps=3),
    "properties": (
        sums_to_zero(0, "each column"),
        DBETA_IS_THE_SUM,
        same_slope(bnlib.batch_norm),
    ),
    "wrong_lines": {},
}


EXERCISE = Exercise(
    name="batch_norm_backward",
    title="Batch normalization, backward",
    chapter="04_backward",
    outputs=("dx", "dgamma", "dbeta"),
    hints=(
        ("dgamma and dbeta are sums over the batch. dx has three terms, one per path."),
        (
            "Through the mean: minus the mean of g. Through the variance: minus "
            "xhat times the mean of g * xhat. g is dy * gamma; all of it is "
            "divided by std."
        ),
    ),
    stub='''\
def batch_norm_backward(dy, x, gamma, eps):
    """Given dy, the gradient of a loss with respect to y = gamma * xhat + beta, return
    (dx, dgamma, dbeta). The forward pass normalized the columns of x (N, C) over the
    batch, with eps added to the biased variance; xhat has to be computed again.
    """
    raise NotImplementedError("write batch_norm_backward")
''',
    source="""\
def batch_norm_backward(dy, x, gamma, eps):
    axes = 0
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
