"""From chapters/A3_exercises.ipynb.

Extracted by `make export`: edit the notebook, not this file.
"""

import inspect

import numpy as np

__all__ = ["from_cache", "from_layer"]


_NOT_FOR_FORWARD = ("dy", "x", "gamma", "beta", "num_groups")


def _for_forward(forward, given):
    """The arguments that a forward pass asks for: by name, or in the usual order."""
    names = list(inspect.signature(forward).parameters)
    known = {"beta": np.zeros_like(given["gamma"]), **given}
    if set(names) <= set(known):
        return {}, {name: known[name] for name in names}
    groups = [given["num_groups"]] if "num_groups" in given else []
    beta = [known["beta"]] * (len(names) > 3 + len(groups))
    last = given["eps"]
    if names[-1].endswith("param"):  # a dictionary, as in CS231n
        last = {n: a for n, a in given.items() if n not in _NOT_FOR_FORWARD}
        last["mode"] = "test" if "running_mean" in given else "train"
    return [given["x"], given["gamma"], *beta, *groups, last], {}


def from_cache(forward, backward=None):
    """Make a plain answer of passes that hand on a cache, as courses ask for them.

    Parameters
    ----------
    forward : function
        Yours: `forward(x, gamma, beta, eps)`, or `(x, gamma, beta, bn_param)` as in
        CS231n, returns (y, cache).
    backward : function, optional
        Yours: `backward(dy, cache)` returns (dx, dgamma, dbeta). What you hand in is
        judged by it where the exercise is a backward pass, by `forward` elsewhere.

    Returns
    -------
    answer : function
        Give it to `check`: `check("batch_norm_backward", from_cache(f, b))`.
    """

    def answer(**given):
        in_order, by_name = _for_forward(forward, given)
        both = forward(*in_order, **by_name)
        if not (isinstance(both, tuple) and len(both) == 2):
            what = f"{type(both).__name__}{np.shape(both)}"
            raise TypeError(f"forward should return (y, cache); yours returns {what}")
        if "dy" not in given:
            return both[0]
        if backward is None:
            raise TypeError(
                "say from_cache(forward, backward): this is a backward pass"
            )
        return backward(given["dy"], both[1])

    return answer


def from_layer(make):
    """Make a plain answer of a layer: an object with forward, or a call, and backward.

    Parameters
    ----------
    make : class or function
        Makes the layer. It gets what it asks for by name: gamma, beta, eps, num_groups,
        num_features and so on. What it does not ask for is set afterwards, where the
        layer has an attribute of that name.

    Returns
    -------
    answer : function
        Give it to `check`: `check("batch_norm_backward", from_layer(BatchNorm))`. If
        backward returns dx alone, dgamma and dbeta are attributes of the layer.
    """

    def answer(**given):
        known = {n: a for n, a in given.items() if n not in ("x", "dy")}
        known = {"beta": np.zeros_like(given["gamma"]), **known}
        known["num_features"] = len(given["gamma"])
        asked = known.keys() & inspect.signature(make).parameters.keys()
        layer = make(**{name: known[name] for name in asked})
        for name in known.keys() - asked:
            if hasattr(layer, name):
                setattr(layer, name, known[name])
        y = getattr(layer, "forward", layer)(given["x"])
        if "dy" not in given:
            return y
        dx = layer.backward(given["dy"])
        if isinstance(dx, tuple):
            return dx
        own = [n for n in ("dgamma", "dbeta") if hasattr(layer, n)]
        return dx, *(getattr(layer, name) for name in own)

    return answer
