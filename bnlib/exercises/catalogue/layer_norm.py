"""From chapters/14_other_axes.ipynb.

Extracted by `make export`: edit the notebook, not this file.
"""

import bnlib
from bnlib.exercises._cases import row_cases, xhat_has_mean_zero
from bnlib.exercises._exercise import Exercise

_about = {
    "reference": lambda *args: bnlib.layer_norm(*args[:3], eps=args[3])[0],
    "inputs": lambda: row_cases([[1, 3]], gamma=2, beta=5, eps=3),
    "properties": (xhat_has_mean_zero(lambda args, xhat: xhat, "each row"),),
    "wrong_lines": {
        "var = ((x - mean) ** 2).mean(axis=axes, keepdims=True)": {
            "rms-norm-instead": "var = (x**2).mean(axis=axes, keepdims=True)",
        },
        "xhat = (x - mean) / std": {
            "rms-norm-instead": "xhat = x / std",
        },
    },
}


EXERCISE = Exercise(
    name="layer_norm",
    title="Layer normalization",
    chapter="14_other_axes",
    outputs=("y",),
    hints=(
        ("Batch normalization with the other axis: one mean per row."),
        ("keepdims=True, or numpy lines the means up with the columns."),
    ),
    stub='''\
def layer_norm(x, gamma, beta, eps):
    """Normalize every row of x (N, D) to mean 0 and variance 1, eps added to the biased
    variance; then scale by gamma (D,) and shift by beta (D,). Return y.
    """
    raise NotImplementedError("write layer_norm")
''',
    source="""\
def layer_norm(x, gamma, beta, eps):
    axes = 1
    mean = x.mean(axis=axes, keepdims=True)
    var = ((x - mean) ** 2).mean(axis=axes, keepdims=True)
    std = np.sqrt(var + eps)
    xhat = (x - mean) / std
    y = gamma * xhat + beta
    return y
""",
    **_about,
)
