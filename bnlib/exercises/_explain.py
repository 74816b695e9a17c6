"""From chapters/A3_exercises.ipynb.

Extracted by `make export`: edit the notebook, not this file.
"""

import functools
import re
from typing import NamedTuple

import numpy as np

from bnlib.exercises._exercise import SAMPLE, Wrong, lines_of, outputs_of
from bnlib.exercises._mistakes import code_of
from bnlib.exercises._slips import slips

TOLERANCE = {"ordinary": 1e-4, "small": 1e-4, "float32": 2e-2, "offset": 1e-4}
DOUBLE = 1e-8  # closer than this: computed in double precision


def how_far(got, want, least=0.01):
    """The largest error, relative to the largest value; inf if one is finite alone."""
    if got.shape != want.shape:
        return np.inf
    finite = np.isfinite(want)
    if not np.array_equal(finite, np.isfinite(got)):
        return np.inf
    got, want = got[finite], want[finite]
    return abs(got - want).max(initial=0) / max(least, abs(want).max(initial=0))


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


def judge(exercise, answer):
    """Fill in how far each output is off, and whether a shape is to blame."""
    off, shapes, fitted = [], [], []
    want = exercise.expected[answer.case.label]
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
    if got.shape != want.shape and _long(got) == _long(want):
        want = want.reshape(got.shape)
    return how_far(got, want, least) <= TOLERANCE["ordinary"]


def _sorted_columns(y):
    """The columns of y in an order, and with signs, that do not depend on y's own."""
    y = y * np.where(y[abs(y).argmax(axis=0), range(y.shape[1])] < 0, -1, 1)
    return y[:, np.lexsort(y.round(6))]


def _same_up_to_columns(got, want, least):
    """Eigenvectors have no sign and no order: compare as if columns had neither."""
    finite = np.isfinite(got).all() and np.isfinite(want).all()
    able = got.shape == want.shape and finite
    return able and is_same(_sorted_columns(got), _sorted_columns(want), least)


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


@functools.cache
def one_mistake(exercise):
    return [Wrong((name,), lines_of(exercise, (name,))) for name in exercise.mistakes]


@functools.cache
def two_mistakes(exercise):
    rows, pairs = exercise.rows, exercise.pairs
    pairs = [(a, b) for a, b in pairs if not is_one_place(rows, a, b)]
    return [Wrong(names, lines_of(exercise, names)) for names in pairs]


def is_one_place(rows, a, b):
    """Are two mistakes of one kind, in one line? Nobody makes both at once."""
    return code_of(a) == code_of(b) and bool(rows[a].keys() & rows[b].keys())


@functools.cache
def has_number(exercise):
    """The mistakes in whose lines a number C of one's own stands."""
    return {
        name
        for name, wrongs in exercise.rows.items()
        if any(re.search(r"\bC\b", line) for line in wrongs.values())
    }


@functools.cache
def own_numbers(exercise):
    """Mistakes, one or two at a time, with any number for the C in their lines."""
    ways = (one_mistake, CONSTANTS), (two_mistakes, WITH_ANOTHER)
    return [
        wrong._replace(constant=number)
        for source, numbers in ways
        for wrong in source(exercise)
        for number in numbers
        if len(has_number(exercise) & {*wrong.names}) == 1
    ]


# In this order they are looked through. Of pairs and slips there are thousands.
SOURCES = one_mistake, two_mistakes, own_numbers, slips


@functools.lru_cache(maxsize=12)
def _tables(exercise, source, label):
    """Of each output a table: what every solution gives, a row; nan where it stops."""
    case = next(case for case in exercise.cases if case.label == label)
    wrongs, want = source(exercise), exercise.expected[label]
    tables = [np.full((len(wrongs), part.size), np.nan) for part in want]
    for n, wrong in enumerate(wrongs):
        outputs = outputs_of(exercise, wrong.lines, case, wrong.constant) or ()
        for table, output in zip(tables, outputs, strict=False):
            if output.size == table.shape[1]:
                table[n] = output.ravel()
    return tables


def _possible(exercise, source, answer, outputs):
    """The solutions that one answer does not exclude, looked at all at once."""
    wrongs, keep = source(exercise), True
    for i in outputs:
        table = _tables(exercise, source, answer.case.label)[i]
        got = answer.outputs[i].ravel()
        if wrongs and table.shape[1] == got.size:
            size = np.maximum(abs(table).max(axis=1, initial=0), answer.case.least)
            off = abs(table - got).max(axis=1, initial=0)
            keep &= off <= TOLERANCE["ordinary"] * size
    keep = np.broadcast_to(keep, len(wrongs))
    return [w for w, k in zip(wrongs, keep, strict=True) if k or w.names[0] in _ALIKE]


def _explains(exercise, wrong, answers, outputs):
    """Are these outputs of the answers what a wrong solution gives?"""
    alike = next((_ALIKE[name] for name in wrong.names if name in _ALIKE), is_same)
    for answer in answers:
        gives = outputs_of(exercise, wrong.lines, answer.case, wrong.constant)
        if gives is None or not all(
            alike(answer.outputs[i], gives[i], least=answer.case.least) for i in outputs
        ):
            return False
    return True


def _found(source, exercise, answers, outputs):
    """{name: cause} of the first solution that gives these outputs; or {}."""
    told = [a for a in answers if all(np.isfinite(a.outputs[i]).all() for i in outputs)]
    for wrong in _possible(exercise, source, told[0], outputs) if told else ():
        if _explains(exercise, wrong, answers, outputs):
            return dict.fromkeys(wrong.names, Cause(outputs, wrong.constant))
    return {}


class Cause(NamedTuple):
    """Which outputs a mistake explains, of how many; the number that stands for C."""

    outputs: tuple
    constant: float = SAMPLE


def explanation(exercise, answers):
    """{name of a mistake: its cause}, and the outputs that none explains."""
    answers = [a for a in answers if a.case.kind == "ordinary" and a.outputs]
    answers.sort(key=is_right)  # the telling ones first; the sort is stable
    every, limit = tuple(range(len(exercise.outputs))), TOLERANCE["ordinary"]
    wrong = [i for i in every if any(a.off[i] > limit for a in answers)]
    for source in SOURCES if wrong else ():
        if found := _found(source, exercise, answers, every):
            return found, ()
    found, open_ones = {}, []
    for i in wrong:  # each may have a cause of its own
        ways = (_found(source, exercise, answers, (i,)) for source in SOURCES)
        causes = next(filter(None, ways), {})
        open_ones += [] if causes else [i]
        for name, cause in causes.items():
            before = found[name].outputs if name in found else ()
            found[name] = cause._replace(outputs=(*before, i))
    return found, tuple(open_ones)
