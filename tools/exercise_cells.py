"""Read an exercise off the cells of its chapter, as a piece of its module.

The statement says title and signature, the stub what a learner starts from, the two
admonitions before the solution are the hints; then comes the solution. Of a class,
`_about` says the outputs, beside the script that calls it.
"""

import functools
import re

import nbformat

CODE = """
EXERCISE = Exercise(
    name={name!r},
    title={title!r},
    chapter={chapter!r},{outputs}
    hints=({hints}),
    stub='''\\
{stub}''',
    source='''\\
{source}''',
    **_about,
)"""
HINT = r"(?s)```\{admonition\}[^\n]*\n:class: dropdown hint\n(.+?)\n```"


@functools.cache
def cells(path):
    """(texts, codes): the cells of a chapter tagged `exercise`."""
    book = nbformat.read(path, as_version=4)
    own = [c for c in book.cells if "exercise" in c.metadata.get("tags", [])]
    kinds = ("markdown", "code")
    return [[c.source for c in own if c.cell_type == kind] for kind in kinds]


def the_one(found, name, what):
    """What should be found once; ValueError where it is not."""
    if len(found) != 1:
        raise ValueError(f"exercise {name} should have one {what}; found {len(found)}")
    return found[0]


def quoted(text):
    """A sentence as a Python string, in pieces that fit a line."""
    pieces = re.findall(r".{1,68}(?:\s|$)", " ".join(text.split()))
    return f"({' '.join(map(repr, pieces))})"


def as_code(path, name):
    """The statement that makes the exercise of this name, for its module."""
    texts, codes = cells(path)
    label, call = f"check-{name}\n", f'\n\n\ncheck("{name}", {name})'
    answers = [code.removesuffix(call) + "\n" for code in codes if call in code]
    stubs = [a for a in answers if "NotImplementedError" in a]
    statement = rf"{{exercise-start}} Write: (.+)\n:label: {label}"
    signature = rf"`{name}\(.*?\)(?: -> \(?(.+?)\)?)?`"
    text = "\n".join(texts)
    outputs = the_one(re.findall(signature, text), name, "signature")
    outputs = f"\n    outputs={tuple(outputs.split(', '))!r}," if outputs else ""
    before = [t for t in texts if f"{{solution-start}} {label}" in t]
    hints = re.findall(HINT, the_one(before, name, "cell with hints"))
    return CODE.format(
        name=name,
        title=the_one(re.findall(statement, text), name, "statement"),
        chapter=path.stem,
        outputs=outputs,
        hints=", ".join(map(quoted, hints)),
        stub=the_one(stubs, name, "stub"),
        source=the_one([a for a in answers if a not in stubs], name, "solution"),
    )
