"""Tables whose rows are items: CSV, TSV, JSON lines, parquet and Arrow files, and data frames."""

from __future__ import annotations

import io
import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from ..errors import DataError
from ..runtime.extras import optional
from . import columns, remote, specs
from .columns import Chosen
from .folders import ending_of
from .lists import cells_of
from .notes import Note, counted, note, shown
from .opening import decode_text, open_regular, read_bytes, readable, reason
from .records import (
    LARGEST,
    Record,
    Records,
    Skipped,
    Url,
    file_key,
    label_name,
    split_name,
)

PARQUET = frozenset({".parquet", ".pq"})
ARROW = frozenset({".arrow", ".feather", ".ipc"})
JSON = frozenset({".jsonl", ".ndjson", ".json"})
PROBED = 100  # rows from which the columns are chosen
READERS = ("csv", "ipc", "parquet")  # of pyarrow
BATCH = 256  # rows of a parquet file that are in memory at once
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Table:
    """A table that is opened but not read.

    Attributes:
        name: for messages.
        columns: their names.
        rows: gives each row with its number, or a row that cannot be read.
        types: roles that the table states itself, as `columns.choose`.
        classes: column -> names of its classes.
        key: as `records.Records`.
        root: the folder that paths are relative to.
        base: the url that paths are relative to; None: `root`.
    """

    name: str
    columns: Sequence[str]
    rows: Callable[[], Iterator[tuple[int | str, Row] | Skipped]]
    types: Mapping[str, str] = field(default_factory=dict)
    classes: Mapping[str, Sequence[str]] = field(default_factory=dict)
    key: str | None = None
    root: Path = field(default_factory=Path)
    base: str | None = None


def read(
    path: Path, options: Mapping[str, str], kind: str | None = None, base: str | None = None
) -> Records:
    """The items of a table file.

    Args:
        path: the file.
        options: roles of columns, as `specs.split_options`.
        kind: the kind that the user asked for; None: any.
        base: the url of its folder, that paths are relative to; None: the table is on the disk.

    Raises:
        DataError: it cannot be read, or no column holds items.
        MissingExtraError: pyarrow is missing.
    """
    return records_of(replace(open_table(path), base=base), options, kind)


def open_table(path: Path) -> Table:
    """A table file: its columns, and how its rows are read.

    Raises:
        DataError: it cannot be read.
        MissingExtraError: pyarrow is missing.
    """
    ending = path.suffix.lower()
    name = readable(path.name)
    if ending in PARQUET:
        return _parquet(path, name)
    if ending in ARROW:
        return _arrow(path, name)
    if ending in JSON:
        return _json(path, name)
    return _text(path, name)


def records_of(table: Table, options: Mapping[str, str], kind: str | None = None) -> Records:
    """The rows of a table as records.

    Args:
        table: the table.
        options: roles of columns.
        kind: the kind that the user asked for; None: any.
    """
    given = {role: name for role, name in options.items() if role in specs.ROLES}
    probed = [r for r in itertools.islice(table.rows(), PROBED) if not isinstance(r, Skipped)]
    chosen = columns.choose(
        table.name, table.columns, [row for _, row in probed], given, kind=kind, types=table.types
    )
    notes = list(_of_columns(table.name, chosen))
    classes = table.classes.get(chosen.label or "", ())

    def records() -> Iterator[Record | Skipped]:
        for row in table.rows():
            yield row if isinstance(row, Skipped) else _record(table, chosen, classes, *row)

    key = None if table.key is None else f"{table.key}{sorted(given.items())}{chosen}"
    return Records(chosen.kind, key, records, table.root, tuple(classes), notes)


def of_frame(frame: Any) -> Table | None:
    """A pandas or polars frame, or a pyarrow table, as a table; None of another object."""
    module = type(frame).__module__.partition(".")[0]
    column: Callable[[Any], list[Any]]
    if module == "pyarrow" and hasattr(frame, "column_names"):
        names, column = list(frame.column_names), lambda n: list(frame.column(n).to_pylist())
    elif module == "polars" and hasattr(frame, "columns"):
        frame = frame.collect() if hasattr(frame, "collect") else frame
        names, column = list(frame.columns), lambda n: list(frame.get_column(n).to_list())
    elif hasattr(frame, "columns") and hasattr(frame, "iloc"):
        names, column = list(frame.columns), lambda n: list(frame[n].tolist())
    else:
        return None
    cells = {str(name): column(name) for name in names}
    length = len(next(iter(cells.values()), []))

    def rows() -> Iterator[tuple[int | str, Row]]:
        for i in range(length):
            yield i, {name: values[i] for name, values in cells.items()}

    return Table("the frame", list(cells), rows)


