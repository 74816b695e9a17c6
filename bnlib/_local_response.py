"""From chapters/10_inception.ipynb.

Extracted by `make export`: edit the notebook, not this file.
"""

import numbers

from bnlib._declare import (
    check_floats,
    check_like,
    check_number,
    check_shape,
    fails,
    library,
    narrow,
    widen,
)

__all__ = ["local_response_norm", "local_response_norm_backward"]


def neighbour_sum(x, before, after):
    """Sum x over channels c - before ... c + after, (N, C, ...) -> (N, C, ...).

    Channels that do not exist count as zero. x : numpy array or torch tensor.
    """
    of, channels = library(x), x.shape[1]
    before, after = min(before, channels - 1), min(after, channels - 1)
    nothing = of.zeros_like(x[:, :1])
    padded = of.concatenate([nothing] * before + [x] + [nothing] * after, 1)
    return sum(padded[:, k : k + channels] for k in range(before + after + 1))


def check_size(size):
    """Raise a ValueError with a cure unless size is a whole number from 1 on."""
    whole = isinstance(size, numbers.Integral) and not isinstance(size, bool)
    if not whole or size < 1:
        cure = "5 is usual"
        raise ValueError(f"size must be a whole number from 1 on, got {size!r}; {cure}")


def _check_energy(d):
    """Raise a ValueError with a cure unless d is positive and finite everywhere."""
    if fails(d > 0):
        raise ValueError("k + alpha * energy is zero somewhere; pass a positive k")
    if fails(d < float("inf")):
        raise ValueError(f"the energy of x overflows {d.dtype}; scale x down")


def local_response_norm(x, *, size, alpha=1e-4, beta=0.75, k=1.0):
    r"""Divide every value by the energy of the channels around it.

    y_c = x_c / d_c^beta,   d_c = k + (alpha / size) sum over W(c) of x_j^2

    x : numpy array or torch tensor (N, C, L, ...), floating-point. size : int, the
    channels in the window W(c) = c - size//2 ... c + (size-1)//2. alpha, beta, k :
    numbers, alpha and k >= 0, |beta| <= 1000; alpha is divided by size as in PyTorch.

    Returns (y, cache): y of the shape and dtype of x; cache = (x, d, size, alpha,
    beta), for `local_response_norm_backward`. Sums are taken in float64.
    Raises TypeError and ValueError naming the argument, also where d is 0 or overflows.
    Source: Krizhevsky et al. 2012, section 3.3 (where alpha is not divided).
    """
    check_floats("x", x, min_ndim=3, layout="(N, C, L), (N, C, H, W) or more axes")
    check_size(size)
    check_number("alpha", alpha, 0, float("inf"), 1e-4)
    check_number("beta", beta, -1000, 1000, 0.75)
    check_number("k", k, 0, float("inf"), 1)
    wide = widen(x)
    d = k + alpha / size * neighbour_sum(wide * wide, size // 2, (size - 1) // 2)
    _check_energy(d)
    return narrow(wide / d**beta, x), (x, d, size, alpha, beta)


def local_response_norm_backward(dy, cache):
    """Return dx, the gradient of the loss with respect to x of `local_response_norm`.

    dx_c = dy_c / d_c^beta - (2 alpha beta / size) x_c sum_j dy_j x_j / d_j^(beta + 1),
    over the channels j whose window holds c

    dy : array of the shape, library and dtype of x, else ValueError or TypeError.
    cache : what `local_response_norm` returned. Source: chapter 10.
    """
    if len(cache) != 5:
        cure = "y, cache = local_response_norm(x, ...)"
        raise ValueError(f"cache must be what that function returned second: {cure}")
    x, d, size, alpha, beta = cache
    check_floats("dy", dy)
    check_shape("dy", dy, x.shape, "x has it")
    check_like("dy", dy, x, "x")
    mirrored, wide, pull = ((size - 1) // 2, size // 2), widen(x), widen(dy)
    through = neighbour_sum(pull * wide / d ** (beta + 1), *mirrored)
    return narrow(pull / d**beta - 2 * alpha * beta / size * wide * through, dy)
