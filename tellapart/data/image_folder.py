"""A folder of images, or a text file that lists them, as a source."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from pathlib import Path

from PIL import Image

from ..errors import DataError
from . import files as listings
from . import image_packing
from .cache import Cache
from .files import Listing
from .images import ImageSource
from .kinds import IMAGES

SMALL = 64  # up to this side in pixels images keep their own size


def image_source(
    name: str,
    listing: Listing,
    cache: Cache,
    *,
    size: int | None,
    large: int,
    progress: Callable[[int, int], None] | None = None,
) -> ImageSource:
    """Pack the listed images (once) and describe them.

    Args:
        size: side of the view in pixels; None: the images' own side up to 64, `large` above.
    """
    if not listing.names:
        raise DataError(f"{name} holds no images ({', '.join(sorted(IMAGES))})")
    channels, native, uniform = _survey(listing.files)
    size = size or (native if native <= SMALL else large)
    short = None if uniform and native == size else round(size * image_packing.MARGIN)
    key = listings.key(listing, image_packing.FORMAT, short, channels)
    total = len(listing.names)
    folder = cache.entry(
        key,
        lambda into, limit: image_packing.pack(
            listing.files, listing.names, into,
            short=short, channels=channels, limit=limit,
            progress=(lambda done: progress(done, total)) if progress else None,
        ),
    )  # fmt: skip
    packed = image_packing.load(folder)
    if len(packed.kept) < 2:
        raise listings.too_few(name, "image(s)", len(packed.kept), packed.skipped)
    identity = listings.identity(name, listing, packed.kept.tolist(), packed.hashes, packed.skipped)
    duplicates = len(packed.hashes) - len(set(packed.hashes))
    return ImageSource(**identity, pixels=packed.pixels, image_size=size, duplicates=duplicates)


def _survey(files: Sequence[Path]) -> tuple[int, int, bool]:
    """(channels, median short side, all of one size) from the headers of up to 1,000 files spread over the list."""
    sides, gray, shapes = [], True, set()
    for path in files[:: max(1, len(files) // 1000)]:
        try:
            with Image.open(path) as picture:
                sides.append(min(picture.size))
                shapes.add(picture.size)
                gray &= picture.mode in ("1", "L", "I", "F") or picture.mode.startswith("I;16")
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
            continue
    if not sides:
        return 3, SMALL, False
    uniform = len(shapes) == 1 and len(set(next(iter(shapes)))) == 1
    return 1 if gray else 3, max(8, round(statistics.median(sides))), uniform
