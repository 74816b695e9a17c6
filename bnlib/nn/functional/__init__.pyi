"""Types of what is offered here, written by `make export`."""

from collections.abc import Sequence

import torch

__all__ = [
    "batch_norm",
    "local_response_norm",
    "batch_renorm",
    "layer_norm",
    "rms_norm",
    "group_norm",
    "instance_norm",
]

def batch_norm(
    input: torch.Tensor,
    running_mean: torch.Tensor | None,
    running_var: torch.Tensor | None,
    weight: torch.Tensor | None = ...,
    bias: torch.Tensor | None = ...,
    training: bool = ...,
    momentum: float = ...,
    eps: float = ...,
) -> torch.Tensor: ...
def local_response_norm(
    input: torch.Tensor,
    size: int,
    alpha: float = ...,
    beta: float = ...,
    k: float = ...,
) -> torch.Tensor: ...
def batch_renorm(
    input: torch.Tensor,
    running_mean: torch.Tensor,
    running_std: torch.Tensor,
    weight: torch.Tensor | None = ...,
    bias: torch.Tensor | None = ...,
    training: bool = ...,
    momentum: float = ...,
    eps: float = ...,
    rmax: float = ...,
    dmax: float = ...,
) -> torch.Tensor: ...
def layer_norm(
    input: torch.Tensor,
    normalized_shape: Sequence[int],
    weight: torch.Tensor | None = ...,
    bias: torch.Tensor | None = ...,
    eps: float = ...,
) -> torch.Tensor: ...
def rms_norm(
    input: torch.Tensor,
    normalized_shape: Sequence[int],
    weight: torch.Tensor | None = ...,
    eps: float | None = ...,
) -> torch.Tensor: ...
def group_norm(
    input: torch.Tensor,
    num_groups: int,
    weight: torch.Tensor | None = ...,
    bias: torch.Tensor | None = ...,
    eps: float = ...,
) -> torch.Tensor: ...
def instance_norm(
    input: torch.Tensor,
    running_mean: torch.Tensor | None = ...,
    running_var: torch.Tensor | None = ...,
    weight: torch.Tensor | None = ...,
    bias: torch.Tensor | None = ...,
    use_input_stats: bool = ...,
    momentum: float = ...,
    eps: float = ...,
) -> torch.Tensor: ...
