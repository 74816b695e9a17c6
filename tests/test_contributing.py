"""What a stranger is told to do can be done: the template of a chapter, the forms."""

import os
import re
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import exercises
import export
import jupytext
import nbformat
import pytest
import run
import yaml
from test_notebooks import TestStoredOutputs as Stored
from test_notebooks import TestStyle as Style
from test_notebooks import TestTemplate as Template

ROOT = Path(__file__).resolve().parent.parent

MAKEFILE = (ROOT / "Makefile").read_text()
TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def chapter(tmp_path_factory):
    """The template as a chapter, run from top to bottom."""
    path = tmp_path_factory.mktemp("chapters") / "18_your_subject.ipynb"
    nbformat.write(jupytext.read(ROOT / "templates" / "chapter.py"), path)
    run.run(path)
    return path


def checks(*classes):
    return [
        pytest.param(getattr(kind(), name), id=name)
        for kind in classes
        for name in vars(kind)
        if name.startswith("test_")
    ]


def test_who_says_an_error_is_where_it_is_said_to_be():
    rows = re.findall(r"^\|.*?\| `(bnlib/[\w/]+\.py)`(.*?) \| (A?\d+) \|$", TEXT, re.M)
    assert len(rows) == 8
    for module, who, chapter in rows:
        source = (ROOT / module).read_text(encoding="utf-8")
        assert re.search(rf"\b{chapter.zfill(2)}_\w+\.ipynb", source.splitlines()[0])
        for name in re.findall(r"`(\w+)`", who):
            assert re.search(rf"^def {name}\(", source, re.M), (module, name)


@pytest.mark.parametrize("check", checks(Stored, Style, Template))
def test_the_template_is_a_chapter_that_passes(chapter, check):
    check(chapter)


def test_every_make_target_and_file_that_is_named_exists():
    targets = set(re.findall(r"^([a-z]+):", MAKEFILE, re.M))
    assert set(re.findall(r"`make (\w+)", TEXT)) <= targets
    named = re.findall(r"`((?:tools|tests|chapters|templates|\.github)/[\w./]+)`", TEXT)
    for name in named:
        assert (ROOT / name).exists(), name
    for link in re.findall(r"\]\(([\w./]+)\)", TEXT):
        assert (ROOT / link).exists(), link


WRONG = """
import bnlib, numpy as np

def by_one_and_gamma(x, gamma, beta, eps):
    std = np.sqrt(x.var(1, keepdims=True) + eps)
    return (1 + gamma) * (x - x.mean(1, keepdims=True)) / std + beta

print(*bnlib.check("layer_norm", by_one_and_gamma).mistakes)
"""


def test_two_lines_and_one_command_add_a_mistake(tmp_path):
    """As the walk-through says, on a copy of the book."""
    for name in ("bnlib", "chapters", "tools"):
        away = shutil.ignore_patterns("_static", "__pycache__", "node_modules")
        shutil.copytree(ROOT / name, tmp_path / name, ignore=away)
    for name in ("_toc.yml", "_config.yml", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "tests").mkdir()
    run_here = partial(
        subprocess.run,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        text=True,
        check=True,
        stdout=subprocess.PIPE,
    )
    assert run_here([sys.executable, "-c", WRONG]).stdout.strip() == "extra-term"

    (lines,) = re.findall(r"```python\n(.+\n.+\n)```", TEXT)
    path = tmp_path / "chapters" / "14_other_axes.ipynb"
    book = nbformat.read(path, as_version=4)
    tag = "export:exercises/catalogue/layer_norm"
    (cell,) = (c for c in book.cells if tag in c.metadata.get("tags", []))
    place = '"wrong_lines": {\n'
    cell.source = cell.source.replace(place, place + lines)
    nbformat.write(book, path)
    recipe = re.search(r"(?m)^exercises:.*\n((?:\t.*\n)+)", MAKEFILE)[1]
    for command in recipe.replace("@$(PY)", sys.executable).splitlines():
        run_here(command.split())

    assert run_here([sys.executable, "-c", WRONG]).stdout.strip() == "gamma-plus-one"
    before, after = (
        (root / "tests" / "mistakes.txt").read_text().splitlines()
        for root in (ROOT, tmp_path)
    )
    new = after.pop(after.index("  gamma-plus-one", after.index("layer_norm")))
    assert new.strip() == "gamma-plus-one" and after == before


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="no clone: git has no files")
def test_what_is_generated_is_marked_so():
    git = partial(subprocess.run, cwd=ROOT, capture_output=True, text=True, check=True)
    files = git(["git", "ls-files"]).stdout
    ask = ["git", "check-attr", "--stdin", "linguist-generated"]
    lines = git(ask, input=files).stdout.splitlines()
    marked = {line.split(":")[0] for line in lines if line.endswith(": set")}
    results = {f for f in files.splitlines() if re.search(r"/results/.*\.json$", f)}
    workbooks = {f"workbooks/{name}.ipynb" for name in exercises.WORKBOOKS}
    locks = {"tools/frontend/package-lock.json", "requirements-lock.txt"}
    made = {"tests/mistakes.txt"}
    stubs = {f for f in files.splitlines() if f.endswith(".pyi")}
    assert marked == {*export.collect()} | stubs | workbooks | results | locks | made


@pytest.mark.parametrize(
    "path",
    sorted((ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml")),
    ids=lambda p: p.name,
)
def test_forms_have_what_github_asks_for(path):
    form = yaml.safe_load(path.read_text())
    if path.name == "config.yml":
        assert form == {"blank_issues_enabled": True}
        return
    assert form["name"] and form["description"] and form["body"]
    ids = [part["id"] for part in form["body"]]
    assert len(ids) == len(set(ids))
    for part in form["body"]:
        assert part["type"] in ("input", "textarea") and part["attributes"]["label"]
