"""Write bnlib/ from the cells of the chapters.

A code cell tagged `export` goes to bnlib/<chapter>.py, one tagged `export:nn` to
bnlib/nn/<chapter>.py, one tagged `export:kernels` to bnlib/kernels/<chapter>.py, where
chapters/04_backward.ipynb is the chapter `backward`. A tag may name the module itself:
`export:nn/_convert` is bnlib/nn/_convert.py. `export:exercises/catalogue/moments` is
what the checker knows of an exercise; its file gets the exercise's texts too.

    python tools/export.py            write the modules
    python tools/export.py --check    change nothing; show a diff and fail if stale
"""

import argparse
import ast
import difflib
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import exercise_cells
import nbformat
import yaml

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = {
    "export": "bnlib",
    "export:nn": "bnlib/nn",
    "export:kernels": "bnlib/kernels",
    "export:exercises": "bnlib/exercises",
}
# Every tag a cell may carry. An unknown one is most likely a typo for `export`, and a
# typo there would silently drop code from the package.
TAGS = {
    *PACKAGES,
    *(f"{verb}-{part}" for verb in ("hide", "remove") for part in ("input", "output")),
    "hide-cell",
    "small-print",  # folded under its first comment, as long as it has to be
    "remove-cell",
    "raises-exception",
    "nbval-ignore-output",
    "bright-is-more",  # the style sheet does not invert its colour maps in the dark
    "ledger",  # prints what chapter 11's ledger quotes, as lines `name: value`
    "exercise",  # one that is checked: statement, stub, hints, solution
    "setup",  # made by tools/exercises.py: installs bnlib where it is missing
}
# The chapter that hands out earlier layers and functions anew, under their names.
TAKES_OVER = "fast"
MARK = "Extracted by `make export`: edit the notebook, not this file."


class ExportError(Exception):
    """Something in a chapter that cannot become a module; says where and the cure."""


@dataclass
class Module:
    path: str  # "bnlib/backward.py"
    chapter: Path
    title: str
    order: int
    imports: list[str] = field(default_factory=list)
    bodies: list[str] = field(default_factory=list)
    public: list[str] = field(default_factory=list)


def chapters(root: Path = ROOT) -> list[Path]:
    """The book's notebooks, in the order of its table of contents."""
    toc = yaml.safe_load((root / "_toc.yml").read_text())
    files = [c["file"] for part in toc["parts"] for c in part["chapters"]]
    paths = [root / f"{name}.ipynb" for name in files]
    return [path for path in paths if path.exists()]


def module_name(chapter: Path) -> str:
    return chapter.stem.split("_", 1)[1]


def title_of(notebook) -> str:
    lines = notebook.cells[0].source.splitlines() if notebook.cells else []
    return next((line[2:].strip() for line in lines if line.startswith("# ")), "")


def fail(chapter: Path, number: int, what: str, cure: str):
    raise ExportError(f"{chapter.name}, cell {number}: {what}\n  cure: {cure}")


def destination(chapter: Path, number: int, cell) -> str | None:
    """The path of the module that a cell goes to, None if it is not exported."""
    tags = cell.metadata.get("tags", [])
    modules = []
    for tag in tags:
        package, _, name = tag.partition("/")
        if package in PACKAGES and (name or tag == package):
            modules.append(f"{PACKAGES[package]}/{name or module_name(chapter)}.py")
        elif tag not in TAGS:
            near = difflib.get_close_matches(tag, TAGS, n=1)
            hint = f"did you mean `{near[0]}`?" if near else f"known: {sorted(TAGS)}"
            fail(chapter, number, f"unknown tag `{tag}`", hint)
    if len(modules) > 1:
        fail(chapter, number, "two export tags", "keep one: a cell has one home")
    return modules[0] if modules else None


def parse(chapter: Path, number: int, source: str) -> ast.Module:
    try:
        return ast.parse(source)
    except SyntaxError as error:
        what = f"syntax error in line {error.lineno}: {error.msg}"
        fail(chapter, number, what, "an exported cell is plain Python, without magics")


