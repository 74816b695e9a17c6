"""What the book asks of Sphinx beyond its configuration; loaded by _config.yml.

- MathJax and the widgets' script come from the site itself where `make vendor` has
  fetched them (tools/frontend.py), else from the public CDN that Sphinx links to.
- The version in the footer is the one of pyproject.toml.
- A stored traceback is folded: its frames open on demand, its message is in view.
- sphinx-thebe, which runs cells on a remote server and which this book does not use,
  is kept off the pages: its script is injected twice and throws.
"""

import re
import tomllib
from pathlib import Path

from docutils import nodes
from sphinx.util import logging

ROOT = Path(__file__).resolve().parent.parent
EXTRA = ROOT / "_build" / "extra"
MATHJAX = "vendor/mathjax/es5/tex-chtml.js"
WIDGETS = "vendor/widgets/embed.js"
HEADING = re.compile(r"^(?:-+\n)?(\S+) +Traceback \(most recent call last\)\n", re.M)

logger = logging.getLogger(__name__)


def serve_vendored(app, config):
    """Point the pages to the fetched copies, where they are all there."""
    if not all((EXTRA / path).is_file() for path in (MATHJAX, WIDGETS)):
        logger.info("MathJax and widgets: linked from a CDN, no fetched copies found")
        return
    config.html_static_path.append(str(EXTRA))
    config.mathjax_path = MATHJAX
    config.nb_ipywidgets_js = {WIDGETS: {}}


def fill_version(app, config):
    """Write the package's version where the footer says {version}."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    config.release = config.version = project["version"]
    footer = config.html_theme_options.get("extra_footer", "")
    config.html_theme_options["extra_footer"] = footer.replace(
        "{version}", project["version"]
    )


def split_traceback(text):
    """The frames and the message of an IPython traceback; None where it is not one."""
    headings = list(HEADING.finditer(text))
    if not headings:
        return None
    name = re.escape(headings[-1][1])
    messages = list(re.finditer(rf"^(?:\w+\.)*{name}(?=:|$)", text, re.M))
    if not messages:
        return None
    frames, message = text[: messages[-1].start()], text[messages[-1].start() :]
    if len(headings) == 1:  # else the headings tell which frames belong to which error
        frames = HEADING.sub("", frames)
    return frames.strip("\n"), message.strip("\n")


def fold_tracebacks(app, doctree, docname):
    """Put the frames of stored tracebacks in a <details>, before the message."""
    blocks = doctree.findall(nodes.literal_block)
    for block in [b for b in blocks if "traceback" in b["classes"]]:
        parts = split_traceback(block.astext())
        if not parts or app.builder.format != "html":
            continue
        both = [nodes.literal_block(part, part, **block.attributes) for part in parts]
        both[1]["language"] = "text"  # words, not code
        both[1]["classes"] = [*block["classes"], "bn-message"]
        heading = "Traceback (most recent call last)"
        fold = f'<details class="bn-frames"><summary>{heading}</summary>'
        tags = [nodes.raw("", tag, format="html") for tag in (fold, "</details>")]
        at = block.parent.index(block)
        block.parent[at : at + 1] = [tags[0], both[0], tags[1], both[1]]


def silence_thebe(app, config):
    """Keep sphinx-thebe from adding its settings and its script to the pages."""
    for event in ("env-before-read-docs", "doctree-resolved"):
        for listener in list(app.events.listeners[event]):
            if listener.handler.__module__ == "sphinx_thebe":
                app.disconnect(listener.id)


def setup(app):
    app.connect("config-inited", serve_vendored, priority=200)
    app.connect("config-inited", fill_version)
    app.connect("config-inited", silence_thebe)
    app.connect("doctree-resolved", fold_tracebacks)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
