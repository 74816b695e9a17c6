"""A small Inception network on Fashion-MNIST, and how the scripts of §4.2 train it.

Ioffe and Szegedy (2015), §4.2, smaller: 28x28 clothes instead of 224x224 photographs,
72 thousand parameters instead of 13.6 million, thousands of steps instead of millions.
Stem and blocks are those of the paper's network: each block has four paths, and two
3x3 convolutions stand where the first Inception had a 5x5.
"""

import torch
from torch import nn

from bnlib.data import load_fashion_mnist
from experiments import machine
from experiments.batches import Batches
from experiments.runner import Run

HELD_OUT = 5_000  # the last training images, for curves and for choosing settings
CONFIG = {
    "input": "28x28 grey levels, minus their mean, over their standard deviation",
    "stem": "5x5 convolution to 32 channels, stride 2; 3x3 max pooling, stride 2",
    "blocks": "2 of 64 channels at 7x7, 3x3 max pooling, stride 2, 2 of 128 at 4x4",
    "head": "mean over positions, dropout, linear",
    "local_response_norm": "after the stem: size 5, alpha 1, beta 0.75, k 1",
    "init": "weights N(0, 2/fan_in), of the last layer N(0, 1/fan_in), biases 0",
    "batch": 32,
    "optimizer": "SGD, momentum 0.9; L2 penalty on weights alone",
    "decay": "the learning rate is halved `halvings` times, evenly, during the run",
    "distortion": "contrast times 1 +- s and brightness +- s, uniform, for each image",
    "shuffling": "images: every epoch in a new order; batches: the same 32 images "
    "always together, the batches in a new order every epoch",
    "training_images": 60_000 - HELD_OUT,
    "validation_images": "the last 5,000 training images",
    "eps": 1e-5,
    "running_momentum": 0.1,
}
# What §4.2.1 changes together with batch norm: the setting, before, after.
CHANGES = {
    "higher learning rate": ("lr", 0.01, 0.05),
    "no dropout": ("dropout", 0.4, 0.0),
    "a fifth of the L2 penalty": ("weight_decay", 5e-4, 1e-4),
    "six times faster decay": ("halvings", 1, 6),
    "no local response normalization": ("response_norm", True, False),
    "images shuffled within shards": ("shuffling", "batches", "images"),
    "less photometric distortion": ("distortion", 0.4, 0.1),
}
BEFORE = {setting: before for setting, before, _ in CHANGES.values()}
AFTER = {setting: after for setting, _, after in CHANGES.values()}
PLAIN = {"norm": False, "activation": "relu", **BEFORE}


def load():
    """Images (N, 1, 28, 28) from 0 to 1 and labels: (train, held out, test)."""
    x, y, x_test, y_test = load_fashion_mnist()

    def tensors(images, labels):
        images = torch.from_numpy(images)[:, None]
        return images.to(machine.device()), torch.from_numpy(labels).to(
            machine.device()
        )

    x, y = tensors(x, y)
    train, held_out = (x[:-HELD_OUT], y[:-HELD_OUT]), (x[-HELD_OUT:], y[-HELD_OUT:])
    return train, held_out, tensors(x_test, y_test)


class PerActivation(nn.BatchNorm1d):
    """Batch norm with statistics, gamma and beta for every channel *and* position."""

    def forward(self, x):
        return super().forward(x.flatten(1)).reshape(x.shape)


def unit(channels_in, channels, kernel, setting, *, stride=1, positions=None):
    """A convolution, batch norm where asked, and the nonlinearity.

    positions : with batch norm per activation, the number of positions.
    """
    options = {"eps": CONFIG["eps"], "momentum": CONFIG["running_momentum"]}
    bias, padding = not setting["norm"], kernel // 2
    layers = [nn.Conv2d(channels_in, channels, kernel, stride, padding, bias=bias)]
    if setting["norm"] and positions:
        layers.append(PerActivation(channels * positions, **options))
    elif setting["norm"]:
        layers.append(nn.BatchNorm2d(channels, **options))
    activation = {"relu": nn.ReLU, "sigmoid": nn.Sigmoid}[setting["activation"]]
    return nn.Sequential(*layers, activation())


