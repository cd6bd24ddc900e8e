"""The invariant and spreading instance feature (Ye et al., CVPR 2019, arXiv 1904.03436)."""

from __future__ import annotations

import math

import torch

from ..functional import losses
from ..runtime import distributed
from .base import Batch, Embedded, Objective, Out, two_views
from .options import SpreadOptions as SpreadOptions


class Spread(Objective):
    """A view matches its image (invariant), and no image matches another (spreading).

    Formula: -log P(i | b_i) - sum_{j != i} log(1 - P(i | a_j)), mean over i, where a are views in
    place of the originals, b are augmented views, P(i | x) = exp(a_i . x / tau) /
    sum_k exp(a_k . x / tau) (eq. 3-7).
    When: small batches and short trainings: it needs no memory, and learns in the first epoch.
    Good to know: as in the authors' code both views are augmented. Use the embedding, not the
    features. The released code is another loss than the paper's, available as
    `--objective.loss released`; this implementation stays finite where a positive becomes certain
    and the released code returns NaN.
    Chance: paper: ln N + (N - 1) ln(N / (N - 1)), N the batch; released: the same with 2N - 1 for
    N.
    Relations: the first term alone is InfoNCE with N - 1 negatives, queries b and keys a; in the
    released form the first term alone has the value of `simclr`, with constant keys.
    Published: CIFAR-10, ResNet-18, kNN: 83.6 %; STL-10, kNN: 74.1 % (5,000 images), 81.6 %
    (105,000).
    """

    def __init__(self, options: SpreadOptions, seed: int) -> None:
        super().__init__()
        self.options, self.views = options, 2

    def loss(self, embedded: Embedded, batch: Batch, generator: torch.Generator) -> Out:
        a, b = embedded["z"], embedded["z1"]
        if self.options.loss == "released":
            formula, others = (
                losses.invariant_spread_released,
                distributed.others(torch.cat([a, b]).detach()),
            )
        else:
            formula, others = losses.invariant_spread, distributed.others(a)
        return two_views(formula(a, b, temperature=self.options.temperature, others=others), a, b)

    def chance(self, n: int) -> float | None:
        rows = n if self.options.loss == "paper" else 2 * n - 1
        return math.log(rows) + (rows - 1) * math.log(rows / (rows - 1)) if rows > 1 else None
