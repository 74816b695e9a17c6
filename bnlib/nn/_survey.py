"""From chapters/18_pitfalls.ipynb.

Extracted by `make export`: edit the notebook, not this file.
"""

import contextlib
import math
from typing import NamedTuple

import torch
from torch.nn.parameter import is_lazy
from torch.utils._pytree import tree_leaves, tree_map

from bnlib.nn._batch_norm import BatchNormMixin
from bnlib.nn._decorrelated import DecorrelatedBatchNorm
from bnlib.nn._fold import BATCH_NORMS, PLAIN, TRANSPOSED
from bnlib.nn._renorm import BatchRenorm


@contextlib.contextmanager
def at_rest(model):
    """Put a model in evaluation mode; give every mode and every buffer back after.

    Observers, say, write buffers in evaluation, too. What is compiled runs as it was
    written meanwhile, since hooks do not run in a part that is compiled already.
    """
    parts = [(m, m.training, dict(m._buffers.items())) for m in model.modules()]
    kept = [(b, b.clone(), None if b.is_inference() else b._version)
            for b in model.buffers()]  # fmt: skip
    own = [*model.parameters(), *model.buffers()]
    if any(t.is_meta for t in own):
        what = "model must hold numbers, got tensors on the meta device"
        raise ValueError(f"{what}; load its weights first")
    with (
        torch.inference_mode(any(t.is_inference() for t in own)),
        torch.compiler.set_stance("force_eager"),
    ):
        try:
            for part, *_ in parts:  # not by .eval(), which some models make do more
                part.training = False
            yield
        finally:
            for part, training, buffers in parts:
                part.training = training
                put_back(part, buffers)
            with torch.no_grad():
                for buffer, before, version in kept:
                    if is_changed(buffer, before, version):
                        buffer = buffer.detach_() if buffer.requires_grad else buffer
                        buffer.resize_(before.shape).copy_(before)


def is_changed(buffer, before, version):
    """Return whether a buffer was written. Fused operations do not count a version."""
    counted = version is not None and buffer._version == version
    return not counted or not torch.equal(buffer, before)


def put_back(part, before):
    """Give a module the tensors back that were its buffers.

    One that grew is a cache, of positions, say: its module counts on the new length.
    """
    now = dict(part._buffers.items())  # of a scripted module it knows no .get
    for name, old in before.items():
        new = now.get(name)
        grown = new is not None and old is not None and new.numel() > old.numel()
        if new is not old and not grown:
            part._buffers[name] = old


@contextlib.contextmanager
def hooked(hooks):
    """Call functions around every call of some layers, as long as this lasts.

    hooks : {layer: (before, after)}, each a function or None. before(layer, x) may
    return what goes in instead of x; after(layer, x, y) looks at what came out.
    """

    def enter(layer, args, kwargs):
        x = hooks[layer][0](layer, first(args, kwargs))
        if x is None:
            return None
        if args:
            return (x, *args[1:]), kwargs
        return args, {**kwargs, next(iter(kwargs)): x}

    def leave(layer, args, kwargs, y):
        hooks[layer][1](layer, first(args, kwargs), y)

    handles = []
    try:
        for layer, (before, after) in hooks.items():
            if before:
                handles.append(layer.register_forward_pre_hook(enter, with_kwargs=True))
            if after:
                handles.append(layer.register_forward_hook(leave, with_kwargs=True))
        yield
    finally:
        for handle in handles:
            handle.remove()


def first(args, kwargs):
    """Return the first argument of a call, by position or by name; None without."""
    return next(iter((*args, *kwargs.values())), None)


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


POOLED = (*BATCH_NORMS, BatchNormMixin, BatchRenorm)
INSTANCE_NORMS = (torch.nn.modules.instancenorm._InstanceNorm,)
BY_EXAMPLE = (torch.nn.GroupNorm, *INSTANCE_NORMS)  # over (C, ...), one by one
NORMS = (
    *POOLED, *INSTANCE_NORMS, DecorrelatedBatchNorm,
    torch.nn.GroupNorm, torch.nn.LayerNorm, torch.nn.RMSNorm,
)  # fmt: skip
LINEAR = PLAIN + TRANSPOSED
DROPOUT = torch.nn.modules.dropout._DropoutNd


