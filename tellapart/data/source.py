"""What a set of instances is, whatever its kind: identity, labels, splits, parts. Kinds add how to read.

Shapes: S instances.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
from torch import Tensor

from ..errors import DataError
from .labels import read_labels
from .notes import Note

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, kw_only=True)
class Source:
    """Instances with their identity: what `read` returns of one never depends on the batch it is read in.

    Attributes:
        kind: "images", "audio", "series" or "text".
        name: what the user typed, e.g. "digits" or "photos/".
        all_ids, all_labels: of the whole set; `ids`, `labels` are those of `rows`. A label is an int64 >= 0,
            -1 where an item has none.
        classes: class names, label -> name.
        parts: name of a split ("train", "test") -> rows of the whole set.
        fingerprint: hash of contents, ids and labels; the same data gives it on any machine.
        skipped: files that could not be used: {"path", "reason"}.
        duplicates: how many items repeat an earlier one byte for byte.
        licence: of the data, "" where unknown; it travels into the model card.
        all_hashes: of the content of each item of the whole set, () where an item is no file.
        all_files: the file that each item of the whole set is of, () where items are no files.
        notes: what was used, left out or changed on the way, counted by kind; see `data.notes`.
    """

    name: str
    all_ids: Sequence[str]
    all_labels: Array | None
    classes: Sequence[str]
    parts: Mapping[str, Array]
    fingerprint: str
    skipped: Sequence[Mapping[str, str]] = ()
    duplicates: int = 0
    licence: str = ""
    all_hashes: Sequence[str] = ()
    all_files: Sequence[Path] = ()
    notes: Sequence[Note] = ()
    rows: Array = field(default_factory=lambda: np.zeros(0, np.int64))

    kind = "instances"
    one = "an instance"  # an item in words
    many = "instances"  # several items in words

    def __post_init__(self) -> None:
        if not len(self.rows):
            object.__setattr__(self, "rows", np.arange(len(self.all_ids)))

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def ids(self) -> list[str]:
        return [self.all_ids[i] for i in self.rows]

    @property
    def hashes(self) -> list[str]:
        """Of the content of each item; [] where items are no files."""
        return [self.all_hashes[i] for i in self.rows] if self.all_hashes else []

    def file(self, position: int) -> Path:
        """The file that an item is of, or a piece of; its id may spell the name otherwise.

        Raises:
            DataError: the items of this source are no files.
        """
        if not self.all_files:
            raise DataError(f"the items of {self.name} are no files")
        return Path(self.all_files[self.rows[position]])

    def ids_at(self, position: int) -> str:
        """The id of one item."""
        return str(self.all_ids[self.rows[position]])

    @property
    def groups(self) -> list[str]:
        """What is held out together: each item by itself; of a long sound all of its pieces."""
        return self.ids

    @property
    def labels(self) -> Array | None:
        return None if self.all_labels is None else self.all_labels[self.rows]

    @property
    def splits(self) -> dict[str, Array]:
        """Name of each split -> positions of its items in this source."""
        place = {int(row): i for i, row in enumerate(self.rows)}
        return {
            name: np.array([place[int(r)] for r in rows if int(r) in place], np.int64)
            for name, rows in self.parts.items()
        }

    def split(self, name: str) -> Self:
        """The items of one split as a source of their own."""
        if name not in self.parts:
            raise DataError(f"{self.name} has no split {name!r}; it has: {', '.join(self.parts)}")
        return self.subset(self.splits[name])

    def subset(self, positions: Array) -> Self:
        """The items at `positions` of this source, as a source of their own."""
        if not len(positions):
            raise DataError(f"an empty part of {self.name} was asked for")
        return replace(self, rows=self.rows[np.asarray(positions, np.int64)])

    def hold_out(self, count: int) -> tuple[Self, Self]:
        """Cut `count` items out by the hash of their ids: (the rest, the cut). For tuning, never the test."""
        if not 0 < count < len(self):
            raise DataError(f"cannot hold {count} items out of the {len(self)} of {self.name}")
        order = np.argsort([_hash_of(i) for i in self.groups], kind="stable")
        return self.subset(np.sort(order[count:])), self.subset(np.sort(order[:count]))

    def with_labels(self, path: str | Path) -> Self:
        """The items that a file labels, with its labels in place of their own and no splits.

        Args:
            path: a table of id (or path) and label, as CSV, TSV or parquet; see `data.labels`.
        Raises:
            DataError: missing, not two columns, an id that is not here or twice, or one class only.
        """
        names = read_labels(Path(path))
        place = {name: i for i, name in enumerate(self.ids)}
        if self.all_files and not names.keys() <= place.keys():  # paths beside the table
            files = {str(self.file(i).resolve()): i for i in range(len(self))}
            for name in names.keys() - place.keys():
                found = files.get(str((Path(path).parent / name).resolve()))
                if found is not None:
                    place[name] = found
        lost = [name for name in names if name not in place]
        if lost:
            raise DataError(
                f"{path}: {len(lost)} id(s) are not in {self.name}, the first: {lost[0]!r}; its ids look like "
                f"{self.ids[0]!r}"
            )
        classes = sorted(set(names.values()))
        if len(classes) < 2:
            raise DataError(f"{path} needs two labels or more that differ, it has {classes}")
        labels = np.full(len(self.all_ids), -1, np.int64)
        rows = self.rows[[place[name] for name in names]]
        labels[rows] = [classes.index(label) for label in names.values()]
        order = np.sort(rows)
        return replace(self, all_labels=labels, classes=tuple(classes), parts={}, rows=order)

    def read(self, index: Tensor) -> Tensor | dict[str, Tensor]:
        """The instances at the positions `index` (N,), as stored."""
        raise NotImplementedError  # each kind is this function

    @property
    def about(self) -> dict[str, Any]:
        """What run.json says of the data beside their name: plain values."""
        return {}

    @property
    def described(self) -> str:
        """What there is to tell apart, in words."""
        return f"{len(self):,} {self.many}"


def fingerprint(images: Array, ids: Sequence[str], labels: Array | None) -> str:
    """Hash of contents, ids and labels, the same on any machine."""
    digest = hashlib.blake2b(digest_size=16)
    digest.update(np.ascontiguousarray(images).data)
    digest.update("\n".join(ids).encode())
    digest.update(b"" if labels is None else np.ascontiguousarray(labels, np.int64).tobytes())
    return digest.hexdigest()


def hash_split(keys: Sequence[str], share: float) -> dict[str, Array]:
    """Split by the hash of each key: equal keys (equal contents) fall on the same side."""
    hashes = np.array([_hash_of(k) for k in keys], np.uint64)
    test = hashes < share * 2**64
    if not test.any():  # too few for the share to say anything: at least one
        test = hashes == hashes.min()
    return {"train": np.flatnonzero(~test), "test": np.flatnonzero(test)}


def _hash_of(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")
