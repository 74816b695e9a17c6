"""The first page: its proofs and numbers are those of the book, its map is whole."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import landing
import pytest
import python_in_page
from bs4 import BeautifulSoup

import bnlib
from bnlib.exercises import EXERCISES

ROOT = Path(__file__).resolve().parent.parent

KNOWN = landing.chapters()
PAGE = (ROOT / "chapters" / "index.md").read_text()


def html(made):
    return BeautifulSoup(made, "html.parser")


def flat(element):
    return " ".join(element.get_text().split())


@pytest.fixture(scope="module")
def written():
    return landing.write(PAGE)


def test_nothing_on_the_page_is_left_to_fill(written):
    left = re.findall(r"^% .+|\{\{.*?\}\}", written, re.M)
    assert left == ["% the picture that moves"]  # by tools/opening.py


def test_every_chapter_needs_earlier_ones():
    assert set(KNOWN) <= set(landing.NEEDS)
    for number, needs in landing.NEEDS.items():
        assert all(need < number for need in needs)
        assert needs == sorted(set(needs))


@pytest.mark.parametrize("path", landing.PATHS.values())
def test_a_way_through_leaves_out_nothing_that_it_needs(path):
    """But for chapter 0: who trusts a derivative may start at 3."""
    for place, number in enumerate(path):
        assert {*landing.NEEDS[number]} <= {*path[:place], "00"}


def test_the_map_links_to_every_chapter_in_its_order():
    map_ = html(landing.lanes())
    assert [a["href"] for a in map_.select("ol > li > a")] == [
        f"{name}.html" for name in KNOWN.values()
    ]
    assert len(map_.select(".bn-lane")) == len(landing.parts())
    for stop, number in zip(map_.select("li"), KNOWN, strict=True):
        after = re.search(r"after ([\d, ]+)", flat(stop))
        needs = [f"{int(n):02}" for n in after[1].split(", ")] if after else []
        assert needs == landing.NEEDS[number]
        assert re.search(r"\d (min|h)", flat(stop))
        assert ("bn-short" in stop.get("class", [])) == (
            number in landing.PATHS[landing.SHORT]
        )


def test_each_answer_gets_its_own_word_and_the_last_is_right():
    made = html(landing.answers())
    radios = [radio["class"] for radio in made.select("input[type=radio]")]
    *given, own = made.select(".bn-answer > div")
    assert len(radios) == len(given) + 1 == len(landing.ANSWERS) + 1
    said = [answer.get_text(" ") for answer in given]
    assert all("✗ moments: not yet." in words for words in said[:-1])
    assert "✓ moments: right." in said[-1] and len({*said}) == len(said)
    for mistake, words in zip(
        ("n − 1", "standard deviation", "wrong axis"), said[:-1], strict=True
    ):
        assert mistake in words
    assert EXERCISES["moments"].stub in own.get_text()


def test_the_diagnosis_is_one_and_the_line_installs():
    made = html(landing.diagnosis())
    asked, said = (box.get_text() for box in made.select("pre"))
    assert landing.INSTALL in asked
    assert "cure:" in said and re.match(r"\d findings", said)
    pages = {link["href"] for link in made.select("a")}
    assert pages == {
        f"18_pitfalls.html#pitfall-{c}" for c in ("never-updated", "momentum")
    }


def test_the_tally_counts_every_claim():
    made, claims = html(landing.tally()), landing.claims()
    counts = [int(li.get_text().split()[0]) for li in made.select("li")]
    assert sum(counts) == len(claims) and min(counts) > 0
    bars = [
        int(bar["style"].removeprefix("flex:")) for bar in made.select(".bn-tally > *")
    ]
    assert bars == counts


def test_the_claims_shown_are_as_the_ledger_has_them():
    made = html(landing.heard())
    verdicts = [mark.get_text() for mark in made.select(".bn-verdict")]
    assert len({*verdicts}) == len(verdicts) == len(landing.HEARD)
    found = [row.select("td")[1].get_text() for row in made.select("tbody tr")]
    assert all(re.search(r"\d", text) and "{" not in text for text in found)


def test_the_numbers_are_those_of_the_book(written):
    assert f"**{len(EXERCISES)}** exercises" in written
    assert f"**{len(landing.claims())}** claims" in written
    assert len(bnlib.exercises.EXERCISES["batch_norm_forward"].mistakes) > 30


def test_the_package_that_the_site_offers_can_be_installed(tmp_path):
    assert python_in_page.build_wheel(tmp_path) == landing.WHEEL
    line = [sys.executable, "-m", *shlex.split(landing.INSTALL)]
    options = ["-q", "--no-deps", "--no-index", "--target", "there"]
    subprocess.run([*line, *options], cwd=tmp_path, check=True)
    asked = "import bnlib; print(bnlib.__file__)"
    where = subprocess.check_output(
        [sys.executable, "-c", asked], cwd=tmp_path / "there", text=True
    )
    assert where.startswith(str(tmp_path))


@pytest.mark.parametrize("name", KNOWN.values())
def test_reading_takes_a_time_worth_saying(name):
    assert 5 <= landing.reading_minutes(name) <= 180
    assert (
        landing.hours(220)
        == "3\N{NO-BREAK SPACE}h\N{NO-BREAK SPACE}40\N{NO-BREAK SPACE}min"
    )
