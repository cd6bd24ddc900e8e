"""Supervised contrastive learning (Khosla et al., NeurIPS 2020, arXiv 2004.11362)."""

from __future__ import annotations

import math

import torch

from ..functional.label_losses import sup_con_anchors
from ..runtime import distributed
from .base import Batch, Embedded, Objective, Out, classes
from .options import SupConOptions as SupConOptions


class SupCon(Objective):
    """Every view of every image of the same class is a positive. Uses labels.

    Formula: L_out = -1/|P(i)| sum_{p in P(i)} log [exp(z_i . z_p / tau) /
    sum_{a != i} exp(z_i . z_a / tau)], mean over the anchors that have a positive; L_in has the
    mean over P(i) inside the logarithm (eq. 2, 3).
    When: you have labels, and want features for classifiers, nearest neighbours and few labels.
    Good to know: an item without a label (-1) is its own class, so that its views are its
    positives. Anchors without a positive are left out and counted (`without_positive` in the
    metrics). The authors' code multiplies the loss by tau / 0.07; this one does not. L_in is at
    most L_out, and gave worse features in the paper (67.4 against 78.7 %).
    Chance: ln(V N - 1), N the batch, V the views.
    Relations: with a label for every image it is `simclr`. With one positive and one negative it is
    softplus((d_p - d_n) / (2 tau)) of squared distances d: a soft triplet, whose first order at
    d_p = d_n is (d_p - d_n + 4 tau ln 2) / (4 tau), a margin of 2.77 tau (not the 2 tau of the
    paper's two-step expansion).
    Published: CIFAR-10, ResNet-50: 96.0 % (cross-entropy 95.0); ImageNet, ResNet-50: 78.7 %.
    """

    def __init__(self, options: SupConOptions, seed: int) -> None:
        super().__init__()
        self.options, self.views = options, options.views
        self.needs_labels = options.uses_labels

    def loss(self, embedded: Embedded, batch: Batch, generator: torch.Generator) -> Out:
        views = [z for name, z in embedded.items() if name.startswith("z")]
        names = classes(batch).repeat(len(views))
        rows = torch.cat(views)
        values, valid = sup_con_anchors(
            rows,
            names,
            temperature=self.options.temperature,
            reduction=self.options.reduction,
            others=distributed.others(rows),
            other_labels=distributed.others(names),
        )
        logs = {"without_positive": distributed.total((~valid).sum()).float()}
        if len(views) > 1:
            logs["positive"] = (views[0].detach() * views[1].detach()).sum(1).mean()
        return Out(distributed.mean_of_valid(values, valid), logs, {"z": views[0].detach()})

    def chance(self, n: int) -> float | None:
        return math.log(self.views * n - 1) if self.views * n > 1 else None
