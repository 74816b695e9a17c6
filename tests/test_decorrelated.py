"""Decorrelated batch norm: its gradients, its averages, its errors."""

import copy

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from bnlib import covariance, newton_schulz, zca_whiten, zca_whiten_backward
from bnlib.nn import BatchNorm1d, BatchNorm2d, DecorrelatedBatchNorm

float64 = torch.float64


def rand(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=float64)


def mixed(n, c, seed=0):
    """Correlated data with a mean."""
    return rand(n, c, seed=seed) @ rand(c, c, seed=1) + 3


def groups_of(y, num_groups):
    """(N, C, ...) -> the values of each group's channels, (G, N ..., C / G)."""
    flat = y.transpose(0, 1).flatten(1).T
    return [part.detach().numpy() for part in flat.chunk(num_groups, dim=1)]


@pytest.mark.parametrize("shape", [(40, 6), (5, 6, 9), (3, 6, 4, 5), (3, 6, 2, 3, 2)])
@pytest.mark.parametrize("num_groups", [1, 2, 3, 6])
@pytest.mark.parametrize("iterations", [None, 25])
def test_every_group_comes_out_white(shape, num_groups, iterations):
    x = torch.einsum("nc...,cd->nd...", rand(*shape), rand(6, 6, seed=1)) + 2
    layer = DecorrelatedBatchNorm(
        6, num_groups, eps=1e-12, iterations=iterations, dtype=float64
    )
    y = layer(x)
    assert y.shape == x.shape and y.dtype == float64
    for part in groups_of(y, num_groups):
        np.testing.assert_allclose(part.mean(0), 0, atol=1e-9)
        size = 6 // num_groups
        np.testing.assert_allclose(covariance(part), np.eye(size), atol=1e-6)


