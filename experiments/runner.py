"""Runs that can be stopped at any time and end with the same numbers.

A *run* is one network, one seed, one setting. A script describes it as a subclass of
`Run`, lists the settings, and calls `run_all`, between `parse` and `finish`;
`start(main)` around its `main` turns whatever stops it into one message. While a run
lasts, a checkpoint is written every few seconds; when it is finished, its result. The
same command, given again, continues; `finish` removes what is no longer needed.
"""

import argparse
import contextlib
import hashlib
import inspect
import io
import json
import multiprocessing
import os
import re
import signal
import sys
import threading
import time
from concurrent.futures import FIRST_EXCEPTION, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import product
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from experiments import machine
from experiments.provenance import RESULTS, command, provenance, rounded, write

CHECKPOINTS = Path(__file__).resolve().parent / "checkpoints"
SAVE_EVERY = 10.0  # seconds of training that a power cut may cost


class RunError(Exception):
    """What stopped the runs, in words; those that were finished are kept."""


class Run:
    """One run: `__init__(setting, data)` builds it from these two alone.

    setting : flat dict with at least "seed" and "steps". at : the steps to measure
    after. Every attribute that has a `state_dict` (model, optimizer, batches) goes into
    the checkpoint, together with torch's global random state. Anything else that
    changes during a run would be lost: keep no such thing.
    """

    at = ()

    def update(self):
        """Make one step."""

    def measure(self):
        """Return what to record now, made of tensors, numbers, lists and dicts."""

    def result(self, records):
        """Return what the whole run gives, ready for JSON, from all `measure` said."""

    def parts(self):
        named = vars(self).items()
        return {name: part for name, part in named if hasattr(part, "state_dict")}


def sources(kind):
    """The checksum of every file of this project that the class `kind` needs.

    That is where it is defined and, from there, all that is imported from `bnlib` and
    `experiments`; not this file, which does not decide the numbers.
    """
    found, todo = {}, [kind.__module__]
    while todo:
        module = sys.modules[todo.pop()]
        file = inspect.getsourcefile(module)
        if file in found or file == __file__:
            continue
        found[file] = hashlib.sha256(Path(file).read_bytes()).hexdigest()
        for value in vars(module).values():
            name = value.__name__ if inspect.ismodule(value) else None
            name = str(name or getattr(value, "__module__", ""))
            if re.match(r"(bnlib|experiments)\.", name) and name in sys.modules:
                todo.append(name)
    return found


def fingerprint(kind, setting):
    """What decides the numbers of a run: its setting, its code, torch's version."""
    code = sorted(sources(kind).values())
    what = [setting, kind.__name__, code, str(torch.__version__), machine.name()]
    return hashlib.sha256(json.dumps(what).encode()).hexdigest()


def place(kind, setting, folder):
    """The checkpoint of a run: other settings and other code have another one."""
    label = "_".join(f"{key}={value}" for key, value in setting.items())
    label = re.sub(r"[^\w.=+-]+", "-", label)[:120]
    return Path(folder) / f"{label}_{fingerprint(kind, setting)[:16]}.pt"


