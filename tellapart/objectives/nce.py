"""Noise-contrastive estimation over a vocabulary (Gutmann & Hyvarinen 2010; Mnih & Teh 2012)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ..data import Source, sampler
from ..encoders import AnyEncoder
from ..errors import DataError
from ..functional import losses
from .alias_table import AliasTable
from .base import Batch, Embedded, Objective, Out
from .options import NCEOptions as NCEOptions


class NCE(Objective):
    """Tell the true word from k noise words: a normalised model without a sum over the vocabulary.

    Formula: -log [u / (u + k q)] - sum over k draws from q of log [k q / (u + k q)],
    u = exp(w . z / tau) / Z, with a trained row w for each word, q the noise distribution, ln Z
    learned or fixed.
    When: a vocabulary too large for its softmax; or to see what `instdisc` estimates, and with what
    error.
    Good to know: the gradient tends to that of maximum likelihood as k grows, with an error of
    order 1/k. Noise is drawn by an alias table in constant time, for any distribution. A noise word
    may be the true word, as in the formula.
    Chance: the expected loss if all rows are equal, u = exp(1/tau) / Z for every word. With a fixed
    Z it is computed at that Z; with a learned Z at the Z of least loss, which a collapsed training
    would learn: (k + 1) ln(k + 1) - k ln k at Z = S exp(1/tau) for uniform noise.
    Relations: `instdisc --objective.loss nce` is this formula with memory rows for words;
    `exemplar` is the exact softmax.
    Published: Penn Treebank, k = 25 matches maximum likelihood (Mnih & Teh 2012).
    """

    words: nn.Parameter
    log_z: Tensor
    noise: AliasTable
    frequency: Tensor  # of each word in the source

    def __init__(self, options: NCEOptions, seed: int) -> None:
        super().__init__()
        self.options, self.seed = options, seed
        self.needs_labels = options.uses_labels

    def attach(self, encoder: AnyEncoder, source: Source) -> None:
        counts = self._counts(source)
        rows = torch.randn(
            len(counts), encoder.dim, generator=sampler.generator("words", self.seed)
        )
        self.words = nn.Parameter(nn.functional.normalize(rows, dim=1))
        start = self.options.log_z
        if start is None:
            start = math.log(len(counts)) + 1 / (2 * encoder.dim * self.options.temperature**2)
        log_z = torch.tensor(start)
        if self.options.z == "learned":
            self.log_z = nn.Parameter(log_z)
        else:
            self.register_buffer("log_z", log_z)
        weights = (
            torch.ones_like(counts)
            if self.options.noise == "uniform"
            else counts.pow(self.options.power)
        )
        self.noise = AliasTable(weights)
        self.register_buffer("frequency", counts / counts.sum(), persistent=False)
        self.to(encoder.device)

    def loss(self, embedded: Embedded, batch: Batch, generator: torch.Generator) -> Out:
        z = embedded["z"]
        word = batch.index
        if self.needs_labels:
            if batch.label is None:
                raise DataError(
                    "--objective.vocabulary classes needs labels, and the batch has none"
                )
            word = batch.label
        loss = losses.nce(
            z,
            self.words,
            word,
            self.noise.draw((self.options.negatives,), generator),
            temperature=self.options.temperature,
            log_z=self.log_z,
            log_noise=self.noise.log_probability,
        )
        return Out(loss, {"log_z": self.log_z.detach().clone()}, {"z": z.detach()})

    def chance(self, n: int) -> float | None:
        fixed = 1 / self.options.temperature - float(self.log_z.detach())
        return losses.nce_collapse(
            self.options.negatives,
            fixed if self.options.z == "fixed" else None,
            self.noise.log_probability,
            self.frequency,
        )

    def _counts(self, source: Source) -> Tensor:
        """(S,) how often each word occurs in the source."""
        if not self.needs_labels:
            return torch.ones(len(source))
        if source.labels is None:
            raise DataError(
                f"{source.name} has no labels; --objective.vocabulary instances needs none"
            )
        missing = [name for name, label in zip(source.ids, source.labels, strict=True) if label < 0]
        if missing:
            raise DataError(
                f"items without a label in {source.name}: {len(missing)} (first: {missing[0]}); "
                "--objective.vocabulary classes needs a label on each"
            )
        return torch.bincount(torch.from_numpy(source.labels)).double()
