"""Print the book into one PDF: _build/html/book.pdf.

Each page is opened in a headless Chromium. All articles are put into one page, behind a
title and a table of contents, with links between them, and printed; a figure that moves
stands as it stood first. Solutions are unfolded. What else is folded, code
of plots and small print, is left out, and so are exercises that only a check can judge,
and pages to look things up in: package and site have them. It is printed twice: only
then the table of contents knows the pages. tools/pdf_file.py makes the file a book.

    python tools/pdf.py [first chapters to print, such as 3]
"""

import contextlib
import functools
import http.server
import os
import shutil
import sys
import threading
import tomllib
from pathlib import Path

import pdf_file
import publishing
import yaml
from playwright.sync_api import sync_playwright

ROOT = Path(__file__).resolve().parent.parent
HTML = ROOT / "_build" / "html"
STYLE = Path(__file__).with_suffix(".css")
MOST_PAGES, MOST_BYTES = 250, 15e6
LEFT_OUT = ("index", "modules", "api", "parity", "drop_in", "changelog", "A")
SWITCHES = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-sync",
    "--disable-background-networking",
    "--disable-component-update",
]
# The article as it was written, formulas unset, of each moving figure the first frame.
ARTICLE = """async name => {
  const text = await (await fetch(location.href)).text();
  const page = new DOMParser().parseFromString(text, 'text/html');
  const article = page.querySelector('.bd-article');
  const out = 'script, template, .bn-sliders, .headerlink, .prev-next-area, .bn-strip, '
    + '.bn-seam, .cell > details, section[id^=write-it-yourself]';
  article.querySelectorAll(out).forEach(e => e.remove());
  // Imports are small print too.
  const line = /^(import .*|from .*|figures\\.style\\(\\)|    .*|\\)|#.*|)$/;
  const imports = e => e && e.textContent.trim().split('\\n').every(l => line.test(l));
  article.querySelectorAll('.cell').forEach(e => {
    if (imports(e.querySelector('pre')) || !e.firstElementChild) e.remove();
  });
  article.querySelectorAll('details').forEach(e => { e.open = true; });
  article.querySelectorAll('.dropdown, .toggle').forEach(e =>
    e.classList.remove('dropdown', 'toggle'));
  const here = new URL(location.href);
  const key = url => url.pathname.replace(/^\\//, '').replace(/\\.html$/, '');
  article.querySelectorAll('[id]').forEach(e => {
    if (!e.closest('svg')) e.id = `${name}--${e.id}`;
  });
  article.querySelectorAll('[src]').forEach(e =>
    e.setAttribute('src', new URL(e.getAttribute('src'), here).href));
  article.querySelectorAll('a[href]').forEach(e => {
    const url = new URL(e.getAttribute('href'), here);
    if (url.origin !== here.origin) return;
    const anchor = decodeURIComponent(url.hash.slice(1));
    e.setAttribute('href', `#${key(url)}${anchor ? '--' + anchor : ''}`);
  });
  return article.innerHTML;
}"""
# All in one page.
MERGE = """([articles, parts, front]) => {
  const box = document.createElement('div');
  box.className = 'bd-article bn-book';
  box.innerHTML = front;
  const contents = box.querySelector('nav');
  const list = (part, name) => {
    if (parts[name]) {
      contents.append(Object.assign(document.createElement('p'),
        { textContent: parts[name] }));
      contents.append(document.createElement('ul'));
    }
    for (const e of part.querySelectorAll('h1, h2')) {
      const level = Number(e.tagName[1]);
      const id = level === 1 ? name : e.closest('[id]').id;
      const item = document.createElement('li');
      item.className = `bn-level-${level}`;
      item.innerHTML = `<a href="#${id}"></a><span data-page="${id}">000</span>`;
      item.firstChild.textContent = e.textContent.trim().replace(/\\s+/g, ' ');
      contents.lastElementChild.append(item);
    }
  };
  for (const [name, html] of articles) {
    const part = document.createElement('article');
    part.id = name;
    part.innerHTML = html;
    box.append(part);
    list(part, name);
  }
  document.body.replaceChildren(box);
  // Words of code in the colour of the line need no element: half the file, otherwise.
  const ink = new Map();
  for (const word of box.querySelectorAll('.highlight pre span[class]')) {
    const style = e => { const s = getComputedStyle(e);
      return [s.color, s.fontWeight, s.fontStyle].join(); };
    if (!ink.has(word.className))
      ink.set(word.className, style(word) === style(word.closest('pre')));
    if (ink.get(word.className)) word.replaceWith(...word.childNodes);
  }
  box.normalize();
  for (const e of box.querySelectorAll('a[href^="#"]'))
    if (!document.getElementById(e.getAttribute('href').slice(1)))
      e.removeAttribute('href');
}"""
NUMBER = """pages => document.querySelectorAll('[data-page]').forEach(e => {
  e.textContent = pages[e.dataset.page] ?? '';
})"""
SETTLE = """async () => {
  if (window.MathJax) { // formulas were not set while the book was built
    await MathJax.startup.promise;
    MathJax.typesetClear();
    await MathJax.typesetPromise([document.body]);
  }
  await Promise.all([...document.images].map(e => e.decode().catch(() => 0)));
  await document.fonts.ready;
}"""
FOOT = (
    '<div style="color:#555;font:8px sans-serif;margin:0 auto">'
    '<span class="pageNumber"></span></div>'
)


