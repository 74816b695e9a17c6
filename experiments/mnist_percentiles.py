"""Ioffe and Szegedy (2015), §4.1: what the last hidden layer sees during training.

Binarised MNIST, three hidden layers of 100 sigmoid units, with and without batch
normalization before the sigmoid. The paper gives no learning rate: ours is 0.1, chosen
beforehand, for both networks. Nothing is chosen on the test images.

    python -m experiments.mnist_percentiles --seeds 0 1 2 3 4 --steps 50000

About 45 s per run on one core, two runs (with and without) per seed.
"""

from experiments import mnist_mlp, runner
from experiments.mnist_mlp import NETWORKS, Observed
from experiments.provenance import spread

CONFIG = {
    **mnist_mlp.CONFIG,
    "training_images": 60000,
    "init": "weights N(0, 0.1^2), biases 0, gamma 1, beta 0",
    "init_std": 0.1,
    "lr": 0.1,
}

DEFINITIONS = {
    "steps": "the number of updates after which the quantities were recorded",
    "evaluation batch": "every tenth training image, 6,000 in all, the same at every "
    "step and for every run; batch norm uses the statistics of this batch for "
    "everything but test_accuracy",
    "percentiles": "over the evaluation batch, of the input to a sigmoid of the last "
    "hidden layer (with batch norm: of its output, which is that input)",
    "unit_drift": "for each of the 100 units of the last hidden layer: (largest minus "
    "smallest median over the recorded steps) / (mean over the recorded steps of the "
    "85th minus the 15th percentile)",
    "unit_late_drift": "the same, from step 1,000 on",
    "drift, late_drift": "the median over the units of unit_drift, unit_late_drift; "
    "every median over the 100 units is the lower one, a value that one unit has",
    "typical_unit": "the unit whose unit_drift is that median",
    "median_spread": "the 85th minus the 15th percentile, median over the units",
    "saturation": "for each hidden layer, the fraction of sigmoid outputs (units x "
    "evaluation batch) below 0.05 or above 0.95",
    "gradient_norms": "for each of the four weight matrices, the Euclidean norm of the "
    "gradient of loss",
    "loss": "mean cross-entropy over the evaluation batch, in nats",
    "test_accuracy": "fraction of the 10,000 test images; batch norm uses running "
    "statistics (weight 0.1 for the new batch)",
    "summary": "per network over the seeds: the values in the order of the seeds, "
    "their mean and their sample standard deviation (null for one seed)",
}


def summarise(at, runs):
    """The headline numbers of each network, with their spread over the seeds."""
    summary = {}
    for kind in NETWORKS:
        own = [run for run in runs if run["network"] == kind]
        values = {
            "drift": [run["drift"] for run in own],
            "late_drift": [run["late_drift"] for run in own],
            "final_saturation_last_hidden": [run["saturation"][-1][-1] for run in own],
            "final_test_accuracy": [run["test_accuracy"][-1] for run in own],
        }
        if 1000 in at:
            early = at.index(1000)
            values["test_accuracy_at_1000"] = [r["test_accuracy"][early] for r in own]
        summary[kind] = {name: spread(of_seeds) for name, of_seeds in values.items()}
    return summary


def main(arguments=None):
    options = runner.parse(arguments, "mnist_percentiles", __doc__, steps=50_000)
    common = {
        "lr": CONFIG["lr"],
        "std": CONFIG["init_std"],
        "images": CONFIG["training_images"],
        "steps": options.steps,
    }
    settings = [
        {"network": kind, "seed": seed, **common}
        for seed in options.seeds
        for kind in NETWORKS
    ]
    runs, seconds = runner.run_all(Observed, settings, mnist_mlp.load, options)
    at = [step for step in Observed.recorded if step < options.steps] + [options.steps]
    result = {"steps": at, "summary": summarise(at, runs), "runs": runs}
    done = {Observed: settings}
    runner.finish(options, CONFIG, DEFINITIONS, result, seconds, done, ["mnist"])


if __name__ == "__main__":
    runner.start(main)
