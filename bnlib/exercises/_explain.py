"""From chapters/A3_exercises.ipynb.

Extracted by `make export`: edit the notebook, not this file.
"""

import functools
import itertools
import math
from typing import NamedTuple

import numpy as np

from bnlib.exercises._exercise import (
    SAMPLE,
    outputs_of,
    outputs_of_lines,
)
from bnlib.exercises._slips import slips

TOLERANCE = {"ordinary": 1e-4, "small": 1e-4, "float32": 2e-2, "offset": 1e-4}
DOUBLE = 1e-8  # closer than this: computed in double precision


def how_far(got, want, least=0.01):
    """The largest error, relative to the largest value; inf if one is finite alone."""
    if got.shape != want.shape:
        return np.inf
    size = abs(want).max(initial=0)
    if math.isfinite(size + abs(got).max(initial=0)):
        return abs(got - want).max(initial=0) / max(least, size)
    finite = np.isfinite(want)
    if not np.array_equal(finite, np.isfinite(got)):
        return np.inf
    scale = max(least, abs(want[finite]).max(initial=0))
    return abs(got[finite] - want[finite]).max(initial=0) / scale


def fits_shape(exercise, got, want):
    """`got` in the shape expected if it can be, and what was wrong with its own."""
    if got.shape == want.shape:
        return got, ""
    if _long(got) == _long(want):
        kept = exercise.flexible and got.shape == (1, *want.shape)
        return got.reshape(want.shape), "" if kept else "wrong-shape"
    return got, "wrong-size"


def _long(array):
    """The shape of an array, axes of length 1 left out."""
    return tuple(n for n in array.shape if n > 1)


def expected_of(exercise, case):
    """What the package computes, in double precision; known once per exercise."""
    known = exercise.__dict__.setdefault("_known", {})
    if case.label not in known:
        known[case.label] = reference_on(exercise, case)
    return known[case.label]


def reference_on(exercise, case):
    result = exercise.reference(*case.in_double())
    result = result if isinstance(result, tuple) else (result,)
    return tuple(np.asarray(r, dtype=float) for r in result)


def judge(exercise, answer):
    """Fill in how far each output is off, and whether a shape is to blame."""
    off, shapes, fitted = [], [], []
    want = expected_of(exercise, answer.case)
    for name, got, w in zip(exercise.outputs, answer.outputs, want, strict=False):
        array, problem = fits_shape(exercise, got, w)
        if problem:
            text = f"{name} has shape {got.shape}; it should be {w.shape}."
            shapes.append((problem, text))
        off.append(how_far(array, w, answer.case.least))
        fitted.append(array)
    answer.shapes = tuple(got.shape for got in answer.outputs)
    answer.outputs, answer.off = tuple(fitted), tuple(off)
    answer.problems += tuple(shapes)
    return answer


def is_right(answer):
    tolerance = TOLERANCE[answer.case.kind]
    return bool(answer.off) and max(answer.off) <= tolerance


def is_same(got, want, least=0.01):
    """Are these the same numbers, infinite ones included?"""
    want = np.asarray(want, dtype=float)
    if got.shape != want.shape and _long(got) == _long(want):
        want = want.reshape(got.shape)
    return how_far(got, want, least) <= TOLERANCE["ordinary"]


def _explains(gives, answers, outputs, alike=is_same):
    """Are these outputs of the answers what a wrong solution gives on their cases?"""
    for answer in answers:
        wrong = gives(answer.case) if answer.outputs else answer.outputs
        if wrong is None or (wrong and len(wrong) != len(answer.outputs)):
            return False
        pairs = ((answer.outputs[i], wrong[i]) for i in outputs if wrong)
        if not all(alike(*pair, least=answer.case.least) for pair in pairs):
            return False
    return True


def _sorted_columns(y):
    """The columns of y in an order, and with signs, that do not depend on y's own."""
    y = y * np.where(y[abs(y).argmax(axis=0), range(y.shape[1])] < 0, -1, 1)
    return y[:, np.lexsort(y.round(6))]


