"""Ioffe and Szegedy (2015), §4.2.2: the five networks of its table, on Fashion-MNIST.

First a sweep over the learning rate, for networks without and with batch norm and for
the sigmoid network without, each trained the way that the paper trains Inception
(before) and the way that it trains BN-Inception (after the seven changes of §4.2.1).
Then longer runs, with other seeds: the paper's five variants, its sigmoid network
without batch norm, and each network of the sweep at its best setting. Settings are
chosen on held-out images, never on the test images.

    python -m experiments.inception_table

A step takes about 9 ms on one core.
"""

import statistics
from itertools import product

import numpy as np

from experiments import inception, runner
from experiments.inception import AFTER, BEFORE, PLAIN, Swept, Training
from experiments.provenance import rounded, spread

RECIPES = {"before": BEFORE, "after": AFTER}
KINDS = {
    "plain": {"norm": False, "activation": "relu"},
    "batch_norm": {"norm": True, "activation": "relu"},
    "plain_sigmoid": {"norm": False, "activation": "sigmoid"},
}
BASE = BEFORE["lr"]
VARIANTS = {
    "Baseline": PLAIN,
    "BN-Baseline": {**PLAIN, "norm": True},
    "BN-x5": {**PLAIN, **AFTER, "norm": True, "lr": 5 * BASE},
    "BN-x30": {**PLAIN, **AFTER, "norm": True, "lr": 30 * BASE},
    "BN-x5-Sigmoid": {
        **PLAIN,
        **AFTER,
        "norm": True,
        "lr": 5 * BASE,
        "activation": "sigmoid",
    },
    "Baseline-Sigmoid": {**PLAIN, "activation": "sigmoid"},
}
TUNED = {
    "Baseline-tuned": "plain",
    "BN-tuned": "batch_norm",
    "Baseline-Sigmoid-tuned": "plain_sigmoid",
}
CONFIG = {
    **inception.CONFIG,
    "lrs": [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0],
    "recipes": RECIPES,
    "kinds": KINDS,
    "variants": VARIANTS,
    "rule": "the highest validation accuracy at the end of the sweep run, mean over "
    "the sweep seeds; among equals the smaller lr, then the recipe `before`",
}
DEFINITIONS = {
    "sweep": "one run for each kind, recipe (its lr replaced), lr and sweep seed; "
    "validation_accuracy: fraction of the 5,000 held-out images after the last step; "
    "[kind][recipe][j][k] belongs to lrs[j], seeds[k]",
    "mean_validation_accuracy": "the mean over the sweep seeds: [kind][recipe][j]",
    "chosen": "the setting of each kind that the rule of config selects",
    "steps": "the number of updates after which validation_accuracy was recorded",
    "validation_accuracy": "fraction of the 5,000 held-out images, running statistics",
    "test_accuracy": "fraction of the 10,000 test images after the last step",
    "best": "the highest recorded validation accuracy of a run",
    "target": "the mean over the seeds of the best of Baseline",
    "steps_to_target": "the first recorded step with at least that validation "
    "accuracy, null if there is none; median over the seeds, null if most never reach",
    "speedup": "the median of Baseline's own steps_to_best (the first step at its "
    "best) over the median of steps_to_target",
    "summary": "per variant over the seeds: the values in the order of the seeds, "
    "their mean and sample standard deviation (null for one seed)",
}


def median_step(steps):
    """The median of some steps, of which those never reached (None) are the largest."""
    middle = sorted(steps, key=lambda step: float("inf") if step is None else step)
    return middle[(len(middle) - 1) // 2]


def summarise(at, runs):
    """What the table shows: one entry per variant."""
    names = list(dict.fromkeys(run["variant"] for run in runs))
    curves = {
        name: [run["validation_accuracy"] for run in runs if run["variant"] == name]
        for name in names
    }
    best = {name: [max(curve) for curve in own] for name, own in curves.items()}
    target = round(statistics.fmean(best["Baseline"]), 4)
    its_best = [at[curve.index(max(curve))] for curve in curves["Baseline"]]
    summary = {}
    for name in names:
        first = [
            next((s for s, a in zip(at, curve, strict=True) if a >= target), None)
            for curve in curves[name]
        ]
        median = median_step(first)
        summary[name] = {
            "best": spread(best[name]),
            "test_accuracy": spread(
                [run["test_accuracy"] for run in runs if run["variant"] == name]
            ),
            "steps_to_target": {"per_seed": first, "median": median},
            "speedup": None if median is None else median_step(its_best) / median,
        }
    return {"target": target, "steps_to_best": its_best, "variants": summary}


def by_kind(grid):
    """{kind: {recipe: ...}} of an array whose first two axes these are."""
    rows = zip(KINDS, grid.tolist(), strict=True)
    return {kind: dict(zip(RECIPES, row, strict=True)) for kind, row in rows}


def sweep(options):
    """Try every rate on the held-out images; return the sweep, settings, seconds."""
    lrs = CONFIG["lrs"]

    def setting(kind, recipe, lr):
        return {**KINDS[kind], **RECIPES[recipe], "lr": lr}

    grid, settings, seconds = runner.sweep(
        Swept, inception.load, options, (KINDS, RECIPES, lrs), setting
    )
    swept = {"lrs": lrs, "seeds": options.sweep_seeds}
    swept["validation_accuracy"] = by_kind(grid)
    swept["mean_validation_accuracy"] = by_kind(grid.mean(-1))
    return swept, settings, seconds


def main(arguments=None):
    options = runner.parse(
        arguments, "inception_table", __doc__,
        steps=5_000, seeds=(0, 1, 2), sweep_steps=1_000,
    )  # fmt: skip
    swept, tried, sweep_seconds = sweep(options)
    of = {"lr": CONFIG["lrs"], "recipe": RECIPES}  # the smaller lr comes first
    chosen = {
        kind: runner.choose(np.transpose(list(means.values())), **of)
        for kind, means in swept["mean_validation_accuracy"].items()
    }
    variants = dict(VARIANTS)
    for name, kind in TUNED.items():
        best = chosen[kind]
        variants[name] = {**KINDS[kind], **RECIPES[best["recipe"]], "lr": best["lr"]}
    pairs = list(product(options.seeds, variants))
    settings = [{**variants[v], "seed": s, "steps": options.steps} for s, v in pairs]
    # Where the best setting is one of the paper's, it runs once.
    once = [s for i, s in enumerate(settings) if s not in settings[:i]]
    found, seconds = runner.run_all(Training, once, inception.load, options, "longer")
    runs = [
        {"variant": name, "seed": seed, **found[once.index(setting)]}
        for (seed, name), setting in zip(pairs, settings, strict=True)
    ]
    at = Training.looks(options.steps)
    result = {"sweep": swept, "chosen": chosen, "steps": at}
    result |= {"summary": summarise(at, rounded(runs)), "runs": runs}
    done, data = {Swept: tried, Training: once}, ["fashion-mnist"]
    seconds += sweep_seconds
    runner.finish(options, CONFIG, DEFINITIONS, result, seconds, done, data)


if __name__ == "__main__":
    runner.start(main)
