"""Which reader opens a container of items: a table, a data set, an archive, an array store, ...

Free of numpy and torch; the readers are imported when one is needed.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import endings, folders

if TYPE_CHECKING:
    from .records import Records

TABLES = frozenset({".parquet", ".pq", ".arrow", ".feather", ".ipc", ".jsonl", ".ndjson", ".json"})
TEXTS = frozenset({".csv", ".tsv", ".txt"})
SAVED = ("dataset_dict.json", "dataset_info.json")  # in a folder that `save_to_disk` wrote
HUB = "hf://"
ITEMS = ("image", "audio", "series", "path", "text", "label", "id")


def of_path(path: Path, options: Mapping[str, str], kind: str | None = None) -> Records | None:
    """The items of a container on the disk; None: the path is another kind of data.

    Args:
        path: an existing file or folder.
        options: what stands behind the name, as `specs.split_options`.
        kind: the kind that the user asked for, None: any.

    Raises:
        DataError: it cannot be read.
        MissingExtraError: the package that reads it is missing.
    """
    if any((path / name).is_file() for name in SAVED):
        from . import hugging_face

        return hugging_face.saved(path, options, kind)
    videos = _videos(path)
    if videos and kind in (None, "images"):
        from . import video

        return video.read(videos, path if path.is_dir() else path.parent, options)
    ending = path.suffix.lower()
    is_table = ending in TABLES or (ending in TEXTS and any(role in options for role in ITEMS))
    if path.is_dir() or not is_table:
        return None
    about = path.stat()
    return _table(path, tuple(options.items()), kind, (about.st_size, about.st_mtime_ns))


@functools.lru_cache(maxsize=1)
def _table(
    path: Path, options: tuple[tuple[str, str], ...], kind: str | None, _: tuple[int, int]
) -> Records:
    """The rows of a table; a command asks for its kind first and opens it then.

    Args:
        path: the file.
        options: roles of columns.
        kind: the kind that the user asked for, None: any.
        _: size and time of the file, so that a file that has changed is read again.
    """
    from . import record_tables

    return record_tables.read(path, dict(options), kind)


def of_url(name: str, options: Mapping[str, str], kind: str | None = None) -> Records | None:
    """The items of a data set of the Hugging Face hub; None: the name is another one.

    Args:
        name: hf://user/name.
        options: roles of columns.
        kind: the kind that the user asked for, None: any.
    """
    if not name.startswith(HUB):
        return None
    from . import hugging_face

    return hugging_face.hub(name, options, kind)


def of_object(value: Any, options: Mapping[str, str]) -> Records | None:
    """The items of a Python object that is a container; None of another object.

    Args:
        value: what a user passed as data.
        options: roles of columns.
    """
    module = type(value).__module__.partition(".")[0]
    if module == "datasets" and hasattr(value, "with_format"):
        from . import hugging_face

        return hugging_face.records(value, options)
    if module in ("pandas", "polars", "pyarrow"):
        from . import record_tables

        table = record_tables.of_frame(value)
        return None if table is None else record_tables.records_of(table, options)
    return None


def _videos(path: Path) -> list[Path]:
    """The videos that a path names: one file, or a folder that holds no other kind of data."""
    if path.suffix.lower() in endings.VIDEO and path.is_file():
        return [path]
    if not path.is_dir():
        return []
    if _holds_another_kind(path):
        return []
    found = folders.walk(path)
    names = [name for name in found.files if folders.ending_of(name) in endings.VIDEO]
    return [] if any(found.kinds().values()) else [path / name for name in names]


def _holds_another_kind(root: Path) -> bool:
    """Whether the first files below a folder already tell that it is no folder of videos.

    A folder of a million images is told by its first file, without a walk through all of it.
    """
    others = frozenset().union(*endings.KINDS.values())
    for _, inner, names in os.walk(root):
        inner[:] = [name for name in inner if not folders.is_hidden(name)]
        shown = (name for name in names if not folders.is_hidden(name))
        known = (folders.ending_of(name) for name in shown)
        first = next((e for e in known if e in others or e in endings.VIDEO), None)
        if first is not None:
            return first in others
    return False
