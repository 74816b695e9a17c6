"""Figures that move: alive in a notebook, stored as parts, plain HTML on the site."""

import json
import re

import matplotlib as mpl
import matplotlib.pyplot as plt
import movables
import pytest
from bs4 import BeautifulSoup
from drawings import NAMES, dress, place

from bnlib.figures import COLOURS, movable, table, to_svg

mpl.use("Agg")


def draw(*values):
    fig, ax = plt.subplots(figsize=(4, 2))
    ax.set(title=f"at {values}", xlabel=r"$10^{-2}$ of a step")
    return fig


def describe(*values):
    return f"A figure that stands at the values {values}"


def bundle(figure):
    """What a kernel sends for a figure, and a notebook stores but for the widget."""
    return figure._repr_mimebundle_()


def soup(figure):
    """A figure as the site has it."""
    book = {"cells": [{"outputs": [{"data": bundle(figure)}]}]}
    movables.place(book)
    (data,) = (output["data"] for output in book["cells"][0]["outputs"])
    assert set(data) == {"text/html"}  # no still picture beside it, no widget
    return BeautifulSoup(data["text/html"], "html.parser")


def frames(html):
    """The frames as movables.js puts them together: (sentence, SVG)."""
    data = json.loads(html.script.text)
    drawn = ["".join(data["parts"][n] for n in row) for row in data["rows"]]
    return list(zip(data["said"], drawn, strict=True))


def titles(html):
    return [re.search(r">(at \([^<]*\))<", drawn)[1] for _, drawn in frames(html)]


def test_one_slider():
    figure = movable(draw, [1, 2, 3], label="size", describe=describe, start=1)
    html = soup(figure)
    (slider,) = html.select("input[type=range]")
    assert (slider["min"], slider["max"], slider["value"]) == ("0", "2", "1")
    assert json.loads(slider["data-shows"]) == ["1", "2", "3"]
    assert slider["aria-valuetext"] == "2: A figure that stands at the values (2,)"
    assert html.select_one(f"label[for={slider['id']}]").text == "size"
    (shown,) = html.select_one(".bn-stage").find_all(recursive=False)
    assert "at (2,)" in shown.text
    assert titles(html) == ["at (1,)", "at (2,)", "at (3,)"]


def test_frames_of_several_sliders_lie_as_the_page_counts_them():
    values = {"a": [1, 2], "b & c": [3, 4, 5]}
    html = soup(movable(draw, values, describe=describe, start=(1, 2)))
    assert [label.text for label in html("label")] == ["a", "b & c"]
    assert titles(html) == [f"at ({a}, {b})" for a in (1, 2) for b in (3, 4, 5)]
    (shown,) = html.select(".bn-stage > div")  # the sixth: 1 * 3 + 2
    assert shown["aria-label"] == "A figure that stands at the values (2, 5)"
    assert len({tag["id"] for tag in html.select("input")}) == 2


def test_what_frames_share_is_stored_once():
    figure = movable(draw, range(12), label="size", describe=describe)
    stored = bundle(figure)[movables.STORED]
    alone = [
        to_svg(draw(n), str([s.options for s in figure.children[:-1]]))
        for n in range(12)
    ]
    assert [drawn for _, drawn in frames(soup(figure))] == list(map(dress, alone))
    assert len(stored) < 3 * len(alone[0])
    parts = stored.split("\n")[2:]
    assert len(set(parts)) == len(parts) and all(part.startswith("<") for part in parts)


def test_nothing_stored_is_counted_or_random():
    values = {"a": [1, 2], "b": [3, 4]}
    before = bundle(movable(draw, values, describe=describe))
    movable(draw, [1, 2], label="another", describe=describe)
    after = bundle(movable(draw, values, describe=describe))
    kinds = {movables.STORED, "image/svg+xml", "text/plain"}
    assert {k: before[k] for k in kinds} == {k: after[k] for k in kinds}


def test_in_a_notebook_the_sliders_are_live():
    values = {"a": [1, 2], "b": [3, 4, 5]}
    figure = movable(draw, values, describe=describe)
    a, b, stage = figure.children
    a.index, b.index = 1, 2
    assert "at (2, 5)" in stage.value and "values (2, 5)&quot;" not in stage.value
    b.index = 0
    assert "at (2, 3)" in stage.value and 'aria-label="A figure' in stage.value
    assert "application/vnd.jupyter.widget-view+json" in bundle(figure)


