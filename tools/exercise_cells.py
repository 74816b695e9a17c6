"""Read an exercise off the cells of its chapter, as a piece of its module.

The statement says title and signature, the stub what a learner starts from, the two
admonitions before the solution are the hints; then comes the solution.
"""

import functools
import re

import nbformat

CODE = """
EXERCISE = Exercise(
    name={name!r},
    title={title!r},
    chapter={chapter!r},
    outputs={outputs!r},
    hints={hints!r},
    stub='''{stub}''',
    source='''{source}''',
    **_about,
)"""
TITLE = r"```\{{exercise-start\}} Write: (.+)\n:label: check-{0}\n"
SIGNATURE = r"`{0}\(.*\) -> \(?(.+?)\)?`"
HINT = re.compile(r"```\{admonition\}.*\n:class: dropdown hint\n([^`]+)\n```")


@functools.cache
def cells(path):
    """(texts, codes) of the cells of a chapter tagged `exercise`."""
    own = [
        cell
        for cell in nbformat.read(path, as_version=4).cells
        if "exercise" in cell.metadata.get("tags", [])
    ]
    texts = "\n\n".join(c.source for c in own if c.cell_type == "markdown")
    return texts, [c.source for c in own if c.cell_type == "code"]


def find(pattern, text, what):
    """What stands at the place of a group; ValueError where there is no such place."""
    found = re.search(pattern, text)
    if not found:
        raise ValueError(f"{what} is missing: nothing matches {pattern!r}")
    return found[1]


def as_code(path, name):
    """The statement that makes the exercise of this name, for its module."""
    texts, codes = cells(path)
    call = f'\n\n\ncheck("{name}", {name})'
    answers = [code.removesuffix(call) + "\n" for code in codes if call in code]
    if len(answers) != 2 or "NotImplementedError" not in answers[0]:
        what = f"{path.name} should have two cells that end with check({name!r}, ...)"
        raise ValueError(f"{what}: the stub, then the solution; got {len(answers)}")
    before = texts.partition(f"{{solution-start}} check-{name}\n")[0]
    return CODE.format(
        name=name,
        title=find(TITLE.format(name), texts, f"the statement of {name}"),
        chapter=path.stem,
        outputs=tuple(find(SIGNATURE.format(name), texts, "a signature").split(", ")),
        hints=tuple(" ".join(hint.split()) for hint in HINT.findall(before)[-2:]),
        stub=answers[0],
        source=answers[1],
    )
