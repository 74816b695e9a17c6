"""The three tools on other people's networks, each as the experiment examines it."""

import pytest

from experiments import zoo


@pytest.fixture(params=zoo.NETWORKS)
def network(request):
    package = request.param.partition("/")[0]
    try:
        zoo.load(package)
    except ImportError as error:
        pytest.skip(f"{request.param}: no {package} at hand ({error})")
    return request.param


FEW = {"images": 4, "batches": 1, "steps": 2}
# After so few one of its ranges is too wide for 8 bits, and the rule says so, rightly.
MORE = {"timm/repvit_m0_9": {"images": 6}}
# Why a norm of these networks may stay: what it reads is no linear layer, or nobody
# calls it. Not: that its class is unknown, or its caller could not be followed.
STAYS = ("reads ", "the forward pass does not call it")


def test_no_false_alarm_no_difference_and_all_is_folded(network):
    seen = zoo.examine(network, {**zoo.CONFIG, **FEW, **MORE.get(network, {})})
    assert set(seen["after"]) <= {"useless-bias"}  # a true one, in two of them
    assert seen["difference"] < 1e-4
    assert seen["folded"] and all(why.startswith(STAYS) for why in seen["left"])
    assert seen["folded"] >= (seen["fx_folds"] or 0)
