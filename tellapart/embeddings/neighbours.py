"""Nearest neighbours by cosine similarity, and the similarity of random pairs.

Shapes: S vectors, Q queries, K neighbours, P pairs, D width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..functional import top_k
from ..functional.geometry import unit_rows

Array = np.ndarray[Any, Any]
PAIRS = 20_000  # random pairs to compare


def nearest(queries: Array, vectors: Array, k: int) -> tuple[Tensor, Tensor]:
    """Find the k vectors nearest to each query.

    Args:
        queries: (Q, D).
        vectors: (S, D).
        k: 1 to S.

    Returns:
        cosine similarity (Q, K) float32, best first, and row (Q, K) int64.
    """
    return top_k.top_k(_unit(queries), _unit(vectors), k)


def nearest_others(vectors: Array, k: int) -> tuple[Tensor, Tensor]:
    """Find the k nearest other vectors of each vector.

    Args:
        vectors: (S, D).
        k: neighbours; at most S - 1 are returned.

    Returns:
        cosine similarity (S, K) float32, best first, and row (S, K) int64.
    """
    return top_k.top_k_of_others(_unit(vectors), min(k, len(vectors) - 1))


@dataclass(frozen=True)
class RandomPairs:
    """Cosine similarities of random pairs of different items, the reference for "similar".

    Attributes:
        similarities: (P,) ascending; empty if there are fewer than two items.
    """

    similarities: Array

    @classmethod
    def of(cls, vectors: Array, *, seed: int = 0) -> RandomPairs:
        """Draw 20,000 random pairs, or take every pair if there are fewer.

        Args:
            vectors: (S, D), may be memory-mapped: only the drawn rows are read.
            seed: of the random draw.

        >>> RandomPairs.of(np.eye(3)).mean
        0.0
        """
        count = len(vectors)
        if count * (count - 1) // 2 <= PAIRS:
            first, second = np.triu_indices(count, 1)
        else:
            draw = np.random.default_rng(seed)
            first = draw.integers(0, count, PAIRS)
            second = (first + draw.integers(1, count, PAIRS)) % count
        rows, place = np.unique(np.concatenate([first, second]), return_inverse=True)
        unit = unit_rows(np.asarray(vectors[rows], np.float32))
        a, b = np.split(place, 2)
        products = [
            (unit[a[s : s + 4096]] * unit[b[s : s + 4096]]).sum(1) for s in range(0, len(a), 4096)
        ]
        return cls(np.sort(np.concatenate(products)) if products else np.zeros(0, np.float32))

    @property
    def mean(self) -> float | None:
        """The mean similarity, None without pairs."""
        return float(self.similarities.mean()) if len(self.similarities) else None

    @property
    def std(self) -> float | None:
        """The standard deviation of the similarity, None without pairs."""
        return float(self.similarities.std()) if len(self.similarities) else None

    def percentile(self, similarity: float) -> float | None:
        """The share of random pairs that are less similar, in percent; None without pairs."""
        if not len(self.similarities):
            return None
        below = int(np.searchsorted(self.similarities, similarity))
        return 100 * below / len(self.similarities)

    def to_dict(self) -> dict[str, float | None]:
        """Mean and standard deviation as plain values."""
        return {
            "mean": None if self.mean is None else round(self.mean, 4),
            "std": None if self.std is None else round(self.std, 4),
        }

    def __str__(self) -> str:
        """
        >>> str(RandomPairs(np.array([0.9, 0.92])))
        '0.91 ± 0.01'
        """
        return "-" if self.mean is None else f"{self.mean:.2f} ± {self.std:.2f}"


def _unit(vectors: Array) -> Tensor:
    """Return unit rows (S, D) float32, as a copy: the vectors may be a read-only memory map."""
    return unit_rows(torch.from_numpy(np.array(vectors, np.float32)))
