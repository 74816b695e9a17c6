"""From chapters/A0_declaration.ipynb.

Extracted by `make export`: edit the notebook, not this file.
"""

import functools
import importlib
import inspect
import numbers
import re
import sys
from collections import namedtuple
from typing import NamedTuple

import numpy as np


def takes(keeps="", **declared):
    """Say beside a formula what may come in, and the names of what it keeps for later.

    Nothing happens here: `guarded` makes of it the function that users call.
    """

    def declare(formula):
        check_declaration(formula, declared)
        formula.declared = declared
        formula.keeps = namedtuple(f"{formula.__name__}_cache", keeps)
        formula.keeps.__reduce__ = lambda cache: (restore, (formula.__name__, *cache))
        return formula

    return declare


LETTERS = r"(\.\.\.|[A-Z])( (\.\.\.|[A-Z]))*"
LAYOUT = re.compile(rf"({LETTERS}|[a-z]\w*)( >=? 0)?\??")


def check_declaration(formula, declared):
    """Raise a TypeError for a declaration that could not be meant."""
    code = formula.__code__
    names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    for name, what in declared.items():
        if name not in names:
            raise TypeError(f"{formula.__name__} has no argument {name}: {names}")
        if isinstance(what, str) and not LAYOUT.fullmatch(what):
            raise TypeError(f'{name}="{what}" is no layout; "N C ...", "C >= 0?" are')


def restore(name, *values):
    """Return the cache of a function of bnlib: what pickle makes of one."""
    return getattr(importlib.import_module("bnlib"), name).keeps(*values)


def guarded(formula):
    """Return the public face of a formula: what comes in is looked at, then it runs."""
    formula = inspect.unwrap(formula)
    code, last = formula.__code__, formula.__defaults__ or ()
    names = code.co_varnames[: code.co_argcount]
    defaults = dict(zip(names[len(names) - len(last) :], last, strict=True))
    defaults |= formula.__kwdefaults__ or {}
    known = {*code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]}
    needed = known - defaults.keys()

    @functools.wraps(formula)
    def face(*args, **options):
        given = dict(zip(names, args, strict=False))
        twice, given = given.keys() & options.keys(), {**given, **options}
        if twice or len(args) > len(names) or not needed <= given.keys() <= known:
            return formula(*args, **options)  # Python says what is wrong with it
        ready, like = admit(formula.declared, {**defaults, **given})
        if ready.get("eps", "length" not in formula.keeps._fields):
            return release(formula(**ready), formula, like, ready)
        with np.errstate(divide="ignore", invalid="ignore"):  # 0/0 will be named
            return release(formula(**ready), formula, like, ready)

    face.__doc__ = documented(formula)
    return face


FLOATS = {np.dtype(kind) for kind in ("float16", "float32", "float64")}


def admit(declared, given):
    """Return the arguments as the formula gets them, and the array that they go by.

    Raises the error that the first bad argument deserves.
    """
    ready, layouts, like, owner = dict(given), {}, None, ""
    for name, what in declared.items():
        value = given.get(name)
        if name not in given or (value is None and str(what)[-1] == "?"):
            continue
        if isinstance(what, Number):
            usual = type(value) is float and what.low <= value <= min(what.high, 1e300)
            if not usual:
                check_number(name, value, *what)
            continue
        if not isinstance(what, str):  # axes, groups, a cache: it looks for itself
            ready[name] = what(name, value, ready)
            if isinstance(value, tuple) and hasattr(ready[name], "_fields"):
                like, owner = value[0], "y"
            continue
        usual = type(value) is np.ndarray and value.dtype in FLOATS and value.size
        if not (usual and np.logical_and.reduce(np.isfinite(value), axis=None)):
            check_floats(name, value)
        if like is None:
            like, owner = value, name
        elif type(value) is not type(like) or value.dtype != like.dtype:
            check_like(name, value, like, owner)
        layouts[name], _, low = what.rstrip("?").partition(" >")
        if low:
            check_above(name, value, low)
        ready[name] = value.astype(float, copy=False) if usual else widen(value)
    bind(layouts, ready, like)
    if "var" in layouts and "eps" in ready:
        check_kept("std", ready["var"] + ready["eps"], ready)
    return ready, like


CURES = {
    "var": "did you pass the mean?",
    "running_var": "pass running_mean first",
    "running_std": "start it at 1, and average sqrt(var + eps) into it",
}


def check_above(name, x, low):
    """Raise a ValueError with a cure unless all of x is `= 0`, or ` 0`: above it."""
    if fails(x >= 0 if low[0] == "=" else x > 0):
        got = "a negative value" if low[0] == "=" else "a value that is not"
        cure = CURES.get(name, "look where it comes from")
        raise ValueError(f"{name} must be >{low}, got {got}; {cure}")


