"""From chapters/21_fast.ipynb.

Extracted by `make export`: edit the notebook, not this file.
"""

import math

import torch

import bnlib.nn._batch_norm as derived
from bnlib._batch_norm import batch_axes
from bnlib._merge import pool
from bnlib.nn._batch_norm import PLAIN_TENSORS, update_running_
from bnlib.nn._function import centre, gradients, mean_square, means_over
from bnlib.nn._trace import is_eager

__all__ = ["batch_norm", "BatchNorm1d", "BatchNorm2d", "BatchNorm3d"]


def merged(means, variances):
    """Return mean and var (C,) of parts (parts, C) that count the same."""
    mean = means.mean(0)
    return mean, (means - mean).square_().add_(variances).mean(0)


def in_maps(x):
    """Return whether x is contiguous, with several positions for a channel."""
    return x.ndim > 2 and x.is_contiguous() and x.shape[2:].numel() > 1


def map_moments(x):
    """Return mean and var (C,) of x (N, C, ...), contiguous.

    The moments of each map (n, c) are those of a group norm with C groups.
    """
    n, c, size = x.shape[0], x.shape[1], x.shape[2:].numel()
    _, means, inverse = torch.native_group_norm(x, None, None, n, c, size, c, 0.0)
    return merged(means, inverse.pow_(-2))


FEW = 256  # values that may be added one by one in float32, as PyTorch does in columns


