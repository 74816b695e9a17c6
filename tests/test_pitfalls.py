"""Chapters 18 and 19: diagnose, fold_model, recalibrate, on models of our own."""

import copy
import functools
import html

import models
import pytest
import torch
from models import assert_unchanged, codes, made, state
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import bnlib
from bnlib.nn import BatchNorm1d, BatchNorm2d, BatchRenorm1d, _diagnose, _rules

normal = functools.partial(models.normal, dtype=torch.float64)


def net(norm=nn.BatchNorm1d, dtype=torch.float64):
    """Three layers with random affine parameters and statistics stale or spoiled."""
    torch.manual_seed(0)
    layers = []
    for k in range(3):
        layers += [nn.Linear(5, 5), norm(5), nn.ReLU() if k < 2 else nn.Identity()]
    model = nn.Sequential(*layers).to(dtype)
    for m in model:
        if hasattr(m, "running_mean"):
            nn.init.uniform_(m.weight, 0.5, 2), nn.init.normal_(m.bias)
            m.running_mean.normal_()
    return model


def population(model, x):
    """The statistics that hold while the model is used, layer after layer."""
    found = []
    for m in model:
        if not hasattr(m, "running_mean"):
            x = m(x)
            continue
        renorm, mean = hasattr(m, "running_std"), x.mean(0)
        var = x.var(0, correction=0 if renorm else 1)
        std = (var + m.eps) ** 0.5
        found.append((mean, std if renorm else var))
        x = (x - mean) / std * m.weight + m.bias
    return found


def stored(m):
    return m.running_std if hasattr(m, "running_std") else m.running_var


def behind_one_another(forward, **more):
    return made(forward, linear=nn.Linear(5, 5), norm=nn.BatchNorm1d(5), **more)


def norms(model):
    return [m for m in model.modules() if hasattr(m, "running_mean")]