def test_labels_cannot_end_the_script_they_stand_in():
    html = soup(
        movable(draw, [1], label="</script><b>", describe=lambda v: "</script>")
    )
    assert html.b is None and frames(html)[0][0] == "</script>"


def test_to_svg_draws_what_matplotlib_draws():
    """Styles that neighbours share are said once; an opacity stays with each mark."""
    fig, ax = plt.subplots()
    ax.plot([0, 1, 2], [0, 1, 0], "o", alpha=0.5)
    ax.pcolormesh([[1.0, 2.0], [3.0, 4.0]])
    ax.plot([0, 1, 2, 3], [1.23456789, 2, 1, 2], alpha=0.5)
    ax.set_title("pi is 3.14159")
    html = BeautifulSoup(to_svg(fig), "html.parser")
    assert html.find("text", string="pi is 3.14159")
    marks = html.select("g[style*='fill:#1f77b4'] > use, use[style*='fill:#1f77b4']")
    assert len(marks) == 3
    assert len({path["style"] for path in html.select("[id^=QuadMesh] path")}) == 4
    assert not html.select("g[style*=';opacity'], g[style^=opacity], metadata")
    assert (
        max(len(n) for n in re.findall(r"\.(\d+)", str(html.svg.find_all("path")))) == 2
    )
    ids = {tag["id"] for tag in html.select("[id]")} - {"QuadMesh_1"}
    assert ids == set(re.findall(r"#([mp]\w{10})", str(html)))


@pytest.mark.parametrize("start", [3, -1, (0, 2), (0, 0, 0)])
def test_a_start_outside_is_refused(start):
    values = {"a": [1, 2], "b": [3, 4]} if isinstance(start, tuple) else [1, 2, 3]
    with pytest.raises(ValueError):
        movable(draw, values, label="size", describe=describe, start=start)


def test_a_slider_without_a_name_is_refused():
    with pytest.raises(ValueError, match="label"):
        movable(draw, [1, 2], describe=describe)


def test_a_page_names_all_colours_but_those_that_are_numbers():
    assert {c.lower() for c in COLOURS.values()} <= set(NAMES)
    fig, ax = plt.subplots()
    ax.plot([0, 1], [0, 1], color=COLOURS["blue"])
    ax.pcolormesh([[1.0, 2.0]], cmap="cividis")
    svg = BeautifulSoup(dress(to_svg(fig)), "html.parser")
    colours = set(re.findall(r"(?:fill|stroke):([^;\"]+)", str(svg)))
    ends = {mpl.colors.to_hex(mpl.colormaps["cividis"](end)) for end in (0.0, 1.0)}
    assert {c for c in colours if c.startswith("#")} == ends
    assert {"var(--fig-blue)", "var(--bn-ink)", "var(--bn-bg)"} <= colours
    assert "DejaVu" not in str(svg) and svg.svg["style"].startswith("--wide:460.8;")


def test_drawings_on_a_page_share_no_name_and_are_said():
    cells = [
        {"metadata": {"mystnb": {"image": {"alt": 'a "line"'}}}, "outputs": [output]}
        for output in ({"data": {"image/svg+xml": to_svg(draw(1))}} for _ in "ab")
    ]
    place({"cells": cells})
    html = [
        BeautifulSoup(c["outputs"][0]["data"]["text/html"], "html.parser")
        for c in cells
    ]
    names = [{tag["id"] for tag in each.select("[id]")} for each in html]
    assert names[0] and not names[0] & names[1]
    for each, own in zip(html, names, strict=True):
        used = re.findall(r'(?:href="|url\()#([\w-]+)', str(each))
        assert set(used) <= own
        assert each.div["aria-label"] == 'a "line"' and each.div["role"] == "img"


def test_many_dots_are_a_picture_inside_the_drawing():
    fig, ax = plt.subplots()
    ax.plot(range(5000), range(5000), ".")
    ax.plot(range(5000), range(5000))
    html = BeautifulSoup(to_svg(fig), "html.parser")
    assert html.image and len(html.select("use")) < 100


def test_a_table_sets_numbers_right_and_misses_no_cell():
    rows = [["plain", 1.5, "yes"], ["with it", "−2 ± 1", "no"], ["lost", "nan", "no"]]
    head, sides, *lines = table(["", "loss", "`ok`"], rows).data.splitlines()
    assert (head, sides) == ("|  | loss | `ok` |", "| --- | --: | --- |")
    assert lines[0] == "| plain | 1.5 | yes |" and len(lines) == 3
    with pytest.raises(ValueError, match="shorter"):
        table(["", "loss"], [["plain", 1], ["with it"]])
