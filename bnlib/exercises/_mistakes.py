"""From chapters/A3_exercises.ipynb.

Extracted by `make export`: edit the notebook, not this file.
"""

import textwrap


def _average(line, values, own):
    """How an average in dx goes wrong; it is the right one of `own`, a term."""
    total = f"{line} = {values}.sum(axis=axes, keepdims=True)"
    minus = f"{line} = -{values}.mean(axis=axes, keepdims=True)"
    flat = f"{line} = {values}.mean(axis=axes)"
    return {
        "wrong-count: all values": f"{total} / x.size",
        f"wrong-count: all values, {own}": f"{total} / x.size",
        f"wrong-axis: {own}": f"{line} = {values}.mean()",
        "wrong-broadcast": flat,
        "wrong-axis: without keepdims": flat,
        "detached-statistics": f"{line} = 0",
        "sum-instead-of-mean: both terms": total,
        f"sum-instead-of-mean: {own}": total,
        f"sign-error: {own}": minus,
        "sign-error: both terms": minus,
        "wrong-count: n - 1": f"{total} / (x.size // mean.size - 1)",
        "wrong-count: axis 0": f"{total} / x.shape[0]",
        "wrong-count: axis 1": f"{total} / x.shape[1]",
    }


def _root(std, var):
    """How the step std = np.sqrt(var + eps) goes wrong, whatever the two are called."""
    return {
        "wrong-eps: any": f"{std} = np.sqrt({var} + C)",
        "wrong-eps: beside": f"{std} = np.sqrt({var} + eps + C)",
        "wrong-eps: any, outside": f"{std} = np.sqrt({var}) + C",
        "wrong-eps: beside, outside": f"{std} = np.sqrt({var} + eps) + C",
        "missing-eps": f"{std} = np.sqrt({var})",
        "eps-outside-root": f"{std} = np.sqrt({var}) + eps",
        "eps-outside-root: two roots": f"{std} = np.sqrt({var}) + np.sqrt(eps)",
        "eps-outside-root: twice": f"{std} = np.sqrt({var} + eps) + eps",
        "variance-instead-of-std": f"{std} = {var} + eps",
        "variance-instead-of-std: without eps": f"{std} = {var}",
        "wrong-eps: own": f"{std} = np.sqrt({var} + 1e-5)",
        "wrong-eps: tiny": f"{std} = np.sqrt({var} + 1e-8)",
        "wrong-eps: outside": f"{std} = np.sqrt({var}) + 1e-8",
        "wrong-eps: floor": f"{std} = np.sqrt(np.maximum({var}, eps))",
        "wrong-eps: floor of the deviation": f"{std} = np.maximum(np.sqrt({var}), eps)",
        "wrong-eps: squared": f"{std} = np.sqrt({var} + eps**2)",
    }


