"""From chapters/A3_exercises.ipynb.

Extracted by `make export`: edit the notebook, not this file.
"""

import functools
import inspect
import itertools
import textwrap
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np

from bnlib import (
    batch_norm,
    batch_norm_backward,
    batch_norm_inference,
    batch_renorm,
    batch_renorm_backward,
    fold_linear,
    group_norm,
    layer_norm,
    layer_norm_backward,
    merge_moments,
    moments,
    rms_norm,
    update_running,
    zca_whiten,
)

__all__ = [
    "ROOT",
    "VARIANCE",
    "CENTRE",
    "AFFINE",
    "LINE_UP",
    "LINE_UP_PARAMS",
    "UPSTREAM",
    "MEAN_TERM",
    "VARIANCE_TERM",
    "DIRECTION",
    "SCALE",
    "DGAMMA",
    "DBETA",
    "SUM",
    "ORDER",
    "COLUMNS",
    "ROWS",
    "CHANNELS",
    "PER_COLUMN",
    "PER_CHANNEL",
    "PAIR",
    "AVERAGE",
    "NEW_VARIANCE",
    "BLEND",
    "BLEND_VARIANCE",
    "INFERENCE",
    "FOLDED_WEIGHT",
    "FOLDED_BIAS",
    "FACTOR",
    "R",
    "D",
    "CLIP_R",
    "CLIP_D",
    "CORRECT",
    "RENORM_DGAMMA",
    "RENORM_UPSTREAM",
    "GROUPS",
    "GROUP_AXES",
    "SQUARE",
    "NUMERATOR",
    "GAMMA",
    "RMS_SCALE",
    "COVARIANCE",
    "WHITEN_EPS",
    "ROTATE",
    "SHARE",
    "SHARE_MEAN",
    "SHARE_VARIANCE",
    "BETWEEN",
    "TINY",
    "Case",
    "Exercise",
    "Property",
    "DBETA_IS_THE_SUM",
    "VARIANCE_IS_POSITIVE",
    "WORDS",
    "words_for",
    "code_of",
    "EXERCISES",
]


ROOT = {
    "": lambda var, eps: np.sqrt(var + eps),
    "missing-eps": lambda var, eps: np.sqrt(var),
    "eps-outside-root": lambda var, eps: np.sqrt(var) + eps,
    "eps-outside-root: throughout": lambda var, eps: np.sqrt(var) + eps,
    "eps-outside-root: two roots": lambda var, eps: np.sqrt(var) + np.sqrt(eps),
    "eps-outside-root: twice": lambda var, eps: np.sqrt(var + eps) + eps,
    "variance-instead-of-std": lambda var, eps: var + eps,
    "variance-instead-of-std: without eps": lambda var, eps: var,
    "wrong-eps: own": lambda var, eps: np.sqrt(var + 1e-5),
    "wrong-eps: tiny": lambda var, eps: np.sqrt(var + 1e-8),
    "wrong-eps: outside": lambda var, eps: np.sqrt(var) + 1e-8,
    "wrong-eps: floor": lambda var, eps: np.sqrt(np.maximum(var, eps)),
    "wrong-eps: floor of the deviation": lambda var, eps: np.maximum(np.sqrt(var), eps),
    "wrong-eps: squared": lambda var, eps: np.sqrt(var + eps**2),
}


def _pick(w, station):
    """The part of a station that the mistakes w ask for; the right one by default."""
    return next((part for name, part in station.items() if name in w), station[""])


def _mean(x, a):
    return x.mean(axis=a, keepdims=True)


VARIANCE = {
    "": lambda x, a: _mean((x - _mean(x, a)) ** 2, a),
    "unbiased-variance": lambda x, a: x.var(axis=a, ddof=1, keepdims=True),
    "unbiased-variance: throughout": lambda x, a: x.var(axis=a, ddof=1, keepdims=True),
    "std-instead-of-variance": lambda x, a: x.std(axis=a, keepdims=True),
    "sum-instead-of-mean": lambda x, a: ((x - _mean(x, a)) ** 2).sum(a, keepdims=True),
    "missing-mean: in the variance": lambda x, a: _mean(x**2, a),
    "missing-mean: throughout": lambda x, a: _mean(x**2, a),
    "rms-norm-instead": lambda x, a: _mean(x**2, a),
    "wrong-power: absolute": lambda x, a: _mean(abs(x - _mean(x, a)), a),
    "wrong-count": lambda x, a: (
        ((x - _mean(x, a)) ** 2).sum(a, keepdims=True)
        / (x.shape[1] if a == 0 else len(x))
    ),
    "cancellation": lambda x, a: _mean(x**2, a) - _mean(x, a) ** 2,
}


CENTRE = {
    "": lambda x, mean, std: (x - mean) / std,
    "missing-mean": lambda x, mean, std: x / std,
    "missing-mean: throughout": lambda x, mean, std: x / std,
    "rms-norm-instead": lambda x, mean, std: x / std,
    "missing-scale": lambda x, mean, std: x - mean,
    "multiplies-by-std": lambda x, mean, std: (x - mean) * std,
    "sign-error": lambda x, mean, std: (mean - x) / std,
    "sign-error: plus mean": lambda x, mean, std: (x + mean) / std,
    "missing-parentheses": lambda x, mean, std: x - mean / std,
}


AFFINE = {
    "": lambda xhat, gamma, beta: gamma * xhat + beta,
    "missing-gamma": lambda xhat, gamma, beta: xhat + beta,
    "missing-beta": lambda xhat, gamma, beta: gamma * xhat,
    "missing-affine": lambda xhat, gamma, beta: xhat,
    "swapped-gamma-beta": lambda xhat, gamma, beta: beta * xhat + gamma,
    "beta-scaled": lambda xhat, gamma, beta: gamma * (xhat + beta),
    "divides-by-gamma": lambda xhat, gamma, beta: xhat / gamma + beta,
    "gamma-added": lambda xhat, gamma, beta: xhat + gamma + beta,
    "sign-error: beta": lambda xhat, gamma, beta: gamma * xhat - beta,
    "affine-before-normalization": lambda xhat, gamma, beta: xhat,
}


def _dropped(statistic):
    """What is left of a statistic when keepdims=True was forgotten."""
    return statistic.squeeze()


LINE_UP = {
    "": lambda statistic: statistic,
    "wrong-broadcast": _dropped,
    "wrong-axis: without keepdims": _dropped,
}


LINE_UP_PARAMS = {
    "": lambda p: p,
    "wrong-broadcast: gamma and beta": lambda p: p.reshape(-1),
}


def _forward(w, x, gamma, beta, eps, axes):
    """axes: a station too. gamma, beta: shaped to broadcast against x."""
    if "affine-before-normalization" in w:
        x = gamma * x + beta
    a = _pick(w, axes)
    mean, var = _mean(x, a), _pick(w, VARIANCE)(x, a)
    if "mean-of-variances" in w:
        var = x.var(axis=(2, 3), keepdims=True).mean(0, keepdims=True)
    mean, var = (_pick(w, LINE_UP)(s) for s in (mean, var))
    xhat = _pick(w, CENTRE)(x, mean, _pick(w, ROOT)(var, eps))
    gamma, beta = (_pick(w, LINE_UP_PARAMS)(p) for p in (gamma, beta))
    return _pick(w, AFFINE)(xhat, gamma, beta)


UPSTREAM = {
    "": lambda dy, gamma: dy * gamma,
    "missing-gamma": lambda dy, gamma: dy,
    "extra-gamma": lambda dy, gamma: dy * gamma * gamma,
    "divides-by-gamma": lambda dy, gamma: dy / gamma,
}


MEAN_TERM = {
    "": lambda n, shape: 1,
    "detached-mean": lambda n, shape: 0,
    "detached-statistics": lambda n, shape: 0,
    "sum-instead-of-mean: both terms": lambda n, shape: n,
    "sum-instead-of-mean: mean's term": lambda n, shape: n,
    "sign-error: mean's term": lambda n, shape: -1,
    "sign-error: both terms": lambda n, shape: -1,
    "wrong-count: n - 1": lambda n, shape: n / (n - 1),
    "wrong-count: axis 0": lambda n, shape: n / shape[0],
    "wrong-count: axis 1": lambda n, shape: n / shape[1],
}


VARIANCE_TERM = {
    "": lambda n, shape: 1,
    "detached-variance": lambda n, shape: 0,
    "detached-statistics": lambda n, shape: 0,
    "sum-instead-of-mean: both terms": lambda n, shape: n,
    "sum-instead-of-mean: variance's term": lambda n, shape: n,
    "sign-error: variance's term": lambda n, shape: -1,
    "sign-error: both terms": lambda n, shape: -1,
    "missing-factor-two": lambda n, shape: 1 / 2,
    "missing-factor-two: too much": lambda n, shape: 2,
    "unbiased-variance: throughout": lambda n, shape: n / (n - 1),
    "unbiased-variance: in the gradient": lambda n, shape: n / (n - 1),
    "wrong-count: n - 1": lambda n, shape: n / (n - 1),
    "wrong-count: axis 0": lambda n, shape: n / shape[0],
    "wrong-count: axis 1": lambda n, shape: n / shape[1],
}


DIRECTION = {
    "": lambda x, mean, var, std, xhat: xhat,
    "wrong-power": lambda x, mean, var, std, xhat: x - mean,
    "wrong-power: two": lambda x, mean, var, std, xhat: (x - mean) * std,
    "wrong-power: too many": lambda x, mean, var, std, xhat: xhat / std,
    "wrong-power: far too many": lambda x, mean, var, std, xhat: xhat / std**2,
    "missing-mean: in the gradient": lambda x, mean, var, std, xhat: x / std,
    "missing-xhat": lambda x, mean, var, std, xhat: 1.0,
    "eps-outside-root: throughout": lambda x, mean, var, std, xhat: (
        xhat * std / np.sqrt(var)
    ),
}


SCALE = {
    "": lambda dx, std: dx / std,
    "missing-scale: of dx": lambda dx, std: dx,
    "multiplies-by-std": lambda dx, std: dx * std,
    "variance-instead-of-std: in front": lambda dx, std: dx / std**2,
    "sign-error: of dx": lambda dx, std: -dx / std,
}


DGAMMA = {
    "": lambda dy, x, mean, xhat, gamma, beta: dy * xhat,
    "wrong-dgamma": lambda dy, x, mean, xhat, gamma, beta: dy * x,
    "wrong-dgamma: centred": lambda dy, x, mean, xhat, gamma, beta: dy * (x - mean),
    "wrong-dgamma: gamma": lambda dy, x, mean, xhat, gamma, beta: dy * xhat * gamma,
    "wrong-dgamma: dbeta": lambda dy, x, mean, xhat, gamma, beta: dy,
    "wrong-dgamma: no dy": lambda dy, x, mean, xhat, gamma, beta: xhat,
    "sign-error: of dgamma": lambda dy, x, mean, xhat, gamma, beta: -dy * xhat,
}


DBETA = {
    "": lambda dy, gamma: dy,
    "wrong-dbeta": lambda dy, gamma: dy * gamma,
    "wrong-dbeta: ones": lambda dy, gamma: np.ones_like(dy),
    "sign-error: of dbeta": lambda dy, gamma: -dy,
}


SUM = {
    "": np.sum,
    "mean-instead-of-sum": np.mean,
}
ORDER = {
    "": lambda dx, dgamma, dbeta: (dx, dgamma, dbeta),
    "swapped-gamma-beta": lambda dx, dgamma, dbeta: (dx, dbeta, dgamma),
    "swapped-outputs": lambda dx, dgamma, dbeta: (dgamma, dbeta, dx),
}


