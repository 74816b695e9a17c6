"""From chapters/14_other_axes.ipynb.

Extracted by `make export`: edit the notebook, not this file.
"""

import bnlib
from bnlib.exercises._cases import Property, row_cases, same_slope
from bnlib.exercises._exercise import Exercise


def _along_x(args, out):
    """sum(dx · x) in each row, and what eps leaves of it: 0 but for eps."""
    x, square = args["x"], (args["x"] ** 2).mean(axis=1)
    straight = (args["dy"] * args["gamma"] * x).sum(axis=1)
    rest = args["eps"] / (square + args["eps"])
    return (out["dx"] * x).sum(axis=1), straight * rest / (square + args["eps"]) ** 0.5


_about = {
    "reference": lambda dy, x, gamma, eps: bnlib.rms_norm_backward(
        dy, bnlib.rms_norm(x, gamma, eps=eps)[1]
    ),
    "inputs": lambda: row_cases([[1, 7]], level=0.0, far=False, gamma=2, eps=11),
    "properties": (
        Property(
            "sum(dx · x) in each row is 0 but for eps: a row twice as long has the "
            "same output",
            _along_x,
        ),
        same_slope(bnlib.rms_norm),
    ),
    "wrong_lines": {
        "square = (x**2).mean(axis=axes, keepdims=True)": {
            "layer-norm-instead": (
                "x = x - x.mean(axis=axes, keepdims=True); "
                "square = (x**2).mean(axis=axes, keepdims=True)"
            ),
            "layer-norm-instead: throughout": (
                "x = x - x.mean(axis=axes, keepdims=True); "
                "square = (x**2).mean(axis=axes, keepdims=True)"
            ),
            "eps-outside-root: throughout": (
                "square = (x**2).mean(axis=axes, keepdims=True)"
            ),
        },
        "rms = np.sqrt(square + eps)": {
            "eps-outside-root: throughout": "rms = np.sqrt(square) + eps",
        },
        "xhat = x / rms": {
            "missing-scale": "xhat = x",
            "multiplies-by-std: xhat": "xhat = x * rms",
        },
        "dxhat = dy * gamma": {
            "gamma-after-averaging": "dxhat = dy",
        },
        "via_square = (dxhat * xhat).mean(axis=axes, keepdims=True)": {
            "missing-gamma: in the averages": (
                "via_square = (dy * xhat).mean(axis=axes, keepdims=True)"
            ),
            "detached-statistics": "via_square = 0",
            "sum-instead-of-mean: of dx": (
                "via_square = (dxhat * xhat).sum(axis=axes, keepdims=True)"
            ),
            "wrong-count": (
                "via_square = (dxhat * xhat).sum(axis=axes, keepdims=True) / len(x)"
            ),
            "wrong-count: all values": (
                "via_square = (dxhat * xhat).sum(axis=axes, keepdims=True) / x.size"
            ),
            "wrong-axis: of dx": "via_square = (dxhat * xhat).mean()",
            "batch-in-statistics: of dx": (
                "via_square = (dxhat * xhat).mean(axis=0, keepdims=True)"
            ),
            "missing-factor-two": (
                "via_square = (dxhat * xhat).mean(axis=axes, keepdims=True) / 2"
            ),
            "missing-factor-two: too much": (
                "via_square = 2 * (dxhat * xhat).mean(axis=axes, keepdims=True)"
            ),
            "wrong-broadcast": "via_square = (dxhat * xhat).mean(axis=axes)",
        },
        "dx = (dxhat - xhat * via_square) / rms": {
            "layer-norm-instead: in dx": (
                "dx = (dxhat - dxhat.mean(axis=axes, keepdims=True)"
                " - xhat * via_square) / rms"
            ),
            "layer-norm-instead: throughout": (
                "dx = (dxhat - dxhat.mean(axis=axes, keepdims=True)"
                " - xhat * via_square) / rms"
            ),
            "gamma-after-averaging": "dx = (dxhat - xhat * via_square) / rms * gamma",
            "sign-error: of the square's term": (
                "dx = (dxhat + xhat * via_square) / rms"
            ),
            "sign-error: of dx": "dx = -(dxhat - xhat * via_square) / rms",
            "missing-xhat": "dx = (dxhat - via_square) / rms",
            "missing-parentheses: of dx, at the end": (
                "dx = dxhat - xhat * via_square / rms"
            ),
            "missing-scale: of dx": "dx = dxhat - xhat * via_square",
            "multiplies-by-std": "dx = (dxhat - xhat * via_square) * rms",
            "missing-eps: in front": (
                "dx = (dxhat - xhat * via_square) / np.sqrt(square)"
            ),
            "variance-instead-of-std: in front": (
                "dx = (dxhat - xhat * via_square) / rms**2"
            ),
            "wrong-power": "dx = (dxhat - x * via_square) / rms",
            "wrong-power: one too many": "dx = (dxhat - xhat * via_square / rms) / rms",
            "eps-outside-root: throughout": (
                "dx = (dxhat - xhat * rms / np.sqrt(square) * via_square) / rms"
            ),
        },
        "return dx, dgamma": {
            "swapped-outputs": "return dgamma, dx",
        },
    },
    "words": """
detached-statistics
You treat the root mean square as a constant: only the straight path is left.
x reaches y on two paths. Which one goes through the rest of its row?

layer-norm-instead
The mean is subtracted from x; RMS normalization leaves it in.
Read the formula again: which of layer norm's steps is missing in it?

layer-norm-instead: throughout
This is the gradient of layer normalization.
RMS normalization subtracts no mean. Which path is gone from dx?

layer-norm-instead: in dx
You subtract the mean's term from dx; the forward pass subtracts no mean.
On which paths does x reach y here?

sum-instead-of-mean
You divide by the length of the row: its squares are summed up.
Write the row twice in a row: what it is divided by must not change.

sum-instead-of-mean: of dx
The average inside dx is a sum: a division by D is missing.
Where does 1/D come from in the mean square? Its gradient keeps it.

wrong-count
The average inside dx divides by the number of rows.
How many values share one mean square? By that many it divides.

wrong-count: all values
The average inside dx divides by the number of all values of x.
How many values share one mean square? By that many it divides.

wrong-axis: of dx
The average inside dx is one number for the whole array.
Which values shared a mean square in the forward pass? Along them dx averages.

batch-in-statistics: of dx
The average inside dx runs over the batch; it belongs along the row.
Which values shared a mean square in the forward pass? Along them dx averages.

missing-factor-two
The second term of dx is off by a factor of two.
Derive a square root and a square once more: one brings 1/2, the other 2.

missing-xhat
The second term of dx lacks its factor xhat.
The derivative of the mean of x² still depends on x.

wrong-power
The second term of dx has the wrong power of the root mean square.
Multiply x by 10 and keep dy: all terms of dx must shrink by the same factor.

missing-scale
You never divide by the root mean square.
Multiply x by 10 and keep dy. What should become of dx?

missing-gamma: in the averages
The average inside dx lacks gamma.
All terms of dx start from the gradient at xhat. What is that?

gamma-after-averaging
You multiply by gamma after averaging; here gamma differs along the row.
A constant factor may leave an average. Is gamma constant along a row?

missing-parentheses: of dx, at the end
Only the last term of dx is divided by the root mean square.
Division binds more strongly than subtraction.
    """,
}


EXERCISE = Exercise(
    name="rms_norm_backward",
    title="RMS normalization, backward",
    chapter="14_other_axes",
    outputs=("dx", "dgamma"),
    hints=(
        ("There is no mean, so one of the paths of layer norm is gone. Which?"),
        (
            "dx has two terms: the straight one, and that of the mean square, "
            "along xhat."
        ),
    ),
    stub='''\
def rms_norm_backward(dy, x, gamma, eps):
    """The gradient of RMS normalization of the rows of x (N, D), eps under the root;
    gamma (D,). Return (dx, dgamma); dgamma (D,).
    """
    raise NotImplementedError("write rms_norm_backward")
''',
    source="""\
def rms_norm_backward(dy, x, gamma, eps):
    axes = 1
    param_axes = 0
    square = (x**2).mean(axis=axes, keepdims=True)
    rms = np.sqrt(square + eps)
    xhat = x / rms
    dxhat = dy * gamma
    via_square = (dxhat * xhat).mean(axis=axes, keepdims=True)
    dx = (dxhat - xhat * via_square) / rms
    dgamma = (dy * xhat).sum(axis=param_axes)
    return dx, dgamma
""",
    **_about,
)
