"""Types of what is offered here, written by `make export`."""

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import torch

from bnlib import fast as fast
from bnlib import nn as nn
from bnlib._covariate_shift import ActivationRecorder as ActivationRecorder
from bnlib.exercises._check import CheckResult as CheckResult
from bnlib.nn import diagnose as diagnose
from bnlib.nn import fold as fold
from bnlib.nn import fold_model as fold_model
from bnlib.nn import recalibrate as recalibrate

__all__ = [  # in the order of the chapters
    "gradcheck",
    "numerical_gradient",
    "relative_error",
    "ActivationRecorder",
    "drift",
    "covariance",
    "zca_whiten",
    "zca_whiten_backward",
    "newton_schulz",
    "moments",
    "normalize",
    "affine",
    "batch_norm",
    "batch_norm_backward",
    "update_running",
    "batch_norm_inference",
    "fold_linear",
    "fold",
    "local_response_norm",
    "local_response_norm_backward",
    "batch_renorm",
    "batch_renorm_backward",
    "ramp",
    "rmax_schedule",
    "dmax_schedule",
    "normalize_backward",
    "layer_norm",
    "layer_norm_backward",
    "rms_norm",
    "rms_norm_backward",
    "group_norm",
    "group_norm_backward",
    "instance_norm",
    "instance_norm_backward",
    "adaptive_instance_norm",
    "adaptive_instance_norm_backward",
    "dynamic_tanh",
    "dynamic_tanh_backward",
    "weight_norm",
    "weight_norm_backward",
    "weight_standardize",
    "weight_standardize_backward",
    "recalibrate",
    "fold_model",
    "diagnose",
    "merge_moments",
    "fast",
    "check",
    "CheckResult",
    "progress",
]
_Array = TypeVar("_Array", np.ndarray, torch.Tensor)
__version__: str

def gradcheck(
    forward: Callable,
    backward: Callable,
    *inputs: np.ndarray,
    dy: np.ndarray | float | None = ...,
    seed: int = ...,
    rtol: float = ...,
    step: float = ...,
) -> tuple[float, ...]: ...
def numerical_gradient(
    f: Callable, x: np.ndarray, dy: np.ndarray | float = ..., *, step: float = ...
) -> np.ndarray: ...
def relative_error(analytic: np.ndarray, numeric: np.ndarray) -> float: ...
def drift(percentiles: np.ndarray) -> np.ndarray: ...
def covariance(x: _Array) -> _Array: ...
def zca_whiten(x: _Array, *, eps: float = ...) -> tuple[_Array, tuple[Any, ...]]: ...
def zca_whiten_backward(dy: _Array, cache: tuple[Any, ...]) -> _Array: ...
def newton_schulz(sigma: _Array, *, iterations: int = ...) -> _Array: ...
def moments(x: _Array, axes: int | tuple[int, ...] = ...) -> tuple[_Array, _Array]: ...
def normalize(x: _Array, mean: _Array, var: _Array, eps: float = ...) -> _Array: ...
def affine(
    xhat: _Array, gamma: _Array | None = ..., beta: _Array | None = ...
) -> _Array: ...
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
def update_running(
    running_mean: _Array, running_var: _Array, x: _Array, momentum: float = ...
) -> tuple[_Array, _Array]: ...
def batch_norm_inference(
    x: _Array,
    gamma: _Array | None,
    beta: _Array | None,
    mean: _Array,
    var: _Array,
    *,
    eps: float = ...,
) -> _Array: ...
def fold_linear(
    weight: _Array,
    bias: _Array | None,
    gamma: _Array | None,
    beta: _Array | None,
    mean: _Array,
    var: _Array,
    *,
    eps: float = ...,
) -> tuple[_Array, _Array]: ...
def local_response_norm(
    x: _Array, *, size: int, alpha: float = ..., beta: float = ..., k: float = ...
) -> tuple[_Array, tuple[Any, ...]]: ...
def local_response_norm_backward(dy: _Array, cache: tuple[Any, ...]) -> _Array: ...
def batch_renorm(
    x: _Array,
    gamma: _Array | None,
    beta: _Array | None,
    running_mean: _Array,
    running_std: _Array,
    *,
    rmax: float,
    dmax: float,
    eps: float = ...,
) -> tuple[_Array, tuple[Any, ...]]: ...
def batch_renorm_backward(
    dy: _Array, cache: tuple[Any, ...]
) -> tuple[_Array, _Array, _Array]: ...
def ramp(
    step: float, *, start: float, end: float, low: float, high: float
) -> float: ...
def rmax_schedule(step) -> Any: ...
def dmax_schedule(step) -> Any: ...
def normalize_backward(
    dxhat: _Array, xhat: _Array, std: _Array, axes: int | tuple[int, ...]
) -> _Array: ...
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
def adaptive_instance_norm(
    x: _Array, style: _Array, *, eps: float = ...
) -> tuple[_Array, tuple[Any, ...]]: ...
def adaptive_instance_norm_backward(
    dy: _Array, cache: tuple[Any, ...]
) -> tuple[_Array, _Array]: ...
def dynamic_tanh(
    x: _Array,
    alpha: float | _Array,
    gamma: _Array | None = ...,
    beta: _Array | None = ...,
) -> _Array: ...
def dynamic_tanh_backward(
    dy: _Array, x: _Array, alpha: float | _Array, gamma: _Array | None = ...
) -> tuple[_Array, _Array, _Array, _Array]: ...
def weight_norm(
    v: _Array, g: _Array | None = ...
) -> tuple[_Array, tuple[Any, ...]]: ...
def weight_norm_backward(
    dy: _Array, cache: tuple[Any, ...]
) -> tuple[_Array, _Array]: ...
def weight_standardize(
    weight: _Array, gain: _Array | None = ..., *, eps: float = ...
) -> tuple[_Array, tuple[Any, ...]]: ...
def weight_standardize_backward(
    dy: _Array, cache: tuple[Any, ...]
) -> tuple[_Array, _Array]: ...
def merge_moments(
    counts: _Array, means: _Array, variances: _Array
) -> tuple[_Array, _Array]: ...
def check(exercise: str, function: Callable) -> CheckResult: ...
def progress() -> Any: ...
