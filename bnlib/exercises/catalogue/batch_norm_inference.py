"""From chapters/05_inference.ipynb.

Extracted by `make export`: edit the notebook, not this file.
"""

import bnlib
from bnlib.exercises._cases import (
    Property,
    batch_cases,
)
from bnlib.exercises._exercise import Exercise

_about = {
    "reference": lambda *args: bnlib.batch_norm_inference(*args[:-1], eps=args[-1]),
    "inputs": lambda: (
        case._replace(refusable=False)
        for case in batch_cases([[1], [3]], gamma=2, beta=5, running_mean=1, eps=5)
    ),
    "properties": (
        Property(
            "one example alone gets the same as in the batch",
            lambda args, out, before: (out["y"], before["y"][:1]),
            lambda args: {"x": args["x"][:1]},
        ),
    ),
    "wrong_lines": {
        "mean = running_mean": {
            "batch-statistics-at-inference": "mean = x.mean(axis=0)",
            "batch-statistics-at-inference: mean": "mean = x.mean(axis=0)",
            "batch-statistics-at-inference: blended": (
                "mean = 0.9 * running_mean + 0.1 * x.mean(axis=0)"
            ),
            "swapped-mean-variance": "mean = running_var",
            "affine-before-normalization": "x = gamma * x + beta; mean = running_mean",
        },
        "var = running_var": {
            "batch-statistics-at-inference": "var = x.var(axis=0)",
            "batch-statistics-at-inference: variance": "var = x.var(axis=0)",
            "batch-statistics-at-inference: blended": (
                "var = 0.9 * running_var + 0.1 * x.var(axis=0)"
            ),
            "std-instead-of-variance": "var = np.sqrt(running_var)",
            "swapped-mean-variance": "var = running_mean",
            "unbiased-variance": "var = running_var * len(x) / (len(x) - 1)",
            "biased-running-variance": "var = running_var * (len(x) - 1) / len(x)",
        },
        "y = gamma * xhat + beta": {
            "unscaled-mean": "y = gamma * x / std - mean + beta",
            "affine-before-normalization": "y = xhat",
        },
    },
    "words": """
variance-instead-of-std
You divide by the variance; the formula divides by its root.
With a running_var of 4 and no eps, the formula divides by 2. And you?

variance-instead-of-std: without eps
You divide by the variance: there is no root, and no eps.
With a running_var of 4 and no eps, the formula divides by 2. And you?

missing-mean
The running mean is not subtracted.
Add 100 to x and to running_mean. Should the result move?

missing-scale
You never divide by the standard deviation.
Make running_var four times as large. What should become of xhat?

multiplies-by-std
You multiply by the standard deviation where the formula divides.
Make running_var four times as large. What should become of xhat?

unscaled-mean
You scale x by gamma / std, and leave the mean as it is.
Multiply out gamma * (x − mean) / std: what stands before the mean?

unbiased-variance
The stored variance is corrected a second time.
Who has multiplied by n / (n − 1) already?

missing-eps
eps is not used, or far too small to be yours.
With a variance of 4 and eps = 5, the formula divides by 3. And you?

batch-statistics-at-inference
You look at the batch; at inference only the running statistics count.
Change one example only: the results of the others should not move.
    """,
}


EXERCISE = Exercise(
    name="batch_norm_inference",
    title="Batch normalization at inference",
    chapter="05_inference",
    outputs=("y",),
    hints=(
        ("The formula of training; only where mean and variance come from differs."),
        ("Each example must get the same answer alone as in any batch."),
    ),
    stub='''\
def batch_norm_inference(x, gamma, beta, running_mean, running_var, eps):
    """Normalize x (N, C) at inference: with the running statistics (C,), not with those
    of the batch. Then scale by gamma and shift by beta. Return y.
    """
    raise NotImplementedError("write batch_norm_inference")
''',
    source="""\
def batch_norm_inference(x, gamma, beta, running_mean, running_var, eps):
    mean = running_mean
    var = running_var
    std = np.sqrt(var + eps)
    xhat = (x - mean) / std
    y = gamma * xhat + beta
    return y
""",
    **_about,
)
