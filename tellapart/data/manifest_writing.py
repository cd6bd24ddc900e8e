"""Make a manifest of a folder, of an object store, or of tar archives, in flat memory.

Memory grows with the number of folders and with the largest folder, not with the number of files.
"""

from __future__ import annotations

import os
import tarfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import DataError
from ..runtime import files as runtime_files
from ..runtime.extras import optional
from . import endings, folders, remote
from .archives import rest_of
from .manifest import open_stream
from .notes import Note, counted, note, shown, tally
from .opening import readable

ROWS = 65_536  # rows of a row group
NAMED = 20  # names that are kept of what is left out
TARS = (".tar",)
PACKED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst", ".zip")


@dataclass
class Written:
    """A manifest that was written.

    Attributes:
        rows: number of items.
        classes: number of labels; 0: the items have none.
        splits: split -> number of items.
        notes: what was left out, counted by kind.
    """

    rows: int = 0
    classes: int = 0
    splits: Counter[str] = field(default_factory=Counter)
    notes: list[Note] = field(default_factory=list)


@dataclass
class _File:
    """A file on its way into the manifest."""

    name: str  # relative to the root, as the file system spells it
    uri: str
    offset: int | None = None
    length: int | None = None


class _LeftOut:
    """Items that are left out: their number by kind, and the first names."""

    def __init__(self) -> None:
        self.endings: Counter[str] = Counter()
        self.names: dict[str, list[str]] = {}
        self.counts: Counter[str] = Counter()

    def add(self, kind: str, name: str) -> None:
        """Count a file or folder."""
        self.counts[kind] += 1
        names = self.names.setdefault(kind, [])
        if len(names) < NAMED:
            names.append(readable(name))

    def notes(self) -> Iterator[Note]:
        """One note for each kind."""
        words = {
            "other endings": ("file with another ending", "files with other endings"),
            "hidden": ("hidden or system file or folder", "hidden or system files or folders"),
            "no files": ("link to nothing, pipe or device, or link in an archive",
                         "links to nothing, pipes or devices, or links in archives"),
            "own folders": ("folder written by tellapart", "folders written by tellapart"),
            "links": ("link to a folder that is read already", "links to folders read already"),
            "compressed archives": ("compressed archive (unpack it, or make a .tar)",
                                    "compressed archives (unpack them, or make .tar files)"),
            "damaged archives": ("archive that ends early or is damaged",
                                 "archives that end early or are damaged"),
            "unreadable": ("folder that cannot be read", "folders that cannot be read"),
        }  # fmt: skip
        for kind, count in self.counts.items():
            detail = f" ({tally(self.endings.elements())})" if kind == "other endings" else ""
            text = f"{counted(count, *words[kind])} left out{detail}: {shown(self.names[kind])}"
            yield note(kind, text, count=count, names=self.names[kind])


def write(place: str | Path, out: str | Path, *, label_level: str = "top") -> Written:
    """Write the manifest of all images below a place.

    Labels and splits come from the names of folders, as for `open_source`.

    Args:
        place: a folder, a .tar, or the url of a folder (s3://bucket/photos/).
        out: the parquet file.
        label_level: the folder that is the label: "top", "last", or a level from 1.

    Raises:
        DataError: there are no images, or `out` cannot be written.
        StoreError: the store cannot be reached or refuses.
        MissingExtraError: pyarrow is not installed.
    """
    pa = optional("pyarrow", "tables", "parquet")
    out = Path(out)
    if out.suffix.lower() not in (".parquet", ".pq"):
        raise DataError(f"--out must name a .parquet file, got {out}")
    left, counts, in_tar = _LeftOut(), Counter[tuple[str, ...]](), False
    for file in _images(str(place), left):
        counts[_folder(file.name)] += 1
        in_tar = in_tar or file.offset is not None
    if not counts:
        said = "; ".join(n["text"] for n in left.notes())
        raise DataError(f"{place} holds no images{f': {said}' if said else ''}")
    found = Written()
    places = folders.labels_of_folders(counts, label_level, found.notes)
    names = {label for label, _ in places.values() if label is not None}
    found.classes = len(names) if len(names) > 1 else 0
    found.notes += left.notes()
    schema = pa.schema([
        ("id", pa.string()), ("uri", pa.string()),
        *([("offset", pa.int64()), ("length", pa.int64())] if in_tar else []),
        ("label", pa.string()), ("split", pa.string()),
    ])  # fmt: skip
    with runtime_files.replacing(out, error=DataError) as work:
        writer = pa.parquet.ParquetWriter(work, schema)
        rows: list[dict[str, Any]] = []
        for file in _images(str(place), _LeftOut()):
            label, split = places.get(_folder(file.name), (None, None))
            rows.append({
                "id": readable(file.name), "uri": file.uri, "offset": file.offset,
                "length": file.length, "split": split,
                "label": readable(label) if label is not None and found.classes else None,
            })  # fmt: skip
            found.rows += 1
            found.splits.update([split] if split else [])
            if len(rows) == ROWS:
                writer.write_table(pa.Table.from_pylist(rows, schema))
                rows = []
        if rows:
            writer.write_table(pa.Table.from_pylist(rows, schema))
        writer.close()
    return found


