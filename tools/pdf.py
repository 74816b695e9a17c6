"""Print the whole book into one PDF: _build/html/book.pdf.

Each page is opened in a headless Chromium. All articles are put into one page, with
links between them, typeset and printed; a figure that moves stands as it stood first.
Solutions are unfolded; the code of plots stays folded, that is, out.

    python tools/pdf.py [first chapters to print, such as 3]
"""

import functools
import http.server
import os
import shutil
import sys
import threading
from pathlib import Path

import publishing
import yaml
from playwright.sync_api import sync_playwright

ROOT = Path(__file__).resolve().parent.parent
HTML = ROOT / "_build" / "html"
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
  const out = 'script, template, .bn-sliders, .headerlink, .prev-next-area, '
    + 'details.above-input';
  article.querySelectorAll(out).forEach(e => e.remove());
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
MERGE = """articles => {
  const box = document.createElement('div');
  box.className = 'bd-article bn-book';
  for (const [name, html] of articles) {
    const part = document.createElement('article');
    part.id = name;
    part.innerHTML = html;
    box.append(part);
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
  const lost = [...box.querySelectorAll('a[href^="#"]')].filter(e =>
    !document.getElementById(e.getAttribute('href').slice(1)));
  lost.forEach(e => e.removeAttribute('href'));
  return lost.length;
}"""
TYPESET = """async () => {
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
    def log_message(self, *_):
        pass


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


def print_book(names, base, to):
    """Print the documents into one file; return how many links led nowhere."""
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
        lost = tab.evaluate(MERGE, articles)
        tab.evaluate(TYPESET)
        margin = {"top": "17mm", "bottom": "17mm", "left": "17mm", "right": "17mm"}
        tab.pdf(
            path=to,
            format="A4",
            margin=margin,
            outline=True,
            tagged=True,
            print_background=True,
            display_header_footer=True,
            header_template="<span></span>",
            footer_template=FOOT,
        )
        browser.close()
    return lost


def main(many=None, to=HTML / "book.pdf"):
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    # The listing of every module is the package itself: not for paper.
    names = [n for n in toc_files(toc) if n != "chapters/modules"][:many]
    handler = functools.partial(Quiet, directory=HTML)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print_book(names, f"http://127.0.0.1:{server.server_port}/", to)
    server.shutdown()
    publishing.link_pdf(HTML)
    print(f"== the book is in {to} ({to.stat().st_size / 1e6:.0f} MB)")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
