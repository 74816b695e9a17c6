"""From chapters/15_transformers.ipynb.

Extracted by `make export`: edit the notebook, not this file.
"""

import bnlib
from bnlib.exercises._cases import DBETA_IS_THE_SUM, Case, drawn, row_cases
from bnlib.exercises._exercise import Exercise


def _tanh_cases():
    for k, case in enumerate(row_cases([[1, 3], [2, -1]], far=False, gamma=2)):
        if case.label != "a long row":  # whose dalpha is a small sum of large terms
            alpha = (0.5, -0.25, 1.5)[k % 3]
            yield case._replace(args={**case.args, "alpha": alpha})
    fine = drawn((3, 5), 1, 1, digits=6)
    yield Case("numbers of six digits", {**fine, "alpha": 0.123456})


_about = {
    "reference": lambda dy, x, alpha, gamma: bnlib.dynamic_tanh_backward(
        dy, x, alpha, gamma
    ),
    "inputs": _tanh_cases,
    "properties": (DBETA_IS_THE_SUM,),
    "flexible": True,
    "wrong_lines": {
        "t = np.tanh(alpha * x)": {
            "missing-alpha": "t = np.tanh(x)",
            "missing-alpha: throughout": "t = np.tanh(x)",
        },
        "dt = dy * gamma": {
            "missing-gamma": "dt = dy",
            "divides-by-gamma": "dt = dy / gamma",
        },
        "g = dt * (1 - t**2)": {
            "missing-derivative": "g = dt",
            "missing-square": "g = dt * (1 - t)",
            "sign-error": "g = dt * (1 + t**2)",
            "missing-derivative: tanh itself": "g = dt * t",
        },
        "dx = alpha * g": {
            "missing-alpha: of dx": "dx = g",
            "missing-alpha: throughout": "dx = g",
            "sign-error: of dx": "dx = -alpha * g",
            "divides-by-alpha": "dx = g / alpha",
        },
        "dalpha = (g * x).sum()": {
            "wrong-dalpha": "dalpha = (g * x * alpha).sum()",
            "wrong-dalpha: no x": "dalpha = g.sum()",
            "wrong-dalpha: t for x": "dalpha = (g * t).sum()",
            "wrong-dalpha: one each": "dalpha = (g * x).sum(axis=0)",
            "mean-instead-of-sum: of dalpha": "dalpha = (g * x).mean()",
        },
        "dgamma = (dy * t).sum(axis=param_axes)": {
            "wrong-dgamma": "dgamma = (dy * x).sum(axis=param_axes)",
            "wrong-dgamma: gamma": "dgamma = (dy * t * gamma).sum(axis=param_axes)",
            "wrong-dgamma: dbeta": "dgamma = dy.sum(axis=param_axes)",
            "mean-instead-of-sum": "dgamma = (dy * t).mean(axis=param_axes)",
        },
        "return dx, dalpha, dgamma, dbeta": {
            "swapped-gamma-beta": "return dx, dalpha, dbeta, dgamma",
        },
    },
    "words": """
missing-alpha
alpha is missing inside the tanh.
Call your function with alpha = 0: every tanh must be 0.

missing-alpha: of dx
dx lacks the factor alpha of the chain rule.
y depends on alpha x. How fast does that change with x?

divides-by-alpha
You divide by alpha where the chain rule multiplies.
y depends on alpha x. How fast does that change with x?

missing-derivative
The derivative of tanh is missing.
Take x = 100: y hardly moves with x there. What must dx be?

missing-derivative: tanh itself
A tanh stands where its derivative belongs.
Take x = 0: tanh is steepest there. What is its slope?

missing-square
The derivative of tanh is 1 less its square.
Take x = -100: y hardly moves with x there. What must dx be?

wrong-dalpha
dalpha is not the derivative with respect to alpha.
Hold x still and move alpha: by what is each change multiplied?

wrong-dalpha: one each
You return one dalpha per feature; all features share one alpha.
How many numbers did alpha have?

mean-instead-of-sum
You average where the gradient adds up.
Write every row twice: each copy of a parameter's use adds its share.
    """,
}


EXERCISE = Exercise(
    name="dynamic_tanh_backward",
    title="Dynamic tanh, backward",
    chapter="15_transformers",
    outputs=("dx", "dalpha", "dgamma", "dbeta"),
    hints=(
        (
            "The derivative of tanh is 1 - tanh squared. The chain rule gives a "
            "factor for x and one for alpha."
        ),
        (
            "All values share one alpha, the values of a column share a gamma and "
            "a beta: over these the sums run."
        ),
    ),
    stub='''\
def dynamic_tanh_backward(dy, x, alpha, gamma):
    """The gradient of y = gamma tanh(alpha x) + beta for x (N, D), a number alpha, and
    gamma (D,). Return (dx, dalpha, dgamma, dbeta); dalpha is a number, dgamma and dbeta
    (D,).
    """
    raise NotImplementedError("write dynamic_tanh_backward")
''',
    source="""\
def dynamic_tanh_backward(dy, x, alpha, gamma):
    param_axes = 0
    t = np.tanh(alpha * x)
    dt = dy * gamma
    g = dt * (1 - t**2)
    dx = alpha * g
    dalpha = (g * x).sum()
    dgamma = (dy * t).sum(axis=param_axes)
    dbeta = dy.sum(axis=param_axes)
    return dx, dalpha, dgamma, dbeta
""",
    **_about,
)
