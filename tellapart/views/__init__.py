"""Random views of a batch, and the one view of evaluation, by the kind of the data."""

from __future__ import annotations

from typing import Any

from ..data import ImageSource, SequenceSource, Source
from . import audio, images


def plain(source: Source, batch: Any) -> Any:
    """The view of evaluation of a batch that `source` read: nothing random; of a pair of sentences the first."""
    if isinstance(source, ImageSource):
        return images.centre_view(batch, source.image_size)
    if isinstance(source, SequenceSource):
        return audio.whole(batch)
    return {name: value[:, 0] for name, value in batch.items()} if batch["ids"].ndim == 3 else batch
