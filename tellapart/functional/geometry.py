"""Label-free measures of a set of embeddings: where the points lie on the sphere, and how many ways they vary.

Shapes: N items, V views, D width, K neighbours.
"""

from __future__ import annotations

from typing import Any, overload

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import require
from . import top_k

SMALLEST_NORM = 1e-12  # below it a row counts as zero and stays as it is


@overload
def unit_rows(rows: Tensor) -> Tensor: ...
@overload
def unit_rows(rows: npt.NDArray[Any]) -> npt.NDArray[Any]: ...
def unit_rows(rows: Tensor | npt.NDArray[Any]) -> Tensor | npt.NDArray[Any]:
    """Scale every vector along the last axis to Euclidean length 1.

    The one place where vectors are put on the unit sphere: inner products of the result are cosines.

    Args:
        rows: (..., D) floating-point tensor or NumPy array; it is not changed. Half precision and
            integers are computed and returned in float32; float32 and float64 are kept.

    Returns:
        Rows of the same shape and library. A zero vector stays zero. Tensors keep their gradient.

    >>> unit_rows(torch.tensor([[3.0, 4.0], [0.0, 0.0]]))
    tensor([[0.6000, 0.8000],
            [0.0000, 0.0000]])
    """
    if isinstance(rows, Tensor):
        wide = rows if rows.dtype in (torch.float32, torch.float64) else rows.float()
        return F.normalize(wide, dim=-1, eps=SMALLEST_NORM)
    kept = rows.dtype in (np.float32, np.float64)
    values = np.asarray(rows) if kept else np.asarray(rows, dtype=np.float32)
    length = np.linalg.norm(values, axis=-1, keepdims=True)
    scaled: npt.NDArray[Any] = values / np.maximum(length, SMALLEST_NORM)
    return scaled


def alignment(a: Tensor, b: Tensor, *, alpha: float = 2) -> Tensor:
    """Mean distance between two embeddings of the same item: E |a - b|^alpha.

    Args: a, b (N, D) unit rows, row i of both from one item; alpha > 0.
    Returns: scalar in [0, 2^alpha]; 0 when both views land on one point.
    Source: Wang & Isola 2020 (arXiv 2005.10242), eq. 3.

    >>> alignment(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]]))
    tensor(2.0000)
    """
    require(
        a.shape == b.shape and len(a) > 0,
        f"two (N, D) are needed, got {tuple(a.shape)}, {tuple(b.shape)}",
    )
    distance: Tensor = torch.linalg.vector_norm(a - b, dim=1)
    return distance.pow(alpha).mean()


def uniformity(z: Tensor, *, t: float = 2) -> Tensor:
    """log of the mean over the pairs i < j of exp(-t |z_i - z_j|^2): the lower, the more evenly spread.

    Args: z (N, D) unit rows, N >= 2; t > 0.
    Returns: scalar in [-4t, 0]; 0 when all points coincide, about -2t for points spread evenly in many
        dimensions.
    Source: Wang & Isola 2020, eq. 4.

    >>> uniformity(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]))   # one pair at distance 2: -t 2^2
    tensor(-8.)
    """
    require(len(z) >= 2, f"uniformity needs two points or more, got {len(z)}")
    squared = torch.pdist(z, p=2).square().mul(-t)
    return torch.logsumexp(squared, 0) - torch.log(z.new_tensor(float(len(squared))))


def effective_rank(z: Tensor) -> Tensor:
    """RankMe: exp of the entropy of the singular values, the number of directions that carry the set.

    Args: z (N, D).
    Returns: scalar in [1, min(N, D)]; 1 when all points lie on one line through the origin.
    Source: Garrido et al. 2023 (arXiv 2210.02885), eq. 1; Roy & Vetterli 2007.

    >>> round(float(effective_rank(torch.eye(3))), 3)
    3.0
    """
    return _entropy_rank(torch.linalg.svdvals(z.float()))


def relative_std(z: Tensor) -> Tensor:
    """Spread of the points around their mean, sqrt(E |z - mean|^2): 0 when collapsed, 1 when centred.

    Args: z (N, D) unit rows.
    Returns: scalar in [0, 1]: sqrt(1 - |mean|^2).

    >>> relative_std(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]))
    tensor(1.)
    """
    return (z - z.mean(0)).square().sum(1).mean().sqrt()


def lidar(z: Tensor, *, delta: float = 1e-4) -> Tensor:
    """LiDAR: the effective rank of what tells items apart, measured in units of what views of one item vary by.

    exp of the entropy of the eigenvalues of S_w^-1/2 S_b S_w^-1/2: S_b the covariance of the items' means, S_w that
    of the views around them plus delta I.

    Args: z (N, V, D), V >= 2 views of each item; delta > 0, in squared units of z.
    Returns: scalar in [1, min(N - 1, D)].
    Source: Thilak et al. 2023 (arXiv 2312.04000), eq. 1 to 3.

    >>> items = torch.eye(3)[:, None].expand(3, 2, 3)       # three items in a plane, views that coincide
    >>> round(float(lidar(items)), 3)
    2.0
    """
    require(
        z.ndim == 3 and z.shape[1] >= 2 and len(z) >= 2,
        f"(N, V, D) with two views or more, got {tuple(z.shape)}",
    )
    z = z.double()
    centre = z.mean(1)
    between = (centre - centre.mean(0)).T @ (centre - centre.mean(0)) / len(z)
    around = (z - centre[:, None]).flatten(0, 1)
    within = around.T @ around / len(around) + delta * torch.eye(
        z.shape[2], dtype=z.dtype, device=z.device
    )
    root = torch.linalg.cholesky(within)
    whitened = torch.linalg.solve_triangular(root, between, upper=False)
    whitened = torch.linalg.solve_triangular(
        root, whitened.T, upper=False
    )  # the eigenvalues of the symmetric form
    return _entropy_rank(torch.linalg.eigvalsh((whitened + whitened.T) / 2).clamp_min(0)).float()


