"""What every results file says about itself, and how it is written.

A script notes `time.perf_counter()` when it starts, and ends with
`write(path, rounded({"provenance": provenance(...), "definitions": {...}, ...}))`.
"""

import json
import os
import platform
import re
import statistics
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy
import torch

from bnlib.data import CHECKSUMS
from experiments import machine

RESULTS = Path(__file__).resolve().parent / "results"


class ResultError(OSError):
    """A results file that is not what `write` wrote."""


def provenance(command, config, seeds, datasets, started=None, *, seconds=None):
    """Return how a result came about.

    command : str, what to type to repeat it. config : dict of every setting. seeds :
    list of int. datasets : list of "mnist", "fashion-mnist", whose checksums are
    recorded. started : time.perf_counter() at the start; or seconds : the time that the
    runs took, added up, for work that was spread over processes or resumed.
    """
    seconds = time.perf_counter() - started if seconds is None else seconds
    files = {n: s for n, s in CHECKSUMS.items() if n.split("/")[0] in datasets}
    return {
        "command": command,
        "config": config,
        "seeds": seeds,
        "versions": {
            "python": platform.python_version(),
            "numpy": numpy.__version__,
            "torch": torch.__version__,
        },
        "machine": machine.name(),
        "threads": torch.get_num_threads(),
        "data_sha256": files,
        "wall_time_s": round(seconds, 1),
        "date": datetime.now(UTC).date().isoformat(),
    }


def command(script, options):
    """What to type to make a result again: the script and the numbers it was given."""
    given = []
    for name in ("seeds", "sweep_seeds", "steps", "sweep_steps"):
        value = getattr(options, name, None)
        if value is not None:
            text = " ".join(map(str, value)) if isinstance(value, list) else value
            given.append(f"--{name.replace('_', '-')} {text}")
    return " ".join([f"python -m experiments.{script}", *given])


def spread(values):
    """The values of the seeds, their mean and sample standard deviation, or null."""
    sd = statistics.stdev(values) if len(values) > 1 else None
    return {"per_seed": values, "mean": statistics.fmean(values), "sd": sd}


def rounded(value, digits=4):
    """Return nested lists and dicts with every float rounded to significant digits."""
    if isinstance(value, dict):
        return {key: rounded(item, digits) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(item, digits) for item in value]
    return float(f"{value:.{digits}g}") if isinstance(value, float) else value


def read(path):
    """Return a result that `write` wrote; raises ResultError if it is damaged."""
    try:
        result = json.loads(Path(path).read_text(encoding="utf-8"))
        result["provenance"]["command"], result["provenance"]["wall_time_s"]
    except (ValueError, KeyError, TypeError) as error:
        raise ResultError(
            f"damaged results file: {type(error).__name__}: {error}\n  {path}\n"
            "  restore the committed one with git, or delete it and run its script"
        ) from error
    return result


def write(path, result):
    """Write a result as JSON, whole or not at all; refuses nan and infinity."""
    if not machine.first():
        return
    text = json.dumps(result, indent=1, allow_nan=False, ensure_ascii=False)
    # A list of numbers on one line: a change of one run is then a diff of a few lines.
    # (Only the layout has line breaks: inside a JSON string they are escaped.)
    flat = re.compile(r"\[\n[^][{}\"]*\]")
    text = flat.sub(lambda m: f"[{' '.join(m[0][1:-1].split())}]", text)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as new:
        whole = Path(new) / path.name
        whole.write_text(text + "\n", encoding="utf-8")
        os.replace(whole, path)
