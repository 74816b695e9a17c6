"""The loaders: right bits or one clear error, and never half a file in the cache.

The real files are checked where they are at hand. Everything else happens on tiny sets
served from this machine.
"""

import errno
import gzip
import hashlib
import http.server
import json
import os
import re
import struct
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from commands import python

from bnlib import data
from bnlib.data import DataError

ROOT = Path(__file__).resolve().parent.parent
REAL = Path(os.environ.get("BNLIB_DATA") or ROOT.parent / "shared" / "data")
FIRST = "mnist/train-images-idx3-ubyte"


def idx(array):
    """The idx file of a uint8 array."""
    head = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return head + array.astype(np.uint8).tobytes()


ARRAYS = {
    "train-images-idx3-ubyte": np.arange(6 * 4 * 4).reshape(6, 4, 4),
    "train-labels-idx1-ubyte": np.array([3, 1, 4, 1, 5, 9]),
    "t10k-images-idx3-ubyte": 255 - np.arange(2 * 4 * 4).reshape(2, 4, 4),
    "t10k-labels-idx1-ubyte": np.array([2, 6]),
}
FILES = {f"mnist/{name}": idx(array) for name, array in ARRAYS.items()}


@pytest.fixture(autouse=True)
def tiny(monkeypatch, tmp_path):
    """A tiny set instead of MNIST, an empty cache, no variables from outside."""
    sums = {name: hashlib.sha256(file).hexdigest() for name, file in FILES.items()}
    monkeypatch.setattr(data, "CHECKSUMS", sums)
    monkeypatch.setenv("BNLIB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("BNLIB_DATA", raising=False)


class Server(http.server.ThreadingHTTPServer):
    """Serves what `replies` holds by path: bytes, or a function of the handler."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.replies = {f"/{n}.gz": gzip.compress(file) for n, file in FILES.items()}
        self.asked = []
        self.url = f"http://127.0.0.1:{self.server_port}/"

    def handle_error(self, request, client_address):
        """A client that hangs up is what some tests are about."""


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.asked.append(self.path)
        reply = self.server.replies.get(self.path)
        if reply is None:
            self.send_error(404)
        elif callable(reply):
            reply(self)
        else:
            self.answer(reply)

    def answer(self, body, promised=None, **headers):
        self.send_response(200)
        self.send_header("Content-Length", str(promised or len(body)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        monkeypatch.setattr(data, "MIRRORS", {"mnist": (server.url + "mnist/",)})
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def offline(monkeypatch):
    with Server() as closed:
        url = closed.url
    monkeypatch.setattr(data, "MIRRORS", {"mnist": (url + "mnist/",)})


def cached():
    """Every file in the cache folder, complete or not."""
    cache = Path(os.environ["BNLIB_CACHE"])
    return sorted(p.relative_to(cache).as_posix() for p in cache.rglob("*"))


def has_right_values(found):
    x_train, y_train, x_test, y_test = found
    expected = [array.astype(np.uint8) for array in ARRAYS.values()]
    scaled = np.float32(1) / np.float32(255)
    np.testing.assert_allclose(x_train, expected[0] * scaled, rtol=1e-6)
    np.testing.assert_allclose(x_test, expected[2] * scaled, rtol=1e-6)
    np.testing.assert_array_equal(y_train, expected[1])
    np.testing.assert_array_equal(y_test, expected[3])
    images, labels = {x_train.dtype, x_test.dtype}, {y_train.dtype, y_test.dtype}
    return images == {np.dtype("float32")} and labels == {np.dtype("int64")}


def error_of(call, *words):
    """The error's text, after checking its four parts and that it says `words`."""
    with pytest.raises(DataError) as caught:
        call()
    text = str(caught.value)
    parts = r"\S+\n  found: .+\n  expected: .+\n  cure: .+"
    assert re.fullmatch(parts, text, re.DOTALL) and text.count("cure:") == 1, text
    for word in words:
        assert str(word) in text, text
    return text


# The small set that ships with scikit-learn


def test_digits_split_is_fixed_balanced_and_complete():
    from sklearn.datasets import load_digits

    digits = data.load_digits()
    assert digits.x_train.shape == (1438, 8, 8) and digits.x_test.shape == (359, 8, 8)
    assert digits.x_train.dtype == digits.x_test.dtype == np.float32
    assert digits.y_train.dtype == digits.y_test.dtype == np.int64
    for labels in (digits.y_train, digits.y_test):
        share = np.bincount(labels) / len(labels)
        assert abs(share - 0.1).max() < 0.004
    every = np.concatenate([digits.x_train, digits.x_test]).reshape(1797, 64) * 16
    assert sorted(every.tolist()) == sorted(load_digits().data.tolist())
    fingerprint = hashlib.sha256(digits.y_test.tobytes() + digits.x_test.tobytes())
    assert fingerprint.hexdigest()[:16] == "327abc202d64f2d8"


def test_printed_form_is_one_line():
    digits = data.load_digits()
    assert repr(digits).startswith("Dataset(x_train: float32 (1438, 8, 8), y_train")
    assert "\n" not in repr(digits)


# Imports


def test_import_needs_numpy_only():
    code = (
        "import sys, bnlib.data; heavy = {'pooch', 'sklearn', 'tqdm', 'requests', "
        "'torch', 'matplotlib'} & set(sys.modules); assert not heavy, heavy"
    )
    python("-c", code, cwd=ROOT)


@pytest.mark.parametrize(
    ("module", "load"),
    [("sklearn.datasets", data.load_digits), ("pooch", data.load_mnist)],
)
def test_missing_package_says_what_to_install(monkeypatch, server, module, load):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=r'install "bnlib\[chapters\]"') as e:
        load()
    assert e.value.name == module


