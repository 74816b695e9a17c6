"""bnlib: normalization for neural networks, extracted from the book that derives it.

Every function comes from a chapter of *Batch Normalization from the ground up*, in the
order of its table of contents. Importing this package needs numpy alone; the checker of
the exercises, and what needs PyTorch, are loaded on first use.
"""

from importlib import import_module
from importlib.metadata import version

from bnlib import fast
from bnlib._axis_norms import (
    adaptive_instance_norm,
    adaptive_instance_norm_backward,
    group_norm,
    group_norm_backward,
    instance_norm,
    instance_norm_backward,
    layer_norm,
    layer_norm_backward,
    rms_norm,
    rms_norm_backward,
)
from bnlib._batch_norm import (
    affine,
    batch_norm,
    batch_norm_backward,
    batch_norm_inference,
    fold_linear,
    moments,
    normalize,
    normalize_backward,
    update_running,
)
from bnlib._covariate_shift import ActivationRecorder, drift
from bnlib._declare import guarded
from bnlib._dynamic_tanh import dynamic_tanh, dynamic_tanh_backward
from bnlib._gradcheck import gradcheck, numerical_gradient, relative_error
from bnlib._local_response import local_response_norm, local_response_norm_backward
from bnlib._merge import merge_moments
from bnlib._renorm import (
    batch_renorm,
    batch_renorm_backward,
    dmax_schedule,
    ramp,
    rmax_schedule,
)
from bnlib._weight_norm import weight_norm, weight_norm_backward
from bnlib._weight_standardize import weight_standardize, weight_standardize_backward
from bnlib._whitening import (
    covariance,
    newton_schulz,
    zca_whiten,
    zca_whiten_backward,
)

__version__ = version("bnlib")
__all__ = [  # in the order of the chapters
    "gradcheck",
    "numerical_gradient",
    "relative_error",
    "ActivationRecorder",
    "drift",
    "covariance",
    "zca_whiten",
    "zca_whiten_backward",
    "newton_schulz",
    "moments",
    "normalize",
    "affine",
    "batch_norm",
    "batch_norm_backward",
    "update_running",
    "batch_norm_inference",
    "fold_linear",
    "fold",
    "local_response_norm",
    "local_response_norm_backward",
    "batch_renorm",
    "batch_renorm_backward",
    "ramp",
    "rmax_schedule",
    "dmax_schedule",
    "normalize_backward",
    "layer_norm",
    "layer_norm_backward",
    "rms_norm",
    "rms_norm_backward",
    "group_norm",
    "group_norm_backward",
    "instance_norm",
    "instance_norm_backward",
    "adaptive_instance_norm",
    "adaptive_instance_norm_backward",
    "dynamic_tanh",
    "dynamic_tanh_backward",
    "weight_norm",
    "weight_norm_backward",
    "weight_standardize",
    "weight_standardize_backward",
    "recalibrate",
    "fold_model",
    "diagnose",
    "merge_moments",
    "fast",
    "check",
    "CheckResult",
    "progress",
]
for _name in __all__:  # formulas are bare; what users call looks at what comes in
    if hasattr(globals().get(_name), "declared"):
        globals()[_name] = guarded(globals()[_name])
        globals()[_name].__module__ = __name__
_LAZY = {  # name: its module, loaded on first use
    "check": "bnlib.exercises._check",
    "CheckResult": "bnlib.exercises._check",
    "progress": "bnlib.exercises._check",
    "nn": "bnlib.nn",
    "fold": "bnlib.nn",
    "recalibrate": "bnlib.nn",
    "fold_model": "bnlib.nn",
    "diagnose": "bnlib.nn",
}


def __getattr__(name):
    if name not in _LAZY:
        raise AttributeError(f"module 'bnlib' has no attribute {name!r}")
    module = import_module(_LAZY[name])
    return module if name == "nn" else getattr(module, name)


def __dir__():
    return sorted({*globals(), *_LAZY})
