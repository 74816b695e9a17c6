"""From chapters/16_without_normalization.ipynb.

Extracted by `make export`: edit the notebook, not this file.
"""

from bnlib._batch_norm import affine, affine_backward, moments, normalize_backward
from bnlib._declare import Number, cache_of, takes

__all__ = ["weight_standardize", "weight_standardize_backward"]


@takes("x mean std gain", weight="O I ...", gain="O?", eps=Number(0, usual=1e-6))
def weight_standardize(weight, gain=None, *, eps=1e-6):
    """Standardize the weights of every unit of weight (O, I, ...), then scale them.

    y = gain (weight - mean) / sqrt(var + eps), moments over all axes but 0

    Source: Qiao et al. 2019, without gain; Brock, De & Smith 2021 with one.
    """
    mean, var = moments(weight, tuple(range(1, weight.ndim)))
    std = (var + eps) ** 0.5
    return affine((weight - mean) / std, gain), (weight, mean, std, gain)


@takes(cache=cache_of(weight_standardize), dy="y")
def weight_standardize_backward(dy, cache):
    """Return the gradients (dweight, dgain) of weight standardization.

    dweight = (g - <g> - xhat <g xhat>) / std, with g = gain dy, <.> the mean over a
    unit's weights;   dgain = sum(dy xhat)

    Source: chapter 4.
    """
    weight, mean, std, gain = cache
    xhat, axes = (weight - mean) / std, tuple(range(1, weight.ndim))
    dweight = normalize_backward(affine(dy, gain), xhat, std, axes)
    return dweight, affine_backward(dy, xhat, axes)[0]