class Quiet(http.server.SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # one connection for all the files of a page

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def served():
    """The address of the site while it is served on this machine."""
    handler = functools.partial(Quiet, directory=HTML)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()


def toc_files(node):
    """The documents named in the table of contents, in its order."""
    if isinstance(node, list):
        return [name for child in node for name in toc_files(child)]
    if not isinstance(node, dict):
        return []
    own = [node[key] for key in ("root", "file") if key in node]
    return own + [n for child in node.values() for n in toc_files(child)]


def chromium(playwright):
    """$CHROMIUM, what the PATH has, or what Playwright has installed."""
    names = ("chromium", "chromium-browser", "google-chrome")
    found = [os.environ.get("CHROMIUM"), *map(shutil.which, names)]
    path = next(filter(None, found), playwright.chromium.executable_path)
    if not Path(path).is_file():
        sys.exit("no Chromium: set $CHROMIUM, or run `playwright install chromium`")
    return playwright.chromium.launch(executable_path=path, args=SWITCHES)


def front_page(title):
    """The title of the book, and an empty table of contents."""
    about = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return (
        f"<header><h1>{title}</h1><p>Every idea derived, implemented and tested, in "
        f"the order of the paper that started it</p><p>{about['version']}</p></header>"
        '<nav aria-label="Contents"><p>Contents</p></nav>'
    )


def print_book(names, base, to, title="", parts=None):
    """Print documents into one file, with the captions of parts; count its pages."""
    with sync_playwright() as playwright:
        browser = chromium(playwright)
        size = {"width": 900, "height": 1200}
        context = browser.new_context(viewport=size, color_scheme="light")
        tab = context.new_page()
        tab.set_default_timeout(300_000)
        articles = []
        for name in names:
            tab.goto(f"{base}{name}.html")
            articles.append([name, tab.evaluate(ARTICLE, name)])
        # A page with formulas, so that what shows them is there.
        tab.goto(f"{base}chapters/notation.html")
        tab.evaluate("title => { document.title = title; }", title)
        tab.add_style_tag(path=STYLE)
        tab.evaluate(MERGE, [articles, parts or {}, front_page(title)])
        tab.evaluate(SETTLE)
        printed = functools.partial(
            tab.pdf,
            format="A4",
            margin=dict.fromkeys(("top", "bottom", "left", "right"), "12mm"),
            tagged=True,
            outline=True,
            print_background=True,
            display_header_footer=True,
            header_template="<span></span>",
            footer_template=FOOT,
        )
        tab.evaluate(NUMBER, pdf_file.page_numbers(printed()))
        data = printed()
        browser.close()
    to.write_bytes(pdf_file.bind(data))
    return len(pdf_file.places(data)[1])


def main(many=None, to=HTML / "book.pdf"):
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    title = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))["title"]
    out = tuple(f"chapters/{name}" for name in LEFT_OUT)
    names = [n for n in toc_files(toc) if not n.startswith(out)][:many]
    parts = {p["chapters"][0]["file"]: p["caption"] for p in toc["parts"]}
    with served() as base:
        pages = print_book(names, base, to, title, parts)
    size = to.stat().st_size
    publishing.link_pdf(HTML)
    print(f"== the book is in {to} ({pages} pages, {size / 1e6:.0f} MB)")
    if pages > MOST_PAGES or size > MOST_BYTES:
        sys.exit(f"that is more than {MOST_PAGES} pages or {MOST_BYTES / 1e6:.0f} MB")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
