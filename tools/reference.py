"""The API reference, written from the docstrings while the book is built.

chapters/api.md says `% api: bnlib` where the public names of a module are wanted. Each
becomes an entry: its signature, its docstring, the chapter that derives it, its source.
"""

import functools
import inspect
import re
from importlib import import_module
from pathlib import Path

import export

ROOT = Path(__file__).resolve().parent.parent
MARK = re.compile(r"^% api: ([\w.]+)$", re.M)
NAME = r"\*?\*?\w+"  # a list of them may go on in the next line
ARGUMENTS = re.compile(rf"(^|\.\s|\n)((?:{NAME},\s)*{NAME}(?:\sand\s{NAME})?) :\s")
EQUATION = re.compile(r"[\w(][^.:]{0,40}? (?:=|<-) ")


@functools.cache
def modules():
    """What the chapters export, by the path of its module."""
    return export.collect()


def public(module):
    """The functions and classes that a module offers, in its own order."""
    things = {name: getattr(module, name) for name in module.__all__}
    kinds = (inspect.isfunction, inspect.isclass)
    return [n for n, thing in things.items() if any(is_a(thing) for is_a in kinds)]


class Named:
    """A default that is a function or a class, written by its name."""

    def __init__(self, thing):
        self.name = thing.__name__

    def __repr__(self):
        return self.name


def signature(thing):
    """The arguments, without annotations."""
    try:
        found = inspect.signature(thing)
    except ValueError:  # a class made in C, such as an exception
        return "()"
    plain = []
    for p in found.parameters.values():
        named = inspect.isfunction(p.default) or inspect.isclass(p.default)
        default = Named(p.default) if named and p.default is not p.empty else p.default
        plain.append(p.replace(annotation=p.empty, default=default))
    return str(found.replace(parameters=plain, return_annotation=found.empty))


def escaped(text):
    """Prose as MyST reads it: `names` are code, all other signs are themselves."""
    parts = re.split(r"(`[^`]+`)", text)
    parts[::2] = [part.replace("->", "→").replace("<-", "←") for part in parts[::2]]
    plain = [re.sub(r"([\\*_$\[\]<>{}^~#|])", r"\\\1", part) for part in parts[::2]]
    return "".join(
        part for pair in zip(plain, [*parts[1::2], ""], strict=True) for part in pair
    )


def body(docstring):
    """A docstring as MyST: equations and examples keep their lines, prose flows."""
    blocks = []
    for number, text in enumerate(re.split(r"\n\s*\n", docstring)):
        equation = number == 1 and EQUATION.match(text)
        if equation or text.startswith("    "):
            blocks.append("```{code-block} text\n" + inspect.cleandoc(text) + "\n```")
        else:
            blocks.append(escaped(ARGUMENTS.sub(r"\1`\2` : ", text)))
    return "\n\n".join(blocks)


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


def entry(module, name):
    """One entry of the reference."""
    thing = getattr(import_module(module), name)
    chapter, source = origin(thing)
    kind = "class" if inspect.isclass(thing) else "function"
    return (
        f"````{{py:{kind}}} {module}.{name}{signature(thing)}\n"
        f"{body(inspect.getdoc(thing))}\n\n"
        f"Derived in {{doc}}`{chapter}`; its lines: "
        f"{{ref}}`{source} <{label(source)}>`.\n````\n"
    )


def entries(module, known=()):
    """All entries of a module, but for names known from elsewhere."""
    offered = public(import_module(module))
    return "\n".join(entry(module, name) for name in offered if name not in known)


def write(text):
    """Put the entries into the page. What bnlib offers, bnlib.nn does not repeat."""
    top = public(import_module("bnlib"))

    def fill(found):
        return entries(found[1], known=top if found[1] == "bnlib.nn" else ())

    return MARK.sub(fill, text)


def sources():
    """The files that the reference is made of."""
    return sorted((ROOT / "bnlib").rglob("*.py"))
