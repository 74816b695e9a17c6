"""What the first page shows of the chapters: what each needs, how long it reads.

Reading time counts 200 words a minute and four seconds for a line of code.
"""

import json
import math
import re
from html import escape
from itertools import pairwise
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent
MARK = "% map of the chapters"
ROW = re.compile(r"^\| \{doc\}`(\w+)` \|(.*)\|$", re.M)
WIDTH, HIGH, STEP, NARROW = 816, 58, 118, 122
PASSING = 14  # an arrow's own place between the boxes
FIRST = ["01", "00", "03"]  # the top row, in the order that crosses fewest arrows
# What to have read before: nothing else is needed. Chapter 0 is where trust in a
# derivative comes from; who has it may start at 3.
NEEDS = {
    "00": [],
    "01": [],
    "02": ["01"],
    "03": [],
    "04": ["00", "03"],
    "05": ["03"],
    "06": ["04", "05"],
    "07": ["04"],
    "08": ["05"],
    "09": ["01", "05"],
    "10": ["06", "07", "08"],
    "11": ["09", "10"],
    "12": ["01", "07"],
    "13": ["04", "05"],
    "14": ["06"],
    "15": ["06"],
    "16": ["05"],
    "17": ["06"],
}


def chapters():
    """The numbered chapters of the table of contents: number -> file name."""
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    files = [c["file"] for part in toc["parts"] for c in part["chapters"]]
    names = [file.removeprefix("chapters/") for file in files]
    return {name[:2]: name for name in names if name[:2].isdigit()}


def cells(name):
    text = (ROOT / "chapters" / f"{name}.ipynb").read_text(encoding="utf-8")
    return json.loads(text)["cells"]


def reading_minutes(name):
    """How long a chapter takes to read, solutions included, to five minutes."""
    seconds = 0
    for cell in cells(name):
        if "remove-cell" in cell["metadata"].get("tags", []):
            continue
        source = "".join(cell["source"])
        lines = [line for line in source.splitlines() if line.strip()]
        prose = cell["cell_type"] == "markdown"
        seconds += len(source.split()) * 60 / 200 if prose else 4 * len(lines)
    return max(5, 5 * round(seconds / 300))


def hours(minutes):
    """A time as people say it: 25 min, 3 h 40 min."""
    whole, rest = divmod(minutes, 60)
    words = ([f"{whole} h"] if whole else []) + ([f"{rest} min"] if rest else [])
    return " ".join(words).replace(" ", "\N{NO-BREAK SPACE}")


def with_times(text):
    """Numbers in the table of chapters, and one more column: the time to read."""

    def row(found):
        read = f"{reading_minutes(found[1])}\N{NO-BREAK SPACE}min"
        number = f"{int(found[1][:2])}.\N{NO-BREAK SPACE}"
        return f"| {number}{found[0].removeprefix('| ')} {read} |"

    text = ROW.sub(row, text)
    head, rule = "| chapter | paper | after it you can |", "|---|---|---|"
    return text.replace(f"{head}\n{rule}", f"{head} read |\n{rule}---|")


def levels(numbers):
    """The row of each chapter: below all that it needs."""
    found = {}
    for n in numbers:
        found[n] = 1 + max((found[k] for k in NEEDS[n] if k in found), default=-1)
    return found


def routes(level):
    """Each arrow as the stops on its way: a pair of names in every row it passes."""
    pairs = [(k, n) for n in level for k in NEEDS[n] if k in level]
    return [
        [k, *((k, n, row) for row in range(level[k] + 1, level[n])), n]
        for k, n in pairs
    ]


def places(numbers):
    """Where boxes, and the arrows that pass between them, stand: name -> (x, y)."""
    level, x = levels(numbers), {}
    ways = routes(level)
    level |= {stop: stop[2] for way in ways for stop in way[1:-1]}
    before = {b: [a for w in ways for a, c in pairwise(w) if c == b] for b in level}
    for row in range(max(level.values()) + 1):
        here = [n for n in level if level[n] == row]
        wish = {n: [x[k] for k in before[n]] or [FIRST.index(n)] for n in here}
        here.sort(key=lambda n: (sum(wish[n]) / len(wish[n]), str(n)))
        wide = [PASSING if isinstance(n, tuple) else NARROW for n in here]
        gap = (WIDTH - sum(wide)) / len(here)
        for place, n in enumerate(here):
            x[n] = sum(wide[:place]) + gap * (place + 0.5) + wide[place] / 2
    return {n: (x[n], 8 + level[n] * STEP) for n in level}


def lines(title, most=15):
    """A title in as few lines as fit into a box."""
    found = [""]
    for word in title.split():
        longer = f"{found[-1]} {word}".strip()
        if len(longer) <= most or not found[-1]:
            found[-1] = longer
        else:
            found.append(word)
    return found


def box(name, x, y):
    title = re.search(r"^# (.+)$", "".join(cells(name)[0]["source"]), re.M)[1]
    words = lines(f"{int(name[:2])}. {title}")
    start = y + HIGH / 2 + 4.5 - 8.5 * (len(words) - 1)
    text = "".join(
        f'<tspan x="{x:.0f}" y="{start + 17 * i:.1f}">{escape(word)}</tspan>'
        for i, word in enumerate(words)
    )
    return (
        f'<a href="{name}.html"><rect x="{x - NARROW / 2:.0f}" y="{y:.0f}" '
        f'width="{NARROW}" height="{HIGH}" rx="6" /><text>{text}</text></a>'
    )


def arrow(stops):
    """A line from box to box, upright where it passes a row."""
    (x, y), *others = stops
    path = f"M{x:.0f} {y + HIGH:.0f}"
    for place, (x1, y1) in enumerate(others, start=1):
        y0, last = y + HIGH, place == len(others)
        bend = (y1 - y0) / 2
        path += f"C{x:.0f} {y0 + bend:.0f} {x1:.0f} {y1 - bend:.0f} "
        path += f"{x1:.0f} {y1 - 5 * last:.0f}" + ("" if last else f"v{HIGH}")
        x, y = x1, y1
    return f'<path d="{path}" />'


def drawing():
    """The map, as an SVG whose boxes are links."""
    known = chapters()
    numbers = [n for n in known if n in NEEDS]
    at = places(numbers)
    arrows = [arrow([at[stop] for stop in way]) for way in routes(levels(numbers))]
    boxes = [box(known[n], *at[n]) for n in numbers]
    high = math.ceil(max(y for _, y in at.values()) + HIGH + 8)
    head = "M0 0L7 3.5L0 7z"
    return (
        '<div class="bn-map"><svg role="group" aria-label="Map of the chapters: an '
        f'arrow leads from what is needed to what needs it" viewBox="0 0 {WIDTH} '
        f'{high}"><defs><marker id="bn-head" viewBox="0 0 7 7" refX="3" refY="3.5" '
        'markerWidth="7" markerHeight="7" markerUnits="userSpaceOnUse" orient="auto">'
        f'<path d="{head}" /></marker></defs><g class="bn-arrows">{"".join(arrows)}</g>'
        f"{''.join(boxes)}</svg></div>"
    )


def write(text):
    return with_times(text).replace(MARK, f"```{{raw}} html\n{drawing()}\n```")
