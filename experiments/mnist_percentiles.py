"""Ioffe and Szegedy (2015), §4.1: what the last hidden layer sees during training.

Binarised MNIST, three hidden layers of 100 sigmoid units, with and without batch
normalization before the sigmoid. The paper gives no learning rate: ours is 0.1, chosen
beforehand, for both networks. Nothing is chosen on the test images.

    python -m experiments.mnist_percentiles --seeds 0 1 2 3 4 --steps 50000

About 40 s per run on one core, two runs (with and without) per seed.
"""

import argparse
import copy
import statistics
import time
from itertools import pairwise
from pathlib import Path

import torch
from torch import nn
from tqdm import tqdm

from bnlib.data import load_mnist
from experiments.provenance import RESULTS, provenance, rounded, write

CONFIG = {
    "input": "28x28 pixels, 1 where the grey level is above 0.5, else 0",
    "training_images": 60000,
    "hidden": [100, 100, 100],
    "activation": "sigmoid",
    "init": "weights N(0, 0.1^2), biases 0, gamma 1, beta 0",
    "init_std": 0.1,
    "batch": 60,
    "optimizer": "SGD without momentum or weight decay",
    "lr": 0.1,
    "eps": 1e-5,
    "running_momentum": 0.1,
}
NETWORKS = ("baseline", "batch_norm")
PERCENTS = (15, 50, 85)
# Few steps apart where everything moves, a thousand later.
STEPS = (0, 1, 2, 5, 10, 20, 50, 100, 200, 500, *range(1000, 50_001, 1000))

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


def network(kind, seed):
    """The network, with the same initial weights for both kinds."""
    generator = torch.Generator().manual_seed(seed)
    sizes = [784, *CONFIG["hidden"], 10]
    layers = []
    for number, (fan_in, fan_out) in enumerate(pairwise(sizes)):
        last = number == len(CONFIG["hidden"])
        linear = nn.Linear(fan_in, fan_out, bias=last or kind == "baseline")
        nn.init.normal_(linear.weight, std=CONFIG["init_std"], generator=generator)
        if linear.bias is not None:
            nn.init.zeros_(linear.bias)
        layers.append(linear)
        if not last and kind == "batch_norm":
            options = {"eps": CONFIG["eps"], "momentum": CONFIG["running_momentum"]}
            layers.append(nn.BatchNorm1d(fan_out, **options))
        if not last:
            layers.append(nn.Sigmoid())
    return nn.Sequential(*layers)


def batches(x, y, seed):
    """Batches for ever: each epoch in a new order, the same for both networks."""
    generator = torch.Generator().manual_seed(1000 + seed)
    while True:
        order = torch.randperm(len(x), generator=generator)
        for chosen in order.split(CONFIG["batch"]):
            if len(chosen) == CONFIG["batch"]:
                yield x[chosen], y[chosen]


def measure(model, evaluation, test):
    """All that is recorded at one step; the model is left as it was."""
    probe = copy.deepcopy(model).train()
    probe.zero_grad()
    outputs = [evaluation[0]]
    for layer in probe:
        outputs.append(layer(outputs[-1]))
    loss = nn.functional.cross_entropy(outputs[-1], evaluation[1])
    loss.backward()
    sigmoids = [i for i, layer in enumerate(probe) if isinstance(layer, nn.Sigmoid)]
    levels = torch.tensor(PERCENTS) / 100
    after = [outputs[i + 1].detach() for i in sigmoids]
    with torch.no_grad():
        probe.load_state_dict(model.state_dict())
        right = probe.eval()(test[0]).argmax(1) == test[1]
    return {
        "percentiles": torch.quantile(outputs[sigmoids[-1]].detach(), levels, dim=0),
        "saturation": [((a < 0.05) | (a > 0.95)).float().mean().item() for a in after],
        "gradient_norms": [
            layer.weight.grad.norm().item()
            for layer in probe
            if isinstance(layer, nn.Linear)
        ],
        "loss": loss.item(),
        "test_accuracy": right.float().mean().item(),
    }


