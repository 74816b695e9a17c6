"""Chapter 0, Gradient checking: chapters/00_gradient_checking.ipynb.

Extracted by `make export`: edit the notebook, not this file.
The derivation is the page chapters/00_gradient_checking.html of the book.
"""

import numpy as np

__all__ = [
    "check_floats",
    "check_shape",
    "numerical_gradient",
    "relative_error",
    "gradcheck",
]


def _check_finite(name, x):
    finite = abs(x) < float("inf")  # false for NaN too
    if not finite.all():
        bad = int((~finite).sum())
        raise ValueError(
            f"{name} must be finite, got NaN or infinity in {bad} values of shape "
            f"{tuple(x.shape)}; find where they come from, or drop those examples"
        )


def check_floats(name, x, *, min_ndim=0, layout="any shape"):
    """Raise an error with a cure unless x is a non-empty, finite, floating-point array.

    name : str, how the caller calls it. x : numpy array or torch tensor.
    min_ndim, layout : the fewest dimensions allowed, and how to describe them.

    Raises TypeError (not an array, not floating-point) or ValueError (too few
    dimensions, empty, NaN or infinite values).
    """
    if not hasattr(x, "dtype") or not hasattr(x, "ndim"):
        got = type(x).__name__
        cure = f"wrap it: numpy.asarray({name}, dtype=float)"
        raise TypeError(
            f"{name} must be a numpy array or torch tensor, got {got}; {cure}"
        )
    if "float" not in str(x.dtype):
        cure = f"convert it: {name} * 1.0, or {name}.astype('float64'), {name}.double()"
        raise TypeError(
            f"{name} must hold floating-point numbers, got {x.dtype}; {cure}"
        )
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


def numerical_gradient(f, x, dy=1.0, *, step=1e-5):
    r"""Differentiate sum(dy * f(x)) with respect to every entry of x.

    dL/dx_i = sum(dy * (f(x + h e_i) - f(x - h e_i))) / 2h      (central differences)

    f : function of one array. x : float64 numpy array, any shape. dy : array of the
    shape of f(x), or a number. step : h, in the units of x. Returns an array of the
    shape of x, accurate to about 1e-10 relative; costs two calls of f per entry.

    Raises TypeError for anything but float64 numpy arrays. Source: chapter 0.
    """
    check_floats("x", x)
    if str(x.dtype) != "float64" or not isinstance(x, np.ndarray):
        cure = "float32 keeps too few digits: pass numpy.asarray(x, dtype=float)"
        raise TypeError(f"x must be a float64 numpy array, got {x.dtype}; {cure}")
    gradient = np.empty_like(x)
    for i in np.ndindex(x.shape):
        up, down = x.copy(), x.copy()  # copies: f may return its argument
        up[i], down[i] = x[i] + step, x[i] - step
        gradient[i] = np.sum(dy * (f(up) - f(down))) / (up[i] - down[i])
    return gradient


def relative_error(analytic, numeric):
    """Return max|a - n| / max(max|a|, max|n|), and 0 when both are zero everywhere."""
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
    ValueError if the `dy` given makes a numerical gradient vanish, so that the check
    could not fail, or if `backward` returns the wrong number or shape of gradients.
    Source: chapter 0.
    """
    y = forward(*inputs)
    given = dy is not None
    # Its own stream: inputs drawn from default_rng(seed) must not come out equal to dy.
    own = np.random.default_rng([seed, len(inputs), 2015])
    dy = dy if given else own.normal(size=np.shape(y))
    gradients = backward(dy, *inputs)
    gradients = gradients if isinstance(gradients, tuple) else (gradients,)
    if len(gradients) != len(inputs):
        got = f"got {len(gradients)} for {len(inputs)} inputs"
        raise ValueError(f"backward must return one gradient per input, {got}")
    # What rounding alone can put into a numerical gradient.
    noise = (
        np.finfo(float).eps * np.sum(abs(dy * np.ones_like(y))) * np.max(abs(y)) / step
    )
    errors = []
    for k, analytic in enumerate(gradients):
        check_shape(f"gradient {k}", analytic, inputs[k].shape, f"input {k} has it")

        def along(value, k=k):
            return forward(*inputs[:k], value, *inputs[k + 1 :])

        numeric = numerical_gradient(along, inputs[k], dy, step=step)
        errors.append(_judge(k, analytic, numeric, noise, rtol, given))
    return tuple(errors)


def _judge(k, analytic, numeric, noise, rtol, given):
    """Return the relative error of input k, or raise the error that explains it."""
    if given and np.max(abs(numeric)) <= 10 * noise:
        raise ValueError(
            f"this check cannot fail: with the dy you gave, the gradient with respect "
            f"to input {k} is zero to rounding; use a random dy"
        )
    difference = abs(analytic - numeric)
    if np.max(difference) <= 10 * noise:  # both zero, or equal as far as can be seen
        return (
            relative_error(analytic, numeric) if np.max(abs(numeric)) > noise else 0.0
        )
    error = relative_error(analytic, numeric)
    if not error <= rtol:  # `not <=` also catches NaN
        i = tuple(map(int, np.unravel_index(np.argmax(difference), difference.shape)))
        raise AssertionError(
            f"gradient of input {k} is wrong: relative error {error:.1e} > {rtol:.0e}; "
            f"worst at {i}: yours {analytic[i]:.6g}, numerical {numeric[i]:.6g}"
        )
    return error
