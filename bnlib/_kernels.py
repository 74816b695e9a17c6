"""From chapters/21_fast.ipynb.

Extracted by `make export`: edit the notebook, not this file.
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
    """Return x - p, which nobody may rearrange."""
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
def shifted_sums(x, s, p):
    """Return the sums of x - p and its square over part s of x (A, S, B, L)."""
    total = square = 0.0
    for a in range(x.shape[0]):
        for b in range(x.shape[2]):
            for k in range(0, x.shape[3], RUN):
                t, q = run_sums(x[a, s, b, k : k + RUN], p)
                total += t
                square += q
    return total, square


@ordered
def moments(x, s):
    """Return p, and mean and var of x - p, float64, of part s of x (A, S, B, L)."""
    count = x.shape[0] * x.shape[2] * x.shape[3]
    p = x[0, s, 0, 0]
    total, square = shifted_sums(x, s, p)
    mean = total / count
    var = square / count - mean * mean
    if not (mean * mean <= 16 * var < np.inf):
        p = x.dtype.type(p + mean)
        total, square = shifted_sums(x, s, np.float64(p))
        mean = total / count
        var = max(square / count - mean * mean, 0.0)
    return np.float64(p), mean, var


LINE = 64  # bytes that travel together between cache and memory
LARGE = 1 << 21  # bytes of a result that is better off in memory at once
PART = 1 << 15  # values that are held until they are whole lines, at most


@intrinsic
def write_lines(typing, out, start, part, count):
    """Write `count` values of part into out from value `start` on, past the caches.

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
    """Return how many parts of y (A, S, B, L) are whole lines together.

    0 if y is small, does not begin with a line, or S is not a multiple of that number;
    or if they would be more than PART values.
    """
    size = y.shape[2] * y.shape[3]
    few = LINE // math.gcd(LINE, size * y.itemsize)
    held = RUN if y.shape[3] * y.itemsize % LINE == 0 else few * size
    even = y.ctypes.data % LINE == 0 and y.shape[1] % few == 0
    return few if y.nbytes >= LARGE and even and held <= PART else 0


@ordered
def moderate(stats, first, last):
    """Return whether arithmetic in float32 cannot leave its range for these parts."""
    for s in range(first, last):
        if not (1e-15 < stats[3, s] < 1e15 and abs(stats[0, s]) < 1e30):
            return False
    return True


@ordered
def write_far(x, gamma, beta, y, stats, first, last, part):
    """Write y of the parts first to last of x (A, S, B, L) past the caches."""
    kind, at_once = x.dtype.type, LINE // x.itemsize
    for a in range(x.shape[0]):
        start, held = (a * x.shape[1] + first) * x.shape[2] * x.shape[3], 0
        for s in range(first, last):
            p, mean, inverse = kind(stats[0, s]), kind(stats[1, s]), kind(stats[3, s])
            for b in range(x.shape[2]):
                scale, shift = gamma[s % len(gamma), b], beta[s % len(gamma), b]
                for k in range(0, x.shape[3], RUN):
                    run, out = x[a, s, b, k : k + RUN], part[held : held + RUN]
                    for i in range(len(run)):
                        out[i] = ((run[i] - p) - mean) * inverse * scale + shift
                    held += len(run)
                    if held % at_once == 0:
                        write_lines(y, start, part, held)
                        start, held = start + held, 0


@ordered
def write_near(x, gamma, beta, y, stats, s):
    """Write y of part s of x (A, S, B, L)."""
    p, mean, inverse, g = stats[0, s], stats[1, s], stats[3, s], s % len(gamma)
    for a in range(x.shape[0]):
        for b in range(x.shape[2]):
            run, out = x[a, s, b], y[a, s, b]
            scale, shift = inverse * gamma[g, b], beta[g, b]
            for k in range(len(run)):
                out[k] = ((run[k] - p) - mean) * scale + shift


@ordered
def write_maps(x, gamma, beta, eps, y, stats, start, stop):
    """Write y and stats (p, mean, var, 1 / std) of the parts start to stop.

    x, y : (A, S, B, L). gamma, beta : (G, B), for part s row s % G. stats : (4, S).
    start : a multiple of `together(y)`.
    """
    few = together(y)
    part = np.empty(PART if few else 0, x.dtype)
    for first in range(start, stop, max(few, 1)):
        last = min(first + max(few, 1), stop)
        for s in range(first, last):
            stats[0, s], stats[1, s], stats[2, s] = moments(x, s)
            stats[3, s] = 1 / np.sqrt(stats[2, s] + eps)
        if few and moderate(stats, first, last):
            write_far(x, gamma, beta, y, stats, first, last, part)
        else:
            for s in range(first, last):
                write_near(x, gamma, beta, y, stats, s)