# The idx format


@pytest.mark.parametrize("shape", [(5,), (2, 3), (2, 3, 4), (0, 28, 28), (1, 1, 1, 7)])
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_read_idx(tmp_path, shape, pack):
    array = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    path = tmp_path / "any.name"
    path.write_bytes(pack(idx(array)))
    np.testing.assert_array_equal(data.read_idx(path), array)
    np.testing.assert_array_equal(data.read_idx(str(path)), array)


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_read_idx_refuses_every_length_but_the_right_one(tmp_path, pack):
    whole, path = pack(FILES[FIRST]), tmp_path / "cut"
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        error_of(lambda: data.read_idx(path), "cut")
    path.write_bytes(pack(FILES[FIRST] + b"\x00"))
    error_of(lambda: data.read_idx(path), "cut", "113 bytes", "16 + 96 bytes")


@pytest.mark.parametrize(
    "start", ["00000d03", "01000803", "00010803", "89504e47", "3c21444f"]
)
def test_read_idx_refuses_another_format(tmp_path, start):
    (tmp_path / "odd").write_bytes(bytes.fromhex(start) + FILES[FIRST][4:])
    error_of(lambda: data.read_idx(tmp_path / "odd"), bytes.fromhex(start).hex(" "))


def test_read_idx_refuses_damage_anywhere_in_the_archive(tmp_path):
    """Past the header of ten bytes, some damage breaks the code, some the checksum."""
    whole, path = gzip.compress(FILES[FIRST]), tmp_path / "bad.gz"
    for place in range(10, len(whole)):
        changed = bytes([whole[place] ^ 0xFF])
        path.write_bytes(whole[:place] + changed + whole[place + 1 :])
        error_of(lambda: data.read_idx(path), "bad.gz", "gzip")


# Downloads


def test_download_happens_once(server):
    assert has_right_values(data.load_mnist())
    assert sorted(server.asked) == sorted(f"/{name}.gz" for name in FILES)
    assert cached() == ["mnist", *sorted(FILES)]
    server.asked.clear()
    assert has_right_values(data.load_mnist())
    assert server.asked == []


def test_download_shows_progress(server, capfd):
    data.load_mnist()
    shown = capfd.readouterr().err
    for name in ARRAYS:
        assert re.search(rf"{name}.gz: +100%", shown), shown


