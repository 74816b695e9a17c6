"""Gülçehre and Bengio's standardization layer beside batch normalization, on MNIST.

The comparison that §5 of Ioffe and Szegedy (2015) describes and does not make. In the
network of §4.1, between two linear maps: no normalization; standardization before or
after the nonlinearity, without scale and shift; batch normalization, with them, before
or after. Each with sigmoids and with ReLUs. Each network has the learning rate that is
best on held-out images, and is then trained longer with other seeds.

    python -m experiments.standardization

A few seconds per run of the sweep, about 12 s per longer run, on one idle core.
"""

import copy
from functools import partial
from itertools import product

import torch
from torch import nn

from experiments import mnist_mlp, runner
from experiments.mnist_mlp import Training, accuracy, load
from experiments.mnist_tuned import IMAGES, steps_to
from experiments.provenance import spread

ACTIVATIONS = {"sigmoid": nn.Sigmoid, "relu": nn.ReLU}
NETWORKS = (
    "none",
    "standardize_before",
    "standardize_after",
    "batch_norm_before",
    "batch_norm_after",
)
GAINS = {"sigmoid": 1.0, "relu": 2**0.5}
CONFIG = {
    **{k: v for k, v in mnist_mlp.CONFIG.items() if k != "activation"},
    "activations": list(ACTIVATIONS),
    "networks": list(NETWORKS),
    "training_images": IMAGES,
    "validation_images": "the last 10,000 training images",
    "init": "weights N(0, gain^2 / fan_in), gain 1 with sigmoids and sqrt(2) with "
    "ReLUs, biases 0, gamma 1, beta 0",
    "lrs": [0.03, 0.1, 0.3, 1.0, 3.0, 10.0],
    "rule": "the highest validation accuracy at the end of the sweep run, mean over "
    "the sweep seeds; among equals the smaller lr",
}
LEVELS = (0.9, 0.95, 0.97)
QUANTILES = [i / 20 for i in range(1, 20)]
EARLY = 1000  # the step from which on the shape of a distribution is followed

DEFINITIONS = {
    "network": "none; standardize: (z - mean) / sqrt(var + eps) of each unit over the "
    "batch, before or after the nonlinearity; batch_norm: the same and a learned scale "
    "and shift. With a normalization before the nonlinearity the linear maps have no "
    "bias, otherwise they have one",
    "sweep": "one run for each network, lr and sweep seed; validation_accuracy: "
    "fraction of the 10,000 held-out images after the last step, running statistics "
    "where there are any; [activation][network][i][j] belongs to lrs[i] and seeds[j]",
    "chosen": "the learning rate of each network that the rule of config selects",
    "steps": "the number of updates after which the longer runs were looked at: 0, and "
    "from 30 on 24 per factor of ten",
    "evaluation batch": "every twentieth of the 50,000 training images, normalized by "
    "its own statistics; for what is said of the last hidden layer: off, skewness, "
    "kurtosis (at the end of a run) and shape_change",
    "test_accuracy": "the fraction of the 10,000 test images that is classified "
    "correctly, running statistics; final_: at the end",
    "batch_test_accuracy": "the same at the end, when the test images come in batches "
    "of 60 that are normalized by their own statistics",
    "steps_to": "the first recorded step with at least that test accuracy, null if "
    "there is none; median, min and max over the seeds that have one",
    "off": "fraction of the nonlinearity's outputs that are 0, for sigmoids below 0.05",
    "skewness, kurtosis": "the size of the third moment, and the fourth, of a unit's "
    "standardized values, mean over the units (Gaussian: 0 and 3); input, output: of "
    "the nonlinearity; units that are constant are left out",
    "shape_change": "how far the distribution of a unit, standardized, moves from "
    "step 1,000 (the first step recorded from there on) to the end: mean absolute "
    "difference of its 5th, 10th ... 95th percentile, mean over the units; input, "
    "output: of the nonlinearity",
    "summary": "per activation and network over the seeds: the values in the order of "
    "the seeds, their mean and sample standard deviation (null for one seed)",
}


def network(activation, kind, seed):
    """The network; all kinds have the same initial weights."""
    method, _, where = kind.rpartition("_")
    norm = partial(mnist_mlp.batch_norm, affine=method == "batch_norm")

    def scale(fan_in, hidden):
        return (GAINS[activation] if hidden else 1.0) * fan_in**-0.5

    how = norm if method else None, where == "after", ACTIVATIONS[activation]
    return mnist_mlp.stack(seed, scale, *how)


class Standardized(Training):
    """Train one network: settings activation, network, seed, lr, images, steps."""

    def build(self):
        setting = self.setting
        return network(setting["activation"], setting["network"], setting["seed"])


class Validated(Standardized, mnist_mlp.Validated):
    """A run of the sweep: its accuracy on the held-out images when it ends."""


class Observed(Standardized):
    """A longer run, whose last hidden layer is looked at."""

    recorded = (0, *(step for step in mnist_mlp.Timed.recorded if step >= 30))

    def measure(self):
        probe = copy.deepcopy(self.model)
        record = {"test_accuracy": accuracy(probe, *self.test)}
        return record | shapes(probe.train(), self.train[0][::20])

    def result(self, records):
        own = batch_accuracy(copy.deepcopy(self.model).train(), *self.test)
        found = summarise_run(self.setting, self.at, records)
        return {**found, "batch_test_accuracy": own}


