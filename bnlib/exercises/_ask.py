"""From chapters/A3_exercises.ipynb.

Extracted by `make export`: edit the notebook, not this file.
"""

import numpy as np

from bnlib.exercises._explain import fits_shape, is_same


def _changed(value):
    """Another value that is as good."""
    if np.ndim(value) == 0:
        return 0.5 * value + 0.05
    return value + np.arange(1.0, np.size(value) + 1).reshape(np.shape(value))


def _steps(exercise, ask, answer, i, name):
    """By how much an output should change with an argument, and by how much it does."""
    args = {**answer.case.args, name: _changed(answer.case.args[name])}
    case = answer.case._replace(args=args)
    want, after = exercise.expected_on(case)[i], ask(case)
    if not after.outputs:
        raise ValueError("no answer")
    got, _ = fits_shape(exercise, after.outputs[i], want)
    return want - exercise.expected[answer.case.label][i], got - answer.outputs[i]


def followed(exercise, ask, answer, i):
    """Sentences about one output: which arguments it follows as it should."""
    output, good, bad = exercise.outputs[i], [], []
    for name, value in answer.case.args.items():
        if np.asarray(value).dtype.kind != "f":
            continue  # of a count no number near it means the same
        try:
            should, does = _steps(exercise, ask, answer, i, name)
        except (ValueError, ArithmeticError, IndexError):
            continue  # the package itself refuses such arguments
        least = answer.case.least
        moves = [not is_same(0 * step, step, least) for step in (should, does)]
        if moves == [True, False]:
            yield f"{output} should change with {name}; yours does not."
        elif moves == [False, True]:
            yield f"Here {output} does not depend on {name}; yours does."
        (good if is_same(does, should, least) else bad).append(name)
    if good and bad:
        good, bad = ", ".join(good), ", ".join(bad)
        yield f"{output} follows {good} by as much as it should, but not {bad}."
    elif good:
        yield f"{output} follows every argument as it should: what is off is constant."
