"""Tables of numbers as a source: a 2-D .npy or .csv of several channels over time, or a folder of them."""

from __future__ import annotations

import contextlib
import csv
import hashlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ..errors import DataError
from . import files as listings
from . import image_packing, sequences
from .cache import Cache
from .files import Listing
from .kinds import SERIES
from .sequences import SequenceSource
from .source import Array

LONGEST = 2048  # steps of an instance: longer series are cut evenly


def series_source(
    name: str, listing: Listing, cache: Cache, *, progress: sequences.Progress | None = None
) -> SequenceSource:
    """Pack the listed series (once) and describe them; rows are steps in time, columns are channels.

    A piece with a value that is not finite is left out and listed; the pieces before and after it stay.
    """
    if not listing.names:
        raise DataError(f"{name} holds no series ({', '.join(sorted(SERIES))})")

    def make(into: Path, limit: float) -> None:
        with image_packing.appearing(into) as work:
            pieces = sequences.reported(_read(listing.files), len(listing.names), progress)
            sequences.pack(work, pieces, listing.names, longest=LONGEST, limit=limit)

    packed = _without_nan(
        sequences.load(cache.entry(listings.key(listing, "series", sequences.FORMAT), make)),
        listing,
    )
    if len(packed.offset) < 2:
        raise listings.too_few(
            name, f"piece(s) of up to {LONGEST} steps", len(packed.offset), packed.skipped
        )
    ends = sequences.endings(packed, None)
    identity = listings.identity(
        name, listing, packed.file.tolist(), packed.hashes, packed.skipped, ends
    )
    return SequenceSource(**identity, packed=packed, kind="series")


def read_table(path: Path) -> Array:
    """The values (T, C) float32 of a file; a first line of a .csv that is no numbers is a heading.

    Raises:
        DataError: not a table of numbers, or fewer than two steps.
    """
    try:
        if path.suffix.lower() == ".npy":
            table = np.load(path, mmap_mode="r", allow_pickle=False)
        else:
            with open(path, newline="", encoding="utf-8-sig") as file:
                lines = [line for line in csv.reader(file) if line]
            if lines and not _numbers(lines[0]):
                lines = lines[1:]
            table = np.array(
                [[float(cell) if cell.strip() else np.nan for cell in line] for line in lines]
            )
        table = np.asarray(table)
        if table.ndim == 1:
            table = table[:, None]
        if table.ndim != 2 or not np.issubdtype(table.dtype, np.number) or np.iscomplexobj(table):
            raise DataError(
                f"a table (steps, channels) of numbers is needed, got shape {table.shape} of {table.dtype}"
            )
    except (OSError, ValueError, EOFError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(
            str(error) if isinstance(error, DataError) else f"not a table of numbers ({error})"
        ) from error
    if len(table) < 2:
        raise DataError(f"{len(table)} step(s), 2 or more are needed")
    return table.astype(np.float32)


def _numbers(cells: list[str]) -> bool:
    try:
        return bool([float(c) for c in cells if c.strip()])
    except ValueError:
        return False


def _read(files: list[Path]) -> Iterator[tuple[int, Array | str, str]]:
    """Each file's table, or why it is left out: also where most files have another number of channels."""
    widths: Counter[int] = Counter()
    for path in files:
        with contextlib.suppress(OSError, ValueError, EOFError, StopIteration, csv.Error):
            widths[_width(path)] += 1
    usual = max(widths, key=lambda width: (widths[width], -width), default=0)
    for number, path in enumerate(files):
        try:
            table = read_table(path)
            if table.shape[1] != usual:
                raise DataError(f"{table.shape[1]} channels, most files have {usual}")
        except DataError as error:
            yield number, str(error), ""
            continue
        yield number, table, hashlib.blake2b(table.tobytes(), digest_size=16).hexdigest()


def _width(path: Path) -> int:
    """Channels of a file, from its head alone."""
    if path.suffix.lower() == ".npy":
        shape = np.load(path, mmap_mode="r", allow_pickle=False).shape
        return int(shape[1]) if len(shape) > 1 else 1
    with open(path, newline="", encoding="utf-8-sig") as file:
        return len(next(line for line in csv.reader(file) if line))


def _without_nan(packed: sequences.Packed, listing: Listing) -> sequences.Packed:
    """The pieces whose values are all finite; the others are listed."""
    good = np.array(
        [
            bool(np.isfinite(packed.values[start : start + length]).all())
            for start, length in zip(packed.offset.tolist(), packed.length.tolist(), strict=True)
        ],
        bool,
    )
    skipped = [
        {
            "path": f"{listing.names[packed.file[i]]}#{packed.start[i]}",
            "reason": f"a value that is not finite in steps {packed.start[i]} to {packed.start[i] + packed.length[i]}",
        }
        for i in np.flatnonzero(~good)
    ]
    hashes = [h for h, g in zip(packed.hashes, good.tolist(), strict=True) if g]
    return sequences.Packed(
        packed.values, packed.offset[good], packed.length[good], packed.file[good], packed.start[good], hashes,
        packed.skipped + skipped,
    )  # fmt: skip
