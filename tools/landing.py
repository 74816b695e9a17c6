"""What the first page shows: proofs with their numbers, two ways through, the map.

Every number and every output on it is made here, from the claims, the chapters and the
package as they are. Reading time counts 200 words a minute and four seconds for a line
of code.
"""

import functools
import json
import re
import tomllib
from collections import Counter
from html import escape
from pathlib import Path

import yaml
from claims import VERDICTS, chip, claims, measured
from docutils.nodes import make_id
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import get_lexer_by_name

ROOT = Path(__file__).resolve().parent.parent
CHAPTERS = ROOT / "chapters"
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
    "15": ["14"],
    "16": ["12"],
    "17": ["12"],
    "18": ["06"],
    "19": ["18"],
    "20": ["05"],
    "21": ["06"],
    "22": [],
}
PAPER = {  # the section of the paper that a chapter is about
    "01": "§1",
    "02": "§2",
    "03": "§3",
    "04": "§3",
    "05": "§3.1",
    "06": "§3.2",
    "07": "§3.3",
    "08": "§3.4",
    "09": "§4.1",
    "10": "§4.2",
    "11": "§5",
}
PATHS = {"paper": ["01", "03", "05", "09"], "engineers": ["03", "04", "05", "06", "18"]}
SHORT = "engineers"  # the one that has its mark on the map
# Three claims that most readers have met, of three verdicts.
HEARD = [
    "Batch normalization reduces internal covariate shift",
    "Batch normalization keeps activations at mean zero",
    "Batch normalization works because",
]
# Answers to hand in: what the choice is called, and the lines of the function.
MEAN = "mean = x.mean(axis=0)"
ANSWERS = {
    "÷ (n − 1)": [MEAN, "var = ((x - mean) ** 2).sum(axis=0) / (len(x) - 1)"],
    "np.std": [MEAN, "var = np.std(x, axis=0)"],
    "axis=1": ["mean = x.mean(axis=1)", "var = x.var(axis=1)"],
    "the right one": [MEAN, "var = ((x - mean) ** 2).mean(axis=0)"],
}
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
WHEEL = f"bnlib-{VERSION}-py3-none-any.whl"
INSTALL = f'pip install "./{WHEEL}[torch]"'
# One network, untrained, with the momentum of another framework.
MODEL = """
model = nn.Sequential(
    nn.Conv2d(3, 16, 3, bias=False),
    nn.BatchNorm2d(16, momentum=0.99),
    nn.ReLU(), nn.Flatten(),
    nn.LazyLinear(10),
).eval()
"""


# ---- chapters -----------------------------------------------------------------------


def parts():
    """The parts of the book that have numbered chapters: caption -> {number: name}."""
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    found = {}
    for part in toc["parts"]:
        files = [c["file"].removeprefix("chapters/") for c in part["chapters"]]
        if numbered := {file[:2]: file for file in files if file[:2].isdigit()}:
            found[part["caption"]] = numbered
    return found


def chapters():
    """The numbered chapters of the table of contents: number -> file name."""
    return {n: name for part in parts().values() for n, name in part.items()}


@functools.cache
def cells(name):
    return json.loads((CHAPTERS / f"{name}.ipynb").read_text(encoding="utf-8"))["cells"]


def title(name):
    return re.search(r"^# (.+)$", "".join(cells(name)[0]["source"]), re.M)[1]


def reading_minutes(name):
    """How long a chapter takes to read, solutions included, to five minutes.

    Small print is folded, and looked up by those who want it.
    """
    seconds = 0
    for cell in cells(name):
        if {"remove-cell", "small-print"} & {*cell["metadata"].get("tags", [])}:
            continue
        source = "".join(cell["source"])
        lines = [line for line in source.splitlines() if line.strip()]
        prose = cell["cell_type"] == "markdown"
        seconds += len(source.split()) * 60 / 200 if prose else 4 * len(lines)
    return max(5, 5 * round(seconds / 300))


def hours(minutes):
    """A time as people say it: 25 min, 3 h 40 min."""
    whole, rest = divmod(minutes, 60)
    words = [f"{whole} h"] * bool(whole) + [f"{rest} min"] * bool(rest)
    return " ".join(words).replace(" ", "\N{NO-BREAK SPACE}")


def hours_of(numbers):
    """How long several chapters take."""
    known = chapters()
    return hours(sum(reading_minutes(known[n]) for n in numbers))


# ---- proofs -------------------------------------------------------------------------


def coloured(code, language="python"):
    return highlight(code, get_lexer_by_name(language), HtmlFormatter(nowrap=True))


def card(code, output="", kind=""):
    """A cell as the pages of the book have it; code and output are HTML."""
    box = '<div class="{} docutils container"><div class="highlight">{}</div></div>'
    inside = box.format("cell_input", f"<pre>{code}</pre>")
    if output:
        inside += box.format("cell_output", f"<pre>{output}</pre>")
    return f'<div class="cell {kind}docutils container">{inside}</div>'


