"""Chapter 18's tools on models people have: compiled, wrapped, odd, broken."""

import copy
import json

import pytest
import torch
from models import assert_unchanged, codes, made, normal, state
from torch import nn
from torch.optim.swa_utils import AveragedModel

import bnlib
from bnlib.nn import BatchNorm1d, InPlaceABN


def recalibrated(model, data):
    bnlib.recalibrate(model, data, progress=False)
    return model


def folded(model, batch=None):
    """The folded copy, and {norm: layer it went into or None}."""
    copied = bnlib.fold_model(model, batch)
    return copied, {f.norm: f.into for f in copied.fold_report}


def pair(width, kernel=None):
    """A layer and its norm: linear, or a convolution with a kernel."""
    if kernel is None:
        return nn.Linear(width, width), nn.BatchNorm1d(width)
    return nn.Conv2d(width, width, kernel), nn.BatchNorm2d(width)


def behind_one_another(forward, **more):
    linear, norm = pair(6)
    return made(forward, linear=linear, norm=norm, **more)


class NormAct(nn.BatchNorm2d):
    """A norm with dropout and an activation inside, as model zoos have it."""

    def __init__(self, channels, act=nn.ReLU):
        super().__init__(channels)
        self.drop, self.act = nn.Identity(), act()

    def forward(self, x):
        running = self.running_mean, self.running_var
        running = (None, None) if self.training else running
        affine = self.weight, self.bias
        y = nn.functional.batch_norm(x, *running, *affine, self.training, 0.1, self.eps)
        return self.act(self.drop(y))


FROZEN = {"weight": 2.0, "bias": 1.0, "running_mean": 0.5, "running_var": 4.0}


class Frozen(nn.Module):
    """The batch norm of detection networks: buffers alone, and no momentum."""

    def __init__(self, channels):
        super().__init__()
        for name, fill in FROZEN.items():
            self.register_buffer(name, torch.full((channels,), fill))

    def forward(self, x):
        scale = self.weight * (self.running_var + 1e-5) ** -0.5
        shift = self.bias - self.running_mean * scale
        return x * scale[:, None, None] + shift[:, None, None]


def convolutional(norm=nn.BatchNorm2d, between=nn.Identity):
    torch.manual_seed(0)
    first = [nn.Conv2d(3, 8, 3, bias=False), norm(8), between()]
    second = [nn.Conv2d(8, 8, 1, bias=False), norm(8), between()]
    return nn.Sequential(*first, *second, nn.Flatten(), nn.Linear(8 * 36, 4))


X = normal(32, 3, 8, 8)
EAGER = {"backend": "eager"}


def by_layer(norm):
    return nn.Sequential(torch.compile(norm, **EAGER))


def as_a_whole(norm):
    return torch.compile(nn.Sequential(norm), **EAGER)


def part_in_place(norm):
    part = nn.Sequential(norm)
    part.compile(**EAGER)
    return nn.Sequential(part)


class TestCompiled:
    @pytest.mark.parametrize(
        ("how", "norm"),
        [
            (by_layer, BatchNorm1d),
            (as_a_whole, nn.BatchNorm1d),
            (part_in_place, BatchNorm1d),
        ],
    )
    def test_what_was_compiled_is_seen_and_mended(self, how, norm):
        model, x = how(norm(5)).eval(), normal(64, 5, mean=3.0)
        model(x)  # compiled now: hooks made later would not run
        list(model.parameters())
        layer = next(m for m in model.modules() if isinstance(m, norm))
        layer.running_mean.fill_(0.1)
        before = state(model)
        report = bnlib.diagnose(model, x)
        assert [f.code for f in report] == ["far-statistics"]
        assert report.layers == 1
        assert_unchanged(model, before)
        (name,) = bnlib.recalibrate(model, [x], progress=False)
        torch.testing.assert_close(layer.running_mean, x.mean(0))
        torch.testing.assert_close(layer.running_var, x.var(0))
        assert not bnlib.diagnose(model, x) and name == report[0].layer
        torch.testing.assert_close(model(x).mean(0), layer.bias, atol=1e-5, rtol=0)

    def test_a_compiled_model_is_folded(self):
        model = recalibrated(convolutional(), [X]).eval()
        parts = nn.Sequential(torch.compile(model[:3], **EAGER), *model[3:])
        whole = torch.compile(parts, **EAGER).eval()
        whole(X)
        result, into = folded(whole, X)
        torch.testing.assert_close(result(X), whole(X), rtol=1e-4, atol=1e-5)
        assert len(into) == 2 and all(into.values())
        assert type(result) is type(result[0]) is nn.Sequential


