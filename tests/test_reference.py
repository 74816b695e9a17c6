"""The API reference says what the docstrings say, and where each thing is derived."""

import inspect
import re
import sys
from importlib import import_module
from pathlib import Path

import pytest
from bs4 import BeautifulSoup

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))
import reference  # noqa: E402

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
        chapter, _ = reference.origin(thing)
        hrefs = {a["href"].split("#")[0] for a in entry.select("a.reference")}
        assert {f"{chapter}.html", "modules.html"} <= hrefs, name
        assert (ROOT / "chapters" / f"{chapter}.ipynb").is_file()


def test_the_page_names_every_module():
    text = (ROOT / "chapters" / "api.md").read_text(encoding="utf-8")
    assert reference.MARK.findall(text) == list(MODULES)


def test_signatures_have_no_annotations_and_no_addresses(page):
    for at in page.select("dt.sig"):
        assert "<" not in at.get_text() and " at 0x" not in at.get_text()


def test_prose_stays_prose_and_equations_keep_their_lines():
    text = "Do it.\n\n    y = a_b * c_d\n\nx : (*inputs), see `a_b`. [1] $5"
    written = reference.body(inspect.cleandoc(text))
    assert "```{code-block} text\ny = a_b * c_d\n```" in written
    assert "`x` : (\\*inputs), see `a_b`. \\[1\\] \\$5" in written


def test_names_of_arguments_may_go_on_in_the_next_line():
    text = "Do it.\n\nx : (N, C). gamma,\nbeta : (C,). a, b, c :\nnumbers. u\nand v : 1"
    written = " ".join(reference.body(text).split())
    assert "`x` : (N, C). `gamma, beta` : (C,). `a, b, c` : numbers." in written
    assert "`u and v` : 1" in written


def test_a_function_as_default_goes_by_its_name():
    def schedule(step):
        return step

    def layer(x, rmax=schedule, dtype=float, *, eps: float = 1e-5) -> int:
        return x

    shown = "(x, rmax=schedule, dtype=float, *, eps=1e-05)"
    assert reference.signature(layer) == shown
