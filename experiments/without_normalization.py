"""Chapter 16: what batch norm gives a deep network, and what gives it back.

Digits. *Depth*: networks of 6 to 80 layers of 50 ReLUs, a chain or with skip
connections, with batch norm and with what has been put in its place. *Clip*: three of
them, 30 layers deep, with their gradients clipped. *Micro*: a small convolutional
network that is given two images per step, or thirty-two.

    python -m experiments.without_normalization

All learning rates of one network and seed are trained at once, from the same weights on
the same batches: a second to half a minute for each.
"""

import math
from itertools import product

import torch
import torch.nn.functional as F
from torch import nn

from bnlib.data import load_digits
from experiments import runner
from experiments.provenance import spread
from experiments.runner import Run

WIDTH = 50
RELU_GAIN = (2 / (1 - 1 / math.pi)) ** 0.5  # the output of a ReLU has variance 1
NF_ALPHA = 0.2
NETWORKS = (
    "chain",
    "chain_batch_norm",
    "plain",
    "batch_norm",
    "constant",
    "gain",
    "fixup",
    "scaled_ws",
)
CLIPS = {"none": None, "unit 0.1": 0.1, "unit 0.01": 0.01, "all 1": 1.0, "all 0.1": 0.1}
NORMS = ("none", "batch", "group", "group_ws", "ws")
CONFIG = {
    "width": WIDTH,
    "input": "digits, each pixel less its mean, all divided by one standard deviation",
    "init": "branches N(0, 2 / fan_in), first and last layer N(0, 1 / fan_in), biases "
    "0",
    "batch": 50,
    "optimizer": "SGD without momentum or weight decay",
    "eps": 1e-5,
    "lrs": [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0],
    "layers": [6, 10, 20, 40, 80],
    "networks": list(NETWORKS),
    "clipped": ["plain", "constant", "scaled_ws"],
    "clips": list(CLIPS),
    "clipped_layers": 30,
    "norms": list(NORMS),
    "micro_lrs": [0.003, 0.01, 0.03, 0.1, 0.3, 1.0],
    "micro_batches": [2, 32],
    "micro_images_per_step_of_depth": 20,
    "micro_schedule": "linear to 0",
}
DEFINITIONS = {
    "layers": "hidden layers; two of them are one branch: relu, linear, relu, linear, "
    "with batch norm before each relu where there is one",
    "network": "chain: no skip connections. plain: a skip connection around each "
    "branch. constant: the branch times 1 / sqrt(number of branches), which is not "
    "learned. gain: the branch times a learned number that starts at 0 (SkipInit). "
    "fixup: the branch's first weights times 1 / sqrt(number of branches), its last "
    "and the network's last 0, and a learned number that starts at 1. scaled_ws: "
    "standardized weights with a gain, input and output of the branch scaled as in a "
    "normalizer-free network, alpha 0.2",
    "loss": "mean cross-entropy on all training images after the last step, batch norm "
    "with the statistics of all of them, for each learning rate; null where it is not "
    "finite",
    "best": "the learning rate with the lowest loss, mean over the seeds, among those "
    "at which no seed failed (null if there is none), its loss and its test accuracy "
    "(statistics of all test images)",
    "largest": "the largest learning rate with a mean loss below 0.1; null if none",
    "clip": "unit c: the gradient of each unit's weights, and of each vector of biases "
    "or gains, at most c times their length (at least 0.001), the last layer excepted; "
    "all c: the gradient of all parameters together at most c long",
    "micro": "three convolutions, normalized over the images of the step (batch) or "
    "over four groups of channels of one image (group), with standardized weights "
    "(ws), a scale and a shift; sqrt(2 / fan_in) times ws alone. error: percent of the "
    "test images, at the learning rate with the lowest mean training loss; running "
    "statistics with momentum 0.05",
}


def standardize(z, axes=1):
    """Values less their mean, by their deviation: of a batch (rates, batch, units)."""
    centred = z - z.mean(axes, keepdim=True)
    return centred * ((centred**2).mean(axes, keepdim=True) + CONFIG["eps"]) ** -0.5


