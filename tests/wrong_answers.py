"""Wrong answers as learners write them; none was derived from the catalogue.

Each has the codes one of which a good teacher would name. An empty set: nothing in the
catalogue fits, and the answer has to be flagged as unknown.
"""

import numpy as np
from right_answers import LayerInPlace

WRONG = []


def wrong(exercise, *codes):
    def keep(function):
        WRONG.append((exercise, function, set(codes)))
        return function

    return keep


# ------------------------------------------------------------------------ moments


@wrong("moments", "unbiased-variance")
def divides_by_one_less(x):
    mu = x.sum(axis=0) / x.shape[0]
    return mu, ((x - mu) ** 2).sum(axis=0) / (x.shape[0] - 1)


@wrong("moments", "cancellation")
def school_formula(x):
    return x.mean(axis=0), np.mean(x * x, axis=0) - np.mean(x, axis=0) ** 2


@wrong("moments", "wrong-axis")
def one_mean(x):
    return x.mean(), x.var()


@wrong("moments", "wrong-axis", "wrong-count")
def wrong_length(x):
    mu = x.sum(axis=0) / x.shape[1]
    return mu, ((x - mu) ** 2).sum(axis=0) / x.shape[1]


@wrong("moments", "wrong-axis", "wrong-shape")
def features_first(x):
    return [row.mean() for row in x], [row.var() for row in x]


# ------------------------------------------------------------------------ forward


@wrong("batch_norm_forward", "eps-outside-root")
def stack_overflow(x, gamma, beta, eps):
    return gamma * (x - np.mean(x, axis=0)) / (np.std(x, axis=0) + eps) + beta


@wrong("batch_norm_forward", "unbiased-variance")
def pandas_habit(x, gamma, beta, eps):
    mu = x.mean(axis=0)
    s2 = sum((r - mu) ** 2 for r in x) / (len(x) - 1)
    return gamma * (x - mu) / np.sqrt(s2 + eps) + beta


@wrong("batch_norm_forward", "wrong-axis", "wrong-broadcast")
def rows_without_keepdims(x, gamma, beta, eps):
    return gamma * (x - x.mean(1)) / np.sqrt(x.var(1) + eps) + beta


@wrong("batch_norm_forward", "missing-parentheses", "missing-mean")
def precedence(x, gamma, beta, eps):
    return gamma * (x - x.mean(axis=0) / np.sqrt(x.var(axis=0) + eps)) + beta


@wrong("batch_norm_forward", "beta-scaled", "wrong-axis")
def parentheses_again(x, gamma, beta, eps):
    return gamma * ((x - x.mean(axis=0)) / np.sqrt(x.var(axis=0) + eps) + beta)


@wrong("batch_norm_forward", "wrong-eps", "missing-eps")
def guards_zero(x, gamma, beta, eps):
    std = np.where(x.std(0) == 0, 1, x.std(0))
    return gamma * (x - x.mean(0)) / std + beta


@wrong("batch_norm_forward", "variance-instead-of-std", "missing-eps")
def two_at_once(x, gamma, beta, eps):
    return gamma * (x - x.mean(0)) / x.var(0) + beta


@wrong("batch_norm_forward")
def min_max(x, gamma, beta, eps):
    low, high = x.min(axis=0), x.max(axis=0)
    return gamma * (x - low) / (high - low + eps) + beta


@wrong("batch_norm_forward", "wrong-operation")
def tanh_after(x, gamma, beta, eps):
    return np.tanh(gamma * (x - x.mean(0)) / np.sqrt(x.var(0) + eps) + beta)


@wrong("batch_norm_forward", "cancellation")
def running_sums(x, gamma, beta, eps):
    n, s, q = 0, 0, 0
    for row in x:
        n, s, q = n + 1, s + row, q + row * row
    var = q / n - (s / n) ** 2
    return gamma * (x - s / n) / np.sqrt(var + eps) + beta


# ----------------------------------------------------------------------- backward


@wrong("batch_norm_backward", "detached-variance")
def only_the_mean(dy, x, gamma, eps):
    mu, std = x.mean(0), np.sqrt(x.var(0) + eps)
    dxhat = dy * gamma
    dx = dxhat / std - (dxhat / std).sum(0) / len(x)
    return dx, ((x - mu) / std * dy).sum(0), dy.sum(0)


@wrong("batch_norm_backward", "detached-statistics")
def as_under_no_grad(dy, x, gamma, eps):
    mu, std = x.mean(0), np.sqrt(x.var(0) + eps)
    return dy * gamma / std, (dy * (x - mu) / std).sum(0), dy.sum(0)


