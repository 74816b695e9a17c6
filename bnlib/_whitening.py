"""From chapters/02_whitening.ipynb.

Extracted by `make export`: edit the notebook, not this file.
"""

import numbers

from bnlib._declare import (
    check_floats,
    check_like,
    check_number,
    check_shape,
    fails,
    kind_of,
    library,
    narrow,
    widen,
)

__all__ = ["covariance", "zca_whiten", "zca_whiten_backward", "newton_schulz"]


def covariance(x):
    r"""Return the (biased) covariance matrix of the rows of x.

    Sigma = (1/m) (x - mean)^T (x - mean)

    x : numpy array or torch tensor (N, C), floating-point. Returns (C, C), same dtype.
    Raises TypeError or ValueError for anything else, see `check_floats`.
    Source: Ioffe & Szegedy 2015, section 2.
    """
    check_floats("x", x, min_ndim=2, layout="(N, C)")
    if x.ndim != 2:
        shape = tuple(x.shape)
        raise ValueError(
            f"x must have shape (N, C), got {shape}; flatten all but axis 0"
        )
    wide = widen(x)
    centred = wide - wide.mean(axis=0)
    sigma = narrow(centred.T @ centred / x.shape[0], x)
    if fails(abs(sigma) < float("inf")):
        raise ValueError(f"the covariance of x overflows {x.dtype}; scale x down")
    return sigma


def zca_whiten(x, *, eps=1e-5):
    r"""Whiten a batch: give it mean 0 and (up to eps) the identity as covariance.

    y = (x - mean) U (Lambda + eps)^(-1/2) U^T,   Sigma = U Lambda U^T

    x : numpy array or torch tensor (N, C), float32 or float64. eps : number >= 0, added
    to the eigenvalues. Returns (y, cache), y like x; the cache is for
    `zca_whiten_backward`, which is right where eigenvalues coincide, and autograd not.
    With C = 1 this is batch normalization.
    Raises TypeError for other types and dtypes, ValueError for a negative eps, for a
    singular covariance with eps = 0, and what `covariance` raises.
    Source: Ioffe & Szegedy 2015, section 2; Huang et al. 2018.
    """
    check_floats("x", x)
    if kind_of(x) not in ("float32", "float64"):
        raise TypeError(f"x must be float32 or float64, got {x.dtype}; convert it")
    check_number("eps", eps, 0, float("inf"), 1e-5)
    wide, of = widen(x), library(x)
    values, vectors = of.linalg.eigh(covariance(wide))
    values = values.clip(0) + eps  # rounding can make a zero slightly negative
    if fails(values.min() > values.max() * of.finfo(x.dtype).eps):
        cure = "pass a positive eps, more examples, or fewer features"
        raise ValueError(f"the covariance of x {tuple(x.shape)} is singular; {cure}")
    centred = wide - wide.mean(axis=0)
    y = centred @ (vectors * values**-0.5) @ vectors.T
    return narrow(y, x), (narrow(centred, x), values, vectors)


def zca_whiten_backward(dy, cache):
    r"""Return dx, the gradient of `zca_whiten` with respect to its input.

    dx = c(dy W + (2/m) xc dSigma),  dSigma = U (K o (U^T sym(xc^T dy) U)) U^T,
    K_ij = -1 / (sqrt(l_i l_j) (sqrt(l_i) + sqrt(l_j))),  c: subtract the column means

    dy : (N, C), gradient with respect to y. cache : from `zca_whiten`. Returns (N, C).
    Right also where eigenvalues coincide. Raises TypeError or ValueError for a dy that
    is not a finite floating-point array of the shape of y. Source: chapter 2.
    """
    centred, values, vectors = cache
    check_floats("dy", dy)
    check_shape("dy", dy, centred.shape, "that is the shape of y")
    check_like("dy", dy, centred, "y")
    centred, wide, root = widen(centred), widen(dy), values**0.5
    kernel = -1 / (root[:, None] * root * (root[:, None] + root))
    inverse_root = (vectors / root) @ vectors.T
    dw = centred.T @ wide
    dw = vectors.T @ (dw + dw.T) @ vectors / 2
    dsigma = vectors @ (kernel * dw) @ vectors.T
    dx = wide @ inverse_root + 2 / len(dy) * centred @ dsigma
    return narrow(dx - dx.mean(axis=0), dy)


def iterate_root(sigma, identity, iterations):
    """Return what `newton_schulz` does; no value is looked at."""
    trace = (identity * sigma).sum(axis=(-2, -1), keepdims=True)
    y, z = sigma / trace, identity
    for _ in range(iterations):
        m = (3 * identity - z @ y) / 2
        y, z = y @ m, m @ z
    return z / trace**0.5


def newton_schulz(sigma, *, iterations=5):
    r"""Approximate the inverse square root of a covariance matrix by matrix products.

    M = (3 I - Z Y) / 2,   Y <- Y M,   Z <- M Z,   from Y = sigma / tr sigma and Z = I;
    the result is Z / sqrt(tr sigma)

    sigma : numpy array or torch tensor (..., C, C), symmetric, positive definite (add
    eps to its diagonal). iterations : int, 0 ... 10,000; directions of small variance
    come last, an eigenvalue l needs about log(tr sigma / l) / (2 log 1.5), and a few.
    More never hurt a positive definite sigma; an indefinite one shows only after many.
    Shape and dtype are those of sigma; differentiable by autograd.
    Raises ValueError for a matrix that is not square, symmetric and positive definite
    as far as can be seen (positive trace, finite result), and for negative iterations.
    Source: Huang et al. 2019, in the stable coupled form of Higham 2008.
    """
    check_floats("sigma", sigma, min_ndim=2, layout="(..., C, C)")
    square = (*sigma.shape[:-1], sigma.shape[-2])
    check_shape("sigma", sigma, square, "a covariance is square")
    if not isinstance(iterations, numbers.Integral) or not 0 <= iterations <= 10_000:
        must = "must be a whole number from 0 to 10,000"
        raise ValueError(f"iterations {must}, got {iterations!r}; 5 is usual")
    of = library(sigma)
    identity = of.tril(of.triu(of.ones_like(sigma)))
    trace = (identity * sigma).sum(axis=(-2, -1), keepdims=True)
    if fails((trace > 0) & (trace < float("inf"))):
        must = f"have a positive, finite trace, got {float(trace.min())}"
        raise ValueError(f"sigma must {must}; add eps to its diagonal")
    if fails(abs(sigma - sigma.swapaxes(-1, -2)) <= 1e-3 * trace):
        raise ValueError(
            "sigma must be symmetric, as a covariance is; pass covariance(x)"
        )
    root = iterate_root(sigma, identity, iterations)
    if fails(abs(root) < float("inf")):
        raise ValueError("sigma is not positive definite; add eps to its diagonal")
    return root
