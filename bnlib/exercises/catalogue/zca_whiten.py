"""From chapters/02_whitening.ipynb.

Extracted by `make export`: edit the notebook, not this file.
"""

import numpy as np

import bnlib
from bnlib.exercises._cases import TINY, Case, Property, drawn, far_from_zero, spreads
from bnlib.exercises._exercise import Exercise


def _whiten_cases():
    crossed = np.array([[3.0, 1.0], [1.0, 3.0], [-3.0, -1.0], [-1.0, -3.0]])
    yield Case("four points", {"x": crossed, "eps": TINY})
    yield Case("mean (10, 20)", {"x": crossed + np.array([10, 20]), "eps": TINY})
    yield Case("eps = 4", {"x": crossed, "eps": 4.0})
    yield from spreads({"x": crossed, "eps": 4.0})
    yield Case("one row", {"x": np.array([[1.0, 2.0]]), "eps": 0.5})
    yield Case("one column", drawn((5, 1), 1, 0.5))
    flat = np.concatenate([crossed, np.full((4, 1), 5.0)], axis=1)
    yield Case("a column that does not vary", {"x": flat, "eps": 0.5})
    for rows, c, eps in ((4, 3, 0.1), (6, 2, 0.3), (9, 4, 2.0), (64, 5, 1e-3)):
        mix = np.random.default_rng(7).normal(size=(c, c)) + np.eye(c)
        x = (drawn((rows, c), 1, eps)["x"] @ mix).round(2)
        yield Case(f"{rows} rows, {c} columns", {"x": x, "eps": eps})
    yield from far_from_zero((9, 3), 1)


def _variances(args, out):
    """The variances along the main axes: as they are, and as they should be."""
    covariances = (np.cov(a.T, bias=True) for a in (out["xw"], args["x"]))
    found, before = (np.linalg.eigvalsh(np.atleast_2d(c)) for c in covariances)
    return found, before / (before + args["eps"])


def _mixed(args, out):
    centred = args["x"] - args["x"].mean(axis=0)
    mixed = centred.T @ out["xw"] / len(centred)
    return mixed, mixed.T


