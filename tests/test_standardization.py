"""The standardization layer beside batch norm: networks, script and results."""

import math

import numpy as np
import pytest
import torch
from test_experiments import (  # noqa: F401  the data are there by name
    accuracies,
    cached_mnist,
    check_chosen,
    check_script,
    check_spread,
    check_steps,
    check_sweep,
    go,
    load,
    made_up_data,
    mnist,
    real_data,
    run_small,
)

from bnlib import batch_norm
from experiments import standardization
from experiments.provenance import RESULTS

pytestmark = pytest.mark.usefixtures("one_thread")
PAIRS = [(a, k) for a in standardization.ACTIVATIONS for k in standardization.NETWORKS]
SMALL = {"lr": 0.3, "seed": 3, "images": 500, "steps": 12}


def check_standardization(result, seeds, steps):
    """Shapes, ranges, and everything that can be computed from the rest."""
    config, swept = check_sweep(result, seeds)
    runs, at = result["runs"], result["steps"]
    assert config["steps"] == steps == at[-1]
    assert at == sorted(set(at)) and at[0] == 0
    assert len(result["provenance"]["data_sha256"]) == 4
    for activation, kind in PAIRS:
        grid = np.array(swept["validation_accuracy"][activation][kind])
        assert grid.shape == (len(swept["lrs"]), len(swept["seeds"]))
        mean = np.array(swept["mean_validation_accuracy"][activation][kind])
        best = result["chosen"][activation][kind]
        where = swept["lrs"].index(best["lr"])
        check_chosen(grid, mean, best["validation_accuracy"], where)
    expected = [(seed, *pair) for seed in seeds for pair in PAIRS]
    assert [(r["seed"], r["activation"], r["network"]) for r in runs] == expected
    for run in runs:
        best = result["chosen"][run["activation"]][run["network"]]
        assert run["lr"] == best["lr"] and len(run["test_accuracy"]) == len(at)
        shares = [*run["test_accuracy"], run["batch_test_accuracy"], run["off"]]
        assert 0 <= min(shares) <= max(shares) <= 1
        for side in ("input", "output"):
            assert run[side]["skewness"] >= 0 and run[side]["shape_change"] >= 0
            # Moments of anything: kurtosis >= 1 + skewness^2, with equality for a coin.
            assert run[side]["kurtosis"] >= 1 + run[side]["skewness"] ** 2 - 1e-3
        if run["network"] == "none":
            last = run["test_accuracy"][-1]
            assert run["batch_test_accuracy"] == pytest.approx(last, abs=1e-4)
    for activation, kind in PAIRS:
        own = [r for r in runs if (r["activation"], r["network"]) == (activation, kind)]
        summary = result["summary"][activation][kind]
        last = [curve[-1] for curve in accuracies(own)]
        check_spread(summary["final_test_accuracy"], last)
        for name in ("off", "batch_test_accuracy"):
            assert summary[name]["per_seed"] == [run[name] for run in own]
        for side in ("input", "output"):
            for name, found in summary[side].items():
                assert found["per_seed"] == [run[side][name] for run in own]
        for level, found in summary["steps_to"].items():
            check_steps(found, accuracies(own), at, level)


def test_recorded_standardization():
    result = load(RESULTS / "standardization.json")
    steps = result["provenance"]["config"]["steps"]
    check_standardization(result, [0, 1, 2, 3, 4], steps)
    check_script(result, standardization, steps=steps, sweep_steps=3_000)
    assert steps >= 5_000


def test_standardization_script(mnist, cached_mnist, tmp_path, monkeypatch):  # noqa: F811
    small = {**standardization.CONFIG, "lrs": [0.1, 1.0]}
    monkeypatch.setattr(standardization, "CONFIG", small)
    monkeypatch.setattr(standardization, "load", cached_mnist)
    command = "--seeds 7 --sweep-seeds 8 9 --steps 40 --sweep-steps 2"
    check_standardization(run_small(standardization, command, tmp_path), [7], 40)


