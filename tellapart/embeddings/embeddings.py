"""Embeddings: vectors with ids, labels and provenance, the input of every evaluator.

Shapes: S items, D width (of features or of the embedding).
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..data import Source
from ..data.opening import is_file, reason
from ..encoders import AnyEncoder
from ..encoders.inference import Output, outputs
from ..errors import DataError
from ..runtime.extras import optional
from ..runtime.files import write

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, init=False)
class Embeddings:
    """Vectors with ids, labels and provenance.

    Attributes:
        vectors: (S, D) float32, finite.
        ids: S ids.
        labels: (S,) int64, -1 = no label; None: the data have no labels.
        provenance: plain values that say how the vectors were made.

    Raises:
        DataError: lengths differ, values are not finite, or labels are not integers.

    >>> e = Embeddings(torch.eye(2), ["a", "b"], [0, 1])
    >>> e.vectors.shape, e.labels.tolist()
    ((2, 2), [0, 1])
    """

    vectors: Array
    ids: list[str]
    labels: Array | None
    provenance: dict[str, Any] = field(default_factory=dict)

    def __init__(
        self,
        vectors: Any,
        ids: Sequence[str],
        labels: Any = None,
        provenance: dict[str, Any] | None = None,
    ) -> None:
        if isinstance(vectors, torch.Tensor):
            vectors = vectors.detach().cpu().float().numpy()
        vectors = np.asanyarray(vectors)
        if vectors.ndim != 2 or len(vectors) != len(ids) or not vectors.shape[1]:
            raise DataError(
                f"vectors (S, D) and S ids are needed, got {vectors.shape} and {len(ids)} ids"
            )
        if vectors.dtype != np.float32:
            vectors = _float32(vectors)
        if not isinstance(vectors, np.memmap) and not np.isfinite(vectors).all():
            bad = int((~np.isfinite(vectors).all(1)).argmax())
            raise DataError(f"the vector of {ids[bad]} holds a value that is not finite")
        object.__setattr__(self, "vectors", vectors)
        object.__setattr__(self, "ids", list(map(str, ids)))
        object.__setattr__(self, "labels", _labels(labels, len(ids)))
        object.__setattr__(self, "provenance", dict(provenance or {}))

    def __len__(self) -> int:
        return len(self.vectors)

    def take(self, rows: Array) -> Embeddings:
        """Return some items, in the given order.

        Args:
            rows: (M,) indices of items, each in 0..S - 1.
        """
        labels = None if self.labels is None else self.labels[rows]
        return Embeddings(self.vectors[rows], [self.ids[i] for i in rows], labels, self.provenance)

    def at_most(self, count: int) -> Embeddings:
        """Return at most `count` items, drawn with a fixed seed and kept in their order.

        A random draw is used because taking every n-th item could miss whole classes.

        Args:
            count: largest number of items, 1 or more.
        """
        if len(self) <= count:
            return self
        return self.take(np.sort(np.random.default_rng(0).choice(len(self), count, replace=False)))

    def labelled(self) -> Embeddings:
        """Return the items that have a label.

        Raises:
            DataError: no item has a label.
        """
        if self.labels is None or not (self.labels >= 0).any():
            raise DataError("none of these items has a label")
        return self if (self.labels >= 0).all() else self.take(np.flatnonzero(self.labels >= 0))

    @property
    def known_labels(self) -> Array:
        """The labels (S,).

        Raises:
            DataError: the data have no labels.
        """
        if self.labels is None:
            raise DataError("these items have no labels")
        return self.labels

    def save(self, path: str | Path) -> None:
        """Save the embeddings.

        Args:
            path: an .npz or .parquet file, or a folder, whose vectors.npy can be memory-mapped.

        Raises:
            DataError: the path has no name or an unknown ending, or cannot be written.
            MissingExtraError: parquet, without pyarrow.
        """
        require_writable(path)
        path = Path(path)
        if path.suffix == ".parquet":
            from .arrow import save

            save(self, path)
            return
        labels = np.full(len(self), -1) if self.labels is None else self.labels
        about = json.dumps(
            {"format": 1, "labelled": self.labels is not None, "provenance": self.provenance}
        )
        items: dict[str, Any] = {"ids": np.array(self.ids), "labels": labels, "about": about}
        if path.suffix == ".npz":
            items |= {"vectors": self.vectors}
            write(path, lambda file: np.savez(file, **items), error=DataError)
        else:
            items |= {"check": check(self.vectors)}
            vectors = path / "vectors.npy"
            write(vectors, lambda file: np.save(file, self.vectors), error=DataError)
            write(path / "items.npz", lambda file: np.savez(file, **items), error=DataError)

    @classmethod
    def load(cls, path: str | Path) -> Embeddings:
        """Load saved embeddings; the vectors of a folder are memory-mapped.

        Args:
            path: a file or folder written by `save`, a folder of shards, any .npz with `vectors`
                and, optionally, `labels` and `ids`, or any .parquet with a column of vectors.

        Raises:
            DataError: the file is missing, damaged, or holds no embeddings.
            MissingExtraError: parquet, without pyarrow.
        """
        path = Path(path)
        if path.suffix == ".parquet":
            from .arrow import load

            return load(path)
        if is_file(path / "plan.json"):
            from .shards import Shards

            return Shards(path).load()
        try:
            with np.load(
                path / "items.npz" if path.is_dir() else path, allow_pickle=False
            ) as items:
                if not path.is_dir() and "vectors" not in items:
                    raise DataError(
                        f"does not hold embeddings: it has no array named vectors, only "
                        f"{', '.join(map(repr, items.files)) or 'nothing'}"
                    )
                about: dict[str, Any] = {"labelled": "labels" in items}
                about |= json.loads(str(items["about"])) if "about" in items else {}
                vectors = (
                    np.load(path / "vectors.npy", mmap_mode="r")
                    if path.is_dir()
                    else items["vectors"]
                )
                labels = items["labels"] if about["labelled"] else None
                ids = (
                    items["ids"].tolist()
                    if "ids" in items
                    else [str(i) for i in range(len(vectors))]
                )
                if "check" in items and int(items["check"]) != check(vectors):
                    raise DataError(
                        "vectors and ids do not match (an earlier save was interrupted); "
                        "embed again"
                    )
                return cls(vectors, ids, labels, about.get("provenance"))
        except DataError as error:
            raise DataError(f"{path}: {error}") from error
        except Exception as error:  # NumPy and zipfile raise many kinds on a damaged file
            raise DataError(f"{path} does not hold embeddings: {reason(error)}") from error

    def to_arrow(self) -> Any:
        """Return a `pyarrow.Table` with the columns id, vector, label, split and hash.

        Raises:
            MissingExtraError: pyarrow is not installed.
        """
        from .arrow import to_arrow

        return to_arrow(self)

    @classmethod
    def from_arrow(cls, table: Any) -> Embeddings:
        """Return the embeddings of a `pyarrow.Table` with a column of vectors.

        Args:
            table: with a column vector (or embedding, features) of lists of numbers; the columns
                id, label, split and hash are optional.

        Raises:
            DataError: there is no column of vectors.
            MissingExtraError: pyarrow is not installed.
        """
        from .arrow import from_arrow

        return from_arrow(table)

    def to_pandas(self) -> Any:
        """Return a `pandas.DataFrame` with the columns of `to_arrow`.

        Raises:
            MissingExtraError: pandas or pyarrow is not installed.
        """
        optional("pandas", "tables")
        return self.to_arrow().to_pandas()

    @classmethod
    def from_pandas(cls, frame: Any) -> Embeddings:
        """Return the embeddings of a `pandas.DataFrame`, with columns as in `from_arrow`.

        Args:
            frame: the data frame.

        Raises:
            DataError: there is no column of vectors.
            MissingExtraError: pandas or pyarrow is not installed.
        """
        optional("pandas", "tables")
        from .arrow import from_pandas

        return from_pandas(frame)


def require_writable(path: str | Path) -> None:
    """Raise DataError unless embeddings can be written under this name.

    Args:
        path: an .npz or .parquet file, an existing folder, or a name without a file's ending. An
            ending starts with a letter, so that v1.5 names a folder.
    """
    given, path = str(path), Path(path)
    if not path.name:
        raise DataError(f"cannot write {given!r}: the name of a file or folder is needed")
    ending = path.suffix
    if ending in (".npz", ".parquet") or path.is_dir() or given.endswith("/"):
        return
    if len(ending) > 1 and ending[1].isalpha():
        raise DataError(
            f"cannot write {given}: vectors are written as .npz, as .parquet, or as a folder (a "
            f"name without an ending), not as {ending}"
        )


def embed(
    encoder: AnyEncoder,
    source: Source,
    *,
    output: Output = "features",
    progress: Callable[[int], None] | None = None,
) -> Embeddings:
    """Embed every item of a source with the evaluation view, in row order.

    Args:
        encoder: a trained encoder.
        source: S items.
        output: "features" (the backbone's output, F wide) or "embedding" (the normalised output of
            the projection head, D wide).
        progress: called with the number of items embedded so far.
    """
    return embed_both(encoder, source, (output,), progress=progress)[output]


def embed_both(
    encoder: AnyEncoder,
    source: Source,
    wanted: tuple[Output, ...] = ("features", "embedding"),
    *,
    progress: Callable[[int], None] | None = None,
) -> dict[Output, Embeddings]:
    """Compute several outputs in one pass over the source.

    Args:
        encoder: a trained encoder.
        source: S items.
        wanted: the outputs, as in `embed`.
        progress: called with the number of items embedded so far.

    Returns:
        The embeddings of each output, by name.
    """
    about = {"data": source.name, "fingerprint": source.fingerprint}
    found = outputs(encoder, source, wanted, progress=progress)
    return {
        name: Embeddings(v, source.ids, source.labels, about | {"output": name})
        for name, v in found.items()
    }


def check(vectors: Array) -> int:
    """Return a CRC-32 checksum of the shape and up to 256 evenly spaced rows."""
    rows = np.unique(np.linspace(0, max(0, len(vectors) - 1), 256).astype(np.int64))[: len(vectors)]
    return zlib.crc32(np.ascontiguousarray(vectors[rows]).tobytes() + str(vectors.shape).encode())


def _float32(vectors: Array) -> Array:
    """Vectors of another type as float32; a value that float32 cannot hold becomes infinite.

    Raises:
        DataError: they are no real numbers.
    """
    if vectors.dtype.kind not in "fiub":
        raise DataError(f"vectors are real numbers, got {vectors.dtype}")
    with np.errstate(over="ignore"):
        return vectors.astype(np.float32)


def _labels(labels: Any, count: int) -> Array | None:
    """Labels as int64.

    Raises:
        DataError: not one whole number of -1 to 2^63 - 1 for each of `count` items.
    """
    if labels is None:
        return None
    array = (
        labels.detach().cpu().numpy() if isinstance(labels, torch.Tensor) else np.asarray(labels)
    )
    if array.shape != (count,):
        raise DataError(f"{count} labels are needed, got an array of shape {array.shape}")
    if array.dtype.kind not in "iuf" or (
        array.dtype.kind == "f" and not (np.isfinite(array) & (array == np.floor(array))).all()
    ):
        raise DataError("labels must be integers (-1 = none)")
    if count and (int(array.max()) >= 2**63 or array.min() < -1):
        wrong = array.max() if int(array.max()) >= 2**63 else array.min()
        raise DataError(f"labels must be integers from 0 to 2^63 - 1 (-1 = none), got {wrong}")
    return array.astype(np.int64)
