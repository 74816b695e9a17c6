"""From chapters/01_covariate_shift.ipynb.

Extracted by `make export`: edit the notebook, not this file.
"""

from contextlib import contextmanager

import numpy as np

from bnlib._declare import check_floats, check_layout

__all__ = ["ActivationRecorder", "drift"]


def channel_percentiles(out, levels):
    """Return percentiles over all axes but 1: (N, C, ...) -> array (levels, C)."""
    if not hasattr(out, "detach"):
        got = type(out).__name__
        raise TypeError(
            f"the module's output must be one tensor, got {got}; probe a part"
        )
    out = out.detach().cpu().double().numpy()
    check_layout("the module's output", out, "N C ...")
    return np.percentile(out, levels, axis=(0, *range(2, out.ndim)))


class ActivationRecorder:
    """Record percentiles of a layer's outputs, unit by unit, at chosen training steps.

        recorder = ActivationRecorder(model[2])
        with recorder.at(step), torch.no_grad():
            model(fixed_batch)

    `steps` lists the steps recorded; `percentiles` is an array (steps, percentiles, C)
    in the units of the activations. Training is not touched: the hook exists only
    inside `at`, and outputs are copied, detached.

    Source: Ioffe & Szegedy 2015, figure 1 (b, c).

    Parameters
    ----------
    module : module
        Its output has shape (N, C) or (N, C, ...).
    percentiles : sequence of float
        Taken over all axes but 1.

    Raises
    ------
    TypeError
        For another module.
    ValueError
        For an output that is not finite.
    RuntimeError
        If the module did not run exactly once.
    """

    def __init__(self, module, percentiles=(15, 50, 85)):
        if not hasattr(module, "register_forward_hook"):
            got = type(module).__name__
            raise TypeError(
                f"module must be a torch.nn.Module, got {got}; pass a layer"
            )
        self.module = module
        self.levels = tuple(np.atleast_1d(percentiles))
        self.steps = []
        self._rows = []

    @contextmanager
    def at(self, step):
        """Record the one forward pass of the module inside the `with` block."""
        seen = []
        with self.module.register_forward_hook(lambda _m, _in, out: seen.append(out)):
            yield self
        if len(seen) != 1:
            cure = "run the whole model once on one batch inside the block"
            raise RuntimeError(f"the module ran {len(seen)} times, not once; {cure}")
        self._rows.append(channel_percentiles(seen[0], self.levels))
        self.steps.append(step)

    @property
    def percentiles(self):
        """Array (steps, percentiles, C); empty before the first recording."""
        return np.array(self._rows)


def drift(percentiles):
    """Return how far each unit's median wandered, in widths of its distribution.

    drift = (max_s q50 - min_s q50) / mean_s (q85 - q15), s the recorded steps

    Source: chapter 1.

    Parameters
    ----------
    percentiles : array (steps, 3, C)
        Low, middle, high, as `ActivationRecorder` gives.

    Returns
    -------
    drift : array (C,)
        No unit.

    Raises
    ------
    ValueError
        For another shape, or a unit that is constant over the batch at every step.
    """
    check_floats("percentiles", percentiles)
    if percentiles.ndim != 3 or percentiles.shape[1] != 3:
        shape = percentiles.shape
        raise ValueError(f"percentiles must have shape (steps, 3, C), got {shape}")
    low, middle, high = np.asarray(percentiles).swapaxes(0, 1)
    width = (high - low).mean(axis=0)
    if not (width > 0).all():
        dead = int((width <= 0).sum())
        raise ValueError(f"{dead} units are constant over the batch; leave them out")
    return (middle.max(axis=0) - middle.min(axis=0)) / width
