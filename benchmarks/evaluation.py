"""The default eval-v1 on scenes:fashion-mnist (60,000 + 10,000 images, small-resnet); embedding
against a plain loop.

The plain loop: float32, the layout that torch has by default, batches of 256, `no_grad`, the same
images in memory. Each in a process of its own, in turn, for ours keeps freed memory for the whole
process.

    python benchmarks/evaluation.py RUN                 # a run on scenes:fashion-mnist
    python benchmarks/evaluation.py RUN ours|plain      # images a second of one
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from common import HERE, alternate, median, write

from tellapart import api
from tellapart.data import open_source
from tellapart.encoders import Encoder, outputs
from tellapart.runtime.console import Console

IMAGES, BATCH, ROUNDS = 20_000, 256, 3


def main() -> None:
    """The embedding in processes of their own, then the whole evaluation once."""
    run = sys.argv[1]
    if len(sys.argv) > 2:
        print(rate(run, sys.argv[2]))
        return
    rates: dict[str, list[float]] = {"ours": [], "plain": []}
    for _ in range(ROUNDS):
        for who, found in rates.items():
            command = [sys.executable, str(HERE / "evaluation.py"), run, who]
            found.append(
                float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
            )
    ours, theirs = median(rates["ours"]), median(rates["plain"])
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        api.evaluate(run, out=Path(folder) / "eval.json", console=Console())
    write("evaluation", {
        "default eval-v1, s": round(time.perf_counter() - began, 1),
        "embedding, images/s": round(ours), "plain loop, images/s": round(theirs),
        "ratio (ours / plain)": round(ours / theirs, 2), "threads": torch.get_num_threads(),
    })  # fmt: skip


def rate(run: str, who: str) -> float:
    """Images a second, the median of five."""
    source = open_source("scenes:fashion-mnist").subset(np.arange(IMAGES))
    encoder = api.load(run).encoder
    if who == "ours":
        return IMAGES / median(
            alternate({who: lambda: outputs(encoder, source)}, runs=5, warmup=1)[who]
        )
    plain, images = (
        encoder.to(memory_format=torch.contiguous_format),
        source.read(torch.arange(IMAGES)).contiguous(),
    )
    return IMAGES / median(alternate({who: lambda: by_hand(plain, images)}, runs=5, warmup=1)[who])


@torch.no_grad()
def by_hand(encoder: Encoder, images: torch.Tensor) -> torch.Tensor:
    """Features as a user would write it."""
    return torch.cat(
        [
            encoder.backbone((part.float() / 255 - encoder.mean) / encoder.std)
            for part in images.split(BATCH)
        ]
    )


if __name__ == "__main__":
    main()