WRONG_LINES = {
    "axes = 0": {
        "wrong-axis": "axes = 1",
        "wrong-axis: without keepdims": "axes = 1",
        "wrong-axis: everything": "axes = None",
    },
    "axes = 1": {
        "batch-norm-instead": "axes = 0",
        "batch-in-statistics": "axes = None",
    },
    "axes = (0, 2, 3)": {
        "per-pixel-statistics": "axes = 0",
        "per-sample-statistics": "axes = (2, 3)",
        "layer-norm-instead": "axes = (1, 2, 3)",
        "wrong-axis: everything": "axes = None",
        "wrong-axis": "axes = 1",
        "wrong-axis: without width": "axes = (0, 2)",
        "wrong-axis: without height": "axes = (0, 3)",
        "wrong-axis: last": "axes = (0, 1, 2)",
    },
    "axes = (2, 3)": {
        "batch-norm-instead": "axes = (0, 2, 3)",
        "layer-norm-instead": "axes = (1, 2, 3)",
        "per-pixel-statistics": "axes = 3",
    },
    "param_axes = 0": {
        "wrong-axis: of the sums": "param_axes = 1",
        "missing-sum": "param_axes = ()",
    },
    "param_axes = (0, 2, 3)": {
        "wrong-axis: of the sums": "param_axes = (1, 2, 3)",
        "missing-sum": "param_axes = 0",
    },
    "gamma = gamma.reshape(1, -1, 1, 1)": {
        "wrong-broadcast: gamma and beta": "gamma = gamma.reshape(1, 1, 1, -1)",
    },
    "beta = beta.reshape(1, -1, 1, 1)": {
        "wrong-broadcast: gamma and beta": "beta = beta.reshape(1, 1, 1, -1)",
    },
    "dxhat = dy * gamma": {
        "missing-gamma": "dxhat = dy",
        "extra-gamma": "dxhat = dy * gamma * gamma",
        "divides-by-gamma": "dxhat = dy / gamma",
    },
    "via_mean = dxhat.mean(axis=axes, keepdims=True)": {
        **_average("via_mean", "dxhat", "mean's term"),
        "missing-gamma: in the averages": (
            "via_mean = dy.mean(axis=axes, keepdims=True)"
        ),
        "wrong-power: mean's term": (
            "via_mean = dxhat.mean(axis=axes, keepdims=True) * std"
        ),
        "wrong-power: mean's term divided": (
            "via_mean = dxhat.mean(axis=axes, keepdims=True) / std"
        ),
        "detached-mean": "via_mean = 0",
    },
    "via_var = (dxhat * xhat).mean(axis=axes, keepdims=True)": {
        **_average("via_var", "(dxhat * xhat)", "variance's term"),
        "missing-mean: variance's term": (
            "via_var = (dxhat * x / std).mean(axis=axes, keepdims=True)"
        ),
        "missing-gamma: in the averages": (
            "via_var = (dy * xhat).mean(axis=axes, keepdims=True)"
        ),
        "detached-variance": "via_var = 0",
        "missing-factor-two": (
            "via_var = (dxhat * xhat).mean(axis=axes, keepdims=True) / 2"
        ),
        "missing-factor-two: too much": (
            "via_var = 2 * (dxhat * xhat).mean(axis=axes, keepdims=True)"
        ),
        "unbiased-variance: throughout": (
            "via_var = (dxhat * xhat).sum(axis=axes, keepdims=True)"
            " / (x.size // mean.size - 1)"
        ),
        "unbiased-variance: in the gradient": (
            "via_var = (dxhat * xhat).sum(axis=axes, keepdims=True)"
            " / (x.size // mean.size - 1)"
        ),
    },
    "dx = (dxhat - via_mean - xhat * via_var) / std": {
        "multiplies-by-std: dx": "dx = (dxhat - via_mean - xhat * via_var) * std",
        "missing-parentheses: of dx": "dx = dxhat / std - via_mean - xhat * via_var",
        "missing-parentheses: of dx, at the end": (
            "dx = dxhat - via_mean - xhat * via_var / std"
        ),
        "missing-eps: in front": (
            "dx = (dxhat - via_mean - xhat * via_var) / np.sqrt(var)"
        ),
        "wrong-power": "dx = (dxhat - via_mean - (x - mean) * via_var) / std",
        "wrong-power: two": (
            "dx = (dxhat - via_mean - (x - mean) * std * via_var) / std"
        ),
        "wrong-power: too many": "dx = (dxhat - via_mean - xhat / std * via_var) / std",
        "wrong-power: far too many": (
            "dx = (dxhat - via_mean - xhat / std**2 * via_var) / std"
        ),
        "missing-mean: in the gradient": (
            "dx = (dxhat - via_mean - x / std * via_var) / std"
        ),
        "missing-xhat": "dx = (dxhat - via_mean - via_var) / std",
        "eps-outside-root: throughout": (
            "dx = (dxhat - via_mean - xhat * std / np.sqrt(var) * via_var) / std"
        ),
        "missing-scale: of dx": "dx = dxhat - via_mean - xhat * via_var",
        "multiplies-by-std": "dx = (dxhat - via_mean - xhat * via_var) * std",
        "variance-instead-of-std: in front": (
            "dx = (dxhat - via_mean - xhat * via_var) / std**2"
        ),
        "sign-error: of dx": "dx = -(dxhat - via_mean - xhat * via_var) / std",
    },
    "dgamma = (dy * xhat).sum(axis=param_axes)": {
        "wrong-dgamma": "dgamma = (dy * x).sum(axis=param_axes)",
        "wrong-dgamma: centred": "dgamma = (dy * (x - mean)).sum(axis=param_axes)",
        "wrong-dgamma: gamma": "dgamma = (dy * xhat * gamma).sum(axis=param_axes)",
        "wrong-dgamma: dbeta": "dgamma = dy.sum(axis=param_axes)",
        "wrong-dgamma: no dy": "dgamma = xhat.sum(axis=param_axes)",
        "sign-error: of dgamma": "dgamma = -(dy * xhat).sum(axis=param_axes)",
        "mean-instead-of-sum": "dgamma = (dy * xhat).mean(axis=param_axes)",
    },
    "dbeta = dy.sum(axis=param_axes)": {
        "wrong-dbeta": "dbeta = (dy * gamma).sum(axis=param_axes)",
        "wrong-dbeta: ones": "dbeta = np.ones_like(dy).sum(axis=param_axes)",
        "sign-error: of dbeta": "dbeta = -dy.sum(axis=param_axes)",
        "mean-instead-of-sum": "dbeta = dy.mean(axis=param_axes)",
    },
    "return dx, dgamma, dbeta": {
        "swapped-gamma-beta": "return dx, dbeta, dgamma",
        "swapped-outputs": "return dgamma, dbeta, dx",
    },
    "mean = x.mean(axis=axes, keepdims=True)": {
        "median-instead-of-mean": "mean = np.median(x, axis=axes, keepdims=True)",
        "wrong-axis: of the mean": "mean = x.mean()",
        "affine-before-normalization": (
            "x = gamma * x + beta; mean = x.mean(axis=axes, keepdims=True)"
        ),
    },
    "var = ((x - mean) ** 2).mean(axis=axes, keepdims=True)": {
        "sign-error: in the variance": (
            "var = (x**2).mean(axis=axes, keepdims=True) + mean**2"
        ),
        "wrong-axis: of the variance": "var = ((x - mean) ** 2).mean()",
        "wrong-axis: variance of everything": "var = x.var()",
        "wrong-broadcast": (
            "var = ((x - mean) ** 2).mean(axis=axes); mean = x.mean(axis=axes)"
        ),
        "wrong-axis: without keepdims": (
            "var = ((x - mean) ** 2).mean(axis=axes); mean = x.mean(axis=axes)"
        ),
        "unbiased-variance": "var = x.var(ddof=1, axis=axes, keepdims=True)",
        "unbiased-variance: throughout": (
            "var = x.var(ddof=1, axis=axes, keepdims=True)"
        ),
        "std-instead-of-variance": "var = x.std(axis=axes, keepdims=True)",
        "sum-instead-of-mean": "var = ((x - mean) ** 2).sum(axis=axes, keepdims=True)",
        "missing-mean: in the variance": "var = (x**2).mean(axis=axes, keepdims=True)",
        "missing-mean: throughout": "var = (x**2).mean(axis=axes, keepdims=True)",
        "wrong-power: absolute": "var = abs(x - mean).mean(axis=axes, keepdims=True)",
        "wrong-count": (
            "var = ((x - mean) ** 2).sum(axis=axes, keepdims=True) / x.shape[1 - axes]"
        ),
        "cancellation": "var = (x**2).mean(axis=axes, keepdims=True) - mean**2",
        "mean-of-variances": (
            "var = x.var(axis=(2, 3), keepdims=True).mean(axis=0, keepdims=True)"
        ),
    },
    "std = np.sqrt(var + eps)": {
        "range-instead-of-std": "std = np.ptp(x, axis=axes, keepdims=True) + eps",
        "wrong-eps: replaced": "std = np.where(np.sqrt(var) < eps, 1, np.sqrt(var))",
        **_root("std", "var"),
        "wrong-power: variance squared": "std = np.sqrt(var**2 + eps)",
        "eps-outside-root: throughout": "std = np.sqrt(var) + eps",
    },
    "xhat = (x - mean) / std": {
        "unscaled-mean": "xhat = x / std",
        "multiplies-by-std: xhat": "xhat = (x - mean) * std",
        "beta-scaled: before dividing": "xhat = (x - mean + beta) / std",
        "missing-mean": "xhat = x / std",
        "missing-mean: throughout": "xhat = x / std",
        "missing-scale": "xhat = x - mean",
        "multiplies-by-std": "xhat = (x - mean) * std",
        "sign-error": "xhat = (mean - x) / std",
        "sign-error: plus mean": "xhat = (x + mean) / std",
        "missing-parentheses": "xhat = x - mean / std",
    },
    "y = gamma * xhat + beta": {
        "unscaled-mean": "y = gamma * xhat - mean + beta",
        "beta-scaled: divided": "y = gamma * xhat + beta / std",
        "beta-scaled: before dividing": "y = gamma * xhat",
        "missing-normalization": "y = gamma * x + beta",
        "missing-gamma": "y = xhat + beta",
        "missing-beta": "y = gamma * xhat",
        "missing-affine": "y = xhat",
        "swapped-gamma-beta": "y = beta * xhat + gamma",
        "beta-scaled": "y = gamma * (xhat + beta)",
        "divides-by-gamma": "y = xhat / gamma + beta",
        "gamma-added": "y = xhat + gamma + beta",
        "sign-error: beta": "y = gamma * xhat - beta",
        "affine-before-normalization": "y = xhat",
    },
    "square = (x**2).mean(axis=axes, keepdims=True)": {
        "layer-norm-instead: in the square": "square = x.var(axis=axes, keepdims=True)",
        "sum-instead-of-mean": "square = (x**2).sum(axis=axes, keepdims=True)",
        "missing-square": "square = x.mean(axis=axes, keepdims=True) ** 2",
        "wrong-power: absolute": "square = abs(x).mean(axis=axes, keepdims=True) ** 2",
        "wrong-broadcast": "square = (x**2).mean(axis=axes)",
    },
    "rms = np.sqrt(square + eps)": {
        **_root("rms", "square"),
        "wrong-power: square squared": "rms = np.sqrt(square**2 + eps)",
    },
    "share = counts[:, None] / counts.sum()": {
        "unweighted": "share = np.ones((len(counts), 1)) / len(counts)",
        "sum-instead-of-mean": "share = counts[:, None]",
    },
    "mean = (share * means).sum(axis=0)": {
        "unweighted: mean": "mean = (1 / len(means) * means).sum(axis=0)",
    },
    "between = (means - mean) ** 2": {
        "missing-between-variance": "between = 0",
        "sign-error": "between = -((means - mean) ** 2)",
        "missing-square": "between = abs(means - mean)",
        "missing-mean": "between = means**2",
        "wrong-center: first worker": "between = (means - means[0]) ** 2",
        "wrong-center: plain mean": "between = (means - means.mean(axis=0)) ** 2",
        "mean-of-variances": "between = 0",
        "cancellation": "between = means**2",
    },
    "var = (share * (variances + between)).sum(axis=0)": {
        "unweighted: variance": "var = (variances + between).mean(axis=0)",
        "std-instead-of-variance": (
            "var = (share * (np.sqrt(variances) + between)).sum(axis=0)"
        ),
        "mean-of-variances": "var = variances.mean(axis=0)",
        "unweighted: between": (
            "var = (share * variances).sum(axis=0) + means.var(axis=0)"
        ),
        "unweighted: around the merged mean": (
            "var = (share * variances).sum(axis=0) + between.mean(axis=0)"
        ),
        "cancellation": ("var = (share * (variances + between)).sum(axis=0) - mean**2"),
    },
    "r = std / running_std": {
        "adds-eps: running": "r = std / (running_std + eps)",
        "r-inverted": "r = running_std / std",
        "batch-norm-instead": "r = 1",
        "missing-r": "r = 1",
        "variance-instead-of-std: r": "r = (std / running_std) ** 2",
        "std-instead-of-variance: running": "r = std / np.sqrt(running_std)",
        "std-instead-of-variance: r": "r = std / np.sqrt(running_std)",
        "std-instead-of-variance: running, with eps": (
            "r = std / np.sqrt(running_std + eps)"
        ),
    },
    "r = np.clip(r, 1 / rmax, rmax)": {
        "missing-clip": "r = r",
        "missing-clip: r": "r = r",
        "missing-clip: below": "r = np.minimum(r, rmax)",
        "missing-clip: above": "r = np.maximum(r, 1 / rmax)",
        "wrong-clip": "r = np.clip(r, 1, rmax)",
    },
    "d = (mean - running_mean) / running_std": {
        "adds-eps: running": "d = (mean - running_mean) / (running_std + eps)",
        "d-divided-by-batch-std": "d = (mean - running_mean) / std",
        "batch-norm-instead": "d = 0",
        "missing-d": "d = 0",
        "missing-scale: of d": "d = mean - running_mean",
        "sign-error: of d": "d = (running_mean - mean) / running_std",
        "std-instead-of-variance: running": (
            "d = (mean - running_mean) / np.sqrt(running_std)"
        ),
        "std-instead-of-variance: d": (
            "d = (mean - running_mean) / np.sqrt(running_std)"
        ),
        "std-instead-of-variance: running, with eps": (
            "d = (mean - running_mean) / np.sqrt(running_std + eps)"
        ),
    },
    "d = np.clip(d, -dmax, dmax)": {
        "missing-clip": "d = d",
        "missing-clip: d": "d = d",
        "missing-clip: d below": "d = np.minimum(d, dmax)",
        "wrong-clip: d from 0": "d = np.clip(d, 0, dmax)",
    },
}


