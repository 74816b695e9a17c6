"""The three tools on other people's networks, each as the experiment examines it."""

import pytest

from experiments import zoo
from experiments.provenance import RESULTS, read

RECORDED = read(RESULTS / "zoo.json")["networks"]
FEW = {"images": 4, "batches": 1, "steps": 2}
# One of each kind: what the tools do for all eighteen they do for these.
KINDS = (
    "torchvision/googlenet",  # branches side by side, and heads that nobody calls
    "torchvision/shufflenet_v2_x0_5",  # channels split, shuffled and put together
    "timm/tf_mobilenetv3_small_075",  # by channel, squeezed; subclasses of layers
    "timm/repvgg_a0",  # norms without a kernel before them
    "timm/resnetv2_50",  # norms before the convolutions
    "timm/hrnet_w18_small",  # biases that are useless, in a part of it
)
# Why a norm of these networks may stay: what it reads is no linear layer, or nobody
# calls it. Not: that its class is unknown, or its caller could not be followed.
STAYS = ("reads ", "the forward pass does not call it")


@pytest.mark.parametrize("network", KINDS)
def test_no_false_alarm_no_difference_and_all_is_folded(network, monkeypatch):
    package = network.partition("/")[0]
    try:
        zoo.load(package)
    except ImportError as error:
        pytest.skip(f"{network}: no {package} at hand ({error})")
    monkeypatch.setattr(zoo, "timed", lambda function, times=1: (function(), 0.0))
    monkeypatch.setattr(zoo, "folded_by_fx", lambda model: None)  # as it is recorded
    seen = zoo.examine(network, {**zoo.CONFIG, **FEW})
    assert set(seen["after"]) <= {"useless-bias"}  # a true one, in hrnet
    assert seen["difference"] < 1e-4
    assert seen["folded"] and all(why.startswith(STAYS) for why in seen["left"])
    assert seen["folded"] == RECORDED[network]["folded"]
    assert seen["folded"] >= (RECORDED[network]["fx_folds"] or 0)