class TestNormsWithMoreInside:
    @pytest.mark.parametrize("act", [nn.SiLU, nn.Identity])
    def test_healthy_ones_are_silent_and_folded(self, act):
        model = convolutional(lambda c: NormAct(c, act))
        recalibrated(model, [X]).eval()
        for m in model[1], model[4]:
            nn.init.normal_(m.weight), nn.init.normal_(m.bias)
        recalibrated(model, [X])
        before = state(model)
        assert not bnlib.diagnose(model, X)
        assert_unchanged(model, before)
        for batch in (X, None):
            result, into = folded(model, batch)
            assert into == {"1": "0", "4": "3"}
            torch.testing.assert_close(result(X), model(X), rtol=1e-4, atol=1e-5)
            assert type(result[1]) is act
        assert_unchanged(model, before)

    def test_parts_that_nobody_calls_are_not_put_in_place(self):
        model = recalibrated(convolutional(NormAct), [X])
        lost = nn.SyncBatchNorm.convert_sync_batchnorm(model).eval()
        result, into = folded(lost)
        assert all(into.values()) and isinstance(result[1], nn.Identity)
        torch.testing.assert_close(result(X), lost(X), rtol=1e-4, atol=1e-5)

    def test_one_that_cannot_be_tried_stays(self):
        class Fussy(NormAct):
            def forward(self, x):
                if x.shape[-1] != 6:
                    raise RuntimeError("six pixels, please")
                return super().forward(x)

        model = recalibrated(convolutional(), [X])
        model[1] = Fussy(8)
        recalibrated(model, [X]).eval()
        result, into = folded(model, X)
        assert into == {"1": None, "4": "3"}
        assert "six pixels" in result.fold_report[0].why

    def test_what_is_done_inside_by_a_function_stays(self):
        class Rectified(nn.BatchNorm2d):
            def forward(self, x):
                return super().forward(x).relu()

        model = recalibrated(convolutional(Rectified), [X]).eval()
        assert not bnlib.diagnose(model, X)
        with pytest.warns(UserWarning, match="0 of 2 .* folded"):
            result, into = folded(model, X)
        assert into == {"1": None, "4": None} and len(result) == len(model)
        assert "does more than normalize" in result.fold_report[0].why

    def test_in_place_activated_norms_are_left_alone(self):
        model = convolutional(InPlaceABN)
        model[4] = nn.BatchNorm2d(8)
        recalibrated(model, [X]).eval()
        assert not bnlib.diagnose(model, X)
        result, into = folded(model, X)
        assert into == {"1": None, "4": "3"} and isinstance(result[1], InPlaceABN)
        torch.testing.assert_close(result(X), model(X), rtol=1e-4, atol=1e-5)


class TestFrozenNorms:
    def test_are_seen_measured_on_request_and_folded(self):
        model = convolutional(Frozen).eval()
        assert codes(model, X) == {"far-statistics"}
        assert not codes(model.train(), X) & {"thawed", "eval-layer", "few-values"}
        model.eval()
        result, into = folded(model, X)
        assert into == {"1": "0", "4": "3"} and isinstance(result[1], nn.Identity)
        torch.testing.assert_close(result(X), model(X), rtol=1e-4, atol=1e-5)
        bnlib.recalibrate(model, [X], layers=["1", "4"], progress=False)
        assert not codes(model, X)

    def test_are_not_measured_beside_others(self):
        model = convolutional(Frozen)
        model[4] = nn.BatchNorm2d(8)
        assert bnlib.recalibrate(model, [X], progress=False) == ["4"]

    def test_a_bias_before_one_is_of_use(self):
        model = convolutional(Frozen)
        model[0] = nn.Conv2d(3, 8, 3)
        assert "useless-bias" not in codes(model, X)


def spectral(model):
    nn.utils.parametrizations.spectral_norm(model[0])


def hook(model):
    model[0].register_forward_hook(lambda m, x, y: None)


def pre_hook(model):
    model[0].register_forward_pre_hook(lambda m, x: None)


def own_forward(model):
    class Scaled(nn.Conv2d):
        def forward(self, x):
            return super().forward(x).abs()

    model[0].__class__ = Scaled


def forward_of_its_own(model):
    model[0].forward = lambda x, of=model[0]: nn.Conv2d.forward(of, x) + 1


def hooked_norm(model):
    model[1].register_forward_hook(lambda m, x, y: None)


ODD = [spectral, hook, pre_hook, own_forward, forward_of_its_own, hooked_norm]


class TestOneOddPair:
    @pytest.mark.parametrize("make", ODD)
    def test_the_others_are_folded_and_it_says_why(self, make):
        model = recalibrated(convolutional(), [X]).eval()
        make(model)
        recalibrated(model.eval(), [X])
        assert folded(model, X)[1] == {"1": None, "4": "3"}
        result, into = folded(model)
        assert into == {"1": None, "4": "3"} and result.fold_report[0].why
        torch.testing.assert_close(result(X), model(X), rtol=1e-4, atol=1e-5)
        assert "1 of 2 normalization layers folded" in repr(result.fold_report)

    def test_a_subclass_that_does_the_same_sums_is_folded(self):
        class Same(nn.Conv2d):  # pads by itself, as converted networks do
            def forward(self, x):
                x = nn.functional.pad(x, (0, 1, 0, 1))
                return self._conv_forward(x, self.weight, self.bias)

        model = convolutional()
        model[0] = Same(3, 8, 4, bias=False)
        recalibrated(model, [X]).eval()
        result, into = folded(model, X)
        assert into == {"1": "0", "4": "3"} and type(result[0]) is Same
        torch.testing.assert_close(result(X), model(X), rtol=1e-4, atol=1e-5)

    def test_averaged_and_wrapped_models(self):
        def wrapper(model):
            return made(lambda m, *args, **k: m.inner(*args, **k), inner=model)

        model = recalibrated(convolutional(), [X]).eval()
        for wrap, name in ((AveragedModel, "module"), (wrapper, "inner")):
            result, into = folded(wrap(model).eval())
            assert into == {f"{name}.1": f"{name}.0", f"{name}.4": f"{name}.3"}
            torch.testing.assert_close(result(X), model(X), rtol=1e-4, atol=1e-5)

    @pytest.mark.parametrize("kind", ["branch", "loop"])
    def test_what_cannot_be_followed_leaves_the_rest_alone(self, kind):
        def part(m, x):
            x = m.norm(m.conv(x))
            if kind == "branch":
                return m.body(x) if x.sum() > -1e9 else x - m.body(x)
            for layer in m.body if x.sum() > -1e9 else reversed(m.body):
                x = layer(x)
            return x

        model, body = convolutional(between=nn.ReLU), pair(8, 1)
        conv, norm = pair(8, 1)
        model[5] = made(part, body=nn.Sequential(*body), conv=conv, norm=norm)
        recalibrated(model, [X]).eval()
        _, into = folded(model)
        assert into == {"1": "0", "4": "3", "5.body.1": None, "5.norm": None}
        result, into = folded(model, X)  # the run shows that the body is called whole
        whole = "5.body.0" if kind == "branch" else None
        assert into == {"1": "0", "4": "3", "5.body.1": whole, "5.norm": None}
        torch.testing.assert_close(result(X), model(X), rtol=1e-4, atol=1e-5)
        whys = {f.norm: f.why for f in result.fold_report}
        assert "cannot follow Made" in whys["5.norm"]

    def test_a_hook_on_a_block_hides_nothing(self):
        taps = []
        model = nn.Sequential(convolutional()[:6], nn.Flatten())
        recalibrated(model, [X]).eval()
        model[0].register_forward_hook(lambda m, x, y: taps.append(y))
        assert folded(model)[1] == {"0.1": "0.0", "0.4": "0.3"}
        assert not taps  # nothing of the tracer's went there

    def test_nothing_to_fold_with_is_said_of_every_kind(self):
        model = nn.Sequential(
            nn.Linear(5, 5), nn.LayerNorm(5), nn.BatchNorm1d(5)
        ).eval()
        with pytest.warns(UserWarning, match=r"0 of 2 normalization layers folded"):
            result = bnlib.fold_model(model)
        first, second = result.fold_report
        assert "every example" in first.why and "reads LayerNorm" in second.why

    def test_a_folded_model_is_copied_and_saved(self, tmp_path):
        result, _ = folded(recalibrated(convolutional(), [X]).eval())
        torch.save(copy.deepcopy(result), tmp_path / "model.pt")
        again = torch.load(tmp_path / "model.pt", weights_only=False)
        assert again.fold_report == result.fold_report
        torch.testing.assert_close(again(X), result(X))


