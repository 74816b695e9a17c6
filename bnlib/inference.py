"""Chapter 5, Training and inference: chapters/05_inference.ipynb.

Extracted by `make export`: edit the notebook, not this file.
The derivation is the page chapters/05_inference.html of the book.
"""

import math

from bnlib.batch_normalization import (
    affine,
    batch_axes,
    check_variance,
    moments,
    normalize,
    per_channel,
)
from bnlib.gradient_checking import (
    check_floats,
    check_like,
    check_number,
    check_shape,
    fails,
)

__all__ = ["batch_norm_inference", "update_running", "fold_linear"]


def batch_norm_inference(x, gamma, beta, mean, var, *, eps=1e-5):
    r"""Normalize every channel with given statistics, then scale and shift.

    y = gamma * (x - mean) / sqrt(var + eps) + beta

    x : numpy array or torch tensor (N, C, ...), floating-point. gamma, beta, mean and
    var : (C,), of the dtype of x; gamma and beta may be None. eps : number >= 0.
    Returns y, shape and dtype of x. Examples do not influence each other.
    Raises TypeError and ValueError naming the argument, also for a negative variance.
    Source: Ioffe & Szegedy 2015, section 3.1 and Algorithm 2, line 11.
    """
    check_floats("x", x, min_ndim=2, layout="(N, C) or (N, C, ...)")
    gamma, beta = per_channel("gamma", gamma, x), per_channel("beta", beta, x)
    mean, var = per_channel("mean", mean, x), per_channel("var", var, x)
    if mean is None or var is None:
        raise ValueError(
            "mean and var are needed at inference; got None for one of them"
        )
    if fails(var >= 0):
        raise ValueError(
            "var must be >= 0, got a negative value; did you pass the mean?"
        )
    check_variance(var, eps)
    return affine(normalize(x, mean, var, eps), gamma, beta)


def update_running(running_mean, running_var, x, momentum=0.1):
    r"""Return running statistics moved towards those of the batch x.

    r <- (1 - momentum) r + momentum s,   s the batch's mean, or unbiased variance

    running_mean, running_var : (C,), of the dtype of x. x : numpy array or torch tensor
    (N, C, ...). momentum : 0 ... 1, the weight of the NEW batch (PyTorch's convention;
    Keras and Flax mean the weight of the old value). Nothing is changed in place.
    Raises ValueError for one value per channel, whose unbiased variance is 0/0, for a
    momentum outside 0 ... 1, and what `check_floats` and `per_channel` raise.
    Source: Ioffe & Szegedy 2015, section 3.1; torch.nn.BatchNorm1d.
    """
    check_floats("x", x, min_ndim=2, layout="(N, C) or (N, C, ...)")
    for name, running in (("running_mean", running_mean), ("running_var", running_var)):
        check_floats(name, running)
        per_channel(name, running, x)  # for its checks of shape and dtype
    if fails(running_var >= 0):
        cure = "pass running_mean first"
        raise ValueError(f"running_var must be >= 0, got a negative value; {cure}")
    check_number("momentum", momentum, 0, 1, 0.1)
    m = math.prod([x.shape[axis] for axis in batch_axes(x)])
    if m == 1:
        cure = "use at least two, or skip the update"
        raise ValueError(f"x {tuple(x.shape)} has one value per channel; {cure}")
    mean, var = (s.reshape(-1) for s in moments(x, batch_axes(x)))
    new_mean = (1 - momentum) * running_mean + momentum * mean
    new_var = (1 - momentum) * running_var + momentum * var * (m / (m - 1))
    return new_mean, new_var


def fold_linear(weight, bias, gamma, beta, mean, var, *, eps=1e-5):
    r"""Return weight and bias of the linear layer that includes the normalization.

    a = gamma / sqrt(var + eps),   weight' = a weight,   bias' = a (bias - mean) + beta

    weight : numpy array or torch tensor (outputs, inputs), or (outputs, ...) for the
    kernels of a convolution. The others : (outputs,), of the dtype of weight; bias,
    gamma and beta may be None for 0, 1 and 0. eps : number >= 0.
    Returns (weight', bias'). Raises TypeError and ValueError naming the argument.
    Source: Ioffe & Szegedy 2015, section 3.1, composed with the layer before.
    """
    check_floats("weight", weight, min_ndim=2, layout="(outputs, inputs)")
    vectors = {"bias": bias, "gamma": gamma, "beta": beta, "mean": mean, "var": var}
    for name, vector in vectors.items():
        if vector is not None or name in ("mean", "var"):
            check_floats(name, vector)
            expected = (weight.shape[0],)
            check_shape(name, vector, expected, f"weight has {expected[0]} outputs")
            check_like(name, vector, weight, "weight")
    if fails(var >= 0):
        raise ValueError(
            "var must be >= 0, got a negative value; did you pass the mean?"
        )
    check_variance(var, eps)
    a = (var + eps) ** -0.5 if gamma is None else gamma * (var + eps) ** -0.5
    new_weight = weight * a.reshape(-1, *[1] * (weight.ndim - 1))
    new_bias = -a * mean if bias is None else a * (bias - mean)
    return new_weight, new_bias if beta is None else new_bias + beta
