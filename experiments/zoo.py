"""`diagnose`, `recalibrate` and `fold_model` on networks of torchvision and timm.

Each network is made with random weights, trained a few steps on random images, and
examined in use: what is found before and after its statistics are measured, what is
folded, beside what torch.fx's own fuser folds, how far the outputs are apart, and how
long it takes.

    python -m experiments.zoo

About four minutes on one idle core. Needs torchvision and timm, at the versions of
requirements.txt; nothing is downloaded.
"""

import argparse
import copy
import importlib.metadata
import statistics
import time
import warnings
from pathlib import Path

import torch
from torch import nn
from torch.fx.experimental.optimization import fuse

import bnlib
from bnlib.nn._survey import survey
from experiments.provenance import RESULTS, provenance, rounded, write

NETWORKS = (
    "torchvision/resnet50",
    "torchvision/vgg11_bn",
    "torchvision/densenet121",
    "torchvision/googlenet",
    "torchvision/mobilenet_v2",
    "torchvision/mobilenet_v3_small",
    "torchvision/mnasnet0_5",
    "torchvision/shufflenet_v2_x0_5",
    "torchvision/regnet_y_400mf",
    "timm/repvgg_a0",
    "timm/mobileone_s0",
    "timm/efficientnetv2_rw_t",
    "timm/tf_mobilenetv3_small_075",
    "timm/ghostnet_100",
    "timm/resnetv2_50",
    "timm/hrnet_w18_small",
    "timm/mobilenetv4_conv_small",
    "timm/repvit_m0_9",
)
CONFIG = {"images": 16, "size": 64, "batches": 2, "steps": 4, "lr": 0.01}
DEFINITIONS = {
    "before": "codes of diagnose on a batch of the training data, in evaluation mode, "
    "and in how many layers each was found",
    "after": "the same after recalibrate on the training data",
    "norms": "normalization layers; folded: those that fold_model folds; left: why the "
    "others stay, and how many",
    "fx_folds": "how many torch.fx's own fuser folds; null where it fails",
    "difference": "largest difference of the outputs of the folded model, relative to "
    "the largest output, on a batch that folding has not seen",
    "seconds": "of one forward pass of a batch, and of survey on it, the median of "
    "five; of recalibrate and of fold_model, once",
}


def load(package):
    """Return torchvision.models, or timm; raises ImportError.

    torchvision's wheel may want CUDA for its operators, which no network here uses: it
    is enough that they have a name.
    """
    try:
        import torchvision
    except RuntimeError:
        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float limit) -> Tensor")
        load.library = library  # its names go when it goes
        import torchvision
    if package == "timm":
        import timm

        return timm
    return torchvision.models


def make(name):
    """Return a network with random weights, by its name in NETWORKS."""
    package, _, model = name.partition("/")
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of weights that will be initialized otherwise
        if package == "timm":
            return load(package).create_model(model)
        return load(package).get_model(model, weights=None)


def train(model, data, steps, lr):
    """Train a network a few steps on labels that mean nothing."""
    optimizer = torch.optim.SGD(model.parameters(), lr, momentum=0.9)
    model.train()
    for k in range(steps):
        y = model(data[k % len(data)])
        y = y if isinstance(y, torch.Tensor) else y[0]
        nn.functional.cross_entropy(y, torch.arange(len(y))).backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.eval()


def timed(function, times=1):
    """Return what a function returns, and the median of the seconds it takes."""
    seconds = []
    for _ in range(times):
        start = time.perf_counter()
        result = function()
        seconds.append(time.perf_counter() - start)
    return result, statistics.median(seconds)


def counted(words):
    """Return {word: how often}."""
    return {word: words.count(word) for word in dict.fromkeys(words)}


def folded_by_fx(model):
    """Return how many batch norms torch.fx's own fuser folds; None where it fails."""
    try:
        whole = torch.fx.symbolic_trace(copy.deepcopy(model))
        fused = fuse(copy.deepcopy(model))
    except Exception:
        return None
    return batch_norms_of(whole) - batch_norms_of(fused)


def batch_norms_of(traced):
    """Return how many calls of batch norms there are in a traced model."""
    called = [n.target for n in traced.graph.nodes if n.op == "call_module"]
    kinds = nn.modules.batchnorm._BatchNorm
    return sum(isinstance(traced.get_submodule(name), kinds) for name in called)


def examine(name, config=CONFIG):
    """Return what the three tools say of one network, see DEFINITIONS."""
    model, g = make(name), torch.Generator().manual_seed(1)
    shape = config["images"], 3, config["size"], config["size"]
    *data, new = torch.randn(config["batches"] + 1, *shape, generator=g)
    train(model, data, config["steps"], config["lr"])
    before = bnlib.diagnose(model, data[0])
    _, measuring = timed(lambda: bnlib.recalibrate(model, data, progress=False))
    after = bnlib.diagnose(model, data[0])
    folded, folding = timed(lambda: bnlib.fold_model(model, data[0]))
    _, looking = timed(lambda: survey(model, new), 5)
    with torch.no_grad():
        y, forward = timed(lambda: model(new), 5)
        off = (folded(new) - y).abs().max() / y.abs().max()
    report = folded.fold_report
    return {
        "before": counted([f.code for f in before]),
        "after": counted([f.code for f in after]),
        "norms": len(report),
        "folded": sum(f.into is not None for f in report),
        "left": counted([f.why for f in report if f.into is None]),
        "fx_folds": folded_by_fx(model),
        "difference": off.item(),
        "seconds": {
            "forward": forward,
            "survey": looking,
            "recalibrate": measuring,
            "fold_model": folding,
        },
    }


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=RESULTS / "zoo.json")
    options = parser.parse_args(arguments)
    started, networks = time.perf_counter(), {}
    for name in NETWORKS:
        networks[name] = examine(name)
        print(f"{name}: {networks[name]}", flush=True)
    facts = provenance("python -m experiments.zoo", CONFIG, [], [], started)
    for package in ("torchvision", "timm"):
        facts["versions"][package] = importlib.metadata.version(package)
    result = {"provenance": facts, "definitions": DEFINITIONS, "networks": networks}
    write(options.out, rounded(result))
    print(f"wrote {options.out.name}")


if __name__ == "__main__":
    main()
