"""Tables of numbers as a source: channels over time in .npy or .csv files, or folders of them."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError
from . import endings, image_packing, sequences, tables
from . import files as listings
from .cache import Cache
from .files import Listing, open_regular, reason
from .notes import Note, counted, note, shown
from .options import ReadOptions
from .sequences import SequenceSource
from .source import Array
from .tables import Table

FORMAT = 2
LONGEST = 2048  # steps of an item: longer series are cut evenly
SHORTEST = 64  # steps of an item, where the data decide
WANTED = 128  # items that a few long series are cut into, where they are long enough for that
MANY = 8  # files from which on each series is an item, unless it is longer than LONGEST
Changed = list[tuple[str, str]]  # name of a file, and what was left out of it


def series_source(
    name: str,
    listing: Listing,
    cache: Cache,
    *,
    options: ReadOptions | None = None,
    progress: sequences.Progress | None = None,
) -> SequenceSource:
    """Pack the listed series (once) and describe them; rows are steps in time, columns channels.

    A piece with a value that is not finite is left out and listed; the pieces beside it stay.

    Args:
        name: what the user typed.
        listing: the files. cache: where read tables are kept.
        options: `piece` and `hop` in steps; None: pieces of at most 2,048 steps, and shorter ones
            where fewer than 8 files would make fewer than 128.
        progress: called with (done, total).
    Raises:
        DataError: fewer than two usable pieces.
    """
    options = options or ReadOptions()
    if not listing.names:
        said = [str(n["text"]) for n in listing.notes if n["count"]]
        raise DataError(
            f"{listings.readable(name)} holds no series that can be read"
            + (f": {'; '.join(said)}" if said else "")
            + f" (read are {', '.join(sorted(endings.SERIES))})"
        )

    def make(into: Path, limit: float) -> None:
        with image_packing.appearing(into) as work:
            about: dict[str, Any] = {"seconds": {}, "changed": []}
            heads = _heads(listing.files)
            piece = options.piece
            longest = LONGEST if piece else _longest(heads, len(listing.files))
            pieces = sequences.reported(_read(listing, heads, about), len(listing.names), progress)
            sequences.pack(
                work, pieces, listing.names, longest=longest, limit=limit, piece=piece,
                hop=options.hop,
            )  # fmt: skip
            (work / "tables.json").write_text(json.dumps(about))

    key = listings.key(listing, "series", FORMAT, sequences.FORMAT, options.piece, options.hop)
    folder = cache.entry(key, make, summary=True)
    about = json.loads((folder / "tables.json").read_text())
    whole = sequences.load(folder)
    packed = _without_nan(whole, listing)
    if len(packed.offset) < 2:
        skipped = [*listing.skipped, *packed.skipped]
        raise listings.too_few(name, "piece", "pieces", len(packed.offset), skipped)
    ends = sequences.endings(packed, None)
    identity = listings.identity(
        name, listing, packed.file.tolist(), packed.hashes, packed.skipped, ends
    )
    identity["notes"] += [
        *_of_tables(about["changed"]),
        *_of_time(about["seconds"]),
        *sequences.notes_of(packed, listing.names, "steps"),
    ]
    seconds = [float(s) for s in about["seconds"].values()]
    return SequenceSource(
        **identity,
        packed=packed,
        kind="series",
        step_seconds=float(np.median(seconds)) if seconds else None,
    )


def read_table(path: Path) -> Array:
    """The values (T, C) float32 of a file.

    Raises:
        DataError: not a table of numbers, or fewer than two steps.
    """
    return _table(path).values


def is_table(path: Path) -> bool:
    """Whether a text file holds columns of numbers, more than one."""
    try:
        found = tables.read_csv(path)
    except (OSError, ValueError):
        return False
    return found.values.shape[1] > 1 and len(found.values) > 1


def _table(path: Path) -> Table:
    try:
        with open_regular(path) as file:
            if not file.read(1):
                raise DataError("the file is empty")
            file.seek(0)
            found = _of_npy(file) if path.suffix.lower() == ".npy" else None
        found = found or tables.read_csv(path)
    except DataError:
        raise
    except Exception as error:  # NumPy raises many kinds on a damaged file
        raise DataError(f"not a table of numbers: {reason(error)}") from error
    if len(found.values) < 2:
        raise DataError(f"too short: {counted(len(found.values), 'step')}, 2 or more are needed")
    return found


def _of_npy(file: Any) -> Table:
    table = np.lib.format.read_array(file, allow_pickle=False)
    if table.ndim == 1:
        table = table[:, None]
    if table.ndim != 2 or not np.issubdtype(table.dtype, np.number) or np.iscomplexobj(table):
        raise DataError(
            f"not a table of numbers: (steps, channels) is needed, got shape {table.shape} "
            f"of {table.dtype}"
        )
    return Table(table.astype(np.float32))


def _heads(files: Sequence[Path]) -> list[tuple[int, int, tuple[str, ...]] | None]:
    """Steps, channels and names of columns of each file; None of one that cannot be read."""
    found: list[tuple[int, int, tuple[str, ...]] | None] = []
    for path in files:
        try:
            if path.suffix.lower() == ".npy":
                with open_regular(path) as file:
                    found.append(_head_of_npy(file))
                continue
            table = _table(path)
            found.append((*table.values.shape, table.names))
        except Exception:  # reading lists it, with the reason
            found.append(None)
    return found


def _head_of_npy(file: Any) -> tuple[int, int, tuple[str, ...]]:
    version = np.lib.format.read_magic(file)
    read = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }[version]
    shape = read(file)[0]
    return int(shape[0]), int(shape[1]) if len(shape) > 1 else 1, ()


def _longest(heads: Sequence[tuple[int, int, tuple[str, ...]] | None], files: int) -> int:
    """Steps of a piece at most: enough pieces of few long series, whole short ones of many."""
    steps = sum(head[0] for head in heads if head)
    if files >= MANY:
        return LONGEST
    least = SHORTEST if files > 1 else min(SHORTEST, max(8, steps // 8))  # a lone short table
    return max(least, min(LONGEST, steps // WANTED))


def _read(
    listing: Listing,
    heads: Sequence[tuple[int, int, tuple[str, ...]] | None],
    about: dict[str, Any],
) -> Iterator[tuple[int, Array | str, str, tuple[str, ...]]]:
    """Each file's table, or why it is left out: also where most files have other channels."""
    widths = Counter(head[1] for head in heads if head)
    usual = max(widths, key=lambda width: (widths[width], -width), default=0)
    headings = Counter(head[2] for head in heads if head and head[1] == usual and head[2])
    names = max(headings, key=lambda h: headings[h], default=())
    for number, path in enumerate(listing.files):
        try:
            table = _table(path)
            values = table.values
            if values.shape[1] != usual:
                raise DataError(f"other channels: {values.shape[1]}, most files have {usual}")
            if table.names and names and table.names != names:
                if set(table.names) != set(names):
                    raise DataError(f"other channels: {shown(table.names)}, not {shown(names)}")
                values = values[:, [table.names.index(name) for name in names]]
        except DataError as error:
            yield number, str(error), "", ()
            continue
        said = listing.names[number]
        about["changed"] += [(said, change) for change in table.changes]
        if table.seconds:
            about["seconds"][said] = table.seconds
        digest = hashlib.blake2b(values.tobytes(), digest_size=16).hexdigest()
        yield number, values, digest, ()


