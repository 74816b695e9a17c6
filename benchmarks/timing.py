"""How everything here is timed, and what a results file says about it."""

import platform
import random
import statistics
import time
from importlib import metadata
from pathlib import Path

import torch

from experiments import provenance

RESULTS = Path(__file__).parent / "results"


def in_turns(functions, seconds, clock=time.process_time, rounds=7):
    """Times of each function, one a round; all take turns, in random order.

    Rounds are run for so many seconds, at least so many. In its turn a function runs
    twice, and the second time counts: the caches are then its own, and not those of
    whatever had the turn before.
    """
    order, chance = list(functions), random.Random(0)
    times = {name: [] for name in functions}
    for function in functions.values():  # what compiles does it now
        function()
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times[order[0]]) < rounds:
        chance.shuffle(order)
        for name in order:
            functions[name]()
            start = clock()
            functions[name]()
            times[name].append(clock() - start)
    return times


def medians(times):
    return {name: statistics.median(t) for name, t in times.items()}


def relative(times, to="torch.nn"):
    """Single times in units of one of them."""
    return {name: t / times[to] for name, t in times.items()}


def round_by_round(times, to="torch.nn"):
    """Median and quartiles of the ratio to one function's time in the same round.

    What slows the machine down for a while slows a whole round down: its ratios stay.
    """
    found = {}
    for name, own in times.items():
        ratios = [a / b for a, b in zip(own, times[to], strict=True)]
        first, median, third = statistics.quantiles(ratios, n=4, method="inclusive")
        found[name] = {"ratio": median, "quartiles": [first, third]}
        found[name]["ms"] = statistics.median(own) * 1e3
    return found


def processor():
    """The processor's name, which says more than its instructions do."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = (line.split(":", 1)[1] for line in lines if line.startswith("model name"))
    return next(names, platform.processor()).strip()


def write(name, seconds, config, start, result):
    """Write a results file, with how it came about."""
    command = f"python -m benchmarks --write --only {name} --seconds {seconds:g}"
    about = provenance.provenance(command, config, [0], [], start)
    about |= {"cpu": torch.backends.cpu.get_cpu_capability(), "processor": processor()}
    try:
        about["versions"]["numba"] = metadata.version("numba")
    except metadata.PackageNotFoundError:
        about["versions"]["numba"] = None
    result = provenance.rounded({"provenance": about, **result}, 3)
    provenance.write(RESULTS / f"{name}.json", result)
