"""From chapters/14_other_axes.ipynb.

Extracted by `make export`: edit the notebook, not this file.
"""

import numbers

from bnlib._batch_norm import (
    affine,
    batch_axes,
    check_variance,
    moments,
    normalize,
    per_channel,
)
from bnlib._declare import (
    check_floats,
    check_like,
    check_number,
    check_shape,
    fails,
    narrow,
    widen,
)

__all__ = [
    "normalize_backward",
    "layer_norm",
    "layer_norm_backward",
    "rms_norm",
    "rms_norm_backward",
    "group_norm",
    "group_norm_backward",
    "instance_norm",
    "instance_norm_backward",
]


def normalize_backward(dxhat, xhat, std, axes):
    r"""Return the gradient with respect to x of xhat = (x - mean) / std.

    dx = (dxhat - <dxhat> - xhat <dxhat xhat>) / std,   <.> the mean over `axes`

    dxhat, xhat : numpy arrays or torch tensors of one shape. std : sqrt(var + eps),
    length 1 along `axes`. axes : those of `moments`. Returns dx, shaped like xhat.
    Raises ValueError for a dxhat of another shape.
    Source: chapter 4, with the axes left open.
    """
    check_shape("dxhat", dxhat, xhat.shape, "that is the shape of xhat")
    g, xhat = widen(dxhat), widen(xhat)
    mean, mean_xhat = (p.mean(axis=axes, keepdims=True) for p in (g, g * xhat))
    return narrow((g - mean - xhat * mean_xhat) / std, dxhat)


def check_axes(x, axes):
    """Return `axes` as a sorted tuple counted from the front, or say what is wrong.

    TypeError: not an integer or several. ValueError: none, one of them twice, or not an
    axis of x.
    """
    axes = (axes,) if isinstance(axes, numbers.Integral) else axes
    whole = isinstance(axes, (tuple, list)) and all(
        isinstance(a, numbers.Integral) and not isinstance(a, bool) for a in axes
    )
    if not whole:
        raise TypeError(f"axes must be a tuple of integers, got {axes!r}; try (-1,)")
    known = all(-x.ndim <= a < x.ndim for a in axes)
    positive = tuple(sorted({a % x.ndim for a in axes})) if known else ()
    if not positive or len(positive) < len(axes):
        what = f"axes must be different axes of x, shape {tuple(x.shape)}"
        raise ValueError(f"{what}, got {tuple(axes)}; (-1,) is usual")
    return positive


def along_axes(name, p, x, axes):
    """Return the parameter p, shaped like x along `axes`, ready to broadcast against x.

    For x (N, T, D) and axes (2,): (D,) -> (1, 1, D). None stays None. Raises ValueError
    for another shape and TypeError for another dtype than that of x.
    """
    if p is None:
        return None
    check_floats(name, p)
    shape = tuple(x.shape[a] for a in axes)
    check_shape(name, p, shape, f"x {tuple(x.shape)} has it along axes {axes}")
    check_like(name, p, x, "x")
    return p.reshape([x.shape[a] if a in axes else 1 for a in range(x.ndim)])


def check_upstream(name, dy, cache, length):
    """Raise an error with a cure unless dy and cache fit the function called `name`."""
    mine = isinstance(cache, tuple) and len(cache) == length
    if mine and length == 4:  # three functions have caches of four: tell them apart
        last, ndim = cache[3], getattr(cache[1], "ndim", 0) - cache[0].ndim
        found = "rms_norm" if isinstance(last, tuple) else "group_norm"
        mine = name == (found if isinstance(last, tuple) or ndim else "instance_norm")
    if not mine:
        cure = f"y, cache = {name}(...); {name}_backward(dy, cache)"
        raise ValueError(f"cache must be what {name} returned second: {cure}")
    x = cache[0]
    check_floats("dy", dy)
    check_shape("dy", dy, x.shape, "that is the shape of y")
    check_like("dy", dy, x, "y")


