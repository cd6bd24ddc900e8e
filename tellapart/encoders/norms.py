"""The BatchNorm layers of a network, whose statistics depend on what a batch is made of."""

from __future__ import annotations

from torch import Tensor, nn


def batchnorms(*modules: nn.Module) -> list[nn.modules.batchnorm._BatchNorm]:
    """Every layer that normalises over the batch."""
    return [m for module in modules for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]


def running_statistics(*modules: nn.Module) -> list[Tensor]:
    """Their running means and variances."""
    return [b for norm in batchnorms(*modules) for b in (norm.running_mean, norm.running_var) if b is not None]
