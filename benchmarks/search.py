"""Search over a million vectors of 128: exact a query in batches of 32, opening the folder, and
FAISS's indexes.

`pip install 'tellapart[bench]'`. All cores. The approximate rows are of 100,000 vectors: a graph of
a million takes many minutes to build. Vectors lie in 1,000 clusters, as embeddings do.
"""

from __future__ import annotations

import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any, get_args

import faiss
import numpy as np
import torch
from common import alternate, median, write

from tellapart import Embeddings, Index
from tellapart.embeddings.index import Kind

WIDTH, BATCH, K = 128, 32, 10


def clustered(count: int, seed: int) -> np.ndarray[Any, Any]:
    """Unit rows around 1,000 centres."""
    draw = torch.Generator().manual_seed(seed)
    centres = torch.randn(1000, WIDTH, generator=torch.Generator().manual_seed(9))
    rows = centres[torch.randint(0, 1000, (count,), generator=draw)] + torch.randn(
        count, WIDTH, generator=draw
    )
    return torch.nn.functional.normalize(rows, dim=1).numpy()


def million(folder: Path) -> dict[str, Any]:
    """Exact search and opening."""
    vectors, queries = clustered(1_000_000, 0), clustered(BATCH, 1)
    Index(Embeddings(vectors, [f"image-{i:07d}.jpg" for i in range(len(vectors))])).save(folder)
    opened = []
    for _ in range(5):
        began = time.perf_counter()
        index = Index.load(folder)
        opened.append(time.perf_counter() - began)
    flat = faiss.IndexFlatIP(WIDTH)
    flat.add(vectors)
    seconds = alternate(
        {"ours": lambda: index.search(queries, K), "faiss": lambda: flat.search(queries, K)}, runs=9
    )
    same = (np.sort(index.search(queries, K)[1]) == np.sort(flat.search(queries, K)[1])).mean()
    ours, theirs = (1000 * median(seconds[n]) / BATCH for n in ("ours", "faiss"))
    return {
        "items": len(index),
        "exact, ms a query in batches of 32": round(ours, 2),
        "faiss-cpu flat, ms a query": round(theirs, 2),
        "same neighbours": float(same),
        "opening the folder, s": round(median(opened), 2),
        "threads": torch.get_num_threads(),
    }


def kinds() -> dict[str, Any]:
    """Every kind of index over 100,000 vectors."""
    items, queries = (
        Embeddings(clustered(100_000, 2), list(map(str, range(100_000)))),
        clustered(BATCH, 3),
    )
    found: dict[str, Any] = {}
    for kind in get_args(Kind):
        began = time.perf_counter()
        index = Index(items, kind=kind)
        built = time.perf_counter() - began
        seconds = alternate({kind: partial(index.search, queries, K)}, runs=9)[kind]
        found[kind] = {
            "ms a query": round(1000 * median(seconds) / BATCH, 3),
            "recall of the exact 10": round(index.recall, 4),
            "built in, s": round(built, 1),
        }
    return found


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        write("search", {"a million": million(Path(folder) / "index"), "100,000": kinds()})
