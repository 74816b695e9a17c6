"""Types of what is offered here, written by `make export`."""

from typing import Any

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
    input,
    running_mean,
    running_var,
    weight=...,
    bias=...,
    training=...,
    momentum=...,
    eps=...,
) -> Any: ...
def local_response_norm(input, size, alpha=..., beta=..., k=...) -> Any: ...
def batch_renorm(
    input,
    running_mean,
    running_std,
    weight=...,
    bias=...,
    training=...,
    momentum=...,
    eps=...,
    rmax=...,
    dmax=...,
) -> Any: ...
def layer_norm(input, normalized_shape, weight=..., bias=..., eps=...) -> Any: ...
def rms_norm(input, normalized_shape, weight=..., eps=...) -> Any: ...
def group_norm(input, num_groups, weight=..., bias=..., eps=...) -> Any: ...
def instance_norm(
    input,
    running_mean=...,
    running_var=...,
    weight=...,
    bias=...,
    use_input_stats=...,
    momentum=...,
    eps=...,
) -> Any: ...
