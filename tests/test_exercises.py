"""The exercises and their checker: mistakes get names, right answers get through."""

import ast
import contextlib
import inspect
import io
import signal
import sys
import textwrap
import threading
import time
import warnings
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import python
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from right_answers import RIGHT, forward_one_line
from strange_answers import STRANGE
from wrong_answers import WRONG

import bnlib
from bnlib.exercises import EXERCISES, from_cache, from_layer
from bnlib.exercises import _check as checker
from bnlib.exercises._exercise import lines_of, words_for
from bnlib.exercises._mistakes import WORDS, WRONG_LINES, code_of

NAMES = sorted(EXERCISES)
every_exercise = pytest.mark.parametrize("name", NAMES)
quick = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
# What the contract of the checker promises to know by these names.
CODES = set(
    """
wrong-axis unbiased-variance biased-running-variance std-instead-of-variance
variance-instead-of-std eps-outside-root missing-eps missing-gamma missing-beta
missing-affine swapped-gamma-beta affine-before-normalization missing-mean cancellation
detached-statistics detached-mean detached-variance mean-instead-of-sum
sum-instead-of-mean missing-scale sign-error wrong-dgamma momentum-reversed
wrong-running-variance batch-statistics-at-inference forgets-bias unscaled-bias
per-pixel-statistics per-sample-statistics mean-of-variances missing-clip r-inverted
d-divided-by-batch-std gradient-through-r-d batch-norm-instead rms-norm-instead
interleaved-groups batch-in-statistics group-size-for-count unweighted
missing-between-variance mutates-input wrong-shape wrong-dtype returns-none raises
too-slow
""".split()  # noqa: SIM905
)


def same(a, b):
    a, b = (p if isinstance(p, tuple) else (p,) for p in (a, b))
    return all(np.allclose(x, y, 1e-9, 1e-9) for x, y in zip(a, b, strict=True))


# ------------------------------------------------------------------ the exercises


def test_every_exercise_of_the_catalogue_and_all_promised_codes():
    folder = Path(bnlib.__file__).parent / "exercises" / "catalogue"
    found = {p.stem for p in folder.glob("*.py")} - {"__init__"}
    assert set(EXERCISES) == found
    known = {code_of(n) for e in EXERCISES.values() for n in e.mistakes} | set(WORDS)
    assert known >= CODES


@every_exercise
def test_texts_are_complete(name):
    exercise = EXERCISES[name]
    assert exercise.title and exercise.task.endswith(".")
    assert len(exercise.hints) == 2 and exercise.chapter[:2].isdigit()
    for text in (exercise.stub, exercise.source):
        (answer,) = ast.parse(text).body
        assert answer.name == name
        if not exercise.script:
            assert tuple(a.arg for a in answer.args.args) == exercise.arguments
    for mistake in exercise.mistakes:
        says, hint = words_for(exercise, mistake)
        assert says.endswith((".", "…")) and hint.endswith((".", "?"))
    space = {"np": np}
    exec(exercise.stub, space)
    assert bnlib.check(name, space[name]).mistakes == ("not-started",)


@every_exercise
def test_inputs_separate_what_the_catalogue_tells_apart(name):
    """Few rows and many, gamma and eps that show, shapes that are not square."""
    cases = EXERCISES[name].cases
    assert len({case.label for case in cases}) == len(cases)
    eps = [case.args["eps"] for case in cases if "eps" in case.args]
    assert not eps or (max(eps) > 1 and min(eps) < 1e-9)
    if "gamma" in EXERCISES[name].arguments:
        assert any((case.args["gamma"] < 0).any() for case in cases)
    shapes = {case.args["x"].shape[:2] for case in cases if "x" in case.args}
    assert not shapes or {n > m for n, m in shapes} == {True, False}


# -------------------------------------------------------- the catalogue, both ways


def test_every_wrong_line_is_python_and_has_its_place():
    """A right line that no solution holds, or a typing error, drops its mistakes."""
    for right, wrongs in WRONG_LINES.items():
        assert any(right in exercise.lines for exercise in EXERCISES.values()), right
        for wrong in wrongs.values():
            ast.parse(wrong.replace("return ", "y = "))
    for exercise in EXERCISES.values():
        assert set(exercise.wrong_lines) <= set(exercise.lines), exercise.name
        own = {name for wrongs in exercise.wrong_lines.values() for name in wrongs}
        assert own <= set(exercise.mistakes), exercise.name  # each runs and is new


