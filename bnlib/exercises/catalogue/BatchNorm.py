"""From chapters/05_inference.ipynb.

Extracted by `make export`: edit the notebook, not this file.
"""

import sys

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

__all__ = ["script"]


def script(layer_class, x1, x2, x3, eps, momentum):
    """Train on x1 and x2, evaluate x3; save, load, evaluate; train the copy."""
    torch = sys.modules.get("torch")
    if not (torch and issubclass(layer_class, torch.nn.Module)):
        torch = None

    def demand(fine, says):
        if not fine:
            error = TypeError(says)
            error.place = ""  # no line of the learner's
            raise error

    def call(layer, x, training, gradients=True):
        if hasattr(layer, "eval"):
            layer.train() if training else layer.eval()
        else:
            layer.training = training
        if torch is None:
            y = layer(x)
            demand(y is not None, "calling the layer returns None")
            return y
        x = torch.tensor(x, dtype=torch.float64, requires_grad=gradients)
        with torch.set_grad_enabled(gradients):
            y = layer(x)
        if getattr(layer.running_mean, "requires_grad", False):
            error = RuntimeError("running_mean requires a gradient")
            error.mistake = "keeps-graph"
            raise error
        return y.detach().numpy()

    def fresh():
        return layer_class(x1.shape[1], eps=eps, momentum=momentum)

    usual = torch and torch.get_default_dtype()
    if torch:
        torch.set_default_dtype(torch.float64)
    try:
        layer = layer_class(x1.shape[1])  # eps and momentum have defaults
        says = "training should be True at first; it is False"
        demand(getattr(layer, "training", True), says)
        layer = fresh()
        rows = call(layer, x1, True), call(layer, x2, True, gradients=False)
        y_eval = call(layer, x3, False)
        copy = fresh()
        state = layer.state_dict()
        kind = type(state).__name__
        demand(
            isinstance(state, dict), f"state_dict() should give a dict, not a {kind}"
        )
        names = {*state}
        copy.load_state_dict(state)
        demand(names == {*state}, "load_state_dict takes entries out of its argument")
        y_loaded = call(copy, x3, False)
        call(copy, x1, True)
        y_train = np.concatenate(rows)
        return y_train, layer.running_mean, layer.running_var, y_eval, y_loaded
    finally:
        if torch:
            torch.set_default_dtype(usual)


def _reference(x1, x2, x3, eps, momentum):
    stored = np.zeros_like(x1[0]), np.ones_like(x1[0])
    for x in (x1, x2):
        stored = bnlib.update_running(*stored, x, momentum)
    y_train = [bnlib.batch_norm(x, eps=eps)[0] for x in (x1, x2)]
    y = bnlib.batch_norm_inference(x3, None, None, *stored, eps=eps)
    return np.concatenate(y_train), *stored, y, y


def _batches(shape, eps, momentum, rows=None, **how):
    """Three batches at random, of unequal length."""
    n, c = shape
    x1, x2, x3 = (drawn((n + k, c), 1, eps, **how)["x"] for k in range(3))
    return {"x1": x1, "x2": x2, "x3": x3[:rows], "eps": eps, "momentum": momentum}


def _layer_cases():
    xs = [[1], [3]], [[2], [6]], [[0], [4]]
    base = {f"x{k}": np.array(x, dtype=float) for k, x in enumerate(xs, start=1)}
    base |= {"eps": TINY, "momentum": 0.25}
    yield from one_change_at_a_time(base, momentum=0.75, eps=3)
    units = {"x1": 1, "x2": 1, "x3": 1, "eps": 2}
    yield from spreads({**base, "eps": 1.0}, units, scaled=True)
    yield Case("one row in evaluation", _batches((4, 3), 0.5, 0.1, rows=1))
    yield Case("two rows, three columns", _batches((2, 3), 0.5, 0.1))
    flat = _batches((5, 2), 1e-3, 0.1, flat=np.s_[:, 1])
    yield Case("a column that does not vary", flat)
    yield Case("eps as large as the variance", _batches((5, 3), 4.0, 0.4))
    yield Case("more columns than rows", _batches((4, 7), 0.1, 0.6, digits=6))
    yield Case("many rows", _batches((32, 3), 1e-5, 0.87654, digits=6))
    single = _batches((8, 2), 0.1, 0.1, offset=1e4, dtype=np.float32)
    yield Case("mean 10,000 in float32", single, "float32")
    yield Case("mean 100,000,000", _batches((8, 2), 0.1, 0.1, offset=1e8), "offset")


