"""From chapters/A4_checker.ipynb.

Extracted by `make export`: edit the notebook, not this file.
"""

import contextlib
import difflib
import functools
import html
import inspect
import io
import itertools
import linecache
import numbers
import signal
import sys
import sysconfig
import textwrap
import threading
import time
import traceback
import warnings
from dataclasses import dataclass

import numpy as np

from bnlib.exercises import EXERCISES, Case, code_of, words_for

__all__ = ["LIMIT", "CheckResult", "check", "Progress", "progress"]


LIMIT = 3.0  # seconds for all inputs of one check together


class _Clock:
    """Whether a call is running, since when, and who was tracing before us."""

    running = False
    cut = False
    wall = cpu = allowed = 0.0
    before = None


# In a browser there is one thread, and no clock of threads.
_busy = getattr(time, "thread_time", time.process_time)


def _late():
    """Is the time up? Somebody who steps through with a debugger may take longer."""
    wall = time.monotonic() - _Clock.wall
    watched = sys.gettrace() not in (None, _every_line)
    busy = _busy() - _Clock.cpu
    return max(busy, wall / 200 if watched else wall) > _Clock.allowed


class _TooSlow(BaseException):
    """Raised inside a call whose time is up; comes back when it is swallowed."""

    def __del__(self):
        if _Clock.running and _Clock.cut:
            _watch(sys._getframe(1))


def _every_line(frame, event, arg):
    """A trace function: raises at the first line after the deadline."""
    if _Clock.running and (_Clock.cut or _late()):
        _Clock.cut = True
        raise _TooSlow
    frame.f_trace_opcodes = True  # `while True: pass` never begins a new line
    return _every_line


def _watch(frame):
    """Have `_every_line` called at every line of this frame and of its callers."""
    sys.settrace(_every_line)
    while frame is not None and frame.f_code is not _limited.__code__:
        frame.f_trace, frame.f_trace_opcodes = _every_line, True
        frame = frame.f_back


def _ring(signum, frame):
    """The alarm went off: raise in the learner's code, never in ours."""
    ours = (_limited.__code__, _arm.__code__, _disarm.__code__)
    if _Clock.running and frame is not None and frame.f_code not in ours and _late():
        _Clock.cut = True
        raise _TooSlow


def _has_alarm():
    main = threading.current_thread() is threading.main_thread()
    able = hasattr(signal, "setitimer") and sys.platform != "emscripten"
    return main and able and signal.getsignal(signal.SIGALRM) is not None


def _arm(seconds):
    """Start the clock; return what `_disarm` has to put back."""
    C, now, alarm = _Clock, time.monotonic(), None
    outer = C.running, C.cut, C.wall, C.cpu, C.allowed, C.before
    if C.running:  # a check inside a check gets what is left to the outer one
        seconds = min(seconds, max(C.allowed - (now - C.wall), 1e-3))
    C.wall, C.cpu, C.before = now, _busy(), sys.gettrace()
    C.allowed, C.cut, C.running = seconds, False, True
    if _has_alarm():
        handler = signal.signal(signal.SIGALRM, _ring)
        alarm = handler, signal.setitimer(signal.ITIMER_REAL, seconds, 0.05)
    elif C.before is None:
        sys.settrace(_every_line)
    return outer, alarm


def _disarm(saved):
    """Stop the clock, leave alarm and tracing as they were; was the call cut off?"""
    C, (outer, alarm) = _Clock, saved
    C.running = False
    if alarm:
        handler, (delay, interval) = alarm
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        if delay:  # somebody else's alarm: due as much earlier as we took
            left = max(delay - (time.monotonic() - C.wall), 1e-3)
            signal.setitimer(signal.ITIMER_REAL, left, interval)
    cut = C.cut
    if cut or sys.gettrace() is _every_line:
        sys.settrace(C.before)
    C.running, C.cut, C.wall, C.cpu, C.allowed, C.before = outer
    return cut


def _limited(call, seconds):
    """(call(), None), or (None, the exception it ended with), after so many seconds."""
    saved = _arm(seconds)
    try:
        result, error = call(), None
    except KeyboardInterrupt:
        raise  # that is the user, and not the function
    except BaseException as caught:
        result, error = None, caught
    finally:
        cut = _disarm(saved)
    return (None, _TooSlow()) if cut else (result, error)


class _Paper(io.StringIO):
    """Where print goes during a check; it has room for a page."""

    def write(self, text):
        if self.tell() < 2000:
            super().write(text[:2000])
        return len(text)


