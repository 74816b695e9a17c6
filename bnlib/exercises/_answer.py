"""From chapters/A3_exercises.ipynb.

Extracted by `make export`: edit the notebook, not this file.
"""

import contextlib
import inspect
import io
import signal
import sys
import threading
import time
import warnings
from dataclasses import dataclass

import numpy as np

from bnlib.exercises._cases import (
    Case,
)
from bnlib.exercises._exercise import (
    words_for,
)


class _Clock:
    """Whether a call is running, since when, and who was tracing before us."""

    running = cut = False
    wall = cpu = allowed = 0.0
    before = None


# In a browser there is one thread, and no clock of threads.
_busy = getattr(time, "thread_time", time.process_time)


def is_running():
    """Does somebody else's function run at this moment?"""
    return _Clock.running


def _late():
    """Is the time up? Somebody who steps through with a debugger may take longer."""
    wall = time.monotonic() - _Clock.wall
    watched = sys.gettrace() not in (None, _every_line)
    busy = _busy() - _Clock.cpu
    return max(busy, wall / 200 if watched else wall) > _Clock.allowed


class TooSlow(BaseException):
    """Raised inside a call whose time is up; comes back when it is swallowed."""

    def __del__(self):
        if _Clock.running and _Clock.cut:
            _watch(sys._getframe(1))


def _every_line(frame, event, arg):
    """A trace function: raises at the first line after the deadline."""
    if _Clock.running and (_Clock.cut or _late()):
        _Clock.cut = True
        raise TooSlow
    frame.f_trace_opcodes = True  # `while True: pass` never begins a new line
    return _every_line


def _watch(frame):
    """Have `_every_line` called at every line of this frame and of its callers."""
    sys.settrace(_every_line)
    while frame is not None and frame.f_code is not limited.__code__:
        frame.f_trace, frame.f_trace_opcodes = _every_line, True
        frame = frame.f_back


def _ring(signum, frame):
    """The alarm went off: raise in the learner's code, never in ours."""
    ours = frame is None or frame.f_code is limited.__code__
    if _Clock.running and not ours and _late():
        _Clock.cut = True
        raise TooSlow


def _has_alarm():
    main = threading.current_thread() is threading.main_thread()
    able = hasattr(signal, "setitimer") and sys.platform != "emscripten"
    return main and able and signal.getsignal(signal.SIGALRM) is not None


def limited(call, seconds):
    """(call(), None), or (None, the exception it ended with), after so many seconds."""
    C, alarm = _Clock, _has_alarm()
    C.wall, C.cpu, C.before = time.monotonic(), _busy(), sys.gettrace()
    C.allowed, C.cut, C.running = seconds, False, True
    if alarm:
        handler = signal.signal(signal.SIGALRM, _ring)
        delay, interval = signal.setitimer(signal.ITIMER_REAL, seconds, 0.05)
    else:  # a debugger, or what counts lines, waits so long
        sys.settrace(_every_line)
    try:
        result, error = call(), None
    except KeyboardInterrupt:
        raise  # that is the user, and not the function
    except BaseException as caught:
        result, error = None, caught
    finally:
        C.running = False
        if alarm:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, handler)
            if delay:  # somebody else's alarm: due as much earlier as we took
                left = max(delay - (time.monotonic() - C.wall), 1e-3)
                signal.setitimer(signal.ITIMER_REAL, left, interval)
        if C.cut or sys.gettrace() is _every_line:
            sys.settrace(C.before)
    return (None, TooSlow()) if C.cut else (result, error)


class _Paper(io.StringIO):
    """Where print goes during a check; it has room for a page, and stays open."""

    def write(self, text):
        if self.tell() < 2000:
            super().write(text[:2000])
        return len(text)

    def close(self):
        pass


@dataclass
class Answer:
    """What a function made of one input."""

    case: Case
    outputs: tuple = ()  # arrays, as float64
    error: BaseException | None = None
    problems: tuple = ()  # (code, sentence): what is wrong whatever the numbers are
    changed: tuple = ()  # names of arguments that the function wrote into
    printed: str = ""
    shapes: tuple = ()  # of the outputs, as they came
    off: tuple = ()  # how far each output is from the expected one


