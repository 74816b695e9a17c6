"""Python in the page: gather what a browser needs to run it, and mark what it can run.

Pyodide's core comes with the front-end packages (tools/frontend.py). This adds numpy's
wheel of the same release, checked against its published checksum, and the wheel of
bnlib as it stands in this checkout. Where numpy cannot be had, one line says so, and
the buttons on the pages explain instead; it is asked for again after a day, where a
folder of wheels is named, or with --again.

    python tools/python_in_page.py [--again]

BNLIB_WHEELS names a folder that holds numpy's wheel; without it the wheel is downloaded
once, 4 MB, to the folder that BNLIB_CACHE names or the user's cache.
"""

import hashlib
import json
import logging
import os
import re
import shutil
import subprocess
import sys
import tempfile
from functools import cache, partial
from pathlib import Path

import landing
import runnable
from docutils import nodes
from frontend import CORE, PACKAGES, ROOT, MissingError, bring, digest

HERE = ROOT / "tools" / "inpage"
RUNNER = runnable.INPAGE / "runner.py"
RUNTIME = ROOT / "_build" / "extra" / "inpage" / "runtime.json"
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
    "loaded": "Answers loaded, of this page and others: {}.",
    "unread": "This is no notebook of answers. Load one that was saved here.",
}


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


def state() -> str:
    scripts = (p for p in HERE.rglob("*") if p.is_file() and p.suffix != ".pyc")
    lock = PACKAGES / "package-lock.json"
    return digest(*sources(), *sorted(scripts), lock, Path(__file__))[:12]


def gather(folder: Path):
    """Fill a folder with the wheels, and runtime.json, which says what is there.

    The wheel of bnlib comes first: the site offers it without Python in the pages, too.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    wheels = [WHEEL, build_wheel(folder)]
    core = [folder.parent / "vendor" / "pyodide" / name for name in CORE]
    if not all(path.is_file() for path in core):
        raise MissingError("Pyodide's core is not there (npm brings it)")
    (folder / WHEEL).write_bytes(numpy_wheel())
    counted = [*core, *(folder / name for name in wheels), RUNNER]
    total = sum(path.stat().st_size for path in counted)
    runtime = {"wheels": wheels, "total": total, "cache": f"bnlib-{state()}"}
    (folder / "runtime.json").write_text(json.dumps(runtime))


def main(build: Path = ROOT / "_build", again: bool = False):
    place = build / "extra" / "inpage" / "runtime.json"
    fetch = partial(gather, place.parent)
    # A new core or another folder of wheels is a reason to ask anew.
    core = (build / "extra" / "vendor" / "pyodide").is_dir()
    where = f" {core} {os.environ.get('BNLIB_WHEELS')}"
    without = "no Python in the pages"
    bring(place, build / "inpage.stamp", state(), fetch, without, again, where)


# ---- the pages ----------------------------------------------------------------------


FOLDED = {"hide-input", "hide-cell", "small-print"}
# The title of a chapter, and its claim.
HEAD = re.compile(r"\A(?:\(.+\)=\n)?# .+\n\n(?:\*[^*]+\*\n\n)?")


def notebooks(app, docnames):
    """{document: notebook} of those documents that are notebooks."""
    paths = {name: Path(app.env.doc2path(name)) for name in docnames}
    found = {name: p for name, p in paths.items() if p.suffix == ".ipynb"}
    return {name: json.loads(p.read_text("utf-8")) for name, p in found.items()}


def try_ahead(app, env, docnames):
    """Find out what runs of all pages to be read, two at a time."""
    runnable.ahead(notebooks(app, docnames).values())


def mark_cells(app, docname, source):
    """Tag the cells by what they need, and tell the reader how much of it runs here."""
    if not app.env.doc2path(docname).endswith(".ipynb"):
        return
    book = json.loads(source[0])
    needs = runnable.needs(notebooks(app, [docname])[docname])
    for cell, need in zip(runnable.shown_cells(book), needs, strict=True):
        cell["metadata"]["needs"] = need
    first = book["cells"][0]
    name = docname.rpartition("/")[2]
    text = "".join(first["source"]) + "\n\n"
    told = f"```{{raw}} html\n{strip(name, book)}\n```\n\n"
    first["source"] = HEAD.sub(lambda found: found[0] + told, text).rstrip()
    source[0] = json.dumps(book)


def strip(name, book):
    """The line under the title: time, what runs and what is checked, the notebook."""
    out = FOLDED | {"exercise"}
    all_cells = [cell["metadata"] for cell in runnable.shown_cells(book)]
    shown = [cell for cell in all_cells if not out & {*cell.get("tags", [])}]
    runs = sum(not cell["needs"] for cell in shown)
    parts = [f"<b>{landing.hours(landing.reading_minutes(name))}</b>"]
    if runs:
        parts.append(f"<b>{runs} of {len(shown)} cells</b> run here")
    if asked := exercises().get(name):
        many = f"{len(asked)} exercise{'s' * (len(asked) > 1)}"
        link = f'<a href="#check-{asked[0]}">{many}</a>'
        parts.append(f"{link} check{'s' * (len(asked) == 1)} your answer")
    file = f"../_sources/chapters/{name}.ipynb"
    parts.append(f'<a href="{file}" download>notebook</a>')
    items = "".join(f"<li>{part}</li>" for part in parts)
    return f'<ul class="bn-strip">{items}</ul>'


def write_seams(app, doctree):
    """Mark the cells that a page can run; of the others say what they need."""
    for cell in doctree.findall(nodes.container):
        about = cell.get("cell_metadata", {})
        need = about.get("needs")
        if need == "":
            cell["classes"].append("bn-try")
        elif need and not FOLDED & {*about.get("tags", [])}:
            words = f"{'runs in' if need == runnable.ELSEWHERE else 'needs'} {need}"
            seam = f'<div class="bn-seam"><span>{words}</span></div>'
            cell.insert(1, nodes.raw("", seam, format="html"))


@cache
def exercises() -> dict:
    """{chapter: names of its exercises}."""
    from bnlib.exercises import EXERCISES

    chapters = dict.fromkeys(e.chapter for e in EXERCISES.values())
    return {c: [n for n, e in EXERCISES.items() if e.chapter == c] for c in chapters}


def add_settings(app, pagename, templatename, context, doctree):
    """Tell the script what the book has, in a block of data on every page."""
    if "body" not in context:
        return
    settings = WORDS | {
        "page": pagename.rpartition("/")[2],
        "exercises": exercises(),
        "runtime": json.loads(RUNTIME.read_text()) if RUNTIME.is_file() else None,
    }
    data = json.dumps(settings).replace("</", "<\\/")
    context["body"] += f'<script id="bn-inpage" type="application/json">{data}</script>'


def remove_stale(app, exception):
    """Take away what an earlier build had, and this one was refused."""
    there = [*RUNTIME.parent.glob("*"), *runnable.INPAGE.glob("*")]
    names = {path.name for path in there}
    for path in Path(app.outdir, "_static", "inpage").glob("*"):
        if path.name not in names:
            path.unlink()


def setup(app):
    app.connect("build-finished", remove_stale)
    app.connect("env-before-read-docs", try_ahead)
    app.connect("source-read", mark_cells)
    app.connect("doctree-read", write_seams)
    app.connect("html-page-context", add_settings)


if __name__ == "__main__":
    main(again="--again" in sys.argv)
