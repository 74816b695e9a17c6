"""The checked exercises in chapters and workbooks are those of the catalogue."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import numpy as np
import pytest

import bnlib
from bnlib.exercises import EXERCISES

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))
import exercises  # noqa: E402

WORKBOOKS = sorted((ROOT / "workbooks").glob("*.ipynb"))


def cells(path, kind="code"):
    book = nbformat.read(path, as_version=4)
    return [c.source for c in book.cells if c.cell_type == kind]


def test_chapters_and_workbooks_are_what_the_catalogue_says():
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


def test_the_page_shows_that_a_stub_is_not_yet_and_a_solution_is_right():
    for chapter in {e.chapter for e in EXERCISES.values()}:
        book = nbformat.read(ROOT / f"chapters/{chapter}.ipynb", as_version=4)
        for cell in filter(exercises.is_made, book.cells):
            if cell.cell_type == "code" and "\ncheck(" in cell.source:
                shown = str(cell.outputs)
                is_stub = "NotImplementedError" in cell.source
                assert ("not yet" if is_stub else ": right") in shown, cell.source


@pytest.mark.parametrize("cloned", [True, False])
def test_the_first_cell_installs_bnlib_only_where_it_is_missing(
    cloned, tmp_path, monkeypatch
):
    ran = []
    monkeypatch.setattr(subprocess, "run", lambda *args, **kwargs: ran.append(args[0]))
    (tmp_path / "workbooks").mkdir()
    monkeypatch.chdir(tmp_path / "workbooks")
    if cloned:
        (tmp_path / "pyproject.toml").touch()
    exec(exercises.INSTALL, {})
    assert not ran
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    exec(exercises.INSTALL, {})
    source = str(tmp_path) if cloned else "bnlib"
    assert ran == [[sys.executable, "-m", "pip", "install", "-q", source]]


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
        done = subprocess.run([sys.executable, script], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("not yet") == len(stubs(path)) > 5

    def test_a_learner_who_solves_it_is_told_so(self, path):
        names = {"np": np, "check": bnlib.check}
        for source in stubs(path):
            name = re.search(r"(?m)^check\(\"(\w+)\"", source)[1]
            exec(source.replace(EXERCISES[name].stub, EXERCISES[name].source), names)
            assert bnlib.check(name, names[name]).passed


def stubs(path):
    return [s for s in cells(path) if "NotImplementedError" in s]