def train(kind, seed, x, y, test, steps, progress):
    """Train one network; return the recorded steps and what was measured at each."""
    model = network(kind, seed)
    optimizer = torch.optim.SGD(model.parameters(), lr=CONFIG["lr"])
    evaluation = x[::10], y[::10]
    source = batches(x, y, seed)
    at = sorted({step for step in STEPS if step < steps} | {steps})
    records = []
    for step in range(steps + 1):
        if step in at:
            records.append(measure(model, evaluation, test))
        if step < steps:
            images, labels = next(source)
            optimizer.zero_grad()
            nn.functional.cross_entropy(model.train()(images), labels).backward()
            optimizer.step()
            progress.update()
    return at, records


def drifts(percentiles):
    """Drift of each unit; percentiles (steps, 3, units)."""
    low, median, high = percentiles.unbind(1)
    return (median.amax(0) - median.amin(0)) / (high - low).mean(0)


def summarise_run(kind, seed, at, records):
    """One run as it goes into the results file."""
    percentiles = torch.stack([record["percentiles"] for record in records])
    low, median, high = percentiles.unbind(1)
    drift = drifts(percentiles)
    late = drifts(percentiles[[step >= min(1000, at[-1]) for step in at]])
    typical = drift.argsort()[(len(drift) - 1) // 2].item()
    per_step = {key: [record[key] for record in records] for key in records[0]}
    by_layer = {
        key: [list(values) for values in zip(*per_step[key], strict=True)]
        for key in ("saturation", "gradient_norms")
    }
    return {
        "network": kind,
        "seed": seed,
        "drift": drift.median().item(),
        "late_drift": late.median().item(),
        "typical_unit": {
            "unit": typical,
            "drift": drift[typical].item(),
            "p15": low[:, typical].tolist(),
            "p50": median[:, typical].tolist(),
            "p85": high[:, typical].tolist(),
        },
        "median_spread": (high - low).median(dim=1).values.tolist(),
        **by_layer,
        "loss": per_step["loss"],
        "test_accuracy": per_step["test_accuracy"],
        "unit_drift": drift.tolist(),
        "unit_late_drift": late.tolist(),
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
        summary[kind] = {
            name: {
                "per_seed": of_seeds,
                "mean": statistics.fmean(of_seeds),
                "sd": statistics.stdev(of_seeds) if len(of_seeds) > 1 else None,
            }
            for name, of_seeds in values.items()
        }
    return summary


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--steps", type=int, default=50_000)
    parser.add_argument("--out", type=Path, default=RESULTS / "mnist_percentiles.json")
    options = parser.parse_args(arguments)
    if options.steps < 1:
        parser.error(f"--steps must be at least 1, got {options.steps}")

    started = time.perf_counter()
    torch.set_num_threads(1)
    x_train, y_train, x_test, y_test = load_mnist()
    x, x_test = (
        torch.from_numpy((images > 0.5).astype("float32").reshape(-1, 784))
        for images in (x_train, x_test)
    )
    y, test = torch.from_numpy(y_train), (x_test, torch.from_numpy(y_test))
    runs = []
    total = len(options.seeds) * len(NETWORKS) * options.steps
    with tqdm(total=total, unit="step") as progress:
        for seed in options.seeds:
            for kind in NETWORKS:
                progress.set_description(f"{kind}, seed {seed}")
                at, records = train(kind, seed, x, y, test, options.steps, progress)
                runs.append(summarise_run(kind, seed, at, records))
    seeds = " ".join(map(str, options.seeds))
    command = f"--seeds {seeds} --steps {options.steps}"
    command = f"python -m experiments.mnist_percentiles {command}"
    config = {**CONFIG, "steps": options.steps}
    result = {
        "provenance": provenance(command, config, options.seeds, ["mnist"], started),
        "definitions": DEFINITIONS,
        "steps": at,
        "summary": summarise(at, runs),
        "runs": runs,
    }
    write(options.out, rounded(result))
    print(f"wrote {options.out.name}")


if __name__ == "__main__":
    main()
