# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# (chapter-your-subject)=
# # Your subject
#
# *The claim of the chapter in one sentence.*
#
# The surprise, as a number: what a reader would not have guessed, in one paragraph.
#
# You will be able to
#
# - do one thing;
# - do a second thing;
# - recognise a third.

# %% tags=["remove-cell", "setup"]
# Where bnlib is missing, as on Colab: install it, and what the chapters need.
from importlib.util import find_spec
from pathlib import Path

if not find_spec("bnlib"):
    assert Path("../bnlib").is_dir(), "run this in chapters/ of a clone of the book"
    get_ipython().run_line_magic("pip", "install -q ..[chapters]")

# %%
import numpy as np
import torch
from matplotlib import pyplot as plt

from bnlib import figures
from bnlib._declare import guarded, takes

figures.style()

# %% [markdown]
# ## A number that surprises
#
# Start with something concrete that the reader would not have guessed.

# %%
x = np.random.default_rng(0).normal(3.0, 2.0, size=(32, 4))
spread = x.std(axis=0)
print(spread.round(1))

# %%
assert abs(spread - 2).max() < 0.6

# %% [markdown]
# ## The equation, and the code that is it
#
# ```{math}
# :label: eq-your-subject
# y = x - \langle x \rangle
# ```
#
# Tag the next cell `export:_your_subject` when it is to become `bnlib/_your_subject.py`.
# The line above the formula says what may come in: {doc}`A0_declaration`.


# %%
@takes(x="N C")
def centred(x):
    """Return x with mean zero in every column.

    y = x - mean(x)

    Source: where it was first written down.
    """
    return x - x.mean(axis=0, keepdims=True)


# %%
centred = guarded(centred)
y = centred(x)
print(y.shape, y.mean(axis=0).round(12) + 0.0)

# %%
assert abs(y.mean(axis=0)).max() < 1e-12

# %% [markdown]
# ## Something to move

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Say what the figure shows, in a sentence that is a finding.", "name": "fig-your-subject"}}


def draw(shift):
    fig, ax = plt.subplots(figsize=(5, 2.4))
    ax.hist(x[:, 0] + shift, bins=12)
    ax.set(xlabel="value", ylabel="count", xlim=(-6, 14))
    return fig


figures.movable(
    draw,
    [-2, 0, 2, 4],
    label="shift",
    describe=lambda shift: f"A histogram of 32 values, shifted by {shift}.",
)

# %% [markdown]
# ## Side by side with PyTorch

# %%
ours, theirs = centred(torch.from_numpy(x)), torch.from_numpy(x)
difference = ours - (theirs - theirs.mean(0))
assert difference.abs().max() < 1e-15

# %% [markdown]
# ## Break it
#
# Say what goes wrong in the next cell, and why.

# %% tags=["raises-exception"]
centred([1.0, 2.0])

# %% [markdown]
# ## Exercises
#
# ```{exercise-start} Predict
# :label: your-subject-predict
# ```
# What is the mean of the rows of `centred(x)`?
# ```{exercise-end}
# ```
#
# ```{solution-start} your-subject-predict
# :class: dropdown
# ```
# Not zero: only the columns were centred.
# ```{solution-end}
# ```
#
# ```{exercise-start} Implement
# :label: your-subject-implement
# ```
# Centre the rows in place of the columns.
# ```{exercise-end}
# ```
#
# ```{solution-start} your-subject-implement
# :class: dropdown
# ```
# `x - x.mean(axis=1, keepdims=True)`
# ```{solution-end}
# ```
#
# ```{exercise-start} Break
# :label: your-subject-break
# ```
# Find an input for which the mean of `centred(x)` is not zero.
# ```{exercise-end}
# ```
#
# ```{solution-start} your-subject-break
# :class: dropdown
# ```
# `np.array([[1e17], [1.0], [1.0]])`: rounding leaves a mean of about 2.7.
# ```{solution-end}
# ```

# %% [markdown]
# ## What the paper claims here, and what we measured
#
# % claims
#
# ## References
#
# - {cite}`ioffe2015batch`