def _gradient(w, g, xhat, x, mean, var, std, a):
    """dx, from the gradient g that arrives at xhat."""
    n, line_up = x.size // mean.size, _pick(w, LINE_UP)
    along = _pick(w, DIRECTION)(x, mean, var, std, xhat)
    through_mean = _pick(w, MEAN_TERM)(n, x.shape) * line_up(_mean(g, a))
    share = _pick(w, VARIANCE_TERM)(n, x.shape)
    through_var = share * along * line_up(_mean(g * xhat, a))
    return _pick(w, SCALE)(g - through_mean - through_var, std)


def _normalized(w, x, eps, a):
    """What a backward pass computes again from x: mean, variance, deviation, xhat."""
    mean, var = _mean(x, a), _pick(w, VARIANCE)(x, a)
    if "mean-of-variances" in w:
        var = x.var(axis=(2, 3), keepdims=True).mean(0, keepdims=True)
    mean, var = (_pick(w, LINE_UP)(s) for s in (mean, var))
    std = _pick(w, ROOT)(var, eps)
    return mean, var, std, _pick(w, CENTRE)(x, mean, std)


def _backward(w, dy, x, gamma, eps, axes, param_axes):
    """axes, param_axes: stations. gamma: shaped to broadcast against x."""
    a, over, total = _pick(w, axes), _pick(w, param_axes), _pick(w, SUM)
    mean, var, std, xhat = _normalized(w, x, eps, a)
    g = _pick(w, UPSTREAM)(dy, gamma)
    a = 0 if "batch-in-statistics: of dx" in w else a
    if "gamma-after-averaging" in w:
        g = dy
    dx = _gradient(w, g, xhat, x, mean, var, std, a)
    if "gamma-after-averaging" in w:
        dx = dx * gamma
    dgamma = total(_pick(w, DGAMMA)(dy, x, mean, xhat, gamma, None), axis=over)
    dbeta = total(_pick(w, DBETA)(dy, gamma), axis=over)
    return _pick(w, ORDER)(dx, dgamma, dbeta)


COLUMNS = {
    "": 0,
    "wrong-axis": 1,
    "wrong-axis: without keepdims": 1,
    "wrong-axis: everything": None,
}


ROWS = {
    "": -1,
    "batch-norm-instead": 0,
    "batch-in-statistics": None,
}


CHANNELS = {
    "": (0, 2, 3),
    "per-pixel-statistics": 0,
    "per-sample-statistics": (2, 3),
    "layer-norm-instead": (1, 2, 3),
    "wrong-axis: everything": None,
    "wrong-axis": 1,
    "wrong-axis: without width": (0, 2),
    "wrong-axis: without height": (0, 3),
    "wrong-axis: last": (0, 1, 2),
}


PER_COLUMN = {"": 0, "wrong-axis: of the sums": 1, "missing-sum": ()}
PER_CHANNEL = {"": (0, 2, 3), "wrong-axis: of the sums": (1, 2, 3), "missing-sum": 0}


def _channel(p):
    return p.reshape(1, -1, 1, 1)


def _forward_recipe(axes, shaped=lambda p: p):
    return lambda w, x, gamma, beta, eps: _forward(
        w, x, shaped(gamma), shaped(beta), eps, axes
    )


def _backward_recipe(axes, param_axes, shaped=lambda p: p):
    return lambda w, dy, x, gamma, eps: _backward(
        w, dy, x, shaped(gamma), eps, axes, param_axes
    )


PAIR = {
    "": lambda mean, var: (mean, var),
    "swapped-outputs": lambda mean, var: (var, mean),
}


AVERAGE = {
    "": lambda x, a: x.mean(axis=a),
    "sum-instead-of-mean: mean": lambda x, a: x.sum(axis=a),
    "wrong-count": lambda x, a: x.sum(axis=a) / x.shape[1],
    "median-instead-of-mean": lambda x, a: np.median(x, axis=a),
}


def _moments_recipe(w, x):
    a = _pick(w, COLUMNS)
    mean, var = _pick(w, AVERAGE)(x, a), _pick(w, VARIANCE)(x, a)
    if "wrong-count" in w and a == 0:  # then the variance is taken around that mean
        var = ((x - mean) ** 2).sum(axis=0) / x.shape[1]
    var = var + 1e-5 if "adds-eps" in w else var
    return _pick(w, PAIR)(mean, var.reshape(mean.shape))


NEW_VARIANCE = {
    "": lambda x, old_mean, new_mean: x.var(axis=0, ddof=1),
    "biased-running-variance": lambda x, old_mean, new_mean: x.var(axis=0),
    "std-instead-of-variance": lambda x, old_mean, new_mean: x.std(axis=0, ddof=1),
    "std-instead-of-variance: biased": lambda x, old_mean, new_mean: x.std(axis=0),
    "sum-instead-of-mean": lambda x, old_mean, new_mean: x.var(axis=0) * len(x),
    "wrong-running-variance": lambda x, old_mean, new_mean: (
        ((x - new_mean) ** 2).sum(0) / (len(x) - 1)
    ),
    "wrong-running-variance: old mean": lambda x, old_mean, new_mean: (
        ((x - old_mean) ** 2).sum(0) / (len(x) - 1)
    ),
    "wrong-running-variance: corrected twice": lambda x, old_mean, new_mean: (
        x.var(axis=0, ddof=1) * len(x) / (len(x) - 1)
    ),
    "wrong-running-variance: reversed factor": lambda x, old_mean, new_mean: (
        x.var(axis=0) * (len(x) - 1) / len(x)
    ),
    "cancellation": lambda x, old_mean, new_mean: (
        ((x**2).mean(0) - x.mean(0) ** 2) * len(x) / (len(x) - 1)
    ),
}


BLEND = {
    "": lambda old, new, m: (1 - m) * old + m * new,
    "momentum-reversed": lambda old, new, m: m * old + (1 - m) * new,
    "batch-statistics-only": lambda old, new, m: new + 0 * old,
    "no-update": lambda old, new, m: old + 0 * new,
    "missing-decay": lambda old, new, m: old + m * new,
    "missing-momentum": lambda old, new, m: (1 - m) * old + new,
    "sign-error": lambda old, new, m: (1 + m) * old - m * new,
    "wrong-momentum": lambda old, new, m: 0.9 * old + 0.1 * new,
    "wrong-momentum: reversed": lambda old, new, m: 0.1 * old + 0.9 * new,
}


BLEND_VARIANCE = {
    "": None,
    "wrong-running-variance: momentum reversed": BLEND["momentum-reversed"],
    "wrong-running-variance: not updated": BLEND["no-update"],
    "wrong-running-variance: not blended": BLEND["batch-statistics-only"],
    "wrong-running-variance: corrected too late": None,  # see the recipe
}


def _running_recipe(w, running_mean, running_var, x, momentum):
    if "wrong-axis" in w:
        x = x.T
    if "wrong-axis: everything" in w:
        x = x.reshape(-1, 1)
    blend = _pick(w, BLEND)
    mean = blend(running_mean, x.mean(axis=0), momentum)
    new = _pick(w, NEW_VARIANCE)(x, running_mean, mean)
    var = (_pick(w, BLEND_VARIANCE) or blend)(running_var, new, momentum)
    if "wrong-running-variance: corrected too late" in w:
        var = blend(running_var, x.var(axis=0), momentum) * len(x) / (len(x) - 1)
    return _pick(w, PAIR)(mean, var)


INFERENCE = {
    "": lambda x, mean, var: (mean, var),
    "batch-statistics-at-inference": lambda x, mean, var: (x.mean(0), x.var(0)),
    "batch-statistics-at-inference: mean": lambda x, mean, var: (x.mean(0), var),
    "batch-statistics-at-inference: variance": lambda x, mean, var: (mean, x.var(0)),
    "batch-statistics-at-inference: blended": lambda x, mean, var: (
        0.9 * mean + 0.1 * x.mean(0),
        0.9 * var + 0.1 * x.var(0),
    ),
    "std-instead-of-variance": lambda x, mean, var: (mean, np.sqrt(var)),
    "swapped-mean-variance": lambda x, mean, var: (var, mean),
    "unbiased-variance": lambda x, mean, var: (mean, var * len(x) / (len(x) - 1)),
    "biased-running-variance": lambda x, mean, var: (mean, var * (len(x) - 1) / len(x)),
}


def _inference_recipe(w, x, gamma, beta, running_mean, running_var, eps):
    if "affine-before-normalization" in w:
        x = gamma * x + beta
    mean, var = _pick(w, INFERENCE)(x, running_mean, running_var)
    if "unscaled-mean" in w:
        return x * gamma / _pick(w, ROOT)(var, eps) - mean + beta
    xhat = _pick(w, CENTRE)(x, mean, _pick(w, ROOT)(var, eps))
    return _pick(w, AFFINE)(xhat, gamma, beta)


FOLDED_WEIGHT = {
    "": lambda weight, a: a[:, None] * weight,
    "wrong-axis": lambda weight, a: a * weight,
    "missing-scale": lambda weight, a: weight,
}


FOLDED_BIAS = {
    "": lambda bias, a, mean, beta: a * (bias - mean) + beta,
    "forgets-bias": lambda bias, a, mean, beta: beta - a * mean,
    "unscaled-bias": lambda bias, a, mean, beta: bias - a * mean + beta,
    "unscaled-bias: nor the mean": lambda bias, a, mean, beta: bias - mean + beta,
    "unscaled-bias: mean only": lambda bias, a, mean, beta: a * bias - mean + beta,
    "unscaled-bias: untouched": lambda bias, a, mean, beta: bias,
    "missing-mean": lambda bias, a, mean, beta: a * bias + beta,
    "missing-beta": lambda bias, a, mean, beta: a * (bias - mean),
    "beta-scaled": lambda bias, a, mean, beta: a * (bias - mean + beta),
    "sign-error": lambda bias, a, mean, beta: a * (bias + mean) + beta,
    "sign-error: beta": lambda bias, a, mean, beta: a * (bias - mean) - beta,
}


FACTOR = {
    "": lambda gamma, std: gamma / std,
    "missing-gamma": lambda gamma, std: 1 / std,
    "divides-by-gamma": lambda gamma, std: std / gamma,
    "multiplies-by-std": lambda gamma, std: gamma * std,
    "missing-scale: gamma alone": lambda gamma, std: gamma,
}


def _fold_recipe(w, weight, bias, gamma, beta, mean, var, eps):
    if "swapped-gamma-beta" in w:
        gamma, beta = beta, gamma
    if "swapped-mean-variance" in w:
        mean, var = var, mean
    var = np.sqrt(var) if "std-instead-of-variance" in w else var
    a = _pick(w, FACTOR)(gamma, _pick(w, ROOT)(var, eps))
    new = _pick(w, FOLDED_WEIGHT)(weight, a), _pick(w, FOLDED_BIAS)(bias, a, mean, beta)
    return _pick(w, PAIR)(*new)


R = {
    "": lambda std, running_std: std / running_std,
    "r-inverted": lambda std, running_std: running_std / std,
    "batch-norm-instead": lambda std, running_std: 1 + 0 * std,
    "missing-r": lambda std, running_std: 1 + 0 * std,
    "variance-instead-of-std: r": lambda std, running_std: (std / running_std) ** 2,
    "std-instead-of-variance": lambda std, running_std: std / np.sqrt(running_std),
}


D = {
    "": lambda mean, std, old_mean, old_std: (mean - old_mean) / old_std,
    "d-divided-by-batch-std": lambda mean, std, old_mean, old_std: (
        (mean - old_mean) / std
    ),
    "batch-norm-instead": lambda mean, std, old_mean, old_std: 0 * mean,
    "missing-d": lambda mean, std, old_mean, old_std: 0 * mean,
    "missing-scale: of d": lambda mean, std, old_mean, old_std: mean - old_mean,
    "sign-error: of d": lambda mean, std, old_mean, old_std: (
        (old_mean - mean) / old_std
    ),
    "std-instead-of-variance": lambda mean, std, old_mean, old_std: (
        (mean - old_mean) / np.sqrt(old_std)
    ),
}


