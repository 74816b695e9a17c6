"""Statistics of many workers: the merge, the layer on real processes, what goes wrong.

The processes of one world are started once and run every case of
many_machines_worker.py; the tests look at what they saved. All are forks of a server
that has imported torch for them. Every wait has a limit, no fork outlives its test.
"""

import copy
import inspect
import multiprocessing
import os
import re
import sys
import time
from multiprocessing import forkserver

import many_machines_worker as worker
import numpy as np
import pytest
import torch
from commands import python, torchrun
from many_machines_worker import DTYPES, OPTIONS, SHAPES, SPLITS, batches, mine, shaken
from torch import nn
from torch.testing import assert_close

import bnlib
from bnlib.nn import BatchNorm1d, BatchNorm2d, SyncBatchNorm

NORM = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}
CLOSE = {
    torch.float64: {"rtol": 1e-12, "atol": 1e-12},
    torch.float32: {"rtol": 1e-5, "atol": 3e-6},
    torch.bfloat16: {"rtol": 1.6e-2, "atol": 2e-2},
    torch.float16: {"rtol": 2e-3, "atol": 3e-3},
}


# --- merge_moments --------------------------------------------------------------------


def parts_of(x, sizes):
    """Means and variances of parts of x; those of an empty part are NaN."""
    parts = np.split(x, np.cumsum(sizes)[:-1])
    empty = np.full(x.shape[1:], np.nan)
    means = [p.mean(axis=0) if len(p) else empty for p in parts]
    variances = [p.var(axis=0) if len(p) else empty for p in parts]
    return np.array(means), np.array(variances)


SIZES = [(20,), (10, 10), (1, 19), (7, 0, 12, 1), (0, 0, 20), (1,) * 20]


@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("kind", [np.array, torch.tensor])
@pytest.mark.parametrize("shape", [(), (3,), (3, 2)], ids=str)
def test_merged_moments_are_those_of_the_whole(sizes, kind, shape):
    x = np.random.default_rng(0).normal(size=(20, *shape)) + 3
    x.sort(axis=0)
    means, variances = parts_of(x, sizes)  # an empty part has NaN
    got = bnlib.merge_moments(kind(sizes), kind(means), kind(variances))
    for one, wanted in zip(got, (x.mean(axis=0), x.var(axis=0)), strict=True):
        assert type(one) is torch.Tensor if kind is torch.tensor else one.dtype == float
        np.testing.assert_allclose(np.asarray(one), wanted, rtol=1e-13)


def test_float32_far_from_zero():
    x = np.random.default_rng(0).normal(size=(4000, 3)).cumsum(axis=0) / 50 + 1e4
    means, variances = (a.astype("float32") for a in parts_of(x, (1000, 500, 2500)))
    mean, var = bnlib.merge_moments(np.array([1000, 500, 2500]), means, variances)
    assert mean.dtype == var.dtype == np.float32
    np.testing.assert_allclose(mean, x.mean(axis=0), rtol=2e-7)
    np.testing.assert_allclose(var, x.var(axis=0), rtol=1e-3)


@pytest.mark.parametrize(
    ("library", "dtype"),  # numpy has no bfloat16
    [("numpy", torch.float16), ("torch", torch.float16), ("torch", torch.bfloat16)],
)
def test_half_precision_is_merged_in_float32(library, dtype):
    counts = torch.tensor([60_000, 60_000, 60_000])  # their sum overflows float16
    means = torch.randn(3, 2, generator=torch.Generator().manual_seed(0)).to(dtype)
    arrays = counts, means, means**2
    exact = bnlib.merge_moments(counts, means.double(), (means**2).double())
    if library == "numpy":
        arrays = [a.numpy() for a in arrays]
    got = bnlib.merge_moments(*arrays)
    for one, wanted in zip(got, exact, strict=True):
        assert one.dtype == arrays[1].dtype
        assert_close(torch.as_tensor(one).double(), wanted, rtol=2**-8, atol=0)


def test_a_merged_variance_can_be_differentiated():
    counts = torch.tensor([3, 0, 5])
    moments = torch.randn(3, 2).double(), torch.rand(3, 2).double() + 1
    moments = [m.requires_grad_() for m in moments]
    merge = lambda *m: bnlib.merge_moments(counts, *m)  # noqa: E731
    assert torch.autograd.gradcheck(merge, moments)