def _same_up_to_columns(got, want, least):
    """Eigenvectors have no sign and no order: compare as if columns had neither."""
    both = (
        got.shape == want.shape and np.isfinite(got).all() and np.isfinite(want).all()
    )
    return both and is_same(_sorted_columns(got), _sorted_columns(want), least)


def _same_up_to_rotation(got, want, least):
    """Turning the columns into each other leaves all products of rows as they are."""
    return got.shape == want.shape and is_same(got @ got.T, want @ want.T, least**2)


_ALIKE = {
    "pca-instead-of-zca": _same_up_to_columns,
    "cholesky-instead-of-zca": _same_up_to_rotation,
}


# Numbers that people write where eps or momentum belongs.
CONSTANTS = (
    *(10.0**-n for n in range(1, 17)),
    *(0.9, 0.99, 0.999, 0.5, 1.0, 2.0),
    *(float(np.finfo(t).eps) for t in (np.float32, np.float64)),
)


WITH_ANOTHER = (1e-2, 1e-4, 1e-6, 1e-12)  # beside a second mistake


class Cause(NamedTuple):
    """Which outputs a mistake explains, of how many; the number that stands for C."""

    outputs: tuple
    constant: float = SAMPLE


def _from_catalogue(exercise, answers, outputs):
    """The names of one or two mistakes of the catalogue, each with its cause."""
    singles = ((name,) for name in exercise.mistakes)
    for names in itertools.chain(singles, exercise.pairs):
        alike = next((_ALIKE[name] for name in names if name in _ALIKE), is_same)
        gives = functools.partial(_gives, exercise, names)
        if _explains(gives, answers, outputs, alike):
            return dict.fromkeys(names, Cause(outputs))
    return {}


def _gives(exercise, names, case, constant=SAMPLE):
    return outputs_of(exercise, names, case.label, constant)


def _from_constants(exercise, answers, outputs):
    """The same, where a number of somebody's own stands in a line."""
    for names in exercise.with_constants:
        for constant in CONSTANTS if len(names) == 1 else WITH_ANOTHER:
            gives = functools.partial(_gives, exercise, names, constant=constant)
            if _explains(gives, answers, outputs):
                return dict.fromkeys(names, Cause(outputs, constant))
    return {}


def _from_slips(exercise, answers, outputs):
    """A slip that nobody has listed: one place of one line is written otherwise."""
    told = [a.outputs[i] for a in answers for i in outputs if a.outputs]
    if not any(np.isfinite(array).any() for array in told):
        return {}
    for name, lines in slips(exercise):
        if _explains(
            lambda case, lines=lines: outputs_of_lines(exercise, lines, case.label),
            answers,
            outputs,
        ):
            return {name: Cause(outputs)}
    return {}


def explanation(exercise, answers):
    """{name of a mistake: its cause}, and the outputs that none explains."""
    answers = [a for a in answers if a.case.kind == "ordinary"]
    answers.sort(key=is_right)  # the telling ones first; the sort is stable
    every = tuple(range(len(exercise.outputs)))
    told = [a for a in answers if a.outputs]
    if not any(not is_right(a) for a in told):
        return {}, ()
    wrong = [i for i in every if any(a.off[i] > TOLERANCE["ordinary"] for a in told)]
    if found := _from_catalogue(exercise, answers, every):
        return found, ()
    found = one_by_one(exercise, answers, wrong, (_from_catalogue,))
    if not found[1]:
        return found
    for source in (_from_constants, _from_slips):
        if found := source(exercise, answers, every):
            return found, ()
    return one_by_one(exercise, answers, wrong, SOURCES)


SOURCES = (_from_catalogue, _from_constants, _from_slips)


def one_by_one(exercise, answers, wrong, sources):
    """The same where each wrong output may have a cause of its own."""
    found, open_ones = {}, []
    for i in wrong:
        ways = (source(exercise, answers, (i,)) for source in sources)
        names = next(filter(None, ways), {})
        if not names:
            open_ones.append(i)
        for name, cause in names.items():
            before = found[name].outputs if name in found else ()
            found[name] = cause._replace(outputs=(*before, i))
    return found, tuple(open_ones)
