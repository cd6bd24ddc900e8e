"""The base class of all encoders, and the image encoder: normalisation, backbone and head.

Shapes: N batch, C channels, P side of a view, F feature width, D embedding width.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..data import Source
from ..errors import ConfigError
from .norms import folded
from .vision import Backbone, take_channels


class AnyEncoder(nn.Module):
    """Base class of every encoder: features for downstream use, unit-norm embeddings for the loss.

    A subclass defines `features`, sets `head` (F to D) and `dim` (D), and lists the kinds of data
    it reads.

    Attributes:
        kinds: kinds of data it reads, as the `kind` of a source.
        head: projection head, maps features (N, F) to (N, D).
        dim: embedding width D.
        bn_rows: in training, BatchNorm statistics are computed over groups of this many rows;
            None: over the whole batch.
        description: the content of config.json, from which it can be rebuilt: plain values only.
    """

    kinds: tuple[str, ...] = ()
    head: nn.Module
    dim: int
    bn_rows: int | None = None
    description: dict[str, Any]

    @property
    def device(self) -> torch.device:
        """The device of its parameters."""
        return next(self.parameters()).device

    def features(self, x: Any) -> Tensor:
        """Compute the features (N, F) for downstream use."""
        raise NotImplementedError

    def project(self, x: Any) -> Tensor:
        """(N, D): the output of the head before normalisation; float32 whatever the autocast."""
        return full(self.head(self.features(x)))

    def forward(self, x: Any) -> Tensor:
        """Compute the embeddings for the loss: (N, D) with unit rows."""
        return F.normalize(self.project(x), dim=1)

    def from_features(self, features: Tensor) -> Tensor:
        """(N, D) unit rows from features (N, F)."""
        return F.normalize(full(self.head(features)), dim=1)

    def maps(self, x: Any) -> list[Tensor]:
        """One feature map per stage, the first stage first.

        Raises:
            ConfigError: this network has no feature maps.
        """
        raise ConfigError(f"{type(self).__name__} has no feature maps")

    def prepared(self, source: Source) -> Source:
        """The source in the form this encoder reads; text encoders tokenise it."""
        return source

    def fast_features(self) -> Callable[[Any], Tensor]:
        """A function equal to `features` in eval mode, and faster where possible."""
        return self.features

    def split_batchnorm(self, rows: int) -> None:
        """Take BatchNorm statistics over groups of `rows` rows in training.

        Raises:
            ConfigError: this kind of network does not support it.
        """
        raise ConfigError(
            "--bn split requires an image encoder; use --norm channel, or a head without BatchNorm"
        )

    def fold_batchnorm(self) -> None:
        """Fold each BatchNorm into the convolution before it, in place (eval mode).

        Raises:
            ConfigError: there is no BatchNorm to fold.
        """
        raise ConfigError("--fold-batchnorm: this network has no BatchNorm; leave it out")

    def exported(self) -> nn.Module:
        """Return the module whose weights are exported, with or without a head."""
        return self

    def notes(self) -> list[str]:
        """Return notes on the architecture, printed by `train` before the first step."""
        return []


class Encoder(AnyEncoder):
    """An image encoder. The normalisation is part of it, so its weights can be used as they are.

    Args:
        backbone: maps (N, C, P, P) to (N, F); has `width` (F) and `maps`.
        head: projection head, maps (N, F) to (N, D).
        dim: embedding width D.
        mean: (C,) channel means of values in [0, 1], subtracted before the backbone.
        std: (C,) channel standard deviations, by which the values are divided.
        bn_rows: in training, BatchNorm statistics are computed over groups of this many rows;
            None: over the whole batch.

    Attributes:
        start_notes: notes on the weights that it started from.
        fixed: modules that stay in eval mode during training, such as frozen BatchNorm layers.
    """

    kinds = ("images",)
    mean: Tensor
    std: Tensor

    def __init__(
        self,
        backbone: Backbone,
        head: nn.Module,
        dim: int,
        *,
        mean: Tensor,
        std: Tensor,
        bn_rows: int | None = None,
    ) -> None:
        super().__init__()
        self.backbone, self.head, self.dim, self.bn_rows = backbone, head, dim, bn_rows
        self.start_notes: list[str] = []
        self.fixed: list[nn.Module] = []
        self.register_buffer("mean", mean.float().view(1, -1, 1, 1).clone())
        self.register_buffer("std", std.float().clamp_min(1e-3).view(1, -1, 1, 1))

    def train(self, mode: bool = True) -> Encoder:
        """Set the mode of all modules; those of `fixed` stay in eval mode.

        Args:
            mode: True for training, False for evaluation.
        """
        super().train(mode)
        for module in self.fixed:
            module.eval()
        return self

    @property
    def device(self) -> torch.device:
        """The device of its buffers."""
        return self.mean.device

    def features(self, x: Tensor) -> Tensor:
        """Return the features (N, F), the output of the backbone.

        Args:
            x: (N, C, P, P) images, uint8 or float in 0..1.
        """
        return self._by_group(lambda part: self.backbone(self.normalised(part)), x)

    def project(self, x: Tensor) -> Tensor:
        """Return the output (N, D) of the head before normalisation, float32 under any autocast.

        Args:
            x: (N, C, P, P) images, uint8 or float in 0..1.
        """
        return full(self._by_group(lambda part: self.head(self.backbone(self.normalised(part))), x))

    def maps(self, x: Tensor) -> list[Tensor]:
        """Return one feature map (N, channels, h, w) per stage, the first stage first.

        Args:
            x: (N, C, P, P) images, uint8 or float in 0..1.
        """
        return self.backbone.maps(self.normalised(x))

    def fast_features(self) -> Callable[[Tensor], Tensor]:
        """As `features`; on a CPU each BatchNorm is folded into the convolution before it."""
        if self.device.type != "cpu":
            return self.features
        body = folded(self.backbone)
        return lambda view: body(self.normalised(view))

    def split_batchnorm(self, rows: int) -> None:
        """Compute BatchNorm statistics over groups of rows in training.

        Args:
            rows: rows of a group, 2 or more.
        """
        self.bn_rows = rows

    def fold_batchnorm(self) -> None:
        """Fold each BatchNorm into the convolution before it, in place (eval mode)."""
        body: Any = folded(self.backbone)
        body.width = self.backbone.width
        self.add_module("backbone", body)

    def exported(self) -> nn.Module:
        """The backbone: an exported program holds mean and standard deviation as numbers."""
        return self.backbone

    def notes(self) -> list[str]:
        """Return a note if the stem was replaced by the stem for small images."""
        if not self.backbone.small_stem:
            return []
        return ["3 x 3 stem without max-pool: the images have 64 px or fewer"]

    def take_channels(self, channels: int) -> None:
        """Adapt a network to images of C channels: average its first filters and its normalisation.

        Args:
            channels: C.
        """
        take_channels(self.backbone, channels)
        self.mean = self.mean.mean(1, keepdim=True).expand(-1, channels, -1, -1).clone()
        self.std = self.std.mean(1, keepdim=True).expand(-1, channels, -1, -1).clone()

    def _by_group(self, run: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        """Run group by group in training if BatchNorm is split, else on the whole batch."""
        if not (self.training and self.bn_rows and len(x) >= 2 * self.bn_rows):
            return run(x)
        return torch.cat([run(part) for part in x.tensor_split(len(x) // self.bn_rows)])

    def normalised(self, x: Tensor) -> Tensor:
        """Return the input of the backbone: images (N, C, P, P) minus `mean`, divided by `std`.

        Args:
            x: (N, C, P, P) images in 0..1.
        """
        if x.dtype == torch.uint8:
            x = x.float() / 255
        x = (x - self.mean) / self.std
        return x.contiguous(memory_format=torch.channels_last)


def full(x: Tensor) -> Tensor:
    """Half precision as float32; float64 is kept."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
