"""Contrastive losses as pure functions of tensors, in nats, averaged over anchors.

Embeddings are expected to be unit rows; the functions never normalise or mask their arguments, and
they keep float64. Half precision is computed in float32. `others` are the rows of other processes:
negatives, not anchors.

Shapes: N batch, V views, D embedding width, S instances in the source, M noise samples or further
rows, C classes.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import require
from . import tiled
from .checks import check_temperature
from .label_losses import margin_contrastive, sup_con, triplet, triplet_of_similarities

__all__ = [
    "distillation",
    "info_nce",
    "info_nce_hard",
    "instance_softmax",
    "invariant_spread",
    "invariant_spread_released",
    "margin_contrastive",
    "nce",
    "nce_chance",
    "nce_collapse",
    "nce_of_similarities",
    "nt_xent",
    "nt_xent_of_scores",
    "proximal",
    "similarity",
    "sup_con",
    "triplet",
    "triplet_of_similarities",
]

ONE_IS_TOO_FEW = "a batch of one has no negatives: 2 or more instances are needed (--batch-size)"


def nt_xent(
    a: Tensor, b: Tensor, *, temperature: float = 0.5, others: Tensor | None = None
) -> Tensor:
    """Normalised temperature-scaled cross-entropy (NT-Xent), the loss of SimCLR.

    l_ij = -log exp(s_ij / tau) / sum_{k != i} exp(s_ik / tau) over the 2N rows of both views, where
    j is the other view of i and s_ij = z_i . z_j.

    Args:
        a: (N, D) unit rows, the first view of N instances.
        b: (N, D) unit rows, the second view of the same instances.
        temperature: tau > 0.
        others: (M, D) further negatives.

    Returns:
        Scalar >= 0, the mean over the 2N anchors. Known value: ln(2N - 1) if all rows are equal.
        The authors' code gives twice this value.

    Raises:
        ConfigError: temperature <= 0, shapes that do not match, or N = 1 without others.

    Source:
        Chen et al. 2020 (arXiv 2002.05709), eq. 1 and Algorithm 1.

    >>> z = F.normalize(torch.ones(3, 4), dim=1)
    >>> nt_xent(z, z)   # ln 5
    tensor(1.6094)
    """
    a, b = _pair(a, b)
    require(len(a) > 1 or others is not None, ONE_IS_TOO_FEW)
    rows = torch.cat([a, b])
    keys = rows if others is None else torch.cat([rows, others.to(rows.dtype)])
    log_z = tiled.logsumexp(rows, keys, temperature=temperature, exclude_self=True)
    return log_z.mean() - (a * b).sum(1).mean() / temperature


def nt_xent_of_scores(scores: Tensor) -> Tensor:
    """NT-Xent with any similarity in place of the inner product.

    For example `-squared_distances(z, z).sqrt() / tau` (Euclidean), the same of `z @ L` with a
    learned matrix L (Mahalanobis), or `z @ z.T / tau` of rows that are not normalised.

    Args:
        scores: (2N, 2N) of all rows of both views, already divided by the temperature; row i and
            row i + N are the views of one instance. The diagonal is not read, nor differentiated.

    Returns:
        Scalar in nats, the mean over the 2N anchors. Known value: ln(2N - 1) for equal scores;
        `nt_xent` for `z @ z.T / temperature`.

    Raises:
        ConfigError: not a square matrix of an even number of rows, 4 or more.

    Source:
        Chen et al. 2020 (arXiv 2002.05709), eq. 1, for a general sim(u, v).

    >>> nt_xent_of_scores(torch.zeros(6, 6))   # ln 5
    tensor(1.6094)
    """
    n = len(scores) // 2
    require(
        scores.shape == (2 * n, 2 * n) and n > 1,
        f"scores (2N, 2N), N > 1, are needed, got {tuple(scores.shape)}",
    )
    own = torch.eye(2 * n, dtype=torch.bool, device=scores.device)
    rows = torch.arange(2 * n, device=scores.device)
    log_z = scores.masked_fill(own, float("-inf")).logsumexp(1)
    return (log_z - scores[rows, rows.roll(n)]).mean()


def info_nce(
    query: Tensor, positive: Tensor, negatives: Tensor | None = None, *, temperature: float = 0.07
) -> Tensor:
    """InfoNCE: -log exp(q . p / tau) / (exp(q . p / tau) + sum_n exp(q . n / tau)).

    Args:
        query: (N, D) unit rows.
        positive: (N, D) unit rows, the positive of each query.
        negatives: (M, D) unit rows, the same for every query (a queue). None: the other rows of
            `positive`.
        temperature: tau > 0.

    Returns:
        Scalar >= 0, the mean over the N queries. Known value: ln(M + 1) if all rows are equal, or
        ln N without `negatives`.

    Raises:
        ConfigError: temperature <= 0, shapes that do not match, or N = 1 without negatives.

    Source:
        van den Oord et al. 2018 (arXiv 1807.03748), eq. 4; He et al. 2020 (arXiv 1911.05722),
        eq. 1.

    >>> z = F.normalize(torch.ones(3, 4), dim=1)
    >>> info_nce(z, z, z[:2]), info_nce(z, z)   # ln 3, ln 3
    (tensor(1.0986), tensor(1.0986))
    """
    query, positive = _pair(query, positive)
    check_temperature(temperature)
    own = (query * positive).sum(1) / temperature
    if negatives is None:
        require(len(query) > 1, ONE_IS_TOO_FEW)
        return (tiled.logsumexp(query, positive, temperature=temperature) - own).mean()
    rest = tiled.logsumexp(query, negatives, temperature=temperature)
    return tiled.softplus(rest - own).mean()  # -log(e^own / (e^own + e^rest))


def info_nce_hard(
    query: Tensor,
    positive: Tensor,
    hard: Tensor | None = None,
    *,
    temperature: float = 0.05,
    weight: float = 0.0,
    others: Tensor | None = None,
) -> Tensor:
    """InfoNCE over a batch of pairs, each with an optional hard negative: the loss of SimCSE.

    -log e^(q_i p_i / tau) / sum_j (e^(q_i p_j / tau) + e^(q_i h_j / tau + weight [i = j])).

    Args:
        query: (N, D) unit rows.
        positive: (N, D) unit rows, the positive of each query.
        hard: (N, D) unit rows, the hard negative of each query; None: there are none.
        temperature: tau > 0.
        weight: added to the logit of a query's own hard negative; any number.
        others: (M, D) further negatives of every query.

    Returns:
        Scalar, the mean over the N queries. Known value: if all rows are equal, ln N without
        `hard` and ln(2N - 1 + e^weight) with it.

    Raises:
        ConfigError: temperature <= 0, shapes that do not match, or N = 1 without any negative.

    Source:
        Gao et al. 2021 (arXiv 2104.08821), eq. 4 and 5; the weight: its appendix and code.

    >>> z = F.normalize(torch.ones(3, 4), dim=1)
    >>> info_nce_hard(z, z), info_nce_hard(z, z, z)   # ln 3, ln 6
    (tensor(1.0986), tensor(1.7918))
    """
    query, positive = _pair(query, positive)
    rows = [positive] if hard is None else [positive, _pair(query, hard)[1]]
    rows += [] if others is None else [others.to(query.dtype)]
    keys = torch.cat(rows) if len(rows) > 1 else positive
    require(len(keys) > 1, ONE_IS_TOO_FEW)
    total = tiled.logsumexp(query, keys, temperature=temperature)
    if hard is not None and weight:  # the query's own hard negative counts e^weight times
        own = (query * hard).sum(1) / temperature
        total = total + torch.log1p(math.expm1(weight) * torch.exp(own - total))
    return (total - (query * positive).sum(1) / temperature).mean()


def invariant_spread(
    a: Tensor, b: Tensor, *, temperature: float = 0.1, others: Tensor | None = None
) -> Tensor:
    """The invariant-and-spreading loss: a view matches its image, and no image matches another.

    P(i | b_i) = exp(a_i . b_i / tau) / sum_k exp(a_k . b_i / tau),
    P(i | a_j) = exp(a_i . a_j / tau) / sum_k exp(a_k . a_j / tau),
    J = -mean_i [log P(i | b_i) + sum_{j != i} log(1 - P(i | a_j))]; k runs over all N originals,
    k = j included.

    Args:
        a: (N, D) unit rows, the originals.
        b: (N, D) unit rows, their augmented views.
        temperature: tau > 0.
        others: (M, D) further originals.

    Returns:
        Scalar, the mean over the N instances. Known value: ln N + (N - 1) ln(N / (N - 1)) if all
        rows are equal.

    Raises:
        ConfigError: temperature <= 0, shapes that do not match, or N = 1 without others.

    Source:
        Ye et al. 2019 (arXiv 1904.03436), eq. 3-7, as printed.

    >>> z = F.normalize(torch.ones(2, 4), dim=1)
    >>> invariant_spread(z, z)   # 2 ln 2
    tensor(1.3863)
    """
    a, b = _pair(a, b)
    require(len(a) > 1 or others is not None, ONE_IS_TOO_FEW)
    rows = a if others is None else torch.cat([a, others.to(a.dtype)])
    matched = (a * b).sum(1) / temperature - tiled.logsumexp(b, rows, temperature=temperature)
    own = torch.arange(len(a), device=a.device)[:, None]
    return (tiled.repulsion(a, rows, own, temperature=temperature)[1] - matched).mean()


def invariant_spread_released(
    a: Tensor, b: Tensor, *, temperature: float = 0.1, others: Tensor | None = None
) -> Tensor:
    """`invariant_spread` as in the authors' code, which is not the loss of the paper.

    The 2N rows of both views are anchors, every denominator runs over the 2N - 1 other rows, and
    the rows compared with are constants (stop-gradient). The gradient is therefore not that of the
    value.

    Args:
        a: (N, D) unit rows, the first view.
        b: (N, D) unit rows, the second view.
        temperature: tau > 0.
        others: (M, D) rows of other processes, both views.

    Returns:
        Scalar, the mean over the 2N anchors. Known value, with A = 2N - 1: ln A +
        (A - 1) ln(A / (A - 1)) if all rows are equal. Finite as P(positive) approaches 1, where
        the released code returns NaN.

    Raises:
        ConfigError: temperature <= 0, shapes that do not match, or N = 1 without others.

    Source:
        The authors' released BatchCriterion, for Ye et al. 2019.

    >>> z = F.normalize(torch.ones(2, 4), dim=1)
    >>> invariant_spread_released(z, z)   # ln 3 + 2 ln(3 / 2)
    tensor(1.9095)
    """
    a, b = _pair(a, b)
    require(len(a) > 1 or others is not None, ONE_IS_TOO_FEW)
    rows = torch.cat([a, b])
    keys = (rows if others is None else torch.cat([rows, others.to(rows.dtype)])).detach()
    n, own = len(a), torch.arange(2 * len(a), device=a.device)
    partner = (own + n) % (2 * n)
    log_z, spread = tiled.repulsion(
        rows, keys, torch.stack([own, partner], 1), temperature=temperature, exclude_self=True
    )
    matched = (rows * keys[partner]).sum(1) / temperature - log_z
    return (spread - matched).mean()


def instance_softmax(
    query: Tensor,
    bank: Tensor,
    index: Tensor,
    *,
    temperature: float = 0.07,
    log_z: Tensor | None = None,
) -> Tensor:
    """The non-parametric softmax over all instances: -log P(i | v), P = exp(v_i . v / tau) / Z.

    Every instance is its own class and its memory row is the class weight. With a trained (S, D)
    matrix in place of the bank it is the parametric softmax of eq. 1. Exact, and in constant memory
    for any S (`tiled`).

    Args:
        query: (N, D) unit rows, the embeddings of the batch.
        bank: (S, D), one row per instance; differentiable if it requires a gradient.
        index: (N,) int64, the row of each query in the bank.
        temperature: tau > 0.
        log_z: (N,) log sum_j exp(v_j . v / tau), if the caller has computed it over a bank that
            several processes share.

    Returns:
        Scalar in nats, the mean over the N queries. Known value: ln S if all rows are equal.

    Raises:
        ConfigError: temperature <= 0 or shapes that do not match.

    Source:
        Wu et al. 2018 (arXiv 1805.01978), eq. 2 and the objective below it.

    >>> z = F.normalize(torch.ones(2, 4), dim=1)
    >>> bank = F.normalize(torch.ones(10, 4), dim=1)
    >>> instance_softmax(z, bank, torch.tensor([0, 7]))   # ln 10
    tensor(2.3026)
    """
    _check_rows(query, bank, index, temperature)
    query = tiled.same_precision(query, query)[0]
    positive = similarity(query, bank, index[:, None])[:, 0] / temperature
    if log_z is None:
        log_z = tiled.logsumexp(query, bank, temperature=temperature)
    require(
        log_z.shape == (len(query),),
        f"log_z must be (N,) with N = {len(query)}, got {tuple(log_z.shape)}",
    )
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
    """Noise-contrastive estimation of the instance softmax: classify data against M noise draws.

    With P(i | v) = exp(v_i . v / tau) / Z and h = P / (P + M P_n):
    J = mean over N of [-log h(i, v) - sum over the M draws j of log(1 - h(j, v))].
    Eq. 7 of the paper writes the second term with v' "from another image" of the noise
    distribution; as in the authors' code, that image's memory row is drawn. Nothing is masked: the
    caller decides whether a draw may be the positive itself.

    Args:
        query: (N, D) unit rows.
        bank: (S, D), one row per instance.
        index: (N,) int64, the row of each query's positive.
        noise: (M,) int64 rows shared by the batch (one matrix product), or (N, M) for each query.
        temperature: tau > 0.
        log_z: ln Z: a number, a scalar tensor, or one value per query, (N,) or (N, 1).
        log_noise: (S,) log-probability of each row under the noise distribution; None: uniform,
            -ln S.

    Returns:
        Scalar in nats, the mean over the N queries. Known value: (M + 1) ln(M + 1) - M ln M if all
        rows are equal and Z = S exp(1 / tau), so that P = 1/S.

    Raises:
        ConfigError: temperature <= 0, no noise, or shapes that do not match.

    Source:
        Gutmann & Hyvarinen 2010; Mnih & Teh 2012; Wu et al. 2018, eq. 3-7.

    >>> z = F.normalize(torch.ones(2, 4), dim=1)
    >>> bank = F.normalize(torch.ones(10, 4), dim=1)
    >>> log_z = 1 / 0.07 + math.log(10)
    >>> nce(z, bank, torch.tensor([0, 7]), torch.tensor([3]), log_z=log_z)   # 2 ln 2
    tensor(1.3863)
    """
    _check_rows(query, bank, index, temperature)
    query = tiled.same_precision(query, query)[0]
    require(
        log_noise is None or log_noise.shape == (len(bank),),
        f"log_noise must be (S,) with S = {len(bank)}, "
        f"got {None if log_noise is None else tuple(log_noise.shape)}",
    )
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
    """`nce` of inner products, for a caller that also estimates Z from them.

    Args:
        positive: (N, 1) inner products with the positives.
        drawn: (N, M) inner products with the noise rows.
        temperature: tau > 0.
        log_z: ln Z, as in `nce`.
        log_noise: log-probability under the noise distribution of the positives, a number or
            (N, 1), and of the draws, a number, (M,) or (N, M).

    Returns:
        Scalar in nats, the mean over N.

    Raises:
        ConfigError: temperature <= 0, or shapes that do not match.
    """
    check_temperature(temperature)
    n = len(positive)
    require(
        positive.shape == (n, 1) and drawn.ndim == 2 and len(drawn) == n,
        f"inner products (N, 1) and (N, M) are needed, got {tuple(positive.shape)} and "
        f"{tuple(drawn.shape)}",
    )
    for value, shapes in zip(
        log_noise, (((), (n, 1)), ((), drawn.shape[1:], drawn.shape)), strict=True
    ):
        shape = tuple(value.shape) if isinstance(value, Tensor) else ()
        require(shape in shapes, f"log_noise must have a shape of {shapes}, got {shape}")
    # ln of Z M: h = sigmoid(s / tau - ln(Z M P_n))
    ratio = _log_z_of_queries(log_z, n) + math.log(drawn.shape[1])
    missed = tiled.softplus(ratio + log_noise[0] - positive / temperature)
    # softplus(x / tau) = softplus(x, beta=1/tau): a division would be one more (N, M) tensor
    shifted = drawn - temperature * (ratio + log_noise[1])
    del drawn  # as large as what follows
    mistaken = tiled.softplus(shifted, 1 / temperature)
    return missed.mean() + mistaken.sum(1).mean() / temperature


def similarity(query: Tensor, bank: Tensor, rows: Tensor) -> Tensor:
    """Inner products of each query with some rows of a bank.

    Args:
        query: (N, D).
        bank: (S, D).
        rows: (M,) int64 rows shared by the batch, or (N, M) for each query; M > 0.

    Returns:
        (N, M) inner products.

    Raises:
        ConfigError: no rows, or rows of another shape.
    """
    require(
        rows.shape[-1] > 0 and rows.shape[:-1] in ((), (len(query),)),
        f"noise must be (M,) or (N, M) with M > 0 and N = {len(query)}, got {tuple(rows.shape)}",
    )
    chosen = bank.index_select(0, rows.flatten()).to(query.dtype)
    with torch.autocast(query.device.type, enabled=False):
        if rows.ndim == 1:
            return query @ chosen.T
        return torch.einsum("nd,nmd->nm", query, chosen.view(*rows.shape, -1))


def nce_chance(m: int) -> float:
    """The value of `nce` with m draws if P = P_n for every row: (m + 1) ln(m + 1) - m ln m.

    With uniform noise this is the loss at collapse (all rows equal) if Z = S exp(1 / tau).

    Args:
        m: noise draws, > 0.

    >>> round(nce_chance(4096), 3)
    9.318
    """
    return (m + 1) * math.log(m + 1) - m * math.log(m)


def nce_collapse(
    m: int, log_u: float | None, log_noise: Tensor, frequency: Tensor | None = None
) -> float:
    """The expected value of `nce` if P is the same for every word: the loss at collapse.

    sum_w f_w ln(1 + m q_w / u) + m sum_w q_w ln(1 + u / (m q_w)), u = P.

    Args:
        m: noise draws, > 0.
        log_u: ln P, the same for every word: 1 / tau - ln Z if all rows are equal. None: the value
            of least loss, at which training would put Z.
        log_noise: (S,) ln q_w, -inf where a word is never drawn.
        frequency: (S,) f_w, how often a word is the true one, summing to 1; None: as often as it
            is drawn.

    Returns:
        The expectation over true words and draws, nats. Known value: `nce_chance(m)` for uniform
        noise and log_u = -ln S, which is the value of least loss there.

    >>> round(nce_collapse(7, -math.log(40), torch.full((40,), -math.log(40))), 3)
    3.014
    """
    log_q = log_noise.double()
    q = log_q.exp()
    f = q if frequency is None else frequency.double()
    if log_u is None:  # the loss is convex in log_u: bisect its slope
        low, high = -60.0 - math.log(len(q)), 60.0
        for _ in range(60):
            log_u = (low + high) / 2
            x = math.log(m) + log_q - log_u
            slope = m * (q * torch.sigmoid(-x)).sum() - (f * torch.sigmoid(x)).sum()
            low, high = (low, log_u) if float(slope) > 0 else (log_u, high)
        log_u = (low + high) / 2
    x = math.log(m) + log_q - log_u  # ln of m q / u
    missed = torch.where(f > 0, f * tiled.softplus(x), 0.0)
    mistaken = torch.where(q > 0, q * tiled.softplus(-x), 0.0)
    return float(missed.sum() + m * mistaken.sum())


def proximal(query: Tensor, previous: Tensor) -> Tensor:
    """The proximal term: the mean of |v(t) - v(t-1)|^2 over the batch.

    Args:
        query: (N, D) embeddings now.
        previous: (N, D) memory rows of the same instances.

    Returns:
        Scalar in [0, 4] for unit rows. Known value: 0 if nothing moved.

    Raises:
        ConfigError: shapes that do not match.

    Source:
        Wu et al. 2018, eq. 8-10 (there weighted by lambda and added to the positive term).

    >>> proximal(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]]))
    tensor(2.)
    """
    require(
        query.ndim == 2 and query.shape == previous.shape,
        f"two (N, D) are needed, got {tuple(query.shape)} and {tuple(previous.shape)}",
    )
    return (query - previous.to(query.dtype)).square().sum(1).mean()


def distillation(student: Tensor, teacher: Tensor, *, temperature: float = 1.0) -> Tensor:
    """Cross-entropy of the student with the teacher's distribution: -sum_y P_T(y) log P_S(y).

    Args:
        student: (N, C) logits.
        teacher: (N, C) logits; they receive no gradient.
        temperature: > 0, divides both.

    Returns:
        Scalar in nats, the mean over N. Its minimum, at equal distributions, is the entropy of the
        teacher.

    Raises:
        ConfigError: temperature <= 0 or shapes that do not match.

    Source:
        SimCLR v2 (Chen et al. 2020, arXiv 2006.10029), eq. 2; without the factor T^2 of Hinton et
        al. 2015.

    >>> distillation(torch.zeros(1, 4), torch.zeros(1, 4))       # ln 4
    tensor(1.3863)
    """
    check_temperature(temperature)
    require(
        student.ndim == 2 and student.shape == teacher.shape,
        f"two (N, C) are needed, got {tuple(student.shape)} and {tuple(teacher.shape)}",
    )
    target = F.softmax(teacher.detach() / temperature, dim=1)
    return -(target * F.log_softmax(student / temperature, dim=1)).sum(1).mean()


def _log_z_of_queries(log_z: float | Tensor, n: int) -> float | Tensor:
    """ln Z that broadcasts over (N, M): a number, a scalar tensor, or a column (N, 1)."""
    if not isinstance(log_z, Tensor) or log_z.numel() == 1:
        return log_z.reshape(()) if isinstance(log_z, Tensor) else log_z
    require(
        log_z.shape in ((n,), (n, 1)),
        f"log_z must be a number, (N,) or (N, 1) with N = {n}, got {tuple(log_z.shape)}",
    )
    return log_z.reshape(n, 1)


def _check_rows(query: Tensor, bank: Tensor, index: Tensor, temperature: float) -> None:
    check_temperature(temperature)
    require(
        query.ndim == 2 and bank.ndim == 2 and query.shape[1] == bank.shape[1],
        "query (N, D) and bank (S, D) are needed, "
        f"got {tuple(query.shape)} and {tuple(bank.shape)}",
    )
    require(
        len(query) > 0 and index.shape == (len(query),),
        f"one index per query is needed: {len(query)} queries, indices {tuple(index.shape)}",
    )


def _pair(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Two (N, D) tensors, half precision as float32."""
    require(
        a.ndim == 2 and a.shape == b.shape and len(a) > 0,
        "two tensors (N, D) of one shape, N > 0, are needed, "
        f"got {tuple(a.shape)} and {tuple(b.shape)}",
    )
    return tiled.same_precision(a, a)[0], tiled.same_precision(b, b)[0]
