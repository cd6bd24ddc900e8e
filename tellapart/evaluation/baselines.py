"""What an encoder has to beat: the pixels themselves, and the same network before training."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional as F

from ..data import ImageSource
from ..embeddings import Embeddings
from ..views.images import centre_view

SIDE = 32  # larger views are averaged down to this many pixels a side


def pixels(train: ImageSource, test: ImageSource) -> tuple[Embeddings, Embeddings]:
    """Raw pixels of the evaluation view, minus the mean picture of the training part."""
    first, second = _flat(train), _flat(test)
    mean = first.mean(0)
    about = {"data": train.name, "fingerprint": train.fingerprint, "output": "centred pixels"}
    return (
        Embeddings(first - mean, train.ids, train.labels, about),
        Embeddings(second - mean, test.ids, test.labels, about),
    )


def _flat(source: ImageSource) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    out = []
    for index in torch.arange(len(source)).split(512):
        view = centre_view(source.read(index), source.image_size)
        if source.image_size > SIDE:
            view = F.interpolate(view, size=(SIDE, SIDE), mode="area")
        out.append(view.flatten(1))
    return torch.cat(out).numpy()
