"""The Inception experiments: their network, their runs, their committed results."""

import json
import math
import os
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import torchrun
from test_experiments import (
    DATA,
    ROOT,
    check_script,
    check_spread,
    check_steps,
    check_sweep,
    go,
    load,
    options_for,
    run_small,
)
from torch import nn

from experiments import (
    inception,
    inception_ablation,
    inception_ablation_plain,
    inception_ensemble,
    inception_sigmoid,
    runner,
)
from experiments import inception_table as table
from experiments.batches import Batches
from experiments.provenance import RESULTS

pytestmark = pytest.mark.usefixtures("one_thread")
SCRIPTS = (
    table,
    inception_ablation,
    inception_ablation_plain,
    inception_ensemble,
    inception_sigmoid,
)


def made_up_data(number=160):
    generator = torch.Generator().manual_seed(0)

    def images(n):
        x = torch.rand(n, 1, 28, 28, generator=generator)
        return x, torch.randint(10, (n,), generator=generator)

    return images(number), images(50), images(70)


@pytest.fixture
def clothes(monkeypatch):
    """Images without a structure, of the right shapes, and few steps between looks."""
    monkeypatch.setattr(inception.Training, "every", 2)
    monkeypatch.setattr(inception, "load", made_up_data)


def setting(variant="BN-x5", **more):
    return {**table.VARIANTS[variant], "seed": 3, "steps": 4, **more}


# The network


def test_the_network_is_as_described():
    model = inception.network(setting("Baseline"))
    shapes = []
    for layer in model:
        kind = inception.Block | nn.MaxPool2d | nn.LocalResponseNorm
        if isinstance(layer, kind):
            layer.register_forward_hook(
                lambda layer, x, y: shapes.append((type(layer).__name__, y.shape[1:]))
            )
    assert model(torch.rand(2, 1, 28, 28)).shape == (2, 10)
    assert shapes == [
        ("MaxPool2d", (32, 7, 7)),
        ("LocalResponseNorm", (32, 7, 7)),
        ("Block", (64, 7, 7)),
        ("Block", (64, 7, 7)),
        ("MaxPool2d", (64, 4, 4)),
        ("Block", (128, 4, 4)),
        ("Block", (128, 4, 4)),
    ]
    number = sum(p.numel() for p in model.parameters())
    assert round(number / 1000) == 72, "the text of the module says so"
    head = [type(layer) for layer in model][-3:]
    assert head == [nn.Flatten, nn.Dropout, nn.Linear] and model[-2].p == 0.4


def test_variants_start_with_the_same_weights_and_differ_as_they_say():
    models = {name: inception.network(setting(name)) for name in table.VARIANTS}
    weights = {
        name: [p for p in model.parameters() if p.dim() > 1]
        for name, model in models.items()
    }
    first = weights["Baseline"]
    for own in weights.values():
        assert all(torch.equal(a, b) for a, b in zip(first, own, strict=True))
    std = [p.std().item() * (p[0].numel() / 2) ** 0.5 for p in first[:-1]]
    assert np.mean(std) == pytest.approx(1, abs=0.03)
    for name, model in models.items():
        layers = list(model.modules())
        found = {kind: sum(isinstance(m, kind) for m in layers) for kind in NORMS}
        normalized = name.startswith("BN")
        assert found[nn.BatchNorm2d] == (21 if normalized else 0)
        responses = name in ("Baseline", "BN-Baseline", "Baseline-Sigmoid")
        assert found[nn.LocalResponseNorm] == responses
        assert found[nn.Sigmoid] == (21 if "Sigmoid" in name else 0)
        assert found[nn.ReLU] == (0 if "Sigmoid" in name else 21)
        biases = [m.bias is not None for m in layers if isinstance(m, nn.Conv2d)]
        assert biases == [not normalized] * 21


NORMS = (nn.BatchNorm2d, nn.LocalResponseNorm, nn.Sigmoid, nn.ReLU)


