"""What a published site has besides its pages: description, card, map, robots, 404.

The address of the site is one setting, `html_baseurl` in _config.yml; the environment
variable BOOK_URL goes before it. Without an address nothing is written that needs one:
no canonical links, no sitemap, no card.

Likewise the repository: `repository: url` in _config.yml, or BOOK_REPOSITORY. Without
it no page has a button that runs it elsewhere. Colab needs the setting, since notebooks
must know there what to clone; Binder knows.
"""

import os
import re
from html import escape, unescape
from pathlib import Path
from urllib.parse import urlsplit

from docutils import nodes

CARD = "_static/card.png"  # 1200 x 630, drawn from tools/card.html
# Served in place of any address: its own are absolute.
LOST = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="robots" content="noindex">
<title>No such page · {book}</title>
<link rel="icon" href="{root}_static/favicon.svg">
<link rel="stylesheet" href="{root}_static/bnlib.css">
<style>
body {{ margin: 14vh auto 4rem; max-width: 35rem; padding: 0 1.1rem;
  background: var(--bn-bg); color: var(--bn-ink);
  font: 1.0625rem/1.6 -apple-system, "Segoe UI", "Helvetica Neue", Arial, sans-serif; }}
header a {{ display: flex; gap: .75rem; align-items: center; color: inherit;
  font: 600 1.05rem/1.2 var(--bn-serif); text-decoration: none; }}
h1 {{ margin: 2.5rem 0 1rem; font: 400 clamp(2.1rem, 8vw, 3rem)/1.15 var(--bn-serif);
  letter-spacing: -.02em; }}
p {{ color: var(--bn-muted); }}
main a {{ color: var(--bn-blue); }}
form {{ display: flex; gap: .5rem; margin: 1.5rem 0; }}
input {{ flex: 1; min-width: 0; padding: .5rem .75rem; border: 1px solid var(--bn-edge);
  border-radius: .4rem; background: none; color: inherit; font: inherit; }}
button {{ padding: .5rem 1rem; border: 0; border-radius: .4rem;
  background: var(--bn-blue); color: var(--bn-on); font: inherit; font-weight: 600; }}
</style>
</head>
<body>
<header><a href="{root}chapters/index.html"><img src="{root}_static/logo.svg" alt=""
  width="48" height="48">{book}</a></header>
<main>
<h1>No such page</h1>
<p>Outside the distribution of this site: the page has moved or never was.</p>
<form action="{root}search.html" role="search">
<input type="search" name="q" aria-label="Search the book"><button>Search</button>
</form>
<p>Or start at <a href="{root}chapters/index.html">the first page</a>.</p>
</main>
</body>
</html>
"""


def set_address(app, config):
    """BOOK_URL goes before the setting; an address ends in a slash."""
    address = os.environ.get("BOOK_URL") or config.html_baseurl
    config.html_baseurl = address.rstrip("/") + "/" if address else ""


def set_repository(app, config):
    """Buttons to Binder and Colab, where it is known what they should run."""
    options = config.html_theme_options
    told = options.get("repository_url", "").rstrip("/")
    options["repository_url"] = (
        os.environ.get("BOOK_REPOSITORY", "").rstrip("/") or told
    )
    buttons = dict(options.pop("launch_buttons", {}))
    if options["repository_url"] != told:
        del buttons["colab_url"]
    if options["repository_url"]:
        options["launch_buttons"] = buttons


def description(doctree):
    """The claim of a chapter, else the first paragraph of the page."""
    for paragraph in doctree.findall(nodes.paragraph):
        text = " ".join(paragraph.astext().split())
        if len(text) > 40:
            return text if len(text) < 200 else text[:199].rsplit(" ", 1)[0] + "…"
    return ""


def add_metadata(app, pagename, templatename, context, doctree):
    """What search engines and messengers show of a page."""
    if doctree is None:
        return
    said = escape(description(doctree), quote=True)
    plain = unescape(re.sub(r"<[^>]+>", "", context.get("title", "")))
    name = escape(plain, quote=True)
    tags = {"description": said} if said else {}
    address = app.config.html_baseurl
    if address:
        tags |= {
            "og:type": "article",
            "og:site_name": escape(app.config.html_title, quote=True),
            "og:title": name,
            "og:description": said,
            "og:url": f"{address}{pagename}.html",
            "og:image": f"{address}{CARD}",
            "og:image:width": "1200",
            "og:image:height": "630",
            "twitter:card": "summary_large_image",
        }
    lines = [
        f'<meta {"property" if ":" in key else "name"}="{key}" content="{value}" />'
        for key, value in tags.items()
    ]
    context["metatags"] = "\n".join([context.get("metatags", ""), *lines])


def link_pdf(out):
    """Name the book in one file on the first page, once `make pdf` has written it."""
    page, pdf = out / "chapters" / "index.html", out / "book.pdf"
    if not (pdf.is_file() and page.is_file()):
        return
    size = f"{pdf.stat().st_size / 1e6:.0f} MB"
    link = (
        f'<p>To take away: <a href="../book.pdf">the book as one PDF</a> ({size}).</p>'
    )
    text = page.read_text(encoding="utf-8").replace("<!-- book.pdf -->", link)
    page.write_text(text, encoding="utf-8")


def write_files(app, exception):
    """robots.txt and 404.html always, sitemap.xml where the site has an address."""
    if exception or app.builder.format != "html":
        return
    out, address = Path(app.outdir), app.config.html_baseurl
    root = urlsplit(address).path if address else "/"
    lost = LOST.format(root=root, book=escape(app.config.html_title))
    (out / "404.html").write_text(lost, encoding="utf-8")
    robots = "User-agent: *\nAllow: /\n"
    sitemap = out / "sitemap.xml"
    sitemap.unlink(missing_ok=True)
    if address:
        robots += f"\nSitemap: {address}sitemap.xml\n"
        pages = sorted(f"{address}{name}.html" for name in app.env.found_docs)
        entries = "\n".join(f"<url><loc>{escape(page)}</loc></url>" for page in pages)
        space = "http://www.sitemaps.org/schemas/sitemap/0.9"
        head = '<?xml version="1.0" encoding="utf-8"?>'
        text = f'{head}\n<urlset xmlns="{space}">\n{entries}\n</urlset>\n'
        sitemap.write_text(text, encoding="utf-8")
    (out / "robots.txt").write_text(robots, encoding="utf-8")
    link_pdf(out)


def setup(app):
    app.connect("config-inited", set_address)
    app.connect("config-inited", set_repository)
    app.connect("html-page-context", add_metadata)
    app.connect("build-finished", write_files)
