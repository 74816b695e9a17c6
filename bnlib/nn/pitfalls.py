"""Chapter 15, Pitfalls: chapters/15_pitfalls.ipynb.

Extracted by `make export`: edit the notebook, not this file.
The derivation is the page chapters/15_pitfalls.html of the book.
"""

import contextlib
import copy
import html
import math
import textwrap
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch
from torch.nn.parameter import is_lazy
from torch.utils._pytree import tree_leaves, tree_map

from bnlib.nn.convolution import BATCH_NORMS, PLAIN, TRANSPOSED, fold
from bnlib.nn.inference import BatchNormMixin, batch_norm
from bnlib.nn.renormalization import BatchRenorm
from bnlib.nn.whitening import DecorrelatedBatchNorm

__all__ = [
    "POOLED",
    "NORMS",
    "DROPOUT",
    "evaluating",
    "hooked",
    "bare",
    "run_on",
    "Use",
    "Survey",
    "use_of",
    "by_batch",
    "survey",
    "memory",
    "is_plain",
    "Finding",
    "running",
    "not_finite",
    "add_values",
    "one_pass",
    "write",
    "is_frozen",
    "to_measure",
    "check_layers",
    "check_loader",
    "check_totals",
    "check_stored",
    "with_bar",
    "recalibrate",
    "never_updated",
    "is_fresh",
    "apart",
    "is_new",
    "is_far",
    "far_statistics",
    "momentum_sense",
    "few_values",
    "filled",
    "padding",
    "shared_layer",
    "wrong_mode",
    "is_trainable",
    "untracked",
    "useless_bias",
    "weight_decay",
    "zero_weights",
    "dead_channels",
    "half_statistics",
    "LeafTracer",
    "foldable",
    "can_go",
    "fold_model",
    "check_same",
    "largest_weight",
    "int8_range",
    "unsynchronized",
    "Report",
    "RULES",
    "diagnose",
]


POOLED = (*BATCH_NORMS, BatchNormMixin, BatchRenorm)
NORMS = (
    *POOLED, DecorrelatedBatchNorm, torch.nn.modules.instancenorm._InstanceNorm,
    torch.nn.GroupNorm, torch.nn.LayerNorm, torch.nn.RMSNorm,
)  # fmt: skip
DROPOUT = torch.nn.modules.dropout._DropoutNd


@contextlib.contextmanager
def evaluating(model):
    """Put a model in evaluation mode, and every module back in its own mode after."""
    modes = {module: module.training for module in model.modules()}
    try:
        for module in modes:  # not by .eval(), which some models make do more
            module.training = False
        yield
    finally:
        for module, training in modes.items():
            module.training = training


@contextlib.contextmanager
def hooked(modules, function):
    """Call function(module, input, output) after every call, as long as this lasts."""

    def hook(module, args, kwargs, output):
        return function(module, *args[:1], *list(kwargs.values())[: not args], output)

    hooks = [m.register_forward_hook(hook, with_kwargs=True) for m in modules]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def bare(model):
    """Return the model inside torch.compile, DataParallel, DistributedDataParallel.

    Raises TypeError for what is no torch.nn.Module.
    """
    if not isinstance(model, torch.nn.Module):
        what = f"model must be a torch.nn.Module, got {type(model).__name__}"
        raise TypeError(f"{what}; pass the model itself")
    model = getattr(model, "_orig_mod", model)
    parallel = torch.nn.parallel.DistributedDataParallel, torch.nn.DataParallel
    return bare(model.module) if isinstance(model, parallel) else model


def run_on(model, batch):
    """Return model(batch): what `forward` does where nothing else is given.

    batch : a tensor; a tuple or list, as a DataLoader gives it, of which the first is
    the input; or a dict of keyword arguments. It is moved to the model's device.
    Raises TypeError for anything else.
    """
    batch = batch[0] if isinstance(batch, tuple | list) and batch else batch
    if not isinstance(batch, torch.Tensor | dict):
        what = "batch must be a tensor, a tuple that starts with one, or a dict"
        cure = "or pass forward=lambda model, batch: ..."
        raise TypeError(f"{what}, got {type(batch).__name__}; convert it, {cure}")
    place = next((p.device for p in model.parameters()), None)
    batch = tree_map(lambda v: v.to(place) if hasattr(v, "to") else v, batch)
    return model(**batch) if isinstance(batch, dict) else model(batch)


