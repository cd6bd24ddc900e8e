"""A folder of images, or a text file that lists them, as a source: what is there, and how it is split."""

from __future__ import annotations

import hashlib
import os
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from ..errors import DataError
from . import packing
from .cache import Cache
from .source import Array, ImageSource, hash_split

EXTENSIONS = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif"}
SPLITS = {"train": "train", "test": "test", "val": "test", "valid": "test", "validation": "test"}
TEST_SHARE = 0.2
SMALL = 64  # up to this side in pixels images keep their own size


@dataclass(frozen=True)
class Listing:
    """Image files in a fixed order: names relative to the source, and a label and a split where they have one."""

    root: Path
    names: list[str]
    labels: list[str | None]
    splits: list[str | None]
    skipped: list[dict[str, str]]

    @property
    def files(self) -> list[Path]:
        return [self.root / n for n in self.names]


def list_folder(root: Path) -> Listing:
    """Every image below `root`, links followed but never in a circle; hidden files and folders are left out.

    A first folder named train, test or val is a split; the next folder is the label.
    """
    names, skipped = [], []
    seen: set[str] = set()
    for folder, inner, files in os.walk(root, followlinks=True, onerror=lambda e: skipped.append(_unreadable(e, root))):
        real = os.path.realpath(folder)
        inner[:] = sorted(d for d in inner if not d.startswith("."))
        if real in seen:
            inner.clear()
            continue
        seen.add(real)
        for file in sorted(files):
            if Path(file).suffix.lower() in EXTENSIONS and not file.startswith("."):
                names += [os.path.relpath(os.path.join(folder, file), root)]
    names.sort()
    parts = [Path(n).parts[:-1] for n in names]
    splits = [SPLITS.get(p[0].lower()) if p else None for p in parts]
    if "train" not in splits:  # a folder that only happens to be called "test" is a label
        splits = [None] * len(names)
    labels = [(p[1:] if s else p)[:1] for p, s in zip(parts, splits, strict=True)]
    return Listing(root, names, [label[0] if label else None for label in labels], splits, skipped)


def list_file(path: Path) -> Listing:
    """A text file with one path a line, relative to it or absolute, and optionally a tab and a label."""
    names: list[str] = []
    labels: list[str | None] = []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as a list of paths in UTF-8: {error}") from error
    for line in lines:
        name, _, label = line.partition("\t")
        if name.strip():
            names.append(name.strip())
            labels.append(label.strip() or None)
    return Listing(path.parent, names, labels, [None] * len(names), [])


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
        raise DataError(f"{name} holds no images ({', '.join(sorted(EXTENSIONS))})")
    channels, native, uniform = _survey(listing.files)
    size = size or (native if native <= SMALL else large)
    short = None if uniform and native == size else round(size * packing.MARGIN)
    key = _key(listing, short, channels)
    total = len(listing.names)
    folder = cache.entry(
        key,
        lambda into, limit: packing.pack(
            listing.files, listing.names, into,
            short=short, channels=channels, limit=limit,
            progress=(lambda done: progress(done, total)) if progress else None,
        ),
    )  # fmt: skip
    packed = packing.load(folder)
    if len(packed.kept) < 2:
        raise DataError(_too_few(name, len(packed.kept), packed.skipped))
    return _source(name, listing, packed, size)


def _source(name: str, listing: Listing, packed: packing.Packed, size: int) -> ImageSource:
    ids = [listing.names[i] for i in packed.kept]
    names = [listing.labels[i] for i in packed.kept]
    classes = sorted({n for n in names if n is not None})
    labels: Array | None = None
    if len(classes) > 1:
        number = {c: i for i, c in enumerate(classes)}
        labels = np.array([-1 if n is None else number[n] for n in names], np.int64)
    given = [listing.splits[i] for i in packed.kept]
    if "train" in given:
        parts = {
            s: np.array([i for i, g in enumerate(given) if (g or "train") == s], np.int64) for s in ("train", "test")
        }
    elif labels is not None:
        parts = hash_split(packed.hashes, TEST_SHARE)
    else:
        parts = {"train": np.arange(len(ids))}
    digest = hashlib.blake2b("\n".join(packed.hashes + ids + [str(n) for n in names]).encode(), digest_size=16)
    return ImageSource(
        name=name,
        pixels=packed.pixels,
        image_size=size,
        all_ids=ids,
        all_labels=labels,
        classes=classes if labels is not None else (),
        parts={s: rows for s, rows in parts.items() if len(rows)},
        fingerprint=digest.hexdigest(),
        skipped=[*listing.skipped, *packed.skipped],
        duplicates=len(ids) - len(set(packed.hashes)),
    )


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


def _key(listing: Listing, short: int | None, channels: int) -> str:
    digest = hashlib.blake2b(repr((packing.FORMAT, short, channels)).encode(), digest_size=16)
    for name, path in zip(listing.names, listing.files, strict=True):
        try:
            stat = path.stat()
            digest.update(f"{name}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
        except OSError:
            digest.update(f"{name}\0missing\n".encode())
    digest.update(str(listing.root.resolve()).encode())
    return digest.hexdigest()


def _unreadable(error: OSError, root: Path) -> dict[str, str]:
    return {"path": os.path.relpath(str(error.filename or root), root), "reason": error.strerror or str(error)}


def _too_few(name: str, kept: int, skipped: Sequence[dict[str, str]]) -> str:
    text = f"{name} holds {kept} usable image(s); telling instances apart needs 2 or more"
    if skipped:
        text += f" ({len(skipped)} skipped, the first: {skipped[0]['path']}: {skipped[0]['reason']})"
    return text
