"""Run an encoder over a source, without gradient and in eval mode, in the order of its rows."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from ..data import ImageSource
from ..views.images import centre_view
from .encoder import Encoder
from .norms import batchnorms

Output = Literal["features", "embedding"]
BATCH = 128  # larger ones leave the processor's cache: half the speed at 512


@torch.inference_mode()
def outputs(
    encoder: Encoder,
    source: ImageSource,
    wanted: tuple[Output, ...] = ("features",),
    *,
    progress: Callable[[int], None] | None = None,
) -> dict[Output, Tensor]:
    """The outputs of every item of a source, on the CPU, in one pass.

    Args:
        wanted: "features" (S, F), what users take away, "embedding" (S, D), the unit rows of the loss, or both.
        progress: called with the number of items done.
    Returns:
        float32; the mode of the encoder is as it was before.
    """
    training, device = encoder.training, encoder.mean.device
    encoder.eval()
    body = folded(encoder.backbone) if device.type == "cpu" else encoder.backbone
    found: dict[Output, list[Tensor]] = {name: [] for name in wanted}
    try:
        for index in torch.arange(len(source)).split(BATCH):
            view = centre_view(to_device(source.read(index), device), source.image_size)
            features = body(encoder.normalised(view))
            for name, parts in found.items():
                out = features if name == "features" else encoder.from_features(features)
                parts.append(out.float().cpu())
            if progress:
                progress(int(index[-1]) + 1)
    finally:
        encoder.train(training)
    return {name: torch.cat(parts) for name, parts in found.items()}


def folded(network: nn.Module) -> nn.Module:
    """A copy of a network in eval mode with each BatchNorm folded into the convolution before it.

    A network that cannot be traced (its path depends on its input) comes back as it is.
    """
    if not batchnorms(network):
        return network
    from torch.fx.experimental import optimization

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            made: nn.Module = optimization.fuse(network)
    except Exception:  # tracing fails in as many ways as networks are written
        return network
    return made.eval().to(memory_format=torch.channels_last)


def to_device(images: Tensor | dict[str, Tensor], device: torch.device) -> Tensor | dict[str, Tensor]:
    """A batch as read, on `device`."""
    if isinstance(images, dict):
        return {k: v.to(device, non_blocking=True) for k, v in images.items()}
    return images.to(device, non_blocking=True)
