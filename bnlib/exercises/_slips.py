"""From chapters/A3_exercises.ipynb.

Extracted by `make export`: edit the notebook, not this file.
"""

import ast
import functools
import itertools
import re

from bnlib.exercises._exercise import (
    Wrong,
)


def _axes(call):
    other = ("None", "0", "1", "(0, 1)", "(2, 3)", "(0, 2)", "(0, 3)", "(1, 2, 3)")
    return {call.replace("B", a): f"wrong-axis: another axis, {a}," for a in other}


def _parentheses(whole, *without):
    says = "missing-parentheses: parentheses missing, or misplaced,"
    return {whole: dict.fromkeys(without, says)}


_TERM, _FACTOR = "missing-part: a term missing", "missing-part: a factor missing"
_MEAN, _SUM, _VAR = (
    "A.mean(axis=B, keepdims=D)",
    "A.sum(axis=B)",
    "A.var(axis=B, ddof=D)",
)
_COUNTS = {
    "x.shape[0]": "the number of examples",
    "x.shape[1]": "the length of axis 1 of x",
    "x[0, 0].size": "the number of pixels",
    "x.size": "the number of all values",
    "x[:, 0].size": "the number of values of a channel",
}
_INSTEAD = {  # what may stand where something else belongs, of any parts A, B, D, E
    "A + B": {
        "A": _TERM,
        "B": _TERM,
        "A - B": "sign-error: a minus where a plus belongs",
        "A * B": "wrong-operation: a product where a sum belongs",
    },
    "A - B": {
        "A": _TERM,
        "B": _TERM,
        "A + B": "sign-error: a plus where a minus belongs",
        "B - A": "sign-error: a difference the wrong way round",
        "A / B": "wrong-operation: a quotient for a difference",
    },
    "A * B": {
        "A": _FACTOR,
        "B": _FACTOR,
        "A / B": "wrong-operation: a quotient where a product belongs",
        "B / A": "wrong-operation: a quotient for a product",
        "A + B": "wrong-operation: a sum where a product belongs",
    },
    "A / B": {
        "A": _FACTOR,
        "B": _FACTOR,
        "A * B": "wrong-operation: a product where a quotient belongs",
        "B / A": "upside-down: a quotient upside down",
    },
    "A**B": {"A": "missing-part: no power", "A**3": "wrong-power: a third power"},
    **_parentheses("(A + B) * D", "A + B * D", "A * D + B"),
    **_parentheses("(A - B) * D", "A - B * D", "A * D - B"),
    **_parentheses("(A + B) / D", "A + B / D", "A / D + B"),
    **_parentheses("(A - B) / D", "A - B / D", "A / D - B"),
    **_parentheses("D * (A + B)", "D * A + B", "A + D * B"),
    **_parentheses("D * (A - B)", "D * A - B", "A - D * B"),
    "A * B + D * E": {
        "(A * np.sqrt(B) + D * np.sqrt(E))**2": (
            "wrong-operation: the roots averaged, then squared,"
        ),
    },
    _MEAN: {
        "A.sum(axis=B, keepdims=D)": "sum-instead-of-mean: a sum where a mean belongs",
        "A.max(axis=B, keepdims=D)": "wrong-operation: a maximum for a mean",
        "np.median(A, axis=B, keepdims=D)": "wrong-operation: a median for a mean",
        "np.sqrt((A**2).mean(axis=B, keepdims=D))": (
            "wrong-operation: a root mean square for a mean"
        ),
        f"np.floor({_MEAN})": "wrong-operation: a division that rounds, //,",
        "np.delete(A, -1, axis=B).mean(axis=B, keepdims=D)": (
            "wrong-count: the last value left out of the average"
        ),
        "np.delete(A, 0, axis=B).mean(axis=B, keepdims=D)": (
            "wrong-count: the first value left out of the average"
        ),
        "np.delete(A, -1, axis=B).sum(axis=B, keepdims=D) / np.shape(A)[B]": (
            "wrong-count: a sum that ends before the last value"
        ),
        "A.sum(axis=B, keepdims=D) / (np.shape(A)[B] + 1)": (
            "wrong-count: a division by one too many"
        ),
        **_axes(_MEAN),
    },
    "(A**E).mean(axis=B, keepdims=D)": {
        "(A.mean(axis=B[1:], keepdims=True)**E).mean(axis=B, keepdims=D)": (
            "wrong-operation: a mean before the power"
        ),
    },
    _SUM: {
        "A.mean(axis=B)": "mean-instead-of-sum: a mean where a sum belongs",
        **_axes(_SUM),
    },
    _VAR: {
        "A.std(axis=B, ddof=D)": "wrong-operation: a deviation for a variance",
        **_axes(_VAR),
    },
    "np.sqrt(A)": {
        "A": "missing-part: no root",
        "np.square(A)": "wrong-operation: a square where a root belongs",
    },
    "np.clip(A, B, D)": {"A": "missing-part: no limits"},
    "np.maximum(A, B)": {
        "A": "missing-part: no limit",
        "np.minimum(A, B)": "wrong-operation: a minimum for a maximum",
        "np.maximum(A, 0.01 * A)": "wrong-operation: a leak below zero",
    },
    "A": {  # any value
        "-A": "sign-error: a minus too many",
        "A**2": "wrong-power: a square too many",
        "A**0.5": "wrong-power: a root too many",
        "2 * A": "wrong-factor: a factor of 2 too many",
        "A / 2": "wrong-factor: a division by 2 too many",
        "1 + A": "extra-term: a 1 too many",
        "1 / A": "upside-down: one over it",
        "abs(A)": "wrong-operation: an absolute value too many",
        **{
            f"A {sign} {count}": f"wrong-count: a {what} by {of_what} too many"
            for count, of_what in _COUNTS.items()
            for sign, what in {"/": "division", "*": "product"}.items()
        },
    },
}
_AFTER = {  # what may be done to the result of a line
    "np.clip(A, -1, 1)": "wrong-operation: limits at −1 and 1",
    "np.maximum(A, 0)": "wrong-operation: a limit at 0, as of a ReLU,",
    "np.tanh(A)": "wrong-operation: a tanh",
    "1 / (1 + np.exp(-A))": "wrong-operation: a sigmoid",
    "A / (1 + abs(A))": "wrong-operation: a softsign",
    "(A + x) / 2": "wrong-operation: an average with x",
}
_BY_AN_ARGUMENT = {
    "*": "wrong-factor: a factor",
    "/": "wrong-factor: a division by",
    "+": "extra-term: a term",
    "-": "extra-term: a term",
}
_STEPS = {
    "dxhat": "the gradient at xhat",
    "via_mean": "the mean's term of dx",
    "via_var": "the variance's term of dx",
}
# No values of the formula.
_HIDDEN = {"np", "len", "axes", "param_axes", "shape", "self", "state"}