class Block(nn.Module):
    """Four paths over the same input, concatenated: (N, C, H, W) -> (N, 4 w, H, W)."""

    def __init__(self, channels_in, width, setting, positions=None):
        super().__init__()

        def one(*sizes):
            return unit(*sizes, setting, positions=positions)

        # The three 1x1 convolutions of the input are one, whose output is split.
        self.widths = [width, width // 2, width // 2]
        self.point = one(channels_in, 2 * width, 1)
        self.three = one(width // 2, width, 3)
        self.five = nn.Sequential(one(width // 2, width, 3), one(width, width, 3))
        self.pool = nn.Sequential(nn.AvgPool2d(3, 1, 1), one(channels_in, width, 1))

    def forward(self, x):
        point, three, five = self.point(x).split(self.widths, dim=1)
        paths = [point, self.three(three), self.five(five), self.pool(x)]
        return torch.cat(paths, dim=1)


def network(setting):
    """The network; those of one seed have the same initial weights."""
    per_activation = 16 if setting.get("per_activation") else None
    layers = [unit(1, 32, 5, setting, stride=2), nn.MaxPool2d(3, 2, 1)]
    if setting["response_norm"]:
        layers.append(nn.LocalResponseNorm(5, alpha=1.0, beta=0.75, k=1.0))
    layers += [Block(32, 16, setting), Block(64, 16, setting), nn.MaxPool2d(3, 2, 1)]
    layers += [Block(64, 32, setting), Block(128, 32, setting, per_activation)]
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(setting["dropout"])]
    model = nn.Sequential(*layers, *head, nn.Linear(128, 10))
    generator = torch.Generator().manual_seed(setting["seed"])
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            gain = 2 if isinstance(layer, nn.Conv2d) else 1
            std = (gain / layer.weight[0].numel()) ** 0.5
            std *= setting.get("init_scale", 1)
            nn.init.normal_(layer.weight, std=std, generator=generator)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    return model.to(memory_format=torch.channels_last)


def distort(images, strength):
    """Change contrast and brightness of each image at random; (N, 1, H, W), 0 to 1."""
    shape, where = (len(images), 1, 1, 1), images.device
    contrast = 1 + strength * (2 * torch.rand(shape, device=where) - 1)
    brightness = strength * (2 * torch.rand(shape, device=where) - 1)
    mean = images.mean((1, 2, 3), keepdim=True)
    return ((images - mean) * contrast + mean + brightness).clamp(0, 1)


class Training(Run):
    """Train one network; its setting: PLAIN with other values, seed, steps."""

    every = 200

    def __init__(self, setting, data):
        self.setting, self.data = setting, data
        (x, _), _, _ = data
        sample = x[::10]
        self.mean, self.std = sample.mean(), sample.std()
        self.at = self.looks(setting["steps"])
        self.model = network(setting).to(x.device)
        self.trained = [machine.together(self.model)]
        weights = [p for p in self.model.parameters() if p.dim() > 1]
        others = [p for p in self.model.parameters() if p.dim() == 1]
        groups = [
            {"params": weights, "weight_decay": setting["weight_decay"]},
            {"params": others, "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.SGD(groups, lr=setting["lr"], momentum=0.9)
        decay = 0.5 ** (setting["halvings"] / setting["steps"])
        self.schedule = torch.optim.lr_scheduler.ExponentialLR(self.optimizer, decay)
        together = setting["shuffling"] == "batches"
        self.batches = Batches(len(x), CONFIG["batch"], setting["seed"], together)

    @classmethod
    def looks(cls, steps):
        """The steps after which a run is looked at: every so many, and the last."""
        return [*range(cls.every, steps, cls.every), steps]

    def prepare(self, images):
        return (images - self.mean) / self.std

    def update(self):
        chosen = machine.part(next(self.batches))
        images, labels = (part[chosen] for part in self.data[0])
        images = self.prepare(distort(images, self.setting["distortion"]))
        self.optimizer.zero_grad()
        (trained,) = self.trained
        output = trained.train()(images)
        nn.functional.cross_entropy(output, labels).backward()
        self.optimizer.step()
        self.schedule.step()

    def outputs(self, images):
        """The logits of many images, with running statistics."""
        self.model.eval()
        with torch.no_grad():
            parts = [self.model(self.prepare(some)) for some in images.split(500)]
        return torch.cat(parts)

    def accuracy(self, images, labels):
        return (self.outputs(images).argmax(1) == labels).float().mean().item()

    def measure(self):
        return self.accuracy(*self.data[1])

    def result(self, records):
        return {
            "validation_accuracy": records,
            "test_accuracy": self.accuracy(*self.data[2]),
        }


class Swept(Training):
    """A run of a sweep: its accuracy on the held-out images when it ends."""

    every = 10**9

    def result(self, records):
        return records[-1]
