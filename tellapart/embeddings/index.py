"""Nearest-neighbour indexes: exact tiled search, and FAISS (an extra) with the same interface.

Shapes: S items, Q queries, K neighbours, D width.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..errors import DataError, require, unknown
from ..functional import top_k
from ..functional.geometry import unit_rows
from ..runtime.console import plural
from ..runtime.extras import optional
from ..runtime.files import replacing, write, write_json
from .choices import IndexKind as Kind
from .embeddings import Embeddings, check

Array = np.ndarray[Any, Any]
KINDS = ("exact", "flat", "hnsw", "ivf-pq")  # all but "exact" use FAISS
SAMPLE, NEIGHBOURS = 500, 10  # to measure the recall of an approximate index: queries, neighbours
LINKS, EFFORT = 32, 96  # hnsw: links per node, candidates kept in building and searching
PROBES = 32  # ivf-pq: cells visited by a search
TRAINED_PER_CELL = 64  # ivf-pq: training items per cell
ROWS = 1 << 18  # rows read at once


class Index:
    """An index for nearest-neighbour search by cosine similarity.

    Vectors of a saved folder stay memory-mapped; an exact search reads them in tiles.

    Args:
        embeddings: S items.
        kind: "exact" (needs no extra), or a FAISS index: "flat" (exact), "hnsw" (a graph: fast,
            needs more memory) or "ivf-pq" (product quantisation: little memory, approximate
            similarities).

    Attributes:
        embeddings: the items, one row each.
        recall: recall@10 of an approximate index, measured on up to 500 of its own items; 1 for
            exact indexes.

    Raises:
        ConfigError: there are no items, or the kind is unknown.
        MissingExtraError: FAISS is not installed.

    >>> index = Index(Embeddings(np.eye(3), "abc"))
    >>> similarity, row = index.search(np.array([[1.0, 0.1, 0.0]]), k=2)
    >>> row
    array([[0, 1]])
    >>> index.remove(["a"])
    >>> [index.embeddings.ids[r] for r in index.search(np.array([[1.0, 0.1, 0.0]]), k=1)[1][0]]
    ['b']
    """

    def __init__(self, embeddings: Embeddings, *, kind: Kind = "exact") -> None:
        require(len(embeddings) > 0, "an index needs one item or more")
        if kind not in KINDS:
            raise unknown("index", kind, KINDS)
        self.kind: Kind = kind
        self.recall = 1.0
        self._hold(embeddings, _inverse_lengths(embeddings.vectors))
        self._build()

    def __len__(self) -> int:
        return len(self.embeddings)

    def search(self, vectors: Any, k: int) -> tuple[Array, Array]:
        """Find the k items nearest to each query, most similar first.

        Args:
            vectors: (Q, D) queries.
            k: neighbours of each query, 1 to S.

        Returns:
            Cosine similarity (Q, K) float32 in [-1, 1] and row (Q, K) int64. If an approximate
            index finds fewer than k items, the remaining entries are -inf and -1.

        Raises:
            ConfigError: k is outside 1..S, or the width differs.
            DataError: a value is not finite.
        """
        queries = torch.from_numpy(np.array(vectors, np.float32))
        width = self.embeddings.vectors.shape[1]
        require(
            queries.ndim == 2 and queries.shape[1] == width,
            f"vectors (Q, {width}), got {tuple(queries.shape)}",
        )
        require(1 <= k <= len(self), f"k must lie in 1..{len(self)} (the number of items), got {k}")
        if not bool(queries.isfinite().all()):
            raise DataError("a vector to search for holds a value that is not finite")
        queries = unit_rows(queries)
        if self._faiss is None:
            value, place = top_k.top_k(queries, self._rows, k, scale=self._scale)
            return value.clamp(-1, 1).numpy(), place.numpy()
        similarity, number = self._faiss.search(queries.numpy(), k)
        row = np.where(number < 0, -1, np.searchsorted(self._numbers, number))
        return np.where(number < 0, -np.inf, np.clip(similarity, -1, 1)).astype(np.float32), row

    # changes

    def add(self, items: Embeddings) -> None:
        """Add items with new ids.

        Args:
            items: of the same width as the index.

        Raises:
            ConfigError: the width differs.
            DataError: an id is already in the index.
        """
        width = self.embeddings.vectors.shape[1]
        require(
            items.vectors.shape[1] == width,
            f"vectors of width {width}, got {items.vectors.shape[1]}",
        )
        known = set(self.embeddings.ids)
        if here := [i for i in items.ids if i in known]:
            raise DataError(
                f"{plural(len(here), 'id')} already in the index, the first: {here[0]!r}; "
                "update replaces them"
            )
        scale = torch.cat([self._scale, _inverse_lengths(items.vectors)])
        numbers = (
            self._numbers[-1] + 1 + np.arange(len(items)) if len(self) else np.arange(len(items))
        )
        self._hold(_joined(self.embeddings, items), scale, np.concatenate([self._numbers, numbers]))
        if self._faiss is not None:
            self._faiss.add_with_ids(
                unit_rows(torch.from_numpy(np.array(items.vectors))).numpy(), numbers
            )

    def remove(self, ids: Collection[str]) -> None:
        """Remove items; an hnsw index is rebuilt, which takes as long as building it.

        Args:
            ids: of the items to remove.

        Raises:
            DataError: an id is not in the index.
            ConfigError: the index would be empty.
        """
        gone = self._places(ids)
        kept = np.delete(np.arange(len(self)), gone)
        require(len(kept) > 0, "an index needs one item or more")
        numbers = self._numbers[gone]
        self._hold(self.embeddings.take(kept), self._scale[kept], self._numbers[kept])
        if self.kind == "hnsw":
            self._build()
        elif self._faiss is not None:
            self._faiss.remove_ids(numbers)

    def update(self, items: Embeddings) -> None:
        """Replace items whose ids are in the index and add the others.

        Args:
            items: of the same width as the index. Replaced items move to the end.
        """
        known = set(self.embeddings.ids)
        old = [i for i in items.ids if i in known]
        if set(old) == known:  # every old item is replaced
            self._hold(items, _inverse_lengths(items.vectors))
            self._build()
            return
        if old:
            self.remove(old)
        self.add(items)

    def _places(self, ids: Collection[str]) -> Array:
        wanted = set(ids)
        if lost := sorted(wanted - set(self.embeddings.ids)):
            raise DataError(f"{plural(len(lost), 'id')} not in the index, the first: {lost[0]!r}")
        return np.array(
            [row for row, name in enumerate(self.embeddings.ids) if name in wanted], np.int64
        )

    # files

    def save(self, path: str | Path) -> None:
        """Save the embeddings and the index in a folder; each file is written atomically.

        Args:
            path: the folder.

        Raises:
            DataError: the folder cannot be written.
        """
        folder = Path(path)
        self.embeddings.save(folder)
        about = {
            "format": 1,
            "kind": self.kind,
            "recall": self.recall,
            "check": check(self.embeddings.vectors),
        }
        write(folder / "scale.npy", lambda out: np.save(out, self._scale.numpy()), error=DataError)
        if self._faiss is not None:
            try:
                with replacing(folder / "index.faiss", error=DataError) as work:
                    optional("faiss", "index").write_index(self._faiss, str(work))
            except RuntimeError as error:  # FAISS raises it on a full disk
                raise DataError(f"cannot write {folder / 'index.faiss'}: {error}") from error
            numbers = folder / "numbers.npy"
            write(numbers, lambda out: np.save(out, self._numbers), error=DataError)
        write_json(folder / "index.json", about, error=DataError)

    @classmethod
    def load(cls, path: str | Path) -> Index:
        """Load a saved index with memory-mapped vectors.

        Args:
            path: a folder written by `save`, or a folder of embeddings, which gives an exact index.

        Raises:
            DataError: the folder is missing or damaged, or its files do not match (an earlier save
                was interrupted).
        """
        folder = Path(path)
        embeddings = Embeddings.load(folder)
        if not (folder / "index.json").is_file():
            return cls(embeddings)
        try:
            about = json.loads((folder / "index.json").read_text())
            if about["format"] != 1 or about["kind"] not in KINDS:
                raise DataError(f"{folder} is an index of another version")
            if about["check"] != check(embeddings.vectors):
                raise DataError(
                    f"{folder}: index files do not match (an earlier save was interrupted); "
                    "rebuild it"
                )
            scale = torch.from_numpy(np.load(folder / "scale.npy"))
            made = cls.__new__(cls)
            made.kind, made.recall, made._faiss = about["kind"], float(about["recall"]), None
            numbers = None
            if made.kind != "exact":
                numbers = np.load(folder / "numbers.npy")
                made._faiss = optional("faiss", "index").read_index(str(folder / "index.faiss"))
            if len(scale) != len(embeddings) or (
                numbers is not None and len(numbers) != len(embeddings)
            ):
                raise DataError(
                    f"{folder}: index files do not match (an earlier save was interrupted); "
                    "rebuild it"
                )
        except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
            if isinstance(error, DataError):
                raise
            raise DataError(f"{folder} does not hold an index: {error}") from error
        made._hold(embeddings, scale, numbers)
        return made

    # internals

    def _hold(
        self, embeddings: Embeddings, scale: torch.Tensor, numbers: Array | None = None
    ) -> None:
        """Set the items, the inverse norms of their vectors and their FAISS ids, never reused."""
        self.embeddings, self._scale = embeddings, scale
        self._numbers = np.arange(len(embeddings)) if numbers is None else numbers
        self._rows = mapped(embeddings.vectors)

    def _build(self) -> None:
        """Build the FAISS index of all items and measure its recall."""
        self._faiss: Any = None
        if self.kind == "exact":
            return
        made = _empty(self.kind, len(self), self.embeddings.vectors.shape[1])
        if not made.is_trained:
            size = max(TRAINED_PER_CELL * _cells(len(self)), 256)
            seeded = np.random.default_rng(0).permutation(len(self))[:size]
            made.train(self._unit(np.sort(seeded)))
        for start in range(0, len(self), ROWS):
            part = np.arange(start, min(start + ROWS, len(self)))
            made.add_with_ids(self._unit(part), self._numbers[part])
        self._faiss = made
        self.recall = self._measured_recall()

    def _unit(self, rows: Array) -> Array:
        made: Array = (self._rows[rows] * self._scale[rows, None]).numpy()
        return made

    def _measured_recall(self) -> float:
        rows = np.sort(np.random.default_rng(1).permutation(len(self))[:SAMPLE])
        queries, k = self._unit(rows), min(NEIGHBOURS, len(self))
        _, exact = top_k.top_k(torch.from_numpy(queries), self._rows, k, scale=self._scale)
        _, found = self.search(queries, k)
        shared = [len(set(a) & set(b)) for a, b in zip(exact.tolist(), found.tolist(), strict=True)]
        return sum(shared) / (k * len(rows))


def mapped(vectors: Array) -> torch.Tensor:
    """Return a tensor that shares the memory of an array, which may be a read-only memory map."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writ")
        return torch.from_numpy(vectors)


