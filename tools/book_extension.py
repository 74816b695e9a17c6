"""What the book asks of Sphinx beyond its configuration; loaded by _config.yml.

- Formulas are set while building (tools/formulas.py). Where node is missing the pages
  set them: MathJax comes from the site itself where `make vendor` has fetched it
  (tools/frontend.py), else from the public CDN that Sphinx links to.
- The version in the footer is the one of pyproject.toml.
- The message of an error is set as words.
- Descriptions, card, sitemap, robots and 404 are those of tools/publishing.py.
- What the theme writes that a screen reader stumbles over is mended in each page.
- An exercise is one card: its cell, its hints and its solution stand in it, these two
  folded by the browser itself.
- Chapter 0 and the appendices have numbers, and their figures too.
- Greek letters in prose are set as in formulas, and ε has one shape in both.
- Verdicts of claims have a colour and a pattern; every claim of the ledger an address.
- Figures with a slider become plain HTML, which needs no script to be seen
  (tools/movables.py).
- The reference is written from the docstrings, with a page for every module
  (tools/reference.py); the tables of frameworks from chapters/parity.toml
  (tools/parity.py); the claims of a chapter from the ledger's (tools/claims.py).
- The search knows sections, terms, names and exercises (tools/site_search.py).
- Icons that no page shows are left out of the theme's style sheet (tools/slim.py), and
  MathJax out of pages without a formula.
- The first page gets a picture that moves (tools/opening.py); proofs, ways through and
  the map of the chapters (tools/landing.py).
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

import claims
import drawings
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
from brief import brief
from docutils import nodes
from myst_nb.sphinx_ import HideCodeCellNode
from sphinx import addnodes
from sphinx.environment.collectors.toctree import TocTreeCollector
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util import logging
from sphinx_exercise.nodes import is_exercise_node

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
    # A chapter's number stands in a column of its own.
    (
        r'(<li class="toctree-l1[^"]*"><a class="[^"]*" href="[^"]*">)(A?\d+) ',
        r'\1<span class="section-number">\2</span> ',
    ),
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


def unify_epsilon(app, config):
    r"""Formulas show \epsilon as the ε of the text."""
    config.mathjax3_config = {"tex": {"macros": {"epsilon": r"\varepsilon"}}}


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


class Fold(nodes.Element):
    """What the browser shows when its title is pressed, script or none."""


def visit_fold(self, node):
    self.body.append(self.starttag(node, "details"))
    self.body.append(f"<summary>{self.encode(node['title'])}</summary>")


def depart_fold(self, node):
    self.body.append("</details>")


def fold_answer(node):
    """A hint or a solution as a fold; it stands in its exercise, which has a name."""
    title, *content = node.children
    is_solution = "solution" in node["classes"]
    return Fold(
        "",
        *content,
        ids=node["ids"],
        classes=[name for name in node["classes"] if name != "dropdown"],
        title="Solution" if is_solution else title.astext(),
    )


def unwrap_name(title):
    """An exercise's name stands beside its number: it needs no parentheses."""
    for text in (title[0], title[-1]) if len(title) > 2 else ():
        if text.astext() in (" (", ")"):
            title.replace(text, nodes.Text(""))


def make_exercise_cards(app, doctree, docname):
    """Move into an exercise what belongs to it: its cell, its hints, its solution."""
    for exercise in list(doctree.findall(is_exercise_node)):
        answers = nodes.container(classes=["bn-hints"])
        siblings = exercise.parent.children
        unwrap_name(exercise[0])
        for node in siblings[siblings.index(exercise) + 1 :]:
            classes = node.get("classes", []) if isinstance(node, nodes.Element) else []
            if "dropdown" in classes:
                answers += fold_answer(node)
            elif "tag_exercise" in classes and not answers.children:
                exercise += node
            elif isinstance(node, nodes.target | nodes.comment):
                continue
            else:
                break
            siblings.remove(node)
        if answers.children:
            exercise += answers


