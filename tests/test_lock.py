"""requirements-lock.txt: one version of everything, fit for every machine."""

import re
import sys
from collections import namedtuple
from pathlib import Path

import lock
import pytest

ROOT = Path(__file__).resolve().parent.parent

TEXT = lock.LOCK.read_text()
LOCKED = lock.pinned(TEXT)
PINS = lock.pinned((ROOT / "requirements.txt").read_text())


def test_the_lock_holds_what_is_pinned_by_hand():
    assert PINS and PINS.items() <= LOCKED.items()
    for line in (ROOT / "requirements.txt").read_text().splitlines():
        assert not line or line.startswith("#") or line == "-e ." or lock.pinned(line)


def test_everything_that_is_required_here_is_in_it_in_this_version():
    assert lock.installed(PINS).items() <= LOCKED.items()


def test_every_line_fits_every_machine():
    assert TEXT.startswith(lock.HEAD)
    lines = TEXT.removeprefix(lock.HEAD).splitlines()
    assert len(lines) == len(LOCKED) and list(LOCKED) == sorted(LOCKED)
    for line in lines:  # no local version, no marker, no address
        name = re.fullmatch(r"([a-z0-9-]+)==[\w.]+", line)[1]
        assert not name.startswith(lock.CARDS) and name not in ("bnlib", "pip")


def distribution(folder, name, version, *requires):
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir()
    lines = [f"Name: {name}", f"Version: {version}"]
    lines += [f"Requires-Dist: {needed}" for needed in requires]
    (info / "METADATA").write_text("Metadata-Version: 2.1\n" + "\n".join(lines) + "\n")


def test_what_is_required_in_turn_is_found(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    distribution(tmp_path, "Made_Up", "2.0+cpu", "nvidia-made-up; python_version>'3'",
                 "made-up-b[more]", "made-up-old; python_version<'3'")  # fmt: skip
    distribution(tmp_path, "made_up_b", "1", "made.up", "made-up-c; extra=='more'",
                 "made-up-d; extra=='others'")  # fmt: skip
    distribution(tmp_path, "made_up_c", "3.1")
    wanted = {"made-up": "2.0", "made-up-b": "1", "made-up-c": "3.1"}
    assert lock.installed(["made.up"]) == wanted


def test_a_newer_python_makes_no_lock(monkeypatch):
    version = namedtuple("Version", "major minor")
    monkeypatch.setattr(sys, "version_info", version(3, 13))
    monkeypatch.setattr(lock, "LOCK", None)  # which nothing can be written to
    with pytest.raises(SystemExit, match=r"Python 3\.11, the oldest"):
        lock.main()
