"""What `eval` prints: tables a stranger understands."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table as Grid

from ..runtime.console import Console

COLUMNS = {
    "knn@1": "kNN\nk=1", "knn@5": "kNN\nk=5", "knn@20": "kNN\nk=20", "knn@200": "kNN\nk=200",
    "linear": "linear",
}  # fmt: skip
MEASURES = {
    "view retrieval": "finds its other view, of 1",
    "neighbour agreement": "neighbours that views share, of 1",
    "alignment": "between views; 0 = none",
    "uniformity": "-4 = spread evenly",
    "LiDAR": "directions that tell items apart",
    "effective rank": "directions",
    "alpha-ReQ": "fall of the spectrum; near 1",
    "std": "0 = collapsed, 1 = centred",
    "hubness": "0 = none",
}
UNPRINTED = ("knn@chosen",)  # in eval.json


def print_table(result: Mapping[str, Any], console: Console) -> None:
    """Print what eval.json holds: scores, geometry, the verdict."""
    if console.quiet:
        return
    rows = result.get("scores")
    if rows:
        console.terminal.print(_scores(rows, result["comparisons"]))
        for line in _under(result, rows):
            console.say(line)
    if "sts" in result:
        said = {row: {"Spearman": score} for row, score in result["sts"].items()}
        console.terminal.print(
            _plain(f"rank as people do, x 100, {result['counts']['pairs']:,} pairs", said)
        )
    if "partners" in result:
        console.terminal.print(_plain("finds the partner, %", result["partners"]))
    console.terminal.print(_geometry(result["geometry"]))
    if frames := result.get("frames"):
        named = {row: {"right": score} for row, score in frames["scores"].items()}
        counts = frames["counts"]
        console.terminal.print(
            _plain(f"single frames, {counts['labels']} labels, {counts['test']:,} judged, %", named)
        )
    for name, cells in result.get("full", {}).items():
        console.terminal.print(_plain(name, cells))
    console.say(result["verdict"])


def print_transfer(results: Mapping[str, Mapping[str, Any]], console: Console) -> None:
    """A line for every source: the headline and the best baseline beside it, in %."""
    if console.quiet:
        return
    grid = Grid(
        "source", "kNN k=200", "best baseline", "linear", "best baseline", title_justify="left"
    )
    for source, result in results.items():
        cells = []
        for column in ("knn@200", "linear"):
            scores = result.get("scores")
            if not scores:
                cells += ["-", "-"]
                continue
            value = scores[result["headline"]][column]
            best = max(result["baselines"], key=lambda b: scores[b][column]["value"], default=None)
            cells.append(f"{value['value'] * 100:.1f} ±{(value['high'] - value['low']) * 50:.1f}")
            cells.append(f"{scores[best][column]['value'] * 100:.1f} {best}" if best else "-")
        grid.add_row(source, *cells)
    console.terminal.print(grid)


def _under(result: Mapping[str, Any], rows: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What the numbers are."""
    counts = result["counts"]
    one = "test_classes_never_trained" not in counts
    judged = "items, each judged by the others" if one else "test items"
    lines = [
        f"Accuracy in %, on {counts['test']:,} {judged}; ± half of a 95 % bootstrap interval over them. "
        f"{counts['train']:,} labelled items vote or fit. Protocol {result['protocol']}."
    ]
    if result["comparisons"]:
        lines.append("^ better than every baseline, v worse than one: paired bootstrap, 95 %")
    lines += dict.fromkeys(
        f"* {s['note']}"
        for row in rows.values()
        for c, s in row.items()
        if c.startswith("knn@") and _starred(c, s)
    )
    if counts.get("test_classes_never_trained"):
        lines.append(
            f"{counts['test_items_of_them']} test item(s) are of {counts['test_classes_never_trained']} class(es) "
            "without a training item: nothing can be right on them"
        )
    if counts.get("duplicates_across_splits"):
        lines.append(
            f"{counts['duplicates_across_splits']} test item(s) equal a training item: scores flatter"
        )
    return lines


def _scores(rows: Mapping[str, Mapping[str, Any]], comparisons: list[Mapping[str, Any]]) -> Grid:
    present = [n for n in next(iter(rows.values())) if n not in UNPRINTED]
    names = [n for n in COLUMNS if n in present] + [n for n in present if n not in COLUMNS]
    grid = Grid(
        title="how often an item gets the right label", title_justify="left", padding=(0, 0, 0, 1)
    )
    grid.add_column("")
    for name in names:
        grid.add_column(_heading(name), justify="right", no_wrap=True)
    for row, scores in rows.items():
        cells = []
        for name in names:
            s = scores[name]
            mark = ("*" if _starred(name, s) else "") + _against(row, name, comparisons)
            cells.append(f"{s['value'] * 100:.1f}{mark}\n±{(s['high'] - s['low']) * 50:.1f}")
        grid.add_row(row, *cells)
    return grid


def _starred(column: str, score: Mapping[str, Any]) -> bool:
    return bool(score["note"]) and column.startswith("knn@") and column not in UNPRINTED


def _against(row: str, column: str, comparisons: list[Mapping[str, Any]]) -> str:
    """ "^" better than every baseline, "v" worse than one, "" otherwise."""
    here = [c for c in comparisons if c["row"] == row and c["column"] == column]
    if here and all(c["low"] > 0 for c in here):
        return "^"
    return "v" if any(c["high"] < 0 for c in here) else ""


def _heading(name: str) -> str:
    """Two lines of a column's head."""
    if name in COLUMNS:
        return COLUMNS[name]
    if name.endswith("per class"):
        return name.split()[0] + " per\nclass"
    return name.replace(" of the labels", "\nlabels")


def _geometry(rows: Mapping[str, Mapping[str, float]]) -> Grid:
    grid = Grid(
        title="how the points lie, without labels", title_justify="left", padding=(0, 0, 0, 1)
    )
    grid.add_column("")
    for row in rows:
        grid.add_column(row.replace(" ", "\n", 1), justify="right")
    for name in dict.fromkeys(name for values in rows.values() for name in values):
        said = f"{name} ({MEASURES[name]})" if name in MEASURES else name
        grid.add_row(
            said, *(f"{values[name]:.2f}" if name in values else "-" for values in rows.values())
        )
    return grid


def _plain(title: str, rows: Mapping[str, Mapping[str, float]]) -> Grid:
    """Rows of shares as %, whatever their columns."""
    names = list(dict.fromkeys(name for values in rows.values() for name in values))
    grid = Grid(title=title, title_justify="left")
    grid.add_column("")
    for name in names:
        grid.add_column(name, justify="right")
    for row, values in rows.items():
        grid.add_row(row, *(_percent(values[n]) if n in values else "-" for n in names))
    return grid


def _percent(cell: Any) -> str:
    """A share, or a score with its interval, as %."""
    if isinstance(cell, Mapping):
        return f"{cell['value'] * 100:.1f} ±{(cell['high'] - cell['low']) * 50:.1f}"
    return f"{cell * 100:.1f}"
