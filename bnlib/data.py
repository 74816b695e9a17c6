"""From chapters/A1_data.ipynb.

Extracted by `make export`: edit the notebook, not this file.
"""

import gzip
import hashlib
import importlib
import math
import os
import tempfile
import textwrap
import zlib
from pathlib import Path
from typing import NamedTuple

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
    """Images and labels, in a part to train on and a part to test on.

    Unpacks like a tuple: `x_train, y_train, x_test, y_test = load_digits()`.

    Parameters
    ----------
    x_train, x_test : array (N, height, width)
        float32, grey levels from 0 to 1.
    y_train, y_test : array (N,)
        int64, the class of each image, 0 to 9.
    """

    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray

    def __repr__(self):
        parts = (f"{n}: {a.dtype} {a.shape}" for n, a in self._asdict().items())
        return f"Dataset({', '.join(parts)})"


def load_digits():
    """Return 1,797 handwritten digits of 8x8 pixels, 1,438 to train and 359 to test.

    The split is fixed: the images sorted by class, every fifth of them for the test, so
    that all classes are about equally frequent in both parts.

    Source: test part of "Optical Recognition of Handwritten Digits", Alpaydin and
    Kaynak (1998).

    Returns
    -------
    digits : Dataset
        Images float32 (N, 8, 8) in the 17 grey levels 0, 1/16 ... 1, labels int64 (N,).

    Raises
    ------
    ImportError
        Without scikit-learn, which the images come with.
    """
    bundled = _need("sklearn.datasets").load_digits()
    images = (bundled.images / 16).astype(np.float32)
    labels = bundled.target.astype(np.int64)
    test = np.zeros(len(labels), dtype=bool)
    test[np.argsort(labels, kind="stable")[4::5]] = True
    return Dataset(images[~test], labels[~test], images[test], labels[test])


