"""Extraction: what becomes a module, what is refused, and that bnlib/ is in sync."""

import ast
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))
import export  # noqa: E402


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


E, NN = ["export"], ["export:nn"]
MEAN = (E, "def mean(x):\n    return x.mean()")


def test_a_module_reads_as_if_written_by_hand(book):
    root = book(
        ("moments", [(None, "1 + 1"), (E, "import numpy as np"), MEAN]),
        (
            "norm",
            [
                (E, "import math\n\nfrom bnlib.moments import mean"),
                (E, "# Why: a comment stays.\nSCALE, _hidden = 2, 3"),
                (E, "def norm(x):\n    return math.sqrt(mean(x)) * SCALE"),
            ],
        ),
    )
    assert export.export(root) == []
    assert "numpy" not in (root / "bnlib/moments.py").read_text()  # unused: dropped
    assert (root / "bnlib/norm.py").read_text() == (
        '"""Chapter 1, The norm: chapters/01_norm.ipynb.\n\n'
        "Extracted by `make export`: edit the notebook, not this file.\n"
        'The derivation is the page chapters/01_norm.html of the book.\n"""\n\n'
        "import math\n\nfrom bnlib.moments import mean\n\n"
        '__all__ = ["SCALE", "norm"]\n\n\n'
        "# Why: a comment stays.\nSCALE, _hidden = 2, 3\n\n\n"
        "def norm(x):\n    return math.sqrt(mean(x)) * SCALE\n"
    )


def test_layers_go_to_the_nn_package_and_may_use_their_own_chapter(book):
    layer = (NN, "from bnlib.moments import mean\n\n\nclass Layer:\n    f = mean")
    root = book(("moments", [MEAN, layer]))
    assert export.export(root) == []
    assert "class Layer" in (root / "bnlib/nn/moments.py").read_text()
    assert "Layer" not in (root / "bnlib/moments.py").read_text()


def test_kernels_go_to_a_package_that_nothing_else_needs(book):
    loop = (["export:kernels"], "import numba\n\n\nloop = numba.njit(abs)")
    root = book(("moments", [MEAN, loop]))
    assert export.export(root) == []
    assert "import numba" in (root / "bnlib/kernels/moments.py").read_text()
    assert "numba" not in (root / "bnlib/moments.py").read_text()


def test_the_two_modules_of_a_chapter_share_their_imports(book):
    both = (E, "import math\n\nimport numpy as np\n\n\nf = np.tanh")
    layer = (NN, "import torch\n\n\nclass Layer(torch.nn.Module):\n    pi = math.pi")
    root = book(("moments", [both, layer]))
    assert export.export(root) == []
    arrays = (root / "bnlib/moments.py").read_text()
    layers = (root / "bnlib/nn/moments.py").read_text()
    assert "import numpy as np" in arrays and "torch" not in arrays
    assert "import math" in layers and "import torch" in layers
    assert "numpy" not in layers


def test_layers_may_import_from_the_array_module_of_their_chapter(book):
    code = "def twice(x):\n    return 2 * x\n\n\ndef four(x):\n    return 2 * twice(x)"
    arrays = (E, code)
    layer = (NN, "from bnlib.moments import twice\n\n\nclass Layer:\n    f = twice")
    root = book(("moments", [arrays, layer]))
    assert export.export(root) == []
    own = "from bnlib.moments import twice"
    assert own in (root / "bnlib/nn/moments.py").read_text()
    assert own not in (root / "bnlib/moments.py").read_text()


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
    assert "import" not in text.partition("__all__")[2] and "def three" in text


def test_the_first_line_of_small_print_stays_on_the_page(book):
    tags = ["export", "small-print"]
    root = book(("moments", [(tags, "# What a mean is.\n# Why: of all.\nmean = sum")]))
    assert export.export(root) == []
    text = (root / "bnlib/moments.py").read_text()
    assert "What a mean" not in text and "# Why: of all.\nmean = sum" in text


