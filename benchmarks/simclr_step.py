"""A whole training step of SimCLR on scenes:fashion-mnist, small-resnet of width 16, batch 256:
images a second.

Ours is the Trainer. The peer is the same network (channels_last) with lightly's transform, loss and
a DataLoader, at every setting of workers and threads; its best counts. Same crops, flips, colour
change and greys, no blur. The Trainer runs the network in bfloat16 where the processor has it; what
the peer gains when autocast is added to it by hand is the "peer-bfloat16". Each setting runs in a
process of its own: `python benchmarks/simclr_step.py WHO WORKERS THREADS` prints one figure.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from common import HERE, median, warn_if_busy, write

from tellapart import open_source
from tellapart.data import ImageSource
from tellapart.training.presets import simclr_scenes
from tellapart.training.trainer import Trainer

BATCH, STEPS, WARMUP = 256, 16, 4
SETTINGS = [(who, w, t) for who in ("peer", "peer-bfloat16") for w in (0, 1, 2) for t in (1, 2)]
SETTINGS += [("ours", 0, 1), ("ours", 0, 2)]


def images() -> ImageSource:
    """As many scenes as the steps need."""
    return open_source("scenes:fashion-mnist").split("train").subset(np.arange(BATCH * STEPS))


def seconds_of_steps(who: str, workers: int, threads: int) -> list[float]:
    """Seconds of the steps of the Trainer, or of the peer."""
    config = replace(simclr_scenes(), batch_size=BATCH, threads=threads, steps=STEPS)
    contender: Iterator[object]
    if who == "ours":
        contender = iter(Trainer("simclr", config, images()))
    else:
        import lightly_simclr

        half = who == "peer-bfloat16"
        contender = lightly_simclr.train(
            images(), config, workers=workers, threads=threads, half=half
        )
    seconds, began = [], time.perf_counter()
    for _ in contender:
        seconds.append(time.perf_counter() - began)
        began = time.perf_counter()
    return seconds


def main() -> None:
    """Every setting twice, or one."""
    if len(sys.argv) > 1:
        who, workers, threads = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
        seconds = seconds_of_steps(who, workers, threads)
        print(BATCH * (STEPS - WARMUP) / sum(seconds[WARMUP:]))
        return
    warn_if_busy()
    found: dict[tuple[str, int, int], list[float]] = {s: [] for s in SETTINGS}
    for _ in range(2):
        for setting in SETTINGS:
            command = [sys.executable, str(HERE / "simclr_step.py"), *map(str, setting)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            found[setting].append(float(done.stdout.split()[-1]))
    rows = {
        f"{who}, {w} workers, {t} threads": round(median(v)) for (who, w, t), v in found.items()
    }
    best = {
        who: max(median(v) for (name, *_), v in found.items() if name == who)
        for who in ("ours", "peer", "peer-bfloat16")
    }
    ratios = {
        "times faster": best["ours"] / best["peer"],
        "with autocast there": best["ours"] / best["peer-bfloat16"],
    }
    write(
        "simclr_step",
        {"unit": "images/s"} | rows | {name: round(ratio, 2) for name, ratio in ratios.items()},
    )


if __name__ == "__main__":
    main()
