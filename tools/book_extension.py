"""What the book asks of Sphinx beyond its configuration; loaded by _config.yml.

- Formulas are set while building (tools/formulas.py). Where node is missing the pages
  set them: MathJax comes from the site itself where `make vendor` has fetched it
  (tools/frontend.py), else from the public CDN that Sphinx links to.
- The version in the footer is the one of pyproject.toml.
- The message of an error is set as words.
- Descriptions, card, sitemap, robots and 404 are those of tools/publishing.py.
- What the theme writes that a screen reader stumbles over is mended in each page.
- Figures with a slider become plain HTML, which needs no script to be seen
  (tools/movables.py).
- The reference is written from the docstrings, with a page for every module
  (tools/reference.py); the table of frameworks from chapters/parity.toml
  (tools/parity.py).
- The search knows sections, terms, names and exercises (tools/site_search.py).
- Icons that no page shows are left out of the theme's style sheet (tools/slim.py), and
  MathJax out of pages without a formula.
- The first page gets a picture that moves (tools/opening.py), a map of the chapters and
  the time each takes to read (tools/landing.py).
- The first time a page uses a term of the glossary, the word links to it, and bnlib.js
  shows the definition while the pointer rests there.
- Cells that Python in the page can run are marked, and its script is added
  (tools/python_in_page.py).
- A number and its unit stay in one line, a formula and its full stop too, and so do
  1e-7, ∂L/∂x, a shape like (N, C), chapter 4.
- sphinx-thebe, which runs cells on a remote server and which this book does not use,
  is kept off the pages: its script is injected twice and throws.
"""

import json
import re
import tomllib
from pathlib import Path

import formulas
import landing
import movables
import opening
import parity
import publishing
import python_in_page
import reference
import site_search
import slim
from docutils import nodes
from sphinx import addnodes
from sphinx.util import logging

ROOT = Path(__file__).resolve().parent.parent
EXTRA = ROOT / "_build" / "extra"
MATHJAX = "vendor/mathjax/es5/tex-chtml.js"

# (what the theme writes, what is written in its place), found by axe-core.
MENDS = [
    # A button's name must contain the words seen on it.
    (r'(<button class="[^"]*search-button-field[^>]*?) aria-label="Search"', r"\1"),
    (r'(<i class="theme-switch [^>]*?) title="[^"]*"', r"\1"),
    (r'<summary aria-label="Toggle hidden content">', "<summary>"),
    # Icons come from the theme's font, which the style sheet names; its script, heavier
    # than all others together, draws the same. They are not read out.
    (r"\s*<!-- So that users can add custom icons -->(?=\s*<script)", ""),
    (r'\s*<script src="[^"]*/fontawesome\.js[^>]*></script>', ""),
    (r'<i class="(?=[^"]*\bfa-)', r'<i aria-hidden="true" class="'),
    # A long name breaks behind an underscore in the page's contents.
    (r"(?<=[a-z0-9])_(?=\w*\(\)</span></code></a></li>)", "_<wbr>"),
    # Everything is in a landmark, the book's title at the top of the sidebar too.
    (
        r'<div class="sidebar-primary-item">(\s*<a class="navbar-brand)',
        r'<div class="sidebar-primary-item" role="navigation" aria-label="Cover">\1',
    ),
    # No line begins with the full stop behind a formula.
    (
        r'(?<!bn-together">)(<span class="math notranslate nohighlight">'
        r"(?:[^<]*|<mjx-container (?:(?!</span>).)*)</span>"
        r"[.,;:!?)\]’”]+)",
        r'<span class="bn-together">\1</span>',
    ),
    # The space before a link is not part of it, or it is underlined.
    (r'(Solution to)(<a class="reference internal" href="[^"]*">) ', r"\1 \2"),
    # What is behind the fold of a cell tagged `ledger`.
    (
        r'(<div class="cell [^"]*tag_ledger[^>]*>\s*<details[^>]*>\s*<summary>'
        r"\s*<p[^>]*>)Show the code(</p>\s*<p[^>]*>)Hide the code",
        r"\1The numbers that the ledger quotes\2Hide the numbers",
    ),
    # A corner of a table is not the heading of anything.
    (r'<th class="head"><p></p></th>', '<td class="head"></td>'),
    # ARIA 1.3 takes doc-biblioentry back: an entry is an item of the list.
    (r' role="doc-biblioentry"', ' role="listitem"'),
]

logger = logging.getLogger(__name__)


def serve_vendored(app, config):
    """Point the pages to the fetched copy, where there is one."""
    if not (EXTRA / MATHJAX).is_file():
        logger.info("MathJax: linked from a CDN, no fetched copy found")
        return
    config.html_static_path.append(str(EXTRA))
    config.mathjax_path = MATHJAX


