"""Write bnlib/ from the cells of the chapters.

A code cell tagged `export:_batch_norm` goes to bnlib/_batch_norm.py, one tagged
`export:nn/_fold` to bnlib/nn/_fold.py. A chapter may feed several modules, and a module
may be fed by several chapters; its first line names them. A tag
`export:exercises/catalogue/moments` marks what the checker knows of an exercise; its
file gets the exercise's texts too.

    python tools/export.py            write the modules
    python tools/export.py --check    change nothing; show a diff and fail if stale
"""

import argparse
import ast
import difflib
import re
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import exercise_cells
import nbformat
import stubs
import yaml

ROOT = Path(__file__).resolve().parent.parent
HOME = re.compile(r"export:((?:[a-z]\w*/)*\w+)")
# Every other tag a cell may carry. An unknown one is most likely a typo for `export`,
# and a typo there would silently drop code from the package.
TAGS = {
    *(f"{verb}-{part}" for verb in ("hide", "remove") for part in ("input", "output")),
    "hide-cell",
    "small-print",  # folded under its first comment, as long as it has to be
    "remove-cell",
    "raises-exception",
    "nbval-ignore-output",
    "ledger",  # prints what the ledger quotes, as lines `name: value`
    "exercise",  # one that is checked: statement, stub, hints, solution
    "setup",  # made by tools/exercises.py: installs bnlib where it is missing
}
# Modules that hand out earlier functions and layers anew, under their names.
TAKES_OVER = {"bnlib/_fast.py", "bnlib/nn/_exact.py"}
# Of these, the one that `bnlib` itself goes on without.
ASIDE = "bnlib/_fast.py"
# The page that all chapters stand on: read first, wherever the contents list it.
FOUNDATION = "A0_declaration"
CATALOGUE = "bnlib/exercises/catalogue"
MARK = "Extracted by `make export`: edit the notebook, not this file."


class ExportError(Exception):
    """Something in a chapter that cannot become a module; says where and the cure."""


@dataclass
class Cell:
    chapter: Path
    number: int
    source: str
    path: str  # of its module, "bnlib/nn/_fold.py"

    def fail(self, what: str, cure: str):
        place = f"{self.chapter.name}, cell {self.number}"
        raise ExportError(f"{place}: {what}\n  cure: {cure}")


@dataclass
class Module:
    path: str
    bodies: list[tuple[Cell, str]] = field(default_factory=list)
    names: dict[str, Path] = field(default_factory=dict)  # name: its chapter
    # What cells import, by chapter: a notebook imports a name once, whichever of its
    # modules needs it, so all of them get the line; `tidy` drops it where unused.
    imports: dict[Path, list[str]] = field(default_factory=dict)

    @property
    def dotted(self):
        return self.path.removesuffix(".py").replace("/", ".")

    @property
    def folder(self):
        return str(Path(self.path).parent)

    @property
    def chapters(self):
        return list(dict.fromkeys(cell.chapter for cell, _ in self.bodies))

    def first(self, chapter: Path) -> float:
        """The number of the first cell of a chapter that goes here."""
        mine = [cell.number for cell, _ in self.bodies if cell.chapter == chapter]
        return min(mine, default=float("inf"))


def chapters(root: Path = ROOT) -> list[Path]:
    """The book's notebooks, in the order of its table of contents."""
    toc = yaml.safe_load((root / "_toc.yml").read_text())
    files = [c["file"] for part in toc["parts"] for c in part["chapters"]]
    paths = [root / f"{name}.ipynb" for name in files]
    return [path for path in paths if path.exists()]


def exported(chapter: Path) -> list[Cell]:
    """The cells of a chapter that carry an export tag, with all tags checked."""
    cells = []
    notebook = nbformat.read(chapter, as_version=4)
    for number, cell in enumerate(notebook.cells, start=1):
        tags = cell.metadata.get("tags", [])
        homes = [HOME.fullmatch(tag) for tag in tags if HOME.fullmatch(tag)]
        place = Cell(chapter, number, cell.source, "")
        for tag in tags:
            if tag not in TAGS and not HOME.fullmatch(tag):
                near = difflib.get_close_matches(tag, [*TAGS, "export:_module"], n=1)
                hint = (
                    f"did you mean `{near[0]}`?" if near else f"known: {sorted(TAGS)}"
                )
                place.fail(f"unknown tag `{tag}`", hint)
        if len(homes) > 1:
            place.fail("two export tags", "keep one: a cell has one home")
        if homes and cell.cell_type == "code":
            place.path = f"bnlib/{homes[0][1]}.py"
            if "small-print" in tags:  # what it says, it says to the page
                place.source = cell.source.partition("\n")[2]
            cells.append(place)
    return cells