def _of_tables(changed: Changed) -> Iterator[Note]:
    """One note for each kind of what was left out of tables, with what it was and where."""
    kinds: dict[str, Changed] = {}
    for name, change in changed:
        kinds.setdefault(change.partition(":")[0], []).append((name, change))
    for kind, entries in kinds.items():
        details = list(dict.fromkeys(c.partition(": ")[2] for _, c in entries))
        files = list(dict.fromkeys(listings.readable(name) for name, _ in entries))
        text = f"{kind}: {shown(details)} (in {counted(len(files), 'file')}: {shown(files)})"
        yield note(kind, text, count=len(entries), names=details)


def _of_time(seconds: dict[str, float]) -> Iterator[Note]:
    if not seconds:
        return
    steps = sorted(set(seconds.values()))
    text = f"a step is {in_words(float(np.median(list(seconds.values()))))}, by the column of time"
    if len(steps) > 1 and steps[-1] > 1.01 * steps[0]:
        text += f" (in some files {in_words(steps[0])} to {in_words(steps[-1])})"
    yield note("rate", text, count=len(seconds))


def in_words(seconds: float) -> str:
    """A duration with its unit.

    >>> in_words(3600), in_words(0.02), in_words(90)
    ('1 h', '0.02 s', '1.5 min')
    """
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:g} {unit}"
    return f"{seconds:g} s"


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
            "reason": f"not finite: a value in steps {packed.start[i]} to "
            f"{packed.start[i] + packed.length[i]}",
        }
        for i in np.flatnonzero(~good)
    ]
    hashes = [h for h, g in zip(packed.hashes, good.tolist(), strict=True) if g]
    return sequences.Packed(
        packed.values, packed.offset[good], packed.length[good], packed.file[good],
        packed.start[good], hashes, packed.skipped + skipped, packed.changes, packed.rests,
    )  # fmt: skip
