"""Hygiene of the chapters, read from the stored notebooks without running them."""

import ast
import functools
import json
import re
import statistics
from pathlib import Path

import export
import nbformat
import pytest
import run
from brief import brief

ROOT = Path(__file__).resolve().parent.parent

CHAPTERS = sorted((ROOT / "chapters").glob("*.ipynb"))
NUMBERED = [path for path in CHAPTERS if path.stem[0].isdigit()]
TAUGHT = [path for path in NUMBERED if path.stem != "22_ledger"]  # it looks things up
IMAGES = ("image/png", "image/svg+xml", "image/jpeg")
MOST = 5_250_000  # bytes of all chapters together


def ids(path):
    return path.stem


@functools.cache
def read(path):
    return nbformat.read(path, as_version=4)


def code_cells(path):
    cells = enumerate(read(path).cells, start=1)
    return [(n, cell) for n, cell in cells if cell.cell_type == "code"]


def text_of(path):
    return "\n".join(c.source for c in read(path).cells if c.cell_type == "markdown")


def is_tagged(cell, tag):
    return tag in cell.metadata.get("tags", [])


def code_lines(source):
    """Number of lines that are neither blank nor comment nor part of a docstring."""
    prose = set()
    for node in ast.walk(ast.parse(source)):
        documented = isinstance(node, ast.FunctionDef | ast.ClassDef)
        if documented and ast.get_docstring(node):
            prose |= set(range(node.body[0].lineno, node.body[0].end_lineno + 1))
    lines = enumerate(source.splitlines(), start=1)
    return sum(
        1 for n, s in lines if n not in prose and s.strip(" ")[:1] not in ("", "#")
    )


def test_there_are_chapters_to_check():
    assert len(NUMBERED) >= 5


def test_chapters_are_light():
    sizes = {path.stem: path.stat().st_size for path in CHAPTERS}
    assert sum(sizes.values()) < MOST, sorted(sizes.items(), key=lambda s: -s[1])[:5]


def test_the_table_of_contents_lists_every_notebook():
    toc = (ROOT / "_toc.yml").read_text()
    listed = re.findall(r"file: (chapters/\w+)", toc)
    files = [p.relative_to(ROOT).with_suffix("") for p in CHAPTERS]
    assert {str(f) for f in files} <= set(listed)
    for name in listed:
        assert any((ROOT / f"{name}{end}").exists() for end in (".ipynb", ".md")), name


@pytest.mark.parametrize("path", CHAPTERS, ids=ids)
class TestStoredOutputs:
    def test_outputs_are_stored_without_execution_counts(self, path):
        assert sum(len(cell.outputs) for _, cell in code_cells(path)) > 0
        for number, cell in code_cells(path):
            assert cell.execution_count is None, f"cell {number}: make run"
            for output in cell.outputs:
                assert output.get("execution_count") is None, f"cell {number}"

    def test_errors_are_stored_where_and_only_where_they_are_announced(self, path):
        for number, cell in code_cells(path):
            errors = [o for o in cell.outputs if o.output_type == "error"]
            expected = is_tagged(cell, "raises-exception")
            assert bool(errors) == expected, f"cell {number}"

    def test_nothing_is_printed_to_stderr(self, path):
        for number, cell in code_cells(path):
            names = [o.name for o in cell.outputs if o.output_type == "stream"]
            assert "stderr" not in names, f"cell {number}"

    def test_no_path_of_a_machine(self, path):
        folder = r"(?<![\w.:/])(/(home|root|work|Users|tmp|mnt)/|~/)|[A-Z]:\\\\"
        pattern, colours = re.compile(folder), re.compile(r"\x1b\[[\d;]*m")
        for number, cell in enumerate(read(path).cells, start=1):
            text = cell.source
            for output in cell.get("outputs", []):
                text += output.get("text", "") + output.get("evalue", "")
                text += "".join(output.get("traceback", []))
                data = output.get("data", {})
                text += "".join(str(v) for k, v in data.items() if k not in IMAGES)
            found = pattern.search(colours.sub("", text))
            assert not found, f"cell {number}: {found}"

    def test_of_a_traceback_the_message_is_stored(self, path):
        # One new cell, or line of the library, would change every frame further down.
        for number, cell in code_cells(path):
            frames = [len(output.get("traceback", "1")) for output in cell.outputs]
            assert set(frames) <= {1}, f"cell {number}: make run"

    def test_metadata_is_what_make_run_leaves(self, path):
        book = read(path)
        assert set(book.metadata) == {"kernelspec"}
        assert book.metadata.kernelspec.name == "python3"
        for number, cell in enumerate(book.cells, start=1):
            extra = set(cell.metadata) - {"tags", "mystnb", "jupyter"}
            assert not extra, f"cell {number}: {extra}"

    def test_no_widgets_are_stored(self, path):
        # Their identifiers are new in each run, and nothing moves without a kernel.
        text = path.read_text(encoding="utf-8")
        assert "vnd.jupyter.widget" not in text, "make run"
        assert not re.search(r"\b[0-9a-f]{32}\b", text)

    def test_figures_are_drawings(self, path):
        for number, cell in code_cells(path):
            kinds = {kind for o in cell.outputs for kind in o.get("data", {})}
            bitmaps = kinds & {"image/png", "image/jpeg"}
            assert not bitmaps, f"cell {number}: figures.style() before it, make run"


