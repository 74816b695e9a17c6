"""Chapter 15: where a transformer's norms stand, and what may take their place.

A small transformer that predicts the next character of the text of Python's manual
that every Python brings along. Two sweeps: learning rate by warm-up for post- and
pre-norm; and, with norms before the branches, what stands in the norm's place, at every
one of four learning rates.

    python -m experiments.transformers

About 4 s per run on one idle core.
"""

import hashlib
import math
import statistics
from itertools import product

import torch
import torch.nn.functional as F
from torch import nn

from experiments import runner
from experiments.runner import Run

PLACES = ("post", "pre")
ARMS = {  # which norm, where, blocks, spread of the embedding, QK-norm, its scalar
    "layer": ("layer", "pre", 4, 1.0, False, False),
    "rms": ("rms", "pre", 4, 1.0, False, False),
    "batch": ("batch", "pre", 4, 1.0, False, False),
    "dyt": ("dyt", "pre", 4, 1.0, False, False),
    "none": ("none", "pre", 4, 1.0, False, False),
    "layer, small embedding": ("layer", "pre", 4, 0.02, False, False),
    "dyt, small embedding": ("dyt", "pre", 4, 0.02, False, False),
    "dyt, small embedding, scalar": ("dyt", "pre", 4, 0.02, False, True),
    "layer, 12 blocks": ("layer", "pre", 12, 1.0, False, False),
    "layer, QK-norm, 12 blocks": ("layer", "pre", 12, 1.0, True, False),
    "dyt, 12 blocks": ("dyt", "pre", 12, 1.0, False, False),
    "out, 12 blocks": ("layer", "out", 12, 1.0, False, False),
    "out, QK-norm, 12 blocks": ("layer", "out", 12, 1.0, True, False),
}
CONFIG = {
    "text": "pydoc_data.topics, sorted by name: its 95 most frequent characters, and "
    "one number for all others; the last tenth is held out",
    "width": 32,
    "heads": 4,
    "context": 32,
    "batch": 16,
    "init": "N(0, 1 / fan_in), times sqrt(2) where a ReLU follows; embeddings of "
    "characters and positions N(0, 1), their sum over sqrt(2)",
    "optimizer": "Adam, betas .9 and .98, eps 1e-8, no weight decay",
    "eps": 1e-5,
    "alpha": 0.5,
    "map_blocks": 6,
    "map_lrs": [1e-3, 3e-3, 1e-2, 3e-2],
    "warm_ups": [0, 20, 75],
    "places": list(PLACES),
    "constant_place": "post",
    "constant_lrs": [1.5e-3, 2.25e-3],
    "lrs": [1e-3, 3e-3, 1e-2, 3e-2],
    "arm_warm_up": 0,
    "arms": {name: list(arm) for name, arm in ARMS.items()},
}
DEFINITIONS = {
    "loss": "mean cross-entropy in nats per character on 200 held-out windows of 32 "
    "after the last step, batch norm by its running averages; null where it, or the "
    "loss on the way, is not finite",
    "map": "[place][i][j]: of map_lrs[i] and warm_ups[j], a list over the seeds",
    "constant": "[i]: post-norm at constant_lrs[i] from the first step on, a list over "
    "the seeds; the second is the mean rate of 0.003 after 75 of 150 steps of warm-up",
    "scalar": "a learned factor behind the embedding that starts at sqrt(width)",
    "arms": "[arm][i]: of lrs[i], a list over the seeds",
    "warm-up": "the number of steps over which the rate grows linearly from 0",
    "best": "of each arm the rate whose mean loss over the seeds is the lowest, rates "
    "with a null left out; the losses of the seeds, mean and sample standard deviation",
    "letters": "the held-out loss of the best guess that ignores the context: the "
    "frequencies of the characters",
}


def text():
    from pydoc_data.topics import topics

    return "\n".join(topics[name] for name in sorted(topics))


def load():
    """The text as numbers: (training, held-out)."""
    characters = torch.tensor([ord(c) for c in text()])
    known, counts = characters.unique(return_counts=True)
    frequent = known[counts.argsort(descending=True, stable=True)[:95]]
    numbers = torch.zeros(int(known.max()) + 1, dtype=torch.long)
    numbers[frequent] = torch.arange(1, 96)
    split = len(characters) * 9 // 10
    return numbers[characters].split([split, len(characters) - split])


def windows(data, starts):
    """What is read and what comes next, from these places on."""
    rows = data[starts[:, None] + torch.arange(CONFIG["context"] + 1)]
    return rows[:, :-1], rows[:, 1:]


class Batch(nn.BatchNorm1d):
    def forward(self, x):
        return super().forward(x.swapaxes(1, 2)).swapaxes(1, 2)


