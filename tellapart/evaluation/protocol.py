"""`eval-v1`: the same choices for every encoder and every baseline, with intervals, paired tests and a verdict.

Frozen: a change of one number here is a new version. Evaluators see arrays, never models: a row of the table is a
pair of `Embeddings`, or one of them where there is one split. What the numbers mean: docs/evaluation.md.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ..embeddings.embeddings import Embeddings
from ..errors import DataError
from . import bootstrap, linear
from .bootstrap import Comparison, Score
from .few_label import GRID as FEW_COSTS
from .few_label import few_label, few_label_within
from .knn import best_k, knn_labels, leave_one_out_labels, smallest_class

NAME = "eval-v1"
KS = (1, 5, 20, 200)
TEMPERATURE = 0.07
PER_CLASS, DRAWS = (1, 4, 10, 16), 5
SHARES = (0.01, 0.02, 0.04, 0.1, 0.2)  # of the training labels, with `full`
HEADLINE, FEW = "knn@200", "10 labels per class"
FEATURES = "trained features"

Array = np.ndarray[Any, Any]
Pair = tuple[
    Embeddings, Embeddings | None
]  # training part, test part (None: one split, judged by leaving out)


@dataclass(frozen=True)
class Table:
    """Scores by row and column, comparisons, the verdict in a sentence, and what they were measured on."""

    scores: dict[str, dict[str, Score]]
    comparisons: list[Comparison]
    verdict: str
    counts: dict[str, int]
    split: dict[str, str]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for eval.json."""
        return {
            "protocol": NAME,
            "settings": {
                "k": KS, "temperature": TEMPERATURE, "labels_per_class": PER_CLASS, "draws": DRAWS, "seed": 0,
                "linear_rows": linear.ROWS, "linear_costs": linear.GRID["logistic"], "few_label_costs": FEW_COSTS,
                "resamples": bootstrap.RESAMPLES, "interval": "95 % bootstrap over test items",
            },
            "counts": self.counts,
            "split": self.split,
            "scores": {r: {c: asdict(s) for c, s in row.items()} for r, row in self.scores.items()},
            "comparisons": [asdict(c) for c in self.comparisons],
            "verdict": self.verdict,
        }  # fmt: skip


def score(
    pairs: Mapping[str, Pair],
    *,
    headline: str,
    baselines: tuple[str, ...],
    few_row: str = FEATURES,
    full: bool = False,
    progress: Callable[[str], None] | None = None,
) -> Table:
    """Score every row by every column and compare the others with each baseline, paired over the test items.

    Args:
        pairs: name of a row -> its training and test embeddings, of the same items in the same order; without a test
            part every item is judged by the others (kNN by leave-one-out, linear by five-fold cross-validation).
        headline: the row of the kNN verdict. few_row: that of few labels. baselines: the rows both have to beat.
        full: also shares of the labels, 1 to 20 %.
    Raises:
        DataError: no labels in one of the parts, an empty one, or one class.
    """
    right: dict[str, dict[str, Array]] = {}
    notes: dict[str, dict[str, str]] = {}
    for name, (train, test) in pairs.items():
        if progress:
            progress(name)
        train, test = train.labelled(), test.labelled() if test else None
        if len(set(train.known_labels.tolist())) < 2:
            raise DataError("all training items have the same label; there is nothing to score")
        right[name], notes[name] = (
            _within(train, full) if test is None else _across(train, test, full)
        )
    weights = bootstrap.resamples(len(next(iter(right[headline].values()))))
    scores = {
        row: {c: bootstrap.score(r, weights, notes[row].get(c, "")) for c, r in columns.items()}
        for row, columns in right.items()
    }
    comparisons = [
        bootstrap.compare(column, (row, r), (baseline, right[baseline][column]), weights)
        for row in right
        if row not in baselines
        for column, r in right[row].items()
        for baseline in baselines
        if column in right[baseline]
    ]
    first = next(iter(pairs.values()))
    sentence = verdict(scores, comparisons, ((HEADLINE, headline), (FEW, few_row)))
    return Table(scores, comparisons, sentence, _counts(*first), _split(*first))


def verdict(
    scores: Mapping[str, Mapping[str, Score]],
    comparisons: list[Comparison],
    wanted: tuple[tuple[str, str], ...],
) -> str:
    """One sentence a stranger understands: each wanted (column, row) against its best baseline."""
    parts = []
    for column, row in wanted:
        if column not in scores.get(row, {}):
            continue
        part = f"{_said(column)} it is right on {scores[row][column].value:.1%} of new items"
        against = [c for c in comparisons if c.column == column and c.row == row]
        if against:
            c = min(against, key=lambda c: c.difference)
            words = {1: "better than", -1: "worse than", 0: "no difference shown from"}[c.shown]
            part += (
                f", {words} the best baseline, {c.baseline} ({c.difference * 100:+.1f} points, 95 % interval "
                f"{c.low * 100:+.1f} to {c.high * 100:+.1f})"
            )
        parts.append(part)
    return "The encoder: " + "; ".join(parts) + "."


