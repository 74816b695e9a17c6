"""From chapters/20_many_machines.ipynb.

Extracted by `make export`: edit the notebook, not this file.
"""

import numpy as np

import bnlib
from bnlib.exercises._cases import VARIANCE_IS_POSITIVE, Case, Property, drawn, spreads
from bnlib.exercises._exercise import Exercise


def _merge_case(label, counts, means, variances, **more):
    arrays = (np.array(a, dtype=float) for a in (means, variances))
    names = ("counts", "means", "variances")
    return Case(
        label, dict(zip(names, (np.array(counts), *arrays), strict=True)), **more
    )


def _merge_cases():
    yield _merge_case("equal counts", [2, 2], [[1], [1]], [[1], [3]])
    yield _merge_case("means that differ", [2, 2], [[0], [4]], [[1], [3]])
    yield _merge_case("different counts", [1, 3], [[2], [2]], [[9], [1]])
    both = _merge_case("both differ", [1, 3], [[0], [4]], [[9], [1]])
    yield both
    yield _merge_case("one worker", [3], [[2, 4]], [[9, 1]])
    yield _merge_case("one example each", [1, 1], [[0], [4]], [[0], [0]])
    yield from spreads(both.args, {"means": 1, "variances": 2}, scaled=True)
    for workers, columns, offset in (
        (3, 2, 0.0),
        (2, 3, 0.0),
        (4, 4, 0.0),
        (3, 2, 1e8),
    ):
        made = drawn((workers, columns), 1, 0, offset=offset)
        rng = np.random.default_rng(workers)
        counts = rng.integers(2, 9, size=workers)
        variances = rng.uniform(0.5, 4, size=(workers, columns)).round(1)
        label = f"{workers} workers, {columns} columns"
        kind = "offset" if offset else "ordinary"
        label = "means of 100,000,000" if offset else label
        yield _merge_case(label, counts, made["x"], variances, kind=kind)


_about = {
    "reference": bnlib.merge_moments,
    "inputs": _merge_cases,
    "properties": (
        VARIANCE_IS_POSITIVE,
        *(
            Property(
                f"{output} stays if a worker is listed as two halves of its examples",
                lambda args, out, before, output=output: (out[output], before[output]),
                lambda args: {n: np.repeat(a, 2, axis=0) for n, a in args.items()},
            )
            for output in ("mean", "var")
        ),
        Property(
            "one worker alone gives back its own variance",
            lambda args, out, _: (out["var"], args["variances"][0]),
            lambda args: {n: a[:1] for n, a in args.items()},
        ),
    ),
    "wrong_lines": {
        "var = (share * (variances + between)).sum(axis=0)": {
            "unbiased-variance": (
                "share = counts[:, None] / (counts.sum() - 1); var = (share"
                " * (variances + between)).sum(axis=0)"
            ),
            "unbiased-variance: in and out": (
                "k = counts[:, None]; var = ((k - 1) * variances + k"
                " * between).sum(axis=0) / (counts.sum() - 1)"
            ),
            "unbiased-variance: of each": (
                "share = (counts[:, None] - 1) / (counts.sum() - len(counts)); var "
                "= (share * (variances + between)).sum(axis=0)"
            ),
        },
        "return mean, var": {
            "swapped-outputs": "return var, mean",
            "std-instead-of-variance: at the end": "return mean, np.sqrt(var)",
        },
    },
    "words": """
mean-of-variances
A plain average of variances: the means' distance and the counts are lost.
Two workers, all zeros and all tens: each has variance 0. And together?

missing-mean
Between the workers you square the means themselves, not their distances.
Add 100 to all means. Should the variance change?

unweighted
Every worker counts the same, however many examples it saw.
Give one worker 99 examples and the other 1: whose mean should win?

missing-between-variance
The distance between the workers' means is missing from the variance.
Two workers, all zeros and all tens: each has variance 0. And together?

wrong-center
The distances are not taken from the merged mean.
From which point is the variance of all examples measured?
    """,
}


EXERCISE = Exercise(
    name="merge_moments",
    title="Merge the moments of many machines",
    chapter="20_many_machines",
    outputs=("mean", "var"),
    hints=(
        ("Weight each worker by its share of the examples."),
        ("The variance has two parts: within the workers, and between their means."),
    ),
    stub='''\
def merge_moments(counts, means, variances):
    """Several workers each saw counts[w] examples with mean means[w] (C,) and biased
    variance variances[w] (C,). Return (mean, var), both (C,), of all examples together.
    """
    raise NotImplementedError("write merge_moments")
''',
    source="""\
def merge_moments(counts, means, variances):
    share = counts[:, None] / counts.sum()
    mean = (share * means).sum(axis=0)
    between = (means - mean) ** 2
    var = (share * (variances + between)).sum(axis=0)
    return mean, var
""",
    **_about,
)
