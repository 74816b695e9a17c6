"""From chapters/02_whitening.ipynb.

Extracted by `make export`: edit the notebook, not this file.
"""

from bnlib._declare import (
    Number,
    cache_of,
    check_shape,
    fails,
    library,
    takes,
    whole,
)

__all__ = ["covariance", "zca_whiten", "zca_whiten_backward", "newton_schulz"]


@takes(x="N C")
def covariance(x):
    """Return the (biased) covariance matrix of the rows of x: (N, C) -> (C, C).

    Sigma = (1/m) (x - mean)^T (x - mean)

    Source: Ioffe & Szegedy 2015, section 2.
    """
    centred = x - x.mean(axis=0)
    return centred.T @ centred / x.shape[0]


def check_singular(x, values):
    """Raise a ValueError with a cure where an eigenvalue is 0, to rounding."""
    if fails(values.min() > values.max() * library(x).finfo(x.dtype).eps):
        cure = "pass a positive eps, more examples, or fewer features"
        raise ValueError(f"the covariance of x {tuple(x.shape)} is singular; {cure}")


@takes("centred values vectors", x="N C", eps=Number(0, usual=1e-5))
def zca_whiten(x, *, eps=1e-5):
    """Whiten a batch: give it mean 0 and (up to eps) the identity as covariance.

    y = (x - mean) U (Lambda + eps)^(-1/2) U^T,   Sigma = U Lambda U^T

    Returns y and the cache of `zca_whiten_backward`, which is right where eigenvalues
    coincide, and autograd not. With C = 1 this is batch normalization.
    Source: Ioffe & Szegedy 2015, section 2; Huang et al. 2018.
    """
    values, vectors = library(x).linalg.eigh(covariance(x))
    values = values.clip(0) + eps  # rounding can make a zero slightly negative
    check_singular(x, values)
    centred = x - x.mean(axis=0)
    return centred @ (vectors * values**-0.5) @ vectors.T, (centred, values, vectors)


@takes(cache=cache_of(zca_whiten), dy="y")
def zca_whiten_backward(dy, cache):
    r"""Return dx, the gradient of `zca_whiten` with respect to its input.

    dx = c(dy W + (2/m) xc dSigma),  dSigma = U (K o (U^T sym(xc^T dy) U)) U^T,
    K_ij = -1 / (sqrt(l_i l_j) (sqrt(l_i) + sqrt(l_j))),  c: subtract the column means

    Right also where eigenvalues coincide. Source: chapter 2.
    """
    centred, values, vectors = cache
    root = values**0.5
    kernel = -1 / (root[:, None] * root * (root[:, None] + root))
    inverse_root = (vectors / root) @ vectors.T
    dw = centred.T @ dy
    dw = vectors.T @ (dw + dw.T) @ vectors / 2
    dsigma = vectors @ (kernel * dw) @ vectors.T
    dx = dy @ inverse_root + 2 / len(dy) * centred @ dsigma
    return dx - dx.mean(axis=0)


def iterate_root(sigma, identity, iterations):
    """Return what `newton_schulz` does; no value is looked at."""
    trace = (identity * sigma).sum(axis=(-2, -1), keepdims=True)
    y, z = sigma / trace, identity
    for _ in range(iterations):
        m = (3 * identity - z @ y) / 2
        y, z = y @ m, m @ z
    return z / trace**0.5


check_iterations = whole(0, 10_000, usual=5)


def check_covariance(sigma, identity):
    """Raise a ValueError with a cure unless sigma is a symmetric square, trace > 0."""
    square = (*sigma.shape[:-1], sigma.shape[-2])
    check_shape("sigma", sigma, square, "a covariance is square")
    trace = (identity * sigma).sum(axis=(-2, -1), keepdims=True)
    if fails((trace > 0) & (trace < float("inf"))):
        must = f"have a positive, finite trace, got {float(trace.min())}"
        raise ValueError(f"sigma must {must}; add eps to its diagonal")
    if fails(abs(sigma - sigma.swapaxes(-1, -2)) <= 1e-3 * trace):
        raise ValueError(
            "sigma must be symmetric, as a covariance is; pass covariance(x)"
        )


def check_definite(root):
    """Return the root, or raise a ValueError where the iterations have run away."""
    if fails(abs(root) < float("inf")):
        raise ValueError("sigma is not positive definite; add eps to its diagonal")
    return root


@takes(sigma="... A B", iterations=check_iterations)
def newton_schulz(sigma, *, iterations=5):
    """Approximate the inverse square root of a covariance matrix by matrix products.

    M = (3 I - Z Y) / 2,   Y <- Y M,   Z <- M Z,   from Y = sigma / tr sigma and Z = I;
    the result is Z / sqrt(tr sigma)

    sigma (..., C, C) is symmetric and positive definite: add eps to its diagonal.
    Directions of small variance come last, an eigenvalue l needs about
    log(tr sigma / l) / (2 log 1.5) iterations and a few; more never hurt.
    Source: Huang et al. 2019, in the stable coupled form of Higham 2008.
    """
    of = library(sigma)
    identity = of.tril(of.triu(of.ones_like(sigma)))
    check_covariance(sigma, identity)
    return check_definite(iterate_root(sigma, identity, iterations))
