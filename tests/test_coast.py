"""The slanted coast of chapter 7: script and results."""

import json

import pytest
import torch
from test_experiments import check_provenance, load, options_for

from experiments import coast
from experiments.provenance import RESULTS


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def check(result, seeds):
    """Every slope is that of its coasts, and no coast lies outside the rates."""
    config = result["provenance"]["config"]
    decades = config["log10_scales"][-1] - config["log10_scales"][0]
    assert list(result["summary"]) == list(config["arms"])
    for arm in result["summary"].values():
        assert len(arm["coasts"]) == len(seeds)
        assert {r for c in arm["coasts"] for r in c} <= {None, *config["log10_lrs"]}
        ends = [(c[0], c[-1]) for c in arm["coasts"]]
        if any(None in pair for pair in ends):
            assert arm["slope"] is None
        else:
            slopes = [(b - a) / decades for a, b in ends]
            assert arm["slope"]["per_seed"] == pytest.approx(slopes, abs=1e-3)
            mean = sum(slopes) / len(slopes)
            assert arm["slope"]["mean"] == pytest.approx(mean, abs=1e-3)


def test_recorded():
    result = load(RESULTS / "coast.json")
    check(result, [0, 1, 2])
    config = json.loads(json.dumps({**coast.CONFIG, "steps": 300}))
    assert result["provenance"]["config"] == config, "run it again: it has changed"
    assert result["definitions"] == coast.DEFINITIONS


def test_script(tmp_path, monkeypatch):
    small = {"log10_scales": [0.0, 1.0], "log10_lrs": [-1.0, 0.0], "level": 0.0}
    monkeypatch.setattr(coast, "CONFIG", {**coast.CONFIG, **small})
    coast.main(["--seeds", "7", "--steps", "100", *options_for(tmp_path, "new.json")])
    result = load(tmp_path / "new.json")
    check_provenance(result)
    check(result, [7])


@pytest.mark.parametrize("arm", coast.ARMS)
def test_what_is_scaled_and_what_learns(arm):
    setting = {"arm": arm, "seed": 0, "steps": 1}
    torch.manual_seed(0)
    run = coast.Coast(setting, coast.load())
    about, first = coast.ARMS[arm], [w.detach().clone() for w in run.weights]
    run.update()
    for number, (before, after) in enumerate(zip(first, run.weights, strict=True)):
        assert (not torch.equal(before, after)) == (number in about["learning"])
        growth = before[-1].norm() / before[0].norm()
        assert growth == pytest.approx(10 if number in about["scaled"] else 1)
