"""How instance discrimination starts: influence of the head, the first rows of the bank, and Z.

Two epochs per row, one seed.

    python studies/start.py [ROW ...]      writes studies/start.json

scenes:fashion-mnist, 50,000 training scenes; weighted kNN (k = 200) on the 10,000 scenes of the
validation part, among the 50,000. The first row is the preset `instdisc_scenes`; every other row
changes what its name says.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from tellapart import open_source
from tellapart.embeddings import embeddings
from tellapart.evaluation import knn
from tellapart.training.config import TrainConfig
from tellapart.training.presets import SCENES, instdisc_scenes
from tellapart.training.trainer import Trainer

FILE = Path(__file__).with_suffix(".json")


def rows() -> dict[str, TrainConfig]:
    """Name of each row -> configuration."""
    base = replace(instdisc_scenes(), epochs=2, validation=10_000)
    random, frozen = replace(SCENES, bank_start="random"), replace(SCENES, z="frozen")
    return {
        "preset": base,
        "random bank": replace(base, objective=random),
        "frozen Z": replace(base, objective=frozen),
        "linear head, random bank, frozen Z": replace(
            base, head="linear", objective=replace(random, z="frozen")
        ),
    }


def train(config: TrainConfig) -> dict[str, Any]:
    """Two epochs, then kNN on the validation part."""
    part, held = open_source("scenes:fashion-mnist").split("train").hold_out(config.validation)
    trainer = Trainer("instdisc", config, part)
    curve = []
    for step in trainer:
        if step.number % 100 == 0 or step.number == 1:
            row = trainer.measure(step)
            curve.append(
                {
                    k: round(row[k], 3)
                    for k in ("step", "loss", "log_z", "gap", "std", "effective_rank")
                }
            )
            print(curve[-1], flush=True)
    scores = {
        output: knn(
            embeddings.embed(trainer.encoder, part, output=output),
            embeddings.embed(trainer.encoder, held, output=output),
        )["knn@200"]
        for output in ("features", "embedding")
    }
    return {
        "config": config.to_dict(),
        "chance": trainer.chance,
        "curve": curve,
        "validation": scores,
    }


def main() -> None:
    """Train the named rows, or all."""
    for name in sys.argv[1:] or list(rows()):
        result = train(rows()[name])
        known = json.loads(FILE.read_text()) if FILE.exists() else {}
        FILE.write_text(json.dumps(known | {name: result}, indent=1) + "\n")
        print(name, result["validation"], flush=True)


if __name__ == "__main__":
    main()
