"""No hole: whole families of wrong answers, made by machine, and none may pass.

Every argument perturbed, ignored, used twice, exchanged for another; a constant beside
eps; every line of a solution changed in every place. What gives the same numbers on
fresh inputs is no mistake, and is left out; all else has to be flagged.
"""

import itertools

import numpy as np
import pytest

from bnlib.exercises import EXERCISES
from bnlib.exercises._answer import Answer
from bnlib.exercises._explain import how_far, is_right, judge
from bnlib.exercises._slips import slips

NAMES = sorted(EXERCISES)
every_exercise = pytest.mark.parametrize("name", NAMES)


def tuple_of(result):
    result = result if isinstance(result, tuple) else (result,)
    return tuple(np.asarray(r, dtype=float) for r in result)


def is_flagged(exercise, function):
    """Is an answer wrong on some input, or does it stop there?"""
    for case in exercise.cases:
        try:
            outputs = tuple_of(function(*case.in_double()))
        except Exception:
            return True
        answer = judge(exercise, Answer(case, outputs))
        if not is_right(answer) or answer.problems:
            return True
    return False


def fresh(exercise, seed):
    """Inputs that no check uses: those of the checks, every number moved a little."""
    rng = np.random.default_rng(seed)
    for case in exercise.cases:
        if case.kind == "ordinary":
            moved = {}
            for name, value in case.args.items():
                noise = 1 + 0.3 * rng.uniform(size=np.shape(value))
                whole = np.asarray(value).dtype.kind == "i"
                moved[name] = value if whole else value * noise
            if "x" in moved:
                x = moved["x"]
                moved["x"] = x + 0.1 * abs(x).max() * rng.normal(size=x.shape)
            yield list(moved.values())


def is_equivalent(exercise, function):
    """Does it compute the same as the solution, in another way?"""
    with np.errstate(all="ignore"):
        for args in fresh(exercise, 5):
            try:
                got = tuple_of(function(*args))
            except Exception:
                return False
            want = tuple_of(exercise.solution(*args))
            if len(got) != len(want) or any(
                g.shape != w.shape or how_far(g, w, 1e-6) > 1e-7
                for g, w in zip(got, want, strict=True)
            ):
                return False
    return True


def passing(exercise, family):
    """Those of a family of wrong answers that are not flagged though they are wrong."""
    with np.errstate(all="ignore"):
        return [
            what
            for what, function in family
            if not is_flagged(exercise, function)
            and not is_equivalent(exercise, function)
        ]


def with_argument(exercise, change):
    """The solution, its arguments changed first."""

    def function(*args):
        given = dict(zip(exercise.arguments, args, strict=True))
        return exercise.solution(**change(given))

    return function


PERTURBED = {
    "times 1.001": lambda a: a * 1.001,
    "times 2": lambda a: a * 2,
    "negative": lambda a: -a,
    "squared": lambda a: a * a,
    "root": lambda a: np.sqrt(abs(a)),
    "absolute": abs,
    "plus .01": lambda a: a + 0.01,
    "zero": lambda a: 0 * a,
    "one": lambda a: 0 * a + 1,
    "rounded": lambda a: np.round(a, 2),
    "float16": lambda a: np.asarray(a, np.float16).astype(float),
    "its mean": lambda a: 0 * a + np.mean(a),
    "first alone": lambda a: 0 * a + np.ravel(a)[0],
    "clipped above": lambda a: np.minimum(a, 1e3),
    "clipped below": lambda a: np.maximum(a, 1e-8),
    "clipped at 100": lambda a: np.clip(a, -100, 100),
}
REORDERED = {
    "reversed": lambda a: a[::-1],
    "reversed at the end": lambda a: a[..., ::-1],
    "rolled": lambda a: np.roll(a, 1, axis=0),
    "sorted": lambda a: np.sort(a, axis=0),
    "sorted at the end": lambda a: np.sort(a),
    "without the last": lambda a: np.concatenate([a[:-1], a[:1]]),
    "turned": lambda a: np.ascontiguousarray(a.T).reshape(a.shape),
}


def arguments_changed(exercise):
    """Every argument perturbed, ignored, reordered; and each put in another's place."""
    for name in exercise.arguments:
        for what, change in (PERTURBED | REORDERED).items():
            yield (
                f"{name}: {what}",
                with_argument(exercise, lambda g, n=name, c=change: {**g, n: c(g[n])}),
            )
    for a, b in itertools.permutations(exercise.arguments, 2):
        yield (
            f"{a} in the place of {b}",
            with_argument(exercise, lambda g, a=a, b=b: {**g, b: g[a]}),
        )
        yield (
            f"{a} exchanged for {b}",
            with_argument(exercise, lambda g, a=a, b=b: {**g, b: g[a], a: g[b]}),
        )
        yield (
            f"{b} used in {a} too",
            with_argument(exercise, lambda g, a=a, b=b: {**g, a: g[a] * g[b]}),
        )


def outputs_changed(exercise):
    for i, name in enumerate(exercise.outputs):
        for what, change in PERTURBED.items():

            def function(*args, i=i, change=change):
                outputs = list(tuple_of(exercise.solution(*args)))
                outputs[i] = change(outputs[i])
                return tuple(outputs)

            yield f"{name}: {what}", function


def constants_added(exercise):
    """A number of one's own beside whatever stands under a root, or is divided by."""
    sizes = [10.0**-n for n in range(2, 19)] + [2.2e-16, 1.2e-7]
    for name in {"eps", "var", "running_var", "running_std"} & {*exercise.arguments}:
        for size in sizes:
            plus = with_argument(exercise, lambda g, n=name, s=size: {**g, n: g[n] + s})
            yield f"{name} + {size:g}", plus
            floor = with_argument(
                exercise, lambda g, n=name, s=size: {**g, n: np.maximum(g[n], s)}
            )
            yield f"at least {size:g} for {name}", floor


def lines_changed(exercise):
    for slip in slips(exercise):
        changed = {*slip.lines} - {*exercise.lines}
        yield f"{slip.names[0]} {changed}", exercise.with_lines(slip.lines)


FAMILIES = (arguments_changed, outputs_changed, constants_added, lines_changed)


@every_exercise
@pytest.mark.parametrize("family", FAMILIES, ids=lambda f: f.__name__)
@pytest.mark.filterwarnings("ignore")
def test_nothing_wrong_passes(name, family):
    wrong = list(family(EXERCISES[name]))
    constant = family is constants_added  # merge_moments has nothing to add it to
    assert len(wrong) > 10 or (constant and not {"eps"} & {*EXERCISES[name].arguments})
    assert passing(EXERCISES[name], wrong) == []


@every_exercise
def test_the_right_ones_are_not_flagged_and_the_tests_can_fail(name):
    exercise = EXERCISES[name]
    assert not is_flagged(exercise, exercise.solution)
    assert is_equivalent(exercise, exercise.solution)
    assert not is_equivalent(exercise, lambda *args: args[0] + 1)


@every_exercise
def test_properties_hold_of_the_solution_on_every_input(name):
    exercise = EXERCISES[name]
    assert exercise.properties

    def named(args):
        return dict(
            zip(exercise.outputs, tuple_of(exercise.solution(**args)), strict=True)
        )

    for says, holds, changes in exercise.properties:
        for case in exercise.cases:
            if case.kind == "ordinary":
                args = {**case.args, **(changes(case.args) if changes else {})}
                more = (named(case.args),) if changes else ()
                found, wanted = (
                    np.atleast_1d(a).astype(float)
                    for a in holds(args, named(args), *more)
                )
                assert how_far(found, wanted, case.least) < 1e-4, (says, case.label)
