"""From chapters/A3_exercises.ipynb.

Extracted by `make export`: edit the notebook, not this file.
"""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from bnlib.exercises._exercise import (
    SAMPLE,
    lines_of,
    outputs_of_all,
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


class Source(NamedTuple):
    """Wrong solutions of one kind: (exercise) -> them; how one is written; its name."""

    candidates: Callable
    written: Callable  # (exercise, candidate) -> its lines, and C
    causes: Callable  # (candidate, outputs) -> {name: cause}


@functools.cache
def _with_numbers(exercise):
    return tuple(
        (names, number)
        for names in exercise.with_constants
        for number in (CONSTANTS if len(names) == 1 else WITH_ANOTHER)
    )


def _by_name(names, outputs):
    return dict.fromkeys(names, Cause(outputs))


def _by_lines(exercise, names):
    return lines_of(exercise, names), SAMPLE


# One mistake is looked for before two: of those there are thousands.
ONE = Source(lambda e: tuple((name,) for name in e.mistakes), _by_lines, _by_name)
TWO = Source(lambda e: e.pairs, _by_lines, _by_name)
CATALOGUE = ONE, TWO
NUMBERS = Source(
    _with_numbers,
    lambda exercise, one: (lines_of(exercise, one[0]), one[1]),
    lambda one, outputs: dict.fromkeys(one[0], Cause(outputs, one[1])),
)
SLIPS = Source(
    slips,
    lambda exercise, one: (one[1], SAMPLE),
    lambda one, outputs: {one[0]: Cause(outputs)},
)
SOURCES = (*CATALOGUE, NUMBERS, SLIPS)


@functools.lru_cache(maxsize=12)
def _given_by_all(exercise, source, label):
    """Of each output a table: what every candidate gives, a row; nan where it stops."""
    case = next(case for case in exercise.cases if case.label == label)
    written = [source.written(exercise, one) for one in source.candidates(exercise)]
    sizes = [want.size for want in expected_of(exercise, case)]
    tables = [np.full((len(written), size), np.nan) for size in sizes]
    for n, outputs in enumerate(outputs_of_all(exercise, written, label)):
        for table, output in zip(tables, outputs or (), strict=False):
            if output.size == table.shape[1]:
                table[n] = output.ravel()
    return tables


def _possible(exercise, source, answer, outputs):
    """The candidates that one answer does not exclude, looked at all at once."""
    candidates = source.candidates(exercise)
    keep = np.ones(len(candidates), dtype=bool)
    for i in outputs:
        table = _given_by_all(exercise, source, answer.case.label)[i]
        got = answer.outputs[i].ravel()
        if len(candidates) and table.shape[1] == got.size and np.isfinite(got).all():
            size = np.maximum(abs(table).max(axis=1, initial=0), answer.case.least)
            off = abs(table - got).max(axis=1, initial=0)
            keep &= off <= TOLERANCE["ordinary"] * size
    free = source in CATALOGUE and _ALIKE.keys()
    return [
        c for c, k in zip(candidates, keep, strict=True) if k or (free and free & {*c})
    ]


def _found(source, exercise, answers, outputs):
    """{name: cause} of the first candidate that explains these outputs; or {}."""
    told = [a for a in answers if a.outputs]
    if not any(np.isfinite(a.outputs[i]).any() for a in told for i in outputs):
        told = told if source in CATALOGUE else []
    for candidate in _possible(exercise, source, told[0], outputs) if told else ():
        names = candidate if source in CATALOGUE else ()
        alike = next((_ALIKE[name] for name in names if name in _ALIKE), is_same)

        lines, constant = source.written(exercise, candidate)

        def gives(case, lines=lines, constant=constant):
            return outputs_of_lines(exercise, lines, case.label, constant)

        if _explains(gives, answers, outputs, alike):
            return source.causes(candidate, outputs)
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
    for source in CATALOGUE:
        if found := _found(source, exercise, answers, every):
            return found, ()
    found = one_by_one(exercise, answers, wrong, CATALOGUE)
    if not found[1]:
        return found
    for source in (NUMBERS, SLIPS):
        if found := _found(source, exercise, answers, every):
            return found, ()
    return one_by_one(exercise, answers, wrong, SOURCES)


def one_by_one(exercise, answers, wrong, sources):
    """The same where each wrong output may have a cause of its own."""
    found, open_ones = {}, []
    for i in wrong:
        ways = (_found(source, exercise, answers, (i,)) for source in sources)
        names = next(filter(None, ways), {})
        if not names:
            open_ones.append(i)
        for name, cause in names.items():
            before = found[name].outputs if name in found else ()
            found[name] = cause._replace(outputs=(*before, i))
    return found, tuple(open_ones)