CLIP_R = {
    "": lambda r, rmax: np.clip(r, 1 / rmax, rmax),
    "missing-clip": lambda r, rmax: r,
    "missing-clip: r": lambda r, rmax: r,
    "missing-clip: below": lambda r, rmax: np.minimum(r, rmax),
    "missing-clip: above": lambda r, rmax: np.maximum(r, 1 / rmax),
    "wrong-clip": lambda r, rmax: np.clip(r, 1, rmax),
}


CLIP_D = {
    "": lambda d, dmax: np.clip(d, -dmax, dmax),
    "missing-clip": lambda d, dmax: d,
    "missing-clip: d": lambda d, dmax: d,
    "missing-clip: d below": lambda d, dmax: np.minimum(d, dmax),
    "wrong-clip: d from 0": lambda d, dmax: np.clip(d, 0, dmax),
}


CORRECT = {
    "": lambda xhat, r, d: r * xhat + d,
    "r-scales-d": lambda xhat, r, d: r * (xhat + d),
}


def _corrections(w, mean, std, running_mean, running_std, rmax, dmax):
    """r and d as they are used, and where they are not clipped."""
    r = _pick(w, R)(std, running_std)
    d = _pick(w, D)(mean, std, running_mean, running_std)
    clipped = _pick(w, CLIP_R)(r, rmax), _pick(w, CLIP_D)(d, dmax)
    return *clipped, r == clipped[0], d == clipped[1]


def _renorm_recipe(w, x, gamma, beta, running_mean, running_std, rmax, dmax, eps):
    if "affine-before-normalization" in w:
        x = gamma * x + beta
    mean, _, std, xhat = _normalized(w, x, eps, _pick(w, COLUMNS))
    limits = running_mean, running_std, rmax, dmax
    r, d, *_ = _corrections(w, mean, std, *limits)
    return _pick(w, AFFINE)(_pick(w, CORRECT)(xhat, r, d), gamma, beta)


RENORM_DGAMMA = {
    "": lambda dy, xhat, r, d, x: dy * (r * xhat + d),
    "wrong-dgamma: xhat": lambda dy, xhat, r, d, x: dy * xhat,
    "wrong-dgamma: without d": lambda dy, xhat, r, d, x: dy * r * xhat,
    "wrong-dgamma": lambda dy, xhat, r, d, x: dy * x,
    "wrong-dgamma: dbeta": lambda dy, xhat, r, d, x: dy,
    "sign-error: of dgamma": lambda dy, xhat, r, d, x: -dy * (r * xhat + d),
}


RENORM_UPSTREAM = {
    "": lambda g, r: g * r,
    "missing-r: in dx": lambda g, r: g,
    "divides-by-r": lambda g, r: g / r,
}


def _through_r_and_d(w, g, xhat, running_std, free_r, free_d, a):
    """The gradient that flows through r and d where they are not clipped."""
    through_r = free_r * xhat * _mean(g * xhat, a) / running_std
    through_d = free_d * _mean(g, a) / running_std
    both = "gradient-through-r-d" in w
    only_r, only_d = (f"gradient-through-r-d: {name}" in w for name in "rd")
    return (both or only_r) * through_r + (both or only_d) * through_d


def _renorm_backward_recipe(
    w, dy, x, gamma, running_mean, running_std, rmax, dmax, eps
):
    a, over, total = _pick(w, COLUMNS), _pick(w, PER_COLUMN), _pick(w, SUM)
    mean, var, std, xhat = _normalized(w, x, eps, a)
    limits = running_mean, running_std, rmax, dmax
    r, d, free_r, free_d = _corrections(w, mean, std, *limits)
    g = _pick(w, UPSTREAM)(dy, gamma)
    inner = _pick(w, RENORM_UPSTREAM)(g, r)
    seen = r * xhat + d if "corrected-xhat" in w else xhat
    dx = _gradient(w, inner, seen, x, mean, var, std, a)
    if any(name.startswith("gradient-through") for name in w):
        dx = dx + _through_r_and_d(w, g, xhat, running_std, free_r, free_d, a)
    dgamma = total(_pick(w, RENORM_DGAMMA)(dy, xhat, r, d, x), axis=over)
    dbeta = total(_pick(w, DBETA)(dy, gamma), axis=over)
    return _pick(w, ORDER)(dx, dgamma, dbeta)


GROUPS = {
    "": lambda x, groups: x.reshape(len(x), groups, -1),
    "interleaved-groups": lambda x, groups: x.reshape(
        len(x), -1, groups, *x.shape[2:]
    ).swapaxes(1, 2),
    "group-size-for-count": lambda x, groups: x.reshape(
        len(x), x.shape[1] // groups, -1
    ),
    "instance-norm-instead": lambda x, groups: x.reshape(*x.shape[:2], -1),
    "layer-norm-instead": lambda x, groups: x.reshape(len(x), 1, -1),
    "per-pixel-statistics": lambda x, groups: x.reshape(
        len(x), groups, -1, *x.shape[2:]
    ),
}


GROUP_AXES = {"": "sample", "batch-in-statistics": "batch", "batch-norm-instead": "all"}


def _group_recipe(w, x, gamma, beta, num_groups, eps):
    gamma, beta = (_pick(w, LINE_UP_PARAMS)(_channel(p)) for p in (gamma, beta))
    if "affine-before-normalization" in w:
        x = gamma * x + beta
    grouped = _pick(w, GROUPS)(x, num_groups)
    first = () if _pick(w, GROUP_AXES) == "sample" else (0,)
    last = (2,) if "per-pixel-statistics" in w else range(2, grouped.ndim)
    _, _, _, xhat = _normalized(w, grouped, eps, (*first, *last))
    if "batch-norm-instead" in w:
        _, _, _, xhat = _normalized(w, x, eps, (0, 2, 3))
    if "interleaved-groups" in w and xhat.ndim > 4:
        xhat = xhat.swapaxes(1, 2)
    return _pick(w, AFFINE)(xhat.reshape(x.shape), gamma, beta)


SQUARE = {
    "": lambda x, a: _mean(x**2, a),
    "layer-norm-instead": lambda x, a: _mean((x - _mean(x, a)) ** 2, a),
    "layer-norm-instead: in the square": lambda x, a: x.var(axis=a, keepdims=True),
    "sum-instead-of-mean": lambda x, a: (x**2).sum(axis=a, keepdims=True),
    "missing-square": lambda x, a: _mean(x, a) ** 2,
    "wrong-power: absolute": lambda x, a: _mean(abs(x), a) ** 2,
}


NUMERATOR = {
    "": lambda x, a: x,
    "layer-norm-instead": lambda x, a: x - _mean(x, a),
    "layer-norm-instead: above": lambda x, a: x - _mean(x, a),
}


GAMMA = {
    "": lambda y, gamma: gamma * y,
    "missing-gamma": lambda y, gamma: y,
    "gamma-added": lambda y, gamma: y + gamma,
    "gamma-plus-one": lambda y, gamma: (1 + gamma) * y,
    "divides-by-gamma": lambda y, gamma: y / gamma,
    "affine-before-normalization": lambda y, gamma: y,
}


RMS_SCALE = {
    "": lambda x, rms: x / rms,
    "missing-scale": lambda x, rms: x,
    "multiplies-by-std": lambda x, rms: x * rms,
}


def _rms_recipe(w, x, gamma, eps):
    if "affine-before-normalization" in w:
        x = gamma * x
    a = _pick(w, ROWS)
    rms = _pick(w, LINE_UP)(_pick(w, ROOT)(_pick(w, SQUARE)(x, a), eps))
    y = _pick(w, RMS_SCALE)(_pick(w, NUMERATOR)(x, a), rms)
    return _pick(w, GAMMA)(y, gamma)


COVARIANCE = {
    "": lambda x: (x - x.mean(0)).T @ (x - x.mean(0)) / len(x),
    "unbiased-variance": lambda x: np.atleast_2d(np.cov(x.T)),
    "sum-instead-of-mean": lambda x: (x - x.mean(0)).T @ (x - x.mean(0)),
    "missing-mean: in the covariance": lambda x: x.T @ x / len(x),
    "missing-mean: throughout": lambda x: x.T @ x / len(x),
    "cancellation": lambda x: x.T @ x / len(x) - np.outer(x.mean(0), x.mean(0)),
    "batch-norm-instead": lambda x: np.diag(x.var(axis=0)),
    "correlation": lambda x: np.corrcoef(x.T),
}


WHITEN_EPS = {
    "": lambda values, eps: (np.maximum(values, 0) + eps) ** -0.5,
    "missing-eps": lambda values, eps: np.maximum(values, 0) ** -0.5,
    "eps-outside-root": lambda values, eps: 1 / (np.maximum(values, 0) ** 0.5 + eps),
    "wrong-eps: own": lambda values, eps: (np.maximum(values, 0) + 1e-5) ** -0.5,
    "wrong-eps: floor": lambda values, eps: np.maximum(values, eps) ** -0.5,
    "variance-instead-of-std": lambda values, eps: 1 / (values + eps),
    "multiplies-by-std": lambda values, eps: (np.maximum(values, 0) + eps) ** 0.5,
    "missing-scale": lambda values, eps: np.ones_like(values),
}


ROTATE = {
    "": lambda x, scale, u: (x @ u) * scale @ u.T,
    "pca-instead-of-zca": lambda x, scale, u: (x @ u) * scale,
    "transposed-eigenvectors": lambda x, scale, u: (x @ u.T) * scale @ u,
}


def _cholesky(covariance, eps):
    """The lower factor of the inverse: another matrix that whitens."""
    identity = np.eye(len(covariance))
    return np.linalg.inv(np.linalg.cholesky(covariance + eps * identity)).T


def _zca_recipe(w, x, eps):
    centred = x - x.mean(0)
    if w & {"missing-mean", "missing-mean: throughout"}:
        centred = x
    covariance = _pick(w, COVARIANCE)(x)
    if "cholesky-instead-of-zca" in w:
        return centred @ _cholesky(covariance, eps)
    values, vectors = np.linalg.eigh(covariance)
    return _pick(w, ROTATE)(centred, _pick(w, WHITEN_EPS)(values, eps), vectors)


SHARE = {
    "": lambda counts: counts / counts.sum(),
    "unweighted": lambda counts: np.ones(len(counts)) / len(counts),
    "sum-instead-of-mean": lambda counts: counts * 1.0,
}
SHARE_MEAN = {"": None, "unweighted: mean": SHARE["unweighted"]}


SHARE_VARIANCE = {
    "": None,
    "unweighted: variance": SHARE["unweighted"],
    "unbiased-variance": lambda counts: counts / (counts.sum() - 1),
    "unbiased-variance: in and out": SHARE[""],  # see the recipe
    "unbiased-variance: of each": lambda counts: (
        (counts - 1) / (counts.sum() - len(counts))
    ),
}


BETWEEN = {
    "": lambda means, mean: (means - mean) ** 2,
    "missing-between-variance": lambda means, mean: 0 * means,
    "mean-of-variances": lambda means, mean: 0 * means,
    "cancellation": lambda means, mean: 0 * means,  # see the recipe
    "sign-error": lambda means, mean: -((means - mean) ** 2),
    "missing-square": lambda means, mean: abs(means - mean),
    "missing-mean": lambda means, mean: means**2,
    "wrong-center: first worker": lambda means, mean: (means - means[0]) ** 2,
    "wrong-center: plain mean": lambda means, mean: (means - means.mean(0)) ** 2,
}


