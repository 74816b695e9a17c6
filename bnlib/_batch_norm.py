"""From chapters/03_batch_normalization.ipynb,
chapters/04_backward.ipynb,
chapters/05_inference.ipynb.

Extracted by `make export`: edit the notebook, not this file.
"""

import math

from bnlib._declare import (
    check_floats,
    check_like,
    check_number,
    check_shape,
    fails,
    narrow,
    widen,
)

__all__ = [
    "moments",
    "normalize",
    "affine",
    "batch_norm",
    "batch_norm_backward",
    "batch_norm_inference",
    "update_running",
    "fold_linear",
]


def moments(x, axes=0):
    r"""Return mean and (biased) variance of x over `axes`, kept as axes of length 1.

    mean = (1/m) sum(x),   var = (1/m) sum((x - mean)^2)

    x : floating-point array or tensor. axes : int or tuple of ints.
    Shapes: (N, C) -> (1, C) for axes=0; (N, C, H, W) -> (1, C, 1, 1) for (0, 2, 3).
    dtype and device of the results are those of x; sums are taken in float64, see
    `widen`. Raises what `check_floats` raises.
    Source: Ioffe & Szegedy 2015, Algorithm 1, lines 1 and 2.
    """
    check_floats("x", x, min_ndim=1, layout="with an axis to average over")
    wide = widen(x)
    mean = wide.mean(axis=axes, keepdims=True)
    var = ((wide - mean) ** 2).mean(axis=axes, keepdims=True)
    return narrow(mean, x), narrow(var, x)


def check_variance(var, eps):
    """Raise ValueError unless var + eps is positive and finite everywhere."""
    check_number("eps", eps, 0, float("inf"), 1e-5)
    if fails(abs(var) < float("inf")):
        cure = "convert x to a wider dtype, or scale it down"
        raise ValueError(f"the variance of x overflows {var.dtype}; {cure}")
    if fails(var + eps > 0):
        cure = "pass a positive eps; 1e-5 is usual"
        raise ValueError(f"a feature does not vary and eps is {eps}, so 0/0; {cure}")


def normalize(x, mean, var, eps=1e-5):
    r"""Return xhat = (x - mean) / sqrt(var + eps).

    x : numpy array or torch tensor. mean, var : the same, broadcasting against x.
    eps : number >= 0 added to the variance, in the units of x squared.
    Shape and dtype of x are kept. Raises TypeError or ValueError for input that is not
    finite floating-point, of mixed dtypes, or with var + eps not positive.
    Source: Ioffe & Szegedy 2015, Algorithm 1, line 3.
    """
    check_floats("x", x)
    for name, moment in (("mean", mean), ("var", var)):
        check_floats(name, moment)
        check_like(name, moment, x, "x")
    check_variance(var, eps)
    return (x - mean) / (var + eps) ** 0.5


def affine(xhat, gamma=None, beta=None):
    """Return y = gamma * xhat + beta; None stands for gamma = 1 or beta = 0.

    xhat : array or tensor. gamma, beta : anything that broadcasts against it.
    Source: Ioffe & Szegedy 2015, Algorithm 1, line 4.
    """
    y = xhat if gamma is None else gamma * xhat
    return y if beta is None else y + beta


def batch_axes(x):
    """Return the axes batch normalization averages over: all but axis 1."""
    return (0, *range(2, x.ndim))


def per_channel(name, p, x):
    """Return the parameter p, shape (C,), shaped to broadcast along axis 1 of x.

    (C,) -> (1, C, 1, ...). None stays None. Raises ValueError for another length and
    TypeError for another dtype than that of x.
    """
    if p is None:
        return None
    check_floats(name, p)
    check_shape(name, p, (x.shape[1],), f"x has {x.shape[1]} channels in axis 1")
    check_like(name, p, x, "x")
    return p.reshape(1, -1, *[1] * (x.ndim - 2))


def batch_norm(x, gamma=None, beta=None, *, eps=1e-5):
    r"""Normalize every channel of x over the batch, then scale and shift it.

    y = gamma * (x - mean) / sqrt(var + eps) + beta, moments over all axes but 1

    x : numpy array or torch tensor (N, C, ...), floating-point. gamma, beta : (C,), of
    the dtype of x; None stands for 1 and 0. eps : number >= 0, inside the root.

    Returns (y, cache): y of the shape and dtype of x; cache = (xhat, std, gamma), with
    std = sqrt(var + eps), for `batch_norm_backward`. Sums are taken in float64, see
    `widen`. One value per channel gives y = beta.
    Raises TypeError and ValueError naming the argument, see `check_floats`,
    `per_channel`, `check_variance`.
    In torch.nn, gamma is called `weight` and beta `bias`.
    Source: Ioffe & Szegedy 2015, Algorithm 1.
    """
    check_floats("x", x, min_ndim=2, layout="(N, C) or (N, C, ...)")
    gamma, beta = per_channel("gamma", gamma, x), per_channel("beta", beta, x)
    wide = widen(x)
    mean, var = moments(wide, batch_axes(x))
    check_variance(var, eps)  # an overflow is named as what it is
    xhat = normalize(wide, mean, var, eps)
    y = affine(xhat, gamma, beta)
    return narrow(y, x), (narrow(xhat, x), (var + eps) ** 0.5, gamma)


# chapters/04_backward.ipynb


def batch_norm_backward(dy, cache):
    r"""Return the gradients (dx, dgamma, dbeta) of batch normalization.

    dx = (g - <g> - xhat <g xhat>) / std, with g = gamma dy and <.> the batch mean
    dgamma = sum(dy xhat),   dbeta = sum(dy)

    dy : gradient of the loss with respect to y, shape and dtype of y. cache : what
    `batch_norm` returned. Shapes: dx (N, C, ...) as x; dgamma, dbeta (C,), also where
    gamma or beta were left out. numpy arrays or torch tensors.
    Raises TypeError or ValueError for a dy that is not a finite floating-point array of
    the shape of y. Source: Ioffe & Szegedy 2015, section 3, collapsed as in chapter 4.
    """
    if len(cache) != 3:
        cure = "y, cache = batch_norm(x); batch_norm_backward(dy, cache)"
        raise ValueError(f"cache must be what batch_norm returned second: {cure}")
    xhat, std, gamma = cache
    check_floats("dy", dy)
    check_shape("dy", dy, xhat.shape, "that is the shape of y")
    check_like("dy", dy, xhat, "y")
    axes, xhat, wide = batch_axes(xhat), widen(xhat), widen(dy)
    dbeta = wide.sum(axis=axes)
    dgamma = (wide * xhat).sum(axis=axes)
    g = wide if gamma is None else gamma * wide
    g_mean = g.mean(axis=axes, keepdims=True)
    g_xhat = (g * xhat).mean(axis=axes, keepdims=True)
    dx = (g - g_mean - xhat * g_xhat) / std
    return narrow(dx, dy), narrow(dgamma, dy), narrow(dbeta, dy)


# chapters/05_inference.ipynb


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
