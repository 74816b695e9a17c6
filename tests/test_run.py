"""Running a chapter again changes nothing in git, whatever stands above a cell."""

import re
from functools import partial
from pathlib import Path

import nbformat
import pytest
import run
from commands import commit, git
from commands import run as command
from nbformat.v4 import new_code_cell, new_notebook

ROOT = Path(__file__).resolve().parent.parent

DEFINE = "import json\ndef load(text):\n    return json.loads(text)"


def ran(path, *above):
    """The stored outputs of a cell that fails in a function of an earlier one."""
    cells = [new_code_cell(source) for source in (*above, DEFINE, "load('}')")]
    cells[-1].metadata["tags"] = ["raises-exception"]
    nbformat.write(new_notebook(cells=cells), path)
    run.run(path)
    return nbformat.read(path, as_version=4).cells[-1].outputs


def test_of_a_traceback_the_message_stays(tmp_path):
    alone = ran(tmp_path / "18_alone.ipynb")
    assert alone[0].output_type == "error" and len(alone[0].traceback) == 1
    assert ran(tmp_path / "18_below.ipynb", "1", "2") == alone


def test_running_again_changes_nothing(tmp_path):
    path = tmp_path / "18_again.ipynb"
    ran(path, "print(1)")
    before = path.read_bytes()
    run.run(path)
    assert path.read_bytes() == before


@pytest.fixture
def clone(tmp_path):
    """A repository with a chapter for each thing that can happen to one."""
    (tmp_path / "chapters").mkdir()
    for name in ("00_same", "01_edited", "02_staged", "03_gone", "04_old"):
        (tmp_path / "chapters" / f"{name}.ipynb").write_text(f"{name}\n" * 9)
    git(tmp_path, "init", "-q")
    commit(tmp_path)
    return tmp_path


def test_the_chapters_that_differ_from_head_are_run_and_no_other(
    clone, monkeypatch, capsys
):
    ran = []
    monkeypatch.setattr(run, "run", lambda path: ran.append(path.name))
    monkeypatch.setattr(run, "changed", partial(run.changed, clone))
    assert run.main(["changed"]) == 0 and ran == []
    assert "no chapter differs" in capsys.readouterr().out

    chapters = clone / "chapters"
    (chapters / "01_edited.ipynb").write_text("edited")
    (chapters / "02_staged.ipynb").write_text("staged")
    git(clone, "add", "chapters/02_staged.ipynb")
    (chapters / "03_gone.ipynb").unlink()
    git(clone, "mv", "chapters/04_old.ipynb", "chapters/05_moved.ipynb")
    (chapters / "06_new.ipynb").write_text("new")
    for elsewhere in (
        "workbooks/1.ipynb",
        "chapters/old/06_new.ipynb",
        "chapters/a.md",
    ):
        (clone / elsewhere).parent.mkdir(exist_ok=True)
        (clone / elsewhere).write_text("no chapter")
    assert run.main(["changed"]) == 0
    names = ["01_edited", "02_staged", "05_moved", "06_new"]
    assert ran == [f"{name}.ipynb" for name in names]

    commit(clone)
    assert run.changed() == []


def test_without_a_commit_nobody_knows_what_changed(tmp_path):
    git(tmp_path, "init", "-q")
    with pytest.raises(SystemExit, match="in a clone with a commit alone"):
        run.changed(tmp_path)


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


@pytest.mark.parametrize(
    "chapter, wanted", [("changed", "changed"), ("04", "chapters/04*.ipynb")]
)
def test_make_run_says_which(chapter, wanted):
    said = command("make", "-n", "run", f"CHAPTER={chapter}", cwd=ROOT)
    (line,) = (x for x in said.splitlines() if "tools/run.py" in x)
    assert line.split()[-1] == wanted
