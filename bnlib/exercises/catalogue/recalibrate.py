"""From chapters/20_many_machines.ipynb.

Extracted by `make export`: edit the notebook, not this file.
"""

import numpy as np

from bnlib.exercises._cases import Case, Property, drawn, spreads, stays
from bnlib.exercises._exercise import Exercise


def _loader_case(label, x, counts, **more):
    x = np.array(x) if more else np.array(x, dtype=float)
    return Case(label, {"x": x, "counts": np.array(counts)}, **more)


def _loader_cases():
    yield _loader_case("equal batches", [[1], [3], [1], [3]], [2, 2])
    yield _loader_case("means that differ", [[1], [3], [5], [7]], [2, 2])
    unequal = _loader_case("unequal batches", [[0], [6], [3], [7], [8]], [3, 2])
    yield unequal
    yield from spreads(unequal.args, {"x": 1}, scaled=True)
    yield _loader_case("one batch", [[1, 2], [3, 8], [5, 5]], [3])
    yield _loader_case("a last batch of one row", [[0, 1], [4, 1], [8, 4]], [2, 1])
    rows = {
        "more columns than rows": ((4, 7), [3, 1], {}),
        "three batches": ((7, 3), [3, 2, 2], {}),
        "many rows": ((64, 3), [20, 20, 20, 4], {"digits": 6}),
        "a column that does not vary": ((5, 2), [3, 2], {"flat": np.s_[:, 1]}),
    }
    for label, (shape, counts, how) in rows.items():
        yield _loader_case(label, drawn(shape, 1, 0, **how)["x"], counts)
    far = drawn((8, 2), 1, 0, offset=1e4, dtype=np.float32)["x"]
    yield _loader_case("mean 10,000 in float32", far, [4, 4], kind="float32")
    far = drawn((8, 2), 1, 0, offset=1e8)["x"]
    yield _loader_case("mean 100,000,000", far, [5, 3], kind="offset")


def _in_one_batch(args):
    return {"counts": np.array([len(args["x"])])}


