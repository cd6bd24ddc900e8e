"""Random views of a batch of sequences, on its device, with parameters of its own for every item.

Shapes: N batch, C channels, W steps of a window. Sounds are int16 or float in [-1, 1]; series are floats of any range.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import require
from .images import chance, uniform

Sequences = dict[
    str, Tensor
]  # {"values": (sum of T, C), "length": (N,)}, as `SequenceSource.read` gives them


@dataclass(frozen=True)
class SequenceViews:
    """A distribution over views; call it with sequences and a generator.

    A window of `window` steps at a random place (a shorter sequence whole, padded with zeros at its end), then:
    `pitch`: semitones to either side, by playing faster or slower, so that tempo goes with it; `gain`: decibels to
    either side, around the mean of the window; `noise`: standard deviation of white noise, in those of the item;
    `band_reject`: probability that a band of frequencies is silenced, a random one of up to a quarter of the
    spectrum; `time_mask`: probability that a random stretch of up to a quarter of the window is.

    >>> views = SequenceViews(window=4)
    >>> batch = {"values": torch.arange(5.0)[:, None], "length": torch.tensor([3, 2])}
    >>> views(batch, torch.Generator().manual_seed(0))["values"].tolist()
    [[[0.0, 1.0, 2.0, 0.0]], [[3.0, 4.0, 0.0, 0.0]]]
    """

    window: int
    pitch: float = 0.0
    gain: float = 0.0
    noise: float = 0.0
    band_reject: float = 0.0
    time_mask: float = 0.0

    def __post_init__(self) -> None:
        require(self.window >= 2, f"--window must be 2 steps or more, got {self.window}")
        require(0 <= self.pitch <= 24, f"--pitch must lie in 0..24 semitones, got {self.pitch}")
        for name in ("gain", "noise"):
            value = getattr(self, name)
            require(0 <= value < math.inf, f"--{name} must be 0 or more, got {value}")
        for name in ("band_reject", "time_mask"):
            value = getattr(self, name)
            require(
                0 <= value <= 1, f"--{name.replace('_', '-')} is a probability in 0..1, got {value}"
            )

    def __call__(self, sequences: Sequences, generator: torch.Generator) -> Sequences:
        """A view of every sequence: {"values": (N, C, W) float32, "length": (N,) steps that are no padding}."""
        length = sequences["length"]
        n, device = len(length), length.device
        speed = torch.ones(n, device=device)
        if self.pitch:
            speed = 2 ** (uniform(n, (-self.pitch, self.pitch), generator, device) / 12)
        room = (length - self.window * speed).clamp_min(0)  # steps that the window leaves out
        start = (
            (torch.rand(n, generator=generator, device=device) * (room.floor() + 1))
            .floor()
            .clamp(max=room)
        )
        x, inside = window(sequences, start, speed, self.window)
        count = inside.sum(1)[:, None, None]
        middle = (x * inside[:, None]).sum(
            2, keepdim=True
        ) / count  # what changes is the deviation from it
        x = (x - middle) * inside[:, None]
        if self.gain:
            x = (
                x
                * 10 ** (uniform(n, (-self.gain, self.gain), generator, device) / 20)[:, None, None]
            )
        if self.noise:
            spread = (x.square().sum(2, keepdim=True) / count).sqrt()
            x = x + self.noise * spread * torch.randn(x.shape, generator=generator, device=device)
        if self.band_reject:
            x = _without_band(x, chance(n, self.band_reject, generator, device), generator)
        if self.time_mask:
            hidden = _stretch(n, self.window, 0.25, generator, device)
            x = x.masked_fill(
                (hidden & chance(n, self.time_mask, generator, device)[:, None])[:, None], 0.0
            )
        return {"values": torch.where(inside[:, None], x + middle, 0.0), "length": inside.sum(1)}


def whole(sequences: Sequences) -> Sequences:
    """The view of evaluation: every sequence from beginning to end, padded with zeros to the longest."""
    length = sequences["length"]
    zero = torch.zeros(len(length), device=length.device)
    x, inside = window(sequences, zero, zero + 1, int(length.max()))
    return {"values": torch.where(inside[:, None], x, 0.0), "length": length}


def window(sequences: Sequences, start: Tensor, speed: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """(N, C, W) from `start` (N,) at `speed` (N,) steps a step, and which of them lie inside (N, W).

    Between two steps the value is on the line through both.
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
    found: Tensor = values.float() if values.is_floating_point() else values.float() / 32768
    return found


def _stretch(
    n: int, size: int, share: float, generator: torch.Generator, device: torch.device
) -> Tensor:
    """(N, size) bool: a random stretch of up to `share` of the size."""
    width = uniform(n, (0.0, share), generator, device) * size
    start = torch.rand(n, generator=generator, device=device) * (size - width)
    line = torch.arange(size, device=device)
    return (line >= start[:, None]) & (line < (start + width)[:, None])


def _without_band(x: Tensor, chosen: Tensor, generator: torch.Generator) -> Tensor:
    spectrum = torch.fft.rfft(x)
    band = _stretch(len(x), spectrum.shape[2], 0.25, generator, x.device) & chosen[:, None]
    out: Tensor = torch.fft.irfft(spectrum.masked_fill(band[:, None], 0), n=x.shape[2])
    return out
