"""Search by section: what can be found is gathered here, while the book is built.

An entry is a section of a page, an exercise, a term of the glossary or a name of the
reference, with its title and its prose. Code, formulas that stand alone and outputs are
left out; captions are not, nor are the ledger's claims. chapters/search.toml has words
that mean the same, and the subjects of sections whose titles do not say them.

All of it becomes _static/search/index.js, which the script of the pages asks for when
somebody begins to search: tools/search/_static/search has that script, and the engine.
"""

import json
import pickle
import re
import tomllib
from pathlib import Path

import reference
from docutils import nodes
from sphinx import addnodes

ROOT = Path(__file__).resolve().parent.parent
WORDS = ROOT / "chapters" / "search.toml"

SILENT = (
    nodes.literal_block | nodes.math_block | nodes.raw | nodes.Invisible
    | nodes.image | nodes.title | addnodes.desc_signature
)  # fmt: skip
UNITS = nodes.paragraph | nodes.caption | nodes.row | nodes.term | nodes.line
LETTERS = {
    "gamma": "γ", "beta": "β", "epsilon": "ε", "varepsilon": "ε", "mu": "μ",
    "sigma": "σ", "eta": "η", "lambda": "λ", "alpha": "α", "partial": "∂", "le": "≤",
    "ge": "≥", "cdot": "·", "times": "×", "to": "→", "sqrt": "√", "approx": "≈",
    "infty": "∞", "sum": "Σ", "mapsto": "↦", "leftarrow": "←", "pm": "±", "ne": "≠",
    "ell": "ℓ", "hat": "", "bar": "", "tilde": "", "mathrm": "", "text": "",
    "operatorname": "", "mathcal": "", "bigl": "", "bigr": "", "left": "", "right": "",
    "langle": "⟨", "rangle": "⟩", "|": "‖", ",": " ", ";": " ", "%": "%",
}  # fmt: skip


# ---- what a page has ----------------------------------------------------------------


def spoken(formula):
    """A short formula as characters: \\gamma\\hat x becomes γx."""
    text = re.sub(r"\\d?frac\{(.*?)\}\{(.*?)\}", r"\1/\2", formula)
    text = re.sub(
        r"\\([a-zA-Z]+|[|,;%]) ?", lambda m: LETTERS.get(m[1], m[1] + " "), text
    )
    return re.sub(r"[{}\\]", "", text.replace("^2", "²").replace("^\\top", "ᵀ"))


def said(node):
    """The words of a node, as a reader sees them."""
    if isinstance(node, nodes.math):
        return spoken(node.astext())
    if isinstance(node, nodes.Text):
        return node.astext()
    if isinstance(node, nodes.raw | nodes.Invisible | nodes.image):
        return ""
    between = " · " if isinstance(node, nodes.row) else ""
    return between.join(said(child) for child in node.children)


def line(node):
    return " ".join(said(node).split())


def bold_start(node):
    """The words in bold that a paragraph begins with, as with a title."""
    first = next((child for child in node.children if child.astext()), None)
    is_title = isinstance(first, nodes.strong) and first.astext().endswith(".")
    return line(first).rstrip(".") if is_title else ""


def links_in_rows(doctree):
    """{label: [(what a table on the page calls it, the row)]}, as chapter 18 begins."""
    named = {}
    for row in doctree.findall(nodes.row):
        for link in row.findall(nodes.reference):
            named.setdefault(link.get("refid"), []).append((line(link), line(row)))
    return named


def outputs(cell):
    """What is prose in a cell's outputs: captions, and claims with their verdicts."""
    yield from cell.findall(nodes.caption)
    for table in filter(is_claims, cell.findall(nodes.table)):
        yield from list(table.findall(nodes.row))[1:]


