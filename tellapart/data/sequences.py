"""Sequences in one packed memory map: sounds in int16, series of several channels in float32.

An instance is a sound file, or a piece of a long one.
Shapes: S instances, N batch, T steps in time, C channels.
"""

from __future__ import annotations

import functools
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import DataError
from .files import readable
from .notes import Note, counted, note, shown
from .source import Array, Source

FORMAT = 2
CHANGES = {"loud": "of floats above 1 scaled down to 1, which is not clipping"}


@dataclass(frozen=True)
class Packed:
    """Sequences one after another, where each begins, and what was left out and why."""

    values: Array  # (steps, C) int16 or float32, memory-mapped
    offset: Array  # (S,) int64
    length: Array  # (S,) int64
    file: Array  # (S,) which of the given files
    start: Array  # (S,) the step of the file that it begins at
    hashes: list[str]  # (S,) of the file
    skipped: list[dict[str, str]]
    changes: dict[str, list[str]] = field(default_factory=dict)  # what was done -> files
    rests: dict[str, int] = field(default_factory=dict)  # file -> steps that are in no piece

    @functools.cached_property
    def pieces(self) -> Array:
        """How many pieces each file was cut into."""
        return np.bincount(self.file)


@dataclass(frozen=True, kw_only=True)
class SequenceSource(Source):
    """Sounds or series.

    Attributes:
        packed: the sequences of the whole set; `rows` are the ones that belong to this source.
        kind: "audio" or "series".
        rate: samples per second of sounds, None of series.
        step_seconds: seconds from one step of a series to the next, None where unknown.
    """

    packed: Packed
    kind: str = "audio"
    rate: int | None = None
    step_seconds: float | None = None

    @property
    def one(self) -> str:  # type: ignore[override]
        return "a sound" if self.kind == "audio" else "a series"

    @property
    def many(self) -> str:  # type: ignore[override]
        return "sounds" if self.kind == "audio" else "series"

    @property
    def channels(self) -> int:
        return int(self.packed.values.shape[1])

    @property
    def lengths(self) -> Array:
        """(S,) steps of each item."""
        return self.packed.length[self.rows]

    @property
    def about(self) -> dict[str, Any]:
        about: dict[str, Any] = {"channels": self.channels, "rate": self.rate}
        if self.step_seconds is not None:
            about["step_seconds"] = self.step_seconds
        return about

    @property
    def described(self) -> str:
        steps = int(self.lengths.sum())
        if self.rate:
            return (
                f"{len(self):,} sounds, {steps / self.rate / 60:,.1f} minutes at {self.rate:,} Hz"
            )
        channels = counted(self.channels, "channel")
        return f"{len(self):,} pieces of series, {steps:,} steps of {channels}"

    def read(self, index: Tensor) -> dict[str, Tensor]:
        """Sequences at source rows (N,): {"values": (sum of T, C) as stored, "length": (N,)}."""
        parts = [self.sequence(i) for i in index.tolist()]
        return {
            "values": torch.from_numpy(np.concatenate(parts)),
            "length": torch.tensor([len(p) for p in parts]),
        }

    def sequence(self, row: int) -> Array:
        """One sequence (T, C), as packed.

        Args:
            row: source row.
        """
        set_row = self.rows[row]
        start = self.packed.offset[set_row]
        return np.asarray(self.packed.values[start : start + self.packed.length[set_row]])

    @property
    def groups(self) -> list[str]:
        return [str(self.packed.file[set_row]) for set_row in self.rows]

    def seconds(self, row: int) -> tuple[float, float]:
        """Where in its file an item begins and ends; in steps if the rate is unknown.

        Args:
            row: source row.
        """
        set_row, rate = self.rows[row], self.rate or 1
        start = float(self.packed.start[set_row])
        return start / rate, (start + float(self.packed.length[set_row])) / rate


# Row of the file, its sequence (T, C) or why it is left out, its hash, and what was done to it.
Pieces = Iterable[tuple[int, "Array | str", str, tuple[str, ...]]]