def _merge_recipe(w, counts, means, variances):
    share_mean = (_pick(w, SHARE_MEAN) or _pick(w, SHARE))(counts)[:, None]
    share_var = (_pick(w, SHARE_VARIANCE) or _pick(w, SHARE))(counts)[:, None]
    if "mean-of-variances" in w:
        share_var = _pick({"unweighted"}, SHARE)(counts)[:, None]
    within = np.sqrt(variances) if "std-instead-of-variance" in w else variances
    mean = (share_mean * means).sum(axis=0)
    var = (share_var * (within + _pick(w, BETWEEN)(means, mean))).sum(axis=0)
    if "unweighted: between" in w:
        var = (share_var * within).sum(axis=0) + means.var(axis=0)
    if "unweighted: around the merged mean" in w:
        var = (share_var * within).sum(axis=0) + ((means - mean) ** 2).mean(axis=0)
    if "cancellation" in w:
        var = (share_var * (within + means**2)).sum(axis=0) - mean**2
    if "std-instead-of-variance: at the end" in w:
        var = np.sqrt(var)
    if "unbiased-variance: in and out" in w:
        n, k = counts.sum(), counts[:, None]
        var = ((k - 1) * within + k * (means - mean) ** 2).sum(axis=0) / (n - 1)
    return _pick(w, PAIR)(mean, var)


TINY = 1e-12  # an eps that changes no digit that is shown


class Case(NamedTuple):
    """One input: what is special about it, the arguments, and how it is judged.

    kind : "ordinary"; "float32", at an offset where float32 needs care; or "offset", so
    far from zero that only a variance computed from differences survives in float64.
    """

    label: str
    args: dict
    kind: str = "ordinary"


def _one_change_at_a_time(base, label="the smallest input", **changes):
    """The base case, then one per change, then one with all changes."""
    yield Case(label, base)
    together = dict(base)
    for name, value in changes.items():
        changed = np.full_like(base[name], value) if np.ndim(base[name]) else value
        together[name] = changed
        yield Case(f"{name} = {value:g}", {**base, name: changed})
    if len(changes) > 1:
        yield Case("all of these at once", together)


def _plain(x, axis, num_groups=1):
    """The plainest arguments for every normalizer; gamma has the length of axis."""
    x = np.array(x, dtype=float)
    one, dy = np.ones(x.shape[axis]), np.zeros(x.shape)
    dy.flat[0] = 4
    given = {"x": x, "dy": dy, "gamma": one, "beta": 0 * one, "eps": TINY}
    running = {"running_mean": 0 * one, "running_var": 4 * one, "running_std": 2 * one}
    limits = {"rmax": 3.0, "dmax": 5.0, "momentum": 0.25, "num_groups": num_groups}
    return given | running | limits


def _drawn(shape, axis, eps, *, offset=0.0, dtype=float, flat=None, **fixed):
    """Arguments at random; x equals 5 in the part that `flat` names."""
    rng = np.random.default_rng(sum(shape))
    count, line = shape[axis], [1] * len(shape)
    line[axis] = -1
    shift = rng.normal(0, 3, size=count).round(1)
    x = offset + shift.reshape(line) + rng.normal(0, 2, size=shape).round(1)
    variance = rng.uniform(6, 20, size=count).round(1)
    if flat is not None:
        x[flat], variance[-1] = fixed.pop("level", 5.0), 0
    sign = np.where(np.arange(count) % 2, -1, 1)
    arrays = {
        "x": x,
        "dy": rng.normal(size=shape).round(1),
        "gamma": sign * rng.uniform(0.5, 2, size=count).round(1),
        "beta": rng.normal(0, 2, size=count).round(1),
        "running_mean": offset + shift + rng.normal(0, 2, size=count).round(1),
        "running_var": variance,
        "running_std": rng.uniform(0.5, 4, size=count).round(1),
    }
    given = {name: a.astype(dtype) for name, a in arrays.items()}
    rest = {"eps": eps, "rmax": 1.5, "dmax": 0.5, "momentum": 0.1, "num_groups": 1}
    return given | rest | fixed


def _far_from_zero(shape, axis, **fixed):
    """Two cases, judged only where an answer is right on all the others."""
    single = _drawn(shape, axis, 0.1, offset=1e4, dtype=np.float32, **fixed)
    double = _drawn(shape, axis, 0.1, offset=1e8, **fixed)
    yield Case("mean 10,000 in float32", single, "float32")
    yield Case("mean 100,000,000", double, "offset")


def _batch_cases(x, **changes):
    """For (N, C): few rows and many, square and not, a column that does not vary."""
    yield from _one_change_at_a_time(_plain(x, 1), **changes)
    yield Case("three rows, two columns", _drawn((3, 2), 1, TINY))
    yield Case("two rows, three columns", _drawn((2, 3), 1, 0.5))
    yield Case("a square", _drawn((3, 3), 1, TINY))
    constant = _drawn((5, 2), 1, 1e-3, flat=np.s_[:, 1])
    yield Case("a column that does not vary", constant)
    yield Case("eps as large as the variance", _drawn((5, 3), 1, 4.0))
    wide = _drawn((4, 7), 1, 0.1, rmax=1.2, dmax=2.0, momentum=0.6)
    yield Case("more columns than rows", wide)
    yield Case("many rows", _drawn((64, 3), 1, 1e-5, rmax=4.0, dmax=0.1, momentum=0.9))
    yield Case("nothing is clipped", _drawn((6, 3), 1, 0.1, rmax=99.0, dmax=99.0))
    yield from _far_from_zero((8, 2), 1)


def _image_cases(*xs, **changes):
    """For (N, C, H, W), with as many channels as columns of pixels, and not."""
    yield from _one_change_at_a_time(_plain(xs[0], 1), **changes)
    for x in xs[1:]:
        yield Case("pixels that differ", {**_plain(x, 1), "eps": 4.0})
    yield Case("two channels", _drawn((2, 2, 1, 3), 1, TINY))
    yield Case("as many channels as pixels", _drawn((2, 3, 2, 3), 1, 0.5))
    yield Case("all axes alike", _drawn((3, 3, 3, 3), 1, 1e-5))
    constant = _drawn((3, 2, 2, 1), 1, 1e-3, flat=np.s_[:, 1])
    yield Case("a channel that does not vary", constant)
    yield Case("eps as large as the variance", _drawn((2, 4, 3, 2), 1, 4.0))
    yield Case("many images", _drawn((16, 2, 4, 5), 1, 1e-5))
    yield from _far_from_zero((4, 2, 3, 2), 1)


def _row_cases(x, level=5.0, far=True, **changes):
    """For (N, D), normalized along each row; gamma has one entry per column."""
    yield from _one_change_at_a_time(_plain(x, 1), **changes)
    yield Case("two rows, three columns", _drawn((2, 3), 1, TINY))
    yield Case("three rows, two columns", _drawn((3, 2), 1, 0.5))
    yield Case("a square", _drawn((3, 3), 1, TINY))
    constant = _drawn((2, 5), 1, 1e-3, flat=np.s_[1], level=level)
    yield Case("a row of zeros" if level == 0 else "a row that does not vary", constant)
    yield Case("eps as large as the variance", _drawn((3, 5), 1, 9.0))
    yield Case("more rows than columns", _drawn((7, 4), 1, 0.1))
    yield Case("a long row", _drawn((3, 64), 1, 1e-5))
    yield from _far_from_zero((2, 8), 1) if far else ()


def _group_cases():
    tiny = _plain([[[[1]], [[3]]]], 1)
    yield from _one_change_at_a_time(tiny, gamma=2, beta=5, eps=3)
    four = _plain([[[[1]], [[3]], [[7]], [[9]]]], 1, num_groups=2)
    yield Case("two groups of two channels", {**four, "eps": 3.0})
    yield Case(
        "two images", {**_plain([[[[1]], [[3]]], [[[5]], [[9]]]], 1), "eps": 3.0}
    )
    yield Case("six channels, two groups", _drawn((1, 6, 1, 2), 1, TINY, num_groups=2))
    yield Case("six channels, three groups", _drawn((2, 6, 2, 1), 1, 0.5, num_groups=3))
    yield Case("one channel per group", _drawn((2, 3, 2, 3), 1, 0.1, num_groups=3))
    yield Case("all axes alike", _drawn((4, 4, 4, 4), 1, 1e-5, num_groups=2))
    yield Case("five images, two channels", _drawn((5, 2, 1, 2), 1, 0.1))
    flat = _drawn((2, 4, 2, 1), 1, 1e-3, flat=np.s_[0, :2], num_groups=2)
    yield Case("a group that does not vary", flat)
    yield Case("eps as large as the variance", _drawn((2, 4, 1, 3), 1, 4, num_groups=2))
    yield from _far_from_zero((2, 4, 3, 2), 1, num_groups=2)


def _fold_cases():
    one = np.ones(1)
    layer = {"weight": np.array([[1.0, 3.0]]), "bias": 2 * one}
    norm = {"gamma": one, "beta": 0 * one, "mean": 0 * one, "var": 4 * one, "eps": TINY}
    yield from _one_change_at_a_time(layer | norm, mean=6, gamma=3, beta=5, eps=5)
    for out, n_in, eps in ((2, 3, TINY), (3, 3, 0.5), (4, 2, 4.0), (3, 1, 1e-3)):
        drawn = _drawn((n_in, out), 1, eps, flat=0 if n_in == 1 else None)
        weight = drawn["x"].T.copy()
        norm = {"mean": drawn["running_mean"], "var": drawn["running_var"]}
        layer = {"weight": weight, "bias": drawn["dy"][0].copy()}
        yield Case(f"{n_in} inputs, {out} outputs", drawn | layer | norm)


def _whiten_cases():
    crossed = np.array([[3.0, 1.0], [1.0, 3.0], [-3.0, -1.0], [-1.0, -3.0]])
    yield Case("four points", {"x": crossed, "eps": TINY})
    yield Case("mean (10, 20)", {"x": crossed + np.array([10, 20]), "eps": TINY})
    yield Case("eps = 4", {"x": crossed, "eps": 4.0})
    flat = np.concatenate([crossed, np.full((4, 1), 5.0)], axis=1)
    yield Case("a column that does not vary", {"x": flat, "eps": 0.5})
    for rows, c, eps in ((4, 3, 0.1), (6, 2, 0.3), (9, 4, 2.0), (64, 5, 1e-3)):
        mix = np.random.default_rng(7).normal(size=(c, c)) + np.eye(c)
        x = (_drawn((rows, c), 1, eps)["x"] @ mix).round(2)
        yield Case(f"{rows} rows, {c} columns", {"x": x, "eps": eps})
    yield from _far_from_zero((9, 3), 1)


def _merge_case(label, counts, means, variances, **more):
    arrays = (np.array(a, dtype=float) for a in (means, variances))
    names = ("counts", "means", "variances")
    return Case(
        label, dict(zip(names, (np.array(counts), *arrays), strict=True)), **more
    )


def _merge_cases():
    yield _merge_case("equal counts", [2, 2], [[1], [1]], [[1], [3]])
    yield _merge_case("means that differ", [2, 2], [[0], [4]], [[1], [3]])
    yield _merge_case("different counts", [1, 3], [[2], [2]], [[9], [1]])
    yield _merge_case("both differ", [1, 3], [[0], [4]], [[9], [1]])
    for workers, columns, offset in (
        (3, 2, 0.0),
        (2, 3, 0.0),
        (4, 4, 0.0),
        (3, 2, 1e8),
    ):
        drawn = _drawn((workers, columns), 1, 0, offset=offset)
        rng = np.random.default_rng(workers)
        counts = rng.integers(2, 9, size=workers)
        variances = rng.uniform(0.5, 4, size=(workers, columns)).round(1)
        label = f"{workers} workers, {columns} columns"
        kind = "offset" if offset else "ordinary"
        label = "means of 100,000,000" if offset else label
        yield _merge_case(label, counts, drawn["x"], variances, kind=kind)


def _doc(function):
    """The docstring, read from the source: `python -OO` keeps it nowhere else."""
    return inspect.cleandoc(inspect.getsource(function).split('"""')[1])