@pytest.mark.parametrize("activation", standardization.ACTIVATIONS)
def test_networks_start_equal_and_differ_as_they_say(activation):
    nets = {
        kind: standardization.network(activation, kind, 3)
        for kind in standardization.NETWORKS
    }
    linear = {
        k: [m for m in net if hasattr(m, "in_features")] for k, net in nets.items()
    }
    for own in linear.values():
        for a, b in zip(own, linear["none"], strict=True):
            assert torch.equal(a.weight, b.weight)
    gain = standardization.GAINS[activation]
    assert linear["none"][1].weight.std().item() == pytest.approx(gain / 10, rel=0.02)
    for kind, net in nets.items():
        norms = [m for m in net if isinstance(m, torch.nn.BatchNorm1d)]
        assert len(norms) == (0 if kind == "none" else 3)
        assert all(m.affine == kind.startswith("batch_norm") for m in norms)
        hidden = [m.bias is not None for m in linear[kind]]
        assert hidden == [not kind.endswith("before")] * 3 + [True]
        names = [type(m).__name__ for m in net[:3]]
        order = ["Linear", standardization.ACTIVATIONS[activation].__name__]
        if kind != "none":
            order.insert(1 if kind.endswith("before") else 2, "BatchNorm1d")
            assert names == order


@pytest.mark.parametrize("kind", standardization.NETWORKS)
def test_each_network_is_the_formula(kind):
    """Against the book's own function, layer by layer."""
    net = standardization.network("sigmoid", kind, 0).double().train()
    h = torch.rand(60, 784, generator=torch.Generator().manual_seed(0)).double()
    got = net(h)
    for linear in [m for m in net if hasattr(m, "in_features")]:
        z = linear(h)
        if linear.out_features == 10:
            break
        z = batch_norm(z)[0] if kind.endswith("before") else z
        h = torch.sigmoid(z)
        h = batch_norm(h)[0] if kind.endswith("after") else h
    assert torch.allclose(got, z, atol=1e-10)


@pytest.mark.parametrize("kind", ["Validated", "Observed"])
@pytest.mark.parametrize("pair", [("relu", "none"), ("sigmoid", "batch_norm_after")])
def test_a_stopped_run_ends_with_the_same_numbers(kind, pair, tmp_path):
    kind = getattr(standardization, kind)
    setting = dict(zip(("activation", "network"), pair, strict=True)) | SMALL
    straight = go(kind, setting, tmp_path / "straight.pt")
    assert go(kind, setting, tmp_path / "stopped.pt", stop_after=7) is None
    assert go(kind, setting, tmp_path / "stopped.pt")["result"] == straight["result"]


def test_looking_at_a_network_leaves_it_alone():
    setting = {"activation": "relu", "network": "batch_norm_before"} | SMALL
    run = standardization.Observed(setting, made_up_data())
    run.update()
    before = {k: v.clone() for k, v in run.model.state_dict().items()}
    record = run.measure()
    assert all(torch.equal(before[k], v) for k, v in run.model.state_dict().items())
    # One pass with batch statistics: the input of the ReLU is centred.
    assert 0.2 < record["off"] < 0.8
    assert record["input"]["quantiles"][9].abs().max() < 1.5


def test_shapes_of_known_distributions():
    """A unit is Gaussian before the ReLU; after it, half of it is zero."""
    net = torch.nn.Sequential(torch.nn.Identity(), torch.nn.ReLU())
    x = torch.randn(20_001, 3, generator=torch.Generator().manual_seed(0))
    found = standardization.shapes(net, torch.cat([x, torch.ones(20_001, 1)], dim=1))
    assert found["off"] == pytest.approx(3 / 8, abs=0.01)  # one unit is constant
    assert found["input"]["skewness"] < 0.1
    assert found["input"]["kurtosis"] == pytest.approx(3, abs=0.15)
    mean, var = 1 / math.sqrt(2 * math.pi), 1 / 2 - 1 / (2 * math.pi)
    third = 2 * mean - 3 * mean / 2 + 2 * mean**3  # E[z^3; z>0] = 2 mean
    assert found["output"]["skewness"] == pytest.approx(third / var**1.5, abs=0.1)
    rows = found["input"]["quantiles"]
    assert rows.shape == (19, 4) and rows[:, 3].isnan().all()
    assert rows[9, :3].abs().max() < 0.05


def test_shape_change_of_made_up_records():
    def record(shift):
        side = {
            "quantiles": torch.full((19, 2), shift),
            "skewness": 0.0,
            "kurtosis": 3.0,
        }
        return {"test_accuracy": 0.5, "off": 0.0, "input": side, "output": side}

    setting = {"activation": "relu", "network": "none", "seed": 0, "lr": 0.1}
    at = [0, 500, 1100, 2000]
    records = [record(shift) for shift in (9.0, 5.0, 1.0, 1.25)]
    run = standardization.summarise_run(setting, at, records)
    assert run["input"]["shape_change"] == 0.25
