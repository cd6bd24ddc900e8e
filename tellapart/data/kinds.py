"""The kind of the data that a name stands for, read from its files; free of torch and numpy."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from . import folders, lists
from .endings import AUDIO, IMAGES, KINDS, SERIES, TEXT

__all__ = ["AUDIO", "BUILTIN", "IMAGES", "KINDS", "SERIES", "TEXT", "kind_of", "kind_of_path"]
BUILTIN = ("digits", "fashion-mnist", "cifar10", "stl10")
ARRAYS = frozenset({".npy", ".npz"})  # files that may hold images
Data = Any  # a name, a path, or an object that `open_source` takes
PYTHON = "python:"  # how the name of a source begins whose data were passed in Python


class Given(str):
    """Data passed as a Python object: the object, under the name that run.json stores.

    Attributes:
        value: the object.
    """

    value: Any

    def __new__(cls, value: Any) -> Given:
        """The object under its name: its type and shape, or the name of a source."""
        shape = getattr(value, "shape", None)
        size = (
            tuple(shape) if shape is not None else len(value) if hasattr(value, "__len__") else ""
        )
        kind = type(value).__name__
        name = getattr(value, "name", None) if hasattr(value, "fingerprint") else None
        made = super().__new__(cls, name or f"{PYTHON}{kind}{size if shape else f'({size})'}")
        made.value = value
        return made


def given(data: Data) -> str:
    """Data as a string: a name or path as it is, any other object as `Given`.

    Args:
        data: what a user passed.
    """
    if isinstance(data, str):
        return data
    if isinstance(data, Path):
        return f"./{data}" if str(data) in BUILTIN else str(data)
    return Given(data)


def kind_of(spec: Data) -> str:
    """The kind of the data: "images", "audio", "series", "text", or a registered one.

    Args:
        spec: a name, or any object that `open_source` takes.

    >>> kind_of("digits"), kind_of("audio:calls/"), kind_of("scenes:digits")
    ('images', 'audio', 'images')
    """
    name = given(spec)
    if isinstance(name, Given):
        from .objects import kind_of_object  # needs numpy and torch, which a name does not

        found: str = kind_of_object(name.value)
        return found
    kind = name.partition(":")[0]
    if kind in KINDS:
        return kind
    path = Path(name).expanduser()
    if not name or kind in (*BUILTIN, "scenes") or not path.exists():
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
    if ending in ARRAYS and is_image_array(path):
        return "images"
    if ending == ".npy":
        return "series"
    for kind, known in KINDS.items():  # one file of these is a source, not a list
        if kind not in ("series", "text") and ending in known:
            return kind
    listed = lists.kind_of_list(path)
    if listed is None:
        return "series" if ending == ".csv" or _is_table(path) else "text"
    return listed


def is_image_array(path: Path) -> bool:
    """Whether a .npy holds uint8 images, by its header; an .npz does."""
    import numpy as np  # only for a file that ends in .npy

    if path.suffix.lower() == ".npz" or not path.is_file():
        return path.is_file()
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return False
    return bool(array.dtype == np.uint8 and array.ndim in (3, 4))


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
