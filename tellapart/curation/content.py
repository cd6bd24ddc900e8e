"""The content of a picture: cropped, stretched to full contrast, 32 x 32 pixels.

Pictures are compared by these small copies. A mostly empty, faint or bordered picture is then not
its ground, but what stands on it.

Shapes: S images, C channels, P = 32 pixels of a small copy.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..data import ImageSource

SIDE = 32  # P
TRIMS = 3  # grounds that are removed one after another: a border, and the paper inside it
GROUND, FAINT = 10, 0.15  # grey levels from the ground, or share of the largest distance from it
FLAT = 4  # grey levels: a picture with less contrast shows nothing that can be compared
LEAST = 3  # pixels a side of a content
CUT = 0.1  # of the content, at each edge of the inner frame
FILLED = 0.5  # share of an image that its content fills, for the whole to be compared
LOW = 0.01  # share of the pixels that become darker than BLACK, or brighter than WHITE
BLACK, WHITE = 80, 175  # room on both sides: colours reach beyond the range of brightness

LUMA = torch.tensor([0.299, 0.587, 0.114])

Array = np.ndarray[Any, Any]


class Frame(IntEnum):
    """Which part of an image a small copy shows."""

    WHOLE = 0
    CONTENT = 1
    INNER = 2  # the middle of the content: what a crop may have left


@dataclass(frozen=True)
class Contents:
    """Small copies of all images of a source, in every frame.

    Attributes:
        small: (3 S, C, P, P) uint8; frame f of image i stands at f S + i.
        aspect: (3 S,) width / height of each frame.
        usable: (3 S,) bool, False for a flat frame, and for a whole image of which the content
            fills less than half: what is drawn decides there. An image without a usable frame
            duplicates equal files only.
    """

    small: Tensor
    aspect: Tensor
    usable: Tensor

    @property
    def images(self) -> int:
        """S."""
        return len(self.usable) // len(Frame)


def contents(source: ImageSource) -> Contents:
    """Make the small copies of every image, cropped and stretched to full contrast.

    Args:
        source: images as packed.
    """
    count = len(source)
    small = torch.empty(3 * count, source.channels, SIDE, SIDE, dtype=torch.uint8)
    aspect, usable = torch.ones(3 * count), torch.zeros(3 * count, dtype=torch.bool)
    for position in range(count):
        image = source.image(position)
        values = image.astype(np.float32)
        top, bottom, left, right = content_box(image)
        down, across = round(CUT * (bottom - top)), round(CUT * (right - left))
        boxes = {
            Frame.WHOLE: (0, image.shape[0], 0, image.shape[1]),
            Frame.CONTENT: (top, bottom, left, right),
            Frame.INNER: (top + down, bottom - down, left + across, right - across),
        }
        for frame, (y0, y1, x0, x1) in boxes.items():
            place = int(frame) * count + position
            small[place], contrast = _small(values[y0:y1, x0:x1])
            aspect[place] = (x1 - x0) / (y1 - y0)
            fills = (bottom - top) * (right - left) >= FILLED * image.shape[0] * image.shape[1]
            usable[place] = contrast >= FLAT and (fills or frame is not Frame.WHOLE)
    return Contents(small, aspect, usable)


def content_box(image: Array) -> tuple[int, int, int, int]:
    """Top, bottom, left and right of what differs from the ground, after up to three grounds.

    The ground is the median colour of the border. A row or column belongs to the content when a
    pixel of it differs from the ground by ten grey levels or, in a faint picture, by 15 % of the
    largest distance from the ground.

    Args:
        image: (H, W, C) uint8.

    Returns:
        The box, at least three pixels a side; the whole image where the border is not uniform.
    """
    box: tuple[int, int, int, int] = (0, image.shape[0], 0, image.shape[1])
    for number in range(TRIMS):
        edge = min(number, 1)  # the ring where a border was blended with what is inside it
        inner = (box[0] + edge, box[1] - edge, box[2] + edge, box[3] - edge)
        top, bottom, left, right = inner
        part = image[top:bottom, left:right].astype(np.int16)
        if min(part.shape[:2]) < LEAST:
            break
        border = np.concatenate([part[0], part[-1], part[:, 0], part[:, -1]])
        away = np.abs(part - np.median(border, 0)).max(2)
        far = away > min(GROUND, max(2.0, FAINT * float(away.max())))
        rows, columns = np.flatnonzero(far.any(1)), np.flatnonzero(far.any(0))
        if not len(rows):
            break
        found = (top + rows[0], top + rows[-1] + 1, left + columns[0], left + columns[-1] + 1)
        cut = max(abs(f - i) for f, i in zip(found, inner, strict=True))
        if cut <= edge or min(found[1] - found[0], found[3] - found[2]) < LEAST:
            break
        box = (int(found[0]), int(found[1]), int(found[2]), int(found[3]))
    return box


def brightness(x: Tensor) -> Tensor:
    """(n, P, P): luma (ITU-R BT.601) of images (n, C, P, P); a gray copy of an image has the same.

    Args:
        x: float images, of three channels or of one.
    """
    return torch.einsum("c,nchw->nhw", LUMA, x) if x.shape[1] == 3 else x.mean(1)


def _small(part: Array) -> tuple[Tensor, float]:
    """A part (H, W, C) as (C, P, P) uint8, brightness stretched; its contrast before."""
    planes = [
        np.asarray(
            Image.fromarray(part[:, :, channel], "F").resize(
                (SIDE, SIDE), Image.Resampling.BILINEAR
            )
        )
        for channel in range(part.shape[2])
    ]
    image = torch.from_numpy(np.stack(planes))
    light = brightness(image[None]).flatten().sort().values
    low, high = (float(light[round(share * (len(light) - 1))]) for share in (LOW, 1 - LOW))
    stretched = (image - low) * ((WHITE - BLACK) / max(high - low, float(FLAT))) + BLACK
    return stretched.round().clamp(0, 255).to(torch.uint8), high - low