def parse(cell: Cell) -> ast.Module:
    try:
        return ast.parse(cell.source)
    except SyntaxError as error:
        what = f"syntax error in line {error.lineno}: {error.msg}"
        cell.fail(what, "an exported cell is plain Python, without magics")


def names_of(node: ast.stmt) -> list[str]:
    """The names that a top-level statement defines."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return [node.name]
    if isinstance(node, ast.Assign | ast.AnnAssign):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        nodes = [n for target in targets for n in ast.walk(target)]
        return [n.id for n in nodes if isinstance(n, ast.Name)]
    return []


def resolve(cell: Cell, node: ast.stmt, modules: dict[str, Module]) -> list[str]:
    """The import statements that a module has for one of a cell.

    A notebook says `from bnlib import moments`, as its readers do. A module must name
    the module where an earlier cell has put it, or Python would go in circles.
    """
    if isinstance(node, ast.Import):
        for alias in node.names if is_inner(cell.path) else ():
            if alias.name.split(".")[0] == "bnlib":
                find(cell, alias.name, modules)
        return [ast.unparse(node)]
    if node.level:
        name = "." * node.level + (node.module or "")
        cell.fail(f"imports `{name}`", "write bnlib, not a dot")
    if node.module.split(".")[0] != "bnlib" or not is_inner(cell.path):
        return [ast.unparse(node)]
    lines = []
    for alias in node.names:
        home = home_of(cell, node.module, alias.name, modules)
        dotted = home.removesuffix(".py").replace("/", ".")
        as_name = f" as {alias.asname}" if alias.asname else ""
        lines.append(f"from {dotted} import {alias.name}{as_name}")
    return lines


def is_inner(path: str) -> bool:
    """Whether a module is loaded with its package, which then has no names yet."""
    return path.startswith(("bnlib/_", "bnlib/nn/"))


def home_of(cell: Cell, dotted: str, name: str, modules: dict[str, Module]) -> str:
    """The path of the module that has `name`, of those that cells so far have fed."""
    folder = dotted.replace(".", "/")
    if f"{folder}.py" not in modules:  # a package, or nothing at all
        near = [m for m in modules.values() if m.folder == folder]
        near = [m for m in near if m.path != ASIDE]
        found = [m.path for m in near if name in m.names]
        if not found:
            what = f"imports `{name}` from `{dotted}`, which no earlier cell exports"
            cell.fail(what, "move the definition to an earlier chapter")
        return found[-1]
    if name not in modules[f"{folder}.py"].names:
        what = f"imports `{name}`, which no earlier cell puts into `{dotted}`"
        cell.fail(what, "move the definition to an earlier chapter")
    return f"{folder}.py"


def find(cell: Cell, dotted: str, modules: dict[str, Module]):
    known = [module.dotted for module in modules.values() if module.path != cell.path]
    if dotted not in known:
        what = f"forward import of `{dotted}`: no earlier cell feeds it"
        cell.fail(what, f"known so far: {known}")


def add(module: Module, cell: Cell, modules: dict[str, Module]):
    """Sort one cell into its module: imports to the top, the rest in order."""
    lines = cell.source.splitlines()
    for index, node in enumerate(parse(cell).body):
        docstring = index == 0 and isinstance(node, ast.Expr)
        if isinstance(node, ast.Import | ast.ImportFrom):
            found = resolve(cell, node, modules)
            module.imports.setdefault(cell.chapter, []).extend(found)
            first, last = node.lineno - 1, node.end_lineno
            lines[first:last] = [""] * (last - first)
        elif docstring or not isinstance(
            node, ast.FunctionDef | ast.ClassDef | ast.Assign | ast.AnnAssign
        ):
            what = f"line {node.lineno} runs code: `{ast.unparse(node)[:40]}`"
            cell.fail(what, "move it to a cell without export tag")
        for name in names_of(node):
            check_new(cell, name, modules)
            module.names[name] = cell.chapter
    body = "\n".join(lines).strip()
    if body:
        module.bodies.append((cell, body))


def check_new(cell: Cell, name: str, modules: dict[str, Module]):
    """One name, one home: a package's modules share nothing but what takes over."""
    for other in modules.values():
        same = other.path == cell.path
        if name in other.names and (same or clash(name, other, cell)):
            what = f"`{name}` is already exported by {other.names[name].name}"
            cell.fail(what, "rename one, or untag the cell that only shows a draft")


