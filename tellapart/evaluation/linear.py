"""Linear classifiers on frozen vectors, by scikit-learn.

Shapes: S training items, N test items, D width.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from ..embeddings.embeddings import Embeddings
from ..errors import ConfigError, DataError

Array = np.ndarray[Any, Any]
ROWS = 10_000  # training items used, at most: more change little and cost minutes
HELD = 5  # a fifth of them chooses the cost
FOLDS = 5  # of cross-validation where there is one split
GRID = {
    "logistic": (0.001, 0.01, 0.1, 1.0),
    "svm": (0.0001, 0.001, 0.01, 0.1),
}  # costs, tried in this order


def linear_probe(train: Embeddings, test: Embeddings, *, rows: int = ROWS) -> dict[str, float]:
    """Accuracy of a logistic regression and of a one-vs-rest linear SVM on standardised vectors.

    The cost is chosen on a fifth of the training items, drawn by a fixed seed; then all are fitted.

    Args:
        train: labelled items to fit to.
        test: labelled items to classify.
        rows: at most so many training items, drawn by a fixed seed, are used.

    Returns:
        {"logistic": accuracy in [0, 1], "svm": accuracy in [0, 1]}.

    Raises:
        DataError: no labels, or one class only.

    Source: Wu et al. 2018, sec. 4.1 (one-vs-all linear SVM on features); protocol `eval-v1`.
    """
    test = test.labelled()
    return {
        kind: float((linear_labels(train, test.vectors, kind, rows=rows)[0] == test.labels).mean())
        for kind in GRID
    }


def linear_labels(
    train: Embeddings, vectors: Array, kind: str = "logistic", *, rows: int = ROWS
) -> tuple[Array, float]:
    """The predicted label (N,) of every vector, and the cost that was chosen.

    Args:
        train: labelled items to fit to.
        vectors: (N, D).
        kind: "logistic" or "svm".
        rows: training items that are used, at most.

    Raises:
        ConfigError: an unknown kind.
        DataError: one class only.
    """
    if kind not in GRID:
        raise ConfigError(f"the classifiers are {' and '.join(GRID)}, got {kind}")
    train = train.labelled().at_most(rows)
    if len(set(train.known_labels.tolist())) < 2:
        raise DataError("a linear classifier needs two classes or more")
    cost = _chosen_cost(train, kind)
    return fitted_labels(train, vectors, kind, cost), cost


def cross_validated_labels(items: Embeddings, kind: str = "logistic") -> Array:
    """The label (N,) of every item by a classifier fitted to the other four fifths.

    The cost is chosen inside those four fifths.

    Args:
        items: all labelled.
        kind: "logistic" or "svm".
    """
    predicted = np.empty(len(items), np.int64)
    fold = np.random.default_rng(0).permutation(len(items)) % FOLDS
    for part in range(min(FOLDS, len(items))):
        inside, outside = items.take(np.flatnonzero(fold != part)), np.flatnonzero(fold == part)
        if len(np.unique(inside.known_labels)) == 1:  # the other class is left out whole
            predicted[outside] = inside.known_labels[0]
            continue
        predicted[outside] = linear_labels(inside, items.vectors[outside], kind)[0]
    return predicted


def fitted_labels(train: Embeddings, vectors: Array, kind: str, cost: float) -> Array:
    """The labels (N,) of vectors by a classifier of one cost.

    Args:
        train: labelled items to fit to; all vectors are standardised by their mean and deviation.
        vectors: (N, D).
        kind: "logistic" or "svm".
        cost: inverse strength of the regularisation, > 0.
    """
    mean, scale = train.vectors.mean(0), train.vectors.std(0) + 1e-6
    model = quietly_fitted(classifier(kind, cost), (train.vectors - mean) / scale, train.labels)
    predicted: Array = model.predict((vectors - mean) / scale)
    return predicted


def quietly_fitted(model: Any, vectors: Array, labels: Any) -> Any:
    """The fitted model; reaching the limit of iterations is part of the protocol.

    Args:
        model: a scikit-learn classifier.
        vectors: (S, D).
        labels: (S,).
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return model.fit(vectors, labels)


def classifier(kind: str, cost: float, *, tolerance: float = 1e-4) -> Any:
    """The scikit-learn model with the settings of the protocol.

    Args:
        kind: "logistic" or "svm".
        cost: inverse strength of the regularisation, > 0.
        tolerance: of the gradient of the logistic regression.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.svm import LinearSVC

    if kind == "logistic":
        return LogisticRegression(C=cost, max_iter=200, tol=tolerance)
    return LinearSVC(C=cost, dual=False, max_iter=200)


def _chosen_cost(train: Embeddings, kind: str) -> float:
    """The cost of best accuracy on a held-out fifth, the smallest on a tie.

    The largest cost where too few items or classes are left to choose by.
    """
    grid = GRID[kind]
    held = np.random.default_rng(0).permutation(len(train)) % HELD == 0
    fit, check = train.take(np.flatnonzero(~held)), train.take(np.flatnonzero(held))
    if not len(check) or len(np.unique(fit.known_labels)) < 2:
        return grid[-1]
    hits = [(fitted_labels(fit, check.vectors, kind, cost) == check.labels).mean() for cost in grid]
    return grid[int(np.argmax(hits))]
