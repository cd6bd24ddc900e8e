"""Decode an image file to 8 bits: still raster formats only, in bounded memory, upright, flattened.

Every picture that this package opens passes through `open_picture`, so that no other reader of
Pillow (some of which start other programs) ever sees a person's file. The module needs nothing
but NumPy and Pillow: an exported encoder carries its text.

Shapes: H, W pixels, C channels.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
from PIL import (  # noqa: F401  importing a plugin registers its format
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    Jpeg2KImagePlugin,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000", "AVIF")
HEIF = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1")
LONGEST = 2.0  # a long side of more short sides than this is padded, squeezed or cut
NARROWEST = 8.0  # a padded picture keeps at least this part of the square
DRAFT = 2.0  # a JPEG is decoded at this many times the size it is resized to, or more
MEGAPIXELS = 512.0  # what decoding may hold, in pixels of 4 bytes each
BAND = 1 << 22  # pixels that are converted at once
FAINT = 24  # grey levels that make a difference visible
DRAWN = 0.1  # share of what is drawn that must be seen on white, else the ground is another one
# Bytes that Pillow and its libraries hold for a pixel while a picture is decoded and flattened.
COSTS = {"WEBP": 12.0, "AVIF": 12.0, "JPEG2000": 20.0, "HEIF": 10.0, "GIF": 9.0}
MODES = {"1": 2.0, "L": 2.0, "P": 9.0, "I;16": 3.0, "I;16B": 3.0, "I": 5.0, "F": 5.0, "RGB": 4.0}
MODES |= {"RGBX": 8.0}
COLOUR = "16-bit colour"  # kind of values of a colour picture with 16 bits in each channel
COLOUR_COST = 24.0  # bytes for a pixel of it: two halves of each value, and their sum
Box = tuple[float, float, float, float]  # left, top, right, bottom in pixels


@dataclass(frozen=True)
class Cost:
    """The memory of decoding one picture: bytes per pixel, and the pixels that a draft leaves.

    Attributes:
        scaled: bytes a pixel that a draft saves on.
        fixed: bytes a pixel that it does not (the coefficients of a progressive JPEG).
        draft: whether this format can be decoded at a reduced scale.
    """

    width: int
    height: int
    scaled: float
    fixed: float
    draft: bool

    def bytes(self, short: int | None, fit: str) -> float:
        """Bytes that decoding for packing at `short` pixels holds."""
        drafted = 1
        if self.draft and short:
            wanted = resize_scale(self.width, self.height, short, fit) * DRAFT
            drafted = next((s for s in (8, 4, 2) if wanted * s <= 1), 1)
        return self.width * self.height * (self.fixed + self.scaled / drafted**2)


@dataclass(frozen=True)
class Decoded:
    """A picture (H, W, C) uint8, and what was done to it: "padded", "flattened on black", ..."""

    image: np.ndarray[Any, Any]
    changes: tuple[str, ...]


def open_picture(file: BinaryIO) -> Image.Image:
    """A picture of one of FORMATS, or of HEIF with pillow-heif; only its header is read.

    Pillow's own `Image.open` is not used: it tries every reader, and its limit on pixels is one
    for the whole process.

    Raises:
        ValueError: another format, or a header that cannot be read.
    """
    start = file.read(32)
    if not start:
        raise ValueError("the file is empty")
    if start[4:8] == b"ftyp" and start[8:12] in HEIF and b"avif" not in start[16:]:
        file.seek(0)
        return _open_heif(file)
    for name in FORMATS:
        factory, accept = Image.OPEN[name]
        if accept and not _tells(accept(start)):
            continue
        file.seek(0)
        try:
            return factory(file, "")
        except Exception as error:  # the readers raise many kinds on a damaged header
            raise ValueError(f"damaged: not a whole {name} header ({error})") from error
    raise ValueError(f"not an image: none of {', '.join(FORMATS)}")


def _tells(accepted: Any) -> bool:
    """Whether a reader's `accept` says yes; a text is its excuse."""
    return bool(accepted) and not isinstance(accepted, str)


