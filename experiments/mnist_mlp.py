"""The network of §4.1 of Ioffe and Szegedy (2015), and how the scripts train it.

Binarised MNIST, three hidden layers of 100 sigmoid units, with and without batch
normalization before the sigmoid, batches of 60, stochastic gradient descent.
"""

import copy
from itertools import pairwise

import torch
from torch import nn

from bnlib.data import load_mnist
from experiments import machine
from experiments.batches import Batches
from experiments.runner import Run

CONFIG = {
    "input": "28x28 pixels, 1 where the grey level is above 0.5, else 0",
    "hidden": [100, 100, 100],
    "activation": "sigmoid",
    "batch": 60,
    "optimizer": "SGD without momentum or weight decay",
    "eps": 1e-5,
    "running_momentum": 0.1,
}
NETWORKS = ("baseline", "batch_norm")
PERCENTS = (15, 50, 85)
HELD_OUT = 10_000  # the last training images, for choosing settings
FAN_IN = "1/sqrt(fan_in)"


def load():
    """The binarised images and the labels: ((x, y) to train, (x, y) to test)."""
    x, y, x_test, y_test = load_mnist()

    def tensors(images, labels):
        binary = (images > 0.5).astype("float32").reshape(-1, 784)
        where = machine.device()
        return torch.from_numpy(binary).to(where), torch.from_numpy(labels).to(where)

    return tensors(x, y), tensors(x_test, y_test)


def stack(seed, scale, norm=None, after=False, nonlinearity=nn.Sigmoid):
    """The network, with a norm before the nonlinearities, behind them, or none.

    scale : of the initial weights, a function of fan_in and of whether there is a
    nonlinearity. norm : a function of the number of units. One seed, one start.
    """
    generator, layers = torch.Generator().manual_seed(seed), []
    for fan_in, fan_out in pairwise([784, *CONFIG["hidden"], 10]):
        hidden = fan_out != 10
        centred = hidden and norm is not None and not after  # then a bias does nothing
        linear = nn.Linear(fan_in, fan_out, bias=not centred)
        std = scale(fan_in, hidden)
        nn.init.normal_(linear.weight, std=std, generator=generator)
        if linear.bias is not None:
            nn.init.zeros_(linear.bias)
        block = [nonlinearity()] if hidden else []
        if hidden and norm is not None:
            block.insert(1 if after else 0, norm(fan_out))
        layers += [linear, *block]
    return nn.Sequential(*layers)


def batch_norm(units, **more):
    options = {"eps": CONFIG["eps"], "momentum": CONFIG["running_momentum"]}
    return nn.BatchNorm1d(units, **options, **more)


def network(kind, seed, std):
    """The network; the two kinds have the same initial weights.

    std : the standard deviation of the initial weights, or FAN_IN.
    """

    def scale(fan_in, _):
        return fan_in**-0.5 if std == FAN_IN else std

    return stack(seed, scale, batch_norm if kind == "batch_norm" else None)


def accuracy(model, images, labels):
    """The fraction that is classified correctly, with running statistics."""
    model.eval()
    with torch.no_grad():
        return (model(images).argmax(1) == labels).sum().item() / len(labels)


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
    levels = torch.tensor(PERCENTS, device=evaluation[0].device) / 100
    after = [outputs[i + 1].detach() for i in sigmoids]
    probe.load_state_dict(model.state_dict())
    return {
        "percentiles": torch.quantile(outputs[sigmoids[-1]].detach(), levels, dim=0),
        "saturation": [((a < 0.05) | (a > 0.95)).float().mean().item() for a in after],
        "gradient_norms": [
            layer.weight.grad.norm().item()
            for layer in probe
            if isinstance(layer, nn.Linear)
        ],
        "loss": loss.item(),
        "test_accuracy": accuracy(probe, *test),
    }


class Training(Run):
    """Train one network: settings network, seed, lr, std, images, steps.

    images : train on that many of the first training images.
    """

    recorded = ()

    def __init__(self, setting, data):
        (x, y), self.test = data
        self.setting, images, steps = setting, setting["images"], setting["steps"]
        self.train, self.held_out = (x[:images], y[:images]), (x[images:], y[images:])
        self.at = sorted({step for step in self.recorded if step < steps} | {steps})
        self.model = self.build().to(x.device)
        self.trained = [machine.together(self.model)]
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=setting["lr"])
        count, size = len(self.train[0]), CONFIG["batch"]
        self.batches = Batches(count, size, setting["seed"])

    def build(self):
        """The network to train."""
        setting = self.setting
        return network(setting["network"], setting["seed"], setting["std"])

    def update(self):
        chosen = machine.part(next(self.batches))
        images, labels = (part[chosen] for part in self.train)
        self.optimizer.zero_grad()
        (trained,) = self.trained
        output = trained.train()(images)
        nn.functional.cross_entropy(output, labels).backward()
        self.optimizer.step()


class Validated(Training):
    """A run of a sweep: its accuracy on the held-out images when it ends."""

    def measure(self):
        return accuracy(self.model, *self.held_out)

    def result(self, records):
        return records[-1]


class Observed(Training):
    """A run whose last hidden layer is watched; evaluated on every tenth image."""

    # Few steps apart where everything moves, a thousand later.
    recorded = (0, 1, 2, 5, 10, 20, 50, 100, 200, 500, *range(1000, 50_001, 1000))

    def measure(self):
        return measure(self.model, [part[::10] for part in self.train], self.test)

    def result(self, records):
        return summarise_run(self.setting, self.at, records)


class Timed(Observed):
    """The same at steps evenly spaced on a logarithmic axis, 24 per factor of ten."""

    recorded = (0, *sorted({round(10 ** (i / 24)) for i in range(24 * 6)}))


def drifts(percentiles):
    """Drift of each unit; percentiles (steps, 3, units)."""
    low, median, high = percentiles.unbind(1)
    return (median.amax(0) - median.amin(0)) / (high - low).mean(0)


def summarise_run(setting, at, records):
    """One observed run as it goes into the results file."""
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
        "network": setting["network"],
        "seed": setting["seed"],
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
