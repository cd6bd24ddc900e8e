"""Labels from a file: a table of path (or id) and label, as CSV, TSV or parquet."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import DataError
from ..runtime.extras import optional
from .lists import LABEL, PATH, text_of
from .opening import readable, reason


def read_labels(path: Path) -> dict[str, str]:
    """Id or path -> label, from two columns or from columns whose headings say which they are.

    Raises:
        DataError: missing, damaged, without such columns, or an id twice.
        MissingExtraError: parquet, without pyarrow.
    """
    name = readable(str(path))
    rows = _parquet(path) if path.suffix.lower() in (".parquet", ".pq") else _text(path)
    if not rows:
        raise DataError(f"{name} holds no labels; write lines of id,label")
    headed = _columns(rows[0])
    places = headed or (0, 1)
    rows = rows[1:] if headed else rows
    found: dict[str, str] = {}
    for number, row in enumerate(rows, 1):
        whole = len(row) == 2 if not headed else len(row) > max(places)
        if not whole or not row[places[1]].strip():
            raise DataError(
                f"{name}, label {number}: lines of id,label are needed, got {','.join(row)!r}"
            )
        key = row[places[0]]
        if key in found:
            raise DataError(f"{name} labels {key!r} twice")
        found[key] = row[places[1]].strip()
    if not found:
        raise DataError(f"{name} holds no labels; write lines of id,label")
    return found


def _columns(first: Sequence[str]) -> tuple[int, int] | None:
    """Places of path and label, if the first row is a heading."""
    cells = [cell.strip().lower() for cell in first]
    paths = [i for i, cell in enumerate(cells) if cell in PATH and cell not in LABEL]
    labels = [i for i, cell in enumerate(cells) if cell in LABEL]
    return (paths[0], labels[0]) if paths and labels else None


def _text(path: Path) -> list[list[str]]:
    text = text_of(path)
    best: list[list[str]] = []
    most = -1
    for separator in (",", "\t", ";"):
        try:
            rows = [r for r in csv.reader(io.StringIO(text, newline=""), delimiter=separator) if r]
        except csv.Error as error:
            raise DataError(
                f"{readable(str(path))} cannot be read as lines of id,label: {error}"
            ) from error
        fits = sum(len(row) > 1 for row in rows)
        if fits > most:
            best, most = rows, fits
    return best


def _parquet(path: Path) -> list[list[str]]:
    arrow = optional("pyarrow", "tables", "parquet")
    try:
        table: Any = arrow.parquet.read_table(path)
    except Exception as error:  # pyarrow raises many kinds on a damaged file
        raise DataError(
            f"{readable(str(path))} cannot be read as parquet: {reason(error)}"
        ) from error
    columns = [table.column(name).to_pylist() for name in table.column_names]
    rows = [["" if v is None else str(v) for v in row] for row in zip(*columns, strict=True)]
    return [list(table.column_names), *rows] if _columns(table.column_names) else rows
