"""Random views of a batch of images, on its device, with parameters of its own for every item.

What is random is drawn first, for the whole batch; then a few images at a time pass through every operation, so that
they stay in the cache of a processor. Geometry is one resampling, colour one 3 x 4 matrix and a turn of hue.
Shapes: N batch, C channels, H and W pixels of the images, P side of a view.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import get_args

import torch
from torch import Tensor

from ..errors import require, unknown
from ..runtime.allocator import keep_freed_memory
from . import affine, colour

Images = Tensor | dict[str, Tensor]

CACHED = (
    1 << 17
)  # pixels of views that a processor makes at a time, so that they stay in its cache between operations


@dataclass(frozen=True)
class ImageViews:
    """A distribution over views; call it with images and a generator.

    Geometry. `area`: share of the image that a crop keeps; `aspect`: its width / height; `flip`: probability of
    a mirror image; `rotation`: degrees to either side; `translation`: share of the side to either side.
    Colour. With probability `jitter`: factors of brightness, contrast and saturation in 1 +- the value (at least
    0), a hue turn of +- `hue` full circles in `hue_space`; `grayscale`: probability.
    Then, each with its probability: `blur` (sigma in `blur_sigma` pixels), `solarize` (values above one half
    inverted), `sobel` (edges), `cutout` (a grey square of a quarter of the area); `noise`: standard deviation.

    The order of brightness, contrast and saturation does not matter here: without torchvision's clamp after each of
    them they are linear maps that commute. Values are clamped to [0, 1] once; then hue is turned, in HSV as
    torchvision does it. In "yiq" it is a rotation that keeps luma: it takes less away from the view, and an encoder
    learns less from it.

    >>> views = ImageViews(size=16)
    >>> batch = torch.zeros(2, 3, 32, 32, dtype=torch.uint8)
    >>> views(batch, torch.Generator().manual_seed(0)).shape
    torch.Size([2, 3, 16, 16])
    """

    size: int
    area: tuple[float, float] = (0.2, 1.0)
    aspect: tuple[float, float] = (3 / 4, 4 / 3)
    flip: float = 0.5
    rotation: float = 0.0
    translation: float = 0.0
    jitter: float = 1.0
    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.4
    hue: float = 0.4
    hue_space: colour.HueSpace = "hsv"
    grayscale: float = 0.2
    blur: float = 0.0
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    solarize: float = 0.0
    sobel: float = 0.0
    cutout: float = 0.0
    noise: float = 0.0

    def __post_init__(self) -> None:
        for name in ("flip", "jitter", "grayscale", "blur", "solarize", "sobel", "cutout"):
            value = getattr(self, name)
            require(0 <= value <= 1, f"--{name} is a probability in 0..1, got {value}")
        for name in ("rotation", "translation", "brightness", "contrast", "saturation", "noise"):
            value = getattr(self, name)
            require(0 <= value < math.inf, f"--{name} must be 0 or more, got {value}")
        if self.hue_space not in get_args(colour.HueSpace):
            raise unknown("--hue-space", self.hue_space, get_args(colour.HueSpace))
        require(0 <= self.hue <= 0.5, f"--hue must lie in 0..0.5 (of a full turn), got {self.hue}")
        require(
            0 < self.area[0] <= self.area[1] <= 1,
            f"--area must lie in (0, 1], low first, got {self.area}",
        )
        require(
            0 < self.aspect[0] <= self.aspect[1],
            f"--aspect must be above 0, low first, got {self.aspect}",
        )
        require(
            0 < self.blur_sigma[0] <= self.blur_sigma[1],
            f"--blur-sigma: low > 0 first, got {self.blur_sigma}",
        )

    def __call__(self, images: Images, generator: torch.Generator) -> Tensor:
        """A view of every image.

        Args:
            images: (N, C, H, W) uint8, or what `ImageSource.read` returns for images of unequal size.
            generator: on the device of the images; the only source of randomness.
        Returns:
            (N, C, P, P) float32 in [0, 1].
        """
        keep_freed_memory()
        parts, drawn = affine.parts(images), self._draw(images, generator)
        n, device = len(parts), drawn["flip"].device
        step = max(1, CACHED // self.size**2) if device.type == "cpu" else n
        if n <= step:
            return self._view(parts, drawn, generator)
        out = torch.empty(n, len(parts[0]), self.size, self.size, device=device)
        for start in range(0, n, step):
            rows = slice(start, start + step)
            out[rows] = self._view(
                parts[rows], {name: value[rows] for name, value in drawn.items()}, generator
            )
        return out

    def _draw(self, images: Images, generator: torch.Generator) -> dict[str, Tensor]:
        """What is random of each view but its noise: (N, ...) by name."""
        height, width = affine.sizes(images)
        n, device = len(height), height.device

        def between(low: float, high: float) -> Tensor:
            return uniform(n, (low, high), generator, device)

        def factor(strength: float) -> Tensor:
            return torch.where(on, between(max(0.0, 1 - strength), 1 + strength), 1.0)

        drawn = {"boxes": affine.crop_boxes(height, width, self.area, self.aspect, generator)}
        drawn["flip"] = chance(n, self.flip, generator, device)
        if self.rotation:
            drawn["angle"] = between(-math.radians(self.rotation), math.radians(self.rotation))
        if self.translation:
            drawn["shift"] = uniform(
                2 * n, (-self.translation, self.translation), generator, device
            ).view(n, 2)
        on = chance(n, self.jitter, generator, device)
        for name in ("brightness", "contrast", "saturation"):
            drawn[name] = factor(getattr(self, name))
        drawn["hue"] = torch.where(on, between(-self.hue, self.hue), 0.0)
        drawn["gray"] = chance(n, self.grayscale, generator, device)
        if self.blur:
            drawn["sigma"] = between(*self.blur_sigma)
        for name in ("blur", "solarize", "sobel", "cutout"):
            if getattr(self, name):
                drawn[name] = chance(n, getattr(self, name), generator, device)
        if self.cutout:
            drawn["centre"] = torch.rand(n, 2, generator=generator, device=device)
        return drawn

    def _view(
        self, images: affine.Parts, drawn: dict[str, Tensor], generator: torch.Generator
    ) -> Tensor:
        """The views of a few images from what was drawn for them."""
        x = affine.resample(
            images,
            drawn["boxes"],
            drawn["flip"],
            self.size,
            angle=drawn.get("angle"),
            shift=drawn.get("shift"),
        )
        if self.grayscale or (
            self.jitter and (self.brightness or self.contrast or self.saturation or self.hue)
        ):
            factors = (
                drawn[name] for name in ("brightness", "contrast", "saturation", "hue", "gray")
            )
            x = colour.adjust(x, *factors, hue_space=self.hue_space)
        if self.blur:
            chosen = drawn["blur"]
            x[chosen] = colour.gaussian_blur(x[chosen], drawn["sigma"][chosen])
        if self.solarize:
            x = torch.where(_each(drawn["solarize"]) & (x > 0.5), 1 - x, x)
        if self.sobel:
            x = torch.where(_each(drawn["sobel"]), colour.sobel(x), x)
        if self.noise:
            x = (
                x + self.noise * torch.randn(x.shape, generator=generator, device=x.device)
            ).clamp_(0, 1)
        if self.cutout:
            x = x.masked_fill(
                affine.square(drawn["centre"], self.size, 0.5) & _each(drawn["cutout"]), 0.5
            )
        return x


def centre_view(images: Images, size: int) -> Tensor:
    """The view of evaluation: the middle of each image, nothing random.

    An image packed with a margin is cut to the middle `size` pixels; one that is smaller is enlarged.

    Args: images as in `ImageViews`; size: P.
    Returns: (N, C, P, P) float32 in [0, 1].
    """
    height, width = affine.sizes(images)
    side = torch.minimum(torch.minimum(height, width), torch.full_like(height, size))
    small = torch.minimum(height, width) < size
    side = torch.where(small, torch.minimum(height, width), side)
    boxes = torch.stack([(height - side) // 2, (width - side) // 2, side, side], 1)
    return affine.resample(affine.parts(images), boxes, torch.zeros_like(small), size)


def chance(n: int, p: float, generator: torch.Generator, device: torch.device) -> Tensor:
    """(N,) bool, true with probability p."""
    return torch.rand(n, generator=generator, device=device) < p


def uniform(
    n: int, bounds: tuple[float, float], generator: torch.Generator, device: torch.device
) -> Tensor:
    """(N,) float32 in [low, high)."""
    low, high = bounds
    return low + (high - low) * torch.rand(n, generator=generator, device=device)


def _each(mask: Tensor) -> Tensor:
    return mask[:, None, None, None]