def column_moments(x):
    """Return mean and var (C,) of x (N, C, ...), channels last in memory.

    Neighbouring rows are laid side by side, (rows, C) -> (rows / k, k C), k so large
    that none of the sums has more than FEW terms. What k does not divide is left over.
    """
    rows, c = x.movedim(1, -1).reshape(-1, x.shape[1]), x.shape[1]
    least = -(-len(rows) // FEW)
    k = next((k for k in range(least, 2 * least) if len(rows) % k == 0), least)
    whole = len(rows) - len(rows) % k
    wide = rows[:whole].view(-1, k * c)
    means, variances = torch.batch_norm_update_stats(wide, None, None, 0.0)
    mean, var = merged(means.view(k, c), variances.view(k, c))
    if whole == len(rows):
        return mean, var
    rest_var, rest = torch.var_mean(rows[whole:], 0, correction=0)
    counts = mean.new_tensor([whole, len(rows) - whole])
    return pool(counts, torch.stack([mean, rest]), torch.stack([var, rest_var]))


def along(p, x):
    """Return p (C,) as (1, C, 1, ...)."""
    return p if x.ndim == 2 else p.view(1, -1, *[1] * (x.ndim - 2))


def first_values(x):
    """Return the first value of every channel of x (N, C, ...), (C,)."""
    first = x.select(0, 0)
    return first if x.ndim == 2 else first.flatten(1).select(1, 0)


def from_few(x, weight, bias, running, momentum, eps):
    """Return what `from_many` does, for at most FEW values per channel.

    p is the first value of every channel. None of m values is further from their mean
    than sqrt(m - 1) deviations: z is near 0, and nobody needs to look.
    """
    p = first_values(x)
    z, how = x - along(p, x), (True, momentum, eps)
    if not running:
        y, *found = torch.native_batch_norm(z, weight, bias, None, None, *how)
        return y, z, *found
    before = torch.cat(running)
    y, *found = torch.native_batch_norm(z, weight, bias, *running, *how)
    running[0].add_(p, alpha=momentum)
    keep_finite(running, before)
    return y, z, *found


def keep_finite(running, before):
    """Raise ValueError, see `update_running_`, if they are not finite any more.

    before : those of before their update, one after the other; they come back then.
    """
    if math.isfinite(running[0].dot(running[1])):
        return
    now = [statistic.clone() for statistic in running]
    for statistic, old in zip(running, before.chunk(2), strict=True):
        statistic.copy_(old)
    update_running_(running, now, 1.0)


def is_near_zero(mean, var, far):
    """Return whether mean^2 <= far var in all channels, and all of them are finite."""
    least, most = torch.addcmul(far * var, mean, mean, value=-1).aminmax()
    return float(least) >= 0 and float(most) < math.inf


def move_near_zero(x):
    """Return z = x - p, p (None, or one value per channel), and mean and var of z.

    p is taken where some mean is far from 0 compared with its deviation. A constant
    channel becomes exactly 0.
    """
    moments, far = (map_moments, 100) if in_maps(x) else (column_moments, 10)
    mean, var = moments(x)
    if is_near_zero(mean, var, far):
        return x, None, mean, var
    first = first_values(x)
    p = first + moments(x - along(first, x))[0]
    z = x - along(p, x)
    return z, p, *moments(z)


def from_many(x, weight, bias, running, momentum, eps):
    """Return y, z, and mean and 1 / std of z; update running statistics, if there are.

    z is x - p, with p a constant for each channel, or x itself.
    """
    z, p, mean, var = move_near_zero(x)
    if running:
        before, m = torch.cat(running), x.numel() / x.shape[1]
        running[0].lerp_(mean if p is None else p + mean, momentum)
        running[1].lerp_(var * (m / (m - 1)), momentum)
        keep_finite(running, before)
    elif x.dtype is torch.float32 and not var.isfinite().all():
        wide = (None if p is None else p.double() for p in (weight, bias))
        return tuple(t.float() for t in from_many(z.double(), *wide, (), 0.0, eps))
    y = torch.native_batch_norm(z, weight, bias, mean, var, False, 0.0, eps)[0]
    return y, z, mean, (var + eps).rsqrt_()


def gradients_by_formula(dy, x, weight, eps):
    """Return dx, dweight, dbias by chapter 4's formula, which autograd follows."""
    axes, weight = batch_axes(x), None if weight is None else along(weight, x)
    centred = centre(x, x.mean(axes, keepdim=True), axes)
    var = mean_square(centred, axes)
    dx, *found = gradients(dy, centred, var, eps, weight, means_over(axes))
    return dx, *(g.sum(axes) for g in found)


def normalize(x, *given):
    """Return y, z, mean and 1 / std of a batch, by the way that fits its size."""
    return (from_few if x.numel() <= FEW * x.shape[1] else from_many)(x, *given)


native_backward = torch.ops.aten.native_batch_norm_backward.default


class NativeFunction(torch.autograd.Function):
    """Batch norm of x (N, C, ...) by PyTorch's own kernels, which get it near 0.

    The first derivative is a kernel's. Whoever differentiates that again, or asks for
    many at once, gets the formula of chapter 4.
    """

    @staticmethod
    def forward(ctx, x, weight, bias, running, momentum, eps):
        y, z, mean, inverse = normalize(x, weight, bias, running, momentum, eps)
        ctx.save_for_backward(x, None if z is x else z, weight, mean, inverse)
        ctx.eps = eps
        return y

    @staticmethod
    def backward(ctx, dy):
        x, z, weight, mean, inverse = ctx.saved_tensors
        wanted = ctx.needs_input_grad[:3]
        if torch.is_grad_enabled() or torch._C._are_functorch_transforms_active():
            found = gradients_by_formula(dy, x, weight, ctx.eps)
            found = (g if w else None for g, w in zip(found, wanted, strict=True))
            return *found, None, None, None
        z = x if z is None else z
        dy = dy if dy.stride() == z.stride() else torch.empty_like(z).copy_(dy)
        known = mean, inverse, True, ctx.eps, wanted
        found = native_backward(dy, z, weight, None, None, *known)
        return *found, None, None, None


FLOATS = torch.float32, torch.float64


def is_plain(x, state, training, momentum, eps):
    """Return whether x is dense float32/64 on the CPU, and the layer's state like it.

    state : running mean and var, weight, bias. All else goes chapter 5's way.
    """
    if type(x) not in PLAIN_TENSORS or x.dtype not in FLOATS or not x.is_cpu:
        return False
    dtype, shape, (mean, var) = x.dtype, x.shape, state[:2]
    size = shape[1:2]
    for p in state:
        if p is not None and not (
            type(p) in PLAIN_TENSORS
            and p.dtype is dtype
            and p.shape == size
            and p.is_contiguous()
        ):
            return False
    return (
        len(shape) > 1
        and x.numel() > (shape[1] if training else 0)
        and (mean is None) == (var is None)
        and (training or mean is not None)
        and (mean is None or not (mean.requires_grad or var.requires_grad))
        and x.layout is torch.strided
        and type(momentum) in (float, int)
        and math.isfinite(momentum)
        and eps > 0
        and is_eager()
    )


def in_memory(x):
    """Return x contiguous or channels-last, as the kernels want it."""
    known = x.is_contiguous() or x.movedim(1, -1).is_contiguous()
    return x if known else derived.in_memory_as_torch(x * 1)


def with_running(x, mean, var, weight, bias, eps):
    """Return y with the running statistics; x is moved to 0 first where they are far.

    They are copied: PyTorch's backward pass would read them as they are then.
    """
    if (weight is None) != (bias is None):  # PyTorch would lose derivatives
        weight = torch.ones_like(mean) if weight is None else weight
        bias = torch.zeros_like(mean) if bias is None else bias
    if not torch.addcmul(var, mean, mean, value=-0.01).min() >= -eps:
        x, mean = x - along(mean, x), torch.zeros_like(mean)
    if torch.is_grad_enabled():
        mean, var = mean.clone(), var.clone()
    return torch.native_batch_norm(x, weight, bias, mean, var, False, 0.0, eps)[0]


def batch_norm(
    input, running_mean, running_var, weight=None, bias=None,
    training=False, momentum=0.1, eps=1e-5,
):  # fmt: skip
    """Chapter 5's batch_norm, by PyTorch's own kernels, and exact far from 0.

    y = weight (input - mean) / sqrt(var + eps) + bias

    Arguments, results and errors are the same. Values that are far from 0 compared with
    their deviation are moved there first; moments of many are merged from parts.
    Input that `is_plain` refuses takes chapter 5's way. Source: chapters 5, 20 and 21.
    """
    given = running_mean, running_var, weight, bias
    if not is_plain(input, given, training, momentum, eps):
        return derived.batch_norm(input, *given, training, momentum, eps)
    if not training:
        return with_running(in_memory(input), *given, eps)
    running = () if running_mean is None else (running_mean, running_var)
    how = weight, bias, running, momentum, eps
    return NativeFunction.apply(in_memory(input), *how)


class BatchNorm1d(derived.BatchNorm1d):
    """Batch normalization of (N, C) or (N, C, L), in place of torch.nn.BatchNorm1d.

    y = weight (x - mean) / sqrt(var + eps) + bias

    Chapter 5's layer by PyTorch's own kernels: exact far from 0 (rounding does not grow
    with mean / std), right to any derivative, and without a memory of its calls.
    Where it is torch.nn's operator, chapter 5 says; what goes by exact type wants
    `convert(model, to=torch.nn)` first. Source: chapters 5 and 21.
    """

    function = staticmethod(batch_norm)


class BatchNorm2d(derived.BatchNorm2d):
    """Batch normalization of (N, C, H, W), in place of torch.nn.BatchNorm2d.

    y = weight (x - mean) / sqrt(var + eps) + bias

    All else is as in `BatchNorm1d`. Source: chapters 6 and 21.
    """

    function = staticmethod(batch_norm)


class BatchNorm3d(derived.BatchNorm3d):
    """Batch normalization of (N, C, D, H, W), in place of torch.nn.BatchNorm3d.

    y = weight (x - mean) / sqrt(var + eps) + bias

    All else is as in `BatchNorm1d`. Source: chapters 6 and 21.
    """

    function = staticmethod(batch_norm)
