"""From chapters/14_other_axes.ipynb.

Extracted by `make export`: edit the notebook, not this file.
"""

import numbers
from functools import partial

import torch

from bnlib.nn._batch_norm import (
    along_channels,
    batch_norm,
    check_channels,
    check_tensor,
    in_memory_as_torch,
    is_for_torch,
    update_running_,
)
from bnlib.nn._function import as_wanted, gradients, normalized, shapes_of
from bnlib.nn._trace import is_eager, one_node

__all__ = [
    "layer_norm",
    "rms_norm",
    "group_norm",
    "instance_norm",
    "LayerNorm",
    "RMSNorm",
    "GroupNorm",
    "InstanceNorm1d",
    "InstanceNorm2d",
    "InstanceNorm3d",
]


def divide_by_rms(x, weight, axes, eps):
    """Return y = weight x / sqrt(<x^2> + eps), and <x^2>: `normalize_over`, mean 0."""
    x = x.to(torch.promote_types(x.dtype, torch.float32))
    square = (x**2).mean(axes, keepdim=True)
    xhat = x * (square + eps) ** -0.5  # first: the result lies in memory as x does
    return xhat if weight is None else xhat * weight, square


class RMSFunction(torch.autograd.Function):
    """`divide_by_rms` with the backward pass of chapter 4, where <g> is 0."""

    @staticmethod
    def forward(ctx, x, weight, axes, eps):
        y, square = divide_by_rms(x, weight, axes, eps)
        ctx.save_for_backward(x, weight, square)
        ctx.mark_non_differentiable(square)
        ctx.shapes = shapes_of(x, weight)
        ctx.axes, ctx.eps = axes, eps
        return y, square

    @staticmethod
    def backward(ctx, dy, _):
        x, weight, square = ctx.saved_tensors
        x, axes = x.to(square.dtype), ctx.axes
        if torch.is_grad_enabled():  # to be differentiated again
            square = (x**2).mean(axes, keepdim=True)
        found = gradients(
            dy, x, square, ctx.eps, weight,
            lambda _, g_xhat: (0, g_xhat.mean(axes, keepdim=True)),
        )  # fmt: skip
        return *as_wanted(ctx, found), None, None


def check_dtypes(input, *parameters):
    """Raise RuntimeError unless all parameters have the dtype of the input.

    float32 parameters may go with a half-precision input, all of them or none.
    """
    dtypes = {p.dtype for p in parameters if p is not None}
    wide = torch.promote_types(input.dtype, torch.float32)
    if dtypes - {input.dtype} and dtypes - {wide}:
        got = f"input {input.dtype}, parameters {sorted(map(str, dtypes))}"
        raise RuntimeError(f"mixed dtype: {got}; convert one: layer.to(input.dtype)")


def last_axes(name, input, normalized_shape, **parameters):
    """Return the axes that normalized_shape stands for, as negative numbers.

    Raises torch's TypeError if it is not a tuple or list of integers, RuntimeError if
    it is empty, not how the shape of the input ends, or not the shape of a parameter.
    """
    shape = normalized_shape
    whole = isinstance(shape, tuple | list) and all(
        isinstance(n, (numbers.Integral, torch.SymInt)) for n in shape
    )
    if not whole:
        what = f"{name}(): argument 'normalized_shape' must be tuple of ints"
        raise TypeError(f"{what}, not {shape!r}; for the last axis: input.shape[-1:]")
    if not shape:
        what = "Expected normalized_shape to be at least 1-dimensional"
        raise RuntimeError(f"{what}, got {shape}; for the last axis: input.shape[-1:]")
    expected = f"normalized_shape = {list(shape)}"
    for kind, p in parameters.items():
        if p is not None and tuple(p.shape) != tuple(shape):
            what = f"Expected {kind} to be of same shape as normalized_shape"
            got = f"but got {kind} of shape {list(p.shape)} and {expected}"
            raise RuntimeError(f"{what}, {got}; reshape it")
    if tuple(input.shape[-len(shape) :]) != tuple(shape):
        sizes = ", ".join(map(str, shape))
        what = f"Given normalized_shape=[{sizes}], expected input with shape"
        got = f"[*, {sizes}], but got input of size {list(input.shape)}"
        raise RuntimeError(f"{what} {got}; move the axes to normalize to the end")
    return tuple(range(-len(shape), 0))


