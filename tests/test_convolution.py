"""What chapter 6 says of shared statistics: script and results."""

import pytest
import torch
from test_experiments import check_provenance, check_script, load, run_small

from experiments import convolution
from experiments.convolution import ARMS, AXES, Convolution
from experiments.provenance import RESULTS


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def check(result, splits):
    """Each arm at each of its rates, and the best of these is the best."""
    assert list(result["summary"]) == list(ARMS)
    for arm, found in result["summary"].items():
        rates = {f"{rate:g}" for rate in convolution.of("rates", arm)}
        assert set(found["by_rate"]) == rates
        for one in found["by_rate"].values():
            assert len(one["validation"]["per_seed"]) == splits
        means = [one["validation"]["mean"] for one in found["by_rate"].values()]
        assert found["best"]["validation"]["mean"] == max(means)


def test_recorded():
    result = load(RESULTS / "convolution.json")
    check_provenance(result)
    check_script(result, convolution, steps=2400)
    check(result, 5)


def test_script(tmp_path, monkeypatch):
    small = {"splits": 2, "rates": [0.1], "rates_if_pooled": [0.3, 1.0]}
    for name, value in small.items():
        monkeypatch.setitem(convolution.CONFIG, name, value)
    check(run_small(convolution, "--seeds 3 --steps 2", tmp_path), 2)


@pytest.mark.parametrize("arm", ARMS)
def test_what_learns_and_what_is_normalized(arm):
    torch.manual_seed(0)
    run = Convolution({"arm": arm, "rate": 0.1, "steps": 1}, convolution.load())
    before = run.biases[0].detach().clone()
    run.update()
    after = ARMS[arm].get("after", False)
    assert torch.equal(before, run.biases[0]) != after
    out = run.outputs(run.images)
    with torch.no_grad():
        run.weights[0] *= 100
    if "per channel" in arm or "none" in arm:
        invariant = torch.allclose(run.outputs(run.images), out, atol=1e-2)
        assert invariant == (AXES[ARMS[arm]["axes"]] is not None)