@dataclass
class _Answer:
    """What a function made of one input."""

    case: Case
    outputs: tuple = ()  # arrays, as float64
    error: BaseException | None = None
    problems: tuple = ()  # (code, sentence): what is wrong whatever the numbers are
    changed: tuple = ()  # names of arguments that the function wrote into
    printed: str = ""
    shapes: tuple = ()  # of the outputs, as they came
    off: tuple = ()  # how far each output is from the expected one


def _copies(case):
    return {
        name: value.copy() if isinstance(value, np.ndarray) else value
        for name, value in case.args.items()
    }


def _unchanged(a, b):
    same = np.shape(a) == np.shape(b) and getattr(a, "dtype", 0) == getattr(
        b, "dtype", 0
    )
    return same and np.array_equal(a, b, equal_nan=True)


def _caller(exercise, function):
    """How to pass the arguments: by name if the names are ours, in order if not."""
    names = exercise.arguments
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return lambda args: function(*args.values())  # compiled: calling will tell
    if set(signature.parameters) == set(names):
        return lambda args: function(**args)
    try:
        signature.bind(*names)
    except TypeError:
        signature.bind(**dict.fromkeys(names))  # may raise: then there is no way
        return lambda args: function(**args)
    return lambda args: function(*args.values())


@contextlib.contextmanager
def _breakpoints(screen, hook):
    """Let breakpoint() talk to the user though print is caught."""

    def stop(*args, **kwargs):
        with contextlib.redirect_stdout(screen):
            return hook(*args, **kwargs)

    sys.breakpointhook = stop
    try:
        yield
    finally:
        sys.breakpointhook = hook


def _run(exercise, caller, case, seconds):
    """The answer of a function to one input."""
    args, paper = _copies(case), _Paper()
    with (
        np.errstate(all="ignore"),
        warnings.catch_warnings(),
        _breakpoints(sys.stdout, sys.breakpointhook),
        contextlib.redirect_stdout(paper),
        contextlib.redirect_stderr(paper),
    ):
        warnings.simplefilter("ignore")
        both, error = _limited(
            lambda: _read(exercise, caller(args)), max(seconds, 0.05)
        )
    outputs, problems = both or ((), ())
    changed = tuple(n for n, a in args.items() if not _unchanged(a, case.args[n]))
    return _Answer(case, outputs, error, problems, changed, paper.getvalue())


_MOST = 100_000  # numbers; no exercise asks for more than 480


def _exact(array):
    """Fractions and other Python numbers as floats; anything else as it came."""
    if array.dtype != object or not array.size:
        return array
    if not all(isinstance(value, numbers.Real) for value in array.flat):
        return array
    return array.astype(float)


def _array(name, part):
    """(float64 array, problems) for one thing that a function returned."""
    if hasattr(part, "detach"):  # a torch tensor, perhaps with a graph behind it
        part = part.detach()
        part = part.cpu() if hasattr(part, "cpu") else part
    try:
        array = np.array(part)
    except Exception as error:
        what = f"{name} cannot be read as an array: {_one_line(error)}"
        return None, (("wrong-dtype", what),)
    if array.size > _MOST:
        what = f"{name} has shape {array.shape}: far more numbers than are asked for."
        return None, (("wrong-shape", what),)
    array = _exact(array)
    given = array.dtype
    good = given.kind == "f" and given.itemsize >= 4
    if not (good or (given.kind in "fiu" and isinstance(part, list | float | int))):
        what = f"{name} has dtype {given}; float64 is expected, float32 is fine."
        if given.kind not in "fiubc":
            found = f"an array of {given}" if isinstance(part, np.ndarray) else "a "
            found = found if found[-1] != " " else found + type(part).__name__
            what = f"{name} should be an array of numbers; yours is {found}."
            return None, (("wrong-outputs", what),)
        return np.real(array).astype(float), (("wrong-dtype", what),)
    return array.astype(float), ()