class Use(NamedTuple):
    """One call of a batch norm: its layer, and what went in.

    source : name of the layer whose output it was, or None. x : the input (N, C, ...).
    mean, var : (C,), its moments, biased, in float64.
    """

    name: str
    layer: torch.nn.Module
    source: str | None
    x: torch.Tensor
    mean: torch.Tensor
    var: torch.Tensor

    @property
    def values(self):
        """Values per channel."""
        return len(self.x) * self.x.shape[2:].numel()


class Survey(NamedTuple):
    """What one batch showed of a model: the facts that rules reason from.

    norms : {layer: name}. uses : of batch norms, in the order of their calls. made :
    {memory: (name, layer, output)} of linear layers and convolutions. normed : {memory:
    name of the norm that read it}. result : the tensors that came out.
    """

    model: torch.nn.Module
    norms: dict
    uses: list
    made: dict
    normed: dict
    result: list
    optimizer: object = None

    def batch_norms(self):
        """Return the (layer, name) of every layer with statistics over the batch."""
        return [(m, n) for m, n in self.norms.items() if isinstance(m, POOLED)]


def use_of(layer, name, source, x):
    """Return the `Use` of a batch norm whose input was x."""
    rows = x.transpose(0, 1).flatten(1).double()
    mean = rows.mean(1)
    return Use(name, layer, source, x, mean, (rows.T - mean).square().mean(0))


def by_batch(layer, x):
    """Return x normalized by its own statistics; None where that cannot be."""
    if x.numel() > x.shape[1] and is_plain(layer):
        own = getattr(layer, "function", batch_norm)  # one of ours has an activation
        return own(x, None, None, layer.weight, layer.bias, True, 0.0, layer.eps)


def survey(model, batch, optimizer=None, forward=run_on):
    """Return a `Survey`: one pass of a batch, with its own statistics in every layer.

    Nothing in the model changes. model : torch.nn.Module. batch : see `run_on`.
    forward : function (model, batch) -> output.
    """
    named = {m: name or type(m).__name__ for name, m in model.named_modules()}
    uses, made, normed = [], {}, {}

    def remember(layer, x, y):
        made[memory(y)] = named[layer], layer, y

    def forget(layer, x, y):  # in evaluation dropout hands on its input itself
        made.pop(memory(x), None)

    def look(layer, x, y):
        normed[memory(x)] = named[layer]
        if isinstance(layer, POOLED) and x.ndim > 1:
            source = made.get(memory(x), (None,))[0]
            uses.append(use_of(layer, named[layer], source, x.detach()))
            return by_batch(layer, x)

    hooks = {remember: PLAIN + TRANSPOSED, forget: DROPOUT, look: NORMS}
    with contextlib.ExitStack() as stack:
        for hook, kinds in hooks.items():
            stack.enter_context(
                hooked([m for m in named if isinstance(m, kinds)], hook)
            )
        stack.enter_context(evaluating(model))
        stack.enter_context(torch.enable_grad())
        result = tree_leaves(forward(model, batch))
    norms = {m: name for m, name in named.items() if isinstance(m, NORMS)}
    return Survey(model, norms, uses, made, normed, result, optimizer)


def memory(x):
    """Return what two tensors share when one is a view of the other, as it is now.

    Changed in place, memory counts as another.
    """
    version = 0 if x.is_inference() else x._version
    return x.untyped_storage().data_ptr(), version


def is_plain(layer):
    """Return whether a layer does what its class in torch.nn or bnlib.nn does.

    Elsewhere subclasses add an activation, say, which has to be left in its place.
    """
    return type(layer).__module__.startswith(("torch.nn.", "bnlib.nn."))


class Finding(NamedTuple):
    """One thing that is wrong: its code, where, what was seen, what to do."""

    code: str
    layer: str
    what: str
    cure: str


def running(layer):
    """Return the running mean and std (C,) of a batch norm, float64; None without.

    std = sqrt(running_var + eps); a renormalization layer stores it as it is.
    """
    if layer.running_mean is None:
        return None
    if isinstance(layer, BatchRenorm):
        return layer.running_mean.double(), layer.running_std.double()
    return layer.running_mean.double(), (layer.running_var.double() + layer.eps) ** 0.5