def test_two_mistakes_may_share_a_line_but_no_word():
    exercise = EXERCISES["batch_norm_backward"]
    pairs = {frozenset(pair) for pair in exercise.pairs}
    assert {"wrong-power", "multiplies-by-std"} in pairs
    assert {"wrong-power", "missing-xhat"} not in pairs  # either, not both
    assert lines_of(exercise, ("wrong-power", "missing-xhat", "wrong-dgamma")) is None
    x, both = np.array([[1.0], [3.0]]), ("wrong-dgamma", "mean-instead-of-sum")
    _, dgamma, _ = exercise.mutant(*both)(x, x, np.ones(1), 0.0)
    assert dgamma == 5  # the mean of x * x, where the sum of x * xhat belongs


@every_exercise
def test_every_mistake_is_named_and_no_message_gives_the_solution_away(name):
    exercise = EXERCISES[name]
    lines = [line for line in exercise.lines if len(line) > 26]
    for mistake in exercise.mistakes:
        result = bnlib.check(name, exercise.mutant(mistake))
        assert not result.passed
        assert {*result.mistakes} - {"raises"} == {code_of(mistake)} - {"raises"}
        assert not any(line in result.message for line in lines)
        assert "Hint: " in result.message and "expected" in result.message


@every_exercise
def test_right_answers_in_any_style_pass(name):
    assert len(RIGHT[name]) >= 2
    for function in (EXERCISES[name].solution, EXERCISES[name].reference, *RIGHT[name]):
        result = bnlib.check(name, function)
        assert result.passed and result.mistakes == (), (function, result)


@pytest.mark.parametrize("entry", WRONG, ids=lambda e: f"{e[0]}-{e[1].__name__}")
def test_answers_of_learners(entry):
    name, function, codes = entry
    start = time.thread_time()
    result = bnlib.check(name, function)
    assert time.thread_time() - start < 1
    assert not result.passed
    assert set(result.mistakes) & (codes or {"unknown"}), result


answers = st.sampled_from(NAMES).flatmap(
    lambda name: st.tuples(
        st.just(name), st.sampled_from((EXERCISES[name].solution, *RIGHT[name]))
    )
)
EXACT = ("zca_whiten",)  # numpy has no eigenvectors in extended precision


@given(
    answers,
    st.sampled_from([np.float64, np.longdouble]),
    st.sampled_from(["C", "F"]),
    st.sampled_from([np.asarray, np.ndarray.tolist, torch.from_numpy]),
    st.floats(0.25, 4),
)
@quick
def test_variations_of_right_answers_pass(drawn, dtype, order, container, scale):
    """Other precision inside, layout, container; all but xhat in other units."""
    name, function = drawn
    order_of = list(inspect.signature(function).parameters)
    assume(order_of == list(EXERCISES[name].cases[0].args))  # it is called by position
    dtype = np.float64 if name in EXACT else dtype

    def inside(a):
        return np.array(a, dtype, order=order) if np.ndim(a) else a

    def varied(*args):
        args = [a if np.asarray(a).dtype.kind == "i" else inside(a) for a in args]
        result = function(*args)
        parts = result if isinstance(result, tuple) else (result,)
        parts = [np.asarray(p, np.float64) * scale / scale for p in parts]
        parts = tuple(container(np.ascontiguousarray(p)) for p in parts)
        return parts if isinstance(result, tuple) or len(parts) > 1 else parts[0]

    if len(EXERCISES[name].outputs) > 1 and not isinstance(
        function(*EXERCISES[name].cases[0].args.values()), tuple
    ):
        varied = function
    result = bnlib.check(name, varied)
    assert result.passed, result


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"zca_whiten"}))
def test_single_precision_passes(name):
    solution = EXERCISES[name].solution

    def single(*args):
        args = [
            a.astype(np.float32) if getattr(a, "dtype", None) == np.float64 else a
            for a in args
        ]
        return solution(*args)

    result = bnlib.check(name, single)
    assert result.passed, result


# ------------------------------------------------- other shapes: a cache, or a layer


def course_forward(x, gamma, beta, bn_param):
    """As CS231n asks for it, running statistics and all."""
    if bn_param["mode"] == "test":
        scale = gamma / np.sqrt(bn_param["running_var"] + bn_param["eps"])
        return (x - bn_param["running_mean"]) * scale + beta, None
    mean, std = x.mean(axis=0), np.sqrt(x.var(axis=0) + bn_param["eps"])
    xhat = (x - mean) / std
    bn_param["running_mean"] = 0.1 * mean
    return gamma * xhat + beta, (x, xhat, gamma, std)


def course_backward(dout, cache):
    x, xhat, gamma, std = cache
    dgamma, dbeta = (dout * xhat).sum(axis=0), dout.sum(axis=0)
    dx = gamma / std * (dout - (dbeta + xhat * dgamma) / len(x))
    return dx, dgamma, dbeta


