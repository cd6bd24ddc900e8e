"""Run an encoder over a source, without gradient and in eval mode, in the order of its rows."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from ..data import ImageSource, SequenceSource, Source, TextSource
from ..errors import ConfigError, require
from ..runtime.allocator import keep_freed_memory
from ..views import evaluation_view
from .choices import Output as Output
from .encoder import Encoder
from .norms import batchnorms
from .sequence import SequenceEncoder
from .text import TextEncoder

AnyEncoder = Encoder | SequenceEncoder | TextEncoder
Result = TypeVar("Result")
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


def run_over(
    function: Callable[[Any, Tensor], Result],
    source: Source,
    *,
    module: nn.Module | None = None,
    device: torch.device | None = None,
    batch: int | None = None,
    view: Callable[[Source, Any], Any] = evaluation_view,
    parallel: bool = False,
    progress: Callable[[int], None] | None = None,
) -> list[Result]:
    """Call a function on the evaluation view of every item of a source, batch by batch.

    This is the one loop over a source without gradient: features, stage maps, predictions and
    baselines all go through it. The results are in the order of the rows.

    Args:
        function: called with a view as `view` makes it and the positions (N,) of its items.
        source: the items; sentences must be tokenised (`prepared`).
        module: put into eval mode for the loop and set back afterwards.
        device: where batches are moved to before `view`; by default the CPU.
        batch: items in a batch, 1 or more; by default as many as fit the processor's cache.
        view: makes a view of a batch as read; by default the evaluation view.
        parallel: each of torch's threads takes batches of its own. That is faster than sharing
            one batch and gives the same numbers for any number of threads; `function` must not
            depend on the order of calls.
        progress: called with the number of items done.
    """
    device = device or torch.device("cpu")
    parts = list(torch.arange(len(source)).split(batch)) if batch else batches(source, device)
    training = module.training if module is not None else False

    def run(index: Tensor) -> Result:
        with torch.inference_mode():
            return function(view(source, to_device(source.read(index), device)), index)

    results, done = [], 0
    try:
        if module is not None:
            module.eval()
        calls = _in_order(run, parts, device) if parallel else map(run, parts)
        for index, result in zip(parts, calls, strict=True):
            results.append(result)
            done += len(index)
            if progress:
                progress(done)
    finally:
        if module is not None:
            module.train(training)
    return results


def outputs(
    encoder: AnyEncoder,
    source: Source,
    wanted: tuple[Output, ...] = ("features",),
    *,
    progress: Callable[[int], None] | None = None,
) -> dict[Output, Tensor]:
    """The outputs of every item of a source, on the CPU, in one pass.

    Args:
        encoder: in any mode; it is set back to the mode that it was in.
        source: items of the kind that the encoder reads.
        wanted: "features" (S, F), the output for downstream use, "embedding" (S, D), the unit
            rows of the loss, or both.
        progress: called with the number of items done.

    Returns:
        float32 tensors by output.
    """
    keep_freed_memory()
    training = encoder.training
    features_of = _features(encoder.eval())  # BatchNorm is folded in eval mode only

    def run(view: Any, _: Tensor) -> list[Tensor]:
        features = features_of(view)
        made = {"features": features}
        if "embedding" in wanted:
            made["embedding"] = encoder.from_features(features)
        return [made[name].float().cpu() for name in wanted]

    try:
        found = run_over(
            run,
            prepared(encoder, source),
            device=encoder.device,
            parallel=True,
            progress=progress,
        )
    finally:
        encoder.train(training)
    return {name: torch.cat([out[i] for out in found]) for i, name in enumerate(wanted)}


def patches(
    encoder: AnyEncoder, source: Source, *, progress: Callable[[int], None] | None = None
) -> Tensor:
    """The last feature map of every image, one row per position: (S, h w, F) on the CPU.

    Args:
        encoder: an encoder of images.
        source: images.
        progress: called with the number of items done.

    Raises:
        ConfigError: not an encoder of images, or its last stage is not a map.
    """
    if not isinstance(encoder, Encoder):
        raise ConfigError("patches are of images; this encoder reads something else")

    def run(view: Any, _: Tensor) -> Tensor:
        last = encoder.maps(view)[-1]
        require(
            last.ndim == 4,
            f"the last stage of this network gives {tuple(last.shape)}, not a feature map",
        )
        return last.flatten(2).transpose(1, 2).float().cpu()

    return torch.cat(
        run_over(
            run, source, module=encoder, device=encoder.device, parallel=True, progress=progress
        )
    )


def _features(encoder: AnyEncoder) -> Callable[[Any], Tensor]:
    """What makes features of views, fast: on a processor BatchNorm of images is folded away."""
    if not isinstance(encoder, Encoder) or encoder.device.type != "cpu":
        return encoder.features
    body = folded(encoder.backbone)
    return lambda view: body(encoder.normalised(view))


def batches(source: Source, device: torch.device) -> list[Tensor]:
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
    run: Callable[[Tensor], Result], parts: list[Tensor], device: torch.device
) -> Iterator[Result]:
    """Results of `run` for each batch of rows, in their order, computed by several threads."""
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
