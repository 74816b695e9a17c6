"""Types of what is offered here, written by `make export`."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

__all__ = [
    "Dataset",
    "load_digits",
    "DataError",
    "read_idx",
    "CHECKSUMS",
    "MIRRORS",
    "load_mnist",
    "load_fashion_mnist",
]

class Dataset(NamedTuple):
    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray

def load_digits() -> Dataset: ...

class DataError(OSError): ...

def read_idx(path: str | Path) -> np.ndarray: ...

CHECKSUMS: dict[str, Any]
MIRRORS: dict[str, Any]

def load_mnist() -> Dataset: ...
def load_fashion_mnist() -> Dataset: ...
