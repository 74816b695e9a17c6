"""From chapters/18_pitfalls.ipynb.

Extracted by `make export`: edit the notebook, not this file.
"""

import math
import pprint
from typing import NamedTuple

import torch

from bnlib.nn._fold import TRANSPOSED
from bnlib.nn._renorm import BatchRenorm
from bnlib.nn._survey import (
    BY_EXAMPLE,
    INSTANCE_NORMS,
    has_hooks,
    is_frozen,
    is_plain,
    is_pooled,
    running,
    whole,
)


class Finding(NamedTuple):
    """One thing that is wrong: its code, where, what was seen, what to do.

    recipe : the cure, as code; in it NAMES stands for a list of items, by default of
    one, the layer's name. Findings with the same recipe are cured together.
    """

    code: str
    layer: str
    what: str
    recipe: str
    item: object = None

    @property
    def cure(self):
        """Lines of code that can be pasted, where `model` is the model."""
        return cure_of([self])


def cure_of(findings):
    """Return the lines of code that cure findings of one recipe.

    Up to eight items are written out, more are looked up in `report`.
    """
    items = [f.item or f.layer for f in findings]
    names = pprint.pformat(items, compact=True, width=72)
    if len(items) > 8:
        code = findings[0].code
        names = f"[f.item or f.layer for f in report if f.code == {code!r}]"
    return findings[0].recipe.replace("NAMES", names)


def measure_anew(layer, seen):
    """Return the line that measures a layer; frozen ones have to be named."""
    active = layer.training or not seen.model.training
    names = "" if active and not is_frozen(layer) else ", layers=NAMES"
    return f"bnlib.recalibrate(model, loader{names})"


def each(does):
    """Return the lines that do something to every layer that is named."""
    return f"for name in NAMES:\n    model.get_submodule(name).{does}"


def not_finite(seen):
    """Find statistics or parameters that are NaN or infinite, or a variance below 0."""
    for layer, name in seen.norms.items():
        stored, own = layer._buffers, {**layer._buffers, **layer._parameters}
        own = {n: whole(v) for n, v in own.items() if v is not None}
        wrong = {n: ~v.isfinite() for n, v in own.items()}
        if "running_var" in own:
            wrong["running_var"] |= own["running_var"] < 0
        bad = {n: w.sum().item() for n, w in wrong.items() if w.any()}
        if bad:
            what = f"NaN, infinite, or a variance below 0: {max(bad.values())} values"
            what += f" of {' and of '.join(bad)}"
            anew = is_pooled(layer) and set(bad) <= set(stored)
            reload = "model.load_state_dict(checkpoint)  # from before the NaN"
            recipe = measure_anew(layer, seen) if anew else reload
            yield Finding("not-finite", name, what, recipe)


def bad_batch(seen):
    """Find NaN or infinity in what goes in, where it first shows."""
    for use in [u for u in seen.pooled() if u.broken][:1]:
        what = f"{use.broken} of {use.shape[0]} examples bring NaN or infinity"
        yield Finding("bad-batch", use.name, what, LEAVE_OUT)


LEAVE_OUT = """\
def is_finite(batch):  # a tensor, or a tuple or list that starts with one
    images = batch if torch.is_tensor(batch) else batch[0]
    return images.isfinite().all()


loader = [batch for batch in loader if is_finite(batch)]"""


def never_updated(seen):
    """Find layers that shall use running statistics and never had any."""
    for layer, name in seen.norms.items():
        instance = isinstance(layer, INSTANCE_NORMS)
        used = tracks(layer) and not layer.training
        if used and (instance or is_pooled(layer)) and is_fresh(layer):
            what = "running statistics are those of a new layer: mean 0, variance 1"
            untrack = each("track_running_stats = False")
            recipe = untrack if instance else measure_anew(layer, seen)
            yield Finding("never-updated", name, what, recipe)


def tracks(layer):
    """Return whether a layer has running statistics, and uses them."""
    stored = getattr(layer, "running_mean", None) is not None
    return stored and getattr(layer, "track_running_stats", True)


