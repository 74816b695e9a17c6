"""From chapters/10_inception.ipynb.

Extracted by `make export`: edit the notebook, not this file.
"""

from bnlib._declare import Number, cache_of, library, takes, whole

__all__ = ["local_response_norm", "local_response_norm_backward"]


def neighbour_sum(x, before, after):
    """Sum x over channels c - before ... c + after, (N, C, ...) -> (N, C, ...).

    Channels that do not exist count as zero. x : numpy array or torch tensor.
    """
    of, channels = library(x), x.shape[1]
    before, after = min(before, channels - 1), min(after, channels - 1)
    nothing = of.zeros_like(x[:, :1])
    padded = of.concatenate([nothing] * before + [x] + [nothing] * after, 1)
    return sum(padded[:, k : k + channels] for k in range(before + after + 1))


check_size = whole(1, usual=5)


@takes(
    "x energy size alpha beta",
    x="N C L ...",
    size=check_size,
    alpha=Number(0, usual=1e-4),
    beta=Number(-1000, 1000, usual=0.75),
    k=Number(0, usual=1),
)
def local_response_norm(x, *, size, alpha=1e-4, beta=0.75, k=1.0):
    """Divide every value by the energy of the channels around it.

    y_c = x_c / d_c^beta,   d_c = k + (alpha / size) sum over W(c) of x_j^2

    W(c) = c - size//2 ... c + (size-1)//2; alpha is divided by size as in PyTorch.
    Source: Krizhevsky et al. 2012, section 3.3 (where alpha is not divided).
    """
    d = k + alpha / size * neighbour_sum(x * x, size // 2, (size - 1) // 2)
    return x / d**beta, (x, d, size, alpha, beta)


@takes(cache=cache_of(local_response_norm), dy="y")
def local_response_norm_backward(dy, cache):
    """Return dx, the gradient of the loss with respect to x of `local_response_norm`.

    dx_c = dy_c / d_c^beta - (2 alpha beta / size) x_c sum_j dy_j x_j / d_j^(beta + 1),
    over the channels j whose window holds c

    Source: chapter 10.
    """
    x, d, size, alpha, beta = cache
    mirrored = (size - 1) // 2, size // 2
    through = neighbour_sum(dy * x / d ** (beta + 1), *mirrored)
    return dy / d**beta - 2 * alpha * beta / size * x * through
