"""Chapter 15: dynamic tanh, its layer, and the long runs."""

import pickle

import numpy as np
import pytest
import torch
from test_experiments import check_script, load, run_small
from torch import nn
from torch.func import vmap

import bnlib
from bnlib.nn import DynamicTanh
from experiments import transformers
from experiments.provenance import RESULTS


def problem(shape=(3, 5, 4), dtype=float):
    rng = np.random.default_rng(15)
    x, dy = rng.normal(0, 2, size=(2, *shape))
    gamma, beta = rng.normal(size=(2, shape[-1]))
    return [a.astype(dtype) for a in (x, dy, np.array(0.7), gamma, beta)]


def published(x, alpha, weight, bias):
    """The definition of Zhu et al. 2025, in torch's operators."""
    return weight * torch.tanh(alpha * x) + bias


# --- the functions --------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(6, 4), (3, 5, 4), (2, 3, 2, 4)])
def test_values_and_gradients_are_those_of_the_published_definition(shape):
    x, dy, alpha, gamma, beta = problem(shape)
    leaves = [torch.from_numpy(a).requires_grad_() for a in (x, alpha, gamma, beta)]
    wanted = published(*leaves)
    wanted.backward(torch.from_numpy(dy))
    y = bnlib.dynamic_tanh(x, alpha, gamma, beta)
    np.testing.assert_allclose(y, wanted.detach(), rtol=1e-14, atol=1e-14)
    found = bnlib.dynamic_tanh_backward(dy, x, alpha, gamma)
    tensors = [torch.from_numpy(a) for a in (dy, x, alpha, gamma)]
    for ours, same, leaf in zip(
        found, bnlib.dynamic_tanh_backward(*tensors), leaves, strict=True
    ):
        assert np.shape(ours) == tuple(same.shape) == tuple(leaf.shape)
        np.testing.assert_allclose(ours, leaf.grad, rtol=1e-12, atol=1e-13)
        np.testing.assert_allclose(same, leaf.grad, rtol=1e-12, atol=1e-13)


def test_finite_differences_twice():
    x, dy, *parameters = problem()
    errors = bnlib.gradcheck(
        bnlib.dynamic_tanh,
        lambda dy, x, a, g, b: bnlib.dynamic_tanh_backward(dy, x, a, g),
        x,
        *parameters,
    )
    assert max(errors) < 1e-7
    leaves = [torch.from_numpy(a).requires_grad_() for a in (x, *parameters)]
    assert torch.autograd.gradcheck(bnlib.dynamic_tanh, leaves)
    assert torch.autograd.gradgradcheck(bnlib.dynamic_tanh, leaves)
    given = [torch.from_numpy(dy).requires_grad_(), *leaves[:3]]
    assert torch.autograd.gradcheck(bnlib.dynamic_tanh_backward, given)


def test_alpha_may_be_a_number_and_gamma_and_beta_be_left_out():
    x, dy, alpha, *_ = problem()
    one, zero = np.ones(4), np.zeros(4)
    whole = bnlib.dynamic_tanh(x, 0.7, one, zero)
    for a in (0.7, np.float64(0.7), alpha, alpha.reshape(1)):
        assert (bnlib.dynamic_tanh(x, a) == whole).all()
    assert (bnlib.dynamic_tanh(x, 0) == 0).all()
    for ours, wanted in zip(
        bnlib.dynamic_tanh_backward(dy, x, 0.7),
        bnlib.dynamic_tanh_backward(dy, x, alpha, one),
        strict=True,
    ):
        assert (ours == wanted).all()


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_narrow_dtypes_are_computed_wide_and_given_back(dtype):
    x, dy, alpha, gamma, beta = problem(dtype=dtype)
    y = bnlib.dynamic_tanh(x, alpha, gamma, beta)
    wide = [a.astype(float) for a in (x, alpha, gamma, beta)]
    assert y.dtype == dtype and (y == bnlib.dynamic_tanh(*wide).astype(dtype)).all()
    found = bnlib.dynamic_tanh_backward(dy, x, alpha, gamma)
    assert {a.dtype.name for a in found} == {dtype}
    half = torch.from_numpy(x).bfloat16()
    assert bnlib.dynamic_tanh(half, 0.7).dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("call", "kind", "says"),
    [
        (
            lambda x, g: bnlib.dynamic_tanh(x, np.ones(4)),
            ValueError,
            "alpha must be one",
        ),
        (lambda x, g: bnlib.dynamic_tanh(x, "a"), TypeError, "alpha must be a numpy"),
        (
            lambda x, g: bnlib.dynamic_tanh(x, True),
            ValueError,
            "alpha must be a finite",
        ),
        (lambda x, g: bnlib.dynamic_tanh(x, np.inf), ValueError, "0.5 is usual"),
        (lambda x, g: bnlib.dynamic_tanh(x, torch.ones(1)), TypeError, "one library"),
        (lambda x, g: bnlib.dynamic_tanh(x, 0.5, g[:3]), ValueError, "gamma must have"),
        (lambda x, g: bnlib.dynamic_tanh(g, 0.5), ValueError, "x must have shape"),
        (lambda x, g: bnlib.dynamic_tanh(x * np.nan, 0.5), ValueError, "x must be fin"),
        (
            lambda x, g: bnlib.dynamic_tanh_backward(x[:2], x, 0.5),
            ValueError,
            "dy must have shape",
        ),
    ],
)
def test_bad_input_is_named_with_a_cure(call, kind, says):
    x, _, _, gamma, _ = problem()
    with pytest.raises(kind, match=says):
        call(x, gamma)