class _Task:
    """What an exercise says about itself, read from its solution."""

    @property
    def name(self):
        """The name to pass to `check`."""
        return self.solution.__name__.removeprefix("_")

    @property
    def arguments(self):
        """The names of the arguments, in order."""
        return tuple(inspect.signature(self.solution).parameters)

    @property
    def signature(self):
        """What goes in and what comes out: "moments(x) -> (mean, var)"."""
        out = ", ".join(self.outputs)
        out = f"({out})" if len(self.outputs) > 1 else out
        return f"{self.name}({', '.join(self.arguments)}) -> {out}"

    @property
    def task(self):
        """The task, in a sentence or two."""
        return " ".join(_doc(self.solution).split())


class _Texts(_Task):
    @property
    def source(self):
        """The text of the solution, without its docstring."""
        text = textwrap.dedent(inspect.getsource(self.solution))
        head, _, rest = text.partition('    """')
        return head.replace("def _", "def ", 1) + rest.partition('"""\n')[2]

    @property
    def stub(self):
        """The text a learner starts from."""
        text = textwrap.dedent(inspect.getsource(self.solution))
        head, _, rest = text.replace("def _", "def ", 1).partition('    """')
        doc = rest.partition('"""\n')[0]
        todo = f'    raise NotImplementedError("write {self.name}")'
        return f'{head}    """{doc}"""\n{todo}\n'


class _Catalogue:
    @cached_property
    def cases(self):
        """The inputs, smallest first, each with the arguments of this exercise."""
        kept = {}
        for case in self.inputs():
            args = {name: case.args[name] for name in self.arguments}
            key = repr([np.asarray(a).tolist() for a in args.values()])
            kept.setdefault(key, case._replace(args=args))
        return tuple(kept.values())

    @cached_property
    def mistakes(self):
        """The names of all mistakes that the recipe can make."""
        names = dict.fromkeys(name for station in self.stations for name in station)
        return tuple(n for n in names if n and n not in self.skip)

    @cached_property
    def pairs(self):
        """Two mistakes at a time, where no station knows both."""
        rivals = {(a, b) for s in self.stations for a in s for b in s}
        both = itertools.combinations(self.mistakes, 2)
        return tuple(pair for pair in both if pair not in rivals)

    def mutant(self, *mistakes):
        """The solution with these mistakes, as a function of the arguments."""
        return functools.partial(self.recipe, frozenset(mistakes))


@dataclass(frozen=True, eq=False)
class Exercise(_Texts, _Catalogue):
    """One exercise: the task, its solution, and what is needed to judge another.

    solution : the function asked for, named with a leading underscore. chapter : file
    name. outputs : their names. hints : two, the second says more. reference : gives
    the expected outputs, from the package where it has the function. recipe, stations :
    the solution with switches, and their names. inputs : gives the cases. properties :
    what must hold of any answer. skip : mistakes that are none here. words : sentences
    for this exercise only. flexible : outputs may also have shape (1, C).
    """

    solution: Callable
    title: str
    chapter: str
    outputs: tuple
    hints: tuple
    reference: Callable
    recipe: Callable
    stations: tuple
    inputs: Callable
    properties: tuple = ()
    skip: tuple = ()
    words: dict = field(default_factory=dict)
    flexible: bool = False


class Property(NamedTuple):
    """A sentence, and a function (arguments, outputs) -> (found, what it should be)."""

    says: str
    holds: Callable


def _sums_to_zero(axes, words):
    return Property(
        f"dx should sum to 0 over {words}: adding a constant to x changes no output",
        lambda args, out: (out["dx"].sum(axis=axes), 0 * out["dx"].sum(axis=axes)),
    )


def _mean_is_beta(axis, words):
    return Property(
        f"the mean of y over {words} should be beta: xhat has mean 0",
        lambda args, out: (out["y"].mean(axis=axis), args["beta"]),
    )


DBETA_IS_THE_SUM = Property(
    "dbeta should not depend on x: beta is added, its gradient is made of dy alone",
    lambda args, out: (out["dbeta"], args["dy"].sum(axis=_rest(args["dy"]))),
)


VARIANCE_IS_POSITIVE = Property(
    "a variance is never negative",
    lambda args, out: (np.minimum(out["var"], 0), 0 * out["var"]),
)


def _rest(x):
    return (0, *range(2, x.ndim))


def _words_variance():
    """
    unbiased-variance
    You divide the sum of squares by n − 1; the definition here divides by n.
    Look up ddof in np.var, and which of the two values this formula means.

    std-instead-of-variance
    A standard deviation stands where a variance belongs.
    A variance has the units of x squared. Count your square roots.

    sum-instead-of-mean
    You add up where the formula averages: a division by n is missing.
    Repeat every row of the input: an average must not change, a sum doubles.

    missing-mean
    The mean is not subtracted.
    Add 100 to all of x. Should the result move?

    missing-mean: in the variance
    Your variance is the mean of x², so the mean itself counts as spread.
    Add 100 to all of x. Should the variance change?

    missing-mean: in the covariance
    Your covariance is made of x as it is, so the mean counts as spread.
    Add 100 to a column of x. Should the covariance change?

    cancellation
    Right on paper, but it subtracts two huge, nearly equal numbers.
    Far from zero, mean(x²) − mean(x)² has no digit left. Square something small.

    wrong-power
    The variance's term of dx has the wrong power of the standard deviation.
    Multiply x by 10 and keep dy: all terms of dx must shrink by the same factor.

    wrong-power: absolute
    You average absolute values where the formula averages squares.
    Try the column 0, 0, 0, 4: the two averages differ.

    adds-eps
    You add a small number to the variance, eps perhaps; here it stays as it is.
    What is the variance of a column that does not vary?

    missing-square
    A square is missing: you square after averaging, or not at all.
    Try values of both signs. Can they cancel in your formula?

    median-instead-of-mean
    You take the median; the mean is asked for.
    Try the column 0, 0, 9.

    correlation
    You whiten with the correlation matrix instead of the covariance.
    A correlation has forgotten how large each column is.
    """


def _words_root():
    """
    missing-eps
    eps is not used, or far too small to be yours.
    Look at a column that does not vary: what do you divide by there?

    eps-outside-root
    You add eps to the standard deviation; it belongs to the variance.
    With a variance of 1 and eps = 3, the formula divides by 2. And you?

    eps-outside-root: two roots
    You add the root of eps to the root of the variance; add first, one root then.
    With a variance of 1 and eps = 3, the formula divides by 2. And you?

    eps-outside-root: twice
    You add eps twice: under the root, and again outside.
    With a variance of 1 and eps = 3, the formula divides by 2. And you?

    wrong-eps
    You use a number of your own instead of the argument eps.
    Call your function with eps = 3: something must change.

    wrong-eps: floor
    You use eps as a lower limit of the variance; the formula adds it.
    With a variance of 1 and eps = 3, what is var + eps, and what is your value?

    wrong-eps: squared
    You add eps squared; the formula adds eps.
    With a variance of 1 and eps = 3, the formula divides by 2. And you?

    variance-instead-of-std
    You divide by the variance; the formula divides by its root.
    Multiply x by 10. What you divide by must grow tenfold, not a hundredfold.

    variance-instead-of-std: without eps
    You divide by the variance: there is no root, and no eps.
    Multiply x by 10. What you divide by must grow tenfold, not a hundredfold.

    missing-scale
    You never divide by the standard deviation.
    Multiply x by 10. What should become of xhat?

    multiplies-by-std
    You multiply by the standard deviation where the formula divides.
    Multiply x by 10. What should become of xhat?

    sign-error
    A sign is the wrong way round.
    Compare the signs above, then look at each minus of your formula.

    sign-error: plus mean
    You add the mean where it should be subtracted.
    What should be the mean of xhat?

    missing-parentheses
    Only the mean is divided by the standard deviation: x - mean / std.
    Division binds more strongly than subtraction.
    """


def _words_affine():
    """
    missing-gamma
    gamma is not used.
    Double gamma: should the result stay as it is?

    missing-beta
    beta is not added.
    Raise beta by 1: should the result stay as it is?

    missing-affine
    You return xhat: gamma and beta are not used.
    One line of the algorithm is left after normalizing.

    swapped-gamma-beta
    gamma and beta have changed places.
    Which one is multiplied, which is added? In which order are they returned?

    beta-scaled
    You multiply beta too.
    With x constant, y should be beta itself.

    affine-before-normalization
    You scale and shift before normalizing, which takes both out again.
    Which line of the algorithm comes last?

    gamma-added
    You add gamma; it is a factor.
    Set gamma to 0: what should y be?

    gamma-plus-one
    You scale by 1 + gamma, as some models do; here gamma is the whole factor.
    Set gamma to 0: what should y be?

    divides-by-gamma
    You divide by gamma; it is a factor.
    Double gamma: should the result double or halve?

    extra-gamma
    gamma enters twice.
    Double gamma: dx should double, not quadruple.

    sign-error: beta
    You subtract beta.
    With x constant, y should be beta itself.

    wrong-broadcast
    A vector of statistics meets x along the wrong axis.
    Print the shapes: numpy lines up the last axes. What does keepdims=True do?

    wrong-broadcast: gamma and beta
    gamma and beta meet x along the last axis, not along the channels.
    gamma has one entry per channel. Which shape lines it up with axis 1 of x?
    """


def _words_axes():
    """
    wrong-axis
    You average along the wrong axis.
    Print the shape of your mean: how many means does this exercise need?

    wrong-axis: everything
    You take one mean of the whole array.
    Print the shape of your mean: how many means does this exercise need?

    wrong-axis: of the sums
    Your sums for dgamma and dbeta run along the wrong axis.
    dgamma has the shape of gamma. Over which axes was gamma copied?

    missing-transpose
    You reshape without moving the channels to the end: the channels get mixed.
    reshape never reorders. In x.reshape(-1, C), which values stand in a column?

    missing-transpose: on the way back
    You reshape back without moving the channels to their old place.
    reshape never reorders. Undo your steps in the reverse order.

    per-pixel-statistics
    Every pixel has a mean of its own; all positions should share one.
    One kernel slides over all positions. How many means does a channel need?

    per-sample-statistics
    Every image is normalized by itself; the batch should share a mean.
    Print the shape of your mean. Is there one per image?

    batch-norm-instead
    This is batch normalization; something else is asked for.
    Change one example only: the results of the others should not move.

    batch-in-statistics
    Examples share a mean; here each should be normalized by itself.
    Change one example only: the results of the others should not move.

    layer-norm-instead
    This is layer normalization; something else is asked for.
    Add 100 to all of x, then look which values share a mean in this exercise.

    rms-norm-instead
    This is RMS normalization: the mean is not subtracted.
    Add 100 to all of x. Should the result move?

    instance-norm-instead
    This is instance normalization: every channel has its own mean.
    How many channels share a mean in this exercise?

    mean-of-variances
    You average variances; the spread between the means is lost.
    Two groups, all zeros and all tens: each has variance 0. And together?

    interleaved-groups
    Your groups take every second (third …) channel instead of neighbours.
    With 4 channels and 2 groups, channels 0 and 1 belong together. And yours?

    group-size-for-count
    You take num_groups for the number of channels in a group.
    With 6 channels and 2 groups, how many channels are in each?
    """


