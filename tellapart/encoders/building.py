"""Build encoders by name, or rebuild them from the config.json of a run."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..data import modality_of
from ..runtime import plugins
from . import own
from .choices import Pool
from .encoder import AnyEncoder, Encoder
from .heads import head
from .patches import PatchEncoder, Patches
from .vision import Backbone, backbone

FILE_KINDS = {"sequence": "audio"}  # "kind" of config.json -> a kind of data, where they differ


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
    pool: Pool = "auto",
    seed: int = 0,
) -> Encoder:
    """Build an image encoder; the same seed gives the same weights.

    Args:
        name: name of the backbone, as in `vision.backbone`, or "patches".
        channels: number of image channels C.
        size: side P of a view in pixels.
        dim: embedding width D.
        head_kind: kind of projection head, as in `heads.head`.
        width: base width of small-resnet.
        mean: (C,) channel means of the data in [0, 1]; None: 0.5.
        std: (C,) channel standard deviations; None: 0.25.
        pretrained: load the weights published by the library.
        small_stem: as in `vision.backbone`.
        pool: as in `vision.backbone`.
        seed: seed of the weights.

    Raises:
        ConfigError: the backbone or the head is unknown.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if plugins.is_name(name):
            network = own.network_of(name, seed, channels=channels, size=size)
            empty = torch.zeros(2, channels, size, size)
            body: Backbone = own.OwnBackbone(network, name, own.width_of(network, name, empty))
            mean, std = (
                torch.zeros(channels),
                torch.ones(channels),
            )  # the network receives values in [0, 1]
        elif name == "patches":
            body = Patches(channels, size, width)
        else:
            shared = {"channels": channels, "size": size, "width": width}
            body = backbone(name, **shared, pretrained=pretrained, small_stem=small_stem, pool=pool)
        top = head(head_kind, body.width, dim)
    mean = torch.full((channels,), 0.5) if mean is None else mean
    std = torch.full((channels,), 0.25) if std is None else std
    make = PatchEncoder if name == "patches" else Encoder
    built = make(body, top, body.width if head_kind == "none" else dim, mean=mean, std=std)
    built.description = {
        "encoder": name,
        "channels": channels,
        "size": size,
        "dim": built.dim,
        "head_kind": head_kind,
        "width": width,
        "small_stem": body.small_stem,
    } | ({} if pool == "auto" else {"pool": pool})
    return built.to(memory_format=torch.channels_last)


def rebuild(description: dict[str, Any], *, seed: int = 0) -> AnyEncoder:
    """Build the encoder described by a config.json, with random weights.

    Args:
        description: content of config.json.
        seed: seed of the weights.

    Raises:
        ConfigError: the kind of data is neither built in nor registered.
    """
    given = {k: v for k, v in description.items() if k not in ("format", "kind")}
    kind = str(description.get("kind", "images"))
    encoder: AnyEncoder = modality_of(FILE_KINDS.get(kind, kind)).rebuild_encoder(given, seed=seed)
    return encoder
