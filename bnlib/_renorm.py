"""From chapters/13_renormalization.ipynb.

Extracted by `make export`: edit the notebook, not this file.
"""

import numbers
import sys

from bnlib._batch_norm import (
    affine,
    batch_axes,
    batch_norm_backward,
    check_variance,
    moments,
    normalize,
    per_channel,
)
from bnlib._declare import check_floats, fails, library, narrow, widen

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


def check_limits(rmax, dmax):
    """Raise ValueError unless rmax is a number >= 1 and dmax one >= 0; inf is fine."""
    for name, limit, low, usual in (("rmax", rmax, 1, 3), ("dmax", dmax, 0, 5)):
        real = isinstance(limit, numbers.Real) and not isinstance(limit, bool)
        if not (real and limit >= low):
            cure = f"{usual} is usual, {low} turns the correction off"
            raise ValueError(f"{name} must be a number >= {low}, got {limit!r}; {cure}")


def correction(mean, std, running_mean, running_std, rmax, dmax):
    r"""Return r and d, which turn batch norm into what inference does, within limits.

    r = clip(std / running_std, 1/rmax, rmax)
    d = clip((mean - running_mean) / running_std, -dmax, dmax)

    All arrays or tensors that broadcast; r and d are constants, see `stop_gradient`.
    rmax >= 1, dmax >= 0. Source: Ioffe 2017, Algorithm 1.
    """
    r = (std / running_std).clip(1 / rmax, rmax)
    d = ((mean - running_mean) / running_std).clip(-dmax, dmax)
    return stop_gradient(r), stop_gradient(d)


def batch_renorm(x, gamma, beta, running_mean, running_std, *, rmax, dmax, eps=1e-5):
    r"""Normalize every channel over the batch, correct it towards running statistics.

    y = gamma * (r * xhat + d) + beta,   xhat = (x - mean) / std,  std = sqrt(var + eps)
    r = clip(std / running_std, 1/rmax, rmax)
    d = clip((mean - running_mean) / running_std, -dmax, dmax)

    x : numpy array or torch tensor (N, C, ...), floating-point. gamma, beta : (C,) or
    None for 1 and 0. running_mean, running_std : (C,), averages of earlier batches'
    mean and std; running_std > 0 includes eps. All of the dtype of x; nothing is
    changed in place. rmax >= 1, dmax >= 0; 1 and 0 give `batch_norm`, inf and inf give
    gamma * (x - running_mean) / running_std + beta. r and d are constants: no gradient
    flows through them, in `batch_renorm_backward` as under torch's autograd.

    Returns (y, cache), y of the shape and dtype of x; sums are taken in float64.
    Raises TypeError and ValueError naming the argument.
    Source: Ioffe 2017, Algorithm 1.
    """
    check_floats("x", x, min_ndim=2, layout="(N, C) or (N, C, ...)")
    check_limits(rmax, dmax)
    running = {"running_mean": running_mean, "running_std": running_std}
    for name, statistic in running.items():
        check_floats(name, statistic)
        running[name] = per_channel(name, statistic, x)
    if fails(running_std > 0):
        cure = "start it at 1, and average sqrt(var + eps) into it"
        raise ValueError(f"running_std must be > 0, got a value that is not; {cure}")
    gamma, beta = per_channel("gamma", gamma, x), per_channel("beta", beta, x)
    wide = widen(x)
    mean, var = moments(wide, batch_axes(x))
    check_variance(var, eps)
    std = (var + eps) ** 0.5
    r, d = correction(mean, std, *running.values(), rmax, dmax)
    xhat = normalize(wide, mean, var, eps)
    y = affine(r * xhat + d, gamma, beta)
    return narrow(y, x), (narrow(xhat, x), std, gamma, r, d)


def ramp(step, *, start, end, low, high):
    """Return low up to step `start`, high from `end` on, and a straight line between.

    Numbers, start < end, else ValueError. With functools.partial(ramp, start=..., ...)
    a schedule is made of it. Source: Ioffe 2017, section 4.
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


def batch_renorm_backward(dy, cache):
    r"""Return the gradients (dx, dgamma, dbeta) of batch renormalization.

    dx = (g - <g> - xhat <g xhat>) / std, with g = gamma r dy and <.> the batch mean
    dgamma = sum(dy (r xhat + d)),   dbeta = sum(dy)

    r and d count as constants: this is the gradient that trains, and where they are not
    clipped it is not the derivative of the forward pass. dy : shape and dtype of y.
    cache : what `batch_renorm` returned. Shapes: dx as x; dgamma, dbeta (C,), also
    where gamma or beta were left out. Raises TypeError or ValueError for a dy that is
    not a finite floating-point array of the shape of y. Source: Ioffe 2017, section 3.
    """
    if len(cache) != 5:
        cure = "y, cache = batch_renorm(x, ...); batch_renorm_backward(dy, cache)"
        raise ValueError(f"cache must be what batch_renorm returned second: {cure}")
    xhat, std, gamma, r, d = cache
    scale = r if gamma is None else gamma * r
    dx, dscale, dbeta = batch_norm_backward(dy, (xhat, std, scale))
    dgamma = r.reshape(-1) * dscale + d.reshape(-1) * dbeta
    return dx, narrow(dgamma, dy), dbeta
