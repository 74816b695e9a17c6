"""From chapters/15_transformers.ipynb.

Extracted by `make export`: edit the notebook, not this file.
"""

import numpy as np

import bnlib
from bnlib.exercises._cases import Property, row_cases
from bnlib.exercises._exercise import Exercise


def _block(x, gamma, up, down, eps):
    return x + np.maximum(bnlib.rms_norm(x, gamma, eps=eps)[0] @ up, 0) @ down


def _block_cases():
    rng = np.random.default_rng(15)
    for case in row_cases([[1, 7]], level=0.0, far=False, gamma=2, eps=11):
        width = case.args["x"].shape[1]
        up, down = rng.normal(size=(2, width + 1, width))
        if case.label in ("a large spread", "eps as large as the variance"):
            up = 1e4 * up  # what the branch says counts for more than x
        if case.label == "the smallest input" or "=" in case.label:
            up, down = np.ones((2, 3, width))
        yield case._replace(args={**case.args, "up": up.T, "down": down})


_SQUARE = "(y**2).mean(axis=axes, keepdims=True)"
_about = {
    "reference": _block,
    "inputs": _block_cases,
    "properties": (
        Property(
            "with down = 0 the branch is 0, and y is x",
            lambda args, out, before: (out["y"], args["x"]),
            lambda args: {"down": 0 * args["down"]},
        ),
    ),
    "wrong_lines": {
        "square = (x**2).mean(axis=axes, keepdims=True)": {
            "layer-norm-instead": "square = x.var(axis=axes, keepdims=True)",
            "sum-instead-of-mean": "square = (x**2).sum(axis=axes, keepdims=True)",
        },
        "rms = np.sqrt(square + eps)": {
            "missing-eps": "rms = np.sqrt(square)",
            "eps-outside-root": "rms = np.sqrt(square) + eps",
            "variance-instead-of-std": "rms = square + eps",
        },
        "xhat = x / rms": {
            "layer-norm-instead": "xhat = (x - x.mean(axis=axes, keepdims=True)) / rms",
            "skip-through-norm: x overwritten": "xhat = x = x / rms",
        },
        "h = gamma * xhat": {
            "missing-norm": "h = x",
            "missing-norm: gamma alone": "h = gamma * x",
            "missing-gamma": "h = xhat",
            "post-norm-instead": "h = x",
            "norm-after-branch": "h = x",
        },
        "a = np.maximum(h @ up, 0)": {
            "missing-relu": "a = h @ up",
        },
        "branch = a @ down": {
            "missing-relu: at the end": "branch = np.maximum(a @ down, 0)",
            "norm-after-branch": (
                f"y = a @ down; branch = gamma * y / np.sqrt({_SQUARE} + eps)"
            ),
            "norm-before-and-after": (
                f"y = a @ down; branch = gamma * y / np.sqrt({_SQUARE} + eps)"
            ),
        },
        "y = x + branch": {
            "missing-skip": "y = branch",
            "sign-error": "y = x - branch",
            "skip-through-norm": "y = h + branch",
            "post-norm-instead": (
                f"y = x + branch; y = gamma * y / np.sqrt({_SQUARE} + eps)"
            ),
            "post-norm-instead: as well": (
                f"y = x + branch; y = gamma * y / np.sqrt({_SQUARE} + eps)"
            ),
        },
    },
    "words": """
post-norm-instead
This is post-norm: the sum of skip and branch is normalized, the branch reads x bare.
Multiply x by 100. In a pre-norm block y must grow about as much.

post-norm-instead: as well
You normalize the sum of skip and branch as well.
Multiply x by 100. In a pre-norm block y must grow about as much.

norm-after-branch
The norm stands behind the branch, which reads x bare.
Where does the first matrix stand, before the norm or after it?

norm-before-and-after
You normalize what the branch puts out as well.
How many norms has one half of a pre-norm block?

skip-through-norm
What you add on the skip is the normalized x; the stream itself is lost.
With down = 0, y must be x.

missing-norm
Nothing is normalized: the branch reads x bare.
Multiply x by 100. What should the branch add?

missing-skip
You return the branch alone.
With down = 0, y must be x.

missing-relu
The ReLU stands between the two matrices, and there alone.
What becomes of a negative entry of h @ up?

layer-norm-instead
The mean is subtracted; RMS normalization leaves it in.
Read the formula again: which of layer norm's steps is missing in it?

sum-instead-of-mean
You divide by the length of the row: its squares are summed up.
Write a row twice in a row: what it is divided by must not change.
    """,
}


EXERCISE = Exercise(
    name="pre_norm_block",
    title="A pre-norm block",
    chapter="15_transformers",
    outputs=("y",),
    hints=(
        (
            "Norm, branch, skip, in this order; what the skip adds has not been "
            "normalized."
        ),
        (
            "Give the normalized x a name of its own: the last line needs x as it "
            "came in."
        ),
    ),
    stub='''\
def pre_norm_block(x, gamma, up, down, eps):
    """Add to every row of x (N, D) a branch that reads it through RMS normalization,
    scale gamma (D,), eps under the root. The branch: two matrices, up (D, H) and down
    (H, D), with a ReLU between. Return y.
    """
    raise NotImplementedError("write pre_norm_block")
''',
    source="""\
def pre_norm_block(x, gamma, up, down, eps):
    axes = 1
    square = (x**2).mean(axis=axes, keepdims=True)
    rms = np.sqrt(square + eps)
    xhat = x / rms
    h = gamma * xhat
    a = np.maximum(h @ up, 0)
    branch = a @ down
    y = x + branch
    return y
""",
    **_about,
)
