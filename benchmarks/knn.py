"""Exact nearest neighbours, 10,000 queries x 60,000 rows x 128, k = 200: ours against faiss-cpu's
flat index.

The same cores for both. `pip install 'tellapart[bench]'`.
"""

from __future__ import annotations

import faiss
import torch
from common import alternate, median, write
from torch.nn import functional as F

from tellapart.functional import top_k


def main() -> None:
    """All cores; recall against faiss is part of the row."""
    draw = torch.Generator().manual_seed(0)
    queries = F.normalize(torch.randn(10_000, 128, generator=draw), dim=1)
    rows = F.normalize(torch.randn(60_000, 128, generator=draw), dim=1)
    index = faiss.IndexFlatIP(128)
    index.add(rows.numpy())
    seconds = alternate(
        {
            "ours": lambda: top_k.top_k(queries, rows, 200),
            "faiss": lambda: index.search(queries.numpy(), 200),
        },
        runs=5,
        warmup=1,
    )
    same = (
        top_k.top_k(queries, rows, 200)[1].sort(1).values
        == torch.from_numpy(index.search(queries.numpy(), 200)[1]).sort(1).values
    )
    a, b = median(seconds["ours"]), median(seconds["faiss"])
    write(
        "knn",
        {
            "ours, s": round(a, 2),
            "faiss-cpu flat, s": round(b, 2),
            "ratio (faiss / ours)": round(b / a, 2),
            "same neighbours": round(float(same.float().mean()), 5),
            "threads": torch.get_num_threads(),
        },
    )


if __name__ == "__main__":
    main()
