"""From chapters/03_batch_normalization.ipynb.

Extracted by `make export`: edit the notebook, not this file.
"""

import bnlib
from bnlib.exercises._cases import VARIANCE_IS_POSITIVE, batch_cases, every_row_twice
from bnlib.exercises._exercise import Exercise

_about = {
    "reference": lambda x: tuple(m.reshape(-1) for m in bnlib.moments(x)),
    "inputs": lambda: batch_cases([[1], [3]], scaled=True),
    "properties": (
        VARIANCE_IS_POSITIVE,
        every_row_twice("mean"),
        every_row_twice("var"),
    ),
    "flexible": True,  # with keepdims=True the means come as (1, C): as good
    "wrong_lines": {
        "var = ((x - mean) ** 2).mean(axis=axes, keepdims=True)": {
            "adds-eps: any": (
                "var = ((x - mean) ** 2).mean(axis=axes, keepdims=True) + C"
            ),
            "sum-instead-of-mean: mean": (
                "var = ((x - mean) ** 2).mean(axis=axes, keepdims=True); mean "
                "= x.sum(axis=axes, keepdims=True)"
            ),
            "wrong-count": (
                "mean = x.sum(axis=axes, keepdims=True) / x.shape[1]; var = ((x"
                " - mean) ** 2).sum(axis=axes, keepdims=True) / x.shape[1 - axes]"
            ),
            "median-instead-of-mean": (
                "var = ((x - mean) ** 2).mean(axis=axes, keepdims=True); mean "
                "= np.median(x, axis=axes, keepdims=True)"
            ),
            "adds-eps": "var = ((x - mean) ** 2).mean(axis=axes, keepdims=True) + 1e-5",
        },
        "return mean.squeeze(axes), var.squeeze(axes)": {
            "swapped-outputs": "return var.squeeze(axes), mean.squeeze(axes)",
        },
    },
    "words": """
adds-eps
You add a small number to the variance, eps perhaps; here it stays as it is.
What is the variance of a column that does not vary?

median-instead-of-mean
You take the median; the mean is asked for.
Try the column 0, 0, 9.
    """,
}


EXERCISE = Exercise(
    name="moments",
    title="Mean and variance",
    chapter="03_batch_normalization",
    outputs=("mean", "var"),
    hints=(
        ("axis=0 runs down the rows and leaves one number per column."),
        ("The variance is the mean of the squared distances from the mean."),
    ),
    stub='''\
def moments(x):
    """Return mean and biased variance of every column of x (N, C), both (C,)."""
    raise NotImplementedError("write moments")
''',
    source="""\
def moments(x):
    axes = 0
    mean = x.mean(axis=axes, keepdims=True)
    var = ((x - mean) ** 2).mean(axis=axes, keepdims=True)
    return mean.squeeze(axes), var.squeeze(axes)
""",
    **_about,
)
