"""The BatchNorm layers of a network, whose statistics depend on what a batch is made of."""

from __future__ import annotations

import math

from torch import Tensor, nn


def batchnorms(*modules: nn.Module) -> list[nn.modules.batchnorm._BatchNorm]:
    """Every layer that normalises over the batch."""
    return [
        m
        for module in modules
        for m in module.modules()
        if isinstance(m, nn.modules.batchnorm._BatchNorm)
    ]


def without_batchnorm(module: nn.Module) -> nn.Module:
    """The same network with each BatchNorm2d replaced by a GroupNorm of up to 8 groups, which sees one item alone."""
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            setattr(module, name, nn.GroupNorm(math.gcd(8, child.num_features), child.num_features))
        else:
            without_batchnorm(child)
    return module


def running_statistics(*modules: nn.Module) -> list[Tensor]:
    """Their running means and variances."""
    return [
        b
        for norm in batchnorms(*modules)
        for b in (norm.running_mean, norm.running_var)
        if b is not None
    ]
