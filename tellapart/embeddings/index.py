"""Nearest neighbours among embeddings: exact search in tiles; FAISS, an extra, behind the same `search`.

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

from ..errors import DataError, MissingExtraError, require, unknown
from ..functional import top_k
from ..functional.geometry import unit_rows
from ..runtime.files import replacing, write, write_json
from .choices import IndexKind as Kind
from .embeddings import Embeddings, check

Array = np.ndarray[Any, Any]
KINDS = ("exact", "flat", "hnsw", "ivf-pq")  # all but the first are FAISS's
SAMPLE, NEIGHBOURS = 500, 10  # of the recall of an approximate index
LINKS, EFFORT = 32, 96  # of hnsw: links of a node, candidates kept while building and searching
PROBES = 32  # of ivf-pq: cells that a search looks into
TRAINED_PER_CELL = 64  # of ivf-pq: items that the cells are learned from
ROWS = 1 << 18  # read at once


class Index:
    """Search by cosine similarity.

    Vectors of a saved folder stay memory-mapped: an exact search reads them in tiles and holds none of them.

    Args:
        embeddings: S items.
        kind: "exact" (no extra), or of FAISS "flat" (exact too), "hnsw" (a graph: fast, more memory) or "ivf-pq"
            (cells and codes: little memory, approximate similarities).
    Attributes:
        embeddings: the items, a row each. recall: of an approximate index, the share of the exact 10 nearest that it
            finds for 500 of its own items; 1 for exact ones.
    Raises:
        ConfigError: no items, an unknown kind. MissingExtraError: FAISS is not installed.

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
        """The k items nearest to each vector, best first.

        Args:
            vectors: (Q, D). k: 1 to S.
        Returns:
            similarity (Q, K) float32 in [-1, 1], row (Q, K) int64. Where an approximate index finds fewer than k,
            similarity is -inf and row -1.
        Raises:
            ConfigError: k outside 1..S, or another width. DataError: values that are not finite.
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

    # changes ---------------------------------------------------------------------------------------------

    def add(self, items: Embeddings) -> None:
        """Add items whose ids are new.

        Raises:
            ConfigError: another width. DataError: an id that is here already.
        """
        width = self.embeddings.vectors.shape[1]
        require(
            items.vectors.shape[1] == width,
            f"vectors of width {width}, got {items.vectors.shape[1]}",
        )
        known = set(self.embeddings.ids)
        if here := [i for i in items.ids if i in known]:
            raise DataError(
                f"{len(here)} id(s) are in the index already, the first: {here[0]!r}; update replaces them"
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
        """Take items out; a graph (hnsw) is built again, which takes as long as the first time.

        Raises:
            DataError: an id that is not here. ConfigError: nothing would be left.
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
        """Replace the items of the same ids and add the others; replaced ones move to the end."""
        known = set(self.embeddings.ids)
        old = [i for i in items.ids if i in known]
        if set(old) == known:  # nothing of what was here stays
            self._hold(items, _inverse_lengths(items.vectors))
            self._build()
            return
        if old:
            self.remove(old)
        self.add(items)

    def _places(self, ids: Collection[str]) -> Array:
        wanted = set(ids)
        if lost := sorted(wanted - set(self.embeddings.ids)):
            raise DataError(f"{len(lost)} id(s) are not in the index, the first: {lost[0]!r}")
        return np.array(
            [row for row, name in enumerate(self.embeddings.ids) if name in wanted], np.int64
        )

    # files -----------------------------------------------------------------------------------------------

    def save(self, path: str | Path) -> None:
        """Write a folder: the embeddings, and beside them what a search needs. Each file appears whole or not at all.

        Raises:
            DataError: it cannot be written.
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
                    _faiss().write_index(self._faiss, str(work))
            except RuntimeError as error:  # FAISS reports a full disk so
                raise DataError(f"cannot write {folder / 'index.faiss'}: {error}") from error
            numbers = folder / "numbers.npy"
            write(numbers, lambda out: np.save(out, self._numbers), error=DataError)
        write_json(folder / "index.json", about, error=DataError)

    @classmethod
    def load(cls, path: str | Path) -> Index:
        """Read what `save` wrote, its vectors memory-mapped; of a folder of embeddings alone the exact index.

        Raises:
            DataError: missing, damaged, or not matching (an earlier save was interrupted).
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
                    f"{folder} holds an index of other vectors: a save was cut off; build it again"
                )
            scale = torch.from_numpy(np.load(folder / "scale.npy"))
            made = cls.__new__(cls)
            made.kind, made.recall, made._faiss = about["kind"], float(about["recall"]), None
            numbers = None
            if made.kind != "exact":
                numbers = np.load(folder / "numbers.npy")
                made._faiss = _faiss().read_index(str(folder / "index.faiss"))
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

    # parts -----------------------------------------------------------------------------------------------

    def _hold(
        self, embeddings: Embeddings, scale: torch.Tensor, numbers: Array | None = None
    ) -> None:
        """Items, the inverse lengths of their vectors, and the number by which FAISS knows each (they never repeat)."""
        self.embeddings, self._scale = embeddings, scale
        self._numbers = np.arange(len(embeddings)) if numbers is None else numbers
        self._rows = mapped(embeddings.vectors)

    def _build(self) -> None:
        """The FAISS index of all items, and its recall."""
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
    """The vectors as a tensor over the same memory, which may be a read-only map: it is only read."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writ")
        return torch.from_numpy(vectors)


def _inverse_lengths(vectors: Array) -> torch.Tensor:
    """(S,) 1 / length, and 0 for a vector of zeros, which is like nothing."""
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
    """Of ivf-pq: about four times the square root of the number of items, and few where there are few."""
    return max(1, min(4096, round(4 * math.sqrt(count)), count // 39))


def _empty(kind: str, count: int, width: int) -> Any:
    faiss = _faiss()
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


def _faiss() -> Any:
    try:
        import faiss
    except ImportError as error:
        raise MissingExtraError("faiss", "index") from error
    return faiss