def _open_heif(file: BinaryIO) -> Image.Image:
    try:
        from pillow_heif.as_plugin import HeifImageFile
    except ImportError as error:
        raise ValueError("HEIC: type: pip install 'tellapart[heic]'") from error
    try:
        build: Any = HeifImageFile
        picture: Image.Image = build(file, "")
    except Exception as error:
        raise ValueError(f"damaged: not a whole HEIF header ({error})") from error
    return picture


def cost(picture: Image.Image) -> Cost:
    """The memory that decoding an opened picture takes."""
    scaled, fixed = MODES.get(picture.mode, 8.0), 0.0
    kind = str(picture.format)
    drafts = kind in ("JPEG", "MPO")
    if drafts and picture.info.get("progressive"):  # all coefficients, 2 bytes each, at any scale
        layers = [(h, v) for _, h, v, *_ in getattr(picture, "layer", [])] or [(1, 1)] * 3
        most = max(h for h, _ in layers) * max(v for _, v in layers)
        fixed = 2.0 * sum(h * v for h, v in layers) / most
    scaled = max(scaled, COSTS.get(kind, 0.0))
    if deep_kind(picture) == COLOUR:
        scaled = COLOUR_COST
    return Cost(picture.width, picture.height, scaled, fixed, drafts)


def resize_scale(width: int, height: int, short: int, fit: str) -> float:
    """The larger of the factors by which the sides of a picture change when it is fitted."""
    least, most = min(width, height), max(width, height)
    if most <= LONGEST * least or fit == "cut":
        return short / least
    if fit == "squeeze":
        return short / least
    return max(short / most, short / NARROWEST / least)


def decode_image(
    file: BinaryIO,
    channels: int,
    *,
    short: int | None,
    fit: str = "pad",
    ranges: Mapping[str, tuple[float, float]] | None = None,
    megapixels: float = MEGAPIXELS,
    turn: bool = True,
) -> Decoded:
    """The picture as a person sees it, in 8 bits, resized.

    The first frame, turned by EXIF, palette resolved, CMYK and LAB to RGB, 16 and 32 bits and
    floats scaled, transparent parts laid on a ground that shows what is drawn.

    Args:
        channels: 1 (grey) or 3 (RGB).
        short: short side of the result in pixels; None: as it is.
        fit: "pad", "squeeze" or "cut": what becomes of a picture longer than 2:1.
        ranges: kind of values ("16-bit", "16-bit colour", "32-bit", "float") -> the values that
            become 0 and 255.
        megapixels: bound on the memory of decoding, in pixels of 4 bytes.
        turn: whether EXIF may turn the picture; boxes are drawn on pictures as they are stored.
    Raises:
        ValueError, OSError and others of Pillow: why the file cannot be used.
    """
    picture = open_picture(file)
    needed = cost(picture).bytes(short, fit)
    if needed > megapixels * 4e6:
        raise ValueError(
            f"too large: {picture.width:,} x {picture.height:,} pixels need {needed / 1e9:.1f} GB; "
            f"raise --max-megapixels above {needed / 4e6:.0f}"
        )
    whole = picture.size
    box = (0.0, 0.0, float(whole[0]), float(whole[1]))
    if short and str(picture.format) in ("JPEG", "MPO"):
        scale = resize_scale(*whole, short, fit) * DRAFT
        wanted = (math.ceil(whole[0] * scale), math.ceil(whole[1] * scale))
        draft: Any = picture.draft  # None keeps the mode
        drafted = draft(None, wanted)
        box = drafted[1] if drafted else box  # the last block of a draft reaches over the edge
    values = colour_values(picture, file)
    return prepare_picture(
        picture, channels, short=short, fit=fit, ranges=ranges, turn=turn, whole=whole, box=box,
        values=values,
    )  # fmt: skip


