"""The settings of random views, one dataclass for each kind of data; each is called to make views.

Free of torch, so that the command line lists the settings without it: the work is done in `images`,
`audio` and `text`, which are imported by the first call. A field with `option: False` in its
metadata is no setting of the user: it is decided from the data.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Literal, get_args

from ..errors import require, unknown

if TYPE_CHECKING:
    import torch
    from torch import Tensor

HueSpace = Literal["hsv", "yiq"]
DECIDED = {"option": False}


@dataclass(frozen=True)
class ImageViews:
    """A distribution over views of images; call it with images and a generator.

    The order of brightness, contrast and saturation does not matter here: without torchvision's
    clamp after each of them they are linear maps that commute. Values are clamped to [0, 1] once;
    then hue is turned, in HSV as torchvision does it. In "yiq" it is a rotation that keeps luma: it
    takes less away from the view, and an encoder learns less from it.

    Args:
        size: side P of a view in pixels; None in a configuration, where the data decide.
        area: share of the image that a crop keeps, lowest and highest, in (0, 1].
        aspect: width / height of a crop, lowest and highest.
        flip: probability of a mirror image.
        rotation: degrees to either side.
        translation: shift to either side, as a share of the side.
        jitter: probability that brightness, contrast, saturation and hue change.
        brightness: the factor lies in 1 +- this, at least 0.
        contrast: the factor lies in 1 +- this, at least 0.
        saturation: the factor lies in 1 +- this, at least 0.
        hue: turn of the colour circle, +- this part of it, at most 0.5.
        hue_space: hsv, as torchvision; yiq keeps luma, which is a weaker change.
        grayscale: probability of a gray view.
        blur: probability of a Gaussian blur.
        blur_sigma: sigma of the blur in pixels, lowest and highest.
        solarize: probability that values above one half are inverted.
        sobel: probability that the view shows edges only.
        cutout: probability of a grey square of a quarter of the area.
        noise: standard deviation of white noise, of values in [0, 1].

    Raises:
        ConfigError: a setting outside its range.

    >>> import torch
    >>> views = ImageViews(size=16)
    >>> batch = torch.zeros(2, 3, 32, 32, dtype=torch.uint8)
    >>> views(batch, torch.Generator().manual_seed(0)).shape
    torch.Size([2, 3, 16, 16])
    """

    size: int | None = field(default=None, metadata=DECIDED)
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
    hue_space: HueSpace = "hsv"
    grayscale: float = 0.2
    blur: float = 0.0
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    solarize: float = 0.0
    sobel: float = 0.0
    cutout: float = 0.0
    noise: float = 0.0

    def __post_init__(self) -> None:
        for name in ("flip", "jitter", "grayscale", "blur", "solarize", "sobel", "cutout"):
            _probability(name, getattr(self, name))
        for name in ("rotation", "translation", "brightness", "contrast", "saturation", "noise"):
            value = getattr(self, name)
            require(0 <= value < math.inf, f"--{name} must be 0 or more, got {value}")
        if self.hue_space not in get_args(HueSpace):
            raise unknown("--hue-space", self.hue_space, get_args(HueSpace))
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
            f"--blur-sigma must be above 0, low first, got {self.blur_sigma}",
        )

    def __call__(self, images: Tensor | dict[str, Tensor], generator: torch.Generator) -> Tensor:
        """A view of every image.

        Args:
            images: (N, C, H, W) uint8, or what `ImageSource.read` returns for images of unequal
                size.
            generator: on the device of the images; the only source of randomness.

        Returns:
            (N, C, P, P) float32 in [0, 1].
        """
        from .images import random_views

        return random_views(self, images, generator)


@dataclass(frozen=True)
class SequenceViews:
    """A distribution over views of sounds or series; call it with sequences and a generator.

    A view is a window at a random place; a shorter sequence is taken whole and padded with zeros at
    its end.

    Args:
        window: steps of the signal in a view.
        pitch: semitones to either side, by playing faster or slower, so that the tempo changes too.
        gain: decibels to either side, around the mean of the window.
        noise: standard deviation of white noise, in standard deviations of the item.
        band_reject: probability that a random band, up to a quarter of the spectrum, is silenced.
        time_mask: probability that a random stretch, up to a quarter of the window, is silenced.

    Raises:
        ConfigError: a setting outside its range.

    >>> import torch
    >>> views = SequenceViews(window=4)
    >>> batch = {"values": torch.arange(5.0)[:, None], "length": torch.tensor([3, 2])}
    >>> views(batch, torch.Generator().manual_seed(0))["values"].tolist()
    [[[0.0, 1.0, 2.0, 0.0]], [[3.0, 4.0, 0.0, 0.0]]]
    """

    window: int = 20_480
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
            _probability(name, getattr(self, name))

    def __call__(
        self, sequences: dict[str, Tensor], generator: torch.Generator
    ) -> dict[str, Tensor]:
        """A view of every sequence.

        Args:
            sequences: as `SequenceSource.read` gives them.
            generator: on their device; the only source of randomness.

        Returns:
            {"values": (N, C, W) float32, "length": (N,) steps that are no padding}.
        """
        from .audio import random_views

        return random_views(self, sequences, generator)


@dataclass(frozen=True)
class TextViews:
    """A distribution over views of sentences; call it with a batch of tokens and a generator.

    With all settings at 0 the view is the sentence itself. At least one word always stays. Dropout
    is the encoder's own.

    Args:
        word_deletion: share of the words that are left out one by one.
        span_deletion: share of the words that are left out in one stretch.
        crop: share of the words that are cut off at both ends together.
        reorder: share of the words in each of two stretches that change places, at most 0.5.
        substitution: share of the words replaced by a synonym: WordNet's where it is installed,
            else a nearest neighbour among the token embeddings.
        token_cutoff: share of the token embeddings that are set to zero.
        feature_cutoff: share of the features that are set to zero in all tokens of a sentence.
        shuffle: probability that the positions of a sentence are shuffled.
        span: most words of a random stretch that is kept alone; 0: all.
        synonyms: (vocabulary, K) token ids that may stand for each token, -1 = none; for
            substitution.
        change: a further view, called last with (batch, generator): for example a back-translation.

    Raises:
        ConfigError: a setting outside its range.
    """

    word_deletion: float = 0.0
    span_deletion: float = 0.0
    crop: float = 0.0
    reorder: float = 0.0
    substitution: float = 0.0
    token_cutoff: float = 0.0
    feature_cutoff: float = 0.0
    shuffle: float = 0.0
    span: int = 0
    synonyms: Any = field(default=None, metadata=DECIDED)  # Tensor (V, K); torch may be absent
    change: Callable[[Any, Any], Any] | None = field(default=None, metadata=DECIDED)

    def __post_init__(self) -> None:
        for name in SHARES:
            value = getattr(self, name)
            require(0 <= value <= 1, f"--{name.replace('_', '-')} must lie in 0..1, got {value}")
        require(
            self.reorder <= 0.5,
            f"--reorder moves two stretches of at most 0.5 of the words each, got {self.reorder}",
        )
        require(self.span >= 0, f"--span must be 0 (all) or words of a stretch, got {self.span}")

    @property
    def nothing(self) -> bool:
        """Whether a view is the sentence itself."""
        return self.change is None and not any(getattr(self, n) for n in (*SHARES, "span"))

    def __call__(self, batch: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        """A view of every sentence; several columns (N, V, L) are changed alike.

        Args:
            batch: tokens as `TextEncoder` makes them.
            generator: on their device; the only source of randomness.
        """
        from .text import random_views

        return random_views(self, batch, generator)


SHARES = tuple(f.name for f in fields(TextViews) if f.type == "float")


def _probability(name: str, value: float) -> None:
    flag = name.replace("_", "-")
    require(0 <= value <= 1, f"--{flag} is a probability in 0..1, got {value}")
