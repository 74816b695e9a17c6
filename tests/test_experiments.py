"""The committed results say how they came about, and their scripts still run."""

import argparse
import errno
import functools
import importlib
import json
import math
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import with_book

import experiments.__main__ as everything
from bnlib.data import CHECKSUMS
from experiments import (
    coast,
    convolution,
    data_summary,
    inception_ablation,
    inception_ablation_plain,
    inception_ensemble,
    inception_sigmoid,
    inception_table,
    memorization,
    mnist_mlp,
    mnist_percentiles,
    mnist_tuned,
    runner,
    standardization,
    transformers,
    without_normalization,
    zoo,
)
from experiments.batches import Batches
from experiments.provenance import RESULTS, ResultError, read, rounded, write

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("BNLIB_DATA") or ROOT.parent / "shared" / "data")
FILES = sorted(RESULTS.glob("*.json"))
SCRIPTS = (
    coast,
    convolution,
    data_summary,
    inception_ablation,
    inception_ablation_plain,
    inception_ensemble,
    inception_sigmoid,
    inception_table,
    memorization,
    mnist_percentiles,
    mnist_tuned,
    standardization,
    transformers,
    without_normalization,
    zoo,
)
PROVENANCE = {
    "command": str,
    "config": dict,
    "seeds": list,
    "versions": dict,
    "machine": str,
    "threads": int,
    "data_sha256": dict,
    "wall_time_s": float,
    "date": str,
}


def load(path):
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.fixture
def real_data(monkeypatch):
    if not (DATA / "mnist").is_dir():
        pytest.skip("no mnist at hand: set BNLIB_DATA to a folder that holds it")
    monkeypatch.setenv("BNLIB_DATA", str(DATA))


def numbers(value):
    """Every float of nested lists and dicts."""
    if isinstance(value, dict | list):
        items = value.values() if isinstance(value, dict) else value
        for item in items:
            yield from numbers(item)
    elif isinstance(value, float):
        yield value