def is_pooled(layer):
    """Return whether a layer has one mean and one variance a channel, over the batch.

    Torch's and ours are known by class; others, such as the frozen ones of detection
    networks, by their buffers.
    """
    buffers = dict(layer.named_buffers(recurse=False))
    own = [buffers.get(name) for name in ("running_mean", "running_var")]
    alike = all(isinstance(b, torch.Tensor) and b.ndim == 1 for b in own)
    return isinstance(layer, POOLED) or (alike and not isinstance(layer, NORMS))


def is_norm(layer):
    """Return whether a layer normalizes, as far as its class or its buffers say."""
    return isinstance(layer, NORMS) or is_pooled(layer)


def is_plain(layer):
    """Return whether a layer does what its class in torch.nn or bnlib.nn does.

    Elsewhere subclasses add an activation, say, which has to be left in its place.
    """
    home = type(layer).__module__.startswith(("torch.nn.modules.", "bnlib.nn"))
    return home and "forward" not in vars(layer)


class Listener(torch.overrides.TorchFunctionMode):
    """Hears what is given to `torch.nn.functional.batch_norm`."""

    def __init__(self):
        super().__init__()
        self.heard = []

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function is torch.nn.functional.batch_norm:
            self.heard.append(first(args, kwargs))
        return function(*args, **kwargs)


def is_normalizing(layer, x):
    """Return whether it is x itself, along axis 1, that a pooled norm normalizes.

    Subclasses turn axes, or leave padding out: of their x nothing could be said.
    """
    if is_plain(layer) or layer.running_mean is None:
        return True

    def sums(v):  # all that moments are made of, so that axes behind may be merged
        v = (v.double() - x.double().mean()).movedim(1, 0).flatten(1)
        return torch.stack([v.sum(1), (v**2).sum(1)])

    if x.ndim < 2 or x.shape[1] != layer.running_mean.numel():
        return False
    listener = Listener()
    with contextlib.suppress(Exception), torch.no_grad(), listener:
        layer.forward(x.clone())
    same = (torch.allclose(sums(h), sums(x), equal_nan=True) for h in listener.heard)
    return all(same)


def has_hooks(module):
    """Return whether something is called before or after a module."""
    return bool(module._forward_hooks or module._forward_pre_hooks)


def names_of(model):
    """Return {module: name} of a model and its parts; its own name is its class's.

    Left out is the shell that torch.compile puts around a part. Raises TypeError for
    layers that do not know their size yet.
    """
    named = {m: name or type(m).__name__ for name, m in model.named_modules()}
    for module, name in named.items():
        own = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
        if any(is_lazy(v) for v in own):
            what = f"layer {name!r} must know its size, got {type(module).__name__}"
            raise TypeError(f"{what}; call the model on a batch first")
    scripted = torch.jit.ScriptModule
    return {m: name for m, name in named.items()
            if not (isinstance(m, scripted) or "_orig_mod" in m._modules)}  # fmt: skip


def norms_of(model):
    """Return {layer: name} of all normalization layers; ValueError without any."""
    norms = {m: n for m, n in names_of(model).items() if is_norm(m)}
    if not norms:
        what = "model must have a normalization layer of torch.nn or bnlib.nn, got "
        cure = "calls of torch.nn.functional, and what is scripted or exported, are not"
        raise ValueError(f"{what}{type(model).__name__} with none; {cure} seen")
    return norms


class Use(NamedTuple):
    """One call of a normalization layer, and what went in.

    source : name of the layer whose output it was, or None. shape, strides : of the
    input (N, C, ...). padded : share of its positions that look like filling. mean,
    var : (C,), its moments, biased, in float64; None but for statistics over the batch.
    broken : how many examples bring NaN or infinity.
    """

    name: str
    layer: torch.nn.Module
    source: str | None
    shape: tuple
    strides: tuple
    padded: float
    broken: int
    mean: torch.Tensor | None
    var: torch.Tensor | None

    @property
    def values(self):
        """Values per channel."""
        return math.prod((self.shape[0], *self.shape[2:]))

    @property
    def std(self):
        """What the layer divides by: sqrt(var + eps), eps where it has one."""
        return (self.var + getattr(self.layer, "eps", 0.0)) ** 0.5


