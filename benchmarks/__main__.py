"""Measure ratios of speed: whole training steps of networks, then isolated layers.

    make bench                                  prints the tables, about eleven minutes
    python -m benchmarks --write                also writes benchmarks/results/*.json
    python -m benchmarks --only networks --seconds 2     a first look, two minutes

Either part runs in a process of its own, because what decides is read once, when a
process starts: how many threads there are, and what the allocator does with large
blocks. As it comes it returns them to the system after every step; what is measured is
then how fast the system clears pages: a second torch.nn took 0.97 to 1.29 of the first.
Nothing else may run meanwhile: torch's threads wait for each other many times a step,
and where one of them has no core a step can take ten times as long.
"""

import argparse
import importlib
import os
import subprocess
import sys

ALLOCATOR = {
    "GLIBC_TUNABLES": "glibc.malloc.mmap_threshold=4294967296:"
    "glibc.malloc.trim_threshold=8589934592",
}
THREADS = "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"
ENVIRONMENTS = {  # None: not set, so that torch chooses as it does for its users
    "networks": ALLOCATOR | dict.fromkeys(THREADS),
    "layers": ALLOCATOR | dict.fromkeys(THREADS, "1"),
}


def is_set(environment):
    return all(os.environ.get(name) == value for name, value in environment.items())


def run_in(environment, arguments):
    """Run this command anew in an environment, and stop if it fails."""
    merged = (os.environ | environment).items()
    run = subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments],
        env={name: value for name, value in merged if value is not None},
    )
    if run.returncode:
        sys.exit(run.returncode)


def main():
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__.splitlines()[0]
    )
    parser.add_argument(
        "--seconds",
        type=float,
        default=24.0,
        help="per comparison of networks; layers get a quarter (default: 24)",
    )
    parser.add_argument("--write", action="store_true", help="replace the results")
    parser.add_argument("--only", choices=ENVIRONMENTS, help="one part of the two")
    options = parser.parse_args()
    given = [f"--seconds={options.seconds}", *["--write"] * options.write]
    for part in [options.only] if options.only else ENVIRONMENTS:
        environment = ENVIRONMENTS[part]
        if options.only and is_set(environment):
            measured = importlib.import_module(f"benchmarks.{part}")
            measured.main(options.seconds, options.write, environment)
        else:
            run_in(environment, [f"--only={part}", *given])


if __name__ == "__main__":
    main()
