"""Bootstrap intervals over test items, paired where two encoders were scored on the same items.

Shapes: N items, B resamples.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
RESAMPLES = 1000


@dataclass(frozen=True)
class Score:
    """Accuracy in [0, 1] with its 95 % interval over test items.

    Attributes:
        value: the accuracy.
        low: lower end of the interval.
        high: upper end of the interval.
        note: what is unusual about the score.
    """

    value: float
    low: float
    high: float
    note: str = ""


@dataclass(frozen=True)
class Comparison:
    """A row against a baseline in one column, paired over the test items.

    Attributes:
        column: the name of the score.
        row: the name of the row.
        baseline: the name of the baseline.
        difference: row minus baseline, in [-1, 1].
        low: lower end of its 95 % interval.
        high: upper end of its 95 % interval.
        p: two-sided p-value.
    """

    column: str
    row: str
    baseline: str
    difference: float
    low: float
    high: float
    p: float

    @property
    def shown(self) -> int:
        """1 significantly better, -1 significantly worse, 0 not significantly different."""
        return int(self.low > 0) - int(self.high < 0)


def resamples(items: int, *, seed: int = 0) -> Array:
    """Weights (B, N) of bootstrap resamples over test items, each row summing to 1.

    Args:
        items: N.
        seed: of the draws.
    """
    random, chances = np.random.default_rng(seed), np.full(items, 1 / items)
    weights = np.empty((RESAMPLES, items), np.float32)
    for row in weights:  # one at a time: all counts at once are int64
        row[:] = random.multinomial(items, chances) / items
    return weights


def resamples_of_groups(group: Array, *, seed: int = 0) -> Array:
    """As `resamples`, for items that are drawn together with their group.

    Args:
        group: (N,) the group of each item.
        seed: of the draws.
    """
    _, number = np.unique(group, return_inverse=True)
    weights = resamples(int(number.max()) + 1, seed=seed)[:, number]
    shares: Array = weights / np.maximum(weights.sum(1, keepdims=True), 1e-9)
    return shares


def score(right: Array, weights: Array, note: str = "") -> Score:
    """The mean of `right` with its 95 % bootstrap interval.

    Args:
        right: (N,) in [0, 1]; NaN for an item that was not scored.
        weights: (B, N), as `resamples`.
        note: kept in the result.
    """
    right, weights = _judged(right, weights)
    low, high = np.percentile(weights @ right, [2.5, 97.5])
    return Score(float(right.mean(dtype=np.float64)), float(low), float(high), note)


def compare(
    column: str, row: tuple[str, Array], baseline: tuple[str, Array], weights: Array
) -> Comparison:
    """The paired bootstrap of a row against a baseline; p is at least 1 / (B + 1).

    Args:
        column: the name of the score.
        row: name, and (N,) in [0, 1]; NaN for an item that was not scored.
        baseline: the same of the baseline.
        weights: (B, N), as `resamples`.
    """
    (name, right), (other, reference) = row, baseline
    difference, weights = _judged(right - reference, weights)
    drawn = weights @ difference
    low, high = np.percentile(drawn, [2.5, 97.5])
    tail = min((drawn <= 0).sum(), (drawn >= 0).sum())
    p = min(1.0, 2 * (float(tail) + 1) / (len(drawn) + 1))
    return Comparison(column, name, other, float(difference.mean()), float(low), float(high), p)


def _judged(values: Array, weights: Array) -> tuple[Array, Array]:
    """The scored values, and the resamples restricted to those items."""
    known = ~np.isnan(values)
    if known.all():
        return values.astype(np.float32), weights
    kept = weights[:, known]
    return values[known].astype(np.float32), kept / np.maximum(kept.sum(1, keepdims=True), 1e-9)


def items_needed(difference: float, disagreement: float = 0.4) -> int:
    """How many labelled items show a difference of accuracy at 95 %.

    1.96 standard errors of the paired difference: 1.96^2 disagreement / difference^2.

    Args:
        difference: of accuracy, in (0, 1].
        disagreement: share of the items on which two encoders disagree, in (0, 1].

    >>> items_needed(0.1)
    154
    """
    return int(np.ceil(1.96**2 * disagreement / difference**2))