class Survey(NamedTuple):
    """What one batch showed of a model: the facts that rules reason from.

    norms : {layer: name}. uses : their calls, in order. made : {memory: (name, layer,
    output)} of linear layers and convolutions. normed : {memory: name of the norm that
    read it}. gradients : {memory: gradient of a random output} of those with a bias.
    """

    model: torch.nn.Module
    norms: dict
    uses: list
    made: dict
    normed: dict
    gradients: dict
    optimizer: object = None

    def batch_norms(self):
        """Return the (layer, name) of every layer with statistics over the batch."""
        return [(m, n) for m, n in self.norms.items() if is_pooled(m)]

    def pooled(self):
        """Return the calls of these layers."""
        return [use for use in self.uses if use.mean is not None]


def memory(x):
    """Return what two tensors share when one is a view of the other, as it is now.

    Changed in place, memory counts as another.
    """
    version = 0 if x.is_inference() else x._version
    return x.untyped_storage()._cdata, version


def own_tensors(batch):
    """Return a batch with tensors of its own: a model may write into them."""
    return tree_map(lambda v: v.clone() if isinstance(v, torch.Tensor) else v, batch)


def is_local(model):
    """Return whether no weight is spread over several processes, as in FSDP."""
    return not any(hasattr(p, "full_tensor") for p in model.parameters())


def whole(v):
    """Return the values of a parameter or buffer, gathered where it is spread."""
    v = v.detach()
    return v.full_tensor() if hasattr(v, "full_tensor") else v


def moments_of(x):
    """Return (n, mean, m2) of the n values of every channel of x (N, C, ...), float64.

    m2 is the sum of squared distances from the mean: n var, var biased.
    """
    axes, wide = (0, *range(2, x.ndim)), x.detach().double()
    mean = wide.mean(axes, keepdim=True)
    m2 = (wide - mean).square_().sum(axes)
    return x.numel() // max(x.shape[1], 1), mean.flatten(), m2


def use_of(layer, name, source, x):
    """Return the `Use` of a normalization layer whose input was x."""
    mean = var = None
    if is_pooled(layer) and x.ndim > 1 and x.is_floating_point():
        n, mean, m2 = moments_of(x)
        var = m2 / n if n else m2
    broken = 0 if mean is None else int((~x.isfinite()).flatten(1).any(1).sum())
    shape, strides = tuple(x.shape), tuple(x.stride())
    return Use(name, layer, source, shape, strides, filled(x), broken, mean, var)


def filled(x):
    """Return the share of positions of x (N, C, L) that look like filling at an end.

    Filling is one vector, repeated at the ends of sequences of unequal length. Where a
    convolution went before, the outermost positions have seen the zeros around.
    """
    if x.ndim != 3 or x.shape[1] < 2 or not x.is_floating_point() or not x.numel():
        return 0.0
    sides = x.detach(), x.detach().flip(2)
    ends = range(x.shape[2], max(x.shape[2] - 4, 0), -1)
    return max(filled_behind(s[:, :, :end]) for s in sides for end in ends)


def filled_behind(x):
    """Return that share for filling behind, up to the last position of x."""
    close = 1e-5 * x.abs().amax()
    last = x[:, :, -1:]
    run = ((x - last).abs() <= close).all(1).flip(1).cumprod(1).sum(1)
    common = last[run.argmax()]  # run: how long each end is constant
    same = ((last - common).abs() <= close).all(1).squeeze(1)
    run = torch.where(same & (run > 1), run, 0)
    return 0.0 if (run == run[0]).all() else run.sum().item() / x[:, 0].numel()


def lend(use):
    """Give a layer the statistics of its batch, until it gets its own buffers back.

    So that every class does what it does, whatever that is: the buffers are others,
    nothing is written. Returns whether it has any, and at least two values a channel.
    """
    own = use.layer._buffers
    if use.mean is None or use.values < 2:
        return False
    lent = {"running_mean": use.mean, "running_var": use.var, "running_std": use.std}
    lent = {n: v for n, v in lent.items() if getattr(own.get(n), "shape", 0) == v.shape}
    for name, v in lent.items():
        own[name] = v.clamp(max=torch.finfo(own[name].dtype).max).to(own[name])
    return bool(lent)