def is_fresh(layer):
    """Return whether running statistics are what reset_running_stats() leaves."""
    spread = getattr(layer, "running_std", None)
    spread = layer.running_var if spread is None else spread
    return not layer.running_mean.any() and bool((spread == 1).all())


def apart(mean, std, other_mean, other_std):
    """Return how far moments are from others: in other_std, and as a ratio of stds.

    The median over channels of each. All (C,), float64.
    """
    shift = ((mean - other_mean).abs() / other_std).median().item()
    return shift, (std / other_std).median().item()


def is_new(layer):
    """Return whether running statistics are still on their way from 0 and 1.

    In training only: a layer in use is expected to have arrived, and one that does not
    count its batches, too.
    """
    counter = getattr(layer, "num_batches_tracked", None)
    if is_fresh(layer) or counter is None or counter.numel() != 1:
        return is_fresh(layer)
    momentum = getattr(layer, "momentum", None)
    rest = (1 - (1.0 if momentum is None else momentum)) ** int(counter)
    return layer.training and rest > 0.01


def is_far(shift, ratio, examples):
    """Return whether moments are further apart than so many examples explain."""
    allowed = 0.2 + 1.5 / examples**0.5
    return shift > allowed or abs(math.log(max(ratio, 1e-300))) > allowed


def far_statistics(seen):
    """Find running statistics far from those of the batch."""
    for use in seen.pooled():
        stored = running(use.layer)
        if stored is None or use.values < 2 or use.broken or is_new(use.layer):
            continue
        if all(s.isfinite().all() for s in stored):
            shift, ratio = apart(use.mean, use.std, *stored)
            if is_far(shift, ratio, use.shape[0]):
                what = f"the batch's mean is {shift:.1f} σ from the running mean"
                what += f", its σ {ratio:.2g} times the running one"
                cure = measure_anew(use.layer, seen)
                yield Finding("far-statistics", use.name, what, cure)


def momentum_sense(seen):
    """Find a momentum that looks like the weight of the old value."""
    for layer, name in seen.batch_norms():
        momentum = getattr(layer, "momentum", None)
        if momentum is not None and momentum > 0.5:
            what = f"momentum={momentum:g} is the weight of the NEW batch here"
            recipe = each(f"momentum = {max(1 - momentum, 0.01):.3g}")
            yield Finding("momentum", name, what, recipe)


def shared_layer(seen):
    """Find a layer that is called several times, on inputs with unlike moments."""
    for layer, name in seen.batch_norms():
        calls = [u for u in seen.pooled() if u.layer is layer and u.values > 1]
        pairs = [apart(u.mean, u.std, calls[0].mean, calls[0].std) for u in calls[1:]]
        shift, ratio = max(pairs, default=(0.0, 1.0))
        if any(is_far(*pair, min(u.shape[0] for u in calls)) for pair in pairs):
            what = f"called {len(calls)} times: means {shift:.1f} σ apart"
            what += f", σ {ratio:.2g} times the first"
            cure = "second = copy.deepcopy(model.get_submodule(NAMES[0]))"
            cure += "  # one for every place"
            yield Finding("shared-layer", name, what, cure)


def few_values(seen):
    """Find layers that take statistics from fewer than 16 values per channel."""
    for use in seen.pooled():
        synced = hasattr(use.layer, "process_group")  # sees more than this
        trains = use.layer.training and hasattr(use.layer, "momentum")
        if trains and 0 < use.values < 16 and not synced:
            off = 1 / (2 * max(use.values - 1, 1)) ** 0.5
            what = f"{use.values} values per channel: σ is uncertain by {off:.0%}"
            what = "1 value per channel: no variance" if use.values == 1 else what
            yield Finding("few-values", use.name, what, LARGER)


LARGER = """\
loader = torch.utils.data.DataLoader(  # or group norm in the model
    dataset, batch_size=32, shuffle=True, drop_last=True)"""


