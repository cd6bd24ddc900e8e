"""Data sets of Hugging Face: saved folders, `hf://user/name`, and objects of `datasets`."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..errors import DataError, MissingExtraError
from ..runtime.extras import optional
from .notes import note
from .opening import readable, reason
from .record_tables import Row, Table, feature_types, records_of
from .records import Records

SCHEME = "hf://"
STREAMED = 100_000  # items of a stream that are read
TIMEOUT = 10.0  # seconds in which the hub must answer


def saved(path: Path, options: Mapping[str, str], kind: str | None) -> Records:
    """A folder that `save_to_disk` wrote.

    Raises:
        DataError: it cannot be read.
    """
    try:
        found = optional("datasets", "datasets").load_from_disk(str(path))
    except MissingExtraError:
        raise
    except Exception as error:  # the package raises many kinds on a damaged folder
        raise DataError(f"{readable(str(path))} cannot be read: {reason(error)}") from error
    return records(found, options, kind, path.name)


def hub(name: str, options: Mapping[str, str], kind: str | None) -> Records:
    """A data set of the hub: `hf://user/name` or `hf://user/name/configuration`.

    The hub is asked once; code that comes with a data set is never run.

    Raises:
        DataError: it is not there, or the hub cannot be reached.
    """
    package = optional("datasets", "datasets")
    parts = name.removeprefix(SCHEME).strip("/").split("/")
    if not 2 <= len(parts) <= 3 or not all(parts):
        raise DataError(f"{name}: hf://user/name or hf://user/name/configuration is needed")
    try:
        from huggingface_hub import HfApi

        HfApi().dataset_info("/".join(parts[:2]), timeout=TIMEOUT)
        found = package.load_dataset("/".join(parts[:2]), *parts[2:])
    except Exception as error:  # of the network, of the hub, and of the package
        raise DataError(
            f"{name} cannot be read from the Hugging Face hub ({reason(error)}); on a machine with "
            "a network, save it: load_dataset(...).save_to_disk(FOLDER), and give --data FOLDER"
        ) from error
    return records(found, options, kind, name)


def records(
    found: Any, options: Mapping[str, str], kind: str | None = None, name: str = "the data set"
) -> Records:
    """The items of a `Dataset`, `DatasetDict`, `IterableDataset` or `IterableDatasetDict`.

    Args:
        found: the object.
        options: roles of columns.
        kind: the kind that the user asked for, None: any.
        name: for messages.
    """
    package = optional("datasets", "datasets")
    parts = dict(found) if isinstance(found, dict) else {"": found}
    if not parts:
        raise DataError(f"{name} has no splits")
    parts = {split: _undecoded(package, part) for split, part in parts.items()}
    first = next(iter(parts.values()))
    features = first.features
    names = list(features) if features else list(next(iter(first), {}))
    types, classes = feature_types(features.to_dict()) if features else ({}, {})
    several = isinstance(found, dict)
    column = "split" if several else None
    streamed = [isinstance(part, package.IterableDataset) for part in parts.values()]

    def rows() -> Iterator[tuple[int | str, Row]]:
        left = STREAMED
        for split, part in parts.items():
            items = itertools.islice(part, left) if any(streamed) else part
            for number, row in enumerate(items):
                left -= 1
                where = f"{split}/{number:06d}" if several else number
                yield where, ({**row, column: split} if column else row)

    key = None if any(streamed) else repr([(s, p._fingerprint) for s, p in parts.items()])
    columns = list(dict.fromkeys([*names, *([column] if column else [])]))
    table = Table(name, columns, rows, types, classes, key)
    opened = records_of(table, options, kind)
    if any(streamed):
        words = f"a stream: its first {STREAMED:,} items are read, or all where it has fewer"
        opened.notes.append(note("stream", words))
    return opened


def _undecoded(package: Any, part: Any) -> Any:
    """A data set whose images and sounds stay bytes: they are decoded by our readers alone."""
    part = part.with_format(None)
    for column, feature in (part.features or {}).items():
        if isinstance(feature, package.Image | package.Audio):
            part = part.cast_column(column, type(feature)(decode=False))
    return part
