"""Planted copies of 2,000 images found again, by kind of change and kind of image, and 70,000
images inspected.

Each set holds 1,700 images and 300 copies of them: a third resized (to 0.5-0.9 or 1.2-1.6 of the
side), a third saved as JPEG of quality 30 to 70, a third cropped by up to 4 % at each edge. Three
seeds. A pair is right when the one is a copy of the other, or both are of the same image.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import write
from PIL import Image

from tellapart.curation import inspect
from tellapart.data import ImageSource, open_source, scenes
from tellapart.runtime.console import Console

ORIGINALS, COPIES, SEEDS = 1700, 300, (0, 1, 2)
CHANGES = ("resized", "jpeg", "cropped")
SHIRT, TROUSER = 6, 1
Array = np.ndarray[Any, Any]


def textures(random: np.random.Generator, side: int) -> list[Array]:
    """Coloured noise whose spectrum falls as that of photographs does."""
    down, across = np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None]
    found = []
    for _ in range(ORIGINALS):
        size = 1 / np.maximum(np.hypot(down, across), 1 / side) ** random.uniform(1.0, 1.8)
        fields = np.fft.irfft2(
            size * np.exp(2j * np.pi * random.random((2, *size.shape))), s=(side, side)
        )
        fields /= fields.std((1, 2), keepdims=True)
        mixed = fields[0][..., None] * random.normal(1, 0.5, 3) + 0.5 * fields[1][
            ..., None
        ] * random.normal(0, 1, 3)
        found.append(np.clip(128 + 45 * mixed + random.normal(0, 20, 3), 0, 255).astype(np.uint8))
    return found


def fashion(random: np.random.Generator, label: int | None) -> list[Array]:
    """Fashion-MNIST as it is, 28 pixels gray: of all classes, or of one."""
    source = open_source("fashion-mnist")
    if not isinstance(source, ImageSource) or source.labels is None:
        raise SystemExit("fashion-mnist is not what it was")
    rows = np.arange(len(source)) if label is None else np.flatnonzero(source.labels == label)
    return [source.image(int(row))[:, :, 0] for row in random.permutation(rows)[:ORIGINALS]]


def composed(random: np.random.Generator, side: int) -> list[Array]:
    """Shirts at random places on coloured clouds."""
    return list(
        scenes.compose(
            np.stack(fashion(random, SHIRT)), seed=int(random.integers(1000)), size=side
        ).images
    )


SETS = {
    "textures, 64 px": lambda random: textures(random, 64),
    "scenes of shirts, 64 px": lambda random: composed(random, 64),
    "scenes of shirts, 32 px": lambda random: composed(random, 32),
    "Fashion-MNIST, 28 px": lambda random: fashion(random, None),
    "its shirts alone, 28 px": lambda random: fashion(random, SHIRT),
    "its trousers alone, 28 px": lambda random: fashion(random, TROUSER),
}


def change(kind: str, image: Array, path: Path, random: np.random.Generator) -> Path:
    """Write a changed copy; returns its file."""
    picture = Image.fromarray(image)
    w, h = picture.size
    if kind == "jpeg":
        path = path.with_suffix(".jpg")
        picture.save(path, quality=int(random.integers(30, 71)))
        return path
    if kind == "resized":
        scale = random.choice([random.uniform(0.5, 0.9), random.uniform(1.2, 1.6)])
        picture = picture.resize((round(w * scale), round(h * scale)), Image.Resampling.BICUBIC)
    else:
        left, top, right, bottom = (round(v) for v in random.uniform(0, 0.04, 4) * (w, h, w, h))
        if not any((left, top, right, bottom)):
            left = top = 1
        picture = picture.crop((left, top, w - right, h - bottom))
    picture.save(path)
    return path


def planted(folder: Path, images: list[Array], random: np.random.Generator) -> dict[str, str]:
    """Write images and copies; returns file of each copy -> kind of change. Names begin with the
    original's number.
    """
    for i, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{i:05d}.png")
    made = {}
    for j, i in enumerate(random.permutation(len(images))[:COPIES]):
        kind = CHANGES[j % 3]
        made[change(kind, images[i], folder / f"{i:05d}-{kind}.png", random).name] = kind
    return made


def measured(name: str, seed: int) -> dict[str, Any]:
    """Recall by change, precision over pairs."""
    random = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory() as folder:
        kinds = planted(Path(folder), SETS[name](random), random)
        began = time.perf_counter()
        seen = inspect.inspect_source(folder, console=Console(quiet=True))
        seconds = time.perf_counter() - began
    ids = seen.source.ids
    pairs = [
        (ids[a], ids[b]) for g in seen.copies.together for i, a in enumerate(g) for b in g[i + 1 :]
    ]
    right = {b if b in kinds else a for a, b in pairs if a[:5] == b[:5]}
    recall = {k: np.mean([c in right for c, kind in kinds.items() if kind == k]) for k in CHANGES}
    return {
        "recall": len(right) / len(kinds),
        **recall,
        "precision": sum(a[:5] == b[:5] for a, b in pairs) / len(pairs),
        "seconds": seconds,
    }


def large() -> dict[str, Any]:
    """Fashion-MNIST's 70,000 images, everything that `inspect` does, in seconds."""
    began = time.perf_counter()
    seen = inspect.inspect_source("fashion-mnist", console=Console(quiet=True))
    seconds = time.perf_counter() - began
    result = seen.result
    return {
        "items": len(seen.source),
        "seconds": round(seconds, 1),
        "threads": torch.get_num_threads(),
        "exact groups": result["duplicates"]["exact"]["groups"],
        "near groups": result["duplicates"]["near"]["groups"],
        "labels that do not fit": result["labels"]["items"],
    }


if __name__ == "__main__":
    rows: dict[str, Any] = {"70,000 images": large()}
    print(rows, flush=True)
    for name in SETS:
        found = [measured(name, seed) for seed in SEEDS]
        print(name, found, flush=True)
        rows[name] = {
            column: [round(float(f(v)), 3) for f in (np.mean, np.std)]
            for column in found[0]
            if (v := [one[column] for one in found])
        }
    write("inspection", rows | {"columns": "mean and standard deviation over seeds 0, 1, 2"})
