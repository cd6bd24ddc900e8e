"""Losses over pairs and triplets that labels define: supervised contrastive, margin, triplet.

Labels are classes, or instance ids if the views of an image are the only positives. `others` are
the rows of other processes: they are compared with, but are no anchors.

Shapes: N rows, V views, D embedding width, M further rows, A = N V anchors.
"""

from __future__ import annotations

from typing import NamedTuple, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import require, unknown
from . import tiled
from .checks import check_margin, check_temperature
from .choices import Mining as Mining
from .choices import Reduction as Reduction

# Below this share of |a|^2 + |b|^2 a squared distance is computed from differences: the matrix
# product leaves about 1e-5 of relative error in float32 there, and all of it further down.
CLOSE = 0.02
CLOSE_ELEMENTS = 1 << 24  # differences of close pairs that are kept; above, torch.cdist


def sup_con(
    z: Tensor, labels: Tensor, *, temperature: float = 0.1, reduction: Reduction = "out"
) -> Tensor:
    """Supervised contrastive loss: every other row of the same label is a positive.

    "out": -1/|P(i)| sum_{p in P(i)} log [exp(z_i . z_p / tau) / sum_{a != i} exp(z_i . z_a / tau)];
    "in": the mean over the positives P(i) stands inside the logarithm. in <= out, with equality
    for one positive.

    Args:
        z: (N, V, D), V views of N instances, or (N, D); unit rows.
        labels: (N,) int64.
        temperature: tau > 0.
        reduction: "out" or "in".

    Returns:
        Scalar in nats, the mean over the anchors that have a positive; 0, with a gradient of 0, if
        there is none. Known value: ln(A - 1) if all A = N V rows are equal. The authors' code
        multiplies by tau / 0.07.

    Raises:
        ConfigError: temperature <= 0, labels of another length, or an unknown reduction.

    Source:
        Khosla et al. 2020 (arXiv 2004.11362), eq. 2 and 3.

    >>> z = F.normalize(torch.ones(4, 8), dim=1)
    >>> sup_con(z, torch.tensor([0, 0, 1, 2]))   # ln 3
    tensor(1.0986)
    """
    values, valid = sup_con_anchors(z, labels, temperature=temperature, reduction=reduction)
    return torch.where(valid, values, 0.0).sum() / valid.sum().clamp_min(1)


