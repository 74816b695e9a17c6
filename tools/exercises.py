"""Write what is made of the chapters' exercises: the workbooks, the list of mistakes.

    python tools/exercises.py            # write workbooks/ and tests/mistakes.txt
    python tools/exercises.py --check    # fail if they differ from what is wanted

An exercise lives in its chapter, and `make export` writes it to a file of its own in
bnlib/exercises/catalogue/. From there come the workbooks, which have the stubs alone,
and the list of what every exercise catches. A line of a solution that is written anew,
be it one name in it, loses its mistakes; the list shows it.

The first cell of every notebook installs bnlib where it is missing, and does nothing
elsewhere; the pages do not show it. Where there is no clone of the book around it, as
on Colab or in a folder of downloads, it makes one, from the repository that _config.yml
names, or says what to do where none is named.
"""

import hashlib
import re
import sys
import textwrap

import nbformat
import yaml
from export import ROOT
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from bnlib.exercises import EXERCISES

TAG = "exercise"
WORKBOOKS = {  # file name: title, first and last chapter
    "1_the_paper": ("Workbook one: the paper", "02", "06"),
    "2_after_the_paper": ("Workbook two: after the paper", "13", "20"),
}

FIRST = """\
# Where bnlib is missing, as on Colab: install it, and what the {folder} need.
from importlib.util import find_spec
from pathlib import Path

"""
CLONE = """\
if not Path("../bnlib").is_dir():
    get_ipython().system("git clone -q --depth=1 {url} book")
    get_ipython().run_line_magic("cd", "-q book/{folder}")
"""
SAY = """\
assert Path("../bnlib").is_dir(), "run this in {folder}/ of a clone of the book"
"""
# Where a chapter reads results, or runs scripts, which are not in the package.
READS = re.compile(r'"\.\./|"experiments"')

WELCOME = """\
# {title}

Replace each `raise NotImplementedError(...)` by your code and run the cell. The check
says what is wrong, if anything is, and never shows the solution. The chapters derive
what you need, and have hints and solutions. Nothing you write leaves this notebook.

No exercise needs another. If this is your first, begin with `{shortest}`."""

IMPORTS = """\
import numpy as np

from bnlib import check, progress

progress()"""


def address() -> str:
    """Where the book can be cloned from, as _config.yml says; it may be empty."""
    config = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
    return config["repository"]["url"]


def install(folder: str, url: str, reads: bool = False) -> str:
    """The first cell of a notebook in a folder of the repository at an address."""
    missing = 'if not find_spec("bnlib"):\n'
    alone = (CLONE if url else SAY).format(url=url, folder=folder)
    what = "..[chapters]" if folder == "chapters" else ".."
    pip = f'    get_ipython().run_line_magic("pip", "install -q {what}")'
    then = alone + missing if reads else missing + textwrap.indent(alone, "    ")
    return FIRST.format(folder=folder) + then + pip


def reads(notebook) -> bool:
    """Whether a notebook needs files that lie beside it in the book."""
    code = [c.source for c in notebook.cells if c.cell_type == "code"]
    return any(map(READS.search, code[1:]))


def attempt(exercise) -> str:
    """The cell a learner edits: the stub, and its check."""
    return f'{exercise.stub}\n\ncheck("{exercise.name}", {exercise.name})'


def with_id(cell, name: str, number: int):
    """Tag a cell, and give it an identifier that is the same every time."""
    cell.metadata["tags"] = [TAG]
    cell.id = hashlib.md5(f"{name}-{number}".encode()).hexdigest()[:8]
    return cell


def is_made(cell) -> bool:
    return TAG in cell.metadata.get("tags", [])


def workbook(name: str):
    """A notebook of stubs, without outputs."""
    title, low, high = WORKBOOKS[name]
    own = [e for e in EXERCISES.values() if low <= e.chapter[:2] <= high]
    shortest = min(own, key=lambda exercise: len(exercise.source)).name
    cells = [new_markdown_cell(WELCOME.format(title=title, shortest=shortest))]
    cells += [new_code_cell(install("workbooks", address())), new_code_cell(IMPORTS)]
    for exercise in own:
        number = int(exercise.chapter[:2])
        head = f"## {exercise.title} (chapter {number})\n\n{exercise.task}"
        cells += [new_markdown_cell(head), new_code_cell(attempt(exercise))]
    cells = [with_id(cell, name, n) for n, cell in enumerate(cells)]
    book = new_notebook(cells=cells)
    book.metadata["kernelspec"] = {
        "display_name": "Python 3", "language": "python", "name": "python3",
    }  # fmt: skip
    return nbformat.writes(book) + "\n"


def caught() -> str:
    """The mistakes that every exercise catches, one a line, for tests/."""
    parts = ("\n  ".join([name, *e.mistakes]) for name, e in EXERCISES.items())
    return "\n\n".join(parts) + "\n"


def wanted() -> dict:
    """{path: text} of every file that is made of the exercises."""
    books = {ROOT / "workbooks" / f"{name}.ipynb": workbook(name) for name in WORKBOOKS}
    return books | {ROOT / "tests" / "mistakes.txt": caught()}


def main(option: str = "") -> int:
    check, stale = option == "--check", 0
    for path, text in wanted().items():
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            stale += 1
            print(f"{'differs' if check else 'wrote'} {path.relative_to(ROOT)}")
            if not check:
                path.parent.mkdir(exist_ok=True)
                path.write_text(text, encoding="utf-8")
    if check and stale:
        print("run: make exercises")
    return int(check and stale > 0)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