def _inverse_lengths(vectors: Array) -> torch.Tensor:
    """Return 1 / norm of each vector (S,), and 0 for zero vectors, so that they match nothing."""
    lengths = torch.cat(
        [mapped(vectors[s : s + ROWS]).norm(dim=1) for s in range(0, len(vectors), ROWS)]
    )
    return torch.where(lengths > 0, 1 / lengths.clamp_min(1e-12), 0.0)


def _joined(a: Embeddings, b: Embeddings) -> Embeddings:
    labels = None
    if a.labels is not None or b.labels is not None:
        labels = np.concatenate(
            [np.full(len(e), -1) if e.labels is None else e.labels for e in (a, b)]
        )
    return Embeddings(
        np.concatenate([a.vectors, b.vectors]), [*a.ids, *b.ids], labels, a.provenance
    )


def _cells(count: int) -> int:
    """Number of ivf-pq cells: 4 sqrt(items), at most 4,096, with at least 39 items per cell."""
    return max(1, min(4096, round(4 * math.sqrt(count)), count // 39))


def _empty(kind: str, count: int, width: int) -> Any:
    faiss = optional("faiss", "index")
    inner = faiss.METRIC_INNER_PRODUCT
    if kind == "flat":
        return faiss.IndexIDMap2(faiss.IndexFlatIP(width))
    if kind == "hnsw":
        graph = faiss.IndexHNSWFlat(width, LINKS, inner)
        graph.hnsw.efConstruction = graph.hnsw.efSearch = EFFORT
        return faiss.IndexIDMap2(graph)
    codes = max(m for m in range(1, width // 2 + 1 if width > 1 else 2) if width % m == 0)
    require(
        count >= 256,
        f"ivf-pq learns its codes from 256 items or more, there are {count}; use hnsw or exact",
    )
    made = faiss.IndexIVFPQ(faiss.IndexFlatIP(width), width, _cells(count), codes, 8, inner)
    made.nprobe, made.cp.seed, made.pq.cp.seed = PROBES, 0, 0
    return made