@wrong("batch_norm_backward", "missing-factor-two")
def paper_without_the_two(dy, x, gamma, eps):
    m, mu, var = len(x), x.mean(0), x.var(0)
    dxhat = dy * gamma
    dvar = (dxhat * (x - mu)).sum(0) * -0.5 * (var + eps) ** -1.5
    dmu = -(dxhat / np.sqrt(var + eps)).sum(0)
    dx = dxhat / np.sqrt(var + eps) + dvar * (x - mu) / m + dmu / m
    return dx, (dy * (x - mu) / np.sqrt(var + eps)).sum(0), dy.sum(0)


@wrong("batch_norm_backward", "wrong-power")
def wrong_exponent(dy, x, gamma, eps):
    m, mu, var = len(x), x.mean(0), x.var(0)
    dxhat = dy * gamma
    dvar = (dxhat * (x - mu)).sum(0) * -0.5 * (var + eps) ** -0.5
    dmu = -(dxhat / np.sqrt(var + eps)).sum(0)
    dx = dxhat / np.sqrt(var + eps) + dvar * 2 * (x - mu) / m + dmu / m
    return dx, (dy * (x - mu) / np.sqrt(var + eps)).sum(0), dy.sum(0)


@wrong("batch_norm_backward", "sum-instead-of-mean")
def forgets_one_over_m(dy, x, gamma, eps):
    mu, var = x.mean(0), x.var(0)
    dxhat = dy * gamma
    dvar = (dxhat * (x - mu)).sum(0) * -0.5 * (var + eps) ** -1.5
    dmu = -(dxhat / np.sqrt(var + eps)).sum(0)
    dx = dxhat / np.sqrt(var + eps) + dvar * 2 * (x - mu) + dmu
    return dx, (dy * (x - mu) / np.sqrt(var + eps)).sum(0), dy.sum(0)


@wrong("batch_norm_backward", "unbiased-variance")
def ddof_in_the_gradient(dy, x, gamma, eps):
    n, std = len(x), np.sqrt(x.var(0) + eps)
    xhat = (x - x.mean(0)) / std
    g = gamma * dy
    dx = (g - g.mean(0) - xhat * (g * xhat).sum(0) / (n - 1)) / std
    return dx, (dy * xhat).sum(0), dy.sum(0)


@wrong("batch_norm_backward", "missing-gamma")
def gamma_left_out(dy, x, gamma, eps):
    n, std = len(x), np.sqrt(x.var(0) + eps)
    xhat = (x - x.mean(0)) / std
    dx = (n * dy - dy.sum(0) - xhat * (dy * xhat).sum(0)) / (n * std)
    return dx, (dy * xhat).sum(0), dy.sum(0)


@wrong("batch_norm_backward", "wrong-shape")
def dgamma_keeps_its_axis(dy, x, gamma, eps):
    std = np.sqrt(x.var(0) + eps)
    xhat = (x - x.mean(0)) / std
    g = gamma * dy
    dx = (g - g.mean(0) - xhat * (g * xhat).mean(0)) / std
    return dx, (dy * xhat).sum(0, keepdims=True), dy.sum(0, keepdims=True)


@wrong("batch_norm_backward", "wrong-dgamma", "detached-mean")
def three_mistakes_apart(dy, x, gamma, eps):
    std = np.sqrt(x.var(0) + eps)
    xhat = (x - x.mean(0)) / std
    g = gamma * dy
    dx = (g - xhat * (g * xhat).mean(0)) / std
    return dx, (dy * (x - x.mean(0))).sum(0), dy.mean(0)


# ---------------------------------------------------------- running and inference


@wrong("update_running", "momentum-reversed", "biased-running-variance")
def cs231n(running_mean, running_var, x, momentum):
    running_mean = momentum * running_mean + (1 - momentum) * x.mean(axis=0)
    running_var = momentum * running_var + (1 - momentum) * x.var(axis=0)
    return running_mean, running_var


@wrong("update_running", "missing-decay")
def only_adds(running_mean, running_var, x, momentum):
    mean = running_mean + momentum * x.mean(0)
    return mean, running_var + momentum * x.var(0, ddof=1)


@wrong("batch_norm_inference", "batch-statistics-at-inference")
def forward_again(x, gamma, beta, running_mean, running_var, eps):
    return gamma * (x - x.mean(0)) / np.sqrt(x.var(0) + eps) + beta