def _words_dx():
    """
    detached-statistics
    You treat mean and variance as constants: only the straight path is left.
    x reaches y on three paths. Which two go through the other examples?

    detached-mean
    The path through the mean is missing from dx.
    Add a constant to x: y does not change. What must dx sum to?

    detached-variance
    The path through the variance is missing from dx.
    Stretch x around its mean: xhat stays. What must sum(dx · xhat) be?

    missing-factor-two
    The variance's term of dx is off by a factor of two.
    Derive a square root and a square once more: one brings 1/2, the other 2.

    missing-xhat
    The variance's term of dx lacks its factor xhat.
    The derivative of (x − mean)² still depends on x.

    wrong-count
    An average divides by the wrong number.
    How many values share one mean? By that many it divides.

    wrong-count: n - 1
    Your averages in dx divide by n − 1.
    Which mean did the forward pass take? Its gradient has the same 1/n.

    gamma-after-averaging
    You multiply by gamma after averaging; here gamma differs along the row.
    A constant factor may leave an average. Is gamma constant along a row?

    sum-instead-of-mean: both terms
    Both averages inside dx are sums: a division by n is missing.
    Where does 1/n come from in the forward pass? Its gradient keeps it.

    sum-instead-of-mean: mean's term
    The mean's term of dx is a sum: a division by n is missing.
    Add a constant to x: y does not change. What must dx sum to?

    sum-instead-of-mean: variance's term
    The variance's term of dx is a sum: a division by n is missing.
    Where does 1/n come from in the variance? Its gradient keeps it.

    mean-instead-of-sum
    You average dgamma or dbeta over the batch; both are sums.
    The loss already contains its 1/n. Each use of gamma adds its share.

    missing-sum
    dgamma and dbeta are not summed yet: one row per example is left.
    dgamma has the shape of gamma.

    wrong-dgamma
    dgamma is not the sum of dy · xhat.
    y = gamma · xhat + beta. What is multiplied by gamma?

    wrong-dgamma: centred
    dgamma uses x − mean; a division by the standard deviation is missing.
    y = gamma · xhat + beta. What exactly is multiplied by gamma?

    wrong-dgamma: gamma
    dgamma contains gamma itself.
    y is linear in gamma. Can its derivative depend on gamma?

    wrong-dgamma: dbeta
    dgamma is the sum of dy alone: that is dbeta.
    y = gamma · xhat + beta. What is multiplied by gamma?

    wrong-dbeta
    dbeta is not the sum of dy.
    y = gamma · xhat + beta. What is multiplied by beta?

    swapped-outputs
    The outputs are right, in the wrong order.
    Compare your return line with the signature.
    """


def _words_running():
    """
    momentum-reversed
    momentum is the weight of the new batch here; you give it to the old value.
    With momentum = 0.1, a batch should move the mean a tenth of the way.

    biased-running-variance
    You store the biased variance; the stored one divides by n − 1.
    Which of the two variances is the better guess about data not seen yet?

    wrong-running-variance
    The running variance is not blended with the batch's unbiased variance.
    Take the mean's update as a model; then look where the variance is centred.

    batch-statistics-only
    You return the batch's statistics; the old values are lost.
    With momentum = 0.1, nine tenths of the old value should survive.

    no-update
    The running statistics come back as they were.
    With momentum = 1 the result should be the batch's statistics.

    missing-decay
    You add the new value without letting the old one fade.
    If old and new are equal, so is the result. Do your weights sum to 1?

    missing-momentum
    The new value enters with its full weight.
    If old and new are equal, so is the result. Do your weights sum to 1?

    wrong-momentum
    You use a momentum of your own instead of the argument.
    With momentum = 1 the result should be the batch's statistics.

    batch-statistics-at-inference
    You look at the batch; at inference only the running statistics count.
    Change one example only: the results of the others should not move.

    swapped-mean-variance
    Mean and variance have changed places.
    Which one is subtracted, and which one stands under the root?

    unbiased-variance: corrected again
    The stored variance is corrected a second time.
    Who has multiplied by n / (n − 1) already?

    forgets-bias
    The layer's own bias is lost.
    Set weight and mean to 0: what comes out of the two layers, and of yours?

    unscaled-bias
    A part of the bias is not multiplied by gamma / std.
    The normalization acts on all of (weight · x + bias − mean).

    unscaled-bias: untouched
    You return the bias unchanged.
    Feed x = 0 through both layers: what comes out?
    """


def _words_renorm():
    """
    missing-clip
    r or d is not clipped on all its sides.
    Try a batch far away from the running statistics: how large are r and d?

    wrong-clip
    r or d is clipped to the wrong interval.
    rmax = 2 lets r double. By which factor may it shrink?

    r-inverted
    r is upside down.
    Unclipped, y is (x − running_mean) / running_std. Which r does that?

    divides-by-r
    You divide by r where the formula multiplies.
    Unclipped, y is (x − running_mean) / running_std. Insert your r and d.

    d-divided-by-batch-std
    d is divided by the batch's deviation instead of the running one.
    Unclipped, y is (x − running_mean) / running_std. Insert your r and d.

    missing-r
    r is missing.
    Set rmax = 1: only then may r disappear.

    missing-d
    d is missing.
    Set dmax = 0: only then may d disappear.

    r-scales-d
    You multiply d by r as well.
    Unclipped, y is (x − running_mean) / running_std. Insert your r and d.

    gradient-through-r-d
    You differentiate through r or d; both count as constants.
    Read what the paper says about r and d in the backward pass.

    corrected-xhat
    Inside dx you put r · xhat + d where the plain xhat belongs.
    The variance acts on xhat, before r and d. Which one is differentiated?

    wrong-dgamma: xhat
    dgamma is made of the plain xhat: the correction by r and d is missing.
    What exactly does gamma multiply in the forward pass?

    wrong-dgamma: without d
    dgamma lacks d.
    What exactly does gamma multiply in the forward pass?
    """


def _words_whiten():
    """
    pca-instead-of-zca
    This is PCA whitening: white, but still turned into the eigenvectors' axes.
    ZCA stays as close to x as it can. Which rotation has to be undone?

    cholesky-instead-of-zca
    White, but turned: Cholesky's solution, perhaps, not the symmetric one.
    ZCA multiplies by a symmetric matrix. Is yours?

    transposed-eigenvectors
    The eigenvectors are used as rows; they are the columns.
    Check: covariance @ vectors should equal vectors * values.

    unweighted
    Every worker counts the same, however many examples it saw.
    Give one worker 99 examples and the other 1: whose mean should win?

    missing-between-variance
    The distance between the workers' means is missing from the variance.
    Two workers, all zeros and all tens: each has variance 0. And together?

    wrong-center
    The distances are not taken from the merged mean.
    From which point is the variance of all examples measured?
    """


def _words_manners():
    """
    returns-none
    Your function returns None.
    Does its last line begin with return?

    mutates-input
    Your function changes the arrays it is given.
    x -= 1 and x[:] = … write into the caller's array; x = x - 1 makes a new one.

    wrong-shape
    The numbers may be right, the shape is not.
    Compare it with the task, and print the shapes of your intermediate results.

    wrong-dtype
    The result is not made of ordinary floating-point numbers.
    Where does another type come in: integers, a complex root, half precision?

    wrong-outputs
    The number of things you return is not the one asked for.
    Compare your return line with the signature.

    wrong-signature
    Your function cannot be called with the exercise's arguments.
    Compare your def line with the signature.

    raises
    Your function stops with an error.
    Call it with the input above and read the line that is named.

    not-started
    Nothing is written yet.
    Replace the line with NotImplementedError.

    not-finite
    The result is nan or infinite on every input.
    Which line is the first to divide by 0, or to take the root of a negative?

    too-slow
    Your function did not come to an end; it was cut off.
    Look at the condition of each loop. The largest input has 480 values.

    not-deterministic
    Called twice with the same input, your function gives two answers.
    Where does chance come in, or something remembered from the last call?

    unknown
    The result is wrong, in a way that is not in the catalogue.
    Compare the smallest failing input, by hand, line by line.
    """


def _entries(*texts):
    """{name: (what happened, hint)} from docstrings of three lines per mistake."""
    blocks = (b.splitlines() for f in texts for b in _doc(f).split("\n\n"))
    return {name: (says, hint) for name, says, hint in blocks}


_THEMES = (
    *(_words_variance, _words_root, _words_affine, _words_axes, _words_dx),
    *(_words_running, _words_renorm, _words_whiten, _words_manners),
)
WORDS = _entries(*_THEMES)


def words_for(exercise, name):
    """(what happened, hint) for a mistake; the exercise's own words come first."""
    places = itertools.product((name, code_of(name)), (exercise.words, WORDS))
    found = [words[n] for n, words in places if n in words]
    if not found:
        raise KeyError(f"no words for {name!r}; codes with words: {sorted(WORDS)}")
    return found[0]


def code_of(name):
    """The code of a mistake: what stands before the colon."""
    return name.partition(":")[0]


_ONCE = (
    "rms-norm-instead",
    "unbiased-variance: throughout",
    "eps-outside-root: throughout",
)
_COUNTS = ("wrong-count: axis 0", "wrong-count: axis 1")
_KEEPDIMS = ("wrong-axis: without keepdims",)  # what LINE_UP calls it for columns
_STEPS = (VARIANCE, ROOT, CENTRE)


def _words_zca():
    """
    batch-norm-instead
    You scale each column by itself: columns that vary together still do.
    Take two equal columns. Are yours uncorrelated afterwards?
    """


def _zca_whiten(x, eps):
    """Whiten x (N, C): subtract the mean, multiply by the symmetric inverse root of the
    biased covariance, eps added to its eigenvalues. Return xw (N, C).
    """
    centred = x - x.mean(axis=0)
    values, vectors = np.linalg.eigh(centred.T @ centred / len(x))
    return centred @ (vectors / np.sqrt(values + eps)) @ vectors.T


_WHITEN = Exercise(
    solution=_zca_whiten,
    title="Whiten a batch",
    chapter="02_whitening",
    outputs=("xw",),
    hints=(
        "np.linalg.eigh takes a symmetric matrix apart, into values and vectors.",
        "Put it together again with 1 / sqrt(values + eps) in the middle.",
    ),
    reference=lambda x, eps: zca_whiten(x, eps=eps)[0],
    recipe=_zca_recipe,
    stations=(
        COVARIANCE,
        ("missing-mean", "missing-mean: throughout"),
        WHITEN_EPS,
        ROTATE | {"cholesky-instead-of-zca": None},
    ),
    inputs=_whiten_cases,
    words=_entries(_words_zca),
)


def _moments(x):
    """Return mean and biased variance of every column of x (N, C), both (C,)."""
    mean = x.mean(axis=0)
    var = ((x - mean) ** 2).mean(axis=0)
    return mean, var


_SMALL_SPREAD = Case("a small spread", {"x": np.array([[0.0], [0.002]])})


_MOMENTS = Exercise(
    solution=_moments,
    title="Mean and variance",
    chapter="03_batch_normalization",
    outputs=("mean", "var"),
    hints=(
        "axis=0 runs down the rows and leaves one number per column.",
        "The variance is the mean of the squared distances from the mean.",
    ),
    reference=lambda x: tuple(m.reshape(-1) for m in moments(x)),
    recipe=_moments_recipe,
    stations=(COLUMNS, AVERAGE, VARIANCE, ("adds-eps",), PAIR),
    inputs=lambda: (*_batch_cases([[1], [3]]), _SMALL_SPREAD),
    properties=(VARIANCE_IS_POSITIVE,),
    skip=(*_ONCE, "missing-mean: throughout", *_KEEPDIMS),
    flexible=True,  # with keepdims=True the means come as (1, C): as good
)


def _batch_norm_forward(x, gamma, beta, eps):
    """Normalize every column of x (N, C) to mean 0 and variance 1 over the batch, eps
    added to the biased variance; scale by gamma (C,), shift by beta (C,). Return y.
    """
    mean = x.mean(axis=0)
    var = ((x - mean) ** 2).mean(axis=0)
    xhat = (x - mean) / np.sqrt(var + eps)
    return gamma * xhat + beta


_FORWARD = Exercise(
    solution=_batch_norm_forward,
    title="Batch normalization, forward",
    chapter="03_batch_normalization",
    outputs=("y",),
    hints=(
        "Four lines, as in Algorithm 1: mean, variance, xhat, y.",
        "One mean per column: axis=0. eps stands under the root, beside the variance.",
    ),
    reference=lambda x, gamma, beta, eps: batch_norm(x, gamma, beta, eps=eps)[0],
    recipe=_forward_recipe(COLUMNS),
    stations=(COLUMNS, *_STEPS, AFFINE, LINE_UP),
    inputs=lambda: _batch_cases([[1], [3]], gamma=2, beta=5, eps=3),
    properties=(_mean_is_beta(0, "each column"),),
    skip=(*_ONCE, "wrong-broadcast"),
)