def test_rates_are_those_of_the_names():
    rate = {name: variant["lr"] for name, variant in table.VARIANTS.items()}
    base = rate["Baseline"]
    assert rate["BN-Baseline"] == base == rate["Baseline-Sigmoid"]
    assert rate["BN-x5"] == rate["BN-x5-Sigmoid"] == pytest.approx(5 * base)
    assert rate["BN-x30"] == pytest.approx(30 * base)
    before, after = inception.BEFORE, inception.AFTER
    assert len(before) == 7 and all(before[key] != after[key] for key in before)
    assert before["weight_decay"] / after["weight_decay"] == pytest.approx(5)
    assert after["halvings"] / before["halvings"] == 6


def test_batch_norm_per_activation():
    """The last block's statistics are those of each channel and position."""
    different = setting(per_activation=True)
    model = inception.network(different).train()
    kinds = [m for m in model.modules() if isinstance(m, inception.PerActivation)]
    assert len(kinds) == 5 and {k.num_features % 16 for k in kinds} == {0}
    block = [m for m in model if isinstance(m, inception.Block)][-1]
    output = block.point[:2](torch.rand(9, 128, 4, 4))
    assert output.mean(0).abs().max() < 1e-5


def test_distortion_changes_contrast_and_brightness_of_each_image():
    images, _ = made_up_data()[0]
    assert torch.allclose(inception.distort(images, 0.0), images)
    images = 0.4 + 0.2 * images  # far from 0 and 1, where it is cut
    distorted = inception.distort(images, 0.2)
    mean, after = (x.mean((1, 2, 3)) for x in (images, distorted))
    std, spread = (x.std((1, 2, 3)) for x in (images, distorted))
    shift, factor = after - mean, spread / std
    assert -0.2 < shift.min() < -0.15 and 0.15 < shift.max() < 0.2
    assert 0.8 < factor.min() < 0.85 and 1.15 < factor.max() < 1.2
    low, high = inception.distort(images, 0.9).aminmax()
    assert (low, high) == (0, 1)


@pytest.mark.parametrize("shuffling", ["images", "batches"])
def test_batches(shuffling):
    batches = Batches(32 * 4 + 5, 32, 0, together=shuffling == "batches")
    epochs = [torch.stack([next(batches) for _ in range(4)]) for _ in range(3)]
    for epoch in epochs:
        assert len(epoch.unique()) == 128, "no image twice in an epoch"
    companions = [{frozenset(batch.tolist()) for batch in epoch} for epoch in epochs]
    assert (companions[0] == companions[1] == companions[2]) == (shuffling == "batches")
    assert not torch.equal(epochs[0], epochs[1]) or not torch.equal(*epochs[1:])


# The runs


@pytest.mark.parametrize("variant", ["Baseline", "BN-x5"])
def test_a_stopped_run_ends_with_the_same_numbers(variant, tmp_path, monkeypatch):
    monkeypatch.setattr(inception.Training, "every", 2)
    what, data = setting(variant, steps=9, dropout=0.1), made_up_data()
    kind = Weighed
    straight = go(kind, what, tmp_path / "straight.pt", data)
    assert go(kind, what, tmp_path / "stopped.pt", data, stop_after=6) is None
    again = go(kind, what, tmp_path / "stopped.pt", data)
    assert again["result"] == straight["result"]
    assert len(straight["result"]["validation_accuracy"]) == 5


class Weighed(inception.Training):
    """A run that also gives numbers which every weight changes."""

    def result(self, records):
        weights = [p.double().abs().sum().item() for p in self.model.parameters()]
        return {**super().result(records), "weights": weights}


def test_the_rate_decays_and_only_weights_are_penalised():
    run = inception.Training(setting("Baseline", steps=2, halvings=6), made_up_data())
    rates = []
    for _ in range(2):
        rates.append(run.optimizer.param_groups[0]["lr"])
        run.update()
    rates.append(run.optimizer.param_groups[1]["lr"])
    assert rates == pytest.approx([0.01, 0.01 / 8, 0.01 / 64])
    penalties = {
        p.dim() > 1: group["weight_decay"]
        for group in run.optimizer.param_groups
        for p in group["params"]
    }
    assert penalties == {True: 5e-4, False: 0}


