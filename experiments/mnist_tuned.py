"""Ioffe and Szegedy (2015), §4.1: is the gap still there when both networks are tuned?

The network of mnist_percentiles. The last 10,000 training images are held out; every
network trains on the other 50,000. First a sweep: learning rate x standard deviation of
the initial weights, for each network separately. Then longer runs, with other seeds, of
each network at its best setting and at the one of mnist_percentiles. The settings are
chosen on the held-out images, never on the test images.

    python -m experiments.mnist_tuned

The sweep takes about 8 s per run on one core, the longer runs about 45 s.
"""

import statistics
from itertools import product

import numpy as np

from experiments import mnist_mlp, runner
from experiments.mnist_mlp import FAN_IN, NETWORKS, Timed, Validated, load
from experiments.provenance import spread

IMAGES = 60_000 - mnist_mlp.HELD_OUT
UNTUNED = {"lr": 0.1, "std": 0.1}
CONFIG = {
    **mnist_mlp.CONFIG,
    "training_images": IMAGES,
    "validation_images": "the last 10,000 training images",
    "init": "weights N(0, std^2), biases 0, gamma 1, beta 0",
    "lrs": [0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0],
    "stds": [0.01, 0.03, 0.1, 0.3, FAN_IN],
    "untuned": UNTUNED,
    "rule": "the highest validation accuracy at the end of the sweep run, mean over "
    "the sweep seeds; among equals the smaller lr, then the earlier std",
}
LEVELS = (0.9, 0.95, 0.97)
KEPT = ("drift", "late_drift", "typical_unit", "median_spread", "loss", "test_accuracy")

DEFINITIONS = {
    "sweep": "one run for each network, std, lr and sweep seed; validation_accuracy: "
    "fraction of the 10,000 held-out images after the last step, running statistics "
    "with batch norm; [network][i][j][k] belongs to stds[i], lrs[j], sweep_seeds[k]",
    "mean_validation_accuracy": "the mean over the sweep seeds: [network][i][j]",
    "chosen": "the setting of each network that the rule of config selects",
    "std": "the standard deviation of the initial weights; 1/sqrt(fan_in): 0.036 in "
    "the first layer, 0.1 in the others",
    "setting": "untuned: the lr and std of mnist_percentiles; tuned: those chosen",
    "steps": "the number of updates after which the quantities were recorded, 0 and 24 "
    "per factor of ten, in all longer runs",
    "evaluation batch": "every tenth of the 50,000 training images; batch norm uses "
    "its statistics for everything but test_accuracy",
    "typical_unit, drift, late_drift, median_spread, saturation, loss, test_accuracy": (
        "as in mnist_percentiles; saturation: of the last hidden layer"
    ),
    "steps_to": "the first recorded step with at least that test accuracy, null if "
    "there is none; median, min and max over the seeds that have one",
    "summary": "per setting and network over the seeds: the values in the order of the "
    "seeds, their mean and sample standard deviation (null for one seed)",
    "gap": "per setting: final test accuracy of batch_norm minus that of baseline, for "
    "each seed (the same order of batches), mean and sample standard deviation",
    "robustness": "per network: the fraction of the settings of the sweep whose mean "
    "validation accuracy is at least that high",
}


def steps_to(level, steps, runs):
    """The first recorded step at which each run has that test accuracy."""
    first = []
    for run in runs:
        there = [accuracy >= level for accuracy in run["test_accuracy"]]
        first.append(steps[there.index(True)] if any(there) else None)
    known = [step for step in first if step is not None]
    facts = {"median": statistics.median, "min": min, "max": max}
    known = {name: fact(known) if known else None for name, fact in facts.items()}
    return {"per_seed": first, **known}


def summarise(steps, runs):
    """The headline numbers of the longer runs, per setting and network."""
    summary = {}
    for setting in ("untuned", "tuned"):
        summary[setting] = {}
        for kind in NETWORKS:
            own = [r for r in runs if (r["setting"], r["network"]) == (setting, kind)]
            summary[setting][kind] = {
                "final_test_accuracy": spread([r["test_accuracy"][-1] for r in own]),
                "drift": spread([r["drift"] for r in own]),
                "late_drift": spread([r["late_drift"] for r in own]),
                "final_saturation": spread([r["saturation"][-1] for r in own]),
                "steps_to": {
                    str(level): steps_to(level, steps, own) for level in LEVELS
                },
            }
        last = [
            summary[setting][k]["final_test_accuracy"]["per_seed"] for k in NETWORKS
        ]
        gaps = [after - before for before, after in zip(*last, strict=True)]
        summary[setting]["gap"] = spread(gaps)
    return summary


def sweep(options):
    """Try every setting on the held-out images; return the sweep and its seconds."""
    lrs, stds = CONFIG["lrs"], CONFIG["stds"]

    def setting(kind, std, lr):
        return {"network": kind, "std": std, "lr": lr, "images": IMAGES}

    grid, settings, seconds = runner.sweep(
        Validated, load, options, (NETWORKS, stds, lrs), setting
    )
    means = grid.mean(-1)
    robustness = [
        {str(level): (mean >= level).mean().item() for level in (0.2, *LEVELS)}
        for mean in means
    ]
    found = {
        "lrs": lrs,
        "stds": stds,
        "seeds": options.sweep_seeds,
        "validation_accuracy": dict(zip(NETWORKS, grid.tolist(), strict=True)),
        "mean_validation_accuracy": dict(zip(NETWORKS, means.tolist(), strict=True)),
        "robustness": dict(zip(NETWORKS, robustness, strict=True)),
    }
    return found, settings, seconds


def longer_runs(options, chosen):
    """Both networks, untuned and tuned; return the runs and their seconds."""
    names, settings = [], []
    for seed, kind in product(options.seeds, NETWORKS):
        for name, best in (("untuned", UNTUNED), ("tuned", chosen[kind])):
            pair = {"lr": best["lr"], "std": best["std"]}
            common = {"seed": seed, "images": IMAGES, "steps": options.steps}
            names.append({"network": kind, "seed": seed, "setting": name, **pair})
            settings.append({"network": kind, **pair, **common})
    # Where the untuned setting is the best one, it runs once.
    once = [s for i, s in enumerate(settings) if s not in settings[:i]]
    results, seconds = runner.run_all(Timed, once, load, options, "longer runs")
    runs = []
    for name, setting in zip(names, settings, strict=True):
        run = results[once.index(setting)]
        kept = {key: run[key] for key in KEPT}
        runs.append({**name, **kept, "saturation": run["saturation"][-1]})
    return runs, once, seconds


def main(arguments=None):
    options = runner.parse(
        arguments, "mnist_tuned", __doc__, steps=50_000, sweep_steps=10_000
    )
    swept, tried, sweep_seconds = sweep(options)
    rates = {"lr": CONFIG["lrs"], "std": CONFIG["stds"]}  # the smaller lr comes first
    chosen = {
        kind: runner.choose(np.transpose(means), **rates)
        for kind, means in swept["mean_validation_accuracy"].items()
    }
    runs, settings, seconds = longer_runs(options, chosen)
    steps = [s for s in Timed.recorded if s < options.steps] + [options.steps]
    result = {"sweep": swept, "chosen": chosen, "steps": steps}
    result |= {"summary": summarise(steps, runs), "runs": runs}
    done, seconds = {Validated: tried, Timed: settings}, seconds + sweep_seconds
    runner.finish(options, CONFIG, DEFINITIONS, result, seconds, done, ["mnist"])


if __name__ == "__main__":
    runner.start(main)