def code_of(name):
    """The code of a mistake: what stands before the colon."""
    return name.partition(":")[0]


def entries(text):
    """{name: (what happened, hint)} from three lines per mistake."""
    blocks = textwrap.dedent(text).strip().split("\n\n") if text else ()
    return {name: (says, hint) for name, says, hint in map(str.splitlines, blocks)}


WORDS = entries("""
unbiased-variance
You divide the sum of squares by n − 1; the definition here divides by n.
Look up ddof in np.var, and which of the two values this formula means.

std-instead-of-variance
A standard deviation stands where a variance belongs.
A variance has the units of x squared. Count your square roots.

std-instead-of-variance: running
You take a root of running_std: it is a standard deviation already.
Unclipped, y is (x − running_mean) / running_std. Insert your r and d.

std-instead-of-variance: r
You take a root of running_std: it is a standard deviation already.
Unclipped, y is (x − running_mean) / running_std. Insert your r and d.

std-instead-of-variance: d
You take a root of running_std: it is a standard deviation already.
Unclipped, y is (x − running_mean) / running_std. Insert your r and d.

std-instead-of-variance: running, with eps
You take a root of running_std: it is a standard deviation already.
Unclipped, y is (x − running_mean) / running_std. Insert your r and d.

sum-instead-of-mean
You add up where the formula averages: a division by n is missing.
Repeat every row of the input: an average must not change, a sum doubles.

missing-mean
The mean is not subtracted.
Add 100 to all of x. Should the result move?

missing-mean: in the variance
Your variance is the mean of x², so the mean itself counts as spread.
Add 100 to all of x. Should the variance change?

cancellation
Right on paper, but it subtracts two huge, nearly equal numbers.
Far from zero, mean(x²) − mean(x)² has no digit left. Square something small.

wrong-power
The variance's term of dx has the wrong power of the standard deviation.
Multiply x by 10 and keep dy: all terms of dx must shrink by the same factor.

wrong-power: variance squared
You square the variance under the root; it is made of squares already.
Multiply x by 10. What you divide by must grow tenfold, not a hundredfold.

wrong-power: square squared
You square the mean square under the root.
Multiply x by 10. What you divide by must grow tenfold, not a hundredfold.

wrong-power: mean's term
The mean's term of dx has a standard deviation too many.
The sum in front of the division: are all its terms of the same kind?

wrong-power: mean's term divided
The mean's term of dx is divided by the standard deviation twice.
The sum in front of the division: are all its terms of the same kind?

wrong-power: absolute
You average absolute values where the formula averages squares.
Try the column 0, 0, 0, 4: the two averages differ.

missing-square
A square is missing: you square after averaging, or not at all.
Try values of both signs. Can they cancel in your formula?

missing-eps: in front
The division in front of dx has no eps under its root.
Which root did the forward pass divide by?

missing-eps
eps is not used, or far too small to be yours.
Look at a column that does not vary: what do you divide by there?

eps-outside-root
You add eps to the standard deviation; it belongs to the variance.
With a variance of 1 and eps = 3, the formula divides by 2. And you?

eps-outside-root: two roots
You add the root of eps to the root of the variance; add first, one root then.
With a variance of 1 and eps = 3, the formula divides by 2. And you?

eps-outside-root: twice
You add eps twice: under the root, and again outside.
With a variance of 1 and eps = 3, the formula divides by 2. And you?

wrong-eps
You use a number of your own instead of the argument eps.
Call your function with eps = 3: something must change.

hidden-constant
Right on every ordinary input; a number of your own counts where x varies little.
Is there a constant in your code that is no argument? Or a limit, or a rounding?

wrong-eps: beside
You add a number of your own beside eps.
Look at a column that hardly varies: what do you divide by there?

slip
One place of one step is written otherwise.
Compare that step of yours with the formula, by hand, on the input above.

missing-part
A part of the formula is missing.
Read the formula again, factor by factor and term by term.

wrong-operation
An operation is another one than in the formula.
Work out your line by hand on the input above, and compare.

upside-down
A quotient is upside down.
Make what you divide by twice as large. Should the result grow or shrink?

wrong-factor
A factor of two too many, or too few.
Where does a 2 come from in the formula, and where does it go?

extra-term
A term too many.
Which terms does the formula have, and which are yours alone?

wrong-variable
A variable stands where another one belongs.
Read your lines aloud, each variable by its meaning.

wrong-eps: floor
You use eps as a lower limit of the variance; the formula adds it.
With a variance of 1 and eps = 3, what is var + eps, and what is your value?

wrong-eps: floor of the deviation
You use eps as a lower limit of the deviation; the formula adds it under the root.
With a variance of 1 and eps = 3, the formula divides by 2. And you?

wrong-eps: squared
You add eps squared; the formula adds eps.
With a variance of 1 and eps = 3, the formula divides by 2. And you?

variance-instead-of-std
You divide by the variance; the formula divides by its root.
Multiply x by 10. What you divide by must grow tenfold, not a hundredfold.

variance-instead-of-std: without eps
You divide by the variance: there is no root, and no eps.
Multiply x by 10. What you divide by must grow tenfold, not a hundredfold.

median-instead-of-mean
You take the median; the mean is asked for.
Try the column 0, 0, 9.

range-instead-of-std
You divide by the range, from the least to the greatest; a deviation is asked for.
What becomes of your result if one far value more comes in?

wrong-eps: replaced
You use eps as a threshold for small deviations; the formula adds it, always.
With a variance of 1 and eps = 3, the formula divides by 2. And you?

unscaled-mean
You scale x by gamma / std, and leave the mean as it is.
Multiply out gamma * (x − mean) / std: what stands before the mean?

beta-scaled: divided
You divide beta by the standard deviation too.
With x constant, y should be beta itself.

sign-error: in the variance
You add the square of the mean to the mean of the squares.
Add 100 to all of x. Should the variance change?

missing-mean: variance's term
In the variance's term of dx the mean is not subtracted from x.
Add 100 to all of x. Should dx move?

adds-eps: running
You add eps to running_std; it is a deviation, and has its eps already.
Unclipped, y is (x − running_mean) / running_std. Insert your r and d.

missing-scale
You never divide by the standard deviation.
Multiply x by 10. What should become of xhat?

missing-scale: of dx
The last division of dx is missing.
Multiply x by 10 and keep dy. By how much should dx shrink?

multiplies-by-std
You multiply by the standard deviation where the formula divides.
Multiply x by 10. What should become of xhat?

sign-error
A sign is the wrong way round.
Compare the signs above, then look at each minus of your formula.

sign-error: plus mean
You add the mean where it should be subtracted.
What should be the mean of xhat?

missing-parentheses: of dx
Only the first term of dx is divided by the standard deviation.
Division binds more strongly than subtraction.

missing-parentheses: of dx, at the end
Only the last term of dx is divided by the standard deviation.
Division binds more strongly than subtraction.

missing-parentheses: of the count
You divide by N and multiply by the rest: 1/N*H*W is not 1/(N*H*W).
Which is the number of values that share one mean? Put it into parentheses.

missing-parentheses
Only the mean is divided by the standard deviation: x - mean / std.
Division binds more strongly than subtraction.

missing-gamma: in the averages
The two averages inside dx lack gamma.
All terms of dx start from the gradient at xhat. What is that?

missing-gamma
gamma is not used.
Double gamma: should the result stay as it is?

missing-beta
beta is not added.
Raise beta by 1: should the result stay as it is?

missing-normalization
You scale and shift x itself: nothing is normalized.
Multiply x by 10. Should y change?

missing-affine
You return xhat: gamma and beta are not used.
One line of the algorithm is left after normalizing.

swapped-gamma-beta
gamma and beta have changed places.
Which one is multiplied, which is added? In which order are they returned?

beta-scaled: before dividing
You add beta before dividing by the standard deviation.
With x constant, y should be beta itself.

beta-scaled
You multiply beta too.
With x constant, y should be beta itself.

affine-before-normalization
You scale and shift before normalizing, which takes both out again.
Which line of the algorithm comes last?

gamma-added
You add gamma; it is a factor.
Set gamma to 0: what should y be?

gamma-plus-one
You scale by 1 + gamma, as some models do; here gamma is the whole factor.
Set gamma to 0: what should y be?

divides-by-gamma
You divide by gamma; it is a factor.
Double gamma: should the result double or halve?

extra-gamma
gamma enters twice.
Double gamma: dx should double, not quadruple.

sign-error: beta
You subtract beta.
With x constant, y should be beta itself.

wrong-broadcast
A vector of statistics meets x along the wrong axis.
Print the shapes: numpy lines up the last axes. What does keepdims=True do?

wrong-broadcast: gamma and beta
gamma and beta meet x along the last axis, not along the channels.
gamma has one entry per channel. Which shape lines it up with axis 1 of x?

wrong-axis
You average along the wrong axis.
Print the shape of your mean: how many means does this exercise need?

wrong-axis: everything
You take one mean of the whole array.
Print the shape of your mean: how many means does this exercise need?

wrong-axis: of the variance
Your mean is right; your variance is one number for the whole array.
Print the shape of your variance.

wrong-axis: variance of everything
Your mean is right; your variance is that of the whole array.
Print the shape of your variance.

wrong-axis: of the mean
You subtract the mean of the whole array.
Print the shape of your mean: how many means does this exercise need?

wrong-axis: mean's term
The mean's term of dx is one number for the whole array.
Which values shared a mean in the forward pass? Along them dx averages.

wrong-axis: variance's term
The variance's term of dx is one number for the whole array.
Which values shared a variance in the forward pass? Along them dx averages.

wrong-axis: of the sums
Your sums for dgamma and dbeta run along the wrong axis.
dgamma has the shape of gamma. Over which axes was gamma copied?

per-pixel-statistics
Every pixel has a mean of its own; all positions should share one.
One kernel slides over all positions. How many means does a channel need?

per-sample-statistics
Every image is normalized by itself; the batch should share a mean.
Print the shape of your mean. Is there one per image?

batch-norm-instead
This is batch normalization; something else is asked for.
Change one example only: the results of the others should not move.

batch-in-statistics
Examples share a mean; here each should be normalized by itself.
Change one example only: the results of the others should not move.

layer-norm-instead
This is layer normalization; something else is asked for.
Add 100 to all of x, then look which values share a mean in this exercise.

layer-norm-instead: in the square
Your mean square is a variance: the mean was subtracted in it.
Add 100 to all of x. Should what you divide by grow?

rms-norm-instead
This is RMS normalization: the mean is not subtracted.
Add 100 to all of x. Should the result move?

mean-of-variances
You average variances; the spread between the means is lost.
Two groups, all zeros and all tens: each has variance 0. And together?

detached-statistics
You treat mean and variance as constants: only the straight path is left.
x reaches y on three paths. Which two go through the other examples?

detached-mean
The path through the mean is missing from dx.
Add a constant to x: y does not change. What must dx sum to?

detached-variance
The path through the variance is missing from dx.
Stretch x around its mean: xhat stays. What must sum(dx · xhat) be?

missing-factor-two
The variance's term of dx is off by a factor of two.
Derive a square root and a square once more: one brings 1/2, the other 2.

missing-xhat
The variance's term of dx lacks its factor xhat.
The derivative of (x − mean)² still depends on x.

wrong-count
An average divides by the wrong number.
How many values share one mean? By that many it divides.

wrong-count: all values
You divide the sums inside dx by the number of all values of x.
How many values share one mean? By that many it divides.

wrong-count: n - 1
Your averages in dx divide by n − 1.
Which mean did the forward pass take? Its gradient has the same 1/n.

sum-instead-of-mean: both terms
Both averages inside dx are sums: a division by n is missing.
Where does 1/n come from in the forward pass? Its gradient keeps it.

sum-instead-of-mean: mean's term
The mean's term of dx is a sum: a division by n is missing.
Add a constant to x: y does not change. What must dx sum to?

sum-instead-of-mean: variance's term
The variance's term of dx is a sum: a division by n is missing.
Where does 1/n come from in the variance? Its gradient keeps it.

mean-instead-of-sum
You average dgamma or dbeta over the batch; both are sums.
The loss already contains its 1/n. Each use of gamma adds its share.

missing-sum
dgamma and dbeta are not summed yet: one row per example is left.
dgamma has the shape of gamma.

wrong-dgamma
dgamma is not the sum of dy · xhat.
y = gamma · xhat + beta. What is multiplied by gamma?

wrong-dgamma: centred
dgamma uses x − mean; a division by the standard deviation is missing.
y = gamma · xhat + beta. What exactly is multiplied by gamma?

wrong-dgamma: gamma
dgamma contains gamma itself.
y is linear in gamma. Can its derivative depend on gamma?

wrong-dgamma: dbeta
dgamma is the sum of dy alone: that is dbeta.
y = gamma · xhat + beta. What is multiplied by gamma?

wrong-dbeta
dbeta is not the sum of dy.
y = gamma · xhat + beta. What is multiplied by beta?

swapped-outputs
The outputs are right, in the wrong order.
Compare your return line with the signature.

biased-running-variance
You store the biased variance; the stored one divides by n − 1.
Which of the two variances is the better guess about data not seen yet?

swapped-mean-variance
Mean and variance have changed places.
Which one is subtracted, and which one stands under the root?

missing-clip
r or d is not clipped on all its sides.
Try a batch far away from the running statistics: how large are r and d?

wrong-clip
r or d is clipped to the wrong interval.
rmax = 2 lets r double. By which factor may it shrink?

r-inverted
r is upside down.
Unclipped, y is (x − running_mean) / running_std. Which r does that?

d-divided-by-batch-std
d is divided by the batch's deviation instead of the running one.
Unclipped, y is (x − running_mean) / running_std. Insert your r and d.

missing-r
r is missing.
Set rmax = 1: only then may r disappear.

returns-none
Your function returns None.
Does its last line begin with return?

mutates-input
Your function changes the arrays it is given.
x -= 1 and x[:] = … write into the caller's array; x = x - 1 makes a new one.

wrong-shape
The numbers may be right, the shape is not.
Compare it with the task, and print the shapes of your intermediate results.

wrong-dtype
The result is not made of ordinary floating-point numbers.
Where does another type come in: integers, a complex root, half precision?

wrong-outputs
The number of things you return is not the one asked for.
Compare your return line with the signature.

wrong-signature
Your function cannot be called with the exercise's arguments.
Compare your def line with the signature.

raises
Your function stops with an error.
Call it with the input above and read the line that is named.

not-started
Nothing is written yet.
Replace the line with NotImplementedError.

not-finite
The result is nan or infinite on every input.
Which line is the first to divide by 0, or to take the root of a negative?

too-slow
Your function did not come to an end; it was cut off.
Look at the condition of each loop. The largest input has 480 values.

not-deterministic
Called twice with the same input, your function gives two answers.
Where does chance come in, or something remembered from the last call?

unknown
The result is wrong, in a way that is not in the catalogue.
Compare the smallest failing input, by hand, line by line.
""")
