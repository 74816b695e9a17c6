"""Make every committed result again, as its own record says it was made.

    python -m experiments --list      what there is, and how long each took
    python -m experiments --jobs 2    all of it, two runs at a time

Needs the real data: see appendix A1, or set BNLIB_DATA.
"""

import argparse
import importlib
import shlex

from experiments import runner
from experiments.provenance import RESULTS, read


def plan():
    """The module, the arguments and the seconds of each result, the shortest first."""
    found = []
    for path in sorted(RESULTS.glob("*.json")):
        facts = read(path)["provenance"]
        _, _, module, *arguments = shlex.split(facts["command"])
        found.append((module, arguments, facts["wall_time_s"], bool(facts["seeds"])))
    return sorted(found, key=lambda one: one[2])


def duration(seconds):
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--list", action="store_true", help="only say what there is")
    text = "how many runs at a time (1)"
    parser.add_argument("--jobs", type=runner.positive, default=1, help=text)
    options = parser.parse_args(arguments)
    todo = plan()
    print("Each result and how long it took, one run after another:")
    for module, _, seconds, _ in todo:
        print(f"  {duration(seconds):>7}  {module}")
    total = duration(sum(seconds for _, _, seconds, _ in todo))
    print(
        f"  {total:>7}  in all. Ctrl-C stops; the same command continues.", flush=True
    )
    if options.list:
        return
    for module, own, _, has_runs in todo:
        print(f"== python -m {module} {shlex.join(own)}", flush=True)
        more = ["--jobs", str(options.jobs), "--keep"] if has_runs else []
        importlib.import_module(module).main([*own, *more])
    runner.remove(runner.kept)


if __name__ == "__main__":
    runner.start(main)