def _batch_means(args, out):
    first = len(args["x1"])
    means = [rows.mean(axis=0) for rows in np.split(out["y_train"], [first])]
    return np.array(means), np.zeros((2, args["x1"].shape[1]))


_READ = "eps, mean, var = self.eps, self.running_mean, self.running_var"
_MOVE = "self.update(x.mean(axis=0), x.var(axis=0, ddof=1))"
_about = {
    "outputs": ("y_train", "running_mean", "running_var", "y_eval", "y_loaded"),
    "script": script,
    "reference": _reference,
    "inputs": _layer_cases,
    "properties": (
        Property(
            "in training every batch comes out with mean 0, whatever is remembered",
            _batch_means,
        ),
        Property(
            "a layer that has loaded the state of another answers the same",
            lambda args, out: (out["y_loaded"], out["y_eval"]),
        ),
    ),
    "wrong_lines": {
        "self.eps, self.momentum, self.training = eps, momentum, True": {
            "momentum-reversed": (
                "self.eps, self.momentum, self.training = eps, 1 - momentum, True"
            ),
            "wrong-momentum": (
                "self.eps, self.momentum, self.training = eps, 0.1, True"
            ),
            "wrong-momentum: any": (
                "self.eps, self.momentum, self.training = eps, C, True"
            ),
            "wrong-eps: default": (
                "self.eps, self.momentum, self.training = 1e-5, momentum, True"
            ),
            "mode-from-grad": (
                "self.eps, self.momentum, self.calls = eps, momentum, 0"
            ),
        },
        "self.running_mean = np.zeros(num_features)": {
            "wrong-start: mean": "self.running_mean = np.ones(num_features)",
        },
        "self.running_var = np.ones(num_features)": {
            "wrong-start": "self.running_var = np.zeros(num_features)",
        },
        _READ: {
            "mode-from-grad": f"{_READ}; self.calls += 1",
            "batch-statistics-at-inference": (
                "eps, mean, var = self.eps, x.mean(axis=0), x.var(axis=0)"
            ),
            "batch-statistics-at-inference: mean": (
                "eps, mean, var = self.eps, x.mean(axis=0), self.running_var"
            ),
            "batch-statistics-at-inference: variance": (
                "eps, mean, var = self.eps, self.running_mean, x.var(axis=0)"
            ),
            "updates-in-evaluation": f"{_READ}; self.training or {_MOVE}",
            "updates-in-evaluation: first": f"self.training or {_MOVE}; {_READ}",
            "missing-mean: in evaluation": (
                "eps, mean, var = self.eps, 0, self.running_var"
            ),
            "missing-eps: in evaluation": (
                "eps, mean, var = self.eps * self.training, self.running_mean, "
                "self.running_var"
            ),
            "adds-eps: in evaluation": (
                "eps, mean, var = self.eps, self.running_mean, "
                "self.running_var + self.eps"
            ),
            "std-instead-of-variance: in evaluation": (
                "eps, mean, var = self.eps, self.running_mean, "
                "np.sqrt(self.running_var)"
            ),
        },
        "if self.training:": {
            "eval-ignored": "if True:",
            "mode-reversed": "if not self.training:",
            # The second call, and no other, comes without gradients.
            "mode-from-grad": "if self.calls != 2:",
            "mode-from-batch": "if len(x) > 1:",
        },
        "mean = x.mean(axis=0)": {
            "wrong-axis: of the mean": "mean = x.mean()",
            "updated-before-use: throughout": (
                "mean = (1 - self.momentum) * self.running_mean"
                " + self.momentum * x.mean(axis=0)"
            ),
        },
        "var = ((x - mean) ** 2).mean(axis=0)": {
            "unbiased-variance": "var = x.var(axis=0, ddof=1)",
            "std-instead-of-variance": "var = x.std(axis=0)",
            "sum-instead-of-mean": "var = ((x - mean) ** 2).sum(axis=0)",
            "missing-mean: in the variance": "var = (x**2).mean(axis=0)",
            "wrong-axis: of the variance": "var = x.var()",
            "cancellation": "var = (x**2).mean(axis=0) - mean**2",
        },
        "unbiased = var * len(x) / (len(x) - 1)": {
            "unbiased-variance": "unbiased = var",
            "biased-running-variance": "unbiased = var",
            "std-instead-of-variance: stored": "unbiased = x.std(axis=0, ddof=1)",
            "std-instead-of-variance: stored, biased": "unbiased = x.std(axis=0)",
            "wrong-running-variance: reversed factor": (
                "unbiased = var * (len(x) - 1) / len(x)"
            ),
            "adds-eps": "unbiased = var * len(x) / (len(x) - 1) + eps",
            "wrong-running-variance": (
                "unbiased = ((x - self.running_mean) ** 2).sum(axis=0) / (len(x) - 1)"
            ),
        },
        "self.update(mean, unbiased)": {
            "no-update": "pass",
            "updated-before-use": (
                "self.update(mean, unbiased); mean = self.running_mean; "
                "var = self.running_var"
            ),
            "updated-before-use: one step late": (
                "m, v = mean, unbiased; mean, var = self.running_mean, self.running_var"
                "; self.update(m, v)"
            ),
            "swapped-mean-variance": "self.update(unbiased, mean)",
            "updates-twice": "self.update(mean, unbiased); self.update(mean, unbiased)",
        },
        "self.running_mean = (1 - a) * self.running_mean + a * mean": {
            "batch-statistics-only": "self.running_mean = mean",
            "missing-decay": "self.running_mean = self.running_mean + a * mean",
            "missing-momentum": (
                "self.running_mean = (1 - a) * self.running_mean + mean"
            ),
            "no-update: mean": "self.running_mean = self.running_mean",
            "shared-state": "self.running_mean *= 1 - a; self.running_mean += a * mean",
        },
        "self.running_var = (1 - a) * self.running_var + a * var": {
            "batch-statistics-only": "self.running_var = var",
            "missing-decay": "self.running_var = self.running_var + a * var",
            "missing-momentum": "self.running_var = (1 - a) * self.running_var + var",
            "no-update: variance": "self.running_var = self.running_var",
            "shared-state": "self.running_var *= 1 - a; self.running_var += a * var",
            "wrong-variable: running_mean": (
                "self.running_var = (1 - a) * self.running_mean + a * var"
            ),
        },
        'self.running_mean = state["running_mean"]': {
            "not-in-state": "pass",
            "not-in-state: mean": "pass",
        },
        'self.running_var = state["running_var"]': {
            "not-in-state": "pass",
            "not-in-state: variance": "pass",
            "swapped-mean-variance: in the state": (
                "self.running_mean, self.running_var = "
                'state["running_var"], state["running_mean"]'
            ),
        },
    },
    "words": """
wrong-signature
What you hand in cannot be called so.
Hand in the class itself, without parentheses after its name.

keeps-graph
The running mean keeps the graph of its batch, and with it of every batch before.
Memory grows with every step. Which word cuts a tensor off from its graph?

not-in-state
The running statistics are not in the state: a layer that is loaded starts anew.
In torch, what has to be done to a tensor that is no parameter to have it saved?

not-in-state: mean
The running mean is not in the state.
Save, load, evaluate: why should a copy answer otherwise?

not-in-state: variance
The running variance is not in the state.
Save, load, evaluate: why should a copy answer otherwise?

swapped-mean-variance
Mean and variance have changed places when they are stored.
Compare the order in which you hand them on with the one in which you take them.

swapped-mean-variance: in the state
Mean and variance have changed places when they are loaded.
Compare the keys that you write with the keys that you read.

shared-state
Two layers share one array: what one learns after loading, the other has too.
Do you update in place? Then who else has this array?

eval-ignored
Every call is one of training: the flag is not looked at.
Call your layer on one row, in evaluation. By which mean is it normalized?

mode-reversed
It trains in evaluation, and evaluates in training.
Read your condition aloud. What is it when training is True?

mode-from-grad
Your mode is whether gradients are kept; that says nothing about training.
What does your layer do in a frozen part of a network? What inside torch.no_grad()?

mode-from-batch
Your mode is how many rows there are; that says nothing about training.
Evaluate three rows, then each of them alone: may the results differ?

updates-in-evaluation
The running statistics move in evaluation, too.
Evaluate the same batch twice. Should anything change in between?

batch-statistics-at-inference
In evaluation you normalize by the batch.
Evaluate three rows, then each of them alone: may the results differ?

batch-statistics-at-inference: mean
In evaluation you subtract the batch's mean.
Evaluate three rows, then each of them alone: may the results differ?

batch-statistics-at-inference: variance
In evaluation you divide by the batch's deviation.
Evaluate three rows, then each of them alone: may the results differ?

updated-before-use
In training you normalize by the running statistics, with this batch in them.
Which mean should a batch have when it comes out, in training?

updated-before-use: throughout
In training you subtract the running mean, with this batch in it.
Which mean should a batch have when it comes out, in training?

updated-before-use: one step late
In training you normalize by the running statistics.
Which mean should a batch have when it comes out, in training?

updates-twice
The running statistics move twice for each batch.
With momentum = 0.1, how much of the old value should be left?

wrong-start
The running variance starts at 0.
What does a layer give that is evaluated before it was trained?

wrong-start: mean
The running mean starts at 1.
What does a layer give that is evaluated before it was trained?

momentum-reversed
momentum is the weight of the new batch here; you give it to the old value.
With momentum = 0.1, a batch should move the mean a tenth of the way.

wrong-momentum
You use a momentum of your own instead of the argument.
With momentum = 1 what is stored should be the last batch's statistics.

wrong-running-variance: reversed factor
The factor between biased and unbiased variance is upside down.
Which of the two is larger?

wrong-running-variance
What you store is not centred at the batch's mean.
Around which point is the variance of a batch taken?

adds-eps
You add eps to what is stored; it is added where one divides, and only there.
Where is eps added in evaluation? Count how often it is in there.

adds-eps: in evaluation
In evaluation you add eps twice.
Where is eps added in training? Count how often it is in there.

missing-eps: in evaluation
In evaluation you do not use eps.
What do you divide by if the stored variance is 0?

missing-mean: in evaluation
In evaluation no mean is subtracted.
Add 100 to all batches. Should the result move?

std-instead-of-variance: stored
You store a standard deviation where a variance belongs.
A variance has the units of x squared. Count your square roots.

std-instead-of-variance: stored, biased
You store a standard deviation, and a biased one, where a variance belongs.
A variance has the units of x squared. Count your square roots.

std-instead-of-variance: in evaluation
In evaluation you take two roots.
A variance has the units of x squared. Count your square roots.

wrong-variable: running_mean
In the variance's line stands running_mean.
A line that was copied: which of its names still have to change?

batch-statistics-only
You store the batch's statistics; the old values are lost.
With momentum = 0.1, nine tenths of the old value should survive.

no-update
Nothing is stored.
With momentum = 1 what is stored should be the last batch's statistics.

no-update: mean
The running mean does not move.
With momentum = 1 what is stored should be the last batch's statistics.

no-update: variance
The running variance does not move.
With momentum = 1 what is stored should be the last batch's statistics.

missing-decay
You add the new value without letting the old one fade.
If old and new are equal, so is the result. Do your weights sum to 1?

missing-momentum
The new value enters with its full weight.
If old and new are equal, so is the result. Do your weights sum to 1?
    """,
}