def check_provenance(result):
    """The part that every results file has."""
    facts = result["provenance"]
    for key, kind in PROVENANCE.items():
        assert isinstance(facts[key], kind), key
    assert {"python", "numpy", "torch"} <= set(facts["versions"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", facts["date"]) and facts["wall_time_s"] > 0
    assert all(isinstance(seed, int) for seed in facts["seeds"])
    for name, checksum in facts["data_sha256"].items():
        assert CHECKSUMS[name] == checksum, name
    python, flag, module, *_ = shlex.split(facts["command"])
    assert (python, flag) == ("python", "-m")
    script = ROOT / f"{module.replace('.', '/')}.py"
    assert script.is_file() and module.startswith("experiments."), module
    assert all(math.isfinite(x) for x in numbers(result))
    definitions = result["definitions"]
    assert definitions and all(len(text) > 10 for text in definitions.values())


def check_script(result, script, **more):
    """The script's settings and words are still those of the result."""
    config = json.loads(json.dumps({**script.CONFIG, **more}))
    assert result["provenance"]["config"] == config, "run it again: the script changed"
    assert result["definitions"] == script.DEFINITIONS


def run_small(script, command, folder):
    """The result of a script that is run with few steps; nothing is left behind."""
    script.main([*command.split(), *options_for(folder, "new.json")])
    result = load(folder / "new.json")
    check_provenance(result)
    expected = f"python -m {script.__name__} {command}"
    assert result["provenance"]["command"] == expected
    assert not list((folder / "unfinished").iterdir())
    return result


def test_there_are_results():
    names = {script.__name__.split(".")[1] for script in SCRIPTS}
    assert names == {path.stem for path in FILES}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_results_file(path):
    text = path.read_text(encoding="utf-8")
    assert len(text) < 300_000, "a page loads this: record less, or round more"
    assert not re.search(r'"(/|[A-Z]:\\|~)', text), "a path of somebody's machine"
    result = load(path)
    check_provenance(result)
    assert result["provenance"]["command"].split()[2] == f"experiments.{path.stem}"


# MNIST percentiles


def check_percentiles(result, seeds, steps):
    """Shapes, ranges, and the quantities that can be computed from others."""
    facts, runs, at = result["provenance"], result["runs"], result["steps"]
    assert facts["seeds"] == seeds and facts["config"]["steps"] == steps == at[-1]
    assert len(facts["data_sha256"]) == 4
    assert at == sorted(set(at)) and at[0] == 0
    kinds = ("baseline", "batch_norm")
    expected = [(kind, seed) for seed in seeds for kind in kinds]
    assert [(run["network"], run["seed"]) for run in runs] == expected
    for run in runs:
        assert len(check_unit(run)) == len(at)
        assert run["drift"] == sorted(run["unit_drift"])[49]
        assert run["unit_drift"][run["typical_unit"]["unit"]] == run["drift"]
        assert run["late_drift"] == sorted(run["unit_late_drift"])[49]
        assert np.shape(run["saturation"]) == (3, len(at))
        assert np.shape(run["gradient_norms"]) == (4, len(at))
        for key in ("loss", "test_accuracy", "median_spread"):
            assert len(run[key]) == len(at)
        for key in ("saturation", "test_accuracy"):
            assert 0 <= np.min(run[key]) <= np.max(run[key]) <= 1
        assert np.min(run["gradient_norms"]) > 0 and min(run["loss"]) > 0
    for kind in kinds:
        own = [run for run in runs if run["network"] == kind]
        summary = result["summary"][kind]
        check_spread(
            summary["final_test_accuracy"], [curve[-1] for curve in accuracies(own)]
        )
        assert summary["drift"]["mean"] == pytest.approx(
            np.mean([run["drift"] for run in own]), rel=1e-3
        )


def test_recorded_percentiles():
    result = load(RESULTS / "mnist_percentiles.json")
    check_percentiles(result, [0, 1, 2, 3, 4], 50_000)
    assert len(result["steps"]) == 60
    check_script(result, mnist_percentiles, steps=50_000)


@pytest.fixture(scope="module")
def cached_mnist():
    """The data, read once, with fewer held-out and test images."""
    whole = mnist_mlp.load

    @functools.cache
    def fewer():
        (x, y), (u, v) = whole()
        return (x[:51_000], y[:51_000]), (u[:1000], v[:1000])

    return fewer


@pytest.fixture
def mnist(real_data, cached_mnist, monkeypatch):
    """The real data, read once for all tests here."""
    for module in (mnist_mlp, mnist_tuned):
        monkeypatch.setattr(module, "load", cached_mnist)


def options_for(folder, out):
    return ["--checkpoints", str(folder / "unfinished"), "--out", str(folder / out)]


def test_percentiles_script(mnist, one_thread, tmp_path):
    command = "--seeds 7 --steps 10"
    one, again = (run_small(mnist_percentiles, command, tmp_path) for _ in range(2))
    check_percentiles(one, [7], 10)
    assert one["runs"] == again["runs"], "the same seed, another result"


def test_networks_start_equal():
    first, second = (mnist_mlp.network(k, 3, 0.1) for k in mnist_mlp.NETWORKS)
    linear = [
        [m for m in net if isinstance(m, torch.nn.Linear)] for net in (first, second)
    ]
    for a, b in zip(*linear, strict=True):
        assert torch.equal(a.weight, b.weight)
        assert abs(a.weight.std() - 0.1) < 0.01
    assert [m.bias is None for m in linear[1]] == [True, True, True, False]
    other = mnist_mlp.network("baseline", 4, 0.1)
    assert not torch.equal(other[0].weight, first[0].weight)
    scaled = mnist_mlp.network("baseline", 3, mnist_mlp.FAN_IN)
    assert scaled[0].weight.std().item() == pytest.approx(784**-0.5, rel=0.02)
    assert scaled[2].weight.std().item() == pytest.approx(100**-0.5, rel=0.02)


def test_batches_visit_every_image_once_per_epoch():
    source = Batches(180, 60, 0)
    epochs = [torch.cat([next(source) for _ in range(3)]) for _ in range(2)]
    assert all(sorted(epoch.tolist()) == list(range(180)) for epoch in epochs)
    assert not torch.equal(*epochs)


def test_measure_leaves_the_network_alone():
    model = mnist_mlp.network("batch_norm", 0, 0.1).train()
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(70, 784, generator=generator)
    labels = torch.randint(10, (70,), generator=generator)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = mnist_mlp.measure(model, (images, labels), (images, labels))
    after = model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert model.training and all(p.grad is None for p in model.parameters())
    # Batch statistics: the median unit of a fresh layer is centred and has unit spread.
    low, _, high = found["percentiles"]
    assert (low < 0).all() and (high > 0).all()


def test_drift_of_a_made_up_unit():
    """A median that goes 0, 3, 1 with spreads 1, 1, 4 has drifted by 3 / 2."""
    median = torch.tensor([0.0, 3.0, 1.0])
    spread = torch.tensor([1.0, 1.0, 4.0])
    levels = torch.stack([median - spread / 4, median, median + 3 * spread / 4], dim=1)
    assert mnist_mlp.drifts(levels[:, :, None]).tolist() == [1.5]


def test_summary_of_made_up_runs():
    run = {"drift": 1.0, "late_drift": 0.5, "saturation": [[0.1, 0.2]] * 3}
    runs = [
        {**run, "network": kind, "test_accuracy": [0.1, last]}
        for last in (0.2, 0.4, 0.9)
        for kind in mnist_mlp.NETWORKS
    ]
    summary = mnist_percentiles.summarise([0, 1000], runs)
    for of_network in summary.values():
        accuracy = of_network["test_accuracy_at_1000"]
        assert accuracy == of_network["final_test_accuracy"]
        assert accuracy["per_seed"] == [0.2, 0.4, 0.9]
        assert accuracy["mean"] == pytest.approx(0.5)
        assert accuracy["sd"] == pytest.approx(0.13**0.5)
        assert of_network["final_saturation_last_hidden"]["mean"] == pytest.approx(0.2)
    single = mnist_percentiles.summarise([0, 1000], runs[:2])
    assert single["baseline"]["drift"]["sd"] is None


# The gap when both networks are tuned


def check_spread(summary, values):
    """A summary over seeds; values come from the file, rounded to four digits."""
    assert summary["per_seed"] == pytest.approx(values, abs=2e-4)
    assert summary["mean"] == pytest.approx(np.mean(values), abs=2e-4)
    if len(values) > 1:
        assert summary["sd"] == pytest.approx(np.std(values, ddof=1), abs=2e-4)
    else:
        assert summary["sd"] is None


def check_sweep(result, seeds):
    """The settings were chosen on other seeds than those they are judged on."""
    config, swept = result["provenance"]["config"], result["sweep"]
    assert result["provenance"]["seeds"] == seeds
    assert not set(seeds) & set(swept["seeds"]), "chosen and judged on the same seeds"
    assert swept["lrs"] == config["lrs"]
    return config, swept


def check_chosen(grid, mean, best, where):
    """Of a grid of accuracies, the last axis the seeds, the best mean was chosen."""
    assert 0 <= grid.min() <= grid.max() <= 1
    assert mean == pytest.approx(grid.mean(-1), abs=6e-5)
    assert best == mean[where]
    assert grid.mean(-1)[where] == pytest.approx(grid.mean(-1).max(), abs=1e-9)


def check_steps(found, curves, at, level):
    """The first step at which each curve has reached a level."""
    for curve, step in zip(curves, found["per_seed"], strict=True):
        there = np.array(curve) >= float(level)
        assert step == (at[there.argmax()] if there.any() else None)


def check_unit(run):
    """The drift of the typical unit follows from its percentiles; returns medians."""
    unit = run["typical_unit"]
    low, median, high = (np.array(unit[key]) for key in ("p15", "p50", "p85"))
    assert (low < median).all() and (median < high).all()
    drift = (median.max() - median.min()) / (high - low).mean()
    assert run["drift"] == unit["drift"] == pytest.approx(drift, rel=2e-2)
    return median


def accuracies(runs):
    return [run["test_accuracy"] for run in runs]


def check_tuned(result, seeds, steps):
    """Shapes, ranges, and everything that can be computed from the rest."""
    config, swept = check_sweep(result, seeds)
    runs, at, kinds = result["runs"], result["steps"], mnist_mlp.NETWORKS
    assert config["steps"] == steps == at[-1]
    assert len(result["provenance"]["data_sha256"]) == 4
    assert at == sorted(set(at)) and at[0] == 0 and swept["stds"] == config["stds"]
    for kind in kinds:
        grid = np.array(swept["validation_accuracy"][kind])
        assert grid.shape == tuple(len(swept[k]) for k in ("stds", "lrs", "seeds"))
        mean = np.array(swept["mean_validation_accuracy"][kind])
        best = result["chosen"][kind]
        where = swept["stds"].index(best["std"]), swept["lrs"].index(best["lr"])
        check_chosen(grid, mean, best["validation_accuracy"], where)
        for level, share in swept["robustness"][kind].items():
            assert share == pytest.approx((mean >= float(level)).mean(), abs=1e-4)
    expected = [(s, k, n) for s in seeds for k in kinds for n in ("untuned", "tuned")]
    assert [(r["seed"], r["network"], r["setting"]) for r in runs] == expected
    for run in runs:
        tuned = run["setting"] == "tuned"
        wanted = result["chosen"][run["network"]] if tuned else config["untuned"]
        assert (run["lr"], run["std"]) == (wanted["lr"], wanted["std"])
        series = ("loss", "test_accuracy", "median_spread", "saturation")
        assert {len(run[key]) for key in series} == {len(check_unit(run))} == {len(at)}
        for key in ("test_accuracy", "saturation"):
            assert 0 <= min(run[key]) <= max(run[key]) <= 1
    for setting in ("untuned", "tuned"):
        last = {}
        for kind in kinds:
            own = [r for r in runs if (r["setting"], r["network"]) == (setting, kind)]
            summary = result["summary"][setting][kind]
            last[kind] = [curve[-1] for curve in accuracies(own)]
            check_spread(summary["final_test_accuracy"], last[kind])
            assert summary["drift"]["per_seed"] == [run["drift"] for run in own]
            for level, found in summary["steps_to"].items():
                check_steps(found, accuracies(own), at, level)
        gap = np.subtract(last["batch_norm"], last["baseline"])
        check_spread(result["summary"][setting]["gap"], gap)


def test_recorded_tuned():
    result = load(RESULTS / "mnist_tuned.json")
    check_tuned(result, [0, 1, 2, 3, 4], 50_000)
    check_script(result, mnist_tuned, steps=50_000, sweep_steps=10_000)


def test_tuned_script(mnist, one_thread, tmp_path, monkeypatch):
    small = {**mnist_tuned.CONFIG, "lrs": [0.1, 1.0], "stds": [0.1, mnist_mlp.FAN_IN]}
    monkeypatch.setattr(mnist_tuned, "CONFIG", small)
    command = "--seeds 7 --sweep-seeds 8 9 --steps 5 --sweep-steps 2"
    check_tuned(run_small(mnist_tuned, command, tmp_path), [7], 5)


def test_the_best_setting_is_chosen_and_among_equals_the_first():
    axes = {"lr": [0.1, 1.0], "std": [0.01, 0.1, 0.3]}
    best = runner.choose([[0.1, 0.7, 0.2], [0.9, 0.95, 0.94]], **axes)
    assert best == {"lr": 1.0, "std": 0.1, "validation_accuracy": 0.95}
    best = runner.choose([[0.1, 0.9, 0.9], [0.9, 0.9, 0.9]], **axes)
    assert best == {"lr": 0.1, "std": 0.1, "validation_accuracy": 0.9}


def test_steps_to_an_accuracy():
    runs = [{"test_accuracy": curve} for curve in ([0.1, 0.9, 0.8], [0.1, 0.2, 0.9])]
    found = mnist_tuned.steps_to(0.9, [0, 5, 9], runs)
    assert found == {"per_seed": [5, 9], "median": 7, "min": 5, "max": 9}
    found = mnist_tuned.steps_to(0.95, [0, 5, 9], runs)
    assert found == {"per_seed": [None, None], "median": None, "min": None, "max": None}


# The runs, one by one

SETTING = {"lr": 0.5, "std": 0.1, "images": 500, "steps": 30}


def made_up_data():
    generator = torch.Generator().manual_seed(0)
    x = (torch.rand(800, 784, generator=generator) > 0.5).float()
    y = torch.randint(10, (800,), generator=generator)
    return (x[:700], y[:700]), (x[700:], y[700:])


def go(kind, setting, path, data=None, stop_after=None):
    """Execute one run; stop_after: so many steps."""
    made = []
    data = made_up_data() if data is None else data
    return runner.execute(
        kind, setting, data, path, made.append, lambda: sum(made) == stop_after
    )


@pytest.mark.parametrize("network", mnist_mlp.NETWORKS)
@pytest.mark.parametrize("kind", ["Validated", "Observed", "Timed"])
def test_a_stopped_run_ends_with_the_same_numbers(kind, network, one_thread, tmp_path):
    kind, setting = getattr(mnist_mlp, kind), {"network": network, "seed": 3, **SETTING}
    straight = go(kind, setting, tmp_path / "straight.pt")
    stopped = tmp_path / "stopped.pt"
    assert go(kind, setting, stopped, stop_after=7) is None
    assert runner.restore(stopped)["step"] == 7
    assert go(kind, setting, stopped, stop_after=22) is None
    finished = go(kind, setting, stopped)
    assert finished["result"] == straight["result"]
    assert finished["seconds"] > 0
    assert go(kind, setting, stopped) == finished, "a finished run is looked up"


def test_settings_are_not_chosen_on_test_images(one_thread, tmp_path):
    setting = {"network": "batch_norm", "seed": 3, **SETTING}
    train, (x, y) = made_up_data()
    found = [
        go(mnist_mlp.Validated, setting, tmp_path / f"{i}.pt", (train, test))
        for i, test in enumerate([(x, y), (1 - x, 9 - y)])
    ]
    assert found[0]["result"] == found[1]["result"]
    run = mnist_mlp.Validated(setting, made_up_data())
    assert (len(run.train[0]), len(run.held_out[0])) == (500, 200)
    assert torch.equal(torch.cat([run.train[0], run.held_out[0]]), train[0])


TOY = """
import argparse
import torch
from experiments import runner

runner.SAVE_EVERY = 0.02

class Momentum:  # torch.optim takes two seconds to import
    def __init__(self, parameters):
        self.parameters = list(parameters)
        self.velocity = [torch.zeros_like(part) for part in self.parameters]

    def step(self):
        for part, velocity in zip(self.parameters, self.velocity):
            velocity.mul_(0.9).add_(part.grad)
            part.data.sub_(0.01 * velocity)

    def state_dict(self):
        return {"velocity": self.velocity}

    def load_state_dict(self, state):
        self.velocity = state["velocity"]

optimizer = Momentum

class Toy(runner.Run):
    def __init__(self, setting, data):
        self.data = data
        parts = torch.nn.Linear(8, 8), torch.nn.Dropout(), torch.nn.Linear(8, 1)
        self.model = torch.nn.Sequential(*parts)
        self.optimizer = optimizer(self.model.parameters())
        self.at = [0, 50, setting["steps"]]

    def update(self):
        self.model.zero_grad()
        chosen = self.data[torch.randint(len(self.data), (4,))]
        (self.model(chosen) - 1).square().mean().backward()
        self.optimizer.step()

    def measure(self):
        return [part.double().sum().item() for part in self.model.parameters()]

    def result(self, records):
        return records

def load():
    return torch.linspace(-1, 1, 160).reshape(20, 8)

def settings(options):
    return [{"seed": seed, "steps": options.steps} for seed in options.seeds]

def run(arguments=None):
    parser = argparse.ArgumentParser()
    runner.add_options(parser, None, steps=2500, seeds=(0, 1, 2))
    options = parser.parse_args(arguments)
    return runner.run_all(Toy, settings(options), load, options)[0]

if __name__ == "__main__":
    runner.start(lambda: print(run()))
"""


@pytest.fixture
def toy(one_thread, tmp_path, monkeypatch):
    """A module whose runs use all that a checkpoint must hold, and need no data."""
    monkeypatch.setattr(runner, "SAVE_EVERY", runner.SAVE_EVERY)
    (tmp_path / "toy.py").write_text(TOY)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "toy", raising=False)
    yield importlib.import_module("toy")
    sys.modules.pop("toy", None)


@pytest.mark.parametrize("optimizer", ["Momentum", "SGD", "Adam"])
def test_optimizers_and_random_states_are_saved(toy, tmp_path, monkeypatch, optimizer):
    if optimizer != "Momentum":
        made = functools.partial(getattr(torch.optim, optimizer), lr=0.01)
        monkeypatch.setattr(toy, "optimizer", made)
    setting = {"seed": 3, "steps": 60}
    straight = go(toy.Toy, setting, tmp_path / "straight.pt", toy.load())
    stopped = tmp_path / "stopped.pt"
    assert go(toy.Toy, setting, stopped, toy.load(), stop_after=53) is None
    assert go(toy.Toy, setting, stopped, toy.load())["result"] == straight["result"]


def spawn(toy, *arguments):
    return subprocess.Popen(
        [sys.executable, toy.__file__, *arguments],
        env=with_book(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # In the background (`nohup make test &`) children would ignore interrupts.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def wait_for_checkpoints(folder, process, number):
    for _ in range(3000):
        if len(list(folder.glob("*.pt"))) >= number:
            return
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.01)
    pytest.fail("no checkpoint in 30 s")


def unfinished(folder):
    saved = [runner.restore(path) for path in folder.glob("*.pt")]
    return [checkpoint for checkpoint in saved if "step" in checkpoint]


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_killed_then_interrupted_runs_end_with_the_same_numbers(toy, tmp_path, capfd):
    folder = tmp_path / "stopped"
    what = ["--seeds", "0", "1", "--steps", "5000", "--checkpoints"]
    straight, common = toy.run([*what, str(tmp_path / "a")]), [*what, str(folder)]
    process = spawn(toy, *common)
    wait_for_checkpoints(folder, process, 1)
    process.kill()
    process.communicate()
    assert unfinished(folder), "killed too late to show anything"

    process = spawn(toy, *common, "--jobs", "2")
    wait_for_checkpoints(folder, process, 2)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "stopped; what is finished is kept" in said and "Traceback" not in said
    assert unfinished(folder), "interrupted too late to show anything"

    assert toy.run(common) == straight
    assert toy.run(common) == straight, "finished runs are looked up"


def test_ctrl_c_in_a_single_process(toy, tmp_path, monkeypatch, capsys):
    arguments = ["--checkpoints", str(tmp_path / "c"), "--steps", "60"]
    update, made = toy.Toy.update, []

    def interrupted(run):
        made.append(1)
        if len(made) == 100:
            raise KeyboardInterrupt
        update(run)

    monkeypatch.setattr(toy.Toy, "update", interrupted)
    with pytest.raises(SystemExit) as stop:
        runner.start(lambda: toy.run(arguments))
    assert stop.value.code == 130
    assert "the same command continues" in capsys.readouterr().err
    first = toy.settings(argparse.Namespace(seeds=[0], steps=60))[0]
    assert "result" in runner.restore(runner.place(toy.Toy, first, tmp_path / "c"))


def error_of(main, capsys):
    """What `start` says; it says one thing, and no finished run is lost."""
    with pytest.raises(SystemExit) as stop:
        runner.start(main)
    said = capsys.readouterr().err
    assert stop.value.code == 1 and said.count("error:") == 1
    assert "what is finished is kept" in said and "Traceback" not in said
    return said


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "other"])
def test_a_damaged_checkpoint_is_named(toy, tmp_path, capsys, damage):
    arguments = ["--checkpoints", str(tmp_path / "c"), "--steps", "60"]
    whole = toy.run(arguments)
    path = sorted((tmp_path / "c").glob("*seed=1*"))[0].resolve()
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(
        {"cut": data[:-9], "flipped": data, "empty": b"", "other": b"abc" * 50}[damage]
    )
    said = error_of(lambda: toy.run(arguments), capsys)
    assert "damaged checkpoint" in said and str(path) in said and "delete it" in said
    path.unlink()
    assert toy.run(arguments) == whole


