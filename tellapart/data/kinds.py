"""The kind of the data that a name stands for, read from its files; free of torch and numpy."""

from __future__ import annotations

import csv
from pathlib import Path

from . import folders, lists
from .endings import AUDIO, IMAGES, KINDS, SERIES, TEXT

__all__ = ["AUDIO", "BUILTIN", "IMAGES", "KINDS", "SERIES", "TEXT", "kind_of", "kind_of_path"]
BUILTIN = ("digits", "fashion-mnist", "cifar10", "stl10")


def kind_of(spec: str) -> str:
    """The kind of the data that a name stands for: "images", "audio", "series" or "text".

    >>> kind_of("digits"), kind_of("audio:calls/"), kind_of("scenes:digits")
    ('images', 'audio', 'images')
    """
    kind = spec.partition(":")[0]
    if kind in KINDS:
        return kind
    path = Path(spec).expanduser()
    if not spec or kind in (*BUILTIN, "scenes") or not path.exists():
        return "images"
    return kind_of_path(path)


def kind_of_path(path: Path) -> str:
    """The kind of data of most files that a folder or a list names, or of a file itself.

    Raises:
        DataError: a file that cannot be read as text.
    """
    if path.is_dir():
        return folders.kind_of_folder(path)
    ending = path.suffix.lower()
    if ending == ".npy":
        return "series"
    for kind, known in KINDS.items():  # one file of these is a source, not a list
        if kind not in ("series", "text") and ending in known:
            return kind
    listed = lists.kind_of_list(path)
    if listed is None:
        return "series" if ending == ".csv" or _is_table(path) else "text"
    return listed


def _is_table(path: Path) -> bool:
    """Whether most lines of a text file are several numbers."""
    lines = [line for line in lists.text_of(path).splitlines() if line.strip()][:200]
    for separator in ("\t", ",", ";"):
        rows = list(csv.reader(lines, delimiter=separator))
        numeric = [
            row for row in rows if len(row) > 1 and sum(map(_is_number, row)) > len(row) // 2
        ]
        if rows and 2 * len(numeric) > len(rows):
            return True
    return False


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