TWO = np.ones((2, 3))
BAD = {
    "list": (([1, 2], TWO, TWO), TypeError, "counts must be a numpy array .* got list"),
    "bool": ((np.array([True, True]), TWO, TWO), TypeError, "counts must hold numbers"),
    "2D": ((TWO, TWO, TWO), ValueError, r"counts must have shape \(workers,\), got"),
    "negative": ((np.array([1, -1]), TWO, TWO), ValueError, "counts must be .* >= 0"),
    "NaN count": ((np.array([1, np.nan]), TWO, TWO), ValueError, "counts must be fin"),
    "zero": ((np.zeros(2), TWO, TWO), ValueError, "counts must be .* not for all"),
    "workers": ((np.ones(3), TWO, TWO), ValueError, "means must have shape .3, 3. bec"),
    "no means": ((np.ones(2), None, TWO), TypeError, "means must be a numpy array"),
    "ints": ((np.ones(2), TWO.astype(int), TWO), TypeError, "means must hold floating"),
    "NaN": ((np.ones(2), TWO * np.nan, TWO), ValueError, "means must be finite"),
    "shape": ((np.ones(2), TWO, TWO[:, :2]), ValueError, "variances must have shape"),
    "dtype": ((np.ones(2), TWO, TWO.astype("f4")), TypeError, "variances must have"),
    "library": ((np.ones(2), TWO, torch.ones(2, 3)), TypeError, "variances is from t"),
    "counts": ((torch.ones(2), TWO, TWO), TypeError, "counts and means are from two"),
    "below 0": ((np.ones(2), TWO, -TWO), ValueError, "variances must be >= 0"),
    "overflow": (
        (np.ones(2), np.array([6e4, -6e4], "f2"), np.ones(2, "f2")),
        ValueError,
        "the merged variance overflows float16; convert",
    ),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:overflow encountered")
@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_merged_says_why(case):
    arguments, kind, message = BAD[case]
    with pytest.raises(kind, match=message):
        bnlib.merge_moments(*arguments)


# --- one process ----------------------------------------------------------------------


def test_the_arguments_and_state_of_torch():
    ours, theirs = SyncBatchNorm, nn.SyncBatchNorm
    names = [list(inspect.signature(layer).parameters) for layer in (ours, theirs)]
    assert names[0] == names[1]
    defaults = [
        [p.default for p in inspect.signature(layer).parameters.values()]
        for layer in (ours, theirs)
    ]
    assert defaults[0] == defaults[1]
    for options in [*OPTIONS.values(), {"dtype": torch.float64, "device": "meta"}]:
        ours, theirs = SyncBatchNorm(4, **options), nn.SyncBatchNorm(4, **options)
        assert repr(ours) == repr(theirs) and ours.process_group is None
        states = ours.state_dict(), theirs.state_dict()
        assert list(states[0]) == list(states[1])
        for a, b in zip(*(s.values() for s in states), strict=True):
            assert (a.dtype, a.shape, a.device) == (b.dtype, b.shape, b.device)
        if not any(a.is_meta for a in states[1].values()):
            ours.load_state_dict(theirs.state_dict())


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_alone_it_is_batch_norm(name, shape):
    ours = shaken(SyncBatchNorm(3, **OPTIONS[name]).double())
    theirs = NORM[1 + len(shape)](3, **OPTIONS[name]).double()
    theirs.load_state_dict(ours.state_dict())
    for training in (True, False):
        data = list(batches(shape))
        found = [worker.steps(m.train(training), data) for m in (ours, theirs)]
        assert_close(*found, **CLOSE[torch.float64])


def test_the_same_errors_as_torch_alone():
    for x in (torch.ones(3), torch.ones(4, 0), torch.ones(1, 3), torch.ones(4, 2)):
        said = [worker.error_of(lambda m=m, x=x: m(x)) for m in
                (SyncBatchNorm(3), nn.SyncBatchNorm(3))]  # fmt: skip
        assert said[0][0] == said[1][0]
        assert said[0][1].startswith(said[1][1].split(", got")[0])


class Shared(nn.Module):
    """A batch norm in three places, and one with half of its parameters frozen."""

    def __init__(self):
        super().__init__()
        self.first = BatchNorm2d(3)
        self.again = self.first
        self.deep = nn.Sequential(nn.Conv2d(3, 3, 1), self.first)
        self.plain = nn.BatchNorm1d(4, eps=0.1, momentum=None, bias=False)
        self.plain.weight.requires_grad_(False)
        self.bare = nn.BatchNorm3d(5, affine=False, track_running_stats=False).eval()
        self.instance = nn.InstanceNorm1d(2)


def test_conversion():
    net = Shared()
    state, parameters = copy.deepcopy(net.state_dict()), list(net.parameters())
    group = object()
    converted = SyncBatchNorm.convert_sync_batchnorm(net, group)
    assert converted is net
    for layer in (net.first, net.plain, net.bare):
        assert type(layer) is SyncBatchNorm and layer.process_group is group
    assert net.again is net.first and net.deep[1] is net.first
    assert type(net.instance) is nn.InstanceNorm1d
    assert list(net.state_dict()) == list(state)
    assert all(a is b for a, b in zip(net.parameters(), parameters, strict=True))
    assert (net.plain.eps, net.plain.momentum, net.plain.bias) == (0.1, None, None)
    assert not net.plain.weight.requires_grad
    assert not net.bare.training and net.first.training
    assert not (net.bare.affine or net.bare.track_running_stats)
    theirs = nn.SyncBatchNorm.convert_sync_batchnorm(Shared(), group)
    assert repr(theirs.first) == repr(net.first)
    assert type(theirs.again) is BatchNorm2d  # the second name, which torch overlooks


def test_conversion_of_a_single_layer():
    for norm in (BatchNorm1d, nn.BatchNorm2d, nn.SyncBatchNorm, SyncBatchNorm):
        layer = norm(3, eps=0.5)
        layer.running_mean.add_(1)
        made = SyncBatchNorm.convert_sync_batchnorm(layer)
        assert type(made) is SyncBatchNorm and made is not layer
        assert made.eps == 0.5 and made.running_mean is layer.running_mean
        assert made.weight is layer.weight and made.process_group is None


@pytest.mark.parametrize("affine", [True, False])
def test_a_lazy_layer_is_not_converted_silently(affine):
    net = nn.Sequential(nn.LazyBatchNorm1d(affine=affine))
    with pytest.raises(TypeError, match="LazyBatchNorm1d has no number of features"):
        SyncBatchNorm.convert_sync_batchnorm(net)


def test_chapter_15_recognises_the_layer(monkeypatch):
    x = torch.randn(32, 3) + 5
    model = nn.Sequential(SyncBatchNorm(3))
    bnlib.recalibrate(model, [x[:20], x[20:]], progress=False)
    assert_close(model[0].running_mean, x.mean(dim=0))
    assert_close(model[0].running_var, x.var(dim=0))
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda *_: 2)
    for layer, found in ((model[0], False), (BatchNorm1d(3), True)):
        report = bnlib.diagnose(nn.Sequential(layer).train(), x)
        assert ("unsynchronized" in {finding.code for finding in report}) == found


