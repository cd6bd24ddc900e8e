"""Encoder = backbone + head. It owns its normalisation, so that a file of it needs no instructions.

Shapes: N batch, C channels, P side of a view, F feature width, D embedding width.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .vision import Backbone, take_channels


class Encoder(nn.Module):
    """A backbone whose features users take away, and a head whose unit rows the loss sees.

    Args:
        backbone: maps (N, C, P, P) to (N, F); has `width` (F) and `maps`.
        head: maps (N, F) to (N, D). dim: D.
        mean, std: per channel, of values in [0, 1]; subtracted and divided before the backbone.
        bn_rows: in training BatchNorm takes its statistics over groups of so many rows instead of the batch, whatever
            the batch is made of; None: over all that is given at once.
    """

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
        self.register_buffer("mean", mean.float().view(1, -1, 1, 1).clone())
        self.register_buffer("std", std.float().clamp_min(1e-3).view(1, -1, 1, 1))

    @property
    def device(self) -> torch.device:
        """Where it is."""
        return self.mean.device

    def features(self, x: Tensor) -> Tensor:
        """(N, F), what users take away. x: (N, C, P, P), uint8 or float in [0, 1]."""
        return self._by_group(lambda part: self.backbone(self.normalised(part)), x)

    def project(self, x: Tensor) -> Tensor:
        """(N, D), the head's output as it is; float32 whatever the autocast."""
        return full(self._by_group(lambda part: self.head(self.backbone(self.normalised(part))), x))

    def forward(self, x: Tensor) -> Tensor:
        """(N, D) unit rows, for the loss."""
        return F.normalize(self.project(x), dim=1)

    def from_features(self, features: Tensor) -> Tensor:
        """(N, D) unit rows from (N, F), for one who has both wanted."""
        return F.normalize(full(self.head(features)), dim=1)

    def maps(self, x: Tensor) -> list[Tensor]:
        """One feature map (N, channels, h, w) per stage, the first stage first."""
        return self.backbone.maps(self.normalised(x))

    def take_channels(self, channels: int) -> None:
        """Make a network of others read images of C channels: its first filters and its normalisation averaged."""
        take_channels(self.backbone, channels)
        self.mean = self.mean.mean(1, keepdim=True).expand(-1, channels, -1, -1).clone()
        self.std = self.std.mean(1, keepdim=True).expand(-1, channels, -1, -1).clone()

    def _by_group(self, run: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        """Group by group in training where BatchNorm is split, else all at once."""
        if not (self.training and self.bn_rows and len(x) >= 2 * self.bn_rows):
            return run(x)
        return torch.cat([run(part) for part in x.tensor_split(len(x) // self.bn_rows)])

    def normalised(self, x: Tensor) -> Tensor:
        """What the backbone sees: (N, C, P, P) minus mean, by std."""
        if x.dtype == torch.uint8:
            x = x.float() / 255
        x = (x - self.mean) / self.std
        return x.contiguous(memory_format=torch.channels_last)


def full(x: Tensor) -> Tensor:
    """Half precision as float32; float64 stays."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
