"""Analytic 95 % intervals of `eval-v2`: Wilson for a score, Bonett-Price for a paired difference.

Both stay honest at the ends. A bootstrap of 40 correct answers out of 40 is 100.0 ± 0.0, because
every resample is all correct; Wilson's interval is 91.2 to 100.0.

Shapes: N items.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from . import bootstrap
from .bootstrap import Comparison, Score

Array = np.ndarray[Any, Any]
Z = 1.959963984540054  # the 97.5 % quantile of the normal distribution


def wilson(right: Array, note: str = "", *, draws: float = 1) -> Score:
    """The mean of `right` with its 95 % Wilson score interval.

    Values between 0 and 1 (an item's share of correct draws) vary less than the binomial assumes.
    The interval then uses the effective number of items n p (1 - p) / variance, at least n and at
    most n times `draws`; for values that are all 0 or 1 that is n itself.

    Args:
        right: (N,) in [0, 1]; NaN for an item that was not scored. At least one is a number.
        note: kept in the result.
        draws: the largest number of independent answers behind one value, 1 or more.

    Source: Wilson 1927; the effective sample size: Korn and Graubard 1998.

    >>> score = wilson(np.ones(40))
    >>> round(score.low, 3), score.high
    (0.912, 1.0)
    """
    right = right[~np.isnan(right)].astype(np.float64)
    count, mean = len(right), float(right.mean())
    spread = float(right.var())
    binomial = mean * (1 - mean)
    items = count * min(float(draws), max(1.0, binomial / spread)) if spread > 0 else count
    centre = (mean + Z**2 / (2 * items)) / (1 + Z**2 / items)
    half = Z / (1 + Z**2 / items) * math.sqrt(binomial / items + Z**2 / (4 * items**2))
    low, high = max(0.0, centre - half), min(1.0, centre + half)
    return Score(mean, min(low, mean) if mean else 0.0, max(high, mean) if mean < 1 else 1.0, note)


def paired(column: str, row: tuple[str, Array], baseline: tuple[str, Array]) -> Comparison:
    """A row against a baseline on the same items: difference, 95 % interval, two-sided p-value.

    The interval is the adjusted Wald interval of Bonett and Price: one item that only the row gets
    right and one that only the baseline gets right are added before the normal approximation. A
    handful of items on which two encoders differ then decides nothing: 4 of 40 is no difference
    shown, where a bootstrap calls it significant.

    Args:
        column: the name of the score.
        row: name, and (N,) in [0, 1]; NaN for an item that was not scored.
        baseline: the same of the baseline.

    Source: Bonett and Price 2012, "Adjusted Wald confidence interval for a difference of binomial
    proportions based on paired data", eq. 7.
    """
    (name, right), (other, reference) = row, baseline
    difference = (right - reference).astype(np.float64)
    difference = difference[~np.isnan(difference)]
    adjusted = np.concatenate([difference, [1.0, -1.0]])
    centre = float(adjusted.mean())
    error = math.sqrt(float(adjusted.var()) / len(adjusted))
    p = math.erfc(abs(centre) / error / math.sqrt(2)) if error else 1.0
    return Comparison(
        column,
        name,
        other,
        float(difference.mean()),
        max(-1.0, centre - Z * error),
        min(1.0, centre + Z * error),
        p,
    )


def saturated(baseline: Array) -> bool:
    """Whether even a perfect encoder could not be shown to beat a baseline on these items.

    Args:
        baseline: (N,) in [0, 1]: which items the baseline gets right; NaN where not scored.
    """
    perfect = np.where(np.isnan(baseline), np.nan, 1.0)
    return paired("", ("", perfect), ("", baseline)).shown <= 0


class Intervals(NamedTuple):
    """How a protocol measures uncertainty: of one score, and of a paired difference.

    Attributes:
        score: (right (N,), note, draws) -> Score.
        compare: (column, (row, right), (baseline, right)) -> Comparison.
    """

    score: Callable[[Array, str, float], Score]
    compare: Callable[[str, tuple[str, Array], tuple[str, Array]], Comparison]


def analytic() -> Intervals:
    """Wilson and Bonett-Price intervals, as in `eval-v2`."""
    return Intervals(lambda right, note, draws: wilson(right, note, draws=draws), paired)


def bootstrapped(items: int) -> Intervals:
    """Bootstrap intervals over the same resamples of the items, as in `eval-v1`."""
    weights = bootstrap.resamples(items)
    return Intervals(
        lambda right, note, _: bootstrap.score(right, weights, note),
        lambda column, row, baseline: bootstrap.compare(column, row, baseline, weights),
    )
