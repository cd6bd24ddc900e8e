"""The main job in under two minutes: train without labels, compare with pixels, draw look-alikes.

The demo writes a folder of pictures, as a user would have one: scikit-learn's handwritten digits,
each at a random place, size, rotation and colour on a plain ground. Pixels say little about such
pictures.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from . import api
from .errors import DataError
from .runtime.console import Console

QUERIES, NEIGHBOURS = 8, 10
SIDE = 32  # of a picture, in pixels
# Chosen on the last 287 training digits; the test digits were scored after that (docs/experiments).
SETTINGS: dict[str, Any] = {
    "optimizer": "adamw",
    "lr": 0.01,
    "weight_decay": 0.3,
    "batch_size": 64,
    "area": (0.5, 1.0),
    "rotation": 20.0,
    "flip": 0.0,
}
ROWS = {
    "centred pixels": "raw pixels, centred",
    "random init": "the same network, untrained",
    "trained embedding": "tellapart, trained without labels",
}
NEAREST, FEW = "knn@20", "10 labels per class"


def demo(
    out: str | Path = "runs/demo",
    *,
    seed: int = 0,
    full: bool = False,
    epochs: float = 40.0,
    console: Console | None = None,
) -> dict[str, Any]:
    """Write pictures of digits, train without labels, score the encoder and draw look-alikes.

    Args:
        out: new run folder. If it exists, the next free one of out-2, out-3, ... is taken. The
            pictures go to the folder of the same name with "-pictures" appended.
        seed: seed of the pictures and of the training.
        full: also print the complete tables of `tellapart eval`.
        epochs: passes over the 1,437 training pictures.
        console: where to print.

    Returns:
        The contents of eval.json, with "run", "pictures" and "picture" (the contact sheet).
    """
    from .training.run import Run

    console = console or Console()
    run = _free(Path(out))
    pictures = run.with_name(f"{run.name}-pictures")
    counts = write_pictures(pictures, seed=seed)
    console.say(
        f"{counts['train']:,} pictures to learn from (their labels are not used), "
        f"{counts['test']} to test with: {pictures}\n"
    )
    api.train(
        "spread", data=str(pictures), out=run, seed=seed, epochs=epochs, console=console, **SETTINGS
    )
    result = api.evaluate(run, console=Console(quiet=True))
    sheet = Run.open(run).neighbours_file
    draw_neighbours(run, sheet, queries=QUERIES, k=NEIGHBOURS, console=Console(quiet=True))
    _print_results(result, console)
    if full:
        from .reports.tables import print_table

        console.say("")
        print_table(result, console)
    console.say(
        f"\nlook-alikes of {QUERIES} test pictures: {sheet}\n"
        f"the encoder, yours to keep: {run / 'encoder'}\n"
        "your own pictures: tellapart train simclr --data YOUR_PHOTOS/ --out runs/photos"
    )
    return result | {"run": str(run), "pictures": str(pictures), "picture": str(sheet)}


def write_pictures(folder: Path, *, seed: int = 0) -> dict[str, int]:
    """Write the digits as FOLDER/PART/LABEL/*.png, RGB, 32 x 32 pixels; PART is train or test.

    Args:
        folder: new folder.
        seed: seed of place, size (0.35 to 0.75 of the side), rotation (up to 0.35 rad), colour of
            digit and ground.

    Returns:
        Number of pictures of each part.
    """
    import numpy as np
    import torch
    from PIL import Image

    from .data import builtin, scenes

    data = builtin.digits(16)
    random = np.random.default_rng(seed)
    masks = scenes.masks(data.images[..., 0])
    for part, rows in data.parts.items():
        u = torch.from_numpy(random.random((len(rows), 10)).astype(np.float32))
        scale, angle = 0.35 + 0.4 * u[:, 0], 0.35 * (2 * u[:, 1] - 1)
        offset = (2 * u[:, 2:4] - 1) * (1 - scale)[:, None]
        ink = scenes.place(masks[rows], scale, angle, offset, SIDE)
        tint, ground = 0.35 + 0.65 * u[:, 4:7], 0.3 * u[:, 7:10]
        pixels = ground[:, :, None, None] * (1 - ink) + tint[:, :, None, None] * ink
        images = pixels.clamp(0, 1).mul(255).round().byte().permute(0, 2, 3, 1).numpy()
        for row, image in zip(rows, images, strict=True):
            path = folder / part / data.classes[data.labels[row]] / f"{row:04d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path)
    return {part: len(rows) for part, rows in data.parts.items()}


def draw_neighbours(
    run: str | Path, path: str | Path, *, queries: int, k: int, console: Console, seed: int = 0
) -> None:
    """Draw test items with their nearest training items; green marks the same class, red another.

    Args:
        run: run folder whose source has labels and a test part.
        path: picture to write.
        queries: number of test items; the classes take turns.
        k: number of neighbours of each.
        console: where progress is printed.
        seed: seed of the choice of test items.

    Raises:
        DataError: the source has no labels.
    """
    import numpy as np

    from .embeddings import embed
    from .embeddings.index import Index
    from .reports import contact_sheet
    from .training import loading

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
    # For the method of the demo the embedding is better than the features (docs/objectives/spread).
    index = Index(embed(loaded.encoder, train, output="embedding"))
    wanted = embed(loaded.encoder, chosen, output="embedding").vectors
    _, rows = index.search(wanted, k)
    contact_sheet.save(
        contact_sheet.draw(
            [
                (chosen.image(i), [train.image(int(r)) for r in neighbours])
                for i, neighbours in enumerate(rows)
            ],
            same=[
                [bool(train.labels[r] == test.labels[picked[i]]) for r in neighbours]
                for i, neighbours in enumerate(rows)
            ],
        ),
        path,
    )


def _print_results(result: Mapping[str, Any], console: Console) -> None:
    """Print one sentence and one table: accuracy by neighbours and from ten labels per class."""
    if console.quiet:
        return
    scores = result["scores"]
    percent = {row: 100 * scores[row][NEAREST]["value"] for row in ROWS}
    console.say(
        f"\nWhich digit is it? Pixels: {percent['centred pixels']:.0f} % right. "
        f"After learning without labels: {percent['trained embedding']:.0f} %.\n"
    )
    rows = []
    for row, name in ROWS.items():
        cells = [scores[row][column] for column in (NEAREST, FEW)]
        rows.append([name, *(f"{100 * c['value']:.1f} ± {_half_width(c):.1f}" for c in cells)])
    heads = ["", "vote of the 20\nnearest pictures", "classifier from\n10 labels per class"]
    console.table(heads, rows, title="accuracy on the test pictures, %", right=(1, 2))
    console.say("± half of a 95 % confidence interval; --full prints every score")


def _half_width(score: Mapping[str, float]) -> float:
    return 50 * (score["high"] - score["low"])


def _free(folder: Path) -> Path:
    """The first of folder, folder-2, folder-3, ... that is free, together with its pictures."""
    number, free = 1, folder
    while free.exists() or free.with_name(f"{free.name}-pictures").exists():
        number += 1
        free = folder.with_name(f"{folder.name}-{number}")
    return free
