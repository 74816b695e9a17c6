"""Batch norm of maps as loops that numba compiles: the layer that lost in a network.

Channel by channel: the moments of a channel need that channel alone, which fits into
the second cache, so its y is written before it has left. x : (N, C, L), contiguous.
"""

import math

import numba
import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

OPTIONS = {"nogil": True, "cache": True, "error_model": "numpy"}
ordered = numba.njit(fastmath={"contract"}, **OPTIONS)  # a x + b may be one operation
freely = numba.njit(fastmath={"contract", "reassoc"}, **OPTIONS)  # sums in any order
RUN = 1024  # values whose sum is kept in their own dtype; all longer sums are float64


@ordered
def minus(x, p):
    """Return x - p, which nobody may rearrange: sum(x) - m p would cancel."""
    return x - p


@freely
def run_sums(run, p):
    """Return the sums of run - p and of its square, in the dtype of p."""
    total = square = p - p
    for k in range(len(run)):
        d = minus(run[k], p)
        total += d
        square += d * d
    return total, square


@ordered
def shifted_sums(x, c, p):
    """Return the sums of x - p and its square over a channel."""
    total = square = 0.0
    for n in range(x.shape[0]):
        for k in range(0, x.shape[2], RUN):
            t, q = run_sums(x[n, c, k : k + RUN], p)
            total += t
            square += q
    return total, square


@ordered
def moments(x, c):
    """Return p, and mean and var of x - p, float64, of a channel: p its first value, or
    one near its mean where that is far away."""
    count = x.shape[0] * x.shape[2]
    p = x[0, c, 0]
    total, square = shifted_sums(x, c, p)
    mean = total / count
    var = square / count - mean * mean
    if not (mean * mean <= 16 * var < np.inf):
        p = x.dtype.type(p + mean)
        total, square = shifted_sums(x, c, np.float64(p))
        mean = total / count
        var = max(square / count - mean * mean, 0.0)
    return np.float64(p), mean, var


LINE = 64  # bytes that travel together between cache and memory
LARGE = 1 << 21  # bytes of a result that is better off in memory at once
PART = 1 << 15  # values that are held until they are whole lines, at most


