"""From chapters/A3_exercises.ipynb.

Extracted by `make export`: edit the notebook, not this file.
"""

import ast
import functools
import itertools
import re

_STEPS = {
    "mean": "the mean",
    "new_mean": "the new mean",
    "var": "the variance",
    "new_var": "the new variance",
    "square": "the mean square",
    "rms": "the root mean square",
    "std": "the standard deviation",
    "dxhat": "the gradient at xhat",
    "via_mean": "the mean's term of dx",
    "via_var": "the variance's term of dx",
    "new_weight": "the new weight",
    "new_bias": "the new bias",
    "between": "the spread between the workers",
}
# No values of the formula.
_HIDDEN = {"np", "C", "axes", "param_axes", "shape", "self", "state", "_"}


def _name(node):
    return node.id if isinstance(node, ast.Name) else ""


def _part(node, word, arguments):
    """How to speak of a part without showing it."""
    return f"{_name(node)} missing" if _name(node) in arguments else f"{word} missing"


def _other_operations(node, arguments):
    """(code, what is there instead, node) for a sum, a product and the like."""
    a, b, op = node.left, node.right, node.op

    def made(new, left=a, right=b):
        return ast.BinOp(left, new, right)

    word = "a term" if isinstance(op, ast.Add | ast.Sub) else "a factor"
    yield "missing-part", _part(b, word, arguments), a
    if isinstance(op, ast.Pow):
        yield "wrong-power", "a third power", made(op, a, ast.Constant(3))
        return
    yield "missing-part", _part(a, word, arguments), b
    if isinstance(op, ast.Add):
        yield "sign-error", "a minus where a plus belongs", made(ast.Sub())
        yield "wrong-operation", "a product where a sum belongs", made(ast.Mult())
    elif isinstance(op, ast.Sub):
        yield "sign-error", "a plus where a minus belongs", made(ast.Add())
        yield "sign-error", "a difference the wrong way round", made(op, b, a)
        yield "wrong-operation", "a quotient for a difference", made(ast.Div())
    elif isinstance(op, ast.Mult):
        yield "wrong-operation", "a quotient where a product belongs", made(ast.Div())
        yield "wrong-operation", "a quotient for a product", made(ast.Div(), b, a)
        yield "wrong-operation", "a sum where a product belongs", made(ast.Add())
    elif isinstance(op, ast.Div):
        yield "wrong-operation", "a product where a quotient belongs", made(ast.Mult())
        yield "upside-down", "a quotient upside down", made(op, b, a)
    if isinstance(op, ast.Mult | ast.Div):
        for new in _without_parentheses(a, lambda part: made(op, part, b)):
            yield "missing-parentheses", "parentheses missing, or misplaced", new
        for new in _without_parentheses(b, lambda part: made(op, a, part)):
            yield "missing-parentheses", "parentheses missing, or misplaced", new


def _without_parentheses(inner, outer):
    """(a + b) * c as a + b * c and as a * c + b: only one part meets the outside."""
    if isinstance(inner, ast.BinOp) and isinstance(inner.op, ast.Add | ast.Sub):
        yield ast.BinOp(inner.left, inner.op, outer(inner.right))
        yield ast.BinOp(outer(inner.left), inner.op, inner.right)


_CALLS = {  # what is called: what else might be, and how that is told
    "mean": (("sum", "a sum where a mean belongs"), ("max", "a maximum for a mean")),
    "sum": (("mean", "a mean where a sum belongs"),),
    "var": (("std", "a deviation where a variance belongs"),),
    "maximum": (("minimum", "a minimum for a maximum"),),
    "clip": (),
    "sqrt": (("square", "a square where a root belongs"),),
}
_OTHER_AXES = (
    "None",
    "0",
    "1",
    "(0, 1)",
    "(2, 3)",
    "(0, 2)",
    "(0, 3)",
    "(1, 2, 3)",
    "(0, 2, 3)",
)
_CODES = {"sum": "sum-instead-of-mean", "mean": "mean-instead-of-sum"}


def _other_calls(node):
    """The same for a call: another function, or none."""
    name = getattr(node.func, "attr", "")
    for other, what in _CALLS.get(name, ()):
        func = ast.Attribute(node.func.value, other, ast.Load())
        new = ast.Call(func, node.args, node.keywords)
        yield _CODES.get(other, "wrong-operation"), what, new
    for keyword in node.keywords:
        for axis in _OTHER_AXES if keyword.arg == "axis" else ():
            right, keyword.value = keyword.value, ast.parse(axis, mode="eval").body
            yield "wrong-axis", f"another axis ({axis})", node
            keyword.value = right
    if name in ("sqrt", "clip", "maximum") and node.args:
        word = {"sqrt": "no root", "clip": "no limits"}.get(name, "no limit")
        yield "missing-part", word, node.args[0]


