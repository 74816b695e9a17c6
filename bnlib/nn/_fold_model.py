"""From chapters/18_pitfalls.ipynb.

Extracted by `make export`: edit the notebook, not this file.
"""

import copy
import inspect
import textwrap
import warnings
from typing import NamedTuple

import torch
from torch.utils._pytree import tree_leaves

from bnlib.nn._fold import BATCH_NORMS, fold
from bnlib.nn._renorm import BatchRenorm
from bnlib.nn._survey import (
    DROPOUT,
    LINEAR,
    at_rest,
    bare,
    first,
    has_hooks,
    hooked,
    is_norm,
    is_plain,
    is_pooled,
    names_of,
    norms_of,
    own_tensors,
    run_on,
)

__all__ = ["fold_model"]


class Follower(torch.fx.Tracer):
    """Follow one forward pass, as far as torch.fx can.

    lost : {module: why it cannot be followed}; such a module is one step, of which
    nobody knows what it does. apart : modules with hooks, which are one step too: hooks
    shall not see what torch.fx puts in. read : modules whose weights somebody reads.
    """

    def __init__(self):
        super().__init__()
        self.lost, self.apart, self.read = {}, [], set()

    def is_leaf_module(self, m, name=""):
        """Return whether a module is one step: torch's, a norm, or without parts."""
        step = isinstance(m, LINEAR) or is_norm(m) or not list(m.children())
        return step or super().is_leaf_module(m, name)

    def call_module(self, m, forward, args, kwargs):
        """Follow a call. If that fails, what was seen of it is forgotten again."""
        seen, stack = len(self.graph.nodes), self.module_stack.copy()
        try:
            if self.is_leaf_module(m) or not has_hooks(m):
                return super().call_module(m, forward, args, kwargs)
            if len(args) != 1 or kwargs:
                raise TypeError("hooks, and more arguments than one")
            self.apart.append(m)
        except Exception as error:
            self.lost[m] = error
            for node in list(self.graph.nodes)[seen:][::-1]:
                if node.op == "get_attr":
                    self.read.add(reader(self, node))
                self.graph.erase_node(node)
            self.module_stack = stack
        return self.create_proxy("call_module", self.path_of_module(m), args, kwargs)

    def create_args_for_root(self, *given, **named):
        function, args = super().create_args_for_root(*given, **named)
        return function, [one_argument(arg) for arg in args]


def one_argument(arg):
    """Return what `*args` and `**kwargs` hold in a call with one argument."""
    name = str(getattr(getattr(arg, "node", None), "target", ""))
    return {} if name.startswith("**") else (arg,) if name.startswith("*") else arg


def reader(follower, node):
    """Return the module whose parameter or buffer a step reads."""
    return follower.root.get_submodule(node.target.rpartition(".")[0])


def follow(module):
    """Return the calls of modules in a forward pass, and the `Follower`."""
    follower, nodes = Follower(), []
    try:
        if "forward" in vars(module):
            raise TypeError("a forward pass of its own was put on the instance")
        named = inspect.signature(module.forward).parameters.items()
        given = {name: p.default for name, p in named if p.default is not p.empty}
        nodes = list(follower.trace(module, given).nodes)
    except Exception as error:
        follower.lost[module] = error
    follower.read |= {reader(follower, n) for n in nodes if n.op == "get_attr"}
    return [n for n in nodes if n.op == "call_module"], follower


class Calls(NamedTuple):
    """Who calls whom in a model: what is known of it by following.

    found : {module: [calls of it]}. calls : {call: module}. read : modules whose
    weights are read by others. lost : {module: why it was not followed}. unsure :
    {module: the part it was found in, which is called by what could not be followed}.
    """

    found: dict
    calls: dict
    read: set
    lost: dict
    unsure: dict