@freely
def run_products(dy, x, p, mean, inverse):
    """Return the sums of dy and dy xhat over two runs, in the dtype of p."""
    total = product = p - p
    for k in range(len(x)):
        total += dy[k]
        product += dy[k] * (minus(minus(x[k], p), mean) * inverse)
    return total, product


@ordered
def upstream_sums(dy, x, s, b, p, mean, inverse):
    """Return the sums of dy and dy xhat over (s, b) of x (A, S, B, L)."""
    total = product = 0.0
    for a in range(x.shape[0]):
        for k in range(0, x.shape[3], RUN):
            up, run = dy[a, s, b, k : k + RUN], x[a, s, b, k : k + RUN]
            t, q = run_products(up, run, p, mean, inverse)
            total += t
            product += q
    return total, product


@ordered
def part_sums(dy, x, gamma, s, stats, dgamma, dbeta):
    """Return the sums of dy gamma and dy gamma xhat of part s; add to dgamma, dbeta."""
    kind, g = x.dtype.type, s % len(gamma)
    p, mean, inverse = kind(stats[0, s]), kind(stats[1, s]), kind(stats[3, s])
    by_mean = by_var = 0.0
    for b in range(x.shape[2]):
        total, product = upstream_sums(dy, x, s, b, p, mean, inverse)
        dbeta[g, b] += total
        dgamma[g, b] += product
        by_mean += gamma[g, b] * total
        by_var += gamma[g, b] * product
    return by_mean, by_var


@ordered
def write_far_gradient(dy, x, gamma, stats, means, dx, first, last, part):
    """Write dx of the parts first to last past the caches: `write_far` in reverse.

    means : (2, last - first), of dy gamma and of dy gamma xhat.
    """
    kind, at_once = x.dtype.type, LINE // x.itemsize
    for a in range(len(dx) - 1, -1, -1):  # what was read last is still in the cache
        start, held = (a * x.shape[1] + first) * x.shape[2] * x.shape[3], 0
        for s in range(first, last):
            p, mean, inverse = kind(stats[0, s]), kind(stats[1, s]), kind(stats[3, s])
            by_mean, by_var = kind(means[0, s - first]), kind(means[1, s - first])
            for b in range(x.shape[2]):
                scale = gamma[s % len(gamma), b]
                for k in range(0, x.shape[3], RUN):
                    up, run = dy[a, s, b, k : k + RUN], x[a, s, b, k : k + RUN]
                    out = part[held : held + RUN]
                    for i in range(len(run)):
                        xhat = ((run[i] - p) - mean) * inverse
                        out[i] = inverse * ((scale * up[i] - by_mean) - xhat * by_var)
                    held += len(run)
                    if held % at_once == 0:
                        write_lines(dx, start, part, held)
                        start, held = start + held, 0


@ordered
def write_near_gradient(dy, x, gamma, stats, by_mean, by_var, dx, s):
    """Write dx of part s: scale dy + by_x (x - p - mean) + shift."""
    p, mean, inverse = stats[0, s], stats[1, s], stats[3, s]
    by_x, shift = -inverse * inverse * by_var, -inverse * by_mean
    for a in range(len(dx) - 1, -1, -1):
        for b in range(x.shape[2]):
            up, run, out = dy[a, s, b], x[a, s, b], dx[a, s, b]
            scale = inverse * gamma[s % len(gamma), b]
            for k in range(len(run)):
                out[k] = scale * up[k] + (by_x * ((run[k] - p) - mean) + shift)


