"""From chapters/A3_exercises.ipynb.

Extracted by `make export`: edit the notebook, not this file.
"""

import itertools

import numpy as np

from bnlib.exercises._exercise import outputs_of

TOLERANCE = {"ordinary": 1e-4, "float32": 2e-2, "offset": 1e-4}
DOUBLE = 1e-8  # closer than this: computed in double precision
LEAST = 0.01  # values smaller than this are compared as if they were as large


def how_far(got, want, least=LEAST):
    """The largest error, relative to the largest value; inf if one is finite alone."""
    finite = np.isfinite(want)
    if got.shape != want.shape or not np.array_equal(finite, np.isfinite(got)):
        return np.inf
    scale = max(least, abs(want[finite]).max(initial=0))
    return abs(got[finite] - want[finite]).max(initial=0) / scale


def _fits_shape(exercise, got, want):
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
        result = exercise.reference(*case.in_double())
        result = result if isinstance(result, tuple) else (result,)
        known[case.label] = tuple(np.asarray(r, dtype=float) for r in result)
    return known[case.label]


def judge(exercise, answer):
    """Fill in how far each output is off, and whether a shape is to blame."""
    off, shapes, fitted = [], [], []
    want = expected_of(exercise, answer.case)
    for name, got, w in zip(exercise.outputs, answer.outputs, want, strict=False):
        array, problem = _fits_shape(exercise, got, w)
        if problem:
            text = f"{name} has shape {got.shape}; it should be {w.shape}."
            shapes.append((problem, text))
        off.append(how_far(array, w))
        fitted.append(array)
    answer.shapes = tuple(got.shape for got in answer.outputs)
    answer.outputs, answer.off = tuple(fitted), tuple(off)
    answer.problems += tuple(shapes)
    return answer


def is_right(answer):
    tolerance = TOLERANCE[answer.case.kind]
    return bool(answer.off) and max(answer.off) <= tolerance


def is_same(got, want):
    """Are these the same numbers, infinite ones included?"""
    want = np.asarray(want, dtype=float)
    if _long(got) == _long(want):
        want = want.reshape(got.shape)
    return how_far(got, want) <= TOLERANCE["ordinary"]


def _explains(exercise, names, answers, outputs):
    """Do these mistakes give the same as the answers, in these outputs?"""
    for answer in answers:
        if not answer.outputs:
            continue
        mutant = outputs_of(exercise, names, answer.case.label)
        if mutant is None:
            return False
        alike = next((_ALIKE[name] for name in names if name in _ALIKE), is_same)
        if not all(alike(answer.outputs[i], mutant[i]) for i in outputs):
            return False
    return True


def _sorted_columns(y):
    """The columns of y in an order, and with signs, that do not depend on y's own."""
    y = y * np.where(y[abs(y).argmax(axis=0), range(y.shape[1])] < 0, -1, 1)
    return y[:, np.lexsort(y.round(6))]


def _same_up_to_columns(got, want):
    """Eigenvectors have no sign and no order: compare as if columns had neither."""
    both = (
        got.shape == want.shape and np.isfinite(got).all() and np.isfinite(want).all()
    )
    return both and is_same(_sorted_columns(got), _sorted_columns(want))


def _same_up_to_rotation(got, want):
    """Turning the columns into each other leaves all products of rows as they are."""
    return got.shape == want.shape and is_same(got @ got.T, want @ want.T)


_ALIKE = {
    "pca-instead-of-zca": _same_up_to_columns,
    "cholesky-instead-of-zca": _same_up_to_rotation,
}


def _candidates(exercise):
    return itertools.chain(((name,) for name in exercise.mistakes), exercise.pairs)


def explanation(exercise, answers):
    """Names of mistakes that explain the answers, and the outputs none explains."""
    answers = [a for a in answers if a.case.kind == "ordinary"]
    answers.sort(key=is_right)  # the telling ones first; the sort is stable
    every = range(len(exercise.outputs))
    told = [a for a in answers if a.outputs]
    if not any(not is_right(a) for a in told):
        return (), ()
    for names in _candidates(exercise):
        if _explains(exercise, names, answers, every):
            return names, ()
    wrong = [i for i in every if any(a.off[i] > TOLERANCE["ordinary"] for a in told)]
    return _one_by_one(exercise, answers, wrong) if len(every) > 1 else ((), wrong)


def _one_by_one(exercise, answers, wrong):
    found, open_ones = {}, []
    for i in wrong:
        fitting = (
            n for n in _candidates(exercise) if _explains(exercise, n, answers, [i])
        )
        names = next(fitting, None)
        if names is None:
            open_ones.append(i)
        else:
            found |= dict.fromkeys(names)
    return tuple(found), tuple(open_ones)
