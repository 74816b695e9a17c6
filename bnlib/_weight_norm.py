"""From chapters/16_without_normalization.ipynb.

Extracted by `make export`: edit the notebook, not this file.
"""

from bnlib._batch_norm import affine
from bnlib._declare import cache_of, takes

__all__ = ["weight_norm", "weight_norm_backward"]


@takes("x length g", v="O I ...", g="O?")
def weight_norm(v, g=None):
    """Give the weights of every unit of v (O, I, ...) the length g.

    y = g v / ||v||, the length over all axes but 0

    Source: Salimans & Kingma 2016, equation 2.
    """
    length = (v**2).sum(axis=tuple(range(1, v.ndim)), keepdims=True) ** 0.5
    return affine(v / length, g), (v, length, g)


@takes(cache=cache_of(weight_norm), dy="y")
def weight_norm_backward(dy, cache):
    """Return the gradients (dv, dg) of weight normalization.

    dv = (d - u <d, u>) / ||v||,   dg = <dy, u>,   with u = v / ||v||, d = g dy

    Source: Salimans & Kingma 2016, equation 3.
    """
    v, length, g = cache
    u, d, axes = v / length, affine(dy, g), tuple(range(1, v.ndim))
    dv = (d - u * (d * u).sum(axis=axes, keepdims=True)) / length
    return dv, (dy * u).sum(axis=axes)