class TestState:
    def test_a_counter_that_is_none(self):
        layer, x = nn.BatchNorm1d(5), normal(64, 5)
        layer.num_batches_tracked = None
        layer.running_mean.fill_(3.0)
        model = nn.Sequential(layer).eval()
        assert codes(model, x) == {"far-statistics"}
        assert not codes(recalibrated(model, [x]), x)
        assert layer.num_batches_tracked is None

    def test_layers_that_share_statistics_are_refused(self):
        model = nn.Sequential(nn.BatchNorm1d(5), nn.BatchNorm1d(5))
        model[1].running_mean = model[0].running_mean
        with pytest.raises(ValueError, match="'0' and '1' share running statistics"):
            recalibrated(model, [normal(8, 5)])
        layer = model[0]
        layer.running_mean = layer.running_var = torch.linspace(-1, 1, 5)
        with pytest.raises(ValueError, match="share running statistics"):
            recalibrated(layer, [normal(8, 5)])

    def test_buffers_that_are_one_vector(self):
        layer, vector = nn.BatchNorm1d(5), torch.linspace(-1, 1, 5)
        layer.running_mean = layer.running_var = layer.num_batches_tracked = vector
        (found,) = bnlib.diagnose(nn.Sequential(layer).eval(), normal(64, 5))
        assert found.code == "not-finite" and "variance below 0" in found.what

    def test_momentum_zero_is_not_none(self):
        layer = nn.BatchNorm1d(5, momentum=0.0).train()
        layer.running_mean.fill_(2.0)
        layer.num_batches_tracked.fill_(1000)
        assert not codes(nn.Sequential(layer), normal(64, 5))  # never arrives
        layer.momentum = None
        assert codes(nn.Sequential(layer), normal(64, 5)) == {"far-statistics"}

    @pytest.mark.parametrize("made_inside", [False, True])
    def test_inference_mode(self, made_inside):
        with torch.inference_mode(made_inside):
            model = convolutional().eval()
            model[1].running_mean.fill_(2.0)
        with torch.inference_mode():
            x = X.clone()
            assert "far-statistics" in codes(model, x)
            recalibrated(model, [x])
            assert not codes(model, x)
            assert all(folded(model, x)[1].values())
        assert not codes(model, x)
        recalibrated(model, [x])

    @pytest.mark.parametrize("tool", ["diagnose", "recalibrate", "fold_model"])
    def test_lazy_layers_stay_lazy(self, tool):
        model = nn.Sequential(nn.LazyConv2d(8, 3), nn.LazyBatchNorm2d()).eval()
        with pytest.raises(TypeError, match=r"'0' must know its size.*call the model"):
            getattr(bnlib, tool)(model, [X] if tool == "recalibrate" else X)
        assert nn.parameter.is_lazy(model[0].weight)
        assert nn.parameter.is_lazy(model[1].running_mean)

    def test_observers_are_given_back_what_they_knew(self):
        class Observer(nn.Module):
            def __init__(self):
                super().__init__()
                self.register_buffer("largest", torch.tensor(0.0))
                self.register_buffer("by_channel", torch.tensor([]))

            def forward(self, x):
                self.largest.copy_(torch.maximum(self.largest, x.abs().max()))
                self.by_channel.resize_(x.shape[1]).copy_(x.abs().amax((0, 2, 3)))
                return x

        model = convolutional(between=Observer).eval()
        before = state(model)
        bnlib.diagnose(model, X)
        assert_unchanged(model, before)
        recalibrated(model, [X])
        assert model[2].largest == 0 and not model[2].by_channel.numel()

    def test_prepared_for_quantization(self):
        model = nn.Sequential(*convolutional(), nn.Identity()).eval()
        model.qconfig = torch.ao.quantization.default_qconfig
        prepared = torch.ao.quantization.prepare(model)
        before = state(prepared)
        assert "never-updated" in codes(prepared, X)
        assert_unchanged(prepared, before)
        recalibrated(prepared, [X])
        assert not codes(prepared, X)
        with pytest.warns(UserWarning, match="hooks"):
            bnlib.fold_model(prepared.eval())


