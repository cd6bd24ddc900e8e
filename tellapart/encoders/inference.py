"""Run an encoder over a source, without gradient and in eval mode, in the order of its rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from ..data import ImageSource
from ..views.images import centre_view
from .encoder import Encoder

Output = Literal["features", "embedding"]
BATCH = 512


@torch.inference_mode()
def outputs(
    encoder: Encoder,
    source: ImageSource,
    output: Output = "features",
    *,
    progress: Callable[[int], None] | None = None,
) -> Tensor:
    """The outputs of every item of a source, on the CPU.

    Args:
        output: "features" (S, F), what users take away, or "embedding" (S, D), the unit rows of the loss.
        progress: called with the number of items done.
    Returns:
        float32; the mode of the encoder is as it was before.
    """
    training = encoder.training
    encoder.eval()
    device = encoder.mean.device
    run = encoder.features if output == "features" else encoder
    found = []
    try:
        for index in torch.arange(len(source)).split(BATCH):
            view = centre_view(to_device(source.read(index), device), source.image_size)
            found.append(run(view).float().cpu())
            if progress:
                progress(int(index[-1]) + 1)
    finally:
        encoder.train(training)
    return torch.cat(found)


def to_device(images: Tensor | dict[str, Tensor], device: torch.device) -> Tensor | dict[str, Tensor]:
    """A batch as read, on `device`."""
    if isinstance(images, dict):
        return {k: v.to(device, non_blocking=True) for k, v in images.items()}
    return images.to(device, non_blocking=True)
