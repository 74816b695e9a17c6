"""Batch norm as it is taught, each rewritten from its formula; x is (N, C, ...).

Forward and backward where the original derives a backward pass, else autograd's. At the
end a layer of our own that lost: fast by itself, and not in a network.
"""

import functools
import importlib
import itertools
import threading

import numpy as np
import torch


def across(x):
    return (0, *range(2, x.ndim))


def as_in_d2l(x, gamma, beta, eps=1e-5):
    """Mean, then the mean of squared deviations; autograd does the rest."""
    shape = 1, -1, *[1] * (x.ndim - 2)
    mean = x.mean(dim=across(x), keepdim=True)
    var = ((x - mean) ** 2).mean(dim=across(x), keepdim=True)
    xhat = (x - mean) / torch.sqrt(var + eps)
    return gamma.view(shape) * xhat + beta.view(shape)


def as_in_labml(x, gamma, beta, eps=1e-5):
    """The variance as E[x^2] - E[x]^2; autograd does the rest."""
    rows = x.view(x.shape[0], x.shape[1], -1)
    mean = rows.mean(dim=[0, 2])
    var = (rows**2).mean(dim=[0, 2]) - mean**2
    xhat = (rows - mean.view(1, -1, 1)) / torch.sqrt(var + eps).view(1, -1, 1)
    return (gamma.view(1, -1, 1) * xhat + beta.view(1, -1, 1)).view(x.shape)


def as_rows(x):
    """(N, C, ...) as (positions, C), a copy where there are positions."""
    return np.moveaxis(x, 1, -1).reshape(-1, x.shape[1])


def as_maps(rows, like):
    n, channels, *spatial = like.shape
    return np.moveaxis(rows.reshape(n, *spatial, channels), -1, 1)


def staged(x, gamma, beta, dy, eps=1e-5):
    """CS231n's computational graph: one line per node, forward and backward."""
    rows, d = as_rows(x), as_rows(dy)
    n = len(rows)
    mean = np.mean(rows, axis=0)
    centred = rows - mean
    square = centred**2
    var = np.mean(square, axis=0)
    std = np.sqrt(var + eps)
    inverse = 1 / std
    xhat = centred * inverse
    y = gamma * xhat + beta
    dbeta, dgamma = d.sum(axis=0), np.sum(d * xhat, axis=0)
    dxhat = d * gamma
    dinverse = np.sum(dxhat * centred, axis=0)
    dstd = -dinverse / std**2
    dvar = 0.5 * dstd / np.sqrt(var + eps)
    dsquare = dvar * np.ones_like(rows) / n
    dcentred = dxhat * inverse + 2 * centred * dsquare
    dx = dcentred + np.ones_like(rows) * -np.sum(dcentred, axis=0) / n
    return as_maps(y, x), as_maps(dx, x), dgamma, dbeta


def simplified(x, gamma, beta, dy, eps=1e-5):
    """CS231n's other solution: the gradient on one line."""
    rows, d = as_rows(x), as_rows(dy)
    mean, var = rows.mean(axis=0), rows.var(axis=0)
    std = np.sqrt(var + eps)
    xhat = (rows - mean) / std
    y = gamma * xhat + beta
    dbeta, dgamma = d.sum(axis=0), (d * xhat).sum(axis=0)
    n = len(rows)
    dx = gamma / (n * std) * (n * d - dbeta - xhat * dgamma)
    return as_maps(y, x), as_maps(dx, x), dgamma, dbeta


@functools.cache
def kernels():
    """The loops that numba compiles, or None where it is missing."""
    try:
        return importlib.import_module("benchmarks.kernels")
    except (ImportError, RuntimeError):  # or nowhere to keep what it compiles
        return None