def _one_line(error):
    """An error in one line of bounded length."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:200]}" if text else type(error).__name__


def _parts(exercise, result):
    """What a function returned, cut into outputs, or a problem."""
    names = exercise.outputs
    asked = f"{len(names)} outputs, ({', '.join(names)})"
    asked = f"{names[0]} alone" if len(names) == 1 else asked
    if len(names) == 1 and not isinstance(result, tuple | dict):
        return [result], ()
    stacked = isinstance(result, np.ndarray) and len(names) == np.ndim(result) == 2
    if isinstance(result, tuple | list) or (stacked and len(result) == len(names)):
        found = f"a {type(result).__name__} of {len(result)}"
        if len(result) == len(names) and len(names) > 1:
            return list(result), ()
        problem = (("wrong-outputs", f"You return {found}; return {asked}."),)
        return list(result)[: len(names)], problem
    found = type(result).__name__
    return [], (("wrong-outputs", f"You return one {found}; return {asked}."),)


def _read(exercise, result):
    """(arrays, problems) from what a function returned."""
    if result is None:
        return (), (("returns-none", words_for(exercise, "returns-none")[0]),)
    if inspect.iscoroutine(result):
        result.close()
    parts, problems = _parts(exercise, result)
    arrays = []
    for name, part in zip(exercise.outputs, parts, strict=False):
        if part is None:
            return (), (("returns-none", f"{name} is None."),)
        array, more = _array(name, part)
        arrays.append(array)
        problems += more
    whole = len(arrays) == len(exercise.outputs) and all(a is not None for a in arrays)
    return (tuple(arrays) if whole else ()), problems


_TOLERANCE = {"ordinary": 1e-4, "float32": 2e-2, "offset": 1e-4}
_DOUBLE = 1e-8  # closer than this: computed in double precision
_LEAST = 0.01  # values smaller than this are compared as if they were as large


def _off(got, want, least=_LEAST):
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


def _expected(exercise, case):
    """What the package computes, in double precision; known once per exercise."""
    known = exercise.__dict__.setdefault("_known", {})
    if case.label not in known:
        result = exercise.reference(*_in_double(case))
        result = result if isinstance(result, tuple) else (result,)
        known[case.label] = tuple(np.asarray(r, dtype=float) for r in result)
    return known[case.label]


def _in_double(case):
    """The arguments of a case, float32 made float64."""
    arrays = (
        isinstance(a, np.ndarray) and a.dtype.kind == "f" for a in case.args.values()
    )
    both = zip(arrays, case.args.values(), strict=True)
    return [a.astype(float) if is_array else a for is_array, a in both]


def _judge(exercise, answer):
    """Fill in how far each output is off, and whether a shape is to blame."""
    off, shapes, fitted = [], [], []
    want = _expected(exercise, answer.case)
    for name, got, w in zip(exercise.outputs, answer.outputs, want, strict=False):
        array, problem = _fits_shape(exercise, got, w)
        if problem:
            text = f"{name} has shape {got.shape}; it should be {w.shape}."
            shapes.append((problem, text))
        off.append(_off(array, w))
        fitted.append(array)
    answer.shapes = tuple(got.shape for got in answer.outputs)
    answer.outputs, answer.off = tuple(fitted), tuple(off)
    answer.problems += tuple(shapes)
    return answer


def _is_right(answer):
    tolerance = _TOLERANCE[answer.case.kind]
    return bool(answer.off) and max(answer.off) <= tolerance


def _same(got, want):
    """Are these the same numbers, infinite ones included?"""
    want = np.asarray(want, dtype=float)
    if _long(got) == _long(want):
        want = want.reshape(got.shape)
    return _off(got, want) <= _TOLERANCE["ordinary"]


@functools.lru_cache(maxsize=20_000)
def _mutant_output(exercise, names, label):
    """The outputs of the solution with these mistakes; None where it raises."""
    case = next(case for case in exercise.cases if case.label == label)
    try:
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            result = exercise.mutant(*names)(*_in_double(case))
    except Exception:
        return None
    return result if isinstance(result, tuple) else (result,)


def _explains(exercise, names, answers, outputs):
    """Do these mistakes give the same as the answers, in these outputs?"""
    for answer in answers:
        if not answer.outputs:
            continue
        mutant = _mutant_output(exercise, names, answer.case.label)
        if mutant is None:
            return False
        alike = next((_ALIKE[name] for name in names if name in _ALIKE), _same)
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
    return both and _same(_sorted_columns(got), _sorted_columns(want))


def _same_up_to_rotation(got, want):
    """Turning the columns into each other leaves all products of rows as they are."""
    return got.shape == want.shape and _same(got @ got.T, want @ want.T)


_ALIKE = {
    "pca-instead-of-zca": _same_up_to_columns,
    "cholesky-instead-of-zca": _same_up_to_rotation,
}


def _candidates(exercise):
    return itertools.chain(((name,) for name in exercise.mistakes), exercise.pairs)


def _explanation(exercise, answers):
    """Names of mistakes that explain the answers, and the outputs none explains."""
    answers = [a for a in answers if a.case.kind == "ordinary"]
    answers.sort(key=_is_right)  # the telling ones first; the sort is stable
    every = range(len(exercise.outputs))
    told = [a for a in answers if a.outputs]
    if not any(not _is_right(a) for a in told):
        return (), ()
    for names in _candidates(exercise):
        if _explains(exercise, names, answers, every):
            return names, ()
    wrong = [i for i in every if any(a.off[i] > _TOLERANCE["ordinary"] for a in told)]
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


def _factor(got, want):
    """k with got = k * want, or None."""
    square = (want * want).sum()
    if got.shape != want.shape or square == 0 or want.size < 2:
        return None
    if not np.isfinite(got).all():
        return None
    k = (got * want).sum() / square
    return k if abs(got - k * want).max() <= 1e-6 * max(1, abs(k)) else None


_FACTORS = {
    "−1": lambda n: -1.0,
    "n": lambda n: n,
    "1/n": lambda n: 1 / n,
    "n / (n − 1)": lambda n: n / (n - 1),
    "(n − 1) / n": lambda n: (n - 1) / n,
    "√n": lambda n: n**0.5,
    "1/√n": lambda n: n**-0.5,
    "√(n / (n − 1))": lambda n: (n / (n - 1)) ** 0.5,
    "√((n − 1) / n)": lambda n: ((n - 1) / n) ** 0.5,
}


def _law(exercise, answers, i):
    """The same factor on every input, or one that depends on the shape of x; or ""."""
    told = [a for a in answers if a.outputs and a.case.kind == "ordinary"]
    want = [_expected(exercise, a.case)[i] for a in told]
    ks = [_factor(a.outputs[i], w) for a, w in zip(told, want, strict=True)]
    if not ks or None in ks:
        return ""
    name = exercise.outputs[i]
    if np.ptp(ks) < 1e-4:
        if not np.any(np.round(ks, 9)):
            return f"On every input, your {name} is 0."
        return f"On every input, {name} is {ks[0]:.4g} times what it should be."
    shapes = [np.shape(a.case.args.get("x", 0)) for a in told]
    for axis in range(len(shapes[0])):
        n = np.array([shape[axis] for shape in shapes], dtype=float)
        for word, value in _FACTORS.items():
            if (n > 1).all() and np.allclose(ks, value(n), rtol=1e-4):
                about = f"where n is the length of axis {axis} of x"
                return f"On every input, {name} is {word} times too large, {about}."
    return ""


def _lines(got, want, axis):
    """Along one axis: the places where the arrays differ, if others agree."""
    others = tuple(a for a in range(got.ndim) if a != axis)
    bad = (abs(got - want) > 1e-4 * max(_LEAST, abs(want).max())).any(axis=others)
    return np.flatnonzero(bad) if 0 < bad.sum() < len(bad) else ()


def _shift(got, want):
    """A sentence if got - want is a constant, or one per row or column."""
    difference = got - want
    if np.ptp(difference) < 1e-6:
        d = difference.flat[0]
        return f"yours is {'higher' if d > 0 else 'lower'} by {abs(d):.4g} everywhere"
    for axis, word in ((0, "column"), (1, "row")):
        several = want.ndim == 2 and want.shape[axis] > 1
        if several and np.ptp(difference, axis=axis).max() < 1e-6:
            return f"each {word} of yours is shifted by a number of its own"
    return ""


_AXES = {
    1: ("entry",),
    2: ("row", "column"),
    4: ("example", "channel", "row of pixels", "column of pixels"),
}


def _differs(got, want, closer):
    """How `got` differs from `want`, in one sentence; a closer look on demand."""
    if got.shape == want.shape[::-1] and _same(got.T, want):
        return "the right numbers, with rows and columns exchanged"
    if got.shape != want.shape:
        return f"yours has shape {got.shape} instead of {want.shape}"
    if not np.isfinite(got).all():
        count = (~np.isfinite(got)).sum()
        return f"{count} of {got.size} values are nan or infinite"
    k = _factor(got, want)
    if k is not None:
        zero = abs(got).max() < 1e-9
        return "yours is 0" if zero else f"yours is {k:.4g} times the expected"
    off = (abs(got - want) > 1e-4 * max(_LEAST, abs(want).max())).sum()
    count = f"{off} of {got.size} values are off"
    return (_closer(got, want) or count) if closer else count


def _closer(got, want):
    """Where, or in which way, one array differs from another; or ""."""
    for axis, word in enumerate(_AXES.get(want.ndim, ())):
        bad = _lines(got, want, axis)
        if len(bad):
            which = ", ".join(map(str, bad[:4])) + (", …" if len(bad) > 4 else "")
            return f"off only in {word} {which} (counted from 0)"
    if got.size > 1 and np.allclose(np.sort(got, axis=None), np.sort(want, axis=None)):
        return "the right numbers in another order"
    return _shift(got, want)


def _violated(exercise, answer):
    """Sentences about properties that an answer lacks."""
    found = []
    if not all(np.isfinite(output).all() for output in answer.outputs):
        return found
    outputs = dict(zip(exercise.outputs, answer.outputs, strict=False))
    for says, holds in exercise.properties:
        with contextlib.suppress(KeyError, ValueError, IndexError):
            got, want = (np.atleast_1d(a) for a in holds(answer.case.args, outputs))
            if got.shape == want.shape and _off(got, want) > 1e-4:
                found.append(f"Note that {says}. Yours: {_show(got)}.")
    return found


def _show(array, at=None):
    """A small array in one line; of a larger one the entry at an index."""
    array = np.asarray(array)
    if array.size > 9 and at is not None:
        where = ", ".join(map(str, at))
        return f"[{where}]: {array[at]:.5g}" if array.shape else f"{array:.5g}"
    if array.size > 9:
        array, more = array.reshape(-1)[:4], ", …"
    else:
        more = ""
    array = np.round(array, 4) + 0.0 if array.dtype.kind == "f" else array  # no -0.
    text = np.array2string(array, precision=4, suppress_small=True, separator=", ")
    return " ".join(text.split()).replace("[ ", "[") + more


def _given(case):
    """The arguments of a case, small ones in full."""
    parts = []
    for name, value in case.args.items():
        text = f"= {_show(value)}" if np.ndim(value) else f"= {value:g}"
        text = text if np.size(value) <= 9 else f"of shape {np.shape(value)}"
        parts.append(f"{name} {text}")
    return "\n".join(parts)


def _worst(got, want):
    """The index where two arrays of one shape differ most."""
    distance = np.where(np.isfinite(got), abs(got - want), np.inf)
    return np.unravel_index(distance.argmax(), distance.shape)


def _rows(exercise, answer, closer):
    """(output, expected, yours, what it means) for each output that is off."""
    rows, want = [], _expected(exercise, answer.case)
    for name, got, w, off in zip(
        exercise.outputs, answer.outputs, want, answer.off, strict=False
    ):
        if off <= _TOLERANCE[answer.case.kind]:
            continue
        at = _worst(got, w) if got.shape == w.shape and got.size else None
        rows.append((name, _show(w, at), _show(got, at), _differs(got, w, closer)))
    return tuple(rows)


@dataclass(frozen=True)
class CheckResult:
    """What `check` found. True if the answer passed.

    exercise : name. passed : bool. mistakes : codes, empty if passed. says : a sentence
    per mistake. label, given : the input that shows it. rows : (output, expected,
    yours, what it means) on that input. hints : towards the cure. remarks : the rest.
    """

    exercise: str
    passed: bool
    mistakes: tuple = ()
    says: tuple = ()
    label: str = ""
    given: str = ""
    rows: tuple = ()
    hints: tuple = ()
    remarks: tuple = ()

    def __bool__(self):
        return self.passed

    @property
    def message(self):
        """All of it as text."""
        return _as_text(self)

    def __repr__(self):
        return self.message

    def _repr_html_(self):
        return _as_html(self)


def _paragraph(text, first="", width=79):
    indent = " " * len(first)
    return textwrap.fill(
        text,
        width,
        initial_indent=first,
        subsequent_indent=indent,
        break_on_hyphens=False,
    )


def _headline(result):
    if result.passed:
        return f"✓ {result.exercise}: right."
    return f"✗ {result.exercise}: not yet."


def _as_text(result):
    blocks = [_headline(result), *map(_paragraph, result.says)]
    if result.given:
        lines = textwrap.indent(result.given, "      ")
        blocks.append(f"   Input ({result.label}):\n{lines}")
    for name, want, got, meaning in result.rows:
        block = [_paragraph(f"{want}", f"   expected {name} ")]
        block.append(_paragraph(f"{got}", f"   yours    {name} "))
        block.append(_paragraph(meaning, "   so       "))
        blocks.append("\n".join(block))
    blocks += [r if "\n" in r else _paragraph(r) for r in result.remarks]
    blocks += [_paragraph(hint, "Hint: ") for hint in result.hints]
    return "\n\n".join(blocks)


_EDGE = {True: "#009E73", False: "#D55E00"}  # the palette of A2, safe for all eyes
_BOX = "border-left:4px solid {};padding:.2em .8em"
_CELL = "text-align:left;vertical-align:top;padding:.2em .8em .2em 0;border:0"


def _cell(text, tag="td", rows=1):
    text = html.escape(text).replace("\n", "<br>")
    text = f"<code>{text}</code>" if tag == "code" else text
    tag, span = ("td" if tag == "code" else tag), f' rowspan="{rows}"' * (rows > 1)
    scope = ' scope="col"' * (tag == "th")
    return f'<{tag}{scope}{span} style="{_CELL}">{text}</{tag}>'


def _table(result):
    if not result.given:
        return ""
    heads = (f"input: {result.label}", "expected", "yours", "what it means")
    heads = heads if result.rows else heads[:1]
    lines = ["".join(_cell(h, "th") for h in heads)]
    first = _cell(result.given, "code", max(1, len(result.rows)))
    for name, want, got, meaning in result.rows:
        cells = _cell(f"{name} {want}", "code") + _cell(f"{name} {got}", "code")
        lines.append(first + cells + _cell(meaning))
        first = ""
    lines += [first] if first else []
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return f'<table style="border:0;font-size:.9em">{body}</table>'


def _as_html(result):
    def p(text, tag="p"):
        return f'<{tag} style="margin:.3em 0">{html.escape(text)}</{tag}>'

    parts = [p(_headline(result), "strong"), *map(p, result.says), _table(result)]
    parts += [p(text, "pre" if "\n" in text else "p") for text in result.remarks]
    parts += [p(f"Hint: {hint}") for hint in result.hints]
    return f'<div style="{_BOX.format(_EDGE[result.passed])}">{"".join(parts)}</div>'


_ERRORS = {
    "could not be broadcast": "numpy lines shapes up from the right. Print both; "
    "keepdims=True keeps an averaged axis, with length 1, where it was.",
    "Singular matrix": "Something that cannot be inverted. Where should eps come in?",
    "not positive definite": "A covariance can be singular. Where should eps come in?",
    "maximum recursion": "The function calls itself without an end.",
    "truth value of an array": "An array is not True or False. See np.where.",
    "read-only": "The function writes into an array that is not its own.",
    "_UFuncOutputCastingError": "It writes into an array of another type, in place.",
}


_LIBRARIES = tuple(
    {sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")}
)


def _place(error):
    """The learner's line in which an error arose, as "line 3: y = ..."."""
    ours = _limited.__code__.co_filename
    frames = [
        (frame, number)
        for frame, number in traceback.walk_tb(error.__traceback__)
        if not (file := frame.f_code.co_filename).startswith(_LIBRARIES)
        and file != ours
    ]
    if not frames:
        return ""
    frame, number = frames[-1]
    text = linecache.getline(frame.f_code.co_filename, number).strip()
    line = f"line {number - frame.f_code.co_firstlineno + 1}"
    return f"in {line} of {frame.f_code.co_name}: {text}".rstrip(": ")


