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
from typing import NamedTuple

import numpy as np

from bnlib.exercises._mistakes import (
    WORDS,
    WRONG_LINES,
    code_of,
    entries,
)


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
            made = re.search(r"__init__\(self, (.+)\):", self.stub)[1]
            return f"{self.name}({made})"
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
    def expected(self):
        """{label of an input: what the package computes there, in double precision}."""
        return {case.label: self.expected_on(case) for case in self.cases}

    def expected_on(self, case):
        return _as_arrays(self.reference(*case.in_double()))

    @cached_property
    def lines(self):
        """The steps of the solution, one a line."""
        return tuple(line.strip() for line in self.source.splitlines()[1:])

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
        # On large inputs most differ, so these are compared first.
        cases = sorted(self.cases, key=lambda c: -sum(map(np.size, c.args.values())))
        right = [outputs_of(self, self.lines, case) for case in cases]

        @functools.cache
        def given(name, i):
            return outputs_of(self, lines_of(self, (name,)), cases[i]) or right[i]

        kept = []
        for name in self.rows:
            ways = [right.__getitem__, *(functools.partial(given, k) for k in kept)]
            every = range(len(cases))
            if not any(
                all(_alike(given(name, i), way(i)) for i in every) for way in ways
            ):
                kept.append(name)
        return tuple(kept)

    @cached_property
    def pairs(self):
        """Two mistakes at a time, where they touch other words."""
        both = itertools.combinations(self.mistakes, 2)
        return tuple(pair for pair in both if lines_of(self, pair))

    def mutant(self, *mistakes, constant=SAMPLE):
        """The solution with these mistakes, as a function of the arguments."""
        return self.with_lines(lines_of(self, mistakes), constant)

    def with_lines(self, lines, constant=SAMPLE):
        """The solution with these lines in place of its own, as a function."""
        if not self.script:
            return _function(lines, self.arguments, constant)
        space = {"np": np, "C": constant}
        for begin, end in self._methods:
            exec(_method(self._indents[begin:end], lines[begin:end]), space)
        return self.as_function(type(self.name, (), space))

    @cached_property
    def _indents(self):
        """How far each line of a class stands in, seen from its methods."""
        lines = self.source.splitlines()[1:]
        return tuple(max(0, len(n) - len(n.lstrip()) - 4) for n in lines)

    @cached_property
    def _methods(self):
        """(begin, end) of each method of a class, in lines."""
        starts = [n for n, line in enumerate(self.lines) if line.startswith("def ")]
        return tuple(itertools.pairwise([*starts, len(self.lines)]))

    def is_wrong(self, *mistakes):
        """Do these mistakes run on an input, and give other numbers there?"""
        for case in self.cases:
            given = outputs_of(self, lines_of(self, mistakes), case)
            if given and not _alike(given, outputs_of(self, self.lines, case)):
                return True
        return False


class Wrong(NamedTuple):
    """A wrong solution: the names of its mistakes, its lines, and what C is in them."""

    names: tuple
    lines: tuple
    constant: float = SAMPLE


def lines_of(exercise, names):
    """The lines with these mistakes; None where two touch the same words."""
    lines, rows = list(exercise.lines), [exercise.rows[name] for name in names]
    for n in {n for row in rows for n in row}:
        wrongs = dict.fromkeys(row[n] for row in rows if n in row)
        lines[n] = _written(lines[n], tuple(wrongs))
    return None if None in lines else tuple(lines)


@functools.lru_cache(maxsize=8000)
def _method(indents, lines):
    """A method of a class, ready to run: most mistakes share all but one of them."""
    text = "\n".join(n * " " + line for n, line in zip(indents, lines, strict=True))
    return compile(text, "<mistake>", "exec")


def outputs_of(exercise, lines, case, constant=SAMPLE):
    """What a solution of these lines gives on an input; None where it stops."""
    try:  # it divides by zero and averages nothing; nobody need be told
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _as_arrays(exercise.with_lines(lines, constant)(*case.in_double()))
    except Exception:
        return None


def _as_arrays(result):
    result = result if isinstance(result, tuple) else (result,)
    return tuple(np.asarray(part, dtype=float) for part in result)


def _alike(these, those):
    """Are these outputs the same numbers as those?"""

    def close(a, b):
        a, b = a.ravel(), b.ravel()
        near = abs(a - b) <= 1e-10 * (1 + abs(b))
        return (near | (a == b) | (np.isnan(a) & np.isnan(b))).all()

    with np.errstate(invalid="ignore"):  # inf - inf
        both = zip(these, those, strict=False)
        return len(these) == len(those) and all(
            a.size == b.size and close(a, b) for a, b in both
        )


def words_for(exercise, name):
    """(what happened, hint) for a mistake; the exercise's own words come first."""
    places = itertools.product((name, code_of(name)), (exercise.own_words, WORDS))
    found = [words[n] for n, words in places if n in words]
    if not found:
        raise KeyError(f"no words for {name!r}; codes with words: {sorted(WORDS)}")
    return found[0]
