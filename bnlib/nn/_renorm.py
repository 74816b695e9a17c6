"""From chapters/13_renormalization.ipynb.

Extracted by `make export`: edit the notebook, not this file.
"""

import math

import torch
from torch.nn.parameter import Parameter

import bnlib._renorm as arrays
from bnlib._batch_norm import affine, batch_axes
from bnlib.nn._batch_norm import (
    BatchNorm1d,
    BatchNorm2d,
    BatchNorm3d,
    BatchNormMixin,
    along_channels,
    at_hand,
    check_input,
    check_vectors,
    in_memory_as_torch,
    update_running_,
)
from bnlib.nn._function import normalized

__all__ = ["batch_renorm", "BatchRenorm1d", "BatchRenorm2d", "BatchRenorm3d"]


def check_running(running_mean, running_std):
    """Raise ValueError for a running statistic that is missing, or a deviation <= 0.

    The latter where looking is free, see `at_hand`.
    """
    for name, p in (("running_mean", running_mean), ("running_std", running_std)):
        if p is None:
            cure = "batch renormalization needs it in training too: pass a tensor"
            raise ValueError(f"{name} must be a tensor, got None; {cure}")
    if at_hand(running_std) and not (running_std > 0).all():
        cure = "load it again, or reset_running_stats()"
        raise ValueError(f"running_std must be > 0, got a value that is not; {cure}")


def batch_renorm(
    input, running_mean, running_std, weight=None, bias=None,
    training=False, momentum=0.01, eps=1e-5, rmax=3.0, dmax=5.0,
):  # fmt: skip
    """Normalize every channel of the input, corrected towards running statistics.

    training:   y = weight (r xhat + d) + bias,   see `bnlib.batch_renorm`
    evaluation: y = weight (input - running_mean) / running_std + bias

    In training the running statistics are updated in place, after their use: new = (1 -
    momentum) running + momentum batch, with the batch's mean and its biased std =
    sqrt(var + eps). An empty batch changes nothing. Source: Ioffe 2017, Algorithm 1.

    Parameters
    ----------
    input : tensor (N, C, ...)
        dtypes as in `batch_norm`; half precision is computed in float32.
    running_mean, running_std : tensor (C,)
    weight, bias : tensor (C,) or None
    training : bool
    momentum, eps : float
    rmax, dmax : float

    Returns
    -------
    y : tensor (N, C, ...)

    Raises
    ------
    ValueError, RuntimeError
        As torch for batch norm, see `check_input`, `check_vectors`, `check_running`;
        for limits that are none, and before NaN or infinity would reach the running
        statistics.
    """
    check_input(input, training, eps)
    running = {"running_mean": running_mean, "running_std": running_std}
    check_vectors(input, weight=weight, bias=bias, **running)
    check_running(running_mean, running_std)
    arrays.check_rmax("rmax", rmax), arrays.check_dmax("dmax", dmax)
    if not math.isfinite(momentum):
        raise ValueError(f"momentum must be finite, got {momentum}; 0.01 is usual")
    vectors = weight, bias, running_mean, running_std
    weight, bias, mean, std = (along_channels(v, input) for v in vectors)
    if not (training and input.numel()):
        y = affine(input - mean, affine(1 / std, weight), bias)
        return in_memory_as_torch(y.to(input.dtype))
    x, axes = input.to(mean.dtype), batch_axes(input)
    xhat, batch_mean, batch_var = normalized(x, None, None, axes, eps)
    batch_std = (batch_var + eps) ** 0.5
    r, d = arrays.correction(batch_mean, batch_std, mean, std, rmax, dmax)
    y = affine(xhat, affine(r, weight), affine(d, weight, bias))
    batch = batch_mean, batch_std
    update_running_(running.values(), batch, momentum, names=running)
    return in_memory_as_torch(y.to(input.dtype))


def at_step(limit, counter):
    """Return a limit, or what its schedule says of the step in the counter."""
    if not callable(limit):
        return limit
    unknown = counter is None or counter.is_meta
    return limit(0 if unknown else int(counter))


