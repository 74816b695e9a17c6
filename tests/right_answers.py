"""Right solutions of every exercise in many styles: none of them may raise an alarm."""

import math

import numpy as np

# --------------------------------------------------------------------- whitening


def zca_by_svd(x, eps):
    centred = x - np.mean(x, 0)
    u, s, vt = np.linalg.svd(centred, full_matrices=False)
    scale = s / np.sqrt(s**2 / len(x) + eps)
    return (u * scale) @ vt


def zca_general_eig(x, eps):
    sigma = np.cov(x, rowvar=False, bias=True)
    values, vectors = np.linalg.eig(np.atleast_2d(sigma))
    root = vectors @ np.diag(1 / np.sqrt(values.real + eps)) @ np.linalg.inv(vectors)
    return (x - x.mean(axis=0)) @ root.real


# ----------------------------------------------------------------------- moments


def moments_loops(x):
    n, c = x.shape
    mean, var = [0.0] * c, [0.0] * c
    for j in range(c):
        for i in range(n):
            mean[j] += x[i, j] / n
        for i in range(n):
            var[j] += (x[i, j] - mean[j]) ** 2 / n
    return mean, var


def moments_welford(x):
    mean, m2 = np.zeros(x.shape[1]), np.zeros(x.shape[1])
    for n, row in enumerate(x, start=1):
        delta = row - mean
        mean = mean + delta / n
        m2 = m2 + delta * (row - mean)
    return mean, m2 / len(x)


def moments_keepdims(x):
    mean = x.mean(axis=0, keepdims=True)
    return mean, ((x - mean) ** 2).mean(axis=0, keepdims=True)


def moments_pivot(x):
    shifted = (x - x[0]).astype(np.float64)
    mean = shifted.mean(0)
    return x[0] + mean, (shifted**2).mean(0) - mean**2


# ------------------------------------------------------------- batch norm, forward


def forward_one_line(x, gamma, beta, eps):
    return gamma * (x - x.mean(0)) / (x.var(0) + eps) ** 0.5 + beta


def forward_loops(x, gamma, beta, eps):
    y = np.empty(x.shape)
    for j in range(x.shape[1]):
        column = [float(v) for v in x[:, j]]
        mean = sum(column) / len(column)
        var = sum((v - mean) ** 2 for v in column) / len(column)
        for i, v in enumerate(column):
            y[i, j] = gamma[j] * (v - mean) / math.sqrt(var + eps) + beta[j]
    return y


def forward_einsum(x, gamma, beta, eps):
    centred = x - np.einsum("nc->c", x) / len(x)
    var = np.einsum("nc,nc->c", centred, centred) / len(x)
    return np.einsum("nc,c->nc", centred, gamma / np.sqrt(var + eps)) + beta[None]


def forward_scale_and_shift(x, gamma, beta, eps):
    mean, var = x.mean(axis=0), x.var(axis=0)
    a = gamma / np.sqrt(var + eps)
    return a * x + (beta - a * mean)


def forward_transposed(x, gamma, beta, eps):
    rows = x.T
    xhat = rows - rows.mean(axis=1, keepdims=True)
    xhat = xhat / np.sqrt((xhat**2).mean(axis=1, keepdims=True) + eps)
    return (gamma[:, None] * xhat + beta[:, None]).T


def forward_keyword_order(eps, beta, gamma, x):
    return forward_one_line(x, gamma, beta, eps)


# ------------------------------------------------------------ batch norm, backward


def backward_staged(dy, x, gamma, eps):
    """The computational graph, node by node, as CS231n teaches it."""
    n = x.shape[0]
    mu = x.mean(axis=0)
    xmu = x - mu
    var = (xmu**2).mean(axis=0)
    sqrtvar = np.sqrt(var + eps)
    ivar = 1.0 / sqrtvar
    dbeta = dy.sum(axis=0)
    dgamma = np.sum(dy * xmu * ivar, axis=0)
    dxhat = dy * gamma
    divar = np.sum(dxhat * xmu, axis=0)
    dxmu1 = dxhat * ivar
    dsqrtvar = -1.0 / (sqrtvar**2) * divar
    dvar = 0.5 / sqrtvar * dsqrtvar
    dsq = np.ones_like(x) / n * dvar
    dxmu2 = 2 * xmu * dsq
    dx1 = dxmu1 + dxmu2
    dmu = -np.sum(dx1, axis=0)
    return dx1 + np.ones_like(x) * dmu / n, dgamma, dbeta


