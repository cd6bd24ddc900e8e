"""Open a source by the name a user types: a folder, a list, a table, or a built-in data set."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError, unknown
from ..runtime.text import safe
from . import builtin, containers, copies, folders, image_packing, lists, objects, scenes, specs
from .cache import Cache, default_folder
from .files import Listing
from .images import ImageSource
from .kinds import BUILTIN, KINDS, PYTHON, Data, Given, given, kind_of_path
from .modality import MODALITIES, OpenOptions, modality_of
from .options import ReadOptions
from .records import open_records
from .source import Source

SCENE_SIZE = 32
Progress = Callable[[str, int, int], None]  # what is being done, done so far, of how many


def open_source(
    spec: Data,
    *,
    image_size: int | None = None,
    sample_rate: int | None = None,
    large: int = 64,
    cache: str | Path | None = None,
    cache_limit: float = 50.0,
    verify: bool = False,
    progress: Progress | None = None,
    **reading: Any,
) -> Source:
    """Open data as a source.

    Args:
        spec: "digits", "fashion-mnist[:FOLDER]", "cifar10[:FOLDER]", "stl10[:FOLDER]",
            "scenes:NAME"; a folder of images or of sounds, a text file that lists either, a .npy
            or .npz of uint8 images, a 2-D .npy or .csv or a folder of them, a .txt of sentences, a
            .tsv of pairs; "images:", "audio:", "series:" or "text:" before a path that could be
            several of them. "./digits" is a folder, "digits" the built-in. Tables, archives,
            videos and urls as in docs/howto/inputs.md. Or a Python object: a path, an array, a
            tensor, a list, a frame, a dataset (see `data.objects`).
        image_size: side of the view in pixels; None: 16 for digits, 32 for scenes, their own side
            for other images of at most 64 pixels, and `large` for larger ones.
        sample_rate: Hz of sounds; None: that of most files, at most 16,000.
        large: image size chosen for images of more than 64 pixels.
        cache: folder for decoded data; None: $TELLAPART_CACHE or ~/.cache/tellapart.
        cache_limit: largest size of the cache in GB.
        verify: compare the whole cached copy, and every source file, with their checksums.
        progress: called with (what, done, total) while decoding.
        reading: how files become items, by the names of `data.options.ReadOptions`: label_level,
            fit, range, max_megapixels, piece, hop.

    Raises:
        DataError: nothing there, nothing usable in it, or no room for it.

    >>> source = open_source("digits")
    >>> len(source), source.read(source_rows := __import__("torch").tensor([0, 5])).shape
    (1797, torch.Size([2, 1, 16, 16]))
    """

    def options(kind: str) -> OpenOptions:
        report = (
            (lambda done, total: progress(f"reading {kind}", done, total)) if progress else None
        )
        return OpenOptions(store, image_size, sample_rate, large, report, ReadOptions(**reading))

    if image_size is not None and not 8 <= image_size <= 1024:
        raise DataError(f"--image-size must lie in 8..1024 pixels, got {image_size}")
    place = Path(cache) if cache else default_folder()
    store = Cache(place, cache_limit * 1e9, verify, lambda text: print(safe(text), file=sys.stderr))
    spec = given(spec)

    def open_listing(name: str, kind: str, listing: Listing) -> Source:
        opened: Source = modality_of(kind).open_listing(name, listing, options(kind))
        return opened

    if isinstance(spec, Given):
        records = containers.of_object(spec.value, spec.options)
        if records is not None:
            return open_records(spec, records, store, open_listing)
        return objects.source_of(
            spec.value, name=spec, image_size=image_size, large=large, open_listing=open_listing
        )
    if spec.startswith(PYTHON):
        raise DataError(
            f"{spec.removeprefix(PYTHON)} was passed in Python and is not stored; pass the same "
            "data again as data="
        )
    named, about = specs.split_options(spec)
    kind, _, rest = named.partition(":")
    if kind == "scenes":
        return _scenes(spec, rest, image_size or SCENE_SIZE, store, progress)
    if kind in BUILTIN:
        data = builtin.read(kind, Path(rest) if rest else None, store.folder, image_size)
        return builtin.as_source(spec, data, image_size)
    asked = kind if kind in MODALITIES else None
    fetching = (lambda done, total: progress("fetching files", done, total)) if progress else None
    place_of = rest if asked else named
    found = copies.locate(place_of, about, asked, store, fetching)
    if found is None:
        raise _missing(named, Path(place_of).expanduser())
    if found.records is not None:
        return found.told(open_records(spec, found.records, store, open_listing), spec)
    if about:
        option = "--fps" if specs.FPS in about else "--columns"
        raise DataError(f"{named} is read without columns or frames; leave out {option}")
    kind = kind if kind in MODALITIES else kind_of_path(found.path)
    source: Source = modality_of(kind).open(spec, found.path, options(kind))
    return found.told(source, spec)


def listed(path: Path, kind: str, label_level: str = "top") -> Listing:
    """The files of a folder, of a list of paths, or one file that is itself data of this kind.

    Args:
        path: an existing file or folder.
        kind: "images", "audio", "series" or "text".
        label_level: which folder is the label, as `data.options.ReadOptions`.
    """
    if path.is_dir():
        return folders.list_folder(path, kind, label_level=label_level)
    if kind == "text":
        return Listing(path.parent, [path.name], [None], [None])
    if kind == "series" and (path.suffix.lower() == ".npy" or not lists.is_list(path)):
        return Listing(path.parent, [path.name], [None], [None])
    if path.suffix.lower() in KINDS[kind] and path.suffix.lower() not in KINDS["series"]:
        return Listing(path.parent, [path.name], [None], [None])
    return lists.list_file(path)


def _scenes(
    spec: str, inner: str, size: int, store: Cache, progress: Progress | None
) -> ImageSource:
    name, _, place = inner.partition(":")
    if name not in BUILTIN:
        raise unknown("items for scenes:", name, BUILTIN)
    items = builtin.read(name, Path(place) if place else None, store.folder, None)
    key = hashlib.blake2b(items.images.tobytes(), digest_size=16).hexdigest()
    report = (
        (lambda done: progress("composing scenes", done, len(items.labels))) if progress else None
    )

    def make(into: Path, limit: float) -> None:
        made = builtin.composed(items, size, report)
        if made.images.nbytes > limit:
            raise DataError(
                f"the scenes need {made.images.nbytes / 1e9:.1f} GB, more than --cache-limit"
            )
        image_packing.save_array(into, made.images)

    entry = store.entry(f"{scenes.VERSION}-{size}-{key}", make)
    images = np.load(entry / "images.npy", mmap_mode="r")
    made = builtin.Labelled(images, items.labels, items.classes, items.parts, items.licence)
    return builtin.as_source(spec, made, size)


def _missing(spec: str, path: Path) -> DataError:
    hint = unknown("data", spec.split(":")[0], BUILTIN)
    return DataError(
        f"{path} does not exist (a folder of images, a list of paths, or a known name: {hint})"
    )