def _record(
    table: Table, chosen: Chosen, classes: Sequence[str], number: int | str, row: Row
) -> Record | Skipped:
    """One row as a record."""
    where = f"{table.name}:{number}"
    label = label_name(row.get(chosen.label), classes) if chosen.label else None
    split = split_name(row.get(chosen.split)) if chosen.split else None
    named = label_name(row.get(chosen.id)) if chosen.id else None
    if chosen.kind == "text":
        texts = tuple(" ".join(str(row.get(c) or "").split()) for c in chosen.content)
        if not all(texts):
            return Skipped(where, "empty: no sentence")
        return Record(named or str(number), texts, label, split)
    cell = row.get(chosen.content[0])
    if chosen.kind == "series" and not isinstance(cell, str | bytes | Mapping | None):
        return _numbers(where, named or f"{number}", cell, label, split)
    raw, path = columns.file_of(cell)
    if raw is not None:
        if len(raw) > LARGEST:
            return Skipped(where, f"too large: {len(raw):,} bytes")
        return Record(named or path or _padded(number), raw, label, split)
    if path is None or path != path or path == "nan":
        return Skipped(where, "empty: no path")
    url = remote.joined(table.base, path)
    if url is not None:
        own = remote.shown(path) if remote.is_url(path) else path
        return Record(named or own, Url(url), label, split, ending_of(own))
    return Record(path, Path(path), label, split)


def _numbers(
    where: str, name: str, cell: Any, label: str | None, split: str | None
) -> Record | Skipped:
    """A list of numbers (T,) or (T, C) as a record."""
    try:
        values = np.asarray(cell, np.float32)
    except (TypeError, ValueError):
        return Skipped(where, "not numbers: a list of numbers of one length is needed")
    if values.ndim not in (1, 2) or len(values) < 2:
        return Skipped(where, f"shape: {values.shape}, (steps,) or (steps, channels) are needed")
    return Record(name, values if values.ndim == 2 else values[:, None], label, split)


def _padded(number: int | str) -> str:
    return f"{number:06d}" if isinstance(number, int) else number


def _of_columns(name: str, chosen: Chosen) -> Iterator[Note]:
    used = {"label": chosen.label, "split": chosen.split, "id": chosen.id}
    words = ", ".join(f"{what} {column}" for what, column in used.items() if column)
    content = " and ".join(chosen.content)
    yield note(
        "columns used", f"columns of {name}: {content} ({chosen.kind})" + f"; {words}" * bool(words)
    )
    if chosen.unused:
        unused = [str(c) for c in chosen.unused]
        words = f"{counted(len(unused), 'column')} of {name} not used: {shown(unused)}"
        yield note("columns", words, count=len(unused), names=unused)


def _parquet(path: Path, name: str) -> Table:
    arrow = optional("pyarrow", "tables", *READERS)
    try:
        with open_regular(path) as file:
            schema = arrow.parquet.ParquetFile(file).schema_arrow
    except Exception as error:  # pyarrow raises many kinds on a damaged file
        raise DataError(f"{name} cannot be read as parquet: {reason(error)}") from error

    def rows() -> Iterator[tuple[int | str, Row]]:
        with open_regular(path) as file:
            batches = arrow.parquet.ParquetFile(file).iter_batches(batch_size=BATCH)
            yield from _rows_of_batches(name, batches)

    types, classes = _features(schema)
    return Table(name, schema.names, rows, types, classes, file_key(path), path.parent)


def _arrow(path: Path, name: str) -> Table:
    arrow = optional("pyarrow", "tables", *READERS)

    def batches(file: Any) -> Any:
        try:
            return arrow.ipc.open_stream(file)
        except arrow.ArrowInvalid:
            file.seek(0)
            found = arrow.ipc.open_file(file)
            return (found.get_batch(i) for i in range(found.num_record_batches))

    try:
        with open_regular(path) as file:
            try:
                schema = arrow.ipc.open_stream(file).schema
            except arrow.ArrowInvalid:
                file.seek(0)
                schema = arrow.ipc.open_file(file).schema
    except Exception as error:  # as above
        raise DataError(f"{name} cannot be read as an Arrow file: {reason(error)}") from error

    def rows() -> Iterator[tuple[int | str, Row]]:
        with open_regular(path) as file:
            yield from _rows_of_batches(name, batches(file))

    types, classes = _features(schema)
    return Table(name, schema.names, rows, types, classes, file_key(path), path.parent)


def _rows_of_batches(name: str, batches: Any) -> Iterator[tuple[int | str, Row]]:
    number = 0
    try:
        for batch in batches:
            for row in batch.to_pylist():
                yield number, row
                number += 1
    except DataError:
        raise
    except Exception as error:  # a damaged page
        raise DataError(f"{name} cannot be read after row {number:,}: {reason(error)}") from error


