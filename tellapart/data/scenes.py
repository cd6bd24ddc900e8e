"""scenes-v1: items of a small labelled source, each at a random place on a coloured cloud texture.

A CIFAR-like data set that needs no download. Frozen: a change of one pixel is a new version. Every
random number comes from a counter-based generator keyed by (seed, copy, item), so that a scene does
not depend on its batch.
Shapes: S items, P side of a scene in pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import require

VERSION = "scenes-v1"
ITEM = 28  # side of an item's intensity mask
VISIBLE = 0.08  # an item's pixel belongs to the object above this intensity
SEEDS = {"train": 1, "test": 2}
FINE, COARSE = 16, 4  # sides of the two noise fields of a background
NOISE = 3 * (FINE**2 + COARSE**2)  # numbers of a background
_NUMBERS = NOISE + 3 + 4

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Scenes:
    """Composed scenes and where their object is.

    images: (S, P, P, 3) uint8. boxes: (S, 4) int64, x0, y0, x1, y1 in pixels, half open: the
    tightest box around the object's pixels (intensity above 0.08 after placing); all zero where
    nothing is visible.
    """

    images: Array
    boxes: Array


def compose(
    items: Array,
    *,
    seed: int,
    copy: int = 0,
    size: int = 32,
    first: int = 0,
    progress: Callable[[int], None] | None = None,
) -> Scenes:
    """One fixed scene for every (item, copy, seed).

    Args:
        items: (S, h, w) uint8 intensities; enlarged bicubically to 28 x 28 where they are smaller.
        seed: 1 for training scenes, 2 for test scenes.
        copy: 0, 1, ... for more scenes of the same items.
        size: side in pixels, 32 or more.
        first: number of the first item, for composing a part.
        progress: called with the number of scenes done.
    Raises:
        ConfigError: size < 32, or items that are not (S, h, w) uint8.
    """
    require(size >= 32, f"a scene needs 32 pixels or more a side, got {size}")
    require(items.ndim == 3 and items.dtype == np.uint8, "items must be (S, h, w) uint8")
    images = np.empty((len(items), size, size, 3), np.uint8)
    boxes = np.empty((len(items), 4), np.int64)
    for start in range(0, len(items), 1000):
        part = slice(start, min(start + 1000, len(items)))
        numbers = _numbers(seed, copy, first + start, part.stop - part.start)
        images[part], boxes[part] = _compose(masks(items[part]), numbers, size)
        if progress:
            progress(part.stop)
    return Scenes(images, boxes)


def _numbers(seed: int, copy: int, first: int, count: int) -> Tensor:
    """(count, 823) uniform in [0, 1), 24 bits each, by Philox on (seed, copy) and the item."""
    raw = np.stack(
        [
            np.random.Philox(key=[(seed << 32) | copy, first + i]).random_raw(_NUMBERS)
            for i in range(count)
        ]
    )
    return torch.from_numpy((raw >> np.uint64(40)).astype(np.float32) * np.float32(2**-24))


def masks(items: Array) -> Tensor:
    """(n, 1, 28, 28) intensities in [0, 1]."""
    found = torch.from_numpy(items.astype(np.float32) / 255)[:, None]
    if found.shape[-2:] != (ITEM, ITEM):
        found = F.interpolate(found, size=(ITEM, ITEM), mode="bicubic", align_corners=False).clamp(
            0, 1
        )
    return found


def _compose(items: Tensor, numbers: Tensor, size: int) -> tuple[Array, Array]:
    clouds, rest = numbers.split([NOISE, 7], dim=1)
    scale, angle = 0.55 + 0.45 * rest[:, 3], 0.8 * rest[:, 4] - 0.4
    offset = (2 * rest[:, 5:7] - 1) * (1 - scale)[:, None]  # the scaled square stays inside [-1, 1]
    placed = place(items, scale, angle, offset, size)
    scene, visible = blend(background(clouds, size), placed, 0.35 + 0.65 * rest[:, :3])
    pixels = scene.clamp(0, 1).mul(255).round().to(torch.uint8)
    return pixels.permute(0, 2, 3, 1).numpy(), tight_boxes(visible)


def background(numbers: Tensor, size: int) -> Tensor:
    """(n, 3, P, P) clouds from (n, NOISE) uniform numbers: coarse bicubic, fine bilinear."""
    n = len(numbers)
    coarse, fine = numbers.split([3 * COARSE**2, 3 * FINE**2], dim=1)
    return 0.6 * F.interpolate(
        coarse.view(n, 3, COARSE, COARSE), size=(size, size), mode="bicubic", align_corners=False
    ).clamp(0, 1) + 0.4 * F.interpolate(
        fine.view(n, 3, FINE, FINE), size=(size, size), mode="bilinear", align_corners=False
    )


def blend(scene: Tensor, placed: Tensor, tint: Tensor) -> tuple[Tensor, Tensor]:
    """The scene with items (n, 1, P, P) in their tints (n, 3), and their masks (n, P, P)."""
    visible = placed > VISIBLE
    mask = F.avg_pool2d(visible.float(), 3, stride=1, padding=1)
    return scene * (1 - mask) + mask * (placed * tint[:, :, None, None] + 0.1), visible[:, 0]


def place(masks: Tensor, scale: Tensor, angle: Tensor, offset: Tensor, size: int) -> Tensor:
    """The item turned by `angle`, shrunk by `scale`, moved by `offset` (in half sides)."""
    cos, sin = torch.cos(angle) / scale, torch.sin(angle) / scale
    turn = torch.stack(
        [torch.stack([cos, sin], 1), torch.stack([-sin, cos], 1)], 1
    )  # scene -> item
    theta = torch.cat([turn, -turn @ offset[:, :, None]], 2)
    grid = F.affine_grid(theta, [len(masks), 1, size, size], align_corners=False)
    return F.grid_sample(masks, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def tight_boxes(visible: Tensor) -> Array:
    """The tightest half-open box around the true pixels of each (P, P) mask."""
    size = visible.shape[-1]
    edge = torch.arange(size)
    sides = []
    for axis in (1, 2):  # collapse y for the x extent, then x for the y extent
        hit = visible.any(axis)
        low = torch.where(hit, edge, size).amin(1)
        high = torch.where(hit, edge + 1, 0).amax(1)
        sides.append((low, high))
    (x0, x1), (y0, y1) = sides
    boxes = torch.stack([x0, y0, x1, y1], 1)
    return (boxes * visible.any(2).any(1)[:, None]).numpy()
