"""Which cells of a chapter a page can run: found by running them as the page does.

In a folder that holds bnlib alone, with nothing to import but the standard library,
numpy and bnlib, the cells run in their order, with the page's own runner.py. A cell is
offered to readers if all of it runs and shows what the chapter shows. What is found for
a chapter is kept in _build/cells until that, bnlib or the runner changes.
"""

import ast
import hashlib
import html
import json
import re
import shutil
import subprocess
import symtable
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from frontend import ROOT, digest

INPAGE = ROOT / "tools" / "inpage" / "_static" / "inpage"
FOUND = ROOT / "_build" / "cells"
SECONDS = 600
NOT_IN_A_BROWSER = {"multiprocessing", "socket", "ssl", "subprocess", "tkinter", "venv"}
REMOVED = {"remove-cell", "remove-input"}
ELSEWHERE = "the notebook"
# What a reader may look for; of several the first is named.
NAMES = {
    "torch": "PyTorch",
    "matplotlib": "matplotlib",
    "sklearn": "scikit-learn",
}


# ---- what the build asks ------------------------------------------------------------


def shown_cells(book):
    """The code cells of a notebook that its page has."""
    code = (c for c in book["cells"] if c["cell_type"] == "code")
    return [c for c in code if not REMOVED & {*c["metadata"].get("tags", [])}]


def needs(book):
    """For each of `shown_cells`: what it needs and a page has not, "" where it runs."""
    cells = [
        {
            "source": "".join(cell["source"]),
            "shown": shown_by(cell),
            "noise": "nbval-ignore-output" in cell["metadata"].get("tags", []),
        }
        for cell in shown_cells(book)
    ]
    asked = json.dumps(cells)
    known = hashlib.sha256((asked + state()).encode()).hexdigest()[:20]
    place = FOUND / f"{known}.json"
    if not place.is_file():
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(json.dumps(run_elsewhere(asked)))
    return json.loads(place.read_text())


def state():
    """What else decides: the package, the runner, this file."""
    package = sorted((ROOT / "bnlib").rglob("*.py"))
    return digest(*package, INPAGE / "runner.py", Path(__file__))


def run_elsewhere(asked):
    """Run the cells in a process and a folder that have what a browser has."""
    with tempfile.TemporaryDirectory() as away:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / "bnlib", Path(away, "bnlib"), ignore=ignored)
        command = [sys.executable, "-P", "-c", CHILD, Path(__file__).parent, INPAGE]
        done = subprocess.run(
            command,
            cwd=away,
            input=asked,
            capture_output=True,
            text=True,
            timeout=SECONDS,
        )
    if done.returncode:
        raise RuntimeError(
            f"the cells of a page could not be tried:\n{done.stderr[-900:]}"
        )
    return json.loads(done.stdout)


def ahead(books):
    """Run those of several chapters that are new, two at a time."""
    with ThreadPoolExecutor(2) as pool:
        [*pool.map(needs, books)]


def shown_by(cell):
    """What a cell printed, raised and showed, as the page shows it."""
    texts = []
    for output in cell["outputs"]:
        data = output.get("data", {})
        texts.append(output.get("text", ""))
        texts.append(data.get("text/html", data.get("text/plain", "")))
        if "ename" in output:
            texts.append(f"{output['ename']}: {output['evalue']}")
    return "".join("".join(text) for text in texts)


# ---- what the other process does ----------------------------------------------------

CHILD = """
import os, sys
sys.path[:0] = [os.getcwd(), *sys.argv[1:]]
import runnable
runnable.main()
"""


class Hide:
    """Finds nothing but what a page has."""

    here = {*sys.stdlib_module_names, "numpy", "bnlib"} - NOT_IN_A_BROWSER

    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top not in self.here and not top.startswith("_"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def read_inside(piece):
    """The global names that the functions of a statement read when they are called."""
    table = symtable.symtable(ast.unparse(piece), "a cell", "exec")
    inner = table.get_children()
    while inner:
        scope = inner.pop()
        inner += scope.get_children()
        yield from (s.get_name() for s in scope.get_symbols() if s.is_global())


def why(error, missing):
    """What a statement needs, by the error it ended with."""
    if isinstance(error, ImportError):
        return (error.name or ELSEWHERE).partition(".")[0]
    if isinstance(error, NameError):
        return missing.get(error.name, ELSEWHERE)
    return ELSEWHERE


def tried(cell, namespace, missing):
    """What one cell needs; names it should have given a value become `missing`."""
    import runner

    lacks, errors = [], []

    def lost(error, piece):
        errors.append(error)
        lacks.append(why(error, missing))
        missing.update(dict.fromkeys(runner.given(piece), lacks[-1]))

    result = runner.run(cell["source"], namespace, lost)
    if not result["ran"]:
        return ELSEWHERE  # %timeit, !ls
    for piece in ast.parse(cell["source"]).body:
        if isinstance(piece, ast.FunctionDef | ast.ClassDef):
            lacks += [missing[n] for n in read_inside(piece) if n in missing]
        for name in runner.given(piece) & {*namespace}:
            missing.pop(name, None)
    if len(errors) == 1 and lacks == [ELSEWHERE]:  # a cell that is meant to fail
        end = f"{type(errors[0]).__name__}: {errors[0]}"
        lacks = [] if flat(cell["shown"]) == flat(result["printed"] + end) else lacks
    elif not lacks:
        text = re.sub("</?pre>", "", result["shown"])
        own = result["printed"] + (html.unescape(text) if "<" not in text else text)
        alike = letters if cell["noise"] else flat
        if alike(own) != alike(cell["shown"]):  # torch drew from the generator before
            lacks = [*missing.values(), ELSEWHERE]
    return named(lacks)


def named(lacks):
    """What a cell lacks, in a word for the reader."""
    known = (NAMES[name] for name in NAMES if name in lacks)
    return next(known, ELSEWHERE) if lacks else ""


def flat(text):
    """Text without blanks, which IPython lays out in its own way."""
    return re.sub(r"\s", "", text)


def letters(text):
    """Text without its numbers, where these are never the same twice."""
    return re.sub(r"[^A-Za-z]|e[+-]\d", "", text)


def main():
    import runner  # noqa: F401  brings numpy and bnlib, before the rest is hidden

    sys.meta_path.insert(0, Hide())
    sys.modules.update(dict.fromkeys(NOT_IN_A_BROWSER))
    namespace, missing = {"__name__": "__main__"}, {}
    found = [tried(cell, namespace, missing) for cell in json.load(sys.stdin)]
    json.dump(found, sys.__stdout__)
