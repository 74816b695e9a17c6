"""From chapters/05_inference.ipynb.

Extracted by `make export`: edit the notebook, not this file.
"""

import functools

import torch
import torch.overrides
from torch.autograd import forward_ad
from torch.fx import Proxy


def is_eager():
    """Return whether operations just run: no compiler, tracer or transformation.

    Those take the forward pass apart by themselves, and get it as it is: through an
    autograd.Function, a forward derivative of a forward derivative comes out as 0.
    """
    return not (
        torch.compiler.is_compiling()
        or forward_ad._current_level >= 0
        or torch._C._are_functorch_transforms_active()
        or torch._C._is_tracing()
        or torch._C._len_torch_dispatch_stack()
        or torch._C._len_torch_function_stack()
    )


def one_node(forward):
    """Make the forward pass of a layer one node in the graphs of torch.fx.

    torch.fx does that by itself for the layers of torch.nn: a node keeps its mode.
    """

    @functools.wraps(forward)
    def one(self, *args, **kwargs):
        first = args[0] if args else next(iter(kwargs.values()), None)
        if isinstance(first, Proxy) and first.tracer.root is not self:
            path = first.tracer.path_of_module(self)
            return first.tracer.create_proxy("call_module", path, args, kwargs)
        return forward(self, *args, **kwargs)

    return one
