"""The book on machines that others lend: Binder, a dev container."""

import json
import re
import stat
import subprocess
import sys
import tomllib
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
NAMES = {"torch": "pytorch-cpu"}  # on conda-forge: the build without CUDA


def wanted(*extras):
    """The requirements of the package with some extras, its own among them resolved."""
    found = list(PROJECT["dependencies"])
    for extra in extras:
        for name in PROJECT["optional-dependencies"][extra]:
            own = re.fullmatch(r"bnlib\[(\w+)\]", name)
            found += wanted(own[1]) if own else [name]
    return list(dict.fromkeys(found))


def test_binder_installs_what_the_chapters_need():
    environment = yaml.safe_load((ROOT / ".binder" / "environment.yml").read_text())
    installed = environment["dependencies"]
    for requirement in wanted("chapters"):
        name, bound = re.fullmatch(r"([\w-]+)(.*)", requirement).groups()
        assert f"{NAMES.get(name, name)}{bound}" in installed
    python = next(d for d in installed if d.startswith("python="))
    said = f"Programming Language :: Python :: {python.split('=')[1]}"
    assert said in PROJECT["classifiers"]


def test_binder_installs_bnlib_from_the_clone():
    script = ROOT / ".binder" / "postBuild"
    assert script.stat().st_mode & stat.S_IXUSR and "install" in script.read_text()
    subprocess.run(["bash", "-n", script], check=True)
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]
    environment = (ROOT / ".binder" / "environment.yml").read_text()
    assert "--no-build-isolation" in script.read_text()
    assert all(f"- {name}\n" in environment for name in build["requires"])


def test_the_container_sets_itself_up_with_the_makefile():
    container = json.loads((ROOT / ".devcontainer/devcontainer.json").read_text())
    image, version = container["image"].split(":")
    said = f"Programming Language :: Python :: {version.split('-')[0]}"
    assert image == "python" and said in PROJECT["classifiers"]
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.M))
    assert set(re.findall(r"make (\w+)", json.dumps(container))) <= targets
    make, chromium = container["postCreateCommand"].split(" && ")
    assert make == "make setup" and chromium.startswith(".venv/bin/playwright install")
    environment = Path(sys.executable).parent
    assert (environment / "playwright").is_file()
