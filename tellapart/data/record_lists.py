"""Lists of files in stores: a url a line, or names that are relative to the url of the list."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from . import endings, lists, remote
from .folders import ending_of
from .records import Record, Records, Url, file_key


def read(path: Path, base: str | None) -> Records | None:
    """The files that a list names; None: it names files on the disk, or no files.

    Args:
        path: the list.
        base: the url of its folder, that names are relative to; None: the list is on the disk.
    """
    if lists.kind_of_list(path) is None:
        return None
    listing = lists.list_file(path)
    if base is None and not any(map(remote.is_url, listing.names)):
        return None
    key = file_key(path, base)
    found = of_names(listing.names, listing.labels, listing.splits, base, key, path.parent)
    found.notes.extend(listing.notes)
    return found


def of_names(
    names: list[str],
    labels: list[str | None],
    splits: list[str | None],
    base: str | None = None,
    key: str | None = None,
    root: Path | None = None,
) -> Records:
    """Files by name, some of which are urls.

    Args:
        names: paths and urls.
        labels: of each.
        splits: of each.
        base: the url that names are relative to; None: `root`.
        key: as `Records`.
        root: the folder that paths are relative to; None: that of the process.
    """
    plain = [remote.shown(name) if remote.is_url(name) else name for name in names]
    counts = Counter(
        kind for n in plain for kind, known in endings.KINDS.items() if ending_of(n) in known
    )
    kind = max(("images", "audio", "series"), key=lambda k: counts[k])

    def read() -> Iterator[Record]:
        for name, own, label, split in zip(names, plain, labels, splits, strict=True):
            url = remote.joined(base, name)
            yield Record(own, Path(name) if url is None else Url(url), label, split)

    return Records(kind, key, read, root or Path())