def mend_pages(app, exception):
    """Write MENDS into the pages built, once; remove pages that no chapter has now."""
    if exception or app.builder.format != "html":
        return
    pages = {Path(app.outdir, f"{name}.html") for name in app.env.found_docs}
    for path in Path(app.outdir, "chapters").glob("*.html"):
        if path not in pages:  # of a chapter that had this name once
            path.unlink()
    for path in Path(app.outdir).rglob("*.html"):
        if path.is_relative_to(Path(app.outdir) / "_static"):
            continue
        text = mended = path.read_text(encoding="utf-8")
        for wrong, right in MENDS:
            mended = re.sub(wrong, right, mended)
        if mended != text:
            path.write_text(mended, encoding="utf-8")


def prepare_notebook(app, docname, source):
    """Fold cells tagged `small-print` under their first comment and how long they are
    (prose with the code cell that follows it),
    shorten other docstrings, and write the figures that move as HTML.

    The page holds all of the code: search finds it, and it can be copied.
    """
    if not app.env.doc2path(docname).endswith(".ipynb"):
        return
    book = json.loads(source[0])
    for cell in book["cells"]:
        tags = cell["metadata"].get("tags", [])
        if "small-print" in tags and cell["cell_type"] == "markdown":
            text = "".join(cell["source"])
            cell["source"] = f":::::{{container}} bn-small\n{text}\n:::::"
        elif "small-print" in tags:
            lines = "".join(cell["source"]).splitlines()
            more = len(lines) - 1
            told = f"{lines[0].strip('# .')}, {more} line{'s' * (more > 1)}"
            cell["metadata"].setdefault("mystnb", {})["code_prompt_show"] = told
            tags.append("hide-input")
        elif cell["cell_type"] == "code":
            cell["source"] = brief("".join(cell["source"]))
    movables.place(book)
    drawings.place(book)
    if claims.place(book, docname.removeprefix("chapters/")):
        for path in (claims.CLAIMS, claims.LEDGER, claims.__file__):
            app.env.note_dependency(str(path))
    source[0] = json.dumps(book)


class FoldProse(SphinxPostTransform):
    """Fold a paragraph of small print with the code cell that it speaks of."""

    default_priority = 200  # behind myst-nb's, which folds the code
    formats = ("html",)

    def run(self, **kwargs):
        for prose in list(self.document.findall(nodes.container)):
            if "bn-small" in prose["classes"]:
                cell = prose.next_node(descend=False, siblings=True)
                prose.parent.remove(prose)
                cell.next_node(HideCodeCellNode).insert(0, prose)


def write_modules(app, docname, source):
    """Fill chapters/modules.md; it and chapters/api.md are new with every module."""
    if docname not in ("chapters/api", "chapters/modules"):
        return
    source[0] = source[0].replace("% modules", reference.listing())
    for path in (*(ROOT / "bnlib").rglob("*.py"), reference.__file__):
        app.env.note_dependency(str(path))


def write_parity(app, docname, source):
    """Fill the tables into chapters/parity.md, anew when a fact has changed."""
    if docname == "chapters/parity":
        source[0] = parity.fill(source[0])
        app.env.note_dependency(str(parity.FACTS))
        app.env.note_dependency(parity.__file__)


def write_landing(app, docname, source):
    """Fill chapters/index.md: picture, proofs and map, anew with every chapter."""
    if docname == "chapters/index":
        source[0] = opening.write(landing.write(source[0]))
        chapters = ROOT / "chapters"
        for path in (*chapters.glob("*.ipynb"), chapters / "claims.toml"):
            app.env.note_dependency(str(path))
        app.env.note_dependency(str(ROOT / "pyproject.toml"))
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
UNBROKEN = re.compile(
    r"(\d(?:\.\d+)?e-\d+|∂\w+/∂\w+|(?<![A-Za-zα-ω])[α-ω](?![A-Za-zα-ω]))"
)
PROSE = nodes.paragraph | nodes.caption | nodes.emphasis | nodes.strong


def join_numbers(app, doctree):
    """Keep a number and what belongs to it in one line: 5 %, 0.41 ± 0.03, 1e-7.

    Greek letters, and ∂L/∂x, are marked as mathematics.
    """
    for text in list(doctree.findall(nodes.Text)):
        if not isinstance(text.parent, PROSE):
            continue
        joined = TOGETHER.sub(lambda found: found[0].replace(" ", "\xa0"), text)
        parts = [nodes.Text(part) for part in UNBROKEN.split(joined)]
        for n in range(1, len(parts), 2):
            name = "bn-together" if parts[n][0].isdigit() else "bn-symbol"
            parts[n] = nodes.inline(parts[n], parts[n], classes=[name])
        if joined != text or len(parts) > 1:
            text.parent.replace(text, [p for p in parts if p.astext()])


