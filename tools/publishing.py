"""What a published site has besides its pages: description, card, map, robots, 404.

The address of the site is one setting, `html_baseurl` in _config.yml; the environment
variable BOOK_URL goes before it. Without an address nothing is written that needs one:
no canonical links, no sitemap, no card.

Likewise the repository: `repository: url` in _config.yml, or BOOK_REPOSITORY. Without
it no page has a button that runs it elsewhere. Colab needs the setting, since notebooks
must know there what to clone (tools/exercises.py); Binder knows.
"""

import os
import re
from html import escape, unescape
from pathlib import Path
from urllib.parse import urlsplit

from docutils import nodes

CARD = "_static/card.png"  # 1200 x 630, drawn from tools/card.html
LOST = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="robots" content="noindex">
<title>No such page · {title}</title>
<link rel="icon" href="{root}_static/favicon.svg">
<style>
:root {{ color-scheme: light dark; font: 1.1rem/1.6 system-ui, sans-serif; }}
body {{ margin: 18vh auto 0; max-width: 34rem; padding: 0 1.2rem; }}
a {{ color: light-dark(#0a6fb0, #5cb3ee); }}
</style>
</head>
<body>
<main>
<h1>No such page</h1>
<p>Outside the distribution of this site: the page has moved or never was.</p>
<ul>
<li><a href="{root}chapters/index.html">The first page</a></li>
<li><a href="{root}search.html">Search the book</a></li>
</ul>
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
    lost = LOST.format(title=app.config.html_title, root=root)
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
