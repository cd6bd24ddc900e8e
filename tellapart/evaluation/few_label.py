"""What a handful of labels is worth on top of an encoder.

Everything is chosen inside the labelled items. Shapes: N test items.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from ..embeddings import Embeddings
from ..errors import require
from .knn import knn_labels, smallest_class
from .linear import classifier

Array = np.ndarray[Any, Any]
GRID = (0.01, 0.1, 1.0, 10.0)  # costs of the logistic regression
FOLDS = 5


def few_label(
    train: Embeddings, test: Embeddings, *, per_class: int = 10, draws: int = 5, seed: int = 0
) -> tuple[float, Array]:
    """Accuracy from `per_class` labels per class: the best of 1-NN and logistic regression over a fixed grid.

    Which of them is decided by stratified cross-validation inside the labelled items of each draw. Vectors are
    standardised by the whole training part, which uses no label.

    Args:
        per_class: labelled items of each class. draws: seeded class-balanced subsets to average over.
    Returns:
        Mean accuracy in [0, 1], and the share of draws (N,) that got each test item right.
    Raises:
        ConfigError: a class with fewer items than `per_class`, or per_class < 2.
    """
    train, test = train.labelled(), test.labelled()
    require(per_class >= 2, f"cross-validation inside the labelled items needs 2 per class, got {per_class}")
    smallest = smallest_class(train)
    require(smallest >= per_class, f"the smallest class has {smallest} items, fewer than {per_class}")
    mean, scale = train.vectors.mean(0), train.vectors.std(0) + 1e-6
    right = np.zeros(len(test))
    for draw in range(draws):
        rows = balanced(train, per_class, seed=seed + draw)
        chosen = train.take(rows)
        kind = _choose(chosen, mean, scale)
        right += _predict(kind, chosen, test.vectors, mean, scale) == test.labels
    right /= draws
    return float(right.mean()), right


def balanced(train: Embeddings, per_class: int, *, seed: int) -> Array:
    """Rows of `per_class` items of every class, drawn by a seeded generator."""
    random = np.random.default_rng(seed)
    labels = np.asarray(train.labels)
    return np.concatenate(
        [random.choice(np.flatnonzero(labels == c), per_class, replace=False) for c in np.unique(labels)]
    )


def _choose(chosen: Embeddings, mean: Array, scale: Array) -> float | None:
    """A cost of the logistic regression, or None for 1-NN: the best in cross-validation, the earlier on a tie."""
    from sklearn.model_selection import StratifiedKFold

    labels = np.asarray(chosen.labels)
    folds = StratifiedKFold(min(FOLDS, int(np.bincount(labels)[np.unique(labels)].min())), shuffle=True, random_state=0)
    best: tuple[float, float | None] = (-1.0, None)
    for kind in (None, *GRID):
        score = 0.0
        for fit, check in folds.split(labels, labels):
            found = _predict(kind, chosen.take(fit), chosen.vectors[check], mean, scale)
            score += float((found == labels[check]).sum())
        if score > best[0]:
            best = score, kind
    return best[1]


def _predict(cost: float | None, chosen: Embeddings, vectors: Array, mean: Array, scale: Array) -> Array:
    if cost is None:
        return knn_labels(chosen, vectors, k=1)[1]
    model = classifier("logistic", cost)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an iteration limit reached is part of the protocol
        model.fit((chosen.vectors - mean) / scale, chosen.labels)
    found: Array = model.predict((vectors - mean) / scale)
    return found
