"""Running a chapter again changes nothing in git, whatever stands above a cell."""

import re
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))
import run  # noqa: E402

DEFINE = "import json\ndef load(text):\n    return json.loads(text)"


def ran(path, *above):
    """The stored outputs of a cell that fails in a function of an earlier one."""
    cells = [new_code_cell(source) for source in (*above, DEFINE, "load('}')")]
    cells[-1].metadata["tags"] = ["raises-exception"]
    nbformat.write(new_notebook(cells=cells), path)
    run.run(path)
    return nbformat.read(path, as_version=4).cells[-1].outputs


def test_a_new_cell_changes_no_traceback_below_it(tmp_path):
    alone = ran(tmp_path / "18_alone.ipynb")
    assert alone[0].output_type == "error"
    assert ran(tmp_path / "18_below.ipynb", "1", "2") == alone


def test_running_again_changes_nothing(tmp_path):
    path = tmp_path / "18_again.ipynb"
    ran(path, "print(1)")
    before = path.read_bytes()
    run.run(path)
    assert path.read_bytes() == before


WIDGETS = """import matplotlib.pyplot as plt
from tqdm.auto import tqdm
from bnlib import figures
list(tqdm([1, 2]))
fig, ax = plt.subplots()
ax.plot(LINE)
plt.show()
figures.movable(lambda n: plt.subplots()[0], [1, 2], label="n", describe=str)"""


def test_widgets_leave_nothing_that_differs_from_run_to_run(tmp_path, monkeypatch):
    """Not where more of them stand above, nor where a line is a hair aside."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    path, aside = tmp_path / "18_moves.ipynb", tmp_path / "18_aside.ipynb"
    cells = [new_code_cell(WIDGETS.replace("LINE", "[1, 2]"))]
    nbformat.write(new_notebook(cells=cells), path)
    run.run(path)
    stored = path.read_text()
    assert run.WIDGET not in stored and "widget-state" not in stored
    assert run.STORED in stored and not re.search(r"[0-9a-f]{32}", stored)

    book = nbformat.reads(stored, as_version=4)
    book.cells[0].source = WIDGETS.replace("LINE", "[1, 2 + 1e-6]")
    book.cells.insert(0, new_code_cell(WIDGETS.replace("LINE", "[2, 1]")))
    nbformat.write(book, aside)
    run.run(aside)
    again = nbformat.read(aside, as_version=4).cells
    assert again[1].outputs == book.cells[1].outputs
    assert again[0].outputs != book.cells[1].outputs


def test_a_picture_that_looks_different_is_stored():
    line = ["M0 0 5 5", "M0.01 0 5 5", "M1 0 5 5"]
    stored = [f'{{}}\n[[0]]\n<path d="{d}"/>' for d in line]
    assert run.moves_same(stored[0], stored[1])
    assert not run.moves_same(stored[0], stored[2])
    assert not run.moves_same(stored[0], stored[0].replace("{}", "[]"))
    assert not run.moves_same(stored[0], stored[0].replace("M0", "m0"))
    words = "{}\n[[0]]\n<text>0.41</text>"
    assert not run.moves_same(words, words.replace("0.41", "0.42"))


@pytest.mark.parametrize("home", ["/home/me", "/elsewhere"])
@pytest.mark.parametrize(
    "library", ["/usr/lib", "/home/me/book/env/lib", "~/v/lib", "env/lib"]
)
def test_a_traceback_names_no_machine(home, library, monkeypatch):
    monkeypatch.setattr(run, "ROOT", Path("/home/me/book"))
    monkeypatch.setattr(Path, "home", lambda: Path(home))
    book = "~/book" if home == "/home/me" else "/home/me/book"
    text = "\x1b[32mFile {}bnlib/fast.py:3\nFile \x1b[32m{}torch/nn/x.py:44"
    assert run.stable(text.format("", "")) == text.format("", "")
    told = text.format(f"{book}/", f"{library}/python3.12/site-packages/")
    assert run.stable(told) == text.format("", "")
