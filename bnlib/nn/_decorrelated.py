"""From chapters/14_other_axes.ipynb.

Extracted by `make export`: edit the notebook, not this file.
"""

import torch
from torch import nn

import bnlib._whitening as arrays
from bnlib._declare import check_layout, check_like, check_number, check_shape
from bnlib._whitening import newton_schulz
from bnlib.nn._trace import is_eager, one_node

__all__ = ["DecorrelatedBatchNorm"]


def inverse_root(values, vectors):
    """Return U Lambda^(-1/2) U^T of eigenvalues (..., C) and vectors U (..., C, C)."""
    return vectors / values.sqrt().unsqueeze(-2) @ vectors.mT


class InverseRoot(torch.autograd.Function):
    """The inverse square root of symmetric, positive definite matrices (..., C, C).

    W = U Lambda^(-1/2) U^T;  dSigma = U (K o (U^T sym(dW) U)) U^T, as in
    `zca_whiten_backward`, finite also where eigenvalues coincide. Source: chapter 2.
    """

    @staticmethod
    def forward(ctx, sigma):
        values, vectors = torch.linalg.eigh(sigma)
        if not (values > 0).all():
            cure = "pass a larger eps, more values, or a larger num_groups"
            raise ValueError(f"a covariance is singular, its root not finite; {cure}")
        ctx.save_for_backward(values.sqrt(), vectors)
        return inverse_root(values, vectors)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, dw):
        root, vectors = ctx.saved_tensors
        row, column = root.unsqueeze(-1), root.unsqueeze(-2)
        kernel = -1 / (row * column * (row + column))
        inner = vectors.mT @ (dw + dw.mT) @ vectors / 2
        return vectors @ (kernel * inner) @ vectors.mT


def group_moments(x):
    """Return mean and (biased) covariance of groups of channels.

    x : tensor (G, c, M), M values of each of the c channels of G groups. Returns
    (G, c, 1) and (G, c, c). Raises ValueError unless M > c + 1: of fewer values every
    whitening is the same up to a rotation, whatever they are. Source: chapter 2.
    """
    _, channels, m = x.shape
    if m <= channels + 1:
        least = f"more than {channels + 1} values per channel, got {m}"
        cure = "pass larger batches or a larger num_groups"
        raise ValueError(f"groups of {channels} channels need {least}; {cure}")
    mean = x.mean(-1, keepdim=True)
    return mean, (x - mean) @ (x - mean).mT / m


def check_options(num_features, num_groups, momentum, eps):
    """Raise a ValueError with a cure for options that make no layer."""
    check_number("momentum", momentum, 0, 1, 0.1)
    check_number("eps", eps, 0, float("inf"), 1e-5)
    whole = all(isinstance(n, int) and n > 0 for n in (num_features, num_groups))
    if not whole or num_features % num_groups:
        what = f"got num_features={num_features!r}, num_groups={num_groups!r}"
        cure = "pass a divisor of num_features"
        raise ValueError(f"channels must be divisible into groups, {what}; {cure}")


def decorrelate(x, mean, sigma, eps, iterations=None):
    """Return (sigma + eps I)^(-1/2) (x - mean) for groups of channels.

    x : (G, c, M). mean : (G, c, 1). sigma : (G, c, c). iterations : of Newton-Schulz;
    None takes the exact root, by eigenvectors. Source: Huang et al. 2018 and 2019.
    """
    identity = torch.eye(sigma.shape[-1], dtype=x.dtype, device=x.device)
    sigma = sigma + eps * identity
    if iterations is None and is_eager():
        return InverseRoot.apply(sigma) @ (x - mean)
    if iterations is None:
        return inverse_root(*torch.linalg.eigh(sigma)) @ (x - mean)
    if is_eager():
        arrays.check_iterations("iterations", iterations)
        return newton_schulz(sigma, iterations=iterations) @ (x - mean)
    return arrays.iterate_root(sigma, identity, iterations) @ (x - mean)


class DecorrelatedBatchNorm(nn.Module):
    """Whiten groups of channels over the batch, then scale and shift every channel.

    y = weight (Sigma + eps I)^(-1/2) (x - mean) + bias, Sigma and mean of the batch in
    training, running averages in evaluation

    Input and output (N, C, ...), more than C / G + 1 values per channel in training;
    parameters, buffers and input have one dtype, float32 or float64.
    Source: Huang et al. 2018, 2019 (who average the root; we average the covariance).

    Parameters
    ----------
    num_features : int
        C.
    num_groups : int
        G, channels are whitened C / G at a time; with G = C this is batch
        normalization.
    eps : float
    momentum : float
        The weight of the new batch; the covariance is stored unbiased.
    affine : bool
        Whether there are weight and bias.
    iterations : int or None
        None for the exact root (once differentiable), a number for Newton-Schulz.

    Raises
    ------
    ValueError, TypeError
        For anything else, before running averages are touched.
    """

    def __init__(
        self, num_features, num_groups=1, eps=1e-5, momentum=0.1, affine=True, *,
        iterations=None, device=None, dtype=None,
    ):  # fmt: skip
        super().__init__()
        check_options(num_features, num_groups, momentum, eps)
        self.num_features, self.num_groups = num_features, num_groups
        self.eps, self.momentum, self.iterations = eps, momentum, iterations
        make = {"device": device, "dtype": dtype}
        for name, start in (("weight", torch.ones), ("bias", torch.zeros)):
            value = nn.Parameter(start(num_features, **make)) if affine else None
            self.register_parameter(name, value)
        eyes = torch.eye(num_features // num_groups, **make).repeat(num_groups, 1, 1)
        self.register_buffer("running_mean", torch.zeros(num_features, **make))
        self.register_buffer("running_covariance", eyes)

    def extra_repr(self):
        return f"{self.num_features}, {self.num_groups}, iterations={self.iterations}"

    @one_node
    def forward(self, input):
        """Return the whitened input; in training, update the running averages."""
        running_mean, weight, bias = self.running_mean, self.weight, self.bias
        if is_eager():  # elsewhere nobody can look at values
            check_layout("input", input, "N C ...")
        check_like("input", input, running_mean, "running_mean")
        if input.dtype not in (torch.float32, torch.float64):
            must = "float32 or float64"
            raise TypeError(f"input must be {must}, got {input.dtype}; convert")
        channels = (len(input), len(running_mean), *input.shape[2:])
        check_shape("input", input, channels, "the layer has so many num_features")
        shape = self.num_groups, len(running_mean) // self.num_groups, -1
        x = input.transpose(0, 1).reshape(shape)
        mean, sigma = running_mean.reshape(*x.shape[:2], 1), self.running_covariance
        if self.training:
            mean, sigma = group_moments(x)
        y = decorrelate(x, mean, sigma, self.eps, self.iterations)
        y = y.reshape(input.transpose(0, 1).shape).transpose(0, 1)
        if self.training:  # after everything else has succeeded
            unbiased = sigma.detach() * (x.shape[-1] / (x.shape[-1] - 1))
            running_mean.lerp_(mean.detach().flatten(), self.momentum)
            self.running_covariance.lerp_(unbiased, self.momentum)
        shape = 1, -1, *[1] * (y.ndim - 2)
        y = y if weight is None else y * weight.reshape(shape)
        return y if bias is None else y + bias.reshape(shape)
