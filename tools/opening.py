"""The picture on the first page: real numbers on their way through batch normalization.

Drawn here as it stands first, with `bnlib.batch_norm`; movables.js draws it anew when a
slider moves. Every line is one handwritten digit: how much ink it has, that normalized
over the batch, and the output. The marked one stays the same, its company grows.
"""

import json

import movables
import numpy as np

from bnlib import batch_norm
from bnlib.data import load_digits

MARK = "% the picture that moves"
MOST = 32
ROWS = (50, 128, 206)  # where input, normalized input and output stand, in pixels
NAMES = ("ink of a digit", "normalized", "output")
TICKS = ((25, 30, 35), (-4, -2, 0, 2, 4), (-4, -2, 0, 2, 4))
# A value v of a row stands at shift + scale * v.
SCALES = ((-430.0, 21.0), (200.0, 34.0), (200.0, 34.0))
INVITATION = (
    "<strong>Move the batch size:</strong> the marked digit stays, its output moves. "
    "A layer with batch norm compares each example with its company."
)
SLIDERS = {
    "batch size": (range(2, MOST + 1), 6),
    "scale γ": ([round(0.1 * n, 1) for n in range(21)], 10),
    "shift β": ([round(0.1 * n, 1) for n in range(-20, 21)], 20),
}


def batch():
    """Ink of the first digits of the training set, in percent of a black image's."""
    images = load_digits().x_train[:MOST].astype(float)
    return (100 * images.mean(axis=(1, 2))).round(1)


def passage(size, gamma, beta):
    """(size, 3): input, normalized and output of the digits in a batch."""
    x = batch()[:size, None]
    y, (xhat, _, _) = batch_norm(x, np.array([gamma]), np.array([beta]))
    return np.hstack([x, xhat, y])


def number(value, row):
    """A value as it is written: 28.7 %, or −0.37."""
    text = f"{value:.1f} %" if row == 0 else f"{value + 0:.2f}"
    return text.replace("-", "−")


def sentence(size, values):
    """What the picture shows, for those who hear it."""
    x, xhat, y = (number(value, row) for row, value in enumerate(values))
    return (
        f"In a batch of {size}, the marked digit with {x} of ink is {xhat}, then {y}."
    )


def pixel(value, row):
    shift, scale = SCALES[row]
    return f"{shift + scale * value:.2f}"


def line(values):
    (x, xhat, y), (top, middle, low) = map(pixel, values, range(3)), ROWS
    return f"M{x} {top}L{xhat} {middle}L{y} {low}"


def spread(values, row):
    """The bar above a row: mean, and one standard deviation to either side."""
    mean, deviation = values.mean(), values.std()
    low, at, high = (pixel(mean + d * deviation, row) for d in (-1, 0, 1))
    y = ROWS[row] - 13
    return f"M{low} {y - 4}v8M{low} {y}H{high}M{high} {y - 4}v8M{at} {y - 6}v12"


def ticks(row):
    return "".join(
        f'<text x="{pixel(v, row)}" y="{ROWS[row] + 19}">{v}{" %" * (row == 0)}</text>'
        for v in TICKS[row]
    ).replace(">-", ">−")


def drawing(size, gamma, beta):
    values = passage(size, gamma, beta)
    axes = "".join(f'<path class="bn-axis" d="M4 {y}H396" />' for y in ROWS)
    names = "".join(
        f'<text class="bn-name" x="4" y="{y - 24}">{name}</text>'
        f'<text class="bn-number" x="396" y="{y - 24}">{number(v, row)}</text>'
        for row, (y, name, v) in enumerate(zip(ROWS, NAMES, values[0], strict=True))
    )
    drawn = [line(v) for v in values] + [""] * (MOST - size)
    lines = "".join(f'<path class="bn-example" d="{d}" />' for d in reversed(drawn))
    bars = "".join(
        f'<path class="bn-spread" d="{spread(values[:, row], row)}" />'
        for row in range(3)
    )
    dots = "".join(
        f'<marker id="bn-{name}" viewBox="-5 -5 10 10" markerWidth="{width}" '
        f'markerHeight="{width}" markerUnits="userSpaceOnUse"><path d="{d}" /></marker>'
        for name, width, d in (
            ("dot", 8, "M-4 0a4 4 0 1 0 8 0a4 4 0 1 0-8 0z"),
            ("mark", 16, "M-4.5 0L0-4.5L4.5 0L0 4.5z"),
        )
    )
    return (
        f'<svg role="img" aria-label="{sentence(size, values[0])}" '
        f'viewBox="0 0 400 232"><defs>{dots}</defs>{axes}{lines}'
        f"{''.join(map(ticks, range(3)))}{bars}{names}</svg>"
    )


def figure():
    """The picture with its sliders."""
    start = [list(positions)[at] for positions, at in SLIDERS.values()]
    said = sentence(start[0], passage(*start)[0])
    rows = "".join(
        movables.slider(
            f"bn-opening-{n}",
            name,
            [str(v).replace("-", "−") for v in positions],
            at,
            said,
        )
        for n, (name, (positions, at)) in enumerate(SLIDERS.items())
    )
    data = json.dumps({"batch": batch().tolist(), "scales": SCALES, "rows": ROWS})
    return (
        f"<div class=\"bn-movable bn-opening-figure\" data-numbers='{data}'>"
        f'{drawing(*start)}<p class="bn-invitation">{INVITATION}</p>'
        f'<div class="bn-sliders">{rows}</div></div>'
    )


def write(text):
    return text.replace(MARK, f"```{{raw}} html\n{figure()}\n```")
