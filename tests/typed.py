"""What a type checker says of uses of `bnlib`, read by `make check` and never run.

A line with `type: ignore` has to be an error, or mypy complains of the comment.
"""

from typing import assert_type

import numpy as np
import torch

import bnlib
import bnlib.data
import bnlib.figures
from bnlib.nn import functional

x, gamma = np.ones((60, 100)), np.ones(100)
image = torch.ones(8, 3, 4, 4)

y, cache = bnlib.batch_norm(x, gamma, eps=1e-3)
assert_type(y, np.ndarray)
assert_type(bnlib.batch_norm_backward(y, cache)[2], np.ndarray)
assert_type(bnlib.layer_norm(image, axes=(1, 2, 3))[0], torch.Tensor)
assert_type(bnlib.fast.group_norm(x, num_groups=4)[0], np.ndarray)
assert_type(bnlib.moments(image, axes=(0, 2, 3)), tuple[torch.Tensor, torch.Tensor])
assert_type(bnlib.fold_linear(x, None, None, None, gamma, gamma)[1], np.ndarray)
assert_type(bnlib.affine(image, None, image), torch.Tensor)
bnlib.batch_norm([[1.0, 2.0]])  # type: ignore[type-var]
bnlib.batch_norm(x, torch.ones(100))  # type: ignore[type-var]
bnlib.batch_norm(x, gamma, gamma, 1e-5)  # type: ignore[call-arg]
bnlib.batch_norm(x, eps="1e-5")  # type: ignore[arg-type]
bnlib.group_norm(image)  # type: ignore[call-arg]
bnlib.batch_nrom(x)  # type: ignore[attr-defined]

errors = bnlib.gradcheck(lambda a: a**2, lambda dy, a: 2 * a * dy, x)
assert_type(errors, tuple[float, ...])
assert_type(bnlib.relative_error(x, x), float)
assert_type(bnlib.drift(x), np.ndarray)
assert_type(bnlib.ramp(3, start=0, end=10, low=1, high=3), float)
assert_type(bnlib.merge_moments(gamma, x, x)[0], np.ndarray)
bnlib.gradcheck(bnlib.moments)  # type: ignore[call-arg]

result = bnlib.check("moments", lambda a: (a.mean(0), a.var(0)))
assert_type(result.passed, bool)
assert_type(bnlib.data.load_digits().x_train, np.ndarray)
bnlib.figures.to_svg(3)  # type: ignore[arg-type]
print(result.pased)  # type: ignore[attr-defined]
bnlib.check(3, abs)  # type: ignore[arg-type]

layer = bnlib.nn.BatchNorm2d(3, momentum=None, bias=False)
assert_type(layer.running_mean, torch.Tensor | None)
plain: torch.nn.BatchNorm2d = layer
norms = torch.nn.Sequential(layer, bnlib.nn.LayerNorm([3, 4]), bnlib.nn.RMSNorm(4))
functional.layer_norm(image, (4, 4))
bnlib.nn.BatchNorm2d("3")  # type: ignore[arg-type]
bnlib.nn.GroupNorm(3)  # type: ignore[call-arg]
bnlib.nn.BatchNrom2d(3)  # type: ignore[attr-defined]
assert_type(bnlib.fold(torch.nn.Linear(3, 3), layer), torch.nn.Module)
assert_type(bnlib.recalibrate(norms, [image]), list[str])
bnlib.diagnose(norms, image, ignore=["bias-before-norm"]).to_dict()
bnlib.diagnose(norms)  # type: ignore[call-arg]
bnlib.nn.convert(3)  # type: ignore[arg-type]
