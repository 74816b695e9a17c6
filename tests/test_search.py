"""The search of the built site: what comes first, with keys alone, and on phones.

tests/searches.txt says what somebody types and what must come first. The site is opened
as files, without a server, since it has to work there too; what needs an address is
tested in test_site.py.
"""

import gzip
import json
import re
import tomllib
from pathlib import Path

import pytest
from test_site import AXE, BARRIERS, DESKTOP, HTML, PHONE

ROOT = Path(__file__).resolve().parent.parent
FOLDER = HTML / "_static" / "search"
WORDS = tomllib.loads((ROOT / "chapters" / "search.toml").read_text("utf-8"))
ROWS = [
    re.split(r" {2,}", line)
    for line in (ROOT / "tests" / "searches.txt").read_text("utf-8").splitlines()
    if line and not line.startswith("#")
]
FILES = f"{HTML.as_uri()}/"
CHAPTER = "chapters/05_inference.html"
FIND = """questions => {
  const index = bnSearch.open(bnSearchIndex);
  return questions.map(question => bnSearch.find(index, question).slice(0, 30)
    .map(({ page, id }) => [page[0], id]));
}"""


@pytest.fixture(scope="module")
def index():
    path = FOLDER / "index.js"
    if not path.is_file():
        pytest.fail("the search has no index: run `make book` first")
    return json.loads(path.read_text("utf-8").split("=", 1)[1].rstrip(";\n"))


@pytest.fixture
def open_page(chromium):
    """Open a page as a file; nothing may be said on the console, nor be looked for."""
    said, contexts = [], []

    def open_page(address, viewport=DESKTOP, base=FILES, **options):
        context = chromium.new_context(viewport=viewport, **options)
        contexts.append(context)
        tab = context.new_page()
        tab.on("console", lambda m: m.type == "log" or said.append(m.text))
        tab.on("pageerror", lambda error: said.append(str(error)))
        if options.get("java_script_enabled", True):  # else what is preloaded fails
            tab.on("requestfailed", lambda request: said.append(request.url))
        tab.goto(base + address)
        return tab

    yield open_page
    for context in contexts:
        context.close()
    assert said == []  # the theme logs what it does; nobody warns


# ---- what comes first ---------------------------------------------------------------


@pytest.fixture(scope="module")
def found(chromium, index):
    tab = chromium.new_page()
    tab.goto((HTML / "search.html").as_uri())
    for name in ("engine.js", "index.js"):
        tab.add_script_tag(path=FOLDER / name)
    answers = tab.evaluate(FIND, [question for question, _ in ROWS])
    return {q: rows for (q, _), rows in zip(ROWS, answers, strict=True)}


def place(page, anchor):
    return f"{Path(page).stem}#{anchor}"


@pytest.mark.parametrize("question, wanted", ROWS)
def test_what_must_come_first(found, question, wanted):
    first = [place(*row) for row in found[question]]
    assert first, "nothing is found"
    if "#" not in wanted:
        first = [name.split("#")[0] for name in first]
    assert first[0] == wanted, first[:5]


def test_the_table_is_long_enough_and_names_sections_that_exist(index):
    known = {place(index["pages"][row[0]][0], row[2]) for row in index["entries"]}
    pages = {name.split("#")[0] for name in known}
    assert len(ROWS) >= 100 and len({question for question, _ in ROWS}) == len(ROWS)
    assert [wanted for _, wanted in ROWS if wanted not in known | pages] == []


# ---- the index ----------------------------------------------------------------------


def test_every_result_leads_to_a_place_that_exists(index):
    ids = {}
    for page, kind, anchor, *_ in index["entries"]:
        path = index["pages"][page][0]
        if path not in ids:
            text = (HTML / path).read_text("utf-8")
            ids[path] = set(re.findall(r'\bid="([^"]+)"', text))
        assert kind == "module" or anchor in ids[path], f"{path}#{anchor}"


def test_subjects_are_of_sections_that_exist(index):
    known = {place(index["pages"][row[0]][0], row[2]) for row in index["entries"]}
    named = {place(f, name) for f, own in WORDS["subjects"].items() for name in own}
    assert sorted(named - known) == [], "chapters/search.toml: renamed since?"


def test_code_and_outputs_are_left_out_and_captions_are_not(index):
    text = "\n".join(row[5] for row in index["entries"])
    assert "import numpy as np" not in text and "Traceback" not in text
    assert "Its own output can never pass" in text.replace("its own", "Its own")
    assert "01_covariate_shift" not in text and "ioffe2015batch" not in text


def test_the_index_is_light_and_no_page_loads_it():
    heavy = sum(len(gzip.compress(path.read_bytes())) for path in FOLDER.glob("*.js"))
    assert heavy < 200_000
    page = (HTML / CHAPTER).read_text("utf-8")
    assert "search/search.js" in page and "search/index.js" not in page
    assert "sphinx_highlight" not in page
    assert not (HTML / "searchindex.js").exists()


