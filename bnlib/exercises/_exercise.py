"""From chapters/A3_exercises.ipynb.

Extracted by `make export`: edit the notebook, not this file.
"""

import ast
import contextlib
import difflib
import functools
import inspect
import itertools
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from bnlib.exercises._mistakes import WORDS, WRONG_LINES, code_of, entries


def _words(line):
    return re.findall(r"\w+|\W", line)


@functools.cache
def _changes(right, wrong):
    """(start, end, new words) of each place where a wrong line departs."""
    old, new = _words(right), _words(wrong)
    steps = difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes()
    return [(i, j, new[k:m]) for same, i, j, k, m in steps if same != "equal"]


@functools.cache
def _code(line):
    """A line, ready to run; None if it is not Python."""
    line = line + " pass" if line.endswith(":") else line
    with contextlib.suppress(SyntaxError):
        return compile(re.sub(r"\breturn\b", "_ =", line), "<mistake>", "exec")


@functools.cache
def _written(right, wrongs):
    """A line with the changes of several; None where they touch the same words."""
    words, changed = _words(right), len(right)
    found = [change for wrong in wrongs for change in _changes(right, wrong)]
    for start, end, new in sorted(found, key=lambda c: c[:2], reverse=True):
        if end > changed:
            return None
        words[start:end], changed = new, start
    return "".join(words) if _code("".join(words)) else None


def _function(lines, arguments, constant):
    """The function of these arguments that consists of these lines; C is a number."""

    def mutant(*args):
        space = {"np": np, "C": constant, **dict(zip(arguments, args, strict=True))}
        for line in lines:
            exec(_code(line), space)
        return space["_"]

    return mutant


SAMPLE = 1e-3  # what C is in a wrong line, where nothing else is known


