"""Where tiles overtake the plain matrix: log-sum-exp of 256 queries, forward and backward, D = 128,
all cores.
"""

from __future__ import annotations

import torch
from common import alternate, median, write
from torch.nn import functional as F

from tellapart.functional import tiled


def main() -> None:
    """The bank is a constant and the queries get a gradient, as in InstDisc."""
    draw = torch.Generator().manual_seed(0)
    q = F.normalize(torch.randn(256, 128, generator=draw), dim=1).requires_grad_()
    table = {}
    for size in (512, 1024, 2048, 4096, 8192, 16384, 65536):
        k = F.normalize(torch.randn(size, 128, generator=draw), dim=1)

        def run(limit: int, k: torch.Tensor = k) -> None:
            tiled.DENSE_ELEMENTS = limit
            tiled.logsumexp(q, k, temperature=0.07).sum().backward()

        seconds = alternate(
            {"dense": lambda run=run: run(1 << 40), "tiled": lambda run=run: run(0)}, runs=15
        )
        table[f"S={size:,} ({256 * size:,} similarities)"] = {
            n: round(1e3 * median(s), 2) for n, s in seconds.items()
        }
    write("tiled_or_dense", {"unit": "ms", "threads": torch.get_num_threads()} | table)


if __name__ == "__main__":
    main()
