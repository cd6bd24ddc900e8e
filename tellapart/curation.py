"""What vectors say about the items behind them: outliers, labels that do not fit, pairs that are nearly one.

Shapes: S items, D width, K neighbours.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from . import nearest
from .embeddings import Embeddings

Array = np.ndarray[Any, Any]


def unit_rows(embeddings: Embeddings) -> torch.Tensor:
    """(S, D) float32 of length one."""
    return F.normalize(torch.from_numpy(np.array(embeddings.vectors)), dim=1)


def outlier_scores(embeddings: Embeddings, *, k: int = 10) -> Array:
    """How far each item lies from the others: 1 minus the mean cosine similarity to its k nearest others.

    Args: k: neighbours, at most S - 1 of them are used.
    Returns:
        (S,) float32 in [0, 2]; 0 where k others coincide with it.

    >>> e = Embeddings([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]], "abc")
    >>> outlier_scores(e, k=1).round(3).tolist()
    [0.0, 0.0, 1.0]
    """
    similarity, _ = nearest.top_k_of_others(unit_rows(embeddings), min(k, len(embeddings) - 1))
    scores: Array = (1 - similarity.mean(1)).clamp(0, 2).numpy()
    return scores


def suspect_labels(embeddings: Embeddings, *, k: int = 20, share: float = 0.8) -> list[dict[str, Any]]:
    """Items whose neighbours agree on another label than their own: candidates for a look, not verdicts.

    Args:
        k: neighbours, the item itself left out. share: of the neighbours that must carry one other label, in (0.5, 1].
    Returns:
        The most certain first: {"row", "label", "neighbours" (the label they share), "share"}; [] without labels.
    """
    labels = embeddings.labels
    if labels is None or (labels >= 0).sum() < 3:
        return []
    known = np.flatnonzero(labels >= 0)
    own = labels[known]
    _, row = nearest.top_k_of_others(unit_rows(embeddings.take(known)), min(k, len(known) - 1))
    votes = np.zeros((len(known), int(own.max()) + 1), np.int32)
    np.add.at(votes, (np.arange(len(known))[:, None], own[row.numpy()]), 1)
    best, agreed = votes.argmax(1), votes.max(1) / row.shape[1]
    odd = np.flatnonzero((best != own) & (agreed >= share))
    return [
        {"row": int(known[i]), "label": int(own[i]), "neighbours": int(best[i]), "share": round(float(agreed[i]), 3)}
        for i in odd[np.argsort(-agreed[odd], kind="stable")]
    ]


def alike_pairs(embeddings: Embeddings, *, above: float = 0.98, k: int = 10) -> list[tuple[int, int, float]]:
    """Pairs of items whose cosine similarity is at least `above`, among the k nearest others of each.

    Returns:
        (row, row, similarity) with the smaller row first, the most alike first.
    """
    similarity, row = nearest.top_k_of_others(unit_rows(embeddings), min(k, len(embeddings) - 1))
    first, place = np.nonzero(similarity.numpy() >= above)
    found = {
        (min(a, b), max(a, b)): s
        for a, b, s in zip(first.tolist(), row[first, place].tolist(), similarity[first, place].tolist(), strict=True)
    }
    return sorted(((a, b, s) for (a, b), s in found.items()), key=lambda pair: (-pair[2], pair[:2]))


def groups(pairs: list[tuple[int, int]], count: int) -> list[list[int]]:
    """Rows connected by pairs, each group in order, the largest group first; rows alone are left out.

    >>> groups([(0, 2), (2, 3)], 5)
    [[0, 2, 3]]
    """
    from scipy.sparse import coo_array  # slow to import
    from scipy.sparse.csgraph import connected_components

    if not pairs:
        return []
    a, b = np.array(pairs, np.int64).T
    _, member = connected_components(coo_array((np.ones(len(a)), (a, b)), shape=(count, count)), directed=False)
    order = np.argsort(member, kind="stable")
    cuts = np.flatnonzero(np.diff(member[order])) + 1
    found = [part.tolist() for part in np.split(order, cuts) if len(part) > 1]
    return sorted(found, key=lambda group: (-len(group), group[0]))