def test_one_group_is_the_array_function():
    x, dy = mixed(20, 4).requires_grad_(), rand(20, 4, seed=2)
    layer = DecorrelatedBatchNorm(4, affine=False, dtype=float64)
    y = layer(x)
    y.backward(dy)
    wanted, cache = zca_whiten(x.detach().numpy(), eps=1e-5)
    assert_close(y.detach().numpy(), wanted, rtol=1e-10, atol=1e-10)
    dx = zca_whiten_backward(dy.numpy(), cache)
    assert_close(x.grad.numpy(), dx, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("shape", [(12, 5), (4, 5, 3), (3, 5, 2, 4)])
def test_groups_of_one_channel_are_batch_norm(shape):
    theirs = BatchNorm1d if len(shape) < 4 else BatchNorm2d
    known = theirs(5, momentum=0.3, dtype=float64)
    layer = DecorrelatedBatchNorm(5, 5, momentum=0.3, dtype=float64)
    with torch.no_grad():
        for mine, other in ((layer.weight, known.weight), (layer.bias, known.bias)):
            other.copy_(mine.copy_(rand(5, seed=3)))
    for step in range(3):
        x = rand(*shape, seed=step) * (step + 1) + step
        assert_close(layer(x), known(x), rtol=1e-10, atol=1e-10)
    assert_close(layer.running_mean, known.running_mean)
    assert_close(layer.running_covariance.flatten(), known.running_var)
    x = rand(*shape, seed=9)
    assert_close(layer.eval()(x), known.eval()(x), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("iterations", [None, 0, 1, 2, 5])
@pytest.mark.parametrize("training", [True, False])
def test_gradients_at_every_iteration_count(iterations, training):
    layer = DecorrelatedBatchNorm(4, 2, iterations=iterations, dtype=float64)
    layer(mixed(30, 4))
    layer.train(training)
    state = copy.deepcopy(layer.state_dict())

    def run(x, weight, bias):
        layer.load_state_dict(state)
        given = {"weight": weight, "bias": bias}
        return torch.func.functional_call(layer, given, (x,))

    x = mixed(7, 4, seed=4).requires_grad_()
    leaves = [p.detach().clone().requires_grad_() for p in layer.parameters()]
    assert torch.autograd.gradcheck(run, (x, *leaves))
    if iterations is not None:
        assert torch.autograd.gradgradcheck(run, (x, *leaves))


def test_equal_eigenvalues_have_a_gradient():
    x, _ = zca_whiten(rand(12, 3).numpy(), eps=0)  # white already: all of them are 1
    x = torch.tensor(x, requires_grad=True)
    layer = DecorrelatedBatchNorm(3, dtype=float64)
    assert torch.autograd.gradcheck(layer, x)


def test_averages_are_those_of_mean_and_unbiased_covariance():
    layer = DecorrelatedBatchNorm(4, 2, momentum=0.25, dtype=float64)
    mean, sigma = torch.zeros(4, dtype=float64), torch.eye(2, dtype=float64)
    sigma = sigma.repeat(2, 1, 1)
    for step in range(3):
        x = mixed(9, 4, seed=step)
        layer(x)
        batch = torch.stack([part.T.cov() for part in x.chunk(2, dim=1)])
        mean, sigma = 0.75 * mean + 0.25 * x.mean(0), 0.75 * sigma + 0.25 * batch
    assert_close(layer.running_mean, mean)
    assert_close(layer.running_covariance, sigma)
    again = DecorrelatedBatchNorm(4, 2, dtype=float64)
    again.load_state_dict(layer.state_dict())
    x = mixed(1, 4, seed=7)  # one example is enough in evaluation
    y = layer.eval()(x)
    assert torch.equal(again.eval()(x), y)
    for part, s, m in zip(x.chunk(2, dim=1), sigma, mean.chunk(2), strict=True):
        values, vectors = torch.linalg.eigh(s + 1e-5 * torch.eye(2))
        root = vectors / values.sqrt() @ vectors.T
        assert_close(y[:, :2], (part - m) @ root)
        y = y[:, 2:]


def test_the_state_and_the_options():
    layer = DecorrelatedBatchNorm(6, 3)
    names = ["weight", "bias", "running_mean", "running_covariance"]
    assert list(layer.state_dict()) == names
    assert layer.running_covariance.shape == (3, 2, 2)
    bare = DecorrelatedBatchNorm(6, affine=False)
    assert bare.weight is None and bare.bias is None
    assert not list(bare.parameters())
    assert bare(rand(20, 6).float()).dtype == torch.float32
    x = mixed(20, 6)
    kept = x.clone()
    DecorrelatedBatchNorm(6, dtype=float64)(x)
    assert torch.equal(x, kept)


BAD = {
    "whole numbers": (TypeError, "input must hold", torch.ones(9, 4, dtype=int)),
    "one axis": (ValueError, "input must have shape", rand(4)),
    "channels": (ValueError, "input must have shape", rand(9, 5)),
    "float32": (TypeError, "input must have the dtype", rand(9, 4).float()),
    "nan": (ValueError, "input must be finite", rand(9, 4) * float("nan")),
    "few": (ValueError, "groups of 4 channels need more than 5", rand(5, 4)),
    "constant": (ValueError, "finite|positive", torch.zeros(9, 4, dtype=float64)),
}


@pytest.mark.parametrize(("error", "word", "x"), BAD.values(), ids=BAD)
@pytest.mark.parametrize("iterations", [None, 3])
def test_bad_input_leaves_the_averages_alone(error, word, x, iterations):
    eps = 0 if word == "finite|positive" else 1e-5
    layer = DecorrelatedBatchNorm(4, eps=eps, iterations=iterations, dtype=float64)
    before = copy.deepcopy(layer.state_dict())
    with pytest.raises(error, match=word):
        layer(x)
    after = layer.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("sizes", [(6, 4), (6, 0), (0, 1), (6, 2.0), (6, -2)])
def test_groups_that_do_not_divide(sizes):
    with pytest.raises(ValueError, match="pass a divisor"):
        DecorrelatedBatchNorm(*sizes)


def test_options_that_make_no_sense():
    for options, word in (
        ({"momentum": float("nan")}, "momentum must be"),
        ({"momentum": None}, "momentum must be"),
        ({"eps": -1.0}, "eps must be"),
    ):
        with pytest.raises(ValueError, match=word):
            DecorrelatedBatchNorm(6, **options)
    for iterations in (2.5, -1, 10**6):
        with pytest.raises(ValueError, match="iterations must be a whole number"):
            DecorrelatedBatchNorm(6, iterations=iterations)(rand(20, 6).float())
    with pytest.raises(TypeError, match=r"got torch\.float16"):
        DecorrelatedBatchNorm(6, dtype=torch.float16)(rand(20, 6).half())
    assert repr(DecorrelatedBatchNorm(6, 3)) == (
        "DecorrelatedBatchNorm(6, 3, iterations=None)"
    )


@pytest.mark.parametrize("library", [np.asarray, torch.tensor])
def test_newton_schulz_of_many_matrices(library):
    many = np.stack([covariance(mixed(30, 3, seed=s).numpy()) for s in (0, 5, 6)])
    roots = newton_schulz(library(many), iterations=30)
    for root, sigma in zip(map(np.asarray, roots), many, strict=True):
        np.testing.assert_allclose(root @ sigma @ root, np.eye(3), atol=1e-8)
        alone = np.asarray(newton_schulz(library(sigma), iterations=30))
        np.testing.assert_allclose(root, alone, rtol=1e-12)
    for bad, word in [(many[:, :2], "square"), (0 * many, "trace")]:
        with pytest.raises(ValueError, match=word):
            newton_schulz(library(bad))
