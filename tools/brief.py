"""Shown code says what the lecture needs: of a docstring the sentence and the equation.

The rest, from "Source:" or the first section on, is in the reference and the notebook.
"""

import ast
import re

REST = re.compile(r"\s*(?:Source:.*|Parameters|Returns|Yields|Raises|Attributes)\s*")


def brief(code):
    """Cut the docstrings of a cell where their rest begins."""
    try:
        tree = ast.parse(code)
    except SyntaxError:  # a line of IPython's own
        return code
    lines = code.splitlines()
    documented = (ast.FunctionDef, ast.ClassDef)
    nodes = [node for node in ast.walk(tree) if isinstance(node, documented)]
    for node in sorted(nodes, key=lambda node: -node.lineno):
        if ast.get_docstring(node) is None:
            continue
        start, end = node.body[0].lineno - 1, node.body[0].end_lineno
        rest = [i for i in range(start, end) if REST.fullmatch(lines[i])]
        if rest:
            kept = "\n".join(lines[start : rest[0]]).rstrip()
            below = "\n" + " " * node.body[0].col_offset if "\n" in kept else ""
            lines[start:end] = [kept + below + '"""']
    return "\n".join(lines)
