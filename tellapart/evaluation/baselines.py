"""What an encoder has to beat without being one: the pixels themselves."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from ..data import ImageSource
from ..embeddings import Embeddings
from ..views.images import centre_view

SIDE = 32  # larger views are averaged down to this many pixels a side
BATCH = 512


class CentredPixels:
    """Raw pixels of a view minus the mean picture of the training part.

    Args: train: the part whose mean is taken, from its evaluation views.
    """

    def __init__(self, train: ImageSource) -> None:
        self.mean = torch.zeros(())
        self.mean = torch.stack([v.double().sum(0) for v in self._batches(train)]).sum(0).float() / len(train)

    def __call__(self, view: Tensor) -> Tensor:
        """(N, width) from views (N, C, P, P) in [0, 1]."""
        if view.shape[-1] > SIDE:
            view = F.interpolate(view, size=(SIDE, SIDE), mode="area")
        return view.flatten(1) - self.mean

    def embed(self, source: ImageSource) -> Embeddings:
        """The pixels of every item."""
        about = {"data": source.name, "fingerprint": source.fingerprint, "output": "centred pixels"}
        return Embeddings(torch.cat(list(self._batches(source))), source.ids, source.labels, about)

    def _batches(self, source: ImageSource) -> Iterator[Tensor]:
        """The vectors of a source, a batch at a time."""
        for index in torch.arange(len(source)).split(BATCH):
            yield self(centre_view(source.read(index), source.image_size))
