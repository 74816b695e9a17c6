"""A release is made whole or not at all: tried in clones of a few files."""

import datetime
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from commands import commit, git

ROOT = Path(__file__).resolve().parent.parent
FILES = ("pyproject.toml", "CITATION.cff", "chapters/bibliography.md")
NOW = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
MAJOR, MINOR, PATCH = map(int, NOW.split("."))
NEXT = f"{MAJOR}.{MINOR + 9}.0"
NOTES = (
    "# Changelog\n\n## Unreleased\n\n### Added\n\n- A thing.\n\n## 0.0.1 - 2020-02-02\n"
)
# Passes where the numbers agree and no file `broken` lies there.
CHECK = """check:
	@! test -e broken && grep -q {0} pyproject.toml && grep -q {0} CITATION.cff
"""


@pytest.fixture
def clone(tmp_path):
    """The files that say the version, in a repository of their own."""
    (tmp_path / "chapters").mkdir()
    for name in FILES:
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / "CHANGELOG.md").write_text(NOTES)
    (tmp_path / "Makefile").write_text(CHECK.format(NEXT))
    git(tmp_path, "init", "-q")
    git(tmp_path, "config", "user.name", "me")
    git(tmp_path, "config", "user.email", "me@localhost")
    commit(tmp_path)
    return tmp_path


def release(folder, *version):
    command = [sys.executable, ROOT / "tools" / "release.py", *version]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def test_a_release_is_one_commit_with_a_tag(clone):
    done = release(clone, NEXT)
    assert done.returncode == 0, done.stderr
    assert git(clone, "status", "--porcelain") == ""
    assert git(clone, "describe", "HEAD") == f"v{NEXT}"
    assert git(clone, "rev-list", "--count", "HEAD") == "2"
    today = datetime.date.today()
    assert (clone / "CHANGELOG.md").read_text() == NOTES.replace(
        "## Unreleased\n", f"## Unreleased\n\n## {NEXT} - {today}\n"
    )
    project = tomllib.loads((clone / "pyproject.toml").read_text())["project"]
    assert project["version"] == NEXT
    cff = yaml.safe_load((clone / "CITATION.cff").read_text())
    assert cff["version"] == NEXT and cff["cff-version"] == "1.2.0"
    for name in FILES:  # and nothing else has moved
        old = (ROOT / name).read_text()
        assert (clone / name).read_text() == old.replace(NOW, NEXT, 1)

    again = release(clone, NEXT)
    assert again.returncode and "not newer" in again.stderr


def refused(folder, version):
    """What is said; nothing may have happened."""
    before = git(folder, "status", "--porcelain"), git(folder, "rev-parse", "HEAD")
    done = release(folder, version)
    assert done.returncode
    assert not re.search(r"^v", git(folder, "tag"))
    assert before == (
        git(folder, "status", "--porcelain"),
        git(folder, "rev-parse", "HEAD"),
    )
    return done.stderr


@pytest.mark.parametrize(
    "version", [NOW, f"{MAJOR}.{MINOR}.{PATCH - 1}", "1", f"v{NEXT}", f"{NEXT}rc1", ""]
)
def test_a_version_that_is_not_newer_is_refused(clone, version):
    assert f"not newer than {NOW}" in refused(clone, version)


def test_ten_is_newer_than_nine(clone):
    project = clone / "pyproject.toml"
    project.write_text(project.read_text().replace(NOW, f"{MAJOR}.{MINOR}.9"))
    newer = f"{MAJOR}.{MINOR}.10"
    (clone / "Makefile").write_text(CHECK.format(newer))
    commit(clone)
    assert release(clone, newer).returncode == 0


@pytest.mark.parametrize("name", ["CHANGELOG.md", "new"])
def test_a_dirty_tree_is_refused(clone, name):
    (clone / name).write_text(NOTES + "more")
    assert "not committed" in refused(clone, NEXT)
    assert (clone / name).read_text() == NOTES + "more"


@pytest.mark.parametrize(
    "notes",
    [NOTES.replace("- A thing.\n", "") + "\n- An old thing.\n", "# Changelog\n"],
)
def test_without_notes_there_is_no_release(clone, notes):
    (clone / "CHANGELOG.md").write_text(notes)
    commit(clone)
    assert "nothing is listed under Unreleased" in refused(clone, NEXT)


def test_what_fails_its_check_is_put_back(clone):
    (clone / "broken").touch()
    commit(clone)
    refused(clone, NEXT)
    assert (clone / "CHANGELOG.md").read_text() == NOTES


def test_a_file_that_says_no_version_is_not_passed_over(clone):
    (clone / "CITATION.cff").write_text("title: A book\n")
    commit(clone)
    assert "CITATION.cff should say the version once" in refused(clone, NEXT)


def test_the_changelog_has_the_form_that_a_release_takes():
    heads = re.findall("^## (.*)", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert heads[0] == "Unreleased" and heads[1].startswith(f"{NOW} - ")
    dates = [
        re.fullmatch(r"\d+\.\d+\.\d+ - (\d{4}-\d\d-\d\d)", h)[1] for h in heads[1:]
    ]
    assert dates == sorted(dates, reverse=True)
    parts = re.findall("^### (.*)", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert {*parts} <= {
        "Added",
        "Changed",
        "Deprecated",
        "Removed",
        "Fixed",
        "Security",
    }
