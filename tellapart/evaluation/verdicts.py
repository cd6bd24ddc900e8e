"""Verdicts in plain English: one sentence that says what is better, what is not, and by how much.

Every verdict of `eval` uses the same words: "significantly better than", "significantly worse
than" and "not significantly different from" the best baseline, with the difference and its 95 %
interval.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .bootstrap import Comparison, Score

WORDS = {
    1: "significantly better than",
    -1: "significantly worse than",
    0: "not significantly different from",
}
Scores = Mapping[str, Mapping[str, Score]]


def column_name(column: str) -> str:
    """A column of the table in words.

    >>> column_name("knn@20"), column_name("linear"), column_name("10 labels per class")
    ('k-NN accuracy (k = 20)', 'linear classifier', '10 labels per class')
    """
    if column == "knn@chosen":
        return "k-NN accuracy (k chosen for each row)"
    if column.startswith("knn@"):
        return f"k-NN accuracy (k = {column[4:]})"
    return {"linear": "linear classifier"}.get(column, column)


def listed(columns: Sequence[str]) -> str:
    """Columns in words, those of one kind together.

    >>> listed(["knn@1", "knn@chosen", "linear", "1 label per class", "4 labels per class"])
    'k-NN (k = 1, chosen for each row), linear classifier, 1 and 4 labels per class'
    """
    parts, labels = [], [c.split()[0] for c in columns if c.endswith("per class")]
    if ks := [c[4:] for c in columns if c.startswith("knn@")]:
        parts.append(f"k-NN (k = {', '.join(ks)})".replace("chosen", "chosen for each row"))
    parts += [
        column_name(c) for c in columns if not c.startswith("knn@") and not c.endswith("per class")
    ]
    if labels:
        counts = " and ".join([", ".join(labels[:-1]), labels[-1]] if labels[1:] else labels)
        parts.append(f"{counts} label{'s' * (labels != ['1'])} per class")
    return ", ".join(parts)


def percent(value: float) -> str:
    """A share in [0, 1] as a percentage.

    >>> percent(0.953)
    '95.3 %'
    """
    return f"{value * 100:.1f} %"


def against(comparison: Comparison) -> str:
    """A comparison with the best baseline in words, with the difference in points."""
    c = comparison
    return (
        f"{WORDS[c.shown]} the best baseline, {c.baseline} ({c.difference * 100:+.1f} points, 95 % "
        f"interval {c.low * 100:+.1f} to {c.high * 100:+.1f})"
    )


def with_best(comparisons: Sequence[Comparison], column: str, row: str) -> Comparison | None:
    """The comparison of a row with the baseline that is best in a column."""
    here = [c for c in comparisons if c.column == column and c.row == row]
    return min(here, key=lambda c: c.difference, default=None)


def sentence(
    scores: Scores, comparisons: Sequence[Comparison], deciding: Mapping[str, Any], few_row: str
) -> str:
    """The verdict of `eval-v2`: the deciding column, then every other column by its outcome.

    Args:
        scores: row -> column -> score.
        comparisons: of the rows with the baselines.
        deciding: {"column", "k", "row", "saturated"}.
        few_row: the row whose linear and few-label columns count; the k-NN columns are those of
            the deciding row.
    """
    column, row = str(deciding["column"]), str(deciding["row"])
    score = scores[row][column]
    of_row = "" if row == few_row else f" of the {row}"
    lead = f"k-NN accuracy{of_row} (k = {deciding['k']}): {percent(score.value)}"
    best = with_best(comparisons, column, row)
    if best is None:
        low, high = score.low * 100, score.high * 100
        return f"{lead} (95 % interval {low:.1f} to {high:.1f}; no baseline to compare with)."
    outcomes: dict[int, list[str]] = {1: [], -1: [], 0: []}
    for other in scores[row]:
        of = row if other.startswith("knn@") else few_row
        comparison = with_best(comparisons, other, of) if other in scores.get(of, {}) else None
        if other != column and comparison is not None:
            outcomes[comparison.shown].append(other)
    parts = [f"{lead}, {against(best)}"]
    for shown, words in ((1, "better"), (0, "not significantly different"), (-1, "worse")):
        if outcomes[shown]:
            also = "also " if shown == best.shown else ""
            parts.append(f"{also}{words}: {listed(outcomes[shown])}")
    if deciding.get("saturated"):
        value = max(scores[c.baseline][column].value for c in comparisons if c.column == column)
        parts.append(
            f"the baselines are saturated ({percent(value)}): these data cannot tell encoders apart"
        )
    return "; ".join(parts) + "."


def sentence_v1(
    scores: Scores, comparisons: Sequence[Comparison], wanted: Sequence[tuple[str, str]]
) -> str:
    """The verdict of `eval-v1`: k-NN at k = 200 and ten labels per class, on fixed rows.

    Args:
        scores: row -> column -> score.
        comparisons: of the rows with the baselines.
        wanted: (column, row) of each part of the sentence.
    """
    parts = []
    for column, row in wanted:
        if column not in scores.get(row, {}):
            continue
        name = column_name(column)
        name = name if name.startswith("k-NN") else f"accuracy from {name}"
        part = f"{name}: {percent(scores[row][column].value)}"
        best = with_best(comparisons, column, row)
        parts.append(f"{part}, {against(best)}" if best else part)
    return "; ".join(parts) + "."


def transfer(scores: Mapping[str, Mapping[str, Any]]) -> str:
    """On how many sources an encoder is better than every baseline in the deciding column.

    Args:
        scores: source -> what eval.json holds of it.
    """
    better = []
    for name, result in scores.items():
        column = result.get("deciding", {}).get("column", "knn@200")
        here = [
            c
            for c in result.get("comparisons", ())
            if c["row"] == result["headline"] and c["column"] == column
        ]
        if here and all(c["low"] > 0 for c in here):
            better.append(name)
    names = f": {', '.join(better)}" if better else ""
    return (
        f"By k-NN accuracy the encoder is significantly better than every baseline on "
        f"{len(better)} of {len(scores)} sources{names}."
    )