def _at(answer, **more):
    """The fields of a result that show an input."""
    return {"label": answer.case.label, "given": _given(answer.case)} | more


def _printed(answer):
    lines = [line[:79] for line in answer.printed.splitlines()]
    text = "\n".join([*lines[:10], *(["…"] if len(lines) > 10 else [])])
    return (f"Your function printed on this input:\n{text}",) if text else ()


def _simple(exercise, code, *sentences, answer=None, hint=None):
    """A result with one mistake that no comparison is needed for."""
    says, usual = words_for(exercise, code)
    more = _at(answer, remarks=_printed(answer)) if answer else {}
    sentences = sentences or (says,)
    hints = (hint or usual,)
    return CheckResult(exercise.name, False, (code,), sentences, hints=hints, **more)


def _answers(exercise, caller):
    """The judged answers to all inputs, or the result that makes them unnecessary."""
    answers, start = [], time.monotonic()
    for case in exercise.cases:
        answer = _run(exercise, caller, case, LIMIT - (time.monotonic() - start))
        if isinstance(answer.error, _TooSlow):
            text = f"Your function was cut off after {LIMIT:g} seconds."
            return _simple(exercise, "too-slow", text, answer=answer), []
        if isinstance(answer.error, NotImplementedError):
            return _simple(exercise, "not-started"), []
        answers.append(_judge(exercise, answer))
    return None, answers


