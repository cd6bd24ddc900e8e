"""How sure a score is: a bootstrap over the items it was measured on, paired where two encoders saw the same items.

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
    """Accuracy in [0, 1] with its 95 % bootstrap interval over test items; `note` says what is unusual."""

    value: float
    low: float
    high: float
    note: str = ""


@dataclass(frozen=True)
class Comparison:
    """A row against a baseline in one column: difference, paired 95 % interval, two-sided bootstrap p-value."""

    column: str
    row: str
    baseline: str
    difference: float
    low: float
    high: float
    p: float

    @property
    def shown(self) -> int:
        """1 better, -1 worse, 0 no difference shown."""
        return int(self.low > 0) - int(self.high < 0)


def resamples(items: int, *, seed: int = 0) -> Array:
    """(B, N) weights of bootstrap resamples over test items, each row summing to 1."""
    random, chances = np.random.default_rng(seed), np.full(items, 1 / items)
    weights = np.empty((RESAMPLES, items), np.float32)
    for row in weights:  # one at a time: all counts at once are int64
        row[:] = random.multinomial(items, chances) / items
    return weights


def resamples_of_groups(group: Array, *, seed: int = 0) -> Array:
    """(B, N) weights as `resamples`, of items that come in groups (N,) and are drawn together with their group."""
    _, number = np.unique(group, return_inverse=True)
    weights = resamples(int(number.max()) + 1, seed=seed)[:, number]
    found: Array = weights / np.maximum(weights.sum(1, keepdims=True), 1e-9)
    return found


def score(right: Array, weights: Array, note: str = "") -> Score:
    """The mean of `right` (N,) in [0, 1] with its interval; NaN: an item that was not judged."""
    right, weights = _judged(right, weights)
    low, high = np.percentile(weights @ right, [2.5, 97.5])
    return Score(float(right.mean(dtype=np.float64)), float(low), float(high), note)


def compare(
    column: str, row: tuple[str, Array], baseline: tuple[str, Array], weights: Array
) -> Comparison:
    """The paired test of a row against a baseline on the same items; p is at least 1 / (B + 1)."""
    (name, right), (other, theirs) = row, baseline
    difference, weights = _judged(right - theirs, weights)
    drawn = weights @ difference
    low, high = np.percentile(drawn, [2.5, 97.5])
    tail = min((drawn <= 0).sum(), (drawn >= 0).sum())
    p = min(1.0, 2 * (float(tail) + 1) / (len(drawn) + 1))
    return Comparison(column, name, other, float(difference.mean()), float(low), float(high), p)


def _judged(values: Array, weights: Array) -> tuple[Array, Array]:
    """The values that are numbers, and the resamples of those items alone."""
    known = ~np.isnan(values)
    if known.all():
        return values.astype(np.float32), weights
    kept = weights[:, known]
    return values[known].astype(np.float32), kept / np.maximum(kept.sum(1, keepdims=True), 1e-9)


def items_needed(difference: float, disagreement: float = 0.4) -> int:
    """Labelled items that show a difference of accuracy, where two encoders disagree on a share of the items.

    1.96 standard errors of the paired difference: 1.96^2 disagreement / difference^2.

    >>> items_needed(0.1)
    154
    """
    return int(np.ceil(1.96**2 * disagreement / difference**2))