def alpha_req(z: Tensor) -> Tensor:
    """alpha-ReQ: how fast the spectrum falls, the slope of log eigenvalue over log rank with its sign turned.

    Args: z (N, D), N >= 3. Eigenvalues of the covariance below 1e-6 of the largest are left out.
    Returns: scalar >= 0; 0 for a flat spectrum, 1 for eigenvalues 1, 1/2, 1/3, ...; the paper finds about 1 best.
    Source: Agrawal et al. 2022 (arXiv 2202.05808), sec. 3.

    >>> points = torch.diag(torch.tensor([1.0, 2.0, 3.0, 4.0])).rsqrt().nan_to_num(posinf=0.0)
    >>> round(float(alpha_req(torch.cat([points, -points]))), 3)      # covariance in ratios 1, 1/2, 1/3, 1/4
    1.0
    """
    require(len(z) >= 3, f"alpha-ReQ needs three points or more, got {len(z)}")
    value = torch.linalg.svdvals((z - z.mean(0)).double()).square()
    value = value[value > 1e-6 * value[0]]
    if len(value) < 2:
        return z.new_tensor(float("inf"))  # one direction carries everything
    rank = torch.arange(1, len(value) + 1, dtype=value.dtype, device=value.device).log()
    rank, height = rank - rank.mean(), value.log() - value.log().mean()
    slope: Tensor = (rank * height).sum() / rank.square().sum()
    return -slope.float()


def hubness(z: Tensor, *, k: int = 10) -> Tensor:
    """Skewness of how often an item is among the k nearest of the others: a few hubs make it large.

    Args: z (N, D) unit rows, N > k.
    Returns: scalar; 0 when every item is as often a neighbour.
    Source: Radovanovic et al. 2010 (JMLR 11), eq. 1.

    >>> hubness(torch.eye(4).repeat_interleave(2, 0), k=1)      # pairs: each is the nearest of one
    tensor(0.)
    """
    count = torch.bincount(top_k.top_k_of_others(z, k)[1].flatten(), minlength=len(z)).float()
    spread = count - count.mean()
    return spread.pow(3).mean() / spread.square().mean().clamp_min(1e-12).pow(1.5)


def neighbour_agreement(a: Tensor, b: Tensor, *, k: int = 10) -> Tensor:
    """Share of an item's k nearest that stay when every item is seen in another view.

    Args: a, b (N, D) unit rows, row i of both from one item; N > k.
    Returns: scalar in [0, 1]; about k / (N - 1) for unrelated views.

    >>> z = torch.nn.functional.normalize(torch.randn(20, 3, generator=torch.Generator().manual_seed(0)), dim=1)
    >>> neighbour_agreement(z, z, k=5)
    tensor(1.)
    """
    require(a.shape == b.shape, f"two (N, D) are needed, got {tuple(a.shape)}, {tuple(b.shape)}")
    first, second = top_k.top_k_of_others(a, k)[1], top_k.top_k_of_others(b, k)[1]
    return (first[:, :, None] == second[:, None, :]).any(2).float().mean()


def view_retrieval(a: Tensor, b: Tensor) -> Tensor:
    """Share of items whose view in `a` has the item's own view in `b` as its nearest of all N.

    Args: a, b (N, D) unit rows, row i of both from one item.
    Returns: scalar in [0, 1]; 1 / N by chance. Ties count as misses.
    Source: the pretext accuracy of Wu et al. 2018 and SimCLR (app. B), with N fixed instead of the batch.

    >>> view_retrieval(torch.eye(3), torch.eye(3))
    tensor(1.)
    """
    require(
        a.shape == b.shape and len(a) > 0,
        f"two (N, D) are needed, got {tuple(a.shape)}, {tuple(b.shape)}",
    )
    return found_again(a, b).float().mean()


def found_again(a: Tensor, b: Tensor) -> Tensor:
    """(N,) bool: of which items `view_retrieval` finds the other view."""
    rivals = a @ b.T
    own = (
        rivals.diagonal().clone()
    )  # of the same product: rounding must not decide between equal rows
    rivals.fill_diagonal_(-torch.inf)
    return own > rivals.amax(1)


def _entropy_rank(weight: Tensor) -> Tensor:
    """exp of the entropy of non-negative weights."""
    p = weight / weight.sum().clamp_min(1e-12)
    return torch.exp(-(p * (p + 1e-12).log()).sum())
