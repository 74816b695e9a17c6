"""From chapters/06_convolution.ipynb.

Extracted by `make export`: edit the notebook, not this file.
"""

import copy

import torch
from torch.nn.parameter import is_lazy

__all__ = ["fold"]


def along_outputs(scale, layer):
    """Return scale shaped to multiply the output channels of layer.weight.

    (out,) -> (out, 1, ...), or for transposed convolutions, whose weight has the shape
    (in, out / groups, ...), -> (in, out / groups, 1, ...): each group has its own part.
    """
    spatial = [1] * (layer.weight.ndim - 2)
    if not isinstance(layer, TRANSPOSED):
        return scale.reshape(-1, 1, *spatial)
    per_group = scale.reshape(layer.groups, -1)
    rows = per_group.repeat_interleave(layer.in_channels // layer.groups, dim=0)
    return rows.reshape(*rows.shape, *spatial)


PLAIN = torch.nn.Linear, torch.nn.Conv1d, torch.nn.Conv2d, torch.nn.Conv3d
TRANSPOSED = tuple(getattr(torch.nn, f"ConvTranspose{n}d") for n in (1, 2, 3))
BATCH_NORMS = (torch.nn.modules.batchnorm._BatchNorm,)  # the synchronized ones, too


def check_layer(layer):
    """Return the torch.nn type of a layer; TypeError if nothing can be folded in."""
    got = type(layer).__name__
    kind = next((k for k in PLAIN + TRANSPOSED if isinstance(layer, k)), None)
    if kind is None:
        what = f"layer must be a Linear, Conv or ConvTranspose, got {got}"
        raise TypeError(f"{what}; pass the layer before the batch norm")
    if is_lazy(layer.weight):
        raise TypeError(f"layer must have weights, got {got}; call it on a batch first")
    for name, p in (("weight", layer.weight), ("bias", layer.bias)):
        if p is not None and not isinstance(p, torch.nn.Parameter):
            what = f"layer.{name} must be a Parameter, got a computed one in {got}"
            raise TypeError(f"{what}; remove its weight norm or parametrization first")
    if layer._forward_hooks or layer._forward_pre_hooks:
        what = f"layer must do what a {kind.__name__} does, got hooks in {got}"
        raise TypeError(f"{what}; remove them, what they do would be lost or misplaced")
    return kind


def check_frozen(batch_norm, channels, dims):
    """Raise TypeError or ValueError, with a cure, for an unusable batch norm."""
    got = type(batch_norm).__name__
    if not isinstance(batch_norm, BATCH_NORMS):
        what = f"batch_norm must be a BatchNorm1d, 2d or 3d, got {got}"
        raise TypeError(f"{what}; pass the layer first, then its batch norm")
    if batch_norm.training:
        what = "batch_norm must be in evaluation mode, got training mode"
        raise ValueError(f"{what}; call batch_norm.eval() first")
    if batch_norm.running_mean is None or batch_norm.running_var is None:
        what = "batch_norm must have running statistics, got None"
        raise ValueError(f"{what}; train it with track_running_stats=True")
    if batch_norm.num_features != channels:
        what = f"batch_norm must have {channels} channels, as many as layer puts out"
        cure = "pass the batch norm that follows layer"
        raise ValueError(f"{what}, got {batch_norm.num_features}; {cure}")
    others = {f"BatchNorm{d}d" for d in (1, 2, 3)} - {f"BatchNorm{dims}d"}
    if others & {kind.__name__ for kind in type(batch_norm).__mro__}:
        what = f"batch_norm must be a BatchNorm{dims}d after this layer, got {got}"
        raise TypeError(f"{what}; pass the batch norm that follows layer")
    mean, var = batch_norm.running_mean, batch_norm.running_var
    fine = mean.isfinite() & var.isfinite() & (var >= 0) & (var + batch_norm.eps > 0)
    if not (mean.is_meta or fine.all()):
        what = "batch_norm must have finite statistics and a positive variance"
        raise ValueError(f"{what}; reset_running_stats() and train it again")


def is_usual(batch_norm):
    """Return whether a batch norm surely does what its class in torch.nn does."""
    home = type(batch_norm).__module__.startswith(("torch.nn.modules.", "bnlib.nn"))
    hooks = batch_norm._forward_hooks or batch_norm._forward_pre_hooks
    return home and not hooks and "forward" not in vars(batch_norm)


def check_folded(layer, batch_norm, folded, name, kind):
    """Raise TypeError where one with a forward pass of its own is folded wrongly.

    name, kind : which of the two it is, "layer" or "batch_norm", and what it should do.
    On random numbers of all sizes layer and batch_norm have to do what folded does.
    """
    steps = layer.weight.shape[2:], getattr(layer, "dilation", ())
    spatial = [size * step + 1 for size, step in zip(*steps, strict=True)]
    channels = layer.in_channels if spatial else layer.in_features
    x = torch.randn(4, channels, *spatial, generator=torch.Generator().manual_seed(0))
    x = x.double() * 10 ** torch.arange(-1.0, 3).reshape(-1, 1, *[1] * len(spatial))
    try:
        modules = (copy.deepcopy(m).double().cpu() for m in (layer, batch_norm, folded))
        first, second, both = modules
        with torch.no_grad():
            y, z = second(first(x.clone())), both(x)
        off, size = ((v.flatten(1).abs().amax(1)) for v in (y - z, y))
        rounding = min(1e3 * torch.finfo(layer.weight.dtype).eps, 0.05)
        right, why = bool((off <= rounding * size).all()), "its own forward pass"
    except Exception as error:
        right, why = False, f"{type(error).__name__}: {error}"
    if not right:
        got = type({"layer": layer, "batch_norm": batch_norm}[name]).__name__
        what = f"{name} must do what a {kind} does, got {why} in {got}"
        raise TypeError(f"{what}; fold it by hand")


def fold(layer, batch_norm):
    """Return a new layer that does what layer and then batch_norm do in evaluation.

    weight' = scale weight,   bias' = scale (bias - mean) + beta
    scale = gamma / sqrt(var + eps), one number per output channel

    Source: Ioffe & Szegedy 2015, Algorithm 2, line 11, as one layer.

    Parameters
    ----------
    layer : module
        Linear, Conv1d/2d/3d or ConvTranspose1d/2d/3d, any groups, or a subclass that
        does the same sums, which is tried on random numbers.
    batch_norm : module
        Ours or torch.nn's, in evaluation mode, with one channel per output of layer;
        after a Linear, on inputs (N, C): on (N, C, L) BatchNorm1d normalizes another
        axis.

    Returns
    -------
    folded : module
        With the type, dtype, device, mode and requires_grad of layer, and a bias, which
        is trainable like layer's, or like its weight where layer had none.

    Raises
    ------
    TypeError, ValueError
        See `check_layer`, `check_frozen`, `check_folded`.
    """
    kind = check_layer(layer)
    linear = kind is torch.nn.Linear
    channels = layer.out_features if linear else layer.out_channels
    check_frozen(batch_norm, channels, 1 if linear else layer.weight.ndim - 2)
    wide = torch.promote_types(batch_norm.running_var.dtype, torch.float32)
    mean, var = batch_norm.running_mean.to(wide), batch_norm.running_var.to(wide)
    gamma, beta, bias = batch_norm.weight, batch_norm.bias, layer.bias
    with torch.no_grad():
        scale = (var + batch_norm.eps) ** -0.5 * (1 if gamma is None else gamma)
        shift = ((0 if bias is None else bias) - mean) * scale
        shift = shift if beta is None else shift + beta
        weight = layer.weight * along_outputs(scale, layer)
    folded = copy.deepcopy(layer)
    for name, old, new in ("weight", layer.weight, weight), ("bias", bias, shift):
        like = layer.weight if old is None else old
        setattr(folded, name, torch.nn.Parameter(new.to(like), like.requires_grad))
    if type(layer) is not kind or {"forward", "_conv_forward"} & {*vars(layer)}:
        check_folded(layer, batch_norm, folded, "layer", kind.__name__)
    if not is_usual(batch_norm):
        check_folded(layer, batch_norm, folded, "batch_norm", "BatchNorm")
    return folded