def test_a_cache_as_in_cs231n():
    def without_variance(dout, cache):
        _, *rest = course_backward(dout, cache)
        return (dout - dout.mean(axis=0)) * cache[2] / cache[3], *rest

    right = from_cache(course_forward, course_backward)
    wrong = from_cache(course_forward, without_variance)
    mistakes = bnlib.check("batch_norm_backward", wrong).mistakes
    assert mistakes == ("detached-variance",)
    assert bnlib.check("batch_norm_backward", right).passed
    assert bnlib.check("batch_norm_forward", from_cache(course_forward)).passed
    assert bnlib.check("batch_norm_inference", from_cache(course_forward)).passed


def test_a_cache_of_other_norms_and_what_is_no_cache():
    from bnlib import group_norm, group_norm_backward, rms_norm, rms_norm_backward

    def spatial_groupnorm_forward(x, gamma, beta, G, gn_param):
        return group_norm(x, gamma, beta, num_groups=G, eps=gn_param["eps"])

    def rms_forward(x, weight, epsilon):
        return rms_norm(x, weight, eps=epsilon)

    for name, forward, backward in (
        ("group_norm_backward", spatial_groupnorm_forward, group_norm_backward),
        ("rms_norm_backward", rms_forward, rms_norm_backward),
    ):
        assert bnlib.check(name, from_cache(forward, backward)).passed
    for answer, words in (
        (from_cache(right, course_backward), "should return (y, cache)"),
        (from_cache(course_forward), "say from_cache(forward, backward)"),
    ):
        result = bnlib.check("batch_norm_backward", answer)
        text = " ".join(result.message.split())
        assert result.mistakes == ("raises",) and words in text


class CourseLayer:
    """As books build it: made of a number of features, gradients in attributes."""

    def __init__(self, num_features, eps=1e-5):
        self.gamma, self.beta = np.ones(num_features), np.zeros(num_features)
        self.eps = eps

    def __call__(self, x):
        y, self.cache = course_forward(
            x, self.gamma, self.beta, {"mode": "train", "eps": self.eps}
        )
        return y

    def backward(self, dout):
        dx, self.dgamma, self.dbeta = course_backward(dout, self.cache)
        return dx


def test_a_layer_is_called_forward_and_back():
    class Forgets(CourseLayer):
        def __call__(self, x):
            return super().__call__(x) - self.beta

    class Scaled(CourseLayer):
        def backward(self, dout):
            return super().backward(dout), self.dgamma / len(dout), self.dbeta

    assert bnlib.check("batch_norm_forward", from_layer(CourseLayer)).passed
    assert bnlib.check("batch_norm_backward", from_layer(CourseLayer)).passed
    for name, layer, code in (
        ("batch_norm_forward", Forgets, "missing-beta"),
        ("batch_norm_backward", Scaled, "mean-instead-of-sum"),
    ):
        assert code in bnlib.check(name, from_layer(layer)).mistakes


# -------------------------------------------------- a class, and what is done with it

RIGHT_MODULE = """
class Answer(torch.nn.Module):
    def __init__(self, num_features, eps=1e-5, momentum=0.1):
        super().__init__()
        self.eps, self.momentum = eps, momentum
        self.register_buffer("running_mean", torch.zeros(num_features))
        self.register_buffer("running_var", torch.ones(num_features))

    def forward(self, x):
        mean, var = self.running_mean, self.running_var
        if self.training:
            mean, var = x.mean(0), x.var(0, correction=0)
            self.update(mean.detach(), x.var(0).detach())
        return (x - mean) / torch.sqrt(var + self.eps)

    def update(self, mean, var):
        m = self.momentum
        self.running_mean = (1 - m) * self.running_mean + m * mean
        self.running_var = (1 - m) * self.running_var + m * var
"""
WRONG_IN_TORCH = [
    ("mean.detach(), x.var(0).detach()", "mean, x.var(0)", "keeps-graph"),
    ("if self.training", "if torch.is_grad_enabled()", "mode-from-grad"),
    ("(num_features))", "(num_features), persistent=False)", "not-in-state"),
    ("x.var(0).detach()", "var.detach()", "biased-running-variance"),
]


def module(text=RIGHT_MODULE):
    space = {"torch": torch}
    exec(text, space)
    return space["Answer"]


def test_a_layer_of_torch_is_judged_as_one_of_numpy():
    before = torch.get_default_dtype()
    for layer in (module(), torch.nn.BatchNorm1d):
        result = bnlib.check("BatchNorm", layer)
        assert result.passed, result
    assert torch.get_default_dtype() == before


@pytest.mark.parametrize(("line", "wrong", "code"), WRONG_IN_TORCH)
def test_mistakes_of_a_layer_of_torch_have_their_names(line, wrong, code):
    assert line in RIGHT_MODULE
    result = bnlib.check("BatchNorm", module(RIGHT_MODULE.replace(line, wrong)))
    assert result.mistakes == (code,), result
    assert torch.get_default_dtype() == torch.float32


