"""Python's side of the page: running its cells, and judging answers.

In the browser, inside Pyodide, `answer` gives the buttons what they ask for. The site's
build runs the cells of every page with the same `run`, where nothing but the standard
library, numpy and bnlib can be imported, and so finds those that a page can offer
(tools/runnable.py).
"""

import ast
import contextlib
import copy
import difflib
import dis
import errno
import html
import io
import itertools
import json
import linecache
import sys
import traceback

import numpy as np

import bnlib

MOST = 10_000  # characters that a cell may print, and that are shown of a value
COUNT = itertools.count(1)  # of the cells run
STORES = "STORE_NAME", "STORE_GLOBAL"
HAVE = "Python's standard library, numpy and bnlib"


# ---- running cells ------------------------------------------------------------------


def pieces(tree):
    """The statements of a cell; an import of several names is several."""
    for statement in tree.body:
        if not isinstance(statement, ast.Import | ast.ImportFrom):
            yield statement
            continue
        for alias in statement.names:
            piece = copy.copy(statement)
            piece.names = [alias]
            yield piece


def given(piece):
    """The names that a statement gives a value."""
    # Not by symtable: from Python 3.12 on it has the variables of comprehensions, too.
    code = compile(ast.Module([piece], []), "a cell", "exec")
    return {s.argval for s in dis.get_instructions(code) if s.opname in STORES}


class Printed(io.StringIO):
    """What a cell prints; more than a reader can read ends the cell."""

    def write(self, text):
        room = MOST - self.tell()
        super().write(text[:room])
        if len(text) > room:
            raise RuntimeError(f"printed more than {MOST:,} characters, stopped there")
        return len(text)


def cut(text):
    """Text that a page can hold, its length said where that is not all of it."""
    more = f"… ({len(text):,} characters)" if len(text) > MOST else ""
    return html.escape(text[:MOST] + more)


def shown(value):
    """A value as a notebook shows it: as HTML, if it knows how."""
    if value is None:
        return ""
    as_html = not isinstance(value, type) and getattr(value, "_repr_html_", None)
    if as_html and isinstance(text := as_html(), str):
        return text
    return f"<pre>{cut(repr(value))}</pre>"


def advice(error, namespace):
    """A sentence towards the cure, where there is one."""
    wrong = (isinstance(error, SyntaxError) and error.text) or ""
    if wrong.lstrip().startswith(("%", "!")):
        return "A line that begins with % or ! is for a notebook: leave it out."
    if isinstance(error, OSError) and error.errno == errno.EIO:
        return "A page cannot ask for input. Write the value into the code."
    if isinstance(error, ImportError):
        return f"This page has {HAVE}. Run the notebook for anything else."
    said = traceback.format_exception_only(error)[0]
    too_big = "too big" in said or "Maximum allowed dim" in said
    if isinstance(error, MemoryError) or too_big:
        return "A page may use two gigabytes at most. Try a smaller array."
    if isinstance(error, NameError):
        near = difflib.get_close_matches(str(error.name), namespace, 1)
        return f"Did you mean {near[0]}?" if near else ""
    return ""


def explained(error, namespace, name):
    """An error as the page shows it: its line, what it says, a word of advice."""
    frames = traceback.extract_tb(error.__traceback__)
    places = [(f.lineno, f.line) for f in frames if f.filename == name]
    if isinstance(error, SyntaxError) and error.filename == name:
        places.append((error.lineno, error.text or ""))
    line, text = places[-1] if places else (None, "")
    said = traceback.format_exception_only(error)  # and its notes
    said = said[-1] if isinstance(error, SyntaxError) else "".join(said)
    where = f"Line {line}: <code>{cut(text.strip())}</code>" if line else ""
    tip = html.escape(advice(error, namespace))
    shown = f"<p>{where}</p><pre>{cut(said.strip())}</pre><p>{tip}</p>"
    return {"shown": f'<div class="bn-error">{shown}</div>', "line": line, "ran": False}


