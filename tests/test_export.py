"""Extraction: what becomes a module, what is refused, and that bnlib/ is in sync."""

import ast
import sys
from importlib import import_module
from pathlib import Path

import export
import nbformat
import pytest
from commands import python

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def book(tmp_path):
    """A function that writes a small book of chapters and returns its folder."""

    def write(*chapters):
        names = [f"{number:02d}_{name}" for number, (name, _) in enumerate(chapters)]
        lines = "".join(f"      - file: chapters/{name}\n" for name in names)
        head = "format: jb-book\nroot: index\nparts:\n  - chapters:\n"
        (tmp_path / "_toc.yml").write_text(head + lines)
        (tmp_path / "bnlib").mkdir(exist_ok=True)
        (tmp_path / "chapters").mkdir(exist_ok=True)
        for name, (title, cells) in zip(names, chapters, strict=True):
            book = nbformat.v4.new_notebook()
            book.cells = [nbformat.v4.new_markdown_cell(f"# The {title}")]
            for tags, source in cells:
                metadata = {"tags": tags} if tags else {}
                cell = nbformat.v4.new_code_cell(source, metadata=metadata)
                book.cells.append(cell)
            nbformat.write(book, tmp_path / "chapters" / f"{name}.ipynb")
        return tmp_path

    return write


E, NN = ["export:_norm"], ["export:nn/_norm"]
M = ["export:_moments"]
MEAN = (M, "def mean(x):\n    return x.mean()")


def test_a_module_reads_as_if_written_by_hand(book):
    root = book(
        ("moments", [(None, "1 + 1"), (M, "import numpy as np"), MEAN]),
        (
            "norm",
            [
                (E, "import math\n\nfrom bnlib import mean"),
                (E, "# Why: a comment stays.\nSCALE, _hidden = 2, 3"),
                (E, "def norm(x):\n    return math.sqrt(mean(x)) * SCALE"),
            ],
        ),
    )
    offer = 'from bnlib._norm import norm\n\n__all__ = ["norm"]\n'
    (root / "bnlib/__init__.py").write_text(offer)
    assert export.export(root) == []
    assert "numpy" not in (root / "bnlib/_moments.py").read_text()  # unused: dropped
    assert (root / "bnlib/_norm.py").read_text() == (
        '"""From chapters/01_norm.ipynb.\n\n'
        'Extracted by `make export`: edit the notebook, not this file.\n"""\n\n'
        "import math\n\nfrom bnlib._moments import mean\n\n"
        '__all__ = ["norm"]\n\n\n'
        "# Why: a comment stays.\nSCALE, _hidden = 2, 3\n\n\n"
        "def norm(x):\n    return math.sqrt(mean(x)) * SCALE\n"
    )


def test_a_chapter_feeds_modules_and_a_module_is_fed_by_chapters(book):
    layer = (NN, "from bnlib import mean\n\n\nclass Layer:\n    f = mean")
    more = (M, "import math\n\n\ndef root(x):\n    return math.sqrt(mean(x))")
    root = book(("moments", [MEAN, layer]), ("roots", [more]))
    assert export.export(root) == []
    text = (root / "bnlib/_moments.py").read_text()
    assert text.startswith(
        '"""From chapters/00_moments.ipynb,\nchapters/01_roots.ipynb.\n'
    )
    mean, root_of = text.index("def mean"), text.index("def root")
    assert mean < text.index("# chapters/01_roots.ipynb\n") < root_of
    assert "class Layer" not in text
    text = (root / "bnlib/nn/_norm.py").read_text()
    assert "class Layer" in text and "from bnlib._moments import mean" in text


def test_the_modules_of_a_chapter_share_their_imports(book):
    both = (E, "import math\n\nimport numpy as np\n\n\nf = np.tanh")
    layer = (NN, "import torch\n\n\nclass Layer(torch.nn.Module):\n    pi = math.pi")
    root = book(("moments", [both, layer]))
    assert export.export(root) == []
    arrays = (root / "bnlib/_norm.py").read_text()
    layers = (root / "bnlib/nn/_norm.py").read_text()
    assert "import numpy as np" in arrays and "torch" not in arrays
    assert "import math" in layers and "import torch" in layers
    assert "numpy" not in layers


