"""Try settings on the validation part, never on the test part: any flag of `TrainConfig`, kNN every few epochs.

    python studies/tune.py --method simclr --data scenes:fashion-mnist --every 2 --epochs 4 --objective.temperature 0.2

Trains without 10,000 training items cut by hash (287 of the digits) and prints the weighted kNN of these among the rest
(every second item on the way, all at the end), on the features and on the embedding.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field, replace
from typing import Annotated

import numpy as np
import tyro

from tellapart import open_source
from tellapart.embeddings import embeddings
from tellapart.evaluation import knn
from tellapart.training import presets
from tellapart.training.config import TrainConfig
from tellapart.training.trainer import Trainer

VALIDATION = {"digits": 287}


def _given(flag: str, default: str) -> str:
    return sys.argv[sys.argv.index(flag) + 1] if flag in sys.argv else default


DATA, METHOD = _given("--data", "scenes:fashion-mnist"), _given("--method", "instdisc")


@dataclass(frozen=True)
class Tune:
    """What is tried."""

    method: str = METHOD
    """the objective."""
    data: str = DATA
    """the source."""
    every: int = 2
    """epochs between two points."""
    config: Annotated[TrainConfig, tyro.conf.arg(name="")] = field(
        default_factory=lambda: presets.named(presets.name_for(METHOD, DATA))
    )


def main(tune: Tune) -> None:
    """Train and print the curve."""
    held_out = VALIDATION.get(tune.data, 10_000)
    part, held = open_source(tune.data).split("train").hold_out(held_out)
    trainer = Trainer(tune.method, replace(tune.config, validation=held_out), part)
    for step in trainer:
        last = step.number == trainer.total
        if last or step.number % (tune.every * trainer.per_epoch) == 0:
            near = part if last else part.subset(np.arange(0, len(part), 2))
            for output in ("features", "embedding"):
                train = embeddings.embed(trainer.encoder, near, output=output)
                scores = knn(
                    train, embeddings.embed(trainer.encoder, held, output=output), k=(1, 20, 200)
                )
                print(
                    f"epoch {step.number / trainer.per_epoch:g} loss {step.loss:.3f} {output} {scores}",
                    flush=True,
                )


if __name__ == "__main__":
    main(tyro.cli(Tune, config=(tyro.conf.AvoidSubcommands,)))
