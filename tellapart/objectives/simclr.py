"""SimCLR v1 and v2 (Chen et al., ICML 2020, arXiv 2002.05709; NeurIPS 2020, arXiv 2006.10029)."""

from __future__ import annotations

import math

import torch

from ..functional import losses
from ..runtime import distributed
from .base import Batch, Embedded, Objective, Out, two_views
from .options import SimCLROptions as SimCLROptions


class SimCLR(Objective):
    """Two views of an image are matched among all views of the batch.

    Formula: -log exp(s_ij / tau) / sum_{k != i} exp(s_ik / tau) for each of the 2N views i, j its
    other view (NT-Xent, eq. 1); mean over the 2N.
    When: a good first choice for images; `--micro-batch` makes any batch fit into memory.
    Good to know: use the features, not the embedding that the loss sees (v1, sec. 4.2). Cropping
    and colour distortion must act together, or crops are matched by their colour histograms. The
    authors' code computes twice this loss. v2 differs by a deeper head (`--head mlp3-bn`), a larger
    network with selective kernels (`--encoder timm/skresnet50`) and distillation; its preset is
    `simclr_v2_imagenet`. ln N - loss is a lower bound of the mutual information of two views.
    Chance: ln(2N - 1), N the batch.
    Relations: `supcon` with a label for every image has the same value; in one direction, with the
    other view of the N - 1 other images as negatives, it is InfoNCE, whose value is lower.
    Published: CIFAR-10, ResNet-50, linear: 94.0 % (v1, appendix B.9); ImageNet, ResNet-50, linear:
    69.3 % (v1), 71.7 % (v2).
    """

    def __init__(self, options: SimCLROptions, seed: int) -> None:
        super().__init__()
        self.options, self.views = options, 2

    def loss(self, embedded: Embedded, batch: Batch, generator: torch.Generator) -> Out:
        a, b = embedded["z"], embedded["z1"]
        others = distributed.others(torch.cat([a, b]))
        loss = losses.nt_xent(a, b, temperature=self.options.temperature, others=others)
        return two_views(loss, a, b)

    def chance(self, n: int) -> float | None:
        return math.log(2 * n - 1)

    def information_limit(self, n: int) -> float | None:
        return math.log(n)