def test_a_full_disk_keeps_finished_runs(toy, tmp_path, capsys, monkeypatch):
    arguments = ["--checkpoints", str(tmp_path / "c"), "--steps", "60"]
    write_bytes = Path.write_bytes

    def full(path, data):
        if "seed=1" in path.name:
            write_bytes(path, data[:20])
            raise OSError(errno.ENOSPC, "No space left on device")
        return write_bytes(path, data)

    monkeypatch.setattr(Path, "write_bytes", full)
    said = error_of(lambda: toy.run(arguments), capsys)
    assert "cannot write a checkpoint: No space left on device" in said
    (kept,) = (tmp_path / "c").iterdir()
    assert "result" in runner.restore(kept) and "seed=0" in kept.name
    monkeypatch.undo()


def test_missing_data_is_one_clear_error(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("BNLIB_DATA", str(tmp_path / "nowhere"))
    for script in (mnist_percentiles, mnist_tuned, standardization):
        for jobs in ("1", "2"):
            arguments = ["--jobs", jobs, *options_for(tmp_path, "new.json")]
            said = error_of(lambda a=arguments, s=script: s.main(a), capsys)
            assert "nowhere, which is not a folder" in said and "cure:" in said
    assert not list(tmp_path.iterdir())


def test_other_code_and_other_settings_are_other_runs(toy, tmp_path):
    def where(**changed):
        setting = {"seed": 0, "steps": 60, **changed}
        return runner.place(toy.Toy, setting, tmp_path)

    before = where()
    assert where() == before
    assert len({before, where(seed=1), where(steps=61), where(lr="1/x")}) == 4
    Path(toy.__file__).write_text(TOY.replace("(4,)", "(5,)"))
    assert where() != before
    # The code that a class uses from other modules of the project counts too.
    (file,) = [m.__file__ for m in [mnist_mlp]]
    assert str(Path(file)) in runner.sources(mnist_mlp.Timed)
    assert any(path.endswith("data.py") for path in runner.sources(mnist_mlp.Timed))


def test_options_that_make_no_sense(toy, capsys):
    with pytest.raises(runner.RunError, match="twice"):
        toy.run(["--seeds", "7", "7"])
    for arguments in (["--steps", "0"], ["--jobs", "-1"], ["--steps", "many"]):
        with pytest.raises(SystemExit):
            toy.run(arguments)
        assert "a whole number from 1 on" in capsys.readouterr().err


# All of them


def test_every_result_can_be_made_again(monkeypatch, tmp_path, capsys):
    """`make experiments` says how long it takes, then gives each script its command."""
    called = []
    for script in SCRIPTS:
        name = script.__name__
        monkeypatch.setattr(script, "main", lambda a, n=name: called.append((n, a)))
    kept = tmp_path / "finished.pt"
    kept.touch()
    monkeypatch.setattr(runner, "kept", [kept])
    everything.main(["--list"])
    said = capsys.readouterr().out
    assert not called and all(f"experiments.{path.stem}" in said for path in FILES)
    for path in FILES:
        seconds = load(path)["provenance"]["wall_time_s"]
        assert f"{everything.duration(seconds):>7}  experiments.{path.stem}\n" in said
    everything.main(["--jobs", "2"])
    assert sorted(name for name, _ in called) == [
        f"experiments.{p.stem}" for p in FILES
    ]
    for name, arguments in called:
        recorded = load(RESULTS / f"{name.split('.')[1]}.json")["provenance"]["command"]
        own = shlex.split(recorded)[3:]
        assert arguments == (own and [*own, "--jobs", "2", "--keep"])
    assert not kept.exists()


def test_finished_runs_stay_when_asked(toy, tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "kept", [])
    options = argparse.Namespace(checkpoints=tmp_path / "c", keep=True)
    options.jobs, options.steps, options.seeds = 1, 60, [0]
    runner.run_all(toy.Toy, toy.settings(options), toy.load, options)
    (path,) = options.checkpoints.iterdir()
    runner.forget(toy.Toy, toy.settings(options), options)
    assert runner.kept == [path] and path.exists()
    options.keep = False
    runner.forget(toy.Toy, toy.settings(options), options)
    assert not path.exists()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"provenance": {"command": "x"}}'])