def layer_norm(input, normalized_shape, weight=None, bias=None, eps=1e-5):
    """Normalize over the last axes: torch.nn.functional.layer_norm, derived.

    y = weight (input - mean) / sqrt(var + eps) + bias, moments over the last axes

    Source: Ba, Kiros & Hinton 2016, equation 3.

    Parameters
    ----------
    input : tensor
        Floating-point, all dtypes the same, or half precision with float32 parameters.
    normalized_shape : sequence of int
        How the shape of the input ends.
    weight, bias : tensor or None
        Of shape normalized_shape.
    eps : float

    Returns
    -------
    y : tensor
        In the input's dtype; statistics in float32 at least.

    Raises
    ------
    TypeError, RuntimeError
        As torch, see `check_tensor`, `last_axes`, `check_dtypes`.
    """
    if is_for_torch(input, weight, bias):
        how = normalized_shape, weight, bias, eps
        return torch.nn.functional.layer_norm(input, *how)
    check_tensor("layer_norm", input)
    axes = last_axes("layer_norm", input, normalized_shape, weight=weight, bias=bias)
    check_dtypes(input, weight, bias)
    wide = torch.promote_types(input.dtype, torch.float32)
    weight, bias = (None if p is None else p.to(wide) for p in (weight, bias))
    y, _, _ = normalized(input, weight, bias, axes, eps)
    return y.contiguous()


def rms_norm(input, normalized_shape, weight=None, eps=None):
    """Divide by the root mean square: torch.nn.functional.rms_norm, derived.

    y = weight input / sqrt(<input^2> + eps), <.> the mean over the last axes

    Source: Zhang & Sennrich 2019, equation 4.

    Parameters
    ----------
    input : tensor
        Of any floating dtype. Complex input is taken as torch takes it, with the mean
        of z^2 and not of |z|^2.
    normalized_shape : sequence of int
        How the shape of the input ends.
    weight : tensor or None
        Of shape normalized_shape.
    eps : float or None
        None stands for torch.finfo of the dtype computed in, float32 at least.

    Returns
    -------
    y : tensor
        In the input's dtype.

    Raises
    ------
    TypeError, RuntimeError
        As torch, see `check_tensor`, `last_axes`.
    ValueError
        For an input of fewer dimensions than normalized_shape.
    """
    if is_for_torch(input, weight):
        return torch.nn.functional.rms_norm(input, normalized_shape, weight, eps)
    if not (isinstance(input, torch.Tensor) and input.is_complex()):
        check_tensor("rms_norm", input)
    if hasattr(normalized_shape, "__len__") and input.ndim < len(normalized_shape):
        what = f"Input tensor must have at least {len(normalized_shape)} dimensions"
        raise ValueError(f"{what}, but got {input.ndim}; its last ones are normalized")
    axes = last_axes("rms_norm", input, normalized_shape, weight=weight)
    wide = torch.promote_types(input.dtype, torch.float32)
    eps = torch.finfo(wide).eps if eps is None else eps
    weight = (
        None if weight is None else weight.to(torch.promote_types(weight.dtype, wide))
    )
    known = is_eager() and not input.is_complex()
    y, _ = (RMSFunction.apply if known else divide_by_rms)(input, weight, axes, eps)
    return in_memory_as_torch(y.to(input.dtype))


def check_group_input(input, num_groups, weight, bias):
    """Raise torch's errors, with a cure, for what group_norm cannot take."""
    if input.ndim < 2:
        what = "Expected at least 2 dimensions for input tensor but received"
        raise RuntimeError(f"{what} {input.ndim}; reshape it to (N, C) or (N, C, ...)")
    whole = isinstance(num_groups, numbers.Integral) and num_groups is not True
    if not whole:
        what = "group_norm(): argument 'num_groups' must be int"
        raise TypeError(f"{what}, not {num_groups!r}; 32 is usual for images")
    if num_groups < 1:
        what = f"Expected num groups to be greater than 0, got {num_groups}"
        raise RuntimeError(f"{what}; 1 is layer norm")
    shape, channels = list(input.shape), input.shape[1]
    if channels % num_groups:
        what = "Expected number of channels in input to be divisible by num_groups"
        got = f"but got input of shape {shape} and num_groups={num_groups}"
        raise RuntimeError(f"{what}, {got}; pass a divisor of {channels}")
    for kind, p in (("weight", weight), ("bias", bias)):
        if p is not None and tuple(p.shape) != (channels,):
            what = f"Expected {kind} to be a vector of size equal to the number of"
            got = f"but got {kind} of shape {list(p.shape)} and input of shape {shape}"
            raise RuntimeError(f"{what} channels in input, {got}; is it ({channels},)?")
    check_dtypes(input, weight, bias)
    if input.numel() == input.shape[0] * num_groups == num_groups:
        what = "Expected more than 1 value per channel when training, got input size"
        raise ValueError(f"{what} {shape}; every group has one value: fewer groups")