class TestMoreRules:
    def test_an_instance_norm_in_use_that_was_never_updated(self):
        layer = nn.InstanceNorm2d(3, track_running_stats=True)
        model = nn.Sequential(layer).eval()
        assert codes(model, X) == {"never-updated"}
        assert not codes(model.train(), X)
        model(X + 1), model.eval()
        assert "never-updated" not in codes(model, X)

    @pytest.mark.parametrize(
        "norm", [nn.BatchNorm1d(6), nn.GroupNorm(2, 6), nn.InstanceNorm1d(6)]
    )
    def test_time_taken_for_channels(self, norm):
        def as_it_is(m, x):  # (N, L, 4)
            return m.norm(m.linear(x))

        def turned(m, x):
            return m.norm(m.linear(x).mT).mT

        x, parts = normal(32, 6, 4), {"linear": nn.Linear(4, 6, bias=False)}
        assert codes(made(as_it_is, norm=norm, **parts), x) == {"time-axis"}
        assert not codes(made(turned, norm=norm, **parts), x)

    @pytest.mark.parametrize(
        ("norm", "convolutions", "end"),
        [
            (nn.BatchNorm1d, 2, "behind"),
            (nn.BatchNorm1d, 0, "in front"),
            (lambda c: nn.GroupNorm(2, c), 1, "behind"),
            (nn.InstanceNorm1d, 2, "in front"),
        ],
        ids=["batch", "batch, at once", "group", "instance"],
    )
    def test_padding_through_convolutions(self, norm, convolutions, end):
        torch.manual_seed(0)
        lengths = torch.randint(8, 33, (16,))
        real = torch.arange(32) < lengths[:, None]
        x = normal(16, 4, 32) * real[:, None]
        x = x if end == "behind" else x.flip(2)
        layers = [nn.Conv1d(4, 4, 3, padding=1) for _ in range(convolutions)]
        model = nn.Sequential(*layers, norm(4))
        assert "padding" in codes(model, x)
        assert "padding" not in codes(model, normal(16, 4, 32))

    def test_an_activation_lost_in_conversion(self):
        with pytest.raises(TypeError, match="NormAct has a forward pass of its own"):
            bnlib.nn.SyncBatchNorm.convert_sync_batchnorm(convolutional(NormAct))

    def test_channels_that_vary_little_are_not_dead(self):
        layer = nn.BatchNorm1d(5, eps=1e-3)
        x = normal(256, 5) * 0.025  # variance 6e-4
        model = recalibrated(nn.Sequential(layer), [x]).eval()
        assert not codes(model, x)
        layer.running_var[2] = 1e-6
        (finding,) = bnlib.diagnose(
            model, x, severity="warning", ignore="far-statistics"
        )
        assert finding.code == "dead-channels" and "by 32" in finding.what

    def test_a_batch_with_nan(self):
        model = recalibrated(convolutional(), [X]).eval()
        x = X.clone()
        x[3, 0, 0, 0], x[5] = float("nan"), float("inf")
        report = bnlib.diagnose(model, x)
        assert [(f.code, f.layer) for f in report] == [("bad-batch", "1")]
        assert "2 of 32 examples" in report[0].what


class TestManners:
    def broken(self):
        model = convolutional().train()
        model[0] = nn.Conv2d(3, 8, 3)
        for _ in range(100):
            model(X)
        for m in model[1], model[4]:
            m.momentum = 0.9
        return model

    def test_codes_and_layers_can_be_ignored(self):
        model = self.broken()
        assert codes(model, X) == {"momentum", "useless-bias"}
        assert codes(model, X, ignore=["momentum"]) == {"useless-bias"}
        assert codes(model, X, ignore="useless-bias") == {"momentum"}
        left = bnlib.diagnose(model, X, ignore=["momentum:1", "useless-bias:*"])
        assert [(f.code, f.layer) for f in left] == [("momentum", "4")]
        with pytest.raises(
            ValueError, match=r"ignore must hold codes.*'momemtum'.*known"
        ):
            bnlib.diagnose(model, X, ignore=["momemtum"])

    def test_the_least_severity(self):
        model = self.broken()
        assert codes(model, X, severity="warning") == {"momentum"}
        assert not codes(model, X, severity="error")
        with pytest.raises(ValueError, match=r"severity must be one of.*'fatal'"):
            bnlib.diagnose(model, X, severity="fatal")

    def test_one_cause_is_one_entry_of_text_and_of_plain_values(self):
        report = bnlib.diagnose(nn.DataParallel(self.broken()), X)
        text, plain = repr(report), report.to_dict()
        assert len(report) == 3 and {f.layer for f in report} == {"0", "1", "4"}
        assert text.count("momentum in") == 1 and "1 and 1 more" in text
        assert "['1', '4']" in text
        assert max(map(len, text.splitlines())) <= 88
        assert text.splitlines()[0].endswith("named as in model.module")
        assert json.loads(json.dumps(plain)) == plain
        first, second = plain["findings"]
        assert first["severity"] == "warning" and second["severity"] == "note"
        assert first["layers"] == ["1", "4"] and first["code"] == "momentum"
        assert first.keys() == second.keys() and len(first) == 7

    @pytest.mark.parametrize("tool", ["diagnose", "recalibrate", "fold_model"])
    def test_models_without_norms(self, tool):
        model = nn.Sequential(nn.Linear(5, 5)).eval()
        with pytest.raises(
            ValueError, match=r"model must have a (normalization|batch)"
        ):
            getattr(bnlib, tool)(model, [normal(8, 5)])

    @pytest.mark.parametrize("tool", ["diagnose", "recalibrate", "fold_model"])
    def test_a_model_that_fails_by_itself(self, tool):
        def fails(m, x):
            m.body(x)
            raise RuntimeError("by itself")

        model = made(fails, body=convolutional()).eval()
        model.body[1].train(tool != "fold_model")
        before = state(model)
        with pytest.raises(RuntimeError, match="by itself"):
            getattr(bnlib, tool)(model, [X] if tool == "recalibrate" else X)
        assert_unchanged(model, before)


