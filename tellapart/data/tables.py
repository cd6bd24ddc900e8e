"""Tables of numbers from text: separators, headings, columns of time and text, odd lines.

Shapes: T steps, C channels.
"""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from ..errors import DataError
from .files import decode_text, read_bytes
from .lists import cells_of
from .source import Array

MISSING = {"", "nan", "na", "n/a", "null", "none", "-", "--", "?", "nat", "missing", "#n/a"}
TIMES = {
    "time", "timestamp", "date", "datetime", "date_time", "date/time", "utc", "epoch", "unix",
    "unixtime", "unix_time", "seconds", "sec", "ms", "milliseconds", "t", "ts", "zeit", "datum",
}  # fmt: skip
UNITS = {"ms": 1e-3, "milliseconds": 1e-3}  # of columns of time in numbers; others are in seconds
INDEX = {"", "index", "idx", "no", "nr", "row", "#", "step", "unnamed: 0"}
FORMATS = (
    "%Y-%m-%d %H:%M:%S", "%Y-%m-%d %H:%M", "%Y/%m/%d %H:%M:%S", "%Y/%m/%d %H:%M", "%Y/%m/%d",
    "%d.%m.%Y %H:%M:%S", "%d.%m.%Y %H:%M", "%d.%m.%Y", "%d/%m/%Y %H:%M:%S", "%d/%m/%Y %H:%M",
    "%d/%m/%Y", "%m/%d/%Y %H:%M:%S", "%m/%d/%Y %H:%M", "%m/%d/%Y", "%m/%d/%Y %I:%M:%S %p",
    "%m/%d/%Y %I:%M %p", "%Y%m%d %H%M%S", "%H:%M:%S", "%H:%M:%S.%f", "%H:%M",
)  # fmt: skip
PROBED = 50  # lines from which the separator and the format of times are chosen
NUMERIC = 0.9  # share of the cells of a column that are numbers


@dataclass(frozen=True)
class Table:
    """A table of numbers.

    Attributes:
        values: (T, C) float32; a cell without a number is NaN.
        names: of the C columns; () without a heading.
        seconds: from one step to the next (the median), None without a column of time.
        changes: what was left out of the file, in words.
    """

    values: Array
    names: tuple[str, ...] = ()
    seconds: float | None = None
    changes: tuple[str, ...] = field(default=())


def read_csv(path: Path) -> Table:
    """The numbers of a text file.

    Raises:
        DataError: no columns of numbers.
        OSError, UnicodeDecodeError, ValueError: it cannot be read.
    """
    rows = _rows(decode_text(read_bytes(path)))
    changes: list[str] = []
    if not rows:
        raise DataError("not a table of numbers: it has no lines")
    usual = Counter(len(cells) for _, cells in rows)
    width = max(usual, key=lambda n: (usual[n] * n, n))
    first = next(i for i, (_, cells) in enumerate(rows) if len(cells) == width)
    if first:
        above = "; ".join(",".join(cells)[:40] for _, cells in rows[:first][:2])
        changes.append(f"lines above the table left out: {first} ({above})")
        rows = rows[first:]
    names: tuple[str, ...] = ()
    if not _has_numbers(rows[0][1]):
        names = tuple(cell.strip() for cell in rows[0][1])
        rows = rows[1:]
        if len(rows) > 1 and not _has_numbers(rows[0][1]) and _has_numbers(rows[1][1]):
            changes.append(f"second line of headings left out: {','.join(rows[0][1])[:60]}")
            rows = rows[1:]
    while rows and len(rows[-1][1]) != width and not _has_numbers(rows[-1][1]):
        changes.append(f"line below the table left out: {','.join(rows[-1][1])[:40]}")
        rows = rows[:-1]
    odd = [number for number, cells in rows if len(cells) != width]
    if odd:
        changes.append(f"lines with another number of cells: {len(odd)} (the first: {odd[0]})")
    return _columns([cells for _, cells in rows], width, names, changes)


def _rows(text: str) -> list[tuple[int, list[str]]]:
    """Line numbers and cells. Commas separate, unless most lines agree on another separator."""
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    separator = next((s for s in ("\t", ";", "|") if _agreed(lines[-PROBED:], s)), ",")
    rows = [
        (reader.line_num, cells)
        for reader in (csv.reader(io.StringIO(text, newline=""), delimiter=separator),)
        for cells in reader
        if any(cell.strip() for cell in cells) and not cells[0].startswith("#")
    ]
    if all(len(cells) == 1 for _, cells in rows):  # blanks separate, or there is one column
        rows = [(number, cells[0].split()) for number, cells in rows]
    if separator != ",":  # 3,14 is a number here
        rows = [(number, [_point(cell) for cell in cells]) for number, cells in rows]
    return rows


