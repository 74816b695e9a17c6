"""From chapters/14_other_axes.ipynb.

Extracted by `make export`: edit the notebook, not this file.
"""

import math
import numbers

from bnlib._batch_norm import (
    affine,
    affine_backward,
    batch_axes,
    moments,
    normalize_backward,
)
from bnlib._declare import (
    Number,
    cache_of,
    takes,
)

__all__ = [
    "layer_norm",
    "layer_norm_backward",
    "rms_norm",
    "rms_norm_backward",
    "group_norm",
    "group_norm_backward",
    "instance_norm",
    "instance_norm_backward",
    "adaptive_instance_norm",
    "adaptive_instance_norm_backward",
]


def which_axes(name, axes, given):
    """Return `axes` as a sorted tuple counted from the front, or say what is wrong.

    TypeError: not an integer or several. ValueError: none, one of them twice, or not an
    axis of x.
    """
    axes = (axes,) if isinstance(axes, numbers.Integral) else axes
    whole = isinstance(axes, (tuple, list)) and all(
        isinstance(a, numbers.Integral) and not isinstance(a, bool) for a in axes
    )
    if not whole:
        raise TypeError(f"{name} must be a tuple of integers, got {axes!r}; try (-1,)")
    x = given["x"]
    known = all(-x.ndim <= a < x.ndim for a in axes)
    positive = tuple(sorted({a % x.ndim for a in axes})) if known else ()
    if not positive or len(positive) < len(axes):
        what = f"{name} must be different axes of x, shape {tuple(x.shape)}"
        raise ValueError(f"{what}, got {tuple(axes)}; (-1,) is usual")
    return positive


def which_groups(name, groups, given):
    """Return the number of groups, or say that it does not divide the channels of x."""
    if given["x"].ndim < 2:  # is refused next
        return groups
    channels = given["x"].shape[1]
    if not isinstance(groups, numbers.Integral) or isinstance(groups, bool):
        what = f"{name} must be an integer, got {groups!r}"
        raise TypeError(f"{what}; 32 is usual for images")
    if groups < 1 or channels % groups:
        divisors = [g for g in range(1, channels + 1) if channels % g == 0]
        what = f"{name} must divide the {channels} channels of x, got {groups}"
        raise ValueError(f"{what}; possible: {divisors}")
    return groups


@takes(
    "x mean std gamma axes",
    x="... D",
    axes=which_axes,
    gamma="axes?",
    beta="axes?",
    eps=Number(0, usual=1e-5),
)
def layer_norm(x, gamma=None, beta=None, *, axes=(-1,), eps=1e-5):
    """Normalize every example of x over `axes`, then scale and shift each entry.

    y = gamma * (x - mean) / sqrt(var + eps) + beta, moments over `axes`

    Source: Ba, Kiros & Hinton 2016, section 3, equation 3.
    """
    mean, var = moments(x, axes)
    std = (var + eps) ** 0.5
    xhat = (x - mean) / std
    return affine(xhat, gamma, beta), (x, mean, std, gamma, axes)


def other_axes(x, axes):
    """Return the axes of x that are not in `axes`: those that share one gamma."""
    return tuple(a for a in range(x.ndim) if a not in axes and a - x.ndim not in axes)


@takes(cache=cache_of(layer_norm), dy="y")
def layer_norm_backward(dy, cache):
    """Return the gradients (dx, dgamma, dbeta) of layer normalization.

    dx = (g - <g> - xhat <g xhat>) / std, with g = gamma dy, <.> the mean over `axes`
    dgamma = sum(dy xhat),   dbeta = sum(dy), over all other axes

    Source: chapter 4, equation 3 of Ba, Kiros & Hinton 2016 differentiated.
    """
    x, mean, std, gamma, axes = cache
    xhat = (x - mean) / std
    dx = normalize_backward(affine(dy, gamma), xhat, std, axes)
    return dx, *affine_backward(dy, xhat, other_axes(xhat, axes))


@takes(
    "x rms gamma axes",
    x="... D",
    axes=which_axes,
    gamma="axes?",
    eps=Number(0, usual=1e-5),
)
def rms_norm(x, gamma=None, *, axes=(-1,), eps=1e-5):
    """Divide every example of x by its root mean square over `axes`, then scale it.

    y = gamma * x / rms,   rms = sqrt(mean(x^2) + eps)

    Source: Zhang & Sennrich 2019, equation 4; eps inside the root as in PyTorch.
    """
    rms = ((x**2).mean(axis=axes, keepdims=True) + eps) ** 0.5
    return affine(x / rms, gamma), (x, rms, gamma, axes)


@takes(cache=cache_of(rms_norm), dy="y")
def rms_norm_backward(dy, cache):
    """Return the gradients (dx, dgamma) of RMS normalization.

    dx = (g - xhat <g xhat>) / rms, with g = gamma dy, <.> the mean over `axes`
    dgamma = sum(dy xhat), over all other axes

    Source: Zhang & Sennrich 2019, equation 4, differentiated in chapter 14.
    """
    x, rms, gamma, axes = cache
    xhat, g = x / rms, affine(dy, gamma)
    dx = (g - xhat * (g * xhat).mean(axis=axes, keepdims=True)) / rms
    dgamma, _ = affine_backward(dy, xhat, other_axes(xhat, axes))
    return dx, dgamma


