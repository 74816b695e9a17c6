"""From chapters/00_gradient_checking.ipynb.

Extracted by `make export`: edit the notebook, not this file.
"""

import numbers
import sys

import numpy as np


def is_known(x):
    """Return whether x has values to look at: no tracer, compiler, vmap or meta."""
    kind = type(x).__name__
    if kind == "FakeTensor" or kind.endswith("Tracer"):
        return False
    if not hasattr(x, "is_meta"):
        return True
    import torch

    levels, vmap = torch._C._functorch, torch._C._functorch.TransformType.Vmap
    return not (
        x.is_meta
        or torch.compiler.is_compiling()
        or torch._C._is_tracing()
        or torch._C._len_torch_dispatch_stack()
        or any(level.key() == vmap for level in levels.get_interpreter_stack() or ())
    )


def fails(condition):
    """Return whether an array of bools is known to be false somewhere."""
    return is_known(condition) and not condition.all()


def library(x):
    """Return the module whose functions take x: numpy, torch, or another like numpy."""
    if hasattr(x, "is_meta"):
        import torch

        return torch
    if isinstance(x, np.ndarray | np.generic):
        return np
    if hasattr(x, "__array_namespace__"):
        return x.__array_namespace__()
    return sys.modules[type(x).__module__.split(".")[0]]


def kind_of(x):
    """Return the name of x's dtype, whatever the library and the order of bytes."""
    kind = getattr(x.dtype, "type", None)  # numpy's; torch's dtypes have none
    return kind.__name__ if kind else str(x.dtype).removeprefix("torch.")


def _check_kind(name, x):
    kind, what = kind_of(x), "floating-point numbers"
    if "_e" in kind:  # float8_e4m3fn: bits of exponent and mantissa
        what = "floats of 16 bits or more"
    elif "float" in kind or kind == "longdouble":
        return
    cure = "convert it: x.astype('float64') in numpy, x.double() in torch"
    if "complex" in kind:
        cure = "take its real part, or normalize real and imaginary part as channels"
    raise TypeError(f"{name} must hold {what}, got {x.dtype}; {cure}")


def _check_finite(name, x):
    finite = abs(x) < float("inf")  # false for NaN too
    if fails(finite):
        bad = int((~finite).sum())
        raise ValueError(
            f"{name} must be finite, got NaN or infinity in {bad} values of shape "
            f"{tuple(x.shape)}; find where they come from, or drop those examples"
        )


def check_floats(name, x, *, min_ndim=0, layout="any shape"):
    """Raise an error with a cure unless x is a non-empty, finite, floating-point array.

    name : str, how the caller calls it. x : numpy array or torch tensor; whether it is
    finite is asked where it has values, see `is_known`. min_ndim, layout : the fewest
    dimensions allowed, and how to describe them.

    Raises TypeError (not an array, not floating-point) or ValueError (too few
    dimensions, empty, NaN or infinite values).
    """
    if not hasattr(x, "dtype") or not hasattr(x, "ndim"):
        got = type(x).__name__
        cure = "wrap it: numpy.asarray(..., dtype=float)"
        raise TypeError(
            f"{name} must be a numpy array or torch tensor, got {got}; {cure}"
        )
    _check_kind(name, x)
    shape = tuple(x.shape)
    if x.ndim < min_ndim:
        raise ValueError(
            f"{name} must have shape {layout}, got shape {shape}; reshape it"
        )
    if 0 in shape:
        raise ValueError(f"{name} is empty, shape {shape}; drop empty batches first")
    _check_finite(name, x)


def check_shape(name, x, shape, because):
    """Raise a ValueError with a cure unless x has exactly the given shape.

    name : str. x : numpy array or torch tensor. shape : tuple of ints.
    because : str, where the expected shape comes from.
    """
    if tuple(x.shape) != tuple(shape):
        raise ValueError(
            f"{name} must have shape {tuple(shape)} because {because}, "
            f"got {tuple(x.shape)}; reshape it or pass the matching array"
        )


def check_like(name, x, other, because):
    """Raise a TypeError with a cure unless x is of the library and dtype of `other`.

    name : str. x, other : numpy arrays or torch tensors. because : str, its name.
    """
    if library(x) is not library(other):
        of = [library(a).__name__ for a in (x, other)]
        cure = "use one library: numpy.asarray(...) or torch.from_numpy(...)"
        raise TypeError(f"{name} is from {of[0]}, {because} from {of[1]}; {cure}")
    if x.dtype != other.dtype and kind_of(x) != kind_of(other):
        cure = f"convert {name}: the result would silently change its dtype"
        expected = f"the dtype of {because}, {other.dtype}"
        raise TypeError(f"{name} must have {expected}, got {x.dtype}; {cure}")


def check_number(name, value, low, high, usual):
    """Raise a ValueError with a cure unless value is a real number in low ... high."""
    real = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not (real and low <= value <= high and value < float("inf")):
        raise ValueError(
            f"{name} must be a finite number in {low} ... {high}, got {value!r}; "
            f"{usual} is usual"
        )


def widen(x):
    """Return x in float64 and the machine's order of bytes; a longdouble stays one."""
    if not hasattr(x, "is_meta"):
        return x.astype(float, copy=False) if x.dtype.itemsize <= 8 else x
    return x.float() if x.device.type == "mps" else x.double()  # Apple's has no float64


def narrow(y, x):
    """Return y in the dtype of x and the machine's order of bytes."""
    if hasattr(y, "is_meta"):
        return y.to(x.dtype)
    return y.astype(x.dtype.newbyteorder("="))