def answers():
    """Answers to one exercise, each with what `bnlib.check` says of it."""
    import numpy as np

    import bnlib
    from bnlib.exercises import EXERCISES

    shown = {}
    for name, lines in ANSWERS.items():
        body = "\n".join(f"    {line}" for line in [*lines, "return mean, var"])
        code, space = f"def moments(x):\n{body}\n", {"np": np}
        exec(code, space)
        said = bnlib.check("moments", space["moments"])._repr_html_()
        shown[name] = f'{card(coloured(code))}<div class="bn-told">{said}</div>'
    stub = f'{EXERCISES["moments"].stub}\n\ncheck("moments", moments)'
    shown["your own"] = card(coloured(stub), kind="tag_exercise ")
    told = [
        f'<div class="w{n}">{html}</div>' for n, html in enumerate(shown.values(), 1)
    ]
    radios = "".join(
        f'<label><input type="radio" name="hand" class="a{n}"{" checked" * (n == 1)}>'
        f"{name}</label>"
        for n, name in enumerate(shown, 1)
    )
    return (
        '<div class="bn-answer"><fieldset class="bn-hand"><legend>Hand in:</legend>'
        f"{radios}</fieldset>{''.join(told)}</div>"
    )


def diagnosis():
    """What `diagnose` says of a network, and the line that installs it."""
    import torch

    import bnlib

    space = {"nn": torch.nn}
    torch.manual_seed(0)
    exec(MODEL, space)
    batch = torch.randn(64, 3, 12, 12)
    space["model"](batch)
    said = escape(repr(bnlib.diagnose(space["model"], batch)), quote=False)
    said = re.sub(r"(chapters/(\S+))", r'<a href="\2">\1</a>', said)
    first, *rest = MODEL.strip().splitlines()
    typed = "\n".join([f">>> {first}", *(f"... {line}" for line in rest)])
    asked = f"$ {INSTALL}\n{typed}\n>>> "
    return card(coloured(f"{asked}bnlib.diagnose(model, batch)\n", "pycon"), said)


def tally():
    """How many claims have which verdict: a bar, and links into the ledger."""
    count = Counter(claim["verdict"] for claim in claims())
    counted = [(v.split()[0], count[v], f"{count[v]} {v}") for v in VERDICTS]
    bars = "".join(
        f'<span data-verdict="{kind}" style="flex:{many}"></span>'
        for kind, many, _ in counted
    )
    marks = "".join(
        f'<li><a href="22_ledger.html#verdict-{kind}" class="bn-verdict" '
        f'data-verdict="{kind}">{words}</a></li>'
        for kind, _, words in counted
    )
    words = ", ".join(words for *_, words in counted)
    return (
        f'<div class="bn-tally" role="img" aria-label="Of {count.total()} claims '
        f'{words}">{bars}</div><ul class="bn-counts">{marks}</ul>'
    )


def heard():
    """Some claims as a table: who says what, what we measured, the verdict."""
    rows, found = [], measured()
    for beginning in HEARD:
        (claim,) = (c for c in claims() if c["says"].startswith(beginning))
        where = f"{claim['chapter']}.html#{make_id(claim['section'])}"
        rows.append(
            f"<tr><td>“{escape(claim['says'])}”</td>"
            f"<td>{escape(found[claim['says']])} "
            f'<a href="{where}">Chapter {int(claim["chapter"][:2])}</a></td>'
            f"<td>{chip(claim['verdict'])}</td></tr>"
        )
    return (
        '<table class="bn-heard"><thead><tr><th scope="col">Somebody says</th>'
        '<th scope="col">we measured</th><th scope="col">verdict</th></tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table>"
    )


# ---- the map ------------------------------------------------------------------------


def stop(number, name):
    """A chapter on the map: title, section of the paper, time, what it builds on."""
    after = ", ".join(str(int(n)) for n in NEEDS[number])
    about = [
        PAPER.get(number),
        hours(reading_minutes(name)),
        after and f"after {after}",
    ]
    mark = ' class="bn-short"' * (number in PATHS[SHORT])
    return (
        f'<li{mark}><a href="{name}.html"><span class="section-number">{int(number)}'
        f"</span> {escape(title(name))}</a>"
        f"<small>{' · '.join(filter(None, about))}</small></li>"
    )


def lanes():
    """The chapters in a lane for each part of the book."""
    return "".join(
        f'<div class="bn-lane"><h3>{caption}<span>{hours_of(part)}</span></h3>'
        f"<ol>{''.join(stop(n, name) for n, name in part.items())}</ol></div>"
        for caption, part in parts().items()
    )


# ---- the page -----------------------------------------------------------------------


def numbers():
    """What stands in double braces on the page."""
    from bnlib.exercises import EXERCISES

    count = Counter(claim["verdict"] for claim in claims())
    return {
        "exercises": len(EXERCISES),
        "mistakes": len(EXERCISES["batch_norm_forward"].mistakes),
        "claims": count.total(),
        "hold": count["reproduced"],
        "false": count["false as stated"],
        "wheel": WHEEL,
        "all-hours": hours_of(chapters()),
        **{f"{name}-hours": hours_of(path) for name, path in PATHS.items()},
    }


def write(text):
    for name, value in numbers().items():
        text = text.replace(f"{{{{ {name} }}}}", str(value))
    for made in (answers, diagnosis, tally, heard, lanes):
        html = f"```{{raw}} html\n{made()}\n```"
        text = text.replace(f"% {made.__name__}\n", f"{html}\n")
    return text
