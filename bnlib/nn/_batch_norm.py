"""From chapters/05_inference.ipynb,
chapters/06_convolution.ipynb.

Extracted by `make export`: edit the notebook, not this file.
"""

import math
from functools import partial

import torch
import torch.overrides

from bnlib._batch_norm import affine, batch_axes
from bnlib.nn._function import (
    normalized,
)
from bnlib.nn._trace import is_eager, one_node

PLAIN_TENSORS = torch.Tensor, torch.nn.Parameter


def is_for_torch(*tensors):
    """Return whether the layer is to be torch.nn.functional's operator, one node.

    So where somebody keeps the graph of what is called (torch.jit.trace, torch.export,
    ONNX, modes) or wraps a tensor, and on devices and layouts that are not ours.
    """
    if torch.overrides.has_torch_function(tensors):
        return True
    tensors = [t for t in tensors if isinstance(t, torch.Tensor)]
    if not all(t.is_cpu for t in tensors):
        return True
    if torch.compiler.is_compiling():
        return torch.compiler._is_exporting_flag  # is_exporting() lies up to 2.9
    return (
        torch._C._is_tracing()
        or torch._C._len_torch_dispatch_stack() > 0
        or any(
            type(t) not in PLAIN_TENSORS
            or t.layout is not torch.strided
            or t.is_nested
            or torch._is_functional_tensor(t)
            for t in tensors
        )
    )


def at_hand(x):
    """Return whether looking at the values of x is free: an eager tensor on the CPU."""
    return type(x) is torch.Tensor and x.is_cpu and is_eager()


def check_tensor(name, input):
    """Raise torch's TypeError or NotImplementedError unless input can be normalized."""
    if not isinstance(input, torch.Tensor):
        got = f"{type(input).__name__}; convert it: torch.as_tensor(input)"
        raise TypeError(f"{name}(): argument 'input' must be Tensor, not {got}")
    if not input.is_floating_point():
        cure = "convert the input: input.float(), or torch.view_as_real if complex"
        raise NotImplementedError(f'"{name}" not implemented for {input.dtype}; {cure}')


def check_input(input, training, eps, momentum=None):
    """Raise torch's error, with a cure, for an input that cannot be normalized.

    What `check_tensor` raises, and ValueError: one value per channel in training, an
    eps that allows 0/0, a momentum that is not finite, or no channel axis.
    """
    check_tensor("batch_norm", input)
    if training and input.shape[:1].numel() * input.shape[2:].numel() == 1:
        what = "Expected more than 1 value per channel when training"
        cure = "their variance is 0: use larger batches, or drop_last=True"
        raise ValueError(f"{what}, got input size {tuple(input.shape)}; {cure}")
    if not eps >= 0 or (training and eps == 0):
        must = "positive during training" if training else "non-negative"
        what = f"batch_norm eps must be {must}, but got {eps}"
        raise ValueError(f"{what}; 1e-5 is usual")
    if input.ndim < 2 and input.numel():
        what = f"expected at least 2D input (got {input.ndim}D input)"
        raise ValueError(f"{what}; reshape it to (N, C) or (N, C, ...)")
    if momentum is not None and not math.isfinite(momentum):
        raise ValueError(f"momentum must be finite, got {momentum}; 0.1 is usual")


def check_channels(input, training, running_mean, running_var, weight, bias):
    """Raise torch's error, with a cure, for parameters that do not fit the input.

    RuntimeError: no running statistics in evaluation, and what `check_vectors` raises.
    ValueError: one running statistic without the other.
    """
    stats = {"running_mean": running_mean, "running_var": running_var}
    missing = [name for name, stat in stats.items() if stat is None]
    if missing and not training:
        what = f"{missing[0]} must be defined in evaluation mode"
        raise RuntimeError(f"{what}; pass it, or training=True")
    if len(missing) == 1:
        what = "running_mean and running_var must either both be None or neither be"
        raise ValueError(f"{what} None; {missing[0]} is None, pass it too")
    check_vectors(input, **stats, weight=weight, bias=bias)


