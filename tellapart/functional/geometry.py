"""Label-free measures of a set of embeddings: their place on the sphere and their dimensions.

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

    Inner products of the result are cosines. All code that needs unit vectors calls this.

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
    """Mean distance of two embeddings of the same item: E |a - b|^alpha.

    Args:
        a: (N, D) unit rows.
        b: (N, D) unit rows; row i of both is from one item.
        alpha: > 0.

    Returns:
        Scalar in [0, 2^alpha]; 0 if both views have equal embeddings.

    Raises:
        ConfigError: shapes that do not match.

    Source:
        Wang & Isola 2020 (arXiv 2005.10242), eq. 3.

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
    """log of the mean over the pairs i < j of exp(-t |z_i - z_j|^2): lower is more uniform.

    Args:
        z: (N, D) unit rows, N >= 2.
        t: > 0.

    Returns:
        Scalar in [-4t, 0]; 0 if all points coincide, about -2t for points spread evenly in many
        dimensions.

    Raises:
        ConfigError: fewer than two points.

    Source:
        Wang & Isola 2020 (arXiv 2005.10242), eq. 4.

    >>> uniformity(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]))   # one pair at distance 2: -t 2^2
    tensor(-8.)
    """
    require(len(z) >= 2, f"uniformity needs two points or more, got {len(z)}")
    squared = torch.pdist(z, p=2).square().mul(-t)
    return torch.logsumexp(squared, 0) - torch.log(z.new_tensor(float(len(squared))))


def effective_rank(z: Tensor) -> Tensor:
    """RankMe: exp of the entropy of the singular values, the effective number of dimensions.

    Args:
        z: (N, D).

    Returns:
        Scalar in [1, min(N, D)]; 1 if all points lie on one line through the origin.

    Source:
        Garrido et al. 2023 (arXiv 2210.02885), eq. 1; Roy & Vetterli 2007.

    >>> round(float(effective_rank(torch.eye(3))), 3)
    3.0
    """
    return _entropy_rank(torch.linalg.svdvals(z.float()))


def relative_std(z: Tensor) -> Tensor:
    """Spread of the points around their mean: sqrt(E |z - mean|^2).

    Args:
        z: (N, D) unit rows.

    Returns:
        Scalar sqrt(1 - |mean|^2) in [0, 1]; 0 if collapsed, 1 if the mean is 0.

    >>> relative_std(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]))
    tensor(1.)
    """
    return (z - z.mean(0)).square().sum(1).mean().sqrt()


def lidar(z: Tensor, *, delta: float = 1e-4) -> Tensor:
    """LiDAR: the effective rank of the differences between items, relative to those between views.

    exp of the entropy of the eigenvalues of S_w^-1/2 S_b S_w^-1/2, where S_b is the covariance of
    the means of the items, and S_w that of the views around them plus delta I.

    Args:
        z: (N, V, D), V >= 2 views of each of N >= 2 items.
        delta: > 0, in squared units of z.

    Returns:
        Scalar in [1, min(N - 1, D)].

    Raises:
        ConfigError: fewer than two items or views.

    Source:
        Thilak et al. 2023 (arXiv 2312.04000), eq. 1 to 3.

    >>> items = torch.eye(3)[:, None].expand(3, 2, 3)   # three items in a plane, equal views
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
    """alpha-ReQ: minus the slope of log eigenvalue over log rank of the covariance.

    Args:
        z: (N, D), N >= 3. Eigenvalues below 1e-6 of the largest are left out.

    Returns:
        Scalar >= 0: 0 for a flat spectrum, 1 for eigenvalues 1, 1/2, 1/3, ...; infinite if one
        direction carries everything. The paper finds values near 1 best.

    Raises:
        ConfigError: fewer than three points.

    Source:
        Agrawal et al. 2022 (arXiv 2202.05808), sec. 3.

    >>> points = torch.diag(torch.tensor([1.0, 2.0, 3.0, 4.0])).rsqrt().nan_to_num(posinf=0.0)
    >>> round(float(alpha_req(torch.cat([points, -points]))), 3)   # eigenvalues 1, 1/2, 1/3, 1/4
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
    """Skewness of how often an item is among the k nearest of the others: high with a few hubs.

    Args:
        z: (N, D) unit rows, N > k.
        k: number of neighbours, >= 1.

    Returns:
        Scalar; 0 if every item is equally often a neighbour.

    Raises:
        ConfigError: k outside 1..N - 1.

    Source:
        Radovanovic et al. 2010 (JMLR 11), eq. 1.

    >>> hubness(torch.eye(4).repeat_interleave(2, 0), k=1)   # pairs: each is the nearest of one
    tensor(0.)
    """
    count = torch.bincount(top_k.top_k_of_others(z, k)[1].flatten(), minlength=len(z)).float()
    spread = count - count.mean()
    return spread.pow(3).mean() / spread.square().mean().clamp_min(1e-12).pow(1.5)


def neighbour_agreement(a: Tensor, b: Tensor, *, k: int = 10) -> Tensor:
    """Share of the k nearest neighbours of an item that two views have in common.

    Args:
        a: (N, D) unit rows, N > k.
        b: (N, D) unit rows; row i of both is from one item.
        k: number of neighbours, >= 1.

    Returns:
        Scalar in [0, 1]; k / (N - 1) is expected of unrelated views.

    Raises:
        ConfigError: shapes that do not match, or k outside 1..N - 1.

    >>> draw = torch.Generator().manual_seed(0)
    >>> z = F.normalize(torch.randn(20, 3, generator=draw), dim=1)
    >>> neighbour_agreement(z, z, k=5)
    tensor(1.)
    """
    require(a.shape == b.shape, f"two (N, D) are needed, got {tuple(a.shape)}, {tuple(b.shape)}")
    first, second = top_k.top_k_of_others(a, k)[1], top_k.top_k_of_others(b, k)[1]
    return (first[:, :, None] == second[:, None, :]).any(2).float().mean()


def view_retrieval(a: Tensor, b: Tensor) -> Tensor:
    """Share of items in `a` whose nearest of all N rows of `b` is the item's own.

    Args:
        a: (N, D) unit rows.
        b: (N, D) unit rows; row i of both is from one item.

    Returns:
        Scalar in [0, 1]; 1 / N by chance. Ties count as misses.

    Raises:
        ConfigError: shapes that do not match.

    Source:
        The pretext accuracy of Wu et al. 2018 and SimCLR (appendix B), over a fixed N instead of
        the batch.

    >>> view_retrieval(torch.eye(3), torch.eye(3))
    tensor(1.)
    """
    require(
        a.shape == b.shape and len(a) > 0,
        f"two (N, D) are needed, got {tuple(a.shape)}, {tuple(b.shape)}",
    )
    return found_again(a, b).float().mean()


def found_again(a: Tensor, b: Tensor) -> Tensor:
    """Which items `view_retrieval` counts.

    Args:
        a: (N, D) unit rows.
        b: (N, D) unit rows.

    Returns:
        (N,) bool.
    """
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
