"""Exercises in chapters, workbooks and catalogue are the same; what each catches."""

import functools
import importlib.util
import re
import shutil
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace

import exercise_cells
import exercises
import nbformat
import numpy as np
import pytest
import run
from commands import python
from nbclient.exceptions import CellExecutionError

import bnlib
from bnlib.exercises import EXERCISES

ROOT = Path(__file__).resolve().parent.parent

WORKBOOKS = sorted((ROOT / "workbooks").glob("*.ipynb"))


@functools.cache
def cells(path, kind="code"):
    book = nbformat.read(path, as_version=4)
    return [c.source for c in book.cells if c.cell_type == kind]


def test_workbooks_and_mistakes_are_what_the_catalogue_says():
    assert [p.stem for p in WORKBOOKS] == list(exercises.WORKBOOKS)
    for path, text in exercises.wanted().items():
        assert path.read_text(encoding="utf-8") == text, f"{path.name}: make exercises"


@pytest.mark.parametrize("exercise", EXERCISES.values(), ids=list(EXERCISES))
def test_every_exercise_is_in_its_chapter_and_in_one_workbook(exercise):
    chapter = "\n".join(cells(ROOT / f"chapters/{exercise.chapter}.ipynb"))
    assert exercise.stub in chapter and exercise.source.strip() in chapter
    found = [p for p in WORKBOOKS if exercise.stub in "\n".join(cells(p))]
    assert len(found) == 1
    assert exercise.source not in "\n".join(cells(found[0]))


def test_a_part_that_is_missing_is_named(tmp_path):
    book = nbformat.read(ROOT / "chapters/04_backward.ipynb", as_version=4)
    name, path = "batch_norm_backward", tmp_path / "04_backward.ipynb"
    own = [c for c in book.cells if exercises.is_made(c)]
    for part in (r"-> \(dx", r"\{exercise-start", r"\{solution-start", "Not", "dx = "):
        kept = [c for c in own if not re.search(part, c.source)]
        assert len(kept) < len(own)
        nbformat.write(nbformat.v4.new_notebook(cells=kept), path)
        exercise_cells.cells.cache_clear()
        with pytest.raises(ValueError, match=f"exercise {name} should have one"):
            exercise_cells.as_code(path, name)
    exercise_cells.cells.cache_clear()


def test_the_page_shows_that_a_stub_is_not_yet_and_a_solution_is_right():
    for chapter in {e.chapter for e in EXERCISES.values()}:
        book = nbformat.read(ROOT / f"chapters/{chapter}.ipynb", as_version=4)
        for cell in filter(exercises.is_made, book.cells):
            if cell.cell_type == "code" and "\ncheck(" in cell.source:
                shown = str(cell.outputs)
                is_stub = "NotImplementedError" in cell.source
                assert ("not yet" if is_stub else ": right") in shown, cell.source


CHAPTERS = sorted((ROOT / "chapters").glob("*.ipynb"))


@pytest.mark.parametrize("path", CHAPTERS + WORKBOOKS, ids=lambda p: p.stem)
def test_the_first_cell_of_every_notebook_installs_bnlib(path):
    reads = exercises.reads(nbformat.read(path, as_version=4))
    wanted = exercises.install(path.parent.name, exercises.address(), reads)
    assert cells(path)[0] == wanted


def test_what_a_chapter_reads_is_known():
    named = r'"(?:[\w./]*\.(?:json|toml|csv|md)|\.\.(?:/[\w./]*)?|experiments)"'
    found = {p.stem for p in CHAPTERS if re.search(named, "\n".join(cells(p)[1:]))}
    told = {p.stem for p in CHAPTERS if exercises.reads(nbformat.read(p, as_version=4))}
    assert found == told and "09_mnist" in told and "04_backward" not in told