_about = {
    "reference": lambda x, eps: bnlib.zca_whiten(x, eps=eps)[0],
    "inputs": _whiten_cases,
    "properties": (
        Property(
            "the columns of xw have mean 0",
            lambda args, out: ((m := out["xw"].mean(axis=0)), 0 * m),
        ),
        Property("along its main axes xw has the variances λ / (λ + eps)", _variances),
        Property(
            "x is multiplied by a symmetric matrix: so is its covariance with xw",
            _mixed,
        ),
    ),
    "wrong_lines": {
        "centred = x - x.mean(axis=0)": {
            "correlation: of scaled columns": (
                "centred = (x - x.mean(axis=0)) / np.maximum(x.std(axis=0), 1e-9)"
            ),
            "wrong-axis": "centred = x - x.mean(axis=1, keepdims=True)",
            "wrong-axis: everything": "centred = x - x.mean()",
            "transposed": "centred = x.T - x.T.mean(axis=0)",
        },
        "covariance = centred.T @ centred / len(x)": {
            "eps-everywhere": "covariance = centred.T @ centred / len(x) + eps",
            "missing-mean: in the covariance, summed": "covariance = x.T @ x",
            "missing-mean: nor divided": "covariance = x.T @ x",
            "missing-mean: np.cov, own eps": (
                "covariance = centred.T @ centred / (len(x) - 1)"
            ),
            "wrong-count": "covariance = centred.T @ centred / x.shape[1]",
            "transposed": "covariance = centred.T @ centred / x.shape[1]",
            "unbiased-variance": "covariance = centred.T @ centred / (len(x) - 1)",
            "sum-instead-of-mean": "covariance = centred.T @ centred",
            "missing-mean: in the covariance": "covariance = x.T @ x / len(x)",
            "missing-mean: throughout": "covariance = x.T @ x / len(x)",
            "cancellation": (
                "covariance = x.T @ x / len(x) - np.outer(x.mean(0), x.mean(0))"
            ),
            "batch-norm-instead": "covariance = np.diag(x.var(axis=0))",
            "correlation": "covariance = np.corrcoef(x.T)",
        },
        "scale = 1 / np.sqrt(np.maximum(values, 0) + eps)": {
            "eps-everywhere": "scale = 1 / np.sqrt(abs(values))",
            "missing-mean: np.cov, own eps": (
                "scale = 1 / np.sqrt(np.maximum(values, 0) + C)"
            ),
            "wrong-eps: any": "scale = 1 / np.sqrt(np.maximum(values, 0) + C)",
            "wrong-eps: beside": (
                "scale = 1 / np.sqrt(np.maximum(values, 0) + eps + C)"
            ),
            "wrong-eps: any, outside": (
                "scale = 1 / (np.sqrt(np.maximum(values, 0)) + C)"
            ),
            "wrong-eps: floor of any size": (
                "scale = 1 / np.sqrt(np.maximum(values, C))"
            ),
            "missing-eps": "scale = 1 / np.sqrt(np.maximum(values, 0))",
            "eps-outside-root": "scale = 1 / (np.sqrt(np.maximum(values, 0)) + eps)",
            "wrong-eps: own": "scale = 1 / np.sqrt(np.maximum(values, 0) + 1e-5)",
            "wrong-eps: floor": "scale = 1 / np.sqrt(np.maximum(values, eps))",
            "variance-instead-of-std": "scale = 1 / (values + eps)",
            "multiplies-by-std": "scale = np.sqrt(np.maximum(values, 0) + eps)",
            "missing-scale": "scale = 1",
        },
        "xw = (centred @ vectors) * scale @ vectors.T": {
            "missing-mean: nor divided": "xw = (x @ vectors) * scale @ vectors.T",
            "missing-mean: np.cov, own eps": "xw = (x @ vectors) * scale @ vectors.T",
            "transposed": "xw = ((centred @ vectors) * scale @ vectors.T).T",
            "missing-mean": "xw = (x @ vectors) * scale @ vectors.T",
            "missing-mean: throughout": "xw = (x @ vectors) * scale @ vectors.T",
            "pca-instead-of-zca": "xw = (centred @ vectors) * scale",
            "transposed-eigenvectors": "xw = (centred @ vectors.T) * scale @ vectors",
            "cholesky-instead-of-zca": (
                "L = np.linalg.cholesky(covariance + eps * np.eye(len(covariance))); "
                "xw = centred @ np.linalg.inv(L).T"
            ),
        },
    },
    "words": """
batch-norm-instead
You scale each column by itself: columns that vary together still do.
Take two equal columns. Are yours uncorrelated afterwards?

missing-mean: in the covariance
Your covariance is made of x as it is, so the mean counts as spread.
Add 100 to a column of x. Should the covariance change?

transposed
You whiten the transpose: the examples become uncorrelated, not the columns.
How large is your covariance? It should have one row per column of x.

missing-mean: in the covariance, summed
Your covariance is made of x as it is, and of sums where means belong.
Add 100 to a column of x. Should the covariance change?

missing-mean: nor divided
The mean is not subtracted, and the products are added up, not averaged.
Add 100 to a column of x. Should the covariance change?

missing-mean: np.cov, own eps
np.cov centres and divides by n − 1; what you whiten is not centred, nor is eps used.
Add 100 to a column of x. Should the result move?

wrong-count
You divide the covariance by the wrong number.
Over how many examples does it average?

wrong-eps: floor of any size
A number of your own is the lower limit of the eigenvalues; eps is not added.
Call your function with eps = 4: something must change.

correlation: of scaled columns
You divide each column by its deviation before whitening.
A correlation has forgotten how large each column is.

eps-everywhere
You add eps to every entry of the covariance; only the diagonal gets it.
covariance + eps adds a number to all entries. Which matrix adds to the eigenvalues?

correlation
You whiten with the correlation matrix instead of the covariance.
A correlation has forgotten how large each column is.

pca-instead-of-zca
This is PCA whitening: white, but still turned into the eigenvectors' axes.
ZCA stays as close to x as it can. Which rotation has to be undone?

cholesky-instead-of-zca
White, but turned: Cholesky's solution, perhaps, not the symmetric one.
ZCA multiplies by a symmetric matrix. Is yours?

transposed-eigenvectors
The eigenvectors are used as rows; they are the columns.
Check: covariance @ vectors should equal vectors * values.
    """,
}


EXERCISE = Exercise(
    name="zca_whiten",
    title="Whiten a batch",
    chapter="02_whitening",
    outputs=("xw",),
    hints=(
        ("np.linalg.eigh takes a symmetric matrix apart, into values and vectors."),
        ("Put it together again with 1 / sqrt(values + eps) in the middle."),
    ),
    stub='''\
def zca_whiten(x, eps):
    """Whiten x (N, C): subtract the mean, multiply by the symmetric inverse root of the
    biased covariance, eps added to its eigenvalues. Return xw (N, C).
    """
    raise NotImplementedError("write zca_whiten")
''',
    source="""\
def zca_whiten(x, eps):
    centred = x - x.mean(axis=0)
    covariance = centred.T @ centred / len(x)
    values, vectors = np.linalg.eigh(covariance)
    scale = 1 / np.sqrt(np.maximum(values, 0) + eps)
    xw = (centred @ vectors) * scale @ vectors.T
    return xw
""",
    **_about,
)
