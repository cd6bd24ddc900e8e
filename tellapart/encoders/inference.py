"""Run an encoder over a source, without gradient and in eval mode, in the order of its rows."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..data import ImageSource, SequenceSource, Source, TextSource
from ..errors import ConfigError, require
from ..runtime.allocator import keep_freed_memory
from ..views import plain
from .encoder import Encoder
from .norms import batchnorms
from .sequence import SequenceEncoder
from .text import TextEncoder

AnyEncoder = Encoder | SequenceEncoder | TextEncoder
Output = Literal["features", "embedding"]
STEPS = 1 << 18  # of the sequences of a batch, padding included
PIXELS, MOST, LEAST = (
    1 << 18,
    256,
    8,
)  # of a batch on a processor: 256 images of 32 px, whose maps stay near its cache


def prepared(encoder: AnyEncoder, source: Source) -> Source:
    """The source as the encoder reads it: sentences become its tokens, all else is as it was."""
    if isinstance(encoder, TextEncoder) and isinstance(source, TextSource):
        return encoder.prepared(source)
    return source


def outputs(
    encoder: AnyEncoder,
    source: Source,
    wanted: tuple[Output, ...] = ("features",),
    *,
    progress: Callable[[int], None] | None = None,
) -> dict[Output, Tensor]:
    """The outputs of every item of a source, on the CPU, in one pass.

    On a processor each of torch's threads takes batches of its own: that is faster than sharing one, and gives the
    same numbers whatever their count.

    Args:
        wanted: "features" (S, F), what users take away, "embedding" (S, D), the unit rows of the loss, or both.
        progress: called with the number of items done.
    Returns:
        float32; the mode of the encoder is as it was before.
    """
    keep_freed_memory()
    source = prepared(encoder, source)
    training, device = encoder.training, encoder.device
    encoder.eval()
    features_of = _features(encoder)

    def run(index: Tensor) -> list[Tensor]:
        with torch.inference_mode():
            features = features_of(plain(source, to_device(source.read(index), device)))
            made = [
                features if name == "features" else encoder.from_features(features)
                for name in wanted
            ]
            return [out.float().cpu() for out in made]

    found: list[list[Tensor]] = []
    try:
        for done in _in_order(run, _parts(source, device), device):
            found.append(done)
            if progress:
                progress(sum(len(out[0]) for out in found))
    finally:
        encoder.train(training)
    return {name: torch.cat([out[i] for out in found]) for i, name in enumerate(wanted)}


def patches(
    encoder: AnyEncoder, source: Source, *, progress: Callable[[int], None] | None = None
) -> Tensor:
    """The last feature map of every image, a row for each of its places: (S, h w, F) on the CPU, row by row.

    Raises:
        ConfigError: a network whose last stage is no map, or not of images.
    """
    if not isinstance(encoder, Encoder):
        raise ConfigError("patches are of images; this encoder reads something else")
    training, device = encoder.training, encoder.device
    encoder.eval()

    def run(index: Tensor) -> list[Tensor]:
        with torch.inference_mode():
            last = encoder.maps(plain(source, to_device(source.read(index), device)))[-1]
            require(
                last.ndim == 4,
                f"the last stage of this network gives {tuple(last.shape)}, not a map of places",
            )
            return [last.flatten(2).transpose(1, 2).float().cpu()]

    found: list[Tensor] = []
    try:
        for (done,) in _in_order(run, _parts(source, device), device):
            found.append(done)
            if progress:
                progress(sum(map(len, found)))
    finally:
        encoder.train(training)
    return torch.cat(found)


def _features(encoder: AnyEncoder) -> Callable[[Any], Tensor]:
    """What makes features of views, fast: on a processor BatchNorm of images is folded away."""
    if not isinstance(encoder, Encoder) or encoder.device.type != "cpu":
        return encoder.features
    body = folded(encoder.backbone)
    return lambda view: body(encoder.normalised(view))


def _parts(source: Source, device: torch.device) -> list[Tensor]:
    """The rows of each batch, in their order."""
    rows = torch.arange(len(source))
    if not isinstance(source, SequenceSource):
        size = source.image_size if isinstance(source, ImageSource) else 32
        batch = MOST if device.type != "cpu" else max(LEAST, min(MOST, PIXELS // size**2))
        return list(rows.split(batch))
    counts, longest = [0], 0
    for length in source.lengths.tolist():
        longest = max(longest, length)
        if counts[-1] and (counts[-1] + 1) * longest > STEPS:
            counts, longest = [*counts, 0], length
        counts[-1] += 1
    return list(rows.split(counts))


def _in_order(
    run: Callable[[Tensor], list[Tensor]], parts: list[Tensor], device: torch.device
) -> Iterator[list[Tensor]]:
    """What `run` gives for each batch of rows, in their order."""
    threads = torch.get_num_threads()
    if device.type != "cpu" or threads == 1:
        yield from map(run, parts)
        return
    with ThreadPoolExecutor(
        threads, initializer=torch.set_num_threads, initargs=(1,)
    ) as pool:  # of that thread alone
        yield from pool.map(run, parts)


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


def to_device(
    images: Tensor | dict[str, Tensor], device: torch.device
) -> Tensor | dict[str, Tensor]:
    """A batch as read, on `device`."""
    if isinstance(images, dict):
        return {k: v.to(device, non_blocking=True) for k, v in images.items()}
    return images.to(device, non_blocking=True)