def test_a_damaged_results_file_is_named(text, tmp_path, monkeypatch, capsys):
    path = tmp_path / "broken.json"
    path.write_text(text)
    with pytest.raises(ResultError, match="damaged results file"):
        read(path)
    monkeypatch.setattr(everything, "RESULTS", tmp_path)
    said = error_of(lambda: everything.main(["--list"]), capsys)
    assert str(path) in said


# What the data contain


def test_data_summary(real_data, tmp_path):
    """The committed file is what the script writes today, times and versions apart."""
    if not (DATA / "fashion-mnist").is_dir():
        pytest.skip("no fashion-mnist at hand: set BNLIB_DATA to a folder with it")
    data_summary.main(["--out", str(tmp_path / "new.json")])
    new, old = load(tmp_path / "new.json"), load(RESULTS / "data_summary.json")
    assert new["sets"] == old["sets"] and new["definitions"] == old["definitions"]
    check_provenance(new)


# How results are written


def test_rounding_keeps_four_digits_and_all_else():
    value = {"a": [1.23456, 123456.0, -0.00012344, 7], "b": (True, None, "1.23456")}
    assert rounded(value) == {
        "a": [1.235, 123500.0, -0.0001234, 7],
        "b": [True, None, "1.23456"],
    }


def test_writing_is_compact_whole_or_not_at_all(tmp_path, monkeypatch):
    result = {"runs": [{"x": [1, 2.5, -3e-9], "y": [[1, 2], [3, 4]], "z": "a [ 1 ] b"}]}
    write(tmp_path / "new" / "r.json", result)
    text = (tmp_path / "new" / "r.json").read_text()
    assert json.loads(text) == result and '"x": [1, 2.5, -3e-09]' in text
    with pytest.raises(ValueError, match="JSON"):
        write(tmp_path / "new" / "r.json", {"x": math.nan})

    def full(path, text, encoding=None):
        with open(path, "w") as file:
            file.write(text[:5])
        raise OSError("no space left")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="no space"):
        write(tmp_path / "new" / "r.json", {"x": 2.5})
    (kept,) = (tmp_path / "new").iterdir()
    assert kept.read_text() == text