def test_default_cache_is_the_users(server, monkeypatch, tmp_path):
    import pooch

    monkeypatch.delenv("BNLIB_CACHE")
    monkeypatch.setattr(pooch, "os_cache", lambda project: tmp_path / "user" / project)
    data.load_mnist()
    assert (tmp_path / "user" / "bnlib" / FIRST).read_bytes() == FILES[FIRST]


def test_second_mirror_steps_in(server, monkeypatch):
    mirrors = (server.url + "nothing-here/", server.url + "mnist/")
    monkeypatch.setattr(data, "MIRRORS", {"mnist": mirrors})
    assert has_right_values(data.load_mnist())
    assert len(server.asked) == 8


def test_archive_that_the_transport_unpacks(server):
    """Some servers declare the archive as a compressed transfer of the plain file."""
    for path, body in list(server.replies.items()):
        server.replies[path] = lambda handler, body=body: handler.answer(
            body, Content_Encoding="gzip"
        )
    assert has_right_values(data.load_mnist())


def flipped(archive):
    return archive[:40] + bytes([archive[40] ^ 0xFF]) + archive[41:]


def forged(archive):
    return gzip.compress(gzip.decompress(archive)[:-1] + b"\x00")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (flipped, ["gzip archive", "cannot be read"]),
        (lambda archive: archive[:60], ["gzip archive of 60 bytes"]),
        (lambda archive: b"", ["0 bytes"]),
        (lambda archive: b"<html>Please sign in</html>", ["27 bytes"]),
        (forged, [hashlib.sha256(FILES[FIRST][:-1] + b"\x00").hexdigest()]),
    ],
    ids=["damaged", "truncated", "empty", "another file", "forged"],
)
def test_bad_download_never_enters_the_cache(server, change, words):
    path = f"/{FIRST}.gz"
    server.replies[path] = change(server.replies[path])
    error_of(data.load_mnist, FIRST, data.CHECKSUMS[FIRST], server.url, *words)
    assert cached() == ["mnist"]


def test_connection_that_breaks_off(server):
    body = server.replies[f"/{FIRST}.gz"]
    server.replies[f"/{FIRST}.gz"] = lambda handler: handler.answer(
        body[:50], promised=len(body)
    )
    error_of(data.load_mnist, FIRST, server.url, "go online and try again")
    assert cached() == ["mnist"]


def test_offline_without_cache(offline):
    error_of(data.load_mnist, FIRST, "ConnectionError", "go online", "BNLIB_DATA")
    assert cached() == ["mnist"]


def test_damaged_cache_is_mended(server):
    data.load_mnist()
    place = Path(os.environ["BNLIB_CACHE"], FIRST)
    place.write_bytes(FILES[FIRST][:-1] + b"\x00")
    server.asked.clear()
    assert has_right_values(data.load_mnist())
    assert server.asked == [f"/{FIRST}.gz"]
    assert place.read_bytes() == FILES[FIRST]


def test_cache_that_cannot_be_made(server, tmp_path):
    (tmp_path / "cache").write_text("a file where the folder should be")
    error_of(data.load_mnist, FIRST, tmp_path / "cache" / "mnist", "BNLIB_CACHE")
    assert server.asked == []


