"""PyTorch layers that take the place of torch.nn's: swap one import.

Names, arguments, defaults, state and errors are those of `torch.nn`; the forward and
backward passes are those derived in the book.
"""

try:
    import torch  # noqa: F401
except ImportError as error:
    what = 'bnlib.nn needs PyTorch: pip install "bnlib[torch]"'
    raise ImportError(what, name="torch") from error

from bnlib.nn import functional
from bnlib.nn._axis_norms import (
    GroupNorm,
    InstanceNorm1d,
    InstanceNorm2d,
    InstanceNorm3d,
    LayerNorm,
    RMSNorm,
)
from bnlib.nn._convert import convert
from bnlib.nn._decorrelated import DecorrelatedBatchNorm
from bnlib.nn._diagnose import diagnose
from bnlib.nn._dynamic_tanh import DynamicTanh
from bnlib.nn._exact import BatchNorm1d, BatchNorm2d, BatchNorm3d
from bnlib.nn._fold import fold
from bnlib.nn._fold_model import fold_model
from bnlib.nn._in_place import InPlaceABN
from bnlib.nn._local_response import LocalResponseNorm
from bnlib.nn._recalibrate import recalibrate
from bnlib.nn._renorm import BatchRenorm1d, BatchRenorm2d, BatchRenorm3d
from bnlib.nn._sync import SyncBatchNorm
from bnlib.nn._weight_standardize import WSConv2d

__all__ = [
    "DecorrelatedBatchNorm",
    "BatchNorm1d",
    "BatchNorm2d",
    "BatchNorm3d",
    "LocalResponseNorm",
    "BatchRenorm1d",
    "BatchRenorm2d",
    "BatchRenorm3d",
    "LayerNorm",
    "RMSNorm",
    "GroupNorm",
    "InstanceNorm1d",
    "InstanceNorm2d",
    "InstanceNorm3d",
    "DynamicTanh",
    "WSConv2d",
    "SyncBatchNorm",
    "InPlaceABN",
    "convert",
    "fold",
    "recalibrate",
    "fold_model",
    "diagnose",
    "functional",
]

# Their home is here, wherever their lines are: so no pickle minds when those move.
for _name in __all__:
    if _name != "functional":
        globals()[_name].__module__ = __name__