def copies_of(case):
    return {
        name: value.copy() if isinstance(value, np.ndarray) else value
        for name, value in case.args.items()
    }


def _unchanged(a, b):
    kinds = [(np.shape(v), getattr(v, "dtype", None)) for v in (a, b)]
    return kinds[0] == kinds[1] and np.array_equal(a, b, equal_nan=True)


def caller_of(exercise, function):
    """How to pass the arguments: by name if the names are ours, in order if not."""
    names, function = exercise.arguments, exercise.as_function(function)
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return lambda args: function(*args.values())  # compiled: calling will tell
    kinds = {p.kind for p in signature.parameters.values()}
    nameless = inspect.Parameter.POSITIONAL_ONLY in kinds
    if set(signature.parameters) == set(names) and not nameless:
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


def answer_to(exercise, caller, case, seconds):
    """The answer of a function to one input."""
    args, paper = copies_of(case), _Paper()
    with (
        np.errstate(all="ignore"),
        warnings.catch_warnings(),
        _breakpoints(sys.stdout, sys.breakpointhook),
        contextlib.redirect_stdout(paper),
        contextlib.redirect_stderr(paper),
    ):
        warnings.simplefilter("ignore")
        both, error = limited(lambda: _read(exercise, caller(args)), max(seconds, 0.05))
    outputs, problems = both or ((), ())
    changed = tuple(n for n, a in args.items() if not _unchanged(a, case.args[n]))
    return Answer(case, outputs, error, problems, changed, paper.getvalue())


_MOST = 100_000  # numbers; no exercise asks for more than 480


def _array(name, part):
    """(float64 array or None, problems) for one thing that a function returned."""
    if hasattr(part, "detach"):  # a torch tensor, perhaps with a graph behind it
        part = part.detach()
        part = part.cpu() if hasattr(part, "cpu") else part
    try:
        array = np.array(part)
    except Exception as error:
        what = f"{name} cannot be read as an array: {one_line(error)}"
        return None, (("wrong-dtype", what),)
    if array.size > _MOST:
        what = f"{name} has shape {array.shape}: far more numbers than are asked for."
        return None, (("wrong-shape", what),)
    if array.dtype == object:  # fractions, perhaps
        with contextlib.suppress(TypeError, ValueError):
            array = np.reshape([float(v) for v in array.flat], array.shape)
    given = array.dtype
    if given.kind not in "fiubc":
        found = f"an array of {given}" if isinstance(part, np.ndarray) else ""
        found = found or f"a {type(part).__name__}"
        what = f"{name} should be an array of numbers; yours is {found}."
        return None, (("wrong-outputs", what),)
    good = given.kind == "f" and given.itemsize >= 4
    if good or (given.kind in "fiu" and isinstance(part, list | float | int)):
        return array.astype(float), ()
    what = f"{name} has dtype {given}; float64 is expected, float32 is fine."
    return np.real(array).astype(float), (("wrong-dtype", what),)


def one_line(error):
    """An error in one line of bounded length, whatever its own `__str__` does."""
    try:
        text = " ".join(str(error).split())[:200]
    except Exception:
        text = ""
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _parts(exercise, result):
    """What a function returned, cut into outputs, and problems."""
    names = exercise.outputs
    asked = f"{len(names)} outputs, ({', '.join(names)})"
    asked = f"{names[0]} alone" if len(names) == 1 else asked
    if len(names) == 1 and not isinstance(result, tuple | dict):
        return [result], ()
    stacked = isinstance(result, np.ndarray) and len(names) == np.ndim(result) == 2
    if isinstance(result, tuple | list) or (stacked and len(result) == len(names)):
        if len(result) == len(names) > 1:
            return list(result), ()
        found, parts = f"a {type(result).__name__} of {len(result)}", list(result)
    else:
        found, parts = f"one {type(result).__name__}", []
    problem = ("wrong-outputs", f"You return {found}; return {asked}.")
    return parts[: len(names)], (problem,)


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
