"""From chapters/19_statistics.ipynb.

Extracted by `make export`: edit the notebook, not this file.
"""

import contextlib
import functools
import itertools
import operator
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch

from bnlib.nn._renorm import BatchRenorm
from bnlib.nn._survey import (
    at_rest,
    bare,
    hooked,
    is_frozen,
    is_local,
    is_normalizing,
    is_pooled,
    moments_of,
    norms_of,
    own_tensors,
    run_on,
    running,
)

__all__ = ["recalibrate"]


def add_up(total, other):
    """Return (n, mean, m2) of two lots of values together; m2 = n var, var biased.

    mean += share delta,   m2 += other m2 + n share delta^2,   share = m / (n + m)
    Start with (0, 0.0, 0.0). Source: Chan, Golub and LeVeque 1983.
    """
    (n, mean, m2), (m, other_mean, other_m2) = total, other
    if not m:
        return total
    delta, share = other_mean - mean, m / (n + m)
    return n + m, mean + share * delta, m2 + other_m2 + n * share * delta**2


class Pass(NamedTuple):
    """What one pass over a loader saw of the layers that are measured.

    totals : {name: (n, mean, m2)}, in the order of the calls. orders : {names called
    by a batch, in order}. spoiled : {name: the first batch that brought it NaN or
    infinity}. batches : how many there were.
    """

    totals: dict
    orders: set
    spoiled: dict
    batches: int


def one_pass(model, loader, names, forward):
    """Return the `Pass` of a model's layers {layer: name} over a loader."""
    totals, order, orders, spoiled, number = {}, [], set(), {}, 0

    def look(layer, x):
        name = names[layer]
        if not is_normalizing(layer, x):
            what = f"layer {name!r} must normalize its input, along axis 1"
            cure = "pass layers=[...] without it"
            raise ValueError(f"{what}, got another in {type(layer).__name__}; {cure}")
        n, mean, m2 = moments_of(x)
        totals[name] = add_up(totals.get(name, (0, 0.0, 0.0)), (n, mean, m2))
        order.append(name)
        if n and not m2.isfinite().all():
            spoiled.setdefault(name, f"batch {number} of loader")

    with hooked(dict.fromkeys(names, (look, None))), torch.no_grad():
        for number, batch in enumerate(loader, 1):  # noqa: B007
            order.clear()
            forward(model, own_tensors(batch))
            orders.add(tuple(order))
    return Pass(totals, orders, spoiled, number)


def write(layer, total, batches):
    """Store population statistics; return whether they moved by more than rounding."""
    n, mean, m2 = total
    if not m2.isfinite().all():  # a layer before it is not right yet
        return True
    old_mean, old_std = (v.clone() for v in running(layer))
    layer.running_mean.copy_(mean)
    if isinstance(layer, BatchRenorm):
        layer.running_std.copy_((m2 / n + layer.eps) ** 0.5)
    else:
        layer.running_var.copy_(m2 / (n - 1))
    if getattr(layer, "num_batches_tracked", None) is not None:
        layer.num_batches_tracked.fill_(batches)
    mean, std = running(layer)
    moved = (mean - old_mean).abs() / (mean.abs() + std), (std / old_std - 1).abs()
    digits = torch.promote_types(layer.running_mean.dtype, torch.float32)
    rounding = 100 * torch.finfo(digits).eps
    return not all((m <= rounding).all() for m in moved)


def to_measure(model, layers=None):
    """Return {layer: name} of what `recalibrate` shall measure.

    layers : names; None for all batch norms but frozen ones: those whose weights are,
    and in a model in training those in evaluation mode. In a model in use in which all
    are frozen, all. Raises TypeError, ValueError.
    """
    kept = [(n, m) for m, n in norms_of(model).items() if hasattr(m, "running_mean")]
    kept = {n: m for n, m in kept if m.running_mean is not None}
    layers = [layers] if isinstance(layers, str) else layers
    layers = None if layers is None else [n or type(model).__name__ for n in layers]
    unknown = sorted(set(layers or ()) - set(kept))
    if unknown:
        what = f"layers must name layers with running statistics, got {unknown}"
        raise ValueError(f"{what}; the model has {list(kept)}")
    if layers is None:
        kept = {n: m for n, m in kept.items() if is_pooled(m)} or kept
        active = {n: m for n, m in kept.items() if m.training or not model.training}
        layers = [n for n, m in active.items() if not is_frozen(m)]
        layers = layers or ([] if model.training else list(kept))
    if not layers:
        what = f"model must have a batch norm that is not frozen, has {list(kept)}"
        raise ValueError(f"{what}; to measure frozen ones too, pass layers=[...]")
    return {kept[name]: name for name in layers}


