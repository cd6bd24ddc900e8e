"""Manifests: parquet files whose rows name the items of a data set of any size.

Columns: id (unique), and either uri (a path or a url; with offset and length a part of that file,
such as a member of a tar) or bytes; optional label and split. A manifest is read a slice at a
time, so that memory does not grow with its rows.

Shapes: S rows.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError
from ..runtime.extras import optional
from . import remote
from .notes import counted, shown
from .opening import BLOCK, open_regular, reason
from .records import LARGEST, label_name, split_name
from .source import Array

KEPT = 8_000_000  # hashes of ids that are in memory at once
SLICE = 65_536  # rows that are read at once
CONTENT = ("uri", "bytes", "image")
OPTIONAL = ("offset", "length", "label", "split")


@dataclass(frozen=True)
class Item:
    """One row of a manifest.

    Attributes:
        id: unique in the manifest.
        uri: path or url of the file; None: `raw` holds it.
        raw: the bytes of the file; None: they are at `uri`.
        offset: where the item begins in the file.
        length: bytes of the item; None: up to the end of the file.
        label: its class, None where it has none.
        split: "train", "test" or another name, None where it has none.
    """

    id: str
    uri: str | None
    raw: bytes | None
    offset: int
    length: int | None
    label: str | None
    split: str | None


class Manifest:
    """A manifest that is open.

    Args:
        place: path or url of the parquet file.

    Attributes:
        place: as given.
        columns: names of the columns that are used.
        unused: names of the other columns.

    Raises:
        DataError: it cannot be read, or lacks a column.
        MissingExtraError: pyarrow is not installed.
    """

    def __init__(self, place: str | Path) -> None:
        self.place = str(place)
        optional("pyarrow", "tables", "parquet")
        self._file = _open(self.place)
        schema = self._file.schema_arrow
        _check_columns(self.place, schema)
        self.columns = [c for c in ("id", *CONTENT, *OPTIONAL) if c in schema.names]
        self.unused = [c for c in schema.names if c not in self.columns]
        about = self._file.metadata
        sizes = [about.row_group(i).num_rows for i in range(about.num_row_groups)]
        self._starts = np.cumsum([0, *sizes])
        if not len(self):
            raise DataError(f"{self.place} has no rows")

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __enter__(self) -> Manifest:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._file.close(force=True)

    @functools.cached_property
    def fingerprint(self) -> str:
        """The hash of the file, which is that of the data."""
        return digest(self.place)

    def items(self, start: int, count: int) -> list[Item]:
        """The items of a slice.

        Args:
            start: first row.
            count: number of rows; fewer at the end of the manifest.

        Raises:
            DataError: a row is damaged, or has no id.
        """
        return list(self.stream(start, count, max(1, min(count, SLICE))))

    def stream(self, start: int, count: int, ahead: int) -> Iterator[Item]:
        """The items of a slice, one after another.

        Args:
            start: first row.
            count: number of rows; fewer at the end of the manifest.
            ahead: rows that are read at once; bytes in the manifest are held for so many.

        Raises:
            DataError: a row is damaged, or has no id.
        """
        number = start
        for batch in self._slice(start, count, self.columns, ahead):
            for row in batch.to_pylist():
                yield self._item(number, row)
                number += 1

    def table(self, start: int, count: int, columns: Iterable[str]) -> Any:
        """A slice as a `pyarrow.Table`.

        Args:
            start: first row.
            count: number of rows; fewer at the end of the manifest.
            columns: names of the columns.
        """
        pa = optional("pyarrow", "tables")
        return pa.Table.from_batches(list(self._slice(start, count, list(columns), count)))

    def _slice(self, start: int, count: int, columns: list[str], size: int) -> Iterator[Any]:
        """Record batches of a slice."""
        stop = min(start + count, len(self))
        first = int(np.searchsorted(self._starts, start, side="right")) - 1
        last = int(np.searchsorted(self._starts, stop, side="left"))
        skip, wanted = start - int(self._starts[first]), stop - start
        for batch in self._batches(list(range(first, max(last, first + 1))), columns, size):
            part = batch.slice(skip, wanted)
            skip = max(0, skip - batch.num_rows)
            wanted -= part.num_rows
            if part.num_rows:
                yield part
            if not wanted:
                return

    def check_ids(self) -> None:
        """Check that every row has an id of its own, in memory that does not grow with the rows.

        Raises:
            DataError: an id is missing or repeated.
        """

        def ids() -> Iterator[Any]:
            for batch in self._batches(None, ["id"], SLICE):
                yield batch.column(0)

        row = 0
        for column in ids():
            if column.null_count:
                raise DataError(f"{self.place}: row {row + column.to_pylist().index(None)} has no "
                                "id")  # fmt: skip
            row += len(column)
        again = repeated(ids, len(self))
        if again:
            raise DataError(
                f"{self.place}: {counted(len(again), 'id')} stand in more than one row: "
                f"{shown([repr(i) for i in again])}; ids must be unique"
            )

    def _batches(self, groups: list[int] | None, columns: list[str], size: int) -> Iterator[Any]:
        options = {} if groups is None else {"row_groups": groups}
        try:
            yield from self._file.iter_batches(
                batch_size=max(1, min(size, SLICE)), columns=columns, use_threads=False, **options
            )
        except Exception as error:  # pyarrow and stores raise many kinds on a damaged file
            raise DataError(f"{self.place} cannot be read: {reason(error)}") from error

    def _item(self, number: int, row: dict[str, Any]) -> Item:
        name = row["id"]
        if name is None:
            raise DataError(f"{self.place}: row {number} has no id")
        raw, uri = row.get("bytes"), row.get("uri")
        if raw is None and "image" in row:
            cell = row["image"] or {}
            raw, uri = (
                (cell.get("bytes"), cell.get("path")) if isinstance(cell, dict) else (cell, uri)
            )
        if uri is not None and not remote.is_url(uri):
            uri = str(Path(self.place).parent / uri)
        return Item(
            str(name), uri, raw, int(row.get("offset") or 0), row.get("length"),
            label_name(row.get("label")), split_name(row.get("split")),
        )  # fmt: skip


def is_manifest(place: str | Path) -> bool:
    """Whether a parquet file has the columns of a manifest: id, and uri or bytes.

    Args:
        place: path or url.
    """
    if Path(str(place)).suffix.lower() not in (".parquet", ".pq"):
        return False
    parquet = optional("pyarrow", "tables", "parquet").parquet
    try:
        with open_stream(str(place)) as file:
            names = set(parquet.read_schema(file).names)
    except Exception:  # whoever reads it says why it cannot be read
        return False
    return "id" in names and bool({"uri", "bytes"} & names)


def read(item: Item) -> bytes:
    """The bytes of an item.

    Args:
        item: the item.

    Raises:
        StoreError: the store cannot be reached or refuses, which concerns all of its items.
        OSError: the file is not there.
        ValueError: no file, too large, or shorter than the manifest says.
    """
    if item.raw is not None:
        return item.raw
    if item.uri is None:
        raise ValueError("empty: no uri and no bytes")
    if item.length is None and not item.offset:
        return remote.open_bytes(item.uri)
    return _part(item.uri, item.offset, item.length)


def digest(place: str) -> str:
    """The hash of a file, local or of a store, read in blocks.

    Args:
        place: path or url.
    """
    found = hashlib.blake2b(digest_size=16)
    with open_stream(place) as file:
        while block := file.read(BLOCK):
            found.update(block)
    return found.hexdigest()


def repeated(columns: Callable[[], Iterable[Any]], count: int, most: int = 100) -> list[str]:
    """Values that occur more than once, in memory that does not grow with their number.

    The values are read several times; each time those whose hash lies in one range are compared.

    Args:
        columns: gives Arrow arrays of strings (or integers), from the start at every call.
        count: number of values.
        most: values that are returned at most.
    """
    passes = max(1, -(-count // KEPT))
    again: set[int] = set()
    for turn in range(passes):
        kept = []
        for column in columns():
            hashes = hashes_of(column)
            kept.append(hashes[hashes % np.uint64(passes) == turn] if passes > 1 else hashes)
        ordered = np.sort(np.concatenate(kept))
        again.update(ordered[1:][ordered[1:] == ordered[:-1]][: 10 * most].tolist())
    if not again:
        return []
    wanted = np.array(sorted(again), np.uint64)
    seen: dict[str, int] = {}  # equal hashes may be of different values
    for column in columns():
        for row in np.flatnonzero(np.isin(hashes_of(column), wanted)).tolist():
            value = str(column[row].as_py())
            seen[value] = seen.get(value, 0) + 1
    return [value for value, times in seen.items() if times > 1][:most]


def hashes_of(column: Any) -> Array:
    """Hashes (n,) uint64 of the values of an Arrow array.

    Args:
        column: of strings or integers, without nulls.
    """
    pandas = optional("pandas", "tables")
    pa = optional("pyarrow", "tables")
    values = column.cast(pa.large_string()).to_numpy(zero_copy_only=False)
    found: Array = pandas.util.hash_array(values.astype(object), categorize=False)
    return found


def _check_columns(place: str, schema: Any) -> None:
    pa = optional("pyarrow", "tables")
    names = schema.names
    needed = "a manifest needs the columns id, and uri or bytes"
    if "id" not in names:
        raise DataError(f"{place} has no column id; {needed}; its columns: {', '.join(names)}")
    if not any(c in names for c in CONTENT):
        raise DataError(
            f"{place} has no column uri or bytes; {needed}; its columns: {', '.join(names)}"
        )
    if ("offset" in names) != ("length" in names):
        raise DataError(f"{place} needs both of the columns offset and length, or none of them")
    kinds = {name: schema.field(name).type for name in names}

    def texts(kind: Any) -> bool:
        return bool(
            pa.types.is_string(kind) or pa.types.is_large_string(kind)
            or (pa.types.is_dictionary(kind) and texts(kind.value_type))
        )  # fmt: skip

    tests = {
        "id": (lambda k: texts(k) or pa.types.is_integer(k), "strings or integers"),
        "uri": (texts, "strings"),
        "bytes": (lambda k: pa.types.is_binary(k) or pa.types.is_large_binary(k), "binary values"),
        "offset": (pa.types.is_integer, "integers"),
        "length": (pa.types.is_integer, "integers"),
    }
    for name, (test, words) in tests.items():
        if name in kinds and not test(kinds[name]):
            raise DataError(f"{place}: the column {name} holds {kinds[name]}, {words} are needed")


def _open(place: str) -> Any:
    parquet = optional("pyarrow", "tables", "parquet").parquet
    path = remote.path_of(place)
    if path is not None and not path.exists():
        raise DataError(f"{place} does not exist; tellapart manifest FOLDER --out {path.name}")
    file = None
    try:
        file = open_stream(place)
        return parquet.ParquetFile(file)
    except DataError:
        raise
    except Exception as error:  # as above
        if file is not None:
            file.close()
        raise DataError(f"{place} is no parquet file that can be read: {reason(error)}") from error


def open_stream(place: str) -> Any:
    """Open a file for reading from any place in it.

    Args:
        place: path or url.
    """
    if (path := remote.path_of(place)) is not None:
        return open_regular(path)
    system, inner = remote.file_system(place)
    return remote.asked(place, lambda: system.open(inner, "rb"))


def _part(uri: str, offset: int, length: int | None) -> bytes:
    """A part of a file."""
    if length is not None and not 0 <= length <= LARGEST:
        raise ValueError(f"too large: {length:,} bytes")
    path = remote.path_of(uri)
    if path is not None:
        with open_regular(path) as file:
            file.seek(offset)
            raw = file.read(-1 if length is None else length)
    else:
        system, inner = remote.file_system(uri)
        end = None if length is None else offset + length
        raw = remote.asked(uri, lambda: bytes(system.cat_file(inner, start=offset, end=end)))
    if length is not None and len(raw) < length:
        raise ValueError(f"damaged: {len(raw):,} of {length:,} bytes are there")
    return raw
