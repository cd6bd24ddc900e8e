"""What `eval` prints: a table a stranger understands, and what can be said without any label."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from rich.table import Table as Grid
from torch.nn import functional as F

from .. import geometry
from ..console import Console
from .protocol import NAME, Pair

COLUMNS = {"knn@1": "k=1", "knn@5": "k=5", "knn@20": "k=20", "knn@200": "k=200", "knn@chosen": "k chosen"}
SAMPLE = 2048  # items that the geometry is measured on


def print_table(result: Mapping[str, Any], console: Console) -> None:
    """Print the scores of eval.json, or the geometry where there are no labels, then the verdict."""
    if console.quiet:
        return
    rows = result.get("scores")
    grid = _scores(rows) if rows else _geometry(result["geometry"])
    console.terminal.print(grid)
    if rows:
        counts = result["counts"]
        console.say(
            f"Accuracy in %, on {counts['test']:,} items never trained on; ± half of a 95 % bootstrap interval over "
            f"them. {counts['train']:,} labelled items vote or fit. Protocol {result['protocol']}."
        )
        for note in dict.fromkeys(
            f"* {s['note']}" for row in rows.values() for c, s in row.items() if s["note"] and c != "knn@chosen"
        ):
            console.say(note)
    console.say(result["verdict"])


def geometry_only(pairs: Mapping[str, Pair]) -> dict[str, Any]:
    """Label-free measures of every row, on up to 2,048 items, and a verdict that says what they cannot tell."""
    measured = {}
    for name, (train, _) in pairs.items():
        rows = train.vectors[:: max(1, len(train) // SAMPLE)][:SAMPLE]
        z = F.normalize(torch.from_numpy(np.ascontiguousarray(rows)), dim=1)
        measured[name] = {
            "uniformity": float(geometry.uniformity(z)),
            "effective rank": float(geometry.effective_rank(z)),
            "std": float(geometry.relative_std(z)),
        }
    return {
        "protocol": NAME,
        "geometry": measured,
        "verdict": "There are no labels here, so nothing can tell which row is better for your task. Sort some items "
        "of every kind into folders (10 to 50 of each), and judge on them: tellapart eval RUN --data FOLDER",
    }


def _scores(rows: Mapping[str, Mapping[str, Any]]) -> Grid:
    names = [n for n in (*COLUMNS, "linear") if n in next(iter(rows.values()))]
    names += [n for n in next(iter(rows.values())) if n not in names]
    grid = Grid(title="how often a new item gets the right label", title_justify="left")
    grid.add_column("what it looks at")
    for name in names:
        grid.add_column(_heading(name), justify="right", no_wrap=True)
    for row, scores in rows.items():
        cells = []
        for name in names:
            s = scores[name]
            mark = "*" if s["note"] and name != "knn@chosen" else ""
            cells.append(f"{s['value'] * 100:.1f}{mark}\n±{(s['high'] - s['low']) * 50:.1f}")
        grid.add_row(row, *cells)
    return grid


def _heading(name: str) -> str:
    """Two lines of a column's head."""
    if name in COLUMNS:
        return "kNN\n" + COLUMNS[name].replace("k chosen", "chosen k")
    if name.endswith("labels per class"):
        return name.split()[0] + " labels\na class"
    return name


def _geometry(rows: Mapping[str, Mapping[str, float]]) -> Grid:
    grid = Grid(title="how the points lie, without labels", title_justify="left")
    grid.add_column("what it looks at", no_wrap=True)
    for name in next(iter(rows.values())):
        grid.add_column(name, justify="right")
    for row, values in rows.items():
        grid.add_row(row, *(f"{v:.2f}" for v in values.values()))
    return grid