def through(x, use):
    """Return x, with the gradient of one that is normalized by its own batch, if any.

    dx = g - <g> - xhat <g xhat>,   averages over the batch. Source: chapter 4.
    """
    if not x.requires_grad:
        return None
    axes, shape = (0, *range(2, x.ndim)), (1, -1, *[1] * (x.ndim - 2))
    mean, std = (v.to(x).reshape(shape) for v in (use.mean, use.std))

    def project(g):
        xhat = (x.detach() - mean) / std
        along = (g * xhat).mean(axes, keepdim=True)
        return g - g.mean(axes, keepdim=True) - xhat * along

    same = x.view_as(x)
    same.register_hook(project)
    return same


def survey(model, batch, optimizer=None, forward=run_on):
    """Return a `Survey`: one pass of a batch, with its own statistics in every layer.

    Nothing in the model changes. model : torch.nn.Module. batch : see `run_on`.
    forward : function (model, batch) -> output.
    """
    named, norms = names_of(model), norms_of(model)
    uses, made, normed = [], {}, {}
    own = {layer: dict(layer._buffers) for layer in norms}
    moving = {m for m in norms if m.training or not model.training}

    def remember(layer, x, y):
        if isinstance(y, torch.Tensor):
            made[memory(y)] = named[layer], layer, y

    def forget(layer, x, y):  # in evaluation dropout hands on its input itself
        made.pop(memory(x), None)

    def look(layer, x):
        if not isinstance(x, torch.Tensor):
            return None  # the layer itself will say so
        if is_pooled(layer) and not is_normalizing(layer, x):
            return None
        source = made.get(memory(x), (None,))[0]
        normed[memory(x)] = named[layer]
        uses.append(use_of(layer, named[layer], source, x))
        # A frozen layer has no such gradient.
        trains = layer in moving and hasattr(layer, "momentum")
        return through(x, uses[-1]) if lend(uses[-1]) and trains else None

    def take_back(layer, x, y):
        layer._buffers.update(own[layer])

    hooks = {m: (None, remember) for m in named if isinstance(m, LINEAR)}
    hooks |= {m: (None, forget) for m in named if isinstance(m, DROPOUT)}
    hooks |= dict.fromkeys(norms, (look, take_back))
    with at_rest(model), hooked(hooks), torch.random.fork_rng(devices=[]):
        with torch.set_grad_enabled(is_local(model)):
            result = tree_leaves(forward(model, own_tensors(batch)))
        seen = list(uses), dict(made), dict(normed)  # a checkpoint computes again
        gradients = bias_gradients(result, *seen[1:])
    return Survey(model, norms, *seen, gradients, optimizer)


def bias_gradients(result, made, normed):
    """Return {memory: dy} of what layers with a bias put out, for random upstream."""
    results = [r for r in result if getattr(r, "requires_grad", False)]
    biased = {n for k, (n, m, _) in made.items() if k in normed and m.bias is not None}
    keys = [k for k, (n, _, y) in made.items() if n in biased and y.requires_grad]
    if not (results and keys):
        return {}
    g = torch.Generator().manual_seed(0)
    upstream = [torch.randn(r.shape, generator=g).to(r) for r in results]
    outputs = [made[k][2] for k in keys]
    try:
        found = torch.autograd.grad(results, outputs, upstream, allow_unused=True)
    except RuntimeError:  # a reentrant checkpoint, say, which goes backward alone
        return {}
    return dict(zip(keys, found, strict=True))


def running(layer):
    """Return the running mean and std (C,) of a batch norm, float64; None without.

    std = sqrt(running_var + eps); a renormalization layer stores it as it is.
    """
    if layer.running_mean is None:
        return None
    if isinstance(layer, BatchRenorm):
        return layer.running_mean.double(), layer.running_std.double()
    variance = layer.running_var.double() + getattr(layer, "eps", 1e-5)
    return layer.running_mean.double(), variance**0.5


def is_frozen(layer):
    """Return whether a layer has weights, and none of them is to be trained."""
    own = [getattr(layer, name, None) for name in ("weight", "bias")]
    own = [p for p in own if p is not None]
    return bool(own) and not any(p.requires_grad for p in own)
