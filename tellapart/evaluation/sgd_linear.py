"""A linear classifier trained by SGD for 100 epochs, as MoCo and SimCLR evaluate.

It sees vectors, so the network cannot move.

Shapes: S training items, N test items, D width, C classes, L learning rates.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..embeddings.embeddings import Embeddings
from ..errors import DataError

Array = np.ndarray[Any, Any]
RATES = (0.01, 0.1, 1.0, 10.0)
EPOCHS, BATCH, MOMENTUM = 100, 256, 0.9
FALLS = (0.6, 0.8)  # of the epochs: the rate is divided by ten at each
HELD = 5  # a fifth of the training items chooses the rate


def sgd_linear(
    train: Embeddings, test: Embeddings, *, epochs: int = EPOCHS, seed: int = 0
) -> tuple[float, float]:
    """Accuracy of softmax regression by SGD on standardised vectors, without weight decay.

    The rate is chosen among 0.01, 0.1, 1 and 10 on a fifth of the training items; then all are
    fitted.

    Args:
        train: labelled items to fit to.
        test: labelled items to classify.
        epochs: passes over the training items.
        seed: of the order and the held-out fifth.

    Returns:
        Accuracy in [0, 1], and the rate.

    Raises:
        DataError: no labels, or one class only.

    Source: MoCo (He et al. 2020), sec. 4.1: 100 epochs, no decay, the rate divided by ten at 60
    and 80 epochs (their rate of 30 is for vectors that are not standardised, SimCLR's 1.6 for
    batches of 4,096).
    """
    train, test = train.labelled(), test.labelled()
    if len(np.unique(train.known_labels)) < 2:
        raise DataError("a linear classifier needs two classes or more")
    mean, scale = train.vectors.mean(0), train.vectors.std(0) + 1e-6
    x = torch.from_numpy((train.vectors - mean) / scale)
    names, place = np.unique(train.known_labels, return_inverse=True)
    y, classes = torch.from_numpy(place), len(names)
    held = torch.from_numpy(np.random.default_rng(seed).permutation(len(x)) % HELD == 0)
    rate = RATES[0]
    if 0 < int(held.sum()) < len(x):
        tried = _fit(x[~held], y[~held], classes, RATES, epochs, seed)
        hits = (_answer(tried, x[held]) == y[held]).double().mean(1)
        rate = RATES[int(hits.argmax())]
    answer = _answer(
        _fit(x, y, classes, (rate,), epochs, seed), torch.from_numpy((test.vectors - mean) / scale)
    )
    return float((names[answer[0].numpy()] == test.known_labels).mean()), rate


def _fit(
    x: Tensor, y: Tensor, classes: int, rates: tuple[float, ...], epochs: int, seed: int
) -> Tensor:
    """(L, D + 1, C) weights and biases, all rates in one pass over the data."""
    x = torch.cat([x, torch.ones(len(x), 1)], 1)
    weight = torch.zeros(len(rates), x.shape[1], classes)
    moving = torch.zeros_like(weight)
    rate = torch.tensor(rates)[:, None, None]
    random = torch.Generator().manual_seed(seed)
    target = F.one_hot(y, classes).float()
    for epoch in range(epochs):
        fall = 0.1 ** sum(epoch >= f * epochs for f in FALLS)
        for rows in torch.randperm(len(x), generator=random).split(BATCH):
            part = x[rows]
            error = (part @ weight).softmax(2) - target[
                rows
            ]  # (L, B, C), the gradient at the logits
            moving = MOMENTUM * moving + part.T @ error / len(part)
            weight = weight - fall * rate * moving
    return weight


def _answer(weight: Tensor, x: Tensor) -> Tensor:
    """(L, N) the class of largest logit."""
    return (torch.cat([x, torch.ones(len(x), 1)], 1) @ weight).argmax(2)
