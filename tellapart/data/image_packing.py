"""Pack image files once into a uint8 memory map, counting what cannot be used and why."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError
from ..runtime.files import appearing_folder
from . import image_decoding
from .bounded import in_order
from .cache import SCRATCH
from .files import digest_of, open_regular, reason
from .image_decoding import MEGAPIXELS, Cost
from .images import Pixels
from .source import Array

FORMAT = 3
MARGIN = 1.15  # short side of a packed image in image sizes: room for a crop that enlarges nothing
BLANK = 3  # grey levels between the darkest and the brightest pixel of a picture without content
Ranges = Mapping[str, tuple[float, float]]


@dataclass(frozen=True)
class Reading:
    """How pictures are read into 8 bits of one size.

    Attributes:
        fit: "pad", "squeeze" or "cut": what becomes of a picture longer than 2:1.
        ranges: kind of values above 8 bits -> the values that become black and white.
        megapixels: bound on the memory of decoding, in pixels of 4 bytes each.
    """

    fit: str = "pad"
    ranges: Ranges | None = None
    megapixels: float = MEGAPIXELS


@dataclass(frozen=True)
class Packed:
    """A packed folder.

    Attributes:
        pixels: of all its images.
        kept: rows of the given file list, one for each image.
        hashes: of the contents of their files.
        skipped: what could not be used.
        changes: what was done to pictures ("padded", ...) -> names of their files.
    """

    pixels: Pixels
    kept: Array
    hashes: list[str]
    skipped: list[dict[str, str]]
    changes: dict[str, list[str]]


def read_image(
    path: str | Path, channels: int, short: int | None, reading: Reading
) -> tuple[Array, str, tuple[str, ...]]:
    """One image as it is packed.

    Returns:
        The image (h, w, C) uint8, the hash of its file, and what was done to it.
    Raises:
        DataError: why the file cannot be used.
    """
    try:
        with open_regular(path) as file:
            decoded = image_decoding.decode_image(
                file,
                channels,
                short=short,
                fit=reading.fit,
                ranges=reading.ranges,
                megapixels=reading.megapixels,
            )
            return decoded.image, digest_of(file), decoded.changes
    except Exception as error:  # the readers raise many kinds on a damaged file
        raise DataError(reason(error)) from error


def pack(
    files: Sequence[Path],
    names: Sequence[str],
    folder: Path,
    *,
    short: int | None,
    channels: int,
    limit: float,
    costs: Sequence[Cost | None],
    reading: Reading,
    progress: Callable[[int], None] | None = None,
) -> None:
    """Write `folder` (new, atomically): pixels.bin, table.npz, about.json.

    Args:
        files: of the images. names: of the files, for what is listed.
        short: short side of a packed image in pixels; None: images keep their size.
        channels: 1 or 3.
        limit: bytes that the packed images may take.
        costs: of decoding each file; None where its header cannot be read.
        reading: how pictures become 8 bits.
        progress: called with the number of files done.
    """
    with appearing(folder) as work:
        _write(files, names, work, short, channels, limit, costs, reading, progress)


def save_array(folder: Path, images: Array) -> None:
    """Write `folder` (new, atomically) with one images.npy."""
    with appearing(folder) as work:
        np.save(work / "images.npy", images)


def appearing(folder: Path) -> contextlib.AbstractContextManager[Path]:
    """A scratch folder that takes the name `folder` once all of it is written."""
    return appearing_folder(folder, prefix=SCRATCH, error=DataError, replace=True)


def load(folder: Path) -> Packed:
    """A packed folder, its pixels memory-mapped."""
    with np.load(folder / "table.npz") as table:
        flat: Array = np.zeros(0, np.uint8)
        if (folder / "pixels.bin").stat().st_size:  # else no file could be used
            flat = np.memmap(folder / "pixels.bin", np.uint8, mode="r")
        pixels = Pixels(
            flat, table["offset"], table["height"], table["width"], int(table["channels"])
        )
        about = json.loads((folder / "about.json").read_text())
        return Packed(pixels, table["kept"], about["hashes"], about["skipped"], about["changes"])


def _write(
    files: Sequence[Path],
    names: Sequence[str],
    work: Path,
    short: int | None,
    channels: int,
    limit: float,
    costs: Sequence[Cost | None],
    reading: Reading,
    progress: Callable[[int], None] | None,
) -> None:
    sizes: list[tuple[int, int]] = []
    kept: list[int] = []
    hashes: list[str] = []
    skipped: list[dict[str, str]] = []
    changes: dict[str, list[str]] = {}
    total = 0

    def one(row: int) -> tuple[Array, str, tuple[str, ...]] | str:
        try:
            return read_image(files[row], channels, short, reading)
        except DataError as error:
            return str(error)

    def need(row: int) -> float:
        cost = costs[row]
        return 0.0 if cost is None else cost.bytes(short, reading.fit)

    results = in_order(range(len(files)), one, need=need, budget=reading.megapixels * 4e6)
    with open(work / "pixels.bin", "wb") as out:
        for row, result in results:
            if progress and ((row + 1) % 500 == 0 or row + 1 == len(files)):
                progress(row + 1)
            if isinstance(result, str):
                skipped.append({"path": names[row], "reason": result})
                continue
            image, digest, changed = result
            total += image.nbytes
            if total > limit:
                raise DataError(
                    f"the packed images need more than --cache-limit {limit / 1e9:g} (GB); "
                    "raise it, or give a smaller --image-size"
                )
            out.write(image.tobytes())
            sizes.append(image.shape[:2])
            kept.append(row)
            hashes.append(digest)
            for change in (*changed, *_without_content(image, changed)):
                changes.setdefault(change, []).append(names[row])
    table = np.array(sizes, np.int64).reshape(-1, 2)
    lengths = table[:, 0] * table[:, 1] * channels
    np.savez(
        work / "table.npz",
        offset=np.cumsum(lengths) - lengths,
        height=table[:, 0],
        width=table[:, 1],
        channels=channels,
        kept=np.array(kept, np.int64),
    )
    about: dict[str, Any] = {
        "format": FORMAT, "hashes": hashes, "skipped": skipped, "changes": changes,
    }  # fmt: skip
    (work / "about.json").write_text(json.dumps(about))


def _without_content(image: Array, changed: Sequence[str]) -> Iterator[str]:
    """Lost content: "blank" is a picture of one colour, "blank middle" one whose middle is."""
    if int(image.max()) - int(image.min()) <= BLANK:
        flat = any(change.startswith("flattened") for change in changed)
        yield "blank after flattening" if flat else "blank"
        return
    h, w = image.shape[:2]
    side = min(h, w)
    top, left = (h - side) // 2, (w - side) // 2
    middle = image[top : top + side, left : left + side]
    if int(middle.max()) - int(middle.min()) <= BLANK:
        yield "blank middle"
