"""Chapter 7: which learning rate do larger initial weights need, and why?

The network of the chapter's map: two normalized layers of 50 ReLUs and an output layer
that is not normalized, on the digits. For each scale of the initial weights, the
smallest learning rate with which it gets nine of ten training images right. The layers
that are scaled and those that learn are chosen apart, which tells what each does.

    python -m experiments.coast

All scales and rates of one seed are trained at once; that takes a few seconds.
"""

import math
from itertools import pairwise, product

import torch
from torch import nn

from bnlib.data import load_digits
from experiments import runner
from experiments.provenance import spread
from experiments.runner import Run

HIDDEN, OUTPUT = (0, 1), (2,)
ALL = HIDDEN + OUTPUT
ARMS = {
    "all scaled, all learn": {"scaled": ALL, "learning": ALL},
    "hidden scaled, all learn": {"scaled": HIDDEN, "learning": ALL},
    "hidden scaled, output frozen": {"scaled": HIDDEN, "learning": HIDDEN},
    "hidden scaled, only output learns": {"scaled": HIDDEN, "learning": OUTPUT},
    "hidden scaled, first output fed back": {
        "scaled": HIDDEN,
        "learning": ALL,
        "fed_back": True,
    },
    "output scaled, all learn": {"scaled": OUTPUT, "learning": ALL},
}
CONFIG = {
    "sizes": [64, 50, 50, 10],
    "init": "N(0, 1 / fan_in), times the scale in the layers that are scaled",
    "batch": 60,
    "optimizer": "SGD without momentum or weight decay",
    "eps": 1e-5,
    "log10_scales": [0.0, 0.25, 0.5, 0.75, 1.0],
    "log10_lrs": [k / 4 for k in range(-12, 8)],
    "level": 0.9,
    "arms": ARMS,
}
DEFINITIONS = {
    "arm": "which layers are scaled, and which learn. first output fed back: the "
    "hidden layers learn from a gradient that came through the output layer's first "
    "weights, while the output layer itself learns as usual",
    "coast": "log10 of the smallest rate that reaches the level on the training images "
    "after the last step, for each scale; null if none does",
    "slope": "coast at the largest scale minus coast at the smallest, over the decades "
    "between them: the power of the scale with which the rate has to grow; one seed "
    "after the other, mean and sample standard deviation (null where a coast is null)",
}


class Coast(Run):
    """Train one arm at all scales and rates; settings arm, seed, steps."""

    def __init__(self, setting, data):
        self.arm, self.data = ARMS[setting["arm"]], data
        self.at = [setting["steps"]]
        pairs = product(CONFIG["log10_scales"], CONFIG["log10_lrs"])
        scale, self.lr = (10 ** torch.tensor(list(pairs))).T[:, :, None, None]
        self.weights = nn.ParameterList()
        for number, (a, b) in enumerate(pairwise(CONFIG["sizes"])):
            w = torch.randn(a, b) / math.sqrt(a)
            scaled = number in self.arm["scaled"]
            self.weights.append(w * (scale if scaled else torch.ones_like(scale)))
        self.first_output = self.weights[-1].detach().clone()

    def outputs(self, batch):
        h = batch.expand(len(self.lr), -1, -1)
        for w in list(self.weights)[:-1]:
            z = h @ w
            z = z - z.mean(1, keepdim=True)
            h = torch.relu(z / ((z**2).mean(1, keepdim=True) + CONFIG["eps"]) ** 0.5)
        if self.arm.get("fed_back"):
            still = h.detach()
            return still @ self.weights[-1] + (h - still) @ self.first_output
        return h @ self.weights[-1]

    def update(self):
        x, t = self.data
        rows = torch.randint(len(x), (CONFIG["batch"],))
        out = self.outputs(x[rows]).log_softmax(2)
        loss = -out[:, torch.arange(len(rows)), t[rows]].mean(1).sum()
        learning = [self.weights[k] for k in self.arm["learning"]]
        with torch.no_grad():
            for w, d in zip(learning, torch.autograd.grad(loss, learning), strict=True):
                w -= self.lr * d

    @torch.no_grad()
    def measure(self):
        x, t = self.data
        right = (self.outputs(x).argmax(2) == t).float().mean(1)
        return right.reshape(len(CONFIG["log10_scales"]), -1)

    def result(self, records):
        return records[-1].tolist()


def load():
    digits = load_digits()
    images = torch.from_numpy(digits.x_train).float().flatten(1)
    return images, torch.from_numpy(digits.y_train)


def coast(accuracy):
    """Where the rates that suffice begin, for each scale; see DEFINITIONS."""
    rates, level = CONFIG["log10_lrs"], CONFIG["level"]
    enough = [
        [r for r, a in zip(rates, row, strict=True) if a > level] for row in accuracy
    ]
    return [min(some, default=None) for some in enough]


def summarise(runs):
    """Coast and slope of each arm, seed by seed."""
    decades = CONFIG["log10_scales"][-1] - CONFIG["log10_scales"][0]
    summary = {}
    for arm in ARMS:
        coasts = [run["coast"] for run in runs if run["arm"] == arm]
        ends = [(c[0], c[-1]) for c in coasts]
        complete = all(None not in pair for pair in ends)
        slopes = [(b - a) / decades for a, b in ends] if complete else None
        summary[arm] = {"coasts": coasts, "slope": slopes and spread(slopes)}
    return summary


def main(arguments=None):
    options = runner.parse(arguments, "coast", __doc__, steps=300, seeds=(0, 1, 2))
    pairs = list(product(options.seeds, ARMS))
    settings = [{"arm": arm, "seed": s, "steps": options.steps} for s, arm in pairs]
    found, seconds = runner.run_all(Coast, settings, load, options)
    runs = [
        {"arm": arm, "seed": seed, "coast": coast(accuracy)}
        for (seed, arm), accuracy in zip(pairs, found, strict=True)
    ]
    result = {"summary": summarise(runs)}
    runner.finish(options, CONFIG, DEFINITIONS, result, seconds, {Coast: settings})


if __name__ == "__main__":
    runner.start(main)
