"""The ledger elsewhere: a chapter's rows of it, in place of `% claims`, and its chips.

A claim and its verdict stand once, in chapters/claims.toml. What was measured is read
off the tables that chapter 22 has printed, where its numbers are filled in.
"""

import json
import re
import tomllib
from pathlib import Path

CHAPTERS = Path(__file__).resolve().parent.parent / "chapters"
LEDGER = CHAPTERS / "22_ledger.ipynb"
CLAIMS = CHAPTERS / "claims.toml"
VERDICTS = ["reproduced", "partly", "not at this scale", "false as stated", "disputed"]
MARK = "% claims"
HEAD = "| the claim | who says so | what we measured | verdict |\n|---|---|---|---|"


def claims():
    return tomllib.loads(CLAIMS.read_text("utf-8"))["claim"]


def measured():
    """{what a claim says: what was measured}, as chapter 22 has printed it."""
    cells = json.loads(LEDGER.read_text("utf-8"))["cells"]
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    tables = ["".join(o.get("data", {}).get("text/markdown", "")) for o in outputs]
    lines = re.findall(r"^\| (.+) \|$", "\n".join(tables), re.M)
    rows = [line.split(" | ") for line in lines]
    return {row[0]: row[3] for row in rows if len(row) == 5}


def table(chapter: str) -> str:
    """The claims that a chapter tests."""
    found, lines = measured(), [HEAD]
    for claim in claims():
        if claim["chapter"] == chapter:
            verdict = claim["verdict"] + (f" ({claim['by']})" if "by" in claim else "")
            if claim["says"] not in found:
                raise LookupError(
                    f"not in the ledger: {claim['says']} (make run CHAPTER=22)"
                )
            row = claim["says"], claim["where"], found[claim["says"]], verdict
            lines.append(f"| {' | '.join(row)} |")
    return "\n".join(lines)


def place(book: dict, chapter: str) -> bool:
    """Fill a notebook's table in; return whether it has one."""
    for cell in book["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown" and MARK in source:
            cell["source"] = source.replace(MARK, table(chapter))
            return True
    return False


def chip(verdict: str) -> str:
    kind = verdict.split()[0]
    return f'<span class="bn-verdict" data-verdict="{kind}">{verdict}</span>'
