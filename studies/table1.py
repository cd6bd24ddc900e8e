"""Table 1 of Wu et al. 2018 in miniature: parametric softmax, non-parametric softmax, NCE with m =
1, 10, 512, 4096.

    python studies/table1.py [ROW ...]      writes studies/table1.json (a row at a time; one seed)

The same encoder, views, optimiser and number of steps for every row; only the loss differs. Trained
on 50,000 scenes of scenes:fashion-mnist, scored once on the 10,000 test scenes with all 60,000
training scenes as neighbours. The paper, on CIFAR-10 (linear SVM / kNN): parametric 60.3 / 63.0,
non-parametric 75.4 / 80.8, NCE 44.3 / 42.5, 60.2 / 63.4, 64.3 / 78.4, 70.2 / 80.4.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from tellapart import open_source
from tellapart.embeddings import embeddings
from tellapart.evaluation import knn, linear_probe
from tellapart.objectives import ExemplarOptions
from tellapart.training.config import TrainConfig
from tellapart.training.hardware import hardware
from tellapart.training.presets import SCENES, instdisc_scenes
from tellapart.training.resolve import training_part
from tellapart.training.trainer import Trainer

EPOCHS = 2
FILE = Path(__file__).with_suffix(".json")


def rows() -> dict[str, tuple[str, TrainConfig]]:
    """Name of each row -> method and configuration. Small m is drawn per instance, as the paper has
    it.
    """
    base = replace(instdisc_scenes(), epochs=EPOCHS, validation=10_000)

    def nce(m: int) -> tuple[str, TrainConfig]:
        noise = "shared" if m > 512 else "instance"
        return "instdisc", replace(
            base, objective=replace(SCENES, loss="nce", negatives=m, noise=noise)
        )

    return {
        "parametric softmax": (
            "exemplar",
            replace(base, objective=ExemplarOptions(temperature=SCENES.temperature)),
        ),
        "non-parametric softmax": (
            "instdisc",
            replace(base, objective=replace(SCENES, loss="softmax")),
        ),
        "NCE m=1": nce(1),
        "NCE m=10": nce(10),
        "NCE m=512": nce(512),
        "NCE m=4096": nce(4096),
    }


def train(name: str) -> dict[str, Any]:
    """One row: train, then score features and embedding on the test part."""
    method, config = rows()[name]
    source = open_source("scenes:fashion-mnist")
    trainer = Trainer(method, config, training_part(source, config))
    began = time.monotonic()
    for step in trainer:
        if step.number % 200 == 0:
            print(
                name,
                step.number,
                f"{step.loss:.3f}",
                f"{time.monotonic() - began:.0f} s",
                flush=True,
            )
    seconds = time.monotonic() - began
    scores = {}
    for output in ("features", "embedding"):
        near = embeddings.embed(trainer.encoder, source.split("train"), output=output)
        held = embeddings.embed(trainer.encoder, source.split("test"), output=output)
        scores[output] = knn(near, held, k=200) | linear_probe(near, held)
    return {
        "config": config.to_dict(),
        "steps": trainer.total,
        "seconds": round(seconds, 1),
        "loss": round(step.loss, 4),
        "chance": trainer.chance,
        "hardware": hardware(trainer.machine),
        "scores": scores,
    }


def main() -> None:
    """Train the named rows, or all."""
    for name in sys.argv[1:] or list(rows()):
        result = train(name)
        known = json.loads(FILE.read_text()) if FILE.exists() else {}
        FILE.write_text(json.dumps(known | {name: result}, indent=1) + "\n")
        print(name, result["scores"], flush=True)


if __name__ == "__main__":
    main()