def _features(schema: Any) -> tuple[dict[str, str], dict[str, Sequence[str]]]:
    """Types and class names that Hugging Face writes into a schema."""
    try:
        stated = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return feature_types(stated)
    except (KeyError, TypeError, ValueError, AttributeError):
        return {}, {}


def feature_types(
    features: Mapping[str, Any],
) -> tuple[dict[str, str], dict[str, Sequence[str]]]:
    """Roles of columns by the types of Hugging Face, and the names of their classes.

    Args:
        features: column -> {"_type": "Image", ...}, as `Features.to_dict`.
    """
    roles = {"Image": "image", "Audio": "audio", "ClassLabel": "label"}
    types: dict[str, str] = {}
    classes: dict[str, Sequence[str]] = {}
    for column, about in features.items():
        if not isinstance(about, Mapping):
            continue
        kind = about.get("_type")
        if kind in roles:
            types[column] = roles[kind]
        elif kind == "Value" and about.get("dtype") in ("string", "large_string"):
            types[column] = "text"
        elif kind in ("Array2D",) or (
            kind in ("List", "Sequence", "LargeList") and _numeric(about.get("feature"))
        ):
            types[column] = "series"
        if kind == "ClassLabel":
            classes[column] = [str(n) for n in about.get("names") or ()]
    return types, classes


def _numeric(feature: Any) -> bool:
    while isinstance(feature, Mapping) and feature.get("_type") in ("List", "Sequence"):
        feature = feature.get("feature")
    return isinstance(feature, Mapping) and str(feature.get("dtype")).startswith("float")


def _json(path: Path, name: str) -> Table:
    try:
        text = decode_text(read_bytes(path))
    except (OSError, ValueError) as error:
        raise DataError(f"{name} cannot be read: {reason(error)}") from error
    rows: list[tuple[int | str, Row] | Skipped] = []
    whole = text.lstrip()
    if path.suffix.lower() == ".json" and whole.startswith("["):
        try:
            for i, row in enumerate(msgspec.json.decode(text)):
                rows.append((i, row) if isinstance(row, dict) else _no_object(name, i))
        except msgspec.DecodeError as error:
            raise DataError(f"{name} cannot be read as JSON: {error}") from error
    else:
        for number, line in enumerate(text.split("\n"), 1):
            if not line.strip():
                continue
            try:
                row = msgspec.json.decode(line)
            except msgspec.DecodeError as error:
                rows.append(Skipped(f"{name}:{number}", f"not JSON: {error}"))
                continue
            rows.append((number, row) if isinstance(row, dict) else _no_object(name, number))
    names = dict.fromkeys(str(c) for r in rows if not isinstance(r, Skipped) for c in r[1])
    if not names:
        first = next((r for r in rows if isinstance(r, Skipped)), None)
        words = f"; the first line: {first.reason}" if first else ""
        raise DataError(f"{name} holds no JSON objects with names of columns{words}")
    return Table(name, list(names), lambda: iter(rows), key=file_key(path), root=path.parent)


def _no_object(name: str, number: int) -> Skipped:
    return Skipped(f"{name}:{number}", "not JSON: an object with names of columns is needed")


def _text(path: Path, name: str) -> Table:
    """A CSV or TSV file; every cell stays as it is written."""
    arrow = optional("pyarrow", "tables", *READERS)
    try:
        text = decode_text(read_bytes(path))
    except (OSError, ValueError) as error:
        raise DataError(f"{name} cannot be read: {reason(error)}") from error
    first = text.split("\n", 1)[0].rstrip("\r")
    separator = max(("\t", ",", ";", "|"), key=first.count)
    heading = next(iter(cells_of([first], separator)), [])
    bad: dict[int, str] = {}

    def invalid(row: Any) -> str:
        bad[row.number] = f"cells: {row.actual_columns}, {row.expected_columns} are needed"
        return "skip"

    try:
        table = arrow.csv.read_csv(
            io.BytesIO(text.encode("utf-8", "replace")),
            read_options=arrow.csv.ReadOptions(use_threads=False),
            parse_options=arrow.csv.ParseOptions(
                delimiter=separator, newlines_in_values=True, invalid_row_handler=invalid
            ),
            convert_options=arrow.csv.ConvertOptions(
                column_types=dict.fromkeys(heading, arrow.string()), strings_can_be_null=False
            ),
        )
    except arrow.ArrowException as error:
        raise DataError(f"{name} cannot be read as a table: {reason(error)}") from error

    def rows() -> Iterator[tuple[int | str, Row] | Skipped]:
        number = 1  # of the heading
        for batch in table.to_batches():
            for row in batch.to_pylist():
                number += 1
                while number in bad:
                    yield Skipped(f"{name}:{number}", bad[number])
                    number += 1
                yield number, row
        yield from (Skipped(f"{name}:{n}", why) for n, why in bad.items() if n > number)

    return Table(name, table.column_names, rows, key=file_key(path), root=path.parent)