def test_the_class_is_asked_for_and_no_instance():
    for answer in (RIGHT["BatchNorm"][0](3), lambda num_features: None):
        result = bnlib.check("BatchNorm", answer)
        assert result.mistakes == ("wrong-signature",)
        assert "the class itself" in " ".join(result.message.split())


# ------------------------------------------------------------------------- manners


def right(x, gamma, beta, eps):
    return forward_one_line(x, gamma, beta, eps)


def verdict(function, name="batch_norm_forward"):
    return bnlib.check(name, function)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda y: None, "returns-none"),
        (lambda y: [None] * len(y), "wrong-outputs"),
        (lambda y: (y, y), "wrong-outputs"),
        (lambda y: (y,), "wrong-outputs"),
        (lambda y: {"y": y}, "wrong-outputs"),
        (lambda y: "y", "wrong-outputs"),
        (lambda y: (row for row in y), "wrong-outputs"),
        (lambda y: y[..., None], "wrong-shape"),
        (lambda y: y.T, "wrong-shape"),
        (lambda y: y.sum(), "wrong-shape"),
        (lambda y: [[1], [1, 2]], "wrong-dtype"),
        (lambda y: y.astype(complex), "wrong-dtype"),
        (lambda y: y.astype(np.float16), "wrong-dtype"),
        (lambda y: y.astype(int), "wrong-dtype"),
        (lambda y: y * np.nan, "not-finite"),
        (lambda y: 1 / 0, "raises"),
        (lambda y: sys.exit(1), "raises"),
        (lambda y: y + np.random.rand(*y.shape), "not-deterministic"),
        (lambda y: y + np.cos(y), "unknown"),
    ],
)
def test_what_is_wrong_whatever_the_numbers(change, code):
    def answer(x, gamma, beta, eps):
        return change(right(x, gamma, beta, eps))

    result = verdict(answer)
    assert result.mistakes == (code,), result
    assert not result.passed and not result


def test_errors_name_the_learners_line():
    def answer(x, gamma, beta, eps):
        mean = x.mean(axis=0)
        return np.concatenate([x, mean])

    result = verdict(answer)
    assert result.mistakes == ("raises",)
    text = " ".join(result.message.split())
    assert "line 3 of answer: return np.concatenate([x, mean])" in text


def test_own_arrays_are_left_alone_and_writing_into_the_input_is_noticed():
    before = [
        [np.copy(a) for a in case.args.values()]
        for case in EXERCISES["batch_norm_forward"].cases
    ]

    def in_place(x, gamma, beta, eps):
        y = right(x, gamma, beta, eps)
        x *= 0
        return y

    result = verdict(in_place)
    assert result.mistakes == ("mutates-input",) and "x changes" in result.message
    assert verdict(right).passed
    for case, arrays in zip(EXERCISES["batch_norm_forward"].cases, before, strict=True):
        assert all(
            np.array_equal(a, b)
            for a, b in zip(case.args.values(), arrays, strict=True)
        )


def test_two_kinds_of_mistakes_are_both_named():
    def answer(x, gamma, beta, eps):
        x -= x.mean(axis=0)
        return gamma * x / np.sqrt(x.var(axis=0, ddof=1) + eps) + beta

    result = verdict(answer)
    assert result.mistakes == ("unbiased-variance", "mutates-input")


def test_arguments_by_position_by_name_or_in_another_order():
    assert verdict(lambda a, b, c, d: right(a, b, c, d)).passed
    assert verdict(lambda eps, x, beta, gamma: right(x, gamma, beta, eps)).passed
    assert verdict(lambda x, gamma, beta, *, eps: right(x, gamma, beta, eps)).passed
    assert verdict(lambda **k: right(**k)).passed
    assert verdict(lambda *a: right(*a)).passed
    assert verdict(lambda x, gamma, beta, eps, /: right(x, gamma, beta, eps)).passed
    assert verdict(lambda x, gamma: x).mistakes == ("wrong-signature",)
    assert verdict(max).mistakes == ("raises",)


def test_the_functions_of_pytorch_are_right():
    def forward(x, gamma, beta, eps):
        x, gamma, beta = map(torch.from_numpy, (x, gamma, beta))
        return torch.nn.functional.batch_norm(x, None, None, gamma, beta, True, 0, eps)

    def backward(dy, x, gamma, eps):
        x, gamma = (torch.tensor(a, requires_grad=True) for a in (x, gamma))
        beta = torch.zeros_like(gamma, requires_grad=True)
        y = torch.nn.functional.batch_norm(x, None, None, gamma, beta, True, 0, eps)
        y.backward(torch.from_numpy(dy))
        return x.grad, gamma.grad, beta.grad

    assert verdict(forward).passed
    assert verdict(lambda *a: forward(*a).requires_grad_()).passed
    assert verdict(backward, "batch_norm_backward").passed
    half = verdict(lambda *a: forward(*a).bfloat16())
    assert half.mistakes == ("wrong-dtype",)


