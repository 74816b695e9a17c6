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
        if all(isinstance(p, ast.BinOp) and isinstance(p.op, ast.Mult) for p in (a, b)):
            parts = {"P": a.left, "A": a.right, "Q": b.left, "B": b.right}
            new = _with_parts("(P * np.sqrt(A) + Q * np.sqrt(B)) ** 2", parts)
            yield "wrong-operation", "the roots averaged, then squared,", new
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
    if name == "mean":
        yield from _other_means(node)
    for keyword in node.keywords:
        for axis in _OTHER_AXES if keyword.arg == "axis" else ():
            right, keyword.value = keyword.value, ast.parse(axis, mode="eval").body
            yield "wrong-axis", f"another axis ({axis})", node
            keyword.value = right
    if name in ("sqrt", "clip", "maximum") and node.args:
        word = {"sqrt": "no root", "clip": "no limits"}.get(name, "no limit")
        yield "missing-part", word, node.args[0]
    if name == "maximum":
        leak = ast.BinOp(ast.Constant(0.01), ast.Mult(), node.args[0])
        new = ast.Call(node.func, [node.args[0], leak], [])
        yield "wrong-operation", "a leak below zero", new


_MEANS = {  # M is the mean of V
    "np.median(V, axis=A, keepdims=K)": ("wrong-operation", "a median for a mean"),
    "np.sqrt((V**2).mean(axis=A, keepdims=K))": (
        "wrong-operation",
        "a root mean square for a mean",
    ),
    "np.floor(M)": ("wrong-operation", "a division that rounds, //,"),
    "np.delete(V, -1, axis=A).mean(axis=A, keepdims=K)": (
        "wrong-count",
        "the last value left out of the average",
    ),
    "np.delete(V, 0, axis=A).mean(axis=A, keepdims=K)": (
        "wrong-count",
        "the first value left out of the average",
    ),
    "np.delete(V, -1, axis=A).sum(axis=A, keepdims=K) / np.shape(V)[A]": (
        "wrong-count",
        "a sum that ends before the last value",
    ),
    "V.sum(axis=A, keepdims=K) / (np.shape(V)[A] + 1)": (
        "wrong-count",
        "a division by one too many",
    ),
}


def _other_means(node):
    """The same for an average: over fewer values, or by another number."""
    given = {word.arg: word.value for word in node.keywords}
    parts = {"V": node.func.value, "M": node, "A": given.get("axis")}
    parts["K"] = given.get("keepdims", ast.Constant(False))
    for text, (code, what) in _MEANS.items() if parts["A"] else ():
        yield code, what, _with_parts(text, parts)
    power = node.func.value
    if isinstance(power, ast.BinOp) and isinstance(power.op, ast.Pow):
        text = "(X.mean(axis=A[1:], keepdims=True) ** 2).mean(axis=A, keepdims=K)"
        new = _with_parts(text, parts | {"X": power.left})
        yield "wrong-operation", "a mean before the square", new


class _Parts(ast.NodeTransformer):
    def __init__(self, parts):
        self.parts = parts

    def visit_Name(self, node):
        return self.parts.get(node.id, node)


def _with_parts(text, parts):
    return _Parts(parts).visit(ast.parse(text, mode="eval").body)


_COUNTS = {
    "x.shape[0]": "the number of examples",
    "x.shape[1]": "the length of axis 1 of x",
    "x[0, 0].size": "the number of pixels",
    "x.size": "the number of all values",
    "x[:, 0].size": "the number of values of a channel",
}


def _is_parameter(node):
    return _name(node) in ("gamma", "beta", "running_mean", "running_std")


_MORE = (
    ("wrong-factor", "factor", ast.Mult()),
    ("wrong-factor", "division by", ast.Div()),
    ("extra-term", "term", ast.Add()),
    ("extra-term", "term", ast.Sub()),
)


_AFTER = {
    "np.clip(V, -1, 1)": "limits at −1 and 1",
    "np.maximum(V, 0)": "a limit at 0, as of a ReLU,",
    "np.tanh(V)": "a tanh too many",
    "1 / (1 + np.exp(-V))": "a sigmoid too many",
    "V / (1 + np.abs(V))": "a softsign too many",
}


def _after_a_line(node, names):
    """A result with something done to it that nobody asked for."""
    x = next((name for name in ("x", "weight") if name in names), "")
    mixed = {"(V + X) / 2": f"the average of it and {x}"} if x else {}
    for text, what in (_AFTER | mixed).items():
        new = _with_parts(text, {"V": node, "X": ast.Name(x)})
        yield "wrong-operation", what, new


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
    size = ast.Call(ast.Name("abs"), [node], [])
    yield "wrong-operation", "an absolute value too many", size
    for other in names if _name(node) else ():
        if other != node.id:
            yield "wrong-variable", f"{other} in a wrong place", ast.Name(other)
    if _name(node) == "mean" and "x" in names:
        for text, what in (("x[:1]", "the first example"), ("x.mean()", "that of all")):
            new = ast.parse(text, mode="eval").body
            yield "wrong-variable", f"{what} in the place of the mean", new
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
            if _name(parent.targets[0]) in ("xhat", "y"):
                ways = itertools.chain(ways, _after_a_line(node, arguments))
        for code, what, new in ways:
            _put(parent, name, place, new)
            yield code, what, ast.unparse(tree)
            _put(parent, name, place, node)


