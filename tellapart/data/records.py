"""Items of containers (tables, archives, datasets, videos) on their way to a source.

A container is read as a stream of records: a path, bytes, sentences or numbers, with id, label and
split. Bytes and numbers are written into the cache once, as files, and are then read like any other
folder: by the one list of safe formats, in bounded memory, with what cannot be used counted.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError, StoreError
from ..runtime import files as runtime_files
from . import files as listings
from . import image_packing, text
from .cache import Cache
from .files import Listing
from .folders import split_of
from .notes import Note, counted, note, shown, tally
from .source import Array, Source

FORMAT = 1
LARGEST = 1 << 30  # bytes of one item
AT_ONCE = 16  # files of stores that are read at the same time
MAGIC = {
    b"\x89PNG": ".png", b"\xff\xd8\xff": ".jpg", b"GIF8": ".gif", b"BM": ".bmp", b"II*\0": ".tif",
    b"MM\0*": ".tif", b"fLaC": ".flac", b"OggS": ".ogg", b"ID3": ".mp3", b"\xff\xfb": ".mp3",
    b"FORM": ".aiff", b"\0\0\0\x0cjP": ".jp2",
}  # fmt: skip
SOUNDS = {".flac", ".ogg", ".mp3", ".aiff", ".wav"}
OpenListing = Callable[[str, str, Listing], Source]


class Url(str):
    """The url of a file in a store."""


@dataclass(frozen=True)
class Record:
    """One item of a container.

    Attributes:
        id: its name.
        value: the path or the url of a file, the bytes of a file, sentences (one to three), or
            numbers (T, C).
        label: its class, None where it has none.
        split: "train", "test" or another name, None where it has none.
        ending: of the file, where the id does not tell it.
    """

    id: str
    value: Path | Url | bytes | tuple[str, ...] | Array
    label: str | None = None
    split: str | None = None
    ending: str = ""


@dataclass(frozen=True)
class Skipped:
    """An item that cannot be used: its name or line, and why."""

    path: str
    reason: str


@dataclass(frozen=True)
class Records:
    """A container that is opened but not read.

    Attributes:
        kind: "images", "audio", "series" or "text".
        key: a text that changes with the contents; None: unknown before they are read.
        read: gives the records, and what is left out.
        root: the folder that paths are relative to.
        classes: names of all classes in their order; (): they are sorted.
        notes: on the container; read after `read` is exhausted.
    """

    kind: str
    key: str | None
    read: Callable[[], Iterator[Record | Skipped]]
    root: Path = field(default_factory=Path)
    classes: Sequence[str] = ()
    notes: list[Note] = field(default_factory=list)


def open_records(name: str, records: Records, cache: Cache, open_listing: OpenListing) -> Source:
    """The items of a container as a source.

    Args:
        name: what the user typed.
        records: the container.
        cache: where bytes and numbers are written as files.
        open_listing: called with (name, kind, listing) to open files.

    Raises:
        DataError: fewer than two usable items, or more than the cache may hold.
    """
    if records.kind == "text":
        return _sentences(name, records)
    values = (r.value for r in records.read() if isinstance(r, Record))
    if all(isinstance(value, Path) for value in values):
        return open_listing(name, records.kind, _of_files(name, records))
    listing = _written(records, cache)
    if len(listing.names) < 2:
        raise listings.too_few(name, "item", "items", len(listing.names), listing.skipped)
    return open_listing(name, records.kind, listing)


def label_name(value: Any, names: Sequence[str] = ()) -> str | None:
    """A cell of a column of labels as the name of a class; None: it holds none.

    Args:
        value: the cell.
        names: of the classes, where the cell is their number.

    >>> label_name(3.0), label_name(None), label_name(1, ["cat", "dog"]), label_name(" red ")
    ('3', None, 'dog', 'red')
    """
    if value is None or (isinstance(value, float) and value != value):
        return None
    if isinstance(value, int | float) and not isinstance(value, bool):
        if value == -1:
            return None
        if float(value).is_integer():
            value = int(value)
            if names and 0 <= value < len(names):
                return str(names[value])
    if isinstance(value, bytes):
        value = value.decode("utf-8", "backslashreplace")
    return str(value).strip() or None


def split_name(value: Any) -> str | None:
    """A cell of a column of splits: "train", "test", or another name in lower case."""
    text = label_name(value)
    return None if text is None else split_of(text) or text.lower()


def safe_name(key: str) -> str:
    r"""A relative file name without `..`, made from the name of an item.

    >>> safe_name("../a//b\\c.png"), safe_name("/etc/x"), safe_name("")
    ('a/b/c.png', 'etc/x', 'item')
    """
    cleaned = re.sub(r"[\x00-\x1f:*?\"<>|]", "_", key.replace("\\", "/"))
    parts = [p for p in cleaned.split("/") if p.strip(". ")]
    short = []
    for part in parts:
        raw = part.encode("utf-8", "surrogateescape")
        if len(raw) > 200:
            digest = hashlib.blake2b(raw, digest_size=8).hexdigest()
            part = raw[-100:].decode("utf-8", "ignore") + digest + os.path.splitext(part)[1][:16]
        short.append(part)
    return "/".join(short) or "item"


def ending_by_content(raw: bytes) -> str:
    """The ending of a file of these bytes, "" where they do not tell.

    >>> ending_by_content(b"RIFF....WAVE"), ending_by_content(b"RIFF....WEBP")
    ('.wav', '.webp')
    """
    if raw[:4] == b"RIFF":
        return ".webp" if raw[8:12] == b"WEBP" else ".wav"
    return next((ending for magic, ending in MAGIC.items() if raw.startswith(magic)), "")


def order_of_classes(names: Sequence[str | None], known: Sequence[str] = ()) -> tuple[str, ...]:
    """The classes that occur: in the order that is known, by number where all are numbers.

    >>> order_of_classes(["10", "9", None]), order_of_classes(["b", "a"], ["b", "a"])
    (('9', '10'), ('b', 'a'))
    """
    found = {n for n in names if n is not None}
    if known:
        return (*(n for n in known if n in found), *sorted(found - {*known}))
    if all(n.isdecimal() for n in found):
        return tuple(sorted(found, key=lambda n: (int(n), n)))
    return tuple(sorted(found))


def _sentences(name: str, records: Records) -> Source:
    rows: list[Record] = []
    texts: list[tuple[str, ...]] = []
    skipped: list[dict[str, str]] = []
    for record in records.read():
        if isinstance(record, Skipped):
            skipped.append({"path": record.path, "reason": record.reason})
            continue
        words_of = record.value if isinstance(record.value, tuple) else ()
        longest = max(map(len, words_of), default=0)
        if not words_of or not all(words_of):
            skipped.append({"path": record.id, "reason": "empty: a sentence without words"})
        elif longest > text.LONGEST:
            words = f"too long: {longest:,} characters, {text.LONGEST:,} at most"
            skipped.append({"path": record.id, "reason": words})
        else:
            rows.append(record)
            texts.append(words_of)
    labels = [r.label for r in rows]
    listing = Listing(
        records.root, [r.id for r in rows], labels, [r.split for r in rows], [],
        [*records.notes, *_of_splits([r.split for r in rows])],
        classes=order_of_classes(labels, records.classes),
    )  # fmt: skip
    return text.sentences_source(name, listing, texts, skipped)


def _of_files(name: str, records: Records) -> Listing:
    """The listing of records whose values are paths; a file that is named twice counts once."""
    names: list[str] = []
    labels: list[str | None] = []
    splits: list[str | None] = []
    skipped: list[dict[str, str]] = []
    twice, seen = [], set()
    for record in records.read():
        if isinstance(record, Skipped):
            skipped.append({"path": record.path, "reason": record.reason})
            continue
        path = str(record.value)
        if path in seen:
            twice.append(listings.readable(path))
            continue
        seen.add(path)
        names.append(path)
        labels.append(record.label)
        splits.append(record.split)
    notes = [*records.notes, *_of_splits(splits)]
    if twice:
        words = f"{counted(len(twice), 'row')} of {name} name a file again: {shown(twice)}"
        notes.append(note("named twice", words, count=len(twice), names=twice))
    classes = order_of_classes(labels, records.classes)
    return Listing(records.root, names, labels, splits, skipped, notes, classes=classes)


def _of_splits(splits: Sequence[str | None]) -> Iterator[Note]:
    given = [s for s in splits if s]
    if given:
        words = f"splits as given: {tally(given)}"
        if "train" not in given:
            words += "; none of them is train: they are not used"
        yield note("splits", words)


def _written(records: Records, cache: Cache) -> Listing:
    """The listing of records whose values are bytes or numbers, as files in the cache."""
    if records.key is not None:
        key = hashlib.blake2b(
            f"{FORMAT}\0{records.kind}\0{records.key}".encode("utf-8", "surrogateescape"),
            digest_size=16,
        ).hexdigest()

        def make(into: Path, limit: float) -> None:
            with image_packing.appearing(into) as work:
                _write(records, work, limit)

        return _listing(cache.entry(key, make), records)
    runtime_files.make_folder(cache.folder)
    scratch = Path(tempfile.mkdtemp(prefix="stream-", dir=cache.folder))
    try:  # the name of the entry is the hash of what the stream gave
        digest = _write(records, scratch, cache.limit)

        def move(into: Path, _: float) -> None:
            shutil.move(scratch, into)

        return _listing(cache.entry(digest, move), records)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _write(records: Records, work: Path, limit: float) -> str:
    """Write items/ and rows.json; the hash of all of it."""
    digest = hashlib.blake2b(digest_size=16)
    rows: list[dict[str, Any]] = []
    skipped: list[dict[str, str]] = []
    used: dict[str, int] = {}
    total = 0
    for record in _loaded(records):
        if isinstance(record, Skipped):
            skipped.append({"path": record.path, "reason": record.reason})
            continue
        name = _new_name(record, used)
        path = work / "items" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(record.value, bytes):
            path.write_bytes(record.value)
        else:
            np.save(path, np.asarray(record.value), allow_pickle=False)
        os.utime(path, (0, 0))  # equal contents make an equal key of the packed items
        total += path.stat().st_size
        if total > limit:
            raise DataError(
                f"the items need more than --cache-limit {limit / 1e9:g} (GB) as files; raise it"
            )
        digest.update(f"{name}\0{record.label}\0{record.split}\0".encode("utf-8", "replace"))
        digest.update(path.read_bytes())
        rows.append({"name": name, "id": record.id, "label": record.label, "split": record.split})
    about = {"rows": rows, "skipped": skipped, "notes": records.notes}
    (work / "rows.json").write_text(json.dumps(about))
    return digest.hexdigest()


def _loaded(records: Records) -> Iterator[Record | Skipped]:
    """The records with the bytes of files in place of their paths and urls.

    Files of stores are read several at a time.
    """
    with ThreadPoolExecutor(AT_ONCE) as pool:
        stream = records.read()
        while group := list(itertools.islice(stream, 4 * AT_ONCE)):
            if any(isinstance(r, Record) and isinstance(r.value, Url) for r in group):
                yield from pool.map(lambda r: _load(r, records.root), group)
            else:
                yield from (_load(record, records.root) for record in group)


def _load(record: Record | Skipped, root: Path) -> Record | Skipped:
    """A record with the bytes of its file.

    Raises:
        StoreError: the store of the file cannot be reached, or refuses.
    """
    if isinstance(record, Skipped) or not isinstance(record.value, Url | Path):
        return record
    from . import remote

    place = record.value if isinstance(record.value, Url) else str(root / record.value)
    ending = record.ending or os.path.splitext(record.id)[1]
    try:
        return replace(record, value=remote.open_bytes(place), ending=ending)
    except StoreError:
        raise
    except (OSError, ValueError) as error:
        return Skipped(listings.readable(record.id), listings.reason(error))


def _new_name(record: Record, used: dict[str, int]) -> str:
    """The name of the file of an item, with an ending that tells its format."""
    name = safe_name(record.id.partition("://")[2] or record.id)
    if record.ending and not name.lower().endswith(record.ending.lower()):
        name += record.ending
    stem, ending = os.path.splitext(name)
    if not isinstance(record.value, bytes):
        name = f"{name}.npy"
    elif not 1 < len(ending) <= 6 or not ending[1:].isalnum():
        name += ending_by_content(record.value[:16]) or ".bin"
    lowered = name.lower()  # of file systems that do not tell cases apart
    used[lowered] = used.get(lowered, 0) + 1
    if used[lowered] == 1:
        return name
    stem, ending = os.path.splitext(name)
    return f"{stem}~{used[lowered]}{ending}"


def _listing(entry: Path, records: Records) -> Listing:
    about = json.loads((entry / "rows.json").read_text())
    rows = about["rows"]
    labels, splits = [r["label"] for r in rows], [r["split"] for r in rows]
    ids = [r["id"] for r in rows]
    again = len(ids) - len(set(ids))
    notes = [*about["notes"], *_of_splits(splits)]
    if again:
        ids = [r["name"] for r in rows]
        words = f"{counted(again, 'item')} with the id of an earlier one: ids have a number added"
        notes.append(note("equal ids", words, count=again))
    return Listing(
        entry / "items", [r["name"] for r in rows], labels, splits, about["skipped"], notes,
        ids=ids, classes=order_of_classes(labels, records.classes),
    )  # fmt: skip


def file_key(path: Path, *more: object) -> str:
    """A text that changes when a file does: its place, size and time, and `more`."""
    about = path.stat()
    return repr((str(path.resolve()), about.st_size, about.st_mtime_ns, *more))
