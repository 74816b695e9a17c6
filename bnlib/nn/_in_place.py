"""From chapters/21_fast.ipynb.

Extracted by `make export`: edit the notebook, not this file.
"""

import math

import torch

import bnlib.nn._batch_norm as derived
import bnlib.nn._exact as fast_layers

__all__ = ["InPlaceABN"]


class InPlaceFunction(torch.autograd.Function):
    """leaky_relu(batch norm of x), keeping its result alone.

    z = y or slope y,   y = z or z / slope,   xhat = (y - bias) / weight
    """

    @staticmethod
    def forward(ctx, x, weight, bias, running, momentum, eps, slope):
        given = weight, bias, running, momentum, eps
        y, _, _, inverse = fast_layers.normalize(x, *given)
        z = torch.nn.functional.leaky_relu_(y, slope)
        ctx.save_for_backward(z, weight, bias, inverse)
        ctx.slope = slope
        return z

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, dz):
        z, weight, bias, inverse = ctx.saved_tensors
        y = torch.nn.functional.leaky_relu(z, 1 / ctx.slope)
        dy = torch.ops.aten.leaky_relu_backward(dz, y, ctx.slope, False)
        dy = dy if dy.stride() == y.stride() else torch.empty_like(y).copy_(dy)
        # y takes the place of x: its mean is bias, its deviation weight.
        known = bias, 1 / weight, True, 0.0, (True, True, True)
        scale = weight * weight * inverse
        found = fast_layers.native_backward(dy, y, scale, None, None, *known)
        return *found, *[None] * 4


class InPlaceABN(derived.BatchNormMixin, torch.nn.modules.batchnorm._NormBase):
    """Batch norm of (N, C, ...) and leaky ReLU, with one activation kept, not three.

    z = leaky_relu(w (x - mean) / sqrt(var + eps) + bias),   w = |weight| + eps

    w is positive so that the backward pass can compute xhat back from z. On the CPU in
    float32 and float64; elsewhere, and in evaluation, the same values are computed
    without that saving. Second derivatives raise a RuntimeError. It is no `_BatchNorm`:
    what replaces batch norms by others would drop the activation. Other arguments are
    those of torch.nn.BatchNorm2d. Source: Rota Bulo, Porzi & Kontschieder 2018, section
    3, InPlace-ABN I.

    Parameters
    ----------
    slope : float
        By which negative values are multiplied, > 0.

    Raises
    ------
    ValueError
        For a slope that is not positive, and what `batch_norm` raises.
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
        given = mean, var, weight, bias
        known = fast_layers.is_plain(input, given, training, momentum, eps)
        if not (training and known):
            y = fast_layers.batch_norm(input, *given, training, momentum, eps)
            return torch.nn.functional.leaky_relu(y, self.slope)
        running = () if mean is None else (mean, var)
        how = weight, bias, running, momentum, eps, self.slope
        return InPlaceFunction.apply(fast_layers.in_memory(input), *how)
