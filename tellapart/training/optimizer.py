"""Optimisers, and the learning rate schedule as a pure function of the step."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from .config import CommonConfig


def optimizer(config: CommonConfig, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """Return the optimiser of a configuration for every trained parameter.

    LARS excludes biases and norms from adaptation and weight decay, as SimCLR does. SGD and AdamW
    apply weight decay to all parameters, as the authors of InstDisc and MoCo do, and use the fused
    kernels, which take a third of the time on a CPU.

    Args:
        config: name and settings of the optimiser.
        parameters: those that require a gradient are trained.
    """
    params = [p for p in parameters if p.requires_grad]
    if config.optimizer == "adamw":
        betas = (config.momentum, 0.999)
        return torch.optim.AdamW(
            params, lr=config.lr, betas=betas, weight_decay=config.weight_decay, fused=True
        )
    if config.optimizer == "lars":
        from timm.optim.lars import Lars

        groups: list[dict[str, Any]] = [
            {"params": [p for p in params if p.ndim > 1], "weight_decay": config.weight_decay},
            {
                "params": [p for p in params if p.ndim <= 1],
                "weight_decay": 0.0,
                "always_adapt": False,
            },
        ]
        made: torch.optim.Optimizer = Lars(
            groups, lr=config.lr, momentum=config.momentum, trust_coeff=0.001
        )
        return made
    return torch.optim.SGD(
        params,
        lr=config.lr,
        momentum=config.momentum,
        nesterov=config.nesterov,
        weight_decay=config.weight_decay,
        fused=True,
    )


def learning_rate(config: CommonConfig, step: int, total: int, per_epoch: int) -> float:
    """Return the learning rate of a step.

    Args:
        config: peak, schedule and warm-up.
        step: 0 <= step < total.
        total: steps of the training.
        per_epoch: steps of an epoch.

    >>> config = CommonConfig(lr=1.0, warmup=1.0)
    >>> [round(learning_rate(config, s, 10, 2), 3) for s in (0, 1, 2, 9)]
    [0.5, 1.0, 1.0, 0.038]
    """
    warm = min(round(config.warmup * per_epoch), total)
    if step < warm:
        return config.lr * (step + 1) / warm
    if config.schedule == "constant":
        return config.lr
    if config.schedule == "step":
        passed = sum(step >= share * total for share in config.lr_steps)
        return config.lr * ((1.0, *config.lr_factors)[passed] if config.lr_factors else 0.1**passed)
    return config.lr * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, total - warm)))
