"""The base class of all sources: identity, labels and splits of a set of instances.

Names of rows (docs/concepts, "One name for a row"): a **set row** counts the items of the whole
data set; a **source row**, or just row, those of one source, which may be a split or a subset.

Shapes: S instances of the source.
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
from .notes import Note, counted

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, kw_only=True)
class Source:
    """A set of instances with ids, labels and splits.

    The result of `read` for an item does not depend on the batch it is read in.

    Attributes:
        kind: "images", "audio", "series", "text", or a registered kind.
        one: an item in words.
        many: several items in words.
        name: what the user typed, e.g. "digits" or "photos/".
        all_ids: ids by set row.
        all_labels: labels by set row: int64 >= 0, -1 for an item without a label; or None.
        classes: class names, label -> name.
        parts: name of a split ("train", "test") -> its set rows.
        fingerprint: hash of contents, ids and labels; the same data gives it on any machine.
        skipped: files that could not be used: {"path", "reason"}.
        duplicates: how many items repeat an earlier one byte for byte.
        licence: of the data, "" if unknown; it is written into the model card.
        all_hashes: hashes of the contents by set row; () if items are no files.
        all_files: files by set row; () if items are no files.
        notes: what was used, left out or changed on the way, counted by kind; see `data.notes`.
        rows: (S,) the set row of each source row.
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
        """Hashes of the contents by source row; [] if items are no files."""
        return [self.all_hashes[i] for i in self.rows] if self.all_hashes else []

    def file(self, row: int) -> Path:
        """The file of an item, or of which it is a piece; its id may spell the name otherwise.

        Args:
            row: source row of the item.

        Raises:
            DataError: the items of this source are no files.
        """
        if not self.all_files:
            raise DataError(f"the items of {self.name} are no files")
        return Path(self.all_files[self.rows[row]])

    def ids_at(self, row: int) -> str:
        """The id of one item.

        Args:
            row: source row of the item.
        """
        return str(self.all_ids[self.rows[row]])

    @property
    def groups(self) -> list[str]:
        """Keys of items that are held out together: an item's id, or the file of its pieces."""
        return self.ids

    @property
    def labels(self) -> Array | None:
        return None if self.all_labels is None else self.all_labels[self.rows]

    @property
    def splits(self) -> dict[str, Array]:
        """Name of each split -> its source rows."""
        source_row = {int(set_row): row for row, set_row in enumerate(self.rows)}
        return {
            name: np.array([source_row[int(r)] for r in part if int(r) in source_row], np.int64)
            for name, part in self.parts.items()
        }

    def split(self, name: str) -> Self:
        """The items of one split as a source of their own.

        Args:
            name: of the split.

        Raises:
            DataError: there is no such split.
        """
        if name not in self.parts:
            raise DataError(f"{self.name} has no split {name!r}; it has: {', '.join(self.parts)}")
        return self.subset(self.splits[name])

    def subset(self, rows: Array) -> Self:
        """Some items as a source of their own.

        Args:
            rows: their source rows.

        Raises:
            DataError: no rows.
        """
        if not len(rows):
            raise DataError(f"no items of {self.name} are selected")
        return replace(self, rows=self.rows[np.asarray(rows, np.int64)])

    def hold_out(self, count: int) -> tuple[Self, Self]:
        """Hold items out by the hash of their ids, for tuning.

        Args:
            count: how many.

        Returns:
            The remaining items, and those held out.

        Raises:
            DataError: not between 1 and S - 1.
        """
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
                f"{path}: {counted(len(lost), 'id')} not found in {self.name}, the first: "
                f"{lost[0]!r}; its ids look like {self.ids[0]!r}"
            )
        classes = sorted(set(names.values()))
        if len(classes) < 2:
            raise DataError(f"{path} needs two labels or more that differ, it has {classes}")
        labels = np.full(len(self.all_ids), -1, np.int64)
        set_rows = self.rows[[place[name] for name in names]]
        labels[set_rows] = [classes.index(label) for label in names.values()]
        ordered = np.sort(set_rows)
        return replace(self, all_labels=labels, classes=tuple(classes), parts={}, rows=ordered)

    def read(self, index: Tensor) -> Tensor | dict[str, Tensor]:
        """The items at some source rows, as stored.

        Args:
            index: (N,) source rows.
        """
        raise NotImplementedError  # each kind of data reads in its own way

    @property
    def about(self) -> dict[str, Any]:
        """Plain values that run.json stores about the data beside their name."""
        return {}

    @property
    def described(self) -> str:
        """The contents in words."""
        return f"{len(self):,} {self.many}"


def fingerprint(images: Array, ids: Sequence[str], labels: Array | None) -> str:
    """Hash of contents, ids and labels, the same on any machine.

    Args:
        images: the contents, any array.
        ids: of the items.
        labels: of the items, or None.
    """
    digest = hashlib.blake2b(digest_size=16)
    digest.update(np.ascontiguousarray(images).data)
    digest.update("\n".join(ids).encode())
    digest.update(b"" if labels is None else np.ascontiguousarray(labels, np.int64).tobytes())
    return digest.hexdigest()


def hash_split(keys: Sequence[str], share: float) -> dict[str, Array]:
    """Split by the hash of each key: equal keys (equal contents) fall on the same side.

    Args:
        keys: of the items.
        share: of the test part, in 0..1.

    Returns:
        "train" and "test" -> set rows.
    """
    hashes = np.array([_hash_of(k) for k in keys], np.uint64)
    test = hashes < share * 2**64
    if not test.any():  # too few for the share to say anything: at least one
        test = hashes == hashes.min()
    return {"train": np.flatnonzero(~test), "test": np.flatnonzero(test)}


def _hash_of(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")
