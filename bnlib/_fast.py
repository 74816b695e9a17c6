"""From chapters/21_fast.ipynb.

Extracted by `make export`: edit the notebook, not this file.
"""

import math
from collections import namedtuple
from types import SimpleNamespace

import numpy as np

import bnlib._axis_norms
import bnlib._batch_norm
from bnlib._declare import check_floats, check_like, check_shape, guarded

__all__ = [
    "batch_norm",
    "batch_norm_backward",
    "layer_norm",
    "layer_norm_backward",
    "rms_norm",
    "rms_norm_backward",
    "group_norm",
    "group_norm_backward",
    "instance_norm",
    "instance_norm_backward",
]


BLOCK = 1 << 16  # values worked on at a time: three such blocks stay in a core's cache
WIDE = 16  # maps with fewer positions are added up across examples


def faces(module):
    """Return the functions that users call for what a module declares."""
    formulas = {n: f for n, f in vars(module).items() if hasattr(f, "declared")}
    return SimpleNamespace(**{n: guarded(f) for n, f in formulas.items()})


reference, axis_norms = faces(bnlib._batch_norm), faces(bnlib._axis_norms)


def is_usual(x, min_ndim=2):
    """Return whether x is a numpy array of float32 or float64, and not empty."""
    known = type(x) is np.ndarray and x.dtype in (np.float32, np.float64)
    return known and x.size > 0 and x.ndim >= min_ndim and x.dtype.isnative