def test_nothing_is_chosen_on_test_images():
    train, held_out, (x, y) = made_up_data()
    found = []
    for test in ((x, y), (1 - x, (y + 1) % 10)):
        run = inception.Swept(setting(), (train, held_out, test))
        run.update()
        found.append(run.measure())
    assert found[0] == found[1] and run.at == [4]


DISTRIBUTED = """
import argparse
import sys

sys.path.insert(0, {tests!r})
from experiments import runner
from test_inception import Weighed, made_up_data, setting

parser = argparse.ArgumentParser()
runner.add_options(parser, None, steps=6)
options = parser.parse_args()
still = dict(dropout=0.0, distortion=0.0, steps=options.steps)
settings = [setting("Baseline", **still), setting("BN-x5", **still)]


def main():
    found, _ = runner.run_all(Weighed, settings, made_up_data, options)
    if runner.machine.first():
        print([run["weights"] for run in found])
        print(runner.machine.name())


runner.start(main)
"""


def test_torchrun_divides_the_batch(tmp_path):
    """Two processes: the same weights without batch norm, other ones with it."""
    (tmp_path / "run.py").write_text(DISTRIBUTED.format(tests=str(ROOT / "tests")))
    command = "run.py", "--checkpoints", "c"
    (one, where), (two, where_two), again = (
        torchrun(*command, two=two, cwd=tmp_path) for two in (False, True, True)
    )
    assert again == [two, where_two], "finished runs are looked up, by both"
    one, two = json.loads(one), json.loads(two)
    assert two[0] == pytest.approx(one[0], rel=1e-4)
    assert max(abs(a - b) / b for a, b in zip(one[1], two[1], strict=True)) > 1e-3
    assert where_two == f"{where}, 2 processes"
    assert len(list((tmp_path / "c").glob("*.pt"))) == 4, "each has its own runs"


def test_jobs_and_torchrun_exclude_each_other(monkeypatch):
    monkeypatch.setattr(runner.machine, "processes", lambda: 2)
    options = type("Options", (), {"jobs": 2})
    with pytest.raises(runner.RunError, match="exclude each other"):
        runner.run_all(Weighed, [], made_up_data, options)


