"""The contrastive loss of springs (Hadsell, Chopra, LeCun, CVPR 2006: DrLIM)."""

from __future__ import annotations

import torch
from torch import Tensor

from ..data import Source
from ..encoders import AnyEncoder, to_device
from ..errors import require
from ..functional import label_losses
from ..functional.top_k import top_k
from ..runtime import distributed
from ..views import evaluation_view
from .base import Batch, Embedded, Objective, Out, classes
from .options import MarginOptions as MarginOptions


class Margin(Objective):
    """Springs: similar pairs attract as 1/2 d^2, others repel as 1/2 max(0, margin - d)^2.

    Formula: mean of (1 - Y) 1/2 d^2 + Y 1/2 max(0, margin - d)^2 over pairs of the batch, Y = 1 for
    a dissimilar pair (eq. 4); the mean over the similar and the mean over the dissimilar pairs
    weigh one half each.
    When: a map of few dimensions (`--dim 2`) in which distance means something; pairs from any
    outside knowledge.
    Good to know: outputs are not normalised unless `--objective.sphere` is given, so a map can have
    edges and rings. A dissimilar pair at distance 0 has no force; at any other distance below the
    margin the force is margin - d, for near-duplicates too.
    Chance: none; a collapse costs margin^2 / 4 here.
    Relations: `triplet` compares distances with each other instead of with a fixed margin.
    Published: a 2-D map of the digits 4 and 9, and a ring and a cylinder for azimuth and elevation
    of NORB's airplane (figures).
    """

    near: Tensor

    def __init__(self, options: MarginOptions, seed: int) -> None:
        super().__init__()
        self.options = options
        self.needs_labels = options.uses_labels
        self.views = 2

    def attach(self, encoder: AnyEncoder, source: Source) -> None:
        if self.options.pairs == "neighbours":
            require(
                self.options.neighbours < len(source),
                f"--objective.neighbours must be below the {len(source)} images, "
                f"got {self.options.neighbours}",
            )
            neighbours = nearest_by_pixels(source, self.options.neighbours, encoder.device)
            self.register_buffer("near", neighbours, persistent=False)

    def embed(self, encoder: AnyEncoder, batch: Batch) -> Embedded:
        run = encoder if self.options.sphere else encoder.project
        return {f"z{i}" if i else "z": run(view) for i, view in enumerate(batch.views)}

    def loss(self, embedded: Embedded, batch: Batch, generator: torch.Generator) -> Out:
        a, b = embedded["z"], embedded["z1"]
        everyone, index = distributed.gather(b), distributed.gather(batch.index)
        same = self._similar(batch, index)
        pairs = label_losses.spring(
            label_losses.squared_distances(a, everyone), same, self.options.margin
        )
        similar = distributed.mean_of_valid(pairs, same)
        apart = distributed.mean_of_valid(pairs, ~same)
        logs = {"similar": similar.detach(), "dissimilar": apart.detach()}
        return Out(
            (similar + apart) / 2, logs, {"z": torch.nn.functional.normalize(a.detach(), dim=1)}
        )

    def _similar(self, batch: Batch, index: Tensor) -> Tensor:
        """(N, R N) bool: whether the first view of a row and the second of a column are similar."""
        own = batch.index[:, None] == index
        if self.options.pairs == "labels":
            names = classes(batch)
            return names[:, None] == distributed.gather(names)
        if self.options.pairs == "neighbours":
            is_neighbour = self.near[batch.index][:, :, None] == index  # (N, K, R N)
            back = (
                self.near[index][:, :, None] == batch.index
            )  # either one is among the nearest of the other
            return own | is_neighbour.any(1) | back.any(1).T
        return own


@torch.no_grad()
def nearest_by_pixels(source: Source, k: int, device: torch.device) -> Tensor:
    """(S, K) the rows whose centred pixels are nearest to each row's, without itself."""
    parts = [
        evaluation_view(source, to_device(source.read(i), device)).flatten(1)
        for i in torch.arange(len(source)).split(1024)
    ]
    x = torch.cat(parts)
    x = x - x.mean(0)
    # |x - y|^2 = |x|^2 + |y|^2 - 2 x.y: the nearest y maximise x.y - |y|^2 / 2
    rows = torch.cat([x, -0.5 * x.square().sum(1, keepdim=True)], 1)
    queries = torch.cat([x, torch.ones(len(x), 1, device=device)], 1)
    nearest = top_k(queries, rows, k + 1)[1]
    other = nearest != torch.arange(len(x), device=device)[:, None]
    other[other.all(1), -1] = False
    return nearest[other].view(len(x), k)