def backward_collapsed(dy, x, gamma, eps):
    n = len(x)
    inv = (x.var(0) + eps) ** -0.5
    xhat = (x - x.mean(0)) * inv
    dbeta, dgamma = dy.sum(0), (dy * xhat).sum(0)
    return gamma * inv / n * (n * dy - dbeta - xhat * dgamma), dgamma, dbeta


def backward_jacobian(dy, x, gamma, eps):
    n, c = x.shape
    dx, dgamma = np.zeros(x.shape), np.zeros(c)
    for j in range(c):
        std = np.sqrt(x[:, j].var() + eps)
        xhat = (x[:, j] - x[:, j].mean()) / std
        jacobian = (np.eye(n) - 1 / n - np.outer(xhat, xhat) / n) / std
        dx[:, j] = jacobian.T @ (gamma[j] * dy[:, j])
        dgamma[j] = xhat @ dy[:, j]
    return dx, dgamma, dy.sum(axis=0)


# ---------------------------------------------------------- running and inference


def running_corrected(running_mean, running_var, x, momentum):
    n = x.shape[0]
    keep = 1 - momentum
    var = np.var(x, axis=0) * n / (n - 1)
    mean = keep * running_mean + momentum * x.sum(0) / n
    return np.array([mean, keep * running_var + momentum * var])


def running_average(running_mean, running_var, x, momentum):
    stats = [
        (running_mean, np.mean(x, 0)),
        (running_var, np.cov(x.T).reshape(x.shape[1], -1).diagonal()),
    ]
    return tuple(np.average(s, axis=0, weights=[1 - momentum, momentum]) for s in stats)


def inference_folded(x, gamma, beta, running_mean, running_var, eps):
    a = gamma * (running_var + eps) ** -0.5
    return x * a + (beta - running_mean * a)


def inference_loops(x, gamma, beta, running_mean, running_var, eps):
    return [
        [
            (v - m) / math.sqrt(s + eps) * g + b
            for v, g, b, m, s in zip(
                row, gamma, beta, running_mean, running_var, strict=True
            )
        ]
        for row in x
    ]


class LayerInPlace:
    """With eval() and train(), updated in place; whoever loads makes copies."""

    def __init__(self, num_features, eps=1e-5, momentum=0.1):
        self.running_mean, self.running_var = np.stack([[0.0, 1.0]] * num_features).T
        self.eps, self.momentum, self.training = eps, momentum, True

    def train(self, mode=True):
        self.training = mode
        return self

    def eval(self):
        return self.train(False)

    def __call__(self, x):
        if not self.training:
            return (x - self.running_mean) * (self.running_var + self.eps) ** -0.5
        y = forward_loops(x, *(f(x.shape[1]) for f in (np.ones, np.zeros)), self.eps)
        for old, new in (
            (self.running_mean, np.mean(x, 0)),
            (self.running_var, np.var(x, 0, ddof=1)),
        ):
            old += self.momentum * (new - old)
        return y

    def state_dict(self):
        return dict(vars(self))

    def load_state_dict(self, state):
        for name in ("running_mean", "running_var"):
            setattr(self, name, state[name].copy())


class LayerOfLists:
    """Python's own numbers, one column at a time."""

    def __init__(self, num_features, eps=1e-5, momentum=0.1):
        self.eps, self.momentum, self.training = eps, momentum, True
        self.running_mean = [0.0 for _ in range(num_features)]
        self.running_var = [1.0 for _ in range(num_features)]

    def __call__(self, x):
        return np.array([self.column(j, c.tolist()) for j, c in enumerate(x.T)]).T

    def column(self, j, values):
        mean, var, n = self.running_mean[j], self.running_var[j], len(values)
        if self.training:
            batch_mean = sum(values) / n
            squares = sum((v - batch_mean) ** 2 for v in values)
            m = self.momentum
            self.running_mean[j] = mean * (1 - m) + batch_mean * m
            self.running_var[j] = var * (1 - m) + squares / (n - 1) * m
            mean, var = batch_mean, squares / n
        return [(v - mean) / math.sqrt(var + self.eps) for v in values]

    def state_dict(self):
        return {"running": [self.running_mean[:], self.running_var[:]]}

    def load_state_dict(self, state):
        self.running_mean, self.running_var = map(list, state["running"])