def check_vectors(input, **vectors):
    """Raise RuntimeError for a vector that has not one value per channel of the input.

    Or whose dtype is neither the input's nor the float32 that goes with half precision.
    """
    channels = input.shape[1] if input.ndim > 1 else 0
    fitting = input.dtype, torch.promote_types(input.dtype, torch.float32)
    for name, p in vectors.items():
        if p is not None and p.numel() != channels:
            what = f"{name} should contain {channels} elements not {p.numel()}"
            cure = f"input size is {tuple(input.shape)}: num_features={channels}?"
            raise RuntimeError(f"{what}; {cure}")
        if p is not None and p.dtype not in fitting:
            what = f"mixed dtype: the input is {input.dtype}, {name} is {p.dtype}"
            raise RuntimeError(f"{what}; convert one: layer.to(input.dtype)")


def update_running_(
    running, batch, momentum, count=None, by_torch=None,
    *, names=("running_mean", "running_var"), hint="",
):  # fmt: skip
    """Update running statistics in place, and never with NaN or infinity.

    new = (1 - momentum) running + momentum batch

    running, batch : a mean and a spread, of C values each. count : of how many values
    the batch's variance is, which is then stored unbiased. Where looking is free
    (`at_hand`), raises ValueError naming the channels before anything is stored;
    elsewhere those channels keep their old value. by_torch : what is called instead
    within torch.func, where torch alone may write. names, hint : for the error.
    Source: chapter 5.
    """
    if by_torch is not None and torch._C._are_functorch_transforms_active():
        by_torch()
        return
    mean, spread = batch
    if count is not None:
        spread = spread * (count / (count - 1))
    update = []
    for name, old, now in zip(names, running, (mean, spread), strict=True):
        now = now.detach().reshape(old.shape)
        new = old.to(now.dtype).lerp(now, momentum).to(old.dtype)
        finite = new.isfinite()
        if not at_hand(finite):
            new = torch.where(finite, new, old)
        elif not finite.all():
            channels = (~finite).nonzero()[:5, -1].tolist()
            what = f"{name} would become NaN or infinite in channels {channels}"
            cure = "drop the batch if its input does, else reset_running_stats()"
            raise ValueError(f"{what}; {cure}{hint}")
        update.append((old, new))
    for old, new in update:
        old.copy_(new)


def along_channels(p, x):
    """Return p (C,) as (1, C, 1, ...), in float32 at least; None stays None."""
    wide = torch.promote_types(x.dtype, torch.float32)
    return None if p is None else p.to(wide).reshape(1, -1, *[1] * (x.ndim - 2))


def in_memory_as_torch(y):
    """Return y contiguous or channels-last: a `view` that follows may rely on it.

    Within torch.func always contiguous: there nobody can ask.
    """
    if torch._C._are_functorch_transforms_active():
        return y.contiguous()
    formats = torch.contiguous_format, torch.channels_last, torch.channels_last_3d
    known = any(y.is_contiguous(memory_format=f) for f in formats)
    return y if known else y.contiguous()


