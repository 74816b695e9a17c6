"""The README says what is so: its tree, its links, its commands, its code."""

import re
from pathlib import Path

import pytest
from commands import git

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
TREE = re.search(r"```text\n(.*?)```", TEXT, re.S)[1]
MADE = {}  # path in the tree: whether it is generated
for line in TREE.splitlines():
    paths, kind = re.fullmatch(r"(.+?) +(source|generated)  .+", line).groups()
    MADE |= dict.fromkeys(paths.split(), kind == "generated")
in_a_clone = pytest.mark.skipif(
    not (ROOT / ".git").exists(), reason="no clone: git has no files"
)


@pytest.mark.parametrize("path", MADE)
def test_everything_in_the_tree_exists(path):
    assert (ROOT / path).is_dir() if path.endswith("/") else (ROOT / path).is_file()


@in_a_clone
def test_the_tree_holds_everything_that_git_tracks():
    top = {re.sub("/.*", "/", file) for file in git(ROOT, "ls-files").splitlines()}
    assert top == {path for path in MADE if path.count("/", 0, -1) == 0}


@in_a_clone
def test_the_tree_marks_what_git_is_told_is_generated():
    files = git(ROOT, "ls-files")
    ask = "check-attr", "--stdin", "linguist-generated"
    attributes = git(ROOT, *ask, input=files).splitlines()
    marked = {line.split(": ")[0] for line in attributes if line.endswith(": set")}
    inside = {file: max(filter(file.startswith, MADE), key=len) for file in marked}
    lone = {"tools/frontend/package-lock.json", "tests/mistakes.txt"}
    assert {file for file in marked if not MADE[inside[file]]} == lone
    assert set(inside.values()) >= {path for path, made in MADE.items() if made}


def test_every_link_and_command_leads_somewhere():
    for link in re.findall(r"\]\((?!http)([^)]+)\)", TEXT):
        assert (ROOT / link).exists(), link
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.M))
    called = set(re.findall(r"(?:`|: |^)make ([a-z]+)", TEXT, re.M))
    assert {"book", "test", "lock"} <= called <= targets
    for extras in re.findall(r"\.\[([a-z,]+)\]", TEXT):
        for extra in extras.split(","):
            assert re.search(
                f"^{extra} = ", (ROOT / "pyproject.toml").read_text(), re.M
            )


def test_the_first_code_prints_what_it_says(capsys):
    code = re.findall(r"```python\n(.*?)```", TEXT, re.S)
    exec(code[0], {})
    said = float(re.search(r"print.*?# ([\d.e-]+):", code[0])[1])
    assert 0 <= float(capsys.readouterr().out) < 2 * said
