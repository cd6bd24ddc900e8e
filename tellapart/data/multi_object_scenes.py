"""Scenes of several objects with exact boxes, in COCO's layout: detection without a download.

The pieces are those of scenes-v1: the same cloud texture, tints and turned items. A scene is a grid
of 3 x 3 cells; each object stands alone in one, so that boxes never overlap.
Shapes: S scenes, O objects of a scene, P side in pixels.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..errors import require
from . import scenes
from .scenes import Array

VERSION = "crowds-v1"
SIZE, MOST, GRID = 96, 4, 3
_PER_OBJECT = 8  # numbers: item, tint (3), scale, angle, offset (2)


def compose_crowds(
    items: Array, labels: Array, *, count: int, seed: int, size: int = SIZE
) -> tuple[Array, list[Array], list[Array]]:
    """`count` scenes with one to four objects each.

    Args:
        items: (N, h, w) uint8 intensities that objects are drawn from; labels: (N,) their classes.
        seed: of everything; equal seeds make equal scenes, whatever the count.
        size: side in pixels, 32 or more.
    Returns:
        images (S, P, P, 3) uint8; boxes, per scene (O, 4) int64 x0, y0, x1, y1 in pixels, half
        open; classes, per scene (O,).
    """
    require(size >= 32, f"a scene needs 32 pixels or more a side, got {size}")
    require(len(items) > 0 and len(items) == len(labels), "items and as many labels are needed")
    images = np.empty((count, size, size, 3), np.uint8)
    boxes: list[Array] = []
    classes: list[Array] = []
    masks = scenes.masks(items)
    for start in range(0, count, 250):
        stop = min(start + 250, count)
        numbers, cells = _numbers(seed, start, stop)
        scene = scenes.background(numbers[:, : scenes.NOISE], size)
        objects = numbers[:, scenes.NOISE + 1 :].view(stop - start, MOST, _PER_OBJECT)
        many = 1 + (numbers[:, scenes.NOISE] * MOST).long()
        found: list[tuple[Tensor, Tensor]] = []
        for slot in range(MOST):
            row = (objects[:, slot, 0] * len(items)).long()
            scene, box = _paste(
                scene, masks[row], objects[:, slot, 1:], cells[:, slot], many > slot, size
            )
            found.append((box, torch.from_numpy(labels)[row]))
        images[start:stop] = (
            scene.clamp(0, 1).mul(255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
        )
        for i in range(stop - start):
            shown = [s for s in range(MOST) if s < many[i] and int(found[s][0][i, 2]) > 0]
            boxes.append(
                np.array([found[s][0][i].tolist() for s in shown], np.int64).reshape(-1, 4)
            )
            classes.append(np.array([int(found[s][1][i]) for s in shown], np.int64))
    return images, boxes, classes


def write_coco(
    folder: Path,
    split: str,
    images: Array,
    boxes: list[Array],
    classes: list[Array],
    names: list[str],
) -> None:
    """Write scenes as COCO does: `SPLIT/000001.png` ... and `annotations/instances_SPLIT.json`."""
    (folder / split).mkdir(parents=True, exist_ok=True)
    (folder / "annotations").mkdir(exist_ok=True)
    listed: list[dict[str, Any]] = []
    marked: list[dict[str, Any]] = []
    for i, image in enumerate(images):
        name = f"{i:06d}.png"
        Image.fromarray(image).save(folder / split / name)
        listed.append(
            {"id": i, "file_name": name, "height": image.shape[0], "width": image.shape[1]}
        )
        for (x0, y0, x1, y1), label in zip(boxes[i].tolist(), classes[i].tolist(), strict=True):
            w, h = x1 - x0, y1 - y0
            box = {
                "id": len(marked) + 1,
                "image_id": i,
                "category_id": label + 1,
                "bbox": [x0, y0, w, h],
            }
            marked.append(box | {"area": w * h, "iscrowd": 0})
    kinds = [{"id": i + 1, "name": name} for i, name in enumerate(names)]
    about = {"images": listed, "annotations": marked, "categories": kinds}
    (folder / "annotations" / f"instances_{split}.json").write_text(json.dumps(about))


def _numbers(seed: int, start: int, stop: int) -> tuple[Tensor, Tensor]:
    """(n, numbers) uniform in [0, 1) and (n, 9) orders of cells, by Philox on (seed, scene)."""
    wanted = scenes.NOISE + 1 + MOST * _PER_OBJECT + GRID**2
    raw = np.stack(
        [np.random.Philox(key=[seed << 32, i]).random_raw(wanted) for i in range(start, stop)]
    )
    numbers = torch.from_numpy((raw >> np.uint64(40)).astype(np.float32) * np.float32(2**-24))
    return numbers[:, : -(GRID**2)], numbers[:, -(GRID**2) :].argsort(dim=1, stable=True)


def _paste(
    scene: Tensor, masks: Tensor, numbers: Tensor, cell: Tensor, there: Tensor, size: int
) -> tuple[Tensor, Tensor]:
    """The scenes with an object in `cell` where it is `there`, and its boxes (n, 4)."""
    tint, u = 0.35 + 0.65 * numbers[:, :3], 0.55 + 0.45 * numbers[:, 3]
    scale, angle = u / GRID, 0.8 * numbers[:, 4] - 0.4
    centre = torch.stack([cell % GRID, cell // GRID], 1) * 2 / GRID + 1 / GRID - 1
    offset = (
        centre + (2 * numbers[:, 5:7] - 1) * ((1 - u) / GRID)[:, None]
    )  # the scaled square stays in its cell
    placed = scenes.place(masks, scale, angle, offset, size) * there[:, None, None, None]
    scene, visible = scenes.blend(scene, placed, tint)
    return scene, torch.from_numpy(scenes.tight_boxes(visible))
