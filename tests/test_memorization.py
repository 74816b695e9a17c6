"""What chapter 8 says of regularizers: script and results."""

import pytest
import torch
from test_experiments import check_provenance, check_script, load, run_small

from experiments import memorization
from experiments.memorization import ARMS, CONFIG, Splits
from experiments.provenance import RESULTS


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def check(result):
    """Every arm at every rate, with shares and accuracies of every split."""
    keys = [(r["wrong"], r["arm"], r["rate"]) for r in result["runs"]]
    sizes = [len(CONFIG[name]) for name in ("wrong", "arms", "rates")]
    assert len({*keys}) == len(keys) == sizes[0] * sizes[1] * sizes[2]
    for run in result["runs"]:
        assert len(run["validation"]) == len(run["steps"]) == len(run["learned_wrong"])
        assert {len(row) for row in run["validation"]} == {CONFIG["splits"]}
        assert all((w is None) == (run["wrong"] == 0) for w in run["learned_wrong"])


def test_recorded():
    result = load(RESULTS / "memorization.json")
    check_provenance(result)
    check_script(result, memorization, steps=4000)
    check(result)


def test_script(tmp_path):
    check(run_small(memorization, "--seeds 3 --steps 10", tmp_path))


def built(arm):
    torch.manual_seed(0)
    setting = {"arm": arm, "wrong": 0.2, "rate": 0.1, "steps": 1}
    return Splits(setting, memorization.load())


@pytest.mark.parametrize("arm", ARMS)
def test_a_company_matters_to_a_normalized_batch_alone(arm):
    run = built(arm)
    one, other = run.images[:, :20], run.images[:, 10:30]
    alone = [run.scores(part)[:, at] for part, at in ((one, 10), (other, 0))]
    assert torch.allclose(*alone, atol=1e-5) == (not ARMS[arm].get("norm"))
    known = [run.scores(part, run.images) for part in (one, other)]
    assert torch.allclose(known[0][:, 10], known[1][:, 0], atol=1e-5)


def test_splits_and_weights_are_paired():
    plain, normed = built("plain"), built("batch norm")
    assert torch.equal(plain.labels, normed.labels)
    assert all(map(torch.equal, plain.weights, normed.weights))
    assert 0.15 < plain.wrong.float().mean() < 0.21
