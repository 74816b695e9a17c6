"""From chapters/13_renormalization.ipynb.

Extracted by `make export`: edit the notebook, not this file.
"""

import bnlib
from bnlib.exercises._cases import Property, batch_cases
from bnlib.exercises._exercise import Exercise

_about = {
    "reference": lambda *args: bnlib.batch_renorm(
        *args[:5], rmax=args[5], dmax=args[6], eps=args[7]
    )[0],
    "inputs": lambda: batch_cases(
        [[1], [3]], gamma=2, beta=5, eps=3, rmax=1.25, dmax=0.5
    ),
    "properties": (
        Property(
            "with rmax = 1 and dmax = 0 this is batch normalization",
            lambda args, out, _: (
                out["y"],
                bnlib.batch_norm(
                    args["x"], args["gamma"], args["beta"], eps=args["eps"]
                )[0],
            ),
            lambda args: {"rmax": 1.0, "dmax": 0.0},
        ),
        Property(
            "with rmax and dmax huge, only the running statistics are left in y",
            lambda args, out, _: (
                out["y"],
                args["gamma"] * (args["x"] - args["running_mean"]) / args["running_std"]
                + args["beta"],
            ),
            lambda args: {"rmax": 1e9, "dmax": 1e9},
        ),
    ),
    "wrong_lines": {
        "y = gamma * xhat + beta": {
            "d-unscaled": "y = gamma * xhat + d + beta",
        },
        "xhat = r * xhat + d": {
            "d-unscaled": "xhat = r * xhat",
            "r-scales-d": "xhat = r * (xhat + d)",
        },
    },
    "words": """
batch-norm-instead
This is batch normalization: neither r nor d is there.
Keep x and change running_mean. Should the result stay as it is?

missing-mean
The batch's mean is not subtracted.
With dmax = 0, add 100 to all of x. Should the result move?

missing-d
d is missing.
Set dmax = 0: only then may d disappear.

d-unscaled
You add d after the multiplication by gamma.
y = gamma · (r · xhat + d) + beta: what is inside the parentheses?

r-scales-d
You multiply d by r as well.
Unclipped, y is (x − running_mean) / running_std. Insert your r and d.
    """,
}


EXERCISE = Exercise(
    name="batch_renorm",
    title="Batch renormalization",
    chapter="13_renormalization",
    outputs=("y",),
    hints=(
        ("Find r and d such that r * xhat + d = (x - running_mean) / running_std."),
        (
            "r = std / running_std, d = (mean - running_mean) / running_std; "
            "np.clip both."
        ),
    ),
    stub='''\
def batch_renorm(x, gamma, beta, running_mean, running_std, rmax, dmax, eps):
    """Batch renormalization of x (N, C): y = gamma * (r * xhat + d) + beta; r and d
    lead from the batch's statistics to the running ones, r clipped to 1/rmax ... rmax
    and d to -dmax ... dmax. The deviation of the batch is sqrt(var + eps). Return y.
    """
    raise NotImplementedError("write batch_renorm")
''',
    source="""\
def batch_renorm(x, gamma, beta, running_mean, running_std, rmax, dmax, eps):
    axes = 0
    mean = x.mean(axis=axes, keepdims=True)
    var = ((x - mean) ** 2).mean(axis=axes, keepdims=True)
    std = np.sqrt(var + eps)
    xhat = (x - mean) / std
    r = std / running_std
    r = np.clip(r, 1 / rmax, rmax)
    d = (mean - running_mean) / running_std
    d = np.clip(d, -dmax, dmax)
    xhat = r * xhat + d
    y = gamma * xhat + beta
    return y
""",
    **_about,
)
