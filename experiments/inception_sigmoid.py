"""Ioffe and Szegedy (2015), §4.2.2: does the sigmoid network need batch norm?

The paper's sigmoid network stayed at chance without batch norm, and so does ours at
every learning rate of inception_table. That sweep left the scale of the initial weights
alone. Here both are searched, on held-out images, and the network is trained longer at
its best setting, with other seeds and without batch norm.

    python -m experiments.inception_sigmoid

A step takes about 9 ms on one core.
"""

import argparse
import statistics
from itertools import product

from experiments import inception, runner
from experiments.inception import AFTER, PLAIN, Swept, Training
from experiments.provenance import RESULTS, command, provenance, rounded, spread, write

NETWORK = {**PLAIN, **AFTER, "activation": "sigmoid"}
CONFIG = {
    **inception.CONFIG,
    "network": NETWORK,
    "init_scales": [1, 2, 4],
    "lrs": [0.003, 0.01, 0.03, 0.1],
    "rule": "the highest validation accuracy at the end of the sweep run, mean over "
    "the sweep seeds; among equals the smaller scale, then the smaller lr",
}
DEFINITIONS = {
    "init_scale": "all initial weights times this; 1 is the network of inception_table",
    "sweep": "one run for each scale, lr and sweep seed; validation_accuracy: fraction "
    "of the 5,000 held-out images after the last step; [i][j][k] belongs to "
    "init_scales[i], lrs[j], seeds[k]",
    "mean_validation_accuracy": "the mean over the sweep seeds: [i][j]",
    "chosen": "the setting that the rule of config selects",
    "steps": "the number of updates after which validation_accuracy was recorded",
    "test_accuracy": "fraction of the 10,000 test images after the last step, of the "
    "longer runs at the chosen setting: in the order of the seeds, their mean and "
    "sample standard deviation (null for one seed)",
}


def choose(means):
    """The rule of CONFIG; means[i][j]: mean accuracy at init_scales[i], lrs[j]."""
    settings = [
        {"init_scale": scale, "lr": lr, "validation_accuracy": means[i][j]}
        for i, scale in enumerate(CONFIG["init_scales"])
        for j, lr in enumerate(CONFIG["lrs"])
    ]
    return max(settings, key=lambda setting: setting["validation_accuracy"])


def sweep(options):
    """Try every setting on the held-out images; return the sweep, settings, seconds."""
    scales, lrs, seeds = CONFIG["init_scales"], CONFIG["lrs"], options.sweep_seeds
    settings = [
        {**NETWORK, "init_scale": i, "lr": j, "seed": k, "steps": options.sweep_steps}
        for i, j, k in product(scales, lrs, seeds)
    ]
    found, seconds = runner.run_all(Swept, settings, inception.load, options, "sweep")
    accuracy = iter(found)
    grid = [[[next(accuracy) for _ in seeds] for _ in lrs] for _ in scales]
    means = [[statistics.fmean(seen) for seen in row] for row in grid]
    swept = {"seeds": seeds, "validation_accuracy": grid}
    return {**swept, "mean_validation_accuracy": means}, settings, seconds


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    out = RESULTS / "inception_sigmoid.json"
    runner.add_options(parser, out, steps=500, seeds=(0, 1, 2))
    parser.add_argument("--sweep-seeds", type=int, nargs="+", default=[10, 11])
    parser.add_argument("--sweep-steps", type=runner.positive, default=500)
    options = parser.parse_args(arguments)

    swept, sweep_settings, sweep_seconds = sweep(options)
    chosen = choose(swept["mean_validation_accuracy"])
    best = {key: chosen[key] for key in ("init_scale", "lr")}
    seeds, steps = options.seeds, options.steps
    settings = [{**NETWORK, **best, "seed": s, "steps": steps} for s in seeds]
    found, seconds = runner.run_all(
        Training, settings, inception.load, options, "longer"
    )
    facts = {"steps": steps, "sweep_steps": options.sweep_steps}
    result = {
        "provenance": provenance(
            command("inception_sigmoid", options),
            {**CONFIG, **facts},
            seeds,
            ["fashion-mnist"],
            seconds=seconds + sweep_seconds,
        ),
        "definitions": DEFINITIONS,
        "sweep": swept,
        "chosen": chosen,
        "steps": [*range(Training.every, steps, Training.every), steps],
        "test_accuracy": spread(rounded([run["test_accuracy"] for run in found])),
        "runs": [{"seed": s, **run} for s, run in zip(seeds, found, strict=True)],
    }
    write(options.out, rounded(result))
    runner.forget(Swept, sweep_settings, options)
    runner.forget(Training, settings, options)
    print(f"wrote {options.out.name}")


if __name__ == "__main__":
    runner.start(main)