def execute(piece, namespace, name):
    """Run one statement; return its value where it is an expression."""
    if isinstance(piece, ast.Expr):
        code = compile(ast.Expression(piece.value), name, "eval")
        return eval(code, namespace)
    return exec(compile(ast.Module([piece], []), name, "exec"), namespace)


def run(code, namespace, lost=None):
    """Run a cell: {printed, shown, line, ran}; shown is the last value, as HTML.

    It ends where a statement fails. With `lost` it goes on behind it: that is called
    with the error and the statement, whose names have no value then.
    """
    name = f"<cell {next(COUNT)}>"  # its own, so that its lines are found in tracebacks
    linecache.cache[name] = (len(code), None, code.splitlines(True), name)
    printed, result = Printed(), {"shown": "", "line": None, "ran": True}
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        try:
            body = [*pieces(ast.parse(code, name))]
            for piece in body:
                try:
                    value = execute(piece, namespace, name)
                    if piece is body[-1]:
                        result["shown"] = shown(value)
                except BaseException as error:
                    if lost is None:
                        raise
                    lost(error, piece)
                    for gone in given(piece):
                        namespace.pop(gone, None)
        except BaseException as error:  # SystemExit too: the page goes on
            result |= explained(error, namespace, name)
    return result | {"printed": printed.getvalue()}


# ---- what the buttons ask for -------------------------------------------------------


def kept():
    """What code may change in numpy and bnlib, as later code should find it."""
    ours = [n for n in sys.modules if n.partition(".")[0] in ("numpy", "bnlib")]
    modules = [(vars(sys.modules[n]), {**vars(sys.modules[n])}) for n in ours]
    return modules, np.get_printoptions(), np.geterr()


KEPT = kept()


def clean():
    """Undo what code did to numpy and bnlib: a fresh start, without a new Python."""
    modules, options, errors = KEPT
    for module, names in modules:
        module.update(names)
    np.set_printoptions(**options)
    np.seterr(**errors)


def fresh():
    """The names that exist before an answer to an exercise."""
    clean()
    return {"__name__": "__main__", "np": np, "check": bnlib.check}


def run_answer(code):
    """Run an answer, as Run does."""
    return run(code, fresh())


def wrong_name(name, namespace):
    """The words for an answer that has no function of the name that is asked for."""
    from bnlib.exercises import EXERCISES

    before = fresh()
    own = [n for n, v in namespace.items() if callable(v) and n not in before]
    have = f"You have {', '.join(own)}." if own else "There is no function yet."
    begin, _, _ = EXERCISES[name].stub.partition("\n")
    said = f"No function is named {name}. {have} Begin with: {begin}"
    return f'<p class="bn-error">{html.escape(said)}</p>'


def check(name, code):
    """Run an answer and judge it: what `run` gives, and whether it `passed`."""
    namespace = fresh()
    result = run(code, namespace) | {"passed": False}
    if not result["ran"]:
        return result
    if not callable(namespace.get(name)):
        return result | {"shown": wrong_name(name, namespace)}
    verdict = bnlib.check(name, namespace[name])
    return result | {"shown": shown(verdict), "passed": verdict.passed}


class Page:
    """The cells of a page, run in their order as far as one was tried.

    Where a cell before that point has changed, or is tried again, the page starts anew:
    no cell runs twice, which would draw other random numbers than the page shows.
    """

    def __init__(self):
        self.namespace, self.ran = {}, []

    def try_cell(self, cells, number):
        """Run what can of the cells before one, as far as it has not run, then it."""
        done = len(self.ran)
        if done > number or self.ran != cells[:done] or not done:
            clean()
            self.namespace, done = {"__name__": "__main__"}, 0
        for earlier in cells[done:number]:
            run(earlier, self.namespace, lost=lambda *_: None)
        self.ran = cells[: number + 1]
        return run(cells[number], self.namespace)


PAGE = Page()


def answer(request):
    """The answer to a request of the page, both as JSON."""
    asked = json.loads(request)
    actions = {"run_answer": run_answer, "check": check, "try_cell": PAGE.try_cell}
    return json.dumps(actions[asked.pop("do")](**asked))