# --- every cure is code that runs, and cures ------------------------------------------

T = normal(64, 6, seed=1)


def mlp(**options):
    torch.manual_seed(0)
    layers = [nn.Linear(6, 32, bias=False), nn.BatchNorm1d(32, **options), nn.ReLU()]
    return recalibrated(nn.Sequential(*layers, nn.Linear(32, 3)), [T])


def changed(change, training=False, **options):
    model = mlp(**options)
    change(model)
    return model.train(training)


def with_bias(model):
    model[0].bias = nn.Parameter(torch.linspace(-2, 2, 32))
    bnlib.recalibrate(model, [T], progress=False)


def shared():
    norm = nn.BatchNorm1d(6)
    model = made(lambda m, x: m.norm(x) + m.second(9 * x), norm=norm, second=norm)
    return recalibrated(model, [T]).eval()


def untracked():
    model = mlp()
    model[1] = nn.BatchNorm1d(32, track_running_stats=False)
    return model.eval()


def padded():
    x = normal(16, 6, 9)
    x[:8, :, 5:] = 0
    return x


def dead():
    x = T.clone()
    x[:, 2] = 7
    return recalibrated(nn.Sequential(nn.BatchNorm1d(6)), [x]).eval(), x


def lost():
    model = recalibrated(convolutional(NormAct), [X])
    return nn.SyncBatchNorm.convert_sync_batchnorm(model).eval()


def set_(name, index, value):
    return lambda m: getattr(m[1], name).data.__setitem__(index, value)


CASES = {
    "not-finite": lambda: (changed(set_("running_var", 3, -1.0)), T),
    "bad-batch": lambda: (mlp().eval(), T.index_fill(0, torch.tensor([3]), torch.nan)),
    "never-updated": lambda: (changed(lambda m: m[1].reset_running_stats()), T),
    "far-statistics": lambda: (changed(lambda m: m[1].running_mean.add_(1)), T),
    "training-layer": lambda: (lambda m: (m.eval()[1].train(), (m, T))[1])(mlp()),
    "lost-activation": lambda: (lost(), X),
    "time-axis": lambda: (nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6)),
                          normal(32, 6, 4)),
    "shared-layer": lambda: (shared(), T),
    "thawed": lambda: (changed(lambda m: m.requires_grad_(False), True), T),
    "eval-layer": lambda: (lambda m: (m.train()[1].eval(), (m, T))[1])(mlp()),
    "untracked": lambda: (untracked(), T),
    "momentum": lambda: (changed(lambda m: None, momentum=0.99), T),
    "half-statistics": lambda: (changed(lambda m: m.bfloat16()), T.bfloat16()),
    "few-values": lambda: (mlp().train(), T[:4]),
    "padding": lambda: (nn.Sequential(nn.BatchNorm1d(6)).train(), padded()),
    "unsynchronized": lambda: (mlp().train(), T),
    "zero-weights": lambda: (changed(set_("weight", slice(8), 0.0)), T),
    "dead-channels": dead,
    "useless-bias": lambda: (changed(with_bias), T),
    "weight-decay": lambda: (mlp().eval(), T),
    "int8-range": lambda: (changed(set_("weight", 0, 99.0)), T),
}  # fmt: skip
# What the cure cannot mend in the model: it shows the line that belongs into a program.
LINES = {
    "time-axis",
    "shared-layer",
    "padding",
    "int8-range",
    "few-values",
    "bad-batch",
}


# The layers that are named, where not the norm of `mlp`.
WHERE = {"lost-activation": {"1", "4"}, "shared-layer": {"norm"}}
WHERE |= {c: {"0"} for c in ("padding", "dead-channels", "useless-bias", "int8-range")}


