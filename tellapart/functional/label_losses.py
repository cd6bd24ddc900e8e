"""Losses over pairs and triplets that labels make: supervised contrastive, margin, triplet. Pure functions.

Labels may be classes, or instance ids where views of an image are the only positives. Where a function takes
`others`, those are the rows of other processes: compared with, not anchors.
Shapes: N rows, V views, D embedding width, M further rows. Source of each formula: its docstring.
"""

from __future__ import annotations

from typing import NamedTuple, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import require, unknown
from . import tiled
from .choices import Mining as Mining
from .choices import Reduction as Reduction


def sup_con(
    z: Tensor, labels: Tensor, *, temperature: float = 0.1, reduction: Reduction = "out"
) -> Tensor:
    """Supervised contrastive loss: every row of the same label is a positive.

    "out": -1/|P(i)| sum_{p in P(i)} log [exp(z_i . z_p / tau) / sum_{a != i} exp(z_i . z_a / tau)];
    "in": the mean over positives stands inside the logarithm. in <= out, equal for one positive.

    Args:
        z: (N, V, D), V views of N instances, or (N, D); unit rows. labels: (N,) int64.
        temperature: tau > 0. reduction: "out" or "in".
    Returns:
        Scalar, the mean over the anchors that have a positive; 0, with gradient, if none has. All rows equal, A rows
        in all: ln(A - 1) (chance). The authors' code multiplies by tau / 0.07.
    Raises:
        ConfigError: temperature <= 0, a label short, or another reduction.
    Source: Khosla et al. 2020 (arXiv 2004.11362), eq. 2 and 3.
    Relations: with instance ids as labels and two views it is `nt_xent`.

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
    """`sup_con` of each anchor (A,), A = N V, and whether it has a positive (A,); others: (M, D), (M,)."""
    tiled.check_temperature(temperature)
    if reduction not in get_args(Reduction):
        raise unknown("reduction", reduction, get_args(Reduction))
    rows, names = _flat(z, labels)
    keys, key_names = _with_others(rows, names, others, other_labels)
    same, group = _groups(names, key_names)
    count = same - 1  # positives of an anchor
    valid = count > 0
    log_all = tiled.logsumexp(rows, keys, temperature=temperature, exclude_self=True)
    if reduction == "in":
        log_own = tiled.logsumexp(
            rows, keys, temperature=temperature, exclude_self=True, labels=key_names
        )
        return torch.where(
            valid, log_all - log_own + count.clamp_min(1).to(rows.dtype).log(), 0.0
        ), valid
    sums = keys.new_zeros(int(group.max()) + 1, keys.shape[1]).index_add(0, group, keys)
    positives = sums[group[: len(rows)]] - rows
    return log_all - (rows * positives).sum(1) / temperature / count.clamp_min(1), valid


def margin_contrastive(a: Tensor, b: Tensor, same: Tensor, *, margin: float = 1.0) -> Tensor:
    """The spring loss: similar pairs attract as 1/2 d^2, others repel as 1/2 max(0, margin - d)^2.

    Args:
        a, b: (N, D), any rows. same: (N,) bool, whether the pair is similar.
        margin: > 0, in the units of the distance d = |a - b|; beyond it a pair exerts no force.
    Returns:
        Scalar, the mean over pairs. A dissimilar pair at distance 0 costs margin^2 / 2 and has gradient 0.
    Raises:
        ConfigError: margin <= 0 or shapes that do not match.
    Source: Hadsell, Chopra, LeCun 2006, eq. 4.

    >>> a, b = torch.tensor([[0.0, 0.0], [0.0, 0.0]]), torch.tensor([[0.6, 0.8], [0.3, 0.4]])
    >>> margin_contrastive(a, b, torch.tensor([True, False]))   # (1/2 + 1/2 (1 - 0.5)^2) / 2
    tensor(0.3125)
    """
    require(margin > 0, f"the margin must be above 0, got {margin}")
    require(
        a.ndim == 2 and a.shape == b.shape and same.shape == (len(a),) and len(a) > 0,
        f"pairs (N, D), (N, D) and (N,) are needed, got {tuple(a.shape)}, {tuple(b.shape)} and {tuple(same.shape)}",
    )
    a, b = tiled.same_precision(a, a)[0], tiled.same_precision(b, b)[0]
    return spring((a - b).square().sum(1), same.bool(), margin).mean()


def spring(squared: Tensor, same: Tensor, margin: float) -> Tensor:
    """1/2 d^2 where `same`, else 1/2 max(0, margin - d)^2, of squared distances of any shape."""
    apart = squared != 0
    d = (
        torch.where(apart, squared, 1.0).sqrt() * apart
    )  # the slope of a root at 0 is infinite; the force is 0
    return 0.5 * torch.where(same, squared, (margin - d).clamp_min(0).square())


def squared_distances(a: Tensor, b: Tensor) -> Tensor:
    """(N, M) |a_i - b_j|^2 by one matrix product, around the mean of b: distances do not feel it, rounding does."""
    centre = b.detach().mean(0)
    a, b = a - centre, b - centre
    with torch.autocast(a.device.type, enabled=False):
        return (a.square().sum(1)[:, None] + b.square().sum(1) - 2 * a @ b.T).clamp_min(0)


class Triplets(NamedTuple):
    """Sums over triplets: of the active ones' losses, their count, and how many are easy, semi-hard and hard."""

    loss: Tensor
    active: Tensor
    easy: Tensor
    semi_hard: Tensor
    hard: Tensor