def drawn(network, branches, copies):
    """Initial parameters of a deep network, once for each of `copies` rates."""
    depth, p = branches**-0.5, {}

    def draw(name, a, b, gain=1.0):
        p[name] = (gain * torch.randn(a, b) / a**0.5).repeat(copies, 1, 1)

    draw("first", 64, WIDTH)
    for k in range(branches):
        for j in (1, 2):
            draw(f"w{j} {k}", WIDTH, WIDTH, 2**0.5)
            p[f"b{j} {k}"] = torch.zeros(copies, 1, WIDTH)
            if network in ("batch_norm", "chain_batch_norm", "scaled_ws"):
                p[f"g{j} {k}"] = torch.ones(copies, 1, WIDTH)
        if network in ("gain", "fixup"):
            p[f"a {k}"] = torch.full((copies, 1, 1), float(network == "fixup"))
        if network == "fixup":
            p[f"w1 {k}"] *= depth
            p[f"w2 {k}"] *= 0
    draw("last", WIDTH, 10, 0.0 if network == "fixup" else 1.0)
    p["b last"] = torch.zeros(copies, 1, 10)
    return p


def branch(p, k, h, network, branches):
    """Two layers: relu, linear, relu, linear."""
    if network == "scaled_ws":
        h = h / (1 + k * NF_ALPHA**2) ** 0.5  # the standard deviation of the stream
    for j in (1, 2):
        w = p[f"w{j} {k}"]
        if network == "scaled_ws":
            w = standardize(w) * RELU_GAIN / WIDTH**0.5 * p[f"g{j} {k}"]
        if network in ("batch_norm", "chain_batch_norm"):
            h = standardize(h) * p[f"g{j} {k}"]
        h = torch.relu(h + p[f"b{j} {k}"]) @ w
    if network == "scaled_ws":
        return NF_ALPHA * h
    if network == "constant":
        return branches**-0.5 * h
    return h * p[f"a {k}"] if f"a {k}" in p else h


def outputs(p, x, network, branches):
    h = x @ p["first"]
    for k in range(branches):
        z = branch(p, k, h, network, branches)
        h = z if network.startswith("chain") else h + z
    if network in ("batch_norm", "chain_batch_norm"):
        h = standardize(h)
    return torch.relu(h) @ p["last"] + p["b last"]


def clipped(parameters, gradients, clip):
    """Gradients that are not too long; see DEFINITIONS."""
    how, limit = clip.split()[0], CLIPS[clip]
    if how == "none":
        return gradients
    if how == "all":
        length = sum((d**2).sum((1, 2), keepdim=True) for d in gradients) ** 0.5
        return [d * (limit / length).clamp(max=1) for d in gradients]
    found = []
    for (name, v), d in zip(parameters.items(), gradients, strict=True):
        axes = 2 if name[0] in "bga" else 1
        most = limit * v.norm(dim=axes, keepdim=True).clamp(min=1e-3)
        ratio = most / d.norm(dim=axes, keepdim=True)
        found.append(d if name.endswith("last") else d * ratio.clamp(max=1))
    return found