def clash(name: str, other: Module, cell: Cell) -> bool:
    folder = str(Path(cell.path).parent)
    near = other.folder == folder and not name.startswith("_")
    if folder == CATALOGUE:  # one exercise a file, all of one form
        return False
    return near and not TAKES_OVER & {other.path, cell.path}


def collect(root: Path = ROOT) -> dict[str, Module]:
    """All modules of the book, by path, with the laws checked."""
    modules: dict[str, Module] = {}
    for chapter in sorted(chapters(root), key=lambda path: path.stem != FOUNDATION):
        for cell in exported(chapter):
            add(modules.setdefault(cell.path, Module(cell.path)), cell, modules)
    for module in modules.values():
        if module.folder == CATALOGUE:
            add_texts(module)
    return {path: module for path, module in modules.items() if module.bodies}


def add_texts(module: Module):
    """Make an exercise of what its chapter says, in the module that judges answers."""
    cell, _ = module.bodies[-1]
    line = "from bnlib.exercises._exercise import Exercise"
    module.imports.setdefault(cell.chapter, []).append(line)
    try:
        texts = exercise_cells.as_code(cell.chapter, Path(module.path).stem)
    except ValueError as error:
        raise ExportError(str(error)) from None
    module.bodies.append((cell, texts))


def imports_of(module: Module, modules: dict[str, Module]) -> list[str]:
    """Every import that the module may need: its chapters', and from its neighbours.

    What a chapter has put into one private module, its later ones have without a word.
    """
    lines = []
    for other in modules.values():
        near = other.folder == module.folder and is_private(other)
        for chapter in module.chapters:
            lines += other.imports.get(chapter, [])
            own = [name for name, origin in other.names.items() if origin == chapter]
            if own and near and other.first(chapter) < module.first(chapter):
                lines.append(f"from {other.dotted} import {', '.join(own)}")
    return [line for line in lines if not line.startswith(f"from {module.dotted} ")]


def is_private(module: Module) -> bool:
    return Path(module.path).stem.startswith("_") and module.path not in TAKES_OVER


def offered(module: Module, root: Path) -> list[str]:
    """What users are meant to import: of a private module, what a package offers."""
    if not Path(module.path).stem.startswith("_"):
        return [name for name in module.names if not name.startswith("_")]
    names = set()
    for path in (root / "bnlib").rglob("__init__.py"):
        text = path.read_text(encoding="utf-8")
        found = {n for n, home in stubs.homes(text).items() if home == module.dotted}
        names |= {name for name in found if f'"{name}"' in text}
    return [name for name in module.names if name in names]


def render(module: Module, modules: dict[str, Module], root: Path = ROOT) -> str:
    """The module's text: header, imports, `__all__`, then the cells as written."""
    sources = ",\n".join(f"chapters/{chapter.name}" for chapter in module.chapters)
    public = offered(module, root)
    parts = [
        f'"""From {sources}.\n\n{MARK}\n"""',
        "\n".join(imports_of(module, modules)),
        f"__all__ = {public!r}" if public else "",
    ]
    chapter = module.chapters[0]
    for cell, body in module.bodies:
        new = "" if cell.chapter == chapter else f"# chapters/{cell.chapter.name}\n\n"
        parts.append(new + body)
        chapter = cell.chapter
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
    by_hand = ("__init__.py", "__main__.py")
    files = [p for p in (root / "bnlib").rglob("*.py") if p.name not in by_hand]
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
    texts = {name: render(module, modules, root) for name, module in modules.items()}
    for name in stubs.PUBLIC:
        said = texts.get(name) or ((root / name).exists() and (root / name).read_text())
        if said and "__all__" in said:
            stub = stubs.write(name, said, modules)
            texts[f"{name}i"] = tidy(stub, "bnlib/_stub.pyi")
    for name, new in texts.items():
        path = root / name
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
