"""From chapters/A4_instructors.ipynb.

Extracted by `make export`: edit the notebook, not this file.
"""

import argparse
import ast
import builtins
import collections
import contextlib
import csv
import dataclasses
import difflib
import functools
import hashlib
import html
import importlib.metadata
import inspect
import io
import json
import multiprocessing
import os
import queue
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from bnlib import exercises
from bnlib.exercises._check import judged
from bnlib.exercises._exercise import words_for
from bnlib.exercises._submission import (
    decode,
    encode,
)


class EndedError(Exception):
    """The process of a submission has ended, or says what nobody can read."""


class Submission:
    """A process that runs a submission; begun again, without what ended it."""

    def __init__(self, path, seconds=5.0, memory=4 * 2**30):
        self.path, self.seconds, self.memory = str(path), seconds, memory
        self.skipped, self.notes, self.functions = set(), [], {}
        self.process = None
        for _ in range(4):
            if self.start():
                break

    def start(self):
        """Run the statements; False if the process had to be ended, which is noted."""
        self.stop()
        away, requests = os.pipe()
        replies, back = os.pipe()
        call = (self.path, away, back, sorted(self.skipped), self.seconds, self.memory)
        code = f"import runpy; runpy.run_path({_SIDE!r})['serve'](*{call!r})"
        self.folder = tempfile.mkdtemp(prefix="bnlib-")
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-c", code],
            pass_fds=(away, back),
            cwd=self.folder,
            env={"OMP_NUM_THREADS": "1", "HOME": self.folder, "PATH": os.defpath},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        os.close(away)
        os.close(back)
        self.requests, self.replies, self.buffer = requests, replies, b""
        return self._load()

    def _load(self):
        at, notes, ends = None, [], time.monotonic() + 6 * self.seconds
        try:
            while True:
                left = min(
                    ends - time.monotonic(), 2 * self.seconds + 20 * (at is None)
                )
                message = self.read(left)
                at = message.get("statement", at)
                notes += [str(message["note"])] if "note" in message else []
                self.skipped |= {at} if message.get("late") else set()
                if "ready" in message:
                    self.functions = dict(message["ready"])
                    self.notes = list(dict.fromkeys(self.notes + notes))
                    return True
        except EndedError as error:
            self.skipped |= set(range(10**4)) if at is None else {at}
            self.notes.append(f"statement {at}: left out, {error}")
            return False

    def read(self, seconds):
        """The next message, within so many seconds."""
        ends = time.monotonic() + seconds
        while b"\n" not in self.buffer:
            left = ends - time.monotonic()
            if left <= 0 or not select.select([self.replies], [], [], left)[0]:
                raise EndedError("it did not come to an end")
            part = os.read(self.replies, 1 << 16)
            if not part or len(self.buffer) > 5 * 10**7:
                raise EndedError(
                    "it ended its own process" if not part else "far too much"
                )
            self.buffer += part
        line, _, self.buffer = self.buffer.partition(b"\n")
        try:
            message = json.loads(line)
            return message if isinstance(message, dict) else {}
        except ValueError:
            raise EndedError("it wrote where it should not") from None

    def stop(self):
        """End the process and all that it has begun; nothing of it stays."""
        if self.process is None:
            return
        with contextlib.suppress(OSError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        for end in (self.requests, self.replies):
            os.close(end)
        shutil.rmtree(self.folder, ignore_errors=True)
        self.process = None

    def function(self, name, script=None):
        """A function of the submission, or of a class by its script, seen from here."""
        more = {"script": inspect.getsource(script)} if script else {}

        def proxy(*args, **kwargs):
            given = {"args": list(map(encode, args))} | more
            given["kwargs"] = {n: encode(a) for n, a in kwargs.items()}
            line = json.dumps({"name": name} | given) + "\n"
            try:
                os.write(self.requests, line.encode())
                reply = self.read(60)
            except OSError as error:
                raise EndedError("it ended its own process") from error
            if "error" in reply:
                raise _as_error(reply)
            for i, array in reply.get("changed", {}).items():
                array = decode(array)
                target = [*args, *kwargs.values()][int(i)]
                if np.shape(array) == target.shape:
                    target[...] = array
                else:
                    target += 1
            return decode(reply["result"])

        parameters = self.functions[name]
        if parameters is not None and not script:
            with contextlib.suppress(ValueError, TypeError):
                proxy.__signature__ = inspect.Signature(map(_parameter, parameters))
        return proxy


def _parameter(told):
    name, kind, optional = told
    default = None if optional else inspect.Parameter.empty
    return inspect.Parameter(name, inspect._ParameterKind(kind), default=default)


def _as_error(reply):
    """An error of the submission, as one that can be raised here."""
    name, text = str(reply["error"])[:60], str(reply.get("text", ""))[:300]
    kind = getattr(builtins, name, None)
    known = isinstance(kind, type) and kind in (
        ValueError,
        NotImplementedError,
        TypeError,
    )
    error = kind(text) if known else type(name or "Exception", (Exception,), {})(text)
    error.place = str(reply.get("place", ""))[:200]
    error.mistake = str(reply.get("mistake", ""))
    return error


_SIDE = (
    str(Path(__file__).with_name("_submission.py")) if "__file__" in globals() else ""
)


CREDIT = {"": 1.0, "manners": 0.9, "numerics": 0.75}


def catalogue_hash(own=None):
    """Twelve digits that change with every exercise, input and mistake."""
    folder, digest = Path(exercises.__file__).parent, hashlib.sha256()
    for path in [*sorted(folder.rglob("*.py")), *([Path(own)] if own else [])]:
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def with_fresh_inputs(exercise, seed):
    """The exercise with three more inputs that nobody has seen, moved by a seed."""

    def inputs():
        yield from exercise.inputs()
        rng = np.random.default_rng([seed, *exercise.name.encode()])
        able = [c for c in exercise.cases if c.kind == "ordinary"]
        able.sort(key=lambda c: -sum(np.size(a) for a in c.args.values()))
        for n, case in enumerate(able[:3], start=1):
            args = {name: _moved(name, a, rng) for name, a in case.args.items()}
            yield case._replace(label=f"fresh input {n}", args=args, refusable=False)

    return dataclasses.replace(exercise, inputs=inputs)


def _moved(name, value, rng):
    if np.asarray(value).dtype.kind == "i" or name in ("rmax", "dmax", "momentum"):
        return value
    moved = value * (1 + 0.2 * rng.uniform(size=np.shape(value)))
    if name in ("x", "dy", "weight", "means"):
        moved = moved + 0.2 * np.std(moved) * rng.normal(size=moved.shape)
    return np.asarray(moved) if np.ndim(value) else float(moved)


def credit_of(result, outputs):
    """The share of the points: for right, for nearly right, for outputs that are."""
    if result.severity in CREDIT:
        return CREDIT[result.severity]
    return 0.5 * len(result.right) / outputs if outputs > 1 else 0.0


def faults_of(exercise):
    """What keeps an exercise from judging anybody: sentences, for its author."""
    needed = exercise.arguments
    for case in exercise.inputs():
        if lacking := [name for name in needed if name not in case.args]:
            yield (
                f"the input {case.label!r} has no {lacking[0]}, only "
                f"{', '.join(case.args)}; add it: Case(label, {{argument: value}})"
            )
            return
    result = judged(exercise, exercise.solution)
    if not result.passed:
        bare = dataclasses.replace(result, says=(), remarks=(), hints=())
        yield f"source and reference do not agree; yours is the source\n{bare.message}"
        return
    for line in exercise.wrong_lines.keys() - {*exercise.lines}:
        yield f"wrong_lines: {line!r} is no line of the source"
    own = {name for wrongs in exercise.wrong_lines.values() for name in wrongs}
    for name in sorted(own - {*exercise.mistakes}):
        yield f"{name} does not run, changes no number, or does what another does"
    for name in exercise.mistakes:
        with contextlib.suppress(KeyError):
            words_for(exercise, name)
            continue
        yield f"{name} has no words: a line that says it, and one with a hint"


def take_in(own):
    """Add the exercises of a script, if they are fit to judge somebody."""
    names = exercises.take_in(own) if own else ()
    for name in names:
        for fault in faults_of(exercises.EXERCISES[name]):
            raise SystemExit(f"{own}: {name}: {fault}")
    return names


def _lost(code, message, points):
    """What is found where nothing can be judged."""
    lost = {"passed": False, "mistakes": [code], "severity": "numbers"}
    return lost | {"message": message, "credit": 0.0, "points": 0.0, "of": points}


def graded(path, asked, seed, seconds, memory):
    """{name of an exercise: what is found}, and notes, for one submission."""
    found, submission = {}, Submission(path, seconds, memory)
    try:
        for name, points in asked.items():
            if name not in submission.functions:
                says = [f"There is no function called {name}.", *submission.notes]
                found[name] = _lost("not-found", "\n".join(says), points)
                continue
            found[name] = _judge(submission, name, points, seed)
        return {"exercises": found, "notes": submission.notes}
    finally:
        submission.stop()


def _judge(submission, name, points, seed):
    exercise = _fresh(name, seed)
    result = judged(exercise, submission.function(name, exercise.script))
    if submission.process.poll() is not None or "too-slow" in result.mistakes:
        submission.start()  # nobody knows what state it was left in
    credit = credit_of(result, len(exercise.outputs))
    return {
        "passed": result.passed,
        "mistakes": list(result.mistakes),
        "severity": result.severity,
        "right": list(result.right),
        "message": result.message,
        "says": list(result.says),
        "hints": list(result.hints),
        "credit": credit,
        "points": round(credit * points, 4),
        "of": points,
    }


@functools.cache
def _fresh(name, seed):
    return with_fresh_inputs(exercises.EXERCISES[name], seed)


def _work(pipe, own):
    """A process of the grader: takes submissions, gives grades, until it is told."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if own:
        exercises.take_in(own)
    with contextlib.suppress(EOFError, OSError):  # whoever asked is gone
        while True:
            pipe.send(graded(*pipe.recv()))


class _Worker:
    """One such process, and another one if it should end."""

    def __init__(self, own):
        self.process, self.own = None, own

    def start(self):
        context = multiprocessing.get_context("spawn")
        self.pipe, other = context.Pipe()
        self.process = context.Process(
            target=_work, args=(other, self.own), daemon=True
        )
        self.process.start()
        other.close()

    def ask(self, *task, seconds):
        """The grade; or one that says that none could be found, never an exception."""
        try:
            if self.process is None or not self.process.is_alive():
                self.start()
            self.pipe.send(task)
            if self.pipe.poll(seconds):
                return self.pipe.recv()
            why = f"it took more than {seconds:g} seconds"
        except Exception as error:
            why = f"the grader's process ended ({type(error).__name__})"
        self.stop()
        says = f"Not graded: {why}."
        each = {name: _lost("not-graded", says, p) for name, p in task[1].items()}
        return {"exercises": each, "notes": [why]}

    def stop(self):
        if self.process is not None:
            self.process.kill()
            self.process.join()
            self.process = None


def submissions_in(paths):
    """The notebooks and scripts among these files and folders, each with its name."""
    files = []
    for path in map(Path, paths):
        inside = sorted(path.rglob("*")) if path.is_dir() else [path]
        files += [f for f in inside if f.suffix in (".py", ".ipynb") and f.is_file()]
        if not path.exists():
            raise SystemExit(f"grade: there is no {path}")
    files = [f for f in dict.fromkeys(files) if ".ipynb_checkpoints" not in f.parts]
    shared = Path(os.path.commonpath([f.resolve().parent for f in files] or ["."]))
    whole = [f.resolve().relative_to(shared) for f in files]
    bare = [str(path.with_suffix("")) for path in whole]
    named = zip(bare, whole, strict=True)  # a script and a notebook of one name are two
    names = (b if bare.count(b) == 1 else str(w) for b, w in named)
    return dict(zip(names, files, strict=True))


def grade(
    paths, asked, *, seed=0, jobs=1, seconds=5.0, memory=4 * 2**30, log=None, own=None
):
    """Grade submissions; yields a record for each as it is done.

    asked : {exercise: points}. log : a file to which every record is added at once;
    what it holds already, of the same text, exercises and catalogue, is not done again.
    """
    todo, known = queue.Queue(), _read_log(log)
    done = queue.Queue()
    about = {"seed": seed, "catalogue": catalogue_hash(own), "version": _version()}
    for name, path in submissions_in(paths).items():
        text = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
        key = {"submission": name, "text": text, "asked": asked, **about}
        old = known.get(json.dumps(key, sort_keys=True))
        (done.put(old) if old else todo.put((key, path)))
    count = todo.qsize() + done.qsize()
    limit = 60 + len(asked) * 10 + 10 * seconds

    def work():
        worker = _Worker(own)
        with contextlib.suppress(queue.Empty):
            while True:
                key, path = todo.get_nowait()
                task = (str(path.resolve()), asked, seed, seconds, memory)
                done.put({**key, **worker.ask(*task, seconds=limit)})
        worker.stop()

    for _ in range(min(jobs, todo.qsize())):
        threading.Thread(target=work, daemon=True).start()
    for _ in range(count):
        record = done.get()
        each = record["exercises"].values()
        record["points"] = round(sum(e["points"] for e in each), 4)
        record["of"] = sum(asked.values())
        if log and json.dumps(_key(record), sort_keys=True) not in known:
            with open(log, "a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")
        yield record


def _key(record):
    names = ("submission", "text", "asked", "seed", "catalogue", "version")
    return {name: record[name] for name in names}


def _read_log(log):
    """{key: record} of a log; a last line that was cut off does not count."""
    known = {}
    if log and Path(log).exists():
        text = Path(log).read_text(encoding="utf-8")
        if text and not text.endswith("\n"):
            Path(log).write_text(text + "\n", encoding="utf-8")
        for line in text.splitlines():
            with contextlib.suppress(ValueError, KeyError):
                record = json.loads(line)
                known[json.dumps(_key(record), sort_keys=True)] = record
    return known


def _version():
    try:
        return importlib.metadata.version("bnlib")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def as_csv(records):
    """One row per submission: points, and of each exercise points and mistakes."""
    file, names = io.StringIO(), list(records[0]["asked"]) if records else []
    heads = [f"{n} {what}" for n in names for what in ("points", "mistakes")]
    table = csv.writer(file, lineterminator="\n")
    table.writerow(["submission", "points", "of", *heads])
    for record in records:
        row = [record["submission"], record["points"], record["of"]]
        for name in names:
            each = record["exercises"][name]
            row += [each["points"], " ".join(each["mistakes"])]
        table.writerow(row)
    return file.getvalue()


def as_junit(records):
    """One suite per submission, one case per exercise."""
    root = ElementTree.Element("testsuites", name="bnlib")
    for record in records:
        each = record["exercises"]
        failed = str(sum(not e["passed"] for e in each.values()))
        suite = ElementTree.SubElement(
            root, "testsuite", name=record["submission"], tests=str(len(each)),
            failures=failed, errors="0",
        )  # fmt: skip
        for name, found in each.items():
            case = ElementTree.SubElement(
                suite, "testcase", classname=record["submission"], name=name
            )
            if not found["passed"]:
                kind = " ".join(found["mistakes"])
                failure = ElementTree.SubElement(case, "failure", message=kind)
                failure.text = _printable(found["message"])
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True)


def _printable(text):
    """Text without the characters that XML forbids."""
    return "".join(c for c in text if c in "\n\t" or ord(c) >= 32)


def as_gradescope(record):
    """The results.json of one submission, as Gradescope's autograders write it."""
    tests = [
        {
            "name": name,
            "score": found["points"],
            "max_score": found["of"],
            "status": "passed" if found["passed"] else "failed",
            "output": found["message"],
            "tags": found["mistakes"],
            "visibility": "visible",
        }
        for name, found in record["exercises"].items()
    ]
    about = {n: record[n] for n in ("version", "catalogue", "seed")}
    return {
        "score": record["points"],
        "output": "\n".join(record["notes"]),
        "visibility": "visible",
        "tests": tests,
        "extra_data": about,
    }


def class_report(records):
    """(exercise, mistake, how many, what happened, hint), the commonest first."""
    rows, said = [], {}
    for name in records[0]["asked"] if records else ():
        counts = collections.Counter()
        for record in records:
            found = record["exercises"][name]
            counts.update(dict.fromkeys(found["mistakes"], 1))
            pairs = zip(found["mistakes"], found.get("says", ()), strict=False)
            said |= {(name, code): says for code, says in pairs if says}
        for code, count in counts.most_common():
            says, hint = _words(name, code)
            rows.append((name, code, count, says or said.get((name, code), ""), hint))
    return rows


def _words(name, code):
    own = {
        "not-found": "There is no function of this name.",
        "not-graded": "Not graded.",
    }
    try:
        return words_for(exercises.EXERCISES[name], code)
    except KeyError:
        return own.get(code, ""), ""


def class_csv(records):
    file = io.StringIO()
    table = csv.writer(file, lineterminator="\n")
    table.writerow(["exercise", "mistake", "submissions", "what happened", "hint"])
    table.writerows(class_report(records))
    return file.getvalue()


def class_html(records):
    """The same as a page, with how many solved what, and a row per submission."""
    rows, names = class_report(records), list(records[0]["asked"]) if records else []
    parts = [f"<h1>{len(records)} submissions</h1>"]
    for name in names:
        solved = sum(r["exercises"][name]["passed"] for r in records)
        parts.append(f"<h2>{name}: {solved} of {len(records)} right</h2>")
        own = [row[1:] for row in rows if row[0] == name]
        heads = ("mistake", "how many", "what happened", "hint for the lecture")
        parts.append(_html_table(heads, own) if own else "<p>No mistake.</p>")
    marks = []
    for record in records:
        found = [" ".join(record["exercises"][n]["mistakes"]) or "right" for n in names]
        points = f"{record['points']:g} of {record['of']:g}"
        marks.append([record["submission"], points, *found])
    parts.append("<h2>Submissions</h2>" + _html_table(("", "points", *names), marks))
    style = "body{font:1rem/1.5 sans-serif;margin:2rem}td,th{text-align:left;padding:"
    style += ".2rem .8rem .2rem 0;vertical-align:top;border-bottom:1px solid #ccc}"
    head = f'<meta charset="utf-8"><title>Class report</title><style>{style}</style>'
    return f'<!doctype html><html lang="en">{head}{"".join(parts)}</html>'


def _html_table(heads, rows):
    def line(cells, tag):
        return "".join(f"<{tag}>{html.escape(str(c))}</{tag}>" for c in cells)

    body = "".join(f"<tr>{line(row, 'td')}</tr>" for row in rows)
    return f"<table><tr>{line(heads, 'th')}</tr>{body}</table>"


def _arguments(argv):
    parser = argparse.ArgumentParser(
        prog="python -m bnlib grade",
        description="Grade notebooks and scripts: each in a process of its own.",
    )
    add = parser.add_argument
    add("submissions", nargs="+", help="files .ipynb and .py, or folders of them")
    add("--exercises", nargs="+", metavar="NAME", help="which count; all, if not said")
    add("--points", nargs="+", metavar="NAME=P", default=[], help="1 each, if not said")
    add("--jobs", type=int, default=1, help="how many at the same time")
    add("--seed", type=int, default=0, help="of the fresh inputs")
    add("--seconds", type=float, default=5.0, help="for one statement of a submission")
    add("--memory", type=int, default=4096, help="megabytes for a submission")
    add("--own", metavar="FILE", help="a script with exercises of your own")
    add("--log", default="grades.jsonl", help="what is done, and need not be again")
    for name, what in (
        ("csv", "a row per submission"),
        ("json", "all that is known"),
        ("junit", "XML, for test reports"),
        ("gradescope", "results.json; a folder of them for several"),
        ("report", "which mistake how many made: .html or .csv"),
    ):
        add(f"--{name}", metavar="FILE", help=what)
    return parser.parse_args(argv)


def _asked(names, points):
    """{exercise: points}, or an exit that says which name is not known."""
    asked = dict.fromkeys(names or exercises.EXERCISES, 1.0)
    try:
        asked |= {n: float(p) for n, _, p in (text.partition("=") for text in points)}
    except ValueError:
        raise SystemExit(
            "grade: --points takes NAME=NUMBER, such as moments=2"
        ) from None
    for name in asked:
        if name not in exercises.EXERCISES:
            near = difflib.get_close_matches(name, exercises.EXERCISES, n=1)
            guess = f"; did you mean {near[0]}?" if near else ""
            raise SystemExit(f"grade: there is no exercise {name!r}{guess}")
    return asked


def main(argv=None):
    """`python -m bnlib grade …`: grade, show how far it is, write what is asked for."""
    argv = sys.argv[1:] if argv is None else argv
    if argv[:1] == ["workbook"]:
        return _workbook(argv[1:])
    if argv[:1] != ["grade"]:
        print("usage: python -m bnlib grade SUBMISSIONS…, or workbook EXERCISES…")
        print("--help after either of the two says the rest")
        return 0 if argv[:1] in ([], ["--help"], ["-h"]) else 2
    args = _arguments(argv[1:])
    take_in(args.own)
    asked = _asked(args.exercises, args.points)
    count = len(submissions_in(args.submissions))
    limits = {"seconds": args.seconds, "memory": args.memory * 2**20}
    ways = {"seed": args.seed, "jobs": args.jobs, "log": args.log, **limits}
    ways |= {"own": args.own}
    records = []
    for record in grade(args.submissions, asked, **ways):
        records.append(record)
        bar = "#" * round(30 * len(records) / count)
        end = "\n" if len(records) == count else ""
        text = f"\r[{bar:30}] {len(records)} of {count}"
        print(text, end=end, file=sys.stderr, flush=True)
    records.sort(key=lambda record: record["submission"])
    _write(args, records)
    mean, of = sum(r["points"] for r in records) / max(1, count), sum(asked.values())
    several = "s" * (len(records) != 1)
    average = " on average" * (len(records) != 1)
    print(f"{len(records)} submission{several}, {mean:.2f} of {of:g} points{average}")
    return 0


def _workbook(argv):
    parser = argparse.ArgumentParser(prog="python -m bnlib workbook")
    parser.add_argument("exercises", nargs="+", help="names, in the order wanted")
    parser.add_argument("--own", metavar="FILE", help="exercises of your own")
    parser.add_argument(
        "--for", dest="for_", default="", choices=["", "nbgrader", "otter"]
    )
    parser.add_argument("--out", default="workbook.ipynb", metavar="FILE")
    args = parser.parse_args(argv)
    own = args.own if {*take_in(args.own)} & {*args.exercises} else ""
    text = workbook(_asked(args.exercises, []), args.for_, own)
    Path(args.out).write_text(text, encoding="utf-8")
    return 0


def _write(args, records):
    report = class_csv if str(args.report).endswith("csv") else class_html
    ways = {args.csv: as_csv, args.junit: as_junit, args.report: report}
    ways[args.json] = functools.partial(json.dumps, indent=1)
    for name, way in ways.items():
        if name:
            Path(name).write_text(way(records), encoding="utf-8")
    if args.gradescope and len(records) == 1:
        text = json.dumps(as_gradescope(records[0]), indent=1)
        Path(args.gradescope).write_text(text, encoding="utf-8")
    elif args.gradescope:
        for record in records:
            path = Path(args.gradescope) / f"{record['submission']}.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            text = json.dumps(as_gradescope(record), indent=1)
            path.write_text(text, encoding="utf-8")


_FIRST = """\
import numpy as np

from bnlib import check"""


_TAKES = """

from bnlib.exercises import take_in

take_in("{}")"""


def workbook(names, for_="", own=""):
    """A notebook of stubs, as text; for nbgrader or Otter one that they take apart.

    for_="nbgrader" or "otter": solutions and tests, marked for `nbgrader
    generate_assignment` and `otter assign`, which write what students get.
    own: a script with exercises, which lies beside the notebook.
    """
    ways = {"": _plain, "nbgrader": _for_nbgrader, "otter": _for_otter}
    if for_ not in ways:
        raise ValueError(f"for_ must be '', 'nbgrader' or 'otter', got {for_!r}")
    script = Path(own).name
    cells = [_cell("code", _FIRST + (_TAKES.format(script) if own else ""))]
    if for_ == "otter":
        files = f"\nfiles: [{script}]" if own else ""
        cells.insert(0, _cell("raw", _OTTER + files))
    for exercise in (exercises.EXERCISES[name] for name in names):
        text = _cell("markdown", f"## {exercise.title}\n\n{exercise.task}")
        cells += [text, *ways[for_](exercise)]
    about = {"display_name": "Python 3", "language": "python", "name": "python3"}
    book = {"cells": cells, "metadata": {"kernelspec": about}}
    return json.dumps(book | {"nbformat": 4, "nbformat_minor": 5}, indent=1) + "\n"


def _as_check(exercise):
    return f'check("{exercise.name}", {exercise.name})'


def _test(exercise):
    """What a grader runs: with the check of the book, whatever a notebook calls so."""
    return f"from bnlib import check\n\n{_as_check(exercise)}.assert_right()"


def _plain(exercise):
    return [_cell("code", f"{exercise.stub}\n\n{_as_check(exercise)}")]


def _solved(exercise, begin, end):
    """The stub's first lines and the solution's others, between two marks."""
    stub, source = exercise.stub.rstrip(), exercise.source.rstrip()
    said, own = (ast.parse(t).body[0].body[0] for t in (stub, source))
    head = stub.splitlines()[: said.end_lineno]
    rest = source.splitlines()[own.lineno - 1 :]
    return "\n".join([*head, f"    {begin}", *rest, f"    {end}"])


def _for_nbgrader(exercise):
    name = exercise.name
    answer = _solved(exercise, "### BEGIN SOLUTION", "### END SOLUTION")
    marks = _mark(f"test-{name}", grade=True, locked=True, points=1)
    yield _cell("code", answer, _mark(name, solution=True))
    # It would take a value that is shown for a number of points.
    yield _cell("code", _test(exercise) + ";", marks)


def _mark(name, **changes):
    """What nbgrader wants to know of a cell."""
    known = {"grade": False, "solution": False, "locked": False, "task": False}
    about = {"grade_id": name, "schema_version": 3}
    return {"nbgrader": known | about | changes}


_OTTER = """\
# ASSIGNMENT CONFIG
export_cell:
    pdf: false
generate: true
tests:
    ok_format: false"""


def _for_otter(exercise):
    name = exercise.name
    yield _cell("raw", f"# BEGIN QUESTION\nname: {name}\npoints: 1")
    yield _cell("raw", f"# BEGIN SOLUTION {name}")
    yield _cell("code", _solved(exercise, "# BEGIN SOLUTION", "# END SOLUTION"))
    yield _cell("raw", f"# END SOLUTION {name}")
    yield _cell("raw", f"# BEGIN TESTS {name}")
    test = textwrap.indent(_test(exercise), "    ")
    yield _cell("code", f"def test_{name}({name}):\n{test}")
    yield _cell("raw", f"# END TESTS {name}")
    yield _cell("raw", f"# END QUESTION {name}")


def _cell(kind, source, metadata=None):
    name = hashlib.md5(source.encode()).hexdigest()[:8]
    cell = {"cell_type": kind, "id": name, "metadata": metadata or {}, "source": source}
    return cell | ({"execution_count": None, "outputs": []} if kind == "code" else {})
