"""How well cosines of sentences rank as people do (STS), and whether a sentence finds its partner.

Evaluators take arrays, never models. Shapes: P pairs, N sentences, D width.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from ..data.sts import ScoredPairs
from ..functional import geometry
from . import bootstrap
from .bootstrap import Score

Array = np.ndarray[Any, Any]
ALIKE = (
    0.8  # of the scale: pairs above it are taken for the same in `alignment` (STS-B: above 4 of 5)
)
KS = (1, 5, 10)
MOST = 2000  # texts that uniformity is taken on


def sts(
    rows: Mapping[str, Array], pairs: ScoredPairs, *, baselines: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Spearman's correlation of cosine and score over all pairs of all subsets together ("all", without a regressor).

    Args:
        rows: name -> the vectors (texts, D) of `pairs.texts`.
    Returns:
        {"scores": name -> value and 95 % bootstrap interval over pairs, "comparisons": name -> baseline -> difference
        and its paired interval, "measures": name -> alignment of pairs above 0.8 of the scale, uniformity}.
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
    """(P,) the cosine of the two texts of each pair; 0 where one of them is the zero vector."""
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    found: Array = (unit[pairs.first] * unit[pairs.second]).sum(1)
    return found


def spearman(a: Array, b: Array) -> float:
    """Rank correlation with mean ranks of ties; 0 where one side is constant.

    >>> spearman(np.array([1.0, 2.0, 3.0]), np.array([1.0, 4.0, 9.0]))
    1.0
    """
    from scipy.stats import rankdata

    x, y = rankdata(a), rankdata(b)
    x, y = x - x.mean(), y - y.mean()
    scale = np.sqrt((x * x).sum() * (y * y).sum())
    return float((x * y).sum() / scale) if scale else 0.0


def partner(first: Array, second: Array) -> dict[str, Array]:
    """Whether each sentence's partner is among its K nearest (N,) in {0, 1}, and the reciprocal rank: "R@1", "MRR".

    Args: first, second: (N, D), row i of one is the partner of row i of the other.
    """
    a, b = (
        v / np.maximum(np.linalg.norm(v, axis=1, keepdims=True), 1e-12) for v in (first, second)
    )
    rank = np.empty(len(a))
    for start in range(0, len(a), 1024):
        near = a[start : start + 1024] @ b.T
        own = near[np.arange(len(near)), np.arange(start, start + len(near))]
        rank[start : start + len(near)] = (
            (near > own[:, None]).sum(1) + ((near == own[:, None]).sum(1) - 1) / 2 + 1
        )
    return {f"R@{k}": (rank <= k).astype(float) for k in KS} | {"MRR": 1 / rank}


def partners(rows: Mapping[str, tuple[Array, Array]], baselines: tuple[str, ...]) -> dict[str, Any]:
    """`partner` of every row with intervals, and R@1 and the others compared with the baselines."""
    right = {name: partner(*sides) for name, sides in rows.items()}
    weights = bootstrap.resamples(len(next(iter(rows.values()))[0]))
    return {
        "scores": {
            name: {c: bootstrap.score(r, weights) for c, r in columns.items()}
            for name, columns in right.items()
        },
        "comparisons": [
            bootstrap.compare(column, (name, r), (b, right[b][column]), weights)
            for name, columns in right.items()
            if name not in baselines
            for column, r in columns.items()
            for b in baselines
        ],
    }


def _resampled(cosines: Array, score: Array) -> Array:
    """(B,) Spearman's correlation of bootstrap resamples of the pairs, the same resamples whatever the row."""
    random = np.random.default_rng(0)
    draws = (random.integers(0, len(score), len(score)) for _ in range(bootstrap.RESAMPLES))
    return np.array([spearman(cosines[d], score[d]) for d in draws])


def _difference(ours: Score, mine: Array, theirs: Score, other: Array) -> dict[str, float]:
    low, high = np.percentile(mine - other, [2.5, 97.5])
    return {"difference": ours.value - theirs.value, "low": float(low), "high": float(high)}


def _measures(vectors: Array, pairs: ScoredPairs, alike: Array) -> dict[str, float]:
    z = torch.from_numpy(np.asarray(vectors, np.float32))
    z = torch.nn.functional.normalize(z, dim=1)
    found = {"uniformity": float(geometry.uniformity(z[:MOST]))}
    if len(alike):
        first, second = (torch.tensor(side)[alike] for side in (pairs.first, pairs.second))
        found["alignment"] = float(geometry.alignment(z[first], z[second]))
    return found
