"""The deterministic view of evaluation, and parts of views.

A view is a tensor (N, ...) or a dict of such tensors.
"""

from __future__ import annotations

from typing import Any

from ..data import Source, modality_of


def evaluation_view(source: Source, batch: Any) -> Any:
    """The deterministic view of a batch, the one that every score and every search uses.

    Args:
        source: where the batch was read.
        batch: what `source.read` returned.

    Returns:
        Images (N, C, P, P) in [0, 1], whole sequences, or the tokens of the first sentence of each
        item.
    """
    return modality_of(source).evaluation_view(source, batch)


def first_view(source: Source, batch: Any) -> Any:
    """The first item of each pair, as a batch; the batch itself if the source has no pairs.

    Args:
        source: where the batch was read.
        batch: what `source.read` returned.
    """
    return modality_of(source).first_view(source, batch)


def take_rows(view: Any, start: int, stop: int) -> Any:
    """Rows `start` to `stop` of a view."""
    if isinstance(view, dict):
        return {name: value[start:stop] for name, value in view.items()}
    return view[start:stop]
