"""Ioffe and Szegedy (2015), §4.2.1: what each of the seven accompanying changes does.

BN-x5 is trained with batch norm and all seven changes. Here it is trained again with
one of them undone, for each of the seven, and with all undone (BN-Baseline). The
control, inception_ablation_plain, is the same without batch norm.

    python -m experiments.inception_ablation

A step takes about 9 ms on one core.
"""

from itertools import product

from experiments import inception, runner
from experiments.inception import BEFORE, CHANGES, Training
from experiments.inception_table import VARIANTS
from experiments.provenance import rounded, spread

FULL = VARIANTS["BN-x5"]
ROWS = {
    "all seven changes": FULL,
    **{f"without: {name}": {**FULL, s: b} for name, (s, b, _) in CHANGES.items()},
    "none of them": {**FULL, **BEFORE},
}
CONFIG = {
    **inception.CONFIG,
    "changes": {name: list(change) for name, change in CHANGES.items()},
    "full": FULL,
}
DEFINITIONS = {
    "row": "BN-x5 as it is, with one change undone, and with all undone",
    "changes": "the name of the setting, its value before and after the change",
    "steps": "the number of updates after which validation_accuracy was recorded",
    "validation_accuracy": "fraction of the 5,000 held-out images, running statistics",
    "test_accuracy": "fraction of the 10,000 test images after the last step",
    "early": "the validation accuracy after a quarter of the steps",
    "cost": "what undoing the change costs: test_accuracy of all seven changes minus "
    "that of the row, for each seed (the same initial weights), mean and sample "
    "standard deviation",
    "early_cost": "the same for early",
    "summary": "per row over the seeds: the values in the order of the seeds, their "
    "mean and sample standard deviation (null for one seed)",
}


def summarise(runs):
    """Accuracy of each row, and its difference from the full one seed by seed."""
    values = {}
    for row in ROWS:
        own = [run for run in runs if run["row"] == row]
        curves = [run["validation_accuracy"] for run in own]
        values[row] = {
            "test_accuracy": [run["test_accuracy"] for run in own],
            "early": [curve[max(len(curve) // 4 - 1, 0)] for curve in curves],
        }
    full, summary = values["all seven changes"], {}
    for row, own in values.items():
        pairs = {key: list(zip(full[key], own[key], strict=True)) for key in own}
        cost = {key: spread([a - b for a, b in pair]) for key, pair in pairs.items()}
        summary[row] = {key: spread(seen) for key, seen in own.items()}
        summary[row] |= {"cost": cost["test_accuracy"], "early_cost": cost["early"]}
    return summary


def undo(name, config, definitions, arguments=None):
    """Train every row, with the norm of config["full"], and write the file `name`."""
    options = runner.parse(arguments, name, __doc__, steps=5_000, seeds=(0, 1, 2))
    pairs = list(product(options.seeds, ROWS))
    own = {"norm": config["full"]["norm"], "steps": options.steps}
    settings = [{**ROWS[row], **own, "seed": seed} for seed, row in pairs]
    found, seconds = runner.run_all(Training, settings, inception.load, options)
    runs = [
        {"row": row, "seed": seed, **run}
        for (seed, row), run in zip(pairs, found, strict=True)
    ]
    result = {"steps": Training.looks(options.steps)}
    result |= {"summary": summarise(rounded(runs)), "runs": runs}
    done, data = {Training: settings}, ["fashion-mnist"]
    runner.finish(options, config, definitions, result, seconds, done, data)


def main(arguments=None):
    undo("inception_ablation", CONFIG, DEFINITIONS, arguments)


if __name__ == "__main__":
    runner.start(main)
