"""Options of reading that a person may give: which labels, which range, which pieces."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ..errors import require

Fit = Literal["pad", "squeeze", "cut"]
FITS = ("pad", "squeeze", "cut")


@dataclass(frozen=True)
class ReadOptions:
    """How files become items.

    Attributes:
        label_level: which folder is the label: "top", "last", or a number from 1.
        fit: what becomes of an image longer than 2:1.
        range: values that become black and white in images of more than 8 bits; None: those of
            the folder.
        ranges: the same for each kind of values, as another source of a run chose them.
        max_megapixels: bound on the memory of decoding, in pixels of 4 bytes each.
        piece: steps of an item of a long series or sound; None: decided from the data.
        hop: steps from one item to the next; None: as many as `piece`.
    """

    label_level: str = "top"
    fit: Fit = "pad"
    range: tuple[float, float] | None = None
    ranges: Mapping[str, Any] | None = None
    max_megapixels: float = 512.0
    piece: int | None = None
    hop: int | None = None

    def __post_init__(self) -> None:
        require(
            self.label_level in ("top", "last")
            or (self.label_level.isdecimal() and int(self.label_level) >= 1),
            f"--label-level must be top, last or a number from 1, got {self.label_level}",
        )
        require(self.fit in FITS, f"--fit must be one of {', '.join(FITS)}, got {self.fit}")
        require(
            self.range is None or self.range[0] < self.range[1],
            f"--range needs a lower and a higher value, got {self.range}",
        )
        require(
            0 < self.max_megapixels < 1e6,
            f"--max-megapixels must lie in 0..1,000,000, got {self.max_megapixels:g}",
        )
        for name in ("piece", "hop"):
            value = getattr(self, name)
            require(value is None or value >= 2, f"--{name} must be 2 steps or more, got {value}")
        require(self.hop is None or self.piece is not None, "--hop needs --piece")
