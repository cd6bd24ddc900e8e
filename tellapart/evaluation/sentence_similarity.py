"""Semantic textual similarity (STS): Spearman correlation with human scores; retrieval of partners.

Evaluators take arrays, never models.

Shapes: P pairs, N sentences, D width.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from ..data.sts import ScoredPairs
from ..functional import geometry
from . import bootstrap
from .bootstrap import Score
from .intervals import Intervals, analytic

Array = np.ndarray[Any, Any]
ALIKE = 0.8  # of the scale: `alignment` is over pairs above it (STS-B: above 4 of 5)
KS = (1, 5, 10)
MOST = 2000  # texts that uniformity is computed on


def sts(
    rows: Mapping[str, Array], pairs: ScoredPairs, *, baselines: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Spearman correlation of cosine and score over all pairs of all subsets ("all" setting).

    Args:
        rows: name -> the vectors (texts, D) of `pairs.texts`.
        pairs: sentences with human scores.
        baselines: the names of the rows that the others are compared with.

    Returns:
        {"scores": name -> value and 95 % bootstrap interval over pairs, "comparisons": name ->
        baseline -> difference and its paired interval, "measures": name -> alignment of pairs
        above 0.8 of the scale, and uniformity}.

    Source: Gao et al. 2021 (arXiv 2104.08821), sec. 5 and appendix B.
    """
    score = np.asarray(pairs.score, float)
    cosines = {name: cosine(vectors, pairs) for name, vectors in rows.items()}
    drawn = {name: _resampled(c, score) for name, c in cosines.items()}
    scores = {
        name: Score(spearman(c, score), *np.percentile(drawn[name], [2.5, 97.5]).tolist())
        for name, c in cosines.items()
    }
    comparisons = {
        name: {b: _difference(scores[name], drawn[name], scores[b], drawn[b]) for b in baselines}
        for name in rows
        if name not in baselines
    }
    alike = np.flatnonzero(score > ALIKE * score.max())
    measures = {name: _measures(vectors, pairs, alike) for name, vectors in rows.items()}
    return {"scores": scores, "comparisons": comparisons, "measures": measures}


def cosine(vectors: Array, pairs: ScoredPairs) -> Array:
    """The cosine (P,) of the two texts of each pair; 0 where one vector is zero.

    Args:
        vectors: (texts, D).
        pairs: which texts belong together.
    """
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    similarity: Array = (unit[pairs.first] * unit[pairs.second]).sum(1)
    return similarity


def spearman(a: Array, b: Array) -> float:
    """Spearman rank correlation, with mean ranks for ties; 0 where one side is constant.

    Args:
        a: (P,) values.
        b: (P,) values.

    >>> spearman(np.array([1.0, 2.0, 3.0]), np.array([1.0, 4.0, 9.0]))
    1.0
    """
    from scipy.stats import rankdata

    x, y = rankdata(a), rankdata(b)
    x, y = x - x.mean(), y - y.mean()
    scale = np.sqrt((x * x).sum() * (y * y).sum())
    return float((x * y).sum() / scale) if scale else 0.0


def partner(
    first: Array, second: Array, *, texts: tuple[Sequence[str], Sequence[str]] | None = None
) -> dict[str, Array]:
    """Whether each sentence's partner is among its K nearest, and the reciprocal rank.

    Equal texts are the same item: any row whose text is that of the partner is the partner. So a
    question that finds the answer it shares with other questions has rank 1. Ties with other
    items count half.

    Args:
        first: (N, D) vectors of the first sentences.
        second: (N, D); row i is the partner of row i of `first`.
        texts: the first and the second sentences; None: all partners are different items.

    Returns:
        {"R@1", "R@5", "R@10", "MRR"}, each (N,); R@K is 0 or 1, MRR lies in (0, 1].
    """
    count = len(first)
    same = np.arange(count) if texts is None else _numbered(texts[1])
    items, representative = np.unique(same, return_index=True)
    place = np.searchsorted(items, same)
    a, b = (
        v / np.maximum(np.linalg.norm(v, axis=1, keepdims=True), 1e-12)
        for v in (first, second[representative])
    )
    rank = np.empty(count)
    for start in range(0, count, 1024):
        own_place = place[start : start + 1024]
        similarity = a[start : start + 1024] @ b.T
        own = similarity[np.arange(len(similarity)), own_place][:, None]
        ties = (similarity == own).sum(1) - 1
        rank[start : start + len(similarity)] = (similarity > own).sum(1) + ties / 2 + 1
    return {f"R@{k}": (rank <= k).astype(float) for k in KS} | {"MRR": 1 / rank}


def partners(
    rows: Mapping[str, tuple[Array, Array]],
    baselines: tuple[str, ...],
    *,
    texts: tuple[Sequence[str], Sequence[str]] | None = None,
    measure: Intervals | None = None,
) -> dict[str, Any]:
    """`partner` of every row with intervals, compared with the baselines.

    Args:
        rows: name -> vectors of the first and of the second sentences.
        baselines: the names of the rows to compare with.
        texts: the first and the second sentences. None: partners whose vectors are equal in every
            row are the same item.
        measure: the intervals of the protocol; by default those of eval-v2.

    Returns:
        {"scores": row -> column -> Score, "comparisons": [Comparison]}.
    """
    measure = measure or analytic()
    if texts is None:
        keys = [b"".join(parts) for parts in zip(*map(_row_keys, rows.values()), strict=True)]
        texts = ([], [key.hex() for key in keys])
    right = {name: partner(*sides, texts=texts) for name, sides in rows.items()}
    return {
        "scores": {
            name: {c: measure.score(r, "", math.inf) for c, r in columns.items()}
            for name, columns in right.items()
        },
        "comparisons": [
            measure.compare(column, (name, r), (b, right[b][column]))
            for name, columns in right.items()
            if name not in baselines
            for column, r in columns.items()
            for b in baselines
        ],
    }


def _numbered(texts: Sequence[str]) -> Array:
    """(N,) equal numbers for equal texts."""
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(text, len(numbers)) for text in texts])


def _row_keys(sides: tuple[Array, Array]) -> list[bytes]:
    return [np.ascontiguousarray(row).tobytes() for row in sides[1]]


def _resampled(cosines: Array, score: Array) -> Array:
    """(B,) Spearman correlation of bootstrap resamples of the pairs, the same for every row."""
    random = np.random.default_rng(0)
    draws = (random.integers(0, len(score), len(score)) for _ in range(bootstrap.RESAMPLES))
    return np.array([spearman(cosines[d], score[d]) for d in draws])


def _difference(
    score: Score, drawn: Array, baseline: Score, drawn_baseline: Array
) -> dict[str, float]:
    low, high = np.percentile(drawn - drawn_baseline, [2.5, 97.5])
    return {"difference": score.value - baseline.value, "low": float(low), "high": float(high)}


def _measures(vectors: Array, pairs: ScoredPairs, alike: Array) -> dict[str, float]:
    z = torch.from_numpy(np.asarray(vectors, np.float32))
    z = geometry.unit_rows(z)
    measures = {"uniformity": float(geometry.uniformity(z[:MOST]))}
    if len(alike):
        first, second = (torch.tensor(side)[alike] for side in (pairs.first, pairs.second))
        measures["alignment"] = float(geometry.alignment(z[first], z[second]))
    return measures
