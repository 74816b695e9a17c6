"""What a stranger is told to do can be done: the template of a chapter, the forms."""

import re
import subprocess
import sys
from functools import partial
from pathlib import Path

import jupytext
import nbformat
import pytest
import yaml
from test_notebooks import TestStoredOutputs as Stored
from test_notebooks import TestStyle as Style
from test_notebooks import TestTemplate as Template

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))
import exercises  # noqa: E402
import export  # noqa: E402
import run  # noqa: E402

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


@pytest.mark.parametrize("check", checks(Stored, Style, Template))
def test_the_template_is_a_chapter_that_passes(chapter, check):
    check(chapter)


def test_every_make_target_and_file_that_is_named_exists():
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.M))
    assert set(re.findall(r"`make (\w+)", TEXT)) <= targets
    named = re.findall(r"`((?:tools|tests|chapters|templates|\.github)/[\w./]+)`", TEXT)
    for name in named:
        assert (ROOT / name).exists(), name
    for link in re.findall(r"\]\(([\w./]+)\)", TEXT):
        assert (ROOT / link).exists(), link


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
    assert marked == {*export.collect()} | workbooks | results | locks


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
