"""Optimisers, and the learning rate schedule as a pure function of the step."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from .config import CommonConfig


def optimizer(
    config: CommonConfig, parameters: Iterable[nn.Parameter] | list[dict[str, Any]]
) -> torch.optim.Optimizer:
    """Return the optimiser of a configuration for every trained parameter.

    LARS excludes biases and norms from adaptation and weight decay, as SimCLR does. SGD and AdamW
    apply weight decay to all parameters, as the authors of InstDisc and MoCo do, and use the fused
    kernels, which take a third of the time on a CPU.

    Args:
        config: name and settings of the optimiser.
        parameters: those that require a gradient are trained; or groups of parameters, with the
            `scale` of their learning rate.
    """
    given = [*parameters]
    params: list[Any] = [p for p in given if isinstance(p, dict) or p.requires_grad]
    if all(isinstance(p, dict) and "scale" not in p for p in params):
        params = [p for group in params for p in group["params"]]
    if config.optimizer == "adamw":
        betas = (config.momentum, 0.999)
        return torch.optim.AdamW(
            params, lr=config.lr, betas=betas, weight_decay=config.weight_decay, fused=True
        )
    if config.optimizer == "lars":
        from timm.optim.lars import Lars

        groups: list[dict[str, Any]] = []
        for group in params if params and isinstance(params[0], dict) else [{"params": params}]:
            plain, scale = group["params"], {n: v for n, v in group.items() if n == "scale"}
            matrices = [p for p in plain if p.ndim > 1]
            groups.append({"params": matrices, "weight_decay": config.weight_decay} | scale)
            others = [p for p in plain if p.ndim <= 1]
            groups.append({"params": others, "weight_decay": 0.0, "always_adapt": False} | scale)
        optimiser: torch.optim.Optimizer = Lars(
            groups, lr=config.lr, momentum=config.momentum, trust_coeff=0.001
        )
        return optimiser
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
