"""Contrastive losses as pure functions of tensors, in nats, averaged over anchors.

Shapes: N batch, V views, D embedding width, S instances in the source, M noise samples or further rows.
Embeddings are expected on the unit sphere; the functions never normalise or mask what they are given, and keep
float64. Where a function takes `others`, those are the rows of other processes: compared with, not anchors.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import require
from . import tiled
from .label_losses import margin_contrastive, sup_con, triplet

__all__ = [
    "distillation",
    "info_nce",
    "instance_softmax",
    "invariant_spread",
    "invariant_spread_released",
    "margin_contrastive",
    "nce",
    "nce_chance",
    "nce_of_similarities",
    "nt_xent",
    "proximal",
    "similarity",
    "sup_con",
    "triplet",
]


def nt_xent(
    a: Tensor, b: Tensor, *, temperature: float = 0.5, others: Tensor | None = None
) -> Tensor:
    """Normalised temperature-scaled cross entropy: tell the other view of an image from every view of the others.

    l_ij = -log exp(s_ij / tau) / sum_{k != i} exp(s_ik / tau) for the 2N rows of both views, j the partner of i.

    Args:
        a, b: (N, D) unit rows, two views of the same N instances. others: (M, D) further negatives.
        temperature: tau > 0.
    Returns:
        Scalar, the mean over the 2N anchors. All rows equal: ln(2N - 1) (chance). The authors' code has twice this.
    Raises:
        ConfigError: temperature <= 0, shapes that do not match, or a batch of one without others.
    Source: Chen et al. 2020 (arXiv 2002.05709), eq. 1 and Algorithm 1.
    Relations: `sup_con` with a label for each instance; `info_nce` both ways with all 2N - 2 negatives.

    >>> z = F.normalize(torch.ones(3, 4), dim=1)
    >>> nt_xent(z, z)   # ln 5
    tensor(1.6094)
    """
    a, b = _pair(a, b)
    require(
        len(a) > 1 or others is not None,
        "a batch of one has no negatives: 2 or more instances are needed (--batch-size)",
    )
    rows = torch.cat([a, b])
    keys = rows if others is None else torch.cat([rows, others.to(rows.dtype)])
    log_z = tiled.logsumexp(rows, keys, temperature=temperature, exclude_self=True)
    return log_z.mean() - (a * b).sum(1).mean() / temperature


def info_nce(
    query: Tensor, positive: Tensor, negatives: Tensor | None = None, *, temperature: float = 0.07
) -> Tensor:
    """-log exp(q . p / tau) / (exp(q . p / tau) + sum over negatives exp(q . n / tau)).

    Args:
        query, positive: (N, D) unit rows.
        negatives: (M, D), the same for every query (a queue); None: the other rows of `positive`.
        temperature: tau > 0.
    Returns:
        Scalar. All rows equal: ln(M + 1), or ln N without `negatives` (chance).
    Raises:
        ConfigError: temperature <= 0, shapes that do not match, or a batch of one without negatives.
    Source: van den Oord et al. 2018 (arXiv 1807.03748), eq. 4; He et al. 2020 (arXiv 1911.05722), eq. 1.

    >>> z = F.normalize(torch.ones(3, 4), dim=1)
    >>> info_nce(z, z, z[:2]), info_nce(z, z)   # ln 3, ln 3
    (tensor(1.0986), tensor(1.0986))
    """
    query, positive = _pair(query, positive)
    tiled.check_temperature(temperature)
    own = (query * positive).sum(1) / temperature
    if negatives is None:
        require(
            len(query) > 1,
            "a batch of one has no negatives: 2 or more instances are needed (--batch-size)",
        )
        return (tiled.logsumexp(query, positive, temperature=temperature) - own).mean()
    # -log(e^own / (e^own + e^rest)) = softplus(rest - own)
    return F.softplus(tiled.logsumexp(query, negatives, temperature=temperature) - own).mean()


def info_nce_hard(
    query: Tensor,
    positive: Tensor,
    hard: Tensor | None = None,
    *,
    temperature: float = 0.05,
    weight: float = 0.0,
    others: Tensor | None = None,
) -> Tensor:
    """InfoNCE over a batch of pairs, each of which may bring a hard negative of its own.

    -log e^(q_i p_i / tau) / sum_j (e^(q_i p_j / tau) + e^(q_i h_j / tau + weight [i = j])), mean over i.

    Args:
        query, positive: (N, D) unit rows. hard: (N, D), None = none. others: (M, D) further negatives of all.
        temperature: tau > 0. weight: added to the logit of the own hard negative.
    Returns:
        Scalar. All rows equal and weight 0: ln N, ln 2N with hard negatives (chance).
    Raises:
        ConfigError: temperature <= 0, shapes that do not match, or a batch of one without hard negatives.
    Source: Gao et al. 2021 (arXiv 2104.08821), eq. 4 and 5.

    >>> z = F.normalize(torch.ones(3, 4), dim=1)
    >>> info_nce_hard(z, z), info_nce_hard(z, z, z)   # ln 3, ln 6
    (tensor(1.0986), tensor(1.7918))
    """
    query, positive = _pair(query, positive)
    rows = [positive] if hard is None else [positive, _pair(query, hard)[1]]
    rows += [] if others is None else [others.to(query.dtype)]
    keys = torch.cat(rows) if len(rows) > 1 else positive
    require(
        len(keys) > 1,
        "a batch of one has no negatives: 2 or more instances are needed (--batch-size)",
    )
    total = tiled.logsumexp(query, keys, temperature=temperature)
    if hard is not None and weight:  # the own hard negative counts e^weight times
        own = (query * hard).sum(1) / temperature
        total = total + torch.log1p(math.expm1(weight) * torch.exp(own - total))
    return (total - (query * positive).sum(1) / temperature).mean()


def invariant_spread(
    a: Tensor, b: Tensor, *, temperature: float = 0.1, others: Tensor | None = None
) -> Tensor:
    """A view is recognised as its image, and no other image is mistaken for it.

    P(i | b_i) = exp(a_i . b_i / tau) / sum_k exp(a_k . b_i / tau), P(i | a_j) = exp(a_i . a_j / tau) / sum_k
    exp(a_k . a_j / tau),
    J = -mean_i [ log P(i | b_i) + sum_{j != i} log(1 - P(i | a_j)) ], k over all N originals, j = k among them.

    Args:
        a: (N, D) unit rows, the originals. b: (N, D) their augmented views. others: (M, D) further originals.
        temperature: tau > 0.
    Returns:
        Scalar, the mean over the N instances. All rows equal: ln N + (N - 1) ln(N / (N - 1)) (chance).
    Raises:
        ConfigError: temperature <= 0, shapes that do not match, or a batch of one without others.
    Source: Ye et al. 2019 (arXiv 1904.03436), eq. 3-7, as written.

    >>> z = F.normalize(torch.ones(2, 4), dim=1)
    >>> invariant_spread(z, z)   # 2 ln 2
    tensor(1.3863)
    """
    a, b = _pair(a, b)
    require(
        len(a) > 1 or others is not None,
        "a batch of one has nothing to spread from: 2 or more instances are needed",
    )
    rows = a if others is None else torch.cat([a, others.to(a.dtype)])
    recognised = (a * b).sum(1) / temperature - tiled.logsumexp(b, rows, temperature=temperature)
    log_z = tiled.logsumexp(a, rows, temperature=temperature)
    own = torch.arange(len(a), device=a.device)[:, None]
    return (tiled.repulsion(a, rows, log_z, own, temperature=temperature) - recognised).mean()


def invariant_spread_released(
    a: Tensor, b: Tensor, *, temperature: float = 0.1, others: Tensor | None = None
) -> Tensor:
    """`invariant_spread` as the authors' code has it, which is not the loss of the paper.

    Both views are anchors, every denominator runs over the 2N - 1 other rows, and the row compared with is a
    constant (stop-gradient), so that what is followed is not the gradient of the value.

    Returns:
        Scalar, the mean over the 2N anchors. All rows equal, with A = 2N - 1: ln A + (A - 1) ln(A / (A - 1)).
        Finite where P(positive) -> 1, where the released code gives NaN.
    Source: the authors' released BatchCriterion, described in Ye et al. 2019.

    >>> z = F.normalize(torch.ones(2, 4), dim=1)
    >>> invariant_spread_released(z, z)   # ln 3 + 2 ln(3 / 2)
    tensor(1.9095)
    """
    a, b = _pair(a, b)
    require(
        len(a) > 1 or others is not None,
        "a batch of one has nothing to spread from: 2 instances are needed",
    )
    rows = torch.cat([a, b])
    keys = (rows if others is None else torch.cat([rows, others.to(rows.dtype)])).detach()
    n, own = len(a), torch.arange(2 * len(a), device=a.device)
    partner = (own + n) % (2 * n)
    log_z = tiled.logsumexp(rows, keys, temperature=temperature, exclude_self=True)
    recognised = (rows * keys[partner]).sum(1) / temperature - log_z
    spread = tiled.repulsion(
        rows, keys, log_z, torch.stack([own, partner], 1), temperature=temperature
    )
    return (spread - recognised).mean()


def instance_softmax(
    query: Tensor,
    bank: Tensor,
    index: Tensor,
    *,
    temperature: float = 0.07,
    log_z: Tensor | None = None,
) -> Tensor:
    """The non-parametric softmax over every instance: -log P(i | v), P(i | v) = exp(v_i . v / tau) / Z.

    Each instance is its own class and its memory is the class weight; with a trained (S, D) matrix in place
    of the bank it is the parametric softmax of eq. 1. Exact and in flat memory for any S (`tiled`).

    Args:
        query: (N, D) unit rows, the embeddings of the batch.
        bank: (S, D), one row per instance; gets a gradient if it asks for one.
        index: (N,) int64, the row of each query in the bank.
        temperature: tau > 0.
        log_z: (N,) log sum_j exp(v_j . v / tau), by a caller that has it: the bank of several processes in shards.
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
    query = tiled.same_precision(query, query)[0]
    positive = similarity(query, bank, index[:, None])[:, 0] / temperature
    log_z = tiled.logsumexp(query, bank, temperature=temperature) if log_z is None else log_z
    return (log_z - positive).mean()


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
    query = tiled.same_precision(query, query)[0]
    uniform = -math.log(len(bank))
    return nce_of_similarities(
        similarity(query, bank, index[:, None]),
        similarity(query, bank, noise),
        temperature=temperature,
        log_z=log_z,
        log_noise=(uniform, uniform)
        if log_noise is None
        else (log_noise[index[:, None]], log_noise[noise]),
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
    # softplus(x / tau) = softplus(x, beta=1/tau) / tau: the division would be one more (N, M) tensor
    shifted = drawn - temperature * (ratio + log_noise[1])
    del drawn  # as large as what follows
    mistaken = F.softplus(shifted, beta=1 / temperature)
    return missed.mean() + mistaken.sum(1).mean() / temperature


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
    with torch.autocast(query.device.type, enabled=False):
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


def _pair(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Two (N, D) tensors, half precision as float32."""
    require(
        a.ndim == 2 and a.shape == b.shape and len(a) > 0,
        f"two tensors (N, D) of one shape, N > 0, are needed, got {tuple(a.shape)} and {tuple(b.shape)}",
    )
    return tiled.same_precision(a, a)[0], tiled.same_precision(b, b)[0]


def distillation(student: Tensor, teacher: Tensor, *, temperature: float = 1.0) -> Tensor:
    """The student's cross-entropy with the teacher's softened answer: - sum over y of P_T(y) log P_S(y).

    Args:
        student, teacher: (N, C) logits; no gradient reaches the teacher. temperature: > 0, divides both.
    Returns:
        Scalar in nats, mean over N; at its least, where both agree, the entropy of the teacher's answer.
    Source: SimCLR v2 (Chen et al. 2020, arXiv 2006.10029), eq. 2; without the factor T^2 of Hinton et al. 2015.

    >>> distillation(torch.zeros(1, 4), torch.zeros(1, 4))       # ln 4
    tensor(1.3863)
    """
    tiled.check_temperature(temperature)
    require(
        student.shape == teacher.shape,
        f"(N, C) twice, got {tuple(student.shape)}, {tuple(teacher.shape)}",
    )
    answer = F.softmax(teacher.detach() / temperature, dim=1)
    return -(answer * F.log_softmax(student / temperature, dim=1)).sum(1).mean()
