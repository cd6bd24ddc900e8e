"""Tables of scores: the one place that turns what eval.json holds into rows and columns of text.

The terminal, the report and the model card all show these tables, so they agree cell by cell.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Cells = Mapping[str, Any]
ABSENT = "-"
NAMED = 10  # classes
MEASURES = {
    "view retrieval": "finds its other view; at most 1",
    "neighbour agreement": "shared neighbours of two views; at most 1",
    "alignment": "distance between views; 0 = none",
    "uniformity": "-4 = spread evenly",
    "LiDAR": "discriminative directions",
    "effective rank": "directions",
    "alpha-ReQ": "decay of the spectrum; near 1",
    "std": "0 = collapsed, 1 = centred",
    "hubness": "0 = none",
}


@dataclass(frozen=True)
class ScoreTable:
    """A table of text cells.

    Attributes:
        title: what the numbers are.
        heads: column names as in eval.json; the first, of the row names, is empty.
        rows: the row name, then one cell per column; "-" where a row has no such score.
        notes: sentences below the table.
    """

    title: str
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()


def tables(result: Cells) -> list[ScoreTable]:
    """Return every table of an evaluation, in the order in which they are shown.

    Args:
        result: what eval.json holds.
    """
    all_tables = []
    if scores := result.get("scores"):
        all_tables.append(_accuracy(result, scores))
    if "transfer" in result:
        all_tables.append(_transfer(result["transfer"]))
    if retrieval := result.get("view_retrieval"):
        rows = {row: {"view retrieval": score} for row, score in retrieval.items()}
        all_tables.append(_of("Retrieval of another view of the same item, %", rows))
    if sts := result.get("sts"):
        pairs = result.get("counts", {}).get("pairs")
        counted = f", {pairs:,} pairs" if pairs else ""
        rows = {row: {"Spearman": score} for row, score in sts.items()}
        all_tables.append(_of(f"Spearman correlation x 100{counted}", rows))
    if partners := result.get("partners"):
        all_tables.append(_of("Retrieval of the partner, %", partners))
    if geometry := result.get("geometry"):
        all_tables.append(_geometry(geometry))
    if frames := result.get("frames"):
        counts = frames["counts"]
        title = f"Frame accuracy, {counts['labels']} labels, {counts['test']:,} test frames, %"
        rows = {row: {"accuracy": score} for row, score in frames["scores"].items()}
        all_tables.append(_of(title, rows))
    all_tables += [_of(name, cells) for name, cells in (result.get("full") or {}).items()]
    return all_tables


def markdown(result: Cells) -> list[str]:
    """Return the tables of an evaluation as lines of Markdown, for a model card."""
    lines: list[str] = []
    for table in tables(result):
        lines += ["", f"**{table.title}**", "", _line(table.heads)]
        lines.append("|---|" + "---:|" * (len(table.heads) - 1))
        lines += [_line(row) for row in table.rows]
        if table.notes:
            lines += ["", " ".join(table.notes)]
    return lines


def percent(score: Any) -> str:
    """Return a share, or a score with its interval, in percent.

    An interval that is clearly not symmetric, as near 0 and 100 %, is shown by its ends.

    >>> percent({"value": 0.953, "low": 0.93, "high": 0.97}), percent(0.5), percent(None)
    ('95.3 ± 2.0', '50.0', '-')
    >>> percent({"value": 1.0, "low": 0.912, "high": 1.0})
    '100.0 (91.2 to 100.0)'
    """
    if isinstance(score, Mapping):
        value, low, high = (score[name] * 100 for name in ("value", "low", "high"))
        if min(high - value, value - low) < (high - low) / 4:
            return f"{value:.1f} ({low:.1f} to {high:.1f})"
        return f"{value:.1f} ± {(high - low) / 2:.1f}"
    return ABSENT if score is None else f"{score * 100:.1f}"


def _accuracy(result: Cells, scores: Mapping[str, Cells]) -> ScoreTable:
    comparisons = result.get("comparisons") or []
    columns = _columns(scores)

    def cell(row: str, column: str) -> str:
        score = scores[row].get(column)
        if score is None:
            return ABSENT
        value, interval = percent(score).split(" ", 1)
        star = "*" if _starred(column, score) else ""
        return f"{value}{star}{_against(row, column, comparisons)} {interval}"

    rows = tuple((row, *(cell(row, column) for column in columns)) for row in scores)
    return ScoreTable("Classification accuracy, %", ("", *columns), rows, _notes(result, scores))


def _transfer(results: Mapping[str, Cells]) -> ScoreTable:
    """The headline row of each source beside its best baseline."""
    heads = ("", "k-NN", "best baseline", "linear", "best baseline")
    rows = []
    for source, result in results.items():
        cells = [source]
        for column in (result.get("deciding", {}).get("column", "knn@200"), "linear"):
            scores = result.get("scores") or {}
            own = scores.get(result.get("headline"), {}).get(column)
            others = [b for b in result.get("baselines", ()) if column in scores.get(b, {})]
            best = max(others, key=lambda b: scores[b][column]["value"], default=None)
            cells.append(percent(own))
            cells.append(f"{percent(scores[best][column])} ({best})" if best else ABSENT)
        rows.append(tuple(cells))
    return ScoreTable("Classification accuracy by source, %", heads, tuple(rows))


def _geometry(geometry: Mapping[str, Cells]) -> ScoreTable:
    """One row for each measure, one column for each encoder: there are more measures."""
    measures = dict.fromkeys(name for values in geometry.values() for name in values)
    rows = tuple(
        (
            f"{name} ({MEASURES[name]})" if name in MEASURES else name,
            *(f"{values[name]:.2f}" if name in values else ABSENT for values in geometry.values()),
        )
        for name in measures
    )
    return ScoreTable("Geometry of the vectors, without labels", ("", *geometry), rows)


def _of(title: str, scores: Mapping[str, Cells]) -> ScoreTable:
    columns = tuple(dict.fromkeys(name for cells in scores.values() for name in cells))
    rows = tuple(
        (row, *(percent(cells.get(column)) for column in columns)) for row, cells in scores.items()
    )
    return ScoreTable(title, ("", *columns), rows)


def _columns(scores: Mapping[str, Cells]) -> tuple[str, ...]:
    """The columns that any row has: neighbours by k, linear, labels per class, shares of labels."""
    names = dict.fromkeys(name for cells in scores.values() for name in cells)
    return tuple(sorted(names, key=_place))


def _place(column: str) -> tuple[int, float]:
    number = re.search(r"[\d.]+", column)
    amount = float(number.group()) if number else float("inf")
    order = ("knn@", "linear", "per class", "of the labels")
    group = next((i for i, part in enumerate(order) if part in column), len(order))
    return group, amount


def _starred(column: str, score: Cells) -> bool:
    return bool(score.get("note")) and column.startswith("knn@") and column != "knn@chosen"


def _against(row: str, column: str, comparisons: list[Cells]) -> str:
    """ "^" better than every baseline, "v" worse than one, "" otherwise."""
    here = [c for c in comparisons if c["row"] == row and c["column"] == column]
    if here and all(c["low"] > 0 for c in here):
        return "^"
    return "v" if any(c["high"] < 0 for c in here) else ""


def _notes(result: Cells, scores: Mapping[str, Cells]) -> tuple[str, ...]:
    counts = result.get("counts") or {}
    notes = []
    if "test" in counts:
        one = "test_classes_never_trained" not in counts
        judged = "items (leave-one-out)" if one else "test items"
        notes.append(
            f"On {counts['test']:,} {judged}; ± is half of a 95 % interval over them. "
            f"{counts['train']:,} labelled training items. Protocol {result.get('protocol')}."
        )
    if result.get("comparisons"):
        notes.append("^ better than every baseline, v worse than one (paired, 95 %).")
    notes += dict.fromkeys(
        f"* {score['note']}."
        for cells in scores.values()
        for column, score in cells.items()
        if _starred(column, score)
    )
    chosen = {row: c["knn@chosen"].get("note") for row, c in scores.items() if "knn@chosen" in c}
    if len(set(chosen.values())) == 1:
        chosen = {"every row": next(iter(chosen.values()))}
    if any(chosen.values()):
        each = "; ".join(f"{row}: {note}" for row, note in chosen.items() if note)
        notes.append(f"knn@chosen: {each}.")
    if counts.get("test_classes_never_trained"):
        notes.append(
            f"Test items of classes without a training item, which nothing can classify: "
            f"{counts['test_items_of_them']:,} of "
            f"{_named(counts['test_classes_never_trained'], result, 'training')}."
        )
    if empty := result.get("classes_without_test_items"):
        notes.append(f"Not scored, without a test item: {_named(len(empty), result, 'test')}.")
    if counts.get("duplicates_across_splits"):
        notes.append(
            f"Test items that equal a training item: {counts['duplicates_across_splits']:,}; "
            "test scores are optimistic."
        )
    return tuple(notes)


def _named(count: int, result: Cells, part: str) -> str:
    """A number of classes and, where they are known, their first names."""
    names = list(result.get(f"classes_without_{part}_items") or ())
    listed = f" ({', '.join(names[:NAMED])}{', ...' * (len(names) > NAMED)})" if names else ""
    return f"{count:,} class{'es' * (count != 1)}{listed}"


def _line(cells: tuple[str, ...]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
