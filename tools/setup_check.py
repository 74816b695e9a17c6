"""Say `ok` if this interpreter imports bnlib from this checkout, else fail.

With --python, only check that the interpreter can make the environment at all.
"""

import importlib.util
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def check_python():
    if sys.version_info < (3, 11):  # noqa: UP036 - older ones get this far
        found = ".".join(map(str, sys.version_info[:3]))
        sys.exit(
            f"Python 3.11 or newer is needed, {sys.executable} is {found}.\n"
            "Name a newer one: make book PYTHON=python3.12"
        )
    if importlib.util.find_spec("ensurepip") is None:
        sys.exit(
            "This Python cannot make virtual environments (on Debian and Ubuntu: "
            "apt install python3-venv)."
        )


def check_install():
    import bnlib

    if Path(bnlib.__file__).resolve().parent != ROOT / "bnlib":
        sys.exit(f"bnlib is installed from {bnlib.__file__}, not from {ROOT}")
    print("ok")


if __name__ == "__main__":
    check_python() if "--python" in sys.argv else check_install()