class TestCures:
    def test_there_is_one_for_every_rule(self):
        from bnlib.nn._diagnose import RULES, SEVERITIES

        assert set(CASES) == set(RULES)
        assert all(r.severity in SEVERITIES and r.reason for r in RULES.values())

    @pytest.mark.parametrize("code", CASES)
    def test_can_be_pasted_and_cures(self, code, monkeypatch):
        model, x = CASES[code]()
        optimizer = torch.optim.SGD(model.parameters(), 0.1, weight_decay=0.1)
        optimizer = {"optimizer": optimizer} if code == "weight-decay" else {}
        if code == "unsynchronized":
            monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
            monkeypatch.setattr(torch.distributed, "get_world_size", lambda *_: 2)
            monkeypatch.setattr(torch.distributed, "get_rank", lambda *_: 0)
        found = [f for f in bnlib.diagnose(model, x, **optimizer) if f.code == code]
        assert found and all(f.cure for f in found)
        assert {f.layer for f in found} == WHERE.get(code, {"1"})
        mask = (x != 0).all(1) if x.ndim == 3 else None
        given = {
            "bnlib": bnlib, "torch": torch, "copy": copy, "model": model, "loader": [x],
            "dataset": T, "x": x, "mask": mask, "norm": model[-1] if mask is not None
            else None, "y": torch.zeros(16, 9, 6), **optimizer,
        }  # fmt: skip
        before = model(x) if code == "useless-bias" else None
        if code == "time-axis":
            given |= {"norm": model[1], "x": model[0](x)}
        for finding in found:
            exec(finding.cure, given)
        if code == "bad-batch":
            assert given["loader"] == []
            pairs = [(x, T[:, 0]), (T, T[:, 0])]  # a loader of images and labels
            given["loader"] = pairs
            exec(found[0].cure, given)
            assert len(given["loader"]) == 1 and given["loader"][0] is pairs[1]
        elif code == "few-values":
            assert all(len(batch) == 32 for batch in given["loader"])
        elif code == "time-axis":
            assert given["y"].mean((0, 1)).abs().max() < 1e-5
        elif code not in LINES:
            model = given["model"]
            left = bnlib.diagnose(model, x, **optimizer)
            assert code not in {f.code for f in left}
        if before is not None:
            torch.testing.assert_close(model(x), before, rtol=1e-4, atol=1e-5)

    def test_many_layers_are_looked_up_in_the_report(self):
        torch.manual_seed(0)
        blocks = [nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6)) for _ in range(9)]
        model = recalibrated(nn.Sequential(*blocks), [T]).eval()
        before = model(T)
        report = bnlib.diagnose(model, T)
        (entry,) = report.to_dict()["findings"]
        assert entry["code"] == "useless-bias" and len(entry["layers"]) == 9
        exec(entry["cure"], {"model": model, "report": report})
        assert not bnlib.diagnose(model, T)
        torch.testing.assert_close(model(T), before, rtol=1e-4, atol=1e-5)

    def test_one_bad_layer_of_many_frozen_ones_is_measured(self):
        model = mlp().requires_grad_(False).train()
        model[1].running_mean.fill_(float("nan"))
        (finding,) = (f for f in bnlib.diagnose(model, T) if f.code == "not-finite")
        exec(finding.cure, {"bnlib": bnlib, "model": model, "loader": [T]})
        torch.testing.assert_close(model[1].running_mean, model[0](T).mean(0))


# --- found by trying to break them ----------------------------------------------------


def same_outputs(model, x):
    """Fold without a batch; the outputs must be the same whatever was folded."""
    result, into = folded(model)
    torch.testing.assert_close(result(x), model(x), rtol=1e-3, atol=1e-4)
    return into


