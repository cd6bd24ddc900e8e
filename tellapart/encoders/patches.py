"""Images as grids of patches that overlap by half, for CPC (van den Oord 2018, sec. 3.2).

Shapes: N batch, C channels, P side of an image, R rows and R columns of patches (7), F width of a patch.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import require
from .encoder import AnyEncoder, Encoder
from .norms import without_batchnorm
from .vision import Backbone, SmallResNet

LAYERS = 3  # of the context: how many rows above it reaches, beside the one it stands in


class Patches(Backbone):
    """Each patch by a small-resnet without BatchNorm (it would carry one patch into another); then their mean.

    Args: channels: C. size: P, a multiple of 8 from 16 on; a patch has a quarter of it. base: as small-resnet.
    """

    def __init__(self, channels: int, size: int, base: int) -> None:
        super().__init__()
        require(
            size % 8 == 0 and size >= 16,
            f"--encoder patches wants --image-size 16, 24, 32, ...; got {size}",
        )
        self.side, self.step = size // 4, size // 8
        self.network = without_batchnorm(SmallResNet(channels, base))
        self.width = 4 * base
        self.above = nn.ModuleList(nn.Conv2d(self.width, self.width, (2, 3)) for _ in range(LAYERS))

    def grid(self, x: Tensor) -> Tensor:
        """(N, F, R, R) one vector for each patch of (N, C, P, P)."""
        x = x.unfold(2, self.side, self.step).unfold(3, self.side, self.step)
        n, c, rows, columns = x.shape[:4]
        z = self.network(x.permute(0, 2, 3, 1, 4, 5).reshape(-1, c, self.side, self.side))
        found: Tensor = z.view(n, rows, columns, -1).permute(0, 3, 1, 2)
        return found

    def context(self, z: Tensor) -> Tensor:
        """(N, F, R, R): at each place of the rows down to it, never of those below."""
        for layer in self.above:
            z = z + F.relu(layer(F.pad(z, (1, 1, 1, 0))))
        return z

    def forward(self, x: Tensor) -> Tensor:
        return self.grid(x).mean((2, 3))

    def maps(self, x: Tensor) -> list[Tensor]:
        return [self.grid(x)]


class PatchEncoder(Encoder):
    """An Encoder whose backbone is `Patches`, and which gives columns of patches as sequences from top to bottom."""

    backbone: Patches

    def fold_batchnorm(self) -> None:
        """Raise ConfigError: patches are encoded without BatchNorm."""
        AnyEncoder.fold_batchnorm(self)

    def exported(self) -> nn.Module:
        """The whole encoder: its exported program is ours and has mean and standard deviation."""
        return self

    @property
    def width(self) -> int:
        """F."""
        return self.backbone.width

    context_width = width

    def sequence(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Patches z and contexts c (N, columns, rows, F), and how many rows there are (N,)."""
        grid = self.backbone.grid(self.normalised(x))
        z, c = (v.permute(0, 3, 2, 1) for v in (grid, self.backbone.context(grid)))
        return z, c, torch.full((len(x),), z.shape[2], device=x.device)
