"""Python in the page: gather what a browser needs to run it, and mark what it can run.

Pyodide's core comes with the front-end packages (tools/frontend.py). This adds numpy's
wheel of the same release, checked against its published checksum, the wheel of bnlib as
it stands in this checkout, and the scripts of tools/inpage. Where the wheel of numpy
cannot be had, one line says so, and the buttons on the pages explain instead; it is
asked for again after a day, or with --again.

    python tools/python_in_page.py [--again]

BNLIB_WHEELS names a folder that holds numpy's wheel; without it the wheel is downloaded
once, 4 MB, to the folder that BNLIB_CACHE names or the user's cache.
"""

import functools
import hashlib
import json
import logging
import math
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from docutils import nodes
from frontend import DAY, refused_ago

ROOT = Path(__file__).resolve().parent.parent
HERE = ROOT / "tools" / "inpage"
EXTRA = ROOT / "_build" / "extra"
SCRIPTS = ("inpage.js", "worker.js", "runner.py", "inpage.css")
CORE = ("pyodide.asm.wasm", "python_stdlib.zip", "pyodide-lock.json")
RELEASE = "https://cdn.jsdelivr.net/pyodide/v0.27.4/full/"
WHEEL = "numpy-2.0.2-cp312-cp312-pyodide_2024_0_wasm32.whl"
SHA256 = "32d220d185372164ab8ba1e79401c560001c66ac7e85501e450df2d413650047"
BUILD = "import sys; from setuptools import build_meta as b; b.build_wheel(sys.argv[1])"

WORDS = {  # what the buttons say where they cannot do what they offer
    "missing": "This copy of the book was built without Python for the browser. The "
    "exercise is also in the notebook of this chapter and in workbooks/: `make lab`.",
    "unserved": "A page opened as a file cannot start Python. `make serve` serves the "
    "book at an address where this works.",
    "starting": "<label>Starting Python (16 MB, fetched once) "
    "<progress value='0'></progress></label>",
    "unstarted": "Python did not start. Is there a network? Press again to try anew.",
    "uneditable": "The editor did not come. Is there a network? Press Edit again.",
    "ended": "Python gave up, and starts anew next time.",
    "busy": "Python is busy with another cell. Wait for it, or press its Stop.",
    "late": "Stopped: no end after {} seconds. Is there an endless loop?",
}


class MissingError(Exception):
    """Why there is no Python for the pages, in one line."""


# ---- gathering ----------------------------------------------------------------------


def numpy_wheel() -> bytes:
    """Numpy's wheel for the browser, with the published checksum."""
    if folder := os.environ.get("BNLIB_WHEELS"):
        path = Path(folder).expanduser() / WHEEL
        if not path.is_file():
            raise MissingError(f"BNLIB_WHEELS={folder} has no {WHEEL}")
    else:
        path = downloaded()
    data = path.read_bytes()
    if (found := hashlib.sha256(data).hexdigest()) != SHA256:
        raise MissingError(f"{path} has sha256 {found}, not the published {SHA256}")
    return data


def downloaded() -> Path:
    """The wheel from the cache, put there if it is not; pooch compares the checksum."""
    import pooch

    pooch.get_logger().setLevel(logging.ERROR)
    cache = Path(os.environ.get("BNLIB_CACHE") or pooch.os_cache("bnlib")).expanduser()
    try:
        get = pooch.HTTPDownloader(timeout=20)
        hash = f"sha256:{SHA256}"
        return Path(pooch.retrieve(RELEASE + WHEEL, hash, WHEEL, cache, downloader=get))
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0][:90]
        raise MissingError(f"numpy's wheel could not be fetched ({reason})") from None


def sources() -> list[Path]:
    """What the wheel of bnlib is made of."""
    files = ("pyproject.toml", "README.md", "LICENSE")
    return [*(ROOT / f for f in files), *sorted((ROOT / "bnlib").rglob("*.py"))]


def fingerprint(paths) -> str:
    data = b"".join(path.read_bytes() for path in paths)
    return hashlib.sha256(data).hexdigest()[:12]


