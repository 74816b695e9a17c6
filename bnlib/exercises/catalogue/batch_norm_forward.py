"""From chapters/03_batch_normalization.ipynb.

Extracted by `make export`: edit the notebook, not this file.
"""

import bnlib
from bnlib.exercises._cases import batch_cases, every_row_twice, mean_is_beta
from bnlib.exercises._exercise import Exercise

_about = {
    "reference": lambda *args: bnlib.batch_norm(*args[:3], eps=args[3])[0],
    "inputs": lambda: batch_cases([[1], [3]], gamma=2, beta=5, eps=3),
    "properties": (mean_is_beta(0, "each column"), every_row_twice("y")),
    "wrong_lines": {},
}


EXERCISE = Exercise(
    name="batch_norm_forward",
    title="Batch normalization, forward",
    chapter="03_batch_normalization",
    outputs=("y",),
    hints=(
        ("Four lines, as in Algorithm 1: mean, variance, xhat, y."),
        (
            "One mean per column: axis=0. eps stands under the root, beside the "
            "variance."
        ),
    ),
    stub='''\
def batch_norm_forward(x, gamma, beta, eps):
    """Normalize every column of x (N, C) to mean 0 and variance 1 over the batch, eps
    added to the biased variance; scale by gamma (C,), shift by beta (C,). Return y.
    """
    raise NotImplementedError("write batch_norm_forward")
''',
    source="""\
def batch_norm_forward(x, gamma, beta, eps):
    axes = 0
    mean = x.mean(axis=axes, keepdims=True)
    var = ((x - mean) ** 2).mean(axis=axes, keepdims=True)
    std = np.sqrt(var + eps)
    xhat = (x - mean) / std
    y = gamma * xhat + beta
    return y
""",
    **_about,
)
