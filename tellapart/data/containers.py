"""Which reader opens a container of items: a table, a data set, an archive, an array store, ...

Free of numpy and torch; the readers are imported when one is needed.
"""

from __future__ import annotations

import functools
import glob
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import DataError
from . import endings, folders, specs

if TYPE_CHECKING:
    from . import webdataset
    from .records import Records

TABLES = frozenset({".parquet", ".pq", ".arrow", ".feather", ".ipc", ".jsonl", ".ndjson", ".json"})
TEXTS = frozenset({".csv", ".tsv", ".txt"})
SAVED = ("dataset_dict.json", "dataset_info.json")  # in a folder that `save_to_disk` wrote
HUB = "hf://"
FILES = ("hf://datasets/", "hf://spaces/", "hf://buckets/")  # files of the hub, by fsspec
PROBED = 1 << 16  # bytes of a list in which a url is looked for
ITEMS = ("image", "audio", "series", "path", "text", "label", "id")


def of_path(
    path: Path, options: Mapping[str, str], kind: str | None = None, base: str | None = None
) -> Records | None:
    """The items of a container on the disk; None: the path is another kind of data.

    Args:
        path: an existing file or folder.
        options: what stands behind the name, as `specs.split_options`.
        kind: the kind that the user asked for, None: any.
        base: the url that paths in a table are relative to; None: the folder of the table.

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
    if not path.is_file():
        return None
    if not is_table:
        return _of_list(path, base) if ending in TEXTS and not options else None
    about = path.stat()
    return _table(path, tuple(options.items()), kind, base, (about.st_size, about.st_mtime_ns))


@functools.lru_cache(maxsize=1)
def _table(
    path: Path,
    options: tuple[tuple[str, str], ...],
    kind: str | None,
    base: str | None,
    _: tuple[int, int],
) -> Records:
    """The rows of a table; a command asks for its kind first and opens it then.

    Args:
        path: the file.
        options: roles of columns.
        kind: the kind that the user asked for, None: any.
        base: as `of_path`.
        _: size and time of the file, so that a file that has changed is read again.
    """
    from . import record_tables

    return record_tables.read(path, dict(options), kind, base)


def _of_list(path: Path, base: str | None) -> Records | None:
    """The files of stores that a list names; None: it names files on the disk, or none."""
    from .opening import open_regular

    if base is None:
        with open_regular(path) as file:
            if b"://" not in file.read(PROBED):
                return None
    from . import record_lists

    return record_lists.read(path, base)


def is_packed(name: str) -> bool:
    """Whether a name stands for a url or for archives, which `copies.locate` finds."""
    path = Path(name).expanduser()
    return "://" in name or bool(shards([path])) or bool(expanded(name))


def expanded(name: str) -> list[Path]:
    """The paths that braces or wildcards in a name stand for; []: it has none, or is a path.

    Args:
        name: such as shard-{000..099}.tar or shard-*.tar.

    Raises:
        DataError: one of the files does not exist.
    """
    path = Path(name).expanduser()
    try:
        if path.exists():
            return []
    except (OSError, ValueError):
        return []
    paths = [Path(p).expanduser() for p in specs.expand_braces(name)]
    if len(paths) > 1:
        lost = [p for p in paths if not p.exists()]
        if lost:
            raise DataError(
                f"{len(lost):,} of the {len(paths):,} files of {name} do not exist, the first: "
                f"{lost[0]}"
            )
        return paths
    return [Path(p) for p in sorted(glob.glob(str(path)))] if glob.has_magic(name) else []


def shards(paths: Sequence[Path]) -> list[Path]:
    """The archives that paths name; []: other data.

    Args:
        paths: archives, or one folder that holds archives and no images or sounds.
    """
    if all(endings.is_archive(path.name) and path.is_file() for path in paths):
        return list(paths)
    if len(paths) > 1 or not paths[0].is_dir() or not _may_hold(paths[0], endings.is_archive):
        return []
    found = folders.walk(paths[0])
    kinds = found.kinds()
    if kinds["images"] or kinds["audio"]:
        return []
    return [paths[0] / name for name in found.files if endings.is_archive(name)]


def of_shards(
    files: Sequence[Path], options: Mapping[str, str], kind: str | None = None
) -> Records | None:
    """The samples of WebDataset shards; None: the archives hold packed folders.

    Args:
        files: the archives.
        options: roles of columns.
        kind: the kind that the user asked for; None: any.

    Raises:
        DataError: they hold nothing that is read.
    """
    from . import webdataset

    root = files[0].parent if len(files) == 1 else Path(os.path.commonpath(files))
    states = tuple((f.stat().st_size, f.stat().st_mtime_ns) for f in files)
    found = _survey(tuple(files), states)
    if not webdataset.is_sample_set(files, found):
        return None
    return webdataset.records(files, root, found, options, kind)


@functools.lru_cache(maxsize=1)
def _survey(files: tuple[Path, ...], _: tuple[tuple[int, int], ...]) -> webdataset.Survey:
    """The records of archives, kept: a command asks for their kind and opens them afterwards."""
    from . import webdataset

    return webdataset.survey(files)


def of_url(name: str, options: Mapping[str, str], kind: str | None = None) -> Records | None:
    """The items of a data set of the Hugging Face hub; None: the name is another one.

    Args:
        name: hf://user/name.
        options: roles of columns.
        kind: the kind that the user asked for, None: any.
    """
    if not name.startswith(HUB) or name.startswith(FILES):
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
    if not path.is_dir() or not _may_hold(path, _is_video):
        return []
    found = folders.walk(path)
    names = [name for name in found.files if _is_video(name)]
    return [] if any(found.kinds().values()) else [path / name for name in names]


def _is_video(name: str) -> bool:
    return folders.ending_of(name) in endings.VIDEO


def _may_hold(root: Path, wanted: Callable[[str], bool]) -> bool:
    """Whether no image or sound comes before the first wanted file of a folder.

    A folder of a million images is told by its first file, without a walk through all of it.

    Args:
        root: the folder.
        wanted: whether a name is of a wanted file.
    """
    others = endings.IMAGES | endings.AUDIO
    for _, inner, names in os.walk(root):
        inner[:] = [name for name in inner if not folders.is_hidden(name)]
        for name in names:
            if folders.is_hidden(name):
                continue
            if wanted(name) or folders.ending_of(name) in others:
                return wanted(name)
    return False
