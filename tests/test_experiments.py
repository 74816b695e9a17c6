"""The committed results say how they came about, and their scripts still run."""

import json
import math
import os
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch

from bnlib.data import CHECKSUMS
from experiments import data_summary, mnist_percentiles
from experiments.provenance import RESULTS, rounded, write

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("BNLIB_DATA") or ROOT.parent / "shared" / "data")
FILES = sorted(RESULTS.glob("*.json"))
PROVENANCE = {
    "command": str,
    "config": dict,
    "seeds": list,
    "versions": dict,
    "machine": str,
    "threads": int,
    "data_sha256": dict,
    "wall_time_s": float,
    "date": str,
}


def load(path):
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.fixture
def real_data(monkeypatch):
    if not (DATA / "mnist").is_dir():
        pytest.skip("no mnist at hand: set BNLIB_DATA to a folder that holds it")
    monkeypatch.setenv("BNLIB_DATA", str(DATA))


def numbers(value):
    """Every float of nested lists and dicts."""
    if isinstance(value, dict | list):
        items = value.values() if isinstance(value, dict) else value
        for item in items:
            yield from numbers(item)
    elif isinstance(value, float):
        yield value


def check_provenance(result):
    """The part that every results file has."""
    facts = result["provenance"]
    for key, kind in PROVENANCE.items():
        assert isinstance(facts[key], kind), key
    assert {"python", "numpy", "torch"} <= set(facts["versions"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", facts["date"]) and facts["wall_time_s"] > 0
    assert all(isinstance(seed, int) for seed in facts["seeds"])
    for name, checksum in facts["data_sha256"].items():
        assert CHECKSUMS[name] == checksum, name
    python, flag, module, *_ = shlex.split(facts["command"])
    assert (python, flag) == ("python", "-m")
    script = ROOT / f"{module.replace('.', '/')}.py"
    assert script.is_file() and module.startswith("experiments."), module
    assert all(math.isfinite(x) for x in numbers(result))
    definitions = result["definitions"]
    assert definitions and all(len(text) > 10 for text in definitions.values())


def test_there_are_results():
    assert {"mnist_percentiles.json", "data_summary.json"} <= {p.name for p in FILES}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_results_file(path):
    text = path.read_text(encoding="utf-8")
    assert len(text) < 300_000, "a page loads this: record less, or round more"
    assert not re.search(r'"(/|[A-Z]:\\|~)', text), "a path of somebody's machine"
    result = load(path)
    check_provenance(result)
    assert result["provenance"]["command"].split()[2] == f"experiments.{path.stem}"


# MNIST percentiles


def check_percentiles(result, seeds, steps):
    """Shapes, ranges, and the quantities that can be computed from others."""
    facts, runs, at = result["provenance"], result["runs"], result["steps"]
    assert facts["seeds"] == seeds and facts["config"]["steps"] == steps == at[-1]
    assert len(facts["data_sha256"]) == 4
    assert at == sorted(set(at)) and at[0] == 0
    kinds = ("baseline", "batch_norm")
    expected = [(kind, seed) for seed in seeds for kind in kinds]
    assert [(run["network"], run["seed"]) for run in runs] == expected
    for run in runs:
        unit = run["typical_unit"]
        low, median, high = (np.array(unit[key]) for key in ("p15", "p50", "p85"))
        assert len(low) == len(at) and (low < median).all() and (median < high).all()
        drift = (median.max() - median.min()) / (high - low).mean()
        assert unit["drift"] == pytest.approx(drift, rel=2e-2)
        assert unit["drift"] == run["drift"] == sorted(run["unit_drift"])[49]
        assert run["unit_drift"][unit["unit"]] == unit["drift"]
        assert run["late_drift"] == sorted(run["unit_late_drift"])[49]
        assert np.shape(run["saturation"]) == (3, len(at))
        assert np.shape(run["gradient_norms"]) == (4, len(at))
        for key in ("loss", "test_accuracy", "median_spread"):
            assert len(run[key]) == len(at)
        for key in ("saturation", "test_accuracy"):
            assert 0 <= np.min(run[key]) <= np.max(run[key]) <= 1
        assert np.min(run["gradient_norms"]) > 0 and min(run["loss"]) > 0
    for kind in kinds:
        own = [run for run in runs if run["network"] == kind]
        last = [run["test_accuracy"][-1] for run in own]
        summary = result["summary"][kind]
        assert summary["final_test_accuracy"]["per_seed"] == last
        assert summary["drift"]["mean"] == pytest.approx(
            np.mean([run["drift"] for run in own]), rel=1e-3
        )
        if len(seeds) > 1:
            sd = np.std(last, ddof=1)
            assert summary["final_test_accuracy"]["sd"] == pytest.approx(sd, rel=1e-2)


def test_recorded_percentiles():
    result = load(RESULTS / "mnist_percentiles.json")
    check_percentiles(result, [0, 1, 2, 3, 4], 50_000)
    assert len(result["steps"]) == 60
    config = {**mnist_percentiles.CONFIG, "steps": 50_000}
    assert result["provenance"]["config"] == config, "run it again: the script changed"
    assert result["definitions"] == mnist_percentiles.DEFINITIONS


def test_percentiles_script(real_data, tmp_path):
    threads = torch.get_num_threads()
    path = tmp_path / "new.json"
    try:
        mnist_percentiles.main(
            ["--seeds", "7", "7", "--steps", "20", "--out", str(path)]
        )
    finally:
        torch.set_num_threads(threads)
    result = load(path)
    check_provenance(result)
    check_percentiles(result, [7, 7], 20)
    command = "python -m experiments.mnist_percentiles --seeds 7 7 --steps 20"
    assert result["provenance"]["command"] == command
    assert result["runs"][:2] == result["runs"][2:], "the same seed, another result"
    assert list(tmp_path.iterdir()) == [path]


def test_percentiles_networks_start_equal():
    first, second = (
        mnist_percentiles.network(k, 3) for k in mnist_percentiles.NETWORKS
    )
    linear = [
        [m for m in net if isinstance(m, torch.nn.Linear)] for net in (first, second)
    ]
    for a, b in zip(*linear, strict=True):
        assert torch.equal(a.weight, b.weight)
        assert abs(a.weight.std() - 0.1) < 0.01
    assert [m.bias is None for m in linear[1]] == [True, True, True, False]
    other = mnist_percentiles.network("baseline", 4)
    assert not torch.equal(other[0].weight, first[0].weight)


def test_percentiles_batches_visit_every_image_once_per_epoch():
    x, y = torch.arange(180.0)[:, None], torch.arange(180)
    source = mnist_percentiles.batches(x, y, 0)
    epochs = [torch.cat([next(source)[1] for _ in range(3)]) for _ in range(2)]
    assert all(sorted(epoch.tolist()) == list(range(180)) for epoch in epochs)
    assert not torch.equal(*epochs)


def test_percentiles_measure_leaves_the_network_alone():
    model = mnist_percentiles.network("batch_norm", 0).train()
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(70, 784, generator=generator)
    labels = torch.randint(10, (70,), generator=generator)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = mnist_percentiles.measure(model, (images, labels), (images, labels))
    after = model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert model.training and all(p.grad is None for p in model.parameters())
    # Batch statistics: the median unit of a fresh layer is centred and has unit spread.
    low, _, high = found["percentiles"]
    assert (low < 0).all() and (high > 0).all()


def test_drift_of_a_made_up_unit():
    """A median that goes 0, 3, 1 with spreads 1, 1, 4 has drifted by 3 / 2."""
    median = torch.tensor([0.0, 3.0, 1.0])
    spread = torch.tensor([1.0, 1.0, 4.0])
    levels = torch.stack([median - spread / 4, median, median + 3 * spread / 4], dim=1)
    assert mnist_percentiles.drifts(levels[:, :, None]).tolist() == [1.5]


def test_summary_of_made_up_runs():
    run = {"drift": 1.0, "late_drift": 0.5, "saturation": [[0.1, 0.2]] * 3}
    runs = [
        {**run, "network": kind, "test_accuracy": [0.1, last]}
        for last in (0.2, 0.4, 0.9)
        for kind in mnist_percentiles.NETWORKS
    ]
    summary = mnist_percentiles.summarise([0, 1000], runs)
    for of_network in summary.values():
        accuracy = of_network["test_accuracy_at_1000"]
        assert accuracy == of_network["final_test_accuracy"]
        assert accuracy["per_seed"] == [0.2, 0.4, 0.9]
        assert accuracy["mean"] == pytest.approx(0.5)
        assert accuracy["sd"] == pytest.approx(0.13**0.5)
        assert of_network["final_saturation_last_hidden"]["mean"] == pytest.approx(0.2)
    single = mnist_percentiles.summarise([0, 1000], runs[:2])
    assert single["baseline"]["drift"]["sd"] is None


# What the data contain


def test_data_summary(real_data, tmp_path):
    """The committed file is what the script writes today, times and versions apart."""
    if not (DATA / "fashion-mnist").is_dir():
        pytest.skip("no fashion-mnist at hand: set BNLIB_DATA to a folder with it")
    data_summary.main(["--out", str(tmp_path / "new.json")])
    new, old = load(tmp_path / "new.json"), load(RESULTS / "data_summary.json")
    assert new["sets"] == old["sets"] and new["definitions"] == old["definitions"]
    check_provenance(new)


# How results are written


def test_rounding_keeps_four_digits_and_all_else():
    value = {"a": [1.23456, 123456.0, -0.00012344, 7], "b": (True, None, "1.23456")}
    assert rounded(value) == {
        "a": [1.235, 123500.0, -0.0001234, 7],
        "b": [True, None, "1.23456"],
    }


def test_writing_is_compact_whole_or_not_at_all(tmp_path, monkeypatch):
    result = {"runs": [{"x": [1, 2.5, -3e-9], "y": [[1, 2], [3, 4]], "z": "a [ 1 ] b"}]}
    write(tmp_path / "new" / "r.json", result)
    text = (tmp_path / "new" / "r.json").read_text()
    assert json.loads(text) == result and '"x": [1, 2.5, -3e-09]' in text
    with pytest.raises(ValueError, match="JSON"):
        write(tmp_path / "new" / "r.json", {"x": math.nan})

    def full(path, text, encoding=None):
        with open(path, "w") as file:
            file.write(text[:5])
        raise OSError("no space left")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="no space"):
        write(tmp_path / "new" / "r.json", {"x": 2.5})
    (kept,) = (tmp_path / "new").iterdir()
    assert kept.read_text() == text