def sum_over(x, axes):
    """Return the sum of x over `axes`; over none, x (where torch would sum it all)."""
    return x.sum(axis=axes) if axes else x


def layer_norm(x, gamma=None, beta=None, *, axes=(-1,), eps=1e-5):
    r"""Normalize every example of x over `axes`, then scale and shift each entry.

    y = gamma * (x - mean) / sqrt(var + eps) + beta, moments over `axes`

    x : numpy array or torch tensor (..., D), floating-point. axes : integers, the axes
    to average over. gamma, beta : shaped like x along `axes` in the order of x, so (D,)
    for the last axis, of the dtype of x; None stands for 1 and 0. eps : number >= 0.

    Returns (y, cache): y of the shape and dtype of x; cache = (x, mean, std, gamma,
    axes), for `layer_norm_backward`. Sums are taken in float64.
    Raises TypeError and ValueError naming the argument, see `check_floats`,
    `check_axes`, `along_axes`, `check_variance`.
    Source: Ba, Kiros & Hinton 2016, section 3, equation 3.
    """
    check_floats("x", x, min_ndim=1, layout="(..., D)")
    axes = check_axes(x, axes)
    gamma, beta = (along_axes(*p, x, axes) for p in (("gamma", gamma), ("beta", beta)))
    wide = widen(x)
    mean, var = moments(wide, axes)
    check_variance(var, eps)
    y = affine(normalize(wide, mean, var, eps), gamma, beta)
    return narrow(y, x), (x, mean, (var + eps) ** 0.5, gamma, axes)


def layer_norm_backward(dy, cache):
    r"""Return the gradients (dx, dgamma, dbeta) of layer normalization.

    dx = (g - <g> - xhat <g xhat>) / std, with g = gamma dy, <.> the mean over `axes`
    dgamma = sum(dy xhat),   dbeta = sum(dy), over all other axes

    dy : gradient of the loss with respect to y, shape and dtype of y. cache : what
    `layer_norm` returned. Shapes: dx as x; dgamma, dbeta as x along `axes`, also where
    gamma or beta were left out. Raises TypeError or ValueError, see `check_upstream`.
    Source: chapter 4, equation 3 of Ba, Kiros & Hinton 2016 differentiated.
    """
    check_upstream("layer_norm", dy, cache, 5)
    x, mean, std, gamma, axes = cache
    param_axes = tuple(a for a in range(x.ndim) if a not in axes)
    xhat, dy = (widen(x) - mean) / std, widen(dy)
    dx = normalize_backward(affine(dy, gamma), xhat, std, axes)
    dgamma, dbeta = sum_over(dy * xhat, param_axes), sum_over(dy, param_axes)
    return narrow(dx, x), narrow(dgamma, x), narrow(dbeta, x)


def rms_norm(x, gamma=None, *, axes=(-1,), eps=1e-5):
    r"""Divide every example of x by its root mean square over `axes`, then scale it.

    y = gamma * x / rms,   rms = sqrt(mean(x^2) + eps)

    x : numpy array or torch tensor (..., D), floating-point. axes, gamma, eps : as in
    `layer_norm`; there is no beta. Returns (y, cache): y of the shape and dtype of x;
    cache = (x, rms, gamma, axes). Sums are taken in float64.
    Raises TypeError and ValueError naming the argument, as `layer_norm` does.
    Source: Zhang & Sennrich 2019, equation 4; eps inside the root as in PyTorch.
    """
    check_floats("x", x, min_ndim=1, layout="(..., D)")
    axes = check_axes(x, axes)
    gamma = along_axes("gamma", gamma, x, axes)
    wide = widen(x)
    square = (wide**2).mean(axis=axes, keepdims=True)
    check_square(square, eps)
    rms = (square + eps) ** 0.5
    return narrow(affine(wide / rms, gamma), x), (x, rms, gamma, axes)