def triplet(
    z: Tensor, labels: Tensor, *, margin: float = 0.2, mining: Mining = "semi-hard"
) -> Tensor:
    """max(0, |z_a - z_p|^2 - |z_a - z_n|^2 + margin) over triplets of an anchor, a positive and a negative.

    Args:
        z: (N, V, D) or (N, D) unit rows. labels: (N,).
        margin: > 0, of squared distances.
        mining: the triplets that count. "all"; "semi-hard": d_ap < d_an < d_ap + margin; "hard": d_an <= d_ap;
            "batch-hard": for each anchor its farthest positive with its nearest negative.
    Returns:
        Scalar, the mean over the chosen triplets of loss above 0; 0, with gradient, if there is none. All rows equal:
        margin (there "semi-hard" has none: 0).
    Raises:
        ConfigError: margin <= 0, a label short, or another mining.
    Source: Schroff et al. 2015 (arXiv 1503.03832), eq. 2-4; batch-hard: Hermans et al. 2017 (arXiv 1703.07737), eq. 5.

    >>> z = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])   # d_ap = 2; d_an = 4 and 2
    >>> triplet(z, torch.tensor([0, 0, 1]), mining="all")   # only the anchor at (0, 1) is active: 2 - 2 + 0.2
    tensor(0.2000)
    """
    found = triplets(z, labels, margin=margin, mining=mining)
    return found.loss / found.active.clamp_min(1)


def triplets(
    z: Tensor,
    labels: Tensor,
    *,
    margin: float,
    mining: Mining,
    others: Tensor | None = None,
    other_labels: Tensor | None = None,
) -> Triplets:
    """The sums behind `triplet`, exact over all N^3 triplets in N^2 log N.

    The negatives of an anchor are sorted once by distance; for each positive, those of a kind are then a stretch
    of the sorted row, whose sum is a difference of cumulated sums.
    """
    require(margin > 0, f"the margin must be above 0, got {margin}")
    if mining not in get_args(Mining):
        raise unknown("mining", mining, get_args(Mining))
    rows, names = _flat(z, labels)
    keys, key_names = _with_others(rows, names, others, other_labels)
    squares = squared_distances(rows, keys)
    same = names[:, None] == key_names
    positive = same & ~torch.eye(*same.shape, dtype=torch.bool, device=same.device)
    far = (
        squares.masked_fill(same, float("inf")).sort(1).values
    )  # negatives, nearest first, then infinities
    beyond = (~same).sum(1, keepdim=True)
    with torch.no_grad():
        nearer = torch.searchsorted(
            far, squares.contiguous(), right=True
        )  # negatives with d_an <= d_ap
        within = torch.searchsorted(
            far, (squares + margin).contiguous()
        )  # ... with d_an < d_ap + margin
        nearer, within = torch.minimum(nearer, beyond), torch.minimum(within, beyond)
        hard, semi = (nearer * positive).sum(), ((within - nearer) * positive).sum()
        easy = ((beyond - within) * positive).sum()
    if mining == "batch-hard":
        farthest = squares.masked_fill(~positive, -1.0).amax(1)
        losses = farthest - far[:, 0] + margin
        active = (
            positive.any(1) & (beyond[:, 0] > 0) & ~(losses <= 0)
        )  # what is not a number stays visible
        return Triplets(torch.where(active, losses, 0.0).sum(), active.sum(), easy, semi, hard)
    summed = F.pad(
        far.masked_fill(far.isinf(), 0.0).cumsum(1), (1, 0)
    )  # of the k nearest, k = 0 .. all
    low, high = {
        "all": (torch.zeros_like(within), within),
        "hard": (torch.zeros_like(within), nearer),
    }.get(mining, (nearer, within))
    count = (high - low) * positive
    distances = (summed.gather(1, high) - summed.gather(1, low)) * positive
    return Triplets((count * (squares + margin) - distances).sum(), count.sum(), easy, semi, hard)


def _flat(z: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Rows (A, D) and their labels (A,) of (N, V, D) or (N, D); half precision as float32."""
    require(
        z.ndim in (2, 3) and labels.shape == (len(z),) and len(z) > 0,
        f"rows (N, D) or (N, V, D) and N labels are needed, got {tuple(z.shape)} and {tuple(labels.shape)}",
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
    """How many keys have the label of each anchor (A,), and the number of each key's label (A + M,)."""
    _, group, counts = torch.unique(key_names, return_inverse=True, return_counts=True)
    return counts[group[: len(names)]], group
