"""The kind of the data that a name stands for, read from its files; free of torch and numpy."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from . import containers, folders, lists, specs
from .columns import SENTENCES
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
        options: roles of its columns, as `specs.columns_of`.
    """

    value: Any
    options: Mapping[str, str]

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
        made.options = {}
        return made


def given(
    data: Data, columns: str | Mapping[str, str] | None = None, fps: float | None = None
) -> str:
    """Data as a string: a name or path as it is, any other object as `Given`.

    Args:
        data: what a user passed.
        columns: roles of columns, as `specs.columns_of`.
        fps: frames a second of videos.

    Raises:
        ConfigError: unknown roles.
    """
    options: dict[str, Any] = {**specs.columns_of(columns), specs.FPS: fps}
    if isinstance(data, Path):
        data = f"./{data}" if str(data) in BUILTIN else str(data)
    if isinstance(data, Given):
        return data
    if isinstance(data, str):
        return specs.with_options(data, options)
    made = Given(data)
    made.options = {name: str(value) for name, value in options.items() if value is not None}
    return made


def kind_of(spec: Data) -> str:
    """The kind of the data: "images", "audio", "series", "text", or a registered one.

    Args:
        spec: a name, or any object that `open_source` takes.

    >>> kind_of("digits"), kind_of("audio:calls/"), kind_of("scenes:digits")
    ('images', 'audio', 'images')
    """
    name = given(spec)
    if isinstance(name, Given):
        records = containers.of_object(name.value, name.options)
        if records is not None:
            return records.kind
        from .objects import kind_of_object  # needs numpy and torch, which a name does not

        found: str = kind_of_object(name.value)
        return found
    name, options = specs.split_options(name)
    kind = name.partition(":")[0]
    if kind in KINDS:
        return kind
    if not name or kind in (*BUILTIN, "scenes"):
        return "images"
    path = Path(name).expanduser()
    if not containers.is_packed(name):
        return kind_of_path(path, options) if path.exists() else "images"
    from . import copies  # needs numpy
    from .cache import Cache, default_folder

    place = copies.locate(name, options, None, Cache(default_folder()))
    if place is None:
        return "images"
    return place.records.kind if place.records is not None else kind_of_path(place.path)


def kind_of_path(path: Path, options: Mapping[str, str] | None = None) -> str:
    """The kind of data of most files that a folder or a list names, or of a file itself.

    Args:
        path: an existing file or folder.
        options: what stands behind its name, as `specs.split_options`.

    Raises:
        DataError: a file that cannot be read as text.
    """
    records = containers.of_path(path, options or {})
    if records is not None:
        return records.kind
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
        if _has_sentences(path):
            return "text"
        return "series" if ending == ".csv" or _is_table(path) else "text"
    return listed


def is_image_array(path: Path) -> bool:
    """Whether a .npy holds uint8 images, by its header; an .npz does."""
    import numpy as np  # only for a file that ends in .npy

    if path.suffix.lower() == ".npz" or not path.is_file():
        return path.is_file()
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception:  # NumPy raises many kinds on a damaged header
        return False
    return bool(array.dtype == np.uint8 and array.ndim in (3, 4))


def _has_sentences(path: Path) -> bool:
    """Whether the first line of a .csv or .tsv names a column of sentences."""
    separator = {".csv": ",", ".tsv": "\t"}.get(path.suffix.lower())
    if separator is None:
        return False
    first = lists.text_of(path).split("\n", 1)[0]
    heading = next(iter(lists.cells_of([first], separator)), [])
    return bool({cell.strip().lower() for cell in heading} & SENTENCES)


def _is_table(path: Path) -> bool:
    """Whether most lines of a text file are several numbers."""
    lines = [line for line in lists.text_of(path).splitlines() if line.strip()][:200]
    for separator in ("\t", ",", ";"):
        rows = lists.cells_of(lines, separator)
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