def is_known(x):
    """Return whether x has values to look at: no tracer, compiler, vmap or meta."""
    if type(x) is np.ndarray:
        return True
    kind = type(x).__name__
    if kind == "FakeTensor" or kind.endswith("Tracer"):
        return False
    if not hasattr(x, "is_meta"):
        return True
    torch = sys.modules["torch"]
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
        return sys.modules["torch"]
    if isinstance(x, np.ndarray | np.generic):
        return np
    if hasattr(x, "__array_namespace__"):
        return x.__array_namespace__()
    return sys.modules[type(x).__module__.split(".")[0]]


def kind_of(x):
    """Return the name of x's dtype, whatever the library and the order of bytes."""
    kind = getattr(x.dtype, "type", None)  # numpy's; torch's dtypes have none
    return kind.__name__ if kind else str(x.dtype).removeprefix("torch.")


def check_kind(name, x):
    """Raise a TypeError with a cure unless x is an array of real floats."""
    if not hasattr(x, "dtype") or not hasattr(x, "ndim"):
        got, cure = type(x).__name__, "wrap it: numpy.asarray(..., dtype=float)"
        what = "must be a numpy array or torch tensor"
        raise TypeError(f"{name} {what}, got {got}; {cure}")
    if isinstance(x, np.ma.MaskedArray | np.matrix):
        cure = "pass numpy.asarray(...), without what is masked"
        raise TypeError(f"{name} must be a plain array, got {type(x).__name__}; {cure}")
    kind, what = kind_of(x), "floating-point numbers"
    if "_e" in kind:  # float8_e4m3fn: bits of exponent and mantissa
        what = "floats of 16 bits or more"
    elif "float" in kind or kind == "longdouble":
        return
    cure = "convert it: x.astype('float64') in numpy, x.double() in torch"
    if "complex" in kind:
        cure = "take its real part, or normalize real and imaginary part as channels"
    raise TypeError(f"{name} must hold {what}, got {x.dtype}; {cure}")


def check_floats(name, x):
    """Raise an error with a cure unless x is a filled array of finite real floats."""
    check_kind(name, x)
    shape = tuple(x.shape)
    if 0 in shape:
        raise ValueError(f"{name} is empty, shape {shape}; drop empty batches first")
    finite = abs(x) < float("inf")  # false for NaN too
    if fails(finite):
        bad = int((~finite).sum())
        raise ValueError(
            f"{name} must be finite, got NaN or infinity in {bad} values of shape "
            f"{shape}; find where they come from, or drop those examples"
        )


def check_like(name, x, other, because):
    """Raise a TypeError with a cure unless x is of the library and dtype of `other`."""
    if library(x) is not library(other):
        of = [library(a).__name__ for a in (x, other)]
        cure = "use one library: numpy.asarray(...) or torch.from_numpy(...)"
        raise TypeError(f"{name} is from {of[0]}, {because} from {of[1]}; {cure}")
    if x.dtype != other.dtype and kind_of(x) != kind_of(other):
        cure = f"convert {name}: the result would silently change its dtype"
        expected = f"the dtype of {because}, {other.dtype}"
        raise TypeError(f"{name} must have {expected}, got {x.dtype}; {cure}")


def check_shape(name, x, shape, because):
    """Raise a ValueError with a cure unless x has exactly the given shape."""
    if tuple(x.shape) != tuple(shape):
        raise ValueError(
            f"{name} must have shape {tuple(shape)} because {because}, "
            f"got {tuple(x.shape)}; reshape it or pass the matching array"
        )


def check_number(name, value, low, high, usual):
    """Raise a ValueError with a cure unless value is a real number in low ... high."""
    real = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not (real and low <= value <= high and value < float("inf")):
        raise ValueError(
            f"{name} must be a finite number in {low} ... {high}, got {value!r}; "
            f"{usual} is usual"
        )


class Number(NamedTuple):
    """A finite real number in low ... high, to declare one."""

    low: float
    high: float = float("inf")
    usual: float = 1


def whole(low, high=float("inf"), *, usual):
    """Declare a whole number in low ... high."""
    to = "on" if high == float("inf") else f"to {high:,}"

    def look(name, value, _=None):
        integral = isinstance(value, numbers.Integral) and not isinstance(value, bool)
        if not integral or not low <= value <= high:
            must = f"must be a whole number from {low} {to}"
            raise ValueError(f"{name} {must}, got {value!r}; {usual} is usual")
        return value

    look.said = f"whole number from {low} {to}"
    return look