def test_a_flood_of_words_is_kept_to_a_page_and_nobody_closes_it():
    def flood(x):
        for _ in range(100):
            print("x" * 10**6)
        sys.stdout.close()
        print("and on")
        return x.mean(axis=0), x.var(axis=0)

    case = EXERCISES["moments"].cases[0]
    ask = EXERCISES["moments"], lambda args: flood(**args), case, 9
    kept = checker.answer_to(*ask)
    assert len(kept.printed) < 5000 and bnlib.check("moments", flood).passed


def test_nothing_is_printed_and_no_warning_escapes():
    def chatty(x, gamma, beta, eps):
        print("hello", x.shape)
        warnings.warn("careful", stacklevel=1)
        return right(x, gamma, beta, eps) / np.zeros(1)

    out, err = io.StringIO(), io.StringIO()
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        warnings.simplefilter("error")
        result = verdict(chatty)
    assert not out.getvalue() and not err.getvalue()
    assert result.message.count("hello") == 1


# ------------------------------------------------------------------------ time limit


def endless(x, gamma, beta, eps):
    while True:
        pass


def swallows(x, gamma, beta, eps):
    while True:
        try:
            try:  # noqa: SIM105
                x.mean()
            except:  # noqa: E722
                pass
        except BaseException:
            continue


def sleeps(x, gamma, beta, eps):
    time.sleep(60)


def gives_up(x, gamma, beta, eps):
    try:
        endless(x, gamma, beta, eps)
    except BaseException:
        return right(x, gamma, beta, eps)


@pytest.fixture(autouse=True)
def _no_formatting_while_the_clock_runs(monkeypatch):
    """pytest formats tracebacks in this hook, where an alarm of a check may ring."""
    monkeypatch.setattr(sys, "unraisablehook", lambda _: None)


@pytest.fixture
def short(monkeypatch):
    monkeypatch.setattr(checker, "LIMIT", 0.3)


def state():
    alarm = signal.getsignal(signal.SIGALRM), signal.getitimer(signal.ITIMER_REAL)
    return *alarm, sys.gettrace(), sys.getprofile(), threading.active_count()


@pytest.mark.parametrize("function", [endless, swallows, sleeps, gives_up])
def test_endless_answers_are_cut_and_leave_nothing_behind(short, function):
    if function is sleeps and sys.gettrace():
        pytest.skip("whoever steps through with a debugger may take longer")
    before, start = state(), time.monotonic()
    result = verdict(function)
    assert result.mistakes == ("too-slow",) and "cut off" in result.message
    assert time.monotonic() - start < 3
    assert state() == before


@pytest.mark.parametrize("function", [endless, swallows, gives_up, right])
def test_without_signals(short, function):
    """In a second thread, as in a browser, no alarm can go off."""
    seen = []

    def work():
        before = sys.gettrace()
        seen.extend([verdict(function), sys.gettrace() is before])

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(10)
    assert seen[0].passed == (function is right) and seen[1]
    assert seen[0].mistakes == (() if function is right else ("too-slow",))


