"""Figures that move, turned from widgets into plain HTML (tools/movables.py)."""

import json
import re
import sys
from pathlib import Path

import ipywidgets
import matplotlib as mpl
import matplotlib.pyplot as plt
import pytest
from bs4 import BeautifulSoup
from docutils import nodes
from docutils.utils import new_document
from ipywidgets.embed import dependency_state

from bnlib.figures import movable

mpl.use("Agg")
ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))
import movables  # noqa: E402


def draw(*values):
    fig, ax = plt.subplots(figsize=(4, 2))
    ax.set_title(f"at {values}")
    return fig


def describe(*values):
    return f"A figure that stands at the values {values}"


def page(widget):
    """A page with one widget, as myst-nb hands it on: (its nodes, its scripts)."""
    state = {"state": dependency_state(widget), "version_major": 2}
    script = {"body": json.dumps(state).replace("</script>", r"<\/script>")}
    scripts = {movables.STATE: (None, script), "ipywidgets_0": ("embed.js", {})}
    scripts["other"] = ("other.js", {})
    doctree = new_document("page")
    view = json.dumps({"model_id": widget.model_id})
    text = f'<script type="{movables.VIEW}">{view}</script>'
    doctree += nodes.raw(text, text, format="html")
    return doctree, scripts


def soup(widget):
    doctree, scripts = page(widget)
    movables.replace(doctree, scripts)
    assert list(scripts) == ["other"]  # that of the widgets is not loaded
    return BeautifulSoup(doctree.astext(), "html.parser")


def titles(html):
    return re.findall(r">(at \([^<]*\))<", str(html.select_one(".bn-stage")))


def test_one_slider():
    figure = movable(draw, [1, 2, 3], label="size", describe=describe, start=1)
    html = soup(figure)
    (slider,) = html.select("input[type=range]")
    assert (slider["min"], slider["max"], slider["value"]) == ("0", "2", "1")
    assert json.loads(slider["data-shows"]) == ["1", "2", "3"]
    assert slider["aria-valuetext"] == "2: A figure that stands at the values (2,)"
    assert html.select_one(f"label[for={slider['id']}]").text == "size"
    parts = html.select_one(".bn-stage").find_all(recursive=False)
    assert [part.name for part in parts] == ["template", "div", "template"]
    assert titles(html) == ["at (1,)", "at (2,)", "at (3,)"]


def test_frames_of_several_sliders_lie_as_the_page_counts_them():
    values = {"a": [1, 2], "b & c": [3, 4, 5]}
    html = soup(movable(draw, values, describe=describe, start=(1, 2)))
    assert [label.text for label in html("label")] == ["a", "b & c"]
    assert titles(html) == [f"at ({a}, {b})" for a in (1, 2) for b in (3, 4, 5)]
    (shown,) = html.select(".bn-stage > div")  # the sixth: 1 * 3 + 2
    assert shown["aria-label"] == "A figure that stands at the values (2, 5)"
    assert len({tag["id"] for tag in html.select("input")}) == 2


def test_words_are_words():
    assert soup(ipywidgets.HTML("<b>done</b>")).b.text == "done"


@pytest.mark.parametrize("widget", [ipywidgets.Button, ipywidgets.VBox])
def test_what_needs_python_is_a_warning_and_warnings_are_errors(widget, monkeypatch):
    said = []
    monkeypatch.setattr(movables.logger, "warning", lambda text, **_: said.append(text))
    soup(widget())
    assert said and "bnlib.figures.movable" in said[0]


@pytest.mark.parametrize("start", [3, -1, (0, 2), (0, 0, 0)])
def test_a_start_outside_is_refused(start):
    values = {"a": [1, 2], "b": [3, 4]} if isinstance(start, tuple) else [1, 2, 3]
    with pytest.raises(ValueError):
        movable(draw, values, label="size", describe=describe, start=start)


def test_a_slider_without_a_name_is_refused():
    with pytest.raises(ValueError, match="label"):
        movable(draw, [1, 2], describe=describe)
