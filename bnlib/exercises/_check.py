"""From chapters/A3_exercises.ipynb.

Extracted by `make export`: edit the notebook, not this file.
"""

import contextlib
import difflib
import html
import linecache
import sysconfig
import threading
import time
import traceback
import warnings

import numpy as np

from bnlib.exercises import EXERCISES
from bnlib.exercises._answer import (
    TooSlow,
    answer_to,
    caller_of,
    copies_of,
    is_running,
    limited,
    one_line,
)
from bnlib.exercises._ask import followed
from bnlib.exercises._exercise import lines_of, outputs_of, words_for
from bnlib.exercises._explain import (
    DOUBLE,
    TOLERANCE,
    Cause,
    explanation,
    has_number,
    how_far,
    is_right,
    is_same,
    judge,
)
from bnlib.exercises._mistakes import (
    WORDS,
    code_of,
)
from bnlib.exercises._show import CheckResult, given_of, rows_of, violated

__all__ = ["check", "progress"]


LIMIT = 3.0  # seconds for all inputs of one check together


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
    if hasattr(error, "place"):
        return error.place  # it comes from another process
    ours = limited.__code__.co_filename
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
    about = {"args": copies_of(answer.case), "given": given_of(answer.case)}
    return {"label": answer.case.label, **about, **more}


def _printed(answer):
    lines = [line[:79] for line in answer.printed.splitlines()]
    text = "\n".join([*lines[:10], *(["…"] if len(lines) > 10 else [])])
    return (f"Your function printed on this input:\n{text}",) if text else ()


def _simple(exercise, code, *sentences, answer=None):
    """A result with one mistake that no comparison is needed for."""
    says, hint = words_for(exercise, code)
    more = _at(answer, remarks=_printed(answer)) if answer else {}
    more |= {"hints": (hint,), "severity": "numbers"}
    return CheckResult(exercise.name, False, (code,), sentences or (says,), **more)


def _answers(exercise, caller):
    """The judged answers to all inputs, or the result that makes them unnecessary."""
    answers, start = [], time.monotonic()
    for case in exercise.cases:
        answer = answer_to(exercise, caller, case, LIMIT - (time.monotonic() - start))
        if isinstance(answer.error, TooSlow):
            text = f"Your function was cut off after {LIMIT:g} seconds."
            return _simple(exercise, "too-slow", text, answer=answer), []
        if isinstance(answer.error, NotImplementedError) and not answers:
            return _simple(exercise, "not-started"), []
        if code := getattr(answer.error, "mistake", ""):  # a script is sure of it
            return _simple(exercise, code, answer=answer), []
        if not (case.refusable and isinstance(answer.error, ValueError)):
            answers.append(judge(exercise, answer))
    return None, answers


def _ordinary(answers):
    """Those with outputs to compare, on ordinary inputs."""
    return [a for a in answers if a.off and a.case.kind == "ordinary"]


def _is_fickle(exercise, caller, answers):
    """Does the function answer the same input differently the second time?"""
    told = _ordinary(answers)
    for answer in (told[0], told[-1]) if told else ():
        again = judge(exercise, answer_to(exercise, caller, answer.case, LIMIT))
        if not all(map(is_same, again.outputs, answer.outputs)):
            return True
    return False


def _breaks_far_from_zero(exercise, answers, names):
    """The answer far from zero that exact arithmetic would not give."""
    lines = lines_of(exercise, names)

    def error(answer):
        exact = outputs_of(exercise, lines, answer.case) if names else None
        if exact is None:
            return np.inf if names else max(answer.off)
        return max(
            how_far(*both, 1) for both in zip(answer.outputs, exact, strict=False)
        )

    errors = [error(a) for a in _ordinary(answers)]
    if max(errors, default=np.inf) > TOLERANCE["ordinary"]:
        return None  # not explained in the first place
    kinds = ("float32", "offset") if max(errors) < DOUBLE else ("float32",)
    far = (a for a in answers if a.off and a.case.kind in kinds)
    return next((a for a in far if error(a) > TOLERANCE[a.case.kind]), None)


def _same_shapes(exercise, answers, names):
    """Do these mistakes also explain the shapes?"""
    lines = lines_of(exercise, names)
    both = (
        (a.shapes, outputs_of(exercise, lines, a.case)) for a in answers if a.shapes
    )
    return all(s == tuple(map(np.shape, given or ())) for s, given in both)


