"""Chapter 17, Speed and exactness: chapters/17_fast.ipynb.

Extracted by `make export`: edit the notebook, not this file.
The derivation is the page chapters/17_fast.html of the book.
"""

import functools
import itertools
import math
import threading

import numpy as np
import torch
from torch.autograd import forward_ad

import bnlib.fast as arrays
import bnlib.nn.convolution as convolution
import bnlib.nn.inference as inference
from bnlib.nn.inference import check_channels, check_input, store

__all__ = [
    "ROWS",
    "SMALL",
    "WIDE",
    "PATIENCE",
    "merged",
    "map_moments",
    "columns",
    "column_moments",
    "far",
    "along",
    "pivot",
    "centred_moments",
    "map_backward",
    "column_backward",
    "undisturbed",
    "FastFunction",
    "Saved",
    "backward_by_formula",
    "shared",
    "helpers_for",
    "as_array",
    "as_maps",
    "as_numbers",
    "whole_lines",
    "in_maps",
    "map_results",
    "own_columns",
    "column_stats",
    "moments_of_columns",
    "column_results",
    "map_gradients",
    "column_gradients",
    "KernelFunction",
    "gradients_by_formula",
    "by_kernels",
    "plain",
    "batch_norm",
    "as_now",
    "with_running",
    "with_batch",
    "in_training",
    "kernels_in_training",
    "normalized",
    "keep",
    "DENSE",
    "ready",
    "steepest",
    "one_call",
    "near",
    "inferred",
    "trained",
    "FastMixin",
    "BatchNorm1d",
    "BatchNorm2d",
    "BatchNorm3d",
    "InPlaceFunction",
    "InPlaceABN",
]


ROWS = 1024  # how many values PyTorch's channels-last kernel may add up one by one
SMALL = 1 << 18  # values; below, and for maps of fewer than WIDE positions, one call
WIDE = 64  # of PyTorch costs less than several from Python
PATIENCE = 100  # batches after which a quick way that failed is tried again


def merged(means, variances):
    """Return mean and var (C,), float64, of equal parts (parts, C): chapter 16."""
    means = means.double()
    mean = means.mean(0)
    return mean, (variances.double() + (means - mean) ** 2).mean(0)


def map_moments(x):
    """Return mean and var (C,), float64, of x (N, C, ...), contiguous.

    The moments of each map (n, c) are those of a group norm with C groups.
    """
    sizes = x.shape[0], x.shape[1], x[0, 0].numel()
    _, means, inverse = torch.native_group_norm(x, None, None, *sizes, x.shape[1], 0.0)
    inverse = inverse.double()
    return merged(means, 1 / (inverse * inverse))


def columns(x):
    """Return x (N, C, ...) as a view (positions, C), if channels are last in memory.

    So are those of (N, C), of channels_last, and of one channel. None for all else.
    """
    last = x.movedim(1, -1)
    return last.reshape(-1, x.shape[1]) if last.is_contiguous() else None