def test_disk_full(server, monkeypatch):
    def full(path, content):
        with open(path, "wb") as file:
            file.write(content[: len(content) // 2])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", full)
    error_of(data.load_mnist, FIRST, os.strerror(errno.ENOSPC), "BNLIB_CACHE")
    assert cached() == ["mnist"]


def test_interrupt_leaves_nothing(server, monkeypatch):
    def interrupted(url, target):
        Path(target).write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(data, "_get", interrupted)
    with pytest.raises(KeyboardInterrupt):
        data.load_mnist()
    assert cached() == ["mnist"]


CHILD = """
import json, sys
from bnlib import data
data.CHECKSUMS, data.MIRRORS = json.loads(sys.argv[1])
print(data.load_mnist().x_train.sum())
"""


def child():
    """Another Python process that loads the tiny set."""
    setting = json.dumps([data.CHECKSUMS, data.MIRRORS])
    command = [sys.executable, "-c", CHILD, setting]
    return subprocess.Popen(command, stdout=-1, stderr=-1, text=True, cwd=ROOT)


def test_two_processes_at_once(server):
    """Both are in the middle of the same download before either may finish."""
    path, both = f"/{FIRST}.gz", threading.Barrier(2, timeout=10)
    body = server.replies[path]

    def wait_for_the_other(handler):
        both.wait()
        handler.answer(body)

    server.replies[path] = wait_for_the_other
    processes = [child(), child()]
    results = [process.communicate(timeout=20) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], results
    assert len({out for out, _ in results}) == 1
    assert server.asked.count(path) == 2
    assert cached() == ["mnist", *sorted(FILES)]
    assert Path(os.environ["BNLIB_CACHE"], FIRST).read_bytes() == FILES[FIRST]


# A folder of one's own


@pytest.fixture
def folder(tmp_path, monkeypatch):
    own = tmp_path / "own"
    (own / "mnist").mkdir(parents=True)
    for name, file in FILES.items():
        (own / name).write_bytes(file)
    monkeypatch.setenv("BNLIB_DATA", str(own))
    return own


def test_folder_instead_of_download(folder, server):
    assert has_right_values(data.load_mnist())
    for name, file in FILES.items():
        (folder / name).unlink()
        (folder / f"{name}.gz").write_bytes(gzip.compress(file))
    assert has_right_values(data.load_mnist())
    assert server.asked == [] and not Path(os.environ["BNLIB_CACHE"]).exists()


def test_empty_variable_counts_as_unset(server, monkeypatch):
    monkeypatch.setenv("BNLIB_DATA", "")
    assert has_right_values(data.load_mnist())
    assert len(server.asked) == 4


def test_folder_that_is_missing(server, monkeypatch, tmp_path):
    nowhere = tmp_path / "nowhere"
    monkeypatch.setenv("BNLIB_DATA", str(nowhere))
    error_of(data.load_mnist, FIRST, f"BNLIB_DATA={nowhere}", "not a folder")
    assert server.asked == []


def test_folder_without_the_file_or_with_another(folder, server):
    (folder / FIRST).write_bytes(forged(gzip.compress(FILES[FIRST])))
    words = (data.CHECKSUMS[FIRST], f"replace {folder / FIRST}")
    error_of(data.load_mnist, FIRST, *words)
    (folder / FIRST).unlink()
    error_of(data.load_mnist, FIRST, f"{folder / FIRST}.gz", "no such file", "unset it")
    assert server.asked == []


# What is published


def test_every_file_has_a_checksum_and_two_mirrors(monkeypatch):
    monkeypatch.undo()
    assert len(data.CHECKSUMS) == len(set(data.CHECKSUMS.values())) == 8
    for name, checksum in data.CHECKSUMS.items():
        assert re.fullmatch("[0-9a-f]{64}", checksum)
        mirrors = data.MIRRORS[name.split("/")[0]]
        assert len(mirrors) == 2 and all(m.endswith("/") for m in mirrors)
        assert any(m.startswith("https://") for m in mirrors)


@pytest.mark.parametrize(
    ("folder", "load", "mean", "ones"),
    [
        ("mnist", data.load_mnist, 0.130660, 6742),
        ("fashion-mnist", data.load_fashion_mnist, 0.286041, 6000),
    ],
)
def test_real_files(monkeypatch, folder, load, mean, ones):
    if not (REAL / folder).is_dir():
        pytest.skip(f"no {folder} at hand: set BNLIB_DATA to a folder that holds it")
    monkeypatch.undo()
    monkeypatch.setenv("BNLIB_DATA", str(REAL))
    found = load()
    assert found.x_train.shape == (60000, 28, 28)
    assert found.x_test.shape == (10000, 28, 28)
    assert found.x_train.dtype == found.x_test.dtype == np.float32
    assert found.y_train.dtype == found.y_test.dtype == np.int64
    assert found.x_train.min() == 0 and found.x_train.max() == 1
    assert abs(found.x_train.mean(dtype=np.float64) - mean) < 1e-6
    assert np.bincount(found.y_train)[1] == ones and found.y_train.shape == (60000,)
    assert np.bincount(found.y_test).sum() == 10000