def batch_accuracy(model, images, labels):
    """The fraction classified correctly when each batch has its own statistics."""
    with torch.no_grad():
        parts = [model(part) for part in images.split(CONFIG["batch"])]
    return (torch.cat(parts).argmax(1) == labels).sum().item() / len(labels)


def shapes(model, images):
    """What the last nonlinearity is given and puts out, for each of its units."""
    kinds = tuple(ACTIVATIONS.values())
    last = max(i for i, layer in enumerate(model) if isinstance(layer, kinds))
    with torch.no_grad():
        z = model[:last](images)
        a = model[last](z)
    level = 0.05 if isinstance(model[last], nn.Sigmoid) else 0.0
    found = {"off": (a <= level).float().mean().item()}
    rows = [round(level * (len(z) - 1)) for level in QUANTILES]
    for side, values in (("input", z), ("output", a)):
        moved = values - values.mean(0)
        sd = moved.square().mean(0).sqrt()
        x = moved / torch.where(sd > 1e-6, sd, torch.nan)  # constant units: nan
        found[side] = {
            "quantiles": x.sort(0).values[rows],
            "skewness": x.pow(3).mean(0).abs().nanmean().item(),
            "kurtosis": x.pow(4).mean(0).nanmean().item(),
        }
    return found


def summarise_run(setting, at, records):
    """One longer run as it goes into the results file."""
    first = next(i for i, step in enumerate(at) if step >= min(EARLY, at[-1]))
    end = records[-1]
    result = {key: setting[key] for key in ("activation", "network", "seed", "lr")}
    result["test_accuracy"] = [record["test_accuracy"] for record in records]
    result["off"] = end["off"]
    for side in ("input", "output"):
        change = end[side]["quantiles"] - records[first][side]["quantiles"]
        result[side] = {
            "skewness": end[side]["skewness"],
            "kurtosis": end[side]["kurtosis"],
            "shape_change": change.abs().mean(0).nanmean().item(),
        }
    return result


def summarise(steps, runs):
    """The headline numbers of the longer runs, per activation and network."""
    summary = {activation: {} for activation in ACTIVATIONS}
    for activation, kind in product(ACTIVATIONS, NETWORKS):
        key = (activation, kind)
        own = [run for run in runs if (run["activation"], run["network"]) == key]
        found = {
            "final_test_accuracy": spread([run["test_accuracy"][-1] for run in own]),
            "steps_to": {str(level): steps_to(level, steps, own) for level in LEVELS},
        }
        for name in ("batch_test_accuracy", "off"):
            found[name] = spread([run[name] for run in own])
        for side in ("input", "output"):
            found[side] = {
                name: spread([run[side][name] for run in own]) for name in own[0][side]
            }
        summary[activation][kind] = found
    return summary


def by_network(grid):
    """{activation: {network: ...}} of an array whose first two axes these are."""
    rows = zip(ACTIVATIONS, grid.tolist(), strict=True)
    return {name: dict(zip(NETWORKS, row, strict=True)) for name, row in rows}


def sweep(options):
    """Try every learning rate on the held-out images."""
    lrs = CONFIG["lrs"]

    def setting(activation, kind, lr):
        return {"activation": activation, "network": kind, "lr": lr, "images": IMAGES}

    grid, settings, seconds = runner.sweep(
        Validated, load, options, (ACTIVATIONS, NETWORKS, lrs), setting
    )
    found = {
        "lrs": lrs,
        "seeds": options.sweep_seeds,
        "validation_accuracy": by_network(grid),
        "mean_validation_accuracy": by_network(grid.mean(-1)),
    }
    return found, settings, seconds


def main(arguments=None):
    options = runner.parse(
        arguments, "standardization", __doc__, steps=10_000, sweep_steps=3_000
    )
    swept, tried, sweep_seconds = sweep(options)
    chosen = {
        activation: {
            kind: runner.choose(means, lr=CONFIG["lrs"])
            for kind, means in of_kind.items()
        }
        for activation, of_kind in swept["mean_validation_accuracy"].items()
    }
    settings = [
        {
            "activation": activation,
            "network": kind,
            "lr": chosen[activation][kind]["lr"],
            "seed": seed,
            "images": IMAGES,
            "steps": options.steps,
        }
        for seed, activation, kind in product(options.seeds, ACTIVATIONS, NETWORKS)
    ]
    runs, seconds = runner.run_all(Observed, settings, load, options, "longer runs")
    steps = [s for s in Observed.recorded if s < options.steps] + [options.steps]
    result = {"sweep": swept, "chosen": chosen, "steps": steps}
    result |= {"summary": summarise(steps, runs), "runs": runs}
    done, seconds = {Validated: tried, Observed: settings}, seconds + sweep_seconds
    runner.finish(options, CONFIG, DEFINITIONS, result, seconds, done, ["mnist"])


if __name__ == "__main__":
    runner.start(main)
