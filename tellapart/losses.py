"""Contrastive losses as pure functions of tensors, in nats, averaged over anchors.

Shapes: N batch, D embedding width, S instances in the source, M noise samples.
Embeddings are expected on the unit sphere; the functions never normalise, mask or cast what they are given.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from . import tiled
from .errors import require


def instance_softmax(query: Tensor, bank: Tensor, index: Tensor, *, temperature: float = 0.07) -> Tensor:
    """The non-parametric softmax over every instance: -log P(i | v), P(i | v) = exp(v_i . v / tau) / Z.

    Each instance is its own class and its memory is the class weight; with a trained (S, D) matrix in place
    of the bank it is the parametric softmax of eq. 1. Exact and in flat memory for any S (`tiled`).

    Args:
        query: (N, D) unit rows, the embeddings of the batch.
        bank: (S, D), one row per instance; gets a gradient if it asks for one.
        index: (N,) int64, the row of each query in the bank.
        temperature: tau > 0.
    Returns:
        Scalar, nats. All rows equal: ln S (chance).
    Raises:
        ConfigError: temperature <= 0 or shapes that do not match.
    Source: Wu et al. 2018 (arXiv 1805.01978), eq. 2 and the objective below it.

    >>> z = F.normalize(torch.ones(2, 4), dim=1)
    >>> bank = F.normalize(torch.ones(10, 4), dim=1)
    >>> instance_softmax(z, bank, torch.tensor([0, 7]))   # ln 10
    tensor(2.3026)
    """
    _check_rows(query, bank, index, temperature)
    positive = similarity(query, bank, index[:, None])[:, 0] / temperature
    return (tiled.logsumexp(query, bank, temperature=temperature) - positive).mean()


def nce(
    query: Tensor,
    bank: Tensor,
    index: Tensor,
    noise: Tensor,
    *,
    temperature: float = 0.07,
    log_z: float | Tensor,
    log_noise: Tensor | None = None,
) -> Tensor:
    """Noise-contrastive estimation of the instance softmax: tell the instance from M noise draws.

    With P(i | v) = exp(v_i . v / tau) / Z and h = P / (P + M P_n):
    J = mean over N of [ -log h(i, v) - sum over the M draws j of log(1 - h(j, v)) ].
    The paper's eq. 7 writes the second term with v' "from another image" of the noise distribution; as in its
    code, that image's *memory row* is what is drawn. Whether a draw may be the positive itself is decided by
    whoever draws (`objectives.instdisc`); nothing is masked here.

    Args:
        query: (N, D) unit rows. bank: (S, D). index: (N,) the positives.
        noise: (M,) rows shared by the batch (one matrix product), or (N, M) drawn for each query.
        temperature: tau > 0.
        log_z: ln Z, a number or a tensor that broadcasts to (N, 1).
        log_noise: (S,) log-probability of each row under the noise distribution; None: uniform, -ln S.
    Returns:
        Scalar, nats. All rows equal and Z exact (P = 1/S): (M + 1) ln(M + 1) - M ln M (chance).
    Raises:
        ConfigError: temperature <= 0, no noise, or shapes that do not match.
    Source: Gutmann & Hyvarinen 2010; Mnih & Teh 2012; Wu et al. 2018, eq. 3-7.

    >>> z = F.normalize(torch.ones(2, 4), dim=1)
    >>> bank = F.normalize(torch.ones(10, 4), dim=1)
    >>> log_z = 1 / 0.07 + math.log(10)
    >>> nce(z, bank, torch.tensor([0, 7]), torch.tensor([3]), log_z=log_z)   # 2 ln 2
    tensor(1.3863)
    """
    _check_rows(query, bank, index, temperature)
    positive, drawn = similarity(query, bank, index[:, None]), similarity(query, bank, noise)
    uniform = -math.log(len(bank))
    return nce_of_similarities(
        positive,
        drawn,
        temperature=temperature,
        log_z=log_z,
        log_noise=(uniform, uniform) if log_noise is None else (log_noise[index[:, None]], log_noise[noise]),
    )


def nce_of_similarities(
    positive: Tensor,
    drawn: Tensor,
    *,
    temperature: float,
    log_z: float | Tensor,
    log_noise: tuple[float | Tensor, float | Tensor],
) -> Tensor:
    """`nce` where the inner products are already there, for a caller that also estimates Z from them.

    Args:
        positive: (N, 1) of the positives. drawn: (N, M) of the noise.
        log_noise: log-probability under the noise of the positives and of the draws, broadcast to their shapes.
    """
    ratio = log_z + math.log(drawn.shape[1])  # ln of Z M: h = sigmoid(s / tau - ln(Z M P_n))
    missed = F.softplus(ratio + log_noise[0] - positive / temperature)
    mistaken = F.softplus(drawn / temperature - (ratio + log_noise[1]))
    return missed.mean() + mistaken.sum(1).mean()


def similarity(query: Tensor, bank: Tensor, rows: Tensor) -> Tensor:
    """Inner products (N, M) of each query (N, D) with rows of a bank: (M,) shared by the batch, or (N, M) its own.

    Raises:
        ConfigError: no rows, or rows of another shape.
    """
    require(
        rows.shape[-1] > 0 and rows.shape[:-1] in ((), (len(query),)),
        f"noise must be (M,) or (N, M) with M > 0 and N = {len(query)}, got {tuple(rows.shape)}",
    )
    found = bank.index_select(0, rows.flatten()).to(query.dtype)
    if rows.ndim == 1:
        return query @ found.T
    return torch.einsum("nd,nmd->nm", query, found.view(*rows.shape, -1))


def nce_chance(m: int) -> float:
    """The loss of `nce` when P = 1/S everywhere: every row of the memory coincides and Z is exact.

    >>> round(nce_chance(4096), 3)
    9.318
    """
    return (m + 1) * math.log(m + 1) - m * math.log(m)


def proximal(query: Tensor, previous: Tensor) -> Tensor:
    """How far each embedding has moved since its instance was last seen: mean of |v(t) - v(t-1)|^2.

    Args:
        query: (N, D) embeddings now. previous: (N, D) the memory of the same instances.
    Returns:
        Scalar in [0, 4] for unit rows; 0 when nothing moved.
    Source: Wu et al. 2018, eq. 8-10 (there weighted by lambda and added to the positive term).

    >>> proximal(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]]))
    tensor(2.)
    """
    return (query - previous.to(query.dtype)).square().sum(1).mean()


def _check_rows(query: Tensor, bank: Tensor, index: Tensor, temperature: float) -> None:
    tiled.check_temperature(temperature)
    require(
        query.ndim == 2 and bank.ndim == 2 and query.shape[1] == bank.shape[1],
        f"query (N, D) and bank (S, D) are needed, got {tuple(query.shape)} and {tuple(bank.shape)}",
    )
    require(
        len(query) > 0 and index.shape == (len(query),),
        f"one index per query is needed: {tuple(query.shape)} queries, {tuple(index.shape)} indices",
    )