@dataclass(frozen=True, eq=False)
class Exercise:
    """One exercise: what its chapter says, and what is needed to judge an answer.

    outputs : their names. hints : two, the second says more. stub, source : what a
    learner starts from, and the solution. reference : gives the expected outputs, from
    the package. inputs : gives the cases. wrong_lines : {right line: {mistake: wrong
    line}}, beside the shared ones. words : sentences for this exercise only.
    properties : what must hold of any answer. flexible : shape (1, C) will do for (C,).
    script : where the answer is a class, what is done with it: (class, arguments) ->
    outputs; of numpy, np and sys alone, since it is sent to where submissions run.
    """

    name: str
    title: str
    chapter: str
    outputs: tuple
    hints: tuple
    stub: str
    source: str
    reference: Callable
    inputs: Callable
    wrong_lines: dict
    words: str = ""
    properties: tuple = ()
    flexible: bool = False
    script: Callable | None = None

    @cached_property
    def arguments(self):
        """The names of the arguments, in order."""
        if self.script:
            return tuple(inspect.signature(self.script).parameters)[1:]
        return tuple(re.findall(r"\w+", self.source.splitlines()[0])[2:])

    @property
    def signature(self):
        """What goes in and what comes out: "moments(x) -> (mean, var)"."""
        if self.script:  # of a class, how one is made
            return self.name + re.search(r"__init__\(self, (.+)\):", self.stub)[1].join(
                "()"
            )
        out = ", ".join(self.outputs)
        out = f"({out})" if len(self.outputs) > 1 else out
        return f"{self.name}({', '.join(self.arguments)}) -> {out}"

    @property
    def task(self):
        """The task, in a sentence or two: the docstring of the stub."""
        return " ".join(ast.get_docstring(ast.parse(self.stub).body[0]).split())

    @cached_property
    def solution(self):
        """The solution as a function."""
        space = {"np": np}
        exec(self.source, space)
        return self.as_function(space[self.name])

    def as_function(self, answer):
        """An answer as a function of the arguments, which a class is by its script."""
        is_class = self.script and isinstance(answer, type)
        return functools.partial(self.script, answer) if is_class else answer

    @cached_property
    def own_words(self):
        """{mistake: (what happened, hint)} for this exercise only."""
        return entries(self.words)

    @cached_property
    def cases(self):
        """The inputs, smallest first, each with the arguments of this exercise."""
        kept = {}
        for case in self.inputs():
            args = {name: case.args[name] for name in self.arguments}
            key = repr([np.asarray(a).tolist() for a in args.values()])
            kept.setdefault(key, case._replace(args=args))
        return tuple(kept.values())

    @cached_property
    def lines(self):
        """The steps of the solution, one a line."""
        return [line.strip() for line in self.source.splitlines()[1:]]

    @cached_property
    def rows(self):
        """{mistake: {number of a line: how it is written}}; its own replace shared."""
        own = {name for wrongs in self.wrong_lines.values() for name in wrongs}
        shared = {
            right: {name: wrong for name, wrong in wrongs.items() if name not in own}
            for right, wrongs in WRONG_LINES.items()
        }
        found = {}
        for right, wrongs in (*self.wrong_lines.items(), *shared.items()):
            for name, wrong in wrongs.items() if right in self.lines else ():
                found.setdefault(name, {})[self.lines.index(right)] = wrong
        return found

    @cached_property
    def mistakes(self):
        """The names of all mistakes that run, change a number, and are new."""
        told = functools.cache(lambda names, label: self._numbers([names], label)[0])
        every = [(), *((name,) for name in self.rows)]
        table, kept = self._numbers(every, self._most_telling[0]), []

        def same(a, b):
            labels = self._most_telling[1:]
            return all(_alike(told(a, label), told(b, label)) for label in labels)

        for n, names in enumerate(every):
            near = _are_alike(table[n], table[kept]).nonzero()[0]
            if not any(same(names, every[kept[k]]) for k in near):
                kept.append(n)
        return tuple(name for n in kept for name in every[n])

    @cached_property
    def pairs(self):
        """Two mistakes at a time, where they touch other words and do not cancel."""
        every, rows = list(itertools.combinations(self.mistakes, 2)), self.rows
        meet = {p for p in every if not rows[p[0]].keys().isdisjoint(rows[p[1]])}
        alone = {name: lines_of(self, (name,)) for name in self.mistakes}
        new = [p for p in meet if lines_of(self, p) not in (None, *map(alone.get, p))]
        right, *table = self._numbers([(), *new], self._most_telling[0])
        is_other = [not _alike(right, numbers) for numbers in table]
        told = zip(new, is_other, strict=True)
        meet -= {p for p, is_told in told if is_told or self.is_wrong(*p)}
        return tuple(p for p in every if p not in meet)

    @cached_property
    def _most_telling(self):
        """The inputs, the one first on which most mistakes differ: a large one."""
        size = {c.label: sum(map(np.size, c.args.values())) for c in self.cases}
        return sorted(size, key=size.get, reverse=True)

    def mutant(self, *mistakes, constant=SAMPLE):
        """The solution with these mistakes, as a function of the arguments."""
        return self.with_lines(lines_of(self, mistakes), constant)

    def with_lines(self, lines, constant=SAMPLE):
        """The solution with these lines in place of its own, as a function."""
        if not self.script:
            return _function(lines, self.arguments, constant)
        ours = (
            _method(old, tuple(lines[a:b]), constant) for a, b, old in self._methods
        )
        return self.as_function(type(self.name, (), {m.__name__: m for m in ours}))

    @cached_property
    def _methods(self):
        """(begin, end, lines) of each method of a class."""
        lines = self.source.splitlines()[1:]
        starts = [n for n, line in enumerate(lines) if line.startswith("    def ")]
        ends = (*starts[1:], len(lines))
        return [(a, b, tuple(lines[a:b])) for a, b in zip(starts, ends, strict=True)]

    @cached_property
    def with_constants(self):
        """The mistakes, one or two at a time, in which any number C may stand."""
        has = {
            name
            for name in self.mistakes
            if any(re.search(r"\bC\b", line) for line in self.rows[name].values())
        }
        alone = tuple((name,) for name in self.mistakes if name in has)
        return alone + tuple(pair for pair in self.pairs if len(has & {*pair}) == 1)

    def is_wrong(self, *mistakes):
        """Does it run on an input, and give other numbers there?"""
        for label in (case.label for case in self.cases):
            both = [outputs_of(self, names, label) for names in (mistakes, ())]
            if both[0] and not all(map(_alike, *both)):
                return True
        return False

    def _numbers(self, every, label):
        """What mutants give on an input, a row for each; where one stops, the right."""
        written = [(lines_of(self, names), SAMPLE) for names in every]
        right = outputs_of(self, (), label)
        given = [g or right for g in outputs_of_all(self, written, label)]
        rows = [np.concatenate([np.ravel(part) for part in g]) for g in given]
        table = np.full((len(rows), max(map(len, rows))), 3e99)
        for n, row in enumerate(rows):
            table[n, : len(row)] = row
        return np.nan_to_num(table, nan=1e99, posinf=2e99, neginf=-2e99)


