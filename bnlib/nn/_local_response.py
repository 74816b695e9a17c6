"""From chapters/10_inception.ipynb.

Extracted by `make export`: edit the notebook, not this file.
"""

import torch
from torch import nn

import bnlib._local_response as arrays
from bnlib.nn._batch_norm import is_for_torch
from bnlib.nn._trace import one_node

__all__ = ["local_response_norm", "LocalResponseNorm"]


def local_response_norm(input, size, alpha=1e-4, beta=0.75, k=1.0):
    """Divide every value by the energy of the channels around it.

    y_c = x_c / (k + (alpha / size) sum over W(c) of x_j^2)^beta

    As `torch.nn.functional.local_response_norm`. Source: Krizhevsky et al. 2012,
    section 3.3.

    Parameters
    ----------
    input : tensor (N, C, L, ...)
        Of any floating dtype; half precision is summed in float32.
    size : int
        How many channels are summed.
    alpha, beta, k : float

    Returns
    -------
    y : tensor

    Raises
    ------
    TypeError
        For anything but a floating-point tensor.
    ValueError
        For fewer than three dimensions or a size that is no whole number from 1 on.
    """
    if is_for_torch(input):
        how = size, alpha, beta, k
        return torch.nn.functional.local_response_norm(input, *how)
    arrays.check_size("size", size)
    if not isinstance(input, torch.Tensor) or not input.is_floating_point():
        got = getattr(input, "dtype", type(input).__name__)
        raise TypeError(f"input must be a floating-point tensor, got {got}; convert it")
    if input.dim() < 3:
        raise ValueError(
            f"Expected 3D or higher dimensionality input (got {input.dim()} dimensions)"
        )
    x = input.to(torch.promote_types(input.dtype, torch.float32))
    energy = arrays.neighbour_sum(x * x, size // 2, (size - 1) // 2)
    d = k + alpha / size * energy
    return (x / d**beta).to(input.dtype)


class LocalResponseNorm(nn.LocalResponseNorm):
    """Local response normalization as a layer; see `local_response_norm`."""

    @one_node
    def forward(self, input):
        return local_response_norm(input, self.size, self.alpha, self.beta, self.k)
