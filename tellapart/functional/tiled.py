"""Exact log-sum-exp of the inner products with many rows, in constant memory, on any device.

The (N, S) matrix of similarities is never stored: one tile of it is computed, used and dropped,
and computed again in the backward pass. The tiled passes are operators of the torch library, so
that `torch.compile` treats each as one node.

Limits above `DENSE_ELEMENTS` similarities: no second derivatives (`create_graph=True` raises).
Inside `torch.func` transforms (grad, vmap, jacrev, ...) the full matrix is computed at any size.

Shapes: N queries, S rows, D embedding width.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import require
from .checks import check_temperature

__all__ = ["check_temperature", "logsumexp", "repulsion", "same_precision", "softplus"]

# Up to this many similarities the full matrix is as fast: benchmarks/tiled_or_dense.py.
DENSE_ELEMENTS = 1 << 17
# A tile of similarities that stays in the cache of a CPU core, and fills an accelerator.
TILE_ELEMENTS = {"cpu": 1 << 18, "cuda": 1 << 26}
SQUARE = {"cpu": 512, "cuda": 4096}  # side of a tile of the symmetric form
SAFE_EXPONENT = 40.0  # exp(-2 x 40) is a normal float32: up to here one shift serves every row
EXACT_SOFTPLUS = 40.0  # from here on ln(1 + e^x) = x in float64; torch's default of 20 is not exact
EMPTY = float("-inf")


def logsumexp(
    q: Tensor,
    k: Tensor,
    *,
    temperature: float,
    exclude_self: bool = False,
    labels: Tensor | None = None,
) -> Tensor:
    """Compute log sum_j exp(q_i . k_j / temperature) for every query.

    One pass over k keeps a running maximum and a running sum. When q needs a gradient, the same
    pass accumulates sum_j p_ij k_j, which is the gradient times the temperature, so that a
    constant bank costs no second pass. The gradient to k recomputes one tile at a time. If `k is
    q`, the matrix is symmetric and only half of its tiles are computed. Up to `DENSE_ELEMENTS`
    similarities the full matrix is used, which is as fast there.

    Args:
        q: (N, D) queries; differentiable.
        k: (S, D) rows, S > 0; differentiable. Half precision is accumulated in float32, float64
            is kept.
        temperature: > 0.
        exclude_self: query i is row i of k (S >= N) and is left out of its own sum.
        labels: (S,) int64; query i is row i of k, and only rows with its label are summed.

    Returns:
        (N,) in nats; -inf, with gradient 0, for an empty sum. Known value: for equal unit rows
        1 / temperature + ln S, or + ln(S - 1) with `exclude_self`.

    Raises:
        ConfigError: temperature <= 0, shapes that do not match, or no rows.

    Source:
        Online softmax: Milakov & Gimelshein 2018 (arXiv 1805.02867), Algorithm 3.

    >>> z = torch.nn.functional.normalize(torch.ones(4, 8), dim=1)
    >>> logsumexp(z, z, temperature=0.5)   # 2 + ln 4
    tensor([3.3863, 3.3863, 3.3863, 3.3863])
    >>> labels = torch.tensor([0, 0, 1, 1])
    >>> logsumexp(z, z, temperature=0.5, exclude_self=True, labels=labels)   # 2 + ln 1
    tensor([2.0000, 2.0000, 2.0000, 2.0000])
    """
    check_temperature(temperature)
    same = k is q
    q, k = _checked(q, k, aligned=exclude_self or labels is not None, labels=labels)
    with torch.autocast(q.device.type, enabled=False):
        if _use_dense(q, k):
            return _dense(q, q if same else k, temperature, exclude_self, labels)
        if same and _one_shift_serves(q, temperature):
            value: Tensor = _symmetric(q, temperature, exclude_self, labels)
        else:
            wanted = torch.is_grad_enabled() and q.requires_grad
            value, _ = _tiled(q, k, temperature, exclude_self, labels, wanted)
        return value


def repulsion(
    q: Tensor, k: Tensor, skip: Tensor, *, temperature: float, exclude_self: bool = False
) -> tuple[Tensor, Tensor]:
    """Compute log Z_i and -sum_j log(1 - P_ij), P_ij = exp(q_i . k_j / temperature) / Z_i.

    The repulsive term of the invariant-and-spreading loss: P_ij is the probability that i is taken
    for j. 1 - P_ij is computed as (sum over the columns other than j) / Z_i wherever P_ij is the
    largest of its row, since 1 - P_ij itself would lose all its digits as P_ij approaches 1. Every
    other P_ij is at most 1/2.

    Args:
        q: (N, D) queries; differentiable.
        k: (S, D) rows; differentiable.
        skip: (N, E) int64, columns left out of the sum of log(1 - P_ij); they stay in Z_i.
        temperature: > 0.
        exclude_self: query i is row i of k (S >= N) and is left out of Z_i and of the sum.

    Returns:
        log Z (N,) and the repulsion (N,), nats. Known value: equal rows, one column skipped:
        (S - 1) ln(S / (S - 1)).

    Raises:
        ConfigError: temperature <= 0, shapes that do not match, or no rows.

    Source:
        Ye et al. 2019 (arXiv 1904.03436), eq. 5 and 6.
    """
    check_temperature(temperature)
    q, k = _checked(q, k, aligned=exclude_self, labels=None)
    with torch.autocast(q.device.type, enabled=False):
        if _use_dense(q, k):
            return _dense_repulsion(q, k, skip, temperature, exclude_self)
        wanted = torch.is_grad_enabled() and (q.requires_grad or k.requires_grad)
        results = _repulsion(q, k, skip, temperature, exclude_self, wanted)
        return results[0], results[1]


def same_precision(q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
    """Give half-precision queries as float32.

    Constant rows keep their storage type; they are converted tile by tile.

    Args:
        q: (N, D) queries.
        k: (S, D) rows.
    """
    if q.dtype in (torch.float16, torch.bfloat16):
        q = q.float()
    return q, k.to(q.dtype) if k.requires_grad else k


def softplus(x: Tensor, beta: float = 1.0) -> Tensor:
    """Compute ln(1 + e^(beta x)) / beta, exact to the precision of x (torch's default is not).

    Args:
        x: any shape.
        beta: factor of x, > 0.
    """
    return F.softplus(x, beta=beta, threshold=EXACT_SOFTPLUS)


def _checked(
    q: Tensor, k: Tensor, *, aligned: bool, labels: Tensor | None
) -> tuple[Tensor, Tensor]:
    require(
        q.ndim == 2 and k.ndim == 2 and q.shape[1] == k.shape[1] and len(k) > 0,
        "queries (N, D) and rows (S, D), S > 0, are needed; "
        f"got {tuple(q.shape)} and {tuple(k.shape)}",
    )
    require(
        not aligned or len(k) >= len(q), f"query i must be row i: {len(q)} queries, {len(k)} rows"
    )
    require(
        labels is None or labels.shape == (len(k),),
        f"one label per row is needed: {len(k)} rows, "
        f"labels {None if labels is None else tuple(labels.shape)}",
    )
    return same_precision(q, k)


def _use_dense(q: Tensor, k: Tensor) -> bool:
    """Whether the full matrix is used: it is small, or a torch.func transform needs it."""
    if len(q) * len(k) <= DENSE_ELEMENTS:
        return True
    if torch.compiler.is_compiling():
        return False
    wrapped = torch._C._functorch.is_functorch_wrapped_tensor  # no public way to ask
    return bool(wrapped(q) or wrapped(k))


def _one_shift_serves(q: Tensor, temperature: float) -> bool:
    """Whether exp(s - bound) is a normal number for every pair, bound = max |q|^2 / temperature."""
    if torch.compiler.is_compiling():
        return False  # values are unknown while compiling
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
    value = torch.logsumexp(s.masked_fill(hidden & ~empty[:, None], EMPTY), dim=1)
    return value.masked_fill(empty, EMPTY)


def _dense_repulsion(
    q: Tensor, k: Tensor, skip: Tensor, temperature: float, exclude_self: bool
) -> tuple[Tensor, Tensor]:
    s = q / temperature @ k.to(q.dtype).T
    if exclude_self:
        s = s.masked_fill(torch.eye(*s.shape, dtype=torch.bool, device=s.device), EMPTY)
    place = s.detach().argmax(1, keepdim=True)
    top = s.gather(1, place)[:, 0]
    is_top = torch.zeros_like(s, dtype=torch.bool).scatter(1, place, True)
    rest = s.masked_fill(is_top, EMPTY).logsumexp(1)
    log_z = torch.logaddexp(top, rest)
    left_out = is_top.scatter(1, skip, True)
    p = (s - log_z[:, None]).masked_fill(left_out, EMPTY).exp()
    counted = ~(skip == place).any(1)
    # -log(1 - P) of the largest is ln(1 + e^top / e^rest)
    own = torch.where(counted, torch.logaddexp(top - rest, torch.zeros_like(top)), 0.0)
    return log_z, own - torch.log1p(-p).sum(1)


# any rows -----------------------------------------------------------------------------------------


@torch.library.custom_op("tellapart::logsumexp", mutates_args=())
def _tiled(
    q: Tensor,
    k: Tensor,
    temperature: float,
    exclude_self: bool,
    labels: Tensor | None,
    with_mean: bool,
) -> tuple[Tensor, Tensor]:
    """The values (N,) and, if `with_mean`, the mean row sum_j p_ij k_j (N, D), else empty."""
    scaled = q / temperature
    top = q.new_full((len(q),), EMPTY)
    total = q.new_zeros(len(q))
    mean = torch.zeros_like(q) if with_mean else q.new_empty(0)
    for start, tile in _tiles(q, k):
        s = _hidden(scaled @ tile.T, start, exclude_self, labels)
        new_top = torch.maximum(top, s.amax(1))
        # while the sum is empty, -inf - -inf would be NaN
        safe = new_top.clamp_min(torch.finfo(q.dtype).min)
        shrink = (top - safe).exp_()
        p = s.sub_(safe[:, None]).exp_()
        total.mul_(shrink).add_(p.sum(1))
        if with_mean:
            mean.mul_(shrink[:, None]).addmm_(p, tile)
        top = new_top
    if with_mean:
        mean.div_(total.clamp_min(torch.finfo(q.dtype).tiny)[:, None])
    return torch.where(total == 0, EMPTY, top + total.log()), mean


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
    """A context of full precision for a backward pass, which has no derivative of its own."""
    if torch.is_grad_enabled():
        raise NotImplementedError(
            f"second derivatives (create_graph) exist up to {DENSE_ELEMENTS:,} similarities"
        )
    return torch.autocast(q.device.type, enabled=False)


def _tiled_backward(ctx: Any, grad: Any, _: Any) -> Any:
    q, k, labels, value, mean = ctx.saved_tensors
    grad = grad.masked_fill(value == EMPTY, 0.0)
    grad_k = None
    with _first_derivative(q):
        grad_q = mean * (grad / ctx.temperature)[:, None] if ctx.needs_input_grad[0] else None
        if ctx.needs_input_grad[1]:
            value = value.masked_fill(value == EMPTY, 0.0)
            grad_k = _tiled_rows(q, k, value, grad, ctx.temperature, ctx.exclude_self, labels)
    return grad_q, grad_k, None, None, None, None


_tiled.register_autograd(_tiled_backward, setup_context=_tiled_setup)


# the in-batch case: half of a symmetric matrix ----------------------------------------------------


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
    """The gradient (N, D).

    A pair (i, j) counts in the sum of i with weight g_i p_ij and in the sum of j with g_j p_ji.
    p_ij = e_ij exp(shift - value_i) with the same e_ij both ways: one exponential serves both.
    """
    shift = _shift(q, temperature)
    weight = torch.where(value == EMPTY, 0.0, grad * (shift - value).exp()) / temperature
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
        gradient = _symmetric_rows(q, value, grad, ctx.temperature, ctx.exclude_self, labels)
    return gradient, None, None, None


_symmetric.register_autograd(_symmetric_backward, setup_context=_symmetric_setup)


# the repulsion of the invariant-and-spreading loss ------------------------------------------------
#
# Row i, with t the column of its largest similarity, e^rest the sum over the other columns,
# w_k = e^(s_k - rest) (0 at t), P_k = w_k (1 - P_t), r_k = P_k / (1 - P_k) for the counted k other
# than t, R their sum, c = 1 if t is counted, else 0:
#   value       = -sum_k log(1 - P_k) + c ln(1 + e^(top - rest))
#   d value/s_k = r_k - R P_k - c P_t w_k       d value/s_t = c P_t - R P_t
# No term is a difference of large numbers, however near 1 P_t is.


@torch.library.custom_op("tellapart::repulsion", mutates_args=())
def _repulsion(
    q: Tensor, k: Tensor, skip: Tensor, temperature: float, exclude_self: bool, with_grad: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """log Z, value, place (of the largest), top, rest and R, (N,) each, and two gradients.

    Those of log Z and of the value, (N, D), times the temperature; empty without `with_grad`.
    """
    scaled = q / temperature
    top, rest = q.new_full((len(q),), EMPTY), q.new_full((len(q),), EMPTY)
    place = torch.zeros(len(q), dtype=torch.int64, device=q.device)
    for start, tile in _tiles(q, k):
        s = _hidden(scaled @ tile.T, start, exclude_self, None)
        here, column = s.max(1)
        s.scatter_(1, column[:, None], EMPTY)
        loser = torch.minimum(top, here)
        rest = torch.logaddexp(rest, torch.logaddexp(loser, s.logsumexp(1)))
        place = torch.where(here > top, column + start, place)
        top = torch.maximum(top, here)
    log_z, p_top = torch.logaddexp(top, rest), torch.sigmoid(top - rest)
    counted = (~(skip == place[:, None]).any(1)).to(q.dtype)
    value = counted * torch.logaddexp(top - rest, torch.zeros_like(top))
    odds_sum = q.new_zeros(len(q))
    of_others = torch.zeros_like(q) if with_grad else q.new_empty(0)
    of_odds = torch.zeros_like(of_others)
    for start, tile in _tiles(q, k):
        w, p = _shares(scaled @ tile.T, start, rest, p_top, place, skip, exclude_self)
        value.sub_(torch.log1p(-p).sum(1))
        if with_grad:
            odds = p.div_(1 - p)
            odds_sum.add_(odds.sum(1))
            of_odds.addmm_(odds, tile)
            of_others.addmm_(w, tile)
    if not with_grad:
        return log_z, value, place, top, rest, odds_sum, of_others, of_odds
    best = k[place].to(q.dtype)
    of_log_z = of_others * (1 - p_top)[:, None] + best * p_top[:, None]
    pushed = (counted * p_top)[:, None] * (best - of_others)
    of_value = of_odds - odds_sum[:, None] * of_log_z + pushed
    return log_z, value, place, top, rest, odds_sum, of_log_z, of_value


@torch.library.custom_op("tellapart::repulsion_rows", mutates_args=())
def _repulsion_rows(
    q: Tensor,
    k: Tensor,
    skip: Tensor,
    place: Tensor,
    top: Tensor,
    rest: Tensor,
    odds_sum: Tensor,
    grad_log_z: Tensor,
    grad: Tensor,
    temperature: float,
    exclude_self: bool,
) -> Tensor:
    """The gradient to the rows k (S, D)."""
    scaled, p_top = q / temperature, torch.sigmoid(top - rest)
    counted = (~(skip == place[:, None]).any(1)).to(q.dtype)
    of_p = grad_log_z - grad * odds_sum
    parts = []
    for start, tile in _tiles(q, k):
        w, p = _shares(scaled @ tile.T, start, rest, p_top, place, skip, exclude_self)
        weight = p.div_(1 - p).mul_(grad[:, None])
        weight.addcmul_(w, (of_p * (1 - p_top) - grad * counted * p_top)[:, None])
        at_top = (of_p + grad * counted) * p_top
        _put(weight, start, place[:, None], at_top[:, None])
        parts.append(weight.T @ scaled)
    return torch.cat(parts).to(k.dtype)


def _shares(
    s: Tensor,
    start: int,
    rest: Tensor,
    p_top: Tensor,
    place: Tensor,
    skip: Tensor,
    exclude_self: bool,
) -> tuple[Tensor, Tensor]:
    """w of a tile, 0 at the largest of the row; and P, 0 there and where a column is skipped."""
    safe = rest.clamp_min(torch.finfo(s.dtype).min)
    w = _hidden(s.sub_(safe[:, None]), start, exclude_self, None)
    _put(w, start, place[:, None], EMPTY)
    w.exp_()
    p = w * (1 - p_top)[:, None]
    _put(p, start, skip, 0.0)
    return w, p


@_repulsion.register_fake
def _(q: Any, k: Any, skip: Any, temperature: Any, exclude_self: Any, with_grad: Any) -> Any:
    n = q.shape[0]
    wide = [torch.empty_like(q) if with_grad else q.new_empty(0) for _ in range(2)]
    place = q.new_empty(n, dtype=torch.int64)
    log_z, value, top, rest, odds_sum = (q.new_empty(n) for _ in range(5))
    return log_z, value, place, top, rest, odds_sum, *wide


@_repulsion_rows.register_fake
def _(
    q: Any,
    k: Any,
    skip: Any,
    place: Any,
    top: Any,
    rest: Any,
    odds_sum: Any,
    grad_log_z: Any,
    grad: Any,
    temperature: Any,
    exclude_self: Any,
) -> Any:
    return torch.empty_like(k)


def _repulsion_setup(ctx: Any, inputs: Any, output: Any) -> None:
    q, k, skip, ctx.temperature, ctx.exclude_self, _ = inputs
    ctx.save_for_backward(q, k, skip, *output[2:])


def _repulsion_backward(ctx: Any, grad_log_z: Any, grad: Any, *_: Any) -> Any:
    q, k, skip, place, top, rest, odds_sum, of_log_z, of_value = ctx.saved_tensors
    grad_q = grad_k = None
    with _first_derivative(q):
        if ctx.needs_input_grad[0]:
            grad_q = of_log_z * grad_log_z[:, None] + of_value * grad[:, None]
            grad_q = grad_q / ctx.temperature
        if ctx.needs_input_grad[1]:
            grad_k = _repulsion_rows(
                q, k, skip, place, top, rest, odds_sum, grad_log_z, grad, ctx.temperature,
                ctx.exclude_self,
            )  # fmt: skip
    return grad_q, grad_k, None, None, None, None


_repulsion.register_autograd(_repulsion_backward, setup_context=_repulsion_setup)


# tiles --------------------------------------------------------------------------------------------


def _tiles(q: Tensor, k: Tensor) -> Iterator[tuple[int, Tensor]]:
    """The first row and the rows of each piece of k whose similarities with q fill one tile."""
    elements = TILE_ELEMENTS.get(q.device.type, TILE_ELEMENTS["cuda"])
    width = max(64, elements // max(1, len(q)))
    for start in range(0, len(k), width):
        yield start, k[start : start + width].to(q.dtype)


def _hidden(s: Tensor, start: int, exclude_self: bool, labels: Tensor | None) -> Tensor:
    """s (N, width), the columns from `start` on, with -inf where a row is left out; in place."""
    n, width = s.shape
    if labels is not None:
        s.masked_fill_(labels[:n, None] != labels[start : start + width], EMPTY)
    if exclude_self and start < n:
        s[start : start + width].diagonal().fill_(EMPTY)
    return s


def _put(s: Tensor, start: int, columns: Tensor, value: float | Tensor) -> None:
    """Write `value` (a number or (N, E)) into `columns` (N, E) of s (N, width), in place.

    `columns` are counted from column 0 of the whole matrix; those outside this tile are ignored.
    """
    here = (columns >= start) & (columns < start + s.shape[1])
    row, which = here.nonzero(as_tuple=True)
    s[row, columns[row, which] - start] = value[row, which] if isinstance(value, Tensor) else value


def _shift(q: Tensor, temperature: float) -> Tensor:
    return q.square().sum(1).amax() / temperature


def _squares(
    q: Tensor, temperature: float, shift: Tensor, exclude_self: bool, labels: Tensor | None
) -> Iterator[tuple[slice, slice, Tensor]]:
    """exp(q_a . q_b / temperature - shift) of each square of the upper triangle.

    It is 0 where a pair is left out.
    """
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
