"""The types of what users import: a stub beside every module that is public.

A formula's cell says no types. They are in its declaration, `@takes(x="N C ...")`, or
in the numpydoc sections of its docstring, `step : int`; a layer's are torch.nn's.
"""

import ast
import re

PUBLIC = [
    "bnlib/__init__.py",
    "bnlib/fast/__init__.py",
    "bnlib/nn/__init__.py",
    "bnlib/nn/functional/__init__.py",
    "bnlib/data.py",
    "bnlib/figures.py",
]
HEAD = '''\
"""Types of what is offered here, written by `make export`."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import matplotlib.figure
import numpy as np
import torch
'''
ARRAY = '_Array = TypeVar("_Array", np.ndarray, torch.Tensor)'
# What a docstring says, or a declaration's function: the type.
KINDS = {
    "array or tensor": "_Array",
    "array": "np.ndarray",
    "tensor": "torch.Tensor",
    "module": "torch.nn.Module",
    "optimizer": "torch.optim.Optimizer",
    "figure": "matplotlib.figure.Figure",
    "function": "Callable",
    "iterable": "Iterable",
    "sequence": "Sequence",
    "path": "Path",
    "object": "Any",
    "which_axes": "int | tuple[int, ...]",
    "one_number": "float | _Array",
    "cache_of": "tuple[Any, ...]",
    "Number": "float",
    "check_rmax": "float",
    "check_dmax": "float",
}
SECTION = r"^{}\n-+\n((?:.*\n)*?)(?=\S.*\n--|\Z)"


def kind(said):
    """The type that a docstring's words stand for: `float or array (C,), optional`."""
    said = re.sub(", optional$", " or None", said)
    said = re.sub(r" *\(.*?\)|, .*?(?= or |$)", "", said).strip()
    if said in KINDS:
        return KINDS[said]
    if " or " in said:
        parts = re.split(r"(?<!array) or | or (?!tensor)", said)
        return " | ".join(map(kind, parts))
    outer, of, inner = said.partition(" of ")
    if of:
        many = ", ..." if outer == "tuple" else ""
        return f"{kind(outer)}[{kind(inner)}{many}]"
    return said


def said_in(docstring, section):
    """Names and types of a numpydoc section: [("step", "int")]."""
    found = re.search(SECTION.format(section), f"{docstring}\n", re.M)
    lines = found[1].splitlines() if found else []
    parts = [line.rpartition(" : ") for line in lines if re.match(r"\S", line)]
    pairs = [(name, what) for names, _, what in parts for name in names.split(", ")]
    return [(name.lstrip("*"), kind(what)) for name, what in pairs]


def declared(function):
    """The types of a formula's arguments, from its declaration."""
    types = {}
    for takes in function.decorator_list:
        for word in getattr(takes, "keywords", ()):
            what = word.value
            if isinstance(what, ast.Constant):
                types[word.arg] = "_Array" + " | None" * what.value.endswith("?")
            else:
                called = getattr(what, "func", what).id
                types[word.arg] = KINDS.get(called, "int")
    return types


def count(value, functions):
    """How many results a formula's last line returns, and whether a cache is last."""
    if not isinstance(value, ast.Tuple):
        return 1, False
    many = 0
    for part in value.elts:
        inner = isinstance(part, ast.Starred) and functions[part.value.func.id]
        many += count(inner.body[-1].value, functions)[0] if inner else 1
    return many, isinstance(value.elts[-1], ast.Tuple)


def returned(function, functions):
    """The type of what a function returns."""
    if function.decorator_list:
        many, keeps = count(function.body[-1].value, functions)
        parts = ["_Array"] * (many - keeps) + ["tuple[Any, ...]"] * keeps
    else:
        parts = [t for _, t in said_in(ast.get_docstring(function), "Returns")]
    if not any(isinstance(node, ast.Return) for node in ast.walk(function)):
        return "None"
    return f"tuple[{', '.join(parts)}]" if len(parts) > 1 else "".join(parts) or "Any"


def face(function, functions):
    """A function's line in the stub."""
    types = {"axes": KINDS["which_axes"]} | declared(function)
    types |= dict(said_in(ast.get_docstring(function), "Parameters"))
    given = function.args
    for arg in ast.walk(given):
        if isinstance(arg, ast.arg) and arg.arg in types:
            arg.annotation = ast.Name(types[arg.arg])
    dots = ast.Constant(...)
    given.defaults = [dots for _ in given.defaults]
    given.kw_defaults = [default and dots for default in given.kw_defaults]
    result = returned(function, functions)
    return f"def {function.name}({ast.unparse(given)}) -> {result}: ..."


def homes(source):
    """Where a package has its names from, by what its `__init__` says."""
    found = {}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom):
            found |= {alias.name: node.module for alias in node.names}
        elif isinstance(node, ast.Assign) and ast.unparse(node.targets) == "_LAZY":
            found |= ast.literal_eval(node.value)
    return found


def write(path, source, modules):
    """The stub of a public module: all that it offers and nothing else."""
    things = {}
    # The first home of a name has the words: later ones hand it out anew, and faster.
    for module in reversed(modules.values()):
        for node in ast.parse("\n".join(body for _, body in module.bodies)).body:
            if hasattr(node, "name"):
                things[module.folder, node.name] = node
    functions = {n: f for (_, n), f in things.items() if isinstance(f, ast.FunctionDef)}
    found = homes(source) if path.endswith("__init__.py") else {}
    (offered,) = re.findall(r"^__all__ = \[.*?\]", source, re.M | re.S)
    top = ["from bnlib import nn as nn"] * (path == PUBLIC[0])
    lines = ["__version__: str"] * (path == PUBLIC[0])
    for name in ast.literal_eval(offered.partition(" = ")[2]):
        home = found.get(name)
        folder = home.replace(".", "/") if home else path
        thing = things.get((folder.rpartition("/")[0], name))
        if isinstance(thing, ast.FunctionDef):
            lines.append(face(thing, functions))
        elif home:
            top.append(f"from {home} import {name} as {name}")
        elif thing:
            thing.body = [n for n in thing.body if isinstance(n, ast.AnnAssign)]
            lines.append(ast.unparse(thing) + " ..." * (not thing.body))
        else:
            lines.append(f"{name}: dict[str, Any]")
    for module in modules.values():  # results' classes; what is not used goes
        if module.dotted in found.values():
            rest = [name for name in module.names if name[:1].isupper()]
            top += [f"from {module.dotted} import {n}" for n in rest if n not in found]
    array = [ARRAY] * any("_Array" in line for line in lines)
    return "\n".join([HEAD, *top, offered, *array, *lines])
