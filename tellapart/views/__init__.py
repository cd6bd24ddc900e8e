"""Random views of a batch, and the one view of evaluation, by the kind of the data."""

from __future__ import annotations

from typing import Any

from ..data import ImageSource, SequenceSource, Source, TextSource
from . import audio, images


def plain(source: Source, batch: Any) -> Any:
    """The view of evaluation of a batch that `source` read: nothing random."""
    if isinstance(source, ImageSource):
        return images.centre_view(batch, source.image_size)
    if isinstance(source, SequenceSource):
        return audio.whole(batch)
    return single(source, batch)


def single(source: Source, batch: Any) -> Any:
    """Of pairs of sentences (N, V, L) the first one (N, L); all else as it is."""
    if isinstance(source, TextSource) and source.columns > 1:
        return {name: value[:, 0] for name, value in batch.items()}
    return batch
