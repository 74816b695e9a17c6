"""From chapters/05_inference.ipynb.

Extracted by `make export`: edit the notebook, not this file.
"""

import bnlib
from bnlib.exercises._cases import (
    Property,
    batch_cases,
)
from bnlib.exercises._exercise import Exercise


def _as_in_the_batch(args):
    x = args["x"]
    return {"running_mean": x.mean(axis=0), "running_var": x.var(axis=0, ddof=1)}


_about = {
    "reference": bnlib.update_running,
    "inputs": lambda: (  # of one example there is no unbiased variance
        case
        for case in batch_cases([[1], [3]], scaled=True, running_mean=8, momentum=0.5)
        if case.label != "one example"
    ),
    "properties": (
        Property(
            "old statistics that equal those of the batch stay as they are",
            lambda args, out, _: (out["running_mean"], args["running_mean"]),
            _as_in_the_batch,
        ),
        Property(
            "an old variance that equals the batch's unbiased one stays as it is",
            lambda args, out, _: (out["running_var"], args["running_var"]),
            _as_in_the_batch,
        ),
    ),
    "wrong_lines": {
        "new_mean = (1 - momentum) * running_mean + momentum * mean": {
            "wrong-momentum: any": "new_mean = (1 - C) * running_mean + C * mean",
            "momentum-reversed": (
                "new_mean = momentum * running_mean + (1 - momentum) * mean"
            ),
            "batch-statistics-only": "new_mean = mean + 0 * running_mean",
            "no-update": "new_mean = running_mean",
            "missing-decay": "new_mean = running_mean + momentum * mean",
            "missing-momentum": "new_mean = (1 - momentum) * running_mean + mean",
            "sign-error": "new_mean = (1 + momentum) * running_mean - momentum * mean",
            "wrong-momentum": "new_mean = 0.9 * running_mean + 0.1 * mean",
            "wrong-momentum: reversed": "new_mean = 0.1 * running_mean + 0.9 * mean",
        },
        "var = x.var(axis=axes, ddof=1)": {
            "adds-eps": "var = x.var(axis=axes, ddof=1) + C",
            "biased-running-variance": "var = x.var(axis=axes)",
            "std-instead-of-variance": "var = x.std(axis=axes, ddof=1)",
            "std-instead-of-variance: biased": "var = x.std(axis=axes)",
            "sum-instead-of-mean": "var = ((x - mean) ** 2).sum(axis=axes)",
            "wrong-running-variance": (
                "var = ((x - new_mean) ** 2).sum(axis=axes) / (len(x) - 1)"
            ),
            "wrong-running-variance: old mean": (
                "var = ((x - running_mean) ** 2).sum(axis=axes) / (len(x) - 1)"
            ),
            "wrong-running-variance: corrected twice": (
                "var = x.var(axis=axes, ddof=1) * len(x) / (len(x) - 1)"
            ),
            "wrong-running-variance: reversed factor": (
                "var = x.var(axis=axes) * (len(x) - 1) / len(x)"
            ),
            "cancellation": (
                "var = ((x**2).mean(axis=axes) - mean**2) * len(x) / (len(x) - 1)"
            ),
        },
        "new_var = (1 - momentum) * running_var + momentum * var": {
            "wrong-variable: running_mean": (
                "new_var = (1 - momentum) * running_mean + momentum * var"
            ),
            "wrong-variable: mean": (
                "new_var = (1 - momentum) * running_var + momentum * mean"
            ),
            "wrong-momentum: any": "new_var = (1 - C) * running_var + C * var",
            "momentum-reversed": (
                "new_var = momentum * running_var + (1 - momentum) * var"
            ),
            "batch-statistics-only": "new_var = var + 0 * running_var",
            "no-update": "new_var = running_var",
            "missing-decay": "new_var = running_var + momentum * var",
            "missing-momentum": "new_var = (1 - momentum) * running_var + var",
            "sign-error": "new_var = (1 + momentum) * running_var - momentum * var",
            "wrong-momentum": "new_var = 0.9 * running_var + 0.1 * var",
            "wrong-momentum: reversed": "new_var = 0.1 * running_var + 0.9 * var",
            "wrong-running-variance: momentum reversed": (
                "new_var = momentum * running_var + (1 - momentum) * var"
            ),
            "wrong-running-variance: not updated": "new_var = running_var",
            "wrong-running-variance: not blended": "new_var = var + 0 * running_var",
            "wrong-running-variance: corrected too late": (
                "new_var = (1 - momentum) * running_var + momentum * x.var(axis=axes); "
                "new_var = new_var * len(x) / (len(x) - 1)"
            ),
        },
        "return new_mean, new_var": {
            "swapped-outputs": "return new_var, new_mean",
        },
    },
    "words": """
momentum-reversed
momentum is the weight of the new batch here; you give it to the old value.
With momentum = 0.1, a batch should move the mean a tenth of the way.

wrong-running-variance
The running variance is not blended with the batch's unbiased variance.
Take the mean's update as a model; then look where the variance is centred.

wrong-variable: running_mean
In the variance's line stands running_mean.
A line that was copied: which of its names still have to change?

wrong-variable: mean
In the variance's line stands the batch's mean.
A line that was copied: which of its names still have to change?

adds-eps
You add a number of your own to the variance; here it stays as it is.
What is the variance of a column that does not vary?

batch-statistics-only
You return the batch's statistics; the old values are lost.
With momentum = 0.1, nine tenths of the old value should survive.

no-update
The running statistics come back as they were.
With momentum = 1 the result should be the batch's statistics.

missing-decay
You add the new value without letting the old one fade.
If old and new are equal, so is the result. Do your weights sum to 1?

missing-momentum
The new value enters with its full weight.
If old and new are equal, so is the result. Do your weights sum to 1?

wrong-momentum
You use a momentum of your own instead of the argument.
With momentum = 1 the result should be the batch's statistics.
    """,
}


EXERCISE = Exercise(
    name="update_running",
    title="Running statistics",
    chapter="05_inference",
    outputs=("running_mean", "running_var"),
    hints=(
        ("A blend: one weight for the old value, one for the new, and they sum to 1."),
        ("Unbiased means divided by N - 1: ddof=1 in np.var."),
    ),
    stub='''\
def update_running(running_mean, running_var, x, momentum):
    """Return (running_mean, running_var) after one more batch x (N, C). momentum is the
    weight of the new batch; the stored variance is the unbiased one.
    """
    raise NotImplementedError("write update_running")
''',
    source="""\
def update_running(running_mean, running_var, x, momentum):
    axes = 0
    mean = x.mean(axis=axes)
    new_mean = (1 - momentum) * running_mean + momentum * mean
    var = x.var(axis=axes, ddof=1)
    new_var = (1 - momentum) * running_var + momentum * var
    return new_mean, new_var
""",
    **_about,
)