def _problems(answers, covered):
    """Code -> sentence, for all that is wrong whatever the numbers are."""
    found = {}
    for code, text in (p for a in answers for p in a.problems):
        if code not in covered:
            found.setdefault(code.replace("wrong-size", "wrong-shape"), text)
    errors = [a.error for a in answers if a.error is not None]
    if errors:
        place = _place(errors[0])
        stops = "It stops" if len(errors) == len(answers) else "On some inputs it stops"
        found["raises"] = f"{stops} with {one_line(errors[0])}{place and f', {place}'}"
    changed = dict.fromkeys(name for a in answers for name in a.changed)
    if changed:
        which = " and ".join(changed)
        verb = "changes" if len(changed) == 1 else "change"
        text = f"Your function writes into its input: {which} {verb}."
        found["mutates-input"] = text
    return found


def _to_show(answers, far):
    """The answer whose input is shown."""
    wrong = [a for a in _ordinary(answers) if not is_right(a)]
    wrong = wrong or ([far] if far else [])
    finite = [a for a in wrong if all(np.isfinite(o).all() for o in a.outputs)]
    failed = [a for a in answers if a.error is not None or a.problems or a.changed]
    return next(iter(finite or wrong or failed), None)


def _where_right(answers):
    """On which inputs an unexplained answer is right, and on which wrong."""
    right = [a.case.label for a in _ordinary(answers) if is_right(a)]
    wrong = [a.case.label for a in _ordinary(answers) if not is_right(a)]
    if not right:
        return "It is wrong on every input that was tried."
    more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
    says = f"Right on: {', '.join(right[:4])}{', …' if len(right) > 4 else ''}. "
    return f"{says}Wrong on: {', '.join(wrong[:3])}{more}."


def _causes(exercise, answers):
    """({mistake: cause}, other problems, unexplained outputs, answer that breaks)."""
    causes, open_ones = explanation(exercise, answers)
    names, far = tuple(causes), None
    listed = {*names} <= exercise.rows.keys()
    if listed and not open_ones:
        far = _breaks_far_from_zero(exercise, answers, names)
    if any(code_of(name) == "missing-mean" for name in names):
        far = None  # far from zero that is a mistake of the same name
    covered = ("wrong-size",) if names else ()
    if names and listed and _same_shapes(exercise, answers, names):
        covered = ("wrong-size", "wrong-shape")
    if far:
        causes["cancellation"] = Cause(())
    elif not (names or open_ones):
        small = (a for a in answers if a.case.kind == "small" and a.off)
        far = next((a for a in small if not is_right(a)), None)
        causes |= {"hidden-constant": Cause(())} if far else {}
    return causes, _problems(answers, covered), open_ones, far


_MANNERS = {"mutates-input", "wrong-shape", "wrong-dtype"}
_NUMERICS = {"cancellation", "hidden-constant"}


def _severity(codes, told):
    """The gravest of the levels: numbers, numerics, manners."""
    if not told or not all(is_right(a) for a in told):
        return "numbers"
    if not {*codes} <= _MANNERS | _NUMERICS:
        return "numbers"
    return "numerics" if {*codes} & _NUMERICS else "manners"


def _said(exercise, name, cause):
    """(sentence, hint) for a mistake: of which outputs, and of which number."""
    if name in exercise.rows or name in _NUMERICS:
        says, hint = words_for(exercise, name)
    else:  # a slip, in words of its own
        code, _, says = name.partition(": ")
        hint = words_for(exercise, code if code in WORDS else "slip")[1]
    if name in has_number(exercise):  # else any small one does the same
        yours = f"{cause.constant:.3g}, your own number,"
        says = says.replace("a number of your own", yours)
    if 0 < len(cause.outputs) < len(exercise.outputs):
        says = f"{' and '.join(exercise.outputs[i] for i in cause.outputs)}: {says}"
    return says, hint


def _verdict(exercise, caller, answers):
    """The result from the judged answers to all inputs."""
    causes, found, open_ones, far = _causes(exercise, answers)
    if not (found or causes or open_ones):
        return _passed(exercise, caller, answers)
    if open_ones and not found:
        if _is_fickle(exercise, caller, answers):
            return _simple(exercise, "not-deterministic")
        found |= _unknown(exercise, answers, open_ones)
    shown = _to_show(answers, far)
    remarks = _printed(shown)
    if open_ones:
        remarks += _what_can_be_said(exercise, caller, answers, open_ones, shown)
    said = [_said(exercise, *item) for item in causes.items()]
    for code, says in found.items():
        hidden = code == "raises" and causes
        said.append((says, "" if hidden else _hint(exercise, code, answers)))
    told = _ordinary(answers)
    codes = tuple(dict.fromkeys([*map(code_of, causes), *found]))
    return CheckResult(
        exercise.name,
        False,
        codes,
        tuple(says for says, _ in said),
        hints=tuple(dict.fromkeys(hint for _, hint in said if hint)),
        severity=_severity(codes, told),
        right=_right(exercise, told),
        **_at(shown, rows=rows_of(exercise, shown), remarks=remarks),
    )