def padding(seen):
    """Find statistics that count filling at the ends of sequences."""
    for use in seen.uses:
        batch = use.mean is not None and use.layer.training
        instance = isinstance(use.layer, INSTANCE_NORMS)
        stored = instance and use.layer.track_running_stats and not use.layer.training
        each = isinstance(use.layer, BY_EXAMPLE) and not stored
        if use.padded > 0.05 and (batch or each):
            what = f"{use.padded:.0%} of the positions look like padding"
            yield Finding("padding", use.name, what, REAL if batch else REAL_EACH)


REAL = "y[mask] = norm(x.transpose(1, 2)[mask])  # y (N, L, C), mask (N, L)"
REAL_EACH = "y = [norm(v[None, :, m]) for v, m in zip(x, mask)]  # one by one"


def time_axis(seen):
    """Find a norm on (N, L, C), L = C, straight from a Linear: it takes L for C."""
    made = {name: layer for name, layer, _ in seen.made.values()}
    for use in seen.uses:
        linear, norm = made.get(use.source), use.layer
        by_channel = use.mean is not None or isinstance(norm, BY_EXAMPLE)
        if not by_channel or not isinstance(linear, torch.nn.Linear):
            continue
        square = use.shape[1:] == (linear.out_features, linear.out_features)
        if square and use.strides[2] == 1:  # what it puts out is still last
            what = f"input {use.shape} comes from a Linear: channels are last, and"
            what += " each position is normalized instead"
            cure = "y = norm(x.transpose(1, 2)).transpose(1, 2)  # x (N, L, C)"
            yield Finding("time-axis", use.name, what, cure)


def moves(layer):
    """Return whether a layer has statistics that move in training."""
    return tracks(layer) and getattr(layer, "momentum", 0.0) != 0


def training_layer(seen):
    """Find layers in training mode inside a model in evaluation mode."""
    for layer, name in seen.norms.items():
        if moves(layer) and layer.training and not seen.model.training:
            what = "is in training mode inside a model in evaluation mode"
            yield Finding("training-layer", name, what, "model.eval()")


def thawed(seen):
    """Find layers whose weights are frozen, while their statistics go on moving."""
    trains = [p.requires_grad for p in seen.model.parameters()]
    all_frozen = bool(trains) and not any(trains)
    for layer, name in seen.norms.items():
        still = is_frozen(layer) or all_frozen
        if moves(layer) and seen.model.training and layer.training and still:
            what = "weights are frozen, but running statistics still move"
            recipe = "# after every model.train()\n" + each("eval()")
            yield Finding("thawed", name, what, recipe)


def eval_layer(seen):
    """Find trainable layers in evaluation mode in a model in training."""
    for layer, name in seen.norms.items():
        left = seen.model.training and not layer.training
        trains = any(p.requires_grad for p in layer.parameters(recurse=False))
        if left and trains and moves(layer):
            what = "is in evaluation mode, weights trainable, in a model in training"
            yield Finding("eval-layer", name, what, "model.train()")


def untracked(seen):
    """Find layers in use without running statistics: they take those of the batch."""
    for layer, name in seen.batch_norms():
        if layer.running_mean is None and not seen.model.training:
            what = "has no running statistics: every output depends on its whole batch"
            yield Finding("untracked", name, what, TRACK)


TRACK = """\
for name in NAMES:
    norm = model.get_submodule(name)
    zeros = next(model.parameters()).detach().new_zeros(norm.num_features)
    norm.running_mean, norm.running_var = zeros, zeros + 1
    norm.num_batches_tracked, norm.track_running_stats = torch.tensor(0), True
bnlib.recalibrate(model, loader, layers=NAMES)"""


def lost_parts(seen):
    """Find layers with an activation inside that their forward pass never calls."""
    for layer, name in seen.norms.items():
        parts = [type(m).__name__ for m in layer.children()]
        parts = [kind for kind in parts if kind != "Identity"]
        if parts and is_plain(layer) and not has_hooks(layer):  # which may call them
            what = f"has {' and '.join(parts)} inside, which {type(layer).__name__}"
            what += " never calls: what made it from another class lost them"
            yield Finding("lost-activation", name, what, KEEP)