def calls_of(model):
    """Return the `Calls` of a model; what is one step is followed by itself after."""
    calls, done, waiting = Calls({}, {}, set(), {}, {}), set(), [(model, None)]
    while waiting:
        module, part = waiting.pop()
        if module in done:
            continue
        done.add(module)
        nodes, follower = follow(module)
        for node in nodes:
            called = calls.calls[node] = module.get_submodule(node.target)
            calls.found.setdefault(called, []).append(node)
            calls.unsure.update({called: part} if part else {})
        calls.read.update(follower.read)
        calls.lost.update(follower.lost)
        waiting += [(m, part) for m in follower.apart]
        for m in (m for lost in follower.lost for m in parts_of(lost)):
            if follower.is_leaf_module(m):
                calls.read.add(m)  # what calls it, and how often, is not known
            else:
                waiting.append((m, part or m))
    return calls


def parts_of(module):
    """Return the parts of a module; those of a list or dict of modules are its own."""
    found = []
    for part in module.children():
        held = isinstance(part, torch.nn.ModuleList | torch.nn.ModuleDict)
        found += parts_of(part) if held else [part]
    return found


def is_idle(module):
    """Return whether a module hands on what it gets, in evaluation."""
    idle = isinstance(module, torch.nn.Identity | DROPOUT) and is_plain(module)
    return idle and not has_hooks(module)


def check_foldable(norm):
    """Raise ValueError where a norm does not multiply and add fixed numbers."""
    if not is_pooled(norm):
        raise ValueError("its statistics are those of every example")
    if norm.running_mean is None:
        raise ValueError("without running statistics: it takes those of the batch")
    if has_hooks(norm):
        raise ValueError("it has hooks, which would see something else; remove them")


def layer_of(norm, calls, seen):
    """Return the layer that a norm can be folded into; ValueError says why none.

    calls : a `Calls`. seen : {module: dimensions of its input} in a run, or None.
    """
    check_foldable(norm)
    found = calls.found.get(norm, [])
    if len(found) != 1:
        raise ValueError(f"called in {len(found)} places" if found else "not called")
    before, part = first(found[0].args, found[0].kwargs), calls.unsure.get(norm)
    while is_idle(calls.calls.get(before)) and len(before.users) == 1:
        before = first(before.args, before.kwargs)
    layer = calls.calls.get(before)
    if not isinstance(layer, LINEAR):
        what = type(layer).__name__ if layer else getattr(before, "target", before)
        what = getattr(what, "__name__", what)
        raise ValueError(f"reads {what}, which is no linear layer or convolution")
    if len(before.users) > 1 or len(calls.found[layer]) > 1:
        raise ValueError(f"the {type(layer).__name__} before it is used more than once")
    if calls.read & {layer, norm}:
        raise ValueError("its weights or those of the layer before are read by others")
    if part is not None and part not in (seen or {}):
        what = "is called by what torch.fx cannot follow"
        raise ValueError(f"{what}{'' if seen else '; pass batch= to see it run'}")
    dims = layer.weight.ndim
    if (seen or {}).get(norm, dims) != dims:
        what = f"its input has {seen[norm]} dimensions, not {dims}: on (N, C, L)"
        raise ValueError(f"{what}, say, it normalizes another axis than the layer's")
    return layer


def why_lost(name, model, calls):
    """Return why no call of a norm was found."""
    path = name.split(".")
    for depth in range(len(path) - 1, -1, -1):
        module = model.get_submodule(".".join(path[:depth]))
        what = type(module).__name__
        if module in calls.lost:
            error = str(calls.lost[module]).partition("\n")[0].partition(". ")[0]
            return f"torch.fx cannot follow {what}: {error}"
        held = isinstance(module, torch.nn.ModuleList | torch.nn.ModuleDict)
        if module is not model and not held and Follower().is_leaf_module(module):
            return f"is inside {what}, which is one step here"
    return "the forward pass does not call it"