class Deep(Run):
    """A deep network at all rates; settings network, layers, clip, seed, steps."""

    def __init__(self, setting, data):
        self.setting, self.data = setting, data
        self.at = [setting["steps"]]
        self.lr = torch.tensor(CONFIG["lrs"])[:, None, None]
        found = drawn(setting["network"], setting["layers"] // 2, len(self.lr))
        self.parameters = nn.ParameterDict(found)

    def outputs(self, x):
        where = self.setting["network"], self.setting["layers"] // 2
        return outputs(self.parameters, x.expand(len(self.lr), -1, -1), *where)

    def update(self):
        (x, t), _ = self.data
        rows, p = torch.randint(len(x), (CONFIG["batch"],)), dict(self.parameters)
        loss = losses(self.outputs(x[rows]), t[rows]).sum()
        gradients = torch.autograd.grad(loss, list(p.values()))
        with torch.no_grad():
            gradients = clipped(p, gradients, self.setting["clip"])
            for v, d in zip(p.values(), gradients, strict=True):
                v -= self.lr * d

    @torch.no_grad()
    def measure(self):
        (x, t), (x_test, t_test) = self.data
        right = (self.outputs(x_test).argmax(2) == t_test).double().mean(1)
        return losses(self.outputs(x), t), right

    def result(self, records):
        loss, accuracy = records[-1]
        finite = [v if math.isfinite(v) else None for v in loss.tolist()]
        return {**self.setting, "loss": finite, "accuracy": accuracy.tolist()}


def losses(out, t):
    """The mean cross-entropy of each of the networks that run side by side."""
    out = out.log_softmax(2)
    return -out[:, torch.arange(len(t)), t].mean(1)


class Convolutional(nn.Module):
    """Three convolutions of the digits for each of `copies` rates, all by matrices."""

    sizes = (9, 8), (72, 16), (144, 16)

    def __init__(self, norm, copies):
        super().__init__()
        self.norm, self.copies = norm, copies
        drawn = [torch.randn(b, a) * (2 / a) ** 0.5 for a, b in self.sizes]
        self.weights = nn.ParameterList(w.repeat(copies, 1, 1) for w in drawn)
        kinds = [torch.ones, torch.zeros] * 3
        shapes = [(copies, 1, b, 1, 1) for _, b in self.sizes for _ in range(2)]
        self.affine = nn.ParameterList(k(s) for k, s in zip(kinds, shapes, strict=True))
        self.last = nn.Parameter(torch.randn(64, 10).repeat(copies, 1, 1) / 8)
        for k, shape in enumerate(shapes[::2]):
            self.register_buffer(f"mean{k}", torch.zeros(shape))
            self.register_buffer(f"var{k}", torch.ones(shape))

    def forward(self, x):
        h = x[None, :, None].expand(self.copies, *x.shape[:1], 1, *x.shape[1:])
        for k, w in enumerate(self.weights):
            stride = 1 if k == 1 else 2
            patches = F.unfold(h.flatten(0, 1), 3, padding=1, stride=stride)
            if self.norm.endswith("ws"):
                w = standardize(w, 2)
                w = w * (2 / w.shape[2]) ** 0.5 if self.norm == "ws" else w
            z = w[:, None] @ patches.unflatten(0, h.shape[:2])
            side = h.shape[-1] // stride
            z = self.normalize(z.unflatten(-1, (side, side)), k)
            h = torch.relu(z * self.affine[2 * k] + self.affine[2 * k + 1])
        return h.flatten(2) @ self.last

    def normalize(self, z, k):
        if self.norm.startswith("group"):
            parts = z.reshape(*z.shape[:2], 4, -1)
            return standardize(parts, -1).view_as(z)
        if self.norm != "batch":
            return z
        mean, var = getattr(self, f"mean{k}"), getattr(self, f"var{k}")
        if not self.training:
            return (z - mean) / (var + CONFIG["eps"]) ** 0.5
        with torch.no_grad():
            new, average = torch.var_mean(z, (1, 3, 4), keepdim=True)
            mean.lerp_(average, 0.05)
            var.lerp_(new, 0.05)
        return standardize(z, (1, 3, 4))


class Micro(Run):
    """The convolutional network at all rates; settings norm, batch, seed, steps."""

    def __init__(self, setting, data):
        self.setting, self.data, self.lr = setting, data, CONFIG["micro_lrs"]
        self.at = [setting["steps"]]
        self.model = Convolutional(setting["norm"], len(self.lr))
        self.model.register_buffer("made", torch.tensor(0))  # steps

    def update(self):
        (x, t), _ = self.data
        rows = torch.randint(len(x), (self.setting["batch"],))
        loss = losses(self.model(x[rows].view(-1, 8, 8)), t[rows]).sum()
        parameters = list(self.model.parameters())
        left = 1 - self.model.made.item() / self.setting["steps"]
        self.model.made += 1
        with torch.no_grad():
            for v, d in zip(
                parameters, torch.autograd.grad(loss, parameters), strict=True
            ):
                shape = -1, *[1] * (v.ndim - 1)
                v -= left * torch.tensor(self.lr).view(shape) * d

    @torch.no_grad()
    def measure(self):
        (x, t), (x_test, t_test) = self.data
        self.model.eval()
        wrong = self.model(x_test.view(-1, 8, 8)).argmax(2) != t_test
        loss = losses(self.model(x.view(-1, 8, 8)), t)
        self.model.train()
        return loss, 100 * wrong.double().mean(1)

    def result(self, records):
        loss, error = records[-1]
        finite = [v if math.isfinite(v) else None for v in loss.tolist()]
        return {**self.setting, "loss": finite, "error": error.tolist()}


def load():
    digits = load_digits()
    x, x_test = (torch.from_numpy(a).float().flatten(1) for a in digits[::2])
    mean, std = x.mean(0), x.std()
    parts = ((x - mean) / std, digits.y_train), ((x_test - mean) / std, digits.y_test)
    return [(images, torch.from_numpy(labels)) for images, labels in parts]


def best(runs, lrs, other):
    """The best rate of some seeds and what it gives; see DEFINITIONS."""
    table = list(zip(*(run["loss"] for run in runs), strict=True))
    means = [None if None in row else sum(row) / len(row) for row in table]
    alive = [k for k, mean in enumerate(means) if mean is not None]
    if not alive:
        return {"lr": None}
    k = min(alive, key=lambda k: means[k])
    low = [lrs[k] for k in alive if means[k] < 0.1]
    return {
        "lr": lrs[k],
        "loss": spread(list(table[k])),
        other: spread([run[other][k] for run in runs]),
        "largest": max(low, default=None),
    }


def curves(runs, keys, lrs, other):
    """For each setting: its losses, seed by seed, and its best rate."""
    found = {}
    for run in runs:
        found.setdefault(" ".join(str(run[key]) for key in keys), []).append(run)
    return {
        name: {"loss": [run["loss"] for run in own], "best": best(own, lrs, other)}
        for name, own in found.items()
    }


def plan(options):
    """The settings of the three experiments."""
    seeds, steps = options.seeds, options.steps
    depth = [
        {"network": n, "layers": d, "clip": "none", "seed": s, "steps": steps}
        for s, d, n in product(seeds, CONFIG["layers"], NETWORKS)
    ]
    clip = [
        {"network": n, "layers": d, "clip": c, "seed": s, "steps": steps}
        for s, c, n in product(seeds, CLIPS, CONFIG["clipped"])
        for d in [CONFIG["clipped_layers"]]
    ]
    images = CONFIG["micro_images_per_step_of_depth"] * steps
    micro = [
        {"norm": n, "batch": b, "seed": s, "steps": max(1, images // b)}
        for s, b, n in product(seeds, CONFIG["micro_batches"], NORMS)
    ]
    return depth, clip, micro


def main(arguments=None):
    options = runner.parse(
        arguments, "without_normalization", __doc__, steps=300, seeds=(0, 1, 2)
    )
    depth, clip, micro = plan(options)
    deep, seconds = runner.run_all(Deep, depth + clip, load, options, "depth, clip")
    small, more = runner.run_all(Micro, micro, load, options, "micro-batches")
    lrs = CONFIG["lrs"]
    result = {
        "depth": curves(deep[: len(depth)], ["network", "layers"], lrs, "accuracy"),
        "clip": curves(deep[len(depth) :], ["network", "clip"], lrs, "accuracy"),
        "micro": curves(small, ["norm", "batch"], CONFIG["micro_lrs"], "error"),
    }
    done = {Deep: depth + clip, Micro: micro}
    runner.finish(options, CONFIG, DEFINITIONS, result, seconds + more, done)


if __name__ == "__main__":
    runner.start(main)