def test_a_download_runs_in_an_empty_folder_where_bnlib_is_installed(tmp_path):
    path = shutil.copy(ROOT / "chapters" / "03_batch_normalization.ipynb", tmp_path)
    run.run(Path(path))
    path = shutil.copy(ROOT / "chapters" / "09_mnist.ipynb", tmp_path)
    with pytest.raises(CellExecutionError) as error:
        run.run(Path(path))
    assert str(error.value).strip().endswith("in chapters/ of a clone of the book")


def ran(source, monkeypatch, missing=True):
    """The commands that a first cell gives, where bnlib is missing or not."""
    commands = []
    if missing:
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    shell = SimpleNamespace(
        system=lambda command: commands.append(command),
        run_line_magic=lambda name, rest: commands.append(f"{name} {rest}"),
    )
    exec(source, {"get_ipython": lambda: shell})
    return commands


URL = "https://github.com/owner/book"
CLONE = [f"git clone -q --depth=1 {URL} book", "cd -q book/{}"]


@pytest.mark.parametrize("folder", ["chapters", "workbooks"])
def test_the_first_cell_installs_what_is_missing(folder, monkeypatch, tmp_path):
    (tmp_path / folder).mkdir()
    monkeypatch.chdir(tmp_path / folder)
    bare, cloning = exercises.install(folder, ""), exercises.install(folder, URL)
    pip = "pip install -q .." if folder == "workbooks" else PIP
    assert ran(bare, monkeypatch, missing=False) == []
    with pytest.raises(AssertionError, match=f"run this in {folder}/ of a clone"):
        ran(bare, monkeypatch)
    alone = [CLONE[0], CLONE[1].format(folder)]
    assert ran(cloning, monkeypatch) == [*alone, pip]
    (tmp_path / "bnlib").mkdir()
    assert ran(bare, monkeypatch) == ran(cloning, monkeypatch) == [pip]


PIP = "pip install -q ..[chapters]"


def test_a_chapter_that_reads_files_gets_them_though_bnlib_is_there(
    monkeypatch, tmp_path
):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    first = exercises.install("chapters", URL, reads=True)
    alone = [CLONE[0], CLONE[1].format("chapters")]
    assert ran(first, monkeypatch, missing=False) == alone


NAMES = {
    "sklearn": "scikit-learn",
    "torch": "bnlib[torch]",
}


def test_what_the_first_cell_installs_is_what_the_chapters_import():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    known = "\n".join(extras["optional-dependencies"]["chapters"])
    code = "\n".join(source for path in CHAPTERS for source in cells(path))
    imports = r"(?m)^ *(?:import|from) (\w+)(?:\.\w+)*(?:$| as | import )"
    imported = set(re.findall(imports, code)) - set(sys.stdlib_module_names)
    # numpy comes with bnlib, cycler with matplotlib, IPython with any notebook.
    for name in imported - {
        "bnlib",
        "experiments",
        "numpy",
        "cycler",
        "IPython",
        "matplotlib_inline",
    }:
        source = NAMES.get(name, name)
        assert source in known, name


@pytest.mark.parametrize("path", WORKBOOKS, ids=lambda p: p.stem)
class TestWorkbook:
    def test_is_clean(self, path):
        for cell in nbformat.read(path, as_version=4).cells:
            assert not cell.get("outputs") and cell.get("execution_count") is None

    def test_runs_from_its_first_cell_in_a_fresh_python(self, path, tmp_path):
        # As a script, which shows nothing; every check must run and say "not yet".
        code = "\n\n".join(cells(path))
        code = re.sub(r"(?m)^(check\(.*\))$", r"print(\1)", code)
        script = tmp_path / "workbook.py"
        script.write_text(code)
        assert python(script).count("not yet") == len(stubs(path)) > 5

    def test_a_learner_who_solves_it_is_told_so(self, path):
        names = {"np": np, "check": bnlib.check}
        for source in stubs(path):
            name = re.search(r"(?m)^check\(\"(\w+)\"", source)[1]
            exec(source.replace(EXERCISES[name].stub, EXERCISES[name].source), names)
            assert bnlib.check(name, names[name]).passed


def stubs(path):
    return [s for s in cells(path) if "NotImplementedError" in s]
