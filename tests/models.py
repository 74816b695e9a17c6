"""What the tests of chapter 18's tools share: small models, and all that one holds."""

import torch
from torch import nn

import bnlib


def normal(*shape, seed=0, mean=0.0, dtype=torch.float32):
    x = torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
    return x.to(dtype) + mean


def made(forward, **parts):
    """A module of these parts, with this forward pass."""
    model = type("Made", (nn.Module,), {"forward": forward})()
    for name, part in parts.items():
        setattr(model, name, part)
    return model


def state(model):
    """Every tensor, mode and hook, the identity of the buffers included."""
    tensors = {k: v.clone() for k, v in model.state_dict(keep_vars=True).items()}
    places = [id(b) for b in model.buffers()]
    modes = [m.training for m in model.modules()]
    hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()]
    grads = [None if p.grad is None else p.grad.clone() for p in model.parameters()]
    return tensors, places, modes, hooks, grads, torch.get_rng_state()


def assert_unchanged(model, before):
    torch.testing.assert_close(state(model), before, rtol=0, atol=0, equal_nan=True)


def codes(model, batch, **options):
    return {f.code for f in bnlib.diagnose(model, batch, **options)}