def into_groups(x, num_groups):
    """Return x (N, C, ...) as (N, G, C / G, ...), neighbouring channels together."""
    return x.reshape(x.shape[0], num_groups, -1, *x.shape[2:])


@takes(
    "x mean std gamma",
    x="N C ...",
    num_groups=which_groups,
    gamma="C?",
    beta="C?",
    eps=Number(0, usual=1e-5),
)
def group_norm(x, gamma=None, beta=None, *, num_groups, eps=1e-5):
    """Normalize every group of channels of every example, then scale and shift.

    y = gamma * (x - mean) / sqrt(var + eps) + beta, moments over a group's C/G channels
    and all positions

    One value per group gives y = beta. Source: Wu & He 2018, section 3, equation 7.
    """
    grouped = into_groups(x, num_groups)
    mean, var = moments(grouped, tuple(range(2, grouped.ndim)))
    std = (var + eps) ** 0.5
    xhat = ((grouped - mean) / std).reshape(x.shape)
    return affine(xhat, gamma, beta), (x, mean, std, gamma)


@takes(cache=cache_of(group_norm), dy="y")
def group_norm_backward(dy, cache):
    """Return the gradients (dx, dgamma, dbeta) of group normalization.

    dx = (g - <g> - xhat <g xhat>) / std, with g = gamma dy, <.> the mean over a group
    dgamma = sum(dy xhat),   dbeta = sum(dy), over all axes but 1

    Source: chapter 4; Wu & He 2018, equation 7, differentiated.
    """
    x, mean, std, gamma = cache
    g, grouped = (into_groups(a, std.shape[1]) for a in (affine(dy, gamma), x))
    xhat = (grouped - mean) / std
    dx = normalize_backward(g, xhat, std, tuple(range(2, std.ndim)))
    xhat, axes = xhat.reshape(x.shape), batch_axes(x)
    return dx.reshape(x.shape), *affine_backward(dy, xhat, axes)


@takes(
    "x mean std gamma", x="N C L ...", gamma="C?", beta="C?", eps=Number(0, usual=1e-5)
)
def instance_norm(x, gamma=None, beta=None, *, eps=1e-5):
    """Normalize every channel of every example over its positions, scale and shift.

    y = gamma * (x - mean) / sqrt(var + eps) + beta, moments over axes 2, 3, ...

    One position gives y = beta. Source: Ulyanov, Vedaldi & Lempitsky 2016, equation 2.
    """
    mean, var = moments(x, tuple(range(2, x.ndim)))
    std = (var + eps) ** 0.5
    xhat = (x - mean) / std
    return affine(xhat, gamma, beta), (x, mean, std, gamma)


@takes(cache=cache_of(instance_norm), dy="y")
def instance_norm_backward(dy, cache):
    """Return the gradients (dx, dgamma, dbeta) of instance normalization.

    dx = (g - <g> - xhat <g xhat>) / std, with g = gamma dy, <.> the mean over positions
    dgamma = sum(dy xhat),   dbeta = sum(dy), over all axes but 1

    Source: chapter 4; Ulyanov, Vedaldi & Lempitsky 2016, equation 2, differentiated.
    """
    x, mean, std, gamma = cache
    xhat = (x - mean) / std
    dx = normalize_backward(affine(dy, gamma), xhat, std, tuple(range(2, xhat.ndim)))
    return dx, *affine_backward(dy, xhat, batch_axes(xhat))


@takes(
    "x mean std style style_mean style_std",
    x="N C L ...",
    style="N C ...",
    eps=Number(0, usual=1e-5),
)
def adaptive_instance_norm(x, style, *, eps=1e-5):
    """Give every channel of every example of x the mean and deviation that style has.

    y = style_std * (x - mean) / std + style_mean, with std = sqrt(var + eps) of each

    Moments over the positions, which may differ. Source: Huang & Belongie 2017.
    """
    mean, var = moments(x, tuple(range(2, x.ndim)))
    style_mean, style_var = moments(style, tuple(range(2, style.ndim)))
    std, style_std = (var + eps) ** 0.5, (style_var + eps) ** 0.5
    shape = (*x.shape[:2], *[1] * (x.ndim - 2))
    gamma, beta = style_std.reshape(shape), style_mean.reshape(shape)
    y = gamma * (x - mean) / std + beta
    return y, (x, mean, std, style, style_mean, style_std)


@takes(cache=cache_of(adaptive_instance_norm), dy="y")
def adaptive_instance_norm_backward(dy, cache):
    """Return the gradients (dx, dstyle) of adaptive instance normalization.

    dx = gamma (dy - <dy> - xhat <dy xhat>) / std,   gamma = style_std
    dstyle = (sum(dy) + sum(dy xhat) (style - style_mean) / style_std) / positions

    Source: chapter 4; Huang & Belongie 2017, differentiated.
    """
    x, mean, std, style, style_mean, style_std = cache
    axes, xhat = tuple(range(2, x.ndim)), (x - mean) / std
    gamma = style_std.reshape(std.shape)
    dx = normalize_backward(gamma * dy, xhat, std, axes)
    dgamma = (dy * xhat).sum(axis=axes).reshape(style_std.shape)
    dbeta = dy.sum(axis=axes).reshape(style_std.shape)
    through = dbeta + dgamma * (style - style_mean) / style_std
    return dx, through / math.prod(style.shape[2:])
