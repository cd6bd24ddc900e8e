"""Embeddings as Arrow tables and parquet files: a row for each item.

Columns: id (string), vector (fixed-size list of D float32), label, split, hash; unknown values are
null. A map adds x, y and neighbours, which embedding-atlas reads. The provenance stands in the
metadata of the schema.

Shapes: S items, D width, K neighbours.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..data.files import is_file
from ..errors import DataError
from ..runtime.extras import optional
from ..runtime.files import write
from .embeddings import Embeddings
from .neighbours import nearest_others

Array = np.ndarray[Any, Any]
KEY = b"tellapart"  # of the metadata
ROWS = 65_536  # rows of a chunk of an Arrow table
IDS = ("id", "ids", "path", "file", "file_name", "filename", "name", "key")
VECTORS = ("vector", "vectors", "embedding", "embeddings", "features", "feature", "emb")
LABELS = ("label", "labels", "class", "category")
BY_ROW = ("hashes", "splits")  # of the provenance, a column each
NEIGHBOURS = 15  # that a map stores


def to_arrow(items: Embeddings, more: Mapping[str, Any] | None = None) -> Any:
    """Return embeddings as a `pyarrow.Table`.

    Args:
        items: S items. A label becomes the name of its class where the provenance knows it.
        more: further columns of S values by name; an array (S, K) becomes a column of lists.

    Raises:
        MissingExtraError: pyarrow is not installed.
    """
    pa = optional("pyarrow", "tables")
    count, width = items.vectors.shape
    about = items.provenance
    chunks = [
        pa.FixedSizeListArray.from_arrays(
            pa.array(np.ascontiguousarray(items.vectors[s : s + ROWS]).reshape(-1)), width
        )
        for s in range(0, count, ROWS)
    ]
    vectors = pa.chunked_array(chunks, pa.list_(pa.float32(), width))
    columns = {
        "id": pa.array(items.ids, pa.string()),
        "vector": vectors,
        "label": _label_column(items),
        "split": pa.array(_by_row(about.get("splits"), count), pa.string()),
        "hash": pa.array(_by_row(about.get("hashes"), count), pa.string()),
    }
    columns |= {name: _column(values) for name, values in (more or {}).items()}
    by_row = [name for name in BY_ROW if about.get(name) and count % len(about[name]) == 0]
    kept = {name: value for name, value in about.items() if name not in by_row}
    facts = {
        "format": 1, "labelled": items.labels is not None, "provenance": kept,
        "rows": {name: len(about[name]) for name in by_row},
    }  # fmt: skip
    return pa.table(columns).replace_schema_metadata({KEY: json.dumps(facts).encode()})


def from_arrow(table: Any) -> Embeddings:
    """Return the embeddings of an Arrow table of `to_arrow`, or of any table with vectors.

    Args:
        table: a `pyarrow.Table`. Its column of vectors is named vector, embedding or features, or
            is the only column of lists of numbers. Ids, labels, splits and hashes are optional;
            labels may be names of classes.

    Raises:
        DataError: there is no column of vectors, or their widths differ.
        MissingExtraError: pyarrow is not installed.
    """
    pa = optional("pyarrow", "tables")
    names = {name.lower(): name for name in table.column_names}
    facts = _facts(table)
    vectors = _vectors(table.column(_vector_column(pa, table, names)))
    count = len(vectors)

    def values(known: Sequence[str]) -> list[Any] | None:
        name = next((names[n] for n in known if n in names), None)
        return None if name is None else table.column(name).to_pylist()

    ids = values(IDS)
    if ids is not None and None in ids:
        raise DataError(f"row {ids.index(None)} has no id")
    about = dict(facts.get("provenance", {}))
    for column, name in (("hash", "hashes"), ("split", "splits")):
        found = values((column,))
        if found is not None and any(v is not None for v in found):
            stored = facts.get("rows", {}).get(name) or count
            every = max(1, count // stored)  # the patches of an item share its hash and split
            about[name] = [None if v is None else str(v) for v in found[::every]]
    labels, classes = _labels(values(LABELS), about.get("classes"))
    if not facts.get("labelled", True):
        labels = None
    elif classes is not None:
        about["classes"] = classes
    return Embeddings(vectors, ids or [str(i) for i in range(count)], labels, about)


def from_pandas(frame: Any) -> Embeddings:
    """Return the embeddings of a `pandas.DataFrame`, with columns as in `from_arrow`.

    Args:
        frame: the data frame; an index with a name is a column like others.

    Raises:
        DataError: there is no column of vectors, or a column cannot be converted.
        MissingExtraError: pyarrow is not installed.
    """
    pa = optional("pyarrow", "tables")
    try:
        return from_arrow(pa.Table.from_pandas(frame))
    except (pa.ArrowException, TypeError) as error:
        raise DataError(f"the data frame has no Arrow form: {error}") from error


def save(items: Embeddings, path: Path, more: Mapping[str, Any] | None = None) -> None:
    """Write embeddings as a parquet file.

    Args:
        items: the embeddings.
        path: the file.
        more: further columns, as in `to_arrow`.

    Raises:
        DataError: the file cannot be written.
        MissingExtraError: pyarrow is not installed.
    """
    table = to_arrow(items, more)
    from pyarrow import parquet

    write(
        path,
        lambda file: parquet.write_table(table, file, row_group_size=ROWS),
        error=DataError,
    )


def load(path: Path) -> Embeddings:
    """Read embeddings from a parquet file.

    Args:
        path: a file of `save`, or any parquet file with a column of vectors.

    Raises:
        DataError: the file is missing or damaged, or holds no vectors.
        MissingExtraError: pyarrow is not installed.
    """
    pa = optional("pyarrow", "tables")
    from pyarrow import parquet

    if not is_file(path):
        raise DataError(f"{path} is no file")
    try:
        table = parquet.read_table(path, partitioning=None)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise DataError(f"{path} is not a parquet file that can be read: {error}") from error
    try:
        return from_arrow(table)
    except DataError as error:
        raise DataError(f"{path}: {error}") from error


def map_columns(items: Embeddings, points: Array) -> dict[str, Any]:
    """Return the columns x, y and neighbours of a map, as embedding-atlas reads them.

    Args:
        items: S items.
        points: (S, 2) places on the map.

    Returns:
        `neighbours` holds for each item {"ids": rows, "distances": 1 - cosine similarity}.
    """
    if len(items) < 2:
        raise DataError("a map needs 2 items or more")
    similarity, rows = nearest_others(items.vectors, NEIGHBOURS)
    near = [
        {"ids": ids, "distances": distances}
        for ids, distances in zip(
            rows.tolist(), (1 - similarity).clamp_min(0).tolist(), strict=True
        )
    ]
    return {"x": points[:, 0], "y": points[:, 1], "neighbours": near}


def _column(values: Any) -> Any:
    pa = optional("pyarrow", "tables")
    return pa.array(list(values) if getattr(values, "ndim", 1) > 1 else values)


def _by_row(values: Any, count: int) -> list[str | None]:
    """One value for each row; the patches of an item share its value."""
    if not values or count % len(values):
        return [None] * count
    return [value for value in values for _ in range(count // len(values))]


def _label_column(items: Embeddings) -> Any:
    pa = optional("pyarrow", "tables")
    labels, classes = items.labels, items.provenance.get("classes")
    if labels is None:
        return pa.nulls(len(items), pa.int64())
    if classes and int(labels.max(initial=-1)) < len(classes):
        return pa.array([classes[i] if i >= 0 else None for i in labels.tolist()], pa.string())
    return pa.array(labels, mask=labels < 0)


def _facts(table: Any) -> dict[str, Any]:
    """Return the metadata of `to_arrow`; {} for other tables and for damaged metadata."""
    try:
        found = json.loads((table.schema.metadata or {}).get(KEY, b"{}"))
    except ValueError:
        return {}
    if not isinstance(found, dict):
        return {}
    wanted = {"labelled": bool, "provenance": dict, "rows": dict}
    facts = {n: found[n] for n, kind in wanted.items() if isinstance(found.get(n), kind)}
    rows = facts.get("rows", {})
    facts["rows"] = {n: v for n, v in rows.items() if isinstance(v, int) and v > 0}
    return facts


def _vector_column(pa: Any, table: Any, names: Mapping[str, str]) -> str:
    """The name of the column of vectors."""
    lists = [
        str(field.name)
        for field in table.schema
        if pa.types.is_list(field.type)
        or pa.types.is_large_list(field.type)
        or pa.types.is_fixed_size_list(field.type)
    ]
    numeric = [
        name
        for name in lists
        if pa.types.is_floating(table.schema.field(name).type.value_type)
        or pa.types.is_integer(table.schema.field(name).type.value_type)
    ]
    usual = [names[name] for name in VECTORS if names.get(name) in numeric]
    if usual:
        return usual[0]
    if len(numeric) == 1:
        return numeric[0]
    raise DataError(
        f"a column named vector with lists of numbers is needed; the columns are: "
        f"{', '.join(table.column_names)}"
    )


def _vectors(column: Any) -> Array:
    """The vectors (S, D) float32 of a column of lists.

    Raises:
        DataError: a vector is missing, or the widths differ.
    """
    if column.null_count:
        raise DataError(f"{column.null_count:,} rows have no vector")
    parts = []
    for chunk in column.chunks:
        flat = np.asarray(chunk.flatten().to_numpy(zero_copy_only=False), np.float32)
        if len(chunk) and (len(flat) % len(chunk) or _ragged(chunk)):
            raise DataError("the vectors differ in width")
        if len(chunk):
            parts.append(flat.reshape(len(chunk), -1))
    if len({part.shape[1] for part in parts}) > 1:
        raise DataError("the vectors differ in width")
    return np.concatenate(parts) if parts else np.zeros((0, 0), np.float32)


def _ragged(chunk: Any) -> bool:
    lengths = chunk.value_lengths().to_numpy(zero_copy_only=False)
    return bool((lengths != lengths[0]).any())


def _is_whole(value: Any) -> bool:
    """Whether a label is a number; pandas makes floats of integers beside missing values."""
    if isinstance(value, float):
        return value.is_integer()
    return isinstance(value, int) and not isinstance(value, bool)


def _labels(values: list[Any] | None, classes: Any) -> tuple[Array | None, list[str] | None]:
    """Labels (S,) int64 with -1 for none, and the names of the classes, None for numbers."""
    if values is None or all(v is None for v in values):
        return (None if values is None else np.full(len(values), -1)), None
    if all(v is None or _is_whole(v) for v in values):
        return np.array([-1 if v is None else int(v) for v in values], np.int64), None
    texts = [None if v is None else str(v) for v in values]
    known = list(map(str, classes)) if isinstance(classes, list) else []
    if not {t for t in texts if t is not None} <= set(known):
        known = sorted({t for t in texts if t is not None})
    place = {name: i for i, name in enumerate(known)}
    return np.array([-1 if t is None else place[t] for t in texts], np.int64), known