def test_threads_take_turns(short):
    """Two that never end and two that do, at the same time; print comes back."""
    out, seen = sys.stdout, {}

    def work(i):
        seen[i] = verdict(right if i % 2 else swallows).mistakes

    threads = [threading.Thread(target=work, args=(i,), daemon=True) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert seen == {0: ("too-slow",), 1: (), 2: ("too-slow",), 3: ()}
    assert sys.stdout is out


def test_a_debugger_in_a_thread_does_not_keep_the_clock_from_ringing(short):
    """There is no alarm in a thread, and only one function can trace it."""
    seen = []

    def debugger(frame, event, arg):
        return debugger

    def work():
        sys.settrace(debugger)
        seen.extend([verdict(endless).mistakes, sys.gettrace() is debugger])
        sys.settrace(None)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(20)
    assert seen == [("too-slow",), True]


def test_a_check_inside_a_check_is_told():
    def itself(x, gamma, beta, eps):
        return verdict(itself)

    before, result = state(), verdict(itself)
    assert result.mistakes == ("raises",) and "by the function" in result.message
    assert state() == before and verdict(right).passed


def test_an_alarm_of_somebody_else_still_goes_off(short):
    rang = []
    before = signal.signal(signal.SIGALRM, lambda *_: rang.append(time.monotonic()))
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        assert not verdict(endless).passed
        time.sleep(0.05)
        assert len(rang) == 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_under_a_tracer_that_stays(short):
    lines = []

    def tracer(frame, event, arg):
        lines.append(event)
        return tracer

    before = sys.gettrace()  # of what counts the lines of tests
    sys.settrace(tracer)
    try:
        passed, cut = verdict(right).passed, verdict(endless).mistakes
        assert sys.gettrace() is tracer
    finally:
        sys.settrace(before)
    assert passed and cut == ("too-slow",) and "line" in lines


def test_a_breakpoint_talks_to_the_user(monkeypatch, capsys):
    monkeypatch.setattr(sys, "breakpointhook", lambda: print("(Pdb)"))
    hook = sys.breakpointhook

    def stops(x):
        breakpoint()
        return x.mean(0), x.var(0)

    assert bnlib.check("moments", stops).passed and sys.breakpointhook is hook
    assert "(Pdb)" in capsys.readouterr().out


def test_the_user_may_interrupt():
    def interrupted(x, gamma, beta, eps):
        raise KeyboardInterrupt

    before = state()
    with pytest.raises(KeyboardInterrupt):
        verdict(interrupted)
    assert state() == before


# --------------------------------------------------------------------- what is shown


def test_message_and_table_say_the_same():
    def answer(x, gamma, beta, eps):
        return gamma * (x - x.mean(0)) / (x.std(0) + eps) + beta

    result = verdict(answer)
    assert result.mistakes == ("eps-outside-root",)
    assert str(result) == result.message == repr(result)
    html = result._repr_html_()
    for text in ("not yet", "eps = 3", "[[-0.5], [0.5]]", "[[-0.25], [0.25]]", "Hint"):
        assert text in result.message and text in html
    assert max(map(len, result.message.splitlines())) <= 80


def test_html_is_escaped():
    def answer(x, gamma, beta, eps):
        print("<script>alert(1)</script>")
        raise ValueError("<img src=x onerror=alert(2)>")

    html = verdict(answer)._repr_html_()
    assert "<script" not in html and "<img" not in html and "&lt;img" in html


def test_unknown_mistakes_come_with_what_can_be_said():
    factor = verdict(lambda x, gamma, beta, eps: 3 * right(x, gamma, beta, eps))
    assert "yours is 3 times the expected" in " ".join(factor.message.split())

    def shifted(dy, x, gamma, eps):
        dx, *rest = EXERCISES["batch_norm_backward"].solution(dy, x, gamma, eps)
        return dx + np.cos(x), *rest

    result = verdict(shifted, "batch_norm_backward")
    assert result.mistakes == ("unknown",)
    assert "dx should sum to 0 over each column" in " ".join(result.message.split())


def test_which_arguments_an_output_follows_is_said():
    def in_the_root(x, gamma, beta, eps):
        return (x - x.mean(0)) / np.sqrt((x.var(0) + eps) * abs(gamma)) + beta

    says = "y follows beta by as much as it should, but not x, gamma, eps."
    assert says in verdict(in_the_root).remarks
    blind = verdict(lambda x, gamma, beta, eps: np.sin(x) + beta).remarks
    assert "y should change with gamma; yours does not." in blind
    assert "y should change with eps; yours does not." in blind


def test_fractions_are_numbers():
    def exact(x):
        columns = [[Fraction(v) for v in column] for column in x.T.tolist()]
        means = [sum(c) / len(c) for c in columns]
        both = zip(columns, means, strict=True)
        return means, [sum((v - m) ** 2 for v in c) / len(c) for c, m in both]

    assert bnlib.check("moments", exact).passed
    strings = bnlib.check("moments", lambda x: (x.mean(0).astype(object), ["a"]))
    assert strings.mistakes == ("wrong-outputs",) and "type list" not in strings.message


def test_unknown_exercise_lists_the_known_ones():
    for name in (["moments"], None):
        with pytest.raises(ValueError, match="exercise must be one of"):
            bnlib.check(name, right)

    with pytest.raises(ValueError, match="did you mean 'batch_norm_forward'") as error:
        bnlib.check("batch_norm_forwards", right)
    assert all(name in str(error.value) for name in NAMES)
    with pytest.raises(TypeError, match="without parentheses"):
        bnlib.check("moments", 3)


def test_progress_is_kept_in_memory_only(monkeypatch):
    monkeypatch.setattr(checker, "_SOLVED", {})
    assert repr(bnlib.progress()).startswith(f"0 of {len(NAMES)} exercises solved")
    verdict(right)
    verdict(lambda x, gamma, beta, eps: x)
    bnlib.check("moments", lambda x: x)
    text = repr(bnlib.progress())
    assert text.startswith(f"1 of {len(NAMES)}") and "✓ batch_norm_forward" in text
    assert "… moments" in text
    bundle = bnlib.progress()._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in bundle
    assert f"1 of {len(NAMES)}" in bundle["text/html"] and bundle["text/plain"] == text
    bnlib.check("moments", EXERCISES["moments"].solution)
    assert f"2 of {len(NAMES)}" in checker._VIEWS[-1].value  # it follows
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    assert set(bnlib.progress()._repr_mimebundle_()) == {"text/plain", "text/html"}


def test_needs_numpy_alone_and_no_clock_of_threads_as_in_a_browser():
    code = (
        "import sys, time; del time.thread_time; "
        "sys.modules.update(torch=None, ipywidgets=None, IPython=None); "
        "import bnlib; print(bnlib.check('moments', lambda x: (x.mean(0), x.var(0))))"
    )
    assert python("-c", code).strip() == "✓ moments: right."


FIRST = """
import time
import bnlib
from bnlib.exercises import EXERCISES
one = EXERCISES[{name!r}]
def odd(*args):
    result = one.solution(*args)
    many = result if isinstance(result, tuple) else (result,)
    many = tuple(y + y**2 / 7 - 0.3 for y in many)
    return many if isinstance(result, tuple) else many[0]
class Odd(one.solution.args[0] if one.script else object):
    def __call__(self, x):
        return odd_of(super().__call__(x))
def odd_of(y):
    return y + y**2 / 7 - 0.3
bnlib.check("moments", lambda x: None)
start = time.thread_time()
result = bnlib.check(one.name, Odd if one.script else odd)
assert result.mistakes == ("unknown",), result
print(time.thread_time() - start)
"""


@pytest.mark.parametrize("name", ["batch_renorm_backward", "BatchNorm"])
def test_the_first_answer_that_nobody_foresaw_does_not_take_long(name):
    """All wrong solutions are run first; of these two exercises there are most."""
    assert float(python("-c", FIRST.format(name=name))) < 2


# ----------------------------------------------------- what is said, and how gravely


class MuteError(Exception):
    def __str__(self):
        raise ValueError("no words")


def raises_mute(x, gamma, beta, eps):
    raise MuteError


class Odd(np.ndarray):
    def __array_finalize__(self, other):
        raise RuntimeError("odd")


def never_an_array(x, gamma, beta, eps):
    class Part:
        def __getattribute__(self, name):
            raise RuntimeError(name)

    return Part()


def test_nothing_raises_out_of_a_check():
    assert verdict(raises_mute).mistakes == ("raises",)
    assert not verdict(never_an_array).passed
    assert not verdict(lambda x, gamma, beta, eps: x.view(Odd)).passed

    class Callable:
        __signature__ = 3

        def __call__(self, *args):
            return None

    assert not verdict(Callable()).passed


@pytest.mark.parametrize("own", [1e-2, 1e-3, 1e-5, 1e-8, 1e-12, 2.2e-16, 1e-20])
def test_a_number_of_ones_own_shows_at_any_size(own):
    def inside(x, gamma, beta, eps):
        return gamma * (x - x.mean(0)) / np.sqrt(x.var(0) + eps + own) + beta

    def instead(x, gamma, beta, eps):
        return gamma * (x - x.mean(0)) / np.sqrt(x.var(0) + own) + beta

    def outside(x, gamma, beta, eps):
        return gamma * (x - x.mean(0)) / (np.sqrt(x.var(0) + eps) + own) + beta

    # Beside a deviation of 1e-10, what is a millionth of that shows nowhere.
    for function in (inside, instead, outside)[: 3 if own > 1e-14 else 2]:
        result = verdict(function)
        assert not result.passed
        named = {"wrong-eps", "hidden-constant", "missing-eps"}
        assert set(result.mistakes) <= named, result
    if own >= 1e-5:
        assert f"{own:.3g}" in verdict(inside).message


def test_an_answer_that_looks_at_the_batch_when_alone():
    def alone(x, gamma, beta, running_mean, running_var, eps):
        mean, var = (running_mean, running_var)
        if len(x) == 1:
            mean, var = x.mean(0), x.var(0)
        return gamma * (x - mean) / np.sqrt(var + eps) + beta

    result = bnlib.check("batch_norm_inference", alone)
    assert not result.passed and result.severity == "numbers"


def test_a_sentence_about_one_output_says_so():
    def bias_lacks_gamma(weight, bias, gamma, beta, mean, var, eps):
        inv = 1 / np.sqrt(var + eps)
        return (gamma * inv)[:, None] * weight, (bias - mean) * inv + beta

    result = bnlib.check("fold_linear", bias_lacks_gamma)
    assert result.mistakes == ("missing-gamma",) and result.right == ("weight",)
    assert "in the bias" in result.message

    def two_ways(dy, x, gamma, eps):
        dx, dgamma, dbeta = EXERCISES["batch_norm_backward"].solution(dy, x, gamma, eps)
        return dx + np.cos(x), dgamma, dbeta / len(x)

    result = bnlib.check("batch_norm_backward", two_ways)
    assert "dbeta: You average" in result.message and result.right == ("dgamma",)


def test_a_property_is_not_said_of_an_answer_that_has_it():
    def dbeta_off(dy, x, gamma, eps):
        dx, dgamma, dbeta = EXERCISES["batch_norm_backward"].solution(dy, x, gamma, eps)
        return dx, dgamma, dbeta + 3 * np.cos(dbeta)

    message = bnlib.check("batch_norm_backward", dbeta_off).message
    assert "depend on x" not in message and "dbeta is the sum of dy" in message


def school(x, y):
    """The variance as the mean of the squares less the square of the mean."""
    var = abs((x**2).mean(0) - x.mean(0) ** 2)
    return y + (var - x.var(0)) / (1 + var)


@pytest.mark.parametrize(
    ("change", "severity", "words"),
    [
        (lambda x, y: y, "", "right"),
        (lambda x, y: y[None], "manners", "a matter of manners"),
        (lambda x, y: y + 1e-3, "numbers", "not yet"),
        (school, "numerics", "arithmetic"),
        (lambda x, y: None, "numbers", "not yet"),
    ],
)
def test_levels_are_told_apart(change, severity, words):
    result = verdict(lambda x, g, b, e: change(x, right(x, g, b, e)))
    assert result.severity == severity and words in result.message


def test_a_result_has_the_arguments_to_call_with():
    def wrong(x, gamma, beta, eps):
        return right(x, gamma, beta, 2 * eps)

    result = verdict(wrong)
    assert not same(wrong(**result.args), right(**result.args))
    result.args["x"] *= 0  # a copy: the next check has its own
    assert not verdict(wrong).passed and verdict(right).passed
    with pytest.raises(AssertionError, match="not yet"):
        result.assert_right()
    assert verdict(right).assert_right().passed


def test_of_every_answer_that_nobody_foresaw_something_can_be_said():
    named, plain = 0, ("Right on", "It is wrong on", "Your function printed")
    for name, body in STRANGE:
        space = {"np": np}
        head = f"def f({', '.join(EXERCISES[name].arguments)}):\n"
        exec(head + textwrap.indent(body, "    "), space)
        result = bnlib.check(name, space["f"])
        assert not result.passed, body
        if set(result.mistakes) & {"unknown", "not-finite"}:
            assert [r for r in result.remarks if not r.startswith(plain)], (
                body,
                result,
            )
        else:
            named += 1
    assert len(STRANGE) == 70 and named >= 50


@pytest.mark.parametrize(
    ("own", "says"),
    [
        (1e-3, "You use 0.001, your own number, instead of"),
        (1e-6, "You use 1e-06, your own number, instead of"),
        (1e-12, "You use a number of your own instead of"),  # which, no input can tell
    ],
)
def test_a_number_is_said_where_it_is_known(own, says):
    def answer(x, gamma, beta, eps):
        return gamma * (x - x.mean(0)) / np.sqrt(x.var(0) + own) + beta

    result = bnlib.check("batch_norm_forward", answer)
    assert result.mistakes == ("wrong-eps",)
    assert says in result.message and result.message.count("You ") == 1


def test_the_sign_of_alpha_matters():
    def answer(dy, x, alpha, gamma):
        t = np.tanh(abs(alpha) * x)
        g = dy * gamma * (1 - t**2)
        return abs(alpha) * g, (g * x).sum(), (dy * t).sum(0), dy.sum(0)

    assert not bnlib.check("dynamic_tanh_backward", answer).passed


@pytest.mark.parametrize(
    ("right", "wrong", "says"),
    [
        ("momentum, True", "momentum, False", "training should be True at first"),
        ("eps=1e-5, momentum=0.1", "eps, momentum", "have defaults"),
        ('state["running_mean"]', 'state.pop("running_mean")', "takes entries out"),
        ("return xhat", "xhat", "calling the layer returns None"),
        (
            "def state_dict(self):\n        return",
            "def state_dict(self):\n        return 0,",
            "should give a dict, not a tuple",
        ),
    ],
)
def test_a_layer_is_what_its_task_says(right, wrong, says):
    source, space = EXERCISES["BatchNorm"].source, {"np": np}
    assert right in source
    exec(source.replace(right, wrong), space)
    result = bnlib.check("BatchNorm", space["BatchNorm"])
    assert not result.passed and says in result.message


def test_what_stops_on_one_input_has_been_written():
    def answer(x, gamma, beta, eps):
        if len(x) == 1:
            raise NotImplementedError
        return gamma * (x - x.mean(0)) / np.sqrt(x.var(0) + eps) + beta

    result = bnlib.check("batch_norm_forward", answer)
    assert result.mistakes == ("raises",) and "line 3" in result.message
