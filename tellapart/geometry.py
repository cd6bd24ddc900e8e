"""Label-free measures of a set of embeddings: where the points lie on the sphere, and how many ways they vary.

Shapes: N items, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .errors import require


def alignment(a: Tensor, b: Tensor, *, alpha: float = 2) -> Tensor:
    """Mean distance between two embeddings of the same item: E |a - b|^alpha.

    Args: a, b (N, D) unit rows, row i of both from one item; alpha > 0.
    Returns: scalar in [0, 2^alpha]; 0 when both views land on one point.
    Source: Wang & Isola 2020 (arXiv 2005.10242), eq. 3.

    >>> alignment(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]]))
    tensor(2.0000)
    """
    require(a.shape == b.shape and len(a) > 0, f"two (N, D) are needed, got {tuple(a.shape)}, {tuple(b.shape)}")
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
    s = torch.linalg.svdvals(z.float())
    p = s / s.sum().clamp_min(1e-12)
    return torch.exp(-(p * (p + 1e-12).log()).sum())


def relative_std(z: Tensor) -> Tensor:
    """Spread of the points around their mean, sqrt(E |z - mean|^2): 0 when collapsed, 1 when centred.

    Args: z (N, D) unit rows.
    Returns: scalar in [0, 1]: sqrt(1 - |mean|^2).

    >>> relative_std(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]))
    tensor(1.)
    """
    return (z - z.mean(0)).square().sum(1).mean().sqrt()