_CHAIN = (VARIANCE, ROOT, CENTRE, UPSTREAM, MEAN_TERM, VARIANCE_TERM, DIRECTION, SCALE)
_SUMS = (DGAMMA, DBETA, SUM, ORDER)
_NOT_BACKWARD = (
    *("sign-error", "sign-error: plus mean", "missing-scale"),
    *("missing-parentheses", "rms-norm-instead"),
)


def _batch_norm_backward(dy, x, gamma, eps):
    """Given dy, the gradient of a loss with respect to y = gamma * xhat + beta, return
    (dx, dgamma, dbeta). The forward pass normalized the columns of x (N, C) over the
    batch, with eps added to the biased variance; xhat has to be computed again.
    """
    std = np.sqrt(x.var(axis=0) + eps)
    xhat = (x - x.mean(axis=0)) / std
    g = gamma * dy
    dx = (g - g.mean(axis=0) - xhat * (g * xhat).mean(axis=0)) / std
    return dx, (dy * xhat).sum(axis=0), dy.sum(axis=0)


_BACKWARD = Exercise(
    solution=_batch_norm_backward,
    title="Batch normalization, backward",
    chapter="04_backward",
    outputs=("dx", "dgamma", "dbeta"),
    hints=(
        "dgamma and dbeta are sums over the batch. dx has three terms, one per path.",
        "Through the mean: minus the mean of g. Through the variance: minus xhat times "
        "the mean of g * xhat. g is dy * gamma; all of it is divided by std.",
    ),
    reference=lambda dy, x, gamma, eps: batch_norm_backward(
        dy, batch_norm(x, gamma, eps=eps)[1]
    ),
    recipe=_backward_recipe(COLUMNS, PER_COLUMN),
    stations=(COLUMNS, LINE_UP, PER_COLUMN, *_CHAIN, *_SUMS),
    inputs=lambda: _batch_cases([[1], [3], [1], [3]], gamma=2, eps=3),
    properties=(_sums_to_zero(0, "each column"), DBETA_IS_THE_SUM),
    skip=(*_NOT_BACKWARD, "wrong-broadcast", _COUNTS[0]),
)


def _update_running(running_mean, running_var, x, momentum):
    """Return (running_mean, running_var) after one more batch x (N, C). momentum is the
    weight of the new batch; the stored variance is the unbiased one.
    """
    mean = (1 - momentum) * running_mean + momentum * x.mean(axis=0)
    var = (1 - momentum) * running_var + momentum * x.var(axis=0, ddof=1)
    return mean, var


_RUNNING = Exercise(
    solution=_update_running,
    title="Running statistics",
    chapter="05_inference",
    outputs=("running_mean", "running_var"),
    hints=(
        "A blend: one weight for the old value, one for the new, and they sum to 1.",
        "Unbiased means divided by N - 1: ddof=1 in np.var.",
    ),
    reference=lambda running_mean, running_var, x, momentum: update_running(
        running_mean, running_var, x, momentum
    ),
    recipe=_running_recipe,
    stations=(
        ("wrong-axis", "wrong-axis: everything"),
        BLEND,
        NEW_VARIANCE,
        BLEND_VARIANCE,
        PAIR,
    ),
    inputs=lambda: _batch_cases([[1], [3]], running_mean=8, momentum=0.5),
    properties=(),
)


def _words_infer():
    """
    variance-instead-of-std
    You divide by the variance; the formula divides by its root.
    With a running_var of 4 and no eps, the formula divides by 2. And you?

    variance-instead-of-std: without eps
    You divide by the variance: there is no root, and no eps.
    With a running_var of 4 and no eps, the formula divides by 2. And you?

    missing-mean
    The running mean is not subtracted.
    Add 100 to x and to running_mean. Should the result move?

    missing-scale
    You never divide by the standard deviation.
    Make running_var four times as large. What should become of xhat?

    multiplies-by-std
    You multiply by the standard deviation where the formula divides.
    Make running_var four times as large. What should become of xhat?

    unscaled-mean
    You scale x by gamma / std, and leave the mean as it is.
    Multiply out gamma * (x − mean) / std: what stands before the mean?

    unbiased-variance
    The stored variance is corrected a second time.
    Who has multiplied by n / (n − 1) already?

    missing-eps
    eps is not used, or far too small to be yours.
    With a variance of 4 and eps = 5, the formula divides by 3. And you?
    """


def _batch_norm_inference(x, gamma, beta, running_mean, running_var, eps):
    """Normalize x (N, C) at inference: with the running statistics (C,), not with those
    of the batch. Then scale by gamma and shift by beta. Return y.
    """
    return gamma * (x - running_mean) / np.sqrt(running_var + eps) + beta


_INFER = Exercise(
    solution=_batch_norm_inference,
    title="Batch normalization at inference",
    chapter="05_inference",
    outputs=("y",),
    hints=(
        "The formula of training; only where mean and variance come from differs.",
        "Each example must get the same answer alone as in any batch.",
    ),
    reference=lambda x, gamma, beta, running_mean, running_var, eps: (
        batch_norm_inference(x, gamma, beta, running_mean, running_var, eps=eps)
    ),
    recipe=_inference_recipe,
    stations=(INFERENCE, ROOT, (*CENTRE, *AFFINE, "unscaled-mean"), CENTRE, AFFINE),
    inputs=lambda: _batch_cases([[1], [3]], gamma=2, beta=5, running_mean=1, eps=5),
    skip=(*_ONCE, "missing-mean: throughout"),
    words=_entries(_words_infer),
)


def _words_fold():
    """
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

    wrong-axis
    You scale the columns of the weight; each output is a row.
    Which axis of weight counts the outputs? gamma has one entry for each.

    missing-scale
    The weight is not scaled, though its outputs are.
    Feed x = 0 and x = 1 through both layers: by how much does y change?
    """


def _fold_linear(weight, bias, gamma, beta, mean, var, eps):
    """Return (weight, bias) of one linear layer that does what a linear layer, weight
    (outputs, inputs) and bias (outputs,), followed by batch norm at inference does.
    """
    a = gamma / np.sqrt(var + eps)
    return a[:, None] * weight, a * (bias - mean) + beta


_FOLD = Exercise(
    solution=_fold_linear,
    title="Fold the normalization into the layer before",
    chapter="05_inference",
    outputs=("weight", "bias"),
    hints=(
        "Write y = gamma * (weight @ x + bias - mean) / std + beta, and sort by x.",
        "What multiplies x is the new weight, row by row; the rest is the new bias.",
    ),
    reference=lambda *args: fold_linear(*args[:-1], eps=args[-1]),
    recipe=_fold_recipe,
    stations=(
        *(ROOT, FACTOR, FOLDED_WEIGHT, FOLDED_BIAS, PAIR),
        *(("swapped-gamma-beta",), ("swapped-mean-variance",)),
        ("std-instead-of-variance",),
    ),
    inputs=_fold_cases,
    skip=("eps-outside-root: throughout",),
    words=_entries(_words_fold),
)


def _conv_recipe(w, x, gamma, beta, eps):
    if "missing-transpose" in w:
        flat = x.reshape(-1, x.shape[1])
        return _forward(w, flat, gamma, beta, eps, {"": 0}).reshape(x.shape)
    y = _forward(w, x, _channel(gamma), _channel(beta), eps, CHANNELS)
    late = "missing-transpose: on the way back" in w
    return y.transpose(0, 2, 3, 1).reshape(x.shape) if late else y


_RESHAPED = ("missing-transpose", "missing-transpose: on the way back")


def _conv_batch_norm(x, gamma, beta, eps):
    """Batch normalization of images x (N, C, H, W): one mean, one biased variance per
    channel, shared by all examples and positions; gamma and beta (C,). Return y.
    """
    mean = x.mean(axis=(0, 2, 3), keepdims=True)
    var = ((x - mean) ** 2).mean(axis=(0, 2, 3), keepdims=True)
    xhat = (x - mean) / np.sqrt(var + eps)
    return gamma.reshape(1, -1, 1, 1) * xhat + beta.reshape(1, -1, 1, 1)


_TINY_IMAGES = ([[[[1, 3]]], [[[1, 3]]]], [[[[0, 2]]], [[[4, 6]]]])
_POOLED = ("mean-of-variances",)


_CONV = Exercise(
    solution=_conv_batch_norm,
    title="Batch normalization of images",
    chapter="06_convolution",
    outputs=("y",),
    hints=(
        "Average over everything but the channels: three axes at once.",
        "keepdims=True keeps the mean in line with x; gamma needs shape (1, C, 1, 1).",
    ),
    reference=lambda x, gamma, beta, eps: batch_norm(x, gamma, beta, eps=eps)[0],
    recipe=_conv_recipe,
    stations=(
        *((*_RESHAPED, *CHANNELS, *LINE_UP, *LINE_UP_PARAMS, *_POOLED), CHANNELS),
        *(LINE_UP, LINE_UP_PARAMS, _POOLED, *_STEPS, AFFINE),
    ),
    inputs=lambda: _image_cases(*_TINY_IMAGES, gamma=2, beta=5, eps=3),
    properties=(_mean_is_beta((0, 2, 3), "each channel"),),
    skip=(*_ONCE, *_KEEPDIMS, "wrong-count"),
)


def _conv_batch_norm_backward(dy, x, gamma, eps):
    """The gradient of batch normalization of images: dy and x (N, C, H, W), gamma (C,).
    Return (dx, dgamma, dbeta); dgamma and dbeta (C,).
    """
    axes = (0, 2, 3)
    std = np.sqrt(x.var(axis=axes, keepdims=True) + eps)
    xhat = (x - x.mean(axis=axes, keepdims=True)) / std
    g = gamma.reshape(1, -1, 1, 1) * dy
    g_mean = g.mean(axis=axes, keepdims=True)
    dx = (g - g_mean - xhat * (g * xhat).mean(axis=axes, keepdims=True)) / std
    return dx, (dy * xhat).sum(axis=axes), dy.sum(axis=axes)


_CONV_BACKWARD = Exercise(
    solution=_conv_batch_norm_backward,
    title="Batch normalization of images, backward",
    chapter="06_convolution",
    outputs=("dx", "dgamma", "dbeta"),
    hints=(
        "The collapsed formula of chapter 4, with other axes.",
        "n is now N * H * W. Sums over (0, 2, 3) leave one number per channel.",
    ),
    reference=lambda dy, x, gamma, eps: batch_norm_backward(
        dy, batch_norm(x, gamma, eps=eps)[1]
    ),
    recipe=_backward_recipe(CHANNELS, PER_CHANNEL, _channel),
    stations=(CHANNELS, LINE_UP, PER_CHANNEL, _POOLED, *_CHAIN, *_SUMS),
    inputs=lambda: _image_cases(
        [[[[1, 3]]], [[[1, 3]]]], _TINY_IMAGES[1], gamma=2, eps=3
    ),
    properties=(_sums_to_zero((0, 2, 3), "each channel"), DBETA_IS_THE_SUM),
    skip=(*_NOT_BACKWARD, *_KEEPDIMS, "wrong-count"),
)


def _words_renorm_forward():
    """
    batch-norm-instead
    This is batch normalization: neither r nor d is there.
    Keep x and change running_mean. Should the result stay as it is?

    missing-mean
    The batch's mean is not subtracted.
    With dmax = 0, add 100 to all of x. Should the result move?

    std-instead-of-variance
    You take a root of running_std: it is a standard deviation already.
    Unclipped, y is (x − running_mean) / running_std. Insert your r and d.
    """


