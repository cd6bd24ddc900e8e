"""A map of the digits 4 and 9 in two dimensions by springs (Hadsell et al. 2006, fig. 6): similar
are the five nearest images by pixels, no labels. Draws docs/images/margin_map.png (each test digit
at its place, 4 blue, 9 red) and writes studies/digit_map.json: how often the nearest item on the
map has the same label, against the two first principal components of the pixels.

    python studies/digit_map.py
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from sklearn.decomposition import PCA
from sklearn.neighbors import KNeighborsClassifier

from tellapart import open_source
from tellapart.data import ImageSource
from tellapart.training.presets import margin_digits
from tellapart.training.trainer import Trainer
from tellapart.views.images import centre_view

HERE = Path(__file__).resolve().parent
SIDE, MARGIN = 900, 30
COLOURS = {4: (40, 90, 200), 9: (200, 50, 40)}


def main() -> None:
    """Train, place, draw."""
    train, test = (fours_and_nines(split) for split in ("train", "test"))
    trainer = Trainer(
        "margin", replace(margin_digits(), batch_size=128, epochs=200, threads=1), train
    )
    for step in trainer:
        if step.number % 100 == 0:
            print(step.number, f"loss {step.loss:.4f}", flush=True)
    trainer.encoder.eval()
    places = {name: placed(trainer, part) for name, part in (("train", train), ("test", test))}
    draw(np.concatenate(list(places.values())), [train, test]).save(
        HERE.parent / "docs/images/margin_map.png"
    )
    pixels = {name: flat(part) for name, part in (("train", train), ("test", test))}
    pca = PCA(2).fit(pixels["train"])
    result = {
        "command": "python studies/digit_map.py",
        "items": {"train": len(train), "test": len(test)},
        "right by 5 nearest on the map": accuracy(places["train"], train, places["test"], test),
        "right by 5 nearest on two principal components": accuracy(
            pca.transform(pixels["train"]), train, pca.transform(pixels["test"]), test
        ),
    }
    (HERE / "digit_map.json").write_text(json.dumps(result, indent=1) + "\n")
    print(result)


def fours_and_nines(split: str) -> ImageSource:
    """The two classes of one split; labels choose the items and colour the picture, training sees
    none.
    """
    part = open_source("digits").split(split)
    return part.subset(np.flatnonzero(np.isin(part.labels, list(COLOURS))))


@torch.inference_mode()
def placed(trainer: Trainer, part: ImageSource) -> np.ndarray:
    """(N, 2)"""
    return trainer.encoder.project(centre_view(part.read(torch.arange(len(part))), 16)).numpy()


def flat(part: ImageSource) -> np.ndarray:
    """(N, 256)"""
    return part.read(torch.arange(len(part))).flatten(1).numpy()


def accuracy(near: np.ndarray, train: ImageSource, places: np.ndarray, test: ImageSource) -> float:
    """Share of test items whose five nearest training items agree with their label."""
    return round(KNeighborsClassifier(5).fit(near, train.labels).score(places, test.labels), 4)


def draw(places: np.ndarray, parts: list[ImageSource]) -> Image.Image:
    """Every digit as itself, at its place."""
    low, high = places.min(0), places.max(0)
    spots = MARGIN + (places - low) / (high - low) * (SIDE - 2 * MARGIN)
    page = np.full((SIDE, SIDE, 3), 255.0)
    items = [
        (part.image(i)[:, :, 0] / 255, int(part.labels[i]))
        for part in parts
        for i in range(len(part))
    ]
    for (x, y), (digit, label) in zip(spots, items, strict=True):
        top, left = int(y) - 8, int(x) - 8
        ink = digit[:, :, None]
        page[top : top + 16, left : left + 16] *= 1 - ink
        page[top : top + 16, left : left + 16] += ink * COLOURS[label]
    return Image.fromarray(page.clip(0, 255).astype(np.uint8))


if __name__ == "__main__":
    main()
