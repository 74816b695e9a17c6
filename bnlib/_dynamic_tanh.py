"""From chapters/15_transformers.ipynb.

Extracted by `make export`: edit the notebook, not this file.
"""

import numbers

from bnlib._batch_norm import affine, affine_backward
from bnlib._declare import (
    check_floats,
    check_like,
    check_number,
    library,
    takes,
    widen,
)

__all__ = ["dynamic_tanh", "dynamic_tanh_backward"]


def one_number(*, usual):
    """Declare a number, or an array or tensor of one value, which becomes one ()."""

    def look(name, value, given):
        if isinstance(value, numbers.Real):
            check_number(name, value, -float("inf"), float("inf"), usual)
            return float(value)
        check_floats(name, value)
        value = widen(value)
        check_like(name, value, given["x"], "x")
        if value.reshape(-1).shape[0] != 1:
            what = f"{name} must be one number, got shape {tuple(value.shape)}"
            raise ValueError(f"{what}; what differs from feature to feature is gamma")
        return value.reshape(())

    look.said = "number, array or tensor of one value"
    return look


@takes(x="N ... D", alpha=one_number(usual=0.5), gamma="D?", beta="D?")
def dynamic_tanh(x, alpha, gamma=None, beta=None):
    """Squash every value of x by itself, then scale and shift each feature.

    y = gamma tanh(alpha x) + beta

    Source: Zhu, Chen, He, LeCun & Liu 2025, equation 1.
    """
    return affine(library(x).tanh(alpha * x), gamma, beta)


@takes(x="N ... D", dy="x", alpha=one_number(usual=0.5), gamma="D?")
def dynamic_tanh_backward(dy, x, alpha, gamma=None):
    """Return the gradients (dx, dalpha, dgamma, dbeta) of dynamic tanh.

    dx = alpha g, with g = gamma (1 - t^2) dy and t = tanh(alpha x)
    dalpha = sum(g x),   dgamma = sum(dy t),   dbeta = sum(dy)

    Source: Zhu, Chen, He, LeCun & Liu 2025, equation 1, differentiated.
    """
    t = library(x).tanh(alpha * x)
    g = affine(dy, gamma) * (1 - t**2)
    axes = tuple(range(x.ndim - 1))
    return alpha * g, (g * x).sum(), *affine_backward(dy, t, axes)