def _batch_renorm(x, gamma, beta, running_mean, running_std, rmax, dmax, eps):
    """Batch renormalization of x (N, C): y = gamma * (r * xhat + d) + beta; r and d
    lead from the batch's statistics to the running ones, r clipped to 1/rmax ... rmax
    and d to -dmax ... dmax. The deviation of the batch is sqrt(var + eps). Return y.
    """
    mean, std = x.mean(axis=0), np.sqrt(x.var(axis=0) + eps)
    r = np.clip(std / running_std, 1 / rmax, rmax)
    d = np.clip((mean - running_mean) / running_std, -dmax, dmax)
    return gamma * ((x - mean) / std * r + d) + beta


_CORRECTIONS = (R, D, CLIP_R, CLIP_D)


_RENORM = Exercise(
    solution=_batch_renorm,
    title="Batch renormalization",
    chapter="13_renormalization",
    outputs=("y",),
    hints=(
        "Find r and d such that r * xhat + d = (x - running_mean) / running_std.",
        "r = std / running_std, d = (mean - running_mean) / running_std; np.clip both.",
    ),
    reference=lambda *args: batch_renorm(
        *args[:5], rmax=args[5], dmax=args[6], eps=args[7]
    )[0],
    recipe=_renorm_recipe,
    stations=(COLUMNS, LINE_UP, *_STEPS, *_CORRECTIONS, CORRECT, AFFINE),
    inputs=lambda: _batch_cases(
        [[1], [3]], gamma=2, beta=5, eps=3, rmax=1.25, dmax=0.5
    ),
    words=_entries(_words_renorm_forward),
    skip=(*_ONCE, "missing-mean: throughout", "wrong-broadcast"),
)


def _batch_renorm_backward(dy, x, gamma, running_mean, running_std, rmax, dmax, eps):
    """The gradient of batch renormalization, dy and x (N, C), as in its paper: r and d
    count as constants. Return (dx, dgamma, dbeta).
    """
    mean, std = x.mean(axis=0), np.sqrt(x.var(axis=0) + eps)
    r = np.clip(std / running_std, 1 / rmax, rmax)
    d = np.clip((mean - running_mean) / running_std, -dmax, dmax)
    xhat = (x - mean) / std
    g = gamma * r * dy
    dx = (g - g.mean(axis=0) - xhat * (g * xhat).mean(axis=0)) / std
    return dx, (dy * (r * xhat + d)).sum(axis=0), dy.sum(axis=0)


_THROUGH = (
    "gradient-through-r-d",
    "gradient-through-r-d: r",
    "gradient-through-r-d: d",
)


_RENORM_BACKWARD = Exercise(
    solution=_batch_renorm_backward,
    title="Batch renormalization, backward",
    chapter="13_renormalization",
    outputs=("dx", "dgamma", "dbeta"),
    hints=(
        "With r and d constant, r is one more factor beside gamma on the way to xhat.",
        "dx is batch norm's, for gamma * r. gamma multiplies r * xhat + d, not xhat.",
    ),
    reference=lambda dy, x, gamma, mean, std, rmax, dmax, eps: batch_renorm_backward(
        dy, batch_renorm(x, gamma, None, mean, std, rmax=rmax, dmax=dmax, eps=eps)[1]
    ),
    recipe=_renorm_backward_recipe,
    stations=(
        *(COLUMNS, LINE_UP, PER_COLUMN, *_CHAIN, *_CORRECTIONS, RENORM_UPSTREAM),
        *(RENORM_DGAMMA, DBETA, SUM, ORDER, (*_THROUGH, "corrected-xhat")),
    ),
    inputs=lambda: _batch_cases(
        [[1], [3], [1], [3]], gamma=2, eps=3, rmax=1.25, dmax=0.5
    ),
    properties=(_sums_to_zero(0, "each column"), DBETA_IS_THE_SUM),
    skip=(*_NOT_BACKWARD, "wrong-broadcast", "missing-d", _COUNTS[0]),
)


def _layer_norm(x, gamma, beta, eps):
    """Normalize every row of x (N, D) to mean 0 and variance 1, eps added to the biased
    variance; then scale by gamma (D,) and shift by beta (D,). Return y.
    """
    mean = x.mean(axis=1, keepdims=True)
    var = ((x - mean) ** 2).mean(axis=1, keepdims=True)
    return gamma * (x - mean) / np.sqrt(var + eps) + beta


_LAYER = Exercise(
    solution=_layer_norm,
    title="Layer normalization",
    chapter="14_other_axes",
    outputs=("y",),
    hints=(
        "Batch normalization with the other axis: one mean per row.",
        "keepdims=True, or numpy lines the means up with the columns.",
    ),
    reference=lambda x, gamma, beta, eps: layer_norm(x, gamma, beta, eps=eps)[0],
    recipe=_forward_recipe(ROWS),
    stations=(ROWS, *_STEPS, AFFINE, LINE_UP),
    inputs=lambda: _row_cases([[1, 3]], gamma=2, beta=5, eps=3),
    skip=("missing-mean: throughout", *_ONCE[1:], *_KEEPDIMS),
)


def _words_layer_backward():
    """
    detached-statistics
    You treat mean and variance as constants: only the straight path is left.
    x reaches y on three paths. Which two go through the rest of its row?

    batch-in-statistics: of dx
    The two averages inside dx run over the batch; they belong along the row.
    Which values shared a mean in the forward pass? Along them dx averages.
    """


def _layer_norm_backward(dy, x, gamma, eps):
    """The gradient of layer normalization of the rows of x (N, D); gamma (D,).
    Return (dx, dgamma, dbeta); dgamma and dbeta (D,).
    """
    std = np.sqrt(x.var(axis=1, keepdims=True) + eps)
    xhat = (x - x.mean(axis=1, keepdims=True)) / std
    g = gamma * dy
    g_mean = g.mean(axis=1, keepdims=True)
    dx = (g - g_mean - xhat * (g * xhat).mean(axis=1, keepdims=True)) / std
    return dx, (dy * xhat).sum(axis=0), dy.sum(axis=0)


_LAYER_BACKWARD = Exercise(
    solution=_layer_norm_backward,
    title="Layer normalization, backward",
    chapter="14_other_axes",
    outputs=("dx", "dgamma", "dbeta"),
    hints=(
        "Two sets of axes: statistics along the row, sums for dgamma along the batch.",
        "dx is the formula of chapter 4 with axis=1; gamma comes before the averages.",
    ),
    reference=lambda dy, x, gamma, eps: layer_norm_backward(
        dy, layer_norm(x, gamma, eps=eps)[1]
    ),
    recipe=_backward_recipe(ROWS, PER_COLUMN),
    stations=(
        *(ROWS, LINE_UP, PER_COLUMN, *_CHAIN, *_SUMS),
        (*UPSTREAM, "gamma-after-averaging"),
        (*ROWS, *LINE_UP, *MEAN_TERM, *VARIANCE_TERM, "batch-in-statistics: of dx"),
    ),
    inputs=lambda: _row_cases([[1, 3, 1, 3]], gamma=2, eps=3),
    words=_entries(_words_layer_backward),
    properties=(_sums_to_zero(1, "each row"), DBETA_IS_THE_SUM),
    skip=(*_NOT_BACKWARD[:-1], "missing-mean: throughout", *_KEEPDIMS, _COUNTS[1]),
)


def _group_norm(x, gamma, beta, num_groups, eps):
    """Group normalization of x (N, C, H, W): the C channels form num_groups groups of
    neighbours; each group of each example has one mean and one biased variance. Then
    scale and shift every channel by gamma and beta (C,). Return y.
    """
    grouped = x.reshape(len(x), num_groups, -1)
    mean = grouped.mean(axis=2, keepdims=True)
    var = grouped.var(axis=2, keepdims=True)
    xhat = ((grouped - mean) / np.sqrt(var + eps)).reshape(x.shape)
    return gamma.reshape(1, -1, 1, 1) * xhat + beta.reshape(1, -1, 1, 1)


_GROUP = Exercise(
    solution=_group_norm,
    title="Group normalization",
    chapter="14_other_axes",
    outputs=("y",),
    hints=(
        "Reshape so that a group is one axis, normalize along it, reshape back.",
        "(N, C, H, W) becomes (N, num_groups, C / num_groups * H * W).",
    ),
    reference=lambda x, gamma, beta, num_groups, eps: group_norm(
        x, gamma, beta, num_groups=num_groups, eps=eps
    )[0],
    recipe=_group_recipe,
    stations=(
        *(GROUPS | {"batch-norm-instead": None}, GROUP_AXES, LINE_UP_PARAMS),
        *(*_STEPS, AFFINE),
    ),
    inputs=_group_cases,
    skip=(*_ONCE, "wrong-count"),
)


def _words_rms():
    """
    layer-norm-instead
    The mean is subtracted; RMS normalization leaves it in.
    Read the formula again: which of layer norm's steps is missing in it?

    missing-scale
    You never divide by the root mean square.
    Multiply x by 10. What should become of y?

    sum-instead-of-mean
    You divide by the length of the row: its squares are summed up.
    Write the row twice in a row: y must not change.
    """


def _rms_norm(x, gamma, eps):
    """Divide every row of x (N, D) by its root mean square, eps added under the root;
    multiply by gamma (D,). Return y.
    """
    return gamma * x / np.sqrt((x**2).mean(axis=1, keepdims=True) + eps)


_RMS = Exercise(
    solution=_rms_norm,
    title="RMS normalization",
    chapter="14_other_axes",
    outputs=("y",),
    hints=(
        "Read the name backwards: square, mean, root.",
        "Nothing is subtracted. keepdims=True keeps the roots in line with the rows.",
    ),
    reference=lambda x, gamma, eps: rms_norm(x, gamma, eps=eps)[0],
    recipe=_rms_recipe,
    stations=(ROWS, SQUARE, NUMERATOR, ROOT, RMS_SCALE, GAMMA, LINE_UP),
    inputs=lambda: _row_cases([[1, 7]], level=0.0, far=False, gamma=2, eps=11),
    skip=("eps-outside-root: throughout", *_KEEPDIMS),
    words=_entries(_words_rms),
)


def _words_merge():
    """
    mean-of-variances
    A plain average of variances: the means' distance and the counts are lost.
    Two workers, all zeros and all tens: each has variance 0. And together?

    missing-mean
    Between the workers you square the means themselves, not their distances.
    Add 100 to all means. Should the variance change?
    """


def _merge_moments(counts, means, variances):
    """Several workers each saw counts[w] examples with mean means[w] (C,) and biased
    variance variances[w] (C,). Return (mean, var), both (C,), of all examples together.
    """
    share = (counts / counts.sum())[:, None]
    mean = (share * means).sum(axis=0)
    var = (share * (variances + (means - mean) ** 2)).sum(axis=0)
    return mean, var


_MERGE = Exercise(
    solution=_merge_moments,
    title="Merge the moments of many machines",
    chapter="16_many_machines",
    outputs=("mean", "var"),
    hints=(
        "Weight each worker by its share of the examples.",
        "The variance has two parts: within the workers, and between their means.",
    ),
    reference=merge_moments,
    recipe=_merge_recipe,
    stations=(
        *(SHARE, SHARE_MEAN, SHARE_VARIANCE, PAIR),
        ("std-instead-of-variance", "std-instead-of-variance: at the end"),
        (*BETWEEN, "unweighted: between", "unweighted: around the merged mean"),
    ),
    inputs=_merge_cases,
    properties=(VARIANCE_IS_POSITIVE,),
    words=_entries(_words_merge),
)


_LIST = (
    *(_WHITEN, _MOMENTS, _FORWARD, _BACKWARD, _RUNNING, _INFER, _FOLD),
    *(_CONV, _CONV_BACKWARD, _RENORM, _RENORM_BACKWARD),
    *(_LAYER, _LAYER_BACKWARD, _GROUP, _RMS, _MERGE),
)
EXERCISES = {exercise.name: exercise for exercise in _LIST}