class TestRecalibrate:
    @pytest.mark.parametrize(
        ("norm", "sizes", "mean"),
        [
            (nn.BatchNorm1d, (8, 8, 8), 0),
            (BatchNorm1d, (1, 20, 3), 1e4),
            (BatchRenorm1d, (24,), 0),
        ],
    )
    def test_equals_the_population_after_any_depth(self, norm, sizes, mean):
        model, x = net(norm), normal(24, 5) * torch.arange(1, 6) + mean
        model[4].running_mean.fill_(float("nan"))
        bnlib.recalibrate(model, x.split(sizes), progress=False)
        for m, right in zip(norms(model), population(model, x), strict=True):
            found = m.running_mean, stored(m)
            torch.testing.assert_close(found, right, rtol=1e-7, atol=1e-9)
            assert m.num_batches_tracked == len(sizes)

    def test_float32_at_mean_1e4_is_as_right_as_its_inputs(self):
        layer = nn.BatchNorm1d(5)
        x = normal(64, 5, dtype=torch.float32) + 1e4
        bnlib.recalibrate(layer, x.split([1, 40, 23]), progress=False)
        torch.testing.assert_close(layer.running_var, x.double().var(0).float())

    def test_branches_and_layers_used_twice(self):
        model = made(lambda m, x: m.norm(x) + m.norm(3 * x + 1), norm=nn.BatchNorm1d(5))
        model, x = model.double(), normal(24, 5)
        bnlib.recalibrate(model, x.split(7), progress=False)
        both = torch.cat([x, 3 * x + 1])
        torch.testing.assert_close(model.norm.running_mean, both.mean(0))
        torch.testing.assert_close(model.norm.running_var, both.var(0))

    def test_loader_with_labels_shuffled_or_a_dict(self):
        x = normal(24, 5)
        data = TensorDataset(x, torch.zeros(24))
        shuffled = DataLoader(data, batch_size=7, shuffle=True)
        layer, keyword = nn.BatchNorm1d(5).double(), nn.BatchNorm1d(5).double()
        bnlib.recalibrate(layer, shuffled, progress=False)
        bnlib.recalibrate(keyword, [{"input": x}], progress=False)
        for m in (layer, keyword):
            torch.testing.assert_close(m.running_var, x.var(0))

    def test_frozen_layers_stay_and_can_be_asked_for(self):
        model, x = net(), normal(24, 5)
        model[1].requires_grad_(False)
        model.train()
        model[4].eval()
        before = state(model)
        assert bnlib.recalibrate(model, [x], progress=False) == ["7"]
        for m in (model[1], model[4]):
            assert not m.num_batches_tracked
        bnlib.recalibrate(model, [x], layers=["1"], progress=False)
        torch.testing.assert_close(model[1].running_mean, model[0](x).mean(0))
        model.load_state_dict(before[0])  # all else is as before
        assert_unchanged(model, before)

    @pytest.mark.parametrize("at", [1, 4])  # in the first pass, in the second
    def test_an_interruption_leaves_everything_as_it_was(self, at):
        class Loader:
            calls = 0

            def __iter__(self):
                for _ in range(2):
                    Loader.calls += 1
                    if Loader.calls == at:
                        raise KeyboardInterrupt
                    yield normal(8, 5)

        Loader.calls, model = 0, net()
        before = state(model)
        with pytest.raises(KeyboardInterrupt):
            bnlib.recalibrate(model, Loader(), progress=False)
        assert Loader.calls == at
        assert_unchanged(model, before)

    @pytest.mark.parametrize(
        ("loader", "message"),
        [
            ((b for b in [normal(8, 5)]), "loader must give its batches in every pass"),
            (normal(8, 5), "loader must give"),
            ([], "at least 2 values"),
            ([normal(1, 5)], "at least 2 values per channel, saw 1"),
            ([normal(8, 5), normal(8, 5) * float("nan")], "batch 2 of loader"),
            (["text"], "batch must be a tensor"),
        ],
        ids=["generator", "tensor", "empty", "one", "nan", "text"],
    )
    def test_what_cannot_be_measured_is_refused(self, loader, message):
        model = net()
        before = state(model)
        with pytest.raises((TypeError, ValueError), match=message):
            bnlib.recalibrate(model, loader, progress=False)
        assert_unchanged(model, before)

    def test_infinity_between_layers_that_are_right_is_named(self):
        class Burst(nn.Module):
            def forward(self, x):
                return x / 0

        parts, x = (nn.BatchNorm1d(3), Burst(), nn.BatchNorm1d(3)), normal(8, 3)
        model = nn.Sequential(*parts).double()
        bnlib.recalibrate(model, [x], layers=["0"], progress=False)
        with pytest.raises(ValueError, match=r"batch 1 .* infinity to layer '2'"):
            bnlib.recalibrate(model, [x], progress=False)

    def test_models_without_anything_to_measure_are_refused(self):
        frozen = net().requires_grad_(False)
        with pytest.raises(ValueError, match=r"not frozen.*layers="):
            bnlib.recalibrate(frozen, [normal(8, 5)], progress=False)
        with pytest.raises(ValueError, match=r"must name layers.*'9'"):
            bnlib.recalibrate(net(), [normal(8, 5)], layers=["9"], progress=False)
        tracking = nn.InstanceNorm1d(5, track_running_stats=True)
        with pytest.raises(TypeError, match="must be a batch norm"):
            bnlib.recalibrate(tracking, [normal(8, 5, 3)], progress=False)

    def test_a_layer_that_is_never_called_is_named(self):
        model, data = net(), [normal(8, 5)]
        model.unused = nn.BatchNorm1d(5)
        options = {"forward": lambda m, b: m[:9](b), "progress": False}
        model.unused.running_mean.fill_(float("nan"))
        assert bnlib.recalibrate(model, data, **options) == ["1", "4", "7"]
        with pytest.raises(ValueError, match="'unused' must see at least 2"):
            bnlib.recalibrate(model, data, layers=["4", "unused"], **options)

    def test_stops_when_nothing_moves(self):
        seen = []

        class Loader(list):
            def __iter__(self):
                seen.append(1)
                return super().__iter__()

        model, data = net(), Loader([normal(24, 5)])
        bnlib.recalibrate(model, data, progress=False)
        first = len(seen)
        bnlib.recalibrate(model, data, progress=False)
        assert first == 3 and len(seen) == first + 1

    def test_the_bar_is_there_unless_switched_off(self, capsys):
        bnlib.recalibrate(net(), [normal(24, 5)])
        assert "pass 1" in capsys.readouterr().err
        bnlib.recalibrate(net(), [normal(24, 5)], progress=False)
        assert not capsys.readouterr().err

    def test_bfloat16_takes_as_many_passes_as_float32(self):
        data, half = [3 * normal(64, 5)], torch.bfloat16
        model = net().to(half)
        bnlib.recalibrate(model, [d.to(half) for d in data], progress=False)
        again = copy.deepcopy(model)
        for _ in range(3):
            bnlib.recalibrate(again, [d.to(half) for d in data], progress=False)
        for a, b in zip(norms(model), norms(again), strict=True):
            torch.testing.assert_close(a.running_var, b.running_var)

    def test_statistics_that_overflow_their_dtype_are_refused(self):
        layer = nn.BatchNorm1d(5).half()
        before = state(layer)
        with pytest.raises(ValueError, match=r"must fit torch.float16.*layer.float"):
            bnlib.recalibrate(layer, [3000 * normal(64, 5).half()], progress=False)
        assert_unchanged(layer, before)

    def test_a_model_frozen_as_a_whole_is_measured_when_in_use(self):
        model = net().requires_grad_(False).eval()
        assert bnlib.recalibrate(model, [normal(8, 5)], progress=False) == [
            "1", "4", "7",
        ]  # fmt: skip

    def test_wrapped_models(self):
        inner, x = net(), normal(24, 5)
        wrapped = nn.DataParallel(copy.deepcopy(inner))
        for model in (inner, wrapped):
            bnlib.recalibrate(model, [x], progress=False)
        assert torch.equal(wrapped.module[7].running_var, inner[7].running_var)


