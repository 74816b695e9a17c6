"""Types of what is offered here, written by `make export`."""

from typing import Any, TypeVar

import numpy as np
import torch

__all__ = [
    "batch_norm",
    "batch_norm_backward",
    "layer_norm",
    "layer_norm_backward",
    "rms_norm",
    "rms_norm_backward",
    "group_norm",
    "group_norm_backward",
    "instance_norm",
    "instance_norm_backward",
]
_Array = TypeVar("_Array", np.ndarray, torch.Tensor)

def batch_norm(
    x: _Array,
    gamma: _Array | None = ...,
    beta: _Array | None = ...,
    *,
    eps: float = ...,
) -> tuple[_Array, tuple[Any, ...]]: ...
def batch_norm_backward(
    dy: _Array, cache: tuple[Any, ...]
) -> tuple[_Array, _Array, _Array]: ...
def layer_norm(
    x: _Array,
    gamma: _Array | None = ...,
    beta: _Array | None = ...,
    *,
    axes: int | tuple[int, ...] = ...,
    eps: float = ...,
) -> tuple[_Array, tuple[Any, ...]]: ...
def layer_norm_backward(
    dy: _Array, cache: tuple[Any, ...]
) -> tuple[_Array, _Array, _Array]: ...
def rms_norm(
    x: _Array,
    gamma: _Array | None = ...,
    *,
    axes: int | tuple[int, ...] = ...,
    eps: float = ...,
) -> tuple[_Array, tuple[Any, ...]]: ...
def rms_norm_backward(dy: _Array, cache: tuple[Any, ...]) -> tuple[_Array, _Array]: ...
def group_norm(
    x: _Array,
    gamma: _Array | None = ...,
    beta: _Array | None = ...,
    *,
    num_groups: int,
    eps: float = ...,
) -> tuple[_Array, tuple[Any, ...]]: ...
def group_norm_backward(
    dy: _Array, cache: tuple[Any, ...]
) -> tuple[_Array, _Array, _Array]: ...
def instance_norm(
    x: _Array,
    gamma: _Array | None = ...,
    beta: _Array | None = ...,
    *,
    eps: float = ...,
) -> tuple[_Array, tuple[Any, ...]]: ...
def instance_norm_backward(
    dy: _Array, cache: tuple[Any, ...]
) -> tuple[_Array, _Array, _Array]: ...
