"""Projection heads: map features (N, F) to embeddings (N, D) for the loss."""

from __future__ import annotations

from typing import get_args

from torch import nn

from ..errors import unknown
from .choices import Head


def head(kind: str, width: int, dim: int) -> nn.Module:
    """Build a projection head.

    The embeddings of an untrained network all point in nearly one direction; the BatchNorm of the
    "-bn" heads centres them.

    Args:
        kind: "linear": one layer (InstDisc, MoCo v1). "mlp": width -> width -> ReLU -> dim
            (MoCo v2). "linear-bn", "mlp-bn" (SimCLR) and "mlp3-bn" (one hidden layer more,
            SimCLR v2): each layer is followed by a BatchNorm, the last one without a shift.
            "tanh": one layer and a tanh (the pooler of BERT, SimCSE). "none": the features
            themselves.
        width: feature width F.
        dim: embedding width D.

    Raises:
        ConfigError: the kind is unknown.
    """
    if kind not in get_args(Head):
        raise unknown("head", kind, get_args(Head))
    if kind == "none":
        return nn.Identity()
    if kind == "tanh":
        return nn.Sequential(nn.Linear(width, dim), nn.Tanh())
    norm = kind.endswith("-bn")
    layers: list[nn.Module] = []
    for _ in range({"linear": 0, "mlp": 1, "mlp3": 2}[kind.partition("-")[0]]):
        layers += [nn.Linear(width, width, bias=not norm)]
        layers += [nn.BatchNorm1d(width)] if norm else []
        layers += [nn.ReLU(inplace=True)]
    layers += [nn.Linear(width, dim, bias=not norm)]
    if norm:
        last = nn.BatchNorm1d(dim)
        last.bias.requires_grad_(False)
        layers += [last]
    return nn.Sequential(*layers) if len(layers) > 1 else layers[0]


def hidden_layers(head: nn.Module) -> list[int]:
    """Return, for each hidden layer of a head, the number of modules up to and including its ReLU.

    Args:
        head: a projection head.

    >>> hidden_layers(head("mlp-bn", 8, 4)), hidden_layers(head("linear", 8, 4))
    ([3], [])
    """
    layers = list(head) if isinstance(head, nn.Sequential) else []
    return [i + 1 for i, layer in enumerate(layers) if isinstance(layer, nn.ReLU)]
