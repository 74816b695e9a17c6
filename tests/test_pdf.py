"""The book in one file: two of its pages printed together, and looked into."""

import re
import zlib
from pathlib import Path

import pdf
import pdf_file
import publishing
import pytest
from bs4 import BeautifulSoup
from playwright.sync_api import sync_playwright

ROOT = Path(__file__).resolve().parent.parent

NAMES = ["chapters/03_batch_normalization", "chapters/notation"]
TITLE = "The book, on paper"


@pytest.fixture(scope="module")
def passes():
    """What Chromium printed."""
    return []


@pytest.fixture(scope="module")
def printed(tmp_path_factory, passes, base):
    with sync_playwright() as playwright:
        try:
            pdf.chromium(playwright).close()
        except SystemExit as why:
            pytest.skip(str(why))
    to, bound = tmp_path_factory.mktemp("pdf") / "book.pdf", pdf_file.bind
    read_off = pdf_file.page_numbers
    with pytest.MonkeyPatch.context() as patch:
        both = lambda data: passes.append(data) or read_off(data)  # noqa: E731
        patch.setattr(pdf_file, "page_numbers", both)
        patch.setattr(pdf_file, "bind", lambda data: passes.append(data) or bound(data))
        pdf.print_book(NAMES, base, to, TITLE, {NAMES[1]: "Appendices"})
    return to.read_bytes()


def streams(data):
    for found in re.finditer(rb"stream\r?\n(.*?)endstream", data, re.S):
        try:
            yield zlib.decompress(found[1])
        except zlib.error:
            continue


@pytest.fixture(scope="module")
def everything(printed):
    return b"".join([printed, *streams(printed)])


def titles(text):
    """What is called so in a file, as words."""
    hexed = re.findall(rb"/Title <FEFF([0-9A-F]+)>", text)
    plain = re.findall(rb"/Title \(((?:\\.|[^)])*)\)", text)
    words = [bytes.fromhex(found.decode()).decode("utf-16-be") for found in hexed]
    return words + [re.sub(r"\\(.)", r"\1", found.decode()) for found in plain]


@pytest.mark.browser
def test_it_has_a_title_headings_and_links(everything):
    assert len(re.findall(rb"/Type /Page\b", everything)) > 10
    assert TITLE in titles(everything) or TITLE.encode() in everything
    assert b"/StructTreeRoot" in everything and b"/Lang" in everything
    # Links within the two pages; those to pages left out are plain words.
    assert everything.count(b"/Subtype /Link") > 4 and b"/Dests" in everything


@pytest.mark.browser
def test_its_bookmarks_are_the_headings(everything):
    wanted = []
    for name in NAMES:
        page = BeautifulSoup((pdf.HTML / f"{name}.html").read_text(), "html.parser")
        for link in page.select(".headerlink"):
            link.decompose()
        found = page.select(".bd-article :is(h1, h2)")
        wanted += [" ".join(heading.get_text().split()) for heading in found]
    found = [" ".join(title.split()) for title in titles(everything)]
    assert {*wanted} <= {*found} and not any(
        title.startswith("Contents") for title in found
    )


@pytest.mark.browser
def test_the_contents_tell_the_pages(printed, passes):
    first, last = map(pdf_file.page_numbers, passes)
    assert first == last and first[NAMES[0]] < first[NAMES[1]]
    assert first[f"{NAMES[0]}--exercises"] > first[NAMES[0]]


@pytest.mark.browser
def test_what_is_compressed_is_found(printed, passes):
    """Every object is where the table of the file says, and there are none fewer."""
    start = int(re.search(rb"startxref\n(\d+)", printed)[1])
    about, table = printed[start:].split(b"stream\n", 1)
    rows = zlib.decompress(table)
    entries = [rows[i : i + 7] for i in range(0, len(rows), 7)]
    assert len(entries) == int(re.search(rb"/Size (\d+)", about)[1])
    for number, entry in enumerate(entries):
        if entry[0] == 1:
            at = int.from_bytes(entry[1:5], "big")
            assert printed[at:].startswith(b"%d 0 obj" % number)
    before, _ = pdf_file.read(passes[-1])
    assert sum(entry[0] > 0 for entry in entries) > len(before)
    assert len(printed) < 0.6 * len(passes[-1])


@pytest.mark.browser
def test_no_address_of_the_machine_that_printed_it(everything):
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
