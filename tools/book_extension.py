"""What the book asks of Sphinx beyond its configuration; loaded by _config.yml.

Here is what changes a page's own words and boxes, each in a function that says what;
what has files of its own is in the tools that `setup` names at its end.
"""

import json
import re
import tomllib
from html import escape
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
from sphinx_exercise.nodes import is_exercise_node

ROOT = Path(__file__).resolve().parent.parent

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


def fill_version(app, config):
    """Write the package's version where the footer says {version}."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    config.release = config.version = project["version"]
    options = config.html_theme_options
    options["extra_footer"] = options["extra_footer"].format(version=config.version)


def set_messages(app, doctree, docname):
    """Show the message of an error as words, which wrap, and not as code."""
    for block in doctree.findall(nodes.literal_block):
        if "traceback" in block["classes"]:
            block["language"] = "text"
            block["classes"].append("bn-message")


def fold_answer(node):
    """A hint or a solution as a fold of the browser's own, which needs no script.

    It stands in its exercise, which has a name.
    """
    title, *content = node.children
    words = "Solution" if "solution" in node["classes"] else escape(title.astext())
    classes = " ".join(name for name in node["classes"] if name != "dropdown")
    name = f' id="{node["ids"][0]}"' if node["ids"] else ""
    start = f'<details class="{classes}"{name}><summary>{words}</summary>'
    ends = (nodes.raw("", text, format="html") for text in (start, "</details>"))
    return [next(ends), *content, next(ends)]


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
                answers.extend(fold_answer(node))
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
        depend(app, "chapters/claims.toml", "chapters/22_ledger.ipynb")
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


WRITTEN = {  # what fills marks on a page, and what that reads
    "chapters/index": (
        lambda text: opening.write(landing.write(text)),
        ("chapters/*.ipynb", "chapters/claims.toml", "pyproject.toml"),
    ),
    "chapters/api": (str, ("bnlib/**/*.py",)),
    "chapters/modules": (reference.write_list, ("bnlib/**/*.py",)),
    "chapters/parity": (parity.fill, ("chapters/parity.toml",)),
}


def write_page(app, docname, source):
    """Fill a page that is WRITTEN, anew when what it is made of has changed."""
    if docname in WRITTEN:
        fill, sources = WRITTEN[docname]
        source[0] = fill(source[0])
        depend(app, *sources)


def depend(app, *patterns):
    for path in (p for pattern in patterns for p in ROOT.glob(pattern)):
        app.env.note_dependency(str(path))


def glossary_terms():
    """The terms of chapters/notation.md, as they are spelled there."""
    text = (ROOT / "chapters" / "notation.md").read_text(encoding="utf-8")
    block = re.search(r"^```\{glossary\}\n(.*?)^```", text, re.M | re.S)[1]
    return re.findall(r"^(\w.*)$", block, re.M)


def link_terms(app, doctree):
    """Link the first mention of every term in the running text of a chapter."""
    docname = app.env.docname
    depend(app, "chapters/notation.md")
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


LINK = '<a class="headerlink" href="#{}" title="Link to this claim">#</a>'


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
        places = "".join(
            f'<span id="verdict-{v.split()[0]}"></span>' for v in claims.VERDICTS
        )
        ledger[0].parent.insert(1, nodes.raw("", places, format="html"))
    for table, _ in tables:
        table["classes"] += ["bn-claims", *["bn-ledger"] * (table in ledger)]
        for row in next(table.findall(nodes.tbody)):
            text = next(row[-1].findall(nodes.Text))
            word = next((v for v in claims.VERDICTS if text.startswith(v)), None)
            if word:
                chip = nodes.raw("", claims.chip(word), format="html")
                text.parent.replace(text, [chip, nodes.Text(text[len(word) :])])
            if table in ledger:
                name = "claim-" + nodes.make_id(row[0].astext())[:48].rstrip("-")
                row["ids"].append(name)
                row[0][-1] += nodes.raw("", LINK.format(name), format="html")


def drop_scripts(app, pagename, templatename, context, doctree):
    """No page keeps the marks of an earlier search, nor, without a figure that moves,
    the script of those."""
    unused = ["sphinx_highlight.js"]
    if "bn-movable" not in context.get("body", ""):
        unused.append("movables.js")
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
    app.connect("config-inited", fill_version)
    app.connect("config-inited", silence_thebe)
    app.connect("config-inited", number_pages, priority=900)
    app.connect("source-read", prepare_notebook)
    app.connect("source-read", write_page)
    app.connect("doctree-read", join_numbers)
    app.connect("doctree-read", link_terms)
    app.add_post_transform(FoldProse)
    app.connect("doctree-resolved", set_messages)
    app.connect("doctree-resolved", make_exercise_cards)
    app.connect("doctree-resolved", mark_verdicts)
    app.connect("html-page-context", drop_scripts, priority=900)
    app.connect("build-finished", mend_pages)
    for tool in (formulas, publishing, python_in_page, reference, site_search, slim):
        tool.setup(app)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": False}
