"""From chapters/A4_instructors.ipynb.

Extracted by `make export`: edit the notebook, not this file.
"""

import ast
import base64
import contextlib
import functools
import inspect
import json
import numbers
import os
import re
import runpy
import signal
import sys
import traceback
import types
from pathlib import Path

import numpy as np


def pieces(path):
    """The statements of a notebook or a script, each as text; magics are left out."""
    text = Path(path).read_text(encoding="utf-8", errors="replace")
    if str(path).endswith(".ipynb"):
        cells = json.loads(text).get("cells", [])
        cells = [c.get("source", "") for c in cells if c.get("cell_type") == "code"]
        cells = ["".join(c) if isinstance(c, list) else str(c) for c in cells]
    else:
        cells = [text]
    found = []
    for cell in cells:
        if "get_ipython" in cell or cell.lstrip().startswith("%%"):
            continue  # how a notebook installs the book is no answer
        lines = ["" if s.lstrip()[:1] in ("%", "!") else s for s in cell.split("\n")]
        cell = "\n".join(lines)
        try:
            found += [ast.unparse(s) for s in ast.parse(cell).body]
        except (SyntaxError, ValueError, RecursionError):
            found.append(cell)  # it will say so when it is run
    return found


_OWN = {  # what a submission may take from bnlib
    "bnlib": ("check", "progress"),
    "bnlib.exercises": ("from_cache", "from_layer", "take_in"),
}
_LIBRARY = re.compile(
    r"(Batch|Layer|Group|Instance|RMS|Sync)\w*Norm\w*|"
    r"(batch|layer|group|instance|rms)_norm\w*|native_\w+_norm"
)
_INNER = {  # words that no exercise needs, and that lead out of it
    *("_getframe", "f_back", "f_globals", "f_locals", "gi_frame", "tb_frame"),
    *("currentframe", "get_objects", "get_referrers", "__subclasses__"),
    *("modules", "import_module", "__import__", "EXERCISES", "ctypes", "subprocess"),
}


def refusal(statement):
    """Why a statement is not run: a word in it that the exercises do not allow."""
    with contextlib.suppress(SyntaxError, ValueError, RecursionError):
        for node in ast.walk(ast.parse(statement)):
            if isinstance(node, ast.Import | ast.ImportFrom):
                words = _imported(node)
            else:
                words = _mentioned(node)
            if words:
                return min(words)
    return ""


def _imported(node):
    """The words of an import that are not allowed."""
    names = {alias.name for alias in node.names}
    home = getattr(node, "module", "") or ""
    if home.split(".")[0] == "bnlib":
        return {f"{home}.{n}" for n in names if n not in _OWN.get(home, ())}
    found = {n for n in names if n.startswith("bnlib.")}
    if home.split(".")[0] == "torch":
        found |= {f"{home}.{n}" for n in names if _LIBRARY.fullmatch(n)}
    return found | ({p for n in {home, *names} for p in n.split(".")} & _INNER)


def _mentioned(node):
    """The words of an expression that are not allowed."""
    if isinstance(node, ast.Name):
        return {node.id} & _INNER
    if not isinstance(node, ast.Attribute):
        return set()
    dotted = ast.unparse(node)
    root, first = dotted.split(".")[:2]
    is_library = root in ("torch", "nn", "F") and _LIBRARY.fullmatch(node.attr)
    is_answer = root == "bnlib" and first not in _OWN["bnlib"]
    return {dotted} if is_library or is_answer or node.attr in _INNER else set()