def in_two(norm, dims):
    """Return a norm in two: a batch norm that `fold` takes, and what comes after it.

    Found out by trying: on numbers of all sizes, the plain batch norm and then the
    parts have to do what the norm does. Raises ValueError where they do not.
    """
    if is_plain(norm) and isinstance(norm, (*BATCH_NORMS, BatchRenorm)):
        plain = norm.as_batch_norm() if isinstance(norm, BatchRenorm) else norm
        return plain, torch.nn.Identity().eval()
    kind = getattr(torch.nn, f"BatchNorm{max(dims, 1)}d")
    plain = kind(len(norm.running_mean), getattr(norm, "eps", 1e-5)).eval()
    plain.to(norm.running_mean)
    own = {n: getattr(norm, n, None) for n in NUMBERS}
    plain.load_state_dict({n: v for n, v in own.items() if v is not None}, strict=False)
    parts = [m for m in norm.children() if not isinstance(m, torch.nn.Identity)]
    rest = parts[0] if len(parts) == 1 else torch.nn.Sequential(*parts)
    rest = rest.eval() if parts else torch.nn.Identity().eval()
    g, shape = torch.Generator().manual_seed(0), (len(norm.running_mean), *[3] * dims)
    x = torch.randn(4, *shape, generator=g, dtype=torch.float64)
    x *= torch.tensor([0.1, 1, 10, 100]).reshape(-1, *[1] * len(shape))
    try:
        copies = (copy.deepcopy(m).double().cpu() for m in (norm, plain, rest))
        whole, before, after = copies
        with torch.no_grad():
            y, z = whole(x.clone()), after(before(x))
        if torch.allclose(y, z, rtol=1e-6, atol=1e-9):
            return plain, rest
        why = "does more than normalize"
    except Exception as error:
        why = f"cannot be tried: {error}"
    raise ValueError(f"{why}: {type(norm).__name__}")


NUMBERS = "running_mean", "running_var", "weight", "bias"


class Folding(NamedTuple):
    """What became of a normalization layer: the layer it went into, or why it stays."""

    norm: str
    into: str | None
    why: str


class Foldings(list):
    """What became of all of them: a list that prints as a summary."""

    def __repr__(self):
        left = [f for f in self if f.into is None]
        lines = [f"{len(self) - len(left)} of {len(self)} normalization layers folded"]
        for why in dict.fromkeys(f.why for f in left):
            names = [f.norm for f in left if f.why == why]
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            text = f"left {names[0]}{more}: {why}"
            lines.append(textwrap.fill(text, 86, initial_indent="  ",
                                       subsequent_indent="    "))  # fmt: skip
        return "\n".join(lines)


def fold_all(model, seen):
    """Return `Foldings` of all norms of a model, and {module: what takes its place}."""
    calls, report, instead = calls_of(model), Foldings(), {}
    names = names_of(model)
    for norm, name in norms_of(model).items():
        into, why = None, ""
        try:
            layer = layer_of(norm, calls, seen)
            plain, rest = in_two(norm, layer.weight.ndim - 2)
            instead[layer], instead[norm] = fold(layer, plain), rest
            into = names[layer]
        except (TypeError, ValueError) as error:
            why = str(error)
            why = why_lost(name, model, calls) if why == "not called" else why
        report.append(Folding(name, into, why))
    return report, instead


def dimensions(model, batch, forward):
    """Return {module: dimensions of its input} of those that a run calls."""
    seen = {}

    def look(module, x):
        seen[module] = getattr(x, "ndim", 0)

    scripted = torch.jit.ScriptModule  # which takes no hooks
    parts = [m for m in model.modules() if not isinstance(m, scripted)]
    hooks = dict.fromkeys(parts, (look, None))
    draws = torch.random.fork_rng(devices=[])
    with at_rest(model), hooked(hooks), torch.no_grad(), draws:
        forward(model, own_tensors(batch))
    return seen


def copy_of(model):
    """Return a copy of a model without the shells that torch.compile puts around parts.

    Raises ValueError where there can be none.
    """
    try:
        copied = copy.deepcopy(model)
    except RuntimeError as error:
        cure = (
            "first remove old weight norm, by torch.nn.utils.remove_weight_norm(layer),"
        )
        cure += " or pruning, by prune.remove(layer, name)"
        raise ValueError(f"model must be one that copies: {error}; {cure}") from error
    for module in list(copied.modules()):
        for name, part in module._modules.items():
            module._modules[name] = getattr(part, "_orig_mod", part)
    return copied