def test_bnlib_needs_no_distributed():
    code = (
        "import torch; torch.distributed.is_available = lambda: False\n"
        "del torch.distributed.all_gather, torch.distributed.group\n"
        "from bnlib.nn import SyncBatchNorm\n"
        "print(SyncBatchNorm(3)(torch.arange(6.0).reshape(2, 3)).sum().item())"
    )
    assert float(python("-c", code, timeout=60)) == 0


# --- many processes -------------------------------------------------------------------


def start(name, size, folder):
    forks = multiprocessing.get_context("forkserver")
    with pytest.MonkeyPatch.context() as patch:  # where the server finds the worker
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))
        forks.set_forkserver_preload([worker.__name__])
        forkserver.ensure_running()
    cases = [(name, rank, size, folder) for rank in range(size)]
    processes = [forks.Process(target=worker.main, args=case) for case in cases]
    for process in processes:
        process.start()
    return processes


def finish(processes, seconds, which=None):
    """Wait for all (or for some of) the processes, then end all, whatever happens."""
    end = time.monotonic() + seconds
    try:
        for process in processes if which is None else [processes[k] for k in which]:
            process.join(max(0.1, end - time.monotonic()))
            assert process.exitcode is not None, f"not done after {seconds} seconds"
    finally:
        for process in processes:
            process.kill()
            process.join()


