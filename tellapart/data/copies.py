"""Copies in the cache of data that are no folder on the disk: packed folders, files of stores.

A copy is read like any other folder or file afterwards. Files whose endings are not read are copied
as empty files, so that the readers of folders count and name them.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from ..errors import DataError
from . import archives, containers, endings, folders, image_packing, remote, specs
from .cache import Cache
from .notes import Note, counted, note
from .opening import readable, reason
from .records import Records, Skipped, file_key, safe_name
from .source import Source

FORMAT = 1
AT_ONCE = 16  # files that are fetched at the same time
REMEMBERED = 30.0  # seconds for which the list of files of a store is not asked for again
STATES = ("size", "ETag", "etag", "LastModified", "last_modified", "mtime", "created", "blob_id",
          "md5Hash", "generation", "last-modified")  # fmt: skip
READ = frozenset().union(*endings.KINDS.values(), containers.TABLES, containers.TEXTS)
Report = Callable[[int, int], None]
S = TypeVar("S", bound=Source)


@dataclass(frozen=True)
class Copy:
    """Data in the cache.

    Attributes:
        paths: what is opened: a folder, a file, or the shards of one set.
        skipped: what could not be copied.
        notes: on the copy.
        base: the url of the folder that paths in a fetched table are relative to; None: no url.
    """

    paths: Sequence[Path]
    skipped: Sequence[Mapping[str, str]] = ()
    notes: Sequence[Note] = field(default=())
    base: str | None = None


def unpacked(files: Sequence[Path], cache: Cache) -> Copy:
    """The contents of archives as a folder.

    The files of one archive lie in the folder itself; those of several in a folder for each,
    unless the archives are numbered parts of one set (photos-1.zip, photos-2.zip).

    Args:
        files: tar and zip files.
        cache: where the copy is kept.

    Raises:
        DataError: they need more than the cache may hold.
    """
    stems = [archives.stem(file) for file in files]
    parts = len(files) == 1 or all(stem[-1:].isdigit() for stem in stems)
    key = _key("unpacked", *(file_key(file) for file in files))

    def make(into: Path, limit: float) -> None:
        with image_packing.appearing(into) as work:
            skipped: list[dict[str, str]] = []
            room = limit
            for file, stem in zip(files, stems, strict=True):
                inner = work / "data" if parts else work / "data" / stem
                inner.mkdir(parents=True, exist_ok=True)
                room = _unpack(file, inner, room, skipped)
            (work / "skipped.json").write_text(json.dumps(skipped))

    entry = cache.entry(key, make)
    skipped = json.loads((entry / "skipped.json").read_text())
    if skipped and not any((entry / "data").iterdir()):
        first = skipped[0]
        raise DataError(
            f"{readable(files[0].name)} holds nothing that can be read; "
            f"{first['path']}: {first['reason']}"
        )
    return Copy([entry / "data"], skipped)


def _unpack(file: Path, into: Path, room: float, skipped: list[dict[str, str]]) -> float:
    """Write the members of an archive below a folder; the bytes that are left."""
    for member in archives.members(file):
        if isinstance(member, Skipped):
            skipped.append({"path": member.path, "reason": member.reason})
            continue
        try:
            raw = member.read() if _is_read(member.name) else b""
            room -= len(raw)
            _new_file(into, member.name, raw)
        except Exception as error:  # readers raise many kinds on a damaged member
            why = "twice: an earlier member has this name" if _exists(error) else reason(error)
            skipped.append({"path": f"{file.name}/{readable(member.name)}", "reason": why})
        if room < 0:
            raise DataError(
                f"{readable(file.name)} needs more than --cache-limit when it is unpacked; raise it"
            )
    return room


def _exists(error: Exception) -> bool:
    return isinstance(error, FileExistsError)


def _new_file(root: Path, name: str, raw: bytes) -> None:
    """Write a file below a folder under a name that the file system takes."""
    path = root / (name if _fits(name) else safe_name(name))
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "xb") as out:
        out.write(raw)
    os.utime(path, (0, 0))  # equal contents make an equal key of the packed items


def _fits(name: str) -> bool:
    long = any(len(os.fsencode(part)) > 255 for part in name.split("/"))
    return not long and (os.name != "nt" or safe_name(name) == name)


def _is_read(name: str, kind: str | None = None) -> bool:
    """Whether a file is copied whole: its ending is read, or it describes a folder of its own."""
    ending = folders.ending_of(name)
    if any(folders.is_hidden(part) for part in name.split("/")):
        return False
    if kind is None:
        return ending in READ or ending in endings.VIDEO or endings.is_archive(name)
    return ending in endings.KINDS[kind] or ending in endings.COMPANIONS.get(kind, ())


def fetched(url: str, cache: Cache, kind: str | None = None, report: Report | None = None) -> Copy:
    """Files of a store, on the disk.

    Args:
        url: a file, a folder, or files in braces (shard-{000..099}.tar).
        cache: where the copy is kept; it is made again when a file of the store changes.
        kind: the kind of data that is wanted; None: that of most files of a folder.
        report: called with (files that are there, files).

    Raises:
        DataError: nothing is there, or it needs more than the cache may hold.
        StoreError: the store cannot be reached, or refuses.
        MissingExtraError: the package that reads the protocol is not installed.
    """
    local = remote.local_path(url)
    if local is not None:
        return Copy(containers.expanded(str(local)) or [local])
    found = _listed(url, int(time.monotonic() / REMEMBERED))
    if not found.files:
        raise DataError(f"{remote.shown(url)} holds no files")
    whole = None if not found.folder else _wanted_kind(list(found.files), kind)
    wanted = {
        name: about
        for name, about in found.files.items()
        if not found.folder or whole is None or _is_read(name, whole)
    }
    total = sum(int(about.get("size") or 0) for about in wanted.values())
    if total > cache.limit:
        raise DataError(
            f"{remote.shown(url)} holds {total / 1e9:.1f} GB of files that are read, more than "
            f"--cache-limit {cache.limit / 1e9:g} (GB); raise it"
        )
    states = [(name, _state(about)) for name, about in found.files.items()]
    key = _key("fetched", url, whole, *sorted(states))

    def make(into: Path, _: float) -> None:
        with image_packing.appearing(into) as work:
            skipped = _fetch(found, wanted, work / "data", report)
            (work / "skipped.json").write_text(json.dumps(skipped))

    entry = cache.entry(key, make)
    skipped = json.loads((entry / "skipped.json").read_text())
    words = f"{counted(len(wanted), 'file')} fetched from {remote.store_of(url)}"
    names = [entry / "data" / safe_name(name) for name in wanted]
    paths = [entry / "data"] if found.folder else [p for p in names if p.exists()]
    if not paths:
        raise DataError(f"{remote.shown(url)} cannot be read: {skipped[0]['reason']}")
    return Copy(paths, skipped, [note("fetched", words, count=len(wanted))], found.base)


@dataclass(frozen=True)
class _Listed:
    """The files behind a url: name -> what the store says of it, with its place in `url`."""

    files: Mapping[str, Mapping[str, Any]]
    folder: bool
    base: str


@functools.lru_cache(maxsize=2)
def _listed(url: str, _: int) -> _Listed:
    """A file or a folder of a store.

    Raises:
        DataError: nothing is there.
    """
    base = url.rstrip("/").rpartition("/")[0]
    several = specs.expand_braces(url)
    if len(several) > 1:
        with ThreadPoolExecutor(AT_ONCE) as pool:
            abouts = list(pool.map(_about, several))
        lost = [u for u, about in zip(several, abouts, strict=True) if about is None]
        if lost:
            raise DataError(
                f"{counted(len(lost), 'file')} of {len(several):,} do not exist, the first: "
                f"{remote.shown(lost[0])}"
            )
        named = {PurePosixPath(u).name: a for u, a in zip(several, abouts, strict=True) if a}
        return _Listed(named, False, base)
    about = _about(url)
    if about is None:
        raise DataError(f"{remote.shown(url)} does not exist")
    if about["type"] != "directory":
        name = PurePosixPath(remote.shown(url)).name or "data"
        return _Listed({name: about}, False, base)
    system, inner = remote.file_system(url)
    system.invalidate_cache()
    below: dict[str, dict[str, Any]] = remote.asked(url, lambda: system.find(inner, detail=True))
    root = inner.rstrip("/") + "/"
    files = {
        path.removeprefix(root): {**found, "url": path}
        for path, found in below.items()
        if found.get("type") != "directory" and path.startswith(root) and path != root
    }
    if _is_http(url):
        with ThreadPoolExecutor(AT_ONCE) as pool:
            stated = pool.map(_about, [about["url"] for about in files.values()])
        files = {
            name: {**about, **(more or {})}
            for (name, about), more in zip(files.items(), stated, strict=True)
        }
    return _Listed(files, True, url.rstrip("/"))


def _about(url: str) -> dict[str, Any] | None:
    """Type, size and state of what a url names; None: nothing."""
    system, inner = remote.file_system(url)
    if _is_http(url):
        if url.partition("?")[0].endswith("/"):
            return {"type": "directory"}
        headers = remote.headers(url)
        return None if headers is None else {"type": "file", "url": url, **headers}
    system.invalidate_cache()
    try:
        return {**remote.asked(url, lambda: system.info(inner)), "url": inner}
    except FileNotFoundError:
        return None


def _is_http(url: str) -> bool:
    return url.lower().startswith(("http://", "https://"))


def _wanted_kind(names: Sequence[str], kind: str | None) -> str | None:
    """The kind whose files are fetched; None: all that can be read."""
    if kind is not None:
        return kind
    shown = [n for n in names if not any(folders.is_hidden(part) for part in n.split("/"))]
    if any(PurePosixPath(name).name in containers.SAVED for name in shown):
        return None
    walk = folders.Walk(Path(), shown)
    counts = walk.kinds()
    return max(counts, key=lambda k: counts[k]) if any(counts.values()) else None


def _fetch(
    found: _Listed, wanted: Mapping[str, Mapping[str, Any]], into: Path, report: Report | None
) -> list[dict[str, str]]:
    """Write the wanted files, and the others as empty ones; what could not be fetched."""
    skipped: list[dict[str, str]] = []
    into.mkdir(parents=True)
    for name in sorted(found.files.keys()):
        if archives.safe_member(name) is None:
            why = "traversal: its name leads out of the folder"
            skipped.append({"path": readable(name), "reason": why})
        elif name not in wanted:
            _new_file(into, safe_name(name), b"")

    def one(item: tuple[str, Mapping[str, Any]]) -> dict[str, str] | None:
        name, about = item
        path = into / safe_name(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            remote.fetch(found.base, str(about["url"]), path, about.get("size"))
            os.utime(path, (0, 0))
        except DataError:
            raise
        except (OSError, ValueError) as error:
            path.unlink(missing_ok=True)
            return {"path": readable(name), "reason": reason(error)}
        return None

    with ThreadPoolExecutor(AT_ONCE) as pool:
        safe = [item for item in wanted.items() if archives.safe_member(item[0]) is not None]
        tasks = [pool.submit(one, item) for item in safe]
        try:
            for done, task in enumerate(tasks, 1):
                if (lost := task.result()) is not None:
                    skipped.append(lost)
                if report is not None:
                    report(done, len(tasks))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return skipped


def _state(about: Mapping[str, Any]) -> str:
    """The size, time and tag of a file of a store, which change when it does."""
    return repr([(name, str(about[name])) for name in STATES if about.get(name) is not None])


@dataclass(frozen=True)
class Place:
    """Where the data of a name lie on the disk.

    Attributes:
        path: a folder or a file.
        records: the items, where it is a container; None: a folder or a file of items.
        copies: that were made on the way.
    """

    path: Path
    records: Records | None
    copies: Sequence[Copy] = ()

    def told(self, source: S, name: str) -> S:
        """A source under the name that the user typed, with what was copied and left out."""
        if not self.copies:
            return source
        skipped = [entry for copy in self.copies for entry in copy.skipped]
        notes = [entry for copy in self.copies for entry in copy.notes]
        return replace(
            source, name=name, skipped=[*skipped, *source.skipped], notes=[*notes, *source.notes]
        )


def locate(
    name: str,
    options: Mapping[str, str],
    kind: str | None,
    cache: Cache,
    report: Report | None = None,
) -> Place | None:
    """Find the data of a name: on the disk, in archives, or in a store; None: nothing is there.

    Args:
        name: a path or a url, with or without braces.
        options: what stands behind the name, as `specs.split_options`.
        kind: the kind that the user asked for; None: any.
        cache: where copies are kept.
        report: as `fetched`.

    Raises:
        DataError: it cannot be read.
        MissingExtraError: the package that reads it is not installed.
    """
    records = containers.of_url(name, options, kind)
    if records is not None:
        return Place(Path(), records)
    copies: list[Copy] = []
    if remote.is_url(name):
        copies.append(fetched(name, cache, kind, report))
        paths = copies[0].paths
    else:
        paths = containers.expanded(name) or [Path(name).expanduser()]
    if not all(path.exists() for path in paths):
        return None
    shards = containers.shards(paths)
    if shards:
        records = containers.of_shards(tuple(shards), options, kind)
        if records is not None:
            return Place(paths[0], records, copies)
        copies.append(unpacked(shards, cache))
        paths = copies[-1].paths
    if len(paths) > 1:
        raise DataError(
            f"{remote.shown(name) if remote.is_url(name) else name} names {len(paths):,} files; "
            f"only shards are read together: {', '.join(endings.ARCHIVES)}"
        )
    base = copies[0].base if copies else None
    return Place(paths[0], containers.of_path(paths[0], options, kind, base), copies)


def _key(*parts: object) -> str:
    raw = repr((FORMAT, *parts)).encode("utf-8", "surrogateescape")
    return hashlib.blake2b(raw, digest_size=16).hexdigest()
