"""From chapters/14_other_axes.ipynb.

Extracted by `make export`: edit the notebook, not this file.
"""

import numpy as np

import bnlib
from bnlib.exercises._cases import (
    TINY,
    Property,
    drawn,
    one_change_at_a_time,
    spreads,
)
from bnlib.exercises._cases import Case as _Case
from bnlib.exercises._exercise import Exercise


def _styled(shape, other, eps, **how):
    """Two pictures at random; their positions may differ in number."""
    x, style = drawn(shape, 1, eps, **how)["x"], drawn(other, 1, eps, **how)["x"]
    return {"x": x, "style": style, "eps": eps}


def _style_cases():
    x, style = np.array([[[[1.0, 3.0]]]]), np.array([[[[0.0, 4.0]]]])
    base = {"x": x, "style": style, "eps": TINY}
    yield from one_change_at_a_time(base, eps=3)
    yield from spreads({**base, "eps": 1.0})
    yield _Case("one pixel", _styled((2, 3, 1, 1), (2, 3, 1, 1), 0.5))
    yield _Case("one image of one channel", _styled((1, 1, 2, 3), (1, 1, 3, 2), 0.5))
    yield _Case(
        "a style of four pixels", {**base, "style": np.array([[[[0.0, 4, 4, 8]]]])}
    )
    yield _Case("two channels", _styled((1, 2, 1, 3), (1, 2, 3, 2), TINY))
    yield _Case("two images", _styled((2, 1, 3, 2), (2, 1, 1, 4), 0.5))
    yield _Case("all axes alike", _styled((3, 3, 3, 3), (3, 3, 3, 4), 1e-5))
    flat = _styled((3, 2, 2, 2), (3, 2, 2, 3), 1e-3, flat=np.s_[:, 1])
    yield _Case("a channel that does not vary", flat)
    yield _Case(
        "eps as large as the variance", _styled((2, 4, 3, 2), (2, 4, 1, 2), 4.0)
    )
    yield _Case(
        "more channels than images", _styled((2, 5, 2, 2), (2, 5, 4, 4), 0.1, digits=6)
    )
    far = {"offset": 1e4, "dtype": np.float32}
    yield _Case(
        "mean 10,000 in float32",
        _styled((4, 2, 3, 2), (4, 2, 2, 2), 0.1, **far),
        "float32",
    )
    deep = _styled((4, 2, 3, 2), (4, 2, 2, 2), 0.1, offset=1e8)
    yield _Case("mean 100,000,000", deep, "offset")


_about = {
    "reference": lambda x, style, eps: bnlib.adaptive_instance_norm(x, style, eps=eps)[
        0
    ],
    "inputs": _style_cases,
    "properties": (
        Property(
            "the mean of y over the positions is that of the style",
            lambda args, out: (
                out["y"].mean(axis=(2, 3)),
                args["style"].mean(axis=(2, 3)),
            ),
        ),
        Property(
            "a picture that is its own style comes back as it is",
            lambda args, out, before: (out["y"], args["x"]),
            lambda args: {"style": args["x"]},
        ),
    ),
    "wrong_lines": {
        "beta = style.mean(axis=axes, keepdims=True)": {
            "style-of-x": "style = x; beta = style.mean(axis=axes, keepdims=True)",
            "one-style": "beta = style.mean(axis=(0, 2, 3), keepdims=True)",
        },
        "spread = ((style - beta) ** 2).mean(axis=axes, keepdims=True)": {
            "missing-mean: of the style": (
                "spread = (style**2).mean(axis=axes, keepdims=True)"
            ),
            "sum-instead-of-mean: of the style": (
                "spread = ((style - beta) ** 2).sum(axis=axes, keepdims=True)"
            ),
            "unbiased-variance: of the style": (
                "spread = style.var(axis=axes, keepdims=True, ddof=1)"
            ),
        },
        "gamma = np.sqrt(spread + eps)": {
            "variance-instead-of-std: of the style": "gamma = spread + eps",
            "missing-eps: of the style": "gamma = np.sqrt(spread)",
            "eps-outside-root: of the style": "gamma = np.sqrt(spread) + eps",
        },
        "y = gamma * xhat + beta": {
            "missing-contrast": "y = xhat + beta",
            "missing-brightness": "y = gamma * xhat",
            "keeps-the-mean": "y = gamma * xhat + mean",
            "not-styled": "y = xhat",
        },
    },
    "words": """
style-of-x
You take mean and deviation of x, and give x back.
Which picture should the new contrast come from?

one-style
All images get one mean; each has a style of its own.
Change the style of the second image. Which outputs should change?

missing-mean: of the style
The style's variance is its mean square: its mean was not taken out.
Add 100 to the style. What should become of y, and what of its spread?

sum-instead-of-mean: of the style
The style's squares are added up where they should be averaged.
Write the style twice side by side: y must not change.

unbiased-variance: of the style
The style's variance is divided by n - 1; here it is the biased one.
Take x itself as the style. What should come out?

variance-instead-of-std: of the style
You multiply by the style's variance; its root is the deviation.
Multiply the style by 10. By how much should y spread more?

missing-eps: of the style
eps is added to one variance and not to the other.
Take x itself as the style. What should come out, however large eps is?

eps-outside-root: of the style
eps is added to the style's deviation; it belongs to the variance.
Take x itself as the style. What should come out, however large eps is?

missing-contrast
The style's deviation is not used.
What is the spread of y, and what of the style?

missing-brightness
The style's mean is not used.
What is the mean of y, and what of the style?

keeps-the-mean
You add the old mean again, in place of the style's.
What is the mean of y, and what of the style?

not-styled
You return xhat: nothing of the style is in it.
Two numbers of each channel come from the style. Which?
    """,
}


EXERCISE = Exercise(
    name="adaptive_instance_norm",
    title="Adaptive instance normalization",
    chapter="14_other_axes",
    outputs=("y",),
    hints=(
        ("Instance normalization whose gamma and beta come from a picture."),
        (
            "Each picture is averaged over its own positions, one mean per image "
            "and channel."
        ),
    ),
    stub='''\
def adaptive_instance_norm(x, style, eps):
    """Give every channel of every image of x (N, C, H, W) the mean and the standard
    deviation of the same channel of the same image of style (N, C, h, w). Variances are
    biased, and eps is added to both. Return y, of the shape of x.
    """
    raise NotImplementedError("write adaptive_instance_norm")
''',
    source="""\
def adaptive_instance_norm(x, style, eps):
    axes = (2, 3)
    mean = x.mean(axis=axes, keepdims=True)
    var = ((x - mean) ** 2).mean(axis=axes, keepdims=True)
    std = np.sqrt(var + eps)
    xhat = (x - mean) / std
    beta = style.mean(axis=axes, keepdims=True)
    spread = ((style - beta) ** 2).mean(axis=axes, keepdims=True)
    gamma = np.sqrt(spread + eps)
    y = gamma * xhat + beta
    return y
""",
    **_about,
)