def fold_model(model, batch=None, *, forward=run_on):
    """Return a copy of a model in evaluation mode, with every batch norm folded away.

    weight' = scale weight,  bias' = scale (bias - mean) + beta, see `fold`

    A batch norm (torch's, ours, a frozen one, or renormalization) goes into the Linear,
    Conv or ConvTranspose whose output it alone reads; in its place is an Identity, or
    the activation it had inside. All others stay.

    Source: Ioffe & Szegedy 2015, Algorithm 2.

    Parameters
    ----------
    model : module
        Called as model(x): other arguments have their defaults.
    batch : object, optional
        See `run_on`; where given, both models are run on it and must agree, which is
        well worth it: a Linear on (N, C, L), a layer reached by other ways than its
        name, and parts that torch.fx cannot follow are known only so.
    forward : function
        `forward(model, batch)`, by default `run_on`.

    Returns
    -------
    folded : module
        Its `fold_report` lists every normalization layer as a `Folding`: the layer it
        went into, or why it stays. A compiled model's copy is not compiled.

    Warns
    -----
    UserWarning
        Where not one batch norm could be folded.

    Raises
    ------
    ValueError
        For a model in training mode, without any norm, or outputs that differ.
    """
    model = bare(model)
    norms_of(model)
    trains = [n or "the model" for n, m in model.named_modules() if m.training]
    if trains:
        what = f"model must be in evaluation mode, {trains[0]} is in training mode"
        raise ValueError(f"{what}; call model.eval() first")
    traced, copied = copy_of(model), copy_of(model)  # tracing may leave its traces
    seen = None if batch is None else dimensions(traced, batch, forward)
    report, instead = fold_all(traced, seen)
    for name, module in list(traced.named_modules(remove_duplicate=False)):
        if module in instead:
            copied.set_submodule(name, instead[module])
    if batch is not None:
        check_same(model, copied, batch, forward)
        check_called(copied, report, batch, forward)
    copied.fold_report = report
    if not any(f.into for f in report):
        warnings.warn(f"fold_model: {report}", stacklevel=2)
    return copied


def check_called(folded, report, batch, forward):
    """Raise ValueError where a model goes on calling what a folded layer replaced."""
    called = dimensions(folded, batch, forward)
    for name in {f.into for f in report if f.into}:
        if folded.get_submodule(name) not in called:
            what = f"the forward pass must call layer {name!r} by its name"
            cure = "it holds the old one elsewhere, in a list, say; use a ModuleList"
            raise ValueError(f"{what}, got other ways; {cure}")


def check_same(model, folded, batch, forward):
    """Raise ValueError unless two models agree on a batch, up to rounding."""
    results = []
    for m in (model, folded):
        with at_rest(m), torch.no_grad(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)  # where a model draws numbers, both draw the same
            results.append(tree_leaves(forward(m, own_tensors(batch))))
    pairs = [
        p for p in zip(*results, strict=True) if hasattr(p[0], "is_floating_point")
    ]
    if not pairs:
        kinds = sorted({type(v).__name__ for v in results[0]})
        what = f"outputs must be tensors, or in tuples or dicts, got {kinds}"
        raise ValueError(f"{what}; pass forward=lambda model, batch: ...")
    for before, after in pairs:
        tolerance = size = 0.0
        if before.numel() and (before.is_floating_point() or before.is_complex()):
            tolerance = min(1e4 * torch.finfo(before.dtype).eps, 0.1)
            size = before.abs().double().nan_to_num(0, 0, 0).max().item()
        close = {"rtol": 0, "atol": tolerance * max(size, 1e-30), "equal_nan": True}
        try:
            torch.testing.assert_close(after, before, **close)
        except AssertionError as error:
            what = f"folded outputs differ by more than {tolerance:.0e} of {size:.1e}"
            raise ValueError(f"{what}; fold pair by pair with bnlib.fold") from error