def headings(bullets, above=()):
    """Every heading in a page's table of contents, with its number."""
    for n, item in enumerate(bullets.children, 1):
        yield item[0][0], (*above, n)
        for inner in item.children[1:]:
            yield from headings(inner, (*above, n))


def number_pages(app, config):
    """Give chapter 0 and the appendices the number that their file has.

    Sphinx knows no chapter before 1, and counts figures through all pages without one.
    """
    count = TocTreeCollector.assign_figure_numbers

    def assign_figure_numbers(collector, env):
        for docname, toc in env.tocs.items():
            if found := re.match(r"chapters/(A\d|0(?=0))", docname):
                numbers = env.toc_secnumbers[docname] = {}
                for heading, (_, *below) in headings(toc):
                    heading["secnumber"] = number = (found[1], *below)
                    numbers[heading["anchorname"]] = number
        return count(collector, env)

    TocTreeCollector.assign_figure_numbers = assign_figure_numbers


VERDICTS = (
    "reproduced",
    "partly",
    "not at this scale",
    "false as stated",
    "disputed",
)
LINK = '<a class="headerlink" href="#{}" title="Link to this claim">#</a>'
CHIP = '<span class="bn-verdict" data-verdict="{}">{}</span>'


def judged_tables(doctree):
    """The tables whose last column is called "verdict": (table, names of columns)."""
    for table in doctree.findall(nodes.table):
        head = next(table.findall(nodes.thead), [[]])[0]
        names = [entry.astext() for entry in head]
        if names and names[-1] == "verdict":
            yield table, names


def mark_verdicts(app, doctree, docname):
    """Write chips in place of verdicts; the ledger's claims get an address each.

    Only the ledger says where a claim is tested. `#verdict-false` chooses of it.
    """
    tables = list(judged_tables(doctree))
    ledger = [table for table, names in tables if "tested in" in names]
    if ledger:
        places = "".join(f'<span id="verdict-{v.split()[0]}"></span>' for v in VERDICTS)
        ledger[0].parent.insert(1, nodes.raw("", places, format="html"))
    for table, _ in tables:
        table["classes"] += ["bn-claims", *["bn-ledger"] * (table in ledger)]
        for row in next(table.findall(nodes.tbody)):
            text = next(row[-1].findall(nodes.Text))
            word = next((v for v in VERDICTS if text.startswith(v)), None)
            if word:
                chip = CHIP.format(word.split()[0], word)
                chip = nodes.raw("", chip, format="html")
                text.parent.replace(text, [chip, nodes.Text(text[len(word) :])])
            if table in ledger:
                name = "claim-" + nodes.make_id(row[0].astext())[:48].rstrip("-")
                row["ids"].append(name)
                row[0][-1] += nodes.raw("", LINK.format(name), format="html")


def drop_scripts(app, pagename, templatename, context, doctree):
    """No page keeps the marks of an earlier search, none without a live figure loads
    their script, and none without a formula of its own MathJax, though Sphinx gives the
    first page that of all below it."""
    unused = ["sphinx_highlight.js"]
    if " data-live=" not in context.get("body", ""):
        unused.append("live.js")
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
    app.connect("config-inited", unify_epsilon)
    app.connect("config-inited", silence_thebe)
    app.connect("config-inited", number_pages, priority=900)
    app.connect("doctree-read", join_numbers)
    app.connect("source-read", prepare_notebook)
    app.add_post_transform(FoldProse)
    app.connect("source-read", write_modules)
    app.connect("source-read", write_parity)
    app.connect("source-read", write_landing)
    app.connect("doctree-read", link_terms)
    app.connect("doctree-resolved", set_messages)
    app.connect("doctree-resolved", make_exercise_cards)
    app.connect("doctree-resolved", mark_verdicts)
    app.add_node(Fold, html=(visit_fold, depart_fold))
    app.connect("html-page-context", drop_scripts, priority=900)
    app.connect("build-finished", mend_pages)
    formulas.setup(app)
    publishing.setup(app)
    python_in_page.setup(app)
    reference.setup(app)
    site_search.setup(app)
    slim.setup(app)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": False}
