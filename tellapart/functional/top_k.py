"""The rows of largest inner product with each query: exact, and a tile at a time.

Shapes: N queries, S rows, D width, K neighbours.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import require
from .tiled import same_precision

COLUMNS, ELEMENTS = 1 << 16, 1 << 26  # of a tile: 1,024 queries x 65,536 rows, 268 MB
DEPTH = 8  # members of a group of columns


def top_k(q: Tensor, rows: Tensor, k: int, *, scale: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Find the k rows of largest inner product with each query, exactly.

    Selecting costs more than the products. The columns of a tile are therefore dealt into groups:
    the k largest values can only lie in the k groups of largest maximum (any other group has k
    values above all of its own), so the selection runs over k small groups.

    Args:
        q: (N, D) queries.
        rows: (S, D), any float type.
        k: 1 to S.
        scale: (S,) factor of each row's products; 1 / its length gives cosines without a copy of
            the rows.

    Returns:
        Similarity (N, K) float32 or float64, row (N, K) int64, best first; the order of ties is
        not defined.

    Raises:
        ConfigError: k outside 1..S.

    >>> rows = torch.eye(3)
    >>> top_k(torch.tensor([[0.1, 0.9, 0.5]]), rows, 2)[1]
    tensor([[1, 2]])
    """
    require(1 <= k <= len(rows), f"k must lie in 1..{len(rows)} (the number of rows), got {k}")
    q, _ = same_precision(q, rows)
    columns = min(len(rows), max(64 * k, COLUMNS))
    height = max(1, min(len(q), ELEMENTS // columns))
    room = q.new_empty(
        height, columns
    )  # one tile, written over and over: fresh pages cost as much as the products
    results = [
        _top_k_of_queries(part, rows, k, room[: len(part)], scale) for part in q.split(height)
    ]
    return torch.cat([s for s, _ in results]), torch.cat([r for _, r in results])


def top_k_of_others(rows: Tensor, k: int, of: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Find the k nearest other rows of every row: as `top_k`, without the row itself.

    Args:
        rows: (S, D).
        k: 1 to S - 1.
        of: (N,) int64, the rows whose neighbours are wanted; None: all.

    Returns:
        Similarity (N, K), row (N, K), best first.

    Raises:
        ConfigError: k outside 1..S - 1.

    >>> top_k_of_others(torch.eye(2), 1)[1]
    tensor([[1],
            [0]])
    """
    require(
        1 <= k < len(rows), f"k must lie in 1..{len(rows) - 1} (one less than the points), got {k}"
    )
    of = torch.arange(len(rows), device=rows.device) if of is None else of
    similarity, row = top_k(rows[of], rows, k + 1)
    other = row != of[:, None]
    other[other.all(1), -1] = (
        False  # crowded out by exact copies of itself: drop the farthest instead
    )
    return similarity[other].view(len(of), k), row[other].view(len(of), k)


def _top_k_of_queries(
    q: Tensor, rows: Tensor, k: int, room: Tensor, scale: Tensor | None
) -> tuple[Tensor, Tensor]:
    best = q.new_empty(len(q), 0), q.new_empty(len(q), 0, dtype=torch.int64)
    for start in range(0, len(rows), room.shape[1]):
        part = rows[start : start + room.shape[1]].to(q.dtype)
        s = torch.mm(q, part.T, out=room) if len(part) == room.shape[1] else q @ part.T
        if scale is not None:
            s *= scale[start : start + len(part)]
        value, column = _grouped_top_k(s, min(k, s.shape[1]))
        value, column = torch.cat([best[0], value], 1), torch.cat([best[1], column + start], 1)
        if start:
            value, keep = value.topk(min(k, value.shape[1]))
            column = column.gather(1, keep)
        best = value, column
    return best


def _grouped_top_k(s: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """topk over the columns of s (N, M), through the maxima of groups of every G-th column."""
    n, m = s.shape
    groups = m // DEPTH
    if groups < 2 * k:
        value, column = s.topk(k)
        return value, column
    dealt = s[:, : groups * DEPTH].view(n, DEPTH, groups)
    winners = dealt.amax(1).topk(k, sorted=False).indices  # (N, K) groups
    members = (torch.arange(DEPTH, device=s.device) * groups)[None, :, None] + winners[:, None, :]
    candidates = members.reshape(n, DEPTH * k)
    if groups * DEPTH < m:  # columns that do not fill a group are searched beside them
        rest = torch.arange(groups * DEPTH, m, device=s.device).expand(n, -1)
        candidates = torch.cat([candidates, rest], 1)
    value, place = s.gather(1, candidates).topk(k)
    return value, candidates.gather(1, place)