class TestHardToBreak:
    def test_a_checkpointed_model_in_training(self):
        def checkpointed(m, x):
            run = torch.utils.checkpoint.checkpoint
            return m.head(run(m.body, x, use_reentrant=False))

        body, head = (nn.Sequential(*pair(6)) for _ in "ab")
        model = made(checkpointed, body=body, head=head).train()
        before = state(model)
        assert codes(model, T) == {"useless-bias"}
        assert_unchanged(model, before)

    def test_a_layer_that_feeds_itself(self):
        def twice(m, x):
            return m.norm(m.linear(m.norm(m.linear(x))))

        model = behind_one_another(twice).double()
        model.linear.weight.data *= 10
        before = state(model)
        with pytest.raises(ValueError, match="a layer feeds itself"):
            recalibrated(model, [T.double()])
        assert_unchanged(model, before)

    def test_batches_that_take_unlike_ways(self):
        def domains(m, x, domain):
            return m.head(getattr(m, domain)(x))

        ways = {"a": nn.Sequential(*pair(6), nn.ReLU())}
        ways["b"] = nn.Sequential(*(m for _ in "abc" for m in (*pair(6), nn.ReLU())))
        model, seen = made(domains, head=nn.BatchNorm1d(6), **ways), []
        data = [{"x": T, "domain": "a"}, {"x": T, "domain": "b"}]
        recalibrated(model, data).eval()
        model.head.register_forward_pre_hook(lambda m, x: seen.append(x[0]))
        [model(**batch) for batch in data]
        torch.testing.assert_close(model.head.running_mean, torch.cat(seen).mean(0))
        torch.testing.assert_close(model.head.running_var, torch.cat(seen).var(0))

    def test_a_model_that_writes_into_its_input(self):
        model = made(lambda m, x: m.body(x.sub_(1).mul_(2)), body=mlp())
        x = T.clone()
        recalibrated(model, [x])
        assert not codes(model.eval(), x) and all(folded(model, x)[1].values())
        assert torch.equal(x, T)
        right = model.body[0](2 * (T - 1))
        torch.testing.assert_close(model.body[1].running_var, right.var(0))

    def test_what_a_fold_must_leave(self):
        class Scaled(nn.Conv2d):
            def _conv_forward(self, x, weight, bias):
                weight = weight / weight.std((1, 2, 3), keepdim=True)
                return super()._conv_forward(x, weight, bias)

        class Always(nn.Dropout):
            def forward(self, x):
                return 3 * x

        def patched(model):
            model.forward = lambda x: model[2:](model[1](model[0](x).abs()))
            return model

        def settled(model):
            model = recalibrated(model, [X]).eval()
            nn.init.normal_(model[1].bias), model[1].running_mean.add_(0.5)
            return model

        model = convolutional()
        model[0] = Scaled(3, 8, 3)
        assert same_outputs(settled(model), X) == {"1": None, "4": "3"}
        model = nn.Sequential(nn.Conv2d(3, 8, 3), Always(), nn.BatchNorm2d(8)).eval()
        with pytest.warns(UserWarning, match="reads Always"):
            assert folded(model)[1] == {"2": None}
        with pytest.warns(UserWarning, match="cannot follow"):
            assert not any(folded(patched(settled(convolutional())))[1].values())

    def test_a_layer_that_a_part_calls_which_nobody_can_follow(self):
        def twice(m, x):
            return m.norm(m.conv(x)) + m.part(x)

        conv, norm = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)
        part = made(lambda m, x: m.conv(x) if x.sum() > -1e9 else x, conv=conv)
        model = made(twice, conv=conv, norm=norm, part=part)
        with pytest.warns(UserWarning, match="read by others"):
            same_outputs(recalibrated(model, [X]).eval(), X)

    def test_what_a_loader_and_names_may_be(self):
        class Stream(torch.utils.data.IterableDataset):
            def __iter__(self):
                return iter(T)

        model = mlp()
        loader = torch.utils.data.DataLoader(Stream(), batch_size=32)
        assert bnlib.recalibrate(model, loader, progress=False) == ["1"]
        for layers in ("1", (n for n in ["1"])):
            options = {"layers": layers, "progress": False}
            assert bnlib.recalibrate(model, [T], **options) == ["1"]

    def test_norms_called_by_name_and_parts_that_are_scripted(self):
        parts = {"norm": nn.BatchNorm1d(6), "relu": torch.jit.script(nn.ReLU())}
        model = made(lambda m, x: m.relu(m.norm(input=x)), **parts)
        recalibrated(model, [T]).eval()
        assert not codes(model, T) and not codes(model.train(), T)

    def test_what_a_frozen_norm_in_training_means(self):
        model = mlp()
        model[0].bias = nn.Parameter(torch.ones(32))
        model.train()[1].eval().requires_grad_(False)
        recalibrated(model.eval(), [T])
        model.train()[1].eval()
        assert not codes(model, T)  # its bias trains, and its statistics stay

    def test_a_parametrized_norm_has_lost_nothing(self):
        model = mlp()
        nn.utils.parametrize.register_parametrization(model[1], "weight", nn.Softplus())
        assert not codes(recalibrated(model, [T]).eval(), T)

    def test_random_numbers_are_given_back(self):
        dropout = nn.functional.dropout
        model = made(lambda m, x: dropout(m.body(x), 0.5), body=mlp()).eval()
        before = torch.get_rng_state()
        bnlib.diagnose(model, T)
        assert all(folded(model, T)[1].values())
        assert torch.equal(torch.get_rng_state(), before)

    def test_empty_and_whole_numbered_outputs(self):
        def boxes(m, x):
            y = m.body(x)
            return y[:0], y.argmax(1)

        assert all(folded(made(boxes, body=mlp()).eval(), T)[1].values())


class BatchNormReLU2d(nn.BatchNorm2d):
    def forward(self, x):
        return super().forward(x).relu()


class Renamed(nn.BatchNorm2d):
    pass


class ChannelsLast(nn.BatchNorm1d):
    def forward(self, x):
        return super().forward(x.transpose(1, 2)).transpose(1, 2)


class Logarithmic(nn.BatchNorm1d):
    def forward(self, x):
        return super().forward(x.abs().log1p())


class ReLUBehind(nn.BatchNorm1d):
    def forward(self, x):
        return super().forward(x).relu()


class OfFilms(nn.BatchNorm2d):
    """Of (N, C, T, H, W), as many write it: time and height are one axis."""

    def forward(self, x):
        return super().forward(x.flatten(2, 3)).view_as(x)


class Listed(nn.Module):
    """Calls its parts from a list, where `set_submodule` does not find them."""

    def __init__(self):
        super().__init__()
        self.linear, self.norm = pair(6)
        self.order = [self.linear, self.norm]

    def forward(self, x):
        for part in self.order:
            x = part(x)
        return x


