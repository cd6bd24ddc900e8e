"""`eval-draft`: the same choices for every encoder and every baseline, with intervals and a verdict.

Evaluators see arrays, never models: a row of the table is a pair of `Embeddings`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ..embeddings import Embeddings
from ..errors import DataError
from .few_label import few_label
from .knn import best_k, knn_labels, smallest_class
from .linear import ROWS, linear_labels

NAME = "eval-draft"
KS = (1, 5, 20, 200)
TEMPERATURE = 0.07
PER_CLASS, DRAWS = 10, 5
RESAMPLES = 1000
HEADLINE, FEW = "knn@200", f"{PER_CLASS} labels per class"
FEATURES = "trained features"

Array = np.ndarray[Any, Any]
Pair = tuple[Embeddings, Embeddings]  # training part, test part


@dataclass(frozen=True)
class Score:
    """Accuracy in [0, 1] with its 95 % bootstrap interval over test items; `note` says what is unusual."""

    value: float
    low: float
    high: float
    note: str = ""


@dataclass(frozen=True)
class Comparison:
    """The trained encoder against the best baseline of a column: difference, paired 95 % interval, and its name."""

    column: str
    row: str
    baseline: str
    difference: float
    low: float
    high: float

    @property
    def shown(self) -> int:
        """1 better, -1 worse, 0 no difference shown."""
        return int(self.low > 0) - int(self.high < 0)


@dataclass(frozen=True)
class Table:
    """Scores by row and column, comparisons, and the verdict in a sentence."""

    scores: dict[str, dict[str, Score]]
    comparisons: list[Comparison]
    verdict: str
    counts: dict[str, int]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for eval.json."""
        return {
            "protocol": NAME,
            "settings": {
                "k": KS, "temperature": TEMPERATURE, "labels_per_class": PER_CLASS, "draws": DRAWS,
                "linear_rows": ROWS, "resamples": RESAMPLES, "interval": "95 % bootstrap over test items",
            },
            "counts": self.counts,
            "scores": {r: {c: asdict(s) for c, s in row.items()} for r, row in self.scores.items()},
            "comparisons": [asdict(c) for c in self.comparisons],
            "verdict": self.verdict,
        }  # fmt: skip


def score(
    pairs: Mapping[str, Pair],
    *,
    headline: str,
    baselines: tuple[str, ...],
    progress: Callable[[str], None] | None = None,
) -> Table:
    """Score every pair by every column and compare the trained ones with the best baseline.

    Args:
        pairs: name of a row -> its training and test embeddings, of the same items in the same order.
        headline: the trained row of the kNN verdict; that of few labels is always FEATURES, which is what
            users take away. baselines: the rows both have to beat.
    Raises:
        DataError: no labels in one of the parts.
    """
    right: dict[str, dict[str, Array]] = {}
    notes: dict[str, dict[str, str]] = {}
    for name, (train, test) in pairs.items():
        if progress:
            progress(name)
        right[name], notes[name] = _columns(train.labelled(), test.labelled())
    weights = _resamples(len(next(iter(right[headline].values()))))
    scores = {
        row: {c: Score(*_interval(r, weights), notes[row].get(c, "")) for c, r in columns.items()}
        for row, columns in right.items()
    }
    wanted = ((HEADLINE, headline), (FEW, FEATURES))
    comparisons = [_compare(c, row, baselines, right, weights) for c, row in wanted if c in scores[row]]
    first = next(iter(pairs.values()))
    counts = {"train": len(first[0].labelled()), "test": len(first[1].labelled())}
    return Table(scores, comparisons, verdict(comparisons, scores), counts)


def verdict(comparisons: list[Comparison], scores: Mapping[str, Mapping[str, Score]]) -> str:
    """One sentence that a stranger understands; "no difference shown" where the interval holds zero."""
    parts = []
    for c in comparisons:
        got = scores[c.row][c.column].value
        words = {1: "better than", -1: "worse than", 0: "no difference shown from"}[c.shown]
        parts.append(
            f"{_said(c.column)} it is right on {got:.1%} of new items, {words} the best baseline, {c.baseline} "
            f"({c.difference * 100:+.1f} points, 95 % interval {c.low * 100:+.1f} to {c.high * 100:+.1f})"
        )
    return "The trained encoder: " + "; ".join(parts) + "."


def _said(column: str) -> str:
    return "by its 200 nearest neighbours" if column == HEADLINE else f"from {column}"


def _columns(train: Embeddings, test: Embeddings) -> tuple[dict[str, Array], dict[str, str]]:
    """Which test items each column gets right (N,), and notes."""
    right: dict[str, Array] = {}
    notes: dict[str, str] = {}
    smallest = smallest_class(train)
    chosen = best_k(train, KS, temperature=TEMPERATURE)
    for k, found in knn_labels(train, test.vectors, k=KS, temperature=TEMPERATURE).items():
        right[f"knn@{k}"] = (found == test.known_labels).astype(float)
        if k > smallest:
            notes[f"knn@{k}"] = f"k is above the smallest class ({smallest} items)"
        if k == chosen:
            right["knn@chosen"] = right[f"knn@{k}"]
            notes["knn@chosen"] = f"k = {k} by leave-one-out on the training part"
    if len(set(train.known_labels.tolist())) < 2:
        raise DataError("all training items have the same label; there is nothing to score")
    right["linear"] = (linear_labels(train, test.vectors) == test.known_labels).astype(float)
    if smallest >= PER_CLASS:
        _, right[FEW] = few_label(train, test, per_class=PER_CLASS, draws=DRAWS)
    return right, notes


def _resamples(items: int) -> Array:
    """(B, N) weights of bootstrap resamples over test items, each row summing to 1."""
    random = np.random.default_rng(0)
    return random.multinomial(items, np.full(items, 1 / items), size=RESAMPLES).astype(np.float32) / items


def _interval(right: Array, weights: Array) -> tuple[float, float, float]:
    low, high = np.percentile(weights @ right.astype(np.float32), [2.5, 97.5])
    return float(right.mean()), float(low), float(high)


def _compare(
    column: str, row: str, baselines: tuple[str, ...], right: Mapping[str, Mapping[str, Array]], weights: Array
) -> Comparison:
    best = max(baselines, key=lambda b: right[b][column].mean())
    value, low, high = _interval(right[row][column] - right[best][column], weights)
    return Comparison(column, row, best, value, low, high)