def group_norm(input, num_groups, weight=None, bias=None, eps=1e-5):
    """Normalize groups of channels: torch.nn.functional.group_norm, derived.

    y = weight (input - mean) / sqrt(var + eps) + bias, moments over a group's channels
    and all positions of one example

    Also where the channels are the last in memory the variance is taken about the mean,
    unlike torch's, which there subtracts two large numbers.
    Source: Wu & He 2018, equation 7.

    Parameters
    ----------
    input : tensor (N, C, ...)
        dtypes: as `layer_norm`.
    num_groups : int
        A divisor of C.
    weight, bias : tensor (C,) or None
    eps : float

    Returns
    -------
    y : tensor (N, C, ...)

    Raises
    ------
    TypeError, ValueError, RuntimeError
        As torch, see `check_tensor`, `check_group_input`.
    """
    if is_for_torch(input, weight, bias):
        return torch.nn.functional.group_norm(input, num_groups, weight, bias, eps)
    check_tensor("group_norm", input)
    check_group_input(input, num_groups, weight, bias)
    shape = input.shape
    split = shape[0], num_groups, shape[1] // num_groups, *shape[2:]
    weight, bias = (along_channels(p, input) for p in (weight, bias))
    weight, bias = (
        None if p is None else p.reshape(1, *split[1:3], *p.shape[2:])
        for p in (weight, bias)
    )
    axes = tuple(range(2, len(split)))
    y, _, _ = normalized(input.reshape(split), weight, bias, axes, eps)
    return in_memory_as_torch(y.reshape(shape))


def instance_norm(
    input, running_mean=None, running_var=None, weight=None, bias=None,
    use_input_stats=True, momentum=0.1, eps=1e-5,
):  # fmt: skip
    """Normalize each map: torch.nn.functional.instance_norm, derived.

    y = weight (input - mean) / sqrt(var + eps) + bias, moments over the positions

    An empty batch changes nothing.
    Source: Ulyanov, Vedaldi & Lempitsky 2016, equation 2.

    Parameters
    ----------
    input : tensor
        (N, C, L), (N, C, H, W), ...; dtypes: as `batch_norm`.
    running_mean, running_var : tensor (C,) or None
        With use_input_stats updated in place by the averages over the batch, with the
        unbiased variance; else they are used.
    weight, bias : tensor (C,) or None
    use_input_stats : bool
    momentum, eps : float

    Returns
    -------
    y : tensor

    Raises
    ------
    TypeError, ValueError, RuntimeError
        As torch, see `check_tensor`, `check_instances`; and ValueError before NaN or
        infinity would reach the running statistics, see `update_running_`.
    """
    parameters = running_mean, running_var, weight, bias
    how = use_input_stats, momentum, eps
    by_torch = partial(torch.nn.functional.instance_norm, input, *parameters, *how)
    if is_for_torch(input, *parameters):
        return by_torch()
    check_tensor("instance_norm", input)
    check_instances(input, use_input_stats, *parameters)
    if not use_input_stats:
        return batch_norm(input, *parameters, False, momentum, eps).contiguous()
    axes = tuple(range(2, input.ndim))
    weight, bias = along_channels(weight, input), along_channels(bias, input)
    y, mean, var = normalized(input, weight, bias, axes, eps)
    if running_mean is not None and input.numel():
        batch, count = (mean.mean(0), var.mean(0)), input.shape[2:].numel()
        update_running_(parameters[:2], batch, momentum, count, by_torch)
    return y.contiguous()


