"""Images as grids of patches that overlap by half, for CPC (van den Oord 2018, sec. 3.2).

Shapes: N batch, C channels, P side of an image, R rows and R columns of patches (7), F feature
width of a patch.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import require
from .encoder import AnyEncoder, Encoder
from .norms import without_batchnorm
from .vision import Backbone, SmallResNet

LAYERS = 3  # of the context network: it sees this many rows above the current one


class Patches(Backbone):
    """Encode each patch with a small-resnet and average the patches.

    The network has no BatchNorm, which would leak information between patches.

    Args:
        channels: number of image channels C.
        size: side P of an image, a multiple of 8, at least 16; the side of a patch is P / 4.
        base: base width, as for small-resnet.
    """

    def __init__(self, channels: int, size: int, base: int) -> None:
        super().__init__()
        require(
            size % 8 == 0 and size >= 16,
            f"--encoder patches requires --image-size 16, 24, 32, ...; got {size}",
        )
        self.side, self.step = size // 4, size // 8
        self.network = without_batchnorm(SmallResNet(channels, base))
        self.width = 4 * base
        self.above = nn.ModuleList(nn.Conv2d(self.width, self.width, (2, 3)) for _ in range(LAYERS))

    def grid(self, x: Tensor) -> Tensor:
        """Encode each patch of images (N, C, P, P); returns (N, F, R, R)."""
        x = x.unfold(2, self.side, self.step).unfold(3, self.side, self.step)
        n, c, rows, columns = x.shape[:4]
        z = self.network(x.permute(0, 2, 3, 1, 4, 5).reshape(-1, c, self.side, self.side))
        feature_map: Tensor = z.view(n, rows, columns, -1).permute(0, 3, 1, 2)
        return feature_map

    def context(self, z: Tensor) -> Tensor:
        """Compute the context (N, F, R, R) of each patch from its row and the rows above it."""
        for layer in self.above:
            z = z + F.relu(layer(F.pad(z, (1, 1, 1, 0))))
        return z

    def forward(self, x: Tensor) -> Tensor:
        return self.grid(x).mean((2, 3))

    def maps(self, x: Tensor) -> list[Tensor]:
        return [self.grid(x)]


class PatchEncoder(Encoder):
    """An image encoder with the backbone `Patches`; columns of patches are sequences."""

    backbone: Patches

    def fold_batchnorm(self) -> None:
        """Raise ConfigError: patches are encoded without BatchNorm."""
        AnyEncoder.fold_batchnorm(self)

    def exported(self) -> nn.Module:
        """Return the whole encoder, because the program also holds its mean and std."""
        return self

    @property
    def width(self) -> int:
        """Feature width F."""
        return self.backbone.width

    context_width = width

    def sequence(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return patches z and contexts c (N, columns, rows, F) and the number of rows (N,)."""
        grid = self.backbone.grid(self.normalised(x))
        z, c = (v.permute(0, 3, 2, 1) for v in (grid, self.backbone.context(grid)))
        return z, c, torch.full((len(x),), z.shape[2], device=x.device)
