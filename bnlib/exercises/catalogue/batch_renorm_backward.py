"""From chapters/13_renormalization.ipynb.

Extracted by `make export`: edit the notebook, not this file.
"""

import bnlib
from bnlib.exercises._cases import DBETA_IS_THE_SUM, Property, batch_cases, sums_to_zero
from bnlib.exercises._exercise import Exercise


def _gradient(dy, x, gamma, mean, std, rmax, dmax, eps):
    limits = {"rmax": rmax, "dmax": dmax, "eps": eps}
    _, cache = bnlib.batch_renorm(x, gamma, None, mean, std, **limits)
    return bnlib.batch_renorm_backward(dy, cache)


_about = {
    "reference": _gradient,
    "inputs": lambda: batch_cases(
        [[1], [3], [1], [3]], gamma=2, eps=3, rmax=1.25, dmax=0.5
    ),
    "properties": (
        sums_to_zero(0, "each column"),
        DBETA_IS_THE_SUM,
        Property(
            "with rmax = 1 and dmax = 0 dx is that of batch normalization",
            lambda args, out, _: (
                out["dx"],
                bnlib.batch_norm_backward(
                    args["dy"],
                    bnlib.batch_norm(args["x"], args["gamma"], eps=args["eps"])[1],
                )[0],
            ),
            lambda args: {"rmax": 1.0, "dmax": 0.0},
        ),
    ),
    "wrong_lines": {
        "dxhat = r * dxhat": {
            "missing-r: in dx": "dxhat = dxhat",
            "divides-by-r": "dxhat = dxhat / r",
            "gradient-through-r-d": "g = dxhat; dxhat = r * dxhat",
            "gradient-through-r-d: r": "g = dxhat; dxhat = r * dxhat",
            "gradient-through-r-d: d": "g = dxhat; dxhat = r * dxhat",
        },
        "r = np.clip(r, 1 / rmax, rmax)": {
            "gradient-through-r-d": (
                "raw = r; r = np.clip(r, 1 / rmax, rmax); free_r = r == raw"
            ),
            "gradient-through-r-d: r": (
                "raw = r; r = np.clip(r, 1 / rmax, rmax); free_r = r == raw"
            ),
        },
        "d = np.clip(d, -dmax, dmax)": {
            "gradient-through-r-d": (
                "raw = d; d = np.clip(d, -dmax, dmax); free_d = d == raw"
            ),
            "gradient-through-r-d: d": (
                "raw = d; d = np.clip(d, -dmax, dmax); free_d = d == raw"
            ),
        },
        "via_var = (dxhat * xhat).mean(axis=axes, keepdims=True)": {
            "corrected-xhat": (
                "via_var = (dxhat * (r * xhat + d)).mean(axis=axes, keepdims=True)"
            ),
        },
        "dx = (dxhat - via_mean - xhat * via_var) / std": {
            "gradient-through-r-d": (
                "dx = (dxhat - via_mean - xhat * via_var) / std + free_r * xhat * (g"
                " * xhat).mean(axis=axes, keepdims=True) / running_std + free_d"
                " * g.mean(axis=axes, keepdims=True) / running_std"
            ),
            "gradient-through-r-d: r": (
                "dx = (dxhat - via_mean - xhat * via_var) / std + free_r * xhat * (g"
                " * xhat).mean(axis=axes, keepdims=True) / running_std"
            ),
            "gradient-through-r-d: d": (
                "dx = (dxhat - via_mean - xhat * via_var) / std + free_d"
                " * g.mean(axis=axes, keepdims=True) / running_std"
            ),
            "corrected-xhat": (
                "dx = (dxhat - via_mean - (r * xhat + d) * via_var) / std"
            ),
        },
        "dgamma = (dy * (r * xhat + d)).sum(axis=param_axes)": {
            "wrong-dgamma: xhat": "dgamma = (dy * xhat).sum(axis=param_axes)",
            "wrong-dgamma: without d": "dgamma = (dy * r * xhat).sum(axis=param_axes)",
            "wrong-dgamma": "dgamma = (dy * x).sum(axis=param_axes)",
            "wrong-dgamma: dbeta": "dgamma = dy.sum(axis=param_axes)",
            "sign-error: of dgamma": (
                "dgamma = -(dy * (r * xhat + d)).sum(axis=param_axes)"
            ),
            "mean-instead-of-sum": (
                "dgamma = (dy * (r * xhat + d)).mean(axis=param_axes)"
            ),
        },
        "dbeta = dy.sum(axis=param_axes)": {
            "mean-instead-of-sum": "dbeta = dy.mean(axis=param_axes)",
        },
    },
    "words": """
divides-by-r
You divide by r where the formula multiplies.
Unclipped, y is (x − running_mean) / running_std. Insert your r and d.

gradient-through-r-d
You differentiate through r or d; both count as constants.
Read what the paper says about r and d in the backward pass.

corrected-xhat
Inside dx you put r · xhat + d where the plain xhat belongs.
The variance acts on xhat, before r and d. Which one is differentiated?

wrong-dgamma: xhat
dgamma is made of the plain xhat: the correction by r and d is missing.
What exactly does gamma multiply in the forward pass?

wrong-dgamma: without d
dgamma lacks d.
What exactly does gamma multiply in the forward pass?
    """,
}


EXERCISE = Exercise(
    name="batch_renorm_backward",
    title="Batch renormalization, backward",
    chapter="13_renormalization",
    outputs=("dx", "dgamma", "dbeta"),
    hints=(
        (
            "With r and d constant, r is one more factor beside gamma on the way "
            "to xhat."
        ),
        ("dx is batch norm's, for gamma * r. gamma multiplies r * xhat + d, not xhat."),
    ),
    stub='''\
def batch_renorm_backward(dy, x, gamma, running_mean, running_std, rmax, dmax, eps):
    """The gradient of batch renormalization, dy and x (N, C), as in its paper: r and d
    count as constants. Return (dx, dgamma, dbeta).
    """
    raise NotImplementedError("write batch_renorm_backward")
''',
    source="""\
def batch_renorm_backward(dy, x, gamma, running_mean, running_std, rmax, dmax, eps):
    axes = 0
    param_axes = 0
    mean = x.mean(axis=axes, keepdims=True)
    var = ((x - mean) ** 2).mean(axis=axes, keepdims=True)
    std = np.sqrt(var + eps)
    xhat = (x - mean) / std
    r = std / running_std
    r = np.clip(r, 1 / rmax, rmax)
    d = (mean - running_mean) / running_std
    d = np.clip(d, -dmax, dmax)
    dxhat = dy * gamma
    dxhat = r * dxhat
    via_mean = dxhat.mean(axis=axes, keepdims=True)
    via_var = (dxhat * xhat).mean(axis=axes, keepdims=True)
    dx = (dxhat - via_mean - xhat * via_var) / std
    dgamma = (dy * (r * xhat + d)).sum(axis=param_axes)
    dbeta = dy.sum(axis=param_axes)
    return dx, dgamma, dbeta
""",
    **_about,
)