def _agreed(lines: Sequence[str], separator: str) -> bool:
    """Whether most lines have one number of cells, more than one, by this separator."""
    counts = Counter(len(cells) for cells in cells_of(lines, separator))
    width, most = max(counts.items(), key=lambda item: item[1], default=(1, 0))
    return width > 1 and most > 0.8 * len(lines)


def _point(cell: str) -> str:
    return (
        cell.replace(",", ".")
        if re.fullmatch(r"\s*[-+]?\d+,\d+(?:[eE][-+]?\d+)?\s*", cell)
        else cell
    )


def _number(cell: str) -> float | None:
    text = cell.strip()
    if text.lower() in MISSING:
        return float("nan")
    try:
        return float(text)
    except ValueError:
        return None


def _has_numbers(cells: Sequence[str]) -> bool:
    return any(cell.strip().lower() not in MISSING and _number(cell) is not None for cell in cells)


def _columns(
    rows: Sequence[list[str]], width: int, names: tuple[str, ...], changes: list[str]
) -> Table:
    """The columns of numbers, the step of the column of time, and what was left out."""
    kept: list[Array] = []
    kept_names: list[str] = []
    seconds: float | None = None
    for i in range(width):
        name = names[i] if i < len(names) else ""
        said = name or f"column {i + 1}"
        cells = [row[i] if len(row) == width else "" for row in rows]
        if all(cell.strip().lower() in MISSING for cell in cells):
            changes.append(f"empty column left out: {said}")
            continue
        given = [_number(cell) for cell in cells]
        numbers = sum(n is not None for n in given)
        filled = np.array([np.nan if n is None else n for n in given], np.float64)
        whole = bool(np.isfinite(filled).all()) and len(filled) > 2
        steps = np.diff(filled) if whole else np.zeros(0)
        if whole and name.lower() in TIMES and bool((steps > 0).all()):
            changes.append(f"column of time left out: {said}")
            step = float(np.median(steps)) * UNITS.get(name.lower(), 1.0)
            if seconds is None:
                seconds = step / 1000 if filled[0] > 1e11 else step  # an epoch in milliseconds
            continue
        if (
            whole
            and name.lower() in INDEX
            and (names or i == 0)
            and bool((steps == 1).all())
            and (filled[0] in (0, 1))
        ):
            changes.append(f"column that counts the lines left out: {said}")
            continue
        if numbers >= NUMERIC * len(cells):
            if numbers < len(cells):
                lost = next(c for c, n in zip(cells, given, strict=True) if n is None)
                changes.append(f"cells without a number in {said}: {len(cells) - numbers} ({lost})")
            kept.append(filled)
            kept_names.append(said)
            continue
        by_time = _step_of_times(cells)
        if by_time is not None:
            changes.append(f"column of time left out: {said}")
            seconds = by_time if seconds is None else seconds
        else:
            changes.append(f"column of text left out: {said}")
    if not kept:
        raise DataError("not a table of numbers: no column of numbers in it")
    values = np.stack(kept, 1).astype(np.float32)
    return Table(values, tuple(kept_names) if names else (), seconds, tuple(changes))


def _step_of_times(cells: Sequence[str]) -> float | None:
    """The median step in seconds of a column of dates and times, None of another column."""
    given = [cell.strip() for cell in cells if cell.strip().lower() not in MISSING]
    for form in ("iso", *FORMATS):
        try:
            for cell in given[:PROBED]:
                _time(cell, form)
            stamps = [_time(cell, form) for cell in given]
        except (ValueError, OverflowError):
            continue
        steps = np.diff(stamps)
        return float(np.median(steps)) if len(steps) else 0.0
    return None


def _time(cell: str, form: str) -> float:
    """Seconds of a date and time; 24:00 is the end of its day."""
    late = re.sub(r"(?<=[ T])24:(?=00)", "00:", cell)
    found = datetime.fromisoformat(late) if form == "iso" else datetime.strptime(late, form)
    if found.tzinfo is not None:
        found = found.astimezone(UTC).replace(tzinfo=None)
    return (found - datetime(1970, 1, 1)).total_seconds() + (86_400 if late != cell else 0)
