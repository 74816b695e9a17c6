"""The claims ledger of chapter 22: every number has a source, and follows it."""

import ast
import copy
import functools
import json
import re
from pathlib import Path

import claims
import nbformat
import pytest

ROOT = Path(__file__).resolve().parent.parent

CHAPTERS = ROOT / "chapters"
BOOK = CHAPTERS / "22_ledger.ipynb"
VERDICTS = {*claims.VERDICTS}
FIELDS = {"part", "says", "where", "chapter", "section", "found", "verdict"}
CLAIMS = claims.claims()


@functools.cache
def cells(path):
    return nbformat.read(path, as_version=4).cells


def tagged(path):
    return [c for c in cells(path) if "ledger" in c.metadata.get("tags", [])]


@pytest.fixture(scope="module")
def ledger():
    """The functions that chapter 22 defines, without running the chapter."""
    space = {"re": re, "json": json}
    for cell in cells(BOOK):
        for node in ast.parse(cell.source).body if cell.cell_type == "code" else ():
            if isinstance(node, ast.FunctionDef) or ast.unparse(node)[:6] == "PLACE ":
                exec(compile(ast.Module([node], []), str(BOOK), "exec"), space)
    return space


@pytest.fixture(scope="module")
def sources(ledger):
    return ledger["gather"](CHAPTERS)


def places(text):
    """(source, path) of every number that a text quotes."""
    return re.findall(r"\{([\w-]+)/([^}|]+)(?:\|[^}]*)?\}", text)


def ids(claim):
    return re.sub(r"\W+", "-", claim["says"])[:60]


def test_there_are_enough_claims_and_each_is_made_once():
    assert len(CLAIMS) >= 40
    said = [claim["says"] for claim in CLAIMS]
    assert len(set(said)) == len(said)
    assert {claim["verdict"] for claim in CLAIMS} <= VERDICTS
    of_paper = [claim for claim in CLAIMS if "§" in claim["where"]]
    assert 25 <= len(of_paper) < len(CLAIMS)


@pytest.mark.parametrize("claim", CLAIMS, ids=ids)
class TestClaim:
    def test_fields(self, claim):
        assert set(claim) - {"by"} == FIELDS
        assert all(isinstance(v, str) and v.strip() == v and v for v in claim.values())
        assert claim["verdict"] in VERDICTS
        assert (claim["verdict"] == "disputed") == ("by" in claim)
        assert claim["says"].endswith(".") and claim["found"].endswith(".")
        assert not any("|" in claim[key] for key in FIELDS - {"found"})

    def test_every_number_is_quoted(self, claim, ledger, sources):
        text = ledger["fill"](claim["found"], sources)
        assert places(claim["found"]), "a verdict without a number"
        assert "{" not in text and "}" not in text and "|" not in text
        typed = re.sub(r"\{[^}]*\}|`[^`]*`|\$[^$]*\$", "", claim["found"])
        found = re.findall(r"\d", typed)
        assert not found, f"typed, not quoted: {found}; settings go in `code`"

    def test_another_number_at_the_source_is_another_row(self, claim, ledger, sources):
        before = ledger["fill"](claim["found"], sources)
        for source, path in places(claim["found"]):
            changed = copy.copy(sources)
            changed[source] = value = copy.deepcopy(sources[source])
            *way, last = path.split("/")
            for key in way:
                value = value[int(key) if isinstance(value, list) else key]
            old = value[last]
            if isinstance(old, dict):
                quoted = [k for k in ("median", "min", "mean", "sd") if k in old]
                others = [{**old, key: (old[key] or 0) * 3 + 7} for key in quoted]
            else:
                others = ["changed" if isinstance(old, str) else old * 3 + 7]
            for other in others:
                value[last] = other
                assert ledger["fill"](claim["found"], changed) != before
            value[last] = old

    def test_a_lost_number_is_an_error(self, claim, ledger, sources):
        for source, _ in places(claim["found"]):
            without = {name: v for name, v in sources.items() if name != source}
            with pytest.raises(LookupError, match=re.escape(f"{{{source}/")):
                ledger["fill"](claim["found"], without)

    def test_the_link_leads_to_the_section(self, claim):
        path = CHAPTERS / f"{claim['chapter']}.ipynb"
        assert path.is_file()
        text = "\n".join(c.source for c in cells(path) if c.cell_type == "markdown")
        headings = re.findall(r"^#+ (.+)$", text, re.M)
        assert claim["section"] in headings, headings

    def test_the_page_shows_it(self, claim, ledger, sources):
        row = ledger["fill"](claim["found"], sources)
        shown = [
            output.get("data", {}).get("text/markdown", "")
            for cell in cells(BOOK)
            if f'shown("{claim["part"]}")' in cell.source
            for output in cell.get("outputs", [])
        ]
        (table,) = shown
        assert row in table, "the page is stale: make run CHAPTER=22"
        (line,) = [line for line in table.splitlines() if claim["says"] in line]
        assert claim["verdict"] in line.split("|")[-2], "make run CHAPTER=22"
        assert claim["where"] in line


