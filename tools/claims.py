"""Write the ledger's rows into the chapters that test them, in place of `% claims`.

A claim and its verdict stand once, in chapters/claims.toml; its numbers are quoted from
what the cells tagged `ledger` have printed and from experiments/results. Chapter 22
defines the functions that read and quote, and shows all claims; every other chapter
shows its own, by the same functions.
"""

import ast
import json
import re
import tomllib
from pathlib import Path

CHAPTERS = Path(__file__).resolve().parent.parent / "chapters"
LEDGER = CHAPTERS / "22_ledger.ipynb"
CLAIMS = CHAPTERS / "claims.toml"
MARK = "% claims"
HEAD = (
    "| the claim | who says so | what we measured | verdict |",
    "|---|---|---|---|",
)


def functions() -> dict:
    """The functions that chapter 22 defines, without running the chapter."""
    wanted = {"PLACE", "printed_by", "gather", "spoken", "fill"}
    space = {"re": re, "json": json}
    for cell in json.loads(LEDGER.read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] != "code":
            continue
        for node in ast.parse("".join(cell["source"])).body:
            target = node.targets[0] if isinstance(node, ast.Assign) else node
            name = getattr(target, "id", getattr(target, "name", None))
            if name in wanted and isinstance(node, ast.FunctionDef | ast.Assign):
                exec(compile(ast.Module([node], []), str(LEDGER), "exec"), space)
                wanted.discard(name)
    if wanted:
        raise LookupError(f"chapter 22 no longer defines {sorted(wanted)}")
    return space


def table(chapter: str) -> str:
    """The claims that a chapter tests, numbers filled in."""
    space = functions()
    sources = space["gather"](CHAPTERS)
    lines = list(HEAD)
    for claim in tomllib.loads(CLAIMS.read_text(encoding="utf-8"))["claim"]:
        if claim["chapter"] == chapter:
            verdict = claim["verdict"]
            verdict += f" ({claim['by']})" if "by" in claim else ""
            found = space["fill"](claim["found"], sources)
            cells = claim["says"], claim["where"], found, verdict
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def place(book: dict, chapter: str) -> bool:
    """Fill a notebook's table in; return whether it has one."""
    for cell in book["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown" and MARK in source:
            cell["source"] = source.replace(MARK, table(chapter))
            return True
    return False
