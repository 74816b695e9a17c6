"""The layers against the plain ones: values, derivatives, far means, odd input."""

import pytest
import torch
from company import pairs
from torch import nn
from torch.testing import assert_close

import bnlib.nn as ours
import bnlib.nn._batch_norm as derived
import bnlib.nn._exact as nnfast

# Every way through the chapter's table of rules, and their borders.
SHAPES = [
    (2, 1),
    (60, 100),
    (5000, 3),
    (9001, 2),
    (4, 3, 5),
    (2, 3, 1),
    (8, 3, 100),
    (8, 4, 1, 1),
    (3, 1, 9, 9),
    (32, 16, 28, 28),
    (1, 2, 70, 3),
    (2, 3, 4, 5, 6),
    (2, 5, 3, 40, 70),
]
LAYOUTS = ["contiguous", "last", "sliced", "transposed"]
# What every batch may be: a shape, how it lies in memory, and the way that it takes.
BATCHES = {"shape": SHAPES, "layout": LAYOUTS, "way": ["by size", "as many"]}


@pytest.fixture
def way(request, monkeypatch):
    """The way that fits the size of a batch, and the one for many values."""
    if request.param == "as many":
        monkeypatch.setattr(nnfast, "normalize", nnfast.from_many)


def layer_for(shape, **options):
    return getattr(ours, f"BatchNorm{max(len(shape) - 2, 1)}d")(shape[1], **options)


def laid_out(x, layout):
    if layout == "last":
        return x.movedim(1, -1).contiguous().movedim(-1, 1)
    if layout == "sliced":
        return torch.stack([x, x], -1)[..., 0]
    if layout == "transposed":
        return x.transpose(0, 1).contiguous().transpose(0, 1)
    return x


def exact(x, eps=1e-5):
    wide = x.double()
    axes = (0, *range(2, x.ndim))
    wide = wide - wide.mean(axes, keepdim=True)
    return wide / ((wide**2).mean(axes, keepdim=True) + eps) ** 0.5


def step(layer, x):
    x = x.detach().requires_grad_()
    y = layer(x)
    dy = torch.randn(y.shape, generator=torch.Generator().manual_seed(1)).to(y)
    y.backward(dy)
    seen = {"y": y.detach(), "dx": x.grad}
    for name, p in layer.named_parameters():
        seen |= {} if p.grad is None else {name: p.grad.clone()}
    return seen | {n: b.clone() for n, b in layer.named_buffers()}


# --- the layers -----------------------------------------------------------------------


@pairs("way", **BATCHES, mean=[0.0, 3.0, 30.0, 1e4, 1e6])
def test_exact_at_any_mean(shape, layout, mean):
    x = laid_out(torch.randn(shape) + mean, layout)
    y = layer_for(shape)(x)
    # The deviation of a few values may be that of their rounding.
    if x.numel() > 16 * shape[1]:
        assert (y.detach().double() - exact(x)).abs().max() < 5e-6


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("layout", ["contiguous", "last"])
def test_exact_with_any_number_of_threads(threads, layout):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for mean in (0.0, 1e4, 1e6):
            x = laid_out(torch.randn(16, 8, 56, 56) + mean, layout)
            y = ours.BatchNorm2d(8)(x).detach()
            assert (y.double() - exact(x)).abs().max() < 5e-6
    finally:
        torch.set_num_threads(before)


@pairs("way", **BATCHES, affine=[True, False], training=[True, False])
def test_equal_to_the_plain_layer(shape, layout, affine, training):
    quick = layer_for(shape, affine=affine, dtype=torch.float64).train(training)
    with torch.no_grad():
        for tensor in quick.state_dict().values():
            if tensor.is_floating_point():
                tensor.copy_(torch.rand(tensor.shape) + 0.5)
    plain = getattr(derived, type(quick).__name__)(
        shape[1], affine=affine, dtype=torch.float64
    )
    plain.load_state_dict(quick.state_dict())
    plain.train(training)
    x = laid_out(torch.randn(shape, dtype=torch.float64) + 1, layout)
    for batch in (x, 2 * x + 30):
        a, b = step(quick, batch), step(plain, batch)
        assert a.keys() == b.keys()
        for name in a:
            assert_close(a[name], b[name], rtol=1e-8, atol=1e-9, msg=name)
        strides = zip(shape, a["y"].stride(), b["y"].stride(), strict=True)
        assert all(s == t for n, s, t in strides if n > 1)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    ("mean", "outlier"), [(0.0, 30.0), (0.0, 1e4), (0.0, 1e7), (1e5, 1e3)]
)
def test_a_first_value_that_is_an_outlier_does_no_harm(layout, mean, outlier):
    x = torch.randn(16, 4, 30, 30) + mean
    x[0, :, 0, 0] += outlier
    y = ours.BatchNorm2d(4)(laid_out(x, layout)).detach().double()
    wanted = exact(x)
    assert (y - wanted)[1:].abs().max() < 5e-6
    assert ((y / wanted)[0, :, 0, 0] - 1).abs().max() < 5e-6


FOLLOWED = {
    "compiler": lambda f, x: torch.compile(f, backend="aot_eager")(x),
    "torch.func": lambda f, x: torch.func.vjp(f, x)[0],
    "vmap": lambda f, x: torch.func.vmap(f)(x[None])[0],
    "forward mode": lambda f, x: torch.func.jvp(f, (x,), (x,))[0],
    "chapter 5": lambda f, x: derived.batch_norm(x, None, None, training=True),
}


