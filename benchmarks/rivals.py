"""Batch norm as it is taught, each rewritten from its formula; x is (N, C, ...).

Forward and backward where the original derives a backward pass, else autograd's.
"""

import numpy as np
import torch


def across(x):
    return (0, *range(2, x.ndim))


def as_in_d2l(x, gamma, beta, eps=1e-5):
    """Mean, then the mean of squared deviations; autograd does the rest."""
    shape = 1, -1, *[1] * (x.ndim - 2)
    mean = x.mean(dim=across(x), keepdim=True)
    var = ((x - mean) ** 2).mean(dim=across(x), keepdim=True)
    xhat = (x - mean) / torch.sqrt(var + eps)
    return gamma.view(shape) * xhat + beta.view(shape)


def as_in_labml(x, gamma, beta, eps=1e-5):
    """The variance as E[x^2] - E[x]^2; autograd does the rest."""
    rows = x.view(x.shape[0], x.shape[1], -1)
    mean = rows.mean(dim=[0, 2])
    var = (rows**2).mean(dim=[0, 2]) - mean**2
    xhat = (rows - mean.view(1, -1, 1)) / torch.sqrt(var + eps).view(1, -1, 1)
    return (gamma.view(1, -1, 1) * xhat + beta.view(1, -1, 1)).view(x.shape)


def as_rows(x):
    """(N, C, ...) as (positions, C), a copy where there are positions."""
    return np.moveaxis(x, 1, -1).reshape(-1, x.shape[1])


def as_maps(rows, like):
    n, channels, *spatial = like.shape
    return np.moveaxis(rows.reshape(n, *spatial, channels), -1, 1)


def staged(x, gamma, beta, dy, eps=1e-5):
    """CS231n's computational graph: one line per node, forward and backward."""
    rows, d = as_rows(x), as_rows(dy)
    n = len(rows)
    mean = np.mean(rows, axis=0)
    centred = rows - mean
    square = centred**2
    var = np.mean(square, axis=0)
    std = np.sqrt(var + eps)
    inverse = 1 / std
    xhat = centred * inverse
    y = gamma * xhat + beta
    dbeta, dgamma = d.sum(axis=0), np.sum(d * xhat, axis=0)
    dxhat = d * gamma
    dinverse = np.sum(dxhat * centred, axis=0)
    dstd = -dinverse / std**2
    dvar = 0.5 * dstd / np.sqrt(var + eps)
    dsquare = dvar * np.ones_like(rows) / n
    dcentred = dxhat * inverse + 2 * centred * dsquare
    dx = dcentred + np.ones_like(rows) * -np.sum(dcentred, axis=0) / n
    return as_maps(y, x), as_maps(dx, x), dgamma, dbeta


def simplified(x, gamma, beta, dy, eps=1e-5):
    """CS231n's other solution: the gradient on one line."""
    rows, d = as_rows(x), as_rows(dy)
    mean, var = rows.mean(axis=0), rows.var(axis=0)
    std = np.sqrt(var + eps)
    xhat = (rows - mean) / std
    y = gamma * xhat + beta
    dbeta, dgamma = d.sum(axis=0), (d * xhat).sum(axis=0)
    n = len(rows)
    dx = gamma / (n * std) * (n * d - dbeta - xhat * dgamma)
    return as_maps(y, x), as_maps(dx, x), dgamma, dbeta