def public_names(node: ast.stmt) -> list[str]:
    """The names without a leading underscore that a top-level statement defines."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        names = [node.name]
    elif isinstance(node, ast.Assign | ast.AnnAssign):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        nodes = [n for target in targets for n in ast.walk(target)]
        names = [n.id for n in nodes if isinstance(n, ast.Name)]
    else:
        names = []
    return [name for name in names if not name.startswith("_")]


def imported_modules(node: ast.stmt) -> list[str]:
    """The bnlib modules that an import statement names, `.nn` ones included."""
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
        names = ["." * node.level + (node.module or "")]
    else:
        names = []
    return [n for n in names if n.split(".")[0] in ("bnlib", "")]


def check_import(module: Module, number: int, name: str, orders: dict[str, int]):
    """Law: a module imports only what earlier chapters export.

    The exercises are free: they and their checker are loaded after all the rest.
    """
    if module.path.startswith("bnlib/exercises/"):
        return
    chapter = module.chapter
    if name.startswith(".") or name in ("bnlib", "bnlib.nn"):
        cure = "name the chapter's module: from bnlib.<chapter> import ..."
        fail(chapter, number, f"imports `{name}`", cure)
    home = name.removeprefix("bnlib.").removeprefix("nn.")
    if home not in orders:
        fail(chapter, number, f"imports `{name}`", f"known: {sorted(orders)}")
    own_chapter = orders[home] == module.order and module.path != path_of(name)
    if orders[home] >= module.order and not own_chapter:
        what = f"forward import of `{name}`: its chapter comes later in the book"
        fail(chapter, number, what, "move the definition to an earlier chapter")


def path_of(name: str) -> str:
    """bnlib.nn.fast -> bnlib/nn/fast.py"""
    return f"{name.replace('.', '/')}.py"


def add_cell(module: Module, number: int, source: str, orders: dict[str, int]):
    """Sort one exported cell into the module: imports to the top, the rest in order."""
    tree = parse(module.chapter, number, source)
    lines = source.splitlines()
    for index, node in enumerate(tree.body):
        docstring = index == 0 and isinstance(node, ast.Expr)
        if isinstance(node, ast.Import | ast.ImportFrom):
            for name in imported_modules(node):
                check_import(module, number, name, orders)
            module.imports.append(ast.get_source_segment(source, node))
            first, last = node.lineno - 1, node.end_lineno
            lines[first:last] = [""] * (last - first)
        elif docstring or not isinstance(
            node, ast.FunctionDef | ast.ClassDef | ast.Assign | ast.AnnAssign
        ):
            what = f"line {node.lineno} runs code: `{ast.unparse(node)[:40]}`"
            fail(module.chapter, number, what, "move it to a cell without export tag")
        for name in public_names(node):
            if name in module.public:
                cure = "rename one, or untag the cell that only shows a draft"
                fail(module.chapter, number, f"`{name}` is exported twice", cure)
            module.public.append(name)
    body = "\n".join(lines).strip()
    if body:
        module.bodies.append(body)


def collect(root: Path = ROOT) -> dict[str, Module]:
    """All modules of the book, by path, with the laws checked."""
    paths = chapters(root)
    orders = {module_name(path): order for order, path in enumerate(paths)}
    modules: dict[str, Module] = {}
    for order, chapter in enumerate(paths):
        notebook = nbformat.read(chapter, as_version=4)
        for number, cell in enumerate(notebook.cells, start=1):
            path = destination(chapter, number, cell)
            if path is None or cell.cell_type != "code":
                continue
            orders.setdefault(Path(path).stem, order)
            empty = Module(path, chapter, title_of(notebook), order)
            source = cell.source
            if "small-print" in cell.metadata.tags:  # what it says, it says to the page
                source = source.partition("\n")[2]
            add_cell(modules.setdefault(path, empty), number, source, orders)
    check_unique(modules)
    share_imports(modules)
    for module in modules.values():
        if Path(module.path).parent.name == "catalogue":
            add_texts(module)
    return modules


def add_texts(module: Module):
    """Make an exercise of what its chapter says, in the module that judges answers."""
    module.imports.append("from bnlib.exercises._exercise import Exercise")
    try:
        texts = exercise_cells.as_code(module.chapter, Path(module.path).stem)
    except ValueError as error:
        raise ExportError(str(error)) from None
    module.bodies.append(texts)


def share_imports(modules: dict[str, Module]):
    """Give a chapter's modules the same imports; `tidy` drops the unused ones.

    A notebook imports a name once, whichever of its modules needs it. What a chapter
    has put into one private module, its later ones import from there.
    """
    written = {module.path: list(module.imports) for module in modules.values()}
    for module in modules.values():
        twins = [m for m in modules.values() if m.chapter == module.chapter]
        lines = [line for twin in twins for line in written[twin.path]]
        # The layers may import from the array module, but not that from itself.
        own = f"from {module.path.removesuffix('.py').replace('/', '.')} import"
        module.imports = [line for line in lines if not line.startswith(own)]
        for twin in twins[: twins.index(module)]:
            if is_room(twin) and is_room(module):
                home = twin.path.removesuffix(".py").replace("/", ".")
                module.imports.append(f"from {home} import {', '.join(twin.public)}")


def is_room(module: Module) -> bool:
    """Whether a tag names the module, `export:nn/_survey`, not its chapter."""
    return Path(module.path).stem.startswith("_")


def check_unique(modules: dict[str, Module]):
    """One public name, one chapter (the array functions and the layers apart)."""
    seen: dict[tuple[str, str], Module] = {}
    for module in modules.values():
        for name in module.public:
            key = (str(Path(module.path).parent), name)
            if key in seen and module_name(module.chapter) != TAKES_OVER:
                raise ExportError(
                    f"{module.chapter.name}: `{name}` is already exported by "
                    f"{seen[key].chapter.name}\n  cure: import it, or rename one"
                )
            seen[key] = module


def render(module: Module) -> str:
    """The module's text: header, imports, `__all__`, then the cells as written."""
    number, _ = module.chapter.stem.split("_", 1)
    kind = "Chapter" if number.isdigit() else "Appendix"
    label = int(number) if number.isdigit() else number
    page = f"chapters/{module.chapter.stem}"
    parts = [
        f'"""{kind} {label}, {module.title}: {page}.ipynb.\n\n{MARK}\n'
        f'The derivation is the page {page}.html of the book.\n"""',
        "\n".join(module.imports),
        f"__all__ = {module.public!r}" if module.public else "",
        *module.bodies,
    ]
    return tidy("\n\n\n".join(part for part in parts if part) + "\n", module.path)


