"""What the book asks of Sphinx beyond its configuration; loaded by _config.yml.

- MathJax and the widgets' script come from the site itself where `make vendor` has
  fetched them (tools/frontend.py), else from the public CDN that Sphinx links to.
- The version in the footer is the one of pyproject.toml.
- sphinx-thebe, which runs cells on a remote server and which this book does not use,
  is kept off the pages: its script is injected twice and throws.
"""

import tomllib
from pathlib import Path

from sphinx.util import logging

ROOT = Path(__file__).resolve().parent.parent
EXTRA = ROOT / "_build" / "extra"
MATHJAX = "vendor/mathjax/es5/tex-chtml.js"
WIDGETS = "vendor/widgets/embed.js"

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
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
