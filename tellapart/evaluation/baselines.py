"""Baselines that are no encoders: pixels, log-mel bands, channel statistics, bags of words."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..data import ImageSource, Source, modality_of
from ..embeddings.embeddings import Embeddings
from ..encoders.inference import run_over
from ..encoders.sequence import mean_of

SIDE = 32  # larger views are averaged down to this many pixels a side
ELEMENTS = 200_000_000  # of a table of texts and words
Seen = Callable[[Any], Tensor]  # views -> vectors (N, width)


class CentredPixels:
    """Pixels of a view minus the mean picture of the training part.

    Args:
        train: the part whose mean is taken, from its evaluation views.
    """

    def __init__(self, train: ImageSource) -> None:
        self.mean = torch.zeros(())
        sums = run_over(lambda view, _: self(view).double().sum(0), train, batch=_batch(train))
        self.mean = torch.stack(sums).sum(0).float() / len(train)

    def __call__(self, view: Tensor) -> Tensor:
        """(N, width) from views (N, C, P, P) in [0, 1]."""
        if view.shape[-1] > SIDE:
            view = F.interpolate(view, size=(SIDE, SIDE), mode="area")
        return view.flatten(1) - self.mean

    def embed(self, source: ImageSource) -> Embeddings:
        """The pixels of every item."""
        return embed(self, source, "centred pixels")


class LogMel:
    """Log energy of 40 mel bands; the features are their mean over time.

    Windows of 25 ms, one frame every `hop` steps, each window centred on the middle of those steps;
    bands of equal width in mel (2595 log10(1 + f / 700)) up to half the rate; natural logarithm of
    the energy, 1e-6 added.

    Args:
        rate: sample rate in Hz.
        hop: steps from frame to frame; None: 10 ms.
    """

    def __init__(self, rate: int, hop: int | None = None) -> None:
        self.hop = hop or max(1, rate // 100)
        self.width = max(64, 1 << (rate // 40 - 1).bit_length())
        self.bank = _mel_bank(rate, self.width)

    def frames(self, view: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """(N, T, 40) and how many frames are no padding (N,), of sequences (N, 1, L)."""
        values, length = view["values"].mean(1), view["length"]
        count = max(1, values.shape[1] // self.hop)
        left = (self.width - self.hop) // 2
        right = max(0, (count - 1) * self.hop + self.width - left - values.shape[1])
        pieces = F.pad(values, (max(0, left), right))[:, max(0, -left) :].unfold(
            1, self.width, self.hop
        )[:, :count]
        energy = torch.fft.rfft(pieces * torch.hann_window(self.width)).abs().square()
        return (energy @ self.bank + 1e-6).log(), (length // self.hop).clamp(1, count)

    def __call__(self, view: dict[str, Tensor]) -> Tensor:
        """(N, 40): the mean over time."""
        return mean_of(*self.frames(view))


class ChannelStatistics:
    """Mean, standard deviation and mean step of every channel of a series: (N, 3 C)."""

    def __call__(self, view: dict[str, Tensor]) -> Tensor:
        values, length = view["values"], view["length"][:, None]
        inside = torch.arange(values.shape[2]) < length[:, :, None]
        mean = (values * inside).sum(2) / length
        spread = (((values - mean[:, :, None]) * inside).square().sum(2) / length).sqrt()
        step = (values.diff(dim=2).abs() * inside[:, :, 1:]).sum(2) / (length - 1).clamp_min(1)
        return torch.cat([mean, spread, step], 1)


class BagOfWords:
    """Word counts, weighted by rarity (TF-IDF) or not, over the 20,000 most frequent words.

    Unlike the other baselines it takes texts.

    Args:
        texts: of the training part.
        weighed: use TF-IDF.
    """

    def __init__(self, texts: list[str], *, weighed: bool = True) -> None:
        from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer

        kind = TfidfVectorizer if weighed else CountVectorizer
        most = max(1000, min(20_000, ELEMENTS // max(1, len(texts))))
        self.words = kind(max_features=most, token_pattern=r"(?u)\b\w+\b")
        try:
            self.words.fit(texts)
        except ValueError:  # no word in any of them: signs alone
            self.words = None

    def __call__(self, texts: list[str]) -> np.ndarray[Any, Any]:
        """(N, words) float32."""
        if self.words is None:
            return np.zeros((len(texts), 1), np.float32)
        counts: np.ndarray[Any, Any] = self.words.transform(texts).toarray().astype(np.float32)
        return counts


def embed(baseline: Seen, source: Source, name: str) -> Embeddings:
    """The vectors of every item by a baseline, from the evaluation view."""
    about = {"data": source.name, "fingerprint": source.fingerprint, "output": name}
    vectors = torch.cat(run_over(lambda view, _: baseline(view), source, batch=_batch(source)))
    return Embeddings(vectors, source.ids, source.labels, about)


def _batch(source: Source) -> int:
    return modality_of(source).baseline_batch


def _mel_bank(rate: int, width: int, bands: int = 40) -> Tensor:
    """(width / 2 + 1, bands): triangles that reach from one neighbour's centre to the other's."""
    top = 2595 * math.log10(1 + rate / 2 / 700)
    edges = 700 * (10 ** (torch.linspace(0, top, bands + 2) / 2595) - 1)
    line = torch.linspace(0, rate / 2, width // 2 + 1)[:, None]
    low, middle, high = edges[:-2], edges[1:-1], edges[2:]
    return torch.minimum((line - low) / (middle - low), (high - line) / (high - middle)).clamp_min(
        0
    )
