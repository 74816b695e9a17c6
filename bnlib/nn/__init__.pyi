"""Types of what is offered here, written by `make export`."""

from collections.abc import Callable, Iterable
from typing import Any

import torch

from bnlib.nn import functional as functional
from bnlib.nn._axis_norms import GroupNorm as GroupNorm
from bnlib.nn._axis_norms import InstanceNorm1d as InstanceNorm1d
from bnlib.nn._axis_norms import InstanceNorm2d as InstanceNorm2d
from bnlib.nn._axis_norms import InstanceNorm3d as InstanceNorm3d
from bnlib.nn._axis_norms import LayerNorm as LayerNorm
from bnlib.nn._axis_norms import RMSNorm as RMSNorm
from bnlib.nn._decorrelated import DecorrelatedBatchNorm as DecorrelatedBatchNorm
from bnlib.nn._diagnose import Report
from bnlib.nn._dynamic_tanh import DynamicTanh as DynamicTanh
from bnlib.nn._exact import BatchNorm1d as BatchNorm1d
from bnlib.nn._exact import BatchNorm2d as BatchNorm2d
from bnlib.nn._exact import BatchNorm3d as BatchNorm3d
from bnlib.nn._in_place import InPlaceABN as InPlaceABN
from bnlib.nn._local_response import LocalResponseNorm as LocalResponseNorm
from bnlib.nn._renorm import BatchRenorm1d as BatchRenorm1d
from bnlib.nn._renorm import BatchRenorm2d as BatchRenorm2d
from bnlib.nn._renorm import BatchRenorm3d as BatchRenorm3d
from bnlib.nn._sync import SyncBatchNorm as SyncBatchNorm
from bnlib.nn._weight_standardize import WSConv2d as WSConv2d

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

def convert(model: torch.nn.Module, to: Any = ...) -> torch.nn.Module: ...
def fold(layer: torch.nn.Module, batch_norm: torch.nn.Module) -> torch.nn.Module: ...
def recalibrate(
    model: torch.nn.Module,
    loader: Iterable,
    *,
    layers: Iterable[str] | None = ...,
    forward: Callable = ...,
    progress: bool = ...,
    process_group: Any | None = ...,
) -> list[str]: ...
def fold_model(
    model: torch.nn.Module, batch: Any | None = ..., *, forward: Callable = ...
) -> torch.nn.Module: ...
def diagnose(
    model: torch.nn.Module,
    batch: Any,
    *,
    optimizer: torch.optim.Optimizer | None = ...,
    forward: Callable = ...,
    ignore: Iterable[str] = ...,
    severity: str = ...,
) -> Report: ...
