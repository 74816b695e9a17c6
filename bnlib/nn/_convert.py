"""From chapters/21_fast.ipynb.

Extracted by `make export`: edit the notebook, not this file.
"""

import warnings

import torch
from torch.nn.modules.lazy import LazyModuleMixin

import bnlib.nn._exact as fast_layers
from bnlib.nn._axis_norms import (
    GroupNorm,
    InstanceNorm1d,
    InstanceNorm2d,
    InstanceNorm3d,
    LayerNorm,
    RMSNorm,
)
from bnlib.nn._decorrelated import DecorrelatedBatchNorm
from bnlib.nn._local_response import LocalResponseNorm
from bnlib.nn._renorm import BatchRenorm
from bnlib.nn._sync import SyncBatchNorm

__all__ = ["convert"]


OURS = (
    fast_layers.BatchNorm1d, fast_layers.BatchNorm2d, fast_layers.BatchNorm3d,
    LayerNorm, RMSNorm, GroupNorm, InstanceNorm1d, InstanceNorm2d, InstanceNorm3d,
    SyncBatchNorm, LocalResponseNorm,
)  # fmt: skip
TWINS = {getattr(torch.nn, ours.__name__): ours for ours in OURS}
KNOWN = (
    *TWINS, BatchRenorm, DecorrelatedBatchNorm, torch.nn.modules.batchnorm._NormBase,
)  # fmt: skip


def twin_of(layer, twins):
    """Return the class that layer is to have, and None, or None and why it stays.

    twins : {class: its twin}. A subclass that only sets itself up in another way is
    what its base is; one with methods of its own is not.
    """
    if isinstance(layer, LazyModuleMixin):
        return None, "is lazy: call the model on a batch first"
    base = next((c for c in type(layer).__mro__ if c in twins), None)
    if base is None:
        return None, "has no twin there"
    own = {}
    for kind in type(layer).__mro__[: type(layer).__mro__.index(base)]:
        own |= {name: kind for name, v in vars(kind).items() if is_behaviour(name, v)}
    if not own:
        return twins[base], None
    return None, f"has its own {', '.join(sorted(own))}"


def is_behaviour(name, value):
    """Return whether an attribute of a class changes what its layers do."""
    kinds = property, classmethod, staticmethod
    return name != "__init__" and (callable(value) or isinstance(value, kinds))


def is_to_convert(layer, goal):
    """Return whether a layer is a norm of the other library, or made from one."""
    homes = [kind.__module__ for kind in type(layer).__mro__]
    is_ours = any(home.startswith("bnlib.nn") for home in homes)
    return isinstance(layer, KNOWN) and is_ours == (goal == "torch.nn")


def convert(model, to=None):
    """Make every torch.nn norm of a model one of bnlib.nn; or back, with to=torch.nn.

    A layer gets the class of its twin, and keeps all else: it is the same object, with
    its parameters, statistics, mode, hooks and places in the model. Subclasses that
    bring methods of their own stay what they are, and so do layers without a twin and
    lazy ones; a UserWarning names them and says why.

    Parameters
    ----------
    model : module
        Changed in place; it may be a norm itself.
    to : object
        torch.nn, or bnlib.nn, which None stands for.

    Returns
    -------
    model : module

    Raises
    ------
    TypeError
        For a model that is no module.
    ValueError
        For another `to`.
    """
    if not isinstance(model, torch.nn.Module):
        what = f"model must be a torch.nn.Module, got {type(model).__name__}"
        raise TypeError(f"{what}; pass the model itself")
    goal = getattr(to, "__name__", repr(to)) if to is not None else "bnlib.nn"
    if goal not in ("bnlib.nn", "torch.nn"):
        raise ValueError(
            f"to must be torch.nn or bnlib.nn, got {goal}; import that one"
        )
    twins = TWINS if goal == "bnlib.nn" else {o: t for t, o in TWINS.items()}
    left = []
    for name, layer in model.named_modules():
        if not is_to_convert(layer, goal):
            continue
        kind, reason = twin_of(layer, twins)
        if kind is None:
            left.append(f"{name or 'the model'} ({type(layer).__name__}) {reason}")
        else:
            layer.__class__ = kind
    if left:
        warnings.warn(f"not converted to {goal}: {'; '.join(left)}", stacklevel=2)
    return model
