"""From chapters/20_many_machines.ipynb.

Extracted by `make export`: edit the notebook, not this file.
"""

import torch
from torch import distributed
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.lazy import LazyModuleMixin

import bnlib._merge as arrays
from bnlib._batch_norm import affine, batch_axes
from bnlib.nn._batch_norm import (
    BatchNormMixin,
    along_channels,
    check_channels,
    check_input,
    in_memory_as_torch,
    update_running_,
)
from bnlib.nn._function import as_wanted, gradients, shapes_of

__all__ = ["SyncBatchNorm"]


def diagnosis(said):
    """Return cause and cure for what a backend said when a collective failed."""
    said = said.lower()
    if "timed out" in said or "timeout" in said:
        cause = "one did not come in time: it has ended, is stuck, or skips this layer"
        cure = (
            "look first for a worker with another error; else call the layer equally "
        )
        cure += "often on all, forward and backward; if one is only slow, "
        return cause, cure + "init_process_group(timeout=...)"
    if any(word in said for word in ("closed", "reset", "refused", "broken pipe")):
        cure = "its own output says why; mend that, then start all of them again"
        return "one has ended", cure
    cure = "all must run the same model, on tensors that the backend can send"
    return "the exchange failed, see the error above", cure


class Workers:
    """The workers of a process group, as one layer speaks with them.

    layer : its name in error messages. Every method is one collective: all workers must
    call it, or the others wait. Raises RuntimeError, with cause and cure, when one ends
    or does not come.
    """

    def __init__(self, layer, group):
        self.layer, self.group = layer, group
        self.size = distributed.get_world_size(group)

    def gather(self, part):
        """Return the parts of all workers, (...) -> (workers, ...)."""
        parts = part.new_empty(self.size, *part.shape)
        self.together(distributed.all_gather, list(parts), part)
        return parts

    def total(self, part):
        """Return the sum of the parts of all workers, (...) -> (...)."""
        whole = part.clone()
        self.together(distributed.all_reduce, whole)
        return whole

    def together(self, collective, *tensors):
        """Run a collective, and name the layer and the group where it fails."""
        try:
            collective(*tensors, group=self.group)
        except RuntimeError as error:
            who = f"worker {distributed.get_rank(self.group)} of {self.size}"
            where = f"{who} in process group {self.group.group_name!r}"
            what = f"{self.layer}: {where} waited for the others, and"
            cause, cure = diagnosis(str(error))
            raise RuntimeError(f"{what} {cause}; {cure}") from error


def local_moments(x):
    """Return count, means and biased variances of this worker's batch: (1 + 2C,).

    x : tensor (N, C, ...), N may be 0, and then all is 0. The result is in float64, and
    the mean is not rounded to the dtype of x: what rounding left over is averaged too.
    Source: Chan, Golub & LeVeque 1983, the corrected two-pass algorithm.
    """
    count = x.numel() // x.shape[1]
    if not count:
        return torch.zeros(1 + 2 * x.shape[1], dtype=torch.float64, device=x.device)
    axes, wide = batch_axes(x), torch.promote_types(x.dtype, torch.float32)
    rounded = x.mean(axes, keepdim=True, dtype=wide)
    centred = x - rounded
    rest = centred.mean(axes)
    var = (centred**2).mean(axes) - rest**2
    mean = rounded.flatten().double() + rest
    return torch.cat([mean.new_full((1,), count), mean, var.clamp(min=0).double()])


def global_moments(x, workers):
    """Return mean and var (1, C, 1, ...) and count () of all batches, in float64.

    One collective, in which a worker without data takes part, too.
    """
    parts = workers.gather(local_moments(x))
    counts, (means, variances) = parts[:, 0], parts[:, 1:].chunk(2, dim=1)
    shape, count = (1, -1, *[1] * (x.ndim - 2)), counts.sum()
    weights = counts + (count == 0)  # all empty: any finite moments will do
    mean, var = (m.reshape(shape) for m in arrays.pool(weights, means, variances))
    return mean, var, count


def deviations(x, mean):
    """Return x - mean, in the dtype of x or float32.

    The mean, in float64, is subtracted in two steps: what x's dtype can hold of it, and
    the rest.
    """
    rounded = mean.to(torch.promote_types(x.dtype, torch.float32))
    return x - rounded - (mean - rounded).to(rounded.dtype)


