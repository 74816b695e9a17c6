"""The API reference: Sphinx's autodoc, and where each thing is derived.

chapters/api.md names the modules. napoleon reads the sections of their docstrings; here
an equation keeps its lines, signs stay signs, and an entry gets its chapter and source.
"""

import functools
import inspect
import re
import textwrap
from importlib import import_module

import export

# A second block with a sign in its first line; prose ends with a full stop.
EQUATION = re.compile(r"[^\n]+ (?:=|<-) .*(?:[^.]|\.{3})\Z", re.S)


@functools.cache
def modules():
    """What the chapters export, by the path of its module."""
    return export.collect()


def public(module):
    """The functions and classes that a module offers, in its own order."""
    things = {name: getattr(module, name) for name in module.__all__}
    kinds = (inspect.isfunction, inspect.isclass)
    return [n for n, thing in things.items() if any(is_a(thing) for is_a in kinds)]


def origin(thing):
    """The chapter that a thing comes from and the module that has its lines."""
    name, bare = thing.__name__, inspect.unwrap(thing)
    for module in reversed(modules().values()):
        mine = getattr(import_module(module.dotted), name, None) in (thing, bare)
        if mine and name in module.names:
            return module.names[name].stem, module.dotted
    raise LookupError(f"no chapter exports {name}")


def label(dotted):
    """The name of a module's place on its page."""
    return "module-" + dotted.removeprefix("bnlib.").replace(".", "-")


def listing():
    """The modules one after the other, each with its chapters and its lines."""
    parts = []
    for module in modules().values():
        origins = ", ".join(f"{{doc}}`{chapter.stem}`" for chapter in module.chapters)
        parts.append(
            f"({label(module.dotted)})=\n## {module.dotted}\n\nFrom {origins}.\n\n"
            f"```{{literalinclude}} ../{module.path}\n"
            ":language: python\n:linenos:\n```\n"
        )
    return "\n".join(parts)


def write_plainly(app, what, name, thing, options, lines):
    """Make of a docstring what RST reads as it is meant: `names` alone are code."""
    for number, text in enumerate(blocks := re.split(r"\n\s*\n", "\n".join(lines))):
        if (number == 1 and EQUATION.match(text)) or text.startswith("    "):
            literal = textwrap.dedent(text).split("\n")
            blocks[number] = "\n    ".join([".. code-block:: text\n", *literal])
        else:
            text = text.replace("->", "→").replace("<-", "←")
            parts = re.split(r"(`[^`]+`)", text)
            parts[::2] = [re.sub(r"([\\*|]|_\b)", r"\\\1", part) for part in parts[::2]]
            blocks[number] = "".join(parts)
    lines[:] = "\n\n".join(blocks).split("\n") if what != "module" else []


def name_defaults(app, what, name, thing, options, signature, returned):
    """Write a default that is a function by its name alone: `rmax=rmax_schedule`."""
    return signature and re.sub(r"=[a-z]+\.(?=[a-z])", "=", signature), returned


def add_origin(app, what, name, thing, options, lines):
    """Say behind a docstring where the thing is derived."""
    if what != "module":
        chapter, source = origin(thing)
        here = f"its lines: :ref:`{source} <{label(source)}>`."
        lines += ["", f"Derived in :doc:`{chapter}`; {here}"]


def setup(app):
    for name in ("autodoc", "napoleon"):
        app.setup_extension(f"sphinx.ext.{name}")
    app.connect("autodoc-process-docstring", write_plainly, priority=400)
    app.connect("autodoc-process-docstring", add_origin, priority=600)
    app.connect("autodoc-process-signature", name_defaults)
    # A class is told in one docstring.
    app.connect("autodoc-skip-member", lambda app, what, *_: what == "class" or None)
