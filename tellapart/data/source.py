"""A set of image instances in memory-mapped uint8, read a batch at a time by row.

Shapes: S instances, N batch, C channels, H and W pixels.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import DataError

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Pixels:
    """Packed images: flat bytes, each image rows x columns x channels, and where each begins.

    `flat` may be a memory map. Images of one size have a `shape`, and a batch of them is one gather.
    """

    flat: Array  # (bytes,) uint8
    offset: Array  # (S,) int64
    height: Array  # (S,) int64
    width: Array  # (S,) int64
    channels: int

    @classmethod
    def of(cls, images: Array) -> Pixels:
        """Images of one size: (S, H, W, C) uint8."""
        s, h, w, c = images.shape
        offset = np.arange(s, dtype=np.int64) * (h * w * c)
        return cls(images.reshape(-1), offset, np.full(s, h), np.full(s, w), c)

    @property
    def shape(self) -> tuple[int, int] | None:
        """(H, W) when every image has it, else None."""
        h, w = self.height[0], self.width[0]
        same = bool((self.height == h).all() and (self.width == w).all())
        return (int(h), int(w)) if same else None

    def image(self, row: int) -> Array:
        """(H, W, C) uint8."""
        start, h, w = self.offset[row], self.height[row], self.width[row]
        return np.asarray(self.flat[start : start + h * w * self.channels]).reshape(h, w, self.channels)


@dataclass(frozen=True)
class ImageSource:
    """Images with their identity: what `read` returns never depends on the batch it is read in.

    Attributes:
        name: what the user typed, e.g. "digits" or "photos/".
        pixels: the packed images of the whole set; `rows` are the ones that belong to this source.
        image_size: side in pixels of the square view that encoders see.
        all_ids, all_labels: of the whole set; `ids`, `labels` are those of `rows`. A label is an int64 >= 0,
            -1 where an item has none.
        classes: class names, label -> name.
        parts: name of a split ("train", "test") -> rows of the whole set.
        fingerprint: hash of contents, ids and labels; the same data gives it on any machine.
        skipped: files that could not be used: {"path", "reason"}.
        duplicates: how many items repeat an earlier one byte for byte.
        licence: of the data, "" where unknown; it travels into the model card.
    """

    name: str
    pixels: Pixels
    image_size: int
    all_ids: Sequence[str]
    all_labels: Array | None
    classes: Sequence[str]
    parts: Mapping[str, Array]
    fingerprint: str
    skipped: Sequence[Mapping[str, str]] = ()
    duplicates: int = 0
    licence: str = ""
    rows: Array = field(default_factory=lambda: np.zeros(0, np.int64))

    def __post_init__(self) -> None:
        if not len(self.rows):
            object.__setattr__(self, "rows", np.arange(len(self.all_ids)))

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def channels(self) -> int:
        return self.pixels.channels

    @property
    def ids(self) -> list[str]:
        return [self.all_ids[i] for i in self.rows]

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

    def split(self, name: str) -> ImageSource:
        """The items of one split as a source of their own."""
        if name not in self.parts:
            raise DataError(f"{self.name} has no split {name!r}; it has: {', '.join(self.parts)}")
        return self.subset(self.splits[name])

    def subset(self, positions: Array) -> ImageSource:
        """The items at `positions` of this source, as a source of their own."""
        if not len(positions):
            raise DataError(f"an empty part of {self.name} was asked for")
        return replace(self, rows=self.rows[np.asarray(positions, np.int64)])

    def hold_out(self, count: int) -> tuple[ImageSource, ImageSource]:
        """Cut `count` items out by the hash of their ids: (the rest, the cut). For tuning, never the test."""
        if not 0 < count < len(self):
            raise DataError(f"cannot hold {count} items out of the {len(self)} of {self.name}")
        order = np.argsort([_hash_of(i) for i in self.ids], kind="stable")
        return self.subset(np.sort(order[count:])), self.subset(np.sort(order[:count]))

    def with_labels(self, path: str | Path) -> ImageSource:
        """The items that a file labels, with its labels in place of their own and no splits.

        Args: path: lines of `id,label`; a first line that reads so is a heading. Labels are names.
        Raises:
            DataError: missing, not two columns, an id that is not here or twice, or one class only.
        """
        names = read_labels(Path(path))
        place = {name: i for i, name in enumerate(self.ids)}
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
        """The images at the positions `index` (N,).

        Returns:
            (N, C, H, W) uint8 in channels-last memory when the whole set has one size; otherwise
            {"pixels": (bytes,) uint8, "height": (N,), "width": (N,), "channels": (1,)}, the images one after
            another as rows x columns x channels.
        """
        rows = self.rows[index.cpu().numpy()]
        packed = self.pixels
        if packed.shape is not None:
            h, w = packed.shape
            whole = packed.flat.reshape(len(packed.offset), h, w, packed.channels)
            return torch.from_numpy(whole[rows]).permute(0, 3, 1, 2)
        flat = np.concatenate([packed.image(r).reshape(-1) for r in rows])
        return {
            "pixels": torch.from_numpy(flat),
            "height": torch.from_numpy(packed.height[rows]),
            "width": torch.from_numpy(packed.width[rows]),
            "channels": torch.tensor([packed.channels]),
        }

    def image(self, position: int) -> Array:
        """One image, (H, W, C) uint8, as packed."""
        return self.pixels.image(int(self.rows[position]))


def read_labels(path: Path) -> dict[str, str]:
    """Id -> label name, from lines of `id,label`."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            lines = [line for line in csv.reader(file) if line]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read as lines of id,label: {error}") from error
    if lines and [cell.strip().lower() for cell in lines[0]] == ["id", "label"]:
        lines = lines[1:]
    found: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        if len(line) != 2 or not line[1].strip():
            raise DataError(f"{path}, label {number}: lines of id,label are needed, got {','.join(line)!r}")
        if line[0] in found:
            raise DataError(f"{path} labels {line[0]!r} twice")
        found[line[0]] = line[1].strip()
    if not found:
        raise DataError(f"{path} holds no labels; write lines of id,label")
    return found


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
