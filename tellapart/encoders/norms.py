"""Find, replace and fold the BatchNorm layers of a network."""

from __future__ import annotations

import math
import warnings

import torch
from torch import Tensor, nn


def batchnorms(*modules: nn.Module) -> list[nn.modules.batchnorm._BatchNorm]:
    """Return every BatchNorm layer of the modules."""
    return [
        m
        for module in modules
        for m in module.modules()
        if isinstance(m, nn.modules.batchnorm._BatchNorm)
    ]


def without_batchnorm(module: nn.Module) -> nn.Module:
    """Replace each BatchNorm2d by a GroupNorm of up to 8 groups, in place, and return the network.

    A GroupNorm normalises each item on its own.
    """
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            setattr(module, name, nn.GroupNorm(math.gcd(8, child.num_features), child.num_features))
        else:
            without_batchnorm(child)
    return module


def running_statistics(*modules: nn.Module) -> list[Tensor]:
    """Return the running means and variances of the BatchNorm layers."""
    return [
        b
        for norm in batchnorms(*modules)
        for b in (norm.running_mean, norm.running_var)
        if b is not None
    ]


def folded(network: nn.Module) -> nn.Module:
    """Return a copy in eval mode with each BatchNorm folded into the convolution before it.

    A network that cannot be traced (its control flow depends on its input) is returned unchanged.
    """
    if not batchnorms(network):
        return network
    from torch.fx.experimental import optimization

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            fused: nn.Module = optimization.fuse(network)
    except Exception:  # tracing fails in as many ways as networks are written
        return network
    return fused.eval().to(memory_format=torch.channels_last)
