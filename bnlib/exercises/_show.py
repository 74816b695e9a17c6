"""From chapters/A3_exercises.ipynb.

Extracted by `make export`: edit the notebook, not this file.
"""

import contextlib
import html
import textwrap
from dataclasses import dataclass, field

import numpy as np

from bnlib.exercises._explain import TOLERANCE, how_far, is_same


def factor_of(got, want):
    """k with got = k * want, or None."""
    square = (want * want).sum()
    if got.shape != want.shape or square == 0 or want.size < 2:
        return None
    if not np.isfinite(got).all():
        return None
    k = (got * want).sum() / square
    near = 1e-6 * max(1, abs(k)) * min(1, abs(want).max())
    return k if abs(got - k * want).max() <= near else None


def _differs(got, want):
    """How `got` differs from `want`, in one sentence."""
    turned = got.ndim > 1 and got.shape == want.shape[::-1]
    if turned and is_same(got.T, want) and not is_same(got, want):
        return "the right numbers, with rows and columns exchanged"
    if got.shape != want.shape:
        return f"yours has shape {got.shape} instead of {want.shape}"
    if not np.isfinite(got).all():
        count = (~np.isfinite(got)).sum()
        return f"{count} of {got.size} values are nan or infinite"
    k = factor_of(got, want)
    if k is not None:
        zero = abs(got).max() < 1e-9
        return "yours is 0" if zero else f"yours is {k:.4g} times the expected"
    off = abs(got - want) > 1e-4 * (abs(want).max() or 1)
    return f"{off.sum()} of {got.size} values are off"


def violated(exercise, answer, ask):
    """Sentences about properties that an answer lacks; some ask it once more."""
    found = []
    for says, holds, changes in exercise.properties:
        with contextlib.suppress(KeyError, ValueError, IndexError, ZeroDivisionError):
            given = [answer.case.args, _named(exercise, answer)]
            if changes:
                case = answer.case._replace(args={**given[0], **changes(given[0])})
                given = [case.args, _named(exercise, ask(case)), given[1]]
            got, want = (np.atleast_1d(a).astype(float) for a in holds(*given))
            least = answer.case.least
            if got.shape == want.shape and how_far(got, want, least) > 1e-4:
                found.append(f"Note that {says}. Yours: {_show(got)}.")
    return found


def _named(exercise, answer):
    """{name: output}; KeyError later, where there are none."""
    if not all(np.isfinite(output).all() for output in answer.outputs):
        return {}
    return dict(zip(exercise.outputs, answer.outputs, strict=False))


_SHOWN = 24  # an array of so many numbers is shown in full


def _show(array, at=None):
    """A small array in one line; of a larger one an entry, or the first."""
    array, more = np.asarray(array), ""
    if array.size > _SHOWN and at is not None:
        return f"[{', '.join(map(str, at))}]: {array[at]:.5g}"
    if array.size > _SHOWN:
        array, more = array.reshape(-1)[:4], ", …"
    if array.dtype.kind == "f" and not 0 < abs(array).max(initial=0) < 0.01:
        array = np.round(array, 4) + 0.0  # no -0.
        text = np.array2string(array, precision=4, suppress_small=True, separator=", ")
    else:
        text = np.array2string(array, precision=3, separator=", ")
    return " ".join(text.split()).replace("[ ", "[") + more


def given_of(case):
    """The arguments of a case, small ones in full."""
    parts = []
    for name, value in case.args.items():
        text = f"= {_show(value)}" if np.ndim(value) else f"= {value:g}"
        text = text if np.size(value) <= _SHOWN else f"of shape {np.shape(value)}"
        parts.append(f"{name} {text}")
    return "\n".join(parts)


def _worst(got, want):
    """The index where two arrays of one shape differ most."""
    distance = np.where(np.isfinite(got), abs(got - want), np.inf)
    return np.unravel_index(distance.argmax(), distance.shape)


def rows_of(exercise, answer):
    """(output, expected, yours, what it means) for each output that is off."""
    rows, want = [], exercise.expected[answer.case.label]
    for name, got, w, off in zip(
        exercise.outputs, answer.outputs, want, answer.off, strict=False
    ):
        if off > TOLERANCE[answer.case.kind]:
            at = _worst(got, w) if got.shape == w.shape and got.size else None
            rows.append((name, _show(w, at), _show(got, at), _differs(got, w)))
    return tuple(rows)


@dataclass(frozen=True)
class CheckResult:
    """What `check` found. True if the answer passed.

    Parameters
    ----------
    exercise : str
        Its name.
    passed : bool
    mistakes : tuple of str
        Codes, empty if passed.
    says : tuple of str
        A sentence per mistake.
    label, given : str
        The input that shows it.
    rows : tuple of tuple
        (output, expected, yours, what it means) on that input.
    hints : tuple of str
        Towards the cure.
    remarks : tuple of str
        The rest.
    severity : str
        "numbers" if some are wrong, "numerics" if they are only where arithmetic is
        hard, "manners" if it is the shape, the dtype or what happens to the input; ""
        if passed.
    right : tuple of str
        The outputs that are right on all ordinary inputs.
    args : dict or None
        The arguments that show it: call your function with them, `f(**result.args)`.
        None where there is nothing to show.
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
    severity: str = ""
    right: tuple = ()
    args: dict | None = field(default=None, compare=False)

    def __bool__(self):
        return self.passed

    def assert_right(self):
        """Raise an AssertionError with the message, unless the answer passed."""
        if not self.passed:
            raise AssertionError(self.message)
        return self

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


_LEVELS = {
    "numerics": " The formula is right; its arithmetic breaks where that is hard.",
    "manners": " The numbers are right; what is left is a matter of manners.",
}


def _headline(result):
    if result.passed:
        return f"✓ {result.exercise}: right."
    return f"✗ {result.exercise}: not yet.{_LEVELS.get(result.severity, '')}"


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
