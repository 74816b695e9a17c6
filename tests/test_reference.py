"""The API reference says what the docstrings say, and where each thing is derived."""

import inspect
import re
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import book_extension
import pytest
import reference
from bs4 import BeautifulSoup

ROOT = Path(__file__).resolve().parent.parent

MODULES = ("bnlib", "bnlib.nn", "bnlib.nn.functional", "bnlib.data", "bnlib.figures")
PAGE = ROOT / "_build" / "html" / "chapters" / "api.html"


@pytest.fixture(scope="module")
def page():
    if not PAGE.is_file():
        pytest.fail("the reference is not there: run `make book` first")
    return BeautifulSoup(PAGE.read_text(encoding="utf-8"), "html.parser")


def letters(text):
    return "".join(re.findall(r"[a-z]", text.lower()))


def entry_of(page, module, name):
    at = page.find("dt", id=f"{module}.{name}")
    if at is None and module == "bnlib.nn":  # told once, among the functions
        at = page.find("dt", id=f"bnlib.{name}")
    assert at is not None, f"{module}.{name} has no entry"
    return at.parent


@pytest.mark.parametrize("module", MODULES)
def test_every_public_name_has_its_entry_and_its_chapter(page, module):
    for name in reference.public(import_module(module)):
        thing = getattr(import_module(module), name)
        entry = entry_of(page, module, name)
        first = letters(inspect.getdoc(thing).split(". ")[0])[:40]
        assert letters(entry.dd.get_text()).startswith(first), name
        chapter, source = reference.origin(thing)
        hrefs = {a["href"].split("#")[0] for a in entry.select("a.reference")}
        assert {f"{chapter}.html", f"modules/{source}.html"} <= hrefs, name
        assert (ROOT / "chapters" / f"{chapter}.ipynb").is_file()


def test_the_page_names_every_module():
    text = (ROOT / "chapters" / "api.md").read_text(encoding="utf-8")
    assert re.findall(r"automodule:: (\S+)", text) == list(MODULES)


def test_signatures_have_no_annotations_and_no_addresses(page):
    for at in page.select("dt.sig"):
        assert "<" not in at.get_text() and " at 0x" not in at.get_text()


def test_prose_stays_prose_and_equations_keep_their_lines():
    text = "Do it.\n\ny = a_b * c_\n  + |d|\n\n`x_` : (*inputs), max|a|, x_y, x_ -> y"
    lines = text.split("\n")
    reference.write_plainly(None, "function", "f", None, {}, lines)
    assert lines == [
        "Do it.", "", ".. code-block:: text", "", "    y = a_b * c_", "      + |d|", "",
        r"`x_` : (\*inputs), max\|a\|, x_y, x\_ → y",
    ]  # fmt: skip


def test_sections_and_defaults_are_shown(page):
    entry = entry_of(page, "bnlib", "gradcheck")
    names = [strong.get_text() for strong in entry.select("dd strong")]
    assert {"forward", "backward", "*inputs", "rtol"} <= set(names)
    titles = [at.get_text().rstrip(":") for at in entry.select("dl.field-list > dt")]
    assert titles == ["Parameters", "Returns", "Raises"]
    assert entry.select_one("pre").get_text().startswith("error = max|analytic")
    shown = entry_of(page, "bnlib.nn", "BatchRenorm1d").dt.get_text()
    assert "rmax=rmax_schedule" in shown.replace(" ", "")


def test_every_module_has_a_page_with_its_lines():
    text = (PAGE.parent / "modules.html").read_text("utf-8")
    listed = BeautifulSoup(text, "html.parser")
    hrefs = {a["href"] for a in listed.select("table a.reference")}
    for module in reference.modules().values():
        assert f"modules/{module.dotted}.html" in hrefs
        path = PAGE.parent / "modules" / f"{module.dotted}.html"
        own = BeautifulSoup(path.read_text("utf-8"), "html.parser")
        for number in own.select("span.linenos"):
            number.decompose()
        code = (ROOT / module.path).read_text("utf-8")
        assert own.select_one("article pre").get_text().strip() == code.strip()
        back = {a["href"] for a in own.select("article a.reference")}
        chapters = {f"../{chapter.stem}.html" for chapter in module.chapters}
        assert back == chapters | {"../modules.html"}


def test_pages_of_chapters_that_have_gone_are_removed(tmp_path):
    (tmp_path / "chapters").mkdir()
    for name in ("03_here", "17_gone"):
        (tmp_path / "chapters" / f"{name}.html").write_text("<p>a page</p>")
    app = SimpleNamespace(outdir=tmp_path, builder=SimpleNamespace(format="html"))
    app.env = SimpleNamespace(found_docs={"index", "chapters/03_here"})
    book_extension.mend_pages(app, None)
    (left,) = (tmp_path / "chapters").iterdir()
    assert left.stem == "03_here"