class TestFoundByUsers:
    def test_a_scripted_part_keeps_nobody_from_being_put_back(self):
        part = torch.jit.script(nn.Sequential(*pair(6)))
        model = nn.Sequential(nn.BatchNorm1d(6), part, nn.BatchNorm1d(6)).train()
        before = state(part)
        assert bnlib.recalibrate(model, [T], progress=False) == ["0", "2"]
        bnlib.diagnose(model, T)
        assert all(m.training for m in model.modules())
        assert_unchanged(part, before)
        with pytest.warns(UserWarning, match="0 of 2"):
            bnlib.fold_model(model.eval(), T)

    @pytest.mark.filterwarnings("ignore")
    def test_observers_that_do_not_count_a_version_are_put_back(self):
        quantization = torch.ao.quantization
        model = nn.Sequential(quantization.QuantStub(), *pair(3, 1)).train()
        model.qconfig = quantization.get_default_qat_qconfig("fbgemm")
        model, x = quantization.prepare_qat(model), normal(8, 3, 4, 4)
        model(x)
        before = {name: b.clone() for name, b in model.named_buffers()}
        bnlib.diagnose(model, 100 * x)
        bnlib.fold_model(model.eval(), 100 * x)
        assert all(torch.equal(b, before[n]) for n, b in model.named_buffers())

    def test_what_a_batch_norm_does_besides_is_not_folded_away(self):
        layer, norm = pair(3, 1)
        x = normal(8, 3, 4, 4)
        hooked = copy.deepcopy(norm).eval()
        hooked.register_forward_hook(lambda module, args, y: y.relu())
        for odd in (BatchNormReLU2d(3).eval(), hooked):
            with pytest.raises(TypeError, match="batch_norm must do what a BatchNorm"):
                bnlib.fold(layer, odd)
        same = Renamed(3).eval()
        torch.testing.assert_close(bnlib.fold(layer, same)(x), same(layer(x)))

    @pytest.mark.parametrize("layer", [nn.Linear(4, 6), nn.Conv1d(3, 6, 2)], ids=str)
    def test_a_useless_bias_leaves_flattened_channels_as_they_were(self, layer):
        model = nn.Sequential(layer, nn.Flatten(), nn.BatchNorm1d(18)).double()
        x = normal(60, 3, 4).double()
        before = recalibrated(model, [x]).eval()(x)
        (finding,) = [
            f for f in bnlib.diagnose(model.train(), x) if f.code == "useless-bias"
        ]
        exec(finding.cure, {"model": model, "torch": torch})
        assert layer.bias is None
        torch.testing.assert_close(model.eval()(x), before)

    def test_undecayed_parameters_keep_their_learning_rate(self):
        model = nn.Sequential(*pair(6), *pair(6))
        groups = [{"params": model[2 * i : 2 * i + 2].parameters(), "lr": 10.0**-i}
                  for i in (0, 1)]  # fmt: skip
        optimizer = torch.optim.AdamW(groups, weight_decay=0.1)
        report = bnlib.diagnose(model, T, optimizer=optimizer)
        row = next(
            r for r in report.to_dict()["findings"] if r["code"] == "weight-decay"
        )
        exec(row["cure"], {"model": model, "optimizer": optimizer})
        found = {p: (g["lr"], g["weight_decay"]) for g in optimizer.param_groups
                 for p in g["params"]}  # fmt: skip
        assert found == {
            p: (10.0 ** -(k // 2), 0.0 if k % 2 else 0.1)
            for k, part in enumerate(model)
            for p in part.parameters()
        }

    def test_a_model_frozen_as_a_whole_is_thawed_by_norms_without_weights(self):
        norm = nn.BatchNorm1d(6, affine=False)
        model = nn.Sequential(nn.Linear(6, 6), norm).requires_grad_(False)
        assert codes(model, T) == {"thawed"}
        assert codes(nn.Sequential(norm), T) == set()

    def test_a_reentrant_checkpoint_silences_one_rule_alone(self):
        block = nn.Sequential(*pair(6))
        again = torch.utils.checkpoint.checkpoint

        def forward(m, x):
            return again(m.block, m.norm(m.linear(x)), use_reentrant=True)

        model = behind_one_another(forward, block=block)
        model.norm.running_var[0] = float("nan")
        assert "not-finite" in codes(model.eval(), T)

    def test_layers_that_are_called_by_other_ways_are_not_said_to_be_folded(self):
        with pytest.raises(ValueError, match="must call layer 'linear' by its name"):
            bnlib.fold_model(Listed().eval(), T)

    @pytest.mark.parametrize("length", [6, 5])
    @pytest.mark.parametrize("norm", [ChannelsLast(6), Logarithmic(6)], ids=repr)
    def test_of_what_is_not_the_input_nothing_is_said_or_measured(self, norm, length):
        if type(norm) is Logarithmic:
            length = 6  # axis 1 is that of the channels, as for everybody
        model, x = (
            nn.Sequential(nn.Linear(6, 6), copy.deepcopy(norm)),
            normal(32, length, 6),
        )
        before = state(model)
        assert codes(model, x) == set()
        with pytest.raises(ValueError, match="layer '1' must normalize its input"):
            bnlib.recalibrate(model, [x], progress=False)
        assert_unchanged(model, before)

    def test_what_comes_behind_the_normalization_does_not_matter(self):
        model = nn.Sequential(nn.Linear(6, 6), ReLUBehind(6))
        assert bnlib.recalibrate(model, [T], progress=False) == ["1"]
        y = model[0](T)
        torch.testing.assert_close(model[1].running_mean, y.mean(0))

    def test_axes_behind_the_channels_may_be_merged(self):
        model, x = nn.Sequential(OfFilms(3)), normal(8, 3, 2, 4, 4, mean=2.0)
        assert bnlib.recalibrate(model, [x], progress=False) == ["0"]
        torch.testing.assert_close(model[0].running_mean, x.mean((0, 2, 3, 4)))

    def test_without_names_statistics_of_every_example_are_left_alone(self):
        tracking = nn.InstanceNorm2d(3, track_running_stats=True)
        model = nn.Sequential(tracking, nn.BatchNorm2d(3))
        before = state(tracking)
        data = [normal(8, 3, 4, 4)]
        assert bnlib.recalibrate(model, data, progress=False) == ["1"]
        assert_unchanged(tracking, before)

    def test_statistics_may_be_slices_of_one_tensor(self):
        linear, norm = pair(6)
        flat = torch.cat([norm.running_mean, norm.running_var])
        norm.running_mean, norm.running_var = flat[:6], flat[6:]
        model = recalibrated(nn.Sequential(linear, norm), [T])
        torch.testing.assert_close(flat[:6], linear(T).mean(0).detach())
        assert norm.running_mean.data_ptr() == flat.data_ptr() and model

    def test_a_model_without_numbers_is_told(self):
        with torch.device("meta"):
            model = nn.Sequential(*pair(6))
        for tool in (
            lambda: bnlib.diagnose(model, T),
            lambda: bnlib.recalibrate(model, [T], progress=False),
            lambda: bnlib.fold_model(model.eval(), T),
        ):
            with pytest.raises(ValueError, match="model must hold numbers"):
                tool()
