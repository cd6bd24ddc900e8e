"""The parametric softmax over instances, the baseline of Wu et al. 2018 (arXiv 1805.01978)."""

from __future__ import annotations

import math

import torch
from torch import nn

from ..data import Source, sampler
from ..encoders import AnyEncoder
from ..functional import losses
from .base import Batch, Embedded, Objective, Out
from .options import ExemplarOptions as ExemplarOptions


class Exemplar(Objective):
    """Every instance is its own class with a trained weight w_i.

    Formula: -log exp(w_i . v / tau) / sum_j exp(w_j . v / tau) (eq. 1; v is a unit row, w is free).
    When: to measure what the memory bank is worth; not for use.
    Good to know: the S x D weights are trained by the optimiser of the encoder and saved with the
    objective.
    Chance: ln S.
    Relations: `instdisc` with a memory in place of the trained weights; `nce` samples where this
    sums over all.
    Published: CIFAR-10, ResNet-18, kNN 63.0 %, against 80.8 % of the non-parametric softmax.
    """

    weight: nn.Parameter

    def __init__(self, options: ExemplarOptions, seed: int) -> None:
        super().__init__()
        self.options, self.seed = options, seed

    def attach(self, encoder: AnyEncoder, source: Source) -> None:
        generator = sampler.generator("exemplar", self.seed)
        rows = torch.randn(len(source), encoder.dim, generator=generator)
        self.weight = nn.Parameter((rows / math.sqrt(encoder.dim)).to(encoder.device))

    def loss(self, embedded: Embedded, batch: Batch, generator: torch.Generator) -> Out:
        z = embedded["z"]
        loss = losses.instance_softmax(
            z, self.weight, batch.index, temperature=self.options.temperature
        )
        return Out(loss, {}, {"z": z.detach(), "index": batch.index})

    def chance(self, n: int) -> float | None:
        return math.log(len(self.weight))
