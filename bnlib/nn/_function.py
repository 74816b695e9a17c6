"""From chapters/05_inference.ipynb.

Extracted by `make export`: edit the notebook, not this file.
"""

import math

import torch
import torch.overrides

from bnlib._batch_norm import affine
from bnlib.nn._trace import is_eager


def centre(x, mean, axes):
    """Return x - mean, without the mean that the rounding of `mean` has left in it."""
    near = x - mean
    return near - near.mean(axes, keepdim=True)


def mean_square(centred, axes):
    """Return the mean of centred^2, NaN where it overflows."""
    var = (centred**2).mean(axes, keepdim=True)
    return torch.where(var < math.inf, var, math.nan)


def normalize_over(x, weight, bias, axes, eps):
    """Return y = scale (x - mean) + bias, and the mean and var over axes.

    scale = weight / sqrt(var + eps)

    For the inside of a layer: no value of x is looked at, so a GPU need not be waited
    for and a compiler can follow. x : tensor; weight, bias : None or broadcasting
    against it. Half precision is averaged in float32, the dtype of mean and var.
    Source: Ioffe & Szegedy 2015, Algorithm 1.
    """
    mean = x.mean(axes, keepdim=True, dtype=torch.promote_types(x.dtype, torch.float32))
    centred = centre(x, mean, axes)
    var = mean_square(centred, axes)
    y = affine(centred, affine((var + eps) ** -0.5, weight), bias)
    return y.to(x.dtype), mean, var


def gradients(dy, centred, var, eps, weight, means):
    """Return dx, and dweight and dbias before they are summed.

    dx = (g - <g> - xhat <g xhat>) / std,   g = weight dy

    centred : x - mean. means : the function that returns <a>, <b> for a, b; as axes of
    length 1. Autograd can follow. Source: chapter 4.
    """
    inverse = (var + eps) ** -0.5
    xhat, dy = centred * inverse, dy.to(centred.dtype)
    dweight, g = dy * xhat, affine(dy, weight)
    g_mean, g_xhat = means(g, affine(dweight, weight))
    return inverse * (g - g_mean - xhat * g_xhat), dweight, dy


class NormalizeFunction(torch.autograd.Function):
    """`normalize_over` with the backward pass of chapter 4, for every layer."""

    @staticmethod
    def forward(ctx, x, weight, bias, axes, eps):
        y, mean, var = normalize_over(x, weight, bias, axes, eps)
        ctx.save_for_backward(x, weight, mean, var)
        ctx.mark_non_differentiable(mean, var)
        ctx.shapes = shapes_of(x, weight, bias)
        ctx.axes, ctx.eps = axes, eps
        return y, mean, var

    @staticmethod
    def backward(ctx, dy, *_):
        x, weight, mean, var = ctx.saved_tensors
        centred = centre(x, mean, ctx.axes)
        if torch.is_grad_enabled():  # to be differentiated again
            var = mean_square(centred, ctx.axes)
        found = gradients(dy, centred, var, ctx.eps, weight, means_over(ctx.axes))
        return *as_wanted(ctx, found), None, None


def means_over(axes):
    """Return the function that averages each of its arguments over axes."""
    return lambda *tensors: [t.mean(axes, keepdim=True) for t in tensors]


def shapes_of(*tensors):
    """Return the shapes of tensors, None where there is none."""
    return [None if t is None else t.shape for t in tensors]


def as_wanted(ctx, found):
    """Return gradients summed over what was broadcast; None for what nobody wants."""
    pairs = zip(found, ctx.shapes, ctx.needs_input_grad, strict=False)
    return [g.sum_to_size(shape) if wanted else None for g, shape, wanted in pairs]


def normalized(x, weight, bias, axes, eps):
    """Return what `normalize_over` does, with our backward pass where it applies."""
    function = NormalizeFunction.apply if is_eager() else normalize_over
    return function(x, weight, bias, axes, eps)
