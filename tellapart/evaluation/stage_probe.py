"""Feature maps of every stage of a backbone as vectors, for a linear classifier at each depth."""

from __future__ import annotations

import math

import torch
from torch.nn import functional as F

from ..data import ImageSource
from ..embeddings.embeddings import Embeddings
from ..encoders import Encoder
from ..encoders.inference import run_over
from ..errors import require

DIMENSIONS = 1024


@torch.inference_mode()
def has_maps(encoder: Encoder, size: int) -> bool:
    """Whether the network gives feature maps (transformers of libraries may not).

    Args:
        encoder: in any mode.
        size: side of the view in pixels.
    """
    training, device = encoder.training, encoder.mean.device
    try:
        maps = encoder.eval().maps(torch.zeros(1, encoder.mean.numel(), size, size, device=device))
        return bool(maps) and all(m.ndim == 4 for m in maps)
    except Exception:  # networks of libraries fail in their own ways
        return False
    finally:
        encoder.train(training)


def stage_vectors(
    encoder: Encoder, source: ImageSource, *, dimensions: int = DIMENSIONS
) -> list[Embeddings]:
    """The map of each stage for every item, averaged to the largest grid of `dimensions` values.

    Args:
        encoder: in any mode.
        source: images.
        dimensions: 1 or more; a stage with more channels keeps one value per channel.

    Returns:
        One `Embeddings` per stage, the first stage first.

    Source: Wu et al. 2018, Table 2 (there about 10,000 dimensions).
    """
    require(dimensions >= 1, f"a stage needs 1 dimension or more, got {dimensions}")

    def pooled(view: torch.Tensor, _: torch.Tensor) -> list[torch.Tensor]:
        vectors = []
        for stage in encoder.maps(view):
            fitting = max(1, math.isqrt(dimensions // stage.shape[1]))
            side = min(stage.shape[2], stage.shape[3], fitting)
            vectors.append(F.adaptive_avg_pool2d(stage, side).flatten(1).float().cpu())
        return vectors

    batches = run_over(pooled, source, module=encoder, device=encoder.mean.device, parallel=True)
    return [
        Embeddings(torch.cat(stage), source.ids, source.labels)
        for stage in zip(*batches, strict=True)
    ]