_KEPT = "variances = np.array([batch.var(axis=0, ddof=1) for batch in batches])"
_about = {
    "reference": lambda x, counts: (x.mean(axis=0), x.var(axis=0, ddof=1)),
    "inputs": _loader_cases,
    "properties": (
        *(
            stays(
                f"{output} stays as it is if all rows come in one batch",
                output,
                _in_one_batch,
            )
            for output in ("running_mean", "running_var")
        ),
        Property(
            "a variance is never negative",
            lambda args, out: (
                np.minimum(out["running_var"], 0),
                0 * out["running_var"],
            ),
        ),
    ),
    "wrong_lines": {
        "variances = np.array([batch.var(axis=0) for batch in batches])": {
            "mean-of-variances: unbiased": _KEPT,
            "mean-of-variances: Algorithm 2": _KEPT,
            "corrected-twice": _KEPT,
            "corrected-too-early": _KEPT,
            "running-average": _KEPT,
            "std-instead-of-variance: kept": (
                "variances = np.array([batch.std(axis=0) for batch in batches])"
            ),
        },
        "share = counts[:, None] / counts.sum()": {
            "mean-of-variances: unbiased": "share = 1 / len(counts)",
            "running-average": (
                "share = 0.1 * 0.9 ** np.arange(len(counts))[::-1, None]"
            ),
        },
        "mean = (share * means).sum(axis=0)": {
            "last-batch": "mean = means[-1]",
            "last-batch: mean": "mean = means[-1]",
        },
        "between = (means - mean) ** 2": {
            "mean-of-variances: unbiased": "between = 0",
            "mean-of-variances: Algorithm 2": "between = 0",
            "mean-of-variances: weighted": "between = 0",
            "running-average": "between = 0",
        },
        "var = (share * (variances + between)).sum(axis=0)": {
            "last-batch": "var = variances[-1]",
            "last-batch: variance": "var = variances[-1]",
        },
        "n = counts.sum()": {
            "last-batch": "n = counts[-1]",
            "wrong-count: batches": "n = len(counts)",
            "wrong-count: last batch": "n = counts[-1]",
            "wrong-count: longest batch": "n = counts.max()",
        },
        "running_var = var * n / (n - 1)": {
            "biased-running-variance": "running_var = var",
            "corrected-too-early": "running_var = var",
            "mean-of-variances: weighted": "running_var = var",
            "mean-of-variances: unbiased": "running_var = var",
            "mean-of-variances: Algorithm 2": "running_var = var",
            "running-average": "running_var = var + 0.9 ** len(counts)",
            "upside-down": "running_var = var * (n - 1) / n",
            "std-instead-of-variance: at the end": (
                "running_var = np.sqrt(var * n / (n - 1))"
            ),
        },
        "return mean, running_var": {
            "swapped-outputs": "return running_var, mean",
        },
    },
    "words": """
missing-between-variance
The distance between the batches' means is missing from the variance.
Two batches, all zeros and all tens: each has variance 0. And together?

mean-of-variances
A plain average of variances: the means' distance and the counts are lost.
Two batches, all zeros and all tens: each has variance 0. And together?

mean-of-variances: weighted
You average the batches' biased variances: the distance of their means is lost.
Two batches, all zeros and all tens: each has variance 0. And together?

mean-of-variances: unbiased
You average the batches' unbiased variances, each batch counting the same.
Two batches, all zeros and all tens: each has variance 0. And together?

mean-of-variances: Algorithm 2
You average unbiased variances, as Algorithm 2 of the paper does.
Two batches, all zeros and all tens: each has variance 0. And together?

corrected-twice
You correct the variance of each batch, and that of all rows, too.
How often may n be replaced by n - 1?

corrected-too-early
You correct the variance of each batch; what is merged has to be biased.
Merge first. How many rows are there then, and when does n - 1 come in?

running-average
This is the running average with momentum 0.1, as in training.
What are the old values worth after all batches were seen? And the first batch?

last-batch
You return the statistics of the last batch.
Put the rows of the last batch first: should the result move?

last-batch: mean
You return the mean of the last batch.
Put the rows of the last batch first: should the result move?

last-batch: variance
Your variance is that of the last batch.
Put the rows of the last batch first: should the result move?

unweighted
Every batch counts the same, however long it is.
The last batch of an epoch is often short. What should a row of it be worth?

missing-mean
Between the batches you square the means themselves, not their distances.
Add 100 to all of x. Should the variance change?

wrong-center
The distances are not taken from the mean of all rows.
From which point is the variance of all rows measured?

wrong-count
The correction takes n for something else than the number of all rows.
Of how many values is this the variance?

upside-down
The correction is upside down.
Which of the two is larger, the biased variance or the unbiased one?

std-instead-of-variance: kept
You keep deviations where variances belong.
A variance has the units of x squared. Count your square roots.

std-instead-of-variance: at the end
You return a standard deviation where a variance belongs.
A variance has the units of x squared. Count your square roots.
    """,
}


EXERCISE = Exercise(
    name="recalibrate",
    title="Recalibrate",
    chapter="20_many_machines",
    outputs=("running_mean", "running_var"),
    hints=(
        (
            "np.split(x, np.cumsum(counts)[:-1]) are the batches. What is each of "
            "them worth?"
        ),
        (
            "Merge biased variances, with the distances between the means; "
            "correct at the end, once."
        ),
    ),
    stub='''\
def recalibrate(x, counts):
    """A loader hands out the rows of x (N, C) in batches, one after another, counts[k]
    rows in the k-th; of each batch its mean and its variance are kept. Return
    (running_mean, running_var), both (C,): the mean and the unbiased variance of all
    rows together.
    """
    raise NotImplementedError("write recalibrate")
''',
    source="""\
def recalibrate(x, counts):
    batches = np.split(x, np.cumsum(counts)[:-1])
    means = np.array([batch.mean(axis=0) for batch in batches])
    variances = np.array([batch.var(axis=0) for batch in batches])
    share = counts[:, None] / counts.sum()
    mean = (share * means).sum(axis=0)
    between = (means - mean) ** 2
    var = (share * (variances + between)).sum(axis=0)
    n = counts.sum()
    running_var = var * n / (n - 1)
    return mean, running_var
""",
    **_about,
)
