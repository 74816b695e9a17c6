"""From chapters/16_without_normalization.ipynb.

Extracted by `make export`: edit the notebook, not this file.
"""

import torch

from bnlib.nn._batch_norm import is_for_torch
from bnlib.nn._function import normalized
from bnlib.nn._trace import one_node

__all__ = ["WSConv2d"]


class WSConv2d(torch.nn.Conv2d):
    """A convolution with standardized weights, in place of torch.nn.Conv2d.

    y = conv(x, (weight - mean) / sqrt(var + eps)) + bias, moments over a unit's weights

    Arguments, state_dict and errors are those of torch.nn.Conv2d, from which it
    inherits all but the forward pass. With `gamma` the weights are scaled as in a
    normalizer-free network, by gamma / sqrt(fan-in) and a learned `gain` of each unit
    that starts at 1. Without it they have variance 1, and a normalization should
    follow. Under a tracer it is torch's layer_norm of the weights.
    Source: Qiao et al. 2019; Brock, De & Smith 2021 with gamma.
    """

    def __init__(
        self, in_channels, out_channels, kernel_size, stride=1, padding=0, dilation=1,
        groups=1, bias=True, padding_mode="zeros", device=None, dtype=None,
        *, gamma=None, eps=1e-6,
    ):  # fmt: skip
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation,
            groups, bias, padding_mode, device, dtype,
        )  # fmt: skip
        self.gamma, self.eps = gamma, eps
        shape = out_channels, 1, 1, 1
        gain = None if gamma is None else torch.ones(shape, device=device, dtype=dtype)
        self.register_parameter(
            "gain", gain if gain is None else torch.nn.Parameter(gain)
        )

    def standardized(self):
        """Return the weights that the convolution uses."""
        weight, gain = self.weight, None
        if self.gamma is not None:
            gain = self.gain * (self.gamma * weight[0].numel() ** -0.5)
        if is_for_torch(weight, gain):
            shape = weight.shape[1:]
            y = torch.nn.functional.layer_norm(weight, shape, eps=self.eps)
            return y if gain is None else y * gain
        return normalized(weight, gain, None, (1, 2, 3), self.eps)[0]

    @one_node
    def forward(self, input):
        """Return the convolution of the input with the standardized weights."""
        return self._conv_forward(input, self.standardized(), self.bias)

    def extra_repr(self):
        scale = "" if self.gamma is None else f", gamma={self.gamma:g}"
        return f"{super().extra_repr()}{scale}, eps={self.eps:g}"
