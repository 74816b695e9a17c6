"""Layers, kinds of input and plain equations, for the tests of layers in company.

Company is what stands around a layer: other calls before one backward pass, a
checkpoint, a tracer, a wrapped parameter. `test_pairs.py`, `test_tracers.py` and
`test_convert.py` share what is here.
"""

import contextlib
import functools
import itertools
import random

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import bnlib.nn as ours_nn
from bnlib import newton_schulz

C = 4  # channels of every layer here
MAPS = (8, C, 6, 6), (2, C, 184, 184), (6, C, 1, 1)
ROWS = (8, C, 6), (3000, C, 6), (5, 6)
SOLID = (3, C, 2, 3, 5), (2, C, 20, 42, 40), (7, C, 1, 1, 1)
LINES = (8, C, 6), (3, C, 3000), (5, C, 9)
TABLE = (6, C), (10_500, C), (5, C, 7)

# Layers that torch.nn has, too. name: class, arguments, and the shapes of a small, a
# large and another input. Add `lib`, either library, for a layer: `build`.
TWINS = {
    "BatchNorm1d": ("BatchNorm1d", (C,), {}, TABLE),
    "BatchNorm2d": ("BatchNorm2d", (C,), {}, MAPS),
    "BatchNorm3d": ("BatchNorm3d", (C,), {}, SOLID),
    "SyncBatchNorm": ("SyncBatchNorm", (C,), {}, MAPS),
    "LayerNorm": ("LayerNorm", (6,), {}, ROWS),
    "LayerNorm, two axes": ("LayerNorm", ((C, 6),), {}, ROWS[:2]),
    "RMSNorm": ("RMSNorm", (6,), {}, ROWS),
    "GroupNorm": ("GroupNorm", (2, C), {}, (*MAPS[:2], (5, C, 9))),
    "InstanceNorm1d": ("InstanceNorm1d", (C,), {"affine": True}, LINES),
    "InstanceNorm2d": ("InstanceNorm2d", (C,), {"affine": True}, MAPS[:2]),
    "InstanceNorm2d, tracking": (
        "InstanceNorm2d",
        (C,),
        {"affine": True, "track_running_stats": True},
        MAPS[:2],
    ),
    "InstanceNorm3d": ("InstanceNorm3d", (C,), {"affine": True}, SOLID[:2]),
    "LocalResponseNorm": (
        "LocalResponseNorm",
        (3,),
        {"alpha": 0.5},
        ((8, C, 6, 6), (2, C, 70, 70)),
    ),
}
# Layers that only bnlib has.
OWN = {
    "BatchRenorm1d": ("BatchRenorm1d", (C,), {"rmax": 1.2, "dmax": 0.3}, TABLE),
    "BatchRenorm2d": ("BatchRenorm2d", (C,), {"rmax": 1.2, "dmax": 0.3}, MAPS),
    "InPlaceABN": ("InPlaceABN", (C,), {"slope": 0.2}, MAPS),
    "DecorrelatedBatchNorm": (
        "DecorrelatedBatchNorm",
        (C, 2),
        {"eps": 1e-3},
        (*MAPS[:2], (9, C)),
    ),
    "DecorrelatedBatchNorm, iterations": (
        "DecorrelatedBatchNorm",
        (C, 2),
        {"eps": 1e-3, "iterations": 5},
        (*MAPS[:2], (9, C)),
    ),
}
ALL = TWINS | OWN
BATCH_NORMS = "BatchNorm1d", "BatchNorm2d", "BatchNorm3d"
ONE_DERIVATIVE = "InPlaceABN", "DecorrelatedBatchNorm"  # is all that these promise

every_layer = pytest.mark.parametrize("name", ALL)
every_twin = pytest.mark.parametrize("name", TWINS)
train_or_eval = pytest.mark.parametrize(
    "training", [True, False], ids=["train", "eval"]
)

# kind of input: which of the shapes, how it lies in memory, which values.
KINDS = {
    "small": (0, "dense", "near"),
    "large": (1, "dense", "near"),
    "other": (2, "dense", "near"),
    "last": (0, "channels last", "near"),
    "large, last": (1, "channels last", "near"),
    "sliced": (0, "sliced", "near"),
    "transposed": (0, "transposed", "near"),
    "expanded": (0, "expanded", "near"),
    "drifted": (0, "dense", "drifted"),
    "far": (0, "dense", "far"),
    "far, large": (1, "dense", "far"),
    "far, last": (0, "channels last", "far"),
    "constant": (0, "dense", "constant"),
    "tiny": (0, "dense", "tiny"),
    "empty": (0, "empty", "near"),
}


def build(name, lib=ours_nn, **options):
    """A layer of either library, with parameters and statistics that are not 0 and 1.

    They depend on the name alone.
    """
    cls, arguments, given, _ = ALL[name]
    return shaken(getattr(lib, cls)(*arguments, **given | options))