class Page:
    """The entries of one page: {kind, id, title, about, heads, text: [...]}."""

    def __init__(self, doctree):
        self.entries, self.exercises = [], {}
        self.named = links_in_rows(doctree)
        self.walk(doctree, None)

    def add(self, kind, anchor, title):
        entry = {"kind": kind, "id": anchor, "title": title}
        entry |= {"about": [], "heads": [], "text": []}
        self.entries.append(entry)
        return entry

    def walk(self, node, home):
        """Take in what is below a node; labelled paragraphs begin an entry there."""
        here = home
        for child in node.children:
            if isinstance(child, UNITS):
                here = self.paragraph(child, home, here)
            elif (
                isinstance(child, nodes.Element) and "bn-small" not in child["classes"]
            ):
                self.take(child, here)  # small print is left out, as its code is

    def paragraph(self, node, home, here):
        title, names = bold_start(node), node["ids"]
        called = [pair for name in names for pair in self.named.get(name, [])]
        if names and (title or called):
            here = self.add("section", names[-1], title or called[0][0])
            here["about"] += [name for name, _ in called]
            here["text"] += dict.fromkeys(row for _, row in called)
        elif title and home:
            here = home
            here["heads"].append(title)
        if here and (text := line(node)):
            here["text"].append(text)
        return here

    def take(self, node, here):
        name = type(node).__name__
        if isinstance(node, nodes.section) and isinstance(node[0], nodes.title):
            kind = "section" if here else "page"
            self.walk(node, self.add(kind, node["ids"][0], line(node[0])))
        elif name.startswith("exercise_") and name.endswith("node"):
            title = line(next(node[0].findall(is_subtitle), node[0])).strip("()")
            entry = self.add("exercise", node["ids"][0], title)
            entry["about"].append(f"exercise: {title}")
            self.exercises[node.get("label")] = entry
            self.walk(node, entry)
        elif name == "solution_node":
            self.walk(node, self.exercises.get(node.get("target_label"), here))
        elif isinstance(node, nodes.definition_list_item) and node[0]["ids"]:
            self.walk(node[-1], self.add("term", node[0]["ids"][0], line(node[0])))
        elif isinstance(node, addnodes.desc) and node[0]["ids"]:
            anchor = node[0]["ids"][0]
            title = anchor.removeprefix(node[0].get("module") or "").lstrip(".")
            self.walk(node, self.add("name", anchor, title))
        elif node.get("nb_element") == "cell_code":
            here["text"] += [line(said) for said in outputs(node)]
        elif not isinstance(node, SILENT) and not is_claims(node):
            self.walk(node, here)


def is_claims(node):
    """A chapter's table of claims, whose rows are those of the ledger's cells."""
    head = (
        next(node.findall(nodes.row), None) if isinstance(node, nodes.table) else None
    )
    return head is not None and head[-1].astext() == "verdict"


def is_subtitle(node):
    return type(node).__name__ == "exercise_subtitle"


# ---- the index ----------------------------------------------------------------------


def store(app):
    """Where the entries of pages that are not built anew are kept."""
    return Path(app.doctreedir) / "search.pickle"


def remember(app):
    app.builder.search = False  # Sphinx's own index, which no page loads
    known = store(app)
    app.found = pickle.loads(known.read_bytes()) if known.is_file() else {}


def gather(app, doctree, docname):
    app.found[docname] = Page(doctree).entries


def numbered(app, docname):
    """The title of a page with its number in the book."""
    number = app.env.toc_secnumbers.get(docname, {}).get("", ())
    return " ".join([".".join(map(str, number)), line(app.env.titles[docname])]).strip()


def row(page, entry, subjects):
    """An entry as the script reads it; the words in bold of a section are one name."""
    about = entry["about"] + ["; ".join(entry["heads"])] * bool(entry["heads"])
    about += (
        subjects.get(entry["id"], "").split(", ") if entry["id"] in subjects else []
    )
    text = "\n".join(filter(None, entry["text"]))
    return [page, entry["kind"], entry["id"], entry["title"], about, text]


def index(app):
    """What the script reads: pages, entries (rows), and words that mean the same."""
    words = tomllib.loads(WORDS.read_text(encoding="utf-8"))
    docnames = [name for name in reading_order(app) if name in app.found]
    pages, rows = [], []
    for number, docname in enumerate(docnames):
        pages.append([f"{docname}.html", numbered(app, docname)])
        subjects = words["subjects"].get(docname.rpartition("/")[2], {})
        rows += [row(number, entry, subjects) for entry in app.found[docname]]
    listed = numbered(app, reference.LIST)
    for module in reference.modules().values():
        pages.append([f"{reference.page_of(module)}.html", listed])
        rows.append([len(pages) - 1, "module", "", module.dotted, [], ""])
    return {"pages": pages, "entries": rows, "same": words["same"]}


def reading_order(app):
    """The pages in the order of the table of contents."""
    includes, root = app.env.toctree_includes, app.config.root_doc
    names, rest = [], [root]
    while rest:
        names.append(rest.pop(0))
        rest = includes.get(names[-1], []) + rest
    return names


def write(app, exception):
    if exception or app.builder.format != "html":
        return
    app.found = {
        name: app.found[name] for name in app.found if name in app.env.found_docs
    }
    store(app).write_bytes(pickle.dumps(app.found))
    data = json.dumps(index(app), ensure_ascii=False, separators=(",", ":"))
    target = Path(app.outdir) / "_static" / "search" / "index.js"
    target.write_text(f"var bnSearchIndex = {data};\n", encoding="utf-8")


def setup(app):
    app.connect("builder-inited", remember)
    # Before anything is moved or wrapped for the page.
    app.connect("doctree-resolved", gather, priority=100)
    app.connect("build-finished", write)