def blocks(rows, size):
    """Yield slices of rows, each of about BLOCK values, where a row has `size`."""
    step = max(1, BLOCK // size)
    for start in range(0, rows, step):
        yield slice(start, min(start + step, rows))


def row_dots(x, y):
    """Return the dot products of the rows of x and y, each a call of BLAS."""
    if hasattr(np, "vecdot"):  # numpy 2
        return np.vecdot(x, y)
    return (x[..., None, :] @ y[..., None])[..., 0, 0]


def map_sums(x, y):
    """Return sum(x) and sum(x y) of every map of x, y (N, C, L): (N, C), float64."""
    n, channels, positions = x.shape
    ones = np.ones(positions, x.dtype)
    total, product = np.empty((2, n, channels))
    for k in blocks(n, channels * positions):
        total[k], product[k] = x[k] @ ones, row_dots(x[k], y[k])
    return total, product


def channel_sums(x, y):
    """Return sum(x) and sum(x y) of every channel of x, y (N, C, L): (C,), float64."""
    n, channels, positions = x.shape
    if positions >= WIDE:
        return (s.sum(axis=0) for s in map_sums(x, y))
    x, y = x.reshape(n, -1), y.reshape(n, -1)
    total, product = np.zeros((2, channels * positions))
    for k in blocks(n, max(x.shape[1], BLOCK // 1024)):  # BLAS adds in the dtype of x
        ones = np.ones(len(x[k]), x.dtype)
        total += ones @ x[k]
        product += ones @ (x[k] * y[k])
    if positions == 1:
        return total, product
    return (s.reshape(channels, positions).sum(axis=1) for s in (total, product))


def centred(x, sums, count, over):
    """Return (x - p, mean, var), moments of x - p, p a constant where the mean is far.

    sums : function x -> sum(x), sum(x^2), float64, of the parts that share moments.
    count : values in each. over : function that shapes moments to broadcast against x.
    mean^2 - E[x]^2 is safe where mean^2 < 4 var; elsewhere p is subtracted first: the
    first value of each part, or its mean where that is an outlier.
    """
    for last in (False, False, True):
        with np.errstate(all="ignore"):  # the caller looks for what is not finite
            total, square = sums(x)
            mean = total / count
            var = square / count - mean * mean
        if last or not (mean * mean > 4 * var).any():
            return x, mean, np.maximum(var, 0)
        first = first_of(x, over(mean).shape)
        reach = 1e-5 * abs(mean) + 2 * abs(var) ** 0.5
        near = abs(first - over(mean)) < over(reach)
        x = x - np.where(near, first, over(mean)).astype(x.dtype)


def first_of(x, shape):
    """Return the first value of each part of x, in the shape of its moments."""
    return x[tuple(slice(0, 1) if s == 1 else slice(None) for s in shape)]


def spread(numbers, x):
    """Return x (N, C, L) as rows of many values, and numbers (C,) spread along a row.

    An example, or several of few values, is a row: numpy multiplies arrays of one shape
    at twice the speed of an array and a broadcast column.
    """
    n, _, positions = x.shape
    few = math.gcd(n, max(1, BLOCK // 4 // x[0].size)) if x.size > BLOCK else 1
    rows = [s.astype(x.dtype) for s in numbers]
    if positions > 1:
        rows = [np.repeat(s, positions) for s in rows]
    if few > 1:
        rows = [np.concatenate([s] * few) for s in rows]
    return x.reshape(n // few, -1), *rows


def tiles(n, size):
    """Yield (rows, columns) slices of an (n, size) matrix, about BLOCK values each."""
    for j in blocks(size, 1):
        for i in blocks(n, min(size, BLOCK)):
            yield i, j


def scale_shift(x, scale, shift):
    """Return scale x + shift for x (N, C, L), scale and shift (C,), in blocks."""
    shape = x.shape
    x, scale, shift = spread((scale, shift), x)
    y = np.empty_like(x)
    for i, j in tiles(*x.shape):
        np.multiply(x[i, j], scale[j], out=y[i, j])
        y[i, j] += shift[j]
    return y.reshape(shape)


def fits(p, x):
    """Return whether p is None, or numbers (C,) of the dtype of x."""
    known = type(p) is np.ndarray and p.dtype == x.dtype
    return p is None or (known and p.shape == x.shape[1:2])


def root(var, eps):
    """Return sqrt(var + eps), NaN where eps is not a number >= 0."""
    known = isinstance(eps, int | float) and eps >= 0
    return np.sqrt(var + (eps if known else np.nan))


def usable(std, scale, shift):
    """Return whether nothing is 0/0, NaN or infinite; the reference says what is."""
    return math.isfinite(np.vdot(std, scale) + np.vdot(shift, shift))


def coefficients(mean, std, gamma, beta):
    """Return scale and shift with scale x + shift = gamma (x - mean) / std + beta."""
    with np.errstate(all="ignore"):  # `usable` looks
        scale = 1 / std if gamma is None else gamma / std
        return scale, -mean * scale if beta is None else beta - mean * scale


BatchCache = namedtuple("BatchCache", "x mean std gamma shape")


def batch_norm(x, gamma=None, beta=None, *, eps=1e-5):
    """Chapter 3's batch_norm, faster for numpy arrays of float32 and float64.

    y = gamma * (x - mean) / sqrt(var + eps) + beta

    Arguments, y and errors are the same; the cache is for this module's
    `batch_norm_backward`. What is unusual, tensors say, goes to chapter 3.
    Source: chapter 21.
    """
    if is_usual(x) and fits(gamma, x) and fits(beta, x):
        maps = np.ascontiguousarray(x).reshape(*x.shape[:2], -1)
        count = maps.shape[0] * maps.shape[2]
        near, mean, var = centred(maps, channel_squares, count, channel_shape)
        std = root(var, eps)
        scale, shift = coefficients(mean, std, gamma, beta)
        if usable(std, scale, shift):
            y = scale_shift(near, scale, shift).reshape(x.shape)
            return y, BatchCache(near, mean, std, gamma, x.shape)
    return reference.batch_norm(x, gamma, beta, eps=eps)


def channel_squares(x):
    """Return sum(x) and sum(x^2) of every channel of x (N, C, L)."""
    return channel_sums(x, x)


def channel_shape(s):
    """Return s (C,) as (1, C, 1)."""
    return s[None, :, None]


def batch_norm_backward(dy, cache):
    """Chapter 4's batch_norm_backward, for what this module's `batch_norm` returned.

    dx = scale dy + by_x x + shift,   one scale, by_x and shift per channel

    Arguments, results and errors are the same. Source: chapters 4 and 21.
    """
    if not isinstance(cache, BatchCache):
        return reference.batch_norm_backward(dy, cache)
    x, mean, std, gamma, shape = cache
    if not (is_usual(dy) and dy.shape == shape and dy.dtype == x.dtype):
        check_upstream(dy, x, shape)
    maps = np.ascontiguousarray(dy).reshape(x.shape)
    dbeta, product = channel_sums(maps, x)
    if not math.isfinite(dbeta.sum() + product.sum()):
        check_floats("dy", dy)
    dgamma, m = (product - mean * dbeta) / std, x.size // x.shape[1]
    scale = 1 / std if gamma is None else gamma / std
    by_x = scale * dgamma / std / -m
    dx = combine(maps, x, scale, by_x, scale * dbeta / -m - mean * by_x)
    return dx.reshape(shape), dgamma.astype(x.dtype), dbeta.astype(x.dtype)


def check_upstream(dy, x, shape):
    """Raise an error with a cure unless dy has the dtype of x and this shape."""
    check_floats("dy", dy)
    check_shape("dy", dy, shape, "that is the shape of y")
    check_like("dy", dy, x, "y")


def combine(dy, x, scale, by_x, shift):
    """Return scale dy + by_x x + shift, per channel of (N, C, L), in blocks."""
    shape = x.shape
    x, scale, by_x, shift = spread((scale, by_x, shift), x)
    dy, dx = dy.reshape(x.shape), np.empty_like(x)
    scratch = np.empty(min(x.size, 2 * BLOCK), x.dtype)
    for i, j in tiles(*x.shape):
        here = dx[i, j]
        out = scratch[: here.size].reshape(here.shape)
        part = np.multiply(x[i, j], by_x[j], out=out)
        part += shift[j]
        np.multiply(dy[i, j], scale[j], out=here)
        here += part
    return dx.reshape(shape)


RowCache = namedtuple("RowCache", "x mean std gamma shape axes")


def by_rows(x, axes, gamma, beta=None):
    """Return whether `axes` are the last of x, and gamma and beta fit them."""
    if not is_usual(x, 1) or type(axes) is not tuple or not axes:
        return False
    last = sorted(a % x.ndim for a in axes if type(a) is int and -x.ndim <= a < x.ndim)
    shape = x.shape[x.ndim - len(axes) :]
    return last == list(range(x.ndim - len(axes), x.ndim)) and all(
        p is None
        or (
            (type(p) is np.ndarray and p.shape == shape and p.dtype == x.dtype)
            and math.isfinite(p.sum())
        )
        for p in (gamma, beta)
    )


def row_squares(x):
    """Return sum(x) and sum(x^2) of every row, float64."""
    return map_sums(x, x)


def layer_norm(x, gamma=None, beta=None, *, axes=(-1,), eps=1e-5):
    """Chapter 14's layer_norm, faster for numpy arrays and the last axes.

    y = gamma * (x - mean) / sqrt(var + eps) + beta, moments over `axes`

    Arguments, y and errors are the same; the cache is for this module's
    `layer_norm_backward`. All that is unusual goes to chapter 14. Source: chapter 21.
    """
    if by_rows(x, axes, gamma, beta):
        size = math.prod(x.shape[x.ndim - len(axes) :])
        rows = np.ascontiguousarray(x).reshape(1, -1, size)
        near, mean, var = centred(rows, row_squares, size, lambda s: s[:, :, None])
        std = root(var, eps)
        inverse, shift = coefficients(mean, std, None, None)
        if usable(std, inverse, shift):
            y = rows_affine(near[0], inverse[0], shift[0], gamma, beta)
            cache = RowCache(near[0], mean[0], std[0], gamma, x.shape, axes)
            return y.reshape(x.shape), cache
    return axis_norms.layer_norm(x, gamma, beta, axes=axes, eps=eps)


def rows_affine(x, scale, shift, gamma, beta):
    """Return gamma (scale x + shift) + beta: one scale and shift a row; gamma, beta, or
    None, a column."""
    scale = scale.astype(x.dtype)[:, None]
    shift = None if shift is None else shift.astype(x.dtype)[:, None]
    y = np.empty_like(x)
    for i in blocks(*x.shape):
        here = np.multiply(x[i], scale[i], out=y[i])
        if shift is not None:
            here += shift[i]
        if gamma is not None:
            here *= gamma.ravel()
        if beta is not None:
            here += beta.ravel()
    return y


def layer_norm_backward(dy, cache):
    """Chapter 14's layer_norm_backward, for what this module's `layer_norm` returned.

    Arguments, results and errors are the same. Source: chapters 14 and 21.
    """
    if not isinstance(cache, RowCache) or cache.mean is None:
        return axis_norms.layer_norm_backward(dy, cache)
    return row_gradients(dy, cache)


def row_gradients(dy, cache):
    """Return dx, dgamma and dbeta of a layer or an RMS norm, after looking at dy."""
    if not (is_usual(dy, 1) and dy.shape == cache.shape and dy.dtype == cache.x.dtype):
        check_upstream(dy, cache.x, cache.shape)
    dx, dgamma, dbeta = rows_backward(np.ascontiguousarray(dy), cache)
    if not math.isfinite(dgamma.sum() + dbeta.sum()):
        check_floats("dy", dy)
    shape = cache.shape[len(cache.shape) - len(cache.axes) :]
    dgamma, dbeta = (g.astype(dx.dtype).reshape(shape) for g in (dgamma, dbeta))
    return dx.reshape(cache.shape), dgamma, dbeta


def rows_backward(dy, cache):
    """Return dx, and dgamma and dbeta in float64, of rows, some at a time.

    dx = gamma dy / std + by_x x + shift. The sums along rows, <g> and <g x>, are dy and
    dy x times the vector gamma; those along columns, dy and dy x times 1 / std.
    """
    x, mean, std, gamma = cache[:4]
    kind, size, inverse = x.dtype, x.shape[1], 1 / std
    g = np.ones(size, kind) if gamma is None else gamma.ravel()
    dy, dx = dy.reshape(x.shape), np.empty_like(x)
    dgamma, dbeta = np.zeros((2, size))
    for i in blocks(*x.shape):
        product, r = dy[i] * x[i], inverse[i]
        by_x, shift = product @ g, None
        dgamma += r.astype(kind) @ product
        if mean is not None:
            sums = dy[i] @ g
            dgamma -= (mean[i] * r).astype(kind) @ dy[i]
            dbeta += np.ones(len(r), kind) @ dy[i]
            by_x = by_x - mean[i] * sums
        by_x = by_x * r**3 / -size  # float64: a cube leaves float32 soon
        if mean is not None:
            shift = (-sums * r / size - mean[i] * by_x).astype(kind)
        into(dx[i], dy[i], x[i], product, g, r.astype(kind), by_x.astype(kind), shift)
    return dx, dgamma, dbeta


def into(dx, dy, x, scratch, g, r, by_x, shift):
    """Write g r dy + by_x x + shift into dx; r, by_x and shift are one number a row."""
    np.multiply(dy, g, out=dx)
    dx *= r[:, None]
    dx += np.multiply(x, by_x[:, None], out=scratch)
    if shift is not None:
        dx += shift[:, None]


def rms_norm(x, gamma=None, *, axes=(-1,), eps=1e-5):
    """Chapter 14's rms_norm, faster for numpy arrays and the last axes.

    y = gamma * x / sqrt(mean(x^2) + eps)

    As `layer_norm`; the cache is for this module's `rms_norm_backward`.
    """
    if by_rows(x, axes, gamma):
        size = math.prod(x.shape[x.ndim - len(axes) :])
        rows = np.ascontiguousarray(x).reshape(-1, size)
        square = np.empty(len(rows))
        with np.errstate(all="ignore"):  # `usable` looks
            for i in blocks(*rows.shape):
                square[i] = row_dots(rows[i], rows[i])
            rms = root(square / size, eps)
            inverse = 1 / rms
        if usable(rms, inverse, rms):
            y = rows_affine(rows, inverse, None, gamma, None).reshape(x.shape)
            return y, RowCache(rows, None, rms, gamma, x.shape, axes)
    return axis_norms.rms_norm(x, gamma, axes=axes, eps=eps)


def rms_norm_backward(dy, cache):
    """Chapter 14's rms_norm_backward, for what this module's `rms_norm` returned."""
    if not isinstance(cache, RowCache) or cache.mean is not None:
        return axis_norms.rms_norm_backward(dy, cache)
    return row_gradients(dy, cache)[:2]


GroupCache = namedtuple("GroupCache", "x mean std gamma shape groups")


def group_norm(x, gamma=None, beta=None, *, num_groups, eps=1e-5):
    """Chapter 14's group_norm, faster for numpy arrays with many positions.

    y = gamma * (x - mean) / sqrt(var + eps) + beta, moments over a group

    Arguments, y and errors are the same; the cache is for this module's
    `group_norm_backward`. All that is unusual goes to chapter 14. Source: chapter 21.
    """
    whole = type(num_groups) is int and num_groups > 0 and is_usual(x)
    if whole and x.shape[1] % num_groups == 0 and fits(gamma, x) and fits(beta, x):
        n, channels = x.shape[:2]
        groups = np.ascontiguousarray(x).reshape(n, num_groups, -1)
        near, mean, var = centred(
            groups, row_squares, groups.shape[2], lambda s: s[:, :, None]
        )
        std = root(var, eps)
        per = channels // num_groups
        each = [np.repeat(s, per, axis=1) for s in (mean, std)]
        scale, shift = coefficients(*each, gamma, beta)
        if usable(each[1], scale, shift):
            rows = near.reshape(n * channels, -1)
            y = rows_affine(rows, scale.ravel(), shift.ravel(), None, None)
            cache = GroupCache(near, mean, std, gamma, x.shape, num_groups)
            return y.reshape(x.shape), cache
    return axis_norms.group_norm(x, gamma, beta, num_groups=num_groups, eps=eps)


def group_norm_backward(dy, cache):
    """Chapter 14's group_norm_backward, for what this module's `group_norm` returned.

    Arguments, results and errors are the same. Source: chapters 14 and 21.
    """
    if not isinstance(cache, GroupCache):
        return axis_norms.group_norm_backward(dy, cache)
    x, mean, std, gamma, shape, groups = cache
    if not (is_usual(dy) and dy.shape == shape and dy.dtype == x.dtype):
        check_upstream(dy, x, shape)
    maps = np.ascontiguousarray(dy).reshape(*shape[:2], -1)
    sums, products = map_sums(maps, x.reshape(maps.shape))
    if not math.isfinite(sums.sum() + products.sum()):
        check_floats("dy", dy)
    g = np.ones(shape[1]) if gamma is None else gamma
    by_group = (g * sums, g * products)
    g_sum, g_product = (s.reshape(*mean.shape, -1).sum(axis=2) for s in by_group)
    by_x = (g_product - mean * g_sum) / std**3 / -x.shape[2]
    per_group = mean, 1 / std, by_x, g_sum / std / -x.shape[2] - mean * by_x
    mean, r, *each = (np.repeat(s, shape[1] // groups, axis=1) for s in per_group)
    each = (s.ravel().astype(x.dtype) for s in (g * r, *each))
    rows = math.prod(shape[:2]), -1
    dx = rows_combine(maps.reshape(rows), x.reshape(rows), *each)
    dgamma = ((products - mean * sums) * r).sum(axis=0)
    return dx.reshape(shape), dgamma.astype(x.dtype), sums.sum(axis=0).astype(x.dtype)


def rows_combine(dy, x, scale, by_x, shift):
    """Return scale dy + by_x x + shift, one of each a row, some rows at a time."""
    dx = np.empty_like(x)
    scratch = np.empty((min(len(x), max(1, BLOCK // x.shape[1])), x.shape[1]), x.dtype)
    for i in blocks(*x.shape):
        part = np.multiply(x[i], by_x[i, None], out=scratch[: len(x[i])])
        part += shift[i, None]
        here = np.multiply(dy[i], scale[i, None], out=dx[i])
        here += part
    return dx


def instance_norm(x, gamma=None, beta=None, *, eps=1e-5):
    """Chapter 14's instance_norm: a group norm with a group for every channel.

    y = gamma * (x - mean) / sqrt(var + eps) + beta, moments over positions
    """
    if is_usual(x, 3) and fits(gamma, x) and fits(beta, x):
        y, cache = group_norm(x, gamma, beta, num_groups=x.shape[1], eps=eps)
        if isinstance(cache, GroupCache):
            return y, cache
    return axis_norms.instance_norm(x, gamma, beta, eps=eps)


def instance_norm_backward(dy, cache):
    """Chapter 14's instance_norm_backward, for what `instance_norm` here returned."""
    if not isinstance(cache, GroupCache):
        return axis_norms.instance_norm_backward(dy, cache)
    return group_norm_backward(dy, cache)
