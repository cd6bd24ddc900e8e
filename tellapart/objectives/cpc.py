"""Contrastive predictive coding (van den Oord et al., 2018, arXiv 1807.03748)."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..encoders.encoder import full
from ..errors import ConfigError, DataError
from ..runtime import distributed
from ..runtime.console import plural
from .base import Batch, Embedded, Objective, Out
from .options import CPCOptions as CPCOptions

HEADS = 4  # of the predictor's attention


class CPC(Objective):
    """The context of a sequence identifies its next frames among other frames.

    Formula: -log exp(z_{t+k}' W_k c_t) / (the same + sum over M other frames z_j of
    exp(z_j' W_k c_t)), mean over k = 1 .. K and all t (eq. 3 and 4). The score is not normalised
    and has no temperature.
    When: sound, series of measurements, anything with an order; labels for single frames.
    Good to know: the features are the context c_t, frame by frame, or its mean over a sequence.
    Negatives of other sequences reward what tells sequences apart (the speaker) at once; negatives
    of the own sequence alone do not, yet the speaker stays readable from c_t (96.9 % in our study).
    The true frame is never among the negatives (in a widely used implementation it can be). The
    weights W_k are saved with the run, not with the encoder.
    Chance: ln(M + 1), up to the draws that hit the true frame and are left out.
    Relations: InfoNCE between a context and a future frame in place of two views. ln(M + 1) - loss
    is an estimate of their mutual information, not a bound: the M negatives are drawn with
    replacement from the few sequences of a batch, so they are not independent.
    Published: LibriSpeech, linear on c_t: phones 64.6 %, speakers 97.4 %; ImageNet, linear: 48.7 %
    top-1.
    """

    def __init__(self, options: CPCOptions, seed: int) -> None:
        super().__init__()
        self.options, self.seed, self.views = options, seed, 1
        self.needs_labels = options.uses_labels
        self.ahead: nn.Module = nn.Identity()
        self.attention: nn.Module = nn.Identity()

    def attach(self, encoder: Any, source: Any) -> None:
        """Make W_k for the widths of the encoder."""
        if not hasattr(encoder, "sequence"):
            raise ConfigError(
                "cpc needs frames in an order: audio, series, or images with --encoder patches"
            )
        options, width = self.options, encoder.context_width
        lengths = getattr(source, "lengths", None)  # images have none
        if lengths is not None and lengths.max() <= options.first * encoder.hop:
            raise DataError(
                f"the longest of the {source.many} has {lengths.max()} steps, too few to predict "
                f"{plural(options.first, 'frame')} of {encoder.hop} steps ahead; "
                "give smaller --strides"
            )
        like = next(encoder.parameters())
        if options.predictor == "transformer" and width % HEADS:
            raise ConfigError(
                f"--objective.predictor transformer needs --context-width divisible by {HEADS}, "
                f"got {width}"
            )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            self.ahead = nn.Linear(
                width, encoder.width * (options.steps - options.first + 1), bias=False
            ).to(like)
            if options.predictor == "transformer":
                layer = nn.TransformerEncoderLayer(
                    width, HEADS, 2 * width, 0.0, batch_first=True, norm_first=True
                )
                self.attention = layer.to(like)

    def embed(self, encoder: Any, batch: Batch) -> Embedded:
        """Frames and contexts z, c (N, G, T, .); G sequences per instance (columns of an image)."""
        z, c, count = encoder.sequence(batch.views[0])
        if z.ndim == 3:
            z, c = z[:, None], c[:, None]
        return {"frames": z, "context": c, "count": count}

    def loss(self, embedded: Embedded, batch: Batch, generator: torch.Generator) -> Out:
        options = self.options
        z, c = (full(embedded[name]) for name in ("frames", "context"))
        count = embedded["count"]
        n, groups, t, width = z.shape
        predicted = self._attended(c).reshape(n, groups * t, -1)
        predicted = self.ahead(predicted).view(n, groups, t, -1, width)
        candidates = distributed.gather(z.contiguous()).view(-1, width)
        drawn = self._draw(z, count, batch, generator)
        others = candidates[drawn]  # (N, M, F)
        place = torch.arange(n * groups * t, device=z.device).view(n, groups, t)
        place = place + distributed.rank() * n * groups * t
        losses, right, reached = [], [], []
        for i, k in enumerate(range(options.first, min(options.steps, t - 1) + 1)):
            ahead = predicted[:, :, : t - k, i]
            true = (ahead * z[:, :, k:]).sum(3).flatten(1)  # (N, G (T - k))
            false = torch.bmm(ahead.flatten(1, 2), others.transpose(1, 2))
            hit = drawn[:, None, :] == place[:, :, k:].flatten(1)[:, :, None]
            false = false.masked_fill(hit, -torch.inf)
            each = torch.logaddexp(false.logsumexp(2), true) - true
            inside = (
                (torch.arange(k, t, device=z.device) < count[:, None])[:, None]
                .expand(n, groups, -1)
                .flatten(1)
            )
            losses.append(distributed.mean_of_valid(each, inside))
            right.append(distributed.mean_of_valid((true > false.amax(2)).float(), inside).detach())
            reached.append(inside.sum())
        counted = (
            distributed.total(torch.stack(reached)) > 0
            if reached
            else torch.zeros(1, dtype=torch.bool)
        )
        if not bool(counted.any()):  # steps that no sequence of any rank reaches do not count
            raise DataError(
                f"no sequence of this batch has more than {options.first} frames; "
                "raise --batch-size"
            )
        pooled = F.normalize(c.mean((1, 2)), dim=1).detach()
        logs = {"accuracy": torch.stack(right)[counted].mean()}
        return Out(torch.stack(losses)[counted].mean(), logs, {"z": pooled})

    def chance(self, n: int) -> float | None:
        return math.log(self.options.negatives + 1)

    def _attended(self, c: Tensor) -> Tensor:
        """The context (N, G, T, H) as the predictor sees it: never of later frames."""
        if isinstance(self.attention, nn.Identity):
            return c
        mask = nn.Transformer.generate_square_subsequent_mask(
            c.shape[2], device=c.device, dtype=c.dtype
        )
        out: Tensor = self.attention(c.flatten(0, 1), src_mask=mask, is_causal=True)
        return out.view_as(c)

    def _draw(self, z: Tensor, count: Tensor, batch: Batch, generator: torch.Generator) -> Tensor:
        """(N, M) rows of each sequence's negatives among the frames of all processes."""
        n, groups, t, _ = z.shape
        counts, me = (
            distributed.gather(count),
            slice(distributed.rank() * n, (distributed.rank() + 1) * n),
        )
        owner = torch.arange(len(counts), device=z.device)
        allowed = torch.ones(len(owner), len(owner), dtype=torch.bool, device=z.device)
        if self.options.draw == "sequence":
            allowed = torch.eye(len(owner), dtype=torch.bool, device=z.device)
        elif self.needs_labels:
            if batch.label is None:
                raise DataError(
                    f"--objective.draw {self.options.draw} reads labels, and the batch has none"
                )
            label = distributed.gather(batch.label)
            allowed = (label[:, None] == label) & (label >= 0) | (owner[:, None] == owner)
        if self.options.draw.endswith("others"):
            allowed &= owner[:, None] != owner
            allowed[~allowed.any(1)] = True  # nobody else has this label: any frame will do
        weight = allowed.float() * counts  # of a whole sequence, then a frame of it
        chosen = torch.multinomial(
            weight, self.options.negatives, replacement=True, generator=generator
        )
        inside = torch.rand(chosen.shape, generator=generator, device=z.device)
        frame = (inside * (counts[chosen] * groups)).long()
        group, frame = frame % groups, frame // groups
        return ((chosen * groups + group) * t + frame)[me]
