"""Chapter 0, Gradient checking: chapters/00_gradient_checking.ipynb.

Extracted by `make export`: edit the notebook, not this file.
The derivation is the page chapters/00_gradient_checking.html of the book.
"""

import numbers
import sys

import numpy as np

__all__ = [
    "is_known",
    "fails",
    "library",
    "kind_of",
    "check_floats",
    "check_shape",
    "check_like",
    "check_number",
    "widen",
    "narrow",
    "numerical_gradient",
    "relative_error",
    "gradcheck",
]


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


def _check_float64(name, x):
    check_floats(name, x)
    if kind_of(x) != "float64" or not isinstance(x, np.ndarray):
        got = f"{type(x).__name__} of {x.dtype}"
        cure = "float32 keeps too few digits: x.astype(float), or x.numpy() in torch"
        raise TypeError(f"{name} must be a float64 numpy array, got {got}; {cure}")


def numerical_gradient(f, x, dy=1.0, *, step=1e-5):
    r"""Differentiate sum(dy * f(x)) with respect to every entry of x.

    dL/dx_i = sum(dy * (f(x + h e_i) - f(x - h e_i))) / 2h      (central differences)

    f : function of one array. x : float64 numpy array, any shape. dy : array of the
    shape of f(x), or a number. step : h, in the units of x. Returns an array of the
    shape of x, accurate to about 1e-10 relative; costs two calls of f per entry.

    Raises TypeError for anything but float64 numpy arrays, ValueError for a step that
    is not positive. Source: chapter 0.
    """
    _check_float64("x", x)
    check_number("step", step, 1e-300, 1e300, 1e-5)
    gradient = np.empty(x.shape)
    for i in np.ndindex(x.shape):
        up, down = x.copy(), x.copy()  # copies: f may return its argument
        up[i], down[i] = x[i] + step, x[i] - step
        gradient[i] = np.sum(dy * (f(up) - f(down))) / (up[i] - down[i])
    return gradient


def relative_error(analytic, numeric):
    """Return max|a - n| / max(max|a|, max|n|), and 0 when both are zero everywhere.

    analytic, numeric : finite numpy arrays of the same shape, else ValueError.
    """
    check_floats("analytic", analytic)
    check_floats("numeric", numeric)
    check_shape("numeric", numeric, analytic.shape, "analytic has it")
    scale = max(np.max(abs(analytic)), np.max(abs(numeric)))
    return float(np.max(abs(analytic - numeric)) / scale) if scale else 0.0


def gradcheck(forward, backward, *inputs, dy=None, seed=0, rtol=1e-6, step=1e-5):
    """Compare a hand-written backward with central differences, input by input.

    error = max|analytic - numeric| / max(max|analytic|, max|numeric|)

    forward : function (*inputs) -> y. backward : function (dy, *inputs) -> one gradient
    per input (a tuple, or an array if there is one input). inputs : float64 numpy
    arrays. dy : upstream gradient of the shape of y, standard normal from `seed` if not
    given. rtol : largest relative error allowed. step : of the differences.

    Returns the relative errors, a tuple of floats, one per input.
    Raises AssertionError at the first wrong gradient, naming the worst entry;
    ValueError if the check could not fail (the `dy` given makes the gradient vanish, or
    rounding drowns it), or for gradients of the wrong number or shape. No error above
    rtol is ever returned.
    Source: chapter 0.
    """
    for k, value in enumerate(inputs):
        _check_float64(f"inputs[{k}]", value)
    y = forward(*inputs)
    check_floats("the output of forward", y)
    given = dy is not None
    # Its own stream: inputs drawn from default_rng(seed) must not come out equal to dy.
    own = np.random.default_rng([seed, len(inputs), 2015])
    dy = dy if given else own.normal(size=y.shape)
    gradients = backward(dy, *inputs)
    gradients = gradients if isinstance(gradients, tuple | list) else (gradients,)
    if len(gradients) != len(inputs):
        got = f"got {len(gradients)} for {len(inputs)} inputs"
        raise ValueError(f"backward must return one gradient per input, {got}")
    # What rounding alone can put into a numerical gradient, ten times over.
    noise = 10 * np.finfo(float).eps * np.linalg.norm(dy * y) / step
    errors = []
    for k, analytic in enumerate(gradients):
        check_floats(f"gradient {k}", analytic)
        check_shape(f"gradient {k}", analytic, inputs[k].shape, f"input {k} has it")

        def along(value, k=k):
            return forward(*inputs[:k], value, *inputs[k + 1 :])

        numeric = numerical_gradient(along, inputs[k], dy, step=step)
        check_floats("a numerical gradient", numeric)
        _check_resolution(k, numeric, noise, dy, rtol, given)
        errors.append(_judge(k, analytic, numeric, noise, rtol))
    return tuple(errors)


def _check_resolution(k, numeric, noise, dy, rtol, given):
    """Raise a ValueError where the differences cannot tell right from wrong."""
    size = np.max(abs(numeric))
    if size <= noise and given:
        raise ValueError(
            f"this check cannot fail: with the dy you gave, the gradient with respect "
            f"to input {k} is zero to rounding; use a random dy"
        )
    # A gradient that is really zero must be seen to be small against the pull.
    limit = 1e-6 * np.max(abs(dy)) if size <= noise else rtol * size
    if noise > limit:
        raise ValueError(
            f"rounding drowns the gradient with respect to input {k}: of its size "
            f"{size:.0e}, {noise:.0e} may be rounding; bring the outputs of forward "
            f"nearer to zero, or allow a larger rtol"
        )


def _judge(k, analytic, numeric, noise, rtol):
    """Return the relative error of input k, or raise the error that explains it."""
    difference = abs(analytic - numeric)
    if np.max(abs(numeric)) <= noise and np.max(abs(analytic)) <= noise:
        return 0.0  # a gradient that is zero, and both say so
    error = relative_error(analytic, numeric)
    if error > rtol:
        i = tuple(map(int, np.unravel_index(np.argmax(difference), difference.shape)))
        raise AssertionError(
            f"gradient of input {k} is wrong: relative error {error:.1e} > {rtol:.0e}; "
            f"worst at {i}: yours {analytic[i]:.6g}, numerical {numeric[i]:.6g}"
        )
    return error
