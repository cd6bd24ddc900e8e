"""Retrieval by class: every item is a query among the others.

Shapes: N items, K neighbours, C classes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from ..embeddings.embeddings import Embeddings
from ..errors import DataError, require
from ..functional import top_k
from ..functional.geometry import unit_rows

Array = np.ndarray[Any, Any]
KS = (1, 2, 4, 8)
MOST = 10_000  # items: mAP@R needs as many neighbours as the largest class has items
STARTS = 3  # of k-means; the tightest clustering is scored


def retrieval(items: Embeddings, *, ks: tuple[int, ...] = KS, seed: int = 0) -> dict[str, float]:
    """Share of nearest items of the same class, and agreement of clusters with classes.

    R is the number of other items of a query's class. Items alone in their class are no queries,
    but can be retrieved.

    Args:
        items: labelled vectors, normalised here; of more than 10,000 as many are drawn.
        ks: of R@k, 1 or more.
        seed: of k-means.

    Returns:
        "R@k": share of queries with an item of their class among the k nearest;
        "R-precision": share of
        the class among the R nearest; "mAP@R": mean of the precision at every hit among the R
        nearest, over R; "NMI": of the labels with k-means of C clusters (mutual information over
        the mean entropy). All in [0, 1].

    Raises:
        DataError: no label, or no class with two items.
        ConfigError: k < 1.

    Source: Ye et al. 2019, sec. 4.2 (R@k, NMI); Musgrave et al. 2020 (arXiv 2003.08505), eq. 4 to
    6.

    >>> items = Embeddings(np.array([[1, 0], [1, 0.1], [0, 1], [0.1, 1]]), "abcd", [0, 0, 1, 1])
    >>> retrieval(items, ks=(1,))
    {'R@1': 1.0, 'R-precision': 1.0, 'mAP@R': 1.0, 'NMI': 1.0}
    """
    require(bool(ks) and min(ks) >= 1, f"k must be 1 or more, got {ks}")
    items = items.labelled().at_most(MOST)
    z = unit_rows(torch.from_numpy(np.array(items.vectors)))
    labels = torch.from_numpy(np.unique(items.known_labels, return_inverse=True)[1])
    relevant = torch.bincount(labels)[labels] - 1
    if not bool((relevant > 0).any()):
        raise DataError("retrieval needs a class with two items or more")
    wanted = min(len(z) - 1, max(*ks, int(relevant.max())))
    same = _hits(z, labels, wanted)[relevant > 0]
    relevant = relevant[relevant > 0]
    scores = {f"R@{k}": float(same[:, :k].any(1).double().mean()) for k in ks}
    within = torch.arange(wanted) < relevant[:, None]
    hit = (same & within).double()
    precision = hit.cumsum(1) / torch.arange(1, wanted + 1)
    scores["R-precision"] = float((hit.sum(1) / relevant).mean())
    scores["mAP@R"] = float(((precision * hit).sum(1) / relevant).mean())
    return scores | {"NMI": nmi(items, seed=seed)}


def nmi(items: Embeddings, *, seed: int = 0) -> float:
    """Normalised mutual information of the labels with k-means clusters, on unit vectors.

    Args:
        items: labelled vectors; there are as many clusters as classes.
        seed: of k-means.
    """
    from sklearn.cluster import KMeans
    from sklearn.metrics import normalized_mutual_info_score

    z = unit_rows(torch.from_numpy(np.array(items.vectors))).numpy()
    clusters = len(np.unique(items.known_labels))
    cluster = KMeans(clusters, n_init=STARTS, random_state=seed).fit_predict(z)
    return float(normalized_mutual_info_score(items.known_labels, cluster))


def _hits(z: torch.Tensor, labels: torch.Tensor, k: int) -> torch.Tensor:
    """(N, K) bool: which of the k nearest others, best first, are of the item's class."""
    return labels[top_k.top_k_of_others(z, k)[1]] == labels[:, None]