@wrong("fold_linear", "forgets-bias")
def bias_is_false(weight, bias, gamma, beta, mean, var, eps):
    scale = gamma / np.sqrt(var + eps)
    return weight * scale.reshape(-1, 1), beta - mean * scale


@wrong("fold_linear", "unscaled-bias")
def bias_added_after(weight, bias, gamma, beta, mean, var, eps):
    scale = gamma / np.sqrt(var + eps)
    return weight * scale.reshape(-1, 1), bias + beta - mean * scale


@wrong("fold_linear", "wrong-axis")
def scales_inputs(weight, bias, gamma, beta, mean, var, eps):
    scale = gamma / np.sqrt(var + eps)
    return weight * scale, (bias - mean) * scale + beta


# ------------------------------------------------------------------------- images


@wrong("conv_batch_norm", "per-sample-statistics")
def instance(x, gamma, beta, eps):
    mu, var = x.mean((2, 3), keepdims=True), x.var((2, 3), keepdims=True)
    g, b = gamma.reshape(1, -1, 1, 1), beta.reshape(1, -1, 1, 1)
    return g * (x - mu) / np.sqrt(var + eps) + b


@wrong("conv_batch_norm", "per-pixel-statistics")
def like_dense(x, gamma, beta, eps):
    g, b = gamma[None, :, None, None], beta[None, :, None, None]
    return g * (x - x.mean(0)) / np.sqrt(x.var(0) + eps) + b


@wrong("conv_batch_norm", "wrong-broadcast", "raises")
def gamma_as_it_is(x, gamma, beta, eps):
    a = (0, 2, 3)
    mu, var = x.mean(a, keepdims=True), x.var(a, keepdims=True)
    return gamma * (x - mu) / np.sqrt(var + eps) + beta


@wrong("conv_batch_norm", "mean-of-variances")
def averages_variances(x, gamma, beta, eps):
    mu = x.mean((0, 2, 3), keepdims=True)
    var = x.var((2, 3)).mean(0).reshape(1, -1, 1, 1)
    g, b = gamma.reshape(1, -1, 1, 1), beta.reshape(1, -1, 1, 1)
    return g * (x - mu) / np.sqrt(var + eps) + b


@wrong("conv_batch_norm", "missing-transpose")
def reshaped_without_transposing(x, gamma, beta, eps):
    n, c, h, w = x.shape
    flat = x.reshape(-1, c)
    y = gamma * (flat - flat.mean(0)) / np.sqrt(flat.var(0) + eps) + beta
    return y.reshape(n, c, h, w)


@wrong("conv_batch_norm_backward", "sum-instead-of-mean", "wrong-count")
def divides_by_batch_only(dy, x, gamma, eps):
    a, n = (0, 2, 3), x.shape[0]
    g = dy * gamma.reshape(1, -1, 1, 1)
    std = np.sqrt(x.var(a, keepdims=True) + eps)
    xhat = (x - x.mean(a, keepdims=True)) / std
    mean = g.sum(a, keepdims=True) / n
    dx = (g - mean - xhat * (g * xhat).sum(a, keepdims=True) / n) / std
    return dx, (dy * xhat).sum(a), dy.sum(a)


@wrong("conv_batch_norm_backward", "missing-sum", "wrong-shape")
def sums_over_batch_only(dy, x, gamma, eps):
    a = (0, 2, 3)
    g = dy * gamma.reshape(1, -1, 1, 1)
    std = np.sqrt(x.var(a, keepdims=True) + eps)
    xhat = (x - x.mean(a, keepdims=True)) / std
    mean, mean_xhat = g.mean(a, keepdims=True), (g * xhat).mean(a, keepdims=True)
    return (g - mean - xhat * mean_xhat) / std, (dy * xhat).sum(0), dy.sum(0)


# ------------------------------------------------------------------------- renorm


@wrong("batch_renorm", "missing-clip", "wrong-clip")
def clips_to_minus(x, gamma, beta, running_mean, running_std, rmax, dmax, eps):
    std = np.sqrt(x.var(0) + eps)
    r = np.clip(std / running_std, -rmax, rmax)
    d = np.clip((x.mean(0) - running_mean) / running_std, -dmax, dmax)
    return gamma * ((x - x.mean(0)) / std * r + d) + beta


