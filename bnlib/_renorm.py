"""From chapters/13_renormalization.ipynb.

Extracted by `make export`: edit the notebook, not this file.
"""

import numbers
import sys

from bnlib._batch_norm import (
    affine,
    affine_backward,
    batch_axes,
    moments,
    normalize_backward,
)
from bnlib._declare import Number, cache_of, library, takes

__all__ = [
    "batch_renorm",
    "ramp",
    "rmax_schedule",
    "dmax_schedule",
    "batch_renorm_backward",
]


def stop_gradient(a):
    """Return a as a constant: autograd sees no road through it.

    a : numpy array (returned as it is) or torch tensor (detached). Source: Ioffe 2017.
    """
    if library(a).__name__ == "jax.numpy":
        return sys.modules["jax"].lax.stop_gradient(a)
    return a.detach() if hasattr(a, "detach") else a


def correction(mean, std, running_mean, running_std, rmax, dmax):
    """Return r and d, which turn batch norm into what inference does, within limits.

    r = clip(std / running_std, 1/rmax, rmax)
    d = clip((mean - running_mean) / running_std, -dmax, dmax)

    They are constants, see `stop_gradient`. Source: Ioffe 2017, Algorithm 1.
    """
    r = (std / running_std).clip(1 / rmax, rmax)
    d = ((mean - running_mean) / running_std).clip(-dmax, dmax)
    return stop_gradient(r), stop_gradient(d)


def limit(low, usual):
    """Declare a limit, a number from `low` on; infinity is fine."""

    def look(name, value, _=None):
        real = isinstance(value, numbers.Real) and not isinstance(value, bool)
        if not (real and value >= low):
            cure = f"{usual} is usual, {low} turns the correction off"
            raise ValueError(f"{name} must be a number >= {low}, got {value!r}; {cure}")
        return value

    look.said = f"number from {low} on"
    return look


check_rmax, check_dmax = limit(1, usual=3), limit(0, usual=5)


@takes(
    "xhat std gamma r d",
    x="N C ...",
    rmax=check_rmax,
    dmax=check_dmax,
    running_mean="C",
    running_std="C > 0",
    gamma="C?",
    beta="C?",
    eps=Number(0, usual=1e-5),
)
def batch_renorm(x, gamma, beta, running_mean, running_std, *, rmax, dmax, eps=1e-5):
    """Normalize every channel over the batch, correct it towards running statistics.

    y = gamma * (r * xhat + d) + beta,   xhat = (x - mean) / std,  std = sqrt(var + eps)

    r and d are those of `correction`, constants: no gradient flows through them.
    rmax = 1 and dmax = 0 give `batch_norm`, inf and inf give
    gamma * (x - running_mean) / running_std + beta. Source: Ioffe 2017, Algorithm 1.
    """
    mean, var = moments(x, batch_axes(x))
    std = (var + eps) ** 0.5
    r, d = correction(mean, std, running_mean, running_std, rmax, dmax)
    xhat = (x - mean) / std
    return affine(r * xhat + d, gamma, beta), (xhat, std, gamma, r, d)


def ramp(step, *, start, end, low, high):
    """Return low up to step `start`, high from `end` on, and a straight line between.

    With functools.partial(ramp, start=..., ...) a schedule is made of it.

    Source: Ioffe 2017, section 4.

    Parameters
    ----------
    step, start, end, low, high : float
        start < end, else ValueError.

    Returns
    -------
    value : float
    """
    if not start < end:
        raise ValueError(f"end must be after start = {start}, got {end}; swap them?")
    share = (step - start) / (end - start)
    return low + (high - low) * min(max(share, 0.0), 1.0)


def rmax_schedule(step):
    """Return the paper's rmax: 1 for 5,000 steps, then growing to 3 at 40,000."""
    return ramp(step, start=5_000, end=40_000, low=1.0, high=3.0)


def dmax_schedule(step):
    """Return the paper's dmax: 0 for 5,000 steps, then growing to 5 at 25,000."""
    return ramp(step, start=5_000, end=25_000, low=0.0, high=5.0)


@takes(cache=cache_of(batch_renorm), dy="y")
def batch_renorm_backward(dy, cache):
    """Return the gradients (dx, dgamma, dbeta) of batch renormalization.

    dx = (g - <g> - xhat <g xhat>) / std, with g = gamma r dy and <.> the batch mean
    dgamma = sum(dy (r xhat + d)),   dbeta = sum(dy)

    r and d count as constants: this is the gradient that trains, and where they are not
    clipped it is not the derivative of the forward pass. Source: Ioffe 2017, section 3.
    """
    xhat, std, gamma, r, d = cache
    axes = batch_axes(xhat)
    dx = normalize_backward(affine(r * dy, gamma), xhat, std, axes)
    return dx, *affine_backward(dy, r * xhat + d, axes)