@intrinsic
def write_lines(typing, out, start, part, count):
    """Write `count` values of part into out from value `start` on, past the caches.

    An ordinary store first fetches the line that it writes into; this one does not.
    Both contiguous, of one dtype; in out, whole lines.
    """

    def build(context, builder, signature, given):
        pairs = ((signature.args[k], given[k]) for k in (0, 2))
        view = cgutils.create_struct_proxy
        out, part = (view(kind)(context, builder, array) for kind, array in pairs)
        number = context.get_value_type(signature.args[0].dtype)
        size = context.get_abi_sizeof(number)
        line = ir.VectorType(number, LINE // size).as_pointer()
        step = given[3].type(LINE // size)
        mark = builder.module.add_metadata([ir.IntType(32)(1)])
        with cgutils.for_range(builder, builder.sdiv(given[3], step)) as loop:
            of = builder.mul(loop.index, step)
            to = builder.gep(out.data, [builder.add(given[1], of)])
            of = builder.gep(part.data, [of])
            value = builder.load(builder.bitcast(of, line), align=size)
            store = builder.store(value, builder.bitcast(to, line), align=LINE)
            store.set_metadata("nontemporal", mark)
        return context.get_dummy_value()

    return types.void(out, types.intp, part, types.intp), build


@ordered
def together(y):
    """Return how many maps of y are whole lines together, or 0: y is small, does not
    begin with a line, is not a multiple of that many, or they are more than PART."""
    size = y.shape[2]
    few = LINE // math.gcd(LINE, size * y.itemsize)
    held = RUN if few == 1 else few * size
    even = y.ctypes.data % LINE == 0 and y.shape[1] % few == 0
    return few if y.nbytes >= LARGE and even and held <= PART else 0


@ordered
def write_far(x, gamma, beta, y, stats, first, last, part):
    """Write y of the channels first to last past the caches."""
    kind, at_once = x.dtype.type, LINE // x.itemsize
    for n in range(x.shape[0]):
        start, held = (n * x.shape[1] + first) * x.shape[2], 0
        for c in range(first, last):
            p, mean, inverse = kind(stats[0, c]), kind(stats[1, c]), kind(stats[3, c])
            for k in range(0, x.shape[2], RUN):
                run, out = x[n, c, k : k + RUN], part[held : held + RUN]
                for i in range(len(run)):
                    out[i] = ((run[i] - p) - mean) * inverse * gamma[c] + beta[c]
                held += len(run)
                if held % at_once == 0:
                    write_lines(y, start, part, held)
                    start, held = start + held, 0


@ordered
def write_near(x, gamma, beta, y, stats, c):
    """Write y of a channel."""
    p, mean, scale = stats[0, c], stats[1, c], stats[3, c] * gamma[c]
    for n in range(x.shape[0]):
        run, out = x[n, c], y[n, c]
        for k in range(len(run)):
            out[k] = ((run[k] - p) - mean) * scale + beta[c]


@ordered
def write_maps(x, gamma, beta, eps, y, stats, start, stop):
    """Write y and stats (4, C), p, mean, var, 1 / std, of the channels start to stop.

    start : a multiple of `together(y)`.
    """
    few = together(y)
    part = np.empty(PART if few else 0, x.dtype)
    for first in range(start, stop, max(few, 1)):
        last = min(first + max(few, 1), stop)
        for c in range(first, last):
            stats[0, c], stats[1, c], stats[2, c] = moments(x, c)
            stats[3, c] = 1 / np.sqrt(stats[2, c] + eps)
        if few:
            write_far(x, gamma, beta, y, stats, first, last, part)
        else:
            write_near(x, gamma, beta, y, stats, first)


@freely
def run_products(dy, x, p, mean, inverse):
    """Return the sums of dy and dy xhat over two runs, in the dtype of p."""
    total = product = p - p
    for k in range(len(x)):
        total += dy[k]
        product += dy[k] * (minus(minus(x[k], p), mean) * inverse)
    return total, product


@ordered
def upstream_sums(dy, x, c, stats):
    """Return the sums of dy and dy xhat over a channel."""
    kind = x.dtype.type
    p, mean, inverse = kind(stats[0, c]), kind(stats[1, c]), kind(stats[3, c])
    total = product = 0.0
    for n in range(x.shape[0]):
        for k in range(0, x.shape[2], RUN):
            up, run = dy[n, c, k : k + RUN], x[n, c, k : k + RUN]
            t, q = run_products(up, run, p, mean, inverse)
            total += t
            product += q
    return total, product


@ordered
def write_far_gradient(dy, x, gamma, stats, sums, dx, first, last, part):
    """Write dx of the channels first to last past the caches, as `write_far` does y."""
    kind, at_once, count = x.dtype.type, LINE // x.itemsize, x.shape[0] * x.shape[2]
    for n in range(len(dx) - 1, -1, -1):  # what was read last is still in the cache
        start, held = (n * x.shape[1] + first) * x.shape[2], 0
        for c in range(first, last):
            p, mean, inverse = kind(stats[0, c]), kind(stats[1, c]), kind(stats[3, c])
            by_mean, by_var = kind(sums[0, c] / count), kind(sums[1, c] / count)
            scale = inverse * gamma[c]
            for k in range(0, x.shape[2], RUN):
                up, run = dy[n, c, k : k + RUN], x[n, c, k : k + RUN]
                out = part[held : held + RUN]
                for i in range(len(run)):
                    xhat = ((run[i] - p) - mean) * inverse
                    out[i] = scale * ((up[i] - by_mean) - xhat * by_var)
                held += len(run)
                if held % at_once == 0:
                    write_lines(dx, start, part, held)
                    start, held = start + held, 0


@ordered
def write_near_gradient(dy, x, gamma, stats, sums, dx, c):
    """Write dx of a channel."""
    count = x.shape[0] * x.shape[2]
    p, mean, inverse = stats[0, c], stats[1, c], stats[3, c]
    scale, by_mean, by_var = inverse * gamma[c], sums[0, c] / count, sums[1, c] / count
    for n in range(len(dx) - 1, -1, -1):
        up, run, out = dy[n, c], x[n, c], dx[n, c]
        for k in range(len(run)):
            xhat = ((run[k] - p) - mean) * inverse
            out[k] = scale * ((up[k] - by_mean) - xhat * by_var)


@ordered
def write_map_gradients(dy, x, gamma, stats, dx, sums, start, stop):
    """Write dx, and sums (2, C), dbeta and dgamma, of the channels start to stop.

    start : a multiple of `together(dx)`.
    """
    few = together(dx)
    part = np.empty(PART if few else 0, x.dtype)
    for first in range(start, stop, max(few, 1)):
        last = min(first + max(few, 1), stop)
        for c in range(first, last):
            sums[0, c], sums[1, c] = upstream_sums(dy, x, c, stats)
        if few:
            write_far_gradient(dy, x, gamma, stats, sums, dx, first, last, part)
        else:
            write_near_gradient(dy, x, gamma, stats, sums, dx, first)