KEEP = """\
for name in NAMES:
    norm = model.get_submodule(name)
    parts = [norm, *norm.children()]
    norm._modules.clear()
    model.set_submodule(name, torch.nn.Sequential(*parts))"""


def useless_bias(seen):
    """Find a bias whose gradient is 0, since the norm that follows subtracts it.

    The sum of dy over the batch, beside the size that a sum of such numbers with random
    signs would have, in every call. Source: chapter 4, the sum of dx is 0.
    """
    calls = {}
    for key, dy in seen.gradients.items():
        name, layer, _ = seen.made[key]
        calls.setdefault(name, []).append((layer, dy))
    for name, found in calls.items():
        norms = {use.name for use in seen.uses if use.source == name}
        fed_by = {use.source for use in seen.uses if use.name in norms}
        # With more than one on either side no mean can take the bias in.
        alone = len(norms) == 1 and fed_by == {name}
        if alone and all(is_balanced(*call) for call in found):
            (norm,) = norms
            what = f"the gradient of its bias is 0: {norm} subtracts it"
            yield Finding("useless-bias", name, what, UNBIAS, (name, norm))


def is_balanced(layer, dy):
    """Return whether dy sums to 0 over the batch, for every output channel."""
    axis = -1 if dy is None or isinstance(layer, torch.nn.Linear) else 1
    rows = torch.zeros(1, 1) if dy is None else dy.movedim(axis, 0).flatten(1)
    chance = rows.double().norm(dim=1).max().item()
    return rows.double().sum(1).abs().max().item() < 0.01 * chance


UNBIAS = """\
for names in NAMES:
    layer, norm = map(model.get_submodule, names)
    if getattr(norm, "running_mean", None) is not None:
        bias, times = layer.bias.detach(), len(norm.running_mean) // len(layer.bias)
        last = layer.weight.ndim == 2  # of a Linear: its channels are the last axis
        norm.running_mean -= (
            bias.repeat(times) if last else bias.repeat_interleave(times)
        )
    layer.bias = None"""


def weight_decay(seen):
    """Find normalization layers whose own parameters the optimizer decays."""
    groups = seen.optimizer.param_groups if seen.optimizer else []
    decays = {id(p): g.get("weight_decay", 0) for g in groups for p in g["params"]}
    for layer, name in seen.norms.items():
        own = {n: decays.get(id(p)) for n, p in layer.named_parameters(recurse=False)}
        hit = [n for n, decay in own.items() if decay]
        if hit:
            what = f"weight decay {own[hit[0]]:g} pulls its {' and '.join(hit)} to 0"
            yield Finding("weight-decay", name, what, UNDECAY)


UNDECAY = """\
norms = {p for name in NAMES
         for p in model.get_submodule(name).parameters(recurse=False)}
for group in list(optimizer.param_groups):
    own = [p for p in group["params"] if p in norms]
    group["params"] = [p for p in group["params"] if p not in norms]
    if own:  # at the rate that they had
        optimizer.add_param_group({**group, "params": own, "weight_decay": 0.0})"""


def zero_weights(seen):
    """Find layers that have switched more than a tenth of their channels off."""
    for layer, name in seen.norms.items():
        if getattr(layer, "weight", None) is not None:
            size = whole(layer.weight).abs()
            off = (size < 1e-3 * size.max()).sum().item()
            if off > 0.1 * size.numel():
                what = f"weight is near 0 in {off} of {size.numel()} channels"
                yield Finding("zero-weights", name, what, REVIVE)


REVIVE = """\
# then train on, with less weight decay
for name in NAMES:
    gamma = model.get_submodule(name).weight.detach()
    gamma[gamma.abs() < 1e-3 * gamma.abs().max()] = gamma.abs().mean()"""