def fill_version(app, config):
    """Write the package's version where the footer says {version}."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    config.release = config.version = project["version"]
    footer = config.html_theme_options.get("extra_footer", "")
    config.html_theme_options["extra_footer"] = footer.replace(
        "{version}", project["version"]
    )


def set_messages(app, doctree, docname):
    """Show the message of an error as words, which wrap, and not as code."""
    for block in doctree.findall(nodes.literal_block):
        if "traceback" in block["classes"]:
            block["language"] = "text"
            block["classes"].append("bn-message")


def mend_pages(app, exception):
    """Write MENDS into the pages built; where they are in already, nothing happens."""
    if exception or app.builder.format != "html":
        return
    for path in Path(app.outdir).rglob("*.html"):
        if path.is_relative_to(Path(app.outdir) / "_static"):
            continue
        text = mended = path.read_text(encoding="utf-8")
        for wrong, right in MENDS:
            mended = re.sub(wrong, right, mended)
        if mended != text:
            path.write_text(mended, encoding="utf-8")


def prepare_notebook(app, docname, source):
    """Fold cells tagged `small-print` under their first comment and how long they are,
    and write the figures that move as HTML.

    The page holds all of the code: search finds it, and it can be copied.
    """
    if not app.env.doc2path(docname).endswith(".ipynb"):
        return
    book = json.loads(source[0])
    for cell in book["cells"]:
        tags = cell["metadata"].get("tags", [])
        if "small-print" in tags:
            lines = "".join(cell["source"]).splitlines()
            told = f"{lines[0].lstrip('# ').rstrip('.')}, {len(lines) - 1} lines"
            cell["metadata"]["mystnb"] = {"code_prompt_show": told}
            tags.append("hide-input")
    movables.place(book)
    source[0] = json.dumps(book)


def write_modules(app, docname, source):
    """Fill chapters/modules.md; it and chapters/api.md are new with every module."""
    if docname not in ("chapters/api", "chapters/modules"):
        return
    source[0] = source[0].replace("% modules", reference.listing())
    for path in (*(ROOT / "bnlib").rglob("*.py"), reference.__file__):
        app.env.note_dependency(str(path))


def write_parity(app, docname, source):
    """Fill the table into chapters/parity.md, anew when a fact has changed."""
    if docname == "chapters/parity":
        source[0] = source[0].replace(parity.MARK, parity.table())
        app.env.note_dependency(str(parity.FACTS))
        app.env.note_dependency(parity.__file__)


def write_landing(app, docname, source):
    """Fill chapters/index.md: picture, map and table, anew with every chapter."""
    if docname == "chapters/index":
        source[0] = opening.write(landing.write(source[0]))
        for path in (ROOT / "chapters").glob("*.ipynb"):
            app.env.note_dependency(str(path))
        for path in (landing.__file__, opening.__file__):
            app.env.note_dependency(str(path))


def glossary_terms():
    """The terms of chapters/notation.md, as they are spelled there."""
    text = (ROOT / "chapters" / "notation.md").read_text(encoding="utf-8")
    block = re.search(r"^```\{glossary\}\n(.*?)^```", text, re.M | re.S)[1]
    return re.findall(r"^(\w.*)$", block, re.M)


def link_terms(app, doctree):
    """Link the first mention of every term in the running text of a chapter."""
    docname = app.env.docname
    app.env.note_dependency(str(ROOT / "chapters" / "notation.md"))
    if docname == "chapters/notation" or not docname.startswith("chapters/"):
        return
    for term in glossary_terms():
        spelled = re.compile(rf"\b{re.escape(term)}s?\b", re.I)
        for text in doctree.findall(nodes.Text):
            found = spelled.search(text)
            if found and isinstance(text.parent, nodes.paragraph):
                before, after = text[: found.start()], text[found.end() :]
                link = addnodes.pending_xref(
                    "",
                    nodes.inline(found[0], found[0], classes=["bn-term"]),
                    refdomain="std",
                    reftype="term",
                    reftarget=term,
                    refdoc=docname,
                    refexplicit=True,
                    refwarn=True,
                )
                parts = [nodes.Text(before), link, nodes.Text(after)]
                text.parent.replace(text, [p for p in parts if p.astext()])
                break


TOGETHER = re.compile(
    r"(?<=\d) %|(?<=[\d%]) ± (?=\d)|(?<=\d) × (?=\d)|(?<=\b[α-ω]) = (?=[\d−-])"
    r"|\([A-Z1](?:, (?:[A-Z1]|…|\.\.\.))+\)"
    r"|(?:(?<=\b[Cc]hapter)|(?<=\bAlgorithm)|(?<=\bFigure)|(?<=\bSection)) (?=\d)"
)
UNBROKEN = re.compile(r"(\d(?:\.\d+)?e-\d+|∂\w+/∂\w+)")
PROSE = nodes.paragraph | nodes.caption | nodes.emphasis | nodes.strong


def join_numbers(app, doctree):
    """Keep a number and what belongs to it in one line: 5 %, 0.41 ± 0.03, 1e-7."""
    for text in list(doctree.findall(nodes.Text)):
        if not isinstance(text.parent, PROSE):
            continue
        joined = TOGETHER.sub(lambda found: found[0].replace(" ", "\xa0"), text)
        parts = [nodes.Text(part) for part in UNBROKEN.split(joined)]
        for n in range(1, len(parts), 2):
            parts[n] = nodes.inline(parts[n], parts[n], classes=["bn-together"])
        if joined != text or len(parts) > 1:
            text.parent.replace(text, [p for p in parts if p.astext()])


def drop_scripts(app, pagename, templatename, context, doctree):
    """No page keeps the marks of an earlier search, and none without a formula of its
    own loads MathJax: to Sphinx the first page has those of all below it."""
    unused = ["sphinx_highlight.js"]
    if 'class="math' not in context.get("body", ""):
        unused.append("tex-chtml.js")
    context["script_files"] = [
        script
        for script in context["script_files"]
        if str(getattr(script, "filename", "")).rpartition("/")[2] not in unused
    ]


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
    app.connect("doctree-read", join_numbers)
    app.connect("source-read", prepare_notebook)
    app.connect("source-read", write_modules)
    app.connect("source-read", write_parity)
    app.connect("source-read", write_landing)
    app.connect("doctree-read", link_terms)
    app.connect("doctree-resolved", set_messages)
    app.connect("html-page-context", drop_scripts)
    app.connect("build-finished", mend_pages)
    formulas.setup(app)
    publishing.setup(app)
    python_in_page.setup(app)
    reference.setup(app)
    site_search.setup(app)
    slim.setup(app)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": False}