@functools.lru_cache(maxsize=20_000)
def lines_of(exercise, names):
    """The lines with these mistakes; None where two touch the same words."""
    if not names:
        return tuple(exercise.lines)
    lines = list(lines_of(exercise, names[:-1]) or (None,))
    for n, wrong in exercise.rows[names[-1]].items() if None not in lines else ():
        others = [exercise.rows[name].get(n, wrong) for name in names[:-1]]
        lines[n] = _written(exercise.lines[n], tuple(dict.fromkeys([*others, wrong])))
    return tuple(lines) if None not in lines else None


@functools.lru_cache(maxsize=60_000)
def outputs_of(exercise, names, label, constant=SAMPLE):
    """What the solution with these mistakes gives; None where it stops."""
    return outputs_of_lines(exercise, lines_of(exercise, names), label, constant)


@functools.lru_cache(maxsize=8000)
def _method(old, new, constant):
    """A method of a class: most mistakes share all but one of them."""
    space, (name, code) = {"np": np, "C": constant}, _method_code(old, new)
    exec(code, space)
    return space[name]


@functools.lru_cache(maxsize=8000)
def _method_code(old, new):
    text = "\n".join(map(_as_indented, old, new))
    return re.match(r"def (\w+)", text)[1], compile(text, "<mistake>", "exec")


def _as_indented(old, new):
    """A line of a class in the place of another; its methods begin at the margin."""
    new = f"return{new[3:]}" if new.startswith("_ =") else new
    return (len(old) - len(old.lstrip()) - 4) * " " + new


@functools.lru_cache(maxsize=8000)
def _by_script(exercise, label, constant, lines):
    """What the script makes of a class of these lines."""
    case = next(case for case in exercise.cases if case.label == label)
    return exercise.with_lines(lines, constant)(*case.in_double())


@functools.lru_cache(maxsize=8000)
def _after(exercise, label, constant, lines):
    """The names after these lines: what most mistakes share is run once."""
    if lines:
        space = dict(_after(exercise, label, constant, lines[:-1]))
        exec(_code(lines[-1]), space)
        return space
    case = next(case for case in exercise.cases if case.label == label)
    given = zip(exercise.arguments, case.in_double(), strict=True)
    return {"np": np, "C": constant, **dict(given)}


@contextlib.contextmanager
def _quiet():
    """A wrong solution divides by zero and averages nothing; nobody need be told."""
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@_quiet()
def outputs_of_all(exercise, written, label):
    """What many solutions give on an input, each (lines, C); None where one stops.

    In the order of their lines those with the same beginning follow each other, and it
    is run once.
    """
    found, states, before = [None] * len(written), [], ()
    given = next(c for c in exercise.cases if c.label == label).in_double()
    able = [n for n, (lines, _) in enumerate(written) if lines]
    for n in sorted(able, key=lambda n: written[n][::-1]):
        lines, constant = written[n]
        if exercise.script:
            with contextlib.suppress(Exception):
                found[n] = _as_arrays(exercise.with_lines(lines, constant)(*given))
            continue
        if not states or states[0]["C"] != constant:
            states, before = [_after(exercise, label, constant, ())], ()
        while before[: len(states) - 1] != lines[: len(states) - 1]:
            states.pop()
        before = lines
        try:
            for line in lines[len(states) - 1 :]:
                space = states[-1].copy()
                exec(_code(line), space)
                states.append(space)
            found[n] = _as_arrays(states[-1]["_"])
        except Exception:  # it stops, as a wrong solution may
            continue
    return found


def _as_arrays(result):
    result = result if isinstance(result, tuple) else (result,)
    return tuple(np.asarray(part, dtype=float) for part in result)


def outputs_of_lines(exercise, lines, label, constant=SAMPLE):
    """What these lines give on an input; None where they stop."""
    try:
        with _quiet():
            given = exercise, label, constant, tuple(lines)
            return _as_arrays(
                _by_script(*given) if exercise.script else _after(*given)["_"]
            )
    except Exception:
        return None


def _alike(a, b):
    return np.shape(a) == np.shape(b) and bool(_are_alike(np.ravel(a), np.ravel(b)))


def _are_alike(a, b):
    """The same row for row, where there are several."""
    with np.errstate(invalid="ignore"):
        return (abs(a - b) <= 1e-10 * (1 + abs(b))).all(axis=-1)


def words_for(exercise, name):
    """(what happened, hint) for a mistake; the exercise's own words come first."""
    places = itertools.product((name, code_of(name)), (exercise.own_words, WORDS))
    found = [words[n] for n, words in places if n in words]
    if not found:
        raise KeyError(f"no words for {name!r}; codes with words: {sorted(WORDS)}")
    return found[0]
