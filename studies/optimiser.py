"""k-NN accuracy after one epoch of scenes, by optimiser, decay, batch and crops: seed 0, kNN on the
validation part.

    python studies/optimiser.py    # a quarter of an hour of one thread; writes optimiser.json

Each row is a training of its own whose rate falls to zero within the epoch; a third of the training
scenes are the neighbours of 10,000 held out by hash. The test part is never read.
"""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from tellapart import open_source
from tellapart.embeddings import embeddings
from tellapart.evaluation import knn
from tellapart.training import presets
from tellapart.training.trainer import Trainer

HERE = Path(__file__).resolve().parent
SGD: dict[str, Any] = {"optimizer": "sgd", "weight_decay": 5e-4}
ROWS: list[tuple[str, str, dict[str, Any]]] = [
    ("spread", "AdamW, rate 0.01, decay 0.3, batch 64, crops of 0.4 to 1 (the preset)", {}),
    ("spread", "decay 0.01", {"weight_decay": 0.01}),
    ("spread", "decay 0.1", {"weight_decay": 0.1}),
    ("spread", "decay 1", {"weight_decay": 1.0}),
    ("spread", "rate 0.005", {"lr": 0.005}),
    ("spread", "batch 128", {"batch_size": 128}),
    ("spread", "crops of 0.2 to 1", {"area": (0.2, 1.0)}),
    ("spread", "SGD, rate 0.03, decay 5e-4", SGD | {"lr": 0.03}),
    ("spread", "SGD, rate 0.1, decay 5e-4", SGD | {"lr": 0.1}),
    ("spread", "SGD, rate 0.2, decay 5e-4", SGD | {"lr": 0.2}),
    ("spread", "SGD, rate 0.1, decay 2e-3", SGD | {"lr": 0.1, "weight_decay": 2e-3}),
    ("simclr", "as the first row of spread", presets.QUICK),
    ("simclr", "SGD, rate 0.1, decay 5e-4, batch 128, crops of 0.2 to 1 (the preset)", {}),
    (
        "simclr",
        "SGD, rate 0.1, decay 5e-4, batch 64, crops of 0.4 to 1",
        SGD | {"batch_size": 64, "area": (0.4, 1.0)},
    ),
]


def main() -> None:
    """Every row, then the file."""
    part, held = open_source("scenes:fashion-mnist").split("train").hold_out(10_000)
    near = part.subset(np.arange(0, len(part), 3))
    rows = []
    for method, name, changes in ROWS:
        trainer = Trainer(
            method, replace(presets.named(f"{method}_scenes"), epochs=1, threads=1, **changes), part
        )
        for _ in trainer:
            pass
        row: dict[str, Any] = {"method": method, "settings": name}
        for output in ("features", "embedding"):
            a, b = (embeddings.embed(trainer.encoder, p, output=output) for p in (near, held))
            row[output] = round(knn(a, b, k=200)["knn@200"], 4)
        rows.append(row)
        print(row, flush=True)
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=HERE
    )
    about = {
        "command": "python studies/optimiser.py",
        "commit": commit.stdout.strip(),
        "seeds": 1,
        "rows": rows,
    }
    (HERE / "optimiser.json").write_text(json.dumps(about, indent=1) + "\n")


if __name__ == "__main__":
    main()