def cache_of(forward):
    """Declare what a forward pass has kept: its second result, known by its name."""

    def look(name, value, _):
        kind = forward.keeps
        if type(value).__name__ != kind.__name__:  # of this function, here or in bnlib
            what = forward.__name__
            cure = f"y, cache = {what}(...); {what}_backward(dy, cache)"
            raise ValueError(f"{name} must be what {what} returned second: {cure}")
        return kind(*(widen(v) if hasattr(v, "dtype") else v for v in value))

    look.said = f"what `{forward.__name__}` returned second"
    return look


def widen(x):
    """Return x in float64 and the machine's order of bytes; a longdouble stays one."""
    if not hasattr(x, "is_meta"):
        return x.astype(float, copy=False) if x.dtype.itemsize <= 8 else x
    return x.float() if x.device.type == "mps" else x.double()  # Apple's has no float64


def narrow(y, x):
    """Return y in the dtype of x and the machine's order of bytes."""
    if hasattr(y, "is_meta"):
        return y.to(x.dtype)
    return y.astype(x.dtype.newbyteorder("="), copy=False)


NOUNS = {"N": "examples", "C": "channels", "D": "features", "O": "outputs"}


def bind(layouts, ready, like):
    """Let letters stand for sizes, and lay each parameter along the axes it names.

    A letter is bound by the first array that has it. An array whose letters are bound
    already gets axes of length 1, to broadcast: gamma (C,) becomes (1, C, 1, 1).
    """
    sizes = {}  # letter: its size, the array that bound it, and where
    for name, layout in layouts.items():
        x, letters = ready[name], layout.split()
        if layout == "axes":
            ready[name] = lay_along(name, x, like, ready["axes"])
        elif layout in ready or layout == "y":
            other = like if layout == "y" else ready[layout]
            check_shape(name, x, other.shape, f"that is the shape of {layout}")
        elif sizes.keys() >= set(letters):  # a parameter, along axes of another array
            owner = sizes[letters[0]][1]
            shape, expected = [1] * ready[owner].ndim, []
            for letter in letters:
                size, _, axis = sizes[letter]
                shape[axis] = size
                expected.append(size)
            if [*x.shape] != expected:
                raise_misfit(name, x, letters, sizes)
            ready[name] = x.reshape(shape)
        else:
            dots = letters.index("...") if "..." in letters else len(letters)
            least = len(letters) - ("..." in letters)
            if x.ndim < least or (x.ndim > least and "..." not in letters):
                raise ValueError(misfit(name, x, letters))
            for k, letter in enumerate(letters):
                axis = k if k < dots else k - len(letters)
                if k != dots and letter in sizes and x.shape[axis] != sizes[letter][0]:
                    raise_misfit(name, x, [letter], sizes, axis)
                if k != dots:
                    sizes.setdefault(letter, (x.shape[axis], name, axis))


def raise_misfit(name, x, letters, sizes, at=None):
    """Say which size a letter has, and since which array."""
    size, owner, axis = sizes[letters[0]]
    because = f"{owner} has {size} {NOUNS.get(letters[0], letters[0])} in axis {axis}"
    expected = [sizes[letter][0] for letter in letters]
    if at is not None:
        expected = [*x.shape]
        expected[at] = size
    check_shape(name, x, expected, because)


def check_layout(name, x, layout):
    """Raise an error with a cure unless x is a filled array of floats of a layout."""
    check_floats(name, x)
    bind({name: layout}, {name: x}, x)


def misfit(name, x, letters):
    """Return what to say of an array with too few axes, or too many."""
    plain = [letter for letter in letters if letter != "..."]
    said = ", ".join(letters) + "," * (len(letters) == 1)
    if letters[-1] == "..." and plain:
        said = f"{', '.join(plain)}{',' * (len(plain) == 1)}) or ({said}"
    positions = ", with positions" if "L" in letters else ""
    got = f"must have shape ({said}){positions}, got"
    if x.ndim < len(plain):
        return f"{name} {got} shape {tuple(x.shape)}; reshape it"
    return f"{name} {got} {tuple(x.shape)}; flatten all but axis 0"


def lay_along(name, x, like, axes):
    """Return a parameter shaped like `like` along `axes`, ready to broadcast."""
    expected = [like.shape[axis] for axis in axes]
    because = f"x {tuple(like.shape)} has it along axes {axes}"
    check_shape(name, x, expected, because)
    return x.reshape([n if a in axes else 1 for a, n in enumerate(like.shape)])


LARGE = {"x", "xhat", "centred"}  # kept, and as large as what came in


