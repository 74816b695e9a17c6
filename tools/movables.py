"""Figures that move, on a page without Python: the browser's own sliders, SVG frames.

A stored notebook keeps the words and the parts of each such figure
(`bnlib.figures.movable`). While the book is built it becomes plain HTML here: the frame
that is shown first stands in the page, and without scripts, and on paper, remains. The
parts of all frames wait beside it, and movables.js puts them together; a figure that is
live has finer sliders instead, whose every position movables.js computes.
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


def positions(live):
    """What a slider of a live figure shows, in finer steps, and where it starts."""
    if "values" in live:
        return list(map(str, live["values"])), live["values"].index(live["start"])
    low, high, by = live["range"]
    digits = len(f"{by:g}".partition(".")[2])
    values = [
        round(low + n * by, digits) + 0 for n in range(round((high - low) / by) + 1)
    ]
    return [f"{value:,.{digits}f}" for value in values], values.index(live["start"])


def figure(stored, name):
    """The HTML of a stored figure. name : the beginning of its sliders' identifiers."""
    words, rows, *parts = drawings.dress(stored).split("\n")
    words, rows = json.loads(words), json.loads(rows)
    frame = 0
    for each in words["sliders"]:
        frame = frame * len(each["shows"]) + each["start"]
    said = escape(words["said"][frame], quote=True)
    if live := words.get("live"):
        chosen = [(each["label"], *positions(each)) for each in live.get("sliders", [])]
        about = f' data-live="{escape(json.dumps(live), quote=True)}"'
        script = ""
    else:
        chosen = [
            (each["label"], each["shows"], each["start"]) for each in words["sliders"]
        ]
        about = ""
        data = {"said": words["said"], "rows": rows, "parts": parts}
        data = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
        data = data.replace("</", r"<\/")  # or the script would end there
        script = f'<script type="application/json">{data}</script>'
    sliders = "".join(
        slider(
            f"{name}-{n}", label, [NEGATIVE.sub("−", each) for each in shows], at, said
        )
        for n, (label, shows, at) in enumerate(chosen)
    )
    drawn = "".join(parts[number] for number in rows[frame])
    return (
        f'<div class="bn-movable"{about}><div class="bn-sliders">{sliders}</div>'
        f'<div class="bn-stage bn-drawing"><div role="img" aria-label="{said}">{drawn}'
        f"</div></div>{script}</div>"
    )


def place(book):
    """Put HTML in place of the figures that move in a notebook; changes its outputs."""
    outputs = [each for cell in book["cells"] for each in cell.get("outputs", [])]
    moving = [o["data"] for o in outputs if STORED in o.get("data", {})]
    for number, data in enumerate(moving, start=1):
        html = figure("".join(data[STORED]), f"bn-slider-{number}")
        data.clear()
        data["text/html"] = html