def sup_con_anchors(
    z: Tensor,
    labels: Tensor,
    *,
    temperature: float,
    reduction: Reduction,
    others: Tensor | None = None,
    other_labels: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The terms of `sup_con`, one per anchor.

    Args:
        z: (N, V, D) or (N, D) unit rows.
        labels: (N,) int64.
        temperature: tau > 0.
        reduction: "out" or "in".
        others: (M, D) rows of other processes.
        other_labels: (M,) their labels.

    Returns:
        The loss of each anchor (A,), and whether it has a positive (A,).

    Raises:
        ConfigError: as `sup_con`.
    """
    check_temperature(temperature)
    if reduction not in get_args(Reduction):
        raise unknown("reduction", reduction, get_args(Reduction))
    rows, names = _flat(z, labels)
    keys, key_names = _with_others(rows, names, others, other_labels)
    same, group = _groups(names, key_names)
    count = same - 1  # positives of each anchor
    valid = count > 0
    log_all = tiled.logsumexp(rows, keys, temperature=temperature, exclude_self=True)
    if reduction == "in":
        log_own = tiled.logsumexp(
            rows, keys, temperature=temperature, exclude_self=True, labels=key_names
        )
        values = log_all - log_own + count.clamp_min(1).to(rows.dtype).log()
        return torch.where(valid, values, 0.0), valid
    sums = keys.new_zeros(int(group.max()) + 1, keys.shape[1]).index_add(0, group, keys)
    positives = sums[group[: len(rows)]] - rows
    return log_all - (rows * positives).sum(1) / temperature / count.clamp_min(1), valid


def margin_contrastive(a: Tensor, b: Tensor, same: Tensor, *, margin: float = 1.0) -> Tensor:
    """The margin (spring) loss: 1/2 d^2 for similar pairs, 1/2 max(0, margin - d)^2 for others.

    Args:
        a: (N, D), any rows.
        b: (N, D), the other row of each pair.
        same: (N,) bool, whether the pair is similar.
        margin: > 0, in units of the distance d = |a - b|; beyond it a pair has no force.

    Returns:
        Scalar >= 0, the mean over the pairs. Known value: a dissimilar pair at distance 0 costs
        margin^2 / 2, and has gradient 0.

    Raises:
        ConfigError: margin <= 0 or shapes that do not match.

    Source:
        Hadsell, Chopra & LeCun 2006, eq. 4.

    >>> a, b = torch.zeros(2, 2), torch.tensor([[0.6, 0.8], [0.3, 0.4]])
    >>> margin_contrastive(a, b, torch.tensor([True, False]))   # (1/2 + 1/2 (1 - 0.5)^2) / 2
    tensor(0.3125)
    """
    check_margin(margin)
    require(
        a.ndim == 2 and a.shape == b.shape and same.shape == (len(a),) and len(a) > 0,
        "pairs (N, D), (N, D) and (N,) are needed, "
        f"got {tuple(a.shape)}, {tuple(b.shape)} and {tuple(same.shape)}",
    )
    a, b = tiled.same_precision(a, a)[0], tiled.same_precision(b, b)[0]
    return spring((a - b).square().sum(1), same.bool(), margin).mean()


def spring(squared: Tensor, same: Tensor, margin: float) -> Tensor:
    """1/2 d^2 where `same`, else 1/2 max(0, margin - d)^2.

    Args:
        squared: squared distances d^2 of any shape, >= 0.
        same: bool of the same shape.
        margin: > 0.

    Returns:
        The energy of each pair, of the same shape. At d = 0 the gradient is 0, as in eq. 4, where
        the direction of the force is undefined.

    Source:
        Hadsell, Chopra & LeCun 2006, eq. 4.
    """
    require(
        squared.shape == same.shape,
        f"two equal shapes are needed, got {tuple(squared.shape)} and {tuple(same.shape)}",
    )
    apart = squared != 0
    d = torch.where(apart, squared, 1.0).sqrt() * apart  # the root has an infinite slope at 0
    return 0.5 * torch.where(same, squared, (margin - d).clamp_min(0).square())


def squared_distances(a: Tensor, b: Tensor) -> Tensor:
    """|a_i - b_j|^2 of all pairs, accurate for near-duplicates in value and in gradient.

    One matrix product |a|^2 + |b|^2 - 2 a.b gives the far pairs. Its rounding error is a fixed
    share of |a|^2 + |b|^2, so the close pairs are taken from their differences. Both are computed
    relative to the mean of b, which changes no distance and reduces the rounding.

    Args:
        a: (N, D), any rows; differentiable.
        b: (M, D); differentiable.

    Returns:
        (N, M), >= 0; exactly 0, with gradient 0, for equal rows. Half precision is computed in
        float32.

    Raises:
        ConfigError: shapes that do not match.

    >>> squared_distances(torch.tensor([[0.0, 0.0]]), torch.tensor([[3.0, 4.0], [0.0, 1e-6]]))
    tensor([[2.5000e+01, 1.0000e-12]])
    """
    require(
        a.ndim == 2 and b.ndim == 2 and a.shape[1] == b.shape[1] and len(b) > 0,
        f"rows (N, D) and (M, D), M > 0, are needed, got {tuple(a.shape)} and {tuple(b.shape)}",
    )
    a, b = tiled.same_precision(a, a)[0], tiled.same_precision(b, b)[0]
    with torch.autocast(a.device.type, enabled=False):
        centre = b.detach().mean(0)
        x, y = a - centre, b - centre
        sizes = x.square().sum(1)[:, None] + y.square().sum(1)
        squares = (sizes - 2 * x @ y.T).clamp_min(0)
        i, j = (squares.detach() < CLOSE * sizes.detach()).nonzero(as_tuple=True)
        if len(i) * a.shape[1] > CLOSE_ELEMENTS:
            return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist").square()
        # index_put leaves no gradient to the entries that it replaces
        return squares.index_put((i, j), (a[i] - b[j]).square().sum(1))


class Triplets(NamedTuple):
    """Sums over triplets.

    Attributes:
        loss: the sum of the losses of the active triplets; differentiable.
        active: how many triplets are active.
        easy: how many triplets have d_an >= d_ap + margin.
        semi_hard: how many have d_ap < d_an < d_ap + margin.
        hard: how many have d_an <= d_ap.
    """

    loss: Tensor
    active: Tensor
    easy: Tensor
    semi_hard: Tensor
    hard: Tensor


def triplet(
    z: Tensor, labels: Tensor, *, margin: float = 0.2, mining: Mining = "semi-hard"
) -> Tensor:
    """The triplet loss max(0, |z_a - z_p|^2 - |z_a - z_n|^2 + margin) with mining in the batch.

    Args:
        z: (N, V, D) or (N, D) unit rows.
        labels: (N,) int64.
        margin: > 0, in units of squared distance (0 to 4 for unit rows).
        mining: the triplets that count, d being squared distances. "all"; "semi-hard":
            d_ap < d_an < d_ap + margin; "hard": d_an <= d_ap; "batch-hard": for each anchor its
            farthest positive with its nearest negative.

    Returns:
        Scalar >= 0, the mean over the chosen triplets of loss above 0; 0, with a gradient of 0, if
        there is none. Known value: `margin` if all rows are equal, except "semi-hard", which finds
        no triplet there: 0.

    Raises:
        ConfigError: margin <= 0, labels of another length, or an unknown mining.

    Source:
        Schroff et al. 2015 (arXiv 1503.03832), eq. 2-4; "batch-hard": Hermans et al. 2017
        (arXiv 1703.07737), eq. 5.

    >>> z = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])   # d_ap = 2; d_an = 4 and 2
    >>> triplet(z, torch.tensor([0, 0, 1]), mining="all")   # active: the anchor (0, 1) alone
    tensor(0.2000)
    """
    sums = triplets(z, labels, margin=margin, mining=mining)
    return sums.loss / sums.active.clamp_min(1)


def triplet_of_similarities(positive: Tensor, negative: Tensor, *, margin: float = 0.2) -> Tensor:
    """The triplet loss on similarities: max(0, margin + s_negative - s_positive).

    Surveys print it with the two similarities exchanged, which pulls the negative and pushes the
    positive away. On unit rows it is half of the squared-distance form at twice the margin.

    Args:
        positive: (N,) similarity of each anchor with its positive; higher is nearer.
        negative: (N,) similarity with its negative.
        margin: > 0, in units of similarity.

    Returns:
        Scalar >= 0, the mean over the N triplets. Known value: `margin` if all similarities are
        equal.

    Raises:
        ConfigError: margin <= 0 or shapes that do not match.

    >>> triplet_of_similarities(torch.tensor([0.9, 0.1]), torch.tensor([0.2, 0.5]), margin=0.2)
    tensor(0.3000)
    """
    check_margin(margin)
    require(
        positive.ndim == 1 and positive.shape == negative.shape and len(positive) > 0,
        f"two (N,), N > 0, are needed, got {tuple(positive.shape)} and {tuple(negative.shape)}",
    )
    return (margin + negative - positive).clamp_min(0).mean()


def triplets(
    z: Tensor,
    labels: Tensor,
    *,
    margin: float,
    mining: Mining,
    others: Tensor | None = None,
    other_labels: Tensor | None = None,
) -> Triplets:
    """The sums behind `triplet`, exact over all N^3 triplets in O(N^2 log N).

    The negatives of an anchor are sorted once by distance. For each positive the negatives of one
    kind are then a contiguous part of the sorted row, whose sum is a difference of two cumulative
    sums. These are kept in float64: the part may be a small fraction of a long row.

    Args:
        z: (N, V, D) or (N, D) unit rows.
        labels: (N,) int64.
        margin: > 0, in units of squared distance.
        mining: as `triplet`.
        others: (M, D) rows of other processes.
        other_labels: (M,) their labels.

    Returns:
        The sums and counts over the A anchors.

    Raises:
        ConfigError: as `triplet`.
    """
    check_margin(margin)
    if mining not in get_args(Mining):
        raise unknown("mining", mining, get_args(Mining))
    rows, names = _flat(z, labels)
    keys, key_names = _with_others(rows, names, others, other_labels)
    squares = squared_distances(rows, keys)
    same = names[:, None] == key_names
    positive = same & ~torch.eye(*same.shape, dtype=torch.bool, device=same.device)
    # negatives, nearest first, then infinities
    far = squares.masked_fill(same, float("inf")).sort(1).values
    beyond = (~same).sum(1, keepdim=True)
    with torch.no_grad():
        # how many negatives have d_an <= d_ap, and d_an < d_ap + margin
        nearer = torch.searchsorted(far, squares.contiguous(), right=True)
        within = torch.searchsorted(far, (squares + margin).contiguous())
        nearer, within = torch.minimum(nearer, beyond), torch.minimum(within, beyond)
        hard, semi = (nearer * positive).sum(), ((within - nearer) * positive).sum()
        easy = ((beyond - within) * positive).sum()
    if mining == "batch-hard":
        farthest = squares.masked_fill(~positive, -1.0).amax(1)
        losses = farthest - far[:, 0] + margin
        # not "losses > 0": NaN must stay visible
        active = positive.any(1) & (beyond[:, 0] > 0) & ~(losses <= 0)
        return Triplets(torch.where(active, losses, 0.0).sum(), active.sum(), easy, semi, hard)
    low, high = {
        "all": (torch.zeros_like(within), within),
        "hard": (torch.zeros_like(within), nearer),
    }.get(mining, (nearer, within))
    summed = F.pad(far.masked_fill(far.isinf(), 0.0).double().cumsum(1), (1, 0))
    count = (high - low) * positive
    distances = (summed.gather(1, high) - summed.gather(1, low)) * positive
    loss = (count * (squares.double() + margin) - distances).sum().to(squares.dtype)
    return Triplets(loss, count.sum(), easy, semi, hard)


def _flat(z: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Rows (A, D) and their labels (A,) of (N, V, D) or (N, D); half precision as float32."""
    require(
        z.ndim in (2, 3) and labels.shape == (len(z),) and len(z) > 0,
        "rows (N, D) or (N, V, D) and N labels are needed, "
        f"got {tuple(z.shape)} and {tuple(labels.shape)}",
    )
    z = tiled.same_precision(z, z)[0]
    return (z, labels) if z.ndim == 2 else (z.flatten(0, 1), labels.repeat_interleave(z.shape[1]))


def _with_others(
    rows: Tensor, names: Tensor, others: Tensor | None, other_labels: Tensor | None
) -> tuple[Tensor, Tensor]:
    if others is None or other_labels is None:
        return rows, names
    return torch.cat([rows, others.to(rows.dtype)]), torch.cat([names, other_labels])


def _groups(names: Tensor, key_names: Tensor) -> tuple[Tensor, Tensor]:
    """How many keys have the label of each anchor (A,), and each key's group number (A + M,)."""
    _, group, counts = torch.unique(key_names, return_inverse=True, return_counts=True)
    return counts[group[: len(names)]], group