def _folder(name: str) -> tuple[str, ...]:
    """The folders of a file, by which it is labelled; an archive is none."""
    return tuple(part for part in name.split("/")[:-1] if not part.lower().endswith(TARS))


def _images(place: str, left: _LeftOut) -> Iterator[_File]:
    """The images below a place, in a fixed order; members of tar archives among them."""
    listed = _of_store(place) if remote.is_url(place) else _of_disk(place, left)
    for file in listed:
        lowered = file.name.lower()
        ending = os.path.splitext(lowered)[1]
        if ending in endings.IMAGES:
            yield file
        elif lowered.endswith(TARS):
            yield from _members(file, left)
        elif lowered.endswith(PACKED):
            left.add("compressed archives", file.name)
        else:
            left.endings[ending or "(none)"] += 1
            left.add("other endings", file.name)


def _of_disk(place: str, left: _LeftOut) -> Iterator[_File]:
    """The files below a folder, sorted by name; hidden ones are left out."""
    root = os.path.abspath(os.path.expanduser(place))
    if not os.path.exists(root):
        raise DataError(f"{place} does not exist")
    if not os.path.isdir(root):
        yield _File(os.path.basename(root), _uri(root))
        return
    seen: set[str] = set()

    def below(folder: str, name: str) -> Iterator[_File]:
        real = os.path.realpath(folder)
        if real in seen:
            left.add("links", name)
            return
        seen.add(real)
        try:
            with os.scandir(folder) as entries:
                # a folder sorts as name + "/", so that all names come in the order of strings
                inner = sorted(e.name + "/" if e.is_dir() else e.name for e in entries)
        except OSError:
            left.add("unreadable", name)
            return
        if name and folders._is_ours(folder, inner):
            left.add("own folders", name)
            return
        for entry in inner:
            path, own = f"{folder}/{entry}".rstrip("/"), f"{name}{entry}"
            if folders.is_hidden(entry.rstrip("/")):
                left.add("hidden", own)
            elif entry.endswith("/"):
                yield from below(path, own)
            elif not os.path.isfile(path):
                left.add("no files", own)
            else:
                yield _File(own, _uri(path))

    yield from below(root, "")


def _of_store(url: str) -> Iterator[_File]:
    """The files below a url, a folder of the store at a time."""
    system, inner = remote.file_system(url)
    protocol = url.partition("://")[0]

    def listing(folder: str) -> list[dict[str, Any]]:
        def ask() -> list[dict[str, Any]]:
            system.invalidate_cache(folder)
            found = list(system.ls(folder, detail=True))
            system.invalidate_cache(folder)
            return found

        return sorted(remote.asked(url, ask), key=lambda about: str(about["name"]))

    root = inner.rstrip("/")

    def below(folder: str) -> Iterator[_File]:
        for about in listing(folder):
            name = str(about["name"]).rstrip("/")
            if name == folder.rstrip("/") and about["type"] == "directory":
                continue
            own = name.removeprefix(root).lstrip("/") or os.path.basename(name)
            if about["type"] == "directory":
                yield from below(name)
            elif about.get("size") != 0 or os.path.splitext(name)[1]:  # else a folder's marker
                yield _File(own, name if "://" in name else f"{protocol}://{name.lstrip('/')}")

    try:
        yield from below(root)
    except FileNotFoundError as error:
        raise DataError(f"{remote.shown(url)} does not exist") from error


def _uri(path: str) -> str:
    """A path as a uri; one that is not UTF-8 is spelled with %XX."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return Path(path).as_uri()
    return path


def _members(archive: _File, left: _LeftOut) -> Iterator[_File]:
    """The images in a tar archive, by their place in it."""
    try:
        with open_stream(archive.uri) as file, tarfile.open(fileobj=file, mode="r:") as tar:
            for member in tar:
                vars(tar)["members"] = []  # a list that would grow with the archive
                if member.isdir():
                    continue
                name = f"{archive.name}/{member.name}"
                ending = folders.ending_of(member.name)
                if not member.isfile():
                    left.add("no files", name)
                elif any(folders.is_hidden(part) for part in _parts(member.name)):
                    left.add("hidden", name)
                elif ending in endings.IMAGES:
                    yield _File(name, archive.uri, member.offset_data, member.size)
                else:
                    left.endings[ending or "(none)"] += 1
                    left.add("other endings", name)
            damaged = any(rest_of(tar))
    except (tarfile.TarError, EOFError):
        damaged = True
    if damaged:
        left.add("damaged archives", archive.name)


def _parts(name: str) -> list[str]:
    """The folders and the file of a member of an archive."""
    return [part for part in name.split("/") if part not in ("", ".")]
