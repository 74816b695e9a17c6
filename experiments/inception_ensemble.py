"""Ioffe and Szegedy (2015), §4.2.3: six networks, their class probabilities averaged.

Each is BN-x30 with, as in the paper, larger initial weights in some, dropout of 5 % or
10 %, and batch norm per activation, not per channel, in the last block of some.

    python -m experiments.inception_ensemble

A step takes about 9 ms on one core.
"""

import statistics
from itertools import combinations

import torch

from experiments import inception, runner
from experiments.inception import Training
from experiments.inception_table import VARIANTS
from experiments.provenance import spread

DIFFERENCES = [
    {"dropout": 0.05, "init_scale": 1, "per_activation": False},
    {"dropout": 0.1, "init_scale": 2, "per_activation": False},
    {"dropout": 0.05, "init_scale": 4, "per_activation": False},
    {"dropout": 0.1, "init_scale": 1, "per_activation": True},
    {"dropout": 0.05, "init_scale": 2, "per_activation": True},
    {"dropout": 0.1, "init_scale": 4, "per_activation": True},
]
CONFIG = {
    **inception.CONFIG,
    "base": VARIANTS["BN-x30"],
    "differences": DIFFERENCES,
    "init_scale": "the factor of the initial weights",
    "per_activation": "in the last block, statistics over the batch alone",
}
DEFINITIONS = {
    "members": "one network for each seed, with the differences of config in turn",
    "test_accuracy": "fraction of the 10,000 test images; running statistics",
    "ensemble": "the same for the arithmetic mean of the class probabilities of "
    "`size` members: over all choices of so many of them the mean, min and max",
    "gain": "test accuracy of all members together minus the mean of the members",
    "gain_over_best": "the same minus the best member",
}


class Member(Training):
    """One network, with its class probabilities of every test image."""

    def result(self, records):
        images, labels = self.data[2]
        return {
            **super().result(records),
            "probabilities": self.outputs(images).softmax(1).tolist(),
            "labels": labels.tolist(),
        }


def ensembles(members):
    """The accuracy of every choice of members, by their number."""
    labels = torch.tensor(members[0]["labels"])
    probabilities = torch.tensor([m["probabilities"] for m in members]).double()
    found = []
    for size in range(1, len(members) + 1):
        accuracies = [
            (probabilities[list(chosen)].mean(0).argmax(1) == labels)
            .double()
            .mean()
            .item()
            for chosen in combinations(range(len(members)), size)
        ]
        facts = {"mean": statistics.fmean, "min": min, "max": max}
        found.append({"size": size, **{n: f(accuracies) for n, f in facts.items()}})
    return found


def main(arguments=None):
    seeds = 20, 21, 22, 23, 24, 25
    options = runner.parse(
        arguments, "inception_ensemble", __doc__, steps=5_000, seeds=seeds
    )
    unlike = [DIFFERENCES[i % len(DIFFERENCES)] for i in range(len(options.seeds))]
    unlike = [{**one, "seed": s} for one, s in zip(unlike, options.seeds, strict=True)]
    settings = [{**CONFIG["base"], **one, "steps": options.steps} for one in unlike]
    members, seconds = runner.run_all(Member, settings, inception.load, options)
    found = ensembles(members)
    single = [member["test_accuracy"] for member in members]
    result = {
        "members": [
            {**one, "test_accuracy": accuracy}
            for one, accuracy in zip(unlike, single, strict=True)
        ],
        "single": spread(single),
        "ensemble": found,
        "gain": found[-1]["mean"] - statistics.fmean(single),
        "gain_over_best": found[-1]["mean"] - max(single),
    }
    done, data = {Member: settings}, ["fashion-mnist"]
    runner.finish(options, CONFIG, DEFINITIONS, result, seconds, done, data)


if __name__ == "__main__":
    runner.start(main)