def prepare_picture(
    picture: Image.Image,
    channels: int,
    *,
    short: int | None,
    fit: str = "pad",
    ranges: Mapping[str, tuple[float, float]] | None = None,
    turn: bool = True,
    whole: tuple[int, int] | None = None,
    box: Box | None = None,
    values: np.ndarray[Any, Any] | None = None,
) -> Decoded:
    """A picture in memory, in 8 bits and resized.

    Args:
        picture: the picture. channels, short, fit, ranges, turn: as `decode_image`.
        whole: its width and height before a draft; None: it is no draft.
        box: what of a draft is the picture, in its pixels; None: all of it.
        values: of a colour picture with 16 bits in a channel, from `colour_values`.
    """
    whole = whole or picture.size
    box = box or (0.0, 0.0, float(picture.width), float(picture.height))
    turned = _orientation(picture) if turn else None
    changes: list[str] = []
    if values is not None:
        changes.append(f"scaled {COLOUR}")
        picture = _scaled_colour(picture, values, (ranges or {}).get(COLOUR))
    picture = _flat(picture, ranges or {}, changes)
    if short:
        picture = _fitted(picture, whole, box, short, fit, changes)
    if turned is not None:
        picture = picture.transpose(turned)
    mode = "L" if channels == 1 else "RGB"
    image = np.asarray(picture if picture.mode == mode else picture.convert(mode))
    return Decoded(image if image.ndim == 3 else image[:, :, None], tuple(changes))


def deep_kind(picture: Image.Image) -> str:
    """The kind of values of a picture with more than 8 bits in one channel; "" of others."""
    if picture.mode.startswith("I;16"):
        return "16-bit"
    if picture.mode in ("RGB", "RGBA", "CMYK"):
        tags: Any = getattr(picture, "tag_v2", {})
        raw = [_raw_mode(tile) for tile in getattr(picture, "tile", [])]
        deep = any(";16" in mode for mode in raw) or set(tags.get(258, ())) == {16}
        deep = deep or _largest_of_ppm(picture) > 255
        return COLOUR if deep else ""
    return {"I": "32-bit", "F": "float"}.get(picture.mode, "")


def colour_values(picture: Image.Image, file: BinaryIO) -> np.ndarray[Any, Any] | None:
    """Load a picture; the values (H, W, C) uint16 of a colour picture with 16 bits in a channel.

    Pillow keeps the high byte of each value. Read with the other byte order the same file gives
    the low byte.

    Args:
        picture: as `open_picture` returned it.
        file: of the picture.

    Returns:
        The values, alpha last; None for other pictures, which are only loaded.
    """
    if deep_kind(picture) != COLOUR:
        picture.load()
        return None
    if _largest_of_ppm(picture):
        return _values_of_ppm(picture, file)
    raw = {_raw_mode(tile) for tile in _tiles(picture)}
    _read_as(picture, [_with_depth(picture, _raw_mode(tile)) for tile in _tiles(picture)])
    picture.load()
    high = np.asarray(picture)
    if raw == {"LA;16B"}:  # all four bytes of a pixel were read
        both: np.ndarray[Any, Any] = high[:, :, ::2].astype(np.uint16) << 8
        both |= high[:, :, 1::2]
        return both
    if getattr(picture, "_planar_configuration", 1) == 2 and any(";16N" in mode for mode in raw):
        return high.astype(np.uint16) * 257  # libtiff separates the planes, high bytes alone
    file.seek(0)
    again = open_picture(file)
    other = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}
    modes = [_with_depth(again, _raw_mode(tile)) for tile in _tiles(again)]
    _read_as(again, [mode[:-1] + other[mode[-1]] for mode in modes])
    again.load()
    values: np.ndarray[Any, Any] = high.astype(np.uint16)
    values <<= 8
    values |= np.asarray(again)
    if "RGBa" in next(iter(raw)):  # the colours are multiplied by alpha
        alpha = np.maximum(values[:, :, 3:], 1).astype(np.float32)
        values[:, :, :3] = np.minimum(values[:, :, :3] * (65535 / alpha), 65535)
    return values


def _largest_of_ppm(picture: Image.Image) -> int:
    """The largest value that a colour PPM declares; 0 of other files, and of 8-bit ones."""
    tile = next(iter(_tiles(picture)), None)
    return int(tile[3][-1]) if tile is not None and str(tile[0]).startswith("ppm") else 0


