"""Claim 13: which pair of augmentations, on one branch, teaches most.

    python studies/composition.py [--minutes M]

Source: Chen et al. 2020 (arXiv 2002.05709), Figure 5: crops with colour changes are the best pair.
The other branch is the image itself. `composition:NAME` is the function of a row's views.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import torch
from harness import FAILS, HOLDS, PARTLY, UNTESTED, Row, Study, Table, Verdict
from torch import Tensor

from tellapart import ImageViews

SIZE = 32  # side of a view in pixels: that of the scenes
STILL: dict[str, Any] = {
    "area": (1.0, 1.0), "aspect": (1.0, 1.0), "flip": 0.0, "jitter": 0.0, "grayscale": 0.0,
}  # fmt: skip
AUGMENTATIONS: dict[str, dict[str, Any]] = {
    "crop": {"area": (0.08, 1.0), "aspect": (3 / 4, 4 / 3), "flip": 0.5},
    "cutout": {"cutout": 1.0},
    "colour": {
        "jitter": 0.8, "brightness": 0.8, "contrast": 0.8, "saturation": 0.8, "hue": 0.2,
        "grayscale": 0.2,
    },
    "sobel": {"sobel": 1.0},
    "noise": {"noise": 0.1},
    "blur": {"blur": 1.0},
    "rotation": {},
}  # fmt: skip


def identity(images: Any, generator: torch.Generator) -> Tensor:
    """Return the images themselves as a view: the other branch."""
    return ImageViews(size=SIZE, **STILL)(images, generator)


def views_of(*names: str) -> Callable[[Any, torch.Generator], Tensor]:
    """Return the views of a composition; a rotation is by 0, 90, 180 or 270 degrees."""
    settings = dict(STILL)
    for name in names:
        settings |= AUGMENTATIONS[name]
    change = ImageViews(size=SIZE, **settings)

    def views(images: Any, generator: torch.Generator) -> Tensor:
        x = change(images, generator)
        if "rotation" in names:
            turns = torch.randint(4, (len(x),), generator=generator, device=x.device)
            x = torch.stack(
                [image.rot90(int(k), (1, 2)) for image, k in zip(x, turns, strict=True)]
            )
        return x

    return views


SINGLES = [(name,) for name in AUGMENTATIONS]
PAIRS = list(itertools.combinations(AUGMENTATIONS, 2))
for _names in (*SINGLES, *PAIRS):  # a run stores the name of its views, which must be importable
    globals()["_".join(_names)] = views_of(*_names)


def row(names: tuple[str, ...]) -> Row:
    """A row of SimCLR: these augmentations on one branch, the image itself on the other."""
    views = f"composition:{'_'.join(names)},composition:identity"
    return Row(" + ".join(names), "simclr", {"epochs": 3, "lr": 0.03, "view": views})


ROWS = tuple(row(names) for names in (("crop", "colour"), *SINGLES, *PAIRS[:1], *PAIRS[2:]))


def judge(table: Table) -> Verdict:
    """Holds if no other row is above crop + colour; fails if one is above by its interval."""
    if not table.complete():
        done = sum(len(cells) for cells in table.cells.values())
        return Verdict(UNTESTED, f"{done} of {len(ROWS) * table.seeds} trainings are done")
    pair, *others = (r.name for r in ROWS)
    above = [other for other in others if table.mean(other) > table.mean(pair)]
    surely = [other for other in above if table.better(other, pair)]
    best = max(others, key=table.mean)
    sentence = (
        f"crop + colour {100 * table.mean(pair):.1f} %, the best other row ({best}) "
        f"{100 * table.mean(best):.1f} %"
    )
    return Verdict(FAILS if surely else PARTLY if above else HOLDS, sentence)


STUDY = Study(
    "composition",
    "Compositions of two augmentations (SimCLR, Figure 5)",
    ROWS,
    judge,
    decisive=len(ROWS),
    note="The matrix is symmetric here: our views apply geometry first, then colour.",
)

if __name__ == "__main__":
    STUDY.main()
