"""The first page: the map of chapters, the time each takes to read."""

import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))
import landing  # noqa: E402

KNOWN = landing.chapters()


def test_every_chapter_is_on_the_map_and_needs_earlier_ones():
    assert set(KNOWN) <= set(landing.NEEDS)
    for number, needs in landing.NEEDS.items():
        assert all(need < number for need in needs)
        assert needs == sorted(set(needs))


@pytest.mark.parametrize("numbers", [sorted(KNOWN), sorted(landing.NEEDS)])
def test_boxes_lie_apart_below_what_they_need_and_no_arrow_runs_behind_one(numbers):
    at = landing.places(numbers)
    half = landing.NARROW / 2
    for n in numbers:
        x, y = at[n]
        assert half <= x <= landing.WIDTH - half, "a row has too many boxes"
        assert all(at[k][1] < y for k in landing.NEEDS[n])
        for k, (x2, y2) in at.items():
            room = 0 if isinstance(k, tuple) else half
            assert k == n or y != y2 or abs(x - x2) > half + room


def test_the_drawing_is_sound_and_links_to_every_chapter():
    svg = ElementTree.fromstring(landing.drawing())
    links = {e.get("href") for e in svg.iter("a")}
    assert links == {f"{name}.html" for name in KNOWN.values()}
    for text in svg.iter("text"):
        rows = [t.text for t in text.iter("tspan")]
        assert len(rows) <= 3 and max(map(len, rows)) <= 16


def test_the_table_has_one_more_column_for_every_chapter():
    page = (ROOT / "chapters" / "index.md").read_text()
    table = landing.with_times(page)
    for name in KNOWN.values():
        (row,) = [r for r in table.splitlines() if f"{{doc}}`{name}` |" in r]
        assert row.startswith(f"| {int(name[:2])}.")
        assert row.count("|") == 5 and row.endswith("\N{NO-BREAK SPACE}min |")
    assert landing.MARK in page and landing.MARK not in landing.write(page)


@pytest.mark.parametrize("name", KNOWN.values())
def test_reading_takes_a_time_worth_saying(name):
    assert 5 <= landing.reading_minutes(name) <= 180