class TotalFunction(torch.autograd.Function):
    """`Workers.total`, differentiable: the gradient is a total again."""

    @staticmethod
    def forward(ctx, part, workers):
        ctx.workers = workers
        return workers.total(part)

    @staticmethod
    def backward(ctx, dwhole):
        return TotalFunction.apply(dwhole, ctx.workers), None


def means_of_all(tensors, count, workers):
    """Return the mean of every channel over all workers, of all tensors (N, C, ...)."""
    axes = batch_axes(tensors[0])
    sums = torch.stack([t.sum(axes, keepdim=True) for t in tensors])
    whole = TotalFunction.apply(sums.double(), workers)
    return (whole / count.clamp(min=1)).to(sums.dtype)


class SyncBatchNormFunction(torch.autograd.Function):
    """Batch norm over the batches of all workers, one collective each way.

    As `NormalizeFunction`, with <.> the mean over all workers. x : tensor (N, C, ...),
    N may be 0. weight, bias : None or (1, C, 1, ...). Returns y, and in float64 mean
    and var (1, C, 1, ...) and the count of all values (). Source: chapters 4 and 20.
    """

    @staticmethod
    def forward(ctx, x, weight, bias, eps, workers):
        mean, var, _ = moments = global_moments(x, workers)
        ctx.mark_non_differentiable(*moments)
        ctx.save_for_backward(x, weight, *moments)
        ctx.shapes = shapes_of(x, weight, bias)
        ctx.eps, ctx.workers = eps, workers
        centred = deviations(x, mean)
        scale = affine(((var + eps) ** -0.5).to(centred.dtype), weight)
        return affine(centred, scale, bias).to(x.dtype), *moments

    @staticmethod
    def backward(ctx, dy, *_):
        x, weight, mean, var, count = ctx.saved_tensors
        centred, wanted = deviations(x, mean), ctx.needs_input_grad[0]

        def means(*tensors):  # no message where nobody has a use for it
            return means_of_all(tensors, count, ctx.workers) if wanted else tensors

        if torch.is_grad_enabled() and wanted:  # to be differentiated again
            centred = centred - means(centred)[0]
            var = means(centred**2)[0]
        var = var.to(centred.dtype)
        found = gradients(dy, centred, var, ctx.eps, weight, means)
        return *as_wanted(ctx, found), None, None