def check_layers(names):
    """Raise TypeError or ValueError for what is no pooled mean and variance."""
    owners = {}
    for layer, name in names.items():
        if not is_pooled(layer):
            what = f"layer {name!r} must be a batch norm, got {type(layer).__name__}"
            raise TypeError(f"{what}; pass layers=[...] without it")
        own = [v for key, v in layer._buffers.items() if key.startswith("running")]
        for place in (v.data_ptr() for v in own if v.numel() and not v.is_meta):
            if place in owners:
                what = f"layers {owners[place]!r} and {name!r} share running statistics"
                raise ValueError(f"{what}; give each its own: a clone()")
            owners[place] = name


def check_loader(loader):
    """Raise TypeError unless loader can be passed through several times."""
    several = isinstance(loader, Iterable) and not isinstance(loader, Iterator)
    if isinstance(loader, torch.Tensor | dict | str) or not several:
        what = "loader must give its batches in every pass"
        cure = "pass a DataLoader, or a list of batches"
        raise TypeError(f"{what}, got {type(loader).__name__}; {cure}")


def together(group, function):
    """Return [function()] of all processes of a group; an error in one is one in all.

    Where nothing is distributed, of this one. group : None is the default group.
    """
    result, error, distributed = None, None, torch.distributed
    try:
        result = function()
    except BaseException as caught:
        error = caught
    if not (distributed.is_available() and distributed.is_initialized()):
        everyone = [(result, None)]
    else:
        told = None if error is None else f"{type(error).__name__}: {error}"
        everyone = [None] * distributed.get_world_size(group)
        distributed.all_gather_object(everyone, (result, told), group=group)
    if error is not None:
        raise error
    for rank, (_, told) in enumerate(everyone):
        if told:
            raise RuntimeError(f"process {rank} of the group failed: {told}")
    return [result for result, _ in everyone]


def check_together(found, model):
    """Raise ValueError where processes cannot measure together.

    found : [(names, number of batches or -1)], one for every process.
    """
    names, sizes = zip(*found, strict=True)
    if any(n != names[0] for n in names):
        what = f"all processes must measure the same layers, got {list(names)}"
        raise ValueError(f"{what}; pass process_group= those that share this model")
    waits = not is_local(model) or any(
        hasattr(m, "process_group") and m.running_mean is None for m in model.modules()
    )
    if waits and len(set(sizes)) > 1:
        what = "processes that need each other in every forward pass must have as many"
        raise ValueError(f"{what} batches, got {list(sizes)}; make the loaders alike")


def pool(passes):
    """Return the `Pass` that the passes of all processes are together."""
    totals, spoiled = {}, {}
    for rank, own in enumerate(passes):
        for name, total in own.totals.items():
            totals[name] = add_up(totals.get(name, (0, 0.0, 0.0)), total)
        for name, where in own.spoiled.items():
            where = f"{where} of process {rank}" if len(passes) > 1 else where
            spoiled.setdefault(name, where)
    orders = set().union(*(own.orders for own in passes))
    return Pass(totals, orders, spoiled, sum(own.batches for own in passes))


def check_pass(seen, names):
    """Raise ValueError for what cannot be a statistic.

    The first layer in the order of calls has had its inputs from right layers alone:
    NaN comes from the data. Those behind may still see the old statistics.
    """
    for name in names.values():
        n = seen.totals.get(name, (0,))[0]
        if n < 2:
            what = f"layer {name!r} must see at least 2 values per channel, saw {n}"
            what += " in evaluation mode"
            cure = "pass more data; if it is not called, layers=[...] without it"
            raise ValueError(f"{what}; {cure}")
    check_clean(seen, next(iter(seen.totals)))


