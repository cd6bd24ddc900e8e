"""Base of all recipes: train a preset for a fixed number of steps, log its curve on the
validation part, score the test part once at the end, and write the numbers with their pedigree
beside the recipe.

The validation part is 10,000 training items cut by hash; training never sees them. The test part is
scored by the neighbours among all 60,000 training items.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tellapart import __version__, open_source
from tellapart.embeddings import embeddings
from tellapart.evaluation import knn
from tellapart.evaluation.linear import linear_labels
from tellapart.training import session
from tellapart.training.config import TrainConfig
from tellapart.training.hardware import hardware
from tellapart.training.resolve import training_part
from tellapart.training.run import Run
from tellapart.training.trainer import Trainer

HERE = Path(__file__).resolve().parent
VALIDATION = 10_000
KS = (1, 5, 20, 200)
COMMIT = subprocess.run(
    ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=HERE
).stdout.strip()
CURVE_ROWS = 3  # the curve is drawn with every third training item as a neighbour


@dataclass
class Recipe:
    """One claimed result: its name, method, data, configuration, and epochs between two points of
    the curve.

    `validation`: training items held out for the curve; 0 trains on all of them, as papers do, and
    draws no curve.
    """

    name: str
    method: str
    data: str
    config: TrainConfig
    every: int = 3
    validation: int = VALIDATION

    def main(self) -> None:
        """Train the seeds given on the command line (0 1 2 by default) and write NAME.json."""
        for seed in [int(a) for a in sys.argv[1:]] or [0, 1, 2]:
            self.save(self.train(seed))

    def train(self, seed: int) -> dict[str, Any]:
        """One seed, from nothing to its scores; on a CPU `seconds` are of the processor, so pauses
        do not count.
        """
        config = replace(self.config, seed=seed, validation=self.validation)
        source = open_source(self.data, image_size=config.image_size)
        part = training_part(source, config)
        held = source.split("train").hold_out(self.validation)[1] if self.validation else None
        trainer = Trainer(self.method, config, part)
        run = Run.create(
            HERE.parent / "runs" / f"{self.name}-{seed}",
            session.manifest(self.method, config, source, part),
        )
        near = part.subset(np.arange(0, len(part), CURVE_ROWS))
        clock = time.process_time if trainer.machine.device == "cpu" else time.monotonic
        curve, spent, began = [], 0.0, clock()
        for step in trainer:
            if step.number % config.log_every == 0:
                run.append(trainer.measure(step))
            if step.number % (self.every * trainer.per_epoch) == 0 or step.number == trainer.total:
                spent += clock() - began
                scores = self.score(trainer, near, held, (200,)) if held else {}
                point = {o: scores[o]["knn@200"] for o in scores}
                curve.append(
                    {"epoch": round(step.number / trainer.per_epoch, 2), "seconds": round(spent, 1)}
                    | point
                )
                print(self.name, seed, curve[-1], f"loss {step.loss:.3f}", flush=True)
                began = clock()
        run.save(trainer.state(), trainer.encoder, session.description(trainer))
        run.update(
            status="finished",
            step=trainer.number,
            seconds=round(spent, 1),
            hardware=hardware(trainer.machine),
        )
        test = self.score(trainer, source.split("train"), source.split("test"), KS, linear=True)
        return {
            "seed": seed,
            "steps": trainer.total,
            "seconds": round(spent, 1),
            "items_per_second": round(trainer.total * trainer.batch / spent, 1),
            "hardware": hardware(trainer.machine),
            "commit": COMMIT,
            "versions": {"tellapart": __version__, "torch": torch.__version__},
            "curve_on_validation": curve,
            "test": test,
        }

    def score(
        self, trainer: Trainer, near: Any, held: Any, ks: tuple[int, ...], linear: bool = False
    ) -> dict[str, Any]:
        """kNN (and logistic regression) of `held` among `near`, on the features and on the
        embedding.
        """
        found: dict[str, Any] = {}
        for output in ("features", "embedding"):
            train = embeddings.embed(trainer.encoder, near, output=output)
            test = embeddings.embed(trainer.encoder, held, output=output)
            found[output] = knn(train, test, k=ks)
            if linear:
                found[output]["logistic"] = float(
                    (linear_labels(train, test.vectors)[0] == test.labels).mean()
                )
        return found

    def save(self, result: dict[str, Any]) -> None:
        """Add a seed to NAME.json, with mean and standard deviation over the seeds there of the
        same settings.
        """
        file = HERE / f"{self.name}.json"
        before = json.loads(file.read_text()) if file.exists() else {}
        same = before.get("config") == json.loads(json.dumps(self.config.to_dict()))
        known = before["seeds"] if same else []
        seeds = sorted(
            [s for s in known if s["seed"] != result["seed"]] + [result], key=lambda s: s["seed"]
        )
        summary = {
            output: {
                k: mean_std([s["test"][output][k] for s in seeds]) for k in result["test"][output]
            }
            for output in ("features", "embedding")
        }
        command = f"python recipes/{self.name}.py {' '.join(str(s['seed']) for s in seeds)}"
        made = {
            "command": command,
            "config": self.config.to_dict(),
            "summary": summary,
            "seeds": seeds,
        }
        file.write_text(json.dumps(made, indent=1) + "\n")


def mean_std(values: list[float]) -> dict[str, float]:
    """Mean and standard deviation over seeds, and how many."""
    std = statistics.stdev(values) if len(values) > 1 else 0.0
    return {"mean": round(statistics.mean(values), 4), "std": round(std, 4), "n": len(values)}
