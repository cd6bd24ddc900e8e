"""Sequence encoders: strided convolutions give frames z_t, a recurrent network the context c_t.

The context c_t depends on the frames up to t (van den Oord 2018, sec. 3.1).

Shapes: N batch, C channels, L steps of the signal, T frames, F width of a frame, H width of the
context.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, get_args

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ..errors import require, unknown
from .choices import Context as Context
from .choices import Norm as Norm
from .encoder import AnyEncoder
from .heads import head
from .norms import batchnorms

Signal = Tensor | dict[str, Tensor]


class ChannelNorm(nn.LayerNorm):
    """Normalise each frame of (N, F, 1, T) over its channels, with a learned scale and shift."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Frames(nn.Module):
    """Strided convolutions with norm and ReLU: (N, C, L) to (N, F, L // product of the strides).

    They run as 2-D convolutions on images of one row, channels last in memory, so that the norm of
    a frame reads contiguous values.

    Args:
        channels: number of channels C.
        width: frame width F.
        kernels: kernel size of each convolution in steps.
        strides: stride of each convolution in steps.
        norm: normalisation after each convolution.
    """

    def __init__(
        self, channels: int, width: int, kernels: Sequence[int], strides: Sequence[int], norm: Norm
    ) -> None:
        super().__init__()
        self.width, self.hop = width, math.prod(strides)
        self.steps = list(zip(kernels, strides, strict=True))
        layers: list[nn.Module] = []
        for kernel, stride in zip(kernels, strides, strict=True):
            plain = norm != "batch"  # BatchNorm has a shift of its own
            layers += [
                nn.Conv2d(
                    channels, width, (1, kernel), (1, stride), (0, _pad(kernel, stride)), bias=plain
                )
            ]
            layers += [
                ChannelNorm(width) if plain else nn.BatchNorm2d(width),
                nn.ReLU(inplace=True),
            ]
            channels = width
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor, length: Tensor) -> tuple[Tensor, Tensor]:
        """Compute frames (N, F, T) and the number of frames without padding (N,).

        Args:
            x: (N, C, L) values.
            length: (N,) steps without padding.
        """
        stages, length = self.stages(x, length)
        return stages[-1], length

    def stages(self, x: Tensor, length: Tensor) -> tuple[list[Tensor], Tensor]:
        """Return the output of each convolution, and the number of frames without padding.

        Steps after the end of a sequence are set to zero before every convolution, so that the
        frames of a sequence do not depend on the other sequences of the batch.

        Args:
            x: (N, C, L) values.
            length: (N,) steps without padding.

        Returns:
            Maps (N, F, ...), first to last, and the number of frames of the last one (N,).
        """
        maps = []
        padded = bool((length < x.shape[2]).any())
        x = x[:, :, None].contiguous(memory_format=torch.channels_last)
        for i in range(0, len(self.layers), 3):
            conv, norm, relu = self.layers[i : i + 3]
            if padded:
                x = x * (torch.arange(x.shape[3], device=x.device) < length[:, None])[:, None, None]
            x = relu(norm(conv(x)))
            kernel, stride = self.steps[i // 3]
            length = ((length + 2 * _pad(kernel, stride) - kernel) // stride + 1).clamp(
                1, x.shape[3]
            )
            maps.append(x[:, :, 0])
        return maps, length


class SequenceEncoder(AnyEncoder):
    """An encoder of sounds and series. Its features are the mean of c_t over the frames.

    Args:
        channels: number of channels C.
        width: frame width F.
        context_width: context width H.
        kernels: kernel size of each convolution in steps.
        strides: stride of each convolution in steps, at most the kernel size.
        norm: normalisation after each convolution, "channel" or "batch".
        context: recurrent network, "gru" or "lstm".
        head_kind: kind of projection head from H to D, as in `heads.head`.
        dim: embedding width D; with the head "none" it is H.
        mean: (C,) channel means of the data, subtracted before the first convolution.
        std: (C,) channel standard deviations, by which the values are divided.

    Raises:
        ConfigError: a setting is unknown, or kernels and strides do not match.
    """

    kinds = ("audio", "series")
    mean: Tensor
    std: Tensor

    def __init__(
        self,
        channels: int,
        *,
        width: int = 256,
        context_width: int = 256,
        kernels: Sequence[int] = (10, 8, 4, 4, 4),
        strides: Sequence[int] = (5, 4, 2, 2, 2),
        norm: Norm = "channel",
        context: Context = "gru",
        head_kind: str = "none",
        dim: int = 128,
        mean: Tensor,
        std: Tensor,
    ) -> None:
        super().__init__()
        if norm not in get_args(Norm):
            raise unknown("norm", norm, get_args(Norm))
        if context not in get_args(Context):
            raise unknown("context", context, get_args(Context))
        require(
            len(kernels) == len(strides) > 0,
            f"--kernels {kernels} and --strides {strides} must be as many",
        )
        require(
            all(1 <= s <= k for k, s in zip(kernels, strides, strict=True)),
            f"each of --kernels {kernels} must be at least its stride {strides}, "
            "and that 1 or more",
        )
        self.frames = Frames(channels, width, kernels, strides, norm)
        self.context = (nn.GRU if context == "gru" else nn.LSTM)(
            width, context_width, batch_first=True
        )
        self.width, self.context_width = width, context_width
        self.head = head(head_kind, context_width, dim)
        self.dim = dim if head_kind != "none" else context_width
        self.register_buffer("mean", mean.float().view(1, -1, 1))
        self.register_buffer("std", std.float().clamp_min(1e-8).view(1, -1, 1))

    @property
    def device(self) -> torch.device:
        """The device of its buffers."""
        return self.mean.device

    @property
    def hop(self) -> int:
        """Steps of the signal between two frames."""
        return self.frames.hop

    def sequence(self, x: Signal) -> tuple[Tensor, Tensor, Tensor]:
        """Compute frames and context.

        Args:
            x: (N, C, L), or {"values": (N, C, L), "length": (N,)} for padded sequences.

        Returns:
            Frames z (N, T, F), context c (N, T, H) and the number of frames without padding (N,).
        """
        values, length = signal(x)
        z, count = self.frames((values - self.mean) / self.std, length)
        z = z.transpose(1, 2)
        return z, self.context(z)[0], count

    def context_of(self, x: Signal) -> tuple[Tensor, Tensor]:
        """Return the context c (N, T, H) and the number of frames without padding (N,)."""
        return self.sequence(x)[1:]

    def frames_of(self, x: Signal) -> tuple[Tensor, Tensor]:
        """Return the frames z (N, T, F) and the number of frames without padding (N,)."""
        z, _, count = self.sequence(x)
        return z, count

    def features(self, x: Signal) -> Tensor:
        """Compute the features (N, H): the mean of c_t over the frames of each sequence."""
        _, c, count = self.sequence(x)
        return mean_of(c, count)

    def maps(self, x: Signal) -> list[Tensor]:
        """Return one map (N, F, T) per convolution, first to last."""
        values, length = signal(x)
        return self.frames.stages((values - self.mean) / self.std, length)[0]

    def fold_batchnorm(self) -> None:
        """Fold each BatchNorm into the convolution before it, in place (eval mode)."""
        layers = self.frames.layers
        if not batchnorms(layers):
            super().fold_batchnorm()
        for i in range(0, len(layers), 3):  # a convolution, its norm, ReLU
            convolution, norm = layers[i : i + 2]
            if isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                layers[i], layers[i + 1] = fuse_conv_bn_eval(convolution, norm), nn.Identity()


def _pad(kernel: int, stride: int) -> int:
    """Return the padding at each end that gives one frame for every `stride` steps."""
    return -(-(kernel - stride) // 2)


def signal(x: Signal) -> tuple[Tensor, Tensor]:
    """Return the values (N, C, L) as float and the lengths (N,)."""
    values = x["values"] if isinstance(x, dict) else x
    length = (
        x["length"]
        if isinstance(x, dict)
        else torch.full((len(values),), values.shape[2], device=values.device)
    )
    return (values if values.is_floating_point() else values.float() / 32768), length


def mean_of(c: Tensor, count: Tensor) -> Tensor:
    """Return the mean (N, H) of c (N, T, H) over the first `count` (N,) frames."""
    inside = torch.arange(c.shape[1], device=c.device) < count[:, None]
    return torch.where(inside[:, :, None], c, 0.0).sum(1) / count[:, None]


def build(
    *, seed: int, mean: Tensor | None = None, std: Tensor | None = None, **given: Any
) -> SequenceEncoder:
    """Build a SequenceEncoder; the same seed gives the same weights.

    Args:
        seed: seed of the weights.
        mean: (C,) channel means of the data; None: 0.
        std: (C,) channel standard deviations; None: 1.
        given: the other arguments of `SequenceEncoder`.
    """
    make: Callable[..., SequenceEncoder] = SequenceEncoder
    channels = given["channels"]
    mean = torch.zeros(channels) if mean is None else mean
    std = torch.ones(channels) if std is None else std
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder = make(**given, mean=mean, std=std)
    encoder.description = {"kind": "sequence"} | given | {"dim": encoder.dim}
    return encoder.to(memory_format=torch.channels_last)
