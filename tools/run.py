"""Run chapters and store their outputs, ready to commit.

    python tools/run.py chapters/04_backward.ipynb ...
    python tools/run.py changed    # those whose notebook differs from git's HEAD

Execution counts, timings, editor metadata, the frames of tracebacks and widgets, which
are nothing without a kernel, are dropped. A picture that looks like the stored one is
the stored one. So running a chapter again without changing it changes nothing in git.
"""

import json
import os
import re
import subprocess
import sys
from base64 import b64decode
from io import BytesIO
from pathlib import Path

import nbformat
from export import ROOT
from movables import STORED
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from PIL import Image, ImageChops
from tqdm import tqdm

WIDGET = "application/vnd.jupyter.widget-view+json"
SVG = "image/svg+xml"
BITMAP = re.compile(r"data:image/png;base64,([^\"]+)")
NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
FAINT = 32  # of 255, the most by which pictures that look the same differ anywhere
NEAR = 0.05  # points, the same for drawings
MOST = 60  # seconds of one core that a chapter may take


def run(path: Path):
    """Execute one notebook in place, its own folder as working directory."""
    notebook = nbformat.read(path, as_version=4)
    stored = [cell.get("outputs", []) for cell in notebook.cells]
    client = NotebookClient(
        notebook,
        timeout=300,
        resources={"metadata": {"path": str(path.parent)}},
        extra_arguments=["--log-level=ERROR"],  # it warns of its transport, each time
    )
    with client.setup_kernel():
        cells = tqdm(notebook.cells, desc=path.stem, unit="cell", disable=None)
        for index, cell in enumerate(cells):
            client.execute_cell(cell, index)
    tidy(notebook)
    for cell, before in zip(notebook.cells, stored, strict=True):
        keep_pictures(cell.get("outputs", []), before)
    path.write_text(nbformat.writes(notebook) + "\n", encoding="utf-8")


KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}


def tidy(notebook):
    """Keep what a reader or a test uses, drop what only differs from run to run."""
    notebook.metadata = nbformat.NotebookNode(kernelspec=KERNEL)
    for cell in notebook.cells:
        for key in ("execution", "collapsed", "lines_to_next_cell"):
            cell.metadata.pop(key, None)
        if cell.cell_type == "code":
            cell.execution_count = None
            cell.outputs = joined(cell.outputs)
            for output in cell.outputs:
                if "execution_count" in output:
                    output.execution_count = None
                if "traceback" in output:  # frames move with every edit of the code
                    output.traceback = output.traceback[-1:]
                output.get("data", {}).pop(WIDGET, None)


def joined(outputs: list) -> list:
    """Join what a cell printed in several portions into one output."""
    result = []
    for output in outputs:
        before = result[-1] if result else {}
        if output.output_type == "stream" and before.get("name") == output.name:
            before.text += output.text
        else:
            result.append(output)
    return result


def picture(png: str):
    return Image.open(BytesIO(b64decode(png)))


def looks_same(png: str, other: str) -> bool:
    a, b = (picture(each).convert("RGB") for each in (png, other))
    if a.size != b.size:
        return False
    return max(high for _, high in ImageChops.difference(a, b).getextrema()) <= FAINT


def draws_same(stored: str, other: str) -> bool:
    """Whether two drawings say the same and draw the same, to NEAR points."""
    (text, numbers, bitmaps), (words, others, maps) = map(outline, (stored, other))
    if text != words or len(bitmaps) != len(maps):
        return False
    near = all(abs(a - b) <= NEAR for a, b in zip(numbers, others, strict=True))
    return near and all(map(looks_same, bitmaps, maps))


def outline(drawing: str):
    """A drawing without numbers and bitmaps, and these two."""
    bitmaps, numbers = BITMAP.findall(drawing), []

    def blank(tag):
        numbers.extend(map(float, NUMBER.findall(tag[0])))
        return NUMBER.sub("", tag[0])

    return re.sub(r"<[^>]+>", blank, BITMAP.sub("", drawing)), numbers, bitmaps


def moves_same(stored: str, other: str) -> bool:
    """Whether two moving figures say the same, and their frames draw the same."""
    (words, drawn), (others, there) = map(frames, (stored, other))
    return words == others and draws_same(drawn, there)


def frames(stored: str):
    """A moving figure as its words, and its frames one after the other."""
    words, rows, *parts = stored.split("\n")
    return words, "".join(parts[n] for row in json.loads(rows) for n in row)


def keep_pictures(outputs: list, stored: list):
    """Put stored pictures in place of new ones that look the same.

    Processors and compressors differ in digits that nobody sees, and git sees them.
    """
    for output, before in zip(outputs, stored, strict=False):
        data, old = output.get("data", {}), before.get("data", {})
        for kind, is_same in ((SVG, draws_same), (STORED, moves_same)):
            if kind in data and kind in old and is_same(data[kind], old[kind]):
                data[kind] = old[kind]


def processor_seconds() -> float:
    """Processor time of the kernels that have ended: others may keep a machine busy."""
    return sum(os.times()[2:4])


def changed(root: Path = ROOT) -> list[Path]:
    """The chapters that differ from git's HEAD, staged or not, and the new ones."""
    differ = ["diff", "--name-only", "--relative", "--diff-filter=d", "HEAD"]
    paths = []
    for command in (differ, ["ls-files", "--others", "--exclude-standard"]):
        git = ["git", *command, "-z", "--", ":(glob)chapters/*.ipynb"]
        done = subprocess.run(git, cwd=root, stdout=subprocess.PIPE, text=True)
        if done.returncode:  # git has said why
            sys.exit("which chapters changed is known in a clone with a commit alone")
        paths += [root / name for name in done.stdout.split("\0") if name]
    return sorted(paths)


def main(paths: list[str]) -> int:
    if paths == ["changed"]:
        paths = changed()
        if not paths:
            print("no chapter differs from git's HEAD: nothing to run")
    for path in map(Path, paths):
        before = processor_seconds()
        try:
            run(path)
        except CellExecutionError as error:
            print(f"{path}: a cell failed\n{error}", file=sys.stderr)
            return 1
        took = processor_seconds() - before
        print(f"{path}: {took:.0f} s{f', more than {MOST}' * (took > MOST)}")
    return 0


if __name__ == "__main__":
    if len(sys.argv) == 1:
        sys.exit(__doc__)
    sys.exit(main(sys.argv[1:]))
