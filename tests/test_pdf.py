"""The book in one file: two of its pages printed together, and looked into."""

import functools
import http.server
import re
import sys
import threading
import zlib
from pathlib import Path

import pytest
from playwright.sync_api import sync_playwright

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))
import pdf  # noqa: E402
import publishing  # noqa: E402

NAMES = ["chapters/03_batch_normalization", "chapters/notation"]


@pytest.fixture(scope="module")
def printed(tmp_path_factory):
    with sync_playwright() as playwright:
        try:
            pdf.chromium(playwright).close()
        except SystemExit as why:
            pytest.skip(str(why))
    handler = functools.partial(pdf.Quiet, directory=pdf.HTML)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    to = tmp_path_factory.mktemp("pdf") / "book.pdf"
    pdf.print_book(NAMES, f"http://127.0.0.1:{server.server_port}/", to)
    server.shutdown()
    return to.read_bytes()


def streams(data):
    for found in re.finditer(rb"stream\r?\n(.*?)endstream", data, re.S):
        try:
            yield zlib.decompress(found[1])
        except zlib.error:
            continue


@pytest.mark.browser
def test_it_has_pages_headings_and_links(printed):
    everything = b"".join([printed, *streams(printed)])
    assert (
        printed.startswith(b"%PDF") and len(re.findall(rb"/Type /Page\b", printed)) > 10
    )
    assert b"/Outlines" in everything and b"/StructTreeRoot" in everything
    assert b"/Lang" in everything
    # Links within the two pages; those to pages left out are plain words.
    assert everything.count(b"/Subtype /Link") > 4 and b"/Dests" in everything


@pytest.mark.browser
def test_no_address_of_the_machine_that_printed_it(printed):
    everything = b"".join([printed, *streams(printed)])
    assert b"127.0.0.1" not in everything


def test_the_first_page_names_the_file_once_it_is_there(tmp_path):
    page = tmp_path / "chapters" / "index.html"
    page.parent.mkdir()
    page.write_text("<!-- book.pdf -->")
    publishing.link_pdf(tmp_path)
    assert page.read_text() == "<!-- book.pdf -->"
    (tmp_path / "book.pdf").write_bytes(b"x" * 7_000_000)
    for _ in range(2):
        publishing.link_pdf(tmp_path)
    assert page.read_text().count('href="../book.pdf"') == 1
    assert "(7 MB)" in page.read_text()
