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
        kept, known = [], [self._numbers()]
        for name in self.rows:
            numbers = self._numbers(name)
            if not any(_alike(numbers, other) for other in known):
                kept.append(name)
                known.append(numbers)
        return tuple(kept)

    @cached_property
    def pairs(self):
        """Two mistakes at a time, where they touch other words and do not cancel."""
        alone, found = {name: self._written(name) for name in self.mistakes}, []
        for a, b in itertools.combinations(self.mistakes, 2):
            lines = self._written(a, b)
            if lines in (None, alone[a], alone[b]):
                continue
            if self.rows[a].keys().isdisjoint(self.rows[b]) or self.is_wrong(a, b):
                found.append((a, b))
        return tuple(found)

    def mutant(self, *mistakes, constant=SAMPLE):
        """The solution with these mistakes, as a function of the arguments."""
        return self.with_lines(self._written(*mistakes), constant)

    def with_lines(self, lines, constant=SAMPLE):
        """The solution with these lines in place of its own, as a function."""
        if not self.script:
            return _function(lines, self.arguments, constant)
        text = "\n".join(map(_as_indented, self.source.splitlines()[1:], lines))
        methods = [_method(m, constant) for m in re.split(r"\n(?=def )", text)]
        return self.as_function(type(self.name, (), {m.__name__: m for m in methods}))

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

    def _written(self, *mistakes):
        """The lines with these mistakes; None where two touch the same words."""
        lines = list(self.lines)
        for n in {n for name in mistakes for n in self.rows[name]}:
            wrongs = [self.rows[name][n] for name in mistakes if n in self.rows[name]]
            lines[n] = _written(lines[n], tuple(dict.fromkeys(wrongs)))
        return lines if None not in lines else None

    def is_wrong(self, *mistakes):
        """Does it run on an input, and give other numbers there?"""
        for label in (case.label for case in self.cases):
            both = [outputs_of(self, names, label) for names in (mistakes, ())]
            if both[0] and not all(map(_alike, *both)):
                return True
        return False

    def _numbers(self, *mistakes):
        """All that the mutant gives, in a row; where it stops, what is right."""
        numbers = []
        for label in (case.label for case in self.cases):
            outputs = outputs_of(self, mistakes, label) or outputs_of(self, (), label)
            numbers += map(np.ravel, outputs)
        numbers = np.concatenate(numbers)
        return np.nan_to_num(numbers, nan=1e99, posinf=2e99, neginf=-2e99)


@functools.lru_cache(maxsize=60_000)
def outputs_of(exercise, names, label, constant=SAMPLE):
    """What the solution with these mistakes gives; None where it stops."""
    return outputs_of_lines(exercise, exercise._written(*names), label, constant)


@functools.lru_cache(maxsize=8000)
def _method(text, constant):
    """A method of a class: most mistakes share all but one of them."""
    space = {"np": np, "C": constant}
    exec(text, space)
    return space[re.match(r"def (\w+)", text)[1]]


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


def outputs_of_lines(exercise, lines, label, constant=SAMPLE):
    """What these lines give on an input; None where they stop."""
    try:
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            given = exercise, label, constant, tuple(lines)
            result = _by_script(*given) if exercise.script else _after(*given)["_"]
            result = result if isinstance(result, tuple) else (result,)
            return tuple(np.asarray(part, dtype=float) for part in result)
    except Exception:
        return None


def _alike(a, b):
    with np.errstate(invalid="ignore"):
        same = np.shape(a) == np.shape(b)
        return same and (abs(a - b) <= 1e-10 * (1 + abs(b))).all()


def words_for(exercise, name):
    """(what happened, hint) for a mistake; the exercise's own words come first."""
    places = itertools.product((name, code_of(name)), (exercise.own_words, WORDS))
    found = [words[n] for n, words in places if n in words]
    if not found:
        raise KeyError(f"no words for {name!r}; codes with words: {sorted(WORDS)}")
    return found[0]