EXERCISE = Exercise(
    name="BatchNorm",
    title="The layer",
    chapter="05_inference",
    hints=(
        (
            "Two modes, one flag: what is computed, what is stored and what is "
            "read in each?"
        ),
        (
            "In training store after you have normalized, or before, but "
            "normalize by the batch. Never write into arrays that somebody else "
            "has."
        ),
    ),
    stub='''\
class BatchNorm:
    """Normalize rows x (N, C), without gamma and beta, and remember. `training` is True
    at first. While it is, every call normalizes by the batch, with its biased variance,
    and moves running_mean and running_var, from 0 and 1, towards the batch's mean and
    unbiased variance; momentum is the weight of the new batch. When it is False, a call
    normalizes by these two, and changes nothing. state_dict() returns them in a
    dictionary, and load_state_dict(state) takes them over.
    """

    def __init__(self, num_features, eps=1e-5, momentum=0.1):
        raise NotImplementedError("write BatchNorm")
''',
    source="""\
class BatchNorm:
    def __init__(self, num_features, eps=1e-5, momentum=0.1):
        self.eps, self.momentum, self.training = eps, momentum, True
        self.running_mean = np.zeros(num_features)
        self.running_var = np.ones(num_features)

    def __call__(self, x):
        eps, mean, var = self.eps, self.running_mean, self.running_var
        if self.training:
            mean = x.mean(axis=0)
            var = ((x - mean) ** 2).mean(axis=0)
            unbiased = var * len(x) / (len(x) - 1)
            self.update(mean, unbiased)
        std = np.sqrt(var + eps)
        xhat = (x - mean) / std
        return xhat

    def update(self, mean, var):
        a = self.momentum
        self.running_mean = (1 - a) * self.running_mean + a * mean
        self.running_var = (1 - a) * self.running_var + a * var

    def state_dict(self):
        return {"running_mean": self.running_mean, "running_var": self.running_var}

    def load_state_dict(self, state):
        self.running_mean = state["running_mean"]
        self.running_var = state["running_var"]
""",
    **_about,
)