def _said(column: str) -> str:
    return "by its 200 nearest neighbours" if column == HEADLINE else f"from {column}"


def _across(
    train: Embeddings, test: Embeddings, full: bool
) -> tuple[dict[str, Array], dict[str, str]]:
    """Which test items each column gets right (N,), and notes: judged by the training part."""
    votes = knn_labels(train, test.vectors, k=KS, temperature=TEMPERATURE)
    right, notes = _neighbours(train, votes, test.known_labels, len(train))
    found, cost = linear.linear_labels(train, test.vectors)
    right["linear"] = (found == test.known_labels).astype(float)
    notes["linear"] = f"cost {cost:g} chosen on a held-out fifth of the training items"
    for column, budget in _budgets(train, full).items():
        _, right[column] = few_label(train, test, **budget, draws=DRAWS)
    return right, notes


def _within(items: Embeddings, full: bool) -> tuple[dict[str, Array], dict[str, str]]:
    """Which items (N,) each column gets right from the others."""
    votes = leave_one_out_labels(items, k=KS, temperature=TEMPERATURE)
    right, notes = _neighbours(items, votes, items.known_labels, len(items) - 1)
    right.pop("knn@chosen", None)  # it was chosen by these very answers
    notes.pop("knn@chosen", None)
    right["linear"] = (linear.cross_validated_labels(items) == items.known_labels).astype(float)
    notes["linear"] = "five-fold cross-validation"
    for column, budget in _budgets(items, full, leaving=1).items():
        right[column] = few_label_within(items, **budget, draws=DRAWS)
    return right, notes


def _neighbours(
    train: Embeddings, votes: dict[int, Array], labels: Array, voters: int
) -> tuple[dict[str, Array], dict[str, str]]:
    right: dict[str, Array] = {}
    notes: dict[str, str] = {}
    smallest = smallest_class(train)
    chosen = best_k(train, KS, temperature=TEMPERATURE)
    for k, found in votes.items():
        right[f"knn@{k}"] = (found == labels).astype(float)
        if k > voters:
            notes[f"knn@{k}"] = f"k is above the {voters} items that vote: all of them do"
        elif k > smallest:
            notes[f"knn@{k}"] = (
                f"k is above the smallest class ({smallest} item{'s' * (smallest > 1)})"
            )
        if k == chosen:
            right["knn@chosen"] = right[f"knn@{k}"]
            notes["knn@chosen"] = f"k = {k} by leave-one-out on the training part"
    return right, notes


def _budgets(train: Embeddings, full: bool, *, leaving: int = 0) -> dict[str, dict[str, Any]]:
    """The columns of few labels that the smallest class allows, `leaving` items of it, and how each is drawn."""
    smallest = smallest_class(train) - leaving
    wanted: dict[str, dict[str, Any]] = {
        f"{n} label{'s' * (n > 1)} per class": {"per_class": n} for n in PER_CLASS if n <= smallest
    }
    if full:
        wanted |= {
            f"{share:.0%} of the labels": {"per_class": None, "share": share} for share in SHARES
        }
    return wanted


def _counts(train: Embeddings, test: Embeddings | None) -> dict[str, int]:
    known = train.labelled()
    classes = set(known.known_labels.tolist())
    counts = {"train": len(known), "classes": len(classes), "smallest_class": smallest_class(known)}
    if test is None:
        return counts | {"test": len(known)}
    judged = test.labelled()
    unknown = set(judged.known_labels.tolist()) - classes
    return counts | {
        "test": len(judged),
        "test_classes_never_trained": len(unknown),
        "test_items_of_them": int(np.isin(judged.known_labels, list(unknown)).sum()),
        "duplicates_across_splits": duplicates(known, judged),
    }


def duplicates(train: Embeddings, test: Embeddings) -> int:
    """How many test items have the very vector of a training item."""
    seen = {hashlib.blake2b(row.tobytes(), digest_size=16).digest() for row in train.vectors}
    return sum(
        hashlib.blake2b(row.tobytes(), digest_size=16).digest() in seen for row in test.vectors
    )


def _split(train: Embeddings, test: Embeddings | None) -> dict[str, str]:
    """A hash of the ids and labels of each part: equal hashes, equal items in equal order."""
    parts = {"train": train, "test": test} if test else {"items": train}
    out = {}
    for name, part in parts.items():
        known = part.labelled()
        text = "\n".join(
            f"{i}\t{label}" for i, label in zip(known.ids, known.known_labels, strict=True)
        )
        out[name] = hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
    return out
