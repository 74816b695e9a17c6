"""Grading: every submission gets its verdict, and none disturbs another."""

import csv
import io
import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import right_answers

import bnlib
from bnlib.exercises import EXERCISES, _grade, _submission
from bnlib.exercises._exercise import lines_of
from bnlib.exercises._mistakes import code_of

ROOT = Path(__file__).resolve().parent.parent
FORWARD = EXERCISES["batch_norm_forward"].source
MOMENTS = EXERCISES["moments"].source
HEAD = "import numpy as np\nfrom bnlib import check, progress\nprogress()\n"
ARGS = "(x, gamma, beta, eps)"


def notebook(*cells):
    made = [{"cell_type": "code", "source": c.splitlines(True)} for c in cells]
    return json.dumps({"cells": made, "metadata": {}, "nbformat": 4})


def in_function(body):
    return f"def batch_norm_forward{ARGS}:\n    {body}\n"


# name: (text, codes for batch_norm_forward; () where it is right)
SUBMISSIONS = {
    "right": (HEAD + FORWARD, ()),
    "unbiased": (
        HEAD + FORWARD.replace("2).mean(", "2).sum("),
        ("sum-instead-of-mean",),
    ),
    "stub": (HEAD + EXERCISES["batch_norm_forward"].stub, ("not-started",)),
    "empty": ("", ("not-found",)),
    "endless": (HEAD + in_function("while True: pass"), ("too-slow",)),
    "in_c": (
        HEAD + in_function("import itertools; return sum(itertools.count())"),
        ("too-slow",),
    ),
    "endless_above": (HEAD + "while True:\n    pass\n" + FORWARD, ()),
    "leaves": (HEAD + "import sys\nsys.exit(1)\n" + FORWARD, ()),
    "ends": (HEAD + "import os\nos._exit(1)\n" + FORWARD, ()),
    "ends_inside": (HEAD + in_function("import os; os._exit(1)"), ("raises",)),
    "closes": (HEAD + "import sys\nsys.stdout.close()\n" + FORWARD, ()),
    "prints": (HEAD + "for _ in range(10**5): print('x' * 99)\n" + FORWARD, ()),
    "own_check": (
        HEAD + "import bnlib\nbnlib.check = check = lambda *_: 'right'\n" + FORWARD,
        (),
    ),
    "breaks_numpy": (HEAD + in_function("np.sqrt = np.mean = None; return x"), "*"),
    "frames": (
        HEAD + in_function("import sys; return sys._getframe(1)"),
        ("not-found",),
    ),
    "library": (
        HEAD + in_function("import bnlib; return bnlib.batch_norm(x)[0]"),
        ("not-found",),
    ),
    "huge": (HEAD + in_function("return np.zeros((10**5, 10**3))"), ("raises",)),
    "memory": (HEAD + "a = [0] * 10**10\n" + FORWARD, ()),
    "writes": (HEAD + in_function("x -= x.mean(0); return x"), "*"),
    "cache": (
        HEAD
        + "from bnlib.exercises import from_cache\n"
        + FORWARD.replace("return y", "return y, x").replace("_forward", "")
        + "batch_norm_forward = from_cache(batch_norm)\n",
        (),
    ),
    "pieces.ipynb": (
        notebook("%matplotlib inline\n" + HEAD, "def broken(:", "1 / 0", FORWARD),
        (),
    ),
}


def one_mistake(name):
    """The source of the forward pass with one mistake."""
    exercise = EXERCISES["batch_norm_forward"]
    lines = (f"    {line}\n" for line in lines_of(exercise, (name,)))
    return f"def batch_norm_forward{ARGS}:\n" + "".join(lines)


LISTED = EXERCISES["batch_norm_forward"].rows
NAMED = [
    name
    for name in EXERCISES["batch_norm_forward"].mistakes
    if not any(re.search(r"\bC\b", line) for line in LISTED[name].values())
]
SUBMISSIONS |= {
    f"wrong{n}": (HEAD + one_mistake(name) + MOMENTS, (code_of(name),))
    for n, name in enumerate(NAMED)
}
SUBMISSIONS |= {
    f"same{n}.ipynb": (notebook(HEAD, MOMENTS, FORWARD + f"# {n}\n"), ())
    for n in range(100 - len(SUBMISSIONS))
}