@pytest.fixture(scope="module", params=SPLITS)
def world(request, tmp_path_factory):
    """(size, what each worker found) after all of them did `everything`."""
    size, folder = request.param, tmp_path_factory.mktemp("world")
    processes = start("everything", size, folder)
    finish(processes, 120)
    logs = "\n".join((folder / f"log{rank}").read_text() for rank in range(size))
    assert [p.exitcode for p in processes] == [0] * size, logs
    return size, [torch.load(folder / f"{rank}.pt") for rank in range(size)]


def gathered(found, options):
    """What the workers saw, as one process would have seen it.

    Outputs and dx are put together, parameters' gradients are summed, and the running
    statistics must be the same on all.
    """
    layer, joined = SyncBatchNorm(3, **options), []
    join = [torch.cat] * 2 + [sum] * len(list(layer.parameters()))
    join += [the_same] * len(list(layer.buffers()))
    for k, seen in enumerate(zip(*found, strict=True)):
        joined.append(join[k % len(join)](seen))
    return joined


def the_same(seen):
    assert all(torch.equal(seen[0], one) for one in seen)
    return seen[0]


def alone(layer, data):
    """The same by torch.nn's batch norm, in one process, in float64."""
    return worker.steps(layer.double(), [(x.double(), dy.double()) for x, dy in data])


def assert_all_close(got, wanted, dtype):
    assert len(got) == len(wanted)
    for a, b in zip(got, wanted, strict=True):
        assert_close(a.to(b.dtype), b, **CLOSE[dtype])