@wrong("batch_renorm_backward", "gradient-through-r-d")
def autograd_without_detach(
    dy, x, gamma, running_mean, running_std, rmax, dmax, eps, h=1e-6
):
    def y(v):
        mean, std = v.mean(0), np.sqrt(v.var(0) + eps)
        r = np.clip(std / running_std, 1 / rmax, rmax)
        d = np.clip((mean - running_mean) / running_std, -dmax, dmax)
        return (v - mean) / std * r + d

    dx = np.zeros(x.shape)
    for i in np.ndindex(x.shape):
        step = np.zeros(x.shape)
        step[i] = h
        dx[i] = (gamma * dy * (y(x + step) - y(x - step))).sum() / (2 * h)
    return dx, (dy * y(x)).sum(0), dy.sum(0)


@wrong("batch_renorm_backward", "missing-r")
def r_forgotten(dy, x, gamma, running_mean, running_std, rmax, dmax, eps):
    mean, std = x.mean(0), np.sqrt(x.var(0) + eps)
    r = np.clip(std / running_std, 1 / rmax, rmax)
    d = np.clip((mean - running_mean) / running_std, -dmax, dmax)
    xhat, g = (x - mean) / std, gamma * dy
    dx = (g - g.mean(0) - xhat * (g * xhat).mean(0)) / std
    return dx, (dy * (r * xhat + d)).sum(0), dy.sum(0)


# --------------------------------------------------------------------- other axes


@wrong("layer_norm", "wrong-broadcast", "raises")
def keepdims_forgotten(x, gamma, beta, eps):
    return gamma * (x - x.mean(-1)) / np.sqrt(x.var(-1) + eps) + beta


@wrong("layer_norm", "unbiased-variance", "eps-outside-root")
def annotated_transformer(x, gamma, beta, eps):
    mean = x.mean(-1, keepdims=True)
    std = x.std(-1, ddof=1, keepdims=True)
    return gamma * (x - mean) / (std + eps) + beta


@wrong("layer_norm_backward", "missing-gamma", "gamma-after-averaging")
def gamma_after_averaging(dy, x, gamma, eps):
    std = np.sqrt(x.var(1, keepdims=True) + eps)
    xhat = (x - x.mean(1, keepdims=True)) / std
    mean, mean_xhat = dy.mean(1, keepdims=True), (dy * xhat).mean(1, keepdims=True)
    dx = gamma * (dy - mean - xhat * mean_xhat) / std
    return dx, (dy * xhat).sum(0), dy.sum(0)


@wrong("group_norm", "interleaved-groups")
def every_second(x, gamma, beta, num_groups, eps):
    y = np.zeros(x.shape)
    for k in range(num_groups):
        part = x[:, k::num_groups]
        mu, var = (
            part.mean((1, 2, 3), keepdims=True),
            part.var((1, 2, 3), keepdims=True),
        )
        y[:, k::num_groups] = (part - mu) / np.sqrt(var + eps)
    return y * gamma.reshape(1, -1, 1, 1) + beta.reshape(1, -1, 1, 1)


@wrong("group_norm", "batch-in-statistics")
def with_the_batch(x, gamma, beta, num_groups, eps):
    v = x.reshape(x.shape[0], num_groups, -1)
    v = (v - v.mean((0, 2), keepdims=True)) / np.sqrt(
        v.var((0, 2), keepdims=True) + eps
    )
    return v.reshape(x.shape) * gamma.reshape(1, -1, 1, 1) + beta.reshape(1, -1, 1, 1)


@wrong("rms_norm", "sum-instead-of-mean", "missing-eps")
def unit_length(x, gamma, eps):
    return gamma * x / (np.linalg.norm(x, axis=-1, keepdims=True) + 1e-12)


# -------------------------------------------------------------------- transformers


@wrong("pre_norm_block", "post-norm-instead")
def block_of_2017(x, gamma, up, down, eps):
    y = x + np.maximum(x @ up, 0) @ down
    return gamma * y / np.sqrt((y**2).mean(-1, keepdims=True) + eps)


@wrong("pre_norm_block", "skip-through-norm")
def block_that_overwrites_x(x, gamma, up, down, eps):
    x = gamma * x / np.sqrt((x**2).mean(-1, keepdims=True) + eps)
    return x + np.maximum(x @ up, 0) @ down


# ----------------------------------------------------------------------- whitening


@wrong("zca_whiten", "pca-instead-of-zca")
def pca(x, eps):
    centred = x - x.mean(0)
    u, s, _ = np.linalg.svd(centred.T @ centred / len(x))
    return centred @ u / np.sqrt(s + eps)


