"""Figures that move, on a page without Python: the browser's own sliders, SVG frames.

In a notebook `bnlib.figures.movable` is a stack of widgets, and their state is stored
with the notebook. While the book is built each such figure becomes plain HTML here: the
frame that is shown first stands in the page, the others wait in `<template>`s beside
it, and bnlib.js exchanges them. Without scripts, and on paper, the first frame remains.
"""

import itertools
import json
import re
from html import escape

from docutils import nodes
from sphinx.util import logging

VIEW = "application/vnd.jupyter.widget-view+json"
STATE = "ipywidgets_state"  # myst-nb's name for what all widgets of a page need
CALL = re.compile(rf'<script type="{re.escape(VIEW)}">(.*?)</script>', re.S)
MODEL = "IPY_MODEL_"
SIZE = re.compile(r'viewBox="0 0 ([\d.]+) ([\d.]+)"')
BROAD = 1.8  # width over height from which a phone would make the lettering too small
NEGATIVE = re.compile(r"^-(?=\d)")
SPOKEN = re.compile(r'role="img" aria-label="([^"]*)"')


logger = logging.getLogger(__name__)


def children(box, models):
    """The models inside a box or a stack."""
    return [models[name.removeprefix(MODEL)] for name in box["state"]["children"]]


def frames_in(stack, models):
    """The frames of a stack, which may hold stacks: (their HTML, the place shown)."""
    if stack["model_name"] == "HTMLModel":
        return [stack["state"]["value"]], 0
    parts = [frames_in(child, models) for child in children(stack, models)]
    at = stack["state"]["selected_index"]
    before = sum(len(frames) for frames, _ in parts[:at])
    return [f for frames, _ in parts for f in frames], before + parts[at][1]


def slider(name, label, shows, start, said):
    """A slider with its name before and its value after it."""
    values = escape(json.dumps(shows, ensure_ascii=False), quote=True)
    widest = max(map(len, shows))  # room for it, or the track would move too
    return (
        f'<label for="{name}">{escape(label)}</label>'
        f'<input type="range" id="{name}" min="0" max="{len(shows) - 1}" '
        f'value="{start}" autocomplete="off" data-shows="{values}" '
        f'aria-valuetext="{escape(shows[start], quote=True)}: {said}">'
        f'<span class="bn-value" style="--bn-widest: {widest}ch" '
        f'aria-hidden="true">{escape(shows[start])}</span>'
    )


def figure(view, models, name):
    """The HTML of a movable figure or of words; None where the widget is neither."""
    box = models[view["model_id"]]
    if box["model_name"] == "HTMLModel":
        return box["state"]["value"]
    inside = children(box, models) if box["model_name"] == "VBoxModel" else []
    kinds = [model["model_name"] for model in inside]
    if set(kinds[:-1]) != {"SelectionSliderModel"} or kinds[-1] != "StackModel":
        return None
    *sliders, stack = inside
    frames, start = frames_in(stack, models)
    said = SPOKEN.search(frames[start])[1]
    rows = "".join(
        slider(
            f"{name}-{number}",
            s["state"]["description"],
            [NEGATIVE.sub("−", name) for name in s["state"]["_options_labels"]],
            s["state"]["index"],
            said,
        )
        for number, s in enumerate(sliders)
    )
    drawn = "".join(
        frame if number == start else f"<template>{frame}</template>"
        for number, frame in enumerate(frames)
    )
    wide, high = map(float, SIZE.search(frames[start]).groups())
    broad = " bn-broad" if wide > BROAD * high else ""
    return (
        f'<div class="bn-movable"><div class="bn-sliders">{rows}</div>'
        f'<div class="bn-stage{broad}">{drawn}</div></div>'
    )


def replace(doctree, scripts):
    """Put HTML in place of the widgets of a page, and drop the scripts they needed.

    scripts : what myst-nb adds to the page for its widgets, by name; changed.
    """
    if STATE not in scripts:
        return
    models = json.loads(scripts[STATE][1]["body"])["state"]
    count = itertools.count(1)
    for node in doctree.findall(nodes.raw):
        call = CALL.fullmatch(node.astext())
        if not call:
            continue
        html = figure(json.loads(call[1]), models, f"bn-slider-{next(count)}")
        if not html:
            cure = "show it with bnlib.figures.movable"
            logger.warning(f"a widget that needs Python: {cure}", location=node)
        node.children = [nodes.Text(html or "")]
    for key in [key for key in scripts if key.startswith("ipywidgets_")]:
        del scripts[key]