class TestWorld:
    @pytest.mark.parametrize("shape", SHAPES, ids=str)
    def test_equal_to_one_process_whatever_the_split(self, world, shape):
        size, found = world
        for dtype in DTYPES if shape == SHAPES[-2] else DTYPES[:1]:
            layer = shaken(NORM[1 + len(shape)](shape[0]))
            wanted = alone(layer, batches(shape, dtype))
            for split in SPLITS[size]:
                got = gathered([f["equality"][split, shape, dtype] for f in found], {})
                assert_all_close(got, wanted, dtype)

    @pytest.mark.parametrize("name", OPTIONS)
    def test_equal_to_one_process_with_every_option(self, world, name):
        size, found = world
        options, tracked = OPTIONS[name], name != "no statistics"
        layer = shaken(nn.BatchNorm1d(3, **options))
        wanted = {(): alone(layer, batches())}
        if tracked:
            wanted[("evaluation",)] = alone(layer.eval(), batches(seed=3))
        for split in SPLITS[size]:
            for mode, expected in wanted.items():
                seen = [f["equality"][split, name, *mode] for f in found]
                assert_all_close(gathered(seen, options), expected, torch.float64)

    def test_float32_far_from_zero(self, world):
        size, found = world
        data = batches(dtype=torch.float32, loc=1e4)
        wanted = alone(nn.BatchNorm1d(3), data)
        for split in SPLITS[size]:
            got = gathered([f["equality"][split, "far"] for f in found], {})
            assert_all_close(got, wanted, torch.float32)

    def test_one_collective_forward_and_one_backward(self, world):
        _, found = world
        for f in found:
            assert f["messages"] == {
                "forward": ["gloo:all_gather"],
                "backward": ["gloo:all_reduce"],
                "data": ["gloo:all_gather"],  # no gradient for the input: none is sent
                "no_grad": ["gloo:all_gather"],
                "evaluation": [],
            }

    def test_every_group_has_its_own_statistics(self, world):
        size, found = world
        (x, _), _ = batches()
        for rank, f in enumerate(found):
            first = 3 * (rank // 2 * 2)
            pair = nn.BatchNorm1d(3).double()(x[first : first + 6]).detach()
            own = mine(pair, [3, 3], rank % 2)
            assert_close(f["groups"]["pair"], own, **CLOSE[torch.float64])
            assert torch.equal(f["groups"]["converted"], f["groups"]["pair"])
            if rank > 1:  # not in the group: alone, as in torch
                own = nn.BatchNorm1d(3).double()(mine(x, [3] * size, rank)).detach()
            assert_close(f["groups"]["first pair"], own, **CLOSE[torch.float64])

    def test_every_worker_raises_the_same_error(self, world):
        _, found = world
        expected = {
            "one value": (
                "ValueError",
                "Expected more than 1 value per channel",
            ),
            "NaN": ("ValueError", "running_mean would become NaN .* channels .1."),
            "eps": ("ValueError", "eps must be positive during training"),
            "channels": (
                "RuntimeError",
                "running_mean should contain 2 elements",
            ),
            "1D": ("ValueError", "expected at least 2D input .got 1D"),
            "no channels": (
                "ValueError",
                "input channels should be non-zero",
            ),
            "integers": ("NotImplementedError", "not implemented for torch.int64"),
            "no tensor": ("TypeError", "must be Tensor, not list"),
            "momentum": ("ValueError", "momentum must be finite"),
        }
        for f in found:
            for name, (kind, message) in expected.items():
                got = f["errors"][name]
                assert got is not None, name
                assert got[0] == kind, got
                assert re.search(message, got[1]), got
            mean, var, counter = f["errors"]["buffers"]  # as if nothing had happened
            assert not mean.any() and (var == 1).all() and counter == 0

    def test_empty_everywhere_and_one_value_each(self, world):
        size, found = world
        (x, _), _ = batches()
        layer = nn.BatchNorm1d(3).double()
        y = layer(x[:size]).detach()
        for rank, f in enumerate(found):
            assert f["nothing"]["shapes"] == ((0, 3, 2), (0, 3, 2))
            assert all((g == 0).all() for g in f["nothing"]["gradients"])
            mean, var, counter = f["nothing"]["empty"]
            assert not mean.any() and (var == 1).all() and counter == 1  # as in torch
            one, var = f["nothing"]["one each"]
            assert_close(one, y[rank : rank + 1], **CLOSE[torch.float64])
            assert_close(var, layer.running_var, **CLOSE[torch.float64])

    def test_second_derivatives(self, world):
        _, found = world
        layer = shaken(BatchNorm1d(3).double())
        (x, dy), _ = batches()
        worker.second_loss(layer, x.requires_grad_(), dy).backward()
        dx = torch.cat([f["second"][0] for f in found])
        assert_close(dx, x.grad, rtol=1e-11, atol=1e-11)
        shares = zip(*(f["second"][1:] for f in found), strict=True)
        for share, p in zip(shares, layer.parameters(), strict=True):
            p_grad = torch.zeros_like(p) if p.grad is None else p.grad
            total = sum(torch.zeros_like(p) if s is None else s for s in share)
            assert_close(total, p_grad, rtol=1e-11, atol=1e-11)

    def test_training_under_ddp_is_training_of_one_process(self, world):
        _, found = world
        wanted = worker.train(worker.model(nn.BatchNorm2d))
        for f in found:
            for name in ("sync", "no broadcast"):
                got = f["ddp"][name]
                for key, value in wanted.items():
                    at = got[f"module.{key}"]
                    assert_close(at, value, rtol=1e-10, atol=1e-12, msg=f"{name} {key}")

    def test_what_ddp_does_to_the_statistics_of_plain_batch_norm(self, world):
        """At each forward the first worker's are sent to all: the others' are lost."""
        _, found = world
        first = found[0]["ddp"]
        own = [f["ddp"]["own"] for f in found]
        assert all((own[0] - o).abs().max() > 1e-3 for o in own[1:])
        for f in found:
            ddp = f["ddp"]
            wanted = 0.9 * first["own"] + 0.1 * ddp["convolved"]
            assert_close(ddp["after"], wanted, **CLOSE[torch.float64])

    def test_diagnose_tells_plain_from_synchronized_under_ddp(self, world):
        _, found = world
        assert all(f["ddp"]["diagnosed"] == [False, True] for f in found)

    def test_recalibrate_takes_the_data_of_all(self, world):
        size, found = world
        x, _ = next(batches())
        for split in SPLITS[size]:
            for norm in ("BatchNorm1d", "SyncBatchNorm"):
                net = worker.layered(nn.BatchNorm1d)
                whole = [b for r in range(size) for b in worker.parts(x, split, r)]
                bnlib.recalibrate(net, whole, progress=False)
                for k, wanted in enumerate(net.buffers()):
                    got = the_same([f["measured"][split, norm][k] for f in found])
                    assert_close(got, wanted, rtol=1e-12, atol=1e-12)

    def test_recalibrate_in_a_group_of_its_own(self, world):
        size, found = world
        x, _ = next(batches())
        for first in range(0, size, 2):
            net = worker.layered(nn.BatchNorm1d)
            bnlib.recalibrate(net, [x + first, x + first + 1], progress=False)
            for k, wanted in enumerate(net.buffers()):
                pair = [f["measured"]["pair"][k] for f in found[first : first + 2]]
                assert_close(the_same(pair), wanted, rtol=1e-12, atol=1e-12)

    def test_recalibrate_fails_in_all_processes_or_in_none(self, world):
        size, found = world
        *others, last = [f["measured"] for f in found]
        nan = f"ValueError: batch 2 of loader of process {size - 1} brings NaN"
        assert all(f["nan"].startswith(nan) for f in (*others, last))
        assert all(
            f"process {size - 1} of the group failed" in f["text"] for f in others
        )
        for f in (*others, last):
            assert "all processes must measure the same layers" in f["layers"]
            assert "TypeError" in f["text"] or "batch must be" in f["text"]
            assert f["as before"]

    def test_the_tools_on_weights_spread_over_processes(self, world):
        _, found = world
        net, (x, _) = worker.layered(nn.BatchNorm1d), next(batches())
        bnlib.recalibrate(net, [x], progress=False)
        for f in (f["sharded"] for f in found):
            assert "never-updated" in f["before"] and not f["after"]
            for got, wanted in zip(f["buffers"][:2], net.buffers(), strict=False):
                assert_close(got, wanted, rtol=1e-12, atol=1e-12)
            assert "as many batches" in f["uneven"] and f["gradient"]

    def test_autocast(self, world):
        _, found = world
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(3, 4), BatchNorm1d(4))
        (x, _), _ = batches(dtype=torch.float32)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            y = net(x)
        got = torch.cat([f["autocast"][0] for f in found])
        assert got.dtype == y.dtype == torch.bfloat16
        assert_close(got, y, rtol=2e-2, atol=2e-2)
        for f in found:
            assert f["autocast"][1].dtype == torch.float32
            assert_close(f["autocast"][1], net[1].running_var, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "cause", "origin"),
    [
        ("dies_forward", "one has ended", "closed|reset|pipe"),
        ("dies_backward", "one has ended", "closed|reset|pipe"),
        ("sticks", "one did not come in time: it has ended, is stuck", "timed out"),
    ],
)
def test_a_worker_that_is_lost_ends_all_with_a_clear_error(
    tmp_path, name, cause, origin
):
    processes = start(name, 3, tmp_path)
    finish(processes, 60, which=[0, 1])  # those that are left end by themselves
    for rank in (0, 1):
        log = (tmp_path / f"log{rank}").read_text()
        assert processes[rank].exitcode == 0, log
        said, _, seconds = torch.load(tmp_path / f"{rank}.pt")
        assert said.startswith(f"SyncBatchNorm(3): worker {rank} of 3 in process group")
        assert cause in said or "one has ended" in said
        assert seconds < 15
    firsts = [torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1)]
    assert any(
        cause in said and re.search(origin, why.lower()) for said, why, _ in firsts
    )