def test_check_shows_a_diff_and_changes_nothing(book):
    root = book(("moments", [MEAN]))
    export.export(root)
    module = root / "bnlib/moments.py"
    stale = module.read_text().replace("x.mean()", "x.sum()")
    module.write_text(stale)
    (difference,) = export.export(root, check=True)
    assert "-    return x.sum()" in difference and "+    return x.mean()" in difference
    assert module.read_text() == stale


def test_a_module_without_chapter_is_reported_then_removed(book):
    root = book(("moments", [MEAN]))
    export.export(root)
    old = root / "bnlib/old.py"
    old.write_text((root / "bnlib/moments.py").read_text())
    assert "old.py comes from no chapter" in export.export(root, check=True)[0]
    assert export.export(root) == [] and not old.exists()
    old.write_text("by_hand = True\n")  # not ours to delete
    assert "old.py" in export.export(root)[0] and old.exists()


REFUSED = {
    "unknown tag": (
        [("a", [(["exprot"], "x = 1")])],
        ["00_a.ipynb, cell 2", "unknown tag `exprot`", "did you mean `export`?"],
    ),
    "two tags": (
        [("a", [(["export", "export:nn"], "x = 1")])],
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
        ["00_a.ipynb, cell 3", "`mean` is exported twice", "cure"],
    ),
    "name taken": (
        [("a", [MEAN]), ("b", [MEAN])],
        ["01_b.ipynb", "`mean` is already exported by 00_a.ipynb", "cure"],
    ),
    "forward import": (
        [("a", [(E, "from bnlib.b import mean")]), ("b", [MEAN])],
        ["00_a.ipynb, cell 2", "forward import of `bnlib.b`", "earlier chapter"],
    ),
    "importing itself": (
        [("a", [(E, "import bnlib.a"), MEAN])],
        ["00_a.ipynb, cell 2", "forward import"],
    ),
    "forward import of a layer": (
        [("a", [(E, "from bnlib.nn.b import Layer")]), ("b", [MEAN])],
        ["forward import of `bnlib.nn.b`"],
    ),
    "importing the package": (
        [("a", [MEAN]), ("b", [(E, "from bnlib import mean")])],
        ["01_b.ipynb, cell 2", "imports `bnlib`", "name the chapter's module"],
    ),
    "relative import": (
        [("a", [MEAN]), ("b", [(E, "from .a import mean")])],
        ["01_b.ipynb, cell 2", "imports `.a`"],
    ),
    "unknown module": (
        [("a", [(E, "import bnlib.momnets")])],
        ["imports `bnlib.momnets`", "known: ['a']"],
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
    # Independent of the extractor's own check: read the modules as they are.
    order = [export.module_name(path) for path in export.chapters()]
    for path in (ROOT / "bnlib").glob("*.py"):
        if path.name == "__init__.py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module.startswith("bnlib"):
                used = node.module.split(".")[1]
                assert order.index(used) < order.index(path.stem), (
                    f"{path.name}: {used}"
                )


def test_every_public_name_is_importable_from_the_package():
    import bnlib

    support = {"data", "figures"}  # imported by their own name: they need more
    support |= {"fast"}  # faster twins, under the same names
    inner = {"batch_axes", "per_channel", "channel_percentiles", "neighbour_sum"}
    inner |= {"stop_gradient", "correction", "pool", "iterate_root"}
    inner |= {"widen", "narrow", "along_axes", "sum_over", "into_groups"}
    inner |= {"is_known", "fails", "library", "kind_of"}
    for path, module in export.collect().items():
        if Path(path).parent.name == "bnlib" and Path(path).stem not in support:
            for name in set(module.public) - inner:
                if name.startswith("check_"):
                    continue
                assert name in bnlib.__all__ and hasattr(bnlib, name), name


@pytest.mark.parametrize("module", ["torch", "matplotlib", "sklearn", "ipywidgets"])
def test_importing_bnlib_needs_numpy_alone(module):
    code = f"import sys, bnlib, bnlib.data; sys.exit('{module}' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd="/").returncode == 0
