"""From chapters/00_gradient_checking.ipynb.

Extracted by `make export`: edit the notebook, not this file.
"""

import numpy as np

from bnlib._declare import check_floats, check_number, check_shape, kind_of

__all__ = ["numerical_gradient", "relative_error", "gradcheck"]


def _check_float64(name, x):
    check_floats(name, x)
    if kind_of(x) != "float64" or not isinstance(x, np.ndarray):
        got = f"{type(x).__name__} of {x.dtype}"
        cure = "float32 keeps too few digits: x.astype(float), or x.numpy() in torch"
        raise TypeError(f"{name} must be a float64 numpy array, got {got}; {cure}")


def numerical_gradient(f, x, dy=1.0, *, step=1e-5):
    """Differentiate sum(dy * f(x)) with respect to every entry of x.

    dL/dx_i = sum(dy * (f(x + h e_i) - f(x - h e_i))) / 2h      (central differences)

    Source: chapter 0.

    Parameters
    ----------
    f : function
        Of one array.
    x : array
        In float64, of any shape.
    dy : array or float
        Of the shape of f(x), or a number.
    step : float
        h, in the units of x.

    Returns
    -------
    gradient : array
        Of the shape of x, accurate to about 1e-10 of the size of f, where f bends over
        distances of about 1; costs two calls of f per entry.

    Raises
    ------
    TypeError
        For anything but float64 numpy arrays.
    ValueError
        For a step that is not positive.
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

    Parameters
    ----------
    analytic, numeric : array
        Finite, of the same shape, else ValueError.

    Returns
    -------
    error : float
    """
    check_floats("analytic", analytic)
    check_floats("numeric", numeric)
    check_shape("numeric", numeric, analytic.shape, "analytic has it")
    scale = max(np.max(abs(analytic)), np.max(abs(numeric)))
    return float(np.max(abs(analytic - numeric)) / scale) if scale else 0.0


def gradcheck(forward, backward, *inputs, dy=None, seed=0, rtol=1e-6, step=1e-5):
    """Compare a hand-written backward with central differences, input by input.

    error = max|analytic - numeric| / max(max|analytic|, max|numeric|)

    Source: chapter 0.

    Parameters
    ----------
    forward : function
        `forward(*inputs)` returns y.
    backward : function
        `backward(dy, *inputs)` returns one gradient per input, a tuple, or an array if
        there is one input.
    *inputs : array
        In float64.
    dy : array or float, optional
        Upstream gradient of the shape of y; standard normal from `seed` if not given.
    seed : int
    rtol : float
        The largest relative error allowed.
    step : float
        Of the differences.

    Returns
    -------
    errors : tuple of float
        One per input; none is above `rtol`.

    Raises
    ------
    AssertionError
        At the first wrong gradient, naming the worst entry.
    ValueError
        If the check could not fail (the `dy` given makes the gradient vanish, or
        rounding drowns it), or for gradients of the wrong number or shape.
    """
    check_number("rtol", rtol, 0, 1, 1e-6)
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