def not_finite(seen):
    """Find statistics or parameters that are NaN or infinite, or a variance below 0."""
    for layer, name in seen.norms.items():
        own = (
            *layer.named_buffers(recurse=False),
            *layer.named_parameters(recurse=False),
        )
        wrong = {n: ~v.isfinite() | ((v < 0) & (n == "running_var")) for n, v in own}
        bad = {n: w.sum().item() for n, w in wrong.items() if w.any()}
        if bad:
            what = f"NaN, infinite, or a variance below 0: {max(bad.values())} values"
            what += f" of {' and of '.join(bad)}"
            cure = "find the bad batch, then recalibrate(model, loader)"
            yield Finding("not-finite", name, what, cure)


def add_values(total, rows):
    """Return (n, mean, m2) of the values so far together with these rows (C, M).

    m2 is the sum of squared distances from the mean; start with (0, 0.0, 0.0).
    mean += share delta,  m2 += m2 of rows + n share delta^2,  share = M / (n + M).
    Source: Chan, Golub and LeVeque 1983.
    """
    n, mean, m2 = total
    count = rows.shape[1]
    if not count:
        return total
    delta, share = rows.mean(1) - mean, count / (n + count)
    within = count * rows.var(1, correction=0)
    return n + count, mean + share * delta, m2 + within + n * share * delta**2


def one_pass(model, loader, layers, forward):
    """Return {layer: (n, mean, m2)} in the order of the calls, and how many batches.

    Also returns {layer: number of the first batch that brought it NaN or infinity}.
    """
    totals, spoiled, number = {}, {}, 0

    def look(layer, x, y):
        rows = x.detach().transpose(0, 1).flatten(1).double()
        totals[layer] = add_values(totals.get(layer, (0, 0.0, 0.0)), rows)
        if not rows.isfinite().all():
            spoiled.setdefault(layer, number)

    with hooked(layers, look), torch.no_grad():
        for number, batch in enumerate(loader, 1):  # noqa: B007
            forward(model, batch)
    return totals, number, spoiled


def write(layer, total, batches):
    """Store population statistics; return whether they moved by more than rounding."""
    old_mean, old_std = (v.clone() for v in running(layer))
    n, mean, m2 = total
    layer.running_mean.copy_(mean)
    if isinstance(layer, BatchRenorm):
        layer.running_std.copy_((m2 / n + layer.eps) ** 0.5)
    else:
        layer.running_var.copy_(m2 / (n - 1))
    layer.num_batches_tracked.fill_(batches)
    mean, std = running(layer)
    moved = (mean - old_mean).abs() / (mean.abs() + std), (std / old_std - 1).abs()
    digits = torch.promote_types(layer.running_mean.dtype, torch.float32)
    rounding = 100 * torch.finfo(digits).eps
    return not all((m <= rounding).all() for m in moved)


def is_frozen(layer):
    """Return whether a layer has weights, and none of them is to be trained."""
    own = list(layer.parameters(recurse=False))
    return bool(own) and not any(p.requires_grad for p in own)


def to_measure(model, layers=None):
    """Return {layer: name} of what `recalibrate` shall measure.

    layers : names; None for all batch norms but frozen ones: those whose weights are,
    and in a model in training those in evaluation mode. In a model in use in which all
    are frozen, all. Raises TypeError, ValueError.
    """
    kept = [(n, m) for n, m in model.named_modules() if hasattr(m, "running_mean")]
    kept = {n or type(m).__name__: m for n, m in kept if m.running_mean is not None}
    unknown = sorted(set(layers or ()) - set(kept))
    if unknown:
        what = f"layers must name layers with running statistics, got {unknown}"
        raise ValueError(f"{what}; the model has {list(kept)}")
    if layers is None:
        active = {n: m for n, m in kept.items() if m.training or not model.training}
        layers = [n for n, m in active.items() if not is_frozen(m)]
        layers = layers or ([] if model.training else list(kept))
    if not layers:
        what = f"model must have a batch norm that is not frozen, has {list(kept)}"
        raise ValueError(f"{what}; to measure frozen ones too, pass layers=[...]")
    return {kept[name]: name for name in layers}


def check_layers(names):
    """Raise TypeError for layers whose statistics are no pooled mean and variance."""
    for layer, name in names.items():
        if is_lazy(layer.running_mean):
            what = f"layer {name!r} must know its size; call the model on a batch first"
            raise TypeError(what)
        if not isinstance(layer, POOLED):
            what = f"layer {name!r} must be a batch norm, got {type(layer).__name__}"
            raise TypeError(f"{what}; pass layers=[...] without it")


