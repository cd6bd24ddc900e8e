"""Random views of a batch of sequences, computed on its device, with per-item parameters.

Sounds are int16 or float in [-1, 1]; series are floats of any range.

Shapes: N batch, C channels, T steps of a sequence, W steps of a window.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .images import chance, uniform
from .settings import SequenceViews as SequenceViews

Sequences = dict[str, Tensor]  # {"values": (sum of T, C), "length": (N,)}, see SequenceSource.read


def random_views(
    views: SequenceViews, sequences: Sequences, generator: torch.Generator
) -> Sequences:
    """Return a view of every sequence; see `SequenceViews.__call__`."""
    length = sequences["length"]
    n, device = len(length), length.device
    speed = torch.ones(n, device=device)
    if views.pitch:
        speed = 2 ** (uniform(n, (-views.pitch, views.pitch), generator, device) / 12)
    room = (length - views.window * speed).clamp_min(0)  # steps outside the window
    start = (
        (torch.rand(n, generator=generator, device=device) * (room.floor() + 1))
        .floor()
        .clamp(max=room)
    )
    x, inside = window(sequences, start, speed, views.window)
    count = inside.sum(1)[:, None, None]
    # only the deviation from the mean is changed
    middle = (x * inside[:, None]).sum(2, keepdim=True) / count
    x = (x - middle) * inside[:, None]
    if views.gain:
        x = x * 10 ** (uniform(n, (-views.gain, views.gain), generator, device) / 20)[:, None, None]
    if views.noise:
        spread = (x.square().sum(2, keepdim=True) / count).sqrt()
        x = x + views.noise * spread * torch.randn(x.shape, generator=generator, device=device)
    if views.band_reject:
        x = _without_band(x, chance(n, views.band_reject, generator, device), generator)
    if views.time_mask:
        hidden = _stretch(n, views.window, 0.25, generator, device)
        x = x.masked_fill(
            (hidden & chance(n, views.time_mask, generator, device)[:, None])[:, None], 0.0
        )
    return {"values": torch.where(inside[:, None], x + middle, 0.0), "length": inside.sum(1)}


def whole(sequences: Sequences) -> Sequences:
    """Return the evaluation view: whole sequences, padded with zeros to the longest."""
    length = sequences["length"]
    zero = torch.zeros(len(length), device=length.device)
    x, inside = window(sequences, zero, zero + 1, int(length.max()))
    return {"values": torch.where(inside[:, None], x, 0.0), "length": length}


def window(sequences: Sequences, start: Tensor, speed: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """Cut a window from each sequence, with linear interpolation between steps.

    Args:
        sequences: the batch.
        start: (N,) first step of each window.
        speed: (N,) steps of the sequence per step of the window.
        steps: window length W.

    Returns:
        Windows (N, C, W), and a mask (N, W) of the steps inside the sequence.
    """
    values, length = sequences["values"], sequences["length"]
    offset = torch.cumsum(length, 0) - length
    place = start[:, None] + torch.arange(steps, device=length.device) * speed[:, None]
    inside = place <= length[:, None] - 1
    low = place.floor().long().minimum(length[:, None] - 1)
    x = _float(values[offset[:, None] + low])
    if bool((speed != 1).any()):
        high = (low + 1).minimum(length[:, None] - 1)
        share = (place - low).clamp(0, 1)[:, :, None]
        x = torch.lerp(x, _float(values[offset[:, None] + high]), share)
    return x.transpose(1, 2).contiguous(), inside


def _float(values: Tensor) -> Tensor:
    samples: Tensor = values.float() if values.is_floating_point() else values.float() / 32768
    return samples


def _stretch(
    n: int, size: int, share: float, generator: torch.Generator, device: torch.device
) -> Tensor:
    """Return masks (N, size) of a random interval of up to `share` of the size."""
    width = uniform(n, (0.0, share), generator, device) * size
    start = torch.rand(n, generator=generator, device=device) * (size - width)
    line = torch.arange(size, device=device)
    return (line >= start[:, None]) & (line < (start + width)[:, None])


def _without_band(x: Tensor, chosen: Tensor, generator: torch.Generator) -> Tensor:
    spectrum = torch.fft.rfft(x)
    band = _stretch(len(x), spectrum.shape[2], 0.25, generator, x.device) & chosen[:, None]
    out: Tensor = torch.fft.irfft(spectrum.masked_fill(band[:, None], 0), n=x.shape[2])
    return out