@pytest.mark.parametrize("layout", ["contiguous", "last"])
@pytest.mark.parametrize("mean", [0.0, 1e4, 1e6])
@pytest.mark.parametrize("how", FOLLOWED)
def test_exact_for_all_that_follows_operations(how, mean, layout):
    torch._dynamo.reset()
    x = laid_out(torch.randn(16, 4, 20, 20) + mean, layout)

    def function(x):
        return nnfast.batch_norm(x, None, None, training=True)

    y = FOLLOWED[how](function, x).detach()
    assert (y.double() - exact(x)).abs().max() < 5e-6


def test_the_memory_of_x_is_watched():
    """Between forward and backward x may not change: as with any other function."""
    x = (torch.randn(32, 16, 28, 28).requires_grad_()) * 1
    y = ours.BatchNorm2d(16)(x)
    x.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


@pairs("way", **BATCHES, value=[0.0, 0.1, -1234.567, 3e8])
def test_a_constant_gives_exactly_beta(shape, layout, value):
    layer = layer_for(shape)
    layer.bias.data.uniform_(-3, 3)
    y = layer(laid_out(torch.full(shape, value), layout))
    wanted = layer.bias.reshape(1, -1, *[1] * (len(shape) - 2)).expand(shape)
    assert torch.equal(y, wanted)


@pytest.mark.parametrize("layout", ["contiguous", "last"])
def test_large_values_do_not_overflow(layout):
    x = laid_out(torch.randn(8, 3, 20, 20), layout)
    layer = ours.BatchNorm2d(3, track_running_stats=False)
    y = layer(x * 1e30)
    assert y.dtype == torch.float32
    assert_close(y, layer(x), rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match="running_var would become NaN or infinite"):
        ours.BatchNorm2d(3)(x * 1e30)


def test_where_nobody_can_look_an_overflow_is_nan():
    layer = ours.BatchNorm2d(3, track_running_stats=False)
    x = torch.randn(8, 3, 9, 9) * 1e30
    assert torch.compile(layer, backend="aot_eager")(x).isnan().all()
    assert torch.func.vmap(layer)(x[None]).isnan().all()
    assert layer(x.bfloat16()).isnan().all()
    assert nn.BatchNorm2d(3)(x).abs().max() == 0


def test_running_statistics_of_a_far_batch():
    x = torch.randn(60, 3) + 1e6
    layer = ours.BatchNorm1d(3, momentum=1.0)
    layer(x)
    assert_close(layer.running_mean.double(), x.double().mean(0), rtol=1e-7, atol=0)
    assert_close(layer.running_var.double(), x.double().var(0), rtol=1e-6, atol=0)


def test_evaluation_is_exact_with_a_far_running_mean():
    x = torch.randn(32, 3) + 1e4
    layer = ours.BatchNorm1d(3).eval()
    layer(x)  # what was true of the first statistics must not be believed of the next
    layer.running_mean.fill_(1e4)
    y = layer(x).detach()
    assert (y.double() - (x.double() - 1e4) / (1 + 1e-5) ** 0.5).abs().max() < 5e-6
    layer.load_state_dict(ours.BatchNorm1d(3).state_dict())
    assert "Native" in str(layer(x).grad_fn)


# --- in place -------------------------------------------------------------------------


def in_place_pair(dtype=torch.float64, **options):
    layer = ours.InPlaceABN(3, slope=0.2, dtype=dtype, **options)
    with torch.no_grad():
        for p in layer.parameters():
            p.uniform_(0.5, 2)
    plain = derived.BatchNorm2d(3, dtype=dtype, **options)
    plain.load_state_dict(layer.state_dict())
    return layer, plain


@pairs(layout=LAYOUTS, mean=[0.0, 1e4], affine=[True, False])
def test_in_place_is_batch_norm_and_leaky_relu(layout, mean, affine):
    layer, plain = in_place_pair(affine=affine)
    x = laid_out(torch.randn(4, 3, 9, 8).double() + mean, layout)
    if affine:
        plain.weight.data += 1e-5
    for training in (True, False):
        layer.train(training), plain.train(training)
        layer.zero_grad(), plain.zero_grad()
        a = step(layer, x)
        b = step(nn.Sequential(plain, nn.LeakyReLU(0.2)), x)
        for name in a:
            other = b[name if name in ("y", "dx") else f"0.{name}"]
            assert_close(a[name], other, rtol=1e-7, atol=1e-8, msg=f"{name} {training}")


def kept_by(module, x):
    kept = {}

    def pack(t):
        kept[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        z = module(x)
    kept[z.untyped_storage().data_ptr()] = z.untyped_storage().nbytes()
    return sum(kept.values()) / x.nbytes


@pytest.mark.parametrize("layout", ["contiguous", "last"])
def test_in_place_keeps_one_activation(layout):
    x = laid_out(torch.randn(4, 3, 30, 30), layout).requires_grad_()
    assert kept_by(ours.InPlaceABN(3), x) < 1.2
    pair = nn.Sequential(nn.BatchNorm2d(3), nn.LeakyReLU())
    assert kept_by(pair, x) > 2.9


@pytest.mark.parametrize("slope", [0, -1, float("nan"), float("inf")])
def test_in_place_needs_a_slope_that_can_be_inverted(slope):
    with pytest.raises(ValueError, match="slope must be positive"):
        ours.InPlaceABN(3, slope=slope)


def test_in_place_says_what_is_wrong_with_the_input():
    with pytest.raises(ValueError, match="at least 2D"):
        ours.InPlaceABN(3)(torch.randn(3))
    with pytest.raises(RuntimeError, match="4 elements not 3"):
        ours.InPlaceABN(3)(torch.randn(5, 4))
    with pytest.raises(ValueError, match="more than 1 value"):
        ours.InPlaceABN(3)(torch.randn(1, 3))
