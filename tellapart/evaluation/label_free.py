"""What can be measured without a label: how the points lie, and whether views of one item find each other.

None of it tells which of two encoders is better for a task; studies/unlabelled.json says how far it can be trusted.
Shapes: N items, V views, D width.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..embeddings.embeddings import Embeddings
from ..functional import geometry
from . import bootstrap

SAMPLE = 2048  # items that the measures of single vectors are taken on
ITEMS, VIEWS = 1000, 4  # of the measures that compare views
NEIGHBOURS = 10


def of_vectors(items: Embeddings) -> dict[str, float]:
    """Measures of one vector per item, on up to 2,048 of them, normalised here.

    Returns:
        "uniformity", "effective rank", "alpha-ReQ", "std", and "hubness" where there are more than ten items.
    """
    if len(items) < 2:
        return {}
    z = F.normalize(torch.from_numpy(np.array(items.at_most(SAMPLE).vectors)), dim=1)
    found = {
        "uniformity": geometry.uniformity(z),
        "effective rank": geometry.effective_rank(z),
        "std": geometry.relative_std(z),
    }
    if len(z) > 2:
        found["alpha-ReQ"] = geometry.alpha_req(z)
    if len(z) > NEIGHBOURS:
        found["hubness"] = geometry.hubness(z, k=NEIGHBOURS)
    return {name: float(value) for name, value in found.items() if torch.isfinite(value)}


def of_views(z: Tensor) -> dict[str, float]:
    """Measures over views (N, V, D) of the same items, V >= 2, normalised here.

    Returns:
        "alignment", "LiDAR", "view retrieval", and "neighbour agreement" where there are more than ten items. Pairs
        of views are the first and second.
    """
    if len(z) < 2:
        return {}
    z = F.normalize(z.float(), dim=2)
    a, b = z[:, 0], z[:, 1]
    found = {
        "alignment": geometry.alignment(a, b),
        "LiDAR": geometry.lidar(z),
        "view retrieval": geometry.view_retrieval(a, b),
    }
    if len(z) > NEIGHBOURS:
        found["neighbour agreement"] = geometry.neighbour_agreement(a, b, k=NEIGHBOURS)
    return {name: float(value) for name, value in found.items()}


def view_retrieval(z: Tensor) -> np.ndarray[Any, Any]:
    """(N,) 1 where the first view of an item finds its second among those of all items, else 0."""
    z = F.normalize(z.float(), dim=2)
    return geometry.found_again(z[:, 0], z[:, 1]).numpy().astype(float)


def verdict(
    found: Mapping[str, np.ndarray[Any, Any]], baselines: tuple[str, ...], row: str, labels: str
) -> str:
    """What view retrieval says of a row beside the baselines, and what it cannot say.

    Args:
        found: row -> what `view_retrieval` gave. labels: the command that judges with a few labels.
    """
    sentence = ""
    if row in found:
        items, weights = len(found[row]), bootstrap.resamples(len(found[row]))
        best = max(
            (b for b in baselines if b in found), key=lambda b: found[b].mean(), default=None
        )
        sentence = f"From one view the other is found among {items:,} items in {found[row].mean():.1%} of cases"
        if best:
            c = bootstrap.compare("view retrieval", (row, found[row]), (best, found[best]), weights)
            sentence += (
                f", {best} {found[best].mean():.1%} ({c.difference * 100:+.1f} points, 95 % interval "
                f"{c.low * 100:+.1f} to {c.high * 100:+.1f})"
            )
        sentence += ". "
    five, ten = bootstrap.items_needed(0.05), bootstrap.items_needed(0.1)
    return (
        f"{sentence}There are no labels here, so nothing can tell which row is better for your task. Label about {ten} "
        f"items to show a difference of 10 points of accuracy, {five} for 5 (lines of `id,label`), and judge on them: "
        f"{labels}"
    )
