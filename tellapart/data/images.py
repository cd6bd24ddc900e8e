"""Image instances in memory-mapped uint8, read a batch at a time by row.

Shapes: S instances, N batch, C channels, H and W pixels.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .notes import counted
from .source import Array, Source

FRAME = re.compile(r"#\d+\.\ds$")  # the end of the id of a frame of a video


@dataclass(frozen=True)
class Pixels:
    """Packed images: flat bytes, each image rows x columns x channels, and where each begins.

    `flat` may be a memory map. Images of one size have a `shape`; a batch of them is one gather.
    """

    flat: Array  # (bytes,) uint8
    offset: Array  # (S,) int64
    height: Array  # (S,) int64
    width: Array  # (S,) int64
    channels: int

    @classmethod
    def of(cls, images: Array) -> Pixels:
        """Images of one size: (S, H, W, C) uint8."""
        s, h, w, c = images.shape
        offset = np.arange(s, dtype=np.int64) * (h * w * c)
        return cls(images.reshape(-1), offset, np.full(s, h), np.full(s, w), c)

    @property
    def shape(self) -> tuple[int, int] | None:
        """(H, W) when every image has it, else None."""
        h, w = self.height[0], self.width[0]
        same = bool((self.height == h).all() and (self.width == w).all())
        return (int(h), int(w)) if same else None

    def image(self, row: int) -> Array:
        """(H, W, C) uint8."""
        start, h, w = self.offset[row], self.height[row], self.width[row]
        return np.asarray(self.flat[start : start + h * w * self.channels]).reshape(
            h, w, self.channels
        )


@dataclass(frozen=True, kw_only=True)
class ImageSource(Source):
    """Images.

    Attributes:
        pixels: the packed images of the whole set; `rows` are the ones that belong to this source.
        image_size: side in pixels of the square view that encoders see.
        reading: how the files were read, an `image_packing.Reading`; None where there are none.
    """

    pixels: Pixels
    image_size: int
    reading: Any = None

    kind = "images"
    one, many = "an image", "images"

    @property
    def channels(self) -> int:
        return self.pixels.channels

    @property
    def groups(self) -> list[str]:
        """Ids; the frames of a video (`clip.mp4#12.4s`) are one group."""
        return [FRAME.sub("", name) for name in self.ids]

    @property
    def about(self) -> dict[str, Any]:
        about: dict[str, Any] = {"image_size": self.image_size, "channels": self.channels}
        if self.reading is not None and self.reading.ranges:
            about["ranges"] = {kind: list(ends) for kind, ends in self.reading.ranges.items()}
        return about

    @property
    def described(self) -> str:
        return (
            f"{len(self):,} images, {counted(self.channels, 'channel')}, views of "
            f"{self.image_size} px"
        )

    def read(self, index: Tensor) -> Tensor | dict[str, Tensor]:
        """Some images.

        Args:
            index: (N,) source rows.

        Returns:
            (N, C, H, W) uint8 in channels-last memory if the whole set has one size; otherwise
            {"pixels": (bytes,) uint8, "height": (N,), "width": (N,), "channels": (1,)}, the images
            one after another as H x W x C.
        """
        set_rows = self.rows[index.cpu().numpy()]
        packed = self.pixels
        if packed.shape is not None:
            h, w = packed.shape
            whole = packed.flat.reshape(len(packed.offset), h, w, packed.channels)
            return torch.from_numpy(whole[set_rows]).permute(0, 3, 1, 2)
        flat = np.concatenate([packed.image(r).reshape(-1) for r in set_rows])
        return {
            "pixels": torch.from_numpy(flat),
            "height": torch.from_numpy(packed.height[set_rows]),
            "width": torch.from_numpy(packed.width[set_rows]),
            "channels": torch.tensor([packed.channels]),
        }

    def image(self, row: int) -> Array:
        """One image, (H, W, C) uint8, as packed.

        Args:
            row: source row.
        """
        return self.pixels.image(int(self.rows[row]))
