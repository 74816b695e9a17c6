"""Chapter 3, Batch normalization: chapters/03_batch_normalization.ipynb.

Extracted by `make export`: edit the notebook, not this file.
The derivation is the page chapters/03_batch_normalization.html of the book.
"""

from bnlib.gradient_checking import (
    check_floats,
    check_like,
    check_number,
    check_shape,
    fails,
    narrow,
    widen,
)

__all__ = [
    "moments",
    "check_variance",
    "normalize",
    "affine",
    "batch_axes",
    "per_channel",
    "batch_norm",
]


def moments(x, axes=0):
    r"""Return mean and (biased) variance of x over `axes`, kept as axes of length 1.

    mean = (1/m) sum(x),   var = (1/m) sum((x - mean)^2)

    x : floating-point array or tensor. axes : int or tuple of ints.
    Shapes: (N, C) -> (1, C) for axes=0; (N, C, H, W) -> (1, C, 1, 1) for (0, 2, 3).
    dtype and device of the results are those of x; sums are taken in float64, see
    `widen`. Raises what `check_floats` raises.
    Source: Ioffe & Szegedy 2015, Algorithm 1, lines 1 and 2.
    """
    check_floats("x", x, min_ndim=1, layout="with an axis to average over")
    wide = widen(x)
    mean = wide.mean(axis=axes, keepdims=True)
    var = ((wide - mean) ** 2).mean(axis=axes, keepdims=True)
    return narrow(mean, x), narrow(var, x)


def check_variance(var, eps):
    """Raise ValueError unless var + eps is positive and finite everywhere."""
    check_number("eps", eps, 0, float("inf"), 1e-5)
    if fails(abs(var) < float("inf")):
        cure = "convert x to a wider dtype, or scale it down"
        raise ValueError(f"the variance of x overflows {var.dtype}; {cure}")
    if fails(var + eps > 0):
        cure = "pass a positive eps; 1e-5 is usual"
        raise ValueError(f"a feature does not vary and eps is {eps}, so 0/0; {cure}")


def normalize(x, mean, var, eps=1e-5):
    r"""Return xhat = (x - mean) / sqrt(var + eps).

    x : numpy array or torch tensor. mean, var : the same, broadcasting against x.
    eps : number >= 0 added to the variance, in the units of x squared.
    Shape and dtype of x are kept. Raises TypeError or ValueError for input that is not
    finite floating-point, of mixed dtypes, or with var + eps not positive.
    Source: Ioffe & Szegedy 2015, Algorithm 1, line 3.
    """
    check_floats("x", x)
    for name, moment in (("mean", mean), ("var", var)):
        check_floats(name, moment)
        check_like(name, moment, x, "x")
    check_variance(var, eps)
    return (x - mean) / (var + eps) ** 0.5


def affine(xhat, gamma=None, beta=None):
    """Return y = gamma * xhat + beta; None stands for gamma = 1 or beta = 0.

    xhat : array or tensor. gamma, beta : anything that broadcasts against it.
    Source: Ioffe & Szegedy 2015, Algorithm 1, line 4.
    """
    y = xhat if gamma is None else gamma * xhat
    return y if beta is None else y + beta


def batch_axes(x):
    """Return the axes batch normalization averages over: all but axis 1."""
    return (0, *range(2, x.ndim))


def per_channel(name, p, x):
    """Return the parameter p, shape (C,), shaped to broadcast along axis 1 of x.

    (C,) -> (1, C, 1, ...). None stays None. Raises ValueError for another length and
    TypeError for another dtype than that of x.
    """
    if p is None:
        return None
    check_floats(name, p)
    check_shape(name, p, (x.shape[1],), f"x has {x.shape[1]} channels in axis 1")
    check_like(name, p, x, "x")
    return p.reshape(1, -1, *[1] * (x.ndim - 2))


def batch_norm(x, gamma=None, beta=None, *, eps=1e-5):
    r"""Normalize every channel of x over the batch, then scale and shift it.

    y = gamma * (x - mean) / sqrt(var + eps) + beta, moments over all axes but 1

    x : numpy array or torch tensor (N, C, ...), floating-point. gamma, beta : (C,), of
    the dtype of x; None stands for 1 and 0. eps : number >= 0, inside the root.

    Returns (y, cache): y of the shape and dtype of x; cache = (xhat, std, gamma), with
    std = sqrt(var + eps), for `batch_norm_backward`. Sums are taken in float64, see
    `widen`. One value per channel gives y = beta.
    Raises TypeError and ValueError naming the argument, see `check_floats`,
    `per_channel`, `check_variance`.
    In torch.nn, gamma is called `weight` and beta `bias`.
    Source: Ioffe & Szegedy 2015, Algorithm 1.
    """
    check_floats("x", x, min_ndim=2, layout="(N, C) or (N, C, ...)")
    gamma, beta = per_channel("gamma", gamma, x), per_channel("beta", beta, x)
    wide = widen(x)
    mean, var = moments(wide, batch_axes(x))
    check_variance(var, eps)  # an overflow is named as what it is
    xhat = normalize(wide, mean, var, eps)
    y = affine(xhat, gamma, beta)
    return narrow(y, x), (narrow(xhat, x), (var + eps) ** 0.5, gamma)
