"""The triplet loss with mining in the batch (FaceNet: Schroff et al. 2015, arXiv 1503.03832)."""

from __future__ import annotations

import torch

from ..functional import label_losses
from ..runtime import distributed
from .base import Batch, Embedded, Objective, Out, classes
from .options import TripletOptions as TripletOptions


class Triplet(Objective):
    """An anchor is nearer to its positive than to a negative, by a margin.

    Formula: max(0, |a - p|^2 - |a - n|^2 + margin), mean over the chosen triplets with a loss above
    0 (eq. 2-4).
    When: verification and retrieval with many small classes, or to compare with the methods before
    contrastive losses.
    Good to know: all triplets of the batch are counted; the negatives of an anchor are sorted once.
    The shares of easy, semi-hard and hard triplets are logged. Hard negatives from the start can
    collapse all embeddings into one point, where the loss equals the margin; semi-hard mining is
    the remedy of the paper.
    Chance: the margin (none for semi-hard mining, which finds no triplet at collapse).
    Relations: `supcon` with one positive and one negative is its soft form.
    Published: LFW 99.63 % (128 dimensions, margin 0.2).
    """

    def __init__(self, options: TripletOptions, seed: int) -> None:
        super().__init__()
        self.options = options
        self.needs_labels = options.uses_labels
        self.views = 2

    def loss(self, embedded: Embedded, batch: Batch, generator: torch.Generator) -> Out:
        a, b = embedded["z"], embedded["z1"]
        rows = torch.cat([a, b])
        names = (classes(batch) if self.needs_labels else batch.index).repeat(2)
        mined = label_losses.triplets(
            rows,
            names,
            margin=self.options.margin,
            mining=self.options.mining,
            others=distributed.others(rows),
            other_labels=distributed.others(names),
        )
        active = distributed.total(mined.active)
        loss = mined.loss * distributed.world() / active.clamp_min(1)
        kinds = distributed.total(torch.stack([mined.easy, mined.semi_hard, mined.hard]).float())
        easy, semi, hard = (kinds / kinds.sum().clamp_min(1)).unbind()
        logs = {"easy": easy, "semi_hard": semi, "hard": hard, "active": active.float()}
        logs["positive"] = (a.detach() * b.detach()).sum(1).mean()
        return Out(loss, logs, {"z": a.detach()})

    def chance(self, n: int) -> float | None:
        return None if self.options.mining == "semi-hard" else self.options.margin