class BatchRenorm(BatchNormMixin, torch.nn.Module):
    """What `BatchRenorm1d`, `BatchRenorm2d` and `BatchRenorm3d` have in common."""

    statistics = "running_mean", "running_std"
    track_running_stats = True
    batch_norm = None  # the layer of `as_batch_norm`
    _version = 2  # as torch.nn's batch norm since it has num_batches_tracked

    def __init__(
        self, num_features, eps=1e-5, momentum=0.01, affine=True,
        track_running_stats=True, device=None, dtype=None,
        *, bias=True, rmax=arrays.rmax_schedule, dmax=arrays.dmax_schedule,
    ):  # fmt: skip
        super().__init__()
        if not track_running_stats:
            cure = "leave the argument out, or use batch norm"
            raise ValueError(f"track_running_stats must be True, got False; {cure}")
        arrays.check_rmax("rmax", 1 if callable(rmax) else rmax)
        arrays.check_dmax("dmax", 0 if callable(dmax) else dmax)
        self.num_features, self.eps, self.momentum = num_features, eps, momentum
        self.affine, self.rmax, self.dmax = affine, rmax, dmax
        one = torch.ones(num_features, device=device, dtype=dtype)
        count = torch.zeros((), device=device, dtype=torch.long)
        self.register_parameter("weight", Parameter(one) if affine else None)
        zero = Parameter(0 * one) if affine and bias else None
        self.register_parameter("bias", zero)
        self.register_buffer("running_mean", 0 * one)
        self.register_buffer("running_std", one.clone())
        self.register_buffer("num_batches_tracked", count)

    def _check_input_dim(self, input):
        self.batch_norm._check_input_dim(self, input)

    def function(self, *given):
        """Return `batch_renorm`, in training with the limits of this step."""
        limits = 1, 0
        if self.training:
            counter = self.num_batches_tracked
            limits = (at_step(limit, counter) for limit in (self.rmax, self.dmax))
        return batch_renorm(*given, *limits)

    def _load_from_state_dict(self, state_dict, prefix, metadata, *others):
        std, var = prefix + "running_std", prefix + "running_var"
        if var in state_dict and std not in state_dict:
            state_dict[std] = (state_dict.pop(var) + self.eps) ** 0.5
        counter = self.num_batches_tracked
        if metadata.get("version", 1) < 2 and counter is not None:
            count = torch.zeros_like(counter) if counter.is_meta else counter
            state_dict.setdefault(prefix + "num_batches_tracked", count)
        super()._load_from_state_dict(state_dict, prefix, metadata, *others)

    def as_batch_norm(self):
        """Return the batch norm layer that does the same in evaluation.

        running_var = running_std^2 - eps. For whatever knows batch norm alone: `fold`,
        exporters, other libraries. Parameters and statistics are copies, in float32 at
        least; the mode is kept. To train on with it is to go on with batch norm.
        Raises ValueError for a running_std below sqrt(eps), which no variance gives.
        """
        state, std = self.state_dict(), self.running_std
        wide = torch.promote_types(std.dtype, torch.float32)
        sizes = self.num_features, self.eps, self.momentum, self.affine
        layer = self.batch_norm(*sizes, device=std.device, dtype=wide)
        if self.bias is None:
            layer.bias = None
        variance = state.pop("running_std").to(wide) ** 2 - self.eps
        if at_hand(variance) and (variance < -1e-2 * self.eps).any():
            cure = f"set eps to the one it was trained with, now {self.eps}"
            raise ValueError(f"running_std must be at least sqrt(eps); {cure}")
        layer.load_state_dict({**state, "running_var": variance.clamp(min=0)})
        return layer.train(self.training)

    def reset_running_stats(self):
        """Set the running mean to 0, the running std to 1, the counter to 0."""
        self.running_mean.zero_(), self.running_std.fill_(1)
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.zero_()

    def reset_parameters(self):
        """Forget everything: the running statistics, weight 1, bias 0."""
        self.reset_running_stats()
        for p, value in ((self.weight, 1), (self.bias, 0)):
            if p is not None:
                torch.nn.init.constant_(p, value)

    def extra_repr(self):
        limits = (getattr(v, "__name__", v) for v in (self.rmax, self.dmax))
        text = "{}, eps={}, momentum={}, affine={}, bias={}, rmax={}, dmax={}"
        state = self.num_features, self.eps, self.momentum, self.affine
        return text.format(*state, self.bias is not None, *limits)


class BatchRenorm1d(BatchRenorm):
    """Batch renormalization of (N, C) or (N, C, L).

    training:   y = weight (r xhat + d) + bias, with xhat of the batch and
                r = clip(std / running_std, 1/rmax, rmax)
                d = clip((mean - running_mean) / running_std, -dmax, dmax)
    evaluation: y = weight (x - running_mean) / running_std + bias

    std is sqrt(var + eps) of the batch, biased, and running_std its average. Arguments
    are those of torch.nn.BatchNorm1d (track_running_stats must be True), and two more.
    State: weight, bias, running_mean, running_std, num_batches_tracked. A batch norm's
    state_dict loads, see chapter 13; `as_batch_norm` is the way back.
    Raises what `bnlib.nn.functional.batch_renorm` raises. Source: Ioffe 2017.

    Parameters
    ----------
    momentum : float
        The weight of the NEW batch.
    rmax, dmax : float or function
        Numbers, or functions of the step (`num_batches_tracked`). By default they are
        the paper's `rmax_schedule` and `dmax_schedule`, which are plain batch norm for
        the first 5,000 steps: shorter trainings want limits of their own. A function
        reads the counter, for which a GPU is waited for; numbers do not.
    """

    batch_norm = BatchNorm1d


class BatchRenorm2d(BatchRenorm):
    """Batch renormalization of (N, C, H, W): statistics over N, H and W.

    All else is as in `BatchRenorm1d`. Source: Ioffe 2017.
    """

    batch_norm = BatchNorm2d


class BatchRenorm3d(BatchRenorm):
    """Batch renormalization of (N, C, D, H, W): statistics over N, D, H and W.

    All else is as in `BatchRenorm1d`. Source: Ioffe 2017.
    """

    batch_norm = BatchNorm3d
