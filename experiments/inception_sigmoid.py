"""Ioffe and Szegedy (2015), §4.2.2: does the sigmoid network need batch norm?

The paper's sigmoid network stayed at chance without batch norm, and so does ours at
every learning rate of inception_table. That sweep left the scale of the initial weights
alone. Here both are searched, on held-out images, and the network is trained longer at
its best setting, with other seeds and without batch norm.

    python -m experiments.inception_sigmoid

A step takes about 9 ms on one core.
"""

from experiments import inception, runner
from experiments.inception import AFTER, PLAIN, Swept, Training
from experiments.provenance import rounded, spread

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


def main(arguments=None):
    options = runner.parse(
        arguments, "inception_sigmoid", __doc__,
        steps=500, seeds=(0, 1, 2), sweep_steps=500,
    )  # fmt: skip
    axes = {"init_scale": CONFIG["init_scales"], "lr": CONFIG["lrs"]}

    def setting(scale, lr):
        return {**NETWORK, "init_scale": scale, "lr": lr}

    grid, tried, sweep_seconds = runner.sweep(
        Swept, inception.load, options, axes.values(), setting
    )
    means = grid.mean(-1).tolist()
    chosen = runner.choose(means, **axes)
    best = setting(chosen["init_scale"], chosen["lr"])
    seeds, steps = options.seeds, options.steps
    settings = [{**best, "seed": s, "steps": steps} for s in seeds]
    found, seconds = runner.run_all(
        Training, settings, inception.load, options, "longer"
    )
    swept = {"seeds": options.sweep_seeds, "validation_accuracy": grid.tolist()}
    result = {
        "sweep": {**swept, "mean_validation_accuracy": means},
        "chosen": chosen,
        "steps": Training.looks(steps),
        "test_accuracy": spread(rounded([run["test_accuracy"] for run in found])),
        "runs": [{"seed": s, **run} for s, run in zip(seeds, found, strict=True)],
    }
    done, data = {Swept: tried, Training: settings}, ["fashion-mnist"]
    seconds += sweep_seconds
    runner.finish(options, CONFIG, DEFINITIONS, result, seconds, done, data)


if __name__ == "__main__":
    runner.start(main)
