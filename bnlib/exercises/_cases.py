"""From chapters/A3_exercises.ipynb.

Extracted by `make export`: edit the notebook, not this file.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

TINY = 1e-12  # an eps that changes no digit that is shown


class Case(NamedTuple):
    """One input: what is special about it, the arguments, and how it is judged.

    kind : "ordinary"; "float32", at an offset where float32 needs care; "offset", so
    far from zero that only a variance computed from differences survives in float64; or
    "small", where a constant of one's own shows, however small. least : what is smaller
    is compared as if it were as large. refusable : a ValueError is no mistake here.
    """

    label: str
    args: dict
    kind: str = "ordinary"
    least: float = 0.01
    refusable: bool = False

    def in_double(self):
        """The arguments, float32 made float64."""
        return [
            a.astype(float) if getattr(a, "dtype", None) == np.float32 else a
            for a in self.args.values()
        ]


def one_change_at_a_time(base, label="the smallest input", **changes):
    """The base case, then one per change, then one with all changes."""
    yield Case(label, base)
    together = dict(base)
    for name, value in changes.items():
        changed = np.full_like(base[name], value) if np.ndim(base[name]) else value
        together[name] = changed
        yield Case(f"{name} = {value:g}", {**base, name: changed})
    if len(changes) > 1:
        yield Case("all of these at once", together)


def plain(x, axis, num_groups=1):
    """The plainest arguments for every normalizer; gamma has the length of axis."""
    x = np.array(x, dtype=float)
    one, dy = np.ones(x.shape[axis]), np.zeros(x.shape)
    dy.flat[0] = 4
    given = {"x": x, "dy": dy, "gamma": one, "beta": 0 * one, "eps": TINY}
    running = {"running_mean": 0 * one, "running_var": 4 * one, "running_std": 2 * one}
    limits = {"rmax": 3.0, "dmax": 5.0, "momentum": 0.25, "num_groups": num_groups}
    return given | running | limits


def drawn(shape, axis, eps, *, offset=0.0, dtype=float, flat=None, digits=1, **fixed):
    """Arguments at random, easy to read; x equals 5 in the part that `flat` names."""
    rng = np.random.default_rng(sum(shape))
    count, line = shape[axis], [1] * len(shape)
    line[axis] = -1
    shift = rng.normal(0, 3, size=count).round(digits)
    x = offset + shift.reshape(line) + rng.normal(0, 2, size=shape).round(digits)
    variance = rng.uniform(6, 20, size=count).round(digits)
    if flat is not None:
        x[flat], variance[-1] = fixed.pop("level", 5.0), 0
    sign = np.where(np.arange(count) % 2, -1, 1)
    arrays = {
        "x": x,
        "dy": rng.normal(size=shape).round(digits),
        "gamma": sign * rng.uniform(0.5, 2, size=count).round(digits),
        "beta": rng.normal(0, 2, size=count).round(digits),
        "running_mean": offset + shift + rng.normal(0, 2, size=count).round(digits),
        "running_var": variance,
        "running_std": rng.uniform(0.5, 4, size=count).round(digits),
    }
    given = {name: a.astype(dtype) for name, a in arrays.items()}
    rest = {"eps": eps, "rmax": 1.5, "dmax": 0.5, "momentum": 0.1, "num_groups": 1}
    return given | rest | fixed


def far_from_zero(shape, axis, **fixed):
    """Two cases, judged only where an answer is right on all the others."""
    single = drawn(shape, axis, 0.1, offset=1e4, dtype=np.float32, **fixed)
    double = drawn(shape, axis, 0.1, offset=1e8, **fixed)
    yield Case("mean 10,000 in float32", single, "float32")
    yield Case("mean 100,000,000", double, "offset")


_UNITS = {"x": 1, "running_mean": 1, "running_std": 1, "running_var": 2, "eps": 2}


def spreads(args, units=_UNITS, scaled=False):
    """Cases of small and large spread, eps and variance alike, from one of about 1.

    scaled : the outputs are in the units of x, and so is what counts as small.
    """
    for label, scale, kind in (
        ("a small spread", 1e-3, "ordinary"),
        ("a large spread", 1e3, "ordinary"),
        ("the smallest spread", 1e-10, "small"),
    ):
        least = 0.01 * min(1, scale**2) if scaled else 0.01
        moved = {n: args[n] * scale**u for n, u in units.items() if n in args}
        yield Case(label, {**args, **moved}, kind, least)


def around_zero(x):
    """An input that begins at 0, with a spread of about 1 and an eps that shows."""
    return {**plain(np.subtract(x, np.min(x)), 1), "eps": 1.0}


def batch_cases(x, scaled=False, **changes):
    """For (N, C): few rows and many, square and not, a column that does not vary."""
    yield from one_change_at_a_time(plain(x, 1), **changes)
    yield from spreads(around_zero(x), scaled=scaled)
    yield Case("one example", drawn((1, 3), 1, 0.5), refusable=True)
    yield Case("one column", drawn((4, 1), 1, 0.5))
    yield Case("three rows, two columns", drawn((3, 2), 1, TINY))
    yield Case("two rows, three columns", drawn((2, 3), 1, 0.5))
    yield Case("a square", drawn((3, 3), 1, TINY))
    constant = drawn((5, 2), 1, 1e-3, flat=np.s_[:, 1])
    yield Case("a column that does not vary", constant)
    yield Case("eps as large as the variance", drawn((5, 3), 1, 4.0))
    wide = {"rmax": 1.23486, "dmax": 1.98765, "momentum": 0.6, "digits": 6}
    yield Case("more columns than rows", drawn((4, 7), 1, 0.1, **wide))
    many = {"rmax": 3.98765, "dmax": 0.12345, "momentum": 0.87654, "digits": 6}
    yield Case("many rows", drawn((64, 3), 1, 1e-5, **many))
    yield Case("nothing is clipped", drawn((6, 3), 1, 0.1, rmax=99.0, dmax=99.0))
    yield from far_from_zero((8, 2), 1)


def image_cases(*xs, **changes):
    """For (N, C, H, W), with as many channels as columns of pixels, and not."""
    yield from one_change_at_a_time(plain(xs[0], 1), **changes)
    for x in xs[1:]:
        yield Case("pixels that differ", {**plain(x, 1), "eps": 4.0})
    yield from spreads(around_zero(xs[-1]))
    yield Case("one image", drawn((1, 2, 2, 3), 1, 0.5))
    yield Case("one channel", drawn((3, 1, 2, 2), 1, 0.5))
    yield Case("one pixel in each image", drawn((4, 3, 1, 1), 1, 0.5))
    yield Case("two channels", drawn((2, 2, 1, 3), 1, TINY))
    yield Case("as many channels as pixels", drawn((2, 3, 2, 3), 1, 0.5))
    yield Case("all axes alike", drawn((3, 3, 3, 3), 1, 1e-5, digits=6))
    constant = drawn((3, 2, 2, 1), 1, 1e-3, flat=np.s_[:, 1])
    yield Case("a channel that does not vary", constant)
    yield Case("eps as large as the variance", drawn((2, 4, 3, 2), 1, 4.0))
    yield Case("many images", drawn((16, 2, 4, 5), 1, 1e-5, digits=6))
    yield from far_from_zero((4, 2, 3, 2), 1)


def row_cases(x, level=5.0, far=True, **changes):
    """For (N, D), normalized along each row; gamma has one entry per column."""
    yield from one_change_at_a_time(plain(x, 1), **changes)
    yield from spreads(around_zero(x))
    yield Case("one column", drawn((3, 1), 1, 0.5))
    yield Case("one row", drawn((1, 4), 1, 0.5))
    yield Case("two rows, three columns", drawn((2, 3), 1, TINY))
    yield Case("three rows, two columns", drawn((3, 2), 1, 0.5))
    yield Case("a square", drawn((3, 3), 1, TINY))
    constant = drawn((2, 5), 1, 1e-3, flat=np.s_[1], level=level)
    yield Case("a row of zeros" if level == 0 else "a row that does not vary", constant)
    yield Case("eps as large as the variance", drawn((3, 5), 1, 9.0))
    yield Case("more rows than columns", drawn((7, 4), 1, 0.1))
    yield Case("a long row", drawn((3, 64), 1, 1e-5, digits=6))
    yield from far_from_zero((2, 8), 1) if far else ()


class Property(NamedTuple):
    """A sentence, and a function (arguments, outputs) -> (found, what it should be).

    changes : gives arguments to call the answer once more with; then `holds` gets these
    arguments, what came back, and the outputs from before.
    """

    says: str
    holds: Callable
    changes: Callable | None = None


def sums_to_zero(axes, words):
    return Property(
        f"dx should sum to 0 over {words}: adding a constant to x changes no output",
        lambda args, out: (out["dx"].sum(axis=axes), 0 * out["dx"].sum(axis=axes)),
    )


def mean_is_beta(axis, words):
    return Property(
        f"the mean of y over {words} should be beta: xhat has mean 0",
        lambda args, out: (out["y"].mean(axis=axis), args["beta"]),
    )


DBETA_IS_THE_SUM = Property(
    "dbeta is the sum of dy over all that share one beta: beta is added",
    lambda args, out: (out["dbeta"], args["dy"].sum(axis=_rest(args["dy"]))),
)


def _xhat(args, out):
    """What an answer normalized to, gamma and beta taken off; channels on axis 1."""
    line = (1, -1) + (1,) * (out["y"].ndim - 2)
    return (out["y"] - np.reshape(args.get("beta", 0.0), line)) / np.reshape(
        args["gamma"], line
    )


def xhat_has_mean_zero(cut, words):
    """`cut` puts what shares a mean into one row: (arguments, xhat) -> 2-D array."""
    return Property(
        f"(y − beta) / gamma has mean 0 over {words}",
        lambda args, out: (
            (means := cut(args, _xhat(args, out)).mean(axis=-1)),
            0 * means,
        ),
    )


XHAT_HAS_MEAN_SQUARE = Property(
    "(y / gamma)² has the mean m / (m + eps) in each row, m the mean of x²",
    lambda args, out: (
        (_xhat(args, out) ** 2).mean(axis=1),
        (m := (args["x"] ** 2).mean(axis=1)) / (m + args["eps"]),
    ),
)


def stays(says, output, changes, part=lambda a: a):
    """An output that some change of the arguments leaves as it is."""
    return Property(
        says,
        lambda args, out, before: (part(out[output]), part(before[output])),
        changes,
    )


def every_row_twice(output):
    """Averages over rows do not mind if every row is there twice."""
    return stays(
        f"{output} should stay as it is if every row of x comes twice",
        output,
        lambda args: {"x": np.repeat(args["x"], 2, axis=0)},
        lambda a: a if a.ndim < 2 else a[:1],
    )


def same_slope(forward, *more):
    """dx by finite differences of a forward pass: of x, gamma, eps and more by name."""

    def holds(args, out):
        x, gamma = args["x"], args["gamma"]
        way = np.cos(np.arange(x.size)).reshape(x.shape) * np.ptp(x)
        rest = {name: args[name] for name in ("eps", *more)}
        ends = (forward(x + h * way, gamma, **rest)[0] for h in (1e-5, -1e-5))
        there, back = ((args["dy"] * y).sum() for y in ends)
        return (out["dx"] * way).sum(), (there - back) / 2e-5

    return Property(
        "along a small step of x the loss changes by sum(dx · step): finite "
        "differences of the forward pass say so",
        holds,
    )


VARIANCE_IS_POSITIVE = Property(
    "a variance is never negative",
    lambda args, out: (np.minimum(out["var"], 0), 0 * out["var"]),
)


def _rest(x):
    return (0, *range(2, x.ndim))
