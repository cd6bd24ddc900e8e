"""Crop, flip, rotate and shift a batch of images in one resampling.

Boxes are (N, 4) int64: top, left, height, width in pixels. Shapes as in `views.images`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

TRIES = 10  # as torchvision; then the largest centred box of an allowed aspect is used
# crops are resized with antialiasing if the view has at least SHARP pixels a side, or if the image
# is more than SHRINK times as large as the view
SHARP = 64
SHRINK = 1.25

Images = Tensor | dict[str, Tensor]
Parts = Tensor | list[Tensor]  # a batch of images of one size, or a list of images (C, h, w)


def sizes(images: Images) -> tuple[Tensor, Tensor]:
    """Return height and width (N,) int64 of the images."""
    if isinstance(images, dict):
        return images["height"], images["width"]
    n, _, h, w = images.shape
    return torch.full((n,), h, device=images.device), torch.full((n,), w, device=images.device)


def parts(images: Images) -> Parts:
    """Return a batch of one size unchanged, packed images as a list of images (C, h, w)."""
    if isinstance(images, Tensor):
        return images
    c = int(images["channels"][0])
    shapes = list(zip(images["height"].tolist(), images["width"].tolist(), strict=True))
    pixels = images["pixels"].split([h * w * c for h, w in shapes])
    return [p.view(h, w, c).permute(2, 0, 1) for p, (h, w) in zip(pixels, shapes, strict=True)]


def crop_boxes(
    height: Tensor,
    width: Tensor,
    area: tuple[float, float],
    aspect: tuple[float, float],
    generator: torch.Generator,
) -> Tensor:
    """Draw random crop boxes as torchvision's RandomResizedCrop does, for a batch.

    The area is uniform, the aspect log-uniform. If none of ten tries fits into the image, the
    largest centred box of an allowed aspect is used.

    Args:
        height: (N,) pixels.
        width: (N,) pixels.
        area: least and greatest area as a fraction of the image, in (0, 1].
        aspect: least and greatest width / height.
        generator: the source of randomness.

    Returns:
        Boxes (N, 4) int64.
    """
    n, device = len(height), height.device
    u = torch.rand(n, 2, TRIES, generator=generator, device=device)
    target = (height * width)[:, None] * (area[0] + (area[1] - area[0]) * u[:, 0])
    low, high = math.log(aspect[0]), math.log(aspect[1])
    ratio = torch.exp(low + (high - low) * u[:, 1])
    w, h = (target * ratio).sqrt().round().long(), (target / ratio).sqrt().round().long()
    fits = (w > 0) & (w <= width[:, None]) & (h > 0) & (h <= height[:, None])
    first = fits.int().argmax(1, keepdim=True)
    whole = (width / height).clamp(*aspect)  # aspect of the fallback
    w = torch.where(
        fits.any(1), w.gather(1, first)[:, 0], torch.minimum(width, (height * whole).round().long())
    )
    h = torch.where(
        fits.any(1), h.gather(1, first)[:, 0], torch.minimum(height, (width / whole).round().long())
    )
    place = torch.rand(2, n, generator=generator, device=device)
    top = torch.where(
        fits.any(1), (place[0] * (height - h + 1)).long().minimum(height - h), (height - h) // 2
    )
    left = torch.where(
        fits.any(1), (place[1] * (width - w + 1)).long().minimum(width - w), (width - w) // 2
    )
    return torch.stack([top, left, h, w], 1)


def resample(
    images: Parts,
    boxes: Tensor,
    flip: Tensor,
    size: int,
    *,
    angle: Tensor | None = None,
    shift: Tensor | None = None,
) -> Tensor:
    """Crop each image to its box, flip, rotate and shift it, and resize it to `size`.

    Small images are sampled bilinearly in one call for the batch. Large images, images of unequal
    size and images more than a quarter larger than the view are resized one by one with
    antialiasing (in uint8, which is faster than a float batch); a rotation is then a second
    resampling. If the box is the whole image at its own size, pixels are copied exactly.

    Args:
        images: (N, C, H, W) uint8, or `parts` of unequal size.
        boxes: (N, 4) int64.
        flip: (N,) bool, whether to flip horizontally.
        size: side P of a view in pixels.
        angle: (N,) radians, counter-clockwise; None: no rotation.
        shift: (N, 2) to the right and down, as fractions of the side of the view; None: no shift.

    Returns:
        (N, C, P, P) float32 in [0, 1]. Outside the image the border is replicated.
    """
    turned = angle is not None or shift is not None
    if isinstance(images, Tensor) and not turned and _is_whole(images, boxes, size):
        x = images / 255
        return torch.where(flip[:, None, None, None], x.flip(3), x) if bool(flip.any()) else x
    if not isinstance(images, Tensor) or size >= SHARP or max(images.shape[2:]) > SHRINK * size:
        x = _crop_each(images, boxes, flip, size)
        if not turned:
            return x
        n, full = len(x), torch.tensor([0, 0, size, size], device=x.device)
        return _sample(
            x, _grid(full.expand(n, 4), torch.zeros_like(flip), (size, size), size, angle, shift)
        )
    x = images.contiguous() / 255  # copying uint8 is cheaper than copying floats
    return _sample(x, _grid(boxes, flip, (images.shape[2], images.shape[3]), size, angle, shift))


def square(centre: Tensor, size: int, side: float) -> Tensor:
    """Return masks (N, 1, P, P) of a square around each centre.

    Args:
        centre: (N, 2) as fractions of the side of the view.
        size: side P of the view in pixels.
        side: side of the square as a fraction of the side of the view.
    """
    corners = (
        torch.arange(size, device=centre.device) + 0.5 - centre[:, :, None] * size
    ).abs() < side * size / 2
    return (corners[:, 0, :, None] & corners[:, 1, None, :])[:, None]


def _is_whole(images: Tensor, boxes: Tensor, size: int) -> bool:
    h, w = images.shape[2:]
    return h == w == size and bool((boxes == boxes.new_tensor([0, 0, h, w])).all())


def _crop_each(images: Parts, boxes: Tensor, flip: Tensor, size: int) -> Tensor:
    out = torch.empty(
        len(images), len(images[0]), size, size, dtype=torch.uint8, device=boxes.device
    )
    for i, (image, (top, left, h, w), mirror) in enumerate(
        zip(images, boxes.tolist(), flip.tolist(), strict=True)
    ):
        crop = image[None, :, top : top + h, left : left + w]
        if (h, w) != (size, size):
            crop = crop if crop.device.type == "cpu" else crop.float()  # only CPUs resize bytes
            crop = F.interpolate(
                crop, size=(size, size), mode="bilinear", antialias=True, align_corners=False
            )
            crop = crop.round().clamp(0, 255) if crop.is_floating_point() else crop
        out[i] = crop[0].flip(2) if mirror else crop[0]
    return out / 255


def _grid(
    boxes: Tensor,
    flip: Tensor,
    shape: tuple[int, int],
    size: int,
    angle: Tensor | None,
    shift: Tensor | None,
) -> Tensor:
    """Return the sampling grid (N, P, P, 2): image coordinates x, y in [-1, 1] of each view pixel.

    Each point of the view is shifted back, rotated back, flipped, and placed in the box. Without
    rotation x depends only on the column and y only on the row.
    """
    top, left, h, w = boxes.float()[:, :, None, None].unbind(1)
    line = (torch.arange(size, device=boxes.device) * 2 + 1) / size - 1
    x, y = line[None, None, :], line[None, :, None]
    if shift is not None:
        x, y = x - 2 * shift[:, :1, None], y - 2 * shift[:, 1:, None]
    if angle is not None:
        cos, sin = angle.cos()[:, None, None], angle.sin()[:, None, None]
        x, y = cos * x - sin * y, sin * x + cos * y
    x = x * torch.where(flip, -1.0, 1.0)[:, None, None]
    height, width = shape
    grid = torch.empty(len(boxes), size, size, 2, device=boxes.device)
    grid[..., 0] = x * (w / width) + ((2 * left + w) / width - 1)
    grid[..., 1] = y * (h / height) + ((2 * top + h) / height - 1)
    return grid


def _sample(x: Tensor, grid: Tensor) -> Tensor:
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=False)
