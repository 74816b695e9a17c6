"""Functions with the signatures of torch.nn.functional, derived in the book."""

from bnlib.nn.inference import batch_norm

__all__ = ["batch_norm"]
