"""Weighted k nearest neighbours: a classifier without training.

Shapes: S training items, N test items, K neighbours, C classes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from ..embeddings.embeddings import Embeddings
from ..errors import DataError, require
from ..functional import tiled, top_k
from ..functional.geometry import unit_rows

Array = np.ndarray[Any, Any]
LEAVE_ONE_OUT = 2_000  # training items that are classified to choose k


def knn(
    train: Embeddings,
    test: Embeddings,
    *,
    k: int | tuple[int, ...] = 200,
    temperature: float = 0.07,
) -> dict[str, float]:
    """Accuracy of the weighted vote of the k nearest neighbours, for every k in one pass.

    Class c gets w_c = sum over the neighbours of class c of exp(cos / temperature). Vectors are
    normalised here; a k above the number of training items takes all of them; items without a label
    are left out.

    Args:
        train: labelled items that vote.
        test: labelled items that are classified.
        k: one or several numbers of neighbours, 1 or more.
        temperature: > 0.

    Returns:
        {"knn@200": accuracy in [0, 1], ...}.

    Raises:
        ConfigError: k < 1, temperature <= 0 or widths that differ.
        DataError: no labels.

    Source: Wu et al. 2018, sec. 3.4 (k = 200, temperature 0.07).

    >>> train = Embeddings(np.eye(3), "abc", [0, 1, 2])
    >>> knn(train, train, k=1)
    {'knn@1': 1.0}
    """
    test = test.labelled()
    predicted = knn_labels(train, test.vectors, k=k, temperature=temperature)
    return {f"knn@{n}": float((p == test.labels).mean()) for n, p in predicted.items()}


def knn_labels(
    train: Embeddings, vectors: Array, *, k: int | tuple[int, ...] = 200, temperature: float = 0.07
) -> dict[int, Array]:
    """The predicted label (N,) of every vector, for each k.

    Args:
        train: labelled items that vote.
        vectors: (N, D).
        k: one or several numbers of neighbours, 1 or more.
        temperature: > 0.
    """
    train = train.labelled()
    ks = _checked(k, temperature)
    rows, queries = _unit(train.vectors), _unit(vectors)
    require(
        rows.shape[1] == queries.shape[1], f"widths differ: {rows.shape[1]} and {queries.shape[1]}"
    )
    similarity, neighbour = top_k.top_k(queries, rows, min(max(ks), len(rows)))
    return _vote(train, similarity, neighbour, ks, temperature)


def leave_one_out_labels(
    items: Embeddings,
    *,
    k: int | tuple[int, ...] = 200,
    temperature: float = 0.07,
    rows: Array | None = None,
) -> dict[int, Array]:
    """The label that the other items give each item, for each k.

    Args:
        items: all labelled.
        k: one or several numbers of neighbours, 1 or more.
        temperature: > 0.
        rows: the items to classify; None: all.

    Raises:
        DataError: fewer than two items.
    """
    if len(items) < 2:
        raise DataError("leave-one-out needs two labelled items or more")
    ks = _checked(k, temperature)
    of = None if rows is None else torch.from_numpy(rows)
    similarity, neighbour = top_k.top_k_of_others(
        _unit(items.vectors), min(max(ks), len(items) - 1), of
    )
    return _vote(items, similarity, neighbour, ks, temperature)


def best_k(train: Embeddings, ks: tuple[int, ...], *, temperature: float = 0.07) -> int:
    """The k of best leave-one-out accuracy on the training part, the smaller on a tie.

    Args:
        train: labelled items; up to 2,000 of them are classified by the others.
        ks: the candidates.
        temperature: > 0.
    """
    train = train.labelled()
    ks = tuple(k for k in _checked(ks, temperature) if k < len(train)) or (1,)
    chosen = np.sort(np.random.default_rng(0).permutation(len(train))[:LEAVE_ONE_OUT])
    predicted = leave_one_out_labels(train, k=ks, temperature=temperature, rows=chosen)
    labels = train.known_labels[chosen]
    return max(ks, key=lambda k: ((predicted[k] == labels).mean(), -k))


def smallest_class(train: Embeddings) -> int:
    """The size of the smallest class that occurs: a larger k must vote for other classes too.

    Args:
        train: labelled items.
    """
    return int(np.unique(train.labelled().known_labels, return_counts=True)[1].min())


def _vote(
    train: Embeddings,
    similarity: torch.Tensor,
    neighbour: torch.Tensor,
    ks: tuple[int, ...],
    temperature: float,
) -> dict[int, Array]:
    names, place = np.unique(train.known_labels, return_inverse=True)  # labels may be any numbers
    labels, classes = torch.from_numpy(place)[neighbour], len(names)
    weight = ((similarity - similarity[:, :1]) / temperature).exp().double()
    votes = torch.zeros(len(labels), classes, dtype=torch.float64)
    predicted, done = {}, 0
    for k in sorted(ks):
        votes.scatter_add_(1, labels[:, done:k], weight[:, done:k])
        done = min(k, labels.shape[1])
        predicted[k] = names[votes.argmax(1).numpy()]
    return predicted


def _checked(k: int | tuple[int, ...], temperature: float) -> tuple[int, ...]:
    tiled.check_temperature(temperature)
    ks = (k,) if isinstance(k, int) else tuple(k)
    require(bool(ks) and all(n >= 1 for n in ks), f"k must be 1 or more, got {k}")
    return ks


def _unit(vectors: Array) -> torch.Tensor:
    return unit_rows(torch.from_numpy(np.ascontiguousarray(vectors)))
