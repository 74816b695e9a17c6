"""Running a chapter again changes nothing in git, whatever stands above a cell."""

import sys
from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_notebook

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))
import run  # noqa: E402

DEFINE = "import json\ndef load(text):\n    return json.loads(text)"


def ran(path, *above):
    """The stored outputs of a cell that fails in a function of an earlier one."""
    cells = [new_code_cell(source) for source in (*above, DEFINE, "load('}')")]
    cells[-1].metadata["tags"] = ["raises-exception"]
    nbformat.write(new_notebook(cells=cells), path)
    run.run(path)
    return nbformat.read(path, as_version=4).cells[-1].outputs


def test_of_a_traceback_the_message_stays(tmp_path):
    alone = ran(tmp_path / "18_alone.ipynb")
    assert alone[0].output_type == "error" and len(alone[0].traceback) == 1
    assert ran(tmp_path / "18_below.ipynb", "1", "2") == alone


def test_running_again_changes_nothing(tmp_path):
    path = tmp_path / "18_again.ipynb"
    ran(path, "print(1)")
    before = path.read_bytes()
    run.run(path)
    assert path.read_bytes() == before
