"""Functions with the signatures of torch.nn.functional, derived in the book."""

from bnlib.nn._axis_norms import group_norm, instance_norm, layer_norm, rms_norm
from bnlib.nn._exact import batch_norm
from bnlib.nn._local_response import local_response_norm
from bnlib.nn._renorm import batch_renorm

__all__ = [
    "batch_norm",
    "local_response_norm",
    "batch_renorm",
    "layer_norm",
    "rms_norm",
    "group_norm",
    "instance_norm",
]