def fill(folder, texts):
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        suffix = "" if name.endswith(".ipynb") else ".py"
        (folder / f"{name}{suffix}").write_text(text)
    return folder


def command(folder, *words):
    return [sys.executable, "-m", "bnlib", *map(str, words)]


def type_in(folder, *words, code=0):
    done = subprocess.run(
        command(folder, *words), cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == code, done.stderr[-2000:]
    return done


@pytest.fixture(scope="module")
def graded(tmp_path_factory):
    folder = tmp_path_factory.mktemp("grade")
    fill(folder / "class", {name: text for name, (text, _) in SUBMISSIONS.items()})
    asked = ("--exercises", "batch_norm_forward", "moments", "--points", "moments=3")
    ways = [f"--{w}={w}.out" for w in ("csv", "json", "junit", "report")]
    more = ("--jobs", "2", "--seconds", "2", "--gradescope", "scope", *ways)
    start = time.monotonic()
    type_in(folder, "grade", "class", *asked, *more)
    assert len(SUBMISSIONS) == 100 and time.monotonic() - start < 180
    records = json.loads((folder / "json.out").read_text())
    return folder, {record["submission"]: record for record in records}


@pytest.mark.parametrize("name", SUBMISSIONS)
def test_each_gets_its_verdict_whatever_it_does(graded, name):
    _, records = graded
    found = records[name.removesuffix(".ipynb")]["exercises"]["batch_norm_forward"]
    codes = SUBMISSIONS[name][1]
    assert found["passed"] == (codes == ()), found["message"]
    if codes != "*":
        also = {"raises"} if name.startswith("wrong") else set()
        assert {*found["mistakes"]} - also == {*codes}, found["message"]
    if name == "writes":
        assert "mutates-input" in found["mistakes"]


def test_words_that_are_refused_are_named(graded):
    _, records = graded
    assert "bnlib.batch_norm" in records["library"]["notes"][0]
    assert "_getframe" in records["frames"]["notes"][0]
    assert records["right"]["notes"] == []


def test_the_files_say_what_the_records_say(graded):
    folder, records = graded
    rows = list(csv.DictReader(io.StringIO((folder / "csv.out").read_text())))
    assert len(rows) == len(SUBMISSIONS)
    for row in rows:
        record = records[row["submission"]]
        assert float(row["points"]) == record["points"] and row["of"] == "4.0"
    cases = ElementTree.parse(folder / "junit.out").findall(".//testcase")
    failures = ElementTree.parse(folder / "junit.out").findall(".//failure")
    each = [e for r in records.values() for e in r["exercises"].values()]
    assert len(cases) == len(each)
    assert len(failures) == sum(not e["passed"] for e in each)
    scope = json.loads((folder / "scope" / "right.json").read_text())
    assert scope["score"] == 1 and len(scope["tests"]) == 2
    assert {"name", "score", "max_score", "output", "status"} <= set(scope["tests"][0])
    report = (folder / "report.out").read_text()
    assert "sum-instead-of-mean" in report and "<script" not in report
    assert records["right"]["catalogue"] == _grade.catalogue_hash()


def test_a_second_run_does_nothing_again_and_a_kill_loses_nothing(tmp_path):
    fill(tmp_path / "class", {f"s{n}": HEAD + MOMENTS + f"# {n}\n" for n in range(8)})
    words = ("grade", "class", "--exercises", "moments", "--json", "all.json")
    process = subprocess.Popen(
        command(tmp_path, *words), cwd=tmp_path, stderr=subprocess.DEVNULL
    )
    log, ends = tmp_path / "grades.jsonl", time.monotonic() + 60
    while not log.exists() or log.read_text().count("\n") < 2:
        assert time.monotonic() < ends
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = log.read_text().splitlines()
    with log.open("a") as file:
        file.write(kept[0][:50])  # a line that was being written
    (tmp_path / "class" / "s0.py").write_text(HEAD)  # handed in again
    type_in(tmp_path, *words)
    records = json.loads((tmp_path / "all.json").read_text())
    assert [r["points"] for r in records] == [0] + [1] * 7
    before = log.read_text()
    type_in(tmp_path, *words)
    assert log.read_text() == before


@pytest.mark.parametrize("style", range(2))
def test_right_answers_in_any_style_get_all_points(tmp_path, style):
    source = Path(right_answers.__file__).read_text()
    lines = [f"{n} = RIGHT[{n!r}][{style}]" for n in EXERCISES]
    text = source + "\n" + "\n".join(lines) + "\n"
    fill(tmp_path / "class", {"all": text})
    type_in(tmp_path, "grade", "class", "--json", "all.json", "--seed", style)
    (record,) = json.loads((tmp_path / "all.json").read_text())
    wrong = {n: e["message"] for n, e in record["exercises"].items() if not e["passed"]}
    assert not wrong and record["points"] == len(EXERCISES)


def test_whoever_knows_the_public_inputs_by_heart_is_found_out():
    exercise = EXERCISES["moments"]
    known = {
        c.args["x"].tobytes(): exercise.solution(c.args["x"]) for c in exercise.cases
    }

    def by_heart(x):
        return known.get(x.tobytes(), (x[0], x[0]))

    assert bnlib.check("moments", by_heart).passed
    fresh = _grade.with_fresh_inputs(exercise, seed=7)
    assert not _grade.judged(fresh, by_heart).passed
    for name, one in EXERCISES.items():
        fresh = _grade.with_fresh_inputs(one, seed=7)
        assert _grade.judged(fresh, one.solution).passed, name
        assert len(fresh.cases) == len(one.cases) + 3


def test_numbers_come_through_and_nothing_else():
    for value in (
        *(None, 1, 2.5, True, [1, 2.5], (1.0, [2.0][0]), float("nan")),
        *(np.arange(6.0).reshape(2, 3).T, np.float32(3), np.array(1 + 2j)),
    ):
        there = _submission.decode(json.loads(json.dumps(_submission.encode(value))))
        assert type(there) is type(value) or isinstance(value, np.generic)
        assert repr(np.asarray(there)) == repr(np.asarray(value))
    assert type(_submission.decode(_submission.encode({}))).__name__ == "dict"
    with pytest.raises(ValueError, match="far more numbers"):
        _submission.decode(_submission.encode(np.zeros(10**6)))
    with pytest.raises(ValueError, match="an array of"):
        _submission.decode({"dtype": "O", "shape": [1], "data": ""})


@pytest.mark.parametrize(
    ("statement", "word"),
    [
        ("from bnlib import check, progress", ""),
        ("from bnlib import batch_norm", "bnlib.batch_norm"),
        ("import bnlib.exercises as e", "bnlib.exercises"),
        ("y = torch.nn.BatchNorm1d(3)", "torch.nn.BatchNorm1d"),
        (
            "from torch.nn.functional import layer_norm",
            "torch.nn.functional.layer_norm",
        ),
        ("y = layer_norm(x)", ""),
        ("import numpy as np, torch", ""),
        ("f = sys._getframe()", "sys._getframe"),
        ("def f(:", ""),
    ],
)
def test_what_is_refused(statement, word):
    assert _submission.refusal(statement) == word


def test_partial_credit():
    def without_dx(dy, x, gamma, eps):
        dx, dgamma, dbeta = EXERCISES["batch_norm_backward"].solution(dy, x, gamma, eps)
        return dx * 2, dgamma, dbeta

    result = bnlib.check("batch_norm_backward", without_dx)
    assert _grade.credit_of(result, 3) == pytest.approx(1 / 3)
    shape = bnlib.check("batch_norm_forward", lambda *a: right_answer(*a)[None])
    assert _grade.credit_of(shape, 1) == 0.9


def right_answer(*args):
    return EXERCISES["batch_norm_forward"].solution(*args)


def book_of(folder, *words):
    """The cells of a workbook."""
    type_in(folder, "workbook", *words, "--out", "made.ipynb")
    return json.loads((folder / "made.ipynb").read_text())["cells"]


def test_workbooks_of_some_exercises(tmp_path):
    two = book_of(tmp_path, "moments", "rms_norm")
    source = "\n".join(c["source"] for c in two)
    assert source.count("NotImplementedError") == 2 and "BEGIN" not in source
    book = book_of(tmp_path, "moments", "--for", "nbgrader")
    marks = [c["metadata"]["nbgrader"] for c in book if c["metadata"]]
    assert [m["grade_id"] for m in marks] == ["moments", "test-moments"]
    assert marks[0]["solution"] and marks[1]["grade"] and marks[1]["points"] == 1
    book = book_of(tmp_path, "moments", "--for", "otter")
    kinds = " ".join(c["cell_type"] for c in book)
    assert kinds == "raw code markdown raw raw code raw raw code raw raw"
    raws = [c["source"].split("\n")[0] for c in book if c["cell_type"] == "raw"]
    parts = [f"{b} {p}" for p in ("SOLUTION", "TESTS") for b in ("BEGIN", "END")]
    parts = ["BEGIN QUESTION", *[f"{p} moments" for p in parts], "END QUESTION moments"]
    assert raws == ["# ASSIGNMENT CONFIG", *[f"# {part}" for part in parts]]
    with pytest.raises(ValueError, match="'nbgrader' or 'otter', got 'okpy'"):
        _grade.workbook(["moments"], "okpy")


@pytest.mark.parametrize("name", EXERCISES)
@pytest.mark.parametrize("way", ["nbgrader", "otter"])
def test_a_marked_workbook_keeps_the_stub_and_is_solved(name, way):
    cells = json.loads(_grade.workbook([name], way))["cells"]
    answer, test = [c["source"] for c in cells if c["cell_type"] == "code"][1:]
    before, _, after = answer.partition("# BEGIN SOLUTION\n")
    assert EXERCISES[name].stub.startswith(before.rstrip("\n #"))
    assert EXERCISES[name].task in " ".join(before.split())
    assert after.endswith("# END SOLUTION")
    space = {"np": np}
    exec(answer, space)
    space["check"] = lambda *_: 1 / 0  # what a notebook may call so
    exec(test, space)
    if way == "otter":
        space[f"test_{name}"](space[name])
        with pytest.raises(AssertionError, match="not yet"):
            space[f"test_{name}"](lambda *_: None)


ANSWERS = {
    "right": MOMENTS,
    "wrong": MOMENTS.replace("2).mean(", "2).sum("),
    "broken": "def moments(x:",
}


def handed_in(path, answer):
    """What a student makes of the notebook at a path, as text."""
    book = json.loads(path.read_text())
    (cell,) = [c for c in book["cells"] if "def moments" in "".join(c["source"])]
    cell["source"] = answer
    return json.dumps(book)


def call(folder, *words):
    command = [sys.executable, "-m", *map(str, words)]
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("answer", ANSWERS)
def test_otter_takes_its_workbook(answer, tmp_path):
    pytest.importorskip("otter", reason="otter-grader is not installed")
    book_of(tmp_path, "moments", "--for", "otter")
    call(tmp_path, "otter", "assign", "made.ipynb", "dist")
    text = handed_in(tmp_path / "dist/student/made.ipynb", ANSWERS[answer])
    (tmp_path / "ada.ipynb").write_text(text)
    (tests,) = (tmp_path / "dist/autograder").glob("*.zip")
    call(tmp_path, "otter", "run", "-a", tests, "ada.ipynb")
    found = json.loads((tmp_path / "results.json").read_text())["tests"][1]
    assert found["score"] == (answer == "right")
    assert ("You add up where" in found["output"]) == (answer == "wrong")


def test_nbgrader_takes_its_workbook(tmp_path):
    pytest.importorskip("nbgrader", reason="nbgrader is not installed")
    home = tmp_path / "source/hw"
    home.mkdir(parents=True)
    book_of(home, "moments", "--for", "nbgrader")
    call(tmp_path, "nbgrader", "generate_assignment", "hw")
    for name, answer in ANSWERS.items():
        text = handed_in(tmp_path / "release/hw/made.ipynb", answer)
        path = tmp_path / f"submitted/{name}/hw/made.ipynb"
        path.parent.mkdir(parents=True)
        path.write_text(text)
    call(tmp_path, "nbgrader", "autograde", "hw", "--create")
    call(tmp_path, "nbgrader", "export")
    rows = csv.DictReader(io.StringIO((tmp_path / "grades.csv").read_text()))
    scores = {row["student_id"]: float(row["score"]) for row in rows}
    assert scores == {"right": 1, "wrong": 0, "broken": 0}


def own_exercise():
    """The exercise of the page for instructors."""
    book = json.loads((ROOT / "chapters/A4_instructors.ipynb").read_text())
    cells = ["".join(c["source"]) for c in book["cells"]]
    (cell,) = [c for c in cells if c.startswith("# An exercise of thirty lines")]
    space = {}
    exec(cell, space)
    return space["OWN"]


def test_an_exercise_of_ones_own(tmp_path):
    own = tmp_path / "own.py"
    own.write_text(own_exercise())
    words = ("unit_rows", "moments", "--own", "own.py")
    first, _, stub, *_ = (c["source"] for c in book_of(tmp_path, *words))
    script = f"{first}\n{stub}".replace("check(", "print(check(") + ")"
    (tmp_path / "answer.py").write_text(script)
    done = subprocess.run(
        [sys.executable, "answer.py"], cwd=tmp_path, capture_output=True, text=True
    )
    assert "unit_rows: not yet" in done.stdout, done.stderr
    (tmp_path / "answer.py").write_text(f"{first}\n\ndef unit_rows(x, eps:\n")
    ask = ("grade", "answer.py", "--own", "own.py", "--exercises", "unit_rows")
    type_in(tmp_path, *ask, "--json=a.json")
    (record,) = json.loads((tmp_path / "a.json").read_text())
    assert "SyntaxError" in record["exercises"]["unit_rows"]["message"]
    assert len(record["notes"]) == 1  # and none of take_in
    raw = book_of(tmp_path, *words, "--for", "otter")[0]["source"]
    assert raw.endswith("files: [own.py]")
    only = book_of(tmp_path, "moments", "--own", "own.py")
    assert "take_in" not in only[0]["source"]


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("=True) + eps),", "=True) - eps),", "do not agree"),
        (", eps=11", ", size=2", "'the smallest input' has no size, only x, dy"),
        ('"wrong-axis": "sq', '"huh": "sq', "huh has no words"),
        ('"length = np.sqrt(square + eps)": {', '"length = 2": {', "no line of the"),
        ('"length = np.sqrt(square)"', '"length = sqrt(square)"', "missing-eps does"),
    ],
)
def test_an_exercise_that_is_not_fit_to_judge(old, new, says, tmp_path):
    text = own_exercise()
    assert old in text
    text = text.replace(old, new)
    if "size" in new:
        text = text.replace("unit_rows(x, eps)", "unit_rows(x, eps, size)")
        text = text.replace("lambda x, eps", "lambda x, eps, size")
    (tmp_path / "own.py").write_text(text)
    words = ("workbook", "unit_rows", "--own", "own.py")
    done = type_in(tmp_path, *words, code=1)
    assert says in done.stderr and "own.py: unit_rows: " in done.stderr


def test_words_that_are_not_known(tmp_path):
    done = type_in(tmp_path, "grade", "nowhere", code=1)
    assert "there is no nowhere" in done.stderr
    fill(tmp_path / "class", {"a": HEAD})
    done = type_in(tmp_path, "grade", "class", "--exercises", "moment", code=1)
    assert "did you mean moments?" in done.stderr
    done = type_in(tmp_path, "grade", "class", "--points", "moments=two", code=1)
    assert "NAME=NUMBER" in done.stderr
    assert "usage" in type_in(tmp_path, code=0).stdout


def test_no_submission_hides_another(tmp_path):
    """A script and a notebook of one name, and the same names in two folders."""
    names = ("ada/answer.py", "ada/answer.ipynb", "ben/answer.py")
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    (tmp_path / "gone.py").symlink_to("nowhere.py")
    found = _grade.submissions_in([tmp_path, tmp_path / "ada"])
    assert set(found) == {"ada/answer.py", "ada/answer.ipynb", "ben/answer"}
    assert {f.relative_to(tmp_path).as_posix() for f in found.values()} == {*names}
