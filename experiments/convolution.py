"""Chapter 6: what does it cost to share a mean among positions, and not to share it?

Two layers of 3×3 kernels on 300 digits, normalized per channel, per pixel or not at
all, in batches of 32 and of 4, before or after the ReLU. A last linear layer reads the
positions one by one (flat) or their mean (pooled). All at several learning rates.

    python -m experiments.convolution

The five splits of one setting are trained at once; all of it takes a few minutes.
"""

import math
from itertools import product

import torch
import torch.nn.functional as F
from torch import nn

from bnlib.data import load_digits
from experiments import runner
from experiments.provenance import spread
from experiments.runner import Run

AXES = {"none": None, "per channel": (0, 2, 3), "per pixel": (0,)}
ARMS = {
    **{f"flat, {kind}": {"axes": kind} for kind in AXES},
    "flat, after the ReLU": {"axes": "per channel", "after": True},
    **{f"flat, {kind}, 4 images": {"axes": kind, "batch": 4} for kind in AXES},
    **{f"pooled, {kind}": {"axes": kind, "pooled": True} for kind in AXES},
}
CONFIG = {
    "channels": [1, 8, 16],
    "init": "N(0, 2 / fan_in), of the last layer N(0, 1 / fan_in)",
    "splits": 5,
    "training_images": 300,
    "batch": 32,
    "images_seen": 9600,
    "images_seen_if_pooled": 32000,
    "optimizer": "SGD without momentum or weight decay",
    "rates": [0.03, 0.1, 0.3, 1.0],
    "rates_if_pooled": [0.1, 0.3, 1.0, 3.0, 10.0],
    "eps": 1e-5,
    "arms": ARMS,
}
DEFINITIONS = {
    "arm": "who reads the last feature maps; which values share a mean and a variance, "
    "while a scale and a shift belong to each channel in any case; images in a batch, "
    "32 where nothing is said. Normalized before the ReLU unless said. All that read "
    "alike see the same number of images",
    "validation": "accuracy on the 1,138 other images, with the statistics of the "
    "training images; one split after the other, mean and sample standard deviation",
    "moved": "the same, with these images moved to the right by one pixel",
    "best": "the rate with the best mean validation accuracy, and what it gives",
}


def of(name, arm):
    """The setting `name` of this arm."""
    return CONFIG[name + "_if_pooled" * ARMS[arm].get("pooled", False)]


class Convolution(Run):
    """Train one arm on all splits, whose channels lie side by side."""

    def __init__(self, setting, data):
        self.arm, self.rate = ARMS[setting["arm"]], setting["rate"]
        self.axes, self.at = AXES[self.arm["axes"]], [setting["steps"]]
        x, t = data
        self.splits, n = CONFIG["splits"], CONFIG["training_images"]
        order = torch.stack([torch.randperm(len(x)) for _ in range(self.splits)])
        mine, rest = order[:, :n], order[:, n:]
        self.images, self.labels, self.others = x[mine], t[mine], x[rest]
        self.truth = t[rest]
        _, a, b = (c * self.splits for c in CONFIG["channels"])
        features = CONFIG["channels"][-1] * (1 if self.arm.get("pooled") else 16)
        w = [
            torch.randn(a, 1, 3, 3) * math.sqrt(2 / 9),
            torch.randn(b, a // self.splits, 3, 3)
            * math.sqrt(2 / (9 * a // self.splits)),
            torch.randn(self.splits, features, 10) / math.sqrt(features),
        ]
        self.weights = nn.ParameterList(w)
        for name, value in ("scales", 1.0), ("shifts", 0.0), ("biases", 0.0):
            parts = [torch.full((c, 1, 1), value) for c in (a, b)]
            setattr(self, name, nn.ParameterList(parts))

    def convolve(self, batch, k):
        return F.conv2d(batch, self.weights[k], padding=1, groups=self.splits)

    def outputs(self, batch, reference=None):
        """(split, image, class), normalized by batch's statistics or reference's."""
        pair = [batch] if reference is None else [batch, reference]
        pair = [images.transpose(0, 1) for images in pair]  # a split is a channel
        for k in (0, 1):
            pair = [self.convolve(images, k) for images in pair]
            if self.arm.get("after"):
                pair = [torch.relu(z + self.biases[k]) for z in pair]
            if self.axes:
                mean = pair[-1].mean(self.axes, keepdim=True)
                var = ((pair[-1] - mean) ** 2).mean(self.axes, keepdim=True)
                pair = [(z - mean) / (var + CONFIG["eps"]) ** 0.5 for z in pair]
            pair = [self.scales[k] * z + self.shifts[k] for z in pair]
            if not self.arm.get("after"):
                pair = [torch.relu(z) for z in pair]
        maps = pair[0]
        read = maps.mean((2, 3)) if self.arm.get("pooled") else F.max_pool2d(maps, 2)
        read = read.reshape(len(read), self.splits, -1).transpose(0, 1)
        return read @ self.weights[2]

    def update(self):
        m = self.arm.get("batch", CONFIG["batch"])
        each = torch.arange(self.splits)[:, None]
        rows = torch.randint(self.images.shape[1], (self.splits, m))
        out = self.outputs(self.images[each, rows]).log_softmax(2)
        loss = -out.gather(2, self.labels[each, rows][..., None]).sum() / m
        p = [*self.weights, *self.scales, *self.shifts]
        p += self.biases if self.arm.get("after") else []
        with torch.no_grad():
            for v, d in zip(p, torch.autograd.grad(loss, p), strict=True):
                v -= self.rate * d

    @torch.no_grad()
    def measure(self):
        moved = F.pad(self.others, (1, 0))[..., :-1]
        return [
            (self.outputs(a, self.images).argmax(2) == self.truth)
            .double()
            .mean(1)
            .tolist()
            for a in (self.others, moved)
        ]

    def result(self, records):
        return records[-1]


def load():
    digits = load_digits()
    images = torch.from_numpy(digits.x_train).float()
    return images, torch.from_numpy(digits.y_train)


def summarise(runs):
    """Both accuracies of each arm at each rate, and at its best."""
    summary = {}
    for arm in ARMS:
        by_rate = {}
        for rate in of("rates", arm):
            mine = [r for r in runs if r["arm"] == arm and r["rate"] == rate]
            names = "validation", "moved"
            by_rate[f"{rate:g}"] = {
                name: spread([v for run in mine for v in run[name]]) for name in names
            }
        best = max(by_rate, key=lambda rate: by_rate[rate]["validation"]["mean"])
        summary[arm] = {"by_rate": by_rate, "best": {"rate": float(best)}}
        summary[arm]["best"] |= by_rate[best]
    return summary


def main(arguments=None):
    options = runner.parse(arguments, "convolution", __doc__, steps=2400, seeds=(0,))
    settings = []
    for seed, arm in product(options.seeds, ARMS):
        steps = of("images_seen", arm) // ARMS[arm].get("batch", CONFIG["batch"])
        for rate in of("rates", arm):
            one = {"arm": arm, "rate": rate, "seed": seed}
            settings.append({**one, "steps": min(steps, options.steps)})
    found, seconds = runner.run_all(Convolution, settings, load, options)
    runs = [
        {**setting, "validation": still, "moved": moved}
        for setting, (still, moved) in zip(settings, found, strict=True)
    ]
    result = {"summary": summarise(runs)}
    done = {Convolution: settings}
    runner.finish(options, CONFIG, DEFINITIONS, result, seconds, done)


if __name__ == "__main__":
    runner.start(main)
