"""PyTorch layers that take the place of torch.nn's: swap one import.

Names, arguments, defaults, state and errors are those of `torch.nn`; the forward and
backward passes are those derived in the book.
"""

try:
    import torch  # noqa: F401
except ImportError as error:
    what = 'bnlib.nn needs PyTorch: pip install "bnlib[torch]"'
    raise ImportError(what, name="torch") from error

from bnlib.nn import functional
from bnlib.nn.convolution import BatchNorm2d, BatchNorm3d, fold
from bnlib.nn.inference import BatchNorm1d

__all__ = ["BatchNorm1d", "BatchNorm2d", "BatchNorm3d", "fold", "functional"]
