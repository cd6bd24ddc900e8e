"""Linear classifiers on frozen vectors, by scikit-learn.

Shapes: S training items, N test items, D width.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from ..embeddings import Embeddings
from ..errors import DataError

Array = np.ndarray[Any, Any]
ROWS = 10_000  # training items used, spread over the set; the rest changes little and costs minutes
COST = {"logistic": 1.0, "svm": 0.01}


def linear_probe(train: Embeddings, test: Embeddings) -> dict[str, float]:
    """Accuracy of a logistic regression and of a one-vs-rest linear SVM on standardised vectors.

    Up to 10,000 training items, evenly spaced, are used; items without a label are left out.

    Returns:
        {"logistic": accuracy in [0, 1], "svm": accuracy in [0, 1]}.
    Raises:
        DataError: no labels, or one class only.
    Source: Wu et al. 2018, sec. 4.1 (linear SVM on features); protocol `eval-draft`.
    """
    test = test.labelled()
    return {kind: float((linear_labels(train, test.vectors, kind) == test.labels).mean()) for kind in COST}


def linear_labels(train: Embeddings, vectors: Array, kind: str = "logistic") -> Array:
    """The predicted label (N,) of every vector by "logistic" or "svm"."""
    train = train.labelled()
    train = train.take(np.arange(0, len(train), -(-len(train) // ROWS)))
    if len(set(train.known_labels.tolist())) < 2:
        raise DataError("a linear classifier needs two classes or more")
    mean, scale = train.vectors.mean(0), train.vectors.std(0) + 1e-6
    model = classifier(kind, COST[kind])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an iteration limit reached is part of the protocol
        model.fit((train.vectors - mean) / scale, train.labels)
    found: Array = model.predict((vectors - mean) / scale)
    return found


def classifier(kind: str, cost: float) -> Any:
    """The scikit-learn model with the protocol's settings."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.svm import LinearSVC

    if kind == "logistic":
        return LogisticRegression(C=cost, max_iter=200)
    return LinearSVC(C=cost, dual=False, max_iter=200)
