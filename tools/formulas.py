"""Formulas are set while the book is built, by MathJax in node.

So they are there with the text, without a script, and no page loads MathJax, which is
heavier than all else on it. What was set is kept beside the doctrees: node starts where
there is a new formula. Without node the page sets them itself, as Sphinx has it.
"""

import functools
import json
import re
import subprocess
from html import unescape
from pathlib import Path

import frontend
import slim
from docutils import nodes
from sphinx.ext import mathjax
from sphinx.util import logging

MATHJAX = frontend.ROOT / "_build" / "frontend" / "node_modules" / "mathjax" / "es5"
SCRIPT = Path(__file__).with_suffix(".cjs")
FONTS = MATHJAX / "output" / "chtml" / "fonts" / "woff-v2"
SOURCE = re.compile(r"\\\((.*)\\\)|\\\[(.*)\\\]", re.S)
SHAPE = re.compile(r'^mjx-c\.([\w.-]+)::before \{(?:[^{}"]|"[^"]*")*\}\n*', re.M)
CONTENT = re.compile(r'content: "([^"]*)"')
# A small x is as high as that of the text around, as in a page MathJax would have it.
SIZE = '\nmjx-container[jax="CHTML"] { font-size: calc(1ex / 0.442); }\n'

logger = logging.getLogger(__name__)


@functools.cache
def setter(tex):
    """The process that sets formulas; it ends when the build does."""
    command = [*frontend.node(), str(SCRIPT), str(MATHJAX), "formulas", tex]
    pipe = subprocess.PIPE
    return subprocess.Popen(
        command, stdin=pipe, stdout=pipe, text=True, encoding="utf-8"
    )


def ask(app, question):
    """The HTML of [TeX, is it displayed], or with None the style sheet."""
    key = json.dumps(question)
    if key not in app.formulas:
        process = setter(options(app))
        process.stdin.write(f"{key}\n")
        process.stdin.flush()
        app.formulas[key] = json.loads(process.stdout.readline())
        if "<mjx-merror" in app.formulas[key] and question:
            logger.warning("TeX does not know what this is: %s", question[0])
    return app.formulas[key]


def options(app):
    return json.dumps((app.config.mathjax3_config or {}).get("tex", {}))


def in_place_of(visit):
    """Write what Sphinx's own visitor does, with the formula set."""

    def write(self, node):
        start, app = len(self.body), self.builder.app
        try:
            visit(self, node)
        except nodes.SkipNode:
            written = "".join(self.body[start:])
        if node.get("nowrap"):
            made = written.replace(
                self.encode(node.astext()), ask(app, [node.astext(), True])
            )
        else:
            made = SOURCE.sub(
                lambda m: ask(app, [unescape(m[1] or m[2]).strip(), m[1] is None]),
                written,
            )
        self.body[start:] = [made]
        raise nodes.SkipNode

    return write


def store(app):
    return Path(app.doctreedir) / "formulas.json"


def remember(app):
    """Take up what an earlier build has set, if it would be set the same today."""
    made_by = MATHJAX / "tex-chtml.js", SCRIPT, Path(__file__)
    state = frontend.digest(*made_by) + options(app)
    known = json.loads(store(app).read_text("utf-8")) if store(app).is_file() else {}
    app.formulas = known if known.get("state") == state else {"state": state}


def write_sheet(app, exception):
    """Write style sheet and fonts, with the letters that are somewhere in a formula."""
    if exception or app.builder.format != "html":
        return
    sheet = ask(app, None)
    made = [html for key, html in app.formulas.items() if key.startswith("[")]
    shown = {
        name for html in made for name in re.findall(r'class="(mjx-c[^"]*)"', html)
    }
    rules = SHAPE.sub(lambda r: r[0] if r[1].replace(".", " ") in shown else "", sheet)
    target = Path(app.outdir) / "_static" / "formulas.css"
    if not target.is_file() or target.read_text("utf-8") != rules + SIZE:
        target.write_text(rules + SIZE, "utf-8")
        write_fonts(target.with_suffix(""), " ".join(CONTENT.findall(rules)))
    store(app).write_text(json.dumps(app.formulas), "utf-8")
    if setter.cache_info().currsize:
        setter(options(app)).stdin.close()
        setter(options(app)).wait()
        setter.cache_clear()


def write_fonts(folder, content):
    folder.mkdir(exist_ok=True)
    letters = {int(code, 16) for code in re.findall(r"\\([0-9A-F]+)", content)}
    letters |= {ord(letter) for letter in re.sub(r"\\[0-9A-F]+", "", content)}
    for font in FONTS.glob("*.woff"):
        slim.draw_only(letters, font, folder / font.name)


def can_set():
    return (MATHJAX / "node-main.js").is_file() and bool(frontend.node())


def setup(app):
    if not can_set():
        return
    app.add_html_math_renderer(
        "formulas",
        (in_place_of(mathjax.html_visit_math), None),
        (in_place_of(mathjax.html_visit_displaymath), None),
    )
    app.add_css_file("formulas.css")
    app.connect("builder-inited", remember)
    app.connect("build-finished", write_sheet)