def save(path, state):
    """Write a checkpoint, whole or not at all, after the checksum of its contents."""
    if not machine.first():
        return
    buffer = io.BytesIO()
    torch.save(state, buffer)
    data = buffer.getvalue()
    new = path.with_suffix(".new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        new.write_bytes(hashlib.sha256(data).digest() + data)
        os.replace(new, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            new.unlink(missing_ok=True)
        text = f"cannot write a checkpoint: {error.strerror or error}\n  {path}"
        raise RunError(text) from error


def restore(path):
    """Return what `save` wrote, or None if there is nothing."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise RunError(f"cannot read a checkpoint: {error}") from error
    if hashlib.sha256(data[32:]).digest() != data[:32]:
        raise RunError(
            f"damaged checkpoint, {len(data):,} bytes whose checksum is wrong\n"
            f"  {path}\n  delete it: this one run begins anew, the others are kept"
        )
    return torch.load(io.BytesIO(data[32:]), weights_only=True)


def execute(kind, setting, data, path, advance, stopped):
    """Begin a run, or continue it, or look it up: {"result": ..., "seconds": ...}.

    advance : called with the number of steps made. stopped : asked after every step;
    when it says so, the run is saved and None returned.
    """
    steps = setting["steps"]
    saved = machine.agree(restore(path) if machine.first() else None)
    if saved and "result" in saved:
        advance(steps)
        return saved
    torch.set_num_threads(1)
    machine.seed(setting["seed"])
    run = kind(setting, data)
    first, records, before = 0, [], 0.0
    if saved:
        first, records, before = saved["step"], saved["records"], saved["seconds"]
        for name, part in run.parts().items():
            part.load_state_dict(saved["parts"][name])
        machine.set_random_states(saved["random"])
        advance(first)
    started, last = machine.clock(), time.perf_counter()
    at = set(run.at)
    for step in range(first, steps + 1):
        if step in at:
            records.append(run.measure())
        if step == steps:
            break
        run.update()
        advance(1)
        now, stop = time.perf_counter(), stopped()
        due = stop or now - last >= SAVE_EVERY
        if machine.processes() > 1:  # they save together: those of the others agree
            due = step % 100 == 99 and machine.agree(due)
        if due:
            parts = {name: part.state_dict() for name, part in run.parts().items()}
            state = {"step": step + 1, "records": records, "parts": parts}
            seconds = before + machine.clock() - started
            random = machine.random_states()
            save(path, {**state, "random": random, "seconds": seconds})
            last = now
        if stop:
            return None
    result = run.result(records)
    seconds = before + machine.clock() - started
    finished = {"result": result, "seconds": seconds}
    save(path, finished)
    return finished


def run_all(kind, settings, load, options, label="runs"):
    """Make every run, or continue it; return their results, and the seconds of all.

    kind : subclass of Run. settings : list of dicts. load : function without arguments
    that returns the data. options : what `add_options` added; with several jobs, each
    run has its own process, and the seconds are still those of one run after another,
    each alone on a core.
    """
    if options.jobs > 1 and machine.processes() > 1:
        raise RunError("--jobs and torchrun exclude each other: leave --jobs out")
    paths = [place(kind, setting, options.checkpoints) for setting in settings]
    if len(set(paths)) < len(paths):
        raise RunError("the same run is asked for twice: give each seed once")
    work = _one_by_one if options.jobs == 1 else _in_processes
    total = sum(setting["steps"] for setting in settings)
    hide = not machine.first()
    with tqdm(
        total=total, unit="step", desc=label, smoothing=0.05, disable=hide
    ) as progress:
        found = work(kind, settings, load, paths, options.jobs, progress)
    return [run["result"] for run in found], sum(run["seconds"] for run in found)


def sweep(kind, load, options, axes, setting):
    """Make a run for every combination of values and every seed of the sweep.

    axes : lists of values. setting : a function of a value of each, returns the rest of
    the setting. Returns the results, numbers, as an array with an axis for each of
    `axes` and one for the seeds; the settings; and the seconds of all.
    """
    axes = *axes, options.sweep_seeds
    settings = [
        {**setting(*values), "seed": seed, "steps": options.sweep_steps}
        for *values, seed in product(*axes)
    ]
    found, seconds = run_all(kind, settings, load, options, "sweep")
    return np.reshape(found, [len(axis) for axis in axes]), settings, seconds


def choose(means, **axes):
    """The best setting on held-out images; among equals the first one.

    means : nested lists of accuracies. axes : by name, what their axes stand for.
    """
    values = list(product(*axes.values()))[np.argmax(means)]
    best = {"validation_accuracy": np.max(means).item()}
    return dict(zip(axes, values, strict=True)) | best


def _one_by_one(kind, settings, load, paths, jobs, progress):
    data = load()
    return [
        execute(kind, setting, data, path, progress.update, lambda: False)
        for setting, path in zip(settings, paths, strict=True)
    ]


_worker = None  # in a worker: the data, the count of steps, the word to stop


def _become_worker(load, count, stop):
    global _worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent to handle
    parent = multiprocessing.parent_process()

    def follow():
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
    _worker = load(), count, stop


def _work(kind, setting, path):
    data, count, stop = _worker

    def advance(steps):
        with count.get_lock():
            count.value += steps

    return execute(kind, setting, data, path, advance, stop.is_set)


def _in_processes(kind, settings, load, paths, jobs, progress):
    load()  # a missing file is reported once, here
    context = multiprocessing.get_context("spawn")
    count, stop = context.Value("q"), context.Event()
    jobs = min(jobs, len(settings))
    pool = ProcessPoolExecutor(jobs, context, _become_worker, (load, count, stop))
    try:
        handler = signal.signal(signal.SIGINT, signal.SIG_IGN)  # workers inherit it
        try:
            work = zip(settings, paths, strict=True)
            futures = [pool.submit(_work, kind, *one) for one in work]
        finally:
            signal.signal(signal.SIGINT, handler)
        pending = futures
        while pending:
            done, pending = wait(pending, timeout=0.3, return_when=FIRST_EXCEPTION)
            progress.update(count.value - progress.n)
            for future in done:
                future.result()
        return [future.result() for future in futures]
    except BrokenProcessPool:
        text = "a process died (killed, or out of memory?): the same command continues"
        raise RunError(text) from None
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)


kept = []  # what `forget` left alone, because of --keep


def forget(kind, settings, options):
    """Remove the checkpoints of these runs: their results are written."""
    paths = [place(kind, setting, options.checkpoints) for setting in settings]
    if options.keep:
        kept.extend(paths)
    else:
        remove(paths)


def remove(paths):
    if machine.first():
        for path in paths:
            path.unlink(missing_ok=True)


def positive(text):
    """The whole number from 1 on that an option is given."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"a whole number from 1 on, not {text!r}")
    return int(text)


def device(text):
    """The name of a device that torch can use here."""
    try:
        torch.empty(0, device=text)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise argparse.ArgumentTypeError(f"{text!r} cannot be used: {reason}") from None
    return text


class Environment(argparse.Action):
    """An option that is an environment variable, so that every process sees it."""

    def __call__(self, parser, namespace, value, option=None):
        os.environ[f"BNLIB_{self.dest.upper()}"] = str(value)


def add_options(parser, out, *, steps, seeds=(0, 1, 2, 3, 4)):
    """Add the options that all scripts share: --seeds, --steps, --jobs and paths."""
    add = parser.add_argument
    add("--seeds", type=int, nargs="+", default=list(seeds), help="one run each")
    add("--steps", type=positive, default=steps, help=f"updates of each run ({steps})")
    add("--jobs", type=positive, default=1, help="how many runs at a time (1)")
    add("--out", type=Path, default=out, help="the results file")
    text = "the folder of the data sets (the one that BNLIB_DATA names)"
    add("--data", type=Path, action=Environment, help=text)
    text = "where to compute: cpu, cuda (the one that BNLIB_DEVICE names, or cpu)"
    add("--device", type=device, action=Environment, help=text)
    text = "where unfinished work lies"
    add("--checkpoints", type=Path, default=CHECKPOINTS, help=text)
    text = "leave finished runs there after the results file is written"
    add("--keep", action="store_true", help=text)


def parse(arguments, script, about, *, sweep_steps=None, **usual):
    """The options of a script, of which `about` is the docstring.

    sweep_steps : as many in each run of the sweep, if there is one. usual : see
    `add_options`.
    """
    parser = argparse.ArgumentParser(description=about.splitlines()[0])
    add_options(parser, RESULTS / f"{script}.json", **usual)
    if sweep_steps:
        parser.add_argument("--sweep-seeds", type=int, nargs="+", default=[10, 11])
        parser.add_argument("--sweep-steps", type=positive, default=sweep_steps)
    parser.set_defaults(script=script)
    return parser.parse_args(arguments)


def finish(options, config, definitions, result, seconds, runs, datasets=()):
    """Write a result, with how it came about, and forget its runs.

    runs : the settings of each kind of run. datasets : see `provenance`.
    """
    given = {key: value for key, value in vars(options).items() if "steps" in key}
    again, facts = command(options.script, options), {**config, **given}
    how = provenance(again, facts, options.seeds, datasets, seconds=seconds)
    result = {"provenance": how, "definitions": definitions, **result}
    write(options.out, rounded(result))
    for kind, settings in runs.items():
        forget(kind, settings, options)
    print(f"wrote {options.out.name}")


def start(main):
    """Call `main`; say in one message what stopped it, if something did."""
    kept = "what is finished is kept: the same command continues"
    try:
        machine.join()
        main()
    except KeyboardInterrupt:
        print(f"\nstopped; {kept}", file=sys.stderr)
        sys.exit(130)
    except (RunError, OSError) as error:
        print(f"\nerror: {error}\n{kept}", file=sys.stderr)
        sys.exit(1)
    finally:
        machine.leave()