def batch_norm(
    input, running_mean, running_var, weight=None, bias=None,
    training=False, momentum=0.1, eps=1e-5,
):  # fmt: skip
    """Normalize every channel of the input: torch.nn.functional.batch_norm, derived.

    y = weight (input - mean) / sqrt(var + eps) + bias

    mean and var are those of the batch in training, else the running ones.
    Source: Ioffe & Szegedy 2015, Algorithms 1 and 2.

    Parameters
    ----------
    input : tensor (N, C, ...)
        Floating-point, all dtypes the same, or half precision with float32 parameters.
    running_mean, running_var : tensor (C,) or None
        Where given, updated in place in training, with the unbiased variance:
        new = (1 - momentum) running + momentum batch. An empty batch changes nothing.
    weight, bias : tensor (C,) or None
    training : bool
    momentum, eps : float

    Returns
    -------
    y : tensor (N, C, ...)
        In the input's dtype.

    Raises
    ------
    TypeError, ValueError, RuntimeError
        As torch, see `check_input`, `check_channels`; and ValueError before NaN or
        infinity would be stored.
    """
    given = running_mean, running_var, weight, bias
    how = training, momentum, eps
    by_torch = partial(torch.nn.functional.batch_norm, input, *given, *how)
    if is_for_torch(input, *given):
        return by_torch()
    check_input(input, training, eps, momentum)
    check_channels(input, training, *given)
    weight, bias = along_channels(weight, input), along_channels(bias, input)
    if not input.numel():
        y = affine(input.clone(), weight, bias)
    elif training:
        y, mean, var = normalized(input, weight, bias, batch_axes(input), eps)
        if running_mean is not None:
            count = input.numel() / input.shape[1]
            update_running_(given[:2], (mean, var), momentum, count, by_torch)
    else:
        mean, var = (along_channels(s, input) for s in (running_mean, running_var))
        y = affine(input - mean, affine((var + eps) ** -0.5, weight), bias)
    return in_memory_as_torch(y.to(input.dtype))


class BatchNormMixin:
    """The forward pass of our layers; all the rest is inherited from torch.nn's.

    Put it before the torch.nn class: constructor, buffers, old checkpoints and every
    `isinstance` in other people's code are then right, today and in the next version.
    """

    function = staticmethod(batch_norm)  # later chapters put others in its place,
    statistics = "running_mean", "running_var"  # and keep others

    @one_node
    def forward(self, input):
        """Return the normalized input; in training, update the running statistics."""
        if isinstance(input, torch.Tensor):  # anything else is refused by batch_norm
            self._check_input_dim(input)
        tracked = self.training and self.track_running_stats
        counter = self.num_batches_tracked if tracked else None
        momentum = self.momentum
        if momentum is None:  # the cumulative average: every batch weighs the same
            momentum = 0.0 if counter is None else 1 / (float(counter) + 1)
        mean, var = (getattr(self, name) for name in self.statistics)
        if self.training and not tracked:
            mean = var = None
        training = self.training or (mean is None and var is None)
        parameters = mean, var, self.weight, self.bias
        y = self.function(input, *parameters, training, momentum, self.eps)
        if counter is not None:  # last: a batch that raised an error does not count
            counter.add_(1)
        return y


class BatchNorm1d(BatchNormMixin, torch.nn.BatchNorm1d):
    """Batch normalization of (N, C) or (N, C, L), in place of torch.nn.BatchNorm1d.

    y = weight (x - mean) / sqrt(var + eps) + bias

    Moments of the batch in training, running statistics in evaluation. Arguments,
    defaults, state_dict, dtypes and errors are those of torch.nn.BatchNorm1d; so is
    `momentum`, the weight of the NEW batch (None: average of all batches). One error is
    added: ValueError before NaN or infinity would enter the running statistics.
    Works under torch.compile and torch.func. Under a tracer, an exporter, a mode, with
    wrapped tensors and on other devices than the CPU it is torch.nn's operator, see
    `is_for_torch`, and torch.fx has one node for it. No torch.jit.script.
    Source: Ioffe & Szegedy 2015, Algorithms 1 and 2.
    """


# chapters/06_convolution.ipynb


class BatchNorm2d(BatchNormMixin, torch.nn.BatchNorm2d):
    """Batch normalization of (N, C, H, W), in place of torch.nn.BatchNorm2d.

    y = weight (x - mean) / sqrt(var + eps) + bias

    Every channel has one mean and one variance, over all N·H·W positions. All else is
    as in `BatchNorm1d`. Source: Ioffe & Szegedy 2015, section 3.2.
    """


class BatchNorm3d(BatchNormMixin, torch.nn.BatchNorm3d):
    """Batch normalization of (N, C, D, H, W), in place of torch.nn.BatchNorm3d.

    y = weight (x - mean) / sqrt(var + eps) + bias

    Every channel has one mean and one variance, over all N·D·H·W positions. All else is
    as in `BatchNorm1d`. Source: Ioffe & Szegedy 2015, section 3.2.
    """
