"""A contact sheet: a query in each row, then its look-alikes, best first."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageOps

from ..data.image_folder import mark
from ..errors import DataError
from ..runtime.files import replacing

Array = np.ndarray[Any, Any]
TILE, GAP, BAND = 64, 4, 14
GOOD, BAD, PLAIN = (38, 139, 76), (196, 60, 50), (120, 120, 120)


def draw(
    rows: Sequence[tuple[Array, Sequence[Array]]],
    *,
    captions: Sequence[Sequence[str]] | None = None,
    same: Sequence[Sequence[bool]] | None = None,
) -> Image.Image:
    """The picture of queries and look-alikes.

    Args:
        rows: each a query (h, w, C) uint8 and its look-alikes, of any sizes.
        captions: a short text under every look-alike. same: a green (True) or red mark under each.
    """
    width = max(len(neighbours) for _, neighbours in rows)
    step, height = TILE + GAP, TILE + GAP + (BAND if captions or same else 0)
    sheet = Image.new("RGB", (GAP * 4 + step * (width + 1), GAP + height * len(rows)), "white")
    pen = ImageDraw.Draw(sheet)
    for r, (query, neighbours) in enumerate(rows):
        y = GAP + r * height
        sheet.paste(_tile(query), (GAP, y))
        for c, image in enumerate(neighbours):
            x = GAP * 4 + step * (c + 1)
            sheet.paste(_tile(image), (x, y))
            colour = PLAIN if same is None else GOOD if same[r][c] else BAD
            if same is not None:
                pen.rectangle((x, y + TILE + 1, x + TILE - 1, y + TILE + 3), fill=colour)
            if captions is not None:
                pen.text((x, y + TILE + 3), captions[r][c][:10], fill=colour)
    x = GAP * 2 + step
    pen.line((x, 0, x, sheet.height), fill=PLAIN)
    return sheet


def save(sheet: Image.Image, path: str | Path) -> None:
    """Write the picture atomically, in the format of its name.

    Raises:
        DataError: it cannot be written, or its name has no picture's ending.
    """
    try:
        with replacing(path, error=DataError) as work:
            sheet.save(work, **mark(work.suffix))  # so that it is never read as data
    except ValueError as error:  # no format has this ending
        if isinstance(error, DataError):
            raise
        raise DataError(f"cannot write the picture {path}: {error}") from error


def _tile(image: Array) -> Image.Image:
    picture = Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image[:, :, :3]).convert(
        "RGB"
    )
    small = max(picture.size) < TILE
    return ImageOps.pad(
        picture, (TILE, TILE), Image.Resampling.NEAREST if small else Image.Resampling.LANCZOS
    )
