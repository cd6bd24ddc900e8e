"""The unseen-class protocol of Ye et al. 2019: learn on some classes without labels, retrieve among
others.

Trains `spread` (both forms of its loss) and `instdisc` on the scenes of classes 0 to 4 and scores
the test scenes of classes 5 to 9, each a query among the others: recall at 1, 2, 4, 8 (a neighbour
of the same class among the first k) and NMI of k-means with five clusters. Labels choose the
classes and score, nothing else.

    python studies/unseen.py        # writes studies/unseen.json; one seed, 3 epochs a row
"""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from tellapart import open_source
from tellapart.data import ImageSource
from tellapart.embeddings import embeddings
from tellapart.evaluation import retrieval
from tellapart.evaluation.baselines import CentredPixels
from tellapart.objectives import SpreadOptions
from tellapart.training import presets
from tellapart.training.trainer import Trainer, build_encoder

HERE = Path(__file__).resolve().parent


def main() -> None:
    """Every row, then the file."""
    source = open_source("scenes:fashion-mnist")
    seen, unseen = (
        of_classes(source.split("train"), range(5)),
        of_classes(source.split("test"), range(5, 10)),
    )
    config = replace(presets.spread_folder(), epochs=3, threads=1)
    rows = {
        "centred pixels": score(CentredPixels(seen).embed(unseen)),
        "untrained encoder": score(embeddings.embed(build_encoder(config, seen).eval(), unseen)),
    }
    released = SpreadOptions(temperature=0.1, loss="released")
    for name, method, settings in (
        ("spread", "spread", config),
        ("spread, released", "spread", replace(config, objective=released)),
        ("instdisc", "instdisc", replace(presets.instdisc_scenes(), epochs=3, threads=1)),
    ):
        trainer = Trainer(method, settings, seen)
        for _ in trainer:
            pass
        rows[name] = score(embeddings.embed(trainer.encoder, unseen, output="embedding"))
        print(name, rows[name], flush=True)
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=HERE
    )
    about = {
        "command": "python studies/unseen.py",
        "commit": commit.stdout.strip(),
        "seeds": 1,
        "epochs": 3,
    }
    (HERE / "unseen.json").write_text(json.dumps(about | {"rows": rows}, indent=1) + "\n")


def of_classes(part: ImageSource, classes: range) -> ImageSource:
    """The items of some classes."""
    return part.subset(np.flatnonzero(np.isin(part.labels, list(classes))))


def score(found: embeddings.Embeddings) -> dict[str, Any]:
    """Recall at k over all items as queries, R-precision, mAP@R and NMI."""
    return {name: round(value, 4) for name, value in retrieval(found).items()}


if __name__ == "__main__":
    main()
