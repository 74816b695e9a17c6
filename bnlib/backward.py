"""Chapter 4, The backward pass: chapters/04_backward.ipynb.

Extracted by `make export`: edit the notebook, not this file.
The derivation is the page chapters/04_backward.html of the book.
"""

from bnlib.batch_normalization import batch_axes
from bnlib.gradient_checking import check_floats, check_like, check_shape, narrow, widen

__all__ = ["batch_norm_backward"]


def batch_norm_backward(dy, cache):
    r"""Return the gradients (dx, dgamma, dbeta) of batch normalization.

    dx = (g - <g> - xhat <g xhat>) / std, with g = gamma dy and <.> the batch mean
    dgamma = sum(dy xhat),   dbeta = sum(dy)

    dy : gradient of the loss with respect to y, shape and dtype of y. cache : what
    `batch_norm` returned. Shapes: dx (N, C, ...) as x; dgamma, dbeta (C,), also where
    gamma or beta were left out. numpy arrays or torch tensors.
    Raises TypeError or ValueError for a dy that is not a finite floating-point array of
    the shape of y. Source: Ioffe & Szegedy 2015, section 3, collapsed as in chapter 4.
    """
    if len(cache) != 3:
        cure = "y, cache = batch_norm(x); batch_norm_backward(dy, cache)"
        raise ValueError(f"cache must be what batch_norm returned second: {cure}")
    xhat, std, gamma = cache
    check_floats("dy", dy)
    check_shape("dy", dy, xhat.shape, "that is the shape of y")
    check_like("dy", dy, xhat, "y")
    axes, xhat, wide = batch_axes(xhat), widen(xhat), widen(dy)
    dbeta = wide.sum(axis=axes)
    dgamma = (wide * xhat).sum(axis=axes)
    g = wide if gamma is None else gamma * wide
    g_mean = g.mean(axis=axes, keepdims=True)
    g_xhat = (g * xhat).mean(axis=axes, keepdims=True)
    dx = (g - g_mean - xhat * g_xhat) / std
    return narrow(dx, dy), narrow(dgamma, dy), narrow(dbeta, dy)