@wrong("zca_whiten", "unbiased-variance")
def np_cov(x, eps):
    values, vectors = np.linalg.eigh(np.cov(x, rowvar=False).reshape(x.shape[1], -1))
    return (x - x.mean(0)) @ vectors @ np.diag((values + eps) ** -0.5) @ vectors.T


@wrong("zca_whiten", "cholesky-instead-of-zca")
def cholesky(x, eps):
    centred = x - x.mean(0)
    sigma = centred.T @ centred / len(x) + eps * np.eye(x.shape[1])
    return centred @ np.linalg.cholesky(np.linalg.inv(sigma))


# -------------------------------------------------------------------------- merge


@wrong("merge_moments", "unweighted")
def all_reduce_average(counts, means, variances):
    mean = means.mean(0)
    return mean, (variances + means**2).mean(0) - mean**2


@wrong("merge_moments", "cancellation")
def through_second_moments(counts, means, variances):
    w = counts[:, None] / counts.sum()
    mean = (w * means).sum(0)
    return mean, (w * (variances + means**2)).sum(0) - mean**2


@wrong("merge_moments", "unweighted")
def distances_count_alike(counts, means, variances):
    w = counts[:, None] / counts.sum()
    mean = (w * means).sum(0)
    return mean, (w * variances).sum(0) + np.mean((means - mean) ** 2, axis=0)


# ------------------------------------------------- a second reader's first attempts


@wrong("moments", "adds-eps")
def variance_with_eps(x):
    return np.mean(x, axis=0), np.var(x, axis=0) + 1e-5


@wrong("moments", "wrong-shape")
def far_too_much(x):
    return np.zeros((1000, 1000)), np.zeros((1000, 1000))


@wrong("batch_norm_inference", "unscaled-mean")
def scale_and_shift(x, gamma, beta, running_mean, running_var, eps):
    scale = gamma / np.sqrt(running_var + eps)
    return x * scale + (beta - running_mean)


@wrong("conv_batch_norm", "missing-transpose")
def reshaped_back_at_once(x, gamma, beta, eps):
    flat = x.transpose(0, 2, 3, 1).reshape(-1, x.shape[1])
    y = gamma * (flat - flat.mean(0)) / np.sqrt(flat.var(0) + eps) + beta
    return y.reshape(x.shape)


@wrong("batch_renorm_backward", "corrected-xhat")
def corrected_all_the_way(dy, x, gamma, running_mean, running_std, rmax, dmax, eps):
    mean, std = x.mean(0), np.sqrt(x.var(0) + eps)
    r = np.clip(std / running_std, 1 / rmax, rmax)
    d = np.clip((mean - running_mean) / running_std, -dmax, dmax)
    xhat, g = (x - mean) / std * r + d, dy * gamma * r
    dx = (g - g.mean(0) - xhat * (g * xhat).mean(0)) / std
    return dx, (dy * xhat).sum(0), dy.sum(0)


@wrong("layer_norm_backward", "batch-in-statistics")
def averages_of_chapter_four(dy, x, gamma, eps):
    std = np.sqrt(x.var(1, keepdims=True) + eps)
    xhat, g = (x - x.mean(1, keepdims=True)) / std, dy * gamma
    dx = (g - g.mean(0) - xhat * (g * xhat).mean(0)) / std
    return dx, (dy * xhat).sum(0), dy.sum(0)


@wrong("rms_norm_backward", "layer-norm-instead")
def layer_norms_dx(dy, x, gamma, eps):
    rms = np.sqrt((x**2).mean(1, keepdims=True) + eps)
    xhat, g = x / rms, dy * gamma
    dx = g - g.mean(1, keepdims=True) - xhat * (g * xhat).mean(1, keepdims=True)
    return dx / rms, (dy * xhat).sum(0)


