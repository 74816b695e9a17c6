"""Python's side of the page: which cells can run here, and running them.

The site's build uses `parts` to mark the cells that offer *Try it*; in the browser,
inside Pyodide, `answer` gives the buttons what they ask for. Only what a page has
is imported: the standard library, numpy and bnlib.
"""

import ast
import contextlib
import difflib
import errno
import functools
import html
import importlib.util
import io
import itertools
import json
import linecache
import symtable
import sys
import traceback
from pathlib import Path

MOST = 10_000  # characters that a cell may print, and that are shown of a value
NOT_IN_A_BROWSER = {"multiprocessing", "socket", "ssl", "subprocess", "tkinter", "venv"}
DOWNLOADS = "bnlib.data"
COUNT = itertools.count(1)  # of the cells run
READS_FILES = {"open", "read_text", "read_bytes"}
HAVE = "Python's standard library, numpy and bnlib"


# ---- which cells can run ------------------------------------------------------------


def imports(tree):
    """Every module that code imports when it is loaded."""
    for node in tree.body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module


def is_here(module, _seen=frozenset()):
    """True if a module can be imported with numpy and bnlib alone."""
    top = module.partition(".")[0]
    if module == DOWNLOADS:
        return False
    if top != "bnlib":
        return top == "numpy" or top in sys.stdlib_module_names - NOT_IN_A_BROWSER
    spec = importlib.util.find_spec("bnlib")
    file = Path(spec.origin).parent.joinpath(*module.split(".")[1:])
    file = file / "__init__.py" if file.is_dir() else file.with_suffix(".py")
    if module in _seen or not file.exists():
        return True
    found = imports(ast.parse(file.read_text(encoding="utf-8")))
    return all(is_here(name, _seen | {module}) for name in found)


def lost(alias, module=None):
    """True if an import gives a name that needs more than numpy."""
    if module is None:
        return not is_here(alias.name)
    whole = f"{module}.{alias.name}"
    return not (is_here(module) and is_here(whole)) or whole in needs_torch()


def needs_torch():
    import bnlib

    homes = bnlib._LAZY.items()
    return {f"bnlib.{name}" for name, home in homes if home.startswith("bnlib.nn")}


def scopes(table):
    yield table
    for child in table.get_children():
        yield from scopes(child)


def names(statement):
    """The global names a statement reads, and those it gives a value or changes."""
    code = ast.unparse(statement)
    top, *inner = scopes(symtable.symtable(code, "a cell", "exec"))
    own = top.get_symbols()
    given = {s.get_name() for s in own if s.is_assigned() or s.is_imported()}
    read = {s.get_name() for s in own if s.is_referenced()}
    if not isinstance(statement, ast.Assign | ast.AugAssign):
        read -= given  # for m in ...: the loop gives m its value before it is read
    for table in inner:
        read |= {s.get_name() for s in table.get_symbols() if s.is_global()}
    for node in ast.walk(statement):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            read.add(f"{node.value.id}.{node.attr}")
    return read, given | changed(statement)


def changed(statement):
    """The names whose object a statement changes: a[0] = 1, a.b = 1, a.append(1)."""
    found = set()
    for node in ast.walk(statement):
        inside = isinstance(node, ast.Attribute | ast.Subscript)
        if inside and isinstance(node.ctx, ast.Store):
            found |= {n.id for n in ast.walk(node.value) if isinstance(n, ast.Name)}
    match statement:
        case ast.Expr(ast.Call(ast.Attribute(ast.Name(name)))):
            found.add(name)
    return found


def asks_for_more(statement):
    """True if a statement imports within, or reads a file, of what a page has not."""
    for node in ast.walk(statement):
        if isinstance(node, ast.Import):
            if not all(is_here(alias.name) for alias in node.names):
                return True
        elif isinstance(node, ast.ImportFrom):
            if any(lost(alias, node.module) for alias in node.names):
                return True
        elif getattr(node, "attr", getattr(node, "id", None)) in READS_FILES:
            return True
    return False


def is_generator(statement):
    return any(
        isinstance(node, ast.Attribute) and node.attr == "default_rng"
        for node in ast.walk(statement)
    )