def dead_channels(seen):
    """Find channels that hardly vary beside sqrt(eps), which divides them."""
    for layer, name in seen.batch_norms():
        stored, eps = running(layer), getattr(layer, "eps", 1e-5)
        if stored is not None and stored[1].isfinite().all():
            dead = stored[1][stored[1] ** 2 < 1.01 * eps]
            if len(dead) > 0.04 * len(stored[1]):
                what = f"running variance below eps / 100 in {len(dead)} of"
                what += f" {len(stored[1])} channels: any change is multiplied by"
                what += f" {1 / dead.max().item():.0f}"
                recipe = QUIET_STD if isinstance(layer, BatchRenorm) else QUIET
                yield Finding("dead-channels", name, what, recipe)


QUIET = """\
# constant channels come out the same, and amplify nothing
for name in NAMES:
    norm = model.get_submodule(name)
    norm.running_var[norm.running_var < getattr(norm, "eps", 1e-5) / 100] = 1.0"""
QUIET_STD = """\
# constant channels come out the same, and amplify nothing
for name in NAMES:
    norm = model.get_submodule(name)
    norm.running_std[norm.running_std**2 < 1.01 * norm.eps] = 1.0"""


def half_statistics(seen):
    """Find running statistics in half precision."""
    for layer, name in seen.batch_norms():
        kept = layer.running_mean
        if kept is not None and kept.dtype.itemsize < 4:
            what = f"running statistics are {kept.dtype}: updates are lost, or overflow"
            recipe = "# inputs may stay as they are\n" + each("float()")
            yield Finding("half-statistics", name, what, recipe)


def int8_range(seen):
    """Find kernels whose channels are too unlike for one scale, folded if they can be.

    The largest channel over the median one, above 32: the median has 4 steps or less.
    A norm without a kernel before it is one once it is merged; there, four channels
    in a hundred have to be so large.
    """
    kernels = {name: largest_weight(layer) for name, layer, _ in seen.made.values()}
    made = dict(kernels)
    for use in seen.pooled():
        stored, gamma = running(use.layer), getattr(use.layer, "weight", None)
        if stored is not None and stored[1].isfinite().all():
            scale = (1 if gamma is None else whole(gamma).double().abs()) / stored[1]
            size = kernels.get(use.source)
            if use.source is None:
                few = max(1, math.ceil(0.04 * len(scale)))
                made[use.name] = scale.clamp(max=scale.topk(few).values[-1])
            elif size.shape == scale.shape:  # else a view in between mixes the channels
                made[use.source] = size * scale
    for name, size in made.items():
        size = size[(size > 0) & size.isfinite()]  # what is off needs no digits
        ratio = (size.max() / size.median()).item() if len(size) else 0.0
        if ratio > 32:
            what = f"largest channel is {ratio:.0f} times the median: int8 with one"
            what += f" scale leaves the median {127 / ratio:.1f} steps of 127"
            yield Finding("int8-range", name, what, PER_CHANNEL)


PER_CHANNEL = """\
# a scale for each channel, not one for all
for name in NAMES:
    weight = model.get_submodule(name).weight.detach()
    scale = weight.abs().reshape(len(weight), -1).amax(1) / 127"""


def largest_weight(layer):
    """Return max |W| for each output channel (C,), float64."""
    size = whole(layer.weight).double().abs()
    if not isinstance(layer, TRANSPOSED):
        return size.flatten(1).amax(1)
    return size.unflatten(0, (layer.groups, -1)).amax(1).flatten(2).amax(2).flatten()


def unsynchronized(seen):
    """Find batch norms that train in several processes, each on its own statistics."""
    distributed = torch.distributed
    started = distributed.is_available() and distributed.is_initialized()
    if started and distributed.get_world_size() > 1:
        for use in seen.pooled():
            synced = hasattr(use.layer, "process_group")  # torch's or ours
            trains = use.layer.training and hasattr(use.layer, "momentum")
            if trains and not synced:
                what = f"{use.values} values per channel here, none from the other"
                what += f" {distributed.get_world_size() - 1} processes"
                cure = "model = bnlib.nn.SyncBatchNorm.convert_sync_batchnorm(model)"
                yield Finding("unsynchronized", use.name, what, cure)
