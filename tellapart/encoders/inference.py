"""Run an encoder over a source, without gradients, in eval mode and in row order."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from ..data import Source, modality_of
from ..data.source import Array
from ..errors import ConfigError, require
from ..runtime.allocator import keep_freed_memory
from ..views import evaluation_view
from .choices import Output as Output
from .encoder import AnyEncoder

Result = TypeVar("Result")
STEPS = 1 << 18  # steps of a batch of sequences, padding included
PIXELS = 1 << 18  # pixels of a batch of images on a CPU, whose maps then stay near its cache
MOST, LEAST = 256, 8  # images of a batch


def prepared(encoder: AnyEncoder, source: Source) -> Source:
    """Return the source in the form that the encoder reads; sentences are tokenised."""
    return encoder.prepared(source)


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

    This is the only loop over a source without gradients: features, stage maps, predictions and
    baselines all use it. The results are in row order.

    Args:
        function: called with a view from `view` and the positions (N,) of its items.
        source: the items; sentences must be tokenised (`prepared`).
        module: set to eval mode for the loop and restored afterwards.
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


def function_of(
    encoder: AnyEncoder, wanted: tuple[Output, ...]
) -> Callable[[Any, Tensor], list[Tensor]]:
    """Return the function for `run_over` that computes outputs of a view, float32 on the CPU.

    Args:
        encoder: it is set to eval mode, as BatchNorm is folded only there.
        wanted: as in `outputs`.
    """
    keep_freed_memory()
    features_of = encoder.eval().fast_features()

    def run(view: Any, _: Tensor) -> list[Tensor]:
        computed = {"features": features_of(view)}
        if "embedding" in wanted:
            computed["embedding"] = encoder.from_features(computed["features"])
        return [computed[name].float().cpu() for name in wanted]

    return run


def outputs(
    encoder: AnyEncoder,
    source: Source,
    wanted: tuple[Output, ...] = ("features",),
    *,
    progress: Callable[[int], None] | None = None,
) -> dict[Output, Tensor]:
    """Compute the outputs of every item of a source in one pass, on the CPU.

    Args:
        encoder: in any mode, which is restored afterwards.
        source: items of the kind that the encoder reads.
        wanted: "features" (S, F), the output for downstream use, "embedding" (S, D), the unit
            rows of the loss, or both.
        progress: called with the number of items done.

    Returns:
        float32 tensors by output.
    """
    training = encoder.training
    try:
        by_batch = run_over(
            function_of(encoder, wanted),
            prepared(encoder, source),
            device=encoder.device,
            parallel=True,
            progress=progress,
        )
    finally:
        encoder.train(training)
    return {name: torch.cat([out[i] for out in by_batch]) for i, name in enumerate(wanted)}


def patches(
    encoder: AnyEncoder, source: Source, *, progress: Callable[[int], None] | None = None
) -> Tensor:
    """Compute the last feature map of every image: (S, h w, F) on the CPU.

    Args:
        encoder: an encoder of images.
        source: images.
        progress: called with the number of items done.

    Raises:
        ConfigError: it is not an image encoder, or its last stage is not a map.
    """
    if "images" not in encoder.kinds:
        raise ConfigError(f"--output patches requires an image encoder, got one of {source.many}")

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


def batches(source: Source, device: torch.device) -> list[Tensor]:
    """Return the rows of each batch, in order, as split by the modality of the source."""
    return modality_of(source).batches(source, device)


def batches_of_images(count: int, size: int, device: torch.device) -> list[Tensor]:
    """Rows of each batch of images: on a CPU as many as stay near its cache.

    Args:
        count: number of images.
        size: side of a view in pixels.
        device: where the encoder runs.
    """
    batch = MOST if device.type != "cpu" else max(LEAST, min(MOST, PIXELS // size**2))
    return list(torch.arange(count).split(batch))


def batches_of_sequences(lengths: Array) -> list[Tensor]:
    """Rows of each batch of sequences, at most 2**18 steps each, padding included.

    Args:
        lengths: (S,) steps of each sequence.
    """
    counts, longest = [0], 0
    for length in lengths.tolist():
        longest = max(longest, length)
        if counts[-1] and (counts[-1] + 1) * longest > STEPS:
            counts, longest = [*counts, 0], length
        counts[-1] += 1
    return list(torch.arange(len(lengths)).split(counts))


def _in_order(
    run: Callable[[Tensor], Result], parts: list[Tensor], device: torch.device
) -> Iterator[Result]:
    """Yield the results of `run` for each batch of rows, in order, computed by several threads."""
    threads = torch.get_num_threads()
    if device.type != "cpu" or threads == 1:
        yield from map(run, parts)
        return
    with ThreadPoolExecutor(
        threads, initializer=torch.set_num_threads, initargs=(1,)
    ) as pool:  # of that thread alone
        yield from pool.map(run, parts)


def to_device(
    images: Tensor | dict[str, Tensor], device: torch.device
) -> Tensor | dict[str, Tensor]:
    """A batch as read, on `device`."""
    if isinstance(images, dict):
        return {k: v.to(device, non_blocking=True) for k, v in images.items()}
    return images.to(device, non_blocking=True)
