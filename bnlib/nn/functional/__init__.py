"""Functions with the signatures of torch.nn.functional, derived in the book."""

from bnlib.nn.fast import batch_norm
from bnlib.nn.inception import local_response_norm
from bnlib.nn.other_axes import group_norm, instance_norm, layer_norm, rms_norm
from bnlib.nn.renormalization import batch_renorm

__all__ = [
    "batch_norm",
    "local_response_norm",
    "batch_renorm",
    "layer_norm",
    "rms_norm",
    "group_norm",
    "instance_norm",
]
