"""Accuracy from a few labels on top of an encoder. All choices are made inside the labelled items.

Shapes: N test items.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..embeddings.embeddings import Embeddings
from ..errors import require
from ..runtime.console import plural
from .knn import smallest_class
from .linear import classifier, quietly_fitted

Array = np.ndarray[Any, Any]
GRID = (0.01, 0.1, 1.0)  # costs of the logistic regression
FOLDS = 4
TOLERANCE = 1e-2  # of its gradient; 1e-4 takes four times as long and changes no printed score


def few_label(
    train: Embeddings,
    test: Embeddings,
    *,
    per_class: int | None = 10,
    share: float | None = None,
    draws: int = 5,
    seed: int = 0,
) -> tuple[float, Array]:
    """Accuracy from a few labels: the better of 1-NN and logistic regression over a grid of costs.

    Which one is decided by stratified cross-validation inside the labelled items of each draw;
    with one label per class there is nothing to decide on, and 1-NN is taken. Vectors are
    standardised by the whole training part, which uses no label.

    Args:
        train: labelled items to draw from.
        test: labelled items to classify.
        per_class: labelled items of each class; None where `share` is given.
        share: labelled part of the training items in (0, 1], as many of each class as far as it
            goes
            (at least one); None where `per_class` is given.
        draws: seeded class-balanced subsets to average over, 1 or more.
        seed: of the first draw.

    Returns:
        Mean accuracy in [0, 1], and the share of draws (N,) that got each test item right.

    Raises:
        ConfigError: a class with fewer items than asked for.
    """
    train, test = train.labelled(), test.labelled()
    count = labels_per_class(train, per_class, share)
    mean, scale = train.vectors.mean(0), train.vectors.std(0) + 1e-6
    right = np.zeros(len(test))
    for draw in range(draws):
        rows = balanced(train.known_labels, count, seed=seed + draw)
        predicted = _answers(
            train.vectors[rows], train.known_labels[rows], test.vectors, mean, scale
        )
        right += predicted == test.labels
    right /= draws
    return float(right.mean()), right


def few_label_within(
    items: Embeddings,
    *,
    per_class: int | None = 10,
    share: float | None = None,
    draws: int = 5,
    seed: int = 0,
) -> Array:
    """As `few_label` where there is one split: every draw is scored on the items it left out.

    Args:
        items: all labelled.
        per_class: as `few_label`.
        share: as `few_label`.
        draws: as `few_label`.
        seed: of the first draw.

    Returns:
        (N,) the share of the draws that left an item out and got it right; NaN for an item that
        every draw took.
    """
    count = labels_per_class(items, per_class, share)
    mean, scale = items.vectors.mean(0), items.vectors.std(0) + 1e-6
    right, judged = np.zeros(len(items)), np.zeros(len(items))
    for draw in range(draws):
        rows = balanced(items.known_labels, count, seed=seed + draw)
        rest = np.setdiff1d(np.arange(len(items)), rows)
        if len(rest):
            predicted = _answers(
                items.vectors[rows], items.known_labels[rows], items.vectors[rest], mean, scale
            )
            right[rest] += predicted == items.known_labels[rest]
            judged[rest] += 1
    shares: Array = np.full(len(items), np.nan)
    np.divide(right, judged, out=shares, where=judged > 0)
    return shares


def labels_per_class(train: Embeddings, per_class: int | None, share: float | None) -> int:
    """How many items of each class a label budget allows.

    Args:
        train: labelled items.
        per_class: the budget per class, or None.
        share: the budget as a share of the training items in (0, 1], or None.

    Raises:
        ConfigError: both or none of the two, out of range, or a class with fewer items.
    """
    require(
        (per_class is None) != (share is None), "give the labels per class or their share, not both"
    )
    classes = len(np.unique(train.known_labels))
    if share is not None:
        require(0 < share <= 1, f"a share of labels lies in (0, 1], got {share}")
        return max(1, round(share * len(train) / classes))
    count, smallest = int(per_class or 0), smallest_class(train)
    require(count >= 1, f"1 label per class or more is needed, got {per_class}")
    require(
        smallest >= count, f"the smallest class has {plural(smallest, 'item')}, fewer than {count}"
    )
    return count


def balanced(labels: Array, per_class: int, *, seed: int) -> Array:
    """Rows of `per_class` items of every class, or all where a class has fewer, by a seeded draw.

    Args:
        labels: (S,).
        per_class: 1 or more.
        seed: of the draw.
    """
    random = np.random.default_rng(seed)
    members = [np.flatnonzero(labels == c) for c in np.unique(labels)]
    return np.concatenate(
        [random.choice(m, min(per_class, len(m)), replace=False) for m in members]
    )


@dataclass(frozen=True)
class _Vectors:
    """Items for both kinds of classifier: unit rows for 1-NN, coordinates for the regression."""

    unit: Array
    coordinates: Array

    def take(self, rows: Array) -> _Vectors:
        return _Vectors(self.unit[rows], self.coordinates[rows])


def _answers(fit: Array, labels: Array, asked: Array, mean: Array, scale: Array) -> Array:
    """The label (N,) of every vector of `asked` by the labelled vectors of `fit`.

    An L2-penalised linear model lies in the span of the vectors it is fitted to. Fewer vectors than
    dimensions are first written in a basis of their own: the same model up to rounding, many times
    faster.
    """
    z, q = (fit - mean) / scale, (asked - mean) / scale
    if len(z) < z.shape[1]:
        basis = np.linalg.qr(z.T)[0]
        z, q = z @ basis, q @ basis
    known, new = _Vectors(_unit(fit), z), _Vectors(_unit(asked), q)
    return _predict(_choose(known, labels), known, labels, new)


def _choose(known: _Vectors, labels: Array) -> float | None:
    """A cost of the logistic regression, or None for 1-NN: the best in cross-validation."""
    from sklearn.model_selection import StratifiedKFold

    smallest = int(np.unique(labels, return_counts=True)[1].min())
    if smallest < 2:  # nothing to decide on
        return None
    folds = StratifiedKFold(min(FOLDS, smallest), shuffle=True, random_state=0)
    best: tuple[float, float | None] = (-1.0, None)
    for kind in (None, *GRID):
        score = 0.0
        for fit, check in folds.split(labels, labels):
            predicted = _predict(kind, known.take(fit), labels[fit], known.take(check))
            score += float((predicted == labels[check]).sum())
        if score > best[0]:
            best = score, kind
    return best[1]


def _predict(cost: float | None, known: _Vectors, labels: Array, asked: _Vectors) -> Array:
    predicted: Array
    if cost is None:
        predicted = labels[(asked.unit @ known.unit.T).argmax(1)]
    else:
        model = classifier("logistic", cost, tolerance=TOLERANCE)
        predicted = quietly_fitted(model, known.coordinates, labels).predict(asked.coordinates)
    return predicted


def _unit(vectors: Array) -> Array:
    length: Array = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.maximum(length, 1e-12)