@pytest.mark.parametrize(
    "path", sorted(CHAPTERS.glob("[0-9]*.ipynb")), ids=lambda p: p.stem
)
def test_what_a_chapter_offers_is_verified_and_wanted(path, ledger):
    """Ledger cells are compared by nbval, compute what they print, and are all used."""
    offered = []
    for cell in tagged(path):
        assert "nbval-ignore-output" not in cell.metadata.tags
        (output,) = cell.outputs
        for line in output.text.splitlines():
            assert re.fullmatch(r"[\w.]+: \S.*", line), line
            offered.append(line.split(": ")[0])
        for node in ast.walk(ast.parse(cell.source)):
            # print("name: 0.99") would be a number that nobody computed.
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "print":
                first = node.args[0]
                typed = isinstance(first, ast.Constant) and len(node.args) == 1
                assert not typed, ast.unparse(node)
    assert len(set(offered)) == len(offered)
    assert set(ledger["printed_by"](path)) == set(offered)
    number = path.stem[:2]
    used = {way for c in CLAIMS for name, way in places(c["found"]) if name == number}
    assert used <= set(offered)
    unused = set(offered) - used
    assert not unused, f"no claim quotes {sorted(unused)}: drop them"


@pytest.mark.parametrize(
    "path", sorted(CHAPTERS.glob("[0-9]*.ipynb")), ids=lambda path: path.stem
)
def test_a_chapter_shows_its_own_claims_and_types_none(path):
    text = "\n".join(c.source for c in cells(path) if c.cell_type == "markdown")
    own = [c for c in CLAIMS if c["chapter"] == path.stem]
    is_shown = claims.MARK in text or path.stem[:2] == "00"
    assert ((is_shown and own) or path == BOOK) and "verdict |" not in text
    assert claims.table(path.stem).count("\n") == 1 + len(own)


def test_all_parts_are_on_the_page():
    text = "\n".join(c.source for c in cells(BOOK))
    parts = list(dict.fromkeys(claim["part"] for claim in CLAIMS))
    assert re.findall(r'^shown\("(.+)"\)$', text, re.M) == parts
    for part in parts:
        assert f"### {part}" in text


def test_numbers_are_spoken_with_their_spread(ledger):
    spoken, fill = ledger["spoken"], ledger["fill"]
    assert spoken(0.12345, "100*.1f") == "12.3" and spoken(1234, ",.0f") == "1,234"
    assert spoken("0.1 to 3", ".2f") == "0.1 to 3" and spoken(None, ".0f") == "never"
    assert spoken({"mean": 0.5, "sd": 0.01, "per_seed": []}, ".2f") == "0.50 ± 0.01"
    counts = {"median": 383.0, "min": 348, "max": 421}
    assert spoken(counts, ".0f") == "383 (348–421)"
    sources = {"a": {"b": [1, {"0.9": 2}]}, "09": {"x": "3"}}
    assert fill("{a/b/0|.1f} {a/b/1/0.9|.0f}, {09/x}", sources) == "1.0 2, 3"
    for lost in ("{c/b}", "{a/c}", "{a/b/7}", "{a/b/x}", "{09/x/y}"):
        with pytest.raises(LookupError, match="found nowhere; run"):
            fill(f"It is {lost}.", sources)
