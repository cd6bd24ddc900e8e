"""Tune settings on the validation part, never on the test part.

Any field of `TrainConfig` is a flag; k-NN accuracy is printed every few epochs.

    python studies/tune.py --method simclr --data scenes:fashion-mnist --every 2 --epochs 4 \
        --objective.temperature 0.2

Holds out 10,000 training items, selected by hash (287 of the digits), and prints their weighted
k-NN accuracy among the rest (every second item during training, all at the end), on the features
and on the embedding.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from tellapart import cli, open_source
from tellapart.embeddings import embeddings
from tellapart.evaluation import knn
from tellapart.runtime import options
from tellapart.training.resolve import resolve
from tellapart.training.trainer import Trainer

VALIDATION = {"digits": 287}


def tune(method: str, *, data: str, every: int, settings: dict[str, Any]) -> None:
    """Train on the training part without its validation part, and print the k-NN accuracy.

    Args:
        method: the objective.
        data: as for tellapart train --data.
        every: epochs between two points of the curve.
        settings: of the training by name, over those of the preset.
    """
    held_out = VALIDATION.get(data, 10_000)
    part, held = open_source(data).split("train").hold_out(held_out)
    config = resolve(method, data, None, None, settings | {"validation": held_out})
    trainer = Trainer(method, config, part)
    for step in trainer:
        last = step.number == trainer.total
        if last or step.number % (every * trainer.per_epoch) == 0:
            near = part if last else part.subset(np.arange(0, len(part), 2))
            for output in ("features", "embedding"):
                train = embeddings.embed(trainer.encoder, near, output=output)
                test = embeddings.embed(trainer.encoder, held, output=output)
                scores = knn(train, test, k=(1, 20, 200))
                epoch = step.number / trainer.per_epoch
                print(f"epoch {epoch:g} loss {step.loss:.3f} {output} {scores}", flush=True)


def main() -> None:
    """Read the options: those of `tune`, and every setting of a training."""
    words = sys.argv[1:]
    parser = options.Parser("python studies/tune.py")
    parser.add_argument("--method", default="instdisc")
    parser.add_argument("--data", default="scenes:fashion-mnist")
    parser.add_argument("--every", type=int, default=2)
    ahead = parser.parse_known_args(words)[0]
    options.add(parser, cli.settings(ahead.method, ahead.data, None))
    given = cli.nested(parser.parse_all(words), ("objective",))
    method, data, every = (given.pop(name) for name in ("method", "data", "every"))
    tune(method, data=data, every=every, settings=given)


if __name__ == "__main__":
    main()
