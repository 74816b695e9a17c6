"""From chapters/02_whitening.ipynb.

Extracted by `make export`: edit the notebook, not this file.
"""

import numpy as np

import bnlib
from bnlib.exercises._cases import TINY, Case, drawn, far_from_zero
from bnlib.exercises._exercise import Exercise


def _whiten_cases():
    crossed = np.array([[3.0, 1.0], [1.0, 3.0], [-3.0, -1.0], [-1.0, -3.0]])
    yield Case("four points", {"x": crossed, "eps": TINY})
    yield Case("mean (10, 20)", {"x": crossed + np.array([10, 20]), "eps": TINY})
    yield Case("eps = 4", {"x": crossed, "eps": 4.0})
    flat = np.concatenate([crossed, np.full((4, 1), 5.0)], axis=1)
    yield Case("a column that does not vary", {"x": flat, "eps": 0.5})
    for rows, c, eps in ((4, 3, 0.1), (6, 2, 0.3), (9, 4, 2.0), (64, 5, 1e-3)):
        mix = np.random.default_rng(7).normal(size=(c, c)) + np.eye(c)
        x = (drawn((rows, c), 1, eps)["x"] @ mix).round(2)
        yield Case(f"{rows} rows, {c} columns", {"x": x, "eps": eps})
    yield from far_from_zero((9, 3), 1)


_about = {
    "reference": lambda x, eps: bnlib.zca_whiten(x, eps=eps)[0],
    "inputs": _whiten_cases,
    "wrong_lines": {
        "covariance = centred.T @ centred / len(x)": {
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
            "missing-eps": "scale = 1 / np.sqrt(np.maximum(values, 0))",
            "eps-outside-root": "scale = 1 / (np.sqrt(np.maximum(values, 0)) + eps)",
            "wrong-eps: own": "scale = 1 / np.sqrt(np.maximum(values, 0) + 1e-5)",
            "wrong-eps: floor": "scale = 1 / np.sqrt(np.maximum(values, eps))",
            "variance-instead-of-std": "scale = 1 / (values + eps)",
            "multiplies-by-std": "scale = np.sqrt(np.maximum(values, 0) + eps)",
            "missing-scale": "scale = 1",
        },
        "xw = (centred @ vectors) * scale @ vectors.T": {
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