def _is_fickle(exercise, caller, answers):
    """Does the function answer the same input differently the second time?"""
    told = [a for a in answers if a.outputs and a.case.kind == "ordinary"]
    for answer in (told[0], told[-1]) if told else ():
        again = _run(exercise, caller, answer.case, LIMIT)
        if again.outputs:
            again = _judge(exercise, again)
            pairs = zip(again.outputs, answer.outputs, strict=False)
            if not all(_same(a, b) for a, b in pairs):
                return True
    return False


def _breaks_far_from_zero(exercise, answers, names):
    """The answer far from zero that exact arithmetic would not give."""

    def error(answer):
        if not names:
            return max(answer.off)
        exact = _mutant_output(exercise, names, answer.case.label) or ()
        pairs = zip(answer.outputs, map(np.asarray, exact), strict=False)
        return max((_off(a, b.astype(float), 1) for a, b in pairs), default=np.inf)

    told = [a for a in answers if a.off]
    errors = [error(a) for a in told if a.case.kind == "ordinary"]
    if max(errors, default=np.inf) > _TOLERANCE["ordinary"]:
        return None  # not explained in the first place
    kinds = ("float32", "offset") if max(errors) < _DOUBLE else ("float32",)
    far = (a for a in told if a.case.kind in kinds)
    return next((a for a in far if error(a) > _TOLERANCE[a.case.kind]), None)