def encode(value, left=100_000):
    """Something that a function returned, as JSON: numbers, and what they came in."""
    if hasattr(value, "detach"):  # a tensor; half precision has no other name here
        value = value.detach().cpu()
        try:
            value = value.numpy()
        except TypeError:
            value = value.float().numpy().astype(np.float16)
    if value is None or type(value) in (bool, int, float):
        return {"value": value}
    if isinstance(value, numbers.Real) and not isinstance(value, np.generic):
        return {"value": float(value)}
    if isinstance(value, list | tuple):
        if len(value) > left:
            return {"huge": f"a {type(value).__name__} of {len(value)}"}
        parts = [encode(part, left // max(1, len(value))) for part in value]
        return {"tuple" if isinstance(value, tuple) else "list": parts}
    if isinstance(value, np.ndarray | np.generic):
        array = np.asarray(value)
        if array.size > left:
            return {"huge": f"shape {array.shape}"}
        if array.dtype.kind in "biufc":
            data = base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()
            return {"dtype": array.dtype.str, "shape": array.shape, "data": data}
        if array.dtype == object:
            return {"list": [encode(a, 1000) for a in array.tolist()]}
    return {"other": type(value).__name__}


def decode(message):
    """The same, read back: nothing in it is run, whoever wrote it."""
    if "value" in message:
        return message["value"]
    for kind in (tuple, list):
        if kind.__name__ in message:
            return kind(map(decode, message[kind.__name__]))
    if "dtype" in message:
        dtype = np.dtype(str(message["dtype"]))
        if dtype.kind not in "biufc":
            raise ValueError(f"an array of {dtype}")
        data = base64.b64decode(message["data"])
        return np.frombuffer(data, dtype).reshape(message["shape"]).copy()
    if "huge" in message:
        raise ValueError(f"{message['huge']}: far more numbers than are asked for")
    return type(str(message.get("other"))[:50], (), {})()


class _Late(BaseException):
    """The time of one statement is up."""


def _run(statement, space, seconds):
    """Run a statement; what it ended with, as a line, or ""."""

    def ring(*_):
        raise _Late

    with contextlib.suppress(AttributeError, ValueError):  # no signals on Windows
        signal.signal(signal.SIGALRM, ring)
        signal.setitimer(signal.ITIMER_REAL, seconds, 0.2)
    try:
        exec(compile(statement, "<submission>", "exec"), space)
    except _Late:
        return f"cut off after {seconds:g} seconds"
    except BaseException as error:
        return _in_words(error)
    finally:
        with contextlib.suppress(AttributeError, ValueError):
            signal.setitimer(signal.ITIMER_REAL, 0)
    return ""


def _in_words(error):
    try:
        return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    except BaseException:
        return type(error).__name__


def _signature(function):
    """The names of the parameters, and whether they may be left out."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except BaseException:
        return None
    empty = inspect.Parameter.empty
    return [(p.name, int(p.kind), p.default is not empty) for p in parameters]


def _call(function, message):
    """Call a function of the submission; the reply."""
    args = [decode(a) for a in message["args"]]
    more = {n: decode(a) for n, a in message["kwargs"].items()}
    every = [*args, *more.values()]
    before = [np.copy(a) for a in every]
    try:
        if "script" in message:  # what is done with a class
            space = {"np": np, "sys": sys}
            exec(message["script"], space)
            function = functools.partial(space["script"], function)
        reply = {"result": encode(function(*args, **more))}
    except BaseException as error:
        rest = _in_words(error).partition(": ")[2]
        reply = {"error": type(error).__name__, "text": rest, "place": _place_of(error)}
        return reply | {"mistake": str(getattr(error, "mistake", ""))}
    changed = {
        i: encode(a)
        for i, (a, b) in enumerate(zip(every, before, strict=True))
        if isinstance(a, np.ndarray)
        and not (a.shape == b.shape and np.array_equal(a, b, equal_nan=True))
    }
    return reply | {"changed": changed}


def _place_of(error):
    """The last line of the submission that an error went through."""
    frames = [f for f, _ in traceback.walk_tb(error.__traceback__)]
    own = [f for f in frames if f.f_code.co_filename == "<submission>"]
    return f"in {own[-1].f_code.co_name}" if own else ""


def serve(path, way_in, way_out, skipped, seconds, memory):
    """Run a submission, then its functions, as often as asked; JSON, line by line."""
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
        resource.setrlimit(resource.RLIMIT_FSIZE, (10**7, 10**7))
    requests, replies = os.fdopen(way_in), os.fdopen(way_out, "w")

    def say(message):
        replies.write(json.dumps(message) + "\n")
        replies.flush()

    book = types.ModuleType("bnlib", "In a grader nothing but what knows no answer.")
    book.exercises = types.ModuleType("bnlib.exercises")
    shapes = runpy.run_path(str(Path(__file__).with_name("_adapt.py")))
    vars(book.exercises).update({n: shapes[n] for n in shapes["__all__"]})
    book.check = book.progress = book.exercises.take_in = lambda *_: None
    sys.modules |= {"bnlib": book, "bnlib.exercises": book.exercises}
    space = {"__name__": "__main__", "__builtins__": __builtins__}
    for number, statement in enumerate(pieces(path)):
        if number in skipped:
            continue
        say({"statement": number})
        word = refusal(statement)
        note = (
            f"not run, because of {word}" if word else _run(statement, space, seconds)
        )
        if note:
            first = statement.strip().splitlines()[0][:60]
            say({"note": f"{first}: {note}", "late": note.startswith("cut off")})
    say({"ready": {n: _signature(f) for n, f in list(space.items()) if callable(f)}})
    for line in requests:
        message = json.loads(line)
        try:
            reply = _call(space[message["name"]], message)
            text = json.dumps(reply)
        except BaseException as error:  # whatever it is, there is a reply
            text = json.dumps({"error": type(error).__name__, "text": "", "place": ""})
        replies.write(text + "\n")
        replies.flush()
