"""From chapters/A2_figures.ipynb.

Extracted by `make export`: edit the notebook, not this file.
"""

import html
import itertools
import math
import re
from io import StringIO

import ipywidgets as widgets
import matplotlib as mpl
import matplotlib.pyplot as plt
from cycler import cycler

__all__ = ["COLOURS", "style", "to_svg", "movable"]


COLOURS = {
    "blue": "#0072B2",
    "vermilion": "#D55E00",
    "green": "#009E73",
    "purple": "#CC79A7",
    "orange": "#E69F00",
    "sky": "#56B4E9",
}


_DASHES = ["-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1, 1, 1))]


def style():
    """Set the look of the book's figures, until Python ends.

    Changes `matplotlib.rcParams`: the Okabe-Ito palette with one dash pattern per
    colour, no upper and right frame, 7.2 x 3.2 inches, a white ground that the site
    inverts in dark mode. Source: Okabe and Ito (2008), Color Universal Design.
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
            "font.size": 10,
            "image.cmap": "cividis",
            "legend.frameon": False,
            "lines.linewidth": 1.8,
        }
    )


_DECIMALS = re.compile(r"(\d\.\d\d)\d+")


def to_svg(figure, salt="0"):
    """Return a figure as an inline SVG element and close it.

    figure : matplotlib Figure. salt : str that makes the identifiers inside differ from
    those of another figure on the same page. Returns str, the element `<svg>...</svg>`
    with coordinates cut to 0.01 points; the text in it is left alone.
    """
    text = StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": str(salt)}):
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    plt.close(figure)
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    return re.sub(r"<[^>]+>", lambda tag: _DECIMALS.sub(r"\1", tag[0]), svg)


_figures = itertools.count()


class _Movable(widgets.VBox):
    """A box whose printed form is one short line instead of all its frames."""

    def __repr__(self):
        frames = math.prod(len(slider.options) for slider in self.children[:-1])
        return f"<movable figure: {frames} frames>"


def _frame(figure, sentence, salt):
    """One position of the slider: the picture, and the sentence for screen readers."""
    label = html.escape(sentence, quote=True)
    svg = to_svg(figure, salt)
    return widgets.HTML(f'<div role="img" aria-label="{label}">{svg}</div>')


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


def _stack(frame, sliders, positions, chosen=()):
    """The frames for all positions of the sliders, in stacks that obey them."""
    if not sliders:
        return frame(*chosen)
    inner = [
        _stack(frame, sliders[1:], positions[1:], (*chosen, v)) for v in positions[0]
    ]
    stack = widgets.Stack(children=inner, selected_index=sliders[0].index)
    widgets.jslink((sliders[0], "index"), (stack, "selected_index"))
    return stack


def movable(draw, values, *, label="", describe, show=str, start=0):
    """Return a figure with a slider, one pre-drawn frame per value.

    draw : function value -> matplotlib Figure. values : the slider's positions.
    label : what the slider changes, with its unit. describe : function value -> one
    sentence, read aloud by screen readers. show : function value -> text beside the
    slider. start : index of the frame shown first.

    For several sliders, values : dict label -> positions; draw and describe then take
    one value of each, and start is a tuple. Every combination is a frame.

    Works without a Python process: sliders and frames are linked in the browser.
    Raises ValueError for no values, a start outside them, or a slider without a label.
    """
    positions = values if isinstance(values, dict) else {label: values}
    positions = {name: list(those) for name, those in positions.items()}
    starts = start if isinstance(start, tuple) else (start,) * len(positions)
    sliders = [
        _slider(name, those, show, first)
        for (name, those), first in zip(positions.items(), starts, strict=True)
    ]
    salt, numbers = next(_figures), itertools.count()

    def frame(*chosen):
        return _frame(draw(*chosen), describe(*chosen), f"{salt}-{next(numbers)}")

    return _Movable([*sliders, _stack(frame, sliders, list(positions.values()))])
