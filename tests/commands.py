"""Commands that tests run, each in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ME = "-c", "user.name=me", "-c", "user.email=me@localhost"


def run(*command, **options):
    """What a command prints; it may not fail."""
    done = subprocess.run(command, capture_output=True, text=True, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def python(*arguments, **options):
    return run(sys.executable, *arguments, **options)


def git(folder, *command, **options):
    return run("git", *ME, *command, cwd=folder, **options).strip()


def commit(folder):
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "all", "--allow-empty")


def with_book():
    """The variables of a process that finds this book wherever it runs."""
    path = filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path), "OMP_NUM_THREADS": "1"}


TORCHRUN = "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"


def torchrun(*script, two, cwd):
    """The lines that a script prints, in one process or in two."""
    launcher = TORCHRUN if two else ()
    said = python(*launcher, *script, cwd=cwd, env=with_book(), timeout=120)
    return said.splitlines()