def check_instances(input, use_input_stats, running_mean, running_var, weight, bias):
    """Raise torch's errors, with a cure, for what instance_norm cannot take."""
    given = running_mean is not None and running_var is not None
    if not (use_input_stats or given):
        what = "Expected running_mean and running_var to be defined when"
        raise RuntimeError(f"{what} use_input_stats is false; pass both")
    if use_input_stats and input.shape[2:].numel() == 1:
        what = "Expected more than 1 spatial element when training, got input size"
        cure = "their variance is 0: normalize something else, as layer norm does"
        raise ValueError(f"{what} {tuple(input.shape)}; {cure}")
    check_channels(input, True, running_mean, running_var, weight, bias)
    check_dtypes(input, weight, bias)


class LayerNorm(torch.nn.LayerNorm):
    """Layer normalization over the last axes, in place of torch.nn.LayerNorm.

    y = weight (x - mean) / sqrt(var + eps) + bias

    Arguments, defaults, state_dict, dtypes and errors are those of torch.nn.LayerNorm,
    from which it inherits all but the forward pass. Under a tracer, for wrapped tensors
    and on other devices it is torch's operator: chapter 5. No torch.jit.script.
    Source: Ba, Kiros & Hinton 2016, equation 3.
    """

    @one_node
    def forward(self, input):
        """Return the normalized input; the same in training and evaluation."""
        parameters = self.normalized_shape, self.weight, self.bias
        return layer_norm(input, *parameters, self.eps)


class RMSNorm(torch.nn.RMSNorm):
    """Root mean square normalization, in place of torch.nn.RMSNorm.

    y = weight x / sqrt(<x^2> + eps); eps=None is that of the dtype computed in

    All else as in `LayerNorm`. Source: Zhang & Sennrich 2019, equation 4.
    """

    @one_node
    def forward(self, x):
        """Return the normalized input; the same in training and evaluation."""
        return rms_norm(x, self.normalized_shape, self.weight, self.eps)


class GroupNorm(torch.nn.GroupNorm):
    """Normalization of groups of channels, in place of torch.nn.GroupNorm.

    y = weight (x - mean) / sqrt(var + eps) + bias

    All else as in `LayerNorm`. Source: Wu & He 2018, equation 7.
    """

    @one_node
    def forward(self, input):
        """Return the normalized input; the same in training and evaluation."""
        return group_norm(input, self.num_groups, self.weight, self.bias, self.eps)


class InstanceNormMixin:
    """The forward pass of our instance norms; all else is inherited from torch.nn's.

    Put it before the torch.nn class, which checks the input and adds a batch axis of
    length 1 where it is missing.
    """

    @one_node
    def forward(self, input):
        """Return the normalized input; with running statistics, as torch.nn's."""
        return super().forward(input)

    def _apply_instance_norm(self, input):
        parameters = self.running_mean, self.running_var, self.weight, self.bias
        use_input_stats = self.training or not self.track_running_stats
        momentum = 0.0 if self.momentum is None else self.momentum
        return instance_norm(input, *parameters, use_input_stats, momentum, self.eps)


class InstanceNorm1d(InstanceNormMixin, torch.nn.InstanceNorm1d):
    """Instance normalization of (N, C, L) or (C, L), in place of torch.nn's.

    y = weight (x - mean) / sqrt(var + eps) + bias, moments over positions

    Arguments, defaults (no affine, no running statistics), state_dict and errors are
    those of torch.nn.InstanceNorm1d. Added: ValueError before NaN or infinity would
    enter running statistics; an empty batch leaves them alone.
    Source: Ulyanov, Vedaldi & Lempitsky 2016, equation 2.
    """


class InstanceNorm2d(InstanceNormMixin, torch.nn.InstanceNorm2d):
    """Instance normalization of (N, C, H, W) or (C, H, W), as `InstanceNorm1d`.

    y = weight (x - mean) / sqrt(var + eps) + bias, moments over positions
    """


class InstanceNorm3d(InstanceNormMixin, torch.nn.InstanceNorm3d):
    """Instance normalization of (N, C, D, H, W) or (C, D, H, W), as `InstanceNorm1d`.

    y = weight (x - mean) / sqrt(var + eps) + bias, moments over positions
    """