def fold_diag(weight, bias, gamma, beta, mean, var, eps):
    a = np.diag(gamma / np.sqrt(var + eps))
    return a @ weight, a @ (bias - mean) + beta


def fold_by_probing(weight, bias, gamma, beta, mean, var, eps):
    def both(x):
        return gamma * (weight @ x + bias - mean) / np.sqrt(var + eps) + beta

    zero = np.zeros(weight.shape[1])
    columns = [both(e) - both(zero) for e in np.eye(weight.shape[1])]
    return np.stack(columns, axis=1), both(zero)


# ------------------------------------------------------------------------- images


def conv_flattened(x, gamma, beta, eps):
    n, c, h, w = x.shape
    flat = x.transpose(0, 2, 3, 1).reshape(-1, c)
    y = gamma * (flat - flat.mean(0)) / np.sqrt(flat.var(0) + eps) + beta
    return y.reshape(n, h, w, c).transpose(0, 3, 1, 2)


def conv_einsum(x, gamma, beta, eps):
    m = x.size / x.shape[1]
    mean = np.einsum("nchw->c", x) / m
    centred = x - mean[None, :, None, None]
    std = np.sqrt(np.einsum("nchw,nchw->c", centred, centred) / m + eps)
    return np.einsum("nchw,c->nchw", centred, gamma / std) + beta[:, None, None]


def _as_rows(function):
    def images(dy, x, gamma, eps):
        n, c, h, w = x.shape
        dy, x = (a.transpose(0, 2, 3, 1).reshape(-1, c) for a in (dy, x))
        dx, dgamma, dbeta = function(dy, x, gamma, eps)
        return dx.reshape(n, h, w, c).transpose(0, 3, 1, 2), dgamma, dbeta

    return images


def conv_backward_collapsed(dy, x, gamma, eps):
    a, g = (0, 2, 3), gamma[:, None, None]
    m = x.shape[0] * x.shape[2] * x.shape[3]
    mean, var = x.mean(a, keepdims=True), x.var(a, keepdims=True)
    xhat = (x - mean) / np.sqrt(var + eps)
    dbeta, dgamma = dy.sum(a), (dy * xhat).sum(a)
    dx = m * dy - dbeta[:, None, None] - xhat * dgamma[:, None, None]
    return g * dx / (m * np.sqrt(var + eps)), dgamma, dbeta


# ------------------------------------------------------------------------- renorm


def renorm_columns(x, gamma, beta, running_mean, running_std, rmax, dmax, eps):
    columns = []
    for c, column in enumerate(x.T):
        mean, std = column.mean(), math.sqrt(column.var() + eps)
        r = min(max(std / running_std[c], 1 / rmax), rmax)
        d = min(max((mean - running_mean[c]) / running_std[c], -dmax), dmax)
        columns.append(gamma[c] * ((column - mean) / std * r + d) + beta[c])
    return np.array(columns).T


def renorm_scale_shift(x, gamma, beta, running_mean, running_std, rmax, dmax, eps):
    mean, std = np.mean(x, 0), np.sqrt(np.var(x, 0) + eps)
    r = (std / running_std).clip(1 / rmax, rmax)
    d = ((mean - running_mean) / running_std).clip(-dmax, dmax)
    centred = x - mean
    return centred * (gamma * r / std) + (gamma * d + beta)


def _renorm_backward(plain):
    def backward(dy, x, gamma, running_mean, running_std, rmax, dmax, eps):
        r = np.clip(np.sqrt(x.var(0) + eps) / running_std, 1 / rmax, rmax)
        d = np.clip((x.mean(0) - running_mean) / running_std, -dmax, dmax)
        dx, dgamma, dbeta = plain(dy, x, gamma * r, eps)
        return dx, r * dgamma + d * dbeta, dbeta

    return backward