def _need(module):
    """Import what only a loader uses, or say how to install it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        what = f'bnlib.data needs {module} for this: pip install "bnlib[chapters]"'
        raise ImportError(what, name=module) from error


def _parse_idx(data, name):
    start = 4 + 4 * data[3] if len(data) > 3 else 4
    if data[:3] != b"\x00\x00\x08" or len(data) < start:
        found = f"{len(data):,} bytes that begin with {data[:4].hex(' ') or 'nothing'}"
        expected = "00 00 08 (idx format, unsigned bytes), the number of axes, the axes"
        raise _problem(name, found, expected, "check that this is an idx file")
    shape = tuple(np.frombuffer(data[4:start], dtype=">u4").tolist())
    if len(data) != start + math.prod(shape):
        expected = f"{start} + {math.prod(shape):,} bytes, as its shape {shape} says"
        cure = "the file is cut off or damaged: copy or download it again"
        raise _problem(name, f"{len(data):,} bytes", expected, cure)
    return np.frombuffer(data, dtype=np.uint8, offset=start).reshape(shape)


class DataError(OSError):
    """A data file that is missing, damaged, or cannot be stored."""


def _problem(file, found, expected, cure):
    parts = (str(file), f"found: {found}", f"expected: {expected}", f"cure: {cure}")
    return DataError("\n  ".join(parts))


def _unzip(data, name):
    """The bytes inside a gzip archive; bytes that are not one come back as they are."""
    if data[:2] != b"\x1f\x8b":
        return data
    try:
        return gzip.decompress(data)
    except (EOFError, OSError, zlib.error) as error:
        found = f"a gzip archive of {len(data):,} bytes that cannot be read ({error})"
        cure = "the file is cut off or damaged: copy or download it again"
        raise _problem(name, found, "a whole gzip archive", cure) from None


def read_idx(path):
    """Read an idx file, gzipped or not.

    Source: LeCun, Cortes and Burges, The MNIST database of handwritten digits.

    Parameters
    ----------
    path : str or path

    Returns
    -------
    values : array
        uint8, read-only, of the shape that the file states.

    Raises
    ------
    DataError
        If the file is not in idx format, holds another type than unsigned bytes, or is
        not as long as its shape says.
    OSError
        If it cannot be read.
    """
    return _parse_idx(_unzip(Path(path).read_bytes(), path), path)


_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
_SHA256 = {
    "mnist": (
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    ),
    "fashion-mnist": (
        "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    ),
}


CHECKSUMS = {
    f"{folder}/{file}": checksum
    for folder, checksums in _SHA256.items()
    for file, checksum in zip(_FILES, checksums, strict=True)
}


def _verified(data, name, cure):
    """The uncompressed bytes of a file, if they are the published ones."""
    data = _unzip(data, name)
    found = hashlib.sha256(data).hexdigest()
    if found != CHECKSUMS[name]:
        found = f"{len(data):,} bytes with sha256 {found}"
        raise _problem(name, found, f"sha256 {CHECKSUMS[name]} (uncompressed)", cure)
    return data


def _local(folder, name):
    """The verified bytes of a file in the folder that BNLIB_DATA names."""
    cure = "correct BNLIB_DATA, or unset it to download the file instead"
    if not folder.is_dir():
        found = f"BNLIB_DATA={folder}, which is not a folder"
        raise _problem(name, found, f"a folder that holds {name}[.gz]", cure)
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return _verified(path.read_bytes(), name, f"replace {path}, or {cure}")
    found = f"no such file in BNLIB_DATA={folder}"
    raise _problem(name, found, f"{folder / name} or {path}", cure)


MIRRORS = {
    "mnist": (
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
    ),
    "fashion-mnist": (
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        "https://storage.googleapis.com/tensorflow/tf-keras-datasets/",
    ),
}


def _get(url, target):
    """Download one file to `target`, with a progress bar."""
    name = url.rsplit("/", 1)[1]
    # pooch tells the bar its real total, but ignores a bar whose total is 0.
    with _need("tqdm.auto").tqdm(desc=name, total=1, unit="B", unit_scale=True) as bar:
        download = _need("pooch").HTTPDownloader(progressbar=bar, chunk_size=2**16)
        download(url, str(target), None)


def _from_mirrors(name, target):
    """The verified bytes of a file from the first mirror that has them."""
    folder, file = name.split("/")
    unreachable = _need("requests").RequestException
    failures = []
    for mirror in MIRRORS[folder]:
        url = f"{mirror}{file}.gz"
        try:
            _get(url, target)
            return _verified(target.read_bytes(), name, "")
        except DataError as error:
            reason = str(error).splitlines()[1].strip()
        except unreachable as error:
            reason = textwrap.shorten(f"{type(error).__name__}: {error}", 120)
        failures.append(f"\n    {url}: {reason}")
    found = "not in the cache, and no mirror gave it" + "".join(failures)
    cure = "go online and try again, or name a folder that holds it in BNLIB_DATA"
    raise _problem(name, found, f"sha256 {CHECKSUMS[name]} (uncompressed)", cure)


def _cached(name):
    """The verified bytes of a file from the cache, downloaded if it is not there."""
    named = os.environ.get("BNLIB_CACHE")
    place = Path(named or _need("pooch").os_cache("bnlib")).expanduser() / name
    try:
        return _verified(place.read_bytes(), name, "")
    except OSError:  # missing, or damaged: a DataError is an OSError
        pass
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=place.parent, prefix=".incoming-") as new:
            data = _from_mirrors(name, Path(new) / "download")
            whole = Path(new) / place.name
            whole.write_bytes(data)
            os.replace(whole, place)
    except DataError:
        raise
    except OSError as error:
        cure = "make room there, or name a folder you may write to in BNLIB_CACHE"
        raise _problem(name, error, f"to write to {place.parent}", cure) from error
    return data


def _load(folder):
    own = os.environ.get("BNLIB_DATA")
    arrays = []
    for file in _FILES:
        name = f"{folder}/{file}"
        data = _local(Path(own).expanduser(), name) if own else _cached(name)
        array = _parse_idx(data, name)
        if array.ndim == 1:
            arrays.append(array.astype(np.int64))
        else:
            arrays.append(array.astype(np.float32) / np.float32(255))
    return Dataset(*arrays)


def load_mnist():
    """Return the MNIST digits: 60,000 images of 28x28 pixels to train, 10,000 to test.

    Reads the folder that BNLIB_DATA names; without it downloads 12 MB, once, to the
    folder that BNLIB_CACHE names or the user's cache. Checks the contents of each file.

    Source: LeCun, Bottou, Bengio and Haffner (1998).

    Returns
    -------
    digits : Dataset
        Images float32 (N, 28, 28) from 0 to 1, labels int64 (N,).

    Raises
    ------
    DataError
        If a file is missing, damaged or cannot be stored.
    ImportError
        Without pooch.
    """
    return _load("mnist")


def load_fashion_mnist():
    """Return Fashion-MNIST: 60,000 images of clothes to train, 10,000 to test.

    Like `load_mnist`: the same shapes, types, places and errors; downloads 31 MB.
    Classes: T-shirt, trouser, pullover, dress, coat, sandal, shirt, sneaker, bag, boot.

    Source: Xiao, Rasul and Vollgraf (2017).

    Returns
    -------
    clothes : Dataset
    """
    return _load("fashion-mnist")