def _same_shapes(exercise, answers, names):
    """Do these mistakes also explain the shapes?"""
    both = ((a.shapes, _mutant_output(exercise, names, a.case.label)) for a in answers)
    return all(s == tuple(map(np.shape, m or ())) for s, m in both if s)


def _problems(answers, covered):
    """Code -> sentence, for all that is wrong whatever the numbers are."""
    found = {}
    for code, text in (p for a in answers for p in a.problems):
        if code in covered:
            continue
        found.setdefault(code.replace("wrong-size", "wrong-shape"), text)
    errors = [a.error for a in answers if a.error is not None]
    if errors:
        place = _place(errors[0])
        stops = "It stops" if len(errors) == len(answers) else "On some inputs it stops"
        found["raises"] = f"{stops} with {_one_line(errors[0])}{place and f', {place}'}"
    changed = dict.fromkeys(name for a in answers for name in a.changed)
    if changed:
        which = " and ".join(changed)
        verb = "changes" if len(changed) == 1 else "change"
        text = f"Your function writes into its input: {which} {verb}."
        found["mutates-input"] = text
    return found


def _to_show(answers, far):
    """The answer whose input is shown."""
    wrong = [a for a in answers if a.off and not _is_right(a)]
    wrong = [a for a in wrong if a.case.kind == "ordinary"] or ([far] if far else [])
    finite = [a for a in wrong if all(np.isfinite(o).all() for o in a.outputs)]
    failed = [a for a in answers if a.error is not None or a.problems or a.changed]
    return next(iter(finite or wrong or failed), None)


