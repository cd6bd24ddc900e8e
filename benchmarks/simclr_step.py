"""A whole training step of SimCLR on scenes:fashion-mnist, small-resnet of width 16, batch 256: images a second.

Ours is the Trainer. The peer is the same network (channels_last) with lightly's transform, loss and a DataLoader, at
every setting of workers and threads; its best counts. Same crops, flips, colour change and greys, no blur. The Trainer
runs the network in bfloat16 where the processor has it; what the peer gains when autocast is added to it by hand is the
"peer-bfloat16".
Each setting runs in a process of its own: `python benchmarks/simclr_step.py WHO WORKERS THREADS` prints one figure.
"""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import torch
from common import HERE, median, warn_if_busy, write
from PIL import Image

from tellapart import encoders, open_source
from tellapart.data import ImageSource
from tellapart.presets import simclr_scenes

BATCH, STEPS, WARMUP = 256, 16, 4
SETTINGS = [(who, w, t) for who in ("peer", "peer-bfloat16") for w in (0, 1, 2) for t in (1, 2)]
SETTINGS += [("ours", 0, 1), ("ours", 0, 2)]


def images() -> ImageSource:
    """As many scenes as the steps need."""
    return open_source("scenes:fashion-mnist").split("train").subset(np.arange(BATCH * STEPS))


def ours(threads: int) -> list[float]:
    """Seconds of the steps of the Trainer."""
    from tellapart.training.trainer import Trainer

    trainer = Trainer("simclr", replace(simclr_scenes(), batch_size=BATCH, threads=threads, steps=STEPS), images())
    seconds, began = [], time.perf_counter()
    for _ in trainer:
        seconds.append(time.perf_counter() - began)
        began = time.perf_counter()
    return seconds


def peer(workers: int, threads: int, half: bool) -> list[float]:
    """Seconds of the steps of a loop as lightly's examples write it."""
    from lightly.loss import NTXentLoss
    from lightly.transforms import SimCLRTransform
    from torch.utils.data import DataLoader, Dataset

    torch.set_num_threads(threads)
    transform = SimCLRTransform(
        input_size=32, cj_prob=1.0, cj_strength=1.0, cj_bright=0.4, cj_contrast=0.4, cj_sat=0.4, cj_hue=0.4,
        min_scale=0.2, random_gray_scale=0.2, gaussian_blur=0.0, hf_prob=0.5, normalize=None,
    )  # fmt: skip
    source = images()
    pictures = [Image.fromarray(source.image(i)) for i in range(len(source))]

    class Images(Dataset):
        def __len__(self) -> int:
            return len(pictures)

        def __getitem__(self, i: int) -> list[torch.Tensor]:
            found: list[torch.Tensor] = transform(pictures[i])
            return found

    loader = DataLoader(Images(), BATCH, shuffle=True, num_workers=workers, drop_last=True)
    network = encoders.build("small-resnet", channels=3, size=32, head_kind="mlp-bn").train()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    loss = NTXentLoss(temperature=0.2)
    seconds, began = [], time.perf_counter()
    for first, second in loader:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            views = network(first), network(second)
        loss(*views).backward()
        optimizer.step()
        seconds.append(time.perf_counter() - began)
        began = time.perf_counter()
    return seconds


def main() -> None:
    """Every setting twice, or one."""
    if len(sys.argv) > 1:
        who, workers, threads = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
        seconds = ours(threads) if who == "ours" else peer(workers, threads, who == "peer-bfloat16")
        print(BATCH * (STEPS - WARMUP) / sum(seconds[WARMUP:]))
        return
    warn_if_busy()
    found: dict[tuple[str, int, int], list[float]] = {s: [] for s in SETTINGS}
    for _ in range(2):
        for setting in SETTINGS:
            command = [sys.executable, str(HERE / "simclr_step.py"), *map(str, setting)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            found[setting].append(float(done.stdout.split()[-1]))
    rows = {f"{who}, {w} workers, {t} threads": round(median(v)) for (who, w, t), v in found.items()}
    best = {
        who: max(median(v) for (name, *_), v in found.items() if name == who)
        for who in ("ours", "peer", "peer-bfloat16")
    }
    ratios = {"times faster": best["ours"] / best["peer"], "with autocast there": best["ours"] / best["peer-bfloat16"]}
    write("simclr_step", {"unit": "images/s"} | rows | {name: round(ratio, 2) for name, ratio in ratios.items()})


if __name__ == "__main__":
    main()