def column_moments(matrix):
    """Return mean and var (C,), float64, of the columns of a matrix (positions, C).

    Each column is cut into parts of at most ROWS values, and neighbouring rows are laid
    side by side: (positions, C) -> (positions / k, k C).
    """
    rows, channels = matrix.shape
    k = max(1, min(1024 // channels, rows // ROWS))
    whole = rows - rows % (k * -(-rows // (k * ROWS)))
    wide = matrix[:whole].view(-(-rows // (k * ROWS)), 1, -1, k * channels)
    parts = wide.movedim(3, 1).split(1)
    parts = [torch.batch_norm_update_stats(p, None, None, 0) for p in parts]
    moments = (torch.cat(s).view(-1, channels) for s in zip(*parts, strict=True))
    mean, var = merged(*moments)
    if whole == rows:
        return mean, var
    rest_var, rest = torch.var_mean(matrix[whole:].double(), 0, correction=0)
    share, step = 1 - whole / rows, rest - mean
    var = var + share * (rest_var - var) + share * (1 - share) * step**2
    return mean + share * step, var


def far(mean, var, limit):
    """Return whether mean^2 > limit var in some channel: rounding would then show."""
    return bool((mean**2 > limit * var).any())


def along(p, x):
    """Return p (C,) as (1, C, 1, ...); None stays None."""
    return None if p is None else p.view(1, -1, *[1] * (x.ndim - 2))


def pivot(x, mean, var, limit):
    """Return one value per channel to subtract: an x near the mean, else the mean.

    A constant channel becomes exactly 0.
    """
    first = x[(0, slice(None), *[0] * (x.ndim - 2))]
    near = (first - mean) ** 2 <= limit * var
    return torch.where(near, first, mean.to(x.dtype))


def centred_moments(x):
    """Return (x - p, p, mean, var), moments of x - p, p a constant per channel or None.

    p is subtracted where the mean is far from 0, and is a constant for the derivatives:
    batch norm does not notice it. mean, var, p : (C,), float64.
    """
    matrix, p = columns(x.detach()), None
    limit, moments_of = (
        (100, map_moments) if matrix is None else (10, moments_of_columns)
    )
    mean, var = moments_of(x.detach() if matrix is None else matrix)
    for _ in range(2):
        if not far(mean, var, limit):
            break
        step = pivot(x.detach(), mean, var, limit)
        x, p = x - along(step, x), step.double() if p is None else p + step
        near = x.detach()
        mean, var = moments_of(near if matrix is None else columns(near))
    return x, p, mean, var


def map_backward(dy, x, weight, mean, inverse, wanted):
    """Return dx, dweight, dbias: sums by a group norm's backward pass, then dx.

    dx = scale dy + by_x x + shift,   one scale, by_x and shift per channel
    """
    dy, (n, channels), m = dy.contiguous(), x.shape[:2], x.numel() / x.shape[1]
    each = [s.expand(n, -1).contiguous() for s in (mean, inverse)]
    sizes = n, channels, x[0, 0].numel(), channels, [False, True, True]
    backward = torch.ops.aten.native_group_norm_backward
    _, dweight, dbias = backward(dy, x, *each, inverse, *sizes)
    if not wanted[0]:
        return None, dweight, dbias
    scale = inverse if weight is None else inverse * weight
    by_x = scale * dweight * inverse / -m
    shift = scale * dbias / -m - mean * by_x
    zero, one = torch.zeros_like(mean), torch.ones_like(mean)
    dx, _, _ = torch.native_batch_norm(dy, scale, shift, zero, one, False, 0, 0)
    return dx.addcmul_(x, along(by_x, x)), dweight, dbias


def column_backward(dy, x, weight, mean, inverse, wanted):
    """Return dx, dweight, dbias by PyTorch's kernel for channels last."""
    dy = dy if dy.stride() == x.stride() else torch.empty_like(x).copy_(dy)
    given = weight, None, None, mean, inverse, True, 0.0, list(wanted)
    return torch.ops.aten.native_batch_norm_backward(dy, x, *given)


def undisturbed():
    """Return whether operations just run: no compiler, torch.func, forward mode, trace.

    Those follow chapter 5's operations; and what looks at values cannot be followed.
    """
    return (
        forward_ad._current_level < 0
        and not torch._C._are_functorch_transforms_active()
        and not torch.compiler.is_compiling()
        and not torch.jit.is_tracing()
    )


class FastFunction(inference.BatchNormFunction):
    """Chapter 5's function of x, weight, bias with moments that are already known.

    First derivatives come from kernels; a derivative of a derivative, or of many
    gradients at once, from the formula of chapter 4, as in chapter 5.
    """

    @staticmethod
    def forward(ctx, x, weight, bias, eps, mean, var):
        mean, var = (s.to(x.dtype, copy=True) for s in (mean, var))
        y, _, _ = torch.native_batch_norm(x, weight, bias, mean, var, False, 0, eps)
        mean, var = along(mean, x), along(var, x)
        ctx.save_for_backward(x, weight, mean, var)
        ctx.set_materialize_grads(False)
        ctx.eps = eps
        return y, mean, var

    @staticmethod
    def backward(ctx, dy, dmean, dvar):
        first = type(dy) is torch.Tensor and dmean is None and dvar is None
        if not first or torch.is_grad_enabled() or not undisturbed():
            return backward_by_formula(ctx, dy, dmean, dvar)
        x, weight, mean, var = ctx.saved_tensors
        mean, inverse = mean.flatten(), (var.flatten() + ctx.eps) ** -0.5
        backward = map_backward if columns(x) is None else column_backward
        wanted = ctx.needs_input_grad[:3]
        gradients = backward(dy, x, weight, mean, inverse, wanted)
        kept = (g if w else None for g, w in zip(gradients, wanted, strict=True))
        return *kept, None, None, None


class Saved:
    """What chapter 5's backward pass reads from its context."""


def backward_by_formula(ctx, dy, dmean, dvar):
    """Chapter 5's backward pass, which autograd can follow."""
    x, weight, mean, var = ctx.saved_tensors
    again, wanted = Saved(), ctx.needs_input_grad[:3]
    again.saved_tensors = x, along(weight, x), mean, var
    again.needs_input_grad, again.eps = wanted, ctx.eps
    upstream = zip((dy, dmean, dvar), (x, mean, var), strict=True)
    upstream = (torch.zeros_like(s) if d is None else d for d, s in upstream)
    dx, *rest, _ = inference.BatchNormFunction.backward(again, *upstream)
    dweight, dbias = (None if g is None else g.flatten() for g in rest)
    return dx, dweight, dbias, None, None, None


def shared(work, parts, threads, few=1):
    """Run work(start, stop) so that range(parts) is done, in so many threads.

    few : start is a multiple of this.
    """
    edges = [parts * k // threads // few * few for k in range(threads)] + [parts]
    ranges = itertools.pairwise(edges[1:])
    helpers = [threading.Thread(target=work, args=r) for r in ranges]
    for helper in helpers:
        helper.start()
    work(0, edges[1])
    for helper in helpers:
        helper.join()


def helpers_for(x):
    """Return how many threads pay for x: those of torch, or one."""
    return min(torch.get_num_threads(), x.shape[1]) if x.numel() > SMALL else 1


def as_array(x):
    """Return the memory of a tensor as an array."""
    return x.detach().numpy()


def as_maps(x):
    """Return the memory of x (N, C, ...), contiguous, as an array (N, C, 1, L)."""
    return as_array(x).reshape(*x.shape[:2], 1, math.prod(x.shape[2:]))


def as_numbers(p, x, otherwise):
    """Return a parameter (C,) as an array, or an array of that value for None."""
    if p is None:
        return np.full(x.shape[1], otherwise, as_array(x).dtype)
    return np.ascontiguousarray(as_array(p))


def whole_lines(x):
    """Return how many maps of x are a whole number of lines."""
    line = arrays.kernels().LINE
    return line // math.gcd(line, x.shape[2:].numel() * x.element_size())


def in_maps(x):
    """Return whether x is contiguous, with several positions for a channel."""
    return x.ndim > 2 and x.is_contiguous() and x.shape[2:].numel() > 1


def map_results(x, weight, bias, eps):
    """Return y and stats (4, C) = p, mean of x - p, var, 1 / std; x in maps."""
    y, stats = torch.empty_like(x), np.empty((4, x.shape[1]))
    gamma, beta = as_numbers(weight, x, 1)[:, None], as_numbers(bias, x, 0)[:, None]
    given = as_maps(x), gamma, beta, eps, as_maps(y), stats
    work = functools.partial(arrays.kernels().write_maps, *given)
    shared(work, x.shape[1], helpers_for(x), whole_lines(x))
    return y, stats


def own_columns():
    """Return whether the moments of columns are found by a kernel of this chapter."""
    return arrays.kernels() is not None and torch.get_num_threads() == 1


def column_stats(matrix, eps):
    """Return stats (4, C) = 0, mean, var, 1 / std of the columns, by a kernel; mean and
    var as tensors in the dtype of the matrix; and whether those will do."""
    rows, channels = matrix.shape
    k = math.gcd(rows, 1 << max(0, (1024 // channels).bit_length() - 1))
    wide = as_array(matrix).reshape(rows // k, k * channels)
    stats, narrow = np.empty((4, channels)), matrix.new_empty(2, channels)
    given = wide, channels, eps, stats, narrow.numpy()
    return stats, narrow, arrays.kernels().wide_moments(*given)


def moments_of_columns(matrix):
    """Return what `column_moments` does, by a kernel if there is one for it."""
    if not own_columns():
        return column_moments(matrix)
    return tuple(torch.from_numpy(column_stats(matrix, 0.0)[0][1:3]))


def column_results(x, weight, bias, eps):
    """Return what `map_results` does, x with channels last; None if a mean is far."""
    stats, (mean, var), near = column_stats(columns(x), eps)
    if not near:
        return None
    with torch.no_grad():
        y = torch.native_batch_norm(x, weight, bias, mean, var, False, 0.0, eps)[0]
    return y, stats


def map_gradients(dy, x, weight, stats, wanted):
    """Return dx, or None if it is not wanted, and dweight and dbias; x in maps."""
    dx = torch.empty_like(x) if wanted[0] else x.new_empty(0, *x.shape[1:])
    sums, gamma = np.zeros((2, x.shape[1], 1)), as_numbers(weight, x, 1)[:, None]
    given = as_maps(dy.contiguous()), as_maps(x), gamma, stats, as_maps(dx), *sums
    work = functools.partial(arrays.kernels().write_map_gradients, *given)
    shared(work, x.shape[1], helpers_for(x), whole_lines(x))
    dweight, dbias = torch.from_numpy(sums[..., 0]).to(x.dtype)
    return dx if wanted[0] else None, dweight, dbias


def column_gradients(dy, x, weight, stats, wanted):
    """Return dx, dweight and dbias, or None for what is not wanted; x in columns."""
    mean, inverse = torch.from_numpy(stats[1::2]).to(x.dtype)
    return column_backward(dy, x, weight, mean, inverse, wanted)


class KernelFunction(torch.autograd.Function):
    """Batch norm of x with weight and bias, by kernels; found : its y and stats."""

    @staticmethod
    def forward(ctx, x, weight, bias, eps, found):
        y, ctx.stats = found
        ctx.save_for_backward(x, weight)
        ctx.set_materialize_grads(False)
        ctx.eps = eps
        return y

    @staticmethod
    def backward(ctx, dy):
        wanted = ctx.needs_input_grad[:3]
        if dy is None:
            return (None,) * 5
        here = type(dy) is torch.Tensor and torch._C._has_storage(dy)  # no vmap's
        if torch.is_grad_enabled() or not here or not undisturbed():
            gradients = gradients_by_formula(ctx, dy)
        else:
            x, weight = ctx.saved_tensors
            of = map_gradients if in_maps(x) else column_gradients
            gradients = of(dy, x, weight, ctx.stats, wanted)
        kept = (g if w else None for g, w in zip(gradients, wanted, strict=True))
        return *kept, None, None


def gradients_by_formula(ctx, dy):
    """Return dx, dweight and dbias by chapter 5's formula, which autograd follows."""
    x, weight = ctx.saved_tensors
    dtype, axes = x.dtype, (0, *range(2, x.ndim))
    x = x.double() - along(torch.from_numpy(ctx.stats[0]), x)
    mean = x.mean(axes, keepdim=True)
    var = ((x - mean) ** 2).mean(axes, keepdim=True)
    again, zero = Saved(), torch.zeros_like(mean)
    again.saved_tensors = x, along(weight, x), mean, var
    again.needs_input_grad, again.eps = (True, True, True), ctx.eps
    dx, *rest, _ = inference.BatchNormFunction.backward(again, dy, zero, zero)
    return dx.to(dtype), *(g.view(-1).to(dtype) for g in rest)


def by_kernels(x, weight, bias, eps):
    """Return y and stats (4, C) of the batch x (N, C, ...), by compiled kernels.

    None where they are missing, or do not pay, or the moments are not finite or, for
    columns, far from 0.
    """
    if arrays.kernels() is None:
        return None
    x = x if x.is_contiguous() or columns(x) is not None else x * 1
    x = x if in_maps(x) else inference.in_memory_as_torch(x)
    if not in_maps(x) and not own_columns():
        return None
    found = (map_results if in_maps(x) else column_results)(x, weight, bias, eps)
    if found is None or not math.isfinite(found[1].sum()):
        return None
    y, stats = found
    if torch.is_grad_enabled():
        y = KernelFunction.apply(x, weight, bias, eps, (y, stats))
    return y, stats


def plain(x, *others):
    """Return whether the kernels of this chapter take x: dense float32/64 on the CPU.

    others : None, or tensors of the same dtype.
    """
    return (
        type(x) is torch.Tensor
        and x.dtype in (torch.float32, torch.float64)
        and x.device.type == "cpu"
        and x.layout is torch.strided
        and x.ndim > 1
        and x.numel() > 0
        and all(p is None or p.dtype is x.dtype for p in others)
        and undisturbed()
    )


def batch_norm(
    input, running_mean, running_var, weight=None, bias=None,
    training=False, momentum=0.1, eps=1e-5,
):  # fmt: skip
    """Chapter 5's batch_norm, by the fastest path that is exact for this input.

    y = weight (input - mean) / sqrt(var + eps) + bias

    Arguments, results and errors are the same. Values that are far from 0 compared with
    their deviation are moved there first, and in float32 moments are merged in float64.
    Input that `plain` refuses takes chapter 5's way. Source: chapters 5, 16 and 17.
    """
    given = running_mean, running_var, weight, bias
    odd = momentum is not None and not math.isfinite(momentum)
    if odd or not plain(input, *given):
        return inference.batch_norm(input, *given, training, momentum, eps)
    check_input(input, training, eps)
    check_channels(input, training, *given)
    if not training:
        return with_running(input, *given, eps)
    y = kernels_in_training(input, *given, momentum, eps)
    return in_training(normalized, input, *given, momentum, eps) if y is None else y


def as_now(mean, var):
    """Return running statistics as they are now, for a backward pass that may follow.

    PyTorch's would read them as they are then, see chapter 15.
    """
    return (mean.clone(), var.clone()) if torch.is_grad_enabled() else (mean, var)


def with_running(x, mean, var, weight, bias, eps):
    """Return y with the running statistics: x moved to 0 first where they are far."""
    fine = (weight is None) == (bias is None)  # PyTorch loses derivatives otherwise
    if not fine or not bool((mean**2 <= 100 * (var + eps)).all()):  # so for NaN, too
        return inference.batch_norm(x, mean, var, weight, bias, False, 0.0, eps)
    now = as_now(mean, var)
    return torch.native_batch_norm(x, weight, bias, *now, False, 0.0, eps)[0]


def with_batch(function, input, weight, bias, *more):
    """Return y and the mean and var (C,), float64, of the batch."""
    known = input.is_contiguous() or columns(input) is not None
    x = input if known else inference.in_memory_as_torch(input * 1)
    x, p, mean, var = centred_moments(x)
    if not math.isfinite(var.sum().to(input.dtype)) and input.dtype is torch.float32:
        weight, bias = (None if q is None else q.double() for q in (weight, bias))
        y, *moments = with_batch(function, input.double(), weight, bias, *more)
        return y.float(), *moments  # in float32 the variance overflows
    y = function(x, weight, bias, *more, mean, var)
    return y, mean if p is None else mean + p, var


def in_training(function, input, mean, var, weight, bias, momentum, *more):
    """Return function's y with the moments of the batch; update running statistics."""
    y, *batch = with_batch(function, input, weight, bias, *more)
    if mean is not None:
        m = input.numel() / input.shape[1]
        keep(mean, var, batch[0], batch[1] * (m / (m - 1)), momentum)
    return y


def kernels_in_training(input, mean, var, weight, bias, momentum, eps):
    """Return what `in_training` does, by compiled kernels, or None."""
    found = by_kernels(input, weight, bias, eps)
    if found is not None and mean is not None:
        m = input.numel() / input.shape[1]
        given = as_array(mean), as_array(var), found[1], m / (m - 1), float(momentum)
        if not arrays.kernels().remember(*given):
            p, mean_p, batch_var, _ = torch.from_numpy(found[1])
            keep(mean, var, p + mean_p, batch_var * given[3], momentum)
        for p in (mean, var):  # numpy writes unnoticed
            if not p.is_inference():
                torch.autograd.graph.increment_version(p)
    return None if found is None else found[0]


def normalized(*given):
    """Return the y of `FastFunction`."""
    return FastFunction.apply(*given)[0]


def keep(running_mean, running_var, mean, var, momentum):
    """Update running statistics; chapter 5's `store` says what is not finite."""
    new_mean = running_mean.double().lerp_(mean, momentum).to(running_mean.dtype)
    new_var = running_var.double().lerp_(var, momentum).to(running_var.dtype)
    if math.isfinite(new_mean.dot(new_var)):
        running_mean.copy_(new_mean), running_var.copy_(new_var)
    else:
        running = {"running_mean": running_mean, "running_var": running_var}
        store(running, {"running_mean": mean, "running_var": var}, momentum)


DENSE = torch.Tensor, torch.nn.Parameter


def ready(layer, x):
    """Return whether PyTorch's kernel can take x and the layer's state at once.

    What it would refuse, or understand otherwise, goes the way where all is checked.
    """
    if type(x) is not torch.Tensor or not x.is_cpu or not undisturbed():
        return False
    dtype, state = x.dtype, layer.__dict__["_buffers"]
    mean, var = state["running_mean"], state["running_var"]
    parameters = layer.__dict__["_parameters"]
    weight, bias = parameters.get("weight", x), parameters.get("bias", x)
    return (
        (dtype is torch.float32 or dtype is torch.float64)
        and mean is not None is not var
        and (weight is None) == (bias is None)  # else it loses derivatives
        and weight is not x is not bias
        and type(mean) in DENSE
        and mean.dtype is dtype is var.dtype
        and not (mean.requires_grad or var.requires_grad)
        and (weight is None or (type(weight) in DENSE and weight.dtype is dtype))
        and (bias is None or (type(bias) in DENSE and bias.dtype is dtype))
        and x.ndim > 1
        and x.numel() > layer.num_features == x.shape[1]
        and layer.eps > 0
    )


def steepest(x):
    """Return how large mean^2 / var may be for one call of PyTorch's kernel, or 0.

    0 : the call does not pay. Its kernel for channels last adds up all rows in the
    dtype of x, that for maps in float64.
    """
    if in_maps(x):
        return 100.0 if x.numel() <= SMALL or x.shape[2:].numel() < WIDE else 0.0
    rows, simple = x.numel() // x.shape[1], x.ndim == 2 and x.is_contiguous()
    pays = rows <= 8 * ROWS and (simple or columns(x) is not None)
    return min(100.0, 10.0 * ROWS / rows) if pays else 0.0


def one_call(layer, x, limit):
    """Return y from one call of PyTorch's own kernel, or None if it is not exact.

    The statistics it finds are looked at. If they are not finite, or mean^2 exceeds
    limit var, the running statistics get their old values back.
    """
    buffers, parameters = layer._buffers, layer._parameters
    mean, var = buffers["running_mean"], buffers["running_var"]
    a, b = mean.numpy(), var.numpy()  # numpy, because it takes less to call
    before = a.copy(), b.copy()
    given = parameters["weight"], parameters["bias"], mean, var
    y, found, inverse = torch.native_batch_norm(
        x, *given, True, layer.momentum, layer.eps
    )
    ratio = found.numpy() * inverse.numpy()
    square = ratio.dot(ratio)  # the sum of channels: cheaper than the largest
    if not square <= limit:
        square = abs(ratio).max() ** 2
    if square <= limit and math.isfinite(mean.dot(var).item()):
        count = buffers["num_batches_tracked"].numpy()
        count += 1
        layer.__dict__.pop("_seen", None)  # PyTorch's kernel writes unnoticed
        return y
    a[:], b[:] = before
    return None


def near(layer):
    """Return whether the running means are so near 0 that PyTorch's kernel is exact.

    Looked up only when a running statistic has changed since the last time.
    """
    mean, var = layer._buffers["running_mean"], layer._buffers["running_var"]
    state = mean.data_ptr(), mean._version, var.data_ptr(), var._version, layer.eps
    if layer.__dict__.get("_seen", (None,))[0] != state:
        fine = bool((mean**2 <= 100 * (var + layer.eps)).all())
        layer.__dict__["_seen"] = state, fine
    return layer.__dict__["_seen"][1]


def inferred(layer, x):
    """Return y with the layer's running statistics, or None if they are too far."""
    if not near(layer):
        return None
    buffers, parameters = layer._buffers, layer._parameters
    now = as_now(buffers["running_mean"], buffers["running_var"])
    given = parameters["weight"], parameters["bias"], *now
    return torch.native_batch_norm(x, *given, False, 0.0, layer.eps)[0]


def trained(layer, x):
    """Return y of `one_call`, or None where it does not pay or is not exact."""
    state, key = layer.__dict__, (x.shape, x.stride())
    if state.get("_steepest", (None,))[0] != key:  # found once for a kind of input
        state["_steepest"] = key, steepest(x)
    counter = state["_buffers"]["num_batches_tracked"]
    usual = type(layer.momentum) is float and layer.track_running_stats
    usual = usual and counter is not None
    limit, wait = state["_steepest"][1] if usual else 0.0, state.get("_wait", 0)
    if not limit or wait:
        state["_wait"] = max(0, wait - 1)
        return None
    y = one_call(layer, x, limit)
    if y is None:
        state["_wait"] = PATIENCE
    return y


class FastMixin:
    """The same layer by the fastest path that is exact. Before a layer of chapter 5."""

    function = staticmethod(batch_norm)

    def forward(self, input):
        """Return the normalized input; in training, update the running statistics."""
        y = None
        if ready(self, input):
            self._check_input_dim(input)
            y = (trained if self.training else inferred)(self, input)
        return super().forward(input) if y is None else y


class BatchNorm1d(FastMixin, inference.BatchNorm1d):
    """Batch normalization of (N, C) or (N, C, L), in place of torch.nn.BatchNorm1d.

    y = weight (x - mean) / sqrt(var + eps) + bias

    Chapter 5's layer, faster on the CPU, and exact for values far from 0: rounding does
    not grow with mean / std. Source: chapters 5 and 17.
    """


class BatchNorm2d(FastMixin, convolution.BatchNorm2d):
    """Batch normalization of (N, C, H, W), in place of torch.nn.BatchNorm2d.

    y = weight (x - mean) / sqrt(var + eps) + bias

    All else is as in `BatchNorm1d`. Source: chapters 6 and 17.
    """


class BatchNorm3d(FastMixin, convolution.BatchNorm3d):
    """Batch normalization of (N, C, D, H, W), in place of torch.nn.BatchNorm3d.

    y = weight (x - mean) / sqrt(var + eps) + bias

    All else is as in `BatchNorm1d`. Source: chapters 6 and 17.
    """


class InPlaceFunction(torch.autograd.Function):
    """leaky_relu(batch norm of x), keeping its result alone.

    z = y or slope y,   y = z or z / slope,   xhat = (y - bias) / weight
    """

    @staticmethod
    def forward(ctx, x, weight, bias, eps, slope, mean, var):
        mean, var = mean.to(x.dtype), var.to(x.dtype)
        y, _, _ = torch.native_batch_norm(x, weight, bias, mean, var, False, 0, eps)
        z = torch.nn.functional.leaky_relu_(y, slope)
        ctx.save_for_backward(z, weight, bias, (var + eps) ** -0.5)
        ctx.slope = slope
        return z

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, dz):
        z, weight, bias, inverse = ctx.saved_tensors
        y = torch.nn.functional.leaky_relu(z, 1 / ctx.slope)
        dy = torch.ops.aten.leaky_relu_backward(dz, y, ctx.slope, False)
        # y takes the place of x: its mean is bias, its deviation weight.
        backward = map_backward if columns(y) is None else column_backward
        given = weight * weight * inverse, bias, 1 / weight, (True, True, True)
        return *backward(dy, y, *given), None, None, None, None


class InPlaceABN(inference.BatchNormMixin, torch.nn.modules.batchnorm._BatchNorm):
    """Batch norm of (N, C, ...) and leaky ReLU, with one activation kept, not three.

    z = leaky_relu(w (x - mean) / sqrt(var + eps) + bias),   w = |weight| + eps

    Arguments: those of torch.nn.BatchNorm2d, and slope > 0, by which negative values
    are multiplied. w is positive so that the backward pass can compute xhat back from
    z. On the CPU in float32 and float64; elsewhere, and in evaluation, the same values
    are computed without that saving. Second derivatives raise a RuntimeError.
    Raises ValueError for a slope that is not positive, and what `batch_norm` raises.
    Source: Rota Bulo, Porzi & Kontschieder 2018, section 3, InPlace-ABN I.
    """

    def __init__(self, num_features, *args, slope=0.01, **kwargs):
        super().__init__(num_features, *args, **kwargs)
        if not 0 < slope < math.inf:
            cure = "0.01 is usual; 0, a ReLU, forgets what is negative"
            raise ValueError(f"slope must be positive and finite, got {slope}; {cure}")
        self.slope = slope

    def extra_repr(self):
        return f"{super().extra_repr()}, slope={self.slope}"

    def _check_input_dim(self, input):
        if input.ndim < 2:
            what = f"expected at least 2D input (got {input.ndim}D input)"
            raise ValueError(f"{what}; reshape it to (N, C) or (N, C, ...)")

    def function(self, input, mean, var, weight, bias, training, momentum, eps):
        """Return z; `BatchNormMixin.forward` has chosen the statistics."""
        one = torch.ones(self.num_features, dtype=input.dtype, device=input.device)
        weight = one if weight is None else weight.abs() + eps
        bias = torch.zeros_like(weight) if bias is None else bias
        given = input, mean, var, weight, bias, training, momentum, eps
        if not (training and plain(*given[:5])):
            return torch.nn.functional.leaky_relu(batch_norm(*given), self.slope)
        check_input(input, training, eps)
        check_channels(input, training, *given[1:5])
        return in_training(InPlaceFunction.apply, *given[:5], momentum, eps, self.slope)