_COUNTS = {
    "x.shape[0]": "the number of examples",
    "x.shape[1]": "the length of axis 1 of x",
    "x[0, 0].size": "the number of pixels",
    "x.size": "the number of all values",
}


def _is_parameter(node):
    return _name(node) in ("gamma", "beta", "running_mean", "running_std")


_MORE = (
    ("wrong-factor", "factor", ast.Mult()),
    ("wrong-factor", "division by", ast.Div()),
    ("extra-term", "term", ast.Add()),
    ("extra-term", "term", ast.Sub()),
)


def _more_of_a_line(node, names):
    """A whole right side with a factor or a term too many."""
    for name in [n for n in names if n not in ("rmax", "dmax", "num_groups")]:
        for code, what, sign in _MORE:
            more = ast.BinOp(node, sign, ast.Name(name))
            yield code, f"a {what} {name} too many", more


def _other_values(node, names):
    """The same for any value: a sign, a power, a factor; for a name, other names."""
    two = ast.Constant(2)
    yield "sign-error", "a minus too many", ast.UnaryOp(ast.USub(), node)
    yield "wrong-power", "a square too many", ast.BinOp(node, ast.Pow(), two)
    root = ast.BinOp(node, ast.Pow(), ast.Constant(0.5))
    yield "wrong-power", "a root too many", root
    yield "upside-down", "one over it", ast.BinOp(ast.Constant(1), ast.Div(), node)
    yield "wrong-factor", "a factor of 2 too many", ast.BinOp(two, ast.Mult(), node)
    yield "wrong-factor", "a factor of 1/2 too many", ast.BinOp(node, ast.Div(), two)
    for other in names if _name(node) else ():
        if other != node.id:
            yield "wrong-variable", f"{other} in a wrong place", ast.Name(other)
    if _is_parameter(node):
        new = ast.parse(f"{node.id}.mean()", mode="eval").body
        yield "wrong-variable", f"the mean of {node.id} for {node.id}", new
    for count, what in _COUNTS.items() if "x" in names else ():
        n = ast.parse(count, mode="eval").body
        for more, sign in (("division", ast.Div()), ("product", ast.Mult())):
            too_many = f"a {more} by {what} too many"
            yield "wrong-count", too_many, ast.BinOp(node, sign, n)


def _values(tree):
    """(parent, field, place in a list, node) for each part that has a value."""
    for parent in ast.walk(tree):
        if isinstance(parent, ast.Call | ast.Attribute | ast.Subscript):
            skipped = {"func"} if isinstance(parent, ast.Call) else {"slice"}
        else:
            skipped = {"targets"}
        for name, value in ast.iter_fields(parent):
            inside = value if isinstance(value, list) else [value]
            for place, node in enumerate(inside) if name not in skipped else ():
                set_here = isinstance(getattr(node, "ctx", None), ast.Store)
                if isinstance(node, ast.BinOp | ast.Call | ast.Name) and not set_here:
                    at = place if isinstance(value, list) else None
                    yield parent, name, at, node


def _alternatives(node, names, arguments):
    if _name(node) in _HIDDEN:
        return
    if isinstance(node, ast.BinOp):
        yield from _other_operations(node, arguments)
    if isinstance(node, ast.Call):
        yield from _other_calls(node)
    yield from _other_values(node, names)


def slips_of(line, names, arguments):
    """(code, what is there instead, line) for each change of a line in one place."""
    if not line or line.endswith(":"):
        return  # of a class: where a method begins, or a branch
    tree = ast.parse(re.sub(r"\breturn\b", "_ =", line))
    for parent, name, place, node in list(_values(tree)):
        ways = _alternatives(node, names, arguments)
        if isinstance(parent, ast.Assign) and _name(parent.targets[0]) not in _HIDDEN:
            ways = itertools.chain(ways, _more_of_a_line(node, arguments))
        for code, what, new in ways:
            _put(parent, name, place, new)
            yield code, what, ast.unparse(tree)
            _put(parent, name, place, node)


def _put(parent, name, place, node):
    if place is None:
        setattr(parent, name, node)
    else:
        getattr(parent, name)[place] = node


@functools.cache
def slips(exercise):
    """(code and sentence, lines) for each slip in a line of the solution."""
    arguments = ("x",) if exercise.script else exercise.arguments
    found, names = [], list(arguments)
    for number, line in enumerate(exercise.lines):
        target, is_set, _ = line.partition(" = ")
        step = _STEPS.get(target, target)
        where = "the result" if line.startswith("return") else f"the step to {step}"
        for code, what, new in slips_of(line, names, arguments):
            says = f"These are the numbers of a solution with {what} in {where}."
            lines = (*exercise.lines[:number], new, *exercise.lines[number + 1 :])
            found.append((f"{code}: {says}", lines))
        new = target.split(", ") if is_set else ()
        names += [name for name in new if name not in (*_HIDDEN, *names)]
    return tuple(found)
