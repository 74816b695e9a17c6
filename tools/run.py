"""Run chapters and store their outputs, ready to commit.

    python tools/run.py chapters/04_backward.ipynb ...
    python tools/run.py changed    # those whose notebook differs from git's HEAD

Execution counts, timings, editor metadata and the frames of tracebacks are dropped, and
the random identifiers of widgets are replaced by counted ones, so that running a
chapter again without changing it changes nothing in git.
"""

import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
from export import ROOT
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from tqdm import tqdm

WIDGETS = "application/vnd.jupyter.widget-state+json"
MOST = 60  # seconds of one core that a chapter may take
ID = re.compile(r"(?<![0-9a-f])[0-9a-f]{32}(?![0-9a-f])")


def run(path: Path):
    """Execute one notebook in place, its own folder as working directory."""
    notebook = nbformat.read(path, as_version=4)
    # Start without stored widgets: the client would add the new ones to the old.
    notebook.metadata = {"kernelspec": notebook.metadata.get("kernelspec", KERNEL)}
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
        client.set_widgets_metadata()
    tidy(notebook)
    path.write_text(stable_ids(notebook) + "\n", encoding="utf-8")


KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}


def tidy(notebook):
    """Keep what a reader or a test uses, drop what only differs from run to run."""
    widgets = notebook.metadata.get("widgets")
    notebook.metadata = nbformat.NotebookNode(kernelspec=KERNEL)
    if widgets and widgets[WIDGETS]["state"]:
        notebook.metadata["widgets"] = widgets
    for cell in notebook.cells:
        for key in ("execution", "collapsed", "lines_to_next_cell"):
            cell.metadata.pop(key, None)
        if cell.cell_type == "code":
            cell.execution_count = None
            cell.outputs = joined(cell.outputs)
            for output in cell.outputs:
                if "execution_count" in output:
                    output.execution_count = None
                if (
                    "traceback" in output
                ):  # the cell is above; frames move with the code
                    output.traceback = output.traceback[-1:]


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


def stable_ids(notebook) -> str:
    """Return the notebook as text, each widget's random id replaced by a counted one.

    Counted as they are met: from the outputs of each cell down to the widgets inside;
    then what nobody refers to, the links, by what they link.
    """
    models = notebook.metadata.get("widgets", {}).get(WIDGETS, {}).get("state", {})
    texts = {key: json.dumps(model, sort_keys=True) for key, model in models.items()}
    new: dict[str, str] = {}

    def meet(text: str):
        for old in filter(texts.__contains__, ID.findall(text)):
            if old not in new:
                new[old] = hashlib.md5(str(len(new)).encode()).hexdigest()
                meet(texts[old])

    def renamed(text: str) -> str:
        return ID.sub(lambda found: new.get(found[0], found[0]), text)

    for cell in notebook.cells:
        meet(json.dumps(cell.get("outputs", []), sort_keys=True))
    for key in sorted(texts.keys() - new.keys(), key=lambda k: renamed(texts[k])):
        meet(key)
    again = nbformat.reads(renamed(nbformat.writes(notebook)), as_version=4)
    return nbformat.writes(again)  # once more: keys are sorted by their new names


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