def check_loader(loader):
    """Raise TypeError unless loader can be passed through several times."""
    several = isinstance(loader, Iterable) and not isinstance(loader, Iterator)
    if isinstance(loader, torch.Tensor | dict | str) or not several:
        what = "loader must give its batches in every pass"
        cure = "pass a DataLoader, or a list of batches"
        raise TypeError(f"{what}, got {type(loader).__name__}; {cure}")


def check_totals(totals, names, spoiled, depth):
    """Raise ValueError for what cannot be a statistic after pass number depth.

    By then the first `depth` layers have had inputs from right layers alone: NaN in
    them comes from the data. Those behind may still see the old statistics.
    """
    for layer, name in names.items():
        n = totals.get(layer, (0,))[0]
        if n < 2:
            what = f"layer {name!r} must see at least 2 values per channel, saw {n}"
            what += f" in pass {depth}, in evaluation mode"
            cure = "pass more data; if it is not called, layers=[...] without it"
            raise ValueError(f"{what}; {cure}")
    for layer in list(totals)[:depth]:
        if layer in spoiled:
            what = f"batch {spoiled[layer]} of loader brings NaN or infinity"
            cure = "drop it, or mend the layers before"
            raise ValueError(f"{what} to layer {names[layer]!r}; {cure}")


def check_stored(names):
    """Raise ValueError where a statistic is too large for the dtype that stores it."""
    for layer, name in names.items():
        if not all(b.isfinite().all() for b in layer.buffers(recurse=False)):
            what = f"statistics of layer {name!r} must fit {layer.running_mean.dtype}"
            raise ValueError(f"{what}, and overflow it; layer.float() first")


def with_bar(loader, depth, progress):
    """Return the loader behind a progress bar, where tqdm is installed."""
    with contextlib.suppress(ImportError):
        if progress:
            from tqdm.auto import tqdm

            return tqdm(loader, desc=f"pass {depth}", leave=False)
    return loader


def recalibrate(model, loader, *, layers=None, forward=run_on, progress=True):
    """Measure the population statistics of every batch norm anew, exactly.

    running_mean = mean,   running_var = m2 / (n - 1),   n values in all batches

    Every layer is measured with those before it already right: a pass over the loader
    for each layer in sequence, fewer where nothing moves any more. Accumulated in
    float64.

    model : torch.nn.Module with batch norms, torch's or ours, or renormalization
    layers (whose running_std = sqrt(m2 / n + eps)). Moments are taken in evaluation
    mode; every module then has its own mode again. loader : a DataLoader or list of
    batches, of any sizes; it is passed through several times. layers : names of those
    to measure, by default all but frozen ones, see `to_measure`. forward : function
    (model, batch) -> anything, by default `run_on`. progress : whether to show a bar.
    A layer used several times gets the statistics of all its uses.

    Returns the names of the layers measured. Raises TypeError and ValueError naming the
    argument or the batch; after any error or interruption the statistics are as before.
    Source: Wu & Johnson 2021; what Ioffe & Szegedy 2015, section 3.1, ask for, though
    not the estimate of their Algorithm 2, see chapter 15.
    """
    model = bare(model)
    names = to_measure(model, layers)
    check_layers(names)
    check_loader(loader)
    kept = [(b, b.clone()) for layer in names for b in layer.buffers(recurse=False)]
    try:
        with evaluating(model):
            for depth in range(1, len(names) + 1):
                shown = with_bar(loader, depth, progress)
                totals, batches, spoiled = one_pass(model, shown, names, forward)
                check_totals(totals, names, spoiled, depth)
                moved = [write(m, totals[m], batches) for m in names]
                if not any(moved):
                    break
            check_stored(names)
    except BaseException:
        for buffer, before in kept:
            buffer.copy_(before)
        raise
    return list(names.values())