# --------------------------------------------------------------------- other axes


def layer_transposed(x, gamma, beta, eps):
    t = x.T
    return ((t - t.mean(0)) / np.sqrt(t.var(0) + eps)).T * gamma + beta


def layer_rows(x, gamma, beta, eps):
    rows = [(r - r.mean()) / math.sqrt(r.var() + eps) * gamma + beta for r in x]
    return np.array(rows)


def layer_backward_transposed(dy, x, gamma, eps):
    g, t = (dy * gamma).T, x.T
    xmu = t - t.mean(0)
    ivar = 1 / np.sqrt(t.var(0) + eps)
    n = len(t)
    dvar = (g * xmu).sum(0) * -0.5 * ivar**3
    dmu = -(g * ivar).sum(0) - 2 * dvar * xmu.mean(0)
    dx = (g * ivar + 2 * xmu * dvar / n + dmu / n).T
    return dx, (dy.T * xmu * ivar).T.sum(0), dy.sum(0)


def layer_backward_sums(dy, x, gamma, eps):
    d = x.shape[1]
    inv = 1 / np.sqrt(x.var(axis=-1, keepdims=True) + eps)
    xhat = (x - x.mean(axis=-1, keepdims=True)) * inv
    g = dy * gamma
    s1, s2 = g.sum(-1, keepdims=True), (g * xhat).sum(-1, keepdims=True)
    return inv / d * (d * g - s1 - xhat * s2), (dy * xhat).sum(0), dy.sum(0)


def instance_rows(x, gamma, beta, eps):
    rows = x.reshape(x.shape[0], x.shape[1], -1)
    rows = rows - rows.mean(-1)[..., None]
    rows = rows / np.sqrt(np.square(rows).mean(-1)[..., None] + eps)
    return (gamma[:, None] * rows + beta[:, None]).reshape(x.shape)


def instance_scale_and_shift(x, gamma, beta, eps):
    mean, var = x.mean((2, 3)), x.var(axis=(2, 3))
    a = gamma / np.sqrt(var + eps)
    return x * a[:, :, None, None] + (beta - a * mean)[:, :, None, None]


