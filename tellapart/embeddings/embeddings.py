"""Embeddings: vectors with ids, labels and where they came from; the only thing evaluators ever see.

Shapes: S items, D width (of features or of the embedding).
"""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..data import Source
from ..encoders import AnyEncoder
from ..encoders.inference import Output, outputs
from ..errors import DataError
from ..runtime.files import write

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, init=False)
class Embeddings:
    """Vectors (S, D) float32, ids (S,), labels (S,) int64 with -1 = none, and provenance (a dict of plain values).

    Raises:
        DataError: lengths that differ, values that are not finite, labels that are not integers.

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
        if vectors.dtype != np.float32:
            vectors = vectors.astype(np.float32)
        if vectors.ndim != 2 or len(vectors) != len(ids):
            raise DataError(
                f"vectors (S, D) and S ids are needed, got {vectors.shape} and {len(ids)} ids"
            )
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
        """The items at `rows`."""
        labels = None if self.labels is None else self.labels[rows]
        return Embeddings(self.vectors[rows], [self.ids[i] for i in rows], labels, self.provenance)

    def at_most(self, count: int) -> Embeddings:
        """All items, or `count` of them by a seeded draw, in their order (every n-th could miss whole classes)."""
        if len(self) <= count:
            return self
        return self.take(np.sort(np.random.default_rng(0).choice(len(self), count, replace=False)))

    def labelled(self) -> Embeddings:
        """The items that have a label.

        Raises:
            DataError: there are none.
        """
        if self.labels is None or not (self.labels >= 0).any():
            raise DataError("none of these items has a label")
        return self if (self.labels >= 0).all() else self.take(np.flatnonzero(self.labels >= 0))

    @property
    def known_labels(self) -> Array:
        """The labels (S,).

        Raises:
            DataError: there are none.
        """
        if self.labels is None:
            raise DataError("these items have no labels")
        return self.labels

    def save(self, path: str | Path) -> None:
        """Write `path`: an .npz file, or else a folder whose vectors.npy can be memory-mapped."""
        path = Path(path)
        if not path.name:
            raise DataError(f"cannot write {str(path)!r}: the name of a file or folder is needed")
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
        """Read what `save` wrote, or an .npz of `vectors` with `labels` and `ids` or not; a folder is memory-mapped.

        Raises:
            DataError: missing, damaged, or not embeddings.
        """
        path = Path(path)
        try:
            with np.load(
                path / "items.npz" if path.is_dir() else path, allow_pickle=False
            ) as items:
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
                        f"{path} holds items of other vectors: a save was cut off; embed again"
                    )
                return cls(vectors, ids, labels, about.get("provenance"))
        except DataError:
            raise
        except (OSError, ValueError, KeyError, EOFError, TypeError, zipfile.BadZipFile) as error:
            raise DataError(f"{path} does not hold embeddings: {error}") from error


def embed(
    encoder: AnyEncoder,
    source: Source,
    *,
    output: Output = "features",
    progress: Callable[[int], None] | None = None,
) -> Embeddings:
    """Embed every item of a source with the evaluation view, in the order of its rows.

    Args:
        output: "features" (F wide, what users take away) or "embedding" (D wide unit rows, the space of the loss).
    """
    return embed_both(encoder, source, (output,), progress=progress)[output]


def embed_both(
    encoder: AnyEncoder,
    source: Source,
    wanted: tuple[Output, ...] = ("features", "embedding"),
    *,
    progress: Callable[[int], None] | None = None,
) -> dict[Output, Embeddings]:
    """As `embed`, several outputs in one pass over the source."""
    about = {"data": source.name, "fingerprint": source.fingerprint}
    found = outputs(encoder, source, wanted, progress=progress)
    return {
        name: Embeddings(v, source.ids, source.labels, about | {"output": name})
        for name, v in found.items()
    }


def check(vectors: Array) -> int:
    """A number that tells these vectors from others, by up to 256 rows spread over them."""
    rows = np.unique(np.linspace(0, max(0, len(vectors) - 1), 256).astype(np.int64))[: len(vectors)]
    return zlib.crc32(np.ascontiguousarray(vectors[rows]).tobytes() + str(vectors.shape).encode())


def _labels(labels: Any, count: int) -> Array | None:
    if labels is None:
        return None
    array = (
        labels.detach().cpu().numpy() if isinstance(labels, torch.Tensor) else np.asarray(labels)
    )
    if array.shape != (count,):
        raise DataError(f"{count} labels are needed, got an array of shape {array.shape}")
    if not np.issubdtype(array.dtype, np.integer):
        whole = (
            array.astype(np.int64)
            if np.issubdtype(array.dtype, np.floating) and np.isfinite(array).all()
            else None
        )
        if whole is None or (whole != array).any():
            raise DataError("labels must be integers (-1 = none)")
        array = whole
    return array.astype(np.int64)
