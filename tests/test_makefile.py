"""What make does to environments, tried with a stub that stands for Python."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
# Makes "environments" of itself; in one that has a file `broken` bnlib cannot be found.
STUB = """#!/bin/sh
case "$*" in
  "-m venv "*) mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
  "-I tools/setup_check.py") [ ! -e "${0%/bin/python}/broken" ] && echo ok ;;
esac
"""


NOT_OURS = "MAKEFLAGS", "MAKELEVEL", "MFLAGS", "VENV"


@pytest.fixture
def make(tmp_path):
    """Runs make in a folder where nothing but environments can be made."""
    (tmp_path / "tools").mkdir()
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    for path in ROOT.glob("requirements*.txt"):
        shutil.copy(path, tmp_path)
    shutil.copy(ROOT / "tools" / "setup_check.py", tmp_path / "tools")
    stub = tmp_path / "stub"
    stub.write_text(STUB)
    stub.chmod(0o755)

    # Nothing of the make that runs the tests: its VENV is the one they run in.
    environ = {k: v for k, v in os.environ.items() if k not in NOT_OURS}

    def run(*arguments):
        command = ["make", f"PYTHON={stub}", *arguments]
        return subprocess.run(
            command, cwd=tmp_path, env=environ, capture_output=True, text=True
        )

    return run


def environment(folder):
    """What somebody has: an environment without bnlib, and a file in it."""
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "python").write_text(STUB)
    (folder / "bin" / "python").chmod(0o755)
    (folder / "broken").touch()
    (folder / "thesis.txt").write_text("three years")
    return folder


def test_make_removes_no_environment_that_it_did_not_make(make, tmp_path):
    theirs = environment(tmp_path / "theirs")
    done = make("setup", f"VENV={theirs}")
    assert done.returncode and (theirs / "thesis.txt").is_file()
    (said,) = done.stdout.splitlines()
    assert str(theirs) in said and "VENV=" in said
    done = make("distclean", f"VENV={theirs}")
    assert not done.returncode and (theirs / "thesis.txt").is_file()


def test_make_renews_its_own_environment_and_uses_one_that_works(make, tmp_path):
    assert "setting up" in make("setup").stdout
    assert "setting up" not in make("setup").stdout
    own = tmp_path / ".venv"
    (own / "broken").touch()
    assert "setting up" in make("setup").stdout and not (own / "broken").exists()
    assert make("distclean").returncode == 0 and not own.exists()

    theirs = environment(tmp_path / "theirs")
    (theirs / "broken").unlink()
    assert make("setup", f"VENV={theirs}").returncode == 0
    assert (theirs / "thesis.txt").is_file()
    (theirs / "broken").touch()  # used once is not made
    assert make("setup", f"VENV={theirs}").returncode
    assert (theirs / "thesis.txt").is_file()


def test_versions_come_from_the_lock_but_where_it_is_renewed(make):
    def installs(target):
        said = make("-n", target).stdout.replace("\\\n", "").splitlines()
        return [line for line in said if "pip install" in line]

    (setup,) = installs("setup")
    assert "-r requirements.txt -c requirements-lock.txt" in setup
    anew, again = installs("lock")
    assert "--upgrade" in anew and "--upgrade" in again
    assert "-c " not in anew + again


def test_every_target_but_the_environment_is_phony():
    text = (ROOT / "Makefile").read_text().replace("\\\n", "")
    phony = re.search(r"^\.PHONY:(.*)", text, re.M)[1].split()
    assert set(re.findall(r"^([a-z]+):", text, re.M)) == set(phony)
