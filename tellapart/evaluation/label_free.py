"""Measures that need no label: geometry of the vectors, and agreement between views of an item.

None of them tells which of two encoders is better for a task; studies/unlabelled.json measures how
far they can be trusted.

Shapes: N items, V views, D width.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..embeddings.embeddings import Embeddings
from ..functional import geometry
from . import bootstrap
from .intervals import Intervals
from .verdicts import against, percent

SAMPLE = 2048  # items that the measures of single vectors are taken on
ITEMS, VIEWS = 1000, 4  # of the measures that compare views
NEIGHBOURS = 10


def of_vectors(items: Embeddings) -> dict[str, float]:
    """Measures of one vector per item, on up to 2,048 items; vectors are normalised here.

    Args:
        items: the vectors; of fewer than two items nothing is measured.

    Returns:
        "uniformity", "effective rank", "alpha-ReQ", "std", and "hubness" where there are more than
        ten items.
    """
    if len(items) < 2:
        return {}
    z = geometry.unit_rows(torch.from_numpy(np.array(items.at_most(SAMPLE).vectors)))
    measures = {
        "uniformity": geometry.uniformity(z),
        "effective rank": geometry.effective_rank(z),
        "std": geometry.relative_std(z),
    }
    if len(z) > 2:
        measures["alpha-ReQ"] = geometry.alpha_req(z)
    if len(z) > NEIGHBOURS:
        measures["hubness"] = geometry.hubness(z, k=NEIGHBOURS)
    return {name: float(value) for name, value in measures.items() if torch.isfinite(value)}


def of_views(z: Tensor) -> dict[str, float]:
    """Measures over several views of the same items; vectors are normalised here.

    Args:
        z: (N, V, D), V >= 2.

    Returns:
        "alignment", "LiDAR", "view retrieval", and "neighbour agreement" where there are more than
        ten items. Pairs of views are the first and the second.
    """
    if len(z) < 2:
        return {}
    z = geometry.unit_rows(z)
    a, b = z[:, 0], z[:, 1]
    measures = {
        "alignment": geometry.alignment(a, b),
        "LiDAR": geometry.lidar(z),
        "view retrieval": geometry.view_retrieval(a, b),
    }
    if len(z) > NEIGHBOURS:
        measures["neighbour agreement"] = geometry.neighbour_agreement(a, b, k=NEIGHBOURS)
    return {name: float(value) for name, value in measures.items()}


def view_retrieval(z: Tensor) -> np.ndarray[Any, Any]:
    """Whether the first view of each item has its second view as the nearest of all second views.

    Args:
        z: (N, V, D), V >= 2.

    Returns:
        (N,) 1.0 or 0.0.
    """
    z = geometry.unit_rows(z)
    return geometry.found_again(z[:, 0], z[:, 1]).numpy().astype(float)


def verdict(
    measures: Mapping[str, np.ndarray[Any, Any]],
    baselines: tuple[str, ...],
    row: str,
    command: str,
    measure: Intervals,
) -> str:
    """The verdict of view retrieval on a row beside the baselines, with its limits.

    Args:
        measures: row -> what `view_retrieval` gave.
        baselines: the rows to compare with.
        row: the row of the verdict.
        command: the command that evaluates with a few labels.
        measure: the intervals of the protocol.
    """
    sentence = ""
    if row in measures:
        best = max(
            (b for b in baselines if b in measures), key=lambda b: measures[b].mean(), default=None
        )
        sentence = (
            f"View retrieval among {len(measures[row]):,} items (one random view finds the other "
            f"view of its item): {percent(measures[row].mean())}"
        )
        if best:
            c = measure.compare("view retrieval", (row, measures[row]), (best, measures[best]))
            sentence += f", {against(c)}"
        sentence += ". "
    five, ten = bootstrap.items_needed(0.05), bootstrap.items_needed(0.1)
    return (
        f"{sentence}Without labels nothing can tell which row is better for your task. Label about "
        f"{ten} items to show a difference of 10 points of accuracy, {five} for 5 points (lines of "
        f"`id,label`), and evaluate on them: {command}"
    )