@wrong("group_norm_backward", "per-channel-averages")
def averages_by_channel(dy, x, gamma, num_groups, eps):
    rows = x.reshape(len(x), num_groups, -1)
    std = np.sqrt(rows.var(2, keepdims=True) + eps)
    xhat = ((rows - rows.mean(2, keepdims=True)) / std).reshape(x.shape)
    g, a = dy * gamma[:, None, None], {"axis": (2, 3), "keepdims": True}
    dx = g - g.mean(**a) - xhat * (g * xhat).mean(**a)
    std = np.repeat(std, x.shape[1] // num_groups, axis=1)[..., None]
    return dx / std, (dy * xhat).sum((0, 2, 3)), dy.sum((0, 2, 3))


@wrong("instance_norm", "per-sample-statistics", "layer-norm-instead")
def one_mean_an_image(x, gamma, beta, eps):
    flat = x.reshape(len(x), -1)
    mean, std = flat.mean(1), np.sqrt(flat.var(1) + eps)
    xhat = (x - mean[:, None, None, None]) / std[:, None, None, None]
    return gamma[:, None, None] * xhat + beta[:, None, None]


@wrong("BatchNorm", "shared-state")
class InPlace(LayerInPlace):
    def load_state_dict(self, state):
        self.running_mean = state["running_mean"]
        self.running_var = state["running_var"]


@wrong("BatchNorm", "mode-from-batch")
class AloneIsEvaluation(LayerInPlace):
    def __call__(self, x):
        self.training = len(x) > 1
        return super().__call__(x)


@wrong("BatchNorm", "updates-in-evaluation")
class NeverRests(LayerInPlace):
    def __call__(self, x):
        y = super().__call__(x)
        if not self.training:
            self.train()
            super().__call__(x)
        return y


@wrong("BatchNorm", "not-in-state")
class Forgets(LayerInPlace):
    def load_state_dict(self, state):
        self.eps = state["eps"]


@wrong("BatchNorm", "raises")
class NoState(LayerInPlace):
    state_dict = None


@wrong("recalibrate", "mean-of-variances")
def as_the_paper_says(x, counts):
    """Algorithm 2: the average of unbiased variances, over batches of one length."""
    batches = np.split(x, np.cumsum(counts)[:-1])
    means = [b.mean(axis=0) for b in batches]
    variances = [b.var(axis=0, ddof=1) for b in batches]
    return np.mean(means, axis=0), np.mean(variances, axis=0)


@wrong("recalibrate", "running-average")
def moved_a_tenth_each_time(x, counts):
    mean, var = np.zeros(x.shape[1]), np.ones(x.shape[1])
    for batch in np.split(x, np.cumsum(counts)[:-1]):
        mean = 0.9 * mean + 0.1 * batch.mean(axis=0)
        var = 0.9 * var + 0.1 * batch.var(axis=0, ddof=1)
    return mean, var


# ------------------------------------- kinds of slips; written before they were known


@wrong("moments", "wrong-count")
def divides_by_one_more(x):
    return x.mean(0), ((x - x.mean(0)) ** 2).sum(0) / (len(x) + 1)


@wrong("moments", "wrong-count")
def stops_before_the_last(x):
    mean = sum((x[i] for i in range(len(x) - 1)), np.zeros(x.shape[1])) / len(x)
    return mean, ((x - mean) ** 2).sum(0) / len(x)


@wrong("moments", "wrong-operation")
def divides_with_two_slashes(x):
    mean = x.sum(0) // len(x)
    return mean, ((x - mean) ** 2).sum(0) / len(x)


@wrong("moments", "wrong-variable")
def around_the_first_example(x):
    return x.mean(0), ((x - x[0]) ** 2).mean(0)


@wrong("batch_norm_forward", "wrong-operation")
def clips(x, gamma, beta, eps):
    xhat = (x - x.mean(0)) / np.sqrt(x.var(0) + eps)
    return gamma * np.clip(xhat, -1, 1) + beta


@wrong("batch_norm_forward", "extra-term")
def gamma_from_zero(x, gamma, beta, eps):
    return (1 + gamma) * (x - x.mean(0)) / np.sqrt(x.var(0) + eps) + beta


@wrong("update_running", "wrong-operation")
def averages_deviations(running_mean, running_var, x, momentum):
    a, std = momentum, x.std(0, ddof=1)
    mean = (1 - a) * running_mean + a * x.mean(0)
    return mean, ((1 - a) * np.sqrt(running_var) + a * std) ** 2


@wrong("conv_batch_norm", "wrong-operation")
def variance_of_the_means(x, gamma, beta, eps):
    means = x.mean(axis=(2, 3))
    mean, var = means.mean(0)[:, None, None], means.var(0)[:, None, None]
    y = (x - mean) / np.sqrt(var + eps)
    return gamma[:, None, None] * y + beta[:, None, None]


@wrong("pre_norm_block", "wrong-operation")
def leaks(x, gamma, up, down, eps):
    h = gamma * x / np.sqrt((x**2).mean(1, keepdims=True) + eps) @ up
    return x + np.where(h > 0, h, 0.01 * h) @ down