def tidy(source: str, path: str) -> str:
    """Sort imports and format, as ruff would do to any file of ours."""
    program = Path(sys.executable).with_name("ruff")  # starts ten times as fast
    ruff = [program] if program.is_file() else [sys.executable, "-m", "ruff"]
    for command in (["check", "--fix-only", "--select", "I,F401", "-q"], ["format"]):
        done = subprocess.run(
            [*ruff, *command, "--stdin-filename", path, "-"],
            input=source,
            text=True,
            capture_output=True,
            cwd=ROOT,
            check=False,
        )
        if done.returncode:
            raise ExportError(f"{path}: ruff cannot read it\n  {done.stderr}")
        source = done.stdout
    return source


def strangers(root: Path, modules: dict[str, Module]) -> list[Path]:
    """Python files under bnlib/ that no chapter writes."""
    files = [p for p in (root / "bnlib").rglob("*.py") if p.name != "__init__.py"]
    return [p for p in files if p.relative_to(root).as_posix() not in modules]


def export(root: Path = ROOT, *, check: bool = False) -> list[str]:
    """Write the modules, or with `check` return what differs, as diffs."""
    modules = collect(root)
    differences = []
    for path in strangers(root, modules):
        if check or MARK not in path.read_text():
            text = f"{path.relative_to(root)} comes from no chapter"
            differences.append(f"{text}\n  cure: move its code to a chapter, delete it")
        else:
            path.unlink()
    for name, module in modules.items():
        path, new = root / name, render(module)
        old = path.read_text() if path.exists() else ""
        if check:
            lines = (old.splitlines(True), new.splitlines(True))
            diff = difflib.unified_diff(*lines, f"{name} (now)", f"{name} (chapter)")
            differences.append("".join(diff))
        elif old != new:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(new)
            print(f"wrote {name}")
    return [difference for difference in differences if difference]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="fail if bnlib/ is stale")
    check = parser.parse_args().check
    try:
        differences = export(check=check)
    except ExportError as error:
        print(f"export: {error}", file=sys.stderr)
        return 1
    if differences:
        print(*differences, sep="\n", file=sys.stderr)
        print("export: run `make export` and commit bnlib/", file=sys.stderr)
        return 1
    print("export: bnlib/ says what the chapters say" if check else "export: done")
    return 0


if __name__ == "__main__":
    sys.exit(main())
