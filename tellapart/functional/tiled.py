"""Exact log-sum-exp over inner products with many rows, in flat memory, on any device.

The (N, S) matrix of similarities is never held: a tile of it is made, used and forgotten, and made again in the
backward pass. The tiled passes are operators of torch's library, so that `torch.compile` keeps them whole.
Shapes: N queries, S rows, D width.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from ..errors import require

# Up to here the plain matrix is as fast: benchmarks/tiled_or_dense.py.
DENSE_ELEMENTS = 1 << 17
# A tile of similarities that stays in a core's cache on a CPU, and fills an accelerator.
TILE_ELEMENTS = {"cpu": 1 << 18, "cuda": 1 << 26}
SQUARE = {"cpu": 512, "cuda": 4096}  # side of a tile of the symmetric form
SAFE_EXPONENT = 40.0  # exp(-2 x 40) is a normal float32: up to here one shift serves every row
NOTHING = float("-inf")


def logsumexp(
    q: Tensor,
    k: Tensor,
    *,
    temperature: float,
    exclude_self: bool = False,
    labels: Tensor | None = None,
) -> Tensor:
    """log sum_j exp(q_i . k_j / temperature) for every query, differentiable in q and k.

    One pass over k keeps a running maximum and a running sum; when q needs a gradient the same pass also
    accumulates sum_j p_ij k_j, which *is* the gradient, so nothing is recomputed for a bank that is a
    constant. The gradient to k recomputes one tile at a time. In the in-batch case (`k is q`) the matrix is
    symmetric and only half of its tiles are made. The plain matrix is used up to `DENSE_ELEMENTS`
    similarities, where it is as fast.

    Args:
        q: (N, D) queries. k: (S, D) rows; half precision is accumulated in float32, float64 is kept.
        temperature: > 0.
        exclude_self: query i *is* row i of k (S >= N) and is left out of its own sum.
        labels: (S,) int64; query i is row i of k, and only rows with its label are summed.
    Returns:
        (N,) in nats, -inf (with gradient 0) for an empty sum. All rows and queries equal, unit length:
        1 / temperature + ln S, or ln (S - 1) with `exclude_self`.
    Raises:
        ConfigError: temperature <= 0, shapes that do not match, or no rows.
    Source: the online softmax of Milakov & Gimelshein 2018 (arXiv 1805.02867).

    >>> z = torch.nn.functional.normalize(torch.ones(4, 8), dim=1)
    >>> logsumexp(z, z, temperature=0.5)   # 2 + ln 4
    tensor([3.3863, 3.3863, 3.3863, 3.3863])
    >>> logsumexp(z, z, temperature=0.5, exclude_self=True, labels=torch.tensor([0, 0, 1, 1]))   # 2 + ln 1
    tensor([2.0000, 2.0000, 2.0000, 2.0000])
    """
    check_temperature(temperature)
    same = k is q
    q, k = _checked(q, k, aligned=exclude_self or labels is not None, labels=labels)
    with torch.autocast(q.device.type, enabled=False):
        if len(q) * len(k) <= DENSE_ELEMENTS:
            return _dense(q, q if same else k, temperature, exclude_self, labels)
        if same and _one_shift_serves(q, temperature):
            value: Tensor = _symmetric(q, temperature, exclude_self, labels)
        else:
            wanted = torch.is_grad_enabled() and q.requires_grad
            value, _ = _tiled(q, k, temperature, exclude_self, labels, wanted)
        return value


def repulsion(q: Tensor, k: Tensor, log_z: Tensor, skip: Tensor, *, temperature: float) -> Tensor:
    """-sum_j log(1 - P_ij) with P_ij = exp(q_i . k_j / temperature - log_z_i), in flat memory.

    What pushes apart in the invariant-and-spreading loss: j is mistaken for i with probability P_ij.

    Args:
        q: (N, D). k: (S, D). log_z: (N,) normaliser of each query.
        skip: (N, E) int64, the columns left out of each sum (the query itself, its positive).
    Returns:
        (N,), differentiable in q, k and log_z. All P_ij = 1/S, one column skipped:
        (S - 1) ln(S / (S - 1)). P is held below 1 by the rounding unit, so that no sum is infinite; there, for rows
        that are copies of each other at a temperature of a few hundredths, the gradient in float32 is only rough.
    Source: Ye et al. 2019 (arXiv 1904.03436), eq. 5-6.
    """
    check_temperature(temperature)
    q, k = _checked(q, k, aligned=False, labels=None)
    with torch.autocast(q.device.type, enabled=False):
        if len(q) * len(k) <= DENSE_ELEMENTS:
            logp = (q @ k.to(q.dtype).T / temperature - log_z[:, None]).clamp_max(
                -torch.finfo(q.dtype).eps
            )
            return -torch.log(-torch.expm1(logp)).scatter(1, skip, 0.0).sum(1)
        wanted = torch.is_grad_enabled() and (q.requires_grad or log_z.requires_grad)
        value: Tensor = _repulsion(q, k, log_z, skip, temperature, wanted)[0]
        return value


def check_temperature(temperature: float) -> None:
    """Raise ConfigError unless temperature is a finite number above 0."""
    require(0 < temperature < float("inf"), f"temperature must be above 0, got {temperature}")


def same_precision(q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
    """Half-precision queries as float32; constant rows keep their storage type and are converted tile by tile."""
    if q.dtype in (torch.float16, torch.bfloat16):
        q = q.float()
    return q, k.to(q.dtype) if k.requires_grad else k


def _checked(
    q: Tensor, k: Tensor, *, aligned: bool, labels: Tensor | None
) -> tuple[Tensor, Tensor]:
    require(
        q.ndim == 2 and k.ndim == 2 and q.shape[1] == k.shape[1] and len(k) > 0,
        f"queries (N, D) and rows (S, D), S > 0, are needed; got {tuple(q.shape)} and {tuple(k.shape)}",
    )
    require(
        not aligned or len(k) >= len(q), f"query i must be row i: {len(q)} queries, {len(k)} rows"
    )
    require(
        labels is None or labels.shape == (len(k),),
        f"a label per row is needed: {len(k)} rows, labels {None if labels is None else tuple(labels.shape)}",
    )
    return same_precision(q, k)


def _one_shift_serves(q: Tensor, temperature: float) -> bool:
    """Whether exp(s - bound), bound the largest |q|^2 / temperature, is a normal number for every pair."""
    if torch.compiler.is_compiling():
        return False  # the values are not at hand
    return float(q.detach().square().sum(1).amax()) / temperature <= SAFE_EXPONENT


def _dense(
    q: Tensor, k: Tensor, temperature: float, exclude_self: bool, labels: Tensor | None
) -> Tensor:
    s = q / temperature @ k.to(q.dtype).T
    hidden = None
    if exclude_self:
        hidden = torch.eye(*s.shape, dtype=torch.bool, device=s.device)
    if labels is not None:
        other = labels[: len(q), None] != labels
        hidden = other if hidden is None else hidden | other
    if hidden is None:
        return torch.logsumexp(s, dim=1)
    empty = hidden.all(1)  # the gradient of an empty sum would be 0/0
    value = torch.logsumexp(s.masked_fill(hidden & ~empty[:, None], NOTHING), dim=1)
    return value.masked_fill(empty, NOTHING)


# any rows ---------------------------------------------------------------------------------------------------


@torch.library.custom_op("tellapart::logsumexp", mutates_args=())
def _tiled(
    q: Tensor,
    k: Tensor,
    temperature: float,
    exclude_self: bool,
    labels: Tensor | None,
    with_mean: bool,
) -> tuple[Tensor, Tensor]:
    """The values (N,), and the mean row sum_j p_ij k_j (N, D) where asked (else empty)."""
    scaled = q / temperature
    top = q.new_full((len(q),), NOTHING)
    total = q.new_zeros(len(q))
    mean = torch.zeros_like(q) if with_mean else q.new_empty(0)
    for start, tile in _tiles(q, k):
        s = _hidden(scaled @ tile.T, start, exclude_self, labels)
        new_top = torch.maximum(top, s.amax(1))
        safe = new_top.clamp_min(
            torch.finfo(q.dtype).min
        )  # an empty sum so far: -inf less -inf is no number
        shrink = (top - safe).exp_()
        p = s.sub_(safe[:, None]).exp_()
        total.mul_(shrink).add_(p.sum(1))
        if with_mean:
            mean.mul_(shrink[:, None]).addmm_(p, tile)
        top = new_top
    if with_mean:
        mean.div_(total.clamp_min(torch.finfo(q.dtype).tiny)[:, None])
    return torch.where(total == 0, NOTHING, top + total.log()), mean


@torch.library.custom_op("tellapart::logsumexp_rows", mutates_args=())
def _tiled_rows(
    q: Tensor,
    k: Tensor,
    value: Tensor,
    grad: Tensor,
    temperature: float,
    exclude_self: bool,
    labels: Tensor | None,
) -> Tensor:
    """The gradient to the rows k (S, D)."""
    scaled, weighted = q / temperature, q * (grad / temperature)[:, None]
    parts = [
        _hidden((scaled @ tile.T).sub_(value[:, None]), start, exclude_self, labels).exp_().T
        @ weighted
        for start, tile in _tiles(q, k)
    ]
    return torch.cat(parts).to(k.dtype)


@_tiled.register_fake
def _(q: Any, k: Any, temperature: Any, exclude_self: Any, labels: Any, with_mean: Any) -> Any:
    return q.new_empty(q.shape[0]), torch.empty_like(q) if with_mean else q.new_empty(0)


@_tiled_rows.register_fake
def _(
    q: Any, k: Any, value: Any, grad: Any, temperature: Any, exclude_self: Any, labels: Any
) -> Any:
    return torch.empty_like(k)


def _tiled_setup(ctx: Any, inputs: Any, output: Any) -> None:
    q, k, ctx.temperature, ctx.exclude_self, labels, _ = inputs
    ctx.save_for_backward(q, k, labels, *output)


def _first_derivative(q: Tensor) -> torch.autocast:
    """A backward pass in full precision, whatever the autocast around it; it has no derivative of its own."""
    if torch.is_grad_enabled():
        raise NotImplementedError(
            f"second derivatives (create_graph) exist up to {DENSE_ELEMENTS:,} similarities"
        )
    return torch.autocast(q.device.type, enabled=False)


def _tiled_backward(ctx: Any, grad: Any, _: Any) -> Any:
    q, k, labels, value, mean = ctx.saved_tensors
    grad = grad.masked_fill(value == NOTHING, 0.0)
    grad_k = None
    with _first_derivative(q):
        grad_q = mean * (grad / ctx.temperature)[:, None] if ctx.needs_input_grad[0] else None
        if ctx.needs_input_grad[1]:
            value = value.masked_fill(value == NOTHING, 0.0)
            grad_k = _tiled_rows(q, k, value, grad, ctx.temperature, ctx.exclude_self, labels)
    return grad_q, grad_k, None, None, None, None


_tiled.register_autograd(_tiled_backward, setup_context=_tiled_setup)


# the in-batch case: half of a symmetric matrix --------------------------------------------------------------


@torch.library.custom_op("tellapart::logsumexp_symmetric", mutates_args=())
def _symmetric(q: Tensor, temperature: float, exclude_self: bool, labels: Tensor | None) -> Tensor:
    """The values (N,) of q with itself, shifted by one bound of all similarities."""
    shift = _shift(q, temperature)
    total = q.new_zeros(len(q))
    for a, b, e in _squares(q, temperature, shift, exclude_self, labels):
        total[a] += e.sum(1)
        if a != b:
            total[b] += e.sum(0)
    return shift + total.log()


@torch.library.custom_op("tellapart::logsumexp_symmetric_rows", mutates_args=())
def _symmetric_rows(
    q: Tensor,
    value: Tensor,
    grad: Tensor,
    temperature: float,
    exclude_self: bool,
    labels: Tensor | None,
) -> Tensor:
    """The gradient (N, D): a pair (i, j) counts in the sum of i, weighted g_i p_ij, and in that of j, g_j p_ji.

    p_ij = e_ij exp(shift - value_i) with the same e_ij both ways: one exponential serves the pair.
    """
    shift = _shift(q, temperature)
    weight = torch.where(value == NOTHING, 0.0, grad * (shift - value).exp()) / temperature
    out = torch.zeros_like(q)
    for a, b, e in _squares(q, temperature, shift, exclude_self, labels):
        e.mul_(weight[a, None] + weight[None, b])
        out[a].addmm_(e, q[b])
        if a != b:
            out[b].addmm_(e.T, q[a])
    return out


@_symmetric.register_fake
def _(q: Any, temperature: Any, exclude_self: Any, labels: Any) -> Any:
    return q.new_empty(q.shape[0])


@_symmetric_rows.register_fake
def _(q: Any, value: Any, grad: Any, temperature: Any, exclude_self: Any, labels: Any) -> Any:
    return torch.empty_like(q)


def _symmetric_setup(ctx: Any, inputs: Any, output: Any) -> None:
    q, ctx.temperature, ctx.exclude_self, labels = inputs
    ctx.save_for_backward(q, labels, output)


def _symmetric_backward(ctx: Any, grad: Any) -> Any:
    q, labels, value = ctx.saved_tensors
    with _first_derivative(q):
        return (
            _symmetric_rows(q, value, grad, ctx.temperature, ctx.exclude_self, labels),
            None,
            None,
            None,
        )


_symmetric.register_autograd(_symmetric_backward, setup_context=_symmetric_setup)


# the repulsion of the invariant-and-spreading loss ----------------------------------------------------------


@torch.library.custom_op("tellapart::repulsion", mutates_args=())
def _repulsion(
    q: Tensor, k: Tensor, log_z: Tensor, skip: Tensor, temperature: float, with_grad: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """The values (N,); where asked also sum_j r_ij (N,) and sum_j r_ij k_j (N, D), r = P / (1 - P)."""
    scaled = q / temperature
    value, weight = q.new_zeros(len(q)), q.new_zeros(len(q))
    mean = torch.zeros_like(q) if with_grad else q.new_empty(0)
    for start, tile in _tiles(q, k):
        logp = (scaled @ tile.T).sub_(log_z[:, None]).clamp_max_(-torch.finfo(q.dtype).eps)
        rest = _skipped(torch.expm1(logp).neg_(), start, skip, 1.0)  # 1 - P, and 1 where left out
        value.sub_(rest.log().sum(1))
        if with_grad:
            odds = rest.reciprocal().sub_(1)  # P / (1 - P), 0 where left out
            weight.add_(odds.sum(1))
            mean.addmm_(odds, tile)
    return value, weight, mean


@torch.library.custom_op("tellapart::repulsion_rows", mutates_args=())
def _repulsion_rows(
    q: Tensor, k: Tensor, log_z: Tensor, skip: Tensor, grad: Tensor, temperature: float
) -> Tensor:
    """The gradient to the rows k (S, D)."""
    scaled, weighted = q / temperature, q * (grad / temperature)[:, None]
    parts = []
    for start, tile in _tiles(q, k):
        logp = (scaled @ tile.T).sub_(log_z[:, None]).clamp_max_(-torch.finfo(q.dtype).eps)
        rest = _skipped(torch.expm1(logp).neg_(), start, skip, 1.0)
        parts.append(rest.reciprocal_().sub_(1).T @ weighted)
    return torch.cat(parts).to(k.dtype)


@_repulsion.register_fake
def _(q: Any, k: Any, log_z: Any, skip: Any, temperature: Any, with_grad: Any) -> Any:
    return (
        torch.empty_like(log_z),
        torch.empty_like(log_z),
        torch.empty_like(q) if with_grad else q.new_empty(0),
    )


@_repulsion_rows.register_fake
def _(q: Any, k: Any, log_z: Any, skip: Any, grad: Any, temperature: Any) -> Any:
    return torch.empty_like(k)


def _repulsion_setup(ctx: Any, inputs: Any, output: Any) -> None:
    q, k, log_z, skip, ctx.temperature, _ = inputs
    _, weight, mean = output
    ctx.save_for_backward(q, k, log_z, skip, weight, mean)


def _repulsion_backward(ctx: Any, grad: Any, _weight: Any, _mean: Any) -> Any:
    q, k, log_z, skip, weight, mean = ctx.saved_tensors
    grad_k = None
    with _first_derivative(q):
        grad_q = mean * (grad / ctx.temperature)[:, None] if ctx.needs_input_grad[0] else None
        if ctx.needs_input_grad[1]:
            grad_k = _repulsion_rows(q, k, log_z, skip, grad, ctx.temperature)
    grad_z = -grad * weight if ctx.needs_input_grad[2] else None
    return grad_q, grad_k, grad_z, None, None, None


_repulsion.register_autograd(_repulsion_backward, setup_context=_repulsion_setup)


# tiles ------------------------------------------------------------------------------------------------------


def _tiles(q: Tensor, k: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Rows of k in pieces whose similarities with q fill the budget of the device, and where each begins."""
    elements = TILE_ELEMENTS.get(q.device.type, TILE_ELEMENTS["cuda"])
    width = max(64, elements // max(1, len(q)))
    for start in range(0, len(k), width):
        yield start, k[start : start + width].to(q.dtype)


def _hidden(s: Tensor, start: int, exclude_self: bool, labels: Tensor | None) -> Tensor:
    """s (N, width), the columns from `start` on, with -inf where a row is left out."""
    n, width = s.shape
    if labels is not None:
        s.masked_fill_(labels[:n, None] != labels[start : start + width], NOTHING)
    if exclude_self and start < n:
        s[start : start + width].diagonal().fill_(NOTHING)
    return s


def _skipped(s: Tensor, start: int, skip: Tensor, value: float) -> Tensor:
    """s (N, width) with `value` in the columns of `skip` that it holds."""
    here = (skip >= start) & (skip < start + s.shape[1])
    row, which = here.nonzero(as_tuple=True)
    s[row, skip[row, which] - start] = value
    return s


def _shift(q: Tensor, temperature: float) -> Tensor:
    return q.square().sum(1).amax() / temperature


def _squares(
    q: Tensor, temperature: float, shift: Tensor, exclude_self: bool, labels: Tensor | None
) -> Iterator[tuple[slice, slice, Tensor]]:
    """exp(q_a . q_b / temperature - shift) of every square of the upper triangle, 0 where a pair is left out."""
    side = SQUARE.get(q.device.type, SQUARE["cuda"])
    scaled = q / temperature
    for i in range(0, len(q), side):
        a = slice(i, min(i + side, len(q)))
        for j in range(i, len(q), side):
            b = slice(j, min(j + side, len(q)))
            e = torch.addmm(-shift, scaled[a], q[b].T).exp_()
            if labels is not None:
                e.mul_(labels[a, None] == labels[b])
            if exclude_self and i == j:
                e.diagonal().zero_()
            yield a, b, e
