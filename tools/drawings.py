"""Figures in a page: the drawings of the notebooks, in the page's letters and colours.

`bnlib.figures` draws with six colours, black and white. Here they become names, which
bnlib.css gives a value by day and one by night. What has another colour is a number, in
a map or a bitmap, and stays as it is.
"""

import re
from html import escape

SVG = "image/svg+xml"
NAMES = {
    "#0072b2": "--fig-blue",
    "#d55e00": "--fig-vermilion",
    "#009e73": "--fig-green",
    "#cc79a7": "--fig-purple",
    "#e69f00": "--fig-orange",
    "#56b4e9": "--fig-sky",
    "#000000": "--bn-ink",
    "#ffffff": "--bn-bg",
    "#777777": "--bn-muted",
    "#b2b2b2": "--bn-edge",
    "#e0e0e0": "--bn-line",
}
COLOUR = re.compile(r"\b(fill|stroke):(#[0-9a-f]{6})\b")
FONT = re.compile(r"font-family:[^;\"]*DejaVu[^;\"]*")
SIZE = re.compile(
    r'<svg width="[\d.]+pt" height="[\d.]+pt"'
    r'( viewBox="0 0 ([\d.]+) [^"]*")[^>]*?style="'
)


def dress(drawing):
    """A drawing, or the parts of some, with names for its colours, and the page's font.

    Its width is left to bnlib.css, which sees it in points, as --wide.
    """
    drawing = COLOUR.sub(
        lambda c: f"{c[1]}:var({NAMES[c[2]]})" if c[2] in NAMES else c[0], drawing
    )
    drawing = SIZE.sub(r'<svg\1 style="--wide:\2;', drawing)
    return FONT.sub("font-family:inherit", drawing)


def place(book):
    """Put HTML in place of the drawings in a notebook; changes its outputs."""
    number = 0
    for cell in book["cells"]:
        alt = cell["metadata"].get("mystnb", {}).get("image", {}).get("alt", "")
        for data in (each.get("data", {}) for each in cell.get("outputs", [])):
            if SVG not in data:
                continue
            number += 1
            svg = rename(dress("".join(data[SVG])), f"d{number}-")
            data.clear()
            data["text/html"] = (
                f'<div class="bn-drawing" role="img" '
                f'aria-label="{escape(alt, quote=True)}">{svg}</div>'
            )


def rename(svg, prefix):
    """The drawing with names of its own: two on a page may hold the same clip path."""
    for name in set(re.findall(r'\bid="([^"]+)"', svg)):
        svg = re.sub(
            rf'(\bid="|#){re.escape(name)}(?=["\')])', rf"\g<1>{prefix}{name}", svg
        )
    return svg
