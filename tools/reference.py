"""The API reference: Sphinx's autodoc, and where each thing is derived.

chapters/api.md names the modules. napoleon reads the sections of their docstrings; here
an equation keeps its lines, signs stay signs, and an entry gets its chapter and source.
"""

import functools
import inspect
import re
import textwrap
from html import escape
from importlib import import_module
from pathlib import Path

import export

LIST = "chapters/modules"

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


# ---- a page for every module --------------------------------------------------------


def label(dotted):
    """The name by which a module's page is referred to."""
    dotted = dotted.removeprefix("bnlib.").replace(".", "-")
    return f"module-{dotted}".lower()  # as Sphinx looks for labels


def page_of(module):
    """The page that has a module's lines; it is written here, from no document."""
    return f"{LIST}/{module.dotted}"


def write_list(text):
    """Fill chapters/modules.md: a table, each with its chapters and how long it is."""
    rows = ["| module | from | lines |", "|---|---|--:|"]
    for module in modules().values():
        origins = ", ".join(f"{{doc}}`{chapter.stem}`" for chapter in module.chapters)
        lines = len((export.ROOT / module.path).read_text("utf-8").splitlines())
        link = f"{{ref}}`{module.dotted} <{label(module.dotted)}>`"
        rows.append(f"| {link} | {origins} | {lines} |")
    return text.replace("% modules", "\n".join(rows))


def name_pages(app, env, docnames):
    """Tell Sphinx where the labels of the modules lead to."""
    known = env.get_domain("std")
    for module in modules().values():
        name, place = label(module.dotted), (page_of(module), "")
        known.labels[name] = (*place, module.dotted)
        known.anonlabels[name] = place


def body(app, module):
    """A module's page: where it comes from, and its lines."""
    here, link = page_of(module), '<a class="reference internal" href="{}">{}</a>'

    def leads_to(docname, text):
        return link.format(app.builder.get_relative_uri(here, docname), text)

    origins = ", ".join(
        leads_to(
            f"chapters/{c.stem}", escape(app.env.titles[f"chapters/{c.stem}"].astext())
        )
        for c in module.chapters
    )
    code = (export.ROOT / module.path).read_text("utf-8")
    lines = app.builder.highlighter.highlight_block(code, "python", linenos="inline")
    return (
        f"<section><h1>{module.dotted}</h1>\n<p>From {origins}. All of these modules: "
        f"{leads_to(LIST, 'the package, module by module')}.</p>\n"
        f'<div class="highlight-python notranslate bn-lines">{lines}</div></section>'
    )


def write_pages(app):
    """Yield the pages of the modules that are older than their list."""
    listed = Path(app.doctreedir, f"{LIST}.doctree")
    for module in modules().values():
        written = Path(app.outdir, f"{page_of(module)}.html")
        if written.is_file() and written.stat().st_mtime > listed.stat().st_mtime:
            continue
        context = {"title": module.dotted, "body": body(app, module)}
        yield page_of(module), context, "page.html"


# ---- docstrings ---------------------------------------------------------------------


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
    app.connect("env-before-read-docs", name_pages)
    app.connect("html-collect-pages", write_pages)
    app.connect("autodoc-process-docstring", write_plainly, priority=400)
    app.connect("autodoc-process-docstring", add_origin, priority=600)
    app.connect("autodoc-process-signature", name_defaults)
    # A class is told in one docstring.
    app.connect("autodoc-skip-member", lambda app, what, *_: what == "class" or None)
