"""From chapters/A3_exercises.ipynb.

Extracted by `make export`: edit the notebook, not this file.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

TINY = 1e-12  # an eps that changes no digit that is shown


class Case(NamedTuple):
    """One input: what is special about it, the arguments, and how it is judged.

    kind : "ordinary"; "float32", at an offset where float32 needs care; or "offset", so
    far from zero that only a variance computed from differences survives in float64.
    """

    label: str
    args: dict
    kind: str = "ordinary"

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


def drawn(shape, axis, eps, *, offset=0.0, dtype=float, flat=None, **fixed):
    """Arguments at random; x equals 5 in the part that `flat` names."""
    rng = np.random.default_rng(sum(shape))
    count, line = shape[axis], [1] * len(shape)
    line[axis] = -1
    shift = rng.normal(0, 3, size=count).round(1)
    x = offset + shift.reshape(line) + rng.normal(0, 2, size=shape).round(1)
    variance = rng.uniform(6, 20, size=count).round(1)
    if flat is not None:
        x[flat], variance[-1] = fixed.pop("level", 5.0), 0
    sign = np.where(np.arange(count) % 2, -1, 1)
    arrays = {
        "x": x,
        "dy": rng.normal(size=shape).round(1),
        "gamma": sign * rng.uniform(0.5, 2, size=count).round(1),
        "beta": rng.normal(0, 2, size=count).round(1),
        "running_mean": offset + shift + rng.normal(0, 2, size=count).round(1),
        "running_var": variance,
        "running_std": rng.uniform(0.5, 4, size=count).round(1),
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


def batch_cases(x, **changes):
    """For (N, C): few rows and many, square and not, a column that does not vary."""
    yield from one_change_at_a_time(plain(x, 1), **changes)
    yield Case("three rows, two columns", drawn((3, 2), 1, TINY))
    yield Case("two rows, three columns", drawn((2, 3), 1, 0.5))
    yield Case("a square", drawn((3, 3), 1, TINY))
    constant = drawn((5, 2), 1, 1e-3, flat=np.s_[:, 1])
    yield Case("a column that does not vary", constant)
    yield Case("eps as large as the variance", drawn((5, 3), 1, 4.0))
    wide = drawn((4, 7), 1, 0.1, rmax=1.2, dmax=2.0, momentum=0.6)
    yield Case("more columns than rows", wide)
    yield Case("many rows", drawn((64, 3), 1, 1e-5, rmax=4.0, dmax=0.1, momentum=0.9))
    yield Case("nothing is clipped", drawn((6, 3), 1, 0.1, rmax=99.0, dmax=99.0))
    yield from far_from_zero((8, 2), 1)


def image_cases(*xs, **changes):
    """For (N, C, H, W), with as many channels as columns of pixels, and not."""
    yield from one_change_at_a_time(plain(xs[0], 1), **changes)
    for x in xs[1:]:
        yield Case("pixels that differ", {**plain(x, 1), "eps": 4.0})
    yield Case("two channels", drawn((2, 2, 1, 3), 1, TINY))
    yield Case("as many channels as pixels", drawn((2, 3, 2, 3), 1, 0.5))
    yield Case("all axes alike", drawn((3, 3, 3, 3), 1, 1e-5))
    constant = drawn((3, 2, 2, 1), 1, 1e-3, flat=np.s_[:, 1])
    yield Case("a channel that does not vary", constant)
    yield Case("eps as large as the variance", drawn((2, 4, 3, 2), 1, 4.0))
    yield Case("many images", drawn((16, 2, 4, 5), 1, 1e-5))
    yield from far_from_zero((4, 2, 3, 2), 1)


def row_cases(x, level=5.0, far=True, **changes):
    """For (N, D), normalized along each row; gamma has one entry per column."""
    yield from one_change_at_a_time(plain(x, 1), **changes)
    yield Case("two rows, three columns", drawn((2, 3), 1, TINY))
    yield Case("three rows, two columns", drawn((3, 2), 1, 0.5))
    yield Case("a square", drawn((3, 3), 1, TINY))
    constant = drawn((2, 5), 1, 1e-3, flat=np.s_[1], level=level)
    yield Case("a row of zeros" if level == 0 else "a row that does not vary", constant)
    yield Case("eps as large as the variance", drawn((3, 5), 1, 9.0))
    yield Case("more rows than columns", drawn((7, 4), 1, 0.1))
    yield Case("a long row", drawn((3, 64), 1, 1e-5))
    yield from far_from_zero((2, 8), 1) if far else ()


class Property(NamedTuple):
    """A sentence, and a function (arguments, outputs) -> (found, what it should be)."""

    says: str
    holds: Callable


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
    "dbeta should not depend on x: beta is added, its gradient is made of dy alone",
    lambda args, out: (out["dbeta"], args["dy"].sum(axis=_rest(args["dy"]))),
)


VARIANCE_IS_POSITIVE = Property(
    "a variance is never negative",
    lambda args, out: (np.minimum(out["var"], 0), 0 * out["var"]),
)


def _rest(x):
    return (0, *range(2, x.ndim))
