"""Random views of a batch of images, computed on its device, with per-item parameters.

Random parameters are drawn first, for the whole batch. Then a few images at a time pass through all
operations, so that they stay in the CPU cache. Geometry is one resampling; colour is one 3 x 4
matrix and a hue rotation.

Shapes: N batch, C channels, H and W pixels of the images, P side of a view.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..errors import require
from ..runtime.allocator import keep_freed_memory
from . import affine, colour
from .settings import ImageViews as ImageViews

Images = Tensor | dict[str, Tensor]

CACHED = 1 << 17  # pixels processed at a time on a CPU, so that they stay in its cache


def random_views(views: ImageViews, images: Images, generator: torch.Generator) -> Tensor:
    """Return a view of every image; see `ImageViews.__call__`."""
    size = side(views)
    keep_freed_memory()
    parts, drawn = affine.parts(images), _draw(views, images, generator)
    n, device = len(parts), drawn["flip"].device
    step = max(1, CACHED // size**2) if device.type == "cpu" else n
    if n <= step:
        return _view(views, parts, drawn, generator)
    out = torch.empty(n, len(parts[0]), size, size, device=device)
    for start in range(0, n, step):
        rows = slice(start, start + step)
        out[rows] = _view(
            views, parts[rows], {name: value[rows] for name, value in drawn.items()}, generator
        )
    return out


def _draw(views: ImageViews, images: Images, generator: torch.Generator) -> dict[str, Tensor]:
    """Draw the random parameters (N, ...) of the views, except the noise."""
    height, width = affine.sizes(images)
    n, device = len(height), height.device

    def between(low: float, high: float) -> Tensor:
        return uniform(n, (low, high), generator, device)

    def factor(strength: float) -> Tensor:
        return torch.where(on, between(max(0.0, 1 - strength), 1 + strength), 1.0)

    drawn = {"boxes": affine.crop_boxes(height, width, views.area, views.aspect, generator)}
    drawn["flip"] = chance(n, views.flip, generator, device)
    if views.rotation:
        drawn["angle"] = between(-math.radians(views.rotation), math.radians(views.rotation))
    if views.translation:
        drawn["shift"] = uniform(
            2 * n, (-views.translation, views.translation), generator, device
        ).view(n, 2)
    on = chance(n, views.jitter, generator, device)
    for name in ("brightness", "contrast", "saturation"):
        drawn[name] = factor(getattr(views, name))
    drawn["hue"] = torch.where(on, between(-views.hue, views.hue), 0.0)
    drawn["gray"] = chance(n, views.grayscale, generator, device)
    if views.blur:
        drawn["sigma"] = between(*views.blur_sigma)
    for name in ("blur", "solarize", "sobel", "cutout"):
        if getattr(views, name):
            drawn[name] = chance(n, getattr(views, name), generator, device)
    if views.cutout:
        drawn["centre"] = torch.rand(n, 2, generator=generator, device=device)
    return drawn


def _view(
    views: ImageViews, images: affine.Parts, drawn: dict[str, Tensor], generator: torch.Generator
) -> Tensor:
    """Compute the views of a few images from their parameters."""
    size = side(views)
    x = affine.resample(
        images,
        drawn["boxes"],
        drawn["flip"],
        size,
        angle=drawn.get("angle"),
        shift=drawn.get("shift"),
    )
    if views.grayscale or (
        views.jitter and (views.brightness or views.contrast or views.saturation or views.hue)
    ):
        factors = (drawn[name] for name in ("brightness", "contrast", "saturation", "hue", "gray"))
        x = colour.adjust(x, *factors, hue_space=views.hue_space)
    if views.blur:
        chosen = drawn["blur"]
        x[chosen] = colour.gaussian_blur(x[chosen], drawn["sigma"][chosen])
    if views.solarize:
        x = torch.where(_each(drawn["solarize"]) & (x > 0.5), 1 - x, x)
    if views.sobel:
        x = torch.where(_each(drawn["sobel"]), colour.sobel(x), x)
    if views.noise:
        x = (x + views.noise * torch.randn(x.shape, generator=generator, device=x.device)).clamp_(
            0, 1
        )
    if views.cutout:
        x = x.masked_fill(affine.square(drawn["centre"], size, 0.5) & _each(drawn["cutout"]), 0.5)
    return x


def centre_view(images: Images, size: int) -> Tensor:
    """Return the evaluation view: the centre crop of each image.

    Smaller images are enlarged.

    Args:
        images: as in `ImageViews.__call__`.
        size: side P of a view in pixels.

    Returns:
        (N, C, P, P) float32 in [0, 1].
    """
    height, width = affine.sizes(images)
    side = torch.minimum(torch.minimum(height, width), torch.full_like(height, size))
    small = torch.minimum(height, width) < size
    side = torch.where(small, torch.minimum(height, width), side)
    boxes = torch.stack([(height - side) // 2, (width - side) // 2, side, side], 1)
    return affine.resample(affine.parts(images), boxes, torch.zeros_like(small), size)


def chance(n: int, p: float, generator: torch.Generator, device: torch.device) -> Tensor:
    """Draw (N,) bool, true with probability p."""
    return torch.rand(n, generator=generator, device=device) < p


def uniform(
    n: int, bounds: tuple[float, float], generator: torch.Generator, device: torch.device
) -> Tensor:
    """Draw (N,) float32, uniform in [low, high)."""
    low, high = bounds
    return low + (high - low) * torch.rand(n, generator=generator, device=device)


def side(views: ImageViews) -> int:
    """Return the side P of a view.

    Raises:
        ConfigError: the size is not set.
    """
    require(views.size is not None, "ImageViews needs size, the side of a view in pixels")
    return int(views.size or 0)


def _each(mask: Tensor) -> Tensor:
    return mask[:, None, None, None]
