"""Write requirements-lock.txt: one version of everything that requirements.txt brings.

    python tools/lock.py

What is written is what is installed here, which is what the tests have passed with;
`make lock` takes the newest of it before. pip reads the file as constraints, so it may
name what a machine does not need. It leaves out what fits one machine alone: local
versions, such as torch's `+cpu`, and the libraries of a graphics card.
"""

import re
import sys
import tomllib
from importlib import metadata

from export import ROOT
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

LOCK = ROOT / "requirements-lock.txt"
CARDS = ("nvidia-", "cuda-", "triton")
HEAD = """\
# Written by `make lock`: what requirements.txt brings, with all that it needs in turn.
# pip takes it as constraints: pip install -r requirements.txt -c requirements-lock.txt
"""


def pinned(text: str) -> dict[str, str]:
    """Names and versions of the lines `name==version`."""
    pins = re.findall(r"^([\w.-]+)==([^\s#]+)", text, re.M)
    return {canonicalize_name(name): version for name, version in pins}


def installed(names) -> dict[str, str]:
    """Versions of the distributions named, and of all that they require here."""
    found, waiting = {}, [(canonicalize_name(name), "") for name in names]
    seen = set(waiting)
    for name, extra in waiting:  # which grows
        here = metadata.distribution(name)
        found[name] = Version(here.version).public
        for needed in map(Requirement, here.requires or ()):
            if needed.marker and not needed.marker.evaluate({"extra": extra}):
                continue
            name = canonicalize_name(needed.name)
            new = {(name, wanted) for wanted in ("", *needed.extras)} - seen
            if new and not name.startswith(CARDS):
                seen |= new
                waiting += sorted(new)
    return dict(sorted(found.items()))


def main():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    oldest = project["requires-python"].removeprefix(">=")
    if "{}.{}".format(*sys.version_info) != oldest:
        sys.exit(
            f"The lock is made with Python {oldest}, the oldest supported: a newer one "
            "takes versions that it cannot install. With it, in an environment apart: "
            f"make lock PYTHON=python{oldest} VENV=_build/lock"
        )
    pins = pinned((ROOT / "requirements.txt").read_text())
    lines = [f"{name}=={version}\n" for name, version in installed(pins).items()]
    LOCK.write_text(HEAD + "".join(lines))
    print(f"{LOCK.name}: {len(lines)} versions; `make test`, then commit it")


if __name__ == "__main__":
    main()
