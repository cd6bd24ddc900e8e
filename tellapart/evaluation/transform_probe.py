"""Probe the projection head: can features and embedding tell which transform was applied?

Shapes: N images, C channels, P side of a view.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from ..data import ImageSource
from ..embeddings.embeddings import Embeddings
from ..encoders import Encoder
from ..encoders.inference import run_over
from ..views import colour
from .linear import linear_labels

ITEMS = 5000  # training images used, and a quarter as many test images
BATCH = 128
NOISE = 0.2  # standard deviation of the corrupted image
Change = Callable[
    [Tensor, Tensor, torch.Generator], Tensor
]  # views (N, C, P, P), kind (N,), -> changed views


def what_is_discarded(
    encoder: Encoder, train: ImageSource, test: ImageSource
) -> dict[str, dict[str, float]]:
    """Accuracy of a logistic regression that names the transform, from h (features) and z (head).

    Each image gets one kind at random: four quarter turns; colour or gray; original or noisy;
    original or edges (Sobel).

    Args:
        encoder: with its head.
        train: images the regression is fitted to, up to 5,000.
        test: images it is scored on, up to 1,250.

    Returns:
        {"chance": {...}, "features (h)": {...}, "embedding (z)": {...}}, each transform -> share in
        [0, 1].

    Source: SimCLR (Chen et al. 2020), Table 3.
    """
    accuracies: dict[str, dict[str, float]] = {
        "chance": {},
        "features (h)": {},
        "embedding (z)": {},
    }
    for name, (kinds, change) in _changes(train.channels).items():
        accuracies["chance"][name] = 1 / kinds
        seen = [
            _outputs(encoder, part.subset(_drawn(len(part), count)), kinds, change, seed)
            for seed, (part, count) in enumerate(((train, ITEMS), (test, ITEMS // 4)))
        ]
        for row in ("features (h)", "embedding (z)"):
            fit, judged = seen[0][row], seen[1][row]
            answer, _ = linear_labels(fit, judged.vectors)
            accuracies[row][name] = float((answer == judged.known_labels).mean())
    return accuracies


def _changes(channels: int) -> dict[str, tuple[int, Change]]:
    """Name -> number of kinds, and what makes an image of each kind."""
    changes: dict[str, tuple[int, Change]] = {
        "rotation": (
            4,
            lambda x, kind, _: torch.stack(
                [torch.rot90(v, int(k), (1, 2)) for v, k in zip(x, kind, strict=True)]
            ),
        ),
        "original or noisy": (
            2,
            _where(lambda x, g: (x + NOISE * torch.randn(x.shape, generator=g)).clamp(0, 1)),
        ),
        "original or edges": (2, _where(lambda x, _: colour.sobel(x))),
    }
    if channels == 3:
        changes["colour or gray"] = (2, _where(lambda x, _: x.mean(1, keepdim=True).expand_as(x)))
    return changes


def _where(change: Callable[[Tensor, torch.Generator], Tensor]) -> Change:
    """Kind 0 as it is, kind 1 changed."""
    return lambda x, kind, random: torch.where(
        kind.bool()[:, None, None, None], change(x, random), x
    )


def _drawn(size: int, count: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.sort(np.random.default_rng(0).permutation(size)[:count])


def _outputs(
    encoder: Encoder, part: ImageSource, kinds: int, change: Change, seed: int
) -> dict[str, Embeddings]:
    """Features and embedding of every image, each transformed into one kind at random."""
    random = torch.Generator().manual_seed(seed)
    kind = torch.randint(kinds, (len(part),), generator=random)

    def features(view: Tensor, index: Tensor) -> Tensor:
        changed = change(view, kind[index], random).to(encoder.mean.device)
        return encoder.features(changed).float()

    h = torch.cat(run_over(features, part, module=encoder, batch=BATCH))
    with torch.inference_mode():
        z = encoder.head(h).float()
    return {
        "features (h)": Embeddings(h, part.ids, kind),
        "embedding (z)": Embeddings(z, part.ids, kind),
    }
