"""Files as instances: what is in a folder or a list, in a fixed order, with labels and splits from its folders."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError
from .source import Array, hash_split

SPLITS = {"train": "train", "test": "test", "val": "test", "valid": "test", "validation": "test"}
TEST_SHARE = 0.2


@dataclass(frozen=True)
class Listing:
    """Files in a fixed order: names relative to the source, and a label and a split where they have one."""

    root: Path
    names: list[str]
    labels: list[str | None]
    splits: list[str | None]
    skipped: list[dict[str, str]]

    @property
    def files(self) -> list[Path]:
        return [self.root / n for n in self.names]


def list_folder(root: Path, extensions: Collection[str]) -> Listing:
    """Every file of these extensions below `root`, links followed but never in a circle; hidden ones are left out.

    A first folder named train, test or val is a split; the next folder is the label.
    """
    names, skipped = [], []
    seen: set[str] = set()
    for folder, inner, files in os.walk(
        root, followlinks=True, onerror=lambda e: skipped.append(_unreadable(e, root))
    ):
        real = os.path.realpath(folder)
        inner[:] = sorted(d for d in inner if not d.startswith("."))
        if real in seen:
            inner.clear()
            continue
        seen.add(real)
        for file in sorted(files):
            if Path(file).suffix.lower() in extensions and not file.startswith("."):
                names += [os.path.relpath(os.path.join(folder, file), root)]
    names.sort()
    parts = [Path(n).parts[:-1] for n in names]
    splits = [SPLITS.get(p[0].lower()) if p else None for p in parts]
    if "train" not in splits:  # a folder that only happens to be called "test" is a label
        splits = [None] * len(names)
    labels = [(p[1:] if s else p)[:1] for p, s in zip(parts, splits, strict=True)]
    return Listing(root, names, [label[0] if label else None for label in labels], splits, skipped)


def list_file(path: Path) -> Listing:
    """A text file with one path a line, relative to it or absolute, and optionally a tab and a label."""
    names: list[str] = []
    labels: list[str | None] = []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as a list of paths in UTF-8: {error}") from error
    for line in lines:
        name, _, label = line.partition("\t")
        if name.strip():
            names.append(name.strip())
            labels.append(label.strip() or None)
    return Listing(path.parent, names, labels, [None] * len(names), [])


def identity(
    name: str,
    listing: Listing,
    kept: Sequence[int],
    hashes: Sequence[str],
    skipped: Sequence[Any],
    suffixes: Sequence[str] | None = None,
) -> dict[str, Any]:
    """The fields of a `Source` whose items are the listed files at `kept`, with the hashes of their contents.

    Args: suffixes: what follows the name of the file in each id, where a file makes several items.
    """
    ids = [listing.names[i] for i in kept]
    if suffixes is not None:
        ids = [f"{i}{s}" for i, s in zip(ids, suffixes, strict=True)]
    names = [listing.labels[i] for i in kept]
    classes = sorted({n for n in names if n is not None})
    labels: Array | None = None
    if len(classes) > 1:
        number = {c: i for i, c in enumerate(classes)}
        labels = np.array([-1 if n is None else number[n] for n in names], np.int64)
    files = listing.files
    given = [listing.splits[i] for i in kept]
    if "train" in given:
        parts = {
            s: np.array([i for i, g in enumerate(given) if (g or "train") == s], np.int64)
            for s in ("train", "test")
        }
    elif labels is not None:
        parts = hash_split(hashes, TEST_SHARE)
    else:
        parts = {"train": np.arange(len(ids))}
    digest = hashlib.blake2b("\n".join([*hashes, *ids, *map(str, names)]).encode(), digest_size=16)
    return {
        "name": name,
        "all_ids": ids,
        "all_labels": labels,
        "classes": classes if labels is not None else (),
        "parts": {s: rows for s, rows in parts.items() if len(rows)},
        "fingerprint": digest.hexdigest(),
        "skipped": [*listing.skipped, *skipped],
        "all_hashes": [f"{h}{s}" for h, s in zip(hashes, suffixes or [""] * len(ids), strict=True)],
        "all_files": [files[i] for i in kept],
    }


def is_file(name: str | Path) -> bool:
    """Whether this names a file; a long sentence does not."""
    try:
        return Path(name).is_file()
    except (OSError, ValueError):
        return False


def key(listing: Listing, *packed_how: Any) -> str:
    """The name under which the packed files of a listing are cached."""
    digest = hashlib.blake2b(repr(packed_how).encode(), digest_size=16)
    for name, path in zip(listing.names, listing.files, strict=True):
        try:
            stat = path.stat()
            digest.update(f"{name}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
        except OSError:
            digest.update(f"{name}\0missing\n".encode())
    digest.update(str(listing.root.resolve()).encode())
    return digest.hexdigest()


def _unreadable(error: OSError, root: Path) -> dict[str, str]:
    return {
        "path": os.path.relpath(str(error.filename or root), root),
        "reason": error.strerror or str(error),
    }


def too_few(name: str, what: str, kept: int, skipped: Sequence[Any]) -> DataError:
    """The error for a source of fewer than two usable items."""
    text = f"{name} holds {kept} usable {what}; telling instances apart needs 2 or more"
    if skipped:
        text += (
            f" ({len(skipped)} skipped, the first: {skipped[0]['path']}: {skipped[0]['reason']})"
        )
    return DataError(text)