class Branches(nn.Module):
    """A convolution read twice, one read once, a transposed one, one without norm."""

    def __init__(self):
        super().__init__()
        self.first, self.norm1 = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.second = nn.Conv2d(4, 4, 1, groups=2, bias=False)
        self.norm2 = BatchNorm2d(4)
        self.up = nn.ConvTranspose2d(4, 6, 2, stride=2, groups=2)
        self.norm3 = nn.BatchNorm2d(6)
        self.last, self.batch = nn.Conv2d(6, 6, 1), nn.BatchNorm2d(6)
        self.batch.running_mean = self.batch.running_var = None

    def forward(self, x):
        h = self.first(x)
        h = h + torch.relu(self.norm1(h))
        h = torch.relu(self.norm2(self.second(h)))
        h = self.norm3(self.up(h))
        return self.batch(self.last(h))


def settled(model, *shape):
    """A model in evaluation mode with statistics and affine parameters that matter."""
    torch.manual_seed(0)
    model = model.double()
    for p in model.parameters():
        nn.init.normal_(p)
    for m in norms(model):
        if m.running_mean is not None:
            m.running_mean.normal_()
            stored(m).uniform_(0.5, 2)
    return model.eval()


STAYS = {  # by the reason that is given
    "called in 2 places": lambda m, x: m.norm(m.other(m.norm(m.linear(x)))),
    "used more than once": lambda m, x: m.norm(m.linear(m.linear(x).relu())),
    "read by others": lambda m, x: m.norm(m.linear(x)) @ m.linear.weight,
}