def _where_right(answers):
    """On which inputs an unexplained answer is right, and on which wrong."""
    right = [a.case.label for a in answers if _is_right(a)]
    wrong = [a.case.label for a in answers if a.off and not _is_right(a)]
    if not right:
        return ("It is wrong on every input that was tried.",)
    more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
    says = f"Right on: {', '.join(right[:4])}{', …' if len(right) > 4 else ''}. "
    return (f"{says}Wrong on: {', '.join(wrong[:3])}{more}.",)


def _causes(exercise, answers):
    """(names of mistakes, other problems, unexplained outputs, answer far from 0)."""
    names, open_ones = _explanation(exercise, answers)
    far = None if open_ones else _breaks_far_from_zero(exercise, answers, names)
    if any(code_of(name) == "missing-mean" for name in names):
        far = None  # far from zero that is a mistake of the same name
    names += ("cancellation",) if far else ()
    covered = ("wrong-size",) if names else ()
    if names and _same_shapes(exercise, answers, names):
        covered = ("wrong-size", "wrong-shape")
    return names, _problems(answers, covered), open_ones, far


def _verdict(exercise, caller, answers):
    """The result from the judged answers to all inputs."""
    names, found, open_ones, far = _causes(exercise, answers)
    if not (found or names or open_ones):
        return _passed(exercise, caller, answers)
    if open_ones and not found:
        if _is_fickle(exercise, caller, answers):
            return _simple(exercise, "not-deterministic")
        found |= _unknown(exercise, answers, open_ones)
    shown = _to_show(answers, far)
    remarks = _printed(shown)
    if found.keys() & {"unknown", "not-finite"}:
        laws = filter(None, (_law(exercise, answers, i) for i in open_ones))
        remarks += (*_where_right(answers), *laws, *_violated(exercise, shown))
    codes = tuple(dict.fromkeys([*map(code_of, names), *found]))
    says = [words_for(exercise, name)[0] for name in names] + list(found.values())
    hinted = [*names, *(code for code in found if code != "raises" or not names)]
    hints = dict.fromkeys(_hint(exercise, n, answers) for n in hinted)
    more = _at(shown, rows=_rows(exercise, shown, not names), remarks=remarks)
    return CheckResult(
        exercise.name, False, codes, tuple(says), hints=tuple(hints), **more
    )


def _hint(exercise, name, answers):
    """The hint for a mistake; for an error, by what it says."""
    if name == "raises":
        error = next(a.error for a in answers if a.error is not None)
        text = f"{type(error).__name__} {error}"
        known = (hint for part, hint in _ERRORS.items() if part in text)
        return next(known, words_for(exercise, name)[1])
    return words_for(exercise, name)[1]