def test_options_name_the_data_and_the_device(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("BNLIB_DATA", "before")
    monkeypatch.setenv("BNLIB_DEVICE", "cpu")
    parser = runner.argparse.ArgumentParser()
    runner.add_options(parser, None, steps=6)
    parser.parse_args(["--data", str(tmp_path), "--device", "meta"])
    assert os.environ["BNLIB_DATA"] == str(tmp_path)
    assert runner.machine.device() == torch.device("meta")
    with pytest.raises(SystemExit):
        parser.parse_args(["--device", "abacus"])
    assert "'abacus' cannot be used" in capsys.readouterr().err


# The scripts


def check_curves(runs, steps, at):
    for run in runs:
        curve = run["validation_accuracy"]
        assert len(curve) == len(at) and at[-1] == steps
        assert 0 <= min(curve) <= max(curve) <= 1 and 0 <= run["test_accuracy"] <= 1


def check_table(result, seeds, steps):
    """Shapes, ranges, and everything that can be computed from the rest."""
    config, swept = check_sweep(result, seeds)
    runs, at = result["runs"], result["steps"]
    assert config["steps"] == steps
    for kind in table.KINDS:
        best = result["chosen"][kind]
        means = {
            recipe: np.mean(swept["validation_accuracy"][kind][recipe], axis=1)
            for recipe in table.RECIPES
        }
        for recipe, mean in means.items():
            recorded = swept["mean_validation_accuracy"][kind][recipe]
            assert recorded == pytest.approx(mean, abs=6e-5)
        chosen = means[best["recipe"]][swept["lrs"].index(best["lr"])]
        assert chosen == pytest.approx(max(m.max() for m in means.values()), abs=1e-9)
    names = [*table.VARIANTS, *table.TUNED]
    assert [(r["seed"], r["variant"]) for r in runs] == list(product(seeds, names))
    check_curves(runs, steps, at)
    summary = result["summary"]
    own = [run for run in runs if run["variant"] == "Baseline"]
    best = [max(run["validation_accuracy"]) for run in own]
    assert summary["target"] == pytest.approx(np.mean(best), abs=1e-4)
    for name in names:
        own = [run for run in runs if run["variant"] == name]
        row = summary["variants"][name]
        check_spread(row["best"], [max(run["validation_accuracy"]) for run in own])
        check_spread(row["test_accuracy"], [run["test_accuracy"] for run in own])
        curves = [run["validation_accuracy"] for run in own]
        check_steps(row["steps_to_target"], curves, at, summary["target"])


def check_ablation(result, seeds, steps):
    runs, rows = result["runs"], list(inception_ablation.ROWS)
    assert [(r["seed"], r["row"]) for r in runs] == list(product(seeds, rows))
    check_curves(runs, steps, result["steps"])
    accuracy = {
        row: [r["test_accuracy"] for r in runs if r["row"] == row] for row in rows
    }
    for row, summary in result["summary"].items():
        check_spread(summary["test_accuracy"], accuracy[row])
        cost = np.subtract(accuracy["all seven changes"], accuracy[row])
        check_spread(summary["cost"], cost)


def check_sigmoid(result, seeds, steps):
    config, swept, runs = (
        result["provenance"]["config"],
        result["sweep"],
        result["runs"],
    )
    assert not set(seeds) & set(swept["seeds"]), "chosen and judged on the same seeds"
    mean = np.mean(swept["validation_accuracy"], axis=2)
    assert mean.shape == (len(config["init_scales"]), len(config["lrs"]))
    assert swept["mean_validation_accuracy"] == pytest.approx(mean, abs=6e-5)
    i = config["init_scales"].index(result["chosen"]["init_scale"])
    j = config["lrs"].index(result["chosen"]["lr"])
    assert mean[i, j] == pytest.approx(mean.max(), abs=1e-9)
    assert [run["seed"] for run in runs] == seeds
    check_curves(runs, steps, result["steps"])
    check_spread(result["test_accuracy"], [run["test_accuracy"] for run in runs])


def check_ensemble(result, seeds):
    members = result["members"]
    assert [member["seed"] for member in members] == seeds
    single = [member["test_accuracy"] for member in members]
    check_spread(result["single"], single)
    sizes = [row["size"] for row in result["ensemble"]]
    assert sizes == list(range(1, len(seeds) + 1))
    alone, together = result["ensemble"][0], result["ensemble"][-1]
    facts = [np.mean(single), min(single), max(single)]
    assert [alone[k] for k in ("mean", "min", "max")] == pytest.approx(facts, abs=1e-4)
    gains = together["mean"] - np.mean(single), together["mean"] - max(single)
    recorded = result["gain"], result["gain_over_best"]
    assert recorded == pytest.approx(gains, abs=2e-4)


def test_table_script(clothes, tmp_path, monkeypatch):
    small = {**table.CONFIG, "lrs": [0.01, 0.1]}
    monkeypatch.setattr(table, "CONFIG", small)
    command = "--seeds 7 --sweep-seeds 8 9 --steps 4 --sweep-steps 2"
    check_table(run_small(table, command, tmp_path), [7], 4)


def test_ablation_script(clothes, tmp_path):
    result = run_small(inception_ablation, "--seeds 7 --steps 4", tmp_path)
    check_ablation(result, [7], 4)
    plain = run_small(inception_ablation_plain, "--seeds 7 --steps 4", tmp_path)
    check_ablation(plain, [7], 4)
    assert plain["runs"] != result["runs"]


def test_ensemble_script(clothes, tmp_path):
    result = run_small(inception_ensemble, "--seeds 7 8 --steps 4", tmp_path)
    check_ensemble(result, [7, 8])


def test_sigmoid_script(clothes, tmp_path, monkeypatch):
    small = {**inception_sigmoid.CONFIG, "lrs": [0.01, 0.1], "init_scales": [1, 4]}
    monkeypatch.setattr(inception_sigmoid, "CONFIG", small)
    command = "--seeds 7 --sweep-seeds 8 9 --steps 4 --sweep-steps 2"
    check_sigmoid(run_small(inception_sigmoid, command, tmp_path), [7], 4)
    assert not inception_sigmoid.NETWORK["norm"]


def test_each_ablation_undoes_one_change():
    full, *rows, none = inception_ablation.ROWS.values()
    assert full == table.VARIANTS["BN-x5"]
    assert none == table.VARIANTS["BN-Baseline"]
    undone = [[key for key in full if row[key] != full[key]] for row in rows]
    assert undone == [[key] for key in inception.BEFORE]


def test_an_ensemble_is_the_mean_of_probabilities():
    first, second = [[0.6, 0.4], [0.4, 0.6]], [[0.1, 0.9], [0.3, 0.7]]
    members = [{"labels": [1, 1], "probabilities": p} for p in (first, second)]
    one, two = inception_ensemble.ensembles(members)
    assert one == {"size": 1, "mean": 0.75, "min": 0.5, "max": 1.0}
    assert two == {"size": 2, "mean": 1.0, "min": 1.0, "max": 1.0}


def test_the_speedup_of_made_up_runs():
    def run(variant, *curve):
        return {
            "variant": variant,
            "validation_accuracy": curve,
            "test_accuracy": curve[-1],
        }

    runs = [run("Baseline", 0.1, 0.4, 0.8, 0.7), run("fast", 0.8, 0.9, 0.9, 0.9)]
    runs += [run("slow", 0.1, 0.1, 0.1, 0.2)]
    found = table.summarise([200, 400, 600, 800], runs)
    assert (found["target"], found["steps_to_best"]) == (0.8, [600])
    fast, slow = found["variants"]["fast"], found["variants"]["slow"]
    assert fast["steps_to_target"]["per_seed"] == [200] and fast["speedup"] == 3
    assert slow["steps_to_target"]["median"] is None and slow["speedup"] is None
    assert table.median_step([None, 400, 200]) == 400
    assert table.median_step([None, None, 200]) is None


def test_missing_clothes_are_one_clear_error(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("BNLIB_DATA", str(tmp_path / "nowhere"))
    for script in SCRIPTS:
        with pytest.raises(SystemExit):
            runner.start(lambda s=script: s.main(options_for(tmp_path, "new.json")))
        said = capsys.readouterr().err
        assert "nowhere, which is not a folder" in said and said.count("error:") == 1


# What was recorded

CHECKS = {
    "inception_table": (check_table, [0, 1, 2], 5000),
    "inception_ablation": (check_ablation, [0, 1, 2], 5000),
    "inception_ablation_plain": (check_ablation, [0, 1, 2], 5000),
    "inception_ensemble": (check_ensemble, [20, 21, 22, 23, 24, 25]),
    "inception_sigmoid": (check_sigmoid, [0, 1, 2], 500),
}
SWEEPS = {"inception_table": 1000, "inception_sigmoid": 500}


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.__name__)
def test_recorded(script):
    name = script.__name__.split(".")[1]
    result = load(RESULTS / f"{name}.json")
    check, *arguments = CHECKS[name]
    check(result, *arguments)
    more = {"sweep_steps": SWEEPS[name]} if name in SWEEPS else {}
    steps = 500 if script is inception_sigmoid else 5000
    check_script(result, script, steps=steps, **more)
    assert not math.isnan(result["provenance"]["wall_time_s"])


@pytest.mark.skipif(not (DATA / "fashion-mnist").is_dir(), reason="no Fashion-MNIST")
def test_the_data_are_divided_as_described(monkeypatch):
    monkeypatch.setenv("BNLIB_DATA", str(DATA))
    train, held_out, test = inception.load()
    assert [len(x) for x, _ in (train, held_out, test)] == [55_000, 5_000, 10_000]
    assert train[0].shape[1:] == (1, 28, 28) and tuple(train[0].aminmax()) == (0, 1)
    assert Path(inception.__file__).is_relative_to(ROOT)