@ordered
def write_map_gradients(dy, x, gamma, stats, dx, dgamma, dbeta, start, stop):
    """Write dx of the parts start to stop, and add to dgamma and dbeta (G, B), float64.

    dx = (gamma dy - <gamma dy> - xhat <gamma dy xhat>) / std; a dx of no values is not
    wanted. start : a multiple of `together(dx)`.
    """
    few, count = together(dx), x.shape[0] * x.shape[2] * x.shape[3]
    part, means = np.empty(PART if few else 0, x.dtype), np.empty((2, max(few, 1)))
    for first in range(start, stop, max(few, 1)):
        last = min(first + max(few, 1), stop)
        for s in range(first, last):
            sums = part_sums(dy, x, gamma, s, stats, dgamma, dbeta)
            means[0, s - first], means[1, s - first] = sums[0] / count, sums[1] / count
        if few and moderate(stats, first, last):
            write_far_gradient(dy, x, gamma, stats, means, dx, first, last, part)
        else:
            for s in range(first, last):
                mean = means[:, s - first]
                write_near_gradient(dy, x, gamma, stats, mean[0], mean[1], dx, s)


ROWS = 32  # rows whose sum is kept in their own dtype


@freely
def add_rows(x, p, first, last, total, square):
    """Add to total and square (C,) what the rows first to last of x - p contribute."""
    fours = last - (last - first) % 4
    for i in range(first, fours, 4):  # the totals are read and written once for four
        rows = x[i], x[i + 1], x[i + 2], x[i + 3]
        for c in range(len(p)):
            d, e = minus(rows[0][c], p[c]), minus(rows[1][c], p[c])
            f, g = minus(rows[2][c], p[c]), minus(rows[3][c], p[c])
            total[c] += (d + e) + (f + g)
            square[c] += (d * d + e * e) + (f * f + g * g)
    for i in range(fours, last):
        row = x[i]
        for c in range(len(p)):
            d = minus(row[c], p[c])
            total[c] += d
            square[c] += d * d


@ordered
def column_sums(x, p):
    """Return the sums (2, C) of x - p and of its square along the columns of x."""
    sums, part = np.zeros((2, len(p))), np.empty((2, len(p)), p.dtype)
    for i in range(0, len(x), ROWS):
        part[:] = 0
        add_rows(x, p, i, min(i + ROWS, len(x)), part[0], part[1])
        sums += part
    return sums


@ordered
def column_moments(x, eps, stats):
    """Write p, mean, var and 1 / std of the columns of x into stats (4, C)."""
    p, m, far = x[0].copy(), len(x), False
    sums = column_sums(x, p)
    for c in range(len(p)):
        mean = sums[0, c] / m
        var = sums[1, c] / m - mean * mean
        if not (mean * mean <= 16 * var < np.inf):
            p[c] += mean
            far = True
    if far:
        sums = column_sums(x, p.astype(np.float64))
    for c in range(len(p)):
        mean = sums[0, c] / m
        var = max(sums[1, c] / m - mean * mean, 0.0)
        stats[0, c], stats[1, c], stats[2, c] = p[c], mean, var
        stats[3, c] = 1 / np.sqrt(var + eps)


@ordered
def column_shift(x, p, mean, scale, shift, y):
    """Write (x - p - mean) scale + shift into y; x, y : (rows, C), all others (C,)."""
    for i in range(len(x)):
        row, out = x[i], y[i]
        for c in range(len(p)):
            out[c] = ((row[c] - p[c]) - mean[c]) * scale[c] + shift[c]


@ordered
def write_columns(x, gamma, beta, eps, y, stats):
    """Write y (rows, C) and stats (4, C): batch norm of the columns of x (rows, C)."""
    column_moments(x, eps, stats)
    scale, narrow = (stats[3] * gamma).astype(x.dtype), stats.astype(x.dtype)
    column_shift(x, narrow[0], narrow[1], scale, beta, y)


@freely
def add_products(dy, x, p, mean, inverse, first, last, total, product):
    """Add to total and product (C,) the sums of dy and dy xhat of some rows."""
    for i in range(first, last):
        up, row = dy[i], x[i]
        for c in range(len(p)):
            total[c] += up[c]
            product[c] += up[c] * (minus(minus(row[c], p[c]), mean[c]) * inverse[c])


@ordered
def column_combine(dy, x, p, mean, inverse, scale, by, by_x, dx):
    """Write scale (dy - by - by_x xhat) into dx, of the shape of x or without rows."""
    for i in range(len(dx)):
        up, row, out = dy[i], x[i], dx[i]
        for c in range(len(p)):
            xhat = ((row[c] - p[c]) - mean[c]) * inverse[c]
            out[c] = scale[c] * ((up[c] - by[c]) - by_x[c] * xhat)