def group_five_axes(x, gamma, beta, num_groups, eps):
    n, c, h, w = x.shape
    v = x.reshape(n, num_groups, c // num_groups, h, w)
    v = v - v.mean(axis=(2, 3, 4), keepdims=True)
    v = v / np.sqrt((v * v).mean(axis=(2, 3, 4), keepdims=True) + eps)
    return v.reshape(n, c, h, w) * gamma[None, :, None, None] + beta.reshape(1, c, 1, 1)


def group_loops(x, gamma, beta, num_groups, eps):
    y, size = x.copy(), x.shape[1] // num_groups
    for i in range(x.shape[0]):
        for k in range(0, x.shape[1], size):
            part = x[i, k : k + size]
            y[i, k : k + size] = (part - part.mean()) / np.sqrt(part.var() + eps)
    return y * gamma.reshape(-1, 1, 1) + beta.reshape(-1, 1, 1)


def group_backward_five_axes(dy, x, gamma, num_groups, eps):
    """The paper's equations, each with the axes of a group."""
    n, c, h, w = x.shape
    five, a = (n, num_groups, c // num_groups, h, w), (2, 3, 4)
    g = (dy * gamma[None, :, None, None]).reshape(five)
    xmu = x.reshape(five) - x.reshape(five).mean(a, keepdims=True)
    inv = (np.mean(xmu**2, a, keepdims=True) + eps) ** -0.5
    m = xmu[0, 0].size
    dvar = (g * xmu).sum(a, keepdims=True) * -0.5 * inv**3
    dmean = -(g * inv).sum(a, keepdims=True)
    dx = (g * inv + 2 * dvar * xmu / m + dmean / m).reshape(x.shape)
    return dx, (dy * (xmu * inv).reshape(x.shape)).sum((0, 2, 3)), dy.sum((0, 2, 3))


def group_backward_as_layer_norm(dy, x, gamma, num_groups, eps):
    rows, g = (a.reshape(len(x) * num_groups, -1) for a in (x, _by(dy, gamma)))
    dx, *_ = layer_backward_sums(g, rows, np.ones(rows.shape[1]), eps)
    std = np.sqrt(rows.var(axis=1) + eps)[:, None]
    xhat = ((rows - rows.mean(axis=1)[:, None]) / std).reshape(x.shape)
    return dx.reshape(x.shape), (dy * xhat).sum((0, 2, 3)), dy.sum((0, 2, 3))


def _by(dy, gamma):
    return np.moveaxis(np.moveaxis(dy, 1, -1) * gamma, -1, 1)


def block_by_rows(x, gamma, up, down, eps):
    def branch(row):
        row = gamma * row / math.sqrt((row @ row) / row.size + eps)
        return np.where(row @ up > 0, row @ up, 0) @ down

    return np.array([row + branch(row) for row in x])


def block_in_place(x, gamma, up, down, eps):
    y = x.copy()
    h = np.einsum("nd,d,dh->nh", x, gamma, up)
    h /= np.sqrt((x * x).mean(1) + eps)[:, None]
    h[h < 0] = 0
    y += h @ down
    return y


def tanh_by_cosh(dy, x, alpha, gamma):
    t, slope = np.tanh(alpha * x), 1 / np.cosh(alpha * x) ** 2
    dx = dy * gamma * slope * alpha
    return dx, np.sum(dy * gamma * slope * x), np.einsum("nd,nd->d", dy, t), dy.sum(0)


def tanh_loops(dy, x, alpha, gamma):
    dx, dalpha = np.zeros(x.shape), 0.0
    dgamma, dbeta = np.zeros(len(gamma)), np.zeros(len(gamma))
    for i, j in np.ndindex(*x.shape):
        t = math.tanh(alpha * x[i, j])
        g = dy[i, j] * gamma[j] * (1 - t * t)
        dx[i, j] = alpha * g
        dalpha += g * x[i, j]
        dgamma[j] += dy[i, j] * t
        dbeta[j] += dy[i, j]
    return dx, dalpha, dgamma, dbeta


def rms_rows(x, gamma, eps):
    return np.array([gamma * r / math.sqrt((r @ r) / r.size + eps) for r in x])


def rms_reciprocal(x, gamma, eps):
    scale = (np.square(x).mean(-1, keepdims=True) + eps) ** -0.5
    return np.multiply(x, scale) * gamma


def rms_backward_rows(dy, x, gamma, eps):
    dx, dgamma = [], 0
    for row, up in zip(x, dy, strict=True):
        inv = ((row @ row) / row.size + eps) ** -0.5
        g = gamma * up
        dx.append(inv * g - row * inv**3 * (g @ row) / row.size)
        dgamma = dgamma + up * row * inv
    return dx, dgamma


def rms_backward_paper(dy, x, gamma, eps):
    """Step by step, from the square to the root, as chapter 4 does."""
    g, d = dy * gamma, x.shape[1]
    rms = np.sqrt(np.square(x).mean(1, keepdims=True) + eps)
    drms = -(g * x).sum(1, keepdims=True) / rms**2
    dsquare = drms / (2 * rms)
    return g / rms + dsquare * 2 * x / d, np.einsum("nd,nd->d", dy, x / rms)


# -------------------------------------------------------------------------- merge


def merge_two_at_a_time(counts, means, variances):
    n, mean, m2 = 0, 0 * means[0], 0 * means[0]
    for k, m, v in zip(counts, means, variances, strict=True):
        delta, total = m - mean, n + k
        mean = mean + delta * k / total
        m2 = m2 + v * k + delta**2 * n * k / total
        n = total
    return mean, m2 / n


def merge_pairs(counts, means, variances):
    """The between part from the distances of all pairs of workers."""
    w = counts / np.sum(counts)
    between = 0
    for i in range(len(w)):
        for j in range(i):
            between = between + w[i] * w[j] * (means[i] - means[j]) ** 2
    return w @ means, w @ variances + between


def recalibrate_by_welford(x, counts):
    """Row after row; where a batch ends makes no difference."""
    mean, var = moments_welford(x)
    return mean, var * (len(x) / (len(x) - 1))


def recalibrate_as_they_come(x, counts):
    """Each batch is forgotten once its share was taken."""
    n, mean, m2, start = 0, 0.0, 0.0, 0
    for k in counts:
        batch, start = x[start : start + k], start + k
        delta = batch.mean(axis=0) - mean
        m2 = m2 + batch.var(axis=0) * k + delta**2 * n * k / (n + k)
        mean, n = mean + delta * k / (n + k), n + k
    return mean, m2 / (n - 1)


# ------------------------------------------------- adaptive instance normalization


def adain_flat(x, style, eps):
    x_rows, rows = (a.reshape(*a.shape[:2], -1) for a in (x, style))
    stats = [
        (a.mean(-1, keepdims=True), a.var(-1, keepdims=True)) for a in (x_rows, rows)
    ]
    (mean, var), (shift, spread) = stats
    y = (x_rows - mean) * np.sqrt((spread + eps) / (var + eps)) + shift
    return y.reshape(x.shape)


def adain_scale_and_shift(x, style, eps):
    def moments_of(a):
        mean = a.mean((2, 3))
        return mean, np.sqrt(((a - mean[..., None, None]) ** 2).mean((2, 3)) + eps)

    (mean, std), (shift, spread) = moments_of(x), moments_of(style)
    scale = (spread / std)[..., None, None]
    return scale * (x - mean[..., None, None]) + shift[..., None, None]


# --------------------------------------------------------- weight standardization


def weights_as_rows(weight, gain, eps):
    rows = weight.reshape(len(weight), -1)
    rows = rows - rows.mean(1)[:, None]
    rows = rows * (gain / np.sqrt((rows * rows).mean(1) + eps))[:, None]
    return rows.reshape(weight.shape)


def weights_einsum(weight, gain, eps):
    centred = weight - weight.mean((1, 2, 3), keepdims=True)
    squares = np.einsum("oihw,oihw->o", centred, centred) / centred[0].size
    return np.einsum("oihw,o->oihw", centred, gain * (squares + eps) ** -0.5)


RIGHT = {
    "zca_whiten": (zca_by_svd, zca_general_eig),
    "moments": (moments_loops, moments_welford, moments_keepdims, moments_pivot),
    "batch_norm_forward": (
        *(forward_one_line, forward_loops, forward_einsum, forward_scale_and_shift),
        *(forward_transposed, forward_keyword_order),
    ),
    "batch_norm_backward": (backward_staged, backward_collapsed, backward_jacobian),
    "update_running": (running_corrected, running_average),
    "batch_norm_inference": (inference_folded, inference_loops),
    "BatchNorm": (LayerInPlace, LayerOfLists),
    "fold_linear": (fold_diag, fold_by_probing),
    "conv_batch_norm": (conv_flattened, conv_einsum),
    "conv_batch_norm_backward": (conv_backward_collapsed, _as_rows(backward_jacobian)),
    "batch_renorm": (renorm_columns, renorm_scale_shift),
    "batch_renorm_backward": (
        *(_renorm_backward(backward_staged), _renorm_backward(backward_collapsed)),
    ),
    "layer_norm": (layer_transposed, layer_rows),
    "layer_norm_backward": (layer_backward_transposed, layer_backward_sums),
    "instance_norm": (instance_rows, instance_scale_and_shift),
    "group_norm": (group_five_axes, group_loops),
    "group_norm_backward": (group_backward_five_axes, group_backward_as_layer_norm),
    "rms_norm": (rms_rows, rms_reciprocal),
    "rms_norm_backward": (rms_backward_rows, rms_backward_paper),
    "pre_norm_block": (block_by_rows, block_in_place),
    "dynamic_tanh_backward": (tanh_by_cosh, tanh_loops),
    "adaptive_instance_norm": (adain_flat, adain_scale_and_shift),
    "weight_standardize": (weights_as_rows, weights_einsum),
    "merge_moments": (merge_two_at_a_time, merge_pairs),
    "recalibrate": (recalibrate_by_welford, recalibrate_as_they_come),
}
