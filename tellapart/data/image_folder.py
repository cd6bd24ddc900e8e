"""A folder of images, or a list of them, as a source."""

from __future__ import annotations

import contextlib
import json
import statistics
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

from ..errors import DataError
from . import endings, image_decoding, image_packing
from . import files as listings
from .bounded import in_order
from .cache import Cache
from .files import Listing, open_regular
from .image_decoding import Cost
from .image_packing import Reading
from .images import ImageSource
from .notes import Note, counted, note, shown
from .options import ReadOptions
from .source import Array

SMALL = 64  # up to this side in pixels images keep their own size
MARK = "tellapart"  # the software that pictures written by this package name
SAMPLED = 1024  # values of a picture that the range of a folder is judged by
GRAY = ("1", "L", "LA", "La", "I", "F")


@dataclass(frozen=True)
class Header:
    """The header of a file; `cost` None: it cannot be read."""

    cost: Cost | None = None
    gray: bool = True
    ours: bool = False
    frames: bool = False
    deep: str = ""


def image_source(
    name: str,
    listing: Listing,
    cache: Cache,
    *,
    size: int | None,
    large: int,
    options: ReadOptions | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> ImageSource:
    """Pack the listed images (once) and describe them.

    Args:
        name: what the user typed.
        listing: the files. cache: where packed images are kept.
        size: side of the view in pixels; None: the images' own side up to 64, `large` above.
        options: how pictures become 8 bits.
        progress: called with (done, total).
    Raises:
        DataError: fewer than two usable images, or a range without pictures that it is about.
    """
    options = options or ReadOptions()
    reading = Reading(options.fit, options.ranges, options.max_megapixels)
    if not listing.names:
        raise _no_images(name, listing)
    headers = _survey(listing, cache)
    ours = [i for i, h in enumerate(headers) if h.ours]
    if ours:
        said = [listings.readable(listing.names[i]) for i in ours]
        text = f"{counted(len(ours), 'picture')} written by tellapart left out: {shown(said)}"
        listing = listing.without(ours, [note("own pictures", text, count=len(ours), names=said)])
        headers = [h for h in headers if not h.ours]
        if not listing.names:
            raise _no_images(name, listing)
    channels, native, uniform = shape_of(headers)
    size = size or (native if native <= SMALL else large)
    short = None if uniform and native == size else round(size * image_packing.MARGIN)
    reading, notes = _with_ranges(reading, options.range, listing, headers, cache)
    total = len(listing.names)
    key = listings.key(
        listing, image_packing.FORMAT, short, channels, reading.fit, reading.megapixels,
        sorted((reading.ranges or {}).items()),
    )  # fmt: skip
    folder = cache.entry(
        key,
        lambda into, limit: image_packing.pack(
            listing.files, listing.names, into,
            short=short, channels=channels, limit=limit, reading=reading,
            costs=[h.cost for h in headers],
            progress=(lambda done: progress(done, total)) if progress else None,
        ),
        lambda entry: _contents(entry, listing),
    )  # fmt: skip
    packed = image_packing.load(folder)
    if len(packed.kept) < 2:
        skipped = [*listing.skipped, *packed.skipped]
        raise listings.too_few(name, "image", "images", len(packed.kept), skipped)
    identity = listings.identity(name, listing, packed.kept.tolist(), packed.hashes, packed.skipped)
    moving = [listing.names[i] for i in packed.kept.tolist() if headers[i].frames]
    identity["notes"] += [*notes, *_of_changes(packed.changes), *_of_frames(moving)]
    duplicates = len(packed.hashes) - len(set(packed.hashes))
    return ImageSource(
        **identity, pixels=packed.pixels, image_size=size, duplicates=duplicates, reading=reading
    )


def _no_images(name: str, listing: Listing) -> DataError:
    said = [str(n["text"]) for n in listing.notes if n["count"]]
    read = ", ".join(sorted(endings.IMAGES))
    return DataError(
        f"{listings.readable(name)} holds no images that can be read"
        + (f": {'; '.join(said)}" if said else "")
        + f" (read are {read})"
    )


def _survey(listing: Listing, cache: Cache) -> list[Header]:
    """The header of every file; kept in the cache, for a folder is opened more than once."""
    files = listing.files

    def make(into: Path, _: float) -> None:
        found = in_order(files, _header, need=lambda _: 0.0, budget=1.0, most=512)
        with image_packing.appearing(into) as work:
            rows = [asdict(header) for _, header in found]
            (work / "headers.json").write_text(json.dumps(rows))

    folder = cache.entry(listings.key(listing, "headers", image_packing.FORMAT), make, summary=True)
    rows = json.loads((folder / "headers.json").read_text())
    return [Header(**row | {"cost": Cost(**row["cost"]) if row["cost"] else None}) for row in rows]


def _contents(entry: Path, listing: Listing) -> list[tuple[Path, str]]:
    """The files of a packed entry with the digests of their contents."""
    packed = image_packing.load(entry)
    rows = zip(packed.kept.tolist(), packed.hashes, strict=True)
    return [(listing.files[row], digest) for row, digest in rows]


def _header(path: Path) -> Header:
    try:
        with open_regular(path) as file:
            return header_of(file)
    except Exception:  # packing lists it, with the reason
        return Header()


def header_of(file: BinaryIO) -> Header:
    """The header of a picture.

    Args:
        file: of the picture.

    Raises:
        ValueError and others of Pillow: it cannot be read.
    """
    picture = image_decoding.open_picture(file)
    deep = image_decoding.deep_kind(picture)  # by the parts that reading EXIF may load
    return Header(
        image_decoding.cost(picture),
        picture.mode in GRAY or picture.mode.startswith("I;16"),
        _is_ours(picture),
        picture.format in ("GIF", "TIFF", "WEBP", "PNG", "AVIF", "HEIF")
        and bool(getattr(picture, "is_animated", False)),
        deep,
    )


def _is_ours(picture: Image.Image) -> bool:
    """Whether this package wrote the picture; see `mark`."""
    given = picture.info.get("Software"), picture.info.get("comment")
    said = [v.decode("utf-8", "replace") if isinstance(v, bytes) else v for v in given]
    if picture.format != "PNG":  # reading EXIF decodes a PNG, and ours have the text
        with contextlib.suppress(Exception):  # EXIF that cannot be read is not ours
            said.append(picture.getexif().get(0x0131))
    return any(isinstance(v, str) and v.strip().startswith(MARK) for v in said)


def mark(ending: str) -> dict[str, Any]:
    """Options of Pillow's `save` that mark a picture as written by this package.

    Args: ending: of the file, such as ".png".
    """
    if ending.lower() in (".png", ".apng"):
        from PIL.PngImagePlugin import PngInfo

        text = PngInfo()
        text.add_text("Software", MARK)
        return {"pnginfo": text}
    if ending.lower() == ".gif":
        return {"comment": MARK.encode()}
    exif = Image.Exif()
    exif[0x0131] = MARK
    return {"exif": exif}


def shape_of(headers: Sequence[Header]) -> tuple[int, int, bool]:
    """Properties that the files of a data set share.

    Args:
        headers: of all files.

    Returns:
        Channels, median short side in pixels, and whether all are square and of one size.
    """
    usable = [h for h in headers if h.cost]
    if not usable:
        return 3, SMALL, False
    sizes = {(h.cost.width, h.cost.height) for h in usable if h.cost}
    sides = [min(h.cost.width, h.cost.height) for h in usable if h.cost]
    square = len(sizes) == 1 and len(set(next(iter(sizes)))) == 1
    channels = 1 if all(h.gray for h in usable) else 3
    return channels, max(8, round(statistics.median(sides))), square


def _with_ranges(
    reading: Reading,
    given: tuple[float, float] | None,
    listing: Listing,
    headers: Sequence[Header],
    cache: Cache,
) -> tuple[Reading, list[Note]]:
    """The reading with the range of each kind of deep pictures, and a note on each."""
    kinds = Counter(h.deep for h in headers if h.deep)
    if given and not kinds:
        raise DataError("--range applies to images of more than 8 bits; there are none here")
    if not kinds:
        return replace(reading, ranges=None), []
    ranges: dict[str, tuple[float, float]] = {}
    how = {}
    for kind in kinds:
        if given:
            ranges[kind], how[kind] = given, "--range"
        elif kind in (reading.ranges or {}):
            low, high = (reading.ranges or {})[kind]
            ranges[kind], how[kind] = (float(low), float(high)), "as in the run"
    if missing := [kind for kind in kinds if kind not in ranges]:
        rows = [i for i, h in enumerate(headers) if h.deep in missing]
        for kind, ends in _ranges_of(listing, headers, rows, reading.megapixels, cache).items():
            ranges[kind], how[kind] = ends, "the range in this folder; --range sets another"
    notes = [
        note(
            f"{kind} values",
            f"{counted(kinds[kind], 'picture')} of {kind} values: {ranges[kind][0]:g} to "
            f"{ranges[kind][1]:g} become 0 to 255 ({how[kind]})",
            count=kinds[kind],
            names=[
                listings.readable(listing.names[i]) for i, h in enumerate(headers) if h.deep == kind
            ],
        )
        for kind in sorted(ranges)
    ]
    return replace(reading, ranges=ranges), notes


def _ranges_of(
    listing: Listing,
    headers: Sequence[Header],
    rows: Sequence[int],
    megapixels: float,
    cache: Cache,
) -> dict[str, tuple[float, float]]:
    """The values of each kind that become black and white, from all pictures of that kind."""
    files = listing.files

    def need(row: int) -> float:
        cost = headers[row].cost
        return cost.bytes(None, "cut") if cost else 0.0

    def make(into: Path, _: float) -> None:
        found: dict[str, list[Array]] = {}
        work = in_order(
            rows, lambda i: _values(files[i], megapixels), need=need, budget=megapixels * 4e6
        )
        for row, values in work:
            if len(values):
                found.setdefault(headers[row].deep, []).append(values)
        ends = {kind: range_of(kind, np.concatenate(values)) for kind, values in found.items()}
        with image_packing.appearing(into) as place:
            (place / "ranges.json").write_text(json.dumps(ends))

    key = listings.key(listing, "ranges", image_packing.FORMAT, list(rows), megapixels)
    read = json.loads((cache.entry(key, make, summary=True) / "ranges.json").read_text())
    return {kind: (float(low), float(high)) for kind, (low, high) in read.items()}


def _values(path: Path, megapixels: float) -> Array:
    """As `values_of`; none of a damaged picture."""
    try:
        with open_regular(path) as file:
            return values_of(file, megapixels)
    except Exception:  # packing lists it, with the reason
        return np.zeros(0)


def values_of(file: BinaryIO, megapixels: float) -> Array:
    """The least, the greatest, and some values between of a deep picture.

    Args:
        file: of the picture.
        megapixels: bound on the memory of decoding, in pixels of 4 bytes.

    Raises:
        ValueError and others of Pillow: it cannot be read.
    """
    picture = image_decoding.open_picture(file)
    if image_decoding.cost(picture).bytes(None, "cut") > megapixels * 4e6:
        return np.zeros(0)
    values = image_decoding.colour_values(picture, file)
    empty = image_decoding.no_data(picture)
    step = max(1, picture.width * picture.height // SAMPLED)
    parts = []
    bands = image_decoding.value_bands(picture)
    if values is not None:
        bands = iter([image_decoding.visible_colours(picture, values)])
    for band in bands:
        flat = band.reshape(-1)
        if empty is not None:
            flat = flat[flat != empty]
        flat = flat[np.isfinite(flat)]
        if len(flat):
            parts += [flat[::step], flat.min()[None], flat.max()[None]]
    return np.concatenate(parts).astype(np.float64) if parts else np.zeros(0)


def range_of(kind: str, values: Array) -> tuple[float, float]:
    """The values that become black and white; a few values far from all others do not count.

    Args:
        kind: of the values, as `image_decoding.deep_kind`.
        values: of all pictures of this kind.
    """
    low, high = float(values.min()), float(values.max())
    inner = np.quantile(values, (0.001, 0.999))
    if (high - low) > 8 * (inner[1] - inner[0]) > 0:
        low, high = float(inner[0]), float(inner[1])
    return image_decoding.choose_range(kind, low, high)


_SAID = {
    "padded": "longer than 2:1 padded to a square; --fit squeeze or cut does otherwise",
    "squeezed": "longer than 2:1 squeezed to a square",
    "cut": "longer than 2:1 cut in the middle to 2:1",
    "flattened on white": "with transparent parts filled with white",
    "flattened on black": "with transparent parts filled with black (white would hide the content)",
    "flattened on grey": "with transparent parts filled with grey (white would hide the content)",
    "LAB to RGB": "of LAB converted to RGB",
    "blank": "of a single colour",
    "blank after flattening": "of a single colour after transparent parts are filled",
    "blank middle": "with a centre of a single colour: the content lies outside the centre crop",
}


def _of_changes(changes: Mapping[str, Sequence[str]]) -> Iterator[Note]:
    for change, said in _SAID.items():
        if names := [listings.readable(n) for n in changes.get(change, ())]:
            warning = "warning: " if change.startswith("blank") else ""
            text = f"{warning}{counted(len(names), 'picture')} {said}: {shown(names)}"
            yield note(change, text, count=len(names), names=names)


def _of_frames(names: Sequence[str]) -> Iterator[Note]:
    if names:
        said = [listings.readable(n) for n in names]
        text = (
            f"{counted(len(said), 'file')} of several frames or pages, of which the first is read"
        )
        yield note("several frames", f"{text}: {shown(said)}", count=len(said), names=said)
