"""Data sets known by name: digits, fashion-mnist, cifar10, stl10, and scenes of the first two.

Each reader returns a `Labelled`; files are downloaded only if they are not on this machine.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..errors import DataError
from . import scenes
from .images import ImageSource, Pixels
from .source import Array, fingerprint

DEBIAN_FASHION = Path("/usr/share/datasets/fashion-mnist")
FASHION_CLASSES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag",
    "Ankle boot",
)  # fmt: skip
DIGITS_TEST = 360


@dataclass(frozen=True)
class Labelled:
    """Images (S, H, W, C) uint8, labels (S,) with -1 = none, and the rows of each split."""

    images: Array
    labels: Array
    classes: tuple[str, ...]
    parts: dict[str, Array]
    licence: str


def digits(size: int) -> Labelled:
    """scikit-learn's 1,797 digits of 8 x 8, enlarged bicubically; the last 360 are the test."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    small = np.round(bunch.images * (255 / 16)).astype(np.uint8)
    large = [Image.fromarray(i).resize((size, size), Image.Resampling.BICUBIC) for i in small]
    images = np.stack([np.asarray(i) for i in large])
    rows = np.arange(len(images))
    parts = {"train": rows[:-DIGITS_TEST], "test": rows[-DIGITS_TEST:]}
    names = tuple(str(i) for i in range(10))
    return Labelled(
        images[..., None], bunch.target.astype(np.int64), names, parts, "CC BY 4.0 (UCI digits)"
    )


def fashion_mnist(folder: Path | None, download_to: Path) -> Labelled:
    """Fashion-MNIST's IDX files: from `folder`, Debian's package, or torchvision's download."""
    found = folder or DEBIAN_FASHION
    if not any(found.glob("train-images*")):
        if folder:
            raise DataError(
                f"{folder} does not hold Fashion-MNIST's IDX files "
                "(train-images-idx3-ubyte[.gz] ...)"
            )
        found = _torchvision("FashionMNIST", download_to, "fashion-mnist").raw_folder
    train = (
        _read_idx(Path(found), "train-images-idx3-ubyte"),
        _read_idx(Path(found), "train-labels-idx1-ubyte"),
    )
    test = (
        _read_idx(Path(found), "t10k-images-idx3-ubyte"),
        _read_idx(Path(found), "t10k-labels-idx1-ubyte"),
    )
    return _joined(
        [train[0][..., None], test[0][..., None]],
        [train[1], test[1]],
        FASHION_CLASSES,
        "MIT (Zalando SE)",
    )


def cifar10(folder: Path | None, download_to: Path) -> Labelled:
    """CIFAR-10 in torchvision's layout (a folder that holds cifar-10-batches-py)."""
    train = _torchvision("CIFAR10", folder or download_to, "cifar10", folder is None, train=True)
    test = _torchvision("CIFAR10", folder or download_to, "cifar10", folder is None, train=False)
    labels = [np.array(train.targets), np.array(test.targets)]
    return _joined([train.data, test.data], labels, tuple(train.classes), "")


def stl10(folder: Path | None, download_to: Path) -> Labelled:
    """STL-10 in torchvision's layout; its 100,000 unlabelled images belong to the training part."""
    get = [
        _torchvision("STL10", folder or download_to, "stl10", folder is None, split=s)
        for s in ("train+unlabeled", "test")
    ]
    images = [np.ascontiguousarray(d.data.transpose(0, 2, 3, 1)) for d in get]
    return _joined(images, [np.asarray(d.labels) for d in get], tuple(get[0].classes), "")


READERS: dict[str, Callable[[Path | None, Path], Labelled]] = {
    "fashion-mnist": fashion_mnist,
    "cifar10": cifar10,
    "stl10": stl10,
}


def read(name: str, folder: Path | None, cache: Path, size: int | None) -> Labelled:
    """The data set `name`.

    Args:
        name: digits or one of READERS. folder: of its files. cache: for downloads.
        size: side of the digits in pixels, 16 by default; the others keep their own size.
    """
    if name == "digits":
        return digits(size or 16)
    return READERS[name](folder, cache / "downloads")


def as_source(name: str, data: Labelled, size: int | None) -> ImageSource:
    """A source over arrays in memory."""
    ids = _numbered(data)
    return ImageSource(
        name=name,
        pixels=Pixels.of(data.images),
        image_size=size or data.images.shape[1],
        all_ids=ids,
        all_labels=data.labels,
        classes=data.classes,
        parts=data.parts,
        fingerprint=fingerprint(data.images, ids, data.labels),
        licence=data.licence,
    )


def composed(data: Labelled, size: int, progress: Callable[[int], None] | None = None) -> Labelled:
    """The scenes of a labelled set of single-channel items: seed 1 for training, 2 for test."""
    if data.images.shape[3] != 1:
        raise DataError(
            "scenes are composed from single-channel items: scenes:digits or scenes:fashion-mnist"
        )
    images = np.empty((len(data.images), size, size, 3), np.uint8)
    for name, rows in data.parts.items():
        made = scenes.compose(
            data.images[rows, :, :, 0], seed=scenes.SEEDS[name], size=size, progress=progress
        )
        images[rows] = made.images
    return Labelled(images, data.labels, data.classes, data.parts, data.licence)


def _numbered(data: Labelled) -> list[str]:
    ids = [""] * len(data.images)
    for name, rows in data.parts.items():
        for i, row in enumerate(rows):
            ids[row] = f"{name}/{i:05d}"
    return ids


def _joined(
    images: list[Array], labels: list[Array], classes: tuple[str, ...], licence: str
) -> Labelled:
    n = len(images[0])
    rows = np.arange(n + len(images[1]))
    parts = {"train": rows[:n], "test": rows[n:]}
    return Labelled(
        np.concatenate(images), np.concatenate(labels).astype(np.int64), classes, parts, licence
    )


def _read_idx(folder: Path, stem: str) -> Array:
    """An IDX file, plain or gzipped: magic (0, 0, 8, rank), big-endian int32 sizes, bytes."""
    plain, packed = folder / stem, folder / f"{stem}.gz"
    try:
        raw = gzip.decompress(packed.read_bytes()) if packed.exists() else plain.read_bytes()
        rank = raw[3]
        shape = np.frombuffer(raw, ">i4", count=rank, offset=4)
        return np.frombuffer(raw, np.uint8, offset=4 + 4 * rank).reshape(shape)
    except (OSError, EOFError, IndexError, ValueError) as error:
        raise DataError(f"{folder / stem}[.gz] is missing or damaged: {error}") from error


def _torchvision(kind: str, root: Path, name: str, download: bool = True, **options: Any) -> Any:
    import torchvision.datasets

    try:
        return getattr(torchvision.datasets, kind)(str(root), download=download, **options)
    except (RuntimeError, OSError) as error:  # OSError: no network
        raise DataError(
            f"{name} is not in {root} and could not be downloaded ({error}). "
            f"Give its folder: --data {name}:FOLDER"
            + (", or install Debian's dataset-fashion-mnist" if name == "fashion-mnist" else "")
        ) from error