@pytest.mark.parametrize("path", CHAPTERS, ids=ids)
class TestStyle:
    def test_cells_are_short(self, path):
        counts = []
        for number, cell in code_cells(path):
            try:
                count = code_lines(cell.source)
            except SyntaxError:
                pytest.fail(f"cell {number} is not plain Python")
            if not is_tagged(cell, "small-print"):
                assert count <= 25, f"cell {number}: {count} lines of code"
                counts.append(count)
            widest = max(map(len, cell.source.splitlines()), default=0)
            assert widest <= 88, f"cell {number}: {widest} columns"
        assert statistics.median(counts) <= 9

    def test_small_print_says_what_it_is_and_is_folded(self, path):
        for number, cell in code_cells(path):
            hidden = cell.metadata.get("jupyter", {}).get("source_hidden", False)
            assert hidden == is_tagged(cell, "small-print"), f"cell {number}"
            if hidden:
                assert re.match(r"# [A-Z].{10,70}\.\n", cell.source), f"cell {number}"

    def test_no_cell_is_empty(self, path):
        for number, cell in enumerate(read(path).cells, start=1):
            assert cell.source.strip(), f"cell {number}"

    def test_figures_have_caption_name_and_alt_text(self, path):
        for number, cell in code_cells(path):
            kinds = {k for o in cell.outputs for k in o.get("data", {})}
            if not kinds & set(IMAGES):
                continue
            about = cell.metadata.get("mystnb", {})
            demonstration = path.stem == "A2_figures" and run.STORED in kinds
            if not demonstration:
                figure = about.get("figure", {})
                assert len(figure.get("caption", "")) > 40, f"cell {number}: caption"
                assert figure.get("name", "").startswith("fig-"), f"cell {number}: name"
            if run.STORED not in kinds:
                alt = about.get("image", {}).get("alt", "")
                assert len(alt) > 40, f"cell {number}: alt text"

    def test_movable_figures_describe_their_frames(self, path):
        for number, cell in code_cells(path):
            for output in cell.outputs:
                if stored := output.get("data", {}).get(run.STORED):
                    said = json.loads(stored.partition("\n")[0])["said"]
                    assert min(map(len, said)) > 15, f"cell {number}"


@pytest.mark.parametrize("path", TAUGHT, ids=ids)
class TestTemplate:
    """What every chapter has, in this order (the house's chapter template)."""

    ORDER = (
        "You will be able to",
        "Side by side with PyTorch",
        "reak it",
        "## Exercises",
        "## What the paper claims here",
        "## References",
    )

    def test_sections_come_in_order(self, path):
        text = text_of(path)
        places = [text.find(section) for section in self.ORDER]
        assert -1 not in places, f"missing {self.ORDER[places.index(-1)]}"
        assert places == sorted(places)

    def test_opening_title_claim_and_three_goals(self, path):
        first = read(path).cells[0].source
        surprise = r"(?!You will)\S(?:.+\n)+\n"  # a paragraph, before the goals
        opening = r"^# .+\n\n\*[^*]+\*\n\n" + surprise + "You will be able to\n"
        assert re.search(opening, first, re.M)
        assert len(re.findall(r"^- ", first, re.M)) == 3

    def test_three_to_five_exercises_with_folded_solutions(self, path):
        text = text_of(path)
        labels = re.findall(r"```\{exercise-start\}.*\n:label: (\S+)", text)
        solved = re.findall(r"```\{solution-start\} (\S+)\n:class: dropdown", text)
        assert labels == solved
        own = [label for label in labels if not label.startswith("check-")]
        assert 3 <= len(own) <= 5

    def test_something_moves_and_something_breaks(self, path):
        cells = [cell for _, cell in code_cells(path)]
        assert any("figures.movable(" in cell.source for cell in cells)
        assert any(is_tagged(cell, "raises-exception") for cell in cells)


def test_page_and_modules_point_at_each_other():
    modules = export.collect()
    for path in CHAPTERS:
        for module in modules.values():
            if module.folder == export.CATALOGUE:  # its page says it all
                continue
            label = "module-" + module.dotted.removeprefix("bnlib.").replace(".", "-")
            reference = f"{{ref}}`{module.dotted} <{label}>`"
            assert (path in module.chapters) == (reference in text_of(path)), reference


def test_a_page_says_of_a_docstring_what_the_lecture_needs():
    quotes = 3 * chr(34)
    head = f"def f(x):\n    {quotes}One.\n\n    y = x\n"
    rest = f"\n    Raises\n    ------\n    It.\n    {quotes}"
    assert brief(head + rest) == head + f"    {quotes}"
    code = 'class A:\n    """One.\n\n    Source: here.\n    """\n\n    x = 1'
    assert brief(code) == 'class A:\n    """One."""\n\n    x = 1'
    assert brief("%pip list") == "%pip list"


def undocumented(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and ast.get_docstring(node):
            node.body[0].value.value = ""
    return tree


@pytest.mark.parametrize("path", CHAPTERS, ids=ids)
def test_brief_code_is_the_same_code(path):
    for _, cell in code_cells(path):
        if not re.search("^[%!]", cell.source, re.M):
            trees = map(ast.parse, (cell.source, brief(cell.source)))
            whole, short = (ast.unparse(undocumented(tree)) for tree in trees)
            assert whole == short
