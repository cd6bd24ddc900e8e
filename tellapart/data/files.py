"""Files as instances: opening them safely, and the identity of a source whose items are files."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import DataError
from .notes import counted, note
from .opening import (
    Listing,
    decode_text,
    digest_of,
    is_file,
    open_regular,
    read_bytes,
    readable,
    reason,
)
from .source import Array, hash_split

__all__ = [
    "Listing", "decode_text", "digest_of", "identity", "is_file", "key", "open_regular",
    "read_bytes", "readable", "reason", "too_few",
]  # fmt: skip
TEST_SHARE = 0.2


def identity(
    name: str,
    listing: Listing,
    kept: Sequence[int],
    hashes: Sequence[str],
    skipped: Sequence[Any],
    suffixes: Sequence[str] | None = None,
) -> dict[str, Any]:
    """The fields of a `Source` whose items are the listed files at `kept`.

    Args:
        name: what the user typed.
        listing: the files. kept: row of the file of each item.
        hashes: of the contents of each item's file.
        skipped: what could not be used besides what the listing says.
        suffixes: what follows the name of the file in each id, where a file makes several items.
    """
    files = listing.files
    named = listing.names if listing.ids is None else listing.ids
    ids = [readable(named[i]) for i in kept]
    if suffixes is not None:
        ids = [f"{i}{s}" for i, s in zip(ids, suffixes, strict=True)]
    known = [listing.labels[i] for i in kept]
    names = [None if n is None else readable(n) for n in known]
    occurring = {n for n in names if n is not None}
    ordered = [readable(c) for c in listing.classes]
    classes = [c for c in ordered if c in occurring] + sorted(occurring - {*ordered})
    labels: Array | None = None
    if len(classes) > 1:
        number = {c: i for i, c in enumerate(classes)}
        labels = np.array([-1 if n is None else number[n] for n in names], np.int64)
    given = [listing.splits[i] for i in kept]
    notes = list(listing.notes)
    if "train" in given:
        parts = {
            s: np.array([i for i, g in enumerate(given) if (g or "train") == s], np.int64)
            for s in ("train", "test", *sorted({g for g in given if g} - {"train", "test"}))
        }
        outside = [ids[i] for i, g in enumerate(given) if g is None]
        if outside:
            text = f"{counted(len(outside), 'item')} outside the splits: in the training part"
            notes.append(note("without a split", text, count=len(outside), names=outside))
    elif labels is not None:
        parts = hash_split(hashes, TEST_SHARE)
        share = f"{TEST_SHARE:.0%} of the contents, chosen by hash, are the test part"
        notes.append(note("split", f"no split is given: {share}"))
    else:
        parts = {"train": np.arange(len(ids))}
    digest = hashlib.blake2b("\n".join([*hashes, *ids, *map(str, names)]).encode(), digest_size=16)
    left_out = [*listing.skipped, *skipped]
    return {
        "name": name,
        "all_ids": ids,
        "all_labels": labels,
        "classes": classes if labels is not None else (),
        "parts": {s: rows for s, rows in parts.items() if len(rows)},
        "fingerprint": digest.hexdigest(),
        "skipped": [{**entry, "path": readable(entry["path"])} for entry in left_out],
        "all_hashes": [f"{h}{s}" for h, s in zip(hashes, suffixes or [""] * len(ids), strict=True)],
        "all_files": [files[i] for i in kept],
        "notes": notes,
    }


def key(listing: Listing, *packed_how: Any) -> str:
    """The name under which the packed files of a listing are cached."""
    digest = hashlib.blake2b(repr(packed_how).encode(), digest_size=16)
    for name, path in zip(listing.names, listing.files, strict=True):
        digest.update(name.encode("utf-8", "surrogateescape"))
        try:
            about = path.stat()
            digest.update(f"\0{about.st_size}\0{about.st_mtime_ns}\n".encode())
        except (OSError, ValueError):
            digest.update(b"\0missing\n")
    digest.update(str(listing.root.resolve()).encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def too_few(name: str, one: str, many: str, kept: int, skipped: Sequence[Any]) -> DataError:
    """The error for a source of fewer than two usable items."""
    text = (
        f"{readable(name)} holds {counted(kept, f'usable {one}', f'usable {many}')}; "
        "2 or more are needed to tell them apart"
    )
    if skipped:
        first = skipped[0]
        text += (
            f" ({len(skipped):,} skipped, the first: {readable(first['path'])}: {first['reason']})"
        )
    return DataError(text)