def check_square(square, eps):
    """Raise ValueError unless square + eps is positive and finite everywhere."""
    check_number("eps", eps, 0, float("inf"), 1e-5)
    if fails(square < float("inf")):
        cure = "convert x to a wider dtype, or scale it down"
        raise ValueError(f"the mean square of x overflows {square.dtype}; {cure}")
    if fails(square + eps > 0):
        cure = "pass a positive eps; 1e-5 is usual"
        raise ValueError(f"an example of x is zero and eps is {eps}, so 0/0; {cure}")


def rms_norm_backward(dy, cache):
    r"""Return the gradients (dx, dgamma) of RMS normalization.

    dx = (g - xhat <g xhat>) / rms, with g = gamma dy, <.> the mean over `axes`
    dgamma = sum(dy xhat), over all other axes

    dy : gradient of the loss with respect to y, shape and dtype of y. cache : what
    `rms_norm` returned. Shapes: dx as x; dgamma as x along `axes`, also where gamma was
    left out. Raises TypeError or ValueError, see `check_upstream`.
    Source: Zhang & Sennrich 2019, equation 4, differentiated in chapter 14.
    """
    check_upstream("rms_norm", dy, cache, 4)
    x, rms, gamma, axes = cache
    param_axes = tuple(a for a in range(x.ndim) if a not in axes)
    xhat, dy = widen(x) / rms, widen(dy)
    g = affine(dy, gamma)
    dx = (g - xhat * (g * xhat).mean(axis=axes, keepdims=True)) / rms
    return narrow(dx, x), narrow(sum_over(dy * xhat, param_axes), x)


def into_groups(x, num_groups):
    """Return x (N, C, ...) as (N, G, C / G, ...), neighbouring channels together."""
    return x.reshape(x.shape[0], num_groups, -1, *x.shape[2:])


def check_groups(num_groups, channels):
    """Raise TypeError or ValueError unless num_groups divides the channels."""
    if not isinstance(num_groups, numbers.Integral) or isinstance(num_groups, bool):
        what = f"num_groups must be an integer, got {num_groups!r}"
        raise TypeError(f"{what}; 32 is usual for images")
    if num_groups < 1 or channels % num_groups:
        divisors = [g for g in range(1, channels + 1) if channels % g == 0]
        what = f"num_groups must divide the {channels} channels of x, got {num_groups}"
        raise ValueError(f"{what}; possible: {divisors}")


def group_norm(x, gamma=None, beta=None, *, num_groups, eps=1e-5):
    r"""Normalize every group of channels of every example, then scale and shift.

    y = gamma * (x - mean) / sqrt(var + eps) + beta, moments over a group's C/G channels
    and all positions

    x : numpy array or torch tensor (N, C, ...), floating-point. gamma, beta : (C,), of
    the dtype of x; None stands for 1 and 0. num_groups : G, a divisor of C; neighbours
    are grouped. eps : number >= 0. Returns (y, cache): y of the shape and dtype of x;
    cache = (x, mean, std, gamma), mean and std of shape (N, G, 1, ...). Sums are
    taken in float64. One value per group gives y = beta.
    Raises TypeError and ValueError naming the argument, see `check_floats`,
    `check_groups`, `per_channel`, `check_variance`.
    Source: Wu & He 2018, section 3, equation 7.
    """
    check_floats("x", x, min_ndim=2, layout="(N, C) or (N, C, ...)")
    check_groups(num_groups, x.shape[1])
    gamma, beta = per_channel("gamma", gamma, x), per_channel("beta", beta, x)
    grouped = into_groups(widen(x), num_groups)
    mean, var = moments(grouped, tuple(range(2, grouped.ndim)))
    check_variance(var, eps)
    xhat = normalize(grouped, mean, var, eps).reshape(x.shape)
    return narrow(affine(xhat, gamma, beta), x), (x, mean, (var + eps) ** 0.5, gamma)