SCALED = """
import torch
from torch import nn
from bnlib.nn import BatchNorm1d, SyncBatchNorm
from experiments import machine

machine.join()
for convert in (SyncBatchNorm.convert_sync_batchnorm, lambda net: net):
    torch.manual_seed(0)
    layers = nn.Linear(4, 5), BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 2)
    net = convert(nn.Sequential(*layers).double())
    model = machine.together(net)
    for _ in range(5):
        x = torch.randn(16, 4, generator=torch.Generator().manual_seed(1)).double()
        rows = machine.part(torch.arange(16))
        net.zero_grad()
        (model(x[rows]) - x[rows, :2]).pow(2).mean().backward()
        with torch.no_grad():
            for p in net.parameters():
                p -= 0.5 * p.grad
    if machine.first():
        print(*(repr(p.sum().item()) for p in net.state_dict().values()))
machine.leave()
"""


def test_torchrun_with_one_statistic_for_all_is_one_process(tmp_path):
    """Under torchrun, with the experiments' own helpers: local statistics differ."""
    (tmp_path / "scaled.py").write_text(SCALED)
    said = (torchrun("scaled.py", two=two, cwd=tmp_path) for two in (False, True))
    (one, alone), (sync, local) = (
        [[float(n) for n in line.split()] for line in lines] for lines in said
    )
    assert sync == pytest.approx(one, rel=1e-10, abs=1e-12)
    assert alone == pytest.approx(one, rel=1e-10, abs=1e-12)
    assert max(abs(a - b) for a, b in zip(one, local, strict=True)) > 1e-2
