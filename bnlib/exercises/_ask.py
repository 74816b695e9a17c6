"""From chapters/A3_exercises.ipynb.

Extracted by `make export`: edit the notebook, not this file.
"""

from typing import NamedTuple

import numpy as np

from bnlib.exercises._cases import in_units
from bnlib.exercises._explain import expected_of, fits_shape, is_same, reference_on
from bnlib.exercises._show import factor_of


def _more(name, value):
    """Another value that is as good: of an argument that is no count."""
    if np.ndim(value) == 0:
        return value + 1 if isinstance(value, int) else 0.5 * value + 0.05
    step = np.arange(1, np.size(value) + 1).reshape(np.shape(value))
    return value + step.astype(value.dtype)


def _last(axis):
    """A change of the last part along an axis of x, such as the last example."""

    def change(x):
        x, at = x.copy(), (slice(None),) * axis + (-1,)
        x[at] = x[at] + np.arange(1, x[at].size + 1).reshape(x[at].shape)
        return x

    return change


class _Asked(NamedTuple):
    """An output before and after a change, as it should be and as it is."""

    name: str
    want: tuple
    got: tuple
    least: float

    def moves(self):
        """(should it move, does it)"""
        return tuple(not is_same(*b, self.least) for b in (self.want, self.got))

    def first(self):
        """The same for what belongs to the first example alone."""
        parts = (tuple(a[:1] for a in both) for both in (self.want, self.got))
        return self._replace(**dict(zip(("want", "got"), parts, strict=True)))

    def factors(self):
        """By which factor it should grow, and by which it does."""
        return tuple(factor_of(new, old) for new, old in (self.want, self.got))


def asked(exercise, ask, answer, i, **changes):
    """An output on the input of an answer, and on that with some arguments changed."""
    args = {**answer.case.args, **changes}
    case = answer.case._replace(args=args, label=f"{answer.case.label}, changed")
    after, want = ask(case), reference_on(exercise, case)
    if not after.outputs:
        return None
    got, _ = fits_shape(exercise, after.outputs[i], want[i])
    if got.shape != want[i].shape or not np.isfinite(got).all():
        return None
    before = expected_of(exercise, answer.case)[i]
    pair = got, answer.outputs[i]
    return _Asked(exercise.outputs[i], (want[i], before), pair, answer.case.least)


def _follows(one, arg, change=""):
    """A sentence where an output follows an argument and should not, or the reverse."""
    should, does = one.moves()
    if should and not does:
        return f"{one.name} should change with {arg}{change}; yours does not."
    if does and not should:
        return f"Here {one.name} does not depend on {arg}{change}; yours does."
    return ""


def _grows(one, arg):
    """A sentence where it grows by another factor than it should."""
    want, got = one.factors()
    if want is None or (got is not None and abs(got - want) < 1e-4):
        return ""
    yours = "does something else" if got is None else f"is {got:.4g} times as large"
    yours = "stays as it is" if got is not None and abs(got - 1) < 1e-9 else yours
    wanted = (
        "stay as it is" if abs(want - 1) < 1e-9 else f"be {want:.4g} times as large"
    )
    return f"With {arg}, {one.name} should {wanted}; yours {yours}."


def effects(exercise, ask, answer, i):
    """A sentence: which arguments an output follows as it should, and which not."""
    found = {True: [], False: []}
    for name, value in answer.case.args.items():
        changed = _more(name, value) if np.asarray(value).dtype.kind == "f" else value
        try:
            one = asked(exercise, ask, answer, i, **{name: changed})
        except (ValueError, ArithmeticError, IndexError):
            continue
        if one and changed is not value:
            steps = (new - old for new, old in (one.got, one.want))
            found[is_same(*steps, one.least)].append(name)
    output, follows = exercise.outputs[i], {k: ", ".join(v) for k, v in found.items()}
    if not found[True]:
        return ""
    if not found[False]:
        return f"{output} follows every argument as it should: what is off is constant."
    good, bad = follows[True], follows[False]
    return f"{output} follows {good} by as much as it should, but not {bad}."


def _units(exercise, case):
    """The same input with all lengths ten times as large."""
    args = in_units(10, case.args)
    return {n: a for n, a in args.items() if a is not case.args[n]}


def answers_to_changes(exercise, ask, answer, i):
    """Sentences about how one output follows its arguments, the plainest first."""
    args = answer.case.args
    scalars = ("num_groups", "counts")  # no number near them means the same

    def look(say, *more, first=False, **changes):
        try:
            one = asked(exercise, ask, answer, i, **changes)
        except (ValueError, ArithmeticError, IndexError):
            return ""  # the package itself refuses such arguments
        one = one.first() if one and first else one
        return say(one, *more) if one else ""

    for name in (n for n in args if n not in (*scalars, "rmax", "dmax")):
        changed = {name: _more(name, args[name])}
        yield look(_follows, name, **changed)
    x = args.get("x")
    if x is None:
        return
    if len(x) > 1 and x.shape == answer.outputs[i].shape:
        about = " of another example"
        last = _last(0)
        yield look(_follows, "x", about, first=True, x=last(x))
    yield look(_follows, "x", " when 100 is added to all of it", x=x + 100)
    yield look(
        _grows, "all lengths ten times as large", **_units(exercise, answer.case)
    )
    for name in ("gamma", "dy"):
        if name in args:
            yield look(_grows, f"{name} doubled", **{name: 2 * args[name]})
