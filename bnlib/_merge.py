"""From chapters/20_many_machines.ipynb.

Extracted by `make export`: edit the notebook, not this file.
"""

from bnlib._declare import (
    check_floats,
    check_like,
    check_shape,
    fails,
    library,
    narrow,
    widen,
)

__all__ = ["merge_moments"]


def pool(counts, means, variances):
    """Return the mean and variance of all parts together: `merge_moments`, unchecked.

    counts : (workers,), of the dtype of means; an empty part has count 0 and finite
    moments. No value is looked at, so a GPU need not be waited for.
    """
    share = (counts / counts.sum()).reshape(-1, *[1] * (means.ndim - 1))
    # The first mean is a pivot: small numbers are summed, not large ones.
    mean = means[0] + (share * (means - means[0])).sum(axis=0)
    var = (share * (variances + (means - mean) ** 2)).sum(axis=0)
    return mean, var


def check_counts(counts):
    """Raise an error with a cure unless counts holds numbers >= 0, not all zero."""
    if not hasattr(counts, "dtype") or not hasattr(counts, "ndim"):
        got = type(counts).__name__
        cure = "wrap it: numpy.asarray(...) or torch.tensor(...)"
        raise TypeError(
            f"counts must be a numpy array or torch tensor, got {got}; {cure}"
        )
    if not any(kind in str(counts.dtype) for kind in ("int", "float")):
        cure = "pass the number of values behind each mean"
        raise TypeError(f"counts must hold numbers, got {counts.dtype}; {cure}")
    if counts.ndim != 1:
        cure = "one number per worker is expected"
        got = f"got shape {tuple(counts.shape)}"
        raise ValueError(f"counts must have shape (workers,), {got}; {cure}")
    if fails((counts >= 0) & (counts < float("inf"))) or fails((counts > 0).any()):
        cure = "0 is fine for a worker without data, but not for all"
        raise ValueError(f"counts must be finite and >= 0, got {counts}; {cure}")


def filled(part, counts):
    """Return moments with 0 where a part is empty: it may have NaN there."""
    some = counts.reshape(-1, *[1] * (part.ndim - 1)) > 0
    return library(part).where(some, part, library(part).zeros_like(part))


def check_parts(counts, means, variances):
    """Raise an error with a cure unless these are the moments of so many parts.

    Where a count is 0 the moments are not looked at: NaN is what an empty part has.
    """
    check_counts(counts)
    for name, part in (("means", means), ("variances", variances)):
        fits = hasattr(part, "shape") and part.shape[:1] == counts.shape
        fits = fits and library(part) is library(counts)
        check_floats(name, filled(part, counts) if fits else part)
        expected = (len(counts), *part.shape[1:])
        check_shape(name, part, expected, f"there are {len(counts)} counts")
    check_like("variances", variances, means, "means")
    check_shape("variances", variances, means.shape, "means has it")
    if hasattr(counts, "astype") != hasattr(means, "astype"):
        cure = "use one library: numpy.asarray(...) or torch.from_numpy(...)"
        raise TypeError(f"counts and means are from two libraries; {cure}")
    if fails(filled(variances, counts) >= 0):
        cure = "did you pass the means?"
        raise ValueError(f"variances must be >= 0, got a negative value; {cure}")


def merge_moments(counts, means, variances):
    """Return mean and (biased) variance of the union of parts of which each is known.

    n = sum(n_k),   mean = sum(n_k mean_k) / n
    var = sum(n_k (var_k + (mean_k - mean)^2)) / n

    Differentiable under torch.

    Source: Chan, Golub & LeVeque 1983, the pairwise algorithm, for any number of parts.

    Parameters
    ----------
    counts : array or tensor (workers,)
        How many values are behind each mean, ints or floats >= 0. A part with count 0
        is left out, whatever its moments.
    means, variances : array or tensor (workers, ...)
        Floating-point; variances are biased ones.

    Returns
    -------
    mean, var : array or tensor (...)
        In the dtype of means; half precision is merged in float32.

    Raises
    ------
    TypeError, ValueError
        Naming the argument, also for a variance that overflows.
    """
    check_parts(counts, means, variances)
    wide, spread = (widen(filled(part, counts)) for part in (means, variances))
    mean, var = pool(narrow(counts, wide), wide, spread)
    mean, var = narrow(mean, means), narrow(var, means)
    if fails(var < float("inf")):
        cure = "convert means and variances to a wider dtype"
        raise ValueError(f"the merged variance overflows {means.dtype}; {cure}")
    return mean, var
