"""From chapters/03_batch_normalization.ipynb,
chapters/04_backward.ipynb,
chapters/05_inference.ipynb.

Extracted by `make export`: edit the notebook, not this file.
"""

import math

from bnlib._declare import Number, cache_of, takes

__all__ = [
    "moments",
    "normalize",
    "affine",
    "batch_norm",
    "normalize_backward",
    "batch_norm_backward",
    "batch_norm_inference",
    "update_running",
    "fold_linear",
]


@takes(x="N ...")
def moments(x, axes=0):
    """Return mean and (biased) variance of x over `axes`, kept as axes of length 1.

    mean = (1/m) sum(x),   var = (1/m) sum((x - mean)^2)

    (N, C) -> (1, C) for axes=0; (N, C, H, W) -> (1, C, 1, 1) for (0, 2, 3).
    Source: Ioffe & Szegedy 2015, Algorithm 1, lines 1 and 2.
    """
    mean = x.mean(axis=axes, keepdims=True)
    var = ((x - mean) ** 2).mean(axis=axes, keepdims=True)
    return mean, var


@takes(x="...", mean="...", var="... >= 0", eps=Number(0, usual=1e-5))
def normalize(x, mean, var, eps=1e-5):
    """Return xhat = (x - mean) / sqrt(var + eps), for moments that broadcast against x.

    Source: Ioffe & Szegedy 2015, Algorithm 1, line 3.
    """
    return (x - mean) / (var + eps) ** 0.5


def affine(xhat, gamma=None, beta=None):
    """Return y = gamma * xhat + beta; None stands for gamma = 1 or beta = 0.

    Source: Ioffe & Szegedy 2015, Algorithm 1, line 4.

    Parameters
    ----------
    xhat : array or tensor
    gamma, beta : array or tensor or None
        They broadcast against xhat.

    Returns
    -------
    y : array or tensor
    """
    y = xhat if gamma is None else gamma * xhat
    return y if beta is None else y + beta


@takes("xhat std gamma", x="N C ...", gamma="C?", beta="C?", eps=Number(0, usual=1e-5))
def batch_norm(x, gamma=None, beta=None, *, eps=1e-5):
    """Normalize every channel of x over the batch, then scale and shift it.

    y = gamma * (x - mean) / sqrt(var + eps) + beta, moments over all axes but 1

    Returns y and a cache. One value per channel gives y = beta. In torch.nn gamma is
    called `weight` and beta `bias`. Source: Ioffe & Szegedy 2015, Algorithm 1.
    """
    axes = (0, *range(2, x.ndim))  # all but 1
    mean, var = moments(x, axes)
    std = (var + eps) ** 0.5
    xhat = (x - mean) / std
    return affine(xhat, gamma, beta), (xhat, std, gamma)


# chapters/04_backward.ipynb


@takes(xhat="...", dxhat="xhat", std="... > 0")
def normalize_backward(dxhat, xhat, std, axes):
    """Return the gradient with respect to x of xhat = (x - mean) / std.

    dx = (dxhat - <dxhat> - xhat <dxhat xhat>) / std,   <.> the mean over `axes`

    std = sqrt(var + eps), of length 1 along `axes`. Source: chapter 4.
    """
    mean = dxhat.mean(axis=axes, keepdims=True)
    pull = (dxhat * xhat).mean(axis=axes, keepdims=True)
    return (dxhat - mean - xhat * pull) / std


def affine_backward(dy, xhat, axes):
    """Return dgamma = sum(dy xhat) and dbeta = sum(dy) of y = gamma xhat + beta."""
    if not axes:  # nothing is shared; torch would sum it all
        return dy * xhat, dy
    return (dy * xhat).sum(axis=axes), dy.sum(axis=axes)


def batch_axes(x):
    """Return the axes batch normalization averages over: all but axis 1."""
    return (0, *range(2, x.ndim))


@takes(cache=cache_of(batch_norm), dy="y")
def batch_norm_backward(dy, cache):
    """Return the gradients (dx, dgamma, dbeta) of batch normalization.

    dx = (g - <g> - xhat <g xhat>) / std, with g = gamma dy and <.> the batch mean
    dgamma = sum(dy xhat),   dbeta = sum(dy)

    Source: Ioffe & Szegedy 2015, section 3, collapsed as in chapter 4.
    """
    xhat, std, gamma = cache
    axes = batch_axes(xhat)
    dx = normalize_backward(affine(dy, gamma), xhat, std, axes)
    return dx, *affine_backward(dy, xhat, axes)


# chapters/05_inference.ipynb


@takes(
    x="N C ...",
    gamma="C?",
    beta="C?",
    mean="C",
    var="C >= 0",
    eps=Number(0, usual=1e-5),
)
def batch_norm_inference(x, gamma, beta, mean, var, *, eps=1e-5):
    """Normalize every channel with given statistics, then scale and shift.

    y = gamma * (x - mean) / sqrt(var + eps) + beta

    Examples do not influence each other.
    Source: Ioffe & Szegedy 2015, section 3.1 and Algorithm 2, line 11.
    """
    return affine(normalize(x, mean, var, eps), gamma, beta)


def count(x):
    """Return how many values a channel has; ValueError for one: its variance is 0/0."""
    m = math.prod([x.shape[axis] for axis in batch_axes(x)])
    if m == 1:
        cure = "use at least two, or skip the update"
        raise ValueError(f"x {tuple(x.shape)} has one value per channel; {cure}")
    return m


@takes(
    x="N C ...",
    running_mean="C",
    running_var="C >= 0",
    momentum=Number(0, 1, usual=0.1),
)
def update_running(running_mean, running_var, x, momentum=0.1):
    """Return running statistics moved towards those of the batch x.

    r <- (1 - momentum) r + momentum s,   s the batch's mean, or unbiased variance

    momentum is the weight of the NEW batch (PyTorch's convention; Keras and Flax mean
    the weight of the old value). Nothing is changed in place.
    Source: Ioffe & Szegedy 2015, section 3.1; torch.nn.BatchNorm1d.
    """
    mean, var = moments(x, batch_axes(x))
    m = count(x)
    new_mean = (1 - momentum) * running_mean + momentum * mean
    new_var = (1 - momentum) * running_var + momentum * var * (m / (m - 1))
    return new_mean.reshape(-1), new_var.reshape(-1)


@takes(
    weight="O I ...",
    bias="O?",
    gamma="O?",
    beta="O?",
    mean="O",
    var="O >= 0",
    eps=Number(0, usual=1e-5),
)
def fold_linear(weight, bias, gamma, beta, mean, var, *, eps=1e-5):
    """Return weight and bias of the linear layer that includes the normalization.

    a = gamma / sqrt(var + eps),   weight' = a weight,   bias' = a (bias - mean) + beta

    weight is (outputs, inputs), or (outputs, ...) for the kernels of a convolution.
    Source: Ioffe & Szegedy 2015, section 3.1, composed with the layer before.
    """
    a = affine((var + eps) ** -0.5, gamma)
    new_bias = -a * mean if bias is None else a * (bias - mean)
    return a * weight, affine(new_bias, None, beta).reshape(-1)
