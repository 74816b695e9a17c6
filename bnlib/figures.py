"""From chapters/A2_figures.ipynb.

Extracted by `make export`: edit the notebook, not this file.
"""

import html
import itertools
import json
import re
from collections import defaultdict
from io import StringIO
from xml.etree import ElementTree

import ipywidgets as widgets
import matplotlib as mpl
import matplotlib.pyplot as plt
from cycler import cycler
from IPython import get_ipython
from IPython.display import Markdown
from matplotlib.figure import Figure
from matplotlib_inline import backend_inline

__all__ = ["COLOURS", "to_svg", "style", "table", "movable"]


COLOURS = {
    "blue": "#0072B2",
    "vermilion": "#D55E00",
    "green": "#009E73",
    "purple": "#CC79A7",
    "orange": "#E69F00",
    "sky": "#56B4E9",
}


_NUMBER = re.compile(r"-?\d+\.\d+")
_LINES = re.compile(r"([ML][^A-Za-z]*)((?:L[^A-Za-z]*)+)")
_LOOK = "stroke-linejoin:round;stroke-linecap:butt;font-family:'DejaVu Sans',sans-serif"


def _short(tag):
    """A tag with numbers to 0.01, and paths without the spaces that nothing needs."""
    tag = _NUMBER.sub(lambda n: f"{round(float(n[0]), 2) + 0:g}", tag)
    tag = tag.replace("font-family: 'DejaVu Sans', sans-serif; ", "")
    tag = re.sub(r' xmlns(:xlink)?="[^"]*"| transform="rotate\(-0 [^"]*"', "", tag)
    tag = tag.replace("xlink:href", "href").replace(": ", ":").replace("; ", ";")
    path = re.search(r' d="([^"]*)"', tag)
    if not path:
        return tag
    short = re.sub(r"\s*([A-Za-z])\s*", r"\1", path[1])
    short = _LINES.sub(lambda line: line[1] + line[2].replace("L", " "), short)
    return tag.replace(path[1], short.strip())


def _alike(mark):
    """What neighbours have to agree on to be put into a group: all but values."""
    names = re.findall(r"([\w-]+):", mark.get("style", ""))
    moved = "transform" in mark.attrib  # and with it the place of a clip path
    return moved, mark.tag, mark.get("clip-path"), *names


def _share(parent):
    """Put neighbours into a group that says, once, what they all have."""
    marks = []
    for (moved, _, clip, *_), run in itertools.groupby(list(parent), _alike):
        run = list(run)
        styles = [mark.get("style", "").split(";") for mark in run]
        same = [s for s in styles[0] if all(s in style for style in styles)]
        same = [s for s in same if not s.startswith("opacity")]  # it is not inherited
        told = {"clip-path": clip, "style": ";".join(same)}
        if len(run) < 3 or moved or not any(told.values()):
            marks += run
            continue
        for mark, style in zip(run, styles, strict=True):
            own = {"style": ";".join(s for s in style if s not in same)}
            mark.attrib = {**mark.attrib, "clip-path": None, **own}
            mark.attrib = {name: value for name, value in mark.attrib.items() if value}
        told = {name: value for name, value in told.items() if value}
        marks.append(ElementTree.Element("g", told))
        marks[-1].extend(run)
    parent[:] = marks


def _slim(element, used):
    """The element without names that nobody uses; of a bare group, what is in it."""
    element.tail = None
    if element.tag in ("metadata", "style") or element.get("style") == "fill:none":
        return []
    name = element.attrib.pop("id", "")
    if name in used or name.startswith("QuadMesh"):
        element.set("id", name)
    element[:] = [child for each in element for child in _slim(each, used)]
    if element.tag not in ("text", "tspan") or len(element):
        element.text = None
    if element.tag in ("g", "svg"):
        _share(element)
    is_bare = element.tag == "g" and not element.attrib
    return list(element) if is_bare else [element]


_MANY = 3000


def _clouds(figure):
    """Marks of a figure that are too many to be drawn one by one."""
    for ax in figure.axes:
        lines = [x for x in ax.lines if x.get_marker() not in ("None", "", " ")]
        yield from (line for line in lines if len(line.get_xdata()) > _MANY)
        yield from (c for c in ax.collections if len(c.get_offsets()) > _MANY)


def to_svg(figure, salt="0"):
    """Return a figure as an inline SVG element and close it.

    Parameters
    ----------
    figure : figure
        Of matplotlib.
    salt : str
        Makes the identifiers inside differ from those of another figure on the same
        page.

    Returns
    -------
    element : str
        `<svg>...</svg>` with coordinates rounded to 0.01 points; the text in it is left
        alone.
    """
    text, look = StringIO(), {"svg.fonttype": "none", "font.sans-serif": "DejaVu Sans"}
    for cloud in _clouds(figure):
        cloud.set_rasterized(True)
    with mpl.rc_context({**look, "svg.hashsalt": str(salt)}):
        unsaid = {"Date": None, "Creator": None}
        figure.savefig(text, format="svg", metadata=unsaid, dpi=200)
    plt.close(figure)
    svg = re.sub(r"<[^>]+>", lambda tag: _short(tag[0]), text.getvalue())
    used = set(re.findall(r"#([\w-]+)", svg))
    (slim,) = _slim(ElementTree.fromstring(svg), used)
    slim.set("style", _LOOK)
    return ElementTree.tostring(slim, encoding="unicode")