def sync_batch_norm(
    input, running_mean, running_var, weight, bias, momentum, eps, workers
):
    """Normalize every channel of the input over the batches of all workers.

    y = weight (input - mean) / sqrt(var + eps) + bias

    As `bnlib.nn.functional.batch_norm` in training, with mean and var of all workers'
    batches together, which may be of unequal sizes, or empty; if all are, nothing
    changes. NaN in one worker's input is NaN on all. Raises what `batch_norm` raises,
    on all workers for one value per channel on all together; RuntimeError: `Workers`.
    Source: Ioffe & Szegedy 2015, Algorithm 1; chapter 20.
    """
    check_input(input, False, eps, momentum)
    if eps == 0:
        what = f"batch_norm eps must be positive during training, but got {eps}"
        raise ValueError(f"{what}; 1e-5 is usual")
    check_channels(input, True, running_mean, running_var, weight, bias)
    weight, bias = along_channels(weight, input), along_channels(bias, input)
    y, mean, var, count = SyncBatchNormFunction.apply(input, weight, bias, eps, workers)
    # With two values here there are two in all, and a GPU need not be waited for.
    least = min(2, input.numel() // input.shape[1])
    total = int(count) if least < 2 else least
    if total == 1:
        what = "Expected more than 1 value per channel when training"
        cure = "all workers together have one; use larger batches, or drop_last=True"
        raise ValueError(f"{what}, got input size {tuple(input.shape)}; {cure}")
    if total and running_mean is not None:
        running, batch = (running_mean, running_var), (mean, var)
        hint = "; the NaN may be another worker's: look at the inputs of all of them"
        update_running_(running, batch, momentum, count, hint=hint)
    return in_memory_as_torch(y)


def check_convertible(layer):
    """Raise TypeError for a batch norm that a synchronized one does not replace."""
    got = type(layer).__name__
    if isinstance(layer, LazyModuleMixin):
        cure = "call the model on a batch first"
        raise TypeError(f"{got} has no number of features; {cure}")
    known = type(layer).forward.__module__.startswith(("torch.nn.", "bnlib.nn."))
    if not known or "forward" in vars(layer):
        what = f"{got} has a forward pass of its own, which would be lost"
        raise TypeError(f"{what}; put what it adds into a layer behind it")


class SyncBatchNorm(BatchNormMixin, _BatchNorm):
    """Batch normalization over all workers, in place of torch.nn.SyncBatchNorm.

    y = weight (x - mean) / sqrt(var + eps) + bias

    In training the moments are those of the batches of all workers, which may be
    unequal or empty; every worker must call the layer, forward and backward, with the
    same num_features. Elsewhere, or alone, it is `BatchNorm1d` for any (N, C, ...).
    Arguments, defaults, state_dict and dtypes are torch.nn's; gradients of weight and
    bias are this worker's share, which DistributedDataParallel averages. One all-gather
    of 1 + 2C float64 numbers forward, one all-reduce of 2C backward: tested on the CPU
    with gloo, not with NCCL. No torch.func, no torch.jit.script. No subclass of
    torch's: DistributedDataParallel refuses those on the CPU.
    Source: Ioffe & Szegedy 2015, Algorithm 1, with m the batch of all workers.

    Parameters
    ----------
    process_group : object
        The workers; None stands for all there are. With a group of its own a layer
        cannot be copied or pickled, as in torch.nn.

    Raises
    ------
    RuntimeError
        When a worker ends or does not come, see `Workers`.
    """

    def __init__(
        self, num_features, eps=1e-5, momentum=0.1, affine=True,
        track_running_stats=True, process_group=None, device=None, dtype=None,
        *, bias=True,
    ):  # fmt: skip
        where = {"device": device, "dtype": dtype}
        super().__init__(
            num_features, eps, momentum, affine, track_running_stats, **where
        )
        if not bias:
            self.register_parameter("bias", None)
        self.process_group = process_group

    def _check_input_dim(self, input):
        if input.ndim < 2:
            raise ValueError(f"expected at least 2D input (got {input.ndim}D input)")
        if not input.shape[1]:
            what = "SyncBatchNorm number of input channels should be non-zero"
            raise ValueError(f"{what}, got input size {tuple(input.shape)}")

    def workers(self):
        """Return those to synchronize with, or None where this one is alone."""
        there = distributed.is_available() and distributed.is_initialized()
        if not (self.training and there):
            return None
        group = self.process_group or distributed.group.WORLD
        if distributed.get_world_size(group) < 2:
            return None
        return Workers(f"SyncBatchNorm({self.num_features})", group)

    def function(self, input, mean, var, weight, bias, training, momentum, eps):
        """Return the normalized input; `BatchNormMixin.forward` does the rest."""
        given, workers = (mean, var, weight, bias), self.workers()
        if workers is None:
            return super().function(input, *given, training, momentum, eps)
        return sync_batch_norm(input, *given, momentum, eps, workers)

    @classmethod
    def like(cls, layer, process_group=None):
        """Return this layer with parameters and statistics of a batch norm, shared."""
        check_convertible(layer)
        sizes = layer.num_features, layer.eps, layer.momentum, layer.affine
        new = cls(*sizes, layer.track_running_stats, process_group)
        statistics = "running_mean", "running_var", "num_batches_tracked"
        for name in ("weight", "bias", *statistics):
            setattr(new, name, getattr(layer, name))
        if hasattr(layer, "qconfig"):
            new.qconfig = layer.qconfig
        return new.train(layer.training)

    @classmethod
    def convert_sync_batchnorm(cls, module, process_group=None):
        """Return the module with every batch norm in it replaced, as torch.nn's does.

        module : changed in place, unless it is a batch norm itself. A layer that is
        used in several places stays one layer. Hooks are not carried over, as in
        torch.nn. Raises TypeError, and changes nothing, for a subclass with a forward
        pass of its own: torch.nn's converter drops the activation in it.
        """
        if isinstance(module, _BatchNorm):
            return cls.like(module, process_group)
        norms = [m for m in module.modules() if isinstance(m, _BatchNorm)]
        made = {norm: cls.like(norm, process_group) for norm in norms}
        for parent in list(module.modules()):
            for name, child in parent._modules.items():
                parent._modules[name] = made.get(child, child)
        return module