def check_clean(seen, name):
    """Raise ValueError where a layer behind right ones has met NaN or infinity."""
    if name in seen.spoiled:
        what = f"{seen.spoiled[name]} brings NaN or infinity to layer {name!r}"
        raise ValueError(f"{what}; drop it, or mend the layers before")


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


def measure(model, loader, names, forward, progress, group, every):
    """Return {name: ((n, mean, m2), number of batches)}, when nothing moves any more.

    A layer is right as soon as none before it moves. Where one is called several times
    or batches take unlike ways, all are measured until nothing moves. every : whether
    it is an error that one is not called, as the heads that train alone.
    """
    right, last, layers = {}, len(names), {name: m for m, name in names.items()}
    for depth in itertools.count(1):
        left = {m: name for m, name in names.items() if name not in right}
        shown = with_bar(loader, depth, progress)
        job = functools.partial(one_pass, model, shown, left, forward)
        seen = pool(together(group, job))
        if not every and seen.totals:
            left = {m: name for m, name in left.items() if name in seen.totals}
            last = len(right) + len(left)
        check_pass(seen, left)

        def store(seen=seen):
            found = seen.totals.items()
            return [write(layers[name], v, seen.batches) for name, v in found]

        moved = [any(flags) for flags in zip(*together(group, store), strict=True)]
        known = [*moved, True].index(True) + 1
        if not is_one_way(seen.orders):
            known = 0 if any(moved) else len(moved)
            if not known and depth > 2 * last + 20:
                what = f"statistics still move after {depth} passes: a layer feeds "
                what += "itself, or the batches differ from pass to pass"
                cure = "use a layer for every place; pass a list of batches"
                raise ValueError(f"{what}; {cure}")
        for name, total in list(seen.totals.items())[:known]:
            check_clean(seen, name)
            right[name] = total, seen.batches
        if len(right) == last:
            break
    check_stored({m: name for m, name in names.items() if name in right})
    return right


def is_one_way(orders):
    """Return whether every batch calls the same layers, in one order, each once."""
    (first_order, *others) = orders
    return not others and len(set(first_order)) == len(first_order)


def recalibrate(
    model, loader, *, layers=None, forward=run_on, progress=True, process_group=None
):
    """Measure the population statistics of every batch norm anew, exactly.

    running_mean = mean,   running_var = m2 / (n - 1),   n values in all batches

    Every layer is measured with those before it already right: a pass over the loader
    for each layer in sequence, fewer where nothing moves any more. Accumulated in
    float64. A layer used several times gets the statistics of all its uses.

    Source: Wu & Johnson 2021; what Ioffe & Szegedy 2015, section 3.1, ask for, though
    not the estimate of their Algorithm 2, see chapter 19.

    Parameters
    ----------
    model : module
        With batch norms, torch's or ours, or renormalization layers (whose running_std
        = sqrt(m2 / n + eps)). Moments are taken in evaluation mode; every module then
        has its own mode again.
    loader : iterable
        A DataLoader or list of batches, of any sizes; it is passed through several
        times.
    layers : iterable of str or None
        Names of those to measure, by default all that are called but frozen ones, see
        `to_measure`.
    forward : function
        `forward(model, batch)`, by default `run_on`.
    progress : bool
        Whether to show a bar.
    process_group : object, optional
        Of processes with the same model, each with batches of its own, or none: all get
        the statistics of all of them. All call it; None is the default group, if there
        is one.

    Returns
    -------
    names : list of str
        Of the layers measured.

    Raises
    ------
    TypeError, ValueError
        Naming the argument or the batch.
    RuntimeError
        For what went wrong in another process. After any error or interruption the
        statistics are as before.
    """
    model = bare(model)
    layers = layers if layers is None or isinstance(layers, str) else list(layers)

    def prepare():
        names = to_measure(model, layers)
        check_layers(names)
        check_loader(loader)
        return list(names.values()), operator.length_hint(loader, -1)

    found = together(process_group, prepare)
    check_together(found, model)
    names = to_measure(model, layers)
    with at_rest(model):
        how = forward, progress, process_group, layers is not None
        right = measure(model, loader, names, *how)
    for layer, name in names.items():
        if name in right:
            with torch.inference_mode(layer.running_mean.is_inference()):
                write(layer, *right[name])
    return [name for name in names.values() if name in right]
