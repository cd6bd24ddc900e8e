"""Decode image files once into a uint8 memory map, with threads, counting what cannot be used and why."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from ..errors import DataError
from .images import Pixels
from .source import Array

FORMAT = 1
MARGIN = 1.15  # the short side of a packed image, in image sizes: room for a crop that is not an enlargement
LONGEST = 2.0  # the long side is cut at this many short sides
MAX_PIXELS = 178_956_970  # Pillow's own warning level for a decompression bomb


@dataclass(frozen=True)
class Packed:
    """A packed folder: pixels, the files that made it (their hashes) and those that could not be used."""

    pixels: Pixels
    kept: Array  # rows of the given file list
    hashes: list[str]
    skipped: list[dict[str, str]]


def decode(path: Path, channels: int) -> tuple[Image.Image, str]:
    """The picture as a person sees it, in 8 bits, with the hash of its file.

    Turned by EXIF, first frame, palette resolved, alpha laid on white, CMYK to RGB, 16 bits scaled to 8.
    """
    raw = path.read_bytes()
    if not raw:
        raise DataError("the file is empty")
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        picture: Image.Image = Image.open(io.BytesIO(raw))
        if picture.width * picture.height > MAX_PIXELS:
            raise DataError(
                f"{picture.width} x {picture.height} pixels is more than {MAX_PIXELS:,}"
            )
        picture.load()
    picture = ImageOps.exif_transpose(picture)
    return _eight_bit(picture, channels), hashlib.blake2b(raw, digest_size=16).hexdigest()


def fit(picture: Image.Image, short: int | None) -> Image.Image:
    """Short side to `short` pixels (None: keep), long side cut in the middle at twice that."""
    w, h = picture.size
    side = short or min(w, h)
    longest = round(min(w, h) * LONGEST)
    box = (0.0, 0.0, float(w), float(h))
    if w > longest:
        box = ((w - longest) / 2, 0, (w + longest) / 2, h)
    elif h > longest:
        box = (0, (h - longest) / 2, w, (h + longest) / 2)
    width, height = box[2] - box[0], box[3] - box[1]
    scale = side / min(width, height)
    target = (max(1, round(width * scale)), max(1, round(height * scale)))
    if target == picture.size:
        return picture
    return picture.resize(target, Image.Resampling.BICUBIC, box=box, reducing_gap=3.0)


def pack(
    files: Sequence[Path],
    names: Sequence[str],
    folder: Path,
    *,
    short: int | None,
    channels: int,
    limit: float,
    progress: Callable[[int], None] | None = None,
) -> None:
    """Write `folder` (new, atomically): pixels.bin, table.npz, skipped.json. At most `limit` bytes."""
    with appearing(folder) as work:
        _write(files, names, work, short, channels, limit, progress)


def save_array(folder: Path, images: Array) -> None:
    """Write `folder` (new, atomically) with one images.npy."""
    with appearing(folder) as work:
        np.save(work / "images.npy", images)


@contextlib.contextmanager
def appearing(folder: Path) -> Iterator[Path]:
    """A scratch folder that takes the name `folder` once all of it is written."""
    work = None
    try:
        work = Path(tempfile.mkdtemp(prefix=".packing-", dir=folder.parent))
        yield work
        os.replace(work, folder)
    except OSError as error:
        if (
            not folder.exists()
        ):  # another process may have packed the same files first: then its work serves
            raise DataError(
                f"cannot write the cache {folder}: {error.strerror}; give another --cache"
            ) from error
    finally:
        if work:
            shutil.rmtree(work, ignore_errors=True)


def load(folder: Path) -> Packed:
    """A packed folder, its pixels memory-mapped."""
    with np.load(folder / "table.npz") as table:
        flat: Array = np.zeros(0, np.uint8)
        if (folder / "pixels.bin").stat().st_size:  # else no file could be used
            flat = np.memmap(folder / "pixels.bin", np.uint8, mode="r")
        pixels = Pixels(
            flat, table["offset"], table["height"], table["width"], int(table["channels"])
        )
        found = json.loads((folder / "skipped.json").read_text())
        return Packed(pixels, table["kept"], found["hashes"], found["skipped"])


def _write(
    files: Sequence[Path],
    names: Sequence[str],
    work: Path,
    short: int | None,
    channels: int,
    limit: float,
    progress: Callable[[int], None] | None,
) -> None:
    sizes: list[tuple[int, int]] = []
    kept: list[int] = []
    hashes: list[str] = []
    skipped: list[dict[str, str]] = []
    total = 0
    with open(work / "pixels.bin", "wb") as out, ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, len(files), 512):  # bounded: decoded pictures never pile up
            chunk = range(start, min(start + 512, len(files)))
            for i, result in zip(
                chunk, pool.map(lambda i: _prepared(files[i], short, channels), chunk), strict=True
            ):
                if isinstance(result, str):
                    skipped.append({"path": names[i], "reason": result})
                    continue
                image, digest = result
                total += image.nbytes
                if total > limit:
                    raise DataError(
                        f"the packed images need more than --cache-limit {limit / 1e9:g} (GB); "
                        "raise it, or give a smaller --image-size"
                    )
                out.write(image.tobytes())
                sizes.append(image.shape[:2])
                kept.append(i)
                hashes.append(digest)
            if progress:
                progress(chunk.stop)
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
    (work / "skipped.json").write_text(
        json.dumps({"format": FORMAT, "hashes": hashes, "skipped": skipped})
    )


def _prepared(path: Path, short: int | None, channels: int) -> tuple[Array, str] | str:
    """The packed image (h, w, C) and the hash of its file, or why it cannot be used."""
    try:
        picture, digest = decode(path, channels)
        image = np.asarray(fit(picture, short))
        return (image if image.ndim == 3 else image[:, :, None]), digest
    except UnidentifiedImageError:
        return "not an image that Pillow can read (damaged, or a wrong extension)"
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        return (
            f"{type(error).__name__}: {error}" if not isinstance(error, DataError) else str(error)
        )
    except Image.DecompressionBombWarning as error:
        return str(error)


def _eight_bit(picture: Image.Image, channels: int) -> Image.Image:
    if picture.mode.startswith("I") or picture.mode == "F":  # 16 and 32 bits: to the 8 highest
        values = np.asarray(picture, np.float64)
        scale = 257.0 if picture.mode.startswith("I;16") or values.max(initial=0) > 255 else 1.0
        picture = Image.fromarray(np.clip(values / scale, 0, 255).astype(np.uint8))
    if picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info:
        opaque = Image.new("RGBA", picture.size, "white")
        picture = Image.alpha_composite(opaque, picture.convert("RGBA"))
    return picture.convert("L" if channels == 1 else "RGB")