def _unknown(exercise, answers, open_ones):
    """The code and the sentence for outputs that no mistake explains."""
    which = " and ".join(exercise.outputs[i] for i in open_ones)
    ordinary = [a for a in answers if a.outputs and a.case.kind == "ordinary"]
    if all(not np.isfinite(a.outputs[i]).all() for a in ordinary for i in open_ones):
        return {"not-finite": f"{which}: nan or infinite on every input."}
    verb = "are" if len(open_ones) > 1 else "is"
    return {"unknown": f"{which} {verb} wrong, in a way that is not in the catalogue."}


def _passed(exercise, caller, answers):
    """The result for an answer that is right, if it says the same thing twice."""
    if _is_fickle(exercise, caller, answers):
        return _simple(exercise, "not-deterministic")
    worst = max(max(a.off) for a in answers if a.case.kind == "ordinary")
    single = ("It is as exact as single precision allows.",) if worst > _DOUBLE else ()
    return CheckResult(exercise.name, True, remarks=single)


_SOLVED = {}  # name of an exercise -> True, or False if only tried
_VIEWS = []  # widgets on display


def _remember(result):
    _SOLVED[result.exercise] = result.passed or _SOLVED.get(result.exercise, False)
    for view in _VIEWS:
        view.value = _progress_html()


def _marks():
    """(mark, word, name, title) of every exercise."""
    words = {True: ("✓", "solved"), False: ("…", "tried"), None: ("·", "open")}
    for name, exercise in EXERCISES.items():
        yield *words[_SOLVED.get(name)], name, exercise.title


def _progress_html():
    items = "".join(
        f"<li><b>{mark}</b> <code>{name}</code> {html.escape(title)} ({word})</li>"
        for mark, word, name, title in _marks()
    )
    solved = sum(_SOLVED.values())
    head = f"<strong>{solved} of {len(EXERCISES)} exercises solved</strong>"
    style = "list-style:none;padding-left:.5em;line-height:1.5;text-align:left"
    return f'<div>{head}<ul style="{style}">{items}</ul></div>'


def _exercise(name):
    """The exercise of that name, or an error that lists them."""
    if isinstance(name, str) and name in EXERCISES:
        return EXERCISES[name]
    near = difflib.get_close_matches(str(name), EXERCISES, n=1)
    guess = f"; did you mean {near[0]!r}?" if near else ""
    known = ", ".join(EXERCISES)
    raise ValueError(f"exercise must be one of: {known}; got {name!r}{guess}")


_ONE_AT_A_TIME = threading.RLock()
_OPEN = []  # checks that have not come to an end


@contextlib.contextmanager
def _nested():
    """A check may run inside another, but not without an end."""
    if len(_OPEN) > 2:
        raise RecursionError(
            "check is called inside itself; call your function instead"
        )
    _OPEN.append(None)
    try:
        yield
    finally:
        _OPEN.pop()


def check(exercise, function):
    """Judge a solution of an exercise by running it, and say which mistake it makes.

    exercise : name, see `bnlib.exercises.EXERCISES`. function : yours; it gets numpy
    arrays and may return arrays, lists or torch tensors. Returns a `CheckResult`:
    `.passed`, `.mistakes` (codes) and `.message`; it is shown as a table in a notebook.
    Nothing of yours is changed, and nothing is stored. A function that does not end is
    cut off after three seconds.
    Raises ValueError for an unknown exercise, TypeError for what is not a function.
    """
    exercise = _exercise(exercise)
    if not callable(function):
        what = f"function must be a function, got {type(function).__name__}"
        cure = f"pass it without parentheses: check({exercise.name!r}, {exercise.name})"
        raise TypeError(f"{what}; {cure}")
    with _ONE_AT_A_TIME, _nested():
        result = _judged(exercise, function)
        _remember(result)
    return result


def _judged(exercise, function):
    try:
        caller = _caller(exercise, function)
    except TypeError as error:
        text = f"Your function cannot be called as {exercise.signature}: {error}."
        return _simple(exercise, "wrong-signature", text)
    result, answers = _answers(exercise, caller)
    return _verdict(exercise, caller, answers) if result is None else result


class Progress:
    """The exercises and what is solved since Python started; live in a notebook."""

    def __repr__(self):
        solved = sum(_SOLVED.values())
        lines = [f"{solved} of {len(EXERCISES)} exercises solved"]
        lines += [f"  {mark} {name:26}{title}" for mark, _, name, title in _marks()]
        return "\n".join(lines)

    def _repr_mimebundle_(self, include=None, exclude=None):
        bundle = {"text/plain": repr(self), "text/html": _progress_html()}
        with contextlib.suppress(ImportError):
            import ipywidgets

            view = ipywidgets.HTML(_progress_html())
            _VIEWS.append(view)
            bundle = view._repr_mimebundle_() | bundle
        return bundle


def progress():
    """Return what is solved so far: text, or a view in a notebook that stays fresh."""
    return Progress()