@ordered
def write_column_gradients(dy, x, gamma, stats, dx, dgamma, dbeta):
    """Write dx, and dgamma and dbeta (C,), float64, after `write_columns`."""
    narrow, m = stats.astype(x.dtype), len(x)
    p, mean, inverse = narrow[0], narrow[1], narrow[3]
    sums, part = np.zeros((2, len(p))), np.empty((2, len(p)), x.dtype)
    for i in range(0, m, ROWS):
        part[:] = 0
        last = min(i + ROWS, m)
        add_products(dy, x, p, mean, inverse, i, last, part[0], part[1])
        sums += part
    dbeta[:], dgamma[:] = sums[0], sums[1]
    scale, by = (stats[3] * gamma).astype(x.dtype), (sums / m).astype(x.dtype)
    column_combine(dy, x, p, mean, inverse, scale, by[0], by[1], dx)


@ordered
def row_moments(x, i, centre):
    """Return p, mean, var as `moments`; if not centre, 0, 0 and the mean square."""
    if centre:
        return moments(x, i)
    square = shifted_sums(x, i, 0.0)[1]
    return 0.0, 0.0, square / x.shape[3]


@ordered
def write_rows(x, gamma, beta, eps, y, stats, centre):
    """Write y and stats (4, R) of the R rows of x (1, R, 1, D); gamma, beta : (D,)."""
    for i in range(x.shape[1]):
        p, mean, var = row_moments(x, i, centre)
        inverse = 1 / np.sqrt(var + eps)
        stats[0, i], stats[1, i], stats[2, i], stats[3, i] = p, mean, var, inverse
        row, out = x[0, i, 0], y[0, i, 0]
        for k in range(len(row)):
            out[k] = ((row[k] - p) - mean) * inverse * gamma[k] + beta[k]


@freely
def row_sums(dy, x, gamma, p, mean, inverse, dgamma, dbeta):
    """Return the sums of dy gamma and dy gamma xhat of a row; add to dgamma, dbeta."""
    total = product = 0.0
    for k in range(len(x)):
        xhat = minus(minus(x[k], p), mean) * inverse
        total += dy[k] * gamma[k]
        product += dy[k] * gamma[k] * xhat
        dgamma[k] += dy[k] * xhat
        dbeta[k] += dy[k]
    return total, product


@ordered
def write_row_gradients(dy, x, gamma, stats, dx, dgamma, dbeta, centre):
    """Write dx, and add to dgamma and dbeta (D,), float64; shapes of `write_rows`."""
    for i in range(x.shape[1]):
        up, row, out = dy[0, i, 0], x[0, i, 0], dx[0, i, 0]
        p, mean, inverse = stats[0, i], stats[1, i], stats[3, i]
        total, product = row_sums(up, row, gamma, p, mean, inverse, dgamma, dbeta)
        by_x, shift = -inverse * inverse * product / len(row), 0.0
        if centre:
            shift = -inverse * total / len(row)
        for k in range(len(row)):
            far = (row[k] - p) - mean
            out[k] = inverse * gamma[k] * up[k] + (by_x * far + shift)


def all_maps(x, gamma, beta, eps, y, stats):
    """Write y and stats of all parts of x: `write_maps` in one thread."""
    write_maps(x, gamma, beta, eps, y, stats, 0, x.shape[1])


def all_map_gradients(dy, x, gamma, stats, dx, dgamma, dbeta):
    """Write dx and add to dgamma and dbeta: `write_map_gradients` in one thread."""
    write_map_gradients(dy, x, gamma, stats, dx, dgamma, dbeta, 0, x.shape[1])


all_group_gradients = all_map_gradients  # the same; a cache says for which norm it is


def layer_rows(x, gamma, beta, eps, y, stats):
    """Write y and stats of a layer norm."""
    write_rows(x, gamma, beta, eps, y, stats, True)


def layer_row_gradients(dy, x, gamma, stats, dx, dgamma, dbeta):
    """Write dx and add to dgamma and dbeta: the backward of `layer_rows`."""
    write_row_gradients(dy, x, gamma, stats, dx, dgamma, dbeta, True)


def rms_rows(x, gamma, beta, eps, y, stats):
    """Write y and stats of an RMS norm."""
    write_rows(x, gamma, beta, eps, y, stats, False)


def rms_row_gradients(dy, x, gamma, stats, dx, dgamma, dbeta):
    """Write dx and add to dgamma and dbeta: the backward of `rms_rows`."""
    write_row_gradients(dy, x, gamma, stats, dx, dgamma, dbeta, False)
