"""Training with two processes on two cores against one: images a second of SimCLR, width 16, global
batch 256.

`torchrun --nproc-per-node R benchmarks/ranks.py THREADS` prints one figure; without arguments it
runs all.
"""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import replace

from common import HERE, median, write

from tellapart import open_source
from tellapart.runtime import distributed
from tellapart.training.presets import simclr_scenes
from tellapart.training.resolve import training_part
from tellapart.training.trainer import Trainer

STEPS, WARMUP = 40, 8
SETTINGS = {
    "one rank, 1 thread": (1, 1),
    "one rank, 2 threads": (1, 2),
    "two ranks, 1 thread each": (2, 1),
}


def measure(threads: int) -> None:
    """Print images/s of the steps after the warm-up."""
    config = replace(simclr_scenes(), batch_size=256, threads=threads, steps=STEPS)
    with distributed.joined():
        source = training_part(open_source("scenes:fashion-mnist"), config)
        trainer, began = Trainer("simclr", config, source), 0.0
        for step in trainer:
            if step.number == WARMUP:
                began = time.perf_counter()
        if distributed.is_main():
            print("rate", trainer.batch * (STEPS - WARMUP) / (time.perf_counter() - began))


def main() -> None:
    """Every setting three times, in turn."""
    if len(sys.argv) > 1:
        measure(int(sys.argv[1]))
        return
    found: dict[str, list[float]] = {name: [] for name in SETTINGS}
    for _ in range(3):
        for name, (ranks, threads) in SETTINGS.items():
            command = [
                sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(ranks),
                "--master-port", "29517", str(HERE / "ranks.py"), str(threads),
            ]  # fmt: skip
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            found[name].append(float(done.stdout.split("rate")[1].split()[0]))
    rows: dict[str, object] = {name: round(median(v)) for name, v in found.items()}
    one, two = median(found["one rank, 1 thread"]), median(found["two ranks, 1 thread each"])
    write(
        "ranks",
        {"unit": "images/s"} | rows | {"two ranks / one single-threaded rank": round(two / one, 2)},
    )


if __name__ == "__main__":
    main()