def never_updated(seen):
    """Find layers that shall use running statistics and never had any."""
    for layer, name in seen.batch_norms():
        if layer.running_mean is not None and is_fresh(layer) and not layer.training:
            what = "running statistics are those of a new layer: mean 0, variance 1"
            cure = "recalibrate(model, loader), or load the buffers too"
            yield Finding("never-updated", name, what, cure)


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

    In training only: a layer in use is expected to have arrived.
    """
    rest = (1 - (layer.momentum or 1.0)) ** int(layer.num_batches_tracked)
    return is_fresh(layer) or (layer.training and rest > 0.01)


def is_far(shift, ratio, examples):
    """Return whether moments are further apart than so many examples explain."""
    allowed = 0.2 + 1.5 / examples**0.5
    return shift > allowed or abs(math.log(max(ratio, 1e-300))) > allowed


def far_statistics(seen):
    """Find running statistics far from those of the batch."""
    for use in seen.uses:
        stored = running(use.layer)
        if stored is None or use.values < 2 or is_new(use.layer):
            continue
        if all(s.isfinite().all() for s in stored):
            std = (use.var + use.layer.eps) ** 0.5
            shift, ratio = apart(use.mean, std, *stored)
            if is_far(shift, ratio, len(use.x)):
                what = f"the batch's mean is {shift:.1f} σ from the running mean"
                what += f", its σ {ratio:.2g} times the running one"
                cure = "recalibrate(model, loader) on data like the batch"
                yield Finding("far-statistics", use.name, what, cure)


def momentum_sense(seen):
    """Find a momentum that looks like the weight of the old value."""
    for layer, name in seen.batch_norms():
        if layer.momentum is not None and layer.momentum > 0.5:
            what = f"momentum={layer.momentum:g} is the weight of the NEW batch here"
            cure = f"momentum={max(1 - layer.momentum, 0.01):.3g}, or 0.1 as usual"
            yield Finding("momentum", name, what, cure)


def few_values(seen):
    """Find layers that take statistics from fewer than 16 values per channel."""
    for use in seen.uses:
        synced = hasattr(use.layer, "process_group")  # sees more than this
        if use.layer.training and 0 < use.values < 16 and not synced:
            off = 1 / (2 * max(use.values - 1, 1)) ** 0.5
            what = f"{use.values} values per channel: σ is uncertain by {off:.0%}"
            what = "1 value per channel: no variance" if use.values == 1 else what
            cure = "larger batches (drop_last=True), group norm, or SyncBatchNorm"
            yield Finding("few-values", use.name, what, cure)


def filled(x):
    """Return the share of positions of x (N, C, L) that look like filling at ends."""
    if x.ndim != 3 or not x.numel():
        return 0.0
    last = x[:, :, -1:]
    run = (x == last).all(1).flip(1).cumprod(1).sum(1)  # how long each end is constant
    common = last[run.argmax()]
    run = torch.where((last == common).all(1).squeeze(1) & (run > 1), run, 0)
    return (
        0.0 if (run == run[0]).all() else run.sum().item() / (run.numel() * x.shape[2])
    )


def padding(seen):
    """Find batches whose statistics count filling at the ends of sequences."""
    for use in seen.uses:
        share = filled(use.x)
        if use.layer.training and share > 0.05:
            what = f"{share:.0%} of the positions look like padding"
            cure = "normalize the real ones: norm(x.transpose(1, 2)[mask])"
            yield Finding("padding", use.name, what, cure)


def shared_layer(seen):
    """Find a layer that is called several times, on inputs with unlike moments."""
    for layer, name in seen.batch_norms():
        calls = [u for u in seen.uses if u.layer is layer and u.values > 1]
        moments = [(u.mean, (u.var + layer.eps) ** 0.5) for u in calls]
        pairs = [apart(*m, *moments[0]) for m in moments[1:]]
        shift, ratio = max(pairs, default=(0.0, 1.0))
        if any(is_far(*pair, min(len(u.x) for u in calls)) for pair in pairs):
            what = f"called {len(calls)} times: means {shift:.1f} σ apart"
            what += f", σ {ratio:.2g} times the first"
            cure = "a layer of its own for every place; weights may be shared"
            yield Finding("shared-layer", name, what, cure)


def wrong_mode(seen):
    """Find layers in training mode that should not be, and the reverse."""
    for layer, name in seen.norms.items():
        if getattr(layer, "running_mean", None) is None:
            continue
        if layer.training and not seen.model.training:
            what = "is in training mode inside a model in evaluation mode"
            yield Finding("training-layer", name, what, "model.eval()")
        elif layer.training and is_frozen(layer):
            what = "weights are frozen, but running statistics still move"
            cure = "call .eval() on the frozen part after every model.train()"
            yield Finding("thawed", name, what, cure)
        elif seen.model.training and not layer.training and is_trainable(layer):
            what = "is in evaluation mode, weights trainable, in a model in training"
            cure = "model.train(); if on purpose, requires_grad_(False)"
            yield Finding("eval-layer", name, what, cure)


def is_trainable(layer):
    """Return whether a layer has weights that are to be trained."""
    return any(p.requires_grad for p in layer.parameters(recurse=False))


def untracked(seen):
    """Find layers in use without running statistics: they take those of the batch."""
    for layer, name in seen.batch_norms():
        if layer.running_mean is None and not seen.model.training:
            what = "has no running statistics: every output depends on its whole batch"
            yield Finding("untracked", name, what, "track_running_stats=True, retrain")


def useless_bias(seen):
    """Find a bias whose gradient is 0, since the norm that follows subtracts it.

    The sum of dy over the batch, beside the size that a sum of such numbers with random
    signs would have. Source: chapter 4, the sum of dx over the batch is 0.
    """
    results = [r for r in seen.result if getattr(r, "requires_grad", False)]
    read = [(*v, seen.normed[k]) for k, v in seen.made.items() if k in seen.normed]
    biased = [v for v in read if v[1].bias is not None and v[2].requires_grad]
    g = torch.Generator().manual_seed(0)
    upstream = [torch.randn(r.shape, generator=g).to(r) for r in results]
    outputs = [y for _, _, y, _ in biased]
    if not (outputs and results):
        return
    found = torch.autograd.grad(results, outputs, upstream, allow_unused=True)
    for (name, layer, _, norm), dy in zip(biased, found, strict=True):
        axis = -1 if dy is None or isinstance(layer, torch.nn.Linear) else 1
        rows = torch.zeros(1, 1) if dy is None else dy.movedim(axis, 0).flatten(1)
        chance = rows.double().norm(dim=1).max().item()
        total = rows.double().sum(1).abs().max().item()
        if total < 0.01 * chance:
            what = f"the gradient of its bias is 0: {norm} subtracts it"
            yield Finding("useless-bias", name, what, "bias=False")


def weight_decay(seen):
    """Find normalization layers whose own parameters the optimizer decays."""
    groups = seen.optimizer.param_groups if seen.optimizer else []
    decays = {id(p): g.get("weight_decay", 0) for g in groups for p in g["params"]}
    for layer, name in seen.norms.items():
        own = {n: decays.get(id(p)) for n, p in layer.named_parameters(recurse=False)}
        hit = [n for n, decay in own.items() if decay]
        if hit:
            what = f"weight decay {own[hit[0]]:g} pulls its {' and '.join(hit)} to 0"
            cure = "a parameter group of their own, weight_decay=0, unless meant"
            yield Finding("weight-decay", name, what, cure)


def zero_weights(seen):
    """Find layers that have switched more than a tenth of their channels off."""
    for layer, name in seen.norms.items():
        if getattr(layer, "weight", None) is not None:
            size = layer.weight.detach().abs()
            off = (size < 1e-3 * size.max()).sum().item()
            if off > 0.1 * size.numel():
                what = f"weight is near 0 in {off} of {size.numel()} channels"
                cure = "less weight decay, or prune these channels"
                yield Finding("zero-weights", name, what, cure)


def dead_channels(seen):
    """Find channels whose running variance is below eps: sqrt(eps) divides them."""
    for layer, name in seen.batch_norms():
        stored = running(layer)
        if stored is not None and stored[1].isfinite().all():
            dead = (stored[1] ** 2 < 2 * layer.eps).sum().item()
            if dead:
                what = f"running variance below eps in {dead} of {len(stored[1])}"
                what += f" channels: any change is multiplied by {layer.eps**-0.5:.0f}"
                cure = "remove constant channels, or a larger eps"
                yield Finding("dead-channels", name, what, cure)


def half_statistics(seen):
    """Find running statistics in half precision."""
    for layer, name in seen.batch_norms():
        kept = layer.running_mean
        if kept is not None and kept.dtype.itemsize < 4:
            what = f"running statistics are {kept.dtype}: updates are lost, or overflow"
            yield Finding("half-statistics", name, what, "layer.float(), inputs stay")


class LeafTracer(torch.fx.Tracer):
    """Trace a model without looking inside modules that have no parts."""

    def is_leaf_module(self, m, name):
        return super().is_leaf_module(m, name) or not list(m.children())


def foldable(model):
    """Return [(layer, batch norm)]: each called once, its output and weights read once.

    Raises ValueError where the forward of a model cannot be traced.
    """
    try:
        nodes = LeafTracer().trace(model).nodes
    except Exception as error:
        what = f"model must be traceable by torch.fx: {error}"
        raise ValueError(f"{what}; fold pair by pair with bnlib.fold") from error
    calls = [n for n in nodes if n.op == "call_module"]
    called = [model.get_submodule(n.target) for n in calls]
    read = {n.target.rpartition(".")[0] for n in nodes if n.op == "get_attr"}
    pairs = []
    for node, norm in zip(calls, called, strict=True):
        before = node.args[0] if node.args else None
        if isinstance(norm, POOLED) and before in calls and len(before.users) == 1:
            layer = called[calls.index(before)]
            once = called.count(norm) == called.count(layer) == 1
            once = once and not read & {before.target, node.target}
            if once and isinstance(layer, PLAIN + TRANSPOSED) and can_go(norm):
                pairs.append((layer, norm))
    return pairs


def can_go(norm):
    """Return whether a batch norm does nothing but to normalize with fixed numbers."""
    hooks = norm._forward_hooks or norm._forward_pre_hooks
    return is_plain(norm) and not hooks and norm.running_mean is not None


def fold_model(model, batch=None, *, forward=run_on):
    """Return a copy of a model in evaluation mode with every batch norm folded away.

    weight' = scale weight,  bias' = scale (bias - mean) + beta, see `fold`

    model : torch.nn.Module, traceable by torch.fx. A batch norm (torch's, ours, or
    renormalization) goes into the Linear, Conv or ConvTranspose whose output it alone
    reads; in its place is an Identity. Others stay: those with statistics of the batch,
    behind anything else, or used twice. batch : see `run_on`; where given, both models
    are run on it and must agree, which is well worth it: a Linear on (N, C, L), or a
    layer that is also reached by other ways than its name, is found only so.
    Raises ValueError for a model in training mode, one that cannot be traced, or
    outputs that differ; what `fold` raises. Source: Ioffe & Szegedy 2015, Algorithm 2.
    """
    model = bare(model)
    trains = [n or "the model" for n, m in model.named_modules() if m.training]
    if trains:
        what = f"model must be in evaluation mode, {trains[0]} is in training mode"
        raise ValueError(f"{what}; call model.eval() first")
    copied = copy.deepcopy(model)
    instead = {}
    for layer, norm in foldable(copied):
        known = norm.as_batch_norm() if isinstance(norm, BatchRenorm) else norm
        instead[layer], instead[norm] = fold(layer, known), torch.nn.Identity().eval()
    for name, module in list(copied.named_modules(remove_duplicate=False)):
        if module in instead:
            parent, _, child = name.rpartition(".")
            setattr(copied.get_submodule(parent), child, instead[module])
    if batch is not None:
        check_same(model, copied, batch, forward)
    return copied


def check_same(model, folded, batch, forward):
    """Raise ValueError unless two models agree on a batch, up to rounding."""
    with torch.no_grad():
        results = [tree_leaves(forward(m, batch)) for m in (model, folded)]
    pairs = [
        p for p in zip(*results, strict=True) if hasattr(p[0], "is_floating_point")
    ]
    if not pairs:
        what = f"outputs must be tensors, or in tuples or dicts, got {results[0]}"
        raise ValueError(f"{what}; pass forward=lambda model, batch: ...")
    for before, after in pairs:
        if before.is_floating_point():
            tolerance = min(1e4 * torch.finfo(before.dtype).eps, 0.1)
            size = before.double().nan_to_num(0, 0, 0).abs().amax().item()
            close = {"rtol": 0, "atol": tolerance * max(size, 1e-30)}
            if not torch.allclose(before, after, equal_nan=True, **close):
                what = (
                    f"folded outputs differ by more than {tolerance:.0e} of {size:.1e}"
                )
                raise ValueError(f"{what}; fold pair by pair with bnlib.fold")


def largest_weight(layer):
    """Return max |W| for each output channel (C,), float64."""
    size = layer.weight.detach().double().abs()
    if not isinstance(layer, TRANSPOSED):
        return size.flatten(1).amax(1)
    return size.unflatten(0, (layer.groups, -1)).amax(1).flatten(2).amax(2).flatten()


def int8_range(seen):
    """Find kernels whose channels are too unlike for one scale, folded if they can be.

    The largest channel over the median one, above 16: the median has 8 steps or less.
    """
    sizes = {name: largest_weight(layer) for name, layer, _ in seen.made.values()}
    made = dict(sizes)
    for use in seen.uses:
        stored, gamma = running(use.layer), use.layer.weight
        if stored is not None and stored[1].isfinite().all():
            scale = (1 if gamma is None else gamma.detach().double().abs()) / stored[1]
            size = sizes.get(use.source, torch.ones_like(scale))
            if size.shape == scale.shape:  # else a view in between mixes the channels
                made[use.source or use.name] = size * scale
    for name, size in made.items():
        ratio = (size.max() / size.median().clamp(min=1e-300)).item()
        if ratio > 16:
            what = f"largest channel is {ratio:.0f} times the median: int8 with one"
            what += f" scale leaves the median {127 / ratio:.1f} steps of 127"
            yield Finding(
                "int8-range", name, what, "one scale per channel; dead channels?"
            )


def unsynchronized(seen):
    """Find batch norms that train in several processes, each on its own statistics."""
    distributed = torch.distributed
    started = distributed.is_available() and distributed.is_initialized()
    if started and distributed.get_world_size() > 1:
        for use in seen.uses:
            synced = hasattr(use.layer, "process_group")  # torch's or ours
            if use.layer.training and not synced:
                what = f"{use.values} values per channel here, none from the other"
                what += f" {distributed.get_world_size() - 1} processes"
                cure = "bnlib.nn.SyncBatchNorm.convert_sync_batchnorm(model)"
                yield Finding("unsynchronized", use.name, what, cure)


class Report(list):
    """A list of findings that prints as a table, and shows as one in a notebook.

    layers : how many normalization layers were looked at.
    """

    def __init__(self, findings, layers):
        super().__init__(findings)
        self.layers = layers

    @property
    def title(self):
        """What the first line says."""
        plural = "s" * (len(self) != 1)
        return (
            f"{len(self) or 'no'} finding{plural}, {self.layers} normalization layers"
        )

    def __repr__(self):
        lines = [self.title]
        for code, layer, what, cure in self:
            lines.append(f"  {layer}: {code}")
            for text in (what, f"cure: {cure}"):
                lines.append(textwrap.indent(textwrap.fill(text, 80), " " * 4))
        return "\n".join(lines)

    def _repr_html_(self):
        cells = (map(html.escape, (f.layer, f.code, f.what, f.cure)) for f in self)
        rows = ("".join(f"<td>{cell}</td>" for cell in row) for row in cells)
        body = "".join(f"<tr>{row}</tr>" for row in rows)
        names = ("layer", "finding", "what was seen", "cure")
        head = "".join(f'<th scope="col">{name}</th>' for name in names)
        table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
        return f"<p>{html.escape(self.title)}</p>" + (table if self else "")


RULES = (
    not_finite, never_updated, far_statistics, momentum_sense, half_statistics,
    few_values, padding, shared_layer, wrong_mode, untracked, unsynchronized,
    useless_bias, weight_decay, zero_weights, dead_channels, int8_range,
)  # fmt: skip


def diagnose(model, batch, *, optimizer=None, forward=run_on):
    """Return what is wrong with the normalization layers of a model, as findings.

    Each `Finding` has a code, the layer's name, what was seen, with its number, and the
    cure; `RULES` are the functions that look for them. The model is run once on the
    batch and differentiated once; nothing in it changes.

    model : torch.nn.Module with layers of torch.nn or bnlib.nn. batch : a tensor, a
    tuple or list that starts with one, or a dict of keyword arguments; 64 examples or
    more make statistics comparable. Show it a batch of training to judge training, one
    from where the model is used to judge that. optimizer : also look at weight decay.
    forward : function (model, batch) -> output. Returns a list; prints as a table.
    A model's own calls of torch.nn.functional are not seen, and the rule for biases
    says nothing where no gradient flows.
    Raises TypeError naming the argument, and whatever the model raises on the batch.
    """
    model = bare(model)
    if optimizer is not None and not hasattr(optimizer, "param_groups"):
        what = f"optimizer must be a torch optimizer, got {type(optimizer).__name__}"
        raise TypeError(f"{what}; pass optimizer=torch.optim.SGD(...)")
    seen = survey(model, batch, optimizer, forward)
    return Report([f for rule in RULES for f in rule(seen)], len(seen.norms))