class DynamicTanh(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.alpha = nn.Parameter(torch.tensor(CONFIG["alpha"]))
        self.gamma = nn.Parameter(torch.ones(width))
        self.beta = nn.Parameter(torch.zeros(width))

    def forward(self, x):
        return self.gamma * torch.tanh(self.alpha * x) + self.beta


NORMS = {
    "layer": nn.LayerNorm,
    "rms": lambda width: nn.RMSNorm(width, eps=CONFIG["eps"]),
    "batch": Batch,
    "dyt": DynamicTanh,
    "none": lambda width: nn.Identity(),
}


def linear(a, b, gain=1.0):
    layer = nn.Linear(a, b, bias=False)
    nn.init.normal_(layer.weight, std=gain / math.sqrt(a))
    return layer


class Attention(nn.Module):
    def __init__(self, width, qk_norm):
        super().__init__()
        self.qk_norm = qk_norm
        self.qkv, self.out = linear(width, 3 * width), linear(width, width)

    def forward(self, x):
        parts = self.qkv(x).unflatten(2, (3, CONFIG["heads"], -1))
        q, k, v = parts.permute(2, 0, 3, 1, 4)
        if self.qk_norm:
            q, k = (F.rms_norm(a, a.shape[-1:], eps=CONFIG["eps"]) for a in (q, k))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.out(y.swapaxes(1, 2).flatten(2))


class Transformer(nn.Module):
    def __init__(self, norm, place, blocks, spread, qk_norm, scalar):
        super().__init__()
        self.place, width = place, CONFIG["width"]
        self.tokens = nn.Parameter(spread * torch.randn(96, width))
        self.positions = nn.Parameter(spread * torch.randn(CONFIG["context"], width))
        self.scalar = nn.Parameter(torch.tensor(width**0.5)) if scalar else 1.0
        self.branches, self.norms = nn.ModuleList(), nn.ModuleList()
        for _ in range(blocks):
            up, down = linear(width, 4 * width, 2**0.5), linear(4 * width, width)
            feed = nn.Sequential(up, nn.ReLU(), down)
            self.branches += [Attention(width, qk_norm), feed]
            self.norms += [NORMS[norm](width), NORMS[norm](width)]
        self.last = nn.Identity() if place == "post" else NORMS[norm](width)
        self.head = linear(width, 96)

    def forward(self, tokens):
        x = self.scalar * (self.tokens[tokens] + self.positions) / 2**0.5
        for f, norm in zip(self.branches, self.norms, strict=True):
            if self.place == "post":
                x = norm(x + f(x))
            elif self.place == "pre":
                x = x + f(norm(x))
            else:  # out
                x = x + norm(f(x))
        return self.head(self.last(x))


def loss_of(model, tokens, following):
    return F.cross_entropy(model(tokens).flatten(0, 1), following.flatten())


class Trained(Run):
    """Train one transformer; settings arm or place, lr, warm_up, seed, steps."""

    def __init__(self, setting, data):
        self.train, self.held_out = data
        self.at = [setting["steps"]]
        self.model = Transformer(*self.kind(setting))
        options = {"lr": setting["lr"], "betas": (0.9, 0.98)}
        self.optimizer = torch.optim.Adam(self.model.parameters(), **options)
        length = max(setting["warm_up"], 1)
        self.scheduler = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer, lambda step: min(1.0, (step + 1) / length)
        )

    def kind(self, setting):
        if "arm" in setting:
            return ARMS[setting["arm"]]
        return "layer", setting["place"], CONFIG["map_blocks"], 1.0, False, False

    def update(self):
        starts = torch.randint(len(self.train) - CONFIG["context"], (CONFIG["batch"],))
        loss = loss_of(self.model, *windows(self.train, starts))
        if loss.isfinite():  # one that is not stays so: see `measure`
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
        else:
            next(self.model.parameters()).data.fill_(torch.nan)
        self.scheduler.step()

    @torch.no_grad()
    def measure(self):
        last = len(self.held_out) - CONFIG["context"] - 1
        starts = torch.linspace(0, last, 200).long()
        return loss_of(self.model.eval(), *windows(self.held_out, starts)).item()

    def result(self, records):
        return records[-1] if math.isfinite(records[-1]) else None


def letters(train, held_out):
    """The loss of the frequencies of the characters."""
    counts = torch.bincount(train, minlength=96).double().clamp(min=0.5)
    return -(counts / counts.sum()).log()[held_out].mean().item()


def best(losses):
    """The rate with the lowest mean loss, and what its seeds give."""
    rates = zip(CONFIG["lrs"], losses, strict=True)
    whole = [(lr, of) for lr, of in rates if None not in of]
    if not whole:
        return None
    lr, of = min(whole, key=lambda pair: statistics.fmean(pair[1]))
    sd = statistics.stdev(of) if len(of) > 1 else None
    return {"lr": lr, "loss": of, "mean": statistics.fmean(of), "sd": sd}


def main(arguments=None):
    options = runner.parse(
        arguments, "transformers", __doc__, steps=150, seeds=(0, 1, 2)
    )
    seeds, lrs = options.seeds, CONFIG["lrs"]
    place, warm_up = CONFIG["constant_place"], CONFIG["arm_warm_up"]
    own = [
        {"place": place, "lr": lr, "warm_up": n}
        for place, lr, n in product(PLACES, CONFIG["map_lrs"], CONFIG["warm_ups"])
    ]
    own += [{"arm": a, "lr": lr, "warm_up": warm_up} for a, lr in product(ARMS, lrs)]
    own += [{"place": place, "lr": lr, "warm_up": 0} for lr in CONFIG["constant_lrs"]]
    own = [{**s, "seed": k, "steps": options.steps} for s, k in product(own, seeds)]
    found, seconds = runner.run_all(Trained, own, load, options)
    losses = iter([found[k : k + len(seeds)] for k in range(0, len(found), len(seeds))])
    of_map = {
        place: [[next(losses) for _ in CONFIG["warm_ups"]] for _ in CONFIG["map_lrs"]]
        for place in PLACES
    }
    of_arms = {arm: [next(losses) for _ in lrs] for arm in ARMS}
    words = text().encode()
    result = {
        "text": {"bytes": len(words), "sha256": hashlib.sha256(words).hexdigest()},
        "letters": letters(*load()),
        "map": of_map,
        "constant": list(losses),
        "arms": of_arms,
        "best": {arm: best(losses) for arm, losses in of_arms.items()},
    }
    runner.finish(options, CONFIG, DEFINITIONS, result, seconds, {Trained: own})


if __name__ == "__main__":
    runner.start(main)
