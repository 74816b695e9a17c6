"""What MNIST and Fashion-MNIST contain: counts, moments, the average of each class.

    python -m experiments.data_summary

A few seconds. For the appendix on data, which runs without the files.
"""

import argparse
import time
from pathlib import Path

import numpy as np

from bnlib.data import load_fashion_mnist, load_mnist
from experiments.provenance import RESULTS, provenance, rounded, write

LOADERS = {"mnist": load_mnist, "fashion-mnist": load_fashion_mnist}

DEFINITIONS = {
    "train_counts, test_counts": "images per class, classes 0 to 9",
    "mean, std": "over all pixels of all training images, grey levels from 0 to 1",
    "paper": "fraction of these pixels that are exactly 0",
    "ink": "fraction of these pixels above 0.5: the 1s of the binarised images",
    "constant_pixels": "pixels of 784 with the same value in all training images",
    "constant_binarised_pixels": "the same after binarising at 0.5",
    "mean_images": "the average training image of each class, 28 x 28, rounded to "
    "whole grey levels from 0 to 255",
}


def describe(data):
    x, y = data.x_train, data.y_train
    means = [x[y == label].mean(axis=0) for label in range(10)]
    binary = x > 0.5
    return {
        "train_counts": np.bincount(y).tolist(),
        "test_counts": np.bincount(data.y_test).tolist(),
        "mean": x.mean(dtype=np.float64).item(),
        "std": x.std(dtype=np.float64).item(),
        "paper": (x == 0).mean().item(),
        "ink": binary.mean().item(),
        "constant_pixels": (x.max(0) == x.min(0)).sum().item(),
        "constant_binarised_pixels": (binary.max(0) == binary.min(0)).sum().item(),
        "mean_images": [(255 * m).round().astype(int).ravel().tolist() for m in means],
    }


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=RESULTS / "data_summary.json")
    options = parser.parse_args(arguments)
    started = time.perf_counter()
    sets = {name: describe(load()) for name, load in LOADERS.items()}
    command = "python -m experiments.data_summary"
    result = {
        "provenance": provenance(command, {}, [], list(LOADERS), started),
        "definitions": DEFINITIONS,
        "sets": sets,
    }
    write(options.out, rounded(result))
    print(f"wrote {options.out.name}")


if __name__ == "__main__":
    main()