def _right(exercise, told):
    """The outputs that are right on every ordinary input."""
    limit, every = TOLERANCE["ordinary"], enumerate(exercise.outputs)
    return tuple(o for i, o in every if told and all(a.off[i] <= limit for a in told))


def _what_can_be_said(exercise, caller, answers, open_ones, shown):
    """Sentences about outputs that no mistake explains: where, and by what."""
    ends = time.monotonic() + LIMIT / 2

    def ask(case):
        return answer_to(exercise, caller, case, ends - time.monotonic())

    found = [_where_right(answers)]
    # An input of some size tells most; a long one takes its time.
    able = [a for a in _ordinary(answers) if np.size(a.outputs[0]) < 30]
    able = [a for a in able if all(np.isfinite(o).all() for o in a.outputs)]
    able = [a for a in able if not is_right(a)]
    able.sort(key=lambda a: np.size(a.outputs[0]) <= 4)
    for answer in able[:1]:
        found += [f for i in open_ones for f in followed(exercise, ask, answer, i)]
    for answer in (shown, *able[:1]):
        found += violated(exercise, answer, ask) if answer else []
    return tuple(dict.fromkeys(found))


def _hint(exercise, code, answers):
    """The hint for a code; for an error, by what it says."""
    usual = words_for(exercise, code)[1]
    if code != "raises":
        return usual
    error = one_line(next(a.error for a in answers if a.error is not None))
    return next((hint for part, hint in _ERRORS.items() if part in error), usual)


def _unknown(exercise, answers, open_ones):
    """The code and the sentence for outputs that no mistake explains."""
    which = " and ".join(exercise.outputs[i] for i in open_ones)
    told = _ordinary(answers)
    if all(not np.isfinite(a.outputs[i]).all() for a in told for i in open_ones):
        return {"not-finite": f"{which}: nan or infinite on every input."}
    verb = "are" if len(open_ones) > 1 else "is"
    return {"unknown": f"{which} {verb} wrong, in a way that is not in the catalogue."}


def _passed(exercise, caller, answers):
    """The result for an answer that is right, if it says the same thing twice."""
    if _is_fickle(exercise, caller, answers):
        return _simple(exercise, "not-deterministic")
    worst = max(max(a.off) for a in _ordinary(answers))
    single = ("It is as exact as single precision allows.",) if worst > DOUBLE else ()
    return CheckResult(exercise.name, True, remarks=single, right=exercise.outputs)


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


def check(exercise, function):
    """Judge a solution of an exercise by running it, and say which mistake it makes.

    Nothing of yours is changed, and nothing is stored. A function that does not end is
    cut off after three seconds.

    Parameters
    ----------
    exercise : str
        Its name, see `bnlib.exercises.EXERCISES`.
    function : function
        Yours; it gets numpy arrays and may return arrays, lists or torch tensors.

    Returns
    -------
    result : CheckResult
        `.passed`, `.mistakes` (codes) and `.message`; shown as a table in a notebook.

    Raises
    ------
    ValueError
        For an unknown exercise.
    TypeError
        For what is not a function.
    """
    exercise = _exercise(exercise)
    if not callable(function):
        what = f"function must be a function, got {type(function).__name__}"
        cure = f"pass it without parentheses: check({exercise.name!r}, {exercise.name})"
        raise TypeError(f"{what}; {cure}")
    with _ONE_AT_A_TIME:
        if is_running():
            raise RecursionError("check is called by the function that is checked")
        result = judged(exercise, function)
        _remember(result)
    return result


def judged(exercise, function):
    """The result for a function; whatever happens, no check ends the notebook."""
    try:
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _judged(exercise, function)
    except Exception as error:
        text = f"Your function cannot be judged: it led to {one_line(error)}"
        return _simple(exercise, "raises", text)


def _judged(exercise, function):
    try:
        caller = caller_of(exercise, function)
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
