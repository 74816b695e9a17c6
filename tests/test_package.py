"""The package as others get it: built, installed where nothing else is, used."""

import ast
import email
import importlib.util
import os
import shutil
import sys
import tarfile
import tomllib
import zipfile
from importlib import import_module
from pathlib import Path

import export
import pytest
import stubs
from commands import run

import bnlib

ROOT = Path(__file__).resolve().parent.parent

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
KINDS = (".py", ".pyi", ".typed")
FILES = {p for p in (ROOT / "bnlib").rglob("*") if p.suffix in KINDS}
MODULES = {str(p.relative_to(ROOT)) for p in FILES}
BUILD = "import sys; from setuptools import build_meta as b; b.build_{}(sys.argv[1])"
USE = """
import numpy as np
import bnlib
x = np.random.default_rng(0).normal(3, 2, size=(32, 8))
y, cache = bnlib.batch_norm(x)
assert abs(y.mean(0)).max() < 1e-12 and abs(y.std(0) - 1).max() < 1e-5
dx, dgamma, dbeta = bnlib.batch_norm_backward(np.ones_like(y), cache)
assert abs(dx).max() < 1e-12
for name in bnlib.__all__:
    try:
        getattr(bnlib, name)
    except ImportError as error:
        assert error.name == "torch" and "bnlib[torch]" in str(error), name
try:
    import bnlib.nn
except ImportError as error:
    assert 'pip install "bnlib[torch]"' in str(error)
print(bnlib.__version__, bnlib.__file__)
"""
LAZY = """
import sys
import bnlib
lazy = ("bnlib.exercises", "bnlib.nn", "torch")
print([name for name in lazy if name in sys.modules])
print(bnlib.check("moments", lambda x: (x.mean(0), x.var(0))).passed)
"""


@pytest.fixture(scope="module")
def dist(tmp_path_factory):
    """A folder with the wheel and the source distribution of this checkout."""
    away = (".venv", "_build", ".git", "*.egg-info", "*.ipynb", "build", "shared")
    source = tmp_path_factory.mktemp("package") / "source"
    shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns(*away, "results"))
    for kind in ("sdist", "wheel"):
        run(sys.executable, "-c", BUILD.format(kind), source.parent, cwd=source)
    return source.parent


def wheel(dist):
    (path,) = dist.glob("*.whl")
    return path


def sdist(dist):
    (path,) = dist.glob("*.tar.gz")
    return path


def test_the_wheel_holds_the_package_and_nothing_else(dist):
    names = set(zipfile.ZipFile(wheel(dist)).namelist())
    info = f"bnlib-{PROJECT['version']}.dist-info/"
    assert {n for n in names if not n.startswith(info)} == MODULES
    assert f"{info}licenses/LICENSE" in names
    said = email.message_from_bytes(
        zipfile.ZipFile(wheel(dist)).read(f"{info}METADATA")
    )
    assert said["Version"] == PROJECT["version"] and said["Requires-Python"] == ">=3.11"
    needed = [n for n in said.get_all("Requires-Dist") if "extra ==" not in n]
    assert needed == PROJECT["dependencies"]
    assert wheel(dist).stat().st_size < 250_000


def test_the_source_distribution_holds_what_builds_it(dist):
    with tarfile.open(sdist(dist)) as archive:
        names = {n.split("/", 1)[1] for n in archive.getnames() if "/" in n}
    own = {"pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "CITATION.cff"}
    assert own | MODULES <= names
    assert not [n for n in names if n.startswith(("tests", "chapters", "tools"))]


@pytest.mark.parametrize("which", [wheel, sdist])
def test_installed_where_nothing_else_is(dist, tmp_path, which):
    """numpy is lent from here, by link: nothing is downloaded."""
    lent = tmp_path / "lent"
    lent.mkdir()
    site = Path(importlib.util.find_spec("numpy").origin).parent.parent
    wanted = ("numpy", "numpy.libs", "setuptools", "setuptools-*", "_distutils_hack")
    for folder in (folder for pattern in wanted for folder in site.glob(pattern)):
        (lent / folder.name).symlink_to(folder)
    run(sys.executable, "-m", "venv", "--without-pip", tmp_path / "env")
    python = tmp_path / "env" / "bin" / "python"
    environ = os.environ | {"PYTHONPATH": str(lent), "PIP_CONFIG_FILE": os.devnull}
    offline = ["--no-deps", "--no-index", "--no-build-isolation", "--no-cache-dir"]
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "-q", *offline]
    run(*pip, which(dist), env=environ, cwd=tmp_path)
    said = run(python, "-W", "error", "-c", USE, env=environ, cwd=tmp_path)
    version, file = said.split()
    assert version == PROJECT["version"]
    assert Path(file).is_relative_to(tmp_path / "env")
    # Without asserts and docstrings too; `check` and `nn` are loaded when asked for.
    said = run(python, "-OO", "-W", "error", "-c", LAZY, env=environ, cwd=tmp_path)
    assert said.splitlines() == ["[]", "True"]


@pytest.mark.parametrize("path", stubs.PUBLIC)
def test_type_checkers_see_every_name_and_no_other(path):
    module = import_module(
        path.removesuffix(".py").replace("/", ".").replace(".__init__", "")
    )
    tree = ast.parse((ROOT / f"{path}i").read_text())
    names = [name for node in tree.body for name in export.names_of(node)]
    for node in tree.body:
        names += [a.asname for a in getattr(node, "names", ()) if a.asname == a.name]
    own = ["nn", "__version__"] * (module is bnlib)
    names = sorted(name for name in names if name not in ("_Array", "__all__"))
    assert names == sorted([*module.__all__, *own])


def test_types_are_read_from_docstrings():
    text = "Do.\n\nParameters\n----------\n*a, b : float or array (C,), in cm\n"
    text += "    c : no\nd : list of str\n\nReturns\n-------\ne : tuple of int"
    either = "float | np.ndarray"
    expected = [("a", either), ("b", either), ("d", "list[str]")]
    assert stubs.said_in(text, "Parameters") == expected
    assert stubs.said_in(text, "Returns") == [("e", "tuple[int, ...]")]


def test_what_is_lazy_is_not_loaded():
    assert not {*bnlib._LAZY} & {*vars(bnlib)} - {"nn"}, "loaded though nobody asked"


def test_what_is_lazy_is_there():
    for name in bnlib._LAZY:
        assert getattr(bnlib, name) and name in dir(bnlib)
    with pytest.raises(AttributeError, match="batch_nrom"):
        bnlib.batch_nrom  # noqa: B018
