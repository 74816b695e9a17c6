"""Chapter 8: is batch norm a regularizer, or a faster optimizer?

A fifth of the labels of 300 digits are random. How much of the wrong labels has a
network learned, and how does it do on other images, at many moments of training: with
batch norm, with and without the noise of its batches, and with what is known to
regularize.

    python -m experiments.memorization

The eight splits of one setting are trained at once; all of it takes a few minutes.
"""

import math
from itertools import pairwise, product

import torch
from torch import nn

from experiments import runner
from experiments.coast import load
from experiments.runner import Run

ARMS = {
    "plain": {"steps": 2000},
    "batch norm": {"norm": True, "steps": 500},
    "batch norm, no noise": {"norm": True, "noise": False, "steps": 500},
    "dropout": {"drop": 0.5, "steps": 4000},
    "weight decay": {"decay": 0.01, "steps": 4000},
    "batch norm and dropout": {"norm": True, "drop": 0.5, "steps": 2000},
    "plain, 4 images": {"batch": 4, "steps": 2000},
    "batch norm, 4 images": {"norm": True, "batch": 4, "steps": 2000},
    "batch norm, 4 images, no noise": {
        "norm": True,
        "batch": 4,
        "noise": False,
        "steps": 500,
    },
    "plain, 2 images": {"batch": 2, "steps": 500},
    "batch norm, 2 images": {"norm": True, "batch": 2, "steps": 500},
}
CONFIG = {
    "sizes": [64, 100, 100, 10],
    "init": "N(0, 2 / fan_in)",
    "splits": 8,
    "training_images": 300,
    "batch": 20,
    "optimizer": "SGD without momentum",
    "rates": [0.1, 0.3],
    "wrong": [0.0, 0.2],
    "eps": 1e-5,
    "at": [
        *(5, 10, 20, 30, 50, 75, 100, 125, 150, 200),
        *(300, 500, 750, 1000, 1500, 2000, 3000, 4000),
    ],
    "arms": ARMS,
}
DEFINITIONS = {
    "arm": "what is added to the plain network, and the images in a batch, 20 where "
    "nothing is said; steps: how many at most. no noise: normalized by the statistics "
    "of all training images, through which the gradient flows as through those of a "
    "batch. decay: of the weights, not of shifts and scales",
    "wrong": "the share of training labels drawn at random",
    "steps": "after how many updates the rest was measured",
    "learned_right": "share of the right training labels that are predicted, mean of "
    "the splits; like all predictions here, by the statistics of the training images",
    "learned_wrong": "share of the wrong labels that are predicted; null without any",
    "validation": "accuracy on the 1,138 other images, for each split",
}


class Splits(Run):
    """Train one arm on all splits; settings arm, wrong, rate, seed, steps."""

    def __init__(self, setting, data):
        self.arm, self.rate = ARMS[setting["arm"]], setting["rate"]
        self.at = [k for k in CONFIG["at"] if k <= setting["steps"]]
        x, t = data
        count, n = CONFIG["splits"], CONFIG["training_images"]
        order = torch.stack([torch.randperm(len(x)) for _ in range(count)])
        mine, rest = order[:, :n], order[:, n:]
        self.images, self.others, self.truth = x[mine], x[rest], t[rest]
        random = torch.rand(count, n) < setting["wrong"]
        self.labels = torch.where(random, torch.randint(10, (count, n)), t[mine])
        self.wrong = self.labels != t[mine]
        shapes = list(pairwise(CONFIG["sizes"]))
        w = [torch.randn(count, a, b) * math.sqrt(2 / a) for a, b in shapes]
        scales = [torch.ones(count, 1, b) for _, b in shapes[:-1]]
        shifts = [torch.zeros(count, 1, b) for _, b in shapes]
        if not self.arm.get("norm"):
            scales = []
        self.weights, self.scales, self.shifts = map(
            nn.ParameterList, (w, scales, shifts)
        )

    def scores(self, batch, reference=None, drop=0.0):
        """Outputs; normalized, if at all, by batch's or by reference's statistics."""
        last = len(self.weights) - 1
        for k, (w, shift) in enumerate(zip(self.weights, self.shifts, strict=True)):
            batch = batch @ w
            if k < last and self.arm.get("norm"):
                own = batch if reference is None else reference @ w
                mean = own.mean(1, keepdim=True)
                var = ((own - mean) ** 2).mean(1, keepdim=True)
                scale = self.scales[k] / (var + CONFIG["eps"]) ** 0.5
                batch = (batch - mean) * scale
                if reference is not None:
                    reference = torch.relu((own - mean) * scale + shift)
            batch = batch + shift
            if k < last:
                batch = torch.relu(batch)
            if k < last and drop:
                batch = batch * (torch.rand(batch.shape) > drop) / (1 - drop)
        return batch

    def update(self):
        m = self.arm.get("batch", CONFIG["batch"])
        each = torch.arange(len(self.images))[:, None]
        rows = torch.randint(self.images.shape[1], (len(self.images), m))
        reference = None if self.arm.get("noise", True) else self.images
        drop = self.arm.get("drop", 0.0)
        out = self.scores(self.images[each, rows], reference, drop).log_softmax(2)
        loss = -out.gather(2, self.labels[each, rows][..., None]).sum() / m
        p = [*self.weights, *self.scales, *self.shifts]
        with torch.no_grad():
            for v, d in zip(p, torch.autograd.grad(loss, p), strict=True):
                decay = self.arm.get("decay", 0.0) * (v.shape[1] > 1)
                v -= self.rate * (d + decay * v)

    @torch.no_grad()
    def measure(self):
        learned = self.scores(self.images, self.images).argmax(2) == self.labels
        right = self.scores(self.others, self.images).argmax(2) == self.truth
        kinds = learned[~self.wrong], learned[self.wrong]
        shares = [v.double().mean().item() if len(v) else None for v in kinds]
        return *shares, right.double().mean(1).tolist()

    def result(self, records):
        names = "learned_right", "learned_wrong", "validation"
        return {"steps": self.at} | dict(
            zip(names, zip(*records, strict=True), strict=True)
        )


def main(arguments=None):
    options = runner.parse(arguments, "memorization", __doc__, steps=4000, seeds=(0,))
    keys = list(product(options.seeds, CONFIG["wrong"], ARMS, CONFIG["rates"]))
    names = "seed", "wrong", "arm", "rate"
    settings = [dict(zip(names, key, strict=True)) for key in keys]
    for one in settings:
        one["steps"] = min(options.steps, ARMS[one["arm"]]["steps"])
    found, seconds = runner.run_all(Splits, settings, load, options)
    runs = [
        {name: setting[name] for name in names} | one
        for setting, one in zip(settings, found, strict=True)
    ]
    result = {"runs": runs}
    runner.finish(options, CONFIG, DEFINITIONS, result, seconds, {Splits: settings})


if __name__ == "__main__":
    runner.start(main)
