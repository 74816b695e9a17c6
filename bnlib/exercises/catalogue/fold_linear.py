"""From chapters/05_inference.ipynb.

Extracted by `make export`: edit the notebook, not this file.
"""

import numpy as np

import bnlib
from bnlib.exercises._cases import (
    TINY,
    Case,
    Property,
    drawn,
    one_change_at_a_time,
    spreads,
)
from bnlib.exercises._exercise import Exercise


def _fold_cases():
    one = np.ones(1)
    layer = {"weight": np.array([[1.0, 3.0]]), "bias": 2 * one}
    norm = {"gamma": one, "beta": 0 * one, "mean": 0 * one, "var": 4 * one, "eps": TINY}
    yield from one_change_at_a_time(layer | norm, mean=6, gamma=3, beta=5, eps=5)
    units = {"bias": 1, "mean": 1, "weight": 1, "var": 2, "eps": 2}
    yield from spreads(layer | norm | {"eps": 4.0}, units)
    for out, n_in, eps in ((2, 3, TINY), (3, 3, 0.5), (4, 2, 4.0), (3, 1, 1e-3)):
        made = drawn((n_in, out), 1, eps, flat=0 if n_in == 1 else None, digits=3)
        weight = made["x"].T.copy()
        norm = {"mean": made["running_mean"], "var": made["running_var"]}
        layer = {"weight": weight, "bias": made["dy"][0].copy()}
        yield Case(f"{n_in} inputs, {out} outputs", made | layer | norm)


_about = {
    "reference": lambda *args: bnlib.fold_linear(*args[:-1], eps=args[-1]),
    "inputs": _fold_cases,
    "properties": (
        Property(
            "for x = 1, 2, 3, … the folded layer gives what the two give in a row",
            lambda args, out: (
                out["weight"] @ (x := np.arange(1.0, 1 + args["weight"].shape[1]))
                + out["bias"],
                bnlib.batch_norm_inference(
                    (args["weight"] @ x + args["bias"])[None],
                    *(args[n] for n in ("gamma", "beta", "mean", "var")),
                    eps=args["eps"],
                )[0],
            ),
        ),
    ),
    "wrong_lines": {
        "scale = gamma / std": {
            "missing-gamma": "scale = 1 / std",
            "divides-by-gamma": "scale = std / gamma",
            "multiplies-by-std": "scale = gamma * std",
            "missing-scale: gamma alone": "scale = gamma",
        },
        "new_weight = scale[:, None] * weight": {
            "missing-gamma: in the weight": "new_weight = weight / std[:, None]",
            "wrong-axis": "new_weight = scale * weight",
            "missing-scale": "new_weight = weight",
        },
        "new_bias = scale * (bias - mean) + beta": {
            "sign-error: reversed": "new_bias = scale * (mean - bias) + beta",
            "missing-gamma: in the bias": "new_bias = (bias - mean) / std + beta",
            "forgets-bias": "new_bias = beta - scale * mean",
            "unscaled-bias": "new_bias = bias - scale * mean + beta",
            "unscaled-bias: nor the mean": "new_bias = bias - mean + beta",
            "unscaled-bias: mean only": "new_bias = scale * bias - mean + beta",
            "unscaled-bias: untouched": "new_bias = bias",
            "missing-mean": "new_bias = scale * bias + beta",
            "missing-beta": "new_bias = scale * (bias - mean)",
            "beta-scaled": "new_bias = scale * (bias - mean + beta)",
            "sign-error": "new_bias = scale * (bias + mean) + beta",
            "sign-error: beta": "new_bias = scale * (bias - mean) - beta",
        },
        "return new_weight, new_bias": {
            "swapped-outputs": "return new_bias, new_weight",
        },
        "std = np.sqrt(var + eps)": {
            "swapped-gamma-beta": "gamma, beta = beta, gamma; std = np.sqrt(var + eps)",
            "swapped-mean-variance": "mean, var = var, mean; std = np.sqrt(var + eps)",
            "std-instead-of-variance": "std = np.sqrt(np.sqrt(var) + eps)",
        },
    },
    "words": """
variance-instead-of-std
You divide by the variance; the formula divides by its root.
With a variance of 4 and no eps, the formula divides by 2. And you?

variance-instead-of-std: without eps
You divide by the variance: there is no root, and no eps.
With a variance of 4 and no eps, the formula divides by 2. And you?

missing-mean
The mean is not subtracted from the bias.
Add 1 to bias and to mean. Should the folded bias move?

multiplies-by-std
You multiply by the standard deviation where the formula divides.
Make var four times as large. What should become of the folded weight?

sign-error: reversed
You subtract the bias from the mean.
Which of the two comes out of the linear layer, which is taken off?

missing-gamma: in the bias
gamma is missing in the bias.
Double gamma: which parts of the folded bias should double?

missing-gamma: in the weight
gamma is missing in the weight.
Double gamma: should the folded weight stay as it is?

wrong-axis
You scale the columns of the weight; each output is a row.
Which axis of weight counts the outputs? gamma has one entry for each.

missing-scale
The weight is not scaled, though its outputs are.
Feed x = 0 and x = 1 through both layers: by how much does y change?

forgets-bias
The layer's own bias is lost.
Set weight and mean to 0: what comes out of the two layers, and of yours?

unscaled-bias
A part of the bias is not multiplied by gamma / std.
The normalization acts on all of (weight · x + bias − mean).

unscaled-bias: untouched
You return the bias unchanged.
Feed x = 0 through both layers: what comes out?
    """,
}


EXERCISE = Exercise(
    name="fold_linear",
    title="Fold the normalization into the layer before",
    chapter="05_inference",
    outputs=("weight", "bias"),
    hints=(
        ("Write y = gamma * (weight @ x + bias - mean) / std + beta, and sort by x."),
        ("What multiplies x is the new weight, row by row; the rest is the new bias."),
    ),
    stub='''\
def fold_linear(weight, bias, gamma, beta, mean, var, eps):
    """Return (weight, bias) of one linear layer that does what a linear layer, weight
    (outputs, inputs) and bias (outputs,), followed by batch norm at inference does.
    """
    raise NotImplementedError("write fold_linear")
''',
    source="""\
def fold_linear(weight, bias, gamma, beta, mean, var, eps):
    std = np.sqrt(var + eps)
    scale = gamma / std
    new_weight = scale[:, None] * weight
    new_bias = scale * (bias - mean) + beta
    return new_weight, new_bias
""",
    **_about,
)
