"""Figures that move, on a page without Python: the browser's own sliders, SVG frames.

A stored notebook keeps the words and the parts of each such figure
(`bnlib.figures.movable`). While the book is built it becomes plain HTML here: the frame
that is shown first stands in the page, the parts of all frames wait beside it, and
bnlib.js puts them together, live.js computes those that are live. Without scripts, and
on paper, the first frame remains.
"""

import json
import re
from html import escape

import drawings

STORED = "text/vnd.bnlib.movable"
SYMBOL, AS_SYMBOL = re.compile(r"\b[α-ω]\b"), r'<span class="bn-symbol">\g<0></span>'
NEGATIVE = re.compile(r"^-(?=\d)")


def ticks(shows):
    """Marks for the stops of a slider of few, so that it does not look continuous."""
    stops = len(shows) - 1
    return f' class="bn-stops" style="--bn-stops: {stops}"' if 1 < stops < 10 else ""


def slider(name, label, shows, start, said):
    """A slider with its name before and its value after it."""
    values = escape(json.dumps(shows, ensure_ascii=False), quote=True)
    widest = max(map(len, shows))  # room for it, or the track would move too
    return (
        f'<label for="{name}">{SYMBOL.sub(AS_SYMBOL, escape(label))}</label>'
        f'<input type="range" id="{name}" min="0" max="{len(shows) - 1}" '
        f'value="{start}" autocomplete="off" data-shows="{values}"{ticks(shows)} '
        f'aria-valuetext="{escape(shows[start], quote=True)}: {said}">'
        f'<span class="bn-value" style="--bn-widest: {widest}ch" '
        f'aria-hidden="true">{escape(shows[start])}</span>'
    )


def figure(stored, name):
    """The HTML of a stored figure. name : the beginning of its sliders' identifiers."""
    words, rows, *parts = drawings.dress(stored).split("\n")
    words, rows = json.loads(words), json.loads(rows)
    start = 0
    for each in words["sliders"]:
        each["shows"] = [NEGATIVE.sub("−", shown) for shown in each["shows"]]
        start = start * len(each["shows"]) + each["start"]
    said = escape(words["said"][start], quote=True)
    sliders = "".join(
        slider(f"{name}-{number}", each["label"], each["shows"], each["start"], said)
        for number, each in enumerate(words["sliders"])
    )
    first = "".join(parts[number] for number in rows[start])
    live = escape(json.dumps(words["live"]), quote=True) if "live" in words else ""
    live = live and f' data-live="{live}"'
    data = {"said": words["said"], "rows": rows, "parts": parts}
    data = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    data = data.replace("</", r"<\/")  # or the script would end there
    return (
        f'<div class="bn-movable"{live}><div class="bn-sliders">{sliders}</div>'
        '<div class="bn-stage bn-drawing">'
        f'<div role="img" aria-label="{said}">{first}</div></div>'
        f'<script type="application/json">{data}</script></div>'
    )


def place(book):
    """Put HTML in place of the figures that move in a notebook; changes its outputs."""
    outputs = [each for cell in book["cells"] for each in cell.get("outputs", [])]
    moving = [o["data"] for o in outputs if STORED in o.get("data", {})]
    for number, data in enumerate(moving, start=1):
        html = figure("".join(data[STORED]), f"bn-slider-{number}")
        data.clear()
        data["text/html"] = html
