"""The frozen protocols `eval-v1` and `eval-v2`: the same choices for every encoder and baseline.

A change of one number here is a new version. Evaluators see arrays, never models: a row of the
table is a pair of `Embeddings`, or one of them where there is one split. docs/evaluation.md
describes both versions.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from ..embeddings.embeddings import Embeddings
from ..errors import DataError, unknown
from . import bootstrap, intervals, linear
from .bootstrap import Comparison, Score
from .few_label import GRID as FEW_COSTS
from .few_label import few_label, few_label_within
from .intervals import Intervals
from .knn import best_k, knn_labels, leave_one_out_labels, smallest_class
from .verdicts import sentence, sentence_v1

V1, V2 = "eval-v1", "eval-v2"
NAMES, NAME = (V1, V2), V2  # all versions; the default
KS = (1, 5, 20, 200)
TEMPERATURE = 0.07
PER_CLASS, DRAWS = (1, 4, 10, 16), 5
SHARES = (0.01, 0.02, 0.04, 0.1, 0.2)  # of the training labels, with `full`
HEADLINE, FEW = "knn@200", "10 labels per class"  # the columns of the eval-v1 verdict
LARGEST_K, SHARE_OF_CLASS = 200, 0.5  # eval-v2: the deciding k, at most; of the smallest class
FEATURES = "trained features"

Array = np.ndarray[Any, Any]
Pair = tuple[Embeddings, Embeddings | None]  # training part, test part (None: one split)


@dataclass(frozen=True)
class Table:
    """Scores with intervals, comparisons with the baselines, and the verdict.

    Attributes:
        protocol: "eval-v1" or "eval-v2".
        scores: row -> column -> score.
        comparisons: every other row against every baseline, paired over the test items.
        verdict: one sentence.
        counts: items of each part, classes, and test items that training cannot know.
        split: part -> hash of its ids and labels.
        deciding: eval-v2: the column and row that lead the verdict, the rule that chose the
            column, and whether the best baseline is saturated there.
        classes: eval-v2: names of classes that one of the parts lacks.
    """

    protocol: str
    scores: dict[str, dict[str, Score]]
    comparisons: list[Comparison]
    verdict: str
    counts: dict[str, int]
    split: dict[str, str]
    deciding: dict[str, Any] = field(default_factory=dict)
    classes: dict[str, list[str]] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for eval.json."""
        first = self.protocol == V1
        settings: dict[str, Any] = {
            "k": KS,
            "temperature": TEMPERATURE,
            "labels_per_class": PER_CLASS,
            "draws": DRAWS,
            "seed": 0,
            "linear_rows": linear.ROWS,
            "linear_costs": linear.GRID["logistic"],
            "few_label_costs": FEW_COSTS,
        }
        if first:
            settings["resamples"] = bootstrap.RESAMPLES
            settings["interval"] = "95 % bootstrap over test items"
        else:
            settings["interval"] = "95 %: Wilson; of paired differences Bonett-Price"
        plain: dict[str, Any] = {
            "protocol": self.protocol,
            "settings": settings,
            "counts": self.counts,
            "split": self.split,
            "scores": {r: {c: asdict(s) for c, s in row.items()} for r, row in self.scores.items()},
            "comparisons": [asdict(c) for c in self.comparisons],
            "verdict": self.verdict,
        }
        return plain if first else plain | {"deciding": self.deciding, **self.classes}


def checked(name: str) -> str:
    """The name of a protocol.

    Raises:
        ConfigError: an unknown one, with the nearest name.
    """
    if name not in NAMES:
        raise unknown("protocol", name, NAMES)
    return name


def intervals_of(name: str, items: int) -> Intervals:
    """How a protocol measures uncertainty over `items` test items."""
    return intervals.bootstrapped(items) if name == V1 else intervals.analytic()


def deciding_k(smallest: int) -> int:
    """The k of the eval-v2 verdict: half of the smallest training class, from 1 to 200.

    The rule reads class sizes only, never a score. With k above the size of a class, items of that
    class cannot be outvoted by their own: neighbours of other classes decide.

    Args:
        smallest: items of the smallest class of the training part, 1 or more.

    >>> deciding_k(6000), deciding_k(139), deciding_k(3), deciding_k(1)
    (200, 69, 1, 1)
    """
    return max(1, min(LARGEST_K, int(SHARE_OF_CLASS * smallest)))


