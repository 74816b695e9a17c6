"""Layer, instance, group and RMS norm: what is theirs alone.

The layers are tested together with batch norm in test_nn.py, the array functions in
test_functions.py.
"""

import itertools
import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import bnlib
import bnlib.nn as ours_nn
from bnlib.nn import functional as ours_f

# --- bad input ------------------------------------------------------------------------

X = torch.arange(24.0).reshape(2, 3, 4)
ONES = torch.ones(3)
BAD = {
    "layer, list": (lambda f: f.layer_norm([1.0], (1,)), "must be Tensor, not list"),
    "layer, integers": (
        lambda f: f.layer_norm(X.long(), (4,)),
        '"layer_norm" not implemented for torch.int64; convert the input',
    ),
    "layer, complex": (lambda f: f.layer_norm(X + 0j, (4,)), "not implemented for"),
    "layer, number": (
        lambda f: f.layer_norm(X, 4),
        "must be tuple of ints, not 4; for",
    ),
    "layer, floats": (lambda f: f.layer_norm(X, (4.0,)), "must be tuple of ints"),
    "layer, no shape": (lambda f: f.layer_norm(X, None), "must be tuple of ints"),
    "layer, empty shape": (lambda f: f.layer_norm(X, ()), "at least 1-dimensional"),
    "layer, other shape": (
        lambda f: f.layer_norm(X, (3,)),
        r"Given normalized_shape=\[3\], expected input with shape \[\*, 3\], but got "
        r"input of size \[2, 3, 4\]; move",
    ),
    "layer, long shape": (lambda f: f.layer_norm(X, (1, 2, 3, 4)), "Given normalized"),
    "layer, scalar": (lambda f: f.layer_norm(torch.tensor(1.0), (1,)), "Given norm"),
    "layer, weight": (
        lambda f: f.layer_norm(X, (4,), ONES),
        r"Expected weight to be of same shape .* got weight of shape \[3\]",
    ),
    "layer, bias": (
        lambda f: f.layer_norm(X, (4,), None, torch.ones(1, 4)),
        "Expected bias to be of same shape as normalized_shape",
    ),
    "layer, dtype": (
        lambda f: f.layer_norm(X, (4,), torch.ones(4).double()),
        r"mixed dtype: input torch.float32, parameters \['torch.float64'\]; convert",
    ),
    "layer, half weight": (
        lambda f: f.layer_norm(X, (4,), torch.ones(4).half()),
        "mixed dtype",
    ),
    "layer, two dtypes": (
        lambda f: f.layer_norm(X.half(), (4,), torch.ones(4), torch.ones(4).half()),
        "mixed dtype",
    ),
    "layer, eps": (lambda f: f.layer_norm(X, (4,), eps="a"), None),
    "layer, no eps": (lambda f: f.layer_norm(X, (4,), eps=None), None),
    "layer, device": (
        lambda f: f.layer_norm(X, (4,), torch.ones(4, device="meta")),
        None,
    ),
    "RMS, list": (lambda f: f.rms_norm([1.0], (1,)), "must be Tensor, not list"),
    "RMS, integers": (lambda f: f.rms_norm(X.long(), (4,)), '"rms_norm" not implem'),
    "RMS, other shape": (lambda f: f.rms_norm(X, (3,)), "Given normalized_shape="),
    "RMS, long shape": (
        lambda f: f.rms_norm(X, (1, 2, 3, 4)),
        "Input tensor must have at least 4 dimensions, but got 3",
    ),
    "RMS, number": (lambda f: f.rms_norm(X, 4), "must be tuple of ints"),
    "RMS, weight": (lambda f: f.rms_norm(X, (4,), ONES), "Expected weight to be of"),
    "group, integers": (lambda f: f.group_norm(X.long(), 3), "not implemented for"),
    "group, vector": (lambda f: f.group_norm(X[0, 0], 1), "Expected at least 2 dimens"),
    "group, negative": (lambda f: f.group_norm(X, -1), "greater than 0, got -1"),
    "group, two of three": (
        lambda f: f.group_norm(X, 2),
        r"divisible by num_groups, .* of shape \[2, 3, 4\] and num_groups=2; pass",
    ),
    "group, float": (lambda f: f.group_norm(X, 1.0), "'num_groups' must be int, not 1"),
    "group, True": (lambda f: f.group_norm(X, True), "must be int, not True"),
    "group, weight": (
        lambda f: f.group_norm(X, 3, torch.ones(4)),
        r"Expected weight to be a vector .* got weight of shape \[4\]",
    ),
    "group, bias": (
        lambda f: f.group_norm(X, 3, None, torch.ones(1, 3)),
        r"Expected bias to be a vector .* got bias of shape \[1, 3\]",
    ),
    "group, dtype": (lambda f: f.group_norm(X, 3, ONES.double()), "mixed dtype"),
    "group, one value": (
        lambda f: f.group_norm(X[:1, :, 0], 3),
        r"Expected more than 1 value per channel .* \[1, 3\]; every group has one",
    ),
    "group, layer for other channels": (
        lambda f: (nn if f is F else ours_nn).GroupNorm(2, 6)(X[:, :2]),
        "Expected weight to be a vector",
    ),
    "instance, integers": (lambda f: f.instance_norm(X.long()), "not implemented for"),
    "instance, one position": (
        lambda f: f.instance_norm(X[..., :1]),
        r"Expected more than 1 spatial element .* \(2, 3, 1\); their variance is 0",
    ),
    "instance, no positions": (lambda f: f.instance_norm(X[..., 0]), "1 spatial elem"),
    "instance, vector": (lambda f: f.instance_norm(X[0, 0]), "1 spatial element"),
    "instance, no statistics": (
        lambda f: f.instance_norm(X, use_input_stats=False),
        "Expected running_mean and running_var to be defined when use_input_stats is",
    ),
    "instance, one statistic": (
        lambda f: f.instance_norm(X, ONES, use_input_stats=False),
        "Expected running_mean and running_var to be defined",
    ),
    "instance, only the variance": (
        lambda f: f.instance_norm(X, None, ONES),
        "must either both be None or neither be None; running_mean is None",
    ),
    "instance, other statistics": (
        lambda f: f.instance_norm(X, torch.ones(4), torch.ones(4)),
        "running_mean should contain 3 elements not 4",
    ),
    "instance, weight": (
        lambda f: f.instance_norm(X, weight=torch.ones(4)),
        "weight should contain 3 elements not 4",
    ),
    "instance, dtype": (
        lambda f: f.instance_norm(X, weight=ONES.double()),
        "mixed dtype",
    ),
    "instance, layer for other channels": (
        lambda f: (nn if f is F else ours_nn).InstanceNorm1d(4, affine=True)(X),
        r"expected input's size at dim=1 to match num_features \(4\), but got: 3",
    ),
    "instance, images in 1d": (
        lambda f: (nn if f is F else ours_nn).InstanceNorm1d(3)(X[None, None]),
        "expected 2D or 3D input",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_raises_torchs_error_and_says_more(case):
    call, message = BAD[case]
    with pytest.raises(Exception) as theirs:
        call(F)
    with pytest.raises(type(theirs.value), match=message):
        call(ours_f)


def test_what_torch_refuses_in_words_of_python_gets_an_error_of_ours():
    # torch: "'list' object has no attribute 'dim'", "integer modulo by zero", ...
    for name, arguments in (("group_norm", (2,)), ("instance_norm", ())):
        with pytest.raises(TypeError, match="must be Tensor, not list; convert it"):
            getattr(ours_f, name)([1.0], *arguments)
    with pytest.raises(RuntimeError, match="greater than 0, got 0; 1 is layer norm"):
        ours_f.group_norm(X, 0)
    with pytest.raises(TypeError, match="must be int, not None"):
        ours_f.group_norm(X, None)


def test_the_warning_about_unused_features_is_kept():
    with pytest.warns(UserWarning, match="does not match num_features"):
        ours_nn.InstanceNorm1d(4)(X)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ours_nn.InstanceNorm1d(3)(X)


# --- the array functions, beyond what test_functions.py asks of all -------------------

rng = np.random.default_rng(0)


SHAPE = (3, 2, 4)
EVERY_AXES = [
    axes for r in (1, 2, 3) for axes in itertools.combinations(range(len(SHAPE)), r)
]


@pytest.mark.parametrize("axes", [*EVERY_AXES, -1, (-1, 0), [1], (2, 1)], ids=str)
@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_any_axes_forward_and_backward(axes, library):
    x = rng.normal(size=SHAPE)
    listed = [axes] if isinstance(axes, int) else axes
    positive = tuple(sorted(a % 3 for a in listed))
    shape = [SHAPE[a] for a in positive]
    gamma, beta, dy = (
        rng.normal(size=shape),
        rng.normal(size=shape),
        rng.normal(size=x.shape),
    )
    last = [a for a in range(3) if a not in positive] + list(positive)

    def turned(a):  # the axes to the end, as torch wants them
        return torch.tensor(np.transpose(a, last))

    leaves = [turned(x), torch.tensor(gamma), torch.tensor(beta)]
    leaves = [a.requires_grad_() for a in leaves]
    for name, n in (("layer", 3), ("rms", 2)):
        forward, backward = (
            getattr(bnlib, f"{name}_norm{s}") for s in ("", "_backward")
        )
        given = x, gamma, beta, dy
        if library == "torch":
            given = [torch.tensor(a) for a in given]
        y, cache = forward(*given[:n], axes=axes, eps=0.1)
        answers = [y, *backward(given[3], cache)]
        wanted = getattr(F, f"{name}_norm")(leaves[0], shape, *leaves[1:n], eps=0.1)
        gradients = torch.autograd.grad(wanted, leaves[:n], turned(dy))
        back = np.argsort(last)
        wanted = [wanted.detach().permute(*back), gradients[0].permute(*back)]
        for a, b in zip(answers, [*wanted, *gradients[1:]], strict=True):
            assert tuple(a.shape) == tuple(b.shape)
            np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("num_groups", [1, 2, 3, 6])
@pytest.mark.parametrize("shape", [(4, 6), (2, 6, 3), (2, 6, 2, 2)], ids=str)
def test_groups_of_neighbouring_channels(num_groups, shape):
    x, dy = rng.normal(size=(2, *shape))
    gamma, beta = rng.normal(size=(2, 6))
    leaves = [torch.tensor(a, requires_grad=True) for a in (x, gamma, beta)]
    wanted = F.group_norm(leaves[0], num_groups, *leaves[1:])
    wanted.backward(torch.tensor(dy))
    y, cache = bnlib.group_norm(x, gamma, beta, num_groups=num_groups)
    wanted = [wanted.detach(), *(leaf.grad for leaf in leaves)]
    answers = [y, *bnlib.group_norm_backward(dy, cache)]
    for a, b in zip(answers, wanted, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10)


def test_rms_norm_of_centred_data_is_layer_norm():
    x = rng.normal(size=(5, 4))
    x -= x.mean(axis=1, keepdims=True)
    np.testing.assert_allclose(bnlib.rms_norm(x)[0], bnlib.layer_norm(x)[0], atol=1e-14)


def test_what_the_cache_holds_is_what_onnx_asks_for():
    x = rng.normal(size=(3, 4))
    _, (_, mean, std, _, axes) = bnlib.layer_norm(x, eps=0.1)
    np.testing.assert_allclose(mean, x.mean(axis=1, keepdims=True))
    np.testing.assert_allclose(std, (x.var(axis=1, keepdims=True) + 0.1) ** 0.5)
    assert axes == (1,)


@pytest.mark.parametrize("scale", [1e-3, 7.0])
@pytest.mark.parametrize("shift", [0.0, 5.0])
def test_invariances(scale, shift):
    x = rng.normal(size=(3, 4, 6))
    first = np.array([1.0, 0, 0])[:, None, None]
    for f, keeps_shift in (
        (lambda x: bnlib.layer_norm(x, eps=0)[0], True),
        (lambda x: bnlib.group_norm(x, num_groups=2, eps=0)[0], True),
        (lambda x: bnlib.instance_norm(x, eps=0)[0], True),
        (lambda x: bnlib.rms_norm(x, eps=0)[0], False),
    ):
        moved = f(x * (1 + (scale - 1) * first) + shift * first)
        same = np.allclose(moved, f(x), atol=1e-9)
        assert same == (keeps_shift or shift == 0)
        np.testing.assert_array_equal(f(x)[:1], f(x[:1]))  # nobody else matters


FAR = {
    "LayerNorm": lambda library: library.LayerNorm(64),
    "GroupNorm": lambda library: library.GroupNorm(4, 12),
    "InstanceNorm2d": lambda library: library.InstanceNorm2d(12, affine=True),
}


@pytest.mark.parametrize("name", FAR)
@pytest.mark.parametrize("mean", [0.0, 1e4, 1e6])
def test_layers_keep_their_digits_far_from_zero(name, mean):
    x = torch.randn(16, 12, 8, 64) + mean
    a, b = (x.to(t, copy=True).requires_grad_() for t in (torch.float32, torch.float64))
    mine, wanted = FAR[name](ours_nn)(a), FAR[name](nn).double()(b)
    assert (mine - wanted).abs().max() < 5e-6
    dy = torch.randn(x.shape)
    mine.backward(dy), wanted.backward(dy.double())
    assert (a.grad - b.grad).abs().max() < 5e-6
    constant = FAR[name](ours_nn)(torch.full_like(x, mean + 0.1))
    assert constant.abs().max() < 1e-5


@pytest.mark.parametrize("name", FAR)
def test_a_variance_that_overflows_is_not_silent(name):
    """PyTorch's group norm returns zeros: the inverse of an infinite deviation."""
    assert FAR[name](ours_nn)(torch.randn(4, 12, 8, 64) * 1e30).isnan().all()


@pytest.mark.parametrize(
    ("shape", "other"), [((2, 3, 5), (2, 3, 2, 4)), ((1, 2, 3, 2), (1, 2, 7))], ids=str
)
def test_a_channel_gets_the_moments_of_a_style(shape, other):
    forward, backward = (
        bnlib.adaptive_instance_norm,
        bnlib.adaptive_instance_norm_backward,
    )
    rng = np.random.default_rng(0)
    x, style, dy = (
        rng.normal(3, 2, shape),
        rng.normal(size=other),
        rng.normal(size=shape),
    )
    y, cache = forward(x, style)
    leaves = [torch.tensor(a, requires_grad=True) for a in (x, style)]
    both = [a.flatten(2) for a in leaves]
    (mean, std), (shift, scale) = (
        (a.mean(2), (a.var(2, correction=0) + 1e-5) ** 0.5) for a in both
    )
    wanted = (both[0] - mean[..., None]) / std[..., None] * scale[..., None]
    wanted = (wanted + shift[..., None]).view(shape)
    wanted.backward(torch.tensor(dy))
    np.testing.assert_allclose(y, wanted.detach(), rtol=1e-12, atol=1e-12)
    y_t, cache_t = forward(*(torch.tensor(a) for a in (x, style)))
    np.testing.assert_allclose(y_t, y, rtol=1e-13, atol=1e-13)
    for found in (backward(dy, cache), backward(torch.tensor(dy), cache_t)):
        for ours, leaf in zip(found, leaves, strict=True):
            np.testing.assert_allclose(ours, leaf.grad, rtol=1e-10, atol=1e-12)
    assert torch.autograd.gradcheck(lambda *a: forward(*a)[0], leaves)
    assert torch.autograd.gradgradcheck(lambda *a: forward(*a)[0], leaves)
    half = forward(*(torch.tensor(a).half() for a in (x, style)))[0]
    assert half.dtype == torch.float16
    np.testing.assert_allclose(half, y, atol=0.02)
    with pytest.raises(ValueError, match="style must have shape"):
        forward(x, style[:, :1])
    with pytest.raises(ValueError, match="does not vary and eps is 0"):
        forward(0 * x, style, eps=0)
