"""The tables of the page `parity`, written from chapters/parity.toml at build time."""

import tomllib
from pathlib import Path

FACTS = Path(__file__).resolve().parent.parent / "chapters" / "parity.toml"
MARK, OTHERS = "% parity", "% other norms"
QUESTIONS = {
    "layer": "layer",
    "`momentum` weighs": "momentum_weighs",
    "`momentum`, default": "momentum",
    "eps, default": "eps",
    "eps, place": "eps_place",
    "variance used": "normalizes_with",
    "variance stored": "stores",
    "channels' axis": "axis",
    "scale, shift": "scale_and_shift",
    "averages": "statistics",
    "known by": "checked",
}
CODE = ("layer", "scale_and_shift", "statistics")


def frameworks():
    return tomllib.loads(FACTS.read_text(encoding="utf-8"))["framework"]


def norms():
    return tomllib.loads(FACTS.read_text(encoding="utf-8"))["norm"]


def cell(facts, key):
    """One answer as MyST."""
    if key == "name":
        link = f"[{facts[key]}]({facts['source']})" if "source" in facts else ""
        return link or facts[key]
    if key in CODE:
        return ", ".join(f"`{word}`" for word in facts[key].split(", "))
    return f"{facts[key]:g}" if isinstance(facts[key], float) else str(facts[key])


def table():
    """A row per question, a column per framework."""
    columns = frameworks()
    head = ["what", *(cell(facts, "name") for facts in columns)]
    rows = [[q, *(cell(f, key) for f in columns)] for q, key in QUESTIONS.items()]
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def other(facts):
    """A norm of a framework as MyST: its name, linked to where it was read, and eps."""
    name = facts.get("name", "–")
    if name in ("–", "none"):
        return name
    name = f"[`{name}`]({facts['source']})" if "source" in facts else f"`{name}`"
    eps = facts.get("eps", "no eps")
    return f"{name} {f'{eps:g}' if isinstance(eps, float) else eps}"


def others():
    """A row per norm, a column per framework."""
    names = list(
        dict.fromkeys(key for norm in norms() for key in norm if key != "what")
    )
    rows = [["norm, eps", *names], ["---"] * (len(names) + 1)]
    for norm in norms():
        rows.append([norm["what"], *(other(norm.get(name, {})) for name in names)])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def fill(text):
    """The page with its tables."""
    return text.replace(MARK, table()).replace(OTHERS, others())
