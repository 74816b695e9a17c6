"""Say what a page of the book is made of: code, monospaced output, figures.

    python tools/shares.py          # a line for every chapter, and the medians

Shares are those of a page's height at 1440 px, as it is laid out by a browser. Nothing
is demanded of them here; what is folded takes no place.
"""

import statistics
import sys
from pathlib import Path

from pdf import chromium
from playwright.sync_api import sync_playwright

ROOT = Path(__file__).resolve().parent.parent
PAGES = ROOT / "_build" / "html" / "chapters"

# What is inside another part counts once, for the outermost.
MEASURE = """() => {
  const article = document.querySelector('article.bd-article');
  const height = part => part.getBoundingClientRect().height;
  const of = selector => [...article.querySelectorAll(selector)]
    .filter(part => part.checkVisibility() && !part.parentElement.closest(selector))
    .map(height).reduce((a, b) => a + b, 0);
  const whole = height(article);
  return {
    height: whole,
    code: of('.cell_input, .cell_output > .output:has(> .highlight), pre') / whole,
    figures: of('figure, .bn-movable, .cell_output svg, .cell_output img') / whole,
  };
}"""


def measured() -> dict:
    """{chapter: {height, code, figures}} of the built pages."""
    found = {}
    with sync_playwright() as playwright:
        browser = chromium(playwright)
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        for path in sorted(PAGES.glob("[0-9]*.html")):
            page.goto(path.as_uri(), wait_until="load")
            found[path.stem] = page.evaluate(MEASURE)
        browser.close()
    return found


def main() -> int:
    found = measured()
    print(f"{'share of the height at 1440 px':32s}height    code  figures")
    for name, row in found.items():
        parts = f"{row['code']:8.0%}{row['figures']:9.0%}"
        print(f"{name:30s}{row['height']:8,.0f}{parts}")
    medians = (
        statistics.median(row[key] for row in found.values())
        for key in ("height", "code", "figures")
    )
    print("{:30s}{:8,.0f}{:8.0%}{:9.0%}".format("median", *medians))
    return 0


if __name__ == "__main__":
    sys.exit(main())