def test_a_cell_imports_what_earlier_cells_export_from_the_newest_home(book):
    first = (NN, "class Layer:\n    pass")
    newer = (["export:nn/_exact"], "class Layer:\n    pass")
    use = (["export:nn/_use"], "from bnlib.nn import Layer\n\nuse = Layer")
    root = book(("a", [first]), ("b", [newer]), ("c", [use]))
    assert export.export(root) == []
    assert "from bnlib.nn._exact import Layer" in (
        (root / "bnlib/nn/_use.py").read_text()
    )


def test_a_private_module_imports_from_the_earlier_ones_of_its_chapter(book):
    first = (
        ["export:nn/_first"],
        "def one():\n    return 1\n\n\ndef other():\n    pass",
    )
    second = (["export:nn/_second"], "def two():\n    return 2 * one()")
    more = (["export:nn/_first"], "def three():\n    return 3")  # fed from two places
    root = book(("numbers", [first, second, more]))
    assert export.export(root) == []
    text = (root / "bnlib/nn/_second.py").read_text()
    assert "from bnlib.nn._first import one\n" in text and "other" not in text
    text = (root / "bnlib/nn/_first.py").read_text()
    assert "import" not in text and "def three" in text


def test_the_first_line_of_small_print_stays_on_the_page(book):
    tags = ["export:_moments", "small-print"]
    root = book(("moments", [(tags, "# What a mean is.\n# Why: of all.\nmean = sum")]))
    assert export.export(root) == []
    text = (root / "bnlib/_moments.py").read_text()
    assert "What a mean" not in text and "# Why: of all.\nmean = sum" in text


def test_check_shows_a_diff_and_changes_nothing(book):
    root = book(("moments", [MEAN]))
    export.export(root)
    module = root / "bnlib/_moments.py"
    stale = module.read_text().replace("x.mean()", "x.sum()")
    module.write_text(stale)
    (difference,) = export.export(root, check=True)
    assert "-    return x.sum()" in difference and "+    return x.mean()" in difference
    assert module.read_text() == stale


def test_a_module_without_chapter_is_reported_then_removed(book):
    root = book(("moments", [MEAN]))
    export.export(root)
    old = root / "bnlib/old.py"
    old.write_text((root / "bnlib/_moments.py").read_text())
    assert "old.py comes from no chapter" in export.export(root, check=True)[0]
    assert export.export(root) == [] and not old.exists()
    old.write_text("by_hand = True\n")  # not ours to delete
    assert "old.py" in export.export(root)[0] and old.exists()