# ---- in the browser -----------------------------------------------------------------

DIALOG = "#pst-search-dialog"
TOP = "document.querySelector(':target').getBoundingClientRect().top"
CHOSEN = f'{DIALOG} [role=option][aria-selected="true"]'


def ask(tab, question):
    tab.keyboard.press("Control+k")
    tab.locator(f"{DIALOG} input").wait_for()
    tab.keyboard.type(question)
    tab.locator(f"{DIALOG} .bn-found [role=option] mark").first.wait_for()


@pytest.mark.browser
def test_the_keyboard_alone_finds_a_section(open_page):
    tab = open_page(CHAPTER)
    ask(tab, "group norm")
    box, chosen = tab.locator(f"{DIALOG} input"), tab.locator(CHOSEN)
    assert box.get_attribute("aria-expanded") == "true"
    assert chosen.get_attribute("id") == box.get_attribute("aria-activedescendant")
    assert "Group norm and instance norm" in chosen.inner_text()
    assert "results" in tab.locator(f"{DIALOG} [role=status]").inner_text()
    tab.keyboard.press("ArrowDown")
    assert chosen.count() == 1 and "instance" not in chosen.inner_text().split("\n")[0]
    tab.keyboard.press("ArrowUp")
    tab.keyboard.press("Enter")
    tab.wait_for_url("**/14_other_axes.html#group-norm-and-instance-norm")
    assert tab.locator(".bd-article mark, .highlighted").count() == 0
    tab.wait_for_function(f"() => Math.abs({TOP}) < 200")


@pytest.mark.browser
def test_a_slash_opens_and_escape_closes(open_page):
    tab = open_page(CHAPTER)
    tab.keyboard.press("/")
    tab.locator(f"{DIALOG}[open] input").wait_for()
    assert tab.locator(f"{DIALOG} input").input_value() == ""
    tab.keyboard.press("Escape")
    tab.locator(f"{DIALOG}[open]").wait_for(state="detached")


@pytest.mark.browser
def test_a_chapter_stands_once(open_page):
    tab = open_page(CHAPTER)
    ask(tab, "learning rate")
    names = tab.locator(f"{DIALOG} .bn-found-chapter").all_inner_texts()
    assert "Higher learning rates" in names[0] and len(names) == len(set(names)) > 3


@pytest.mark.browser
def test_a_name_with_dots_is_reached(open_page):
    tab = open_page(CHAPTER)
    ask(tab, "BatchNorm2d")
    tab.keyboard.press("Enter")
    tab.wait_for_url("**/api.html#bnlib.nn.BatchNorm2d")
    tab.wait_for_load_state()


@pytest.mark.browser
def test_nothing_found_is_said(open_page):
    tab = open_page(CHAPTER)
    tab.keyboard.press("Control+k")
    tab.keyboard.type("xyzzyqwv")
    tab.get_by_text("Nothing in the book has these words").wait_for()
    assert tab.locator(f"{DIALOG} input").get_attribute("aria-expanded") == "false"


@pytest.mark.browser
@pytest.mark.parametrize("viewport, scheme", [(PHONE, "dark"), (DESKTOP, "light")])
def test_the_dialog_fits_and_has_no_barriers(open_page, base, viewport, scheme):
    tab = open_page(CHAPTER, viewport, base, color_scheme=scheme)
    if viewport == PHONE:
        tab.locator(".search-button:visible").click()
        tab.locator(f"{DIALOG} input").fill("eval")
        tab.locator(f"{DIALOG} [role=option]").first.wait_for()
    else:
        ask(tab, "eval")
    box = tab.locator(DIALOG).bounding_box()
    assert box["x"] >= 0 and box["x"] + box["width"] <= viewport["width"]
    assert box["y"] >= 0 and box["y"] + box["height"] <= viewport["height"]
    list_ = tab.locator(f"{DIALOG} .bn-found")
    assert list_.evaluate("e => e.scrollWidth <= e.clientWidth")
    if AXE.is_file():
        tab.evaluate(AXE.read_text("utf-8"))
        assert tab.evaluate(BARRIERS) == []


@pytest.mark.browser
def test_the_page_of_the_search_answers(open_page, base):
    tab = open_page("search.html?q=backward", base=base)
    first = tab.locator("#bn-all-found [role=option]").first
    first.wait_for()
    assert first.get_attribute("href").endswith("/chapters/04_backward.html")
    if AXE.is_file():
        tab.evaluate(AXE.read_text("utf-8"))
        assert tab.evaluate(BARRIERS) == []


@pytest.mark.browser
def test_without_a_script_the_page_of_the_search_has_the_contents(open_page):
    tab = open_page("search.html", java_script_enabled=False)
    shown = tab.locator(".bd-search-container")
    assert "scripts are switched off" in shown.inner_text()
    assert shown.locator('a[href*="05_inference.html"]:visible').count() == 1
    assert not shown.locator("input").is_visible()
