"""From chapters/15_transformers.ipynb.

Extracted by `make export`: edit the notebook, not this file.
"""

import numbers

import torch
from torch import nn

from bnlib.nn._axis_norms import check_dtypes, last_axes
from bnlib.nn._batch_norm import check_tensor, is_for_torch
from bnlib.nn._trace import one_node

__all__ = ["DynamicTanh"]


class DynamicTanh(nn.Module):
    """Dynamic tanh, in the place of a layer norm.

    y = weight tanh(alpha x) + bias, alpha one learned number

    The same in training and evaluation. Half precision is computed in float32.
    Source: Zhu, Chen, He, LeCun & Liu 2025, equation 1.

    Parameters
    ----------
    normalized_shape : int or sequence of int
        How the shape of the input ends: that of weight and bias, as in LayerNorm.
    alpha_init : float
        Where alpha, of shape (1,), starts.
    elementwise_affine : bool
        Whether there are weight and bias.
    bias : bool
        Whether there is a bias beside the weight.

    Raises
    ------
    TypeError, RuntimeError
        As LayerNorm, for what cannot be taken.
    """

    def __init__(
        self, normalized_shape, alpha_init=0.5, elementwise_affine=True, bias=True,
        device=None, dtype=None,
    ):  # fmt: skip
        super().__init__()
        whole = isinstance(normalized_shape, numbers.Integral)
        self.normalized_shape = (normalized_shape,) if whole else (*normalized_shape,)
        self.alpha_init, self.elementwise_affine = alpha_init, elementwise_affine
        make = {"device": device, "dtype": dtype}
        self.alpha = nn.Parameter(torch.empty(1, **make))
        for name, wanted in (("weight", True), ("bias", bias)):
            wanted = wanted and elementwise_affine
            value = torch.empty(self.normalized_shape, **make) if wanted else None
            self.register_parameter(
                name, value if value is None else nn.Parameter(value)
            )
        self.reset_parameters()

    def reset_parameters(self):
        """Set alpha to alpha_init, weights to 1 and biases to 0."""
        nn.init.constant_(self.alpha, self.alpha_init)
        if self.weight is not None:
            nn.init.ones_(self.weight)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def extra_repr(self):
        affine = f"elementwise_affine={self.elementwise_affine}"
        return f"{self.normalized_shape}, alpha_init={self.alpha_init}, {affine}"

    @one_node
    def forward(self, input):
        """Return weight tanh(alpha input) + bias, in the dtype of the input."""
        parameters = {"weight": self.weight, "bias": self.bias}
        if not is_for_torch(input, self.alpha, *parameters.values()):
            check_tensor("dynamic_tanh", input)
            last_axes("dynamic_tanh", input, self.normalized_shape, **parameters)
            check_dtypes(input, self.alpha, *parameters.values())
        wide = torch.promote_types(input.dtype, torch.float32)
        y = torch.tanh(self.alpha * input.to(wide))
        y = y if self.weight is None else y * self.weight
        return (y if self.bias is None else y + self.bias).to(input.dtype)
