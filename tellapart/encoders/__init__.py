"""Encoder = backbone + head."""

from __future__ import annotations

import torch
from torch import Tensor

from .encoder import Encoder
from .heads import head, hidden_layers
from .inference import outputs, to_device
from .vision import backbone

__all__ = ["Encoder", "backbone", "build", "head", "hidden_layers", "outputs", "to_device"]


def build(
    name: str,
    *,
    channels: int,
    size: int,
    dim: int = 128,
    head_kind: str = "linear",
    width: int = 16,
    mean: Tensor | None = None,
    std: Tensor | None = None,
    pretrained: bool = False,
    small_stem: bool | None = None,
    seed: int = 0,
) -> Encoder:
    """An encoder by the name of its backbone; the same seed gives the same weights.

    Args:
        name, pretrained, small_stem: as `vision.backbone`. channels: C. size: P in pixels. dim: D. head_kind: as
        `heads.head`.
        width: base width of small-resnet. mean, std: (C,) of the data in [0, 1]; None: 0.5 and 0.25.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        body = backbone(name, channels=channels, size=size, width=width, pretrained=pretrained, small_stem=small_stem)
        top = head(head_kind, body.width, dim)
    mean = torch.full((channels,), 0.5) if mean is None else mean
    std = torch.full((channels,), 0.25) if std is None else std
    return Encoder(body, top, dim, mean=mean, std=std).to(memory_format=torch.channels_last)