def _values_of_ppm(picture: Image.Image, file: BinaryIO) -> np.ndarray[Any, Any]:
    """The values (H, W, 3) uint16 of a colour PPM, of which Pillow keeps 8 bits.

    Raises:
        OSError: the file is cut short.
    """
    codec, _, offset, (_, largest) = _tiles(picture)[0]
    shape = picture.height, picture.width, 3
    picture.load()
    file.seek(offset)
    if codec == "ppm":
        values = np.frombuffer(file.read(2 * math.prod(shape)), ">u2")
    else:  # numbers in words, between which comments may stand
        words = re.sub(rb"#[^\n\r]*", b"", file.read()).split(None, math.prod(shape))
        values = np.array(words[: math.prod(shape)], np.uint16)
    if len(values) < math.prod(shape):
        raise OSError("image file is truncated")
    scaled = np.minimum(values.astype(np.uint32) * 65535 // largest, 65535)
    colours: np.ndarray[Any, Any] = scaled.astype(np.uint16).reshape(shape)
    return colours


def _tiles(picture: Image.Image) -> list[Any]:
    return list(getattr(picture, "tile", []))


def _raw_mode(tile: Any) -> str:
    """How the bytes of a part of a picture are ordered, in the words of Pillow."""
    arguments = tile[3]
    mode = arguments[0] if isinstance(arguments, tuple) and arguments else arguments
    return mode if isinstance(mode, str) else ""


def _with_depth(picture: Image.Image, mode: str) -> str:
    """The raw mode that reads one byte of each value of 16 bits, whole and unchanged."""
    if mode == "LA;16B":
        return "RGBA"
    if ";16" not in mode:  # a plane of an uncompressed TIFF, which Pillow takes for 8 bits
        return f"{mode};16{'L' if getattr(picture, '_prefix', b'II') == b'II' else 'B'}"
    return mode.replace("RGBa", "RGBA")


def _read_as(picture: Image.Image, modes: list[str]) -> None:
    """Replace the raw modes of the parts of a picture that is not loaded yet."""
    opened: Any = picture
    parts = zip(_tiles(picture), modes, strict=True)
    opened.tile = [
        tile._replace(args=(mode, *tile[3][1:]) if isinstance(tile[3], tuple) else mode)
        for tile, mode in parts
    ]


def value_bands(picture: Image.Image) -> Iterator[np.ndarray[Any, Any]]:
    """The values of a deep picture as numbers, some rows at a time."""
    tags: Any = getattr(picture, "tag_v2", {})
    unsigned = picture.mode == "I" and tags.get(258, (0,))[0] == 32 and tags.get(339, (1,))[0] == 1
    rows = max(1, BAND // picture.width)
    for top in range(0, picture.height, rows):
        bottom = min(top + rows, picture.height)
        band = np.asarray(picture.crop((0, top, picture.width, bottom)))
        yield band.view(np.uint32) if unsigned else band


def no_data(picture: Image.Image) -> float | None:
    """The value that a GeoTIFF names for pixels without data."""
    try:
        return float(getattr(picture, "tag_v2", {})[42113])
    except (KeyError, TypeError, ValueError):
        return None


def choose_range(kind: str, low: float, high: float) -> tuple[float, float]:
    """The values that become 0 and 255, from the lowest and the highest of a folder.

    Whole numbers fill 8, 10, 12, 14 or 16 bits, floats 0..1, -1..1 or 0..255; values that fill less
    than an eighth of that, or that fit none of them, are stretched.

    >>> choose_range("16-bit", 3, 4000), choose_range("float", 0.0, 0.9)
    ((0.0, 4095.0), (0.0, 1.0))
    >>> choose_range("32-bit", -1024, 3071)
    (-1024.0, 3071.0)
    """
    if kind == "float":
        steps = [(0.0, 1.0), (-1.0, 1.0), (0.0, 255.0)]
        least = 0.0
    else:
        steps = [(0.0, 2.0**bits - 1) for bits in (8, 10, 12, 14, 16)]
        least = 16.0
    for a, b in steps:
        if a <= low and high <= b:
            if least < high - low < (b - a) / 8:
                break
            return a, b
    return float(low), float(high)


def _orientation(picture: Image.Image) -> Image.Transpose | None:
    """How EXIF says that the picture is turned; what cannot be read turns nothing."""
    turns = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_270,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90,
    }
    try:
        return turns.get(picture.getexif().get(0x0112, 1))
    except Exception:  # EXIF of cameras is wrong in every way
        return None


def _flat(
    picture: Image.Image, ranges: Mapping[str, tuple[float, float]], changes: list[str]
) -> Image.Image:
    """The picture in mode L or RGB."""
    kind = deep_kind(picture)
    if kind not in ("", COLOUR):
        changes.append(f"scaled {kind}")
        return _scaled(picture, kind, ranges.get(kind))
    if picture.mode == "La":
        picture = picture.convert("LA")
    if picture.mode in ("RGBA", "LA", "PA", "RGBa") or "transparency" in picture.info:
        return _flattened(picture, changes)
    if picture.mode == "LAB":
        from PIL import ImageCms

        changes.append("LAB to RGB")
        profiles = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        # None is returned only for a conversion in place
        return ImageCms.profileToProfile(picture, *profiles, outputMode="RGB") or picture
    if picture.mode == "1":
        return picture.convert("L")
    return picture if picture.mode in ("L", "RGB") else picture.convert("RGB")


def _scaled(picture: Image.Image, kind: str, given: tuple[float, float] | None) -> Image.Image:
    """Values of more than 8 bits as grey levels."""
    if given is None:  # a picture by itself, such as a query
        ends = [(np.nanmin(band), np.nanmax(band)) for band in value_bands(picture)]
        given = choose_range(kind, float(min(a for a, _ in ends)), float(max(b for _, b in ends)))
    low, high = given
    empty = no_data(picture)
    grey = np.empty((picture.height, picture.width), np.uint8)
    top = 0
    for band in value_bands(picture):
        values = band.astype(np.float32)
        if empty is not None:
            values[band == empty] = low
        values -= np.float32(low)
        values *= np.float32(255 / ((high - low) or 1.0))
        np.nan_to_num(values, copy=False, nan=0.0, posinf=255.0, neginf=0.0)
        np.clip(np.rint(values, out=values), 0, 255, out=values)
        grey[top : top + len(band)] = values
        top += len(band)
    if getattr(picture, "tag_v2", {}).get(262) == 0:  # WhiteIsZero; Pillow inverts 8 bits alone
        np.subtract(255, grey, out=grey)
    return Image.fromarray(grey)


def _scaled_colour(
    picture: Image.Image, values: np.ndarray[Any, Any], given: tuple[float, float] | None
) -> Image.Image:
    """Values of 16 bits as colours (or grey levels with alpha) of 8 bits.

    Args:
        picture: as loaded, for its mode and its transparent colour.
        values: as `colour_values`.
        given: values that become 0 and 255; None: those of this picture by itself.
    """
    if given is None:
        colours = visible_colours(picture, values)
        ends = (float(colours.min()), float(colours.max())) if len(colours) else (0.0, 65535.0)
        given = choose_range(COLOUR, *ends)
    low, high = given
    empty = no_data(picture)
    levels = np.empty(values.shape, np.uint8)
    rows = max(1, BAND // picture.width)
    for top in range(0, picture.height, rows):
        band = values[top : top + rows].astype(np.float32)
        if empty is not None:
            band[band == empty] = low
        scaled = (band - np.float32(low)) * np.float32(255 / ((high - low) or 1.0))
        levels[top : top + rows] = np.clip(np.rint(scaled), 0, 255)
    if _has_alpha(picture):  # opaque is the largest value of the colours, or of 16 bits
        alpha = values[:, :, -1]
        opaque = high if alpha.max() <= high else 65535.0
        levels[:, :, -1] = np.clip(np.rint(alpha * (255 / opaque)), 0, 255)
    clear = picture.info.get("transparency")
    if isinstance(clear, tuple) and len(clear) == values.shape[2] == 3:
        shown = (values != np.array(clear, np.uint16)).any(2).astype(np.uint8) * 255
        levels = np.dstack([levels, shown])
    if picture.mode == "CMYK":
        return Image.frombytes("CMYK", picture.size, levels.tobytes())
    return Image.fromarray(levels)


def visible_colours(picture: Image.Image, values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The values of the colours (n, C) that are not fully transparent.

    Args:
        picture: as loaded.
        values: as `colour_values`.
    """
    if not _has_alpha(picture):
        return values.reshape(-1, values.shape[2])
    return values[values[:, :, -1] > 0][:, :-1]


def _has_alpha(picture: Image.Image) -> bool:
    return picture.mode in ("RGBA", "LA")


def _flattened(picture: Image.Image, changes: list[str]) -> Image.Image:
    """Transparent parts laid on the ground, some rows at a time."""
    if picture.mode not in ("RGBA", "LA"):
        picture = picture.convert("RGBA")
    ground = _ground(picture)
    if ground is None:
        return picture.convert("RGB")
    changes.append(f"flattened on {ground}")
    colour = {"white": (255, 255, 255), "black": (0, 0, 0), "grey": (128, 128, 128)}[ground]
    flat = Image.new("RGB", picture.size, colour)
    rows = max(1, BAND // picture.width)
    for top in range(0, picture.height, rows):
        band = picture.crop((0, top, picture.width, min(top + rows, picture.height)))
        flat.paste(band.convert("RGB"), (0, top), band.getchannel("A"))
    return flat


def _ground(picture: Image.Image) -> str | None:
    """White, unless hardly anything of what is drawn would be seen on it; None: all is opaque."""
    if picture.getchannel("A").getextrema() == (255, 255):
        return None
    size = (min(picture.width, 256), min(picture.height, 256))
    small = np.asarray(
        picture.resize(size, Image.Resampling.NEAREST).convert("RGBA"), np.float32
    ).reshape(-1, 4)
    alpha = small[:, 3] / 255
    drawn = max(1, int((alpha * 255 >= FAINT).sum()))

    def seen(level: float) -> float:
        apart = np.abs(small[:, :3] - level).max(1) * alpha
        return float((apart >= FAINT).sum()) / drawn

    if seen(255.0) >= DRAWN:
        return "white"
    shares = {"white": seen(255.0), "black": seen(0.0), "grey": seen(128.0)}
    return max(shares, key=lambda name: shares[name])


def _fitted(
    picture: Image.Image,
    whole: tuple[int, int],
    box: Box,
    side: int,
    fit: str,
    changes: list[str],
) -> Image.Image:
    """Short side to `side` pixels; a picture longer than 2:1 is padded, squeezed or cut.

    Args:
        picture: as decoded. whole: its size before a draft. box: what of it is the picture.
        side: pixels. fit: "pad", "squeeze" or "cut". changes: what is done is added.
    """
    w, h = whole
    least, most = min(w, h), max(w, h)
    if most <= LONGEST * least:
        return _resized(picture, (round(w * side / least), round(h * side / least)), box)
    if fit == "cut":
        changes.append("cut")
        keep = least * LONGEST / most  # share of the long side
        long = round(side * LONGEST)
        if w > h:
            box = (box[2] * (1 - keep) / 2, 0.0, box[2] * (1 + keep) / 2, box[3])
            return _resized(picture, (long, side), box)
        box = (0.0, box[3] * (1 - keep) / 2, box[2], box[3] * (1 + keep) / 2)
        return _resized(picture, (side, long), box)
    if fit == "squeeze":
        changes.append("squeezed")
        return _resized(picture, (side, side), box)
    changes.append("padded")
    narrow = max(1, round(side / min(most / least, NARROWEST)))
    inner = _resized(picture, (side, narrow) if w > h else (narrow, side), box)
    pixels = np.asarray(inner)
    edges = (pixels[0], pixels[-1]) if w > h else (pixels[:, 0], pixels[:, -1])
    colour = np.median(np.concatenate(edges), axis=0).astype(np.uint8)
    levels: Any = int(colour) if colour.ndim == 0 else tuple(colour.tolist())
    canvas = Image.new(inner.mode, (side, side), levels)
    canvas.paste(inner, ((side - inner.width) // 2, (side - inner.height) // 2))
    return canvas


def _resized(picture: Image.Image, size: tuple[int, int], box: Box) -> Image.Image:
    size = (max(1, size[0]), max(1, size[1]))
    if size == picture.size and box == (0.0, 0.0, float(size[0]), float(size[1])):
        return picture
    return picture.resize(size, Image.Resampling.BICUBIC, box=box, reducing_gap=3.0)
