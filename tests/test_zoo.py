"""The three tools on other people's networks, each as the experiment examines it."""

import pytest

from experiments import zoo
from experiments.provenance import RESULTS, read

RECORDED = read(RESULTS / "zoo.json")["networks"]
FEW = {"images": 4, "batches": 1, "steps": 2}
# After so few one of its ranges is too wide for 8 bits, and the rule says so, rightly.
MORE = {"timm/repvit_m0_9": {"images": 6}}
# Why a norm of these networks may stay: what it reads is no linear layer, or nobody
# calls it. Not: that its class is unknown, or its caller could not be followed.
STAYS = ("reads ", "the forward pass does not call it")


@pytest.mark.parametrize("network", zoo.NETWORKS)
def test_no_false_alarm_no_difference_and_all_is_folded(network, monkeypatch):
    package = network.partition("/")[0]
    try:
        zoo.load(package)
    except ImportError as error:
        pytest.skip(f"{network}: no {package} at hand ({error})")
    monkeypatch.setattr(zoo, "timed", lambda function, times=1: (function(), 0.0))
    monkeypatch.setattr(zoo, "folded_by_fx", lambda model: None)  # as it is recorded
    seen = zoo.examine(network, {**zoo.CONFIG, **FEW, **MORE.get(network, {})})
    assert set(seen["after"]) <= {"useless-bias"}  # a true one, in two of them
    assert seen["difference"] < 1e-4
    assert seen["folded"] and all(why.startswith(STAYS) for why in seen["left"])
    assert seen["folded"] == RECORDED[network]["folded"]
    assert seen["folded"] >= (RECORDED[network]["fx_folds"] or 0)