def pack(
    folder: Path,
    files: Pieces,
    names: list[str],
    *,
    longest: int,
    limit: float,
    piece: int | None = None,
    hop: int | None = None,
) -> None:
    """Write values.bin, table.npz and about.json into `folder`.

    Args:
        folder: an existing one. files: the sequences. names: of the files.
        longest: a sequence of more steps is cut evenly into pieces of at most so many.
        limit: bytes that the values may take.
        piece: steps of every piece instead; a rest at the end of a file is left out and counted.
        hop: steps from one piece to the next; None: `piece`.
    """
    table: list[tuple[int, int, int, int]] = []
    hashes: list[str] = []
    skipped: list[dict[str, str]] = []
    changes: dict[str, list[str]] = {}
    rests: dict[str, int] = {}
    total, kind = 0, None
    with open(folder / "values.bin", "wb") as out:
        for number, sequence, digest, changed in files:
            if isinstance(sequence, str):
                skipped.append({"path": names[number], "reason": sequence})
                continue
            kind = kind or (sequence.dtype.name, sequence.shape[1])
            if kind[1] != sequence.shape[1]:
                reason = f"other channels: {sequence.shape[1]}, others have {kind[1]}"
                skipped.append({"path": names[number], "reason": reason})
                continue
            out.write(np.ascontiguousarray(sequence).tobytes())
            places, rest = _places(len(sequence), longest, piece, hop)
            for start, length in places:
                table.append((total + start, length, number, start))
                hashes.append(digest)
            if rest:
                rests[names[number]] = rest
            for change in changed:
                changes.setdefault(change, []).append(names[number])
            total += len(sequence)
            if total * sequence.itemsize * kind[1] > limit:
                raise DataError(
                    f"the packed data need more than --cache-limit {limit / 1e9:g} (GB); raise it"
                )
    columns = np.array(table, np.int64).reshape(-1, 4).T
    np.savez(
        folder / "table.npz", offset=columns[0], length=columns[1], of=columns[2], start=columns[3]
    )
    about = {
        "format": FORMAT, "kind": kind, "hashes": hashes, "skipped": skipped, "changes": changes,
        "rests": rests,
    }  # fmt: skip
    (folder / "about.json").write_text(json.dumps(about))


def _places(
    steps: int, longest: int, piece: int | None, hop: int | None
) -> tuple[list[tuple[int, int]], int]:
    """Start and length of each piece of a sequence, and how many steps are in none of them."""
    if piece is None:
        edges = np.linspace(0, steps, -(-steps // longest) + 1).astype(np.int64).tolist()
        return [(a, b - a) for a, b in itertools.pairwise(edges)], 0
    if steps <= piece:
        return [(0, steps)], 0
    step = hop or piece
    starts = list(range(0, steps - piece + 1, step))
    gaps = max(0, step - piece) * (len(starts) - 1)
    return [(start, piece) for start in starts], steps - (starts[-1] + piece) + gaps


def load(folder: Path) -> Packed:
    """Read the files of `pack`; the values are memory-mapped."""
    about = json.loads((folder / "about.json").read_text())
    with np.load(folder / "table.npz") as table:
        dtype, channels = about["kind"] or ("int16", 1)
        values: Array = np.zeros((0, channels), dtype)
        if (folder / "values.bin").stat().st_size:
            values = np.memmap(folder / "values.bin", dtype, mode="r").reshape(-1, channels)
        return Packed(
            values,
            table["offset"],
            table["length"],
            table["of"],
            table["start"],
            about["hashes"],
            about["skipped"],
            about["changes"],
            about["rests"],
        )


def notes_of(packed: Packed, names: Sequence[str], unit: str) -> Iterator[Note]:
    """Notes on what was done to the files, and on what is in no piece.

    Args: unit: of a step, in the plural.
    """
    for change, said in CHANGES.items():
        if changed := [readable(n) for n in packed.changes.get(change, ())]:
            text = f"{counted(len(changed), 'file')} {said}: {shown(changed)}"
            yield note(change, text, count=len(changed), names=changed)
    cut = int((packed.pieces > 1).sum())
    if cut:
        lengths = packed.length[packed.pieces[packed.file] > 1]
        text = (
            f"{counted(cut, 'file')} cut into {len(lengths):,} pieces of {int(lengths.min()):,} to "
            f"{int(lengths.max()):,} {unit}; --piece and --hop set them"
        )
        yield note("pieces", text, count=cut)
    if packed.rests:
        files = counted(len(packed.rests), "file")
        text = f"{sum(packed.rests.values()):,} {unit} of {files} are in no piece"
        yield note("rest", text, count=len(packed.rests), names=[readable(n) for n in packed.rests])


def contents(entry: Path, files: list[Path]) -> list[tuple[Path, str]]:
    """The files of a packed entry with the digests of their contents."""
    packed = load(entry)
    return sorted({(files[f], h) for f, h in zip(packed.file.tolist(), packed.hashes, strict=True)})


def ending(packed: Packed, row: int, rate: int | None) -> str:
    """The suffix of the file name in an id: nothing, or where the piece begins ("#12.5")."""
    return f"#{packed.start[row] / (rate or 1):g}" if packed.pieces[packed.file[row]] > 1 else ""


def endings(packed: Packed, rate: int | None) -> list[str]:
    """`ending` of every row."""
    return [ending(packed, row, rate) for row in range(len(packed.file))]


Progress = Callable[[int, int], None]


def reported(pieces: Pieces, total: int, progress: Progress | None) -> Pieces:
    """The same pieces, with every hundredth of them told."""
    for done, piece in enumerate(pieces, 1):
        yield piece
        if progress and (done % 100 == 0 or done == total):
            progress(done, total)
