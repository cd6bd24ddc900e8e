"""Python objects as sources: arrays, tensors, pictures, paths, data frames and torch datasets.

| object | becomes |
|---|---|
| a `Source` | itself |
| `pathlib.Path` | what its text names |
| uint8 array or tensor (S, H, W), (S, H, W, C) or (S, C, H, W) | images |
| float array or tensor with 4 axes, values in 0..1 | images |
| float array or tensor (S, T) or (S, T, C) | series |
| list of PIL images | images |
| list of paths, or a frame with a column of paths | what their extensions say |
| list of arrays (T, C) or of strings | series, sentences |
| `torch.utils.data.Dataset`, or anything with `len` and integer indices | by its first item |
| pair (any of these, labels) | the same, with labels |

Items of a dataset are a value, a pair (value, label), or a mapping with "image" (or "pixels",
"audio", "text") and "label". Labels are strings or whole numbers; -1 and None mean no label. With
labels a fifth of the items becomes the test part, by the hash of their contents, unless a frame has
a column "split".

Shapes: S instances, H and W pixels, C channels, T steps.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from ..errors import DataError
from . import files as listings
from . import image_decoding, image_packing, kinds
from .files import Listing
from .images import ImageSource, Pixels
from .notes import counted
from .sequences import Packed, SequenceSource
from .source import Array, Source
from .text import TextSource

SMALL = 64  # pixels: up to this side images keep their own size
ITEM_KEYS = ("image", "pixels", "pixel_values", "img", "audio", "series", "values", "text", "x")
LABEL_KEYS = ("label", "labels", "class", "target", "y")
MOST_CLASSES = 100_000  # above this, whole numbers are names, not class numbers
ACCEPTED = (
    "a name or path, a numpy array or torch tensor, a list of PIL images, of paths or of strings, "
    "a torch.utils.data.Dataset, a pandas DataFrame with a column 'path', or a pair (data, labels)"
)


def source_of(
    data: Any, *, name: str, image_size: int | None, large: int, open_listing: Any
) -> Source:
    """A Python object as a source.

    Args:
        data: one of the objects in the table above.
        name: of the source.
        image_size: side of an image view in pixels; None: the images' own up to 64, `large` above.
        large: see `image_size`.
        open_listing: called with (name, kind, listing) to open files.

    Raises:
        DataError: not one of these objects, or fewer than two items.
    """
    if isinstance(data, Source):  # a user may pass one that is already open
        return _resized(data, image_size)
    values, labels, splits = _taken_apart(data)
    if len(values) < 2:
        raise DataError(f"{name} holds {counted(len(values), 'item')}; 2 or more are needed")
    kind = _kind(values)
    if isinstance(values, list) and isinstance(values[0], str | os.PathLike) and kind != "text":
        paths = [os.fspath(value) for value in values]
        listing = Listing(Path(), paths, _names(labels, len(paths)), splits, [])
        opened: Source = open_listing(name, kind, listing)
        return opened
    if kind == "text":
        return _text(name, [str(value) for value in values], labels, splits)
    if kind == "series":
        return _series(name, values, labels, splits)
    return _images(name, values, labels, splits, image_size, large)


def array_source(name: str, path: Path, *, image_size: int | None, large: int) -> ImageSource:
    """The images of a .npy file, or of an .npz file with its labels.

    Args:
        name: of the source.
        path: the file.
        image_size: as `source_of`.
        large: as `source_of`.

    Raises:
        DataError: not such a file, or no images in it.
    """
    values, labels, splits = _taken_apart(array_file(path))
    if _kind(values) != "images":
        raise DataError(f"{path} holds {values.dtype} {values.shape}, not uint8 images")
    return _images(name, values, labels, splits, image_size, large)


def kind_of_object(data: Any) -> str:
    """The kind of the data in a Python object, from its first items."""
    if isinstance(data, Source):  # as above
        return data.kind
    return _kind(_taken_apart(data)[0])


def array_file(path: Path) -> Any:
    """The images of a .npy file, or of an .npz file with its labels: (images, labels or None).

    Raises:
        DataError: not such a file, or no images in it.
    """
    try:
        loaded = np.load(path, mmap_mode="r", allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return loaded
        with loaded:
            arrays = {key: loaded[key] for key in loaded.files}
    except Exception as error:  # NumPy and zipfile raise many kinds on a damaged file
        raise DataError(f"{path} cannot be read as an array: {listings.reason(error)}") from error
    images = [key for key, value in arrays.items() if value.ndim in (3, 4)]
    if len(images) != 1:
        raise DataError(
            f"{path} needs one array of images, (S, H, W) or (S, H, W, C); it holds "
            + ", ".join(f"{key} {value.shape}" for key, value in arrays.items())
        )
    pixels = arrays.pop(images[0])
    labels = [key for key, value in arrays.items() if value.shape == (len(pixels),)]
    wanted = next((key for key in LABEL_KEYS if key in labels), labels[0] if labels else None)
    return (pixels, arrays[wanted]) if wanted else pixels


def _taken_apart(data: Any) -> tuple[Any, Any, list[str | None]]:
    """Values (an array or a list), labels or None, and splits, of an object."""
    if isinstance(data, tuple) and len(data) == 2 and _is_labels(data[1], data[0]):
        values, _, splits = _taken_apart(data[0])
        return values, _plain_labels(data[1]), splits
    if isinstance(data, torch.Tensor):
        values = data.detach().cpu()
        if values.ndim == 4 and values.shape[1] in (1, 3, 4) and values.shape[3] not in (1, 3, 4):
            values = values.permute(0, 2, 3, 1)  # torch's order of axes
        array = values.contiguous().numpy()
        return array, None, [None] * len(array)
    if isinstance(data, np.ndarray):
        if data.ndim < 2:
            raise DataError(f"an array of shape {data.shape} is not a data set; pass {ACCEPTED}")
        return data, None, [None] * len(data)
    if isinstance(data, str | bytes | Mapping) or not hasattr(data, "__len__"):
        raise DataError(f"{type(data).__name__} is not data; pass {ACCEPTED}")
    if not hasattr(data, "__getitem__"):
        raise DataError(f"{type(data).__name__} has no integer indices; pass {ACCEPTED}")
    pairs = [_item(data[i]) for i in range(len(data))]
    values, labels = [value for value, _ in pairs], [label for _, label in pairs]
    known = any(label is not None for label in labels)
    return values, labels if known else None, [None] * len(values)


def _item(item: Any) -> tuple[Any, Any]:
    """Value and label of one item of a dataset."""
    if isinstance(item, Mapping):
        lowered = {str(key).lower(): value for key, value in item.items()}
        key = next((key for key in ITEM_KEYS if key in lowered), None)
        if key is None:
            raise DataError(
                f"items that are mappings need one of {', '.join(ITEM_KEYS)}; they have: "
                f"{', '.join(map(str, item))}"
            )
        return lowered[key], next((lowered[k] for k in LABEL_KEYS if k in lowered), None)
    if isinstance(item, tuple | list) and item and not np.isscalar(item[0]):
        label = item[1] if len(item) > 1 else None
        return item[0], label if label is None or np.ndim(label) == 0 else None
    return item, None


def _kind(values: Any) -> str:
    """The kind of values: an array, or a list by its first item."""
    if isinstance(values, np.ndarray):
        if values.dtype == np.uint8 and values.ndim in (3, 4):
            return "images"
        if values.ndim == 4 and np.issubdtype(values.dtype, np.floating):
            return "images"
        if values.ndim in (2, 3) and np.issubdtype(values.dtype, np.number):
            return "series"
        raise DataError(
            f"an array of {values.dtype} and shape {values.shape} is neither images (uint8 "
            "(S, H, W) or (S, H, W, C), float (S, H, W, C) in 0..1) nor series (float (S, T) or "
            "(S, T, C))"
        )
    first = next(iter(values), None)
    if isinstance(first, os.PathLike) or (isinstance(first, str) and _looks_like_path(first)):
        return _kind_of_paths([os.fspath(value) for value in values])
    if isinstance(first, str):
        return "text"
    if isinstance(first, Image.Image):
        return "images"
    array = _array(first)
    if array.ndim == 3 or (array.ndim == 2 and array.dtype == np.uint8):
        return "images"
    if array.ndim in (1, 2) and np.issubdtype(array.dtype, np.number):
        return "series"
    raise DataError(f"an item of {type(first).__name__} is not data; pass {ACCEPTED}")


def _looks_like_path(text: str) -> bool:
    return Path(text).suffix.lower() in {e for k in ("images", "audio") for e in kinds.KINDS[k]}


def _kind_of_paths(paths: Sequence[str]) -> str:
    for kind in ("images", "audio", "series"):
        if Path(paths[0]).suffix.lower() in kinds.KINDS[kind]:
            return kind
    raise DataError(
        f"{paths[0]!r} has no known extension; a list of paths names images, sounds or series"
    )


def _is_labels(labels: Any, data: Any) -> bool:
    try:
        return len(labels) == len(data) and all(np.ndim(label) == 0 for label in labels)
    except TypeError:
        return False


def _plain_labels(labels: Any) -> list[Any]:
    return labels.tolist() if hasattr(labels, "tolist") else list(labels)


def _names(labels: Any, count: int) -> list[str | None]:
    """Labels as names; -1, None and NaN mean no label."""
    if labels is None:
        return [None] * count
    if len(labels) != count:
        raise DataError(f"{count} items have {len(labels)} labels; one for each is needed")
    plain = [label.item() if hasattr(label, "item") else label for label in labels]
    nothing = {None, "", -1}
    return [None if x in nothing or x != x else str(x) for x in plain]


def _identity(
    name: str, hashes: list[str], labels: Any, splits: list[str | None]
) -> dict[str, Any]:
    """The fields of a source whose items are no files."""
    count = len(hashes)
    names = _names(labels, count)
    listing = Listing(Path(), [f"{i:05d}" for i in range(count)], names, splits, [])
    fields = listings.identity(name, listing, range(count), hashes, ())
    fields |= {"all_files": (), "duplicates": count - len(set(hashes))}
    if fields["all_labels"] is not None and all(n is None or n.isdecimal() for n in names):
        numbers = [-1 if n is None else int(n) for n in names]  # whole numbers keep their values
        if max(numbers) < MOST_CLASSES:
            fields["all_labels"] = np.array(numbers, np.int64)
            fields["classes"] = [str(i) for i in range(max(numbers) + 1)]
    return fields


def _images(
    name: str,
    values: Any,
    labels: Any,
    splits: list[str | None],
    image_size: int | None,
    large: int,
) -> ImageSource:
    """Images in memory; larger ones are reduced to 1.15 times the size of a view."""
    if isinstance(values, np.ndarray):
        images: list[Array] | Array = _eight_bit(values if values.ndim == 4 else values[..., None])
    else:
        channels = _channels(values[0])
        images = [_picture(value, channels) for value in values]
    shapes = {image.shape[:2] for image in images}
    native = int(np.median([min(image.shape[:2]) for image in images]))
    size = image_size or max(8, native if native <= SMALL else large)
    if shapes != {(size, size)} and native > size:
        short = round(size * image_packing.MARGIN)
        images = [_reduced(image, short) for image in images]
    hashes = [_hash(repr(image.shape).encode() + image.tobytes()) for image in images]
    fields = _identity(name, hashes, labels, splits)
    return ImageSource(**fields, pixels=_packed(images), image_size=size)


def _channels(first: Any) -> int:
    """1 or 3: channels of the images, from the first of them."""
    if isinstance(first, Image.Image):
        return 1 if first.mode in ("1", "L", "I", "F", "I;16") else 3
    array = _array(first)
    return 1 if array.ndim == 2 or 1 in (array.shape[0], array.shape[2]) else 3


def _picture(value: Any, channels: int) -> Array:
    """One image (H, W, C) uint8."""
    if isinstance(value, Image.Image):
        return image_decoding.prepare_picture(value, channels, short=None).image
    array = _array(value)
    if array.ndim == 2:
        array = array[:, :, None]
    if isinstance(value, torch.Tensor) or (array.shape[0] <= 4 < array.shape[2]):
        array = array.transpose(1, 2, 0)
    array = _eight_bit(array)
    if array.shape[2] != channels:
        raise DataError(
            f"images of {array.shape[2]} and of {counted(channels, 'channel')} in one data set; "
            "convert them to the same number"
        )
    return array


def _eight_bit(array: Array) -> Array:
    """Images (..., C) as uint8; floats lie in 0..1. An alpha channel is refused."""
    if array.shape[-1] not in (1, 3):
        raise DataError(f"images need 1 or 3 channels in the last axis, got shape {array.shape}")
    if array.dtype == np.uint8:
        return np.ascontiguousarray(array)
    low, high = float(array.min(initial=0)), float(array.max(initial=0))
    if not np.issubdtype(array.dtype, np.floating) or low < 0 or high > 1:
        raise DataError(
            f"images are uint8, or float in 0..1; got {array.dtype} in {low:g}..{high:g}"
        )
    return np.round(array * 255).astype(np.uint8)


def _reduced(image: Array, short: int) -> Array:
    """An image with a short side of at most `short` pixels."""
    if min(image.shape[:2]) <= short:
        return image
    picture = Image.fromarray(image if image.shape[2] == 3 else image[:, :, 0])
    return image_decoding.prepare_picture(picture, image.shape[2], short=short).image


def _packed(images: Sequence[Array] | Array) -> Pixels:
    if isinstance(images, np.ndarray):
        return Pixels.of(images)
    if len({image.shape for image in images}) == 1:
        return Pixels.of(np.stack(images))
    height, width = (np.array([image.shape[i] for image in images], np.int64) for i in (0, 1))
    channels = images[0].shape[2]
    lengths = height * width * channels
    flat = np.concatenate([image.reshape(-1) for image in images])
    return Pixels(flat, np.cumsum(lengths) - lengths, height, width, channels)


def _series(name: str, values: Any, labels: Any, splits: list[str | None]) -> SequenceSource:
    """Series in memory: each item (T, C), or (T,)."""
    tables = [_table(value) for value in values]
    widths = {table.shape[1] for table in tables}
    if len(widths) > 1:
        raise DataError(f"series of {sorted(widths)} channels in one set; they must agree")
    short = next((i for i, table in enumerate(tables) if len(table) < 2), None)
    if short is not None:
        raise DataError(
            f"series {short} has {counted(len(tables[short]), 'step')}; 2 or more are needed"
        )
    bad = next((i for i, table in enumerate(tables) if not np.isfinite(table).all()), None)
    if bad is not None:
        raise DataError(f"series {bad} holds a value that is not finite")
    lengths = np.array([len(table) for table in tables], np.int64)
    hashes = [_hash(repr(table.shape).encode() + table.tobytes()) for table in tables]
    packed = Packed(
        np.concatenate(tables),
        np.cumsum(lengths) - lengths,
        lengths,
        np.arange(len(tables)),
        np.zeros(len(tables), np.int64),
        hashes,
        [],
    )
    fields = _identity(name, hashes, labels, splits)
    return SequenceSource(**fields, packed=packed, kind="series")


def _table(value: Any) -> Array:
    array = _array(value)
    array = array[:, None] if array.ndim == 1 else array
    if array.ndim != 2 or not np.issubdtype(array.dtype, np.number) or np.iscomplexobj(array):
        raise DataError(f"a series is (T,) or (T, C) numbers, got {array.dtype} {array.shape}")
    return np.ascontiguousarray(array, np.float32)


def _text(name: str, texts: list[str], labels: Any, splits: list[str | None]) -> TextSource:
    empty = next((i for i, text in enumerate(texts) if not text.strip()), None)
    if empty is not None:
        raise DataError(f"sentence {empty} is empty")
    fields = _identity(name, [_hash(text.encode()) for text in texts], labels, splits)
    return TextSource(**fields, texts=[(text,) for text in texts])


def _array(value: Any) -> Array:
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().numpy()
    return np.asarray(value)


def _hash(raw: bytes) -> str:
    return hashlib.blake2b(raw, digest_size=16).hexdigest()


def _resized(source: Source, image_size: int | None) -> Source:
    # a source that is already open keeps its items; only the size of an image view can change
    if isinstance(source, ImageSource) and image_size:
        return replace(source, image_size=image_size)
    return source
