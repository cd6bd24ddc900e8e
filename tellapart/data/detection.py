"""Images with boxes around their objects, in the layouts of COCO and of Pascal VOC.

Shapes: O objects of an image. Boxes are x0, y0, x1, y1 in pixels, half open.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any
from xml.etree import ElementTree

import msgspec
import numpy as np
import torch
from torch import Tensor

from ..errors import DataError
from . import builtin, image_decoding, multi_object_scenes
from .cache import Cache, default_folder
from .files import decode_text, open_regular, read_bytes, reason

Array = np.ndarray[Any, Any]
Id = int | Annotated[str, msgspec.Meta(max_length=200)]
Name = Annotated[str, msgspec.Meta(max_length=4096)]
Side = Annotated[float, msgspec.Meta(gt=0)]  # pixels
OUTSIDE = 1.0  # pixels a box may stand out, which rounding does; such boxes are cut
TRAIN, TEST = 2000, 500  # scenes of `scenes:NAME`


@dataclass(frozen=True)
class BoxSource:
    """Images with boxes; one split.

    Attributes:
        name: what the user typed.
        files: of the images.
        boxes: per image (O, 4) float32. labels: per image (O,) int64, from 0.
        ignored: per image (O,) bool: crowds of COCO and difficult objects of VOC, which are neither
            trained on nor scored.
        classes: label -> name.
        skipped: how many boxes without area were left out.
    """

    name: str
    files: Sequence[Path]
    boxes: Sequence[Array]
    labels: Sequence[Array]
    ignored: Sequence[Array]
    classes: Sequence[str]
    skipped: int = 0

    def __len__(self) -> int:
        return len(self.files)

    def image(self, row: int) -> Tensor:
        """(3, H, W) float32 in [0, 1].

        Raises:
            DataError: the file is missing or damaged.
        """
        try:
            with open_regular(self.files[row]) as file:
                pixels = image_decoding.decode_image(file, 3, short=None, turn=False).image
        except Exception as error:  # the readers raise many kinds on a damaged file
            raise DataError(
                f"{self.files[row]} cannot be read as an image: {reason(error)}"
            ) from error
        return torch.from_numpy(pixels.copy()).permute(2, 0, 1).float() / 255


def open_boxes(
    spec: str, *, cache: str | Path | None = None, cache_limit: float = 50.0
) -> dict[str, BoxSource]:
    """Training and test images with boxes.

    Args:
        spec: "coco:FOLDER" with annotations/instances_SPLIT.json and the images in SPLIT/;
            "voc:FOLDER" with Annotations/, ImageSets/Main/ and JPEGImages/; a folder of
            either; or "scenes:digits", "scenes:fashion-mnist": 2,000 + 500
            scenes with several objects, composed once.
    Returns:
        {"train": ..., "test": ...}; a split named val, minival or test is the test part.
    Raises:
        DataError: nothing there, no such layout, or a box outside its image.
    """
    kind, _, rest = spec.partition(":")
    if kind == "scenes":
        return _scenes(
            spec, rest, Cache(Path(cache) if cache else default_folder(), cache_limit * 1e9)
        )
    folder = Path(rest if kind in ("coco", "voc") and rest else spec).expanduser()
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder (coco:FOLDER, voc:FOLDER, or scenes:digits)")
    if (folder / "annotations").is_dir():
        return _coco(spec, folder)
    if (folder / "Annotations").is_dir():
        return _voc(spec, folder)
    raise DataError(
        f"{folder} has neither annotations/instances_SPLIT.json (COCO) nor Annotations/ and "
        "ImageSets/ (VOC)"
    )


class CocoImage(msgspec.Struct):
    """An image of a COCO file; other fields are not read."""

    id: Id
    file_name: Name
    width: Side
    height: Side


class CocoCategory(msgspec.Struct):
    """A category of a COCO file."""

    id: Id
    name: Name


class CocoMark(msgspec.Struct):
    """An annotation of a COCO file: a box as x, y, width and height in pixels."""

    image_id: Id
    category_id: Id
    bbox: tuple[float, float, float, float]
    iscrowd: bool | int = 0
    id: Id | None = None


class Coco(msgspec.Struct):
    """A file instances_SPLIT.json."""

    images: list[CocoImage]
    categories: list[CocoCategory]
    annotations: list[CocoMark]


def _coco(spec: str, folder: Path) -> dict[str, BoxSource]:
    found = {}
    for file in sorted((folder / "annotations").glob("instances_*.json")):
        split = file.stem.removeprefix("instances_")
        try:
            about = msgspec.json.decode(read_bytes(file), type=Coco)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise DataError(f"{file} is not COCO's layout: {error}") from error
        except (OSError, ValueError) as error:
            raise DataError(f"{file} cannot be read: {reason(error)}") from error
        if _part(split) in found:
            raise DataError(
                f"{folder / 'annotations'} has two files for the {_part(split)} part; leave one"
            )
        found[_part(split)] = _from_coco(spec, file, folder / split, about)
    return _both(spec, found)


def _from_coco(spec: str, file: Path, pictures: Path, about: Coco) -> BoxSource:
    categories = sorted(about.categories, key=lambda c: (isinstance(c.id, str), c.id))
    kinds = _numbered(file, "categories", [c.id for c in categories])
    place = _numbered(file, "images", [i.id for i in about.images])
    rows: list[list[tuple[list[float], int, bool]]] = [[] for _ in about.images]
    skipped = 0
    for number, mark in enumerate(about.annotations):
        said = f"{file}, annotation {number if mark.id is None else mark.id}"
        if mark.image_id not in place:
            raise DataError(f"{said}: no image has the id {mark.image_id!r}")
        if mark.category_id not in kinds:
            raise DataError(f"{said}: no category has the id {mark.category_id!r}")
        x, y, w, h = mark.bbox
        if w <= 0 or h <= 0:  # COCO itself has a few
            skipped += 1
            continue
        image = about.images[place[mark.image_id]]
        box = _inside(
            [x, y, x + w, y + h], (image.width, image.height), f"{said} of {image.file_name}"
        )
        rows[place[mark.image_id]].append((box, kinds[mark.category_id], bool(mark.iscrowd)))
    files = [pictures / i.file_name for i in about.images]
    return replace(_made(spec, files, rows, [c.name for c in categories]), skipped=skipped)


def _numbered(file: Path, what: str, ids: Sequence[Id]) -> dict[Id, int]:
    """The place of each id.

    Raises:
        DataError: two are equal.
    """
    found = {key: i for i, key in enumerate(ids)}
    if len(found) < len(ids):
        twice = next(key for key, count in Counter(ids).items() if count > 1)
        raise DataError(f"{file}: two {what} have the id {twice!r}")
    return found


def _voc(spec: str, folder: Path) -> dict[str, BoxSource]:
    lists = {
        p.stem: p
        for p in sorted((folder / "ImageSets" / "Main").glob("*.txt"))
        if "_" not in p.stem
    }
    chosen: dict[str, str | None] = {
        "train": next((n for n in ("trainval", "train") if n in lists), None)
    }
    chosen["test"] = next((n for n in ("test", "val") if n in lists and n != chosen["train"]), None)
    names: list[str] = sorted(
        {n for file in (folder / "Annotations").glob("*.xml") for n in _voc_names(file)}
    )
    found = {}
    for part, listed in chosen.items():
        if listed:
            ids = [line.split()[0] for line in _lines(lists[listed]) if line.strip()]
            files = [folder / "JPEGImages" / f"{i}.jpg" for i in ids]
            rows = [_voc_objects(folder / "Annotations" / f"{i}.xml", names) for i in ids]
            found[part] = _made(spec, files, rows, names)
    return _both(spec, found)


def _lines(file: Path) -> list[str]:
    try:
        return decode_text(read_bytes(file)).splitlines()
    except (OSError, ValueError) as error:
        raise DataError(f"{file} cannot be read as text: {reason(error)}") from error


def _voc_tree(file: Path) -> ElementTree.Element:
    try:
        return ElementTree.fromstring(read_bytes(file))
    except (OSError, ValueError, LookupError, ElementTree.ParseError) as error:
        raise DataError(f"{file} cannot be read as XML: {reason(error)}") from error


def _voc_names(file: Path) -> set[str]:
    return {o.findtext("name", "") for o in _voc_tree(file).iter("object")}


def _voc_objects(file: Path, names: list[str]) -> list[tuple[list[float], int, bool]]:
    """Boxes, labels and flags. VOC counts from 1 and includes both corners: x0, y0 are one less."""
    tree, found = _voc_tree(file), []
    try:
        size = float(tree.findtext("size/width", "")), float(tree.findtext("size/height", ""))
        for number, thing in enumerate(tree.iter("object")):
            x0, y0, x1, y1 = (
                float(thing.findtext(f"bndbox/{n}", "")) for n in ("xmin", "ymin", "xmax", "ymax")
            )
            box = _inside([x0 - 1, y0 - 1, x1, y1], size, f"{file}, object {number}")
            name = thing.findtext("name", "")
            if not name.strip():
                raise ValueError(f"object {number} has no name")
            found.append((box, names.index(name), thing.findtext("difficult", "0") == "1"))
    except DataError:
        raise
    except ValueError as error:
        raise DataError(f"{file} is not VOC's layout: {error}") from error
    return found


def _inside(box: list[float], size: tuple[float, float], said: str) -> list[float]:
    """The box cut to the image.

    Raises:
        DataError: it stands out by more than rounding, or has no area.
    """
    x0, y0, x1, y1 = box
    if not all(map(math.isfinite, (*box, *size))):
        raise DataError(f"{said}: a value that is not finite")
    if min(x0, y0) < -OUTSIDE or x1 > size[0] + OUTSIDE or y1 > size[1] + OUTSIDE:
        raise DataError(
            f"{said}: the box {[round(v, 1) for v in box]} (x0, y0, x1, y1) lies outside its "
            f"image of {size[0]:g} x {size[1]:g} pixels"
        )
    cut = [max(0.0, x0), max(0.0, y0), min(size[0], x1), min(size[1], y1)]
    if cut[2] <= cut[0] or cut[3] <= cut[1]:
        raise DataError(f"{said}: the box {[round(v, 1) for v in box]} has no area")
    return cut


def _made(
    spec: str, files: list[Path], rows: list[list[tuple[list[float], int, bool]]], names: list[str]
) -> BoxSource:
    return BoxSource(
        spec,
        files,
        [np.array([box for box, _, _ in row], np.float32).reshape(-1, 4) for row in rows],
        [np.array([label for _, label, _ in row], np.int64) for row in rows],
        [np.array([out for _, _, out in row], bool) for row in rows],
        names,
    )


def _part(split: str) -> str:
    return "train" if split.startswith("train") else "test"


def _both(spec: str, found: Mapping[str, BoxSource]) -> dict[str, BoxSource]:
    """Both parts, with objects to learn from."""
    for part in ("train", "test"):
        if part not in found or not len(found[part]):
            raise DataError(f"{spec} has no {part} images; it has: {', '.join(found) or 'nothing'}")
        if not any((~out).any() for out in found[part].ignored):
            raise DataError(f"{spec} has no objects in its {part} part")
    if found["train"].classes != found["test"].classes:
        raise DataError(f"{spec}: the categories of the train and the test part differ")
    return dict(found)


def _scenes(spec: str, name: str, store: Cache) -> dict[str, BoxSource]:
    items = (
        builtin.read(name, None, store.folder, None)
        if name in ("digits", *builtin.READERS)
        else None
    )
    if items is None or items.images.shape[3] != 1:
        raise DataError(f"{spec}: scenes are composed from digits or fashion-mnist")
    key = hashlib.blake2b(items.images.tobytes(), digest_size=16).hexdigest()

    def make(into: Path, _: float) -> None:
        for split, seed, count in (("train", 1, TRAIN), ("test", 2, TEST)):
            rows = items.parts[split]
            made = multi_object_scenes.compose_crowds(
                items.images[rows, :, :, 0], items.labels[rows], count=count, seed=seed
            )
            multi_object_scenes.write_coco(into, split, *made, list(items.classes))

    return _coco(spec, store.entry(f"{multi_object_scenes.VERSION}-{key}", make))