REFUSED = {
    "unknown tag": (
        [("a", [(["exprot:_norm"], "x = 1")])],
        ["00_a.ipynb, cell 2", "unknown tag `exprot:_norm`", "did you mean `export:"],
    ),
    "a tag without a module": (
        [("a", [(["export"], "x = 1")])],
        ["unknown tag `export`", "did you mean `export:_module`?"],
    ),
    "two tags": (
        [("a", [([*E, *NN], "x = 1")])],
        ["00_a.ipynb, cell 2", "two export tags", "cure"],
    ),
    "syntax error": (
        [("a", [(E, "def f(:\n    pass")])],
        ["00_a.ipynb, cell 2", "syntax error in line 1", "cure"],
    ),
    "magic": ([("a", [(E, "%matplotlib inline")])], ["syntax error", "magics"]),
    "running code": (
        [("a", [MEAN, (E, "x = 1\nprint(x)")])],
        ["00_a.ipynb, cell 3", "line 2 runs code: `print(x)`", "cure"],
    ),
    "defined twice": (
        [("a", [MEAN, MEAN])],
        ["00_a.ipynb, cell 3", "`mean` is already exported by 00_a.ipynb", "cure"],
    ),
    "name taken": (
        [("a", [MEAN]), ("b", [(E, MEAN[1])])],
        ["01_b.ipynb, cell 2", "`mean` is already exported by 00_a.ipynb", "cure"],
    ),
    "forward import": (
        [("a", [(E, "from bnlib._moments import mean")]), ("b", [MEAN])],
        ["00_a.ipynb, cell 2", "imports `mean`", "earlier chapter"],
    ),
    "forward within a chapter": (
        [("a", [(E, "from bnlib import mean"), MEAN])],
        ["00_a.ipynb, cell 2", "imports `mean`", "no earlier cell"],
    ),
    "importing itself": (
        [("a", [(E, "import bnlib._norm")])],
        ["00_a.ipynb, cell 2", "forward import of `bnlib._norm`"],
    ),
    "forward import of a layer": (
        [
            ("a", [(E, "from bnlib.nn import Layer")]),
            ("b", [(NN, "class Layer:\n    pass")]),
        ],
        ["imports `Layer` from `bnlib.nn`, which no earlier cell exports"],
    ),
    "a name that its module lacks": (
        [("a", [MEAN]), ("b", [(E, "from bnlib._moments import maen")])],
        ["01_b.ipynb, cell 2", "imports `maen`", "`bnlib._moments`"],
    ),
    "relative import": (
        [("a", [MEAN]), ("b", [(E, "from ._moments import mean")])],
        ["01_b.ipynb, cell 2", "imports `._moments`", "write bnlib"],
    ),
    "unknown module": (
        [("a", [MEAN]), ("b", [(E, "import bnlib._momnets")])],
        ["forward import of `bnlib._momnets`", "known so far: ['bnlib._moments']"],
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused_is_named_with_its_cure(book, case):
    chapters, fragments = REFUSED[case]
    with pytest.raises(export.ExportError) as error:
        export.export(book(*chapters))
    for fragment in fragments:
        assert fragment in str(error.value)


def test_bnlib_says_what_the_chapters_say():
    assert export.export(check=True) == []


def test_check_fails_with_a_diff_on_the_command_line(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["export.py", "--check"])
    monkeypatch.setattr(export, "export", lambda check: ["- old\n+ new"] * check)
    assert export.main() == 1
    said = capsys.readouterr().err
    assert "+ new" in said and "make export" in said
    monkeypatch.setattr(export, "export", lambda check: [])
    assert export.main() == 0


def test_the_import_graph_follows_the_table_of_contents():
    """No module imports from one that only later chapters feed; read from the files."""
    book = sorted(export.chapters(), key=lambda path: path.stem != export.FOUNDATION)
    order = {path.name: number for number, path in enumerate(book)}
    fed = {}
    for path in (ROOT / "bnlib").rglob("*.py"):
        if path.name not in ("__init__.py", "__main__.py"):
            head = path.read_text().split('"""')[1]
            names = [n for n in order if f"chapters/{n}" in head]
            dotted = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            fed[dotted] = sorted(map(order.get, names))
    for dotted, numbers in fed.items():
        if dotted.startswith("bnlib.exercises"):  # loaded after all the rest
            continue
        text = (ROOT / f"{dotted.replace('.', '/')}.py").read_text()
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ImportFrom) and node.module in fed:
                assert fed[node.module][0] <= numbers[-1], f"{dotted}: {node.module}"


def test_what_is_public_is_little_and_importable_from_its_package():
    """Files are private, paths are public: `bnlib.batch_norm`, `bnlib.nn.LayerNorm`."""
    import bnlib

    modules, names = export.collect(), set()
    rooms = {Path(p).stem for p, m in modules.items() if m.folder != export.CATALOGUE}
    for path, module in modules.items():
        offered = export.offered(module, ROOT)
        if module.folder == export.CATALOGUE:
            continue
        assert not set(offered) & rooms
        if Path(path).stem.startswith("_"):
            package = import_module(Path(path).parent.as_posix().replace("/", "."))
            package = bnlib.fast if path == "bnlib/_fast.py" else package
            functional = getattr(package, "functional", package)
            for name in offered:
                known = *package.__all__, *functional.__all__, *bnlib.__all__
                assert name in known, name
        names |= {(path, name) for name in offered}
    assert len(names) <= 120
    for name in bnlib.nn.__all__:  # moving its lines breaks no pickle
        if name != "functional":
            assert getattr(bnlib.nn, name).__module__ == "bnlib.nn"


@pytest.mark.parametrize("module", ["torch", "matplotlib", "sklearn", "ipywidgets"])
def test_importing_bnlib_needs_numpy_alone(module):
    code = f"import sys, bnlib, bnlib.data; sys.exit('{module}' in sys.modules)"
    python("-c", code, cwd="/")
