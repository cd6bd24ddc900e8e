"""Seconds of training until kNN (k = 200) on the validation part of scenes:fashion-mnist passes 65
%.

SimCLR of tellapart against SimCLR written with lightly's transform, loss and a DataLoader at the
setting that `simclr_step.py` found best (2 workers, 1 thread): the same network from the same
weights, operations, batch, optimiser and rates. (The Trainer runs the network in bfloat16 where the
processor has it; what that would give the peer is in `simclr_step.py`.) Two more lines of ours:
`spread`, the first without labels, and `supcon`, which has them. As part of the lead of `spread` is
its optimiser and its short schedule, both SimCLRs run with these as well ("quick"). Scoring (every
half epoch, on a third of the training scenes as neighbours) is outside the clock. Each contender
runs in a process of its own, one after the other.

    python benchmarks/time_to_accuracy.py          # all of them; about ten minutes of a quiet
    machine
    python benchmarks/time_to_accuracy.py WHO      # one contender; printed as it goes
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from common import HERE, warn_if_busy, write

from tellapart import open_source
from tellapart.data import ImageSource
from tellapart.embeddings import embeddings
from tellapart.encoders import AnyEncoder
from tellapart.evaluation import knn
from tellapart.training import presets
from tellapart.training.config import TrainConfig
from tellapart.training.trainer import Trainer

WANTED, VALIDATION = 0.65, 10_000
SIMCLR = replace(presets.simclr_scenes(), epochs=15)
QUICK = replace(SIMCLR, epochs=2, **presets.QUICK)
CONTENDERS: dict[str, tuple[str, TrainConfig]] = {
    "peer": ("peer", SIMCLR),
    "simclr": ("simclr", SIMCLR),
    "peer, quick": ("peer", QUICK),
    "simclr, quick": ("simclr", QUICK),
    "spread": ("spread", replace(presets.spread_scenes(), epochs=1)),
    "supcon": ("supcon", replace(presets.supcon_scenes(), epochs=15)),
}


def half_epochs(who: str, part: ImageSource) -> Iterator[AnyEncoder]:
    """The encoder after every half epoch of a contender."""
    method, config = CONTENDERS[who]
    half = len(part) // config.batch_size // 2
    if method == "peer":
        import lightly_simclr

        encoders = lightly_simclr.train(part, config, workers=2, threads=1)
    else:
        trainer = Trainer(method, config, part)
        encoders = (trainer.encoder for _ in trainer)
    for number, encoder in enumerate(encoders, 1):
        if number % half == 0:
            yield encoder


def race(who: str) -> dict[str, float | None]:
    """Seconds and half epochs until the accuracy is passed, None where it never was; the better of
    the two outputs.
    """
    part, held = open_source("scenes:fashion-mnist").split("train").hold_out(VALIDATION)
    near = part.subset(np.arange(0, len(part), 3))
    spent, began = 0.0, time.perf_counter()
    for half, encoder in enumerate(half_epochs(who, part), 1):
        spent += time.perf_counter() - began
        threads = torch.get_num_threads()
        torch.set_num_threads(2)
        score = 0.0
        for output in ("features", "embedding"):
            a, b = (embeddings.embed(encoder, p, output=output) for p in (near, held))
            score = max(score, knn(a, b, k=200)["knn@200"])
        torch.set_num_threads(threads)
        encoder.train()
        print(who, half / 2, round(spent, 1), round(score, 4), file=sys.stderr, flush=True)
        if score > WANTED:
            return {"seconds": round(spent, 1), "epochs": half / 2}
        began = time.perf_counter()
    return {"seconds": None, "epochs": None}


def main() -> None:
    """One contender, or all and how much sooner ours are there."""
    if len(sys.argv) > 1:
        print(json.dumps(race(sys.argv[1])))
        return
    warn_if_busy()
    rows: dict[str, Any] = {"wanted": WANTED}
    for who in CONTENDERS:
        command = [sys.executable, str(HERE / "time_to_accuracy.py"), who]
        rows[who] = json.loads(
            subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
        )
    theirs = rows["peer"]["seconds"]
    for who in CONTENDERS:
        if who != "peer" and theirs and rows[who]["seconds"]:
            rows[f"{who}, times sooner"] = round(theirs / rows[who]["seconds"], 2)
    write("time_to_accuracy", rows)


if __name__ == "__main__":
    main()