def _bound(pattern, node):
    """{A: its text, …} where a node is of a pattern, else None."""
    if isinstance(pattern, ast.Name) and pattern.id.isupper():
        return {pattern.id: f"({ast.unparse(node)})"}
    if isinstance(pattern, ast.AST) and type(pattern) is type(node):
        pattern, node = ([getattr(n, f) for f in n._fields] for n in (pattern, node))
    if not isinstance(pattern, list):
        return {} if pattern == node else None
    if not isinstance(node, list) or len(pattern) != len(node):
        return None
    found = [_bound(*both) for both in zip(pattern, node, strict=True)]
    return None if None in found else {k: v for part in found for k, v in part.items()}


@functools.cache
def _parsed(pattern):
    return ast.parse(pattern, mode="eval").body


def _filled(template, parts):
    return re.sub(r"\b[ABDE]\b", lambda letter: parts[letter[0]], template)


def _instead_of(node, names):
    """(code and words, what may stand in the place of a node)."""
    for pattern, ways in _INSTEAD.items():
        if parts := _bound(_parsed(pattern), node):
            for template, says in ways.items():
                yield says, _filled(template, parts)
    if isinstance(node, ast.Name):
        yield f"wrong-variable: the mean of {node.id} for it", f"np.mean({node.id})"
        for other in (*names, "x[:1]", "x.mean()"):
            yield f"wrong-variable: {other} in a wrong place", other


def _after(line, arguments):
    """(code and words, line) for more that is done to the result of a line."""
    target, is_set, value = line.partition(" = ")
    if is_set and target not in _HIDDEN:
        for template, says in _AFTER.items():
            yield (
                f"{says} too many",
                f"{target} = {_filled(template, {'A': f'({value})'})}",
            )
        for name, (sign, says) in itertools.product(arguments, _BY_AN_ARGUMENT.items()):
            yield f"{says} {name} too many", f"{target} = ({value}) {sign} {name}"


def _slips_of(line, names, arguments):
    """(code and words, line) for each change of a line in one place."""
    line = re.sub(r"\.mean\(axis=(\w+)\)", r".mean(axis=\1, keepdims=False)", line)
    for node in ast.walk(ast.parse(line)):
        is_value = isinstance(node, ast.BinOp | ast.Call | ast.Name)
        is_set = isinstance(getattr(node, "ctx", None), ast.Store)
        if is_value and not is_set and getattr(node, "id", "") not in _HIDDEN:
            before, after = line[: node.col_offset], line[node.end_col_offset :]
            for says, new in _instead_of(node, names):
                yield says, f"{before}({new}){after}"
    yield from _after(line, arguments)


@functools.cache
def slips(exercise):
    """The solution with a slip in one place of one line, for every slip."""
    arguments = ("x",) if exercise.script else exercise.arguments
    found, names = [], list(arguments)
    for n, line in enumerate(exercise.lines):
        if not line or line.endswith(":"):
            continue  # of a class: where a method begins, or a branch
        target, is_set, _ = line.partition(" = ")
        where = f"the step to {_STEPS.get(target, target)}" if is_set else "the result"
        for says, new in _slips_of(line, names, arguments):
            code, _, what = says.partition(": ")
            says = (
                f"{code}: These are the numbers of a solution with {what} in {where}."
            )
            lines = (*exercise.lines[:n], new, *exercise.lines[n + 1 :])
            found.append(Wrong((says,), lines))
        new = target.split(", ") if is_set else ()
        names += [name for name in new if name not in (*_HIDDEN, *names)]
    return found