def _put(parent, name, place, node):
    if place is None:
        setattr(parent, name, node)
    else:
        getattr(parent, name)[place] = node


_THROUGHOUT = {  # what may stand for an argument wherever it stands
    "1 + A": "extra-term",
    "1 - A": "wrong-operation",
    "-A": "sign-error",
    "2 * A": "wrong-factor",
    "A / 2": "wrong-factor",
    "A**2": "wrong-power",
    "np.sqrt(np.abs(A))": "wrong-power",
    "1 / A": "upside-down",
    "np.abs(A)": "wrong-operation",
    "np.mean(A)": "wrong-variable",
    "A[::-1]": "wrong-variable",
}


def _throughout(exercise):
    """The same for an argument that is changed, or two that have changed places."""
    names = () if exercise.script else exercise.arguments
    for name in names:
        for text, code in _THROUGHOUT.items():
            new = re.sub(r"\bA\b", name, text)
            says = f"These are the numbers of a solution with {new} in place of {name}."
            yield f"{code}: {says}", (f"{name} = {new}", *exercise.lines)
    for a, b in itertools.combinations(names, 2):
        says = f"These are the numbers of a solution with {a} and {b} in each other's"
        lines = (f"{a}, {b} = {b}, {a}", *exercise.lines)
        yield f"wrong-variable: {says} place.", lines


_WAYS = {  # whole ways of another kind: what they are, and lines that make them
    "the smallest value and the range for mean and deviation": {
        "mean = x.mean(axis=axes, keepdims=True)": (
            "mean = x.min(axis=axes, keepdims=True)"
        ),
        "std = np.sqrt(var + eps)": (
            "std = x.max(axis=axes, keepdims=True) - mean + eps"
        ),
    },
    "an average over all batches so far": {
        "a = self.momentum": (
            "a = self.seen = 1 / (1 + 1 / getattr(self, 'seen', np.inf))"
        ),
    },
    "a first batch that replaces what is stored": {
        "a = self.momentum": (
            "a, self.seen = self.momentum if hasattr(self, 'seen') else 1.0, 1"
        ),
    },
}


def _other_ways(exercise):
    """The same for a whole way of another kind, and for normalizing twice."""
    lines = exercise.lines
    for what, changes in _WAYS.items():
        if changes.keys() <= {*lines}:
            says = f"wrong-operation: These are the numbers of a solution with {what}."
            yield says, tuple(changes.get(line, line) for line in lines)
    ends = ("mean = x.mean(axis=axes, keepdims=True)", "xhat = (x - mean) / std")
    if {*ends} <= {*lines}:
        start, end = map(lines.index, ends)
        says = (
            "wrong-operation: These are the numbers of a solution that does its steps"
        )
        twice = (*lines[: end + 1], "x = xhat", *lines[start:])
        yield f"{says} up to xhat twice.", twice


def _twice_in_a_line(line, arguments):
    """(code, what is there instead, line) where an argument stands in it twice."""
    for name in arguments:
        if len(re.findall(rf"\b{name}\b", line.partition(" = ")[2])) > 1:
            for text, code in _THROUGHOUT.items():
                new = re.sub(r"\bA\b", name, text)
                target, _, value = line.partition(" = ")
                value = re.sub(rf"\b{name}\b", f"({new})", value)
                yield code, f"{new} in place of {name}", f"{target} = {value}"


@functools.cache
def slips(exercise):
    """(code and sentence, lines) for each slip in a line of the solution."""
    arguments = ("x",) if exercise.script else exercise.arguments
    found, names = [], list(arguments)
    for number, line in enumerate(exercise.lines):
        target, is_set, _ = line.partition(" = ")
        step = _STEPS.get(target, target)
        where = "the result" if line.startswith("return") else f"the step to {step}"
        ways = slips_of(line, names, arguments), _twice_in_a_line(line, arguments)
        for code, what, new in itertools.chain(*ways):
            says = f"These are the numbers of a solution with {what} in {where}."
            lines = (*exercise.lines[:number], new, *exercise.lines[number + 1 :])
            found.append((f"{code}: {says}", lines))
        new = target.split(", ") if is_set else ()
        names += [name for name in new if name not in (*_HIDDEN, *names)]
    return (*found, *_throughout(exercise), *_other_ways(exercise))
