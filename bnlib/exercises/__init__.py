"""What `bnlib.check` judges: `EXERCISES`, in the order of the chapters."""

import runpy
from importlib import import_module

from bnlib.exercises._adapt import from_cache, from_layer
from bnlib.exercises._exercise import Exercise

__all__ = ["EXERCISES", "from_cache", "from_layer", "take_in"]

_NAMES = (
    "zca_whiten",
    "moments",
    "batch_norm_forward",
    "batch_norm_backward",
    "update_running",
    "batch_norm_inference",
    "BatchNorm",
    "fold_linear",
    "conv_batch_norm",
    "conv_batch_norm_backward",
    "batch_renorm",
    "batch_renorm_backward",
    "layer_norm",
    "layer_norm_backward",
    "instance_norm",
    "group_norm",
    "group_norm_backward",
    "rms_norm",
    "rms_norm_backward",
    "adaptive_instance_norm",
    "pre_norm_block",
    "dynamic_tanh_backward",
    "weight_standardize",
    "merge_moments",
    "recalibrate",
)
EXERCISES = {
    name: import_module(f"bnlib.exercises.catalogue.{name}").EXERCISE for name in _NAMES
}


def take_in(path):
    """Add the exercises of a script to those that `check` knows; return their names."""
    found = runpy.run_path(path).values()
    own = {value.name: value for value in found if isinstance(value, Exercise)}
    EXERCISES.update(own)
    return tuple(own)
