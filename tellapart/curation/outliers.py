"""Outliers, labels that do not fit, and similar pairs, all by vectors.

Shapes: S items, D width, K neighbours.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from ..embeddings.embeddings import Embeddings
from ..embeddings.neighbours import nearest_others

Array = np.ndarray[Any, Any]
NEIGHBOURS, CLOSEST = 20, 10  # K: of labels; of outliers and pairs


def neighbours(embeddings: Embeddings, *, k: int = NEIGHBOURS) -> tuple[Tensor, Tensor]:
    """Similarities and rows (S, K) of the nearest others of each item, which all below reads."""
    return nearest_others(embeddings.vectors, k)


def outlier_scores(similarity: Tensor) -> Array:
    """Distance of each item from the others: 1 minus the mean cosine to its ten nearest others.

    Args:
        similarity: (S, K), most similar first; of fewer than ten all count.

    Returns:
        (S,) float32 in [0, 2]; 0 where the others coincide with it.

    >>> e = Embeddings([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]], "abc")
    >>> outlier_scores(neighbours(e, k=1)[0]).round(3).tolist()
    [0.0, 0.0, 1.0]
    """
    scores: Array = (1 - similarity[:, :CLOSEST].mean(1)).clamp(0, 2).numpy()
    return scores


def suspect_labels(
    labels: Array | None, near: Tensor, *, share: float = 0.8
) -> list[dict[str, Any]]:
    """Items whose neighbours agree on another label than their own: candidates for review.

    Args:
        labels: (S,), -1 = none. Neighbours without a label have no vote; half of them must have
        one.
        near: (S, K) rows.
        share: of the votes that must go to one other label, in (0.5, 1].

    Returns:
        The most certain first: {"row", "label", "neighbours" (the label they share), "share"}; []
        without labels.
    """
    if labels is None or near.shape[1] < 3 or (labels >= 0).sum() < 3:
        return []
    votes = np.zeros((len(labels), int(labels.max()) + 2), np.int32)
    np.add.at(
        votes, (np.arange(len(labels))[:, None], labels[near.numpy()]), 1
    )  # -1 counts in the last column
    votes = votes[:, :-1]
    voters = votes.sum(1)
    best, agreed = votes.argmax(1), votes.max(1) / voters.clip(1)
    odd = np.flatnonzero(
        (labels >= 0) & (best != labels) & (agreed >= share) & (2 * voters >= near.shape[1])
    )
    return [
        {
            "row": int(i),
            "label": int(labels[i]),
            "neighbours": int(best[i]),
            "share": round(float(agreed[i]), 3),
        }
        for i in odd[np.argsort(-agreed[odd], kind="stable")]
    ]


def alike_pairs(
    similarity: Tensor, near: Tensor, *, above: float = 0.98
) -> list[tuple[int, int, float]]:
    """Pairs of items whose cosine similarity is at least `above`.

    Args:
        similarity: (S, K) of the nearest others; the first ten of each item count.
        near: (S, K) rows.
        above: the least similarity, in [-1, 1].

    Returns:
        (row, row, similarity), the smaller row first, most similar pairs first.
    """
    first, place = np.nonzero(similarity[:, :CLOSEST].numpy() >= above)
    found = {
        (min(a, b), max(a, b)): s
        for a, b, s in zip(
            first.tolist(),
            near[first, place].tolist(),
            similarity[first, place].tolist(),
            strict=True,
        )
    }
    return sorted(((a, b, s) for (a, b), s in found.items()), key=lambda pair: (-pair[2], pair[:2]))


def groups(pairs: list[tuple[int, int]], count: int) -> list[list[int]]:
    """Connected components of pairs, each in order, the largest first; single rows are left out.

    Args:
        pairs: of rows.
        count: S.

    >>> groups([(0, 2), (2, 3)], 5)
    [[0, 2, 3]]
    """
    from scipy.sparse import coo_array  # slow to import
    from scipy.sparse.csgraph import connected_components

    if not pairs:
        return []
    a, b = np.array(pairs, np.int64).T
    _, member = connected_components(
        coo_array((np.ones(len(a)), (a, b)), shape=(count, count)), directed=False
    )
    order = np.argsort(member, kind="stable")
    cuts = np.flatnonzero(np.diff(member[order])) + 1
    found = [part.tolist() for part in np.split(order, cuts) if len(part) > 1]
    return sorted(found, key=lambda group: (-len(group), group[0]))