_DASHES = ["-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1, 1, 1))]


def style():
    """Set the look of the book's figures, until Python ends.

    Changes `matplotlib.rcParams`: the Okabe-Ito palette with one dash pattern per
    colour, no upper and right frame, 7.2 x 3.2 inches; and in a notebook, figures are
    drawings, by `to_svg`. Source: Okabe and Ito (2008), Color Universal Design.
    """
    mpl.rcParams.update(
        {
            "axes.prop_cycle": cycler(color=list(COLOURS.values()))
            + cycler(linestyle=_DASHES),
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.titlesize": "medium",
            "figure.figsize": (7.2, 3.2),
            "figure.dpi": 130,
            "figure.constrained_layout.use": True,
            "figure.labelsize": "medium",
            "figure.titlesize": "medium",
            "font.size": 10,
            "image.cmap": "cividis",
            "image.interpolation": "none",  # a pixel stays a square, however large
            "legend.frameon": False,
            "lines.linewidth": 1.8,
        }
    )
    if shell := get_ipython():
        backend_inline.set_matplotlib_formats("svg")
        shell.display_formatter.formatters["image/svg+xml"].for_type(Figure, to_svg)


def table(columns, rows):
    """Return a table in Markdown: a head, rows that begin with theirs, and cells.

    Cells are text. A column that is mostly numbers is set to the right.
    """
    rows, sides = [[str(cell) for cell in row] for row in rows], ["---"]
    for _, *cells in [*zip(columns, *rows, strict=True)][1:]:
        numbers = sum(bool(re.match(r"[−+-]?\d", cell)) for cell in cells)
        sides.append("--:" if numbers > len(cells) / 2 else "---")
    lines = (f"| {' | '.join(line)} |" for line in (columns, sides, *rows))
    return Markdown("\n".join(lines))


def _in_parts(frames):
    """Cut texts into what they share: (the parts, each frame's numbers of parts)."""
    cut = [re.split(r"(?=<[^/])", frame)[1:] for frame in frames]
    before, after = defaultdict(set), defaultdict(set)
    for pieces in cut:
        for a, b in itertools.pairwise([None, *pieces, None]):
            after[a].add(b)
            before[b].add(a)
    numbers, rows = {}, []
    for pieces in cut:
        joined = pieces[:1]
        for a, b in itertools.pairwise(pieces):
            if len(after[a]) == len(before[b]) == 1:
                joined[-1] += b
            else:
                joined.append(b)
        rows.append([numbers.setdefault(part, len(numbers)) for part in joined])
    return list(numbers), rows


def _words(slider):
    """What a slider says: its name, its values, which of them is first."""
    shows = [label for label, _ in slider.options]
    return {"label": slider.description, "shows": shows, "start": slider.index}


_STORED = "text/vnd.bnlib.movable"


class _Movable(widgets.VBox):
    """Sliders above a frame; stored, it is words, parts and the first frame."""

    def __init__(self, sliders, frames, said, live):
        stage = widgets.HTML()
        self.frames, self.said = frames, said
        self.live = {"live": live} if live else {}
        super().__init__([*sliders, stage])

        def show(change=None):
            number = 0
            for slider in sliders:
                number = number * len(slider.options) + slider.index
            label = html.escape(said[number])
            stage.value = f'<div role="img" aria-label="{label}">{frames[number]}</div>'
            return frames[number]

        for slider in sliders:
            slider.observe(show, "index")
        self.first = show()

    def __repr__(self):
        return f"<movable figure: {len(self.frames)} frames>"

    def _repr_mimebundle_(self, **choice):
        words = {"sliders": [_words(s) for s in self.children[:-1]], "said": self.said}
        words |= self.live
        parts, rows = _in_parts(self.frames)
        lines = json.dumps(words, ensure_ascii=False), json.dumps(rows), *parts
        stored = {_STORED: "\n".join(lines), "image/svg+xml": self.first}
        return super()._repr_mimebundle_(**choice) | stored


def _slider(label, positions, show, start):
    """A slider over the positions; its index is what frames are chosen by."""
    if not 0 <= start < len(positions):
        raise ValueError(
            f"start must index one of the {len(positions)} values, got {start}; "
            "pass at least one value and start=0"
        )
    if not label:
        raise ValueError("label must say what the slider changes, got an empty one")
    return widgets.SelectionSlider(
        options=[(show(value), number) for number, value in enumerate(positions)],
        index=start,
        description=label,
        style={"description_width": "initial"},
        layout={"width": "95%"},
    )


def movable(draw, values, *, label="", describe, show=str, start=0, live=None):
    """Return a figure with a slider, one pre-drawn frame per value.

    For several sliders, `values` is a dict label -> positions; draw and describe then
    take one value of each, and start is a tuple. Every combination is a frame.

    In a notebook the sliders are live; stored, it needs no Python: the site and other
    viewers show what its bundle of parts and the picture beside that hold.

    Parameters
    ----------
    draw : function
        Of a value; returns a matplotlib Figure.
    values : iterable or dict
        The slider's positions.
    label : str
        What the slider changes, with its unit.
    describe : function
        Of a value; returns one sentence, read aloud by screen readers.
    show : function
        Of a value; returns the text beside the slider.
    start : int or tuple of int
        Index of the frame shown first.
    live : dict
        Kind and numbers of a figure that the site computes in place of the frames
        (chapters/_static/movables.js).

    Returns
    -------
    widget : object

    Raises
    ------
    ValueError
        For no values, a start outside them, or a slider without a label.
    """
    positions = values if isinstance(values, dict) else {label: values}
    positions = {name: list(those) for name, those in positions.items()}
    starts = start if isinstance(start, tuple) else (start,) * len(positions)
    sliders = [
        _slider(name, those, show, first)
        for (name, those), first in zip(positions.items(), starts, strict=True)
    ]
    salt = str([slider.options for slider in sliders])
    chosen = list(itertools.product(*positions.values()))
    frames = [to_svg(draw(*values), salt) for values in chosen]
    return _Movable(sliders, frames, [describe(*values) for values in chosen], live)