class TestFoldModel:
    def test_folds_what_can_be_folded_and_nothing_else(self):
        model, x = settled(Branches()), normal(3, 4, 6, 6)
        before = state(model)
        folded = bnlib.fold_model(model, x)
        torch.testing.assert_close(folded(x), model(x))
        gone = {n for n, m in folded.named_modules() if isinstance(m, nn.Identity)}
        assert gone == {"norm2", "norm3"}  # norm1's input is read twice
        assert type(folded) is Branches
        assert_unchanged(model, before)

    @pytest.mark.parametrize("norm", [nn.BatchNorm1d, BatchNorm1d, BatchRenorm1d])
    def test_every_kind_of_batch_norm_goes(self, norm):
        model, x = settled(net(norm)), normal(7, 5)
        folded = bnlib.fold_model(model)
        torch.testing.assert_close(folded(x), model(x))
        assert not norms(folded)

    @pytest.mark.parametrize("use", STAYS)
    def test_what_is_used_twice_stays(self, use):
        model = behind_one_another(STAYS[use], other=nn.Linear(5, 5))
        with pytest.warns(UserWarning, match=use):
            bnlib.fold_model(settled(model), normal(3, 5))

    def test_a_module_under_two_names_is_replaced_under_both(self):
        model = settled(net())
        model.alias = model[1]
        folded = bnlib.fold_model(model, normal(3, 5), forward=lambda m, b: m[:9](b))
        assert folded.alias is folded[1]

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    def test_a_wrong_fold_is_noticed(self, dtype):
        def doubting(m, x):  # torch.fx does not come with a tensor
            h = m.linear(x)
            return m.norm(h.relu() if isinstance(x, torch.Tensor) else h)

        model = settled(behind_one_another(doubting)).to(dtype)
        with pytest.raises(ValueError, match="differ by more"):
            bnlib.fold_model(model, normal(20, 5).to(dtype))

    def test_outputs_that_cannot_be_compared_are_refused(self):
        model = made(lambda m, x: str(m.body(x)), body=net()).eval()
        with pytest.raises(ValueError, match="outputs must be tensors"):
            bnlib.fold_model(model, normal(3, 5))

    def test_infinite_outputs_compare_equal(self):
        def masked(m, x):
            return torch.cat([m.body(x), x * float("-inf")], 1)

        model = settled(made(masked, body=net()))
        folded = bnlib.fold_model(model, normal(3, 5).abs())
        assert not norms(folded)

    def test_a_linear_layer_on_sequences_is_told_apart_by_a_batch(self):
        model = settled(nn.Sequential(nn.Linear(5, 5), nn.BatchNorm1d(5)))
        with pytest.warns(UserWarning, match=r"on \(N, C, L\)"):
            folded = bnlib.fold_model(model, normal(2, 5, 5))
        assert len(norms(folded)) == 1

    def test_training_mode_is_refused(self):
        with pytest.raises(ValueError, match="must be in evaluation mode, the model"):
            bnlib.fold_model(net())
        almost = net().eval()
        almost[4].train()
        with pytest.raises(ValueError, match="4 is in training mode"):
            bnlib.fold_model(almost)


def trained(model, x, momentum=0.1, steps=60):
    """A model whose running statistics have arrived at those of x."""
    for m in norms(model):
        m.momentum = momentum
    model.train()
    with torch.no_grad():
        for _ in range(steps):
            model(x)
    return model


def healthy():
    torch.manual_seed(0)
    layers = [nn.Linear(5, 32, bias=False), nn.BatchNorm1d(32), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(32, 3)).double()


X = normal(64, 5, seed=1)