def without_lost(statement, missing, generators):
    """The part of a statement that can run, as code, and is that all of it?

    What cannot run adds to the names that are `missing`.
    """
    gone = []
    if isinstance(statement, ast.Import | ast.ImportFrom):
        module = getattr(statement, "module", None)
        gone = [a for a in statement.names if lost(a, module)]
        missing.update((a.asname or a.name).partition(".")[0] for a in gone)
        statement.names = [a for a in statement.names if a not in gone]
        if not statement.names:
            return "", False
    read, given = names(statement)
    if missing & read or asks_for_more(statement):
        # a generator that was not drawn from gives other numbers than the page shows
        missing |= given | (read & generators)
        return "", False
    missing -= given
    generators.update(given if is_generator(statement) else ())
    return ast.unparse(statement), not gone


def parts(sources):
    """For every cell of a page: the code of it that can run here, and is that all?

    A statement cannot run here if it imports what a page does not have, or reads a name
    that only such a statement has given a value.
    """
    missing, generators, found = needs_torch(), set(), []
    for source in sources:
        try:
            body = ast.parse(source).body
        except SyntaxError:  # %timeit, !ls
            found.append(("", False))
            continue
        kept = [without_lost(s, missing, generators) for s in body]
        whole = bool(kept) and all(all_of_it for _, all_of_it in kept)
        found.append((source if whole else "\n".join(code for code, _ in kept), whole))
    return found


# ---- running them -------------------------------------------------------------------


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
    if isinstance(error, ModuleNotFoundError):
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


def run(code, namespace):
    """Run a cell: {printed, shown, line, ran}; shown is the last value, as HTML."""
    name = f"<cell {next(COUNT)}>"  # its own, so that its lines are found in tracebacks
    linecache.cache[name] = (len(code), None, code.splitlines(True), name)
    printed, result = Printed(), {"shown": "", "line": None, "ran": True}
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        try:
            tree = ast.parse(code, name)
            ends = tree.body and isinstance(tree.body[-1], ast.Expr)
            last = ast.Expression(tree.body.pop().value) if ends else None
            exec(compile(tree, name, "exec"), namespace)
            if last is not None:
                result["shown"] = shown(eval(compile(last, name, "eval"), namespace))
        except BaseException as error:  # SystemExit too: the page goes on
            result |= explained(error, namespace, name)
    return result | {"printed": printed.getvalue()}


# ---- what the buttons ask for -------------------------------------------------------


def fresh():
    """The names that exist before an answer to an exercise."""
    import numpy

    import bnlib

    return {"__name__": "__main__", "np": numpy, "check": bnlib.check}


def run_answer(code):
    """Run an answer, as Run does."""
    return run(code, fresh())


def wrong_name(name, namespace):
    """The words for an answer that has no function of the name that is asked for."""
    from bnlib.exercises import EXERCISES

    before = fresh()
    own = [n for n, v in namespace.items() if callable(v) and n not in before]
    have = f"You have {', '.join(own)}." if own else "There is no function yet."
    wanted = EXERCISES[name].signature.partition(" ->")[0]
    said = f"No function is named {name}. {have} Begin with: def {wanted}:"
    return f'<p class="bn-error">{html.escape(said)}</p>'


def check(name, code):
    """Run an answer and judge it: what `run` gives, and whether it `passed`."""
    import bnlib

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

    A cell before that point starts the page anew: no cell runs twice, which would draw
    other random numbers than the page shows.
    """

    def __init__(self, sources):
        self.sources = sources
        self.codes = [code for code, _ in parts(sources)]
        self.restart()

    def restart(self):
        self.namespace, self.done = {"__name__": "__main__"}, 0

    def try_cell(self, number, code):
        """Run the earlier cells that have not run yet, as printed, then this code."""
        if number < self.done:
            self.restart()
        for earlier in self.codes[self.done : number]:
            run(earlier, self.namespace)
        self.done = number + 1
        return run(code, self.namespace)


@functools.cache
def page(*sources):
    return Page(sources)


def try_cell(sources, number, code):
    """Run a cell of a page, as Try it does."""
    return page(*sources).try_cell(number, code)


def answer(request):
    """The answer to a request of the page, both as JSON."""
    asked = json.loads(request)
    actions = {"run_answer": run_answer, "check": check, "try_cell": try_cell}
    return json.dumps(actions[asked.pop("do")](**asked))
