"""The view of evaluation: nothing random, by the kind of the data."""

from __future__ import annotations

from typing import Any

from ..data import ImageSource, SequenceSource, Source, TextSource
from . import audio, images


def evaluation_view(source: Source, batch: Any) -> Any:
    """The view of evaluation of a batch.

    Args:
        source: the source that read the batch.
        batch: what `source.read` returned.

    Returns:
        Images (N, C, P, P) in [0, 1], whole sequences, or the tokens of the first sentence of each item.
    """
    if isinstance(source, ImageSource):
        return images.centre_view(batch, source.image_size)
    if isinstance(source, SequenceSource):
        return audio.whole(batch)
    return first_view(source, batch)


def first_view(source: Source, batch: Any) -> Any:
    """Of pairs of sentences (N, V, L) the first one (N, L); any other batch as it is."""
    if isinstance(source, TextSource) and source.columns > 1:
        return {name: value[:, 0] for name, value in batch.items()}
    return batch