def release(result, formula, like, ready):
    """Return what a formula returned in the dtype of `like`, and its cache by name."""
    usual = type(like) is np.ndarray and like.dtype in FLOATS
    parts = list(result) if isinstance(result, tuple) else [result]
    if isinstance(parts[-1], tuple):
        cache = list(parts[-1])
        if parts[0] is cache[0]:  # whoever writes into y does not write into the cache
            parts[0] = 1 * parts[0]
        for k, name in enumerate(formula.keeps._fields):
            if name in TROUBLE:
                fine = (cache[k] > 0) & (cache[k] < float("inf"))
                if not (usual and np.logical_and.reduce(fine, axis=None)):
                    check_kept(name, cache[k], ready)
            elif name in LARGE and cache[k].dtype != like.dtype:
                cache[k] = (
                    cache[k].astype(like.dtype) if usual else narrow(cache[k], like)
                )
        parts[-1] = formula.keeps(*cache)
    for k, part in enumerate(parts):
        if hasattr(part, "dtype") and part.dtype != like.dtype:
            part = part.astype(like.dtype) if usual else narrow(part, like)
            parts[k] = part
        # A gradient may overflow: who scales a loss looks for that.
        forward = "dy" not in formula.declared and "dxhat" not in formula.declared
        statistic = forward and hasattr(part, "dtype") and part.shape != like.shape
        seen = (
            usual and statistic and np.logical_and.reduce(np.isfinite(part), axis=None)
        )
        if statistic and not seen and fails(abs(part) < float("inf")):
            what = f"{formula.__name__} of x overflows {part.dtype}"
            raise ValueError(f"{what}; convert x to a wider dtype, or scale x down")
    return tuple(parts) if isinstance(result, tuple) else parts[0]


# What a formula must keep positive and finite: what it is, why it would be 0, the cure.
EPS = "pass a positive eps; 1e-5 is usual"
TROUBLE = {
    "std": ("variance of x", "a feature does not vary and eps is {eps}, so 0/0", EPS),
    "rms": (
        "mean square of x",
        "an example of x is zero and eps is {eps}, so 0/0",
        EPS,
    ),
    "energy": (
        "energy of x",
        "k + alpha * energy is zero somewhere",
        "pass a positive k",
    ),
    "length": ("length of v", "a unit of v is zero: no direction", "draw it anew"),
}


def check_kept(name, x, ready):
    """Raise a ValueError with a cure where a formula has divided by 0 or infinity."""
    what, zero, cure = TROUBLE[name]
    if fails(x < float("inf")):
        wider = f"convert {what[-1]} to a wider dtype, or scale {what[-1]} down"
        raise ValueError(f"the {what} overflows {x.dtype}; {wider}")
    if fails(x > 0):
        raise ValueError(f"{zero.format(**ready)}; {cure}")


MEANINGS = {
    "x": "what is normalized",
    "gain": "the scale of each unit; None stands for 1",
    "v": "the directions of O units, of any length",
    "g": "the lengths",
    "gamma": "the scale; None stands for 1",
    "beta": "the shift; None stands for 0",
    "eps": "added inside the root, in the units of x squared",
    "dy": "gradient of the loss with respect to y",
    "cache": "",
    "mean": "statistics, given",
    "var": "statistics, given; biased",
    "running_mean": "average of earlier batches' means",
    "running_var": "average of earlier batches' unbiased variances",
    "running_std": "average of earlier batches' standard deviations, eps included",
    "axes": "the axes to average over",
    "num_groups": "a divisor of C; neighbouring channels are grouped",
    "momentum": "the weight of the new batch",
}


def documented(formula):
    """Return a formula's docstring with numpydoc's section on what it takes."""
    if formula.__doc__ is None:  # python -OO
        return None
    lines = ["", "Parameters", "----------"]
    for name, what in formula.declared.items():
        if isinstance(what, str):
            layout, _, low = what.rstrip("?").partition(" >")
            plain = layout.replace(" ", ", ")
            shape = {"y": "of the shape of y", "axes": "like x along `axes`"}.get(
                layout, f"({plain}{',' * plain.isalpha()})"
            )
            none = ", or None" if what[-1] == "?" else ""
            lines.append(
                f"{name} : array or tensor {shape}{f', >{low}' * bool(low)}{none}"
            )
        elif isinstance(what, Number):
            lines.append(f"{name} : number in {what.low} ... {what.high}")
        else:
            said = "int, or several" if name == "axes" else "int"
            lines.append(f"{name} : {getattr(what, 'said', said)}")
        if MEANINGS.get(name):
            lines.append(f"    {MEANINGS[name]}")
    lines += ["", "Raises", "------", "TypeError, ValueError"]
    lines.append("    naming the argument, what came, what was expected, and the cure")
    return inspect.cleandoc(formula.__doc__) + "\n" + "\n".join(lines)
