"""Exact log-sum-exp and top-k over inner products with many rows, in flat memory, on any device.

Neither ever holds the (N, S) matrix of similarities: a tile of it is made, used and forgotten.
Shapes: N queries, S rows, D width, K neighbours.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .errors import require

# Up to here the plain matrix is as fast: benchmarks/tiled_or_dense.py.
DENSE_ELEMENTS = 1 << 17
# A tile of similarities that stays in a core's cache on a CPU, and fills an accelerator.
TILE_ELEMENTS = {"cpu": 1 << 18, "cuda": 1 << 26}
TOP_K_COLUMNS, TOP_K_ELEMENTS = 1 << 16, 1 << 26  # of a tile of top_k: 1,024 queries x 65,536 rows, 268 MB
DEPTH = 8  # members of a group of columns in top_k


def logsumexp(q: Tensor, k: Tensor, *, temperature: float) -> Tensor:
    """log sum_j exp(q_i . k_j / temperature) for every query, differentiable in q and k.

    One pass over k keeps a running maximum and a running sum; when q needs a gradient the same pass also
    accumulates sum_j p_ij k_j, which *is* the gradient, so nothing is recomputed for a bank that is a
    constant. The gradient to k recomputes one tile at a time.

    Args:
        q: (N, D) queries. k: (S, D) rows; half precision is accumulated in float32, float64 is kept.
        temperature: > 0.
    Returns:
        (N,) in nats. All rows equal to all queries, unit length: 1 / temperature + ln S.
    Raises:
        ConfigError: temperature <= 0, shapes that do not match, or no rows.
    Source: the online softmax of Milakov & Gimelshein 2018 (arXiv 1805.02867).

    >>> z = torch.nn.functional.normalize(torch.ones(4, 8), dim=1)
    >>> logsumexp(z, z, temperature=0.5)   # 2 + ln 4
    tensor([3.3863, 3.3863, 3.3863, 3.3863])
    """
    check_temperature(temperature)
    require(
        q.ndim == 2 and k.ndim == 2 and q.shape[1] == k.shape[1] and len(k) > 0,
        f"queries (N, D) and rows (S, D), S > 0, are needed; got {tuple(q.shape)} and {tuple(k.shape)}",
    )
    q, k = _same_precision(q, k)
    with torch.autocast(q.device.type, enabled=False):
        if len(q) * len(k) <= DENSE_ELEMENTS:
            return torch.logsumexp(q / temperature @ k.to(q.dtype).T, dim=1)
        result: Tensor = _TiledLogSumExp.apply(q, k, temperature)
        return result


def top_k(q: Tensor, rows: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k rows of largest inner product with each query: exact, best first, ties in no promised order.

    The cost of a plain search is not the products but the selection. Here the columns of a tile are dealt
    into groups; the k largest values can only lie in the k groups of largest maximum (any other group has k
    values above all of its own), so the selection runs over k small groups instead of all columns.

    Args:
        q: (N, D). rows: (S, D), any float type. k: 1 to S.
    Returns:
        similarity (N, K) float32 or float64, row (N, K) int64.
    Raises:
        ConfigError: k outside 1..S.

    >>> rows = torch.eye(3)
    >>> top_k(torch.tensor([[0.1, 0.9, 0.5]]), rows, 2)[1]
    tensor([[1, 2]])
    """
    require(1 <= k <= len(rows), f"k must lie in 1..{len(rows)} (the number of rows), got {k}")
    q, _ = _same_precision(q, rows)
    columns = min(len(rows), max(64 * k, TOP_K_COLUMNS))
    height = max(1, min(len(q), TOP_K_ELEMENTS // columns))
    room = q.new_empty(height, columns)  # one tile, written over and over: fresh pages cost as much as the products
    found = [_top_k_of_queries(part, rows, k, room[: len(part)]) for part in q.split(height)]
    return torch.cat([s for s, _ in found]), torch.cat([r for _, r in found])


def check_temperature(temperature: float) -> None:
    """Raise ConfigError unless temperature is a finite number above 0."""
    require(0 < temperature < float("inf"), f"temperature must be above 0, got {temperature}")


def _same_precision(q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
    """Half-precision queries as float32; rows keep their storage type and are converted tile by tile."""
    if q.dtype in (torch.float16, torch.bfloat16):
        q = q.float()
    return q, k.to(q.dtype) if k.requires_grad else k


class _TiledLogSumExp(torch.autograd.Function):
    @staticmethod
    def forward(ctx, q: Tensor, k: Tensor, temperature: float) -> Tensor:  # type: ignore[no-untyped-def]
        scaled = q / temperature
        top = q.new_full((len(q),), float("-inf"))
        total = q.new_zeros(len(q))
        mean = torch.zeros_like(q) if ctx.needs_input_grad[0] else None
        for tile in k.split(_tile_width(q)):
            tile = tile.to(q.dtype)
            s = scaled @ tile.T
            new_top = torch.maximum(top, s.amax(1))
            shrink = (top - new_top).exp_()
            p = s.sub_(new_top[:, None]).exp_()
            total.mul_(shrink).add_(p.sum(1))
            if mean is not None:
                mean.mul_(shrink[:, None]).addmm_(p, tile)
            top = new_top
        value = top + total.log()
        ctx.temperature = temperature
        ctx.save_for_backward(q, k, value, None if mean is None else mean.div_(total[:, None]))
        return value

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):  # type: ignore[no-untyped-def]
        q, k, value, mean = ctx.saved_tensors
        grad_q = None if mean is None else mean * (grad / ctx.temperature)[:, None]
        grad_k = None
        if ctx.needs_input_grad[1]:
            scaled, weighted = q / ctx.temperature, q * (grad / ctx.temperature)[:, None]
            tiles = [
                (scaled @ tile.to(q.dtype).T).sub_(value[:, None]).exp_().T @ weighted
                for tile in k.split(_tile_width(q))
            ]
            grad_k = torch.cat(tiles).to(k.dtype)
        return grad_q, grad_k, None


def _tile_width(q: Tensor) -> int:
    """Rows of a tile: enough that its (N, width) similarities fill the budget of the device."""
    elements = TILE_ELEMENTS.get(q.device.type, TILE_ELEMENTS["cuda"])
    return max(64, elements // max(1, len(q)))


def _top_k_of_queries(q: Tensor, rows: Tensor, k: int, room: Tensor) -> tuple[Tensor, Tensor]:
    best = q.new_empty(len(q), 0), q.new_empty(len(q), 0, dtype=torch.int64)
    for start in range(0, len(rows), room.shape[1]):
        part = rows[start : start + room.shape[1]].to(q.dtype)
        s = torch.mm(q, part.T, out=room) if len(part) == room.shape[1] else q @ part.T
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
