"""The main job in under two minutes: train on embedded digits, judge against baselines, search, show."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from . import api
from .embeddings.embeddings import embed as embed_source
from .embeddings.index import Index
from .errors import DataError
from .reports import contact_sheet
from .runtime.console import Console
from .training import loading
from .training.run import require_new

QUERIES, NEIGHBOURS = 8, 10


def demo(
    out: str | Path = "runs/demo", *, seed: int = 0, console: Console | None = None
) -> dict[str, Any]:
    """Train InstDisc on scikit-learn's digits, score it, and draw test digits with their look-alikes.

    Args:
        out: a new folder; when it is taken, the next free of out-2, out-3, ...
    Returns:
        What eval.json holds, with "run" and "picture".
    """
    console = console or Console()
    folder = _free(Path(out))
    console.say(
        "1,797 handwritten digits, 1,437 to learn from without their labels, 360 kept aside\n"
    )
    api.train("instdisc", data="digits", out=folder, seed=seed, console=console)
    console.say("")
    result = api.evaluate(folder, console=console)
    picture = folder / "neighbours.png"
    draw_neighbours(folder, picture, queries=QUERIES, k=NEIGHBOURS, console=console)
    console.say(
        f"\nlook-alikes of {QUERIES} digits it never saw: {picture}\nthe encoder, yours: {folder / 'encoder'}"
    )
    return result | {"run": str(folder), "picture": str(picture)}


def draw_neighbours(
    run: str | Path, path: str | Path, *, queries: int, k: int, console: Console, seed: int = 0
) -> None:
    """Draw test items, each class in turn, with their nearest training items; green marks the same class."""
    loaded = api.load(run)
    source = loading.images_of(loaded.source(console=console), str(run))
    train, test = source.split("train"), source.split("test")
    if test.labels is None or train.labels is None:
        raise DataError(f"{source.name} has no labels to mark look-alikes by")
    random = np.random.default_rng(seed)
    classes = np.unique(test.labels)
    picked = [
        int(random.choice(np.flatnonzero(test.labels == classes[i % len(classes)])))
        for i in range(queries)
    ]
    chosen = test.subset(np.array(picked))
    index = Index(embed_source(loaded.encoder, train))
    _, rows = index.search(embed_source(loaded.encoder, chosen).vectors, k)
    contact_sheet.save(
        contact_sheet.draw(
            [
                (chosen.image(i), [train.image(int(r)) for r in found])
                for i, found in enumerate(rows)
            ],
            same=[
                [bool(train.labels[r] == test.labels[picked[i]]) for r in found]
                for i, found in enumerate(rows)
            ],
        ),
        path,
    )


def _free(folder: Path) -> Path:
    for number in range(1, 1000):
        candidate = folder if number == 1 else folder.with_name(f"{folder.name}-{number}")
        if not candidate.exists():
            return candidate
    require_new(folder)
    return folder