def build_wheel(folder: Path) -> str:
    """Build the wheel of this checkout into a folder; return its name."""
    with tempfile.TemporaryDirectory() as away:
        for path in sources():
            target = Path(away, path.relative_to(ROOT))
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
        command = [sys.executable, "-c", BUILD, str(folder)]
        done = subprocess.run(command, cwd=away, capture_output=True, text=True)
    if done.returncode:
        raise MissingError(
            f"bnlib's wheel was not built: {done.stderr.splitlines()[-1]}"
        )
    return next(folder.glob("bnlib-*.whl")).name


def gather(folder: Path):
    """Fill a folder with scripts, wheels and runtime.json, which says what is there."""
    pyodide = folder.parent / "vendor" / "pyodide"
    if not all((pyodide / name).is_file() for name in CORE):
        raise MissingError("Pyodide's core is not there (npm brings it)")
    (folder / WHEEL).write_bytes(numpy_wheel())
    wheels = [WHEEL, build_wheel(folder)]
    counted = [pyodide / f for f in CORE]
    counted += [folder / f for f in (*wheels, "runner.py")]
    runtime = {
        "wheels": wheels,
        "total": sum(path.stat().st_size for path in counted),
        "cache": f"bnlib-{state()}",
    }
    (folder / "runtime.json").write_text(json.dumps(runtime))


def state() -> str:
    return fingerprint([*sources(), *(HERE / f for f in SCRIPTS), Path(__file__)])


def main(build: Path = ROOT / "_build", again: bool = False) -> int:
    folder, note = build / "extra" / "inpage", build / "inpage.refused"
    runtime = folder / "runtime.json"
    if runtime.is_file() and state() in runtime.read_text():
        return 0
    # A new core or another folder of wheels is a reason to ask anew.
    core = (folder.parent / "vendor" / "pyodide").is_dir()
    want = f"{state()} {core} {os.environ.get('BNLIB_WHEELS')}"
    ago = refused_ago(note, want) if folder.is_dir() else math.inf
    if not again and ago < DAY:
        return 0
    if ago == math.inf:  # else the scripts are there: a new date builds every page anew
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for name in SCRIPTS:
            shutil.copy(HERE / name, folder)
    try:
        gather(folder)
    except MissingError as why:
        print(f"== no Python in the pages: {why} (again: `make vendor`)")
        note.write_text(want)
    else:
        note.unlink(missing_ok=True)
    return 0


# ---- the pages ----------------------------------------------------------------------


@functools.cache
def runner():
    """The module that the page runs, which knows what a page can run."""
    sys.path.insert(0, str(HERE))
    import runner

    return runner


def mark_cells(app, doctree):
    """Mark the code cells that a page can run, for the button *Try it*."""
    cells = [
        node
        for node in doctree.findall(nodes.container)
        if node.get("nb_element") == "cell_code_source"
    ]
    parts = runner().parts([cell.astext() for cell in cells])
    for cell, (_, whole) in zip(cells, parts, strict=True):
        if whole:
            cell.parent["classes"].append("bn-try")


@functools.cache
def exercises() -> dict:
    """{chapter: names of its exercises}."""
    from bnlib.exercises import EXERCISES

    chapters = dict.fromkeys(e.chapter for e in EXERCISES.values())
    return {c: [n for n, e in EXERCISES.items() if e.chapter == c] for c in chapters}


def add_settings(app, pagename, templatename, context, doctree):
    """Tell the script what the book has, in a block of data on every page."""
    if "body" not in context:
        return
    runtime = EXTRA / "inpage" / "runtime.json"
    settings = WORDS | {
        "page": pagename.rpartition("/")[2],
        "exercises": exercises(),
        "runtime": json.loads(runtime.read_text()) if runtime.is_file() else None,
    }
    data = json.dumps(settings).replace("</", "<\\/")
    context["body"] += f'<script id="bn-inpage" type="application/json">{data}</script>'


def setup(app):
    app.connect("doctree-read", mark_cells)
    app.connect("html-page-context", add_settings)
    app.add_js_file("inpage/inpage.js", defer="defer")
    app.add_css_file("inpage/inpage.css")


if __name__ == "__main__":
    sys.exit(main(again="--again" in sys.argv))