class TestDiagnose:
    def test_nothing_in_the_model_changes(self):
        model = trained(healthy(), X)
        model.append(nn.Dropout(0.5))
        model(X).sum().backward()
        model[0].eval()
        before = state(model)
        bnlib.diagnose(model, X, optimizer=torch.optim.SGD(model.parameters(), 0.1))
        assert_unchanged(model, before)

    @pytest.mark.parametrize("norm", [nn.BatchNorm1d, BatchNorm1d, BatchRenorm1d])
    def test_healthy_new_trained_and_in_use(self, norm):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(5, 32, bias=False), norm(32)).double()
        assert not bnlib.diagnose(model, X)
        assert not bnlib.diagnose(trained(model, X), X)
        assert not bnlib.diagnose(model.eval(), X)
        assert not bnlib.diagnose(model, X[:1])

    def test_few_values_in_training_only(self):
        model = trained(healthy(), X)
        assert codes(model, X[:15]) == {"few-values"}
        (found,) = bnlib.diagnose(model[:2], X[:9])
        assert "by 25%" in found.what  # 1 / sqrt(2 (n - 1))
        assert not codes(model, X[:16])
        assert "few-values" in codes(model, X[:1])  # a finding, and no error
        assert not codes(model.eval(), X[:1])

    def test_weight_decay_only_where_an_optimizer_decays_it(self):
        model = trained(healthy(), X)
        sgd = torch.optim.SGD
        assert not codes(model, X, optimizer=sgd(model.parameters(), 0.1))
        decayed = sgd(model.parameters(), 0.1, weight_decay=1e-4)
        assert codes(model, X, optimizer=decayed) == {"weight-decay"}
        groups = [{"params": model[0].parameters(), "weight_decay": 1e-4},
                  {"params": model[1].parameters()}]  # fmt: skip
        assert not codes(model, X, optimizer=sgd(groups, 0.1))
        layer_norm = nn.Sequential(nn.Linear(5, 5), nn.LayerNorm(5)).double()
        decayed = torch.optim.AdamW(layer_norm.parameters())
        assert codes(layer_norm, X, optimizer=decayed) == {"weight-decay"}

    def test_a_norm_that_starts_at_0_has_switched_nothing_off(self):
        model = trained(healthy(), X)
        nn.init.zeros_(model[1].weight)
        assert "zero-weights" not in codes(model, X)

    @pytest.mark.parametrize(
        ("norm", "useless"),
        [(nn.InstanceNorm2d(6), True), (nn.GroupNorm(6, 6), True),
         (nn.GroupNorm(2, 6), False), (nn.LayerNorm([6, 3, 3]), False),
         (nn.BatchNorm2d(6), True)],
    )  # fmt: skip
    def test_a_bias_is_useless_before_norms_of_single_channels(self, norm, useless):
        model = nn.Sequential(nn.Conv2d(3, 6, 3), norm).double()
        assert ("useless-bias" in codes(model, normal(16, 3, 5, 5))) == useless

    def test_shared_layers_only_where_it_matters(self):
        def twice(m, x):
            return m.norm(x) + m.norm(m.scale * x)

        for scale, found in ((1, False), (5, True)):
            model = made(twice, norm=nn.BatchNorm1d(5), scale=scale)
            model = trained(model.double(), X)
            assert ("shared-layer" in codes(model, X)) == found

    def test_padding_needs_ends_of_unequal_length(self):
        model = nn.BatchNorm1d(5).double()
        x = normal(16, 5, 9)
        assert "padding" not in codes(model, x)
        x[:, :, 6:] = 0
        assert "padding" not in codes(model, x)  # all alike: no sign of lengths
        x[:8, :, 4:] = 0
        assert "padding" in codes(model, x)

    def test_a_view_between_layer_and_norm_does_not_hide_the_source(self):
        def viewed(m, x):  # (N, L, C) -> (N L, C)
            return m.norm(m.linear(x).flatten(0, 1))

        model = behind_one_another(viewed).double()
        found = bnlib.diagnose(model, normal(16, 3, 5))
        assert [(f.code, f.layer) for f in found] == [("useless-bias", "linear")]

    def test_outputs_of_any_structure_and_inputs_by_name(self):
        def named(m, *, images, scale=1):
            return {"scores": [m.body(images) * scale], "text": "no tensor"}

        model = made(named, body=healthy())
        model.body[0].bias = nn.Parameter(torch.zeros(32).double())
        assert codes(model, {"images": X, "scale": 2}) == {"useless-bias"}
        run = lambda m, batch: m(images=batch[0])  # noqa: E731
        assert codes(model, (X, None), forward=run) == {"useless-bias"}

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (("model", X), "model must be a torch.nn.Module, got str"),
            ((healthy(), "batch"), "batch must be a tensor.*got str.*forward="),
            ((healthy(), None), "batch must be a tensor.*got NoneType"),
            ((healthy(), []), "batch must be a tensor.*got list"),
        ],
    )
    def test_bad_arguments_are_named(self, arguments, message):
        with pytest.raises(TypeError, match=message):
            bnlib.diagnose(*arguments)

    def test_the_optimizer_must_be_one(self):
        with pytest.raises(TypeError, match="optimizer must be a torch optimizer"):
            bnlib.diagnose(healthy(), X, optimizer="sgd")


# What else may be done with h, what a layer with a bias has put out.
OF_USE = {
    "a skip connection": lambda m, x: m.norm(h := m.linear(x)) + h,
    "a norm that nobody reads": lambda m, x: (m.norm(m.linear(x)), m.other(x))[1],
    "in place": lambda m, x: m.norm(m.linear(x).relu_()),
    "dropout": lambda m, x: m.norm(m.drop(m.linear(x))),
    "relu": lambda m, x: m.norm(m.linear(x).relu()),
    "another call": lambda m, x: m.norm(m.linear(x)) + m.linear(x.flip(1)),
    "a norm for each call": lambda m, x: (
        m.norm(m.linear(x)) * m.second(m.linear(x.flip(1)))
    ),
    "two norms": lambda m, x: m.norm(h := m.linear(x)) * m.second(h),
    "two layers": lambda m, x: m.norm(m.linear(x)) * m.norm(m.other(x)),
    "chunks": lambda m, x: m.norm((h := m.linear(x))[:, :5]) * m.second(h[:, 5:]),
}