def group_norm_backward(dy, cache):
    r"""Return the gradients (dx, dgamma, dbeta) of group normalization.

    dx = (g - <g> - xhat <g xhat>) / std, with g = gamma dy, <.> the mean over a group
    dgamma = sum(dy xhat),   dbeta = sum(dy), over all axes but 1

    dy : gradient of the loss with respect to y, shape and dtype of y. cache : what
    `group_norm` returned. Shapes: dx (N, C, ...) as x; dgamma, dbeta (C,), also where
    gamma or beta were left out. Raises TypeError or ValueError, see `check_upstream`.
    Source: chapter 4; Wu & He 2018, equation 7, differentiated.
    """
    check_upstream("group_norm", dy, cache, 4)
    x, mean, std, gamma = cache
    axes, num_groups = tuple(range(2, mean.ndim)), mean.shape[1]
    xhat, dy = (into_groups(widen(x), num_groups) - mean) / std, widen(dy)
    g = into_groups(affine(dy, gamma), num_groups)
    dx = normalize_backward(g, xhat, std, axes).reshape(x.shape)
    dgamma = (dy * xhat.reshape(x.shape)).sum(axis=batch_axes(x))
    dbeta = dy.sum(axis=batch_axes(x))
    return narrow(dx, x), narrow(dgamma, x), narrow(dbeta, x)


def instance_norm(x, gamma=None, beta=None, *, eps=1e-5):
    r"""Normalize every channel of every example over its positions, scale and shift.

    y = gamma * (x - mean) / sqrt(var + eps) + beta, moments over axes 2, 3, ...

    x : numpy array or torch tensor (N, C, L), (N, C, H, W), ..., floating-point. gamma,
    beta : (C,), of the dtype of x; None stands for 1 and 0. eps : number >= 0. Returns
    (y, cache): y of the shape and dtype of x; cache = (x, mean, std, gamma), mean and
    std of shape (N, C, 1, ...). Sums are taken in float64. One position gives y = beta.
    Raises TypeError and ValueError naming the argument, see `check_floats`,
    `per_channel`, `check_variance`.
    Source: Ulyanov, Vedaldi & Lempitsky 2016, equation 2.
    """
    check_floats("x", x, min_ndim=3, layout="(N, C, L) or (N, C, ...), with positions")
    gamma, beta = per_channel("gamma", gamma, x), per_channel("beta", beta, x)
    wide = widen(x)
    mean, var = moments(wide, tuple(range(2, x.ndim)))
    check_variance(var, eps)
    y = affine(normalize(wide, mean, var, eps), gamma, beta)
    return narrow(y, x), (x, mean, (var + eps) ** 0.5, gamma)


def instance_norm_backward(dy, cache):
    r"""Return the gradients (dx, dgamma, dbeta) of instance normalization.

    dx = (g - <g> - xhat <g xhat>) / std, with g = gamma dy, <.> the mean over positions
    dgamma = sum(dy xhat),   dbeta = sum(dy), over all axes but 1

    dy : gradient of the loss with respect to y, shape and dtype of y. cache : what
    `instance_norm` returned. Shapes: dx (N, C, ...) as x; dgamma, dbeta (C,), also if
    gamma or beta were left out. Raises TypeError or ValueError, see `check_upstream`.
    Source: chapter 4; Ulyanov, Vedaldi & Lempitsky 2016, equation 2, differentiated.
    """
    check_upstream("instance_norm", dy, cache, 4)
    x, mean, std, gamma = cache
    xhat, dy = (widen(x) - mean) / std, widen(dy)
    dx = normalize_backward(affine(dy, gamma), xhat, std, tuple(range(2, x.ndim)))
    dgamma = (dy * xhat).sum(axis=batch_axes(x))
    dbeta = dy.sum(axis=batch_axes(x))
    return narrow(dx, x), narrow(dgamma, x), narrow(dbeta, x)