def test_under_vmap_and_compile_like_tracers():
    x, _, alpha, gamma, beta = (torch.from_numpy(a) for a in problem())
    wanted = published(x, alpha, gamma, beta)

    def each(row):
        return bnlib.dynamic_tanh(row, alpha, gamma, beta)

    assert torch.allclose(vmap(each)(x), wanted)
    traced = torch.jit.trace(lambda x: bnlib.dynamic_tanh(x, alpha, gamma, beta), x)
    assert torch.allclose(traced(x + 1), published(x + 1, alpha, gamma, beta))


# --- the layer ------------------------------------------------------------------------


def layer(**options):
    made = DynamicTanh(4, **options).double()
    for p in made.parameters():
        nn.init.normal_(p)
    return made


def test_the_layer_is_the_published_one_and_differentiable_twice():
    torch.manual_seed(0)
    made, x = layer(), torch.randn(3, 5, 4, dtype=torch.float64, requires_grad=True)
    assert list(made.state_dict()) == ["alpha", "weight", "bias"]
    assert made.alpha.shape == (1,) and DynamicTanh(4).alpha.item() == 0.5
    assert torch.equal(made(x), published(x, *made.parameters()))
    assert torch.autograd.gradcheck(made, x) and torch.autograd.gradgradcheck(made, x)
    again = pickle.loads(pickle.dumps(made))
    assert torch.equal(again(x), made(x)) and type(made).__module__ == "bnlib.nn"


def test_what_the_layer_may_be_without():
    x = torch.randn(2, 3, 4)
    assert list(DynamicTanh((3, 4), bias=False).state_dict()) == ["alpha", "weight"]
    bare = DynamicTanh([3, 4], alpha_init=2.0, elementwise_affine=False)
    assert torch.equal(bare(x), torch.tanh(2 * x))
    assert "alpha_init=2.0" in repr(bare)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype):
    x, made = torch.randn(3, 4).to(dtype), DynamicTanh(4)
    assert torch.equal(made(x), torch.tanh(0.5 * x.float()).to(dtype))
    assert made.to(dtype)(x).dtype == dtype


def test_errors_are_layer_norms():
    for bad in (
        torch.ones(2, 3),
        torch.ones(2, 4).long(),
        [1.0],
        torch.ones(4).double(),
    ):
        kinds = []
        for made in (DynamicTanh(4), bnlib.nn.LayerNorm(4)):
            with pytest.raises((TypeError, RuntimeError)) as error:
                made(bad)
            kinds.append(error.type)
        assert kinds[0] is kinds[1], bad


def test_under_tracers_it_is_torchs_own_operators():
    made, x = DynamicTanh(4), torch.randn(3, 4)
    wanted = made(x)
    exported = torch.export.export(made, (x,))
    names = {str(node.target) for node in exported.graph.nodes if node.op != "output"}
    assert "aten.tanh.default" in names
    assert torch.equal(exported.module()(x), wanted)
    assert torch.equal(torch.jit.trace(made, x)(x), wanted)
    graph = torch.fx.symbolic_trace(nn.Sequential(made))
    assert [n.op for n in graph.graph.nodes].count("call_module") == 1
    assert torch.equal(graph(x), wanted)
    meta = DynamicTanh(4, device="meta")
    assert meta(torch.empty(2, 4, device="meta")).is_meta


# --- the long runs --------------------------------------------------------------------


def check(result, seeds):
    """Every place of the tables is filled, and `best` is the lowest mean."""
    config = result["provenance"]["config"]
    rates, warm_ups = len(config["map_lrs"]), len(config["warm_ups"])
    for place in config["places"]:
        shape = np.array(result["map"][place], float).shape
        assert shape == (rates, warm_ups, len(seeds))
    shape = np.array(result["constant"], float).shape
    assert shape == (len(config["constant_lrs"]), len(seeds))
    assert list(result["arms"]) == list(config["arms"]) == list(result["best"])
    for arm, losses in result["arms"].items():
        means = np.array(losses, float).mean(1)
        found = result["best"][arm]
        assert len(means) == len(config["lrs"])
        assert found["lr"] == config["lrs"][np.nanargmin(means)]
        assert found["mean"] == pytest.approx(np.nanmin(means), rel=1e-3)


def test_recorded_transformers():
    result = load(RESULTS / "transformers.json")
    check(result, [0, 1, 2])
    check_script(result, transformers, steps=150)
    assert 3.1 < result["letters"] < 3.4


def test_transformers_script(tmp_path, monkeypatch):
    arms = {
        name: transformers.ARMS[name] for name in ("batch", "out, QK-norm, 12 blocks")
    }
    small = {"map_lrs": [1e-3], "warm_ups": [2], "lrs": [1e-3, 1e-2], "map_blocks": 1}
    small["arms"] = {name: list(arm) for name, arm in arms.items()}
    monkeypatch.setattr(transformers, "ARMS", arms)
    monkeypatch.setattr(transformers, "CONFIG", {**transformers.CONFIG, **small})
    check(run_small(transformers, "--seeds 7 --steps 2", tmp_path), [7])


def test_a_loss_that_is_not_finite_is_none():
    setting = {"arm": "none", "lr": 1e9, "warm_up": 0, "seed": 0, "steps": 3}
    torch.manual_seed(0)
    run = transformers.Trained(setting, transformers.load())
    for _ in range(3):
        run.update()
    assert run.result([run.measure()]) is None


def test_warm_up_reaches_the_rate():
    setting = {"arm": "layer", "lr": 0.01, "warm_up": 4, "seed": 0, "steps": 6}
    run, seen = transformers.Trained(setting, transformers.load()), []
    for _ in range(6):
        seen.append(run.optimizer.param_groups[0]["lr"])
        run.update()
    np.testing.assert_allclose(seen, [0.0025, 0.005, 0.0075, 0.01, 0.01, 0.01])