class TestFalseAlarms:
    """Sound models on which earlier versions of the rules spoke, or raised an error."""

    @pytest.mark.parametrize("use", OF_USE)
    def test_a_bias_is_of_use_where_no_norm_alone_subtracts_it(self, use):
        parts = {"second": nn.BatchNorm1d(5), "other": nn.Linear(5, 5, bias=False)}
        parts["drop"] = nn.Dropout(0.5)
        model = behind_one_another(OF_USE[use], **parts)
        if use == "chunks":
            model.linear = nn.Linear(5, 10)
        assert "useless-bias" not in codes(model.double(), X)

    @pytest.mark.parametrize(
        "model",
        [
            nn.Sequential(nn.Linear(5, 64, bias=False), nn.Unflatten(1, (4, 4, 4)),
                          nn.BatchNorm2d(4)),
            nn.Sequential(nn.Unflatten(1, (1, 5)), nn.Conv1d(1, 4, 2, bias=False),
                          nn.Flatten(), nn.BatchNorm1d(16)),
        ],
        ids=["unflatten", "flatten"],
    )  # fmt: skip
    def test_views_that_mix_channels(self, model):
        assert not bnlib.diagnose(trained(model.double(), X), X)

    def test_a_layer_used_twice_is_folded_once(self):
        def siamese(m, x):
            return m.encoder(x) * m.encoder(x.flip(0))

        model = made(siamese, encoder=healthy()[:2])
        model.encoder[1].weight.data[0] = 6.0
        assert not bnlib.diagnose(trained(model, X), X)

    def test_the_first_steps_of_training(self):
        for steps in (1, 5, 20, 40):
            model = trained(healthy(), 0.05 * X, steps=steps)
            assert not bnlib.diagnose(model, 0.05 * X)

    def test_frozen_statistics_without_weights(self):
        model = healthy()
        model[1] = nn.BatchNorm1d(32, affine=False).double()
        trained(model, X)[1].eval()
        assert not bnlib.diagnose(model, X)

    def test_an_empty_batch(self):
        assert not bnlib.diagnose(nn.BatchNorm1d(5).double(), X[:0])


class TestMoreFaults:
    def test_tracking_instance_norm_and_whitening(self):
        for layer in (
            nn.InstanceNorm1d(5, track_running_stats=True),
            bnlib.nn.DecorrelatedBatchNorm(5, num_groups=5),
        ):
            model = nn.Sequential(layer.double()).eval()
            layer.train()
            layer.running_mean[2] = float("nan")
            batch = normal(64, 5, 7) if "Instance" in str(layer) else X
            assert {"not-finite", "training-layer"} <= codes(model, batch)

    def test_a_parameter_that_is_nan(self):
        model = trained(healthy(), X)
        model[1].weight.data[3] = float("nan")
        (found, *_) = (f for f in bnlib.diagnose(model, X) if f.code == "not-finite")
        assert "weight" in found.what and "1 values" in found.what

    def test_batch_statistics_in_training(self):
        assert not codes(nn.BatchNorm1d(5, track_running_stats=False).double(), X)


class TestReport:
    def test_nothing_found_is_one_line(self):
        report = bnlib.diagnose(healthy(), X)
        assert repr(report) == "no findings, 1 normalization layers"
        assert "<table" not in report._repr_html_()

    def test_html_escapes_what_comes_from_the_model(self):
        finding = _rules.Finding("a<b", "<script>", "x & y", "c")
        shown = _diagnose.Report([finding], 1)._repr_html_()
        assert "<script>" not in shown and html.escape("<script>") in shown
        assert "a&lt;b" in shown and 'scope="col"' in shown


@pytest.mark.parametrize(
    "layer",
    [
        nn.Linear(4, 6, bias=False),
        nn.Conv2d(4, 6, 3, groups=2, bias=False),
        nn.ConvTranspose1d(4, 6, 2, groups=2, bias=False),
        nn.ConvTranspose3d(4, 6, 3, bias=False),
    ],
    ids=str,
)
def test_the_largest_weight_of_a_channel_is_what_single_inputs_find(layer):
    size = (5,) * (layer.weight.ndim - 2)
    lone = torch.zeros(4, 4, *size)
    for i, example in enumerate(lone):
        example[(i, *(2 for _ in size))] = 1.0
    with torch.no_grad():
        found = layer(lone).abs().transpose(0, 1).flatten(1).amax(1)
    torch.testing.assert_close(_rules.largest_weight(layer), found.double())
