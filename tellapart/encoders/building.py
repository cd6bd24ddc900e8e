"""Encoders by name: from nothing, or from the description that a run keeps."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..errors import unknown
from . import sequence, text
from .encoder import Encoder
from .heads import head
from .inference import AnyEncoder
from .patches import PatchEncoder, Patches
from .vision import Backbone, backbone


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
        name: as `vision.backbone`, or "patches". pretrained, small_stem: as there. channels: C. size: P in pixels.
        dim: D. head_kind: as `heads.head`.
        width: base width of small-resnet. mean, std: (C,) of the data in [0, 1]; None: 0.5 and 0.25.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if name == "patches":
            body: Backbone = Patches(channels, size, width)
        else:
            shared = {"channels": channels, "size": size, "width": width}
            body = backbone(name, **shared, pretrained=pretrained, small_stem=small_stem)
        top = head(head_kind, body.width, dim)
    mean = torch.full((channels,), 0.5) if mean is None else mean
    std = torch.full((channels,), 0.25) if std is None else std
    make = PatchEncoder if name == "patches" else Encoder
    made = make(body, top, body.width if head_kind == "none" else dim, mean=mean, std=std)
    return made.to(memory_format=torch.channels_last)


def rebuild(description: dict[str, Any], *, seed: int = 0) -> AnyEncoder:
    """The encoder that a config.json describes, with random weights.

    Raises:
        ConfigError: a kind that this version does not know.
    """
    given = {k: v for k, v in description.items() if k not in ("format", "kind")}
    kind = description.get("kind", "images")
    if kind == "sequence":
        return sequence.build(seed=seed, **given)
    if kind == "text":
        return text.build(given.pop("encoder"), seed=seed, **given)
    if kind != "images":
        raise unknown("kind of encoder", kind, ("images", "sequence", "text"))
    name = given.pop("encoder")
    return build(name, seed=seed, **given)