def run_shared(work, x):
    """Run work(start, stop) on all channels of x, in as many threads as torch has.

    Shares begin at multiples of 16 channels, whose maps begin a line of memory.
    """
    channels, large = x.shape[1], x.numel() > 1 << 18  # a thread takes time to start
    threads = max(1, min(torch.get_num_threads(), channels // 16)) if large else 1
    edges = [channels * k // threads // 16 * 16 for k in range(threads)] + [channels]
    own, *rest = itertools.pairwise(edges)
    helpers = [threading.Thread(target=work, args=share) for share in rest]
    for helper in helpers:
        helper.start()
    work(*own)
    for helper in helpers:
        helper.join()


def as_loops_take(t):
    """The memory of maps (N, C, ...) as (N, C, L), of parameters as they are."""
    array = t.detach().numpy()
    return array if t.ndim == 1 else array.reshape(*t.shape[:2], -1)


class KernelFunction(torch.autograd.Function):
    """Batch norm of maps: y, and p, mean of x - p, var and 1 / std as (4, C)."""

    @staticmethod
    def forward(ctx, x, weight, bias, eps):
        y, ctx.stats = torch.empty_like(x), np.empty((4, x.shape[1]))
        given = *map(as_loops_take, (x, weight, bias)), eps, as_loops_take(y)
        run_shared(functools.partial(kernels().write_maps, *given, ctx.stats), x)
        ctx.save_for_backward(x, weight)
        stats = torch.from_numpy(ctx.stats)
        ctx.mark_non_differentiable(stats)
        return y, stats

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, dy, _):
        x, weight = ctx.saved_tensors
        dx, sums = torch.empty_like(x), np.empty((2, x.shape[1]))
        given = *map(as_loops_take, (dy.contiguous(), x, weight)), ctx.stats
        given = *given, as_loops_take(dx), sums
        run_shared(functools.partial(kernels().write_map_gradients, *given), x)
        dbeta, dgamma = torch.from_numpy(sums).to(x.dtype)
        return dx, dgamma, dbeta, None


class KernelBatchNorm2d(torch.nn.BatchNorm2d):
    """torch.nn's layer, by compiled loops where it trains on contiguous float32 maps.

    By itself it is two to three times as fast in one thread. A network gains little,
    because batch norm is a small part of it; with more threads it loses: those of torch
    keep spinning for a while after each operation, and ours have to wait for a core.
    """

    def forward(self, x):
        known = x.dtype is torch.float32 and x.is_contiguous()
        if not (self.training and known and kernels()):
            return super().forward(x)
        y, stats = KernelFunction.apply(x, self.weight, self.bias, self.eps)
        p, mean, var, _ = stats
        m = x.numel() / x.shape[1]
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_((p + mean).to(x.dtype), self.momentum)
            self.running_var.lerp_((var * (m / (m - 1))).to(x.dtype), self.momentum)
        return y


class NativeFunction(torch.autograd.Function):
    """PyTorch's own two kernels, called from Python: what that alone costs."""

    @staticmethod
    def forward(ctx, x, weight, bias, mean, var, momentum, eps):
        given = weight, bias, mean, var, True, momentum, eps
        y, *found = torch.native_batch_norm(x, *given)
        ctx.save_for_backward(x, weight, *found)
        ctx.eps = eps
        return y

    @staticmethod
    def backward(ctx, dy):
        x, weight, *found = ctx.saved_tensors
        given = weight, None, None, *found, True, ctx.eps, ctx.needs_input_grad[:3]
        found = torch.ops.aten.native_batch_norm_backward(dy, x, *given)
        return *found, None, None, None, None


class NativeForward:
    """A batch norm that is nothing but `NativeFunction`; training alone."""

    def forward(self, x):
        self.num_batches_tracked.add_(1)
        statistics = self.running_mean, self.running_var
        how = *statistics, self.momentum, self.eps
        return NativeFunction.apply(x, self.weight, self.bias, *how)


class NativeBatchNorm1d(NativeForward, torch.nn.BatchNorm1d):
    pass


class NativeBatchNorm2d(NativeForward, torch.nn.BatchNorm2d):
    pass
