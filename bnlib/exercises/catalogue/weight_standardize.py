"""From chapters/16_without_normalization.ipynb.

Extracted by `make export`: edit the notebook, not this file.
"""

import numpy as np

import bnlib
from bnlib.exercises._cases import (
    TINY,
    Property,
    drawn,
    one_change_at_a_time,
    plain,
    spreads,
    stays,
)
from bnlib.exercises._cases import Case as _Case
from bnlib.exercises._exercise import Exercise


def _of_weights(given):
    """The arguments of a normalizer, by the names that weights have here."""
    return {"weight": given["x"], "gain": given["gamma"], "eps": given["eps"]}


def _weight_cases():
    tiny = _of_weights(plain([[[[1]], [[3]]]], 0))
    yield from one_change_at_a_time(tiny, gain=2, eps=3)
    for case in spreads({**plain([[[[0, 2]]]], 0), "eps": 1.0}):
        yield case._replace(args=_of_weights(case.args))
    yield _Case("one weight a unit", _of_weights(drawn((3, 1, 1, 1), 0, 0.5)))
    yield _Case("one unit", _of_weights(drawn((1, 3, 1, 2), 0, 0.5)))
    yield _Case("two units", _of_weights(drawn((2, 1, 1, 2), 0, TINY)))
    yield _Case("two columns", _of_weights(plain([[[[1, 3], [5, 7]]]], 0)))
    yield _Case("three units of six weights", _of_weights(drawn((3, 2, 1, 3), 0, 0.5)))
    yield _Case("all axes alike", _of_weights(drawn((3, 3, 3, 3), 0, 1e-5)))
    flat = drawn((4, 2, 2, 1), 0, 1e-3, flat=np.s_[1])
    yield _Case("a unit that does not vary", _of_weights(flat))
    yield _Case(
        "eps as large as the variance", _of_weights(drawn((2, 4, 1, 3), 0, 9.0))
    )
    yield _Case("many units", _of_weights(drawn((16, 2, 3, 3), 0, 1e-6, digits=6)))
    single = drawn((3, 4, 2, 2), 0, 0.1, offset=1e4, dtype=np.float32)
    yield _Case("mean 10,000 in float32", _of_weights(single), "float32")
    double = drawn((3, 4, 2, 2), 0, 0.1, offset=1e8)
    yield _Case("mean 100,000,000", _of_weights(double), "offset")


_about = {
    "reference": lambda weight, gain, eps: bnlib.weight_standardize(
        weight, gain, eps=eps
    )[0],
    "inputs": _weight_cases,
    "properties": (
        Property(
            "the weights of every unit add up to 0",
            lambda args, out: (
                out["y"].mean(axis=(1, 2, 3)),
                0 * out["y"].mean(axis=(1, 2, 3)),
            ),
        ),
        stays(
            "y should stay as it is if a constant is added to all weights",
            "y",
            lambda args: {"weight": args["weight"] + 2},
        ),
    ),
    "wrong_lines": {
        "axes = (1, 2, 3)": {
            "batch-norm-instead": "axes = (0, 2, 3)",
            "wrong-axis: inputs alone": "axes = 1",
            "per-filter-statistics": "axes = (2, 3)",
            "wrong-axis: everything": "axes = (0, 1, 2, 3)",
        },
        "gamma = gain.reshape(-1, 1, 1, 1)": {
            "missing-gain": "gamma = 1",
            "wrong-broadcast: of the gain": "gamma = gain.reshape(1, -1, 1, 1)",
        },
        "var = ((x - mean) ** 2).mean(axis=axes, keepdims=True)": {
            "weight-norm-instead: squares": (
                "var = (x**2).mean(axis=axes, keepdims=True)"
            ),
            "unbiased-variance: as in the first code": (
                "var = x.var(axis=axes, keepdims=True, ddof=1)"
            ),
        },
        "std = np.sqrt(var + eps)": {
            "sum-instead-of-mean: by fan-in": (
                "std = np.sqrt(var + eps) * np.sqrt(x[0].size)"
            ),
        },
        "xhat = (x - mean) / std": {
            "weight-norm-instead": "xhat = x / std",
            "only-centred": "xhat = x - mean",
        },
        "y = gamma * xhat": {
            "gain-added": "y = gamma + xhat",
        },
    },
    "words": """
per-filter-statistics
Every kernel has its own mean; a unit adds up all of its inputs' kernels.
How many weights take part in one output value?

wrong-axis: inputs alone
You average over the inputs, at every place of the kernel by itself.
How many weights take part in one output value?

batch-norm-instead
The first axis of weights counts the units; it must not be averaged over.
Change one unit's weights. Should another one's change?

weight-norm-instead
Nothing is subtracted where you divide: only the length is normalized.
What should the weights of a unit add up to?

weight-norm-instead: squares
Your variance is the mean square: the mean was not taken out of it.
Add 100 to all weights of a unit. What should become of y?

only-centred
You subtract the mean and never divide.
Multiply a unit's weights by 10. What should become of y?

missing-gain
The gain is not used.
Set all gains to 2. What should become of y?

gain-added
You add the gain; it is a factor.
Set all gains to 0. What should be left?

wrong-broadcast: of the gain
The gain meets the weights along their inputs, and belongs to their units.
The weights are (O, I, kh, kw), the gain (O,). Which axis is which?

sum-instead-of-mean: by fan-in
You also divide by the root of the number of weights; in the scaled form gain does.
Which variance should the weights of a unit have in the end?
    """,
}


EXERCISE = Exercise(
    name="weight_standardize",
    title="Weight standardization",
    chapter="16_without_normalization",
    outputs=("y",),
    hints=(
        ("Layer normalization of the weights: which axes belong to one unit?"),
        ("All but the first; gain needs three axes of length 1 to line up with them."),
    ),
    stub='''\
def weight_standardize(weight, gain, eps):
    """Give the weights (O, I, kh, kw) of every output unit mean 0 and variance 1, eps
    added to the biased variance; then multiply those of each unit by its gain (O,).
    Return y.
    """
    raise NotImplementedError("write weight_standardize")
''',
    source="""\
def weight_standardize(weight, gain, eps):
    axes = (1, 2, 3)
    gamma = gain.reshape(-1, 1, 1, 1)
    x = weight
    mean = x.mean(axis=axes, keepdims=True)
    var = ((x - mean) ** 2).mean(axis=axes, keepdims=True)
    std = np.sqrt(var + eps)
    xhat = (x - mean) / std
    y = gamma * xhat
    return y
""",
    **_about,
)
