"""Encoder = backbone + head. It owns its normalisation, so that a file of it needs no instructions.

Shapes: N batch, C channels, P side of a view, F feature width, D embedding width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .vision import Backbone


class Encoder(nn.Module):
    """A backbone whose features users take away, and a head whose unit rows the loss sees.

    Args:
        backbone: maps (N, C, P, P) to (N, F); has `width` (F) and `maps`.
        head: maps (N, F) to (N, D). dim: D.
        mean, std: per channel, of values in [0, 1]; subtracted and divided before the backbone.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, backbone: Backbone, head: nn.Module, dim: int, *, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        self.backbone, self.head, self.dim = backbone, head, dim
        self.register_buffer("mean", mean.float().view(1, -1, 1, 1))
        self.register_buffer("std", std.float().clamp_min(1e-3).view(1, -1, 1, 1))

    def features(self, x: Tensor) -> Tensor:
        """(N, F), what users take away. x: (N, C, P, P), uint8 or float in [0, 1]."""
        out: Tensor = self.backbone(self._normalised(x))
        return out

    def forward(self, x: Tensor) -> Tensor:
        """(N, D) unit rows, for the loss; float32 whatever the autocast."""
        out: Tensor = self.head(self.features(x))
        return F.normalize(out.float() if out.dtype in (torch.float16, torch.bfloat16) else out, dim=1)

    def maps(self, x: Tensor) -> list[Tensor]:
        """One feature map (N, channels, h, w) per stage, the first stage first."""
        return self.backbone.maps(self._normalised(x))

    def _normalised(self, x: Tensor) -> Tensor:
        if x.dtype == torch.uint8:
            x = x.float() / 255
        x = (x - self.mean) / self.std
        return x.contiguous(memory_format=torch.channels_last)
