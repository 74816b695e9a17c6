"""What the published site has besides its pages, with and without an address."""

import os
import re
import struct
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

import nbformat
import publishing
import pytest
import yaml
from bs4 import BeautifulSoup
from commands import run
from docutils.core import publish_doctree

ROOT = Path(__file__).resolve().parent.parent
HTML = ROOT / "_build" / "html"

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.fixture
def app(tmp_path, monkeypatch):
    monkeypatch.delenv("BOOK_URL", raising=False)
    config = SimpleNamespace(html_baseurl="", html_title="A book")
    env = SimpleNamespace(found_docs={"chapters/index", "chapters/04_backward"})
    builder = SimpleNamespace(format="html")
    return SimpleNamespace(config=config, env=env, builder=builder, outdir=tmp_path)


def metadata(app):
    context = {
        "title": '<span class="number">4. </span>The &quot;claim&quot;',
        "metatags": "",
    }
    text = (
        "Title\n=====\n\n*" + "A claim that is long enough to be shown & read. " + "*\n"
    )
    doctree = publish_doctree(text)
    publishing.add_metadata(app, "chapters/04_backward", "page.html", context, doctree)
    soup = BeautifulSoup(context["metatags"], "html.parser")
    return {m.get("name") or m.get("property"): m["content"] for m in soup("meta")}


BINDER = "https://mybinder.org/v2/gh/owner/book/main?urlpath=lab/tree/"
COLAB = "https://colab.research.google.com/github/owner/book/blob/main/"
CHAPTER = "chapters/04_backward"


@pytest.fixture
def buttons(tmp_path):
    """Builds a book of one notebook; the buttons on its page: name -> address."""

    def build(setting="", env=""):
        ours = yaml.safe_load((ROOT / "_config.yml").read_text())
        config = {"title": "A book", "execute": ours["execute"]}
        config |= {"launch_buttons": ours["launch_buttons"]}
        config["repository"] = ours["repository"] | {"url": setting}
        config["sphinx"] = {"local_extensions": {"publishing": str(ROOT / "tools")}}
        (tmp_path / "_config.yml").write_text(yaml.safe_dump(config))
        (tmp_path / "_toc.yml").write_text(f"format: jb-book\nroot: {CHAPTER}\n")
        (tmp_path / "chapters").mkdir()
        title = nbformat.v4.new_markdown_cell("# A title")
        book = nbformat.v4.new_notebook(cells=[title])
        book.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3"}
        nbformat.write(book, tmp_path / f"{CHAPTER}.ipynb")
        tool = str(Path(sys.executable).parent / "jupyter-book")
        command = [tool, "build", "-q", str(tmp_path)]
        told = os.environ | {"BOOK_REPOSITORY": env}
        run(*command, env=told)
        page = tmp_path / "_build" / "html" / f"{CHAPTER}.html"
        soup = BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser")
        links = soup.select(".dropdown-launch-buttons a")
        return {link.get_text().strip(): link["href"] for link in links}

    return build


def test_without_a_repository_no_chapter_offers_to_run_elsewhere(buttons):
    assert buttons() == {}


@pytest.mark.parametrize("env", ["", "https://github.com/owner/book/"])
def test_with_a_repository_chapters_run_on_binder_and_colab(buttons, env):
    assert buttons("https://github.com/owner/book", env) == {
        "Binder": f"{BINDER}{CHAPTER}.ipynb",
        "Colab": f"{COLAB}{CHAPTER}.ipynb",
    }


def test_colab_needs_an_address_that_the_notebooks_know(buttons):
    found = buttons(env="https://github.com/owner/book")
    assert found == {"Binder": f"{BINDER}{CHAPTER}.ipynb"}


def test_without_an_address_nothing_names_one(app):
    publishing.set_address(app, app.config)
    publishing.write_files(app, None)
    assert not (app.outdir / "sitemap.xml").exists()
    assert "Sitemap" not in (app.outdir / "robots.txt").read_text()
    assert set(metadata(app)) == {"description"}


def test_with_an_address_map_card_and_robots(app, monkeypatch):
    monkeypatch.setenv("BOOK_URL", "https://example.org/book")
    publishing.set_address(app, app.config)
    publishing.write_files(app, None)
    tree = ElementTree.parse(app.outdir / "sitemap.xml")
    found = [e.text for e in tree.iter() if e.tag.endswith("loc")]
    assert found == [
        "https://example.org/book/chapters/04_backward.html",
        "https://example.org/book/chapters/index.html",
    ]
    robots = (app.outdir / "robots.txt").read_text()
    assert "Sitemap: https://example.org/book/sitemap.xml" in robots
    tags = metadata(app)
    assert tags["og:title"] == '4. The "claim"'
    assert tags["og:image"] == "https://example.org/book/_static/card.png"
    assert "shown & read" in tags["description"] == tags["og:description"]
    lost = (app.outdir / "404.html").read_text()
    assert 'href="/book/chapters/index.html"' in lost


def test_the_built_site_has_them():
    assert "Allow: /" in (HTML / "robots.txt").read_text()
    assert (HTML / publishing.CARD).is_file() and (HTML / "404.html").is_file()
    page = BeautifulSoup(
        (HTML / "chapters/04_backward.html").read_text(encoding="utf-8"), "html.parser"
    )
    assert len(page.select_one('meta[name="description"]')["content"]) > 40
    assert page.select_one('link[rel="icon"]')


def test_the_page_for_the_lost_leads_back():
    page = BeautifulSoup((HTML / "404.html").read_text(), "html.parser")
    links = [a["href"] for a in page("a")] + [page.form["action"]]
    root = page.select_one('link[rel="icon"]')["href"].removesuffix(
        "_static/favicon.svg"
    )
    for link in links:
        assert (HTML / link.removeprefix(root)).is_file()
    assert not page("script") and page.html["lang"] == "en"


def test_the_card_has_the_size_that_is_said_of_it():
    head = (ROOT / "chapters" / "_static" / "card.png").read_bytes()[:24]
    assert struct.unpack(">II", head[16:24]) == (1200, 630)


def test_the_citation_says_what_the_package_says():
    cff = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors"} <= set(cff)
    assert cff["version"] == PROJECT["version"]
    assert cff["authors"][0]["name"] == PROJECT["authors"][0]["name"]
    page = (ROOT / "chapters" / "bibliography.md").read_text()
    assert f"bnlib {PROJECT['version']}" in page and f"{{{cff['title']}}}" in page


def test_one_setting_holds_the_address():
    config = (ROOT / "_config.yml").read_text()
    assert len(re.findall(r"^\s*baseurl:", config, re.M)) == 1


def test_package_and_citation_name_the_repository_of_the_book_or_none():
    """One address in all three places, or in none of them."""
    config = yaml.safe_load((ROOT / "_config.yml").read_text())
    cff = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    package = PROJECT.get("urls", {}).get("Repository", "")
    book = config["repository"]["url"]
    assert (package, cff.get("repository-code", "")) == (book, book)