def score(
    pairs: Mapping[str, Pair],
    *,
    headline: str,
    baselines: tuple[str, ...],
    few_row: str = FEATURES,
    full: bool = False,
    name: str = NAME,
    classes: Sequence[str] = (),
    progress: Callable[[str], None] | None = None,
) -> Table:
    """Score every row by every column and compare it with each baseline, paired over the items.

    Args:
        pairs: name of a row -> its training and test embeddings, of the same items in the same
            order. Without a test part every item is scored by the others (k-NN by leave-one-out,
            linear by five-fold cross-validation).
        headline: the row of the k-NN verdict.
        baselines: the rows that the others are compared with.
        few_row: the row of the verdict on the linear classifier and on few labels.
        full: also shares of the labels, 1 to 20 %.
        name: "eval-v1" or "eval-v2".
        classes: class names, label -> name, for messages.
        progress: called with the name of each row before it is scored.

    Raises:
        DataError: no labels in one of the parts, an empty one, or one class.
        ConfigError: an unknown protocol.
    """
    checked(name)
    first = next(iter(pairs.values()))
    ks = _ks(first, name)
    right: dict[str, dict[str, Array]] = {}
    notes: dict[str, dict[str, str]] = {}
    for row, (train, test) in pairs.items():
        if progress:
            progress(row)
        train, test = train.labelled(), test.labelled() if test else None
        if len(set(train.known_labels.tolist())) < 2:
            raise DataError("all training items have the same label; there is nothing to score")
        right[row], notes[row] = (
            _within(train, ks, full) if test is None else _across(train, test, ks, full)
        )
    measure = intervals_of(name, len(next(iter(right[headline].values()))))
    scores = {
        row: {c: measure.score(r, notes[row].get(c, ""), _draws(c)) for c, r in columns.items()}
        for row, columns in right.items()
    }
    comparisons = [
        measure.compare(column, (row, r), (baseline, right[baseline][column]))
        for row in right
        if row not in baselines
        for column, r in right[row].items()
        for baseline in baselines
        if column in right[baseline]
    ]
    counts, split = _counts(*first), _split(*first)
    if name == V1:
        columns = ((HEADLINE, headline), (FEW, few_row))
        verdict = sentence_v1(scores, comparisons, columns)
        return Table(name, scores, comparisons, verdict, counts, split)
    decides = _deciding(first, headline, baselines, right, scores)
    verdict = sentence(scores, comparisons, decides, few_row)
    lopsided = _lopsided_classes(*first, classes)
    return Table(name, scores, comparisons, verdict, counts, split, decides, lopsided)


def _ks(first: Pair, name: str) -> tuple[int, ...]:
    """The numbers of neighbours: eval-v2 leaves out those above the number of items that vote."""
    if name == V1:
        return KS
    train, test = first
    known = train.labelled()
    voters = len(known) if test is not None else len(known) - 1
    return tuple(sorted({k for k in KS if k <= voters} | {deciding_k(smallest_class(known))}))


def _deciding(
    first: Pair,
    headline: str,
    baselines: tuple[str, ...],
    right: Mapping[str, Mapping[str, Array]],
    scores: Mapping[str, Mapping[str, Score]],
) -> dict[str, Any]:
    """The column that leads the verdict, why, and whether the best baseline is saturated in it."""
    smallest = smallest_class(first[0])
    k = deciding_k(smallest)
    column = f"knn@{k}"
    best = max(baselines, key=lambda b: scores[b][column].value, default=None)
    return {
        "column": column,
        "k": k,
        "row": headline,
        "rule": f"min({LARGEST_K}, {SHARE_OF_CLASS:g} x the smallest class of {smallest})",
        "saturated": best is not None and intervals.saturated(right[best][column]),
    }


def _draws(column: str) -> float:
    """How many independent answers stand behind an item's value in a column."""
    return float(DRAWS) if "label" in column else 1.0


def _across(
    train: Embeddings, test: Embeddings, ks: tuple[int, ...], full: bool
) -> tuple[dict[str, Array], dict[str, str]]:
    """Which test items (N,) each column gets right by the training part, and notes."""
    votes = knn_labels(train, test.vectors, k=ks, temperature=TEMPERATURE)
    right, notes = _neighbours(train, votes, test.known_labels, len(train))
    predicted, cost = linear.linear_labels(train, test.vectors)
    right["linear"] = (predicted == test.known_labels).astype(float)
    notes["linear"] = f"cost {cost:g} chosen on a held-out fifth of the training items"
    for column, budget in _budgets(train, full).items():
        _, right[column] = few_label(train, test, **budget, draws=DRAWS)
    return right, notes


def _within(
    items: Embeddings, ks: tuple[int, ...], full: bool
) -> tuple[dict[str, Array], dict[str, str]]:
    """Which items (N,) each column gets right by the other items, and notes."""
    votes = leave_one_out_labels(items, k=ks, temperature=TEMPERATURE)
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
    for k, predicted in votes.items():
        right[f"knn@{k}"] = (predicted == labels).astype(float)
        if k > voters:
            notes[f"knn@{k}"] = f"k is above the {voters} items that vote: all of them do"
        elif k > smallest:
            notes[f"knn@{k}"] = (
                f"k is above the smallest class ({smallest} item{'s' * (smallest > 1)})"
            )
    if chosen in votes:
        right["knn@chosen"] = right[f"knn@{chosen}"]
        notes["knn@chosen"] = f"k = {chosen} by leave-one-out on the training part"
    return right, notes


def _budgets(train: Embeddings, full: bool, *, leaving: int = 0) -> dict[str, dict[str, Any]]:
    """The few-label columns that the smallest class, less `leaving` items, allows."""
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
    scored = test.labelled()
    unknown_classes = set(scored.known_labels.tolist()) - classes
    return counts | {
        "test": len(scored),
        "test_classes_never_trained": len(unknown_classes),
        "test_items_of_them": int(np.isin(scored.known_labels, list(unknown_classes)).sum()),
        "duplicates_across_splits": equal_vectors(known, scored),
    }


def _lopsided_classes(
    train: Embeddings, test: Embeddings | None, names: Sequence[str]
) -> dict[str, list[str]]:
    """The names of classes that only the training part or only the test part has."""
    if test is None:
        return {}
    train_classes, test_classes = (set(p.labelled().known_labels.tolist()) for p in (train, test))

    def named(labels: set[int]) -> list[str]:
        return [str(names[i]) if i < len(names) else str(i) for i in sorted(labels)]

    return {
        "classes_without_test_items": named(train_classes - test_classes),
        "classes_without_training_items": named(test_classes - train_classes),
    }


def equal_vectors(train: Embeddings, test: Embeddings) -> int:
    """How many test items have exactly the vector of a training item."""
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