def shaken(layer, seed=0):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for key, tensor in layer.state_dict().items():
            name = key.rpartition(".")[2]
            if not tensor.is_floating_point() or name == "running_covariance":
                continue
            value = torch.randn(tensor.shape, generator=generator, dtype=torch.float64)
            positive = name in ("running_var", "running_std")
            tensor.copy_(value.abs() + 0.5 if positive else value)
            if name == "weight" and tensor.ndim == 1:  # a norm's: not near 0
                tensor.copy_(value.sign() * (value.abs() + 0.5))
    return layer


def kinds_of(name, without=(), only=tuple(KINDS)):
    """The kinds of input that a layer takes."""
    shapes, kinds = ALL[name][-1], []
    for kind, (size, layout, _) in KINDS.items():
        fits = size < len(shapes) and kind in only and kind not in without
        if fits and layout == "channels last":
            fits = len(shapes[size]) > 2
        if fits and layout == "empty":
            fits = name in BATCH_NORMS
        kinds += [kind] if fits else []
    return kinds


@functools.lru_cache(maxsize=256)
def noise(shape, seed):
    """Standard normal values in float64, always the same: not to be written to."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def values(shape, which, seed):
    x = noise(shape, seed)
    if which == "constant":  # in float32, so that float64 adds it up exactly
        x = x.clone()
        x[:, 1] = x[0] = torch.tensor(1234.567).item()
    scale, shift = {"tiny": (1e-4, 0), "drifted": (1, 10.5), "far": (1, 1e4)}.get(
        which, (1, 0.3 * (which == "near"))
    )
    return scale * x + shift


def repeated(name):
    """An axis along which all may be equal, and there is still something to do."""
    return 0 if name.startswith(("Layer", "RMS", "Group", "Instance")) else -1


def input_of(name, kind, seed=0, dtype=torch.float32):
    """Return what is stored, and how to see the input in it: a leaf and its view."""
    size, layout, which = KINDS[kind]
    x = values(ALL[name][-1][size], which, seed).to(dtype)
    if layout == "channels last":
        return x.movedim(1, -1).contiguous(), lambda s: s.movedim(-1, 1)
    if layout == "sliced":
        return torch.stack([x, 2 * x], -1), lambda s: s[..., 0]
    if layout == "transposed":
        return x.transpose(0, -1).contiguous(), lambda s: s.transpose(0, -1)
    if layout == "expanded":
        return x.narrow(repeated(name), 0, 1).clone(), lambda s: s.expand(x.shape)
    return (x[:0].clone() if layout == "empty" else x), lambda s: s


def pairwise(seed=0, **axes):
    """Rows (dicts) in which every value of an axis meets every value of every other."""
    axes = {name: list(values) for name, values in axes.items()}
    names, rng, rows = list(axes), random.Random(seed), []
    missing = {}
    for a, b in itertools.combinations(names, 2):
        for pair in itertools.product(axes[a], axes[b]):
            missing[a, pair[0], b, pair[1]] = None
    while missing:
        a, value, b, other = next(iter(missing))
        tried = []
        for _ in range(20):
            row = {name: rng.choice(axes[name]) for name in names}
            row |= {a: value, b: other}
            pairs = itertools.combinations(row.items(), 2)
            pairs = [(n, v, m, w) for (n, v), (m, w) in pairs]
            tried.append((sum(pair in missing for pair in pairs), row, pairs))
        _, row, pairs = max(tried, key=lambda found: found[0])
        rows.append(row)
        for pair in pairs:
            missing.pop(pair, None)
    return rows


def pairs(*indirect, **axes):
    """Run a test for every pair of values of its parameters, not for every product.

    Those named first are fixtures, which get their values as `request.param`.
    """
    rows = [tuple(row.values()) for row in pairwise(**axes)]
    ids = [", ".join(getattr(v, "__name__", str(v)) for v in row) for row in rows]
    mark = pytest.mark.parametrize(tuple(axes), rows, indirect=indirect, ids=ids)
    use = pytest.mark.usefixtures(*indirect) if indirect else lambda test: test
    return lambda test: mark(use(test))


class Block(nn.Module):
    def __init__(self, lib, inputs, outputs):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.norm1 = lib.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norm2 = lib.BatchNorm2d(outputs)
        self.shortcut = nn.Sequential(
            nn.Conv2d(inputs, outputs, 1, bias=False), lib.BatchNorm2d(outputs)
        )

    def forward(self, x):
        y = self.norm2(self.conv2(self.norm1(self.conv1(x)).relu()))
        return (y + self.shortcut(x)).relu()


def resnet(lib):
    stem = nn.Conv2d(3, C, 3, bias=False), lib.BatchNorm2d(C), nn.ReLU()
    head = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2 * C, 5)
    return shaken(nn.Sequential(*stem, Block(lib, C, 2 * C), *head))


class Wrong(list):
    """What is wrong, a line each: one case does not hide the others."""

    @contextlib.contextmanager
    def where(self, *case):
        try:
            yield
        except Exception as error:
            said = " ".join(str(error).split())[:150]
            self.append(f"{', '.join(map(str, case))}: {type(error).__name__}: {said}")

    def __repr__(self):
        return f"{len(self)} cases, such as\n" + "\n".join(self[:8])


# --- the layers' equations, by operations that autograd takes apart -------------------


def standardized(x, axes, eps):
    centred = x - x.mean(axes, keepdim=True)
    return centred / (centred.square().mean(axes, keepdim=True) + eps).sqrt()


def plain(layer, x, weight=None, bias=None):
    """What the layer puts out for x, with these parameters and its own statistics."""
    kind, eps = type(layer).__mro__, getattr(layer, "eps", 0.0)
    kind = {cls.__name__ for cls in kind}
    along = 1, -1, *[1] * (x.ndim - 2)
    weight, bias = (1.0 if weight is None else weight), (0.0 if bias is None else bias)
    if "LocalResponseNorm" in kind:
        return local_response(layer, x)
    if kind & {"LayerNorm", "RMSNorm"}:
        axes = tuple(range(-len(layer.normalized_shape), 0))
        if "LayerNorm" in kind:
            return standardized(x, axes, eps) * weight + bias
        eps = torch.finfo(x.dtype).eps if eps is None else eps
        return x / (x.square().mean(axes, keepdim=True) + eps).sqrt() * weight
    if torch.is_tensor(weight):
        weight = weight.reshape(along)
    if torch.is_tensor(bias):
        bias = bias.reshape(along)
    if "GroupNorm" in kind:
        groups = x.reshape(len(x), layer.num_groups, -1)
        return standardized(groups, -1, eps).reshape(x.shape) * weight + bias
    if "DecorrelatedBatchNorm" in kind:
        return whitened(layer, x) * weight + bias
    if "BatchRenorm" in kind:
        return renormalized(layer, x) * weight + bias
    each = "_InstanceNorm" in kind
    if layer.training or layer.running_mean is None:
        axes = tuple(range(2, x.ndim)) if each else (0, *range(2, x.ndim))
        xhat = standardized(x, axes, eps)
    else:
        mean, var = (
            s.to(x.dtype).clone().reshape(along)
            for s in (layer.running_mean, layer.running_var)
        )
        xhat = (x - mean) / (var + eps).sqrt()
    if "InPlaceABN" in kind:
        return F.leaky_relu(xhat * (abs(weight) + eps) + bias, layer.slope)
    return xhat * weight + bias


def local_response(layer, x):
    square, size = x.square(), layer.size
    before, after = (square.new_zeros(len(x), n, *x.shape[2:]) for n in
                     (size // 2, (size - 1) // 2))  # fmt: skip
    padded = torch.cat([before, square, after], 1)
    energy = sum(padded[:, k : k + x.shape[1]] for k in range(size))
    return x / (layer.k + layer.alpha / size * energy) ** layer.beta


def renormalized(layer, x):
    along, eps = (1, -1, *[1] * (x.ndim - 2)), layer.eps
    mean, std = (
        s.to(x.dtype).clone().reshape(along)
        for s in (layer.running_mean, layer.running_std)
    )
    if not layer.training:
        return (x - mean) / std
    axes = (0, *range(2, x.ndim))
    batch_mean = x.detach().mean(axes, keepdim=True)
    batch_std = (x.detach().var(axes, keepdim=True, correction=0) + eps).sqrt()
    r = (batch_std / std).clamp(1 / layer.rmax, layer.rmax)
    d = ((batch_mean - mean) / std).clamp(-layer.dmax, layer.dmax)
    return standardized(x, axes, eps) * r + d


def whitened(layer, x):
    groups = layer.num_groups
    rows = x.transpose(0, 1).reshape(groups, x.shape[1] // groups, -1)
    if layer.training:
        mean = rows.mean(-1, keepdim=True)
        sigma = (rows - mean) @ (rows - mean).mT / rows.shape[-1]
    else:
        mean = layer.running_mean.to(x.dtype).clone().reshape(*rows.shape[:2], 1)
        sigma = layer.running_covariance.to(x.dtype).clone()
    sigma = sigma + layer.eps * torch.eye(sigma.shape[-1], dtype=x.dtype)
    if layer.iterations is None:
        roots, vectors = torch.linalg.eigh(sigma)
        root = vectors @ (roots**-0.5).diag_embed() @ vectors.mT
    else:
        root = newton_schulz(sigma, iterations=layer.iterations)
    return (root @ (rows - mean)).reshape(x.transpose(0, 1).shape).transpose(0, 1)
