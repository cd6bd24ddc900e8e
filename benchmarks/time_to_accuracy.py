"""Seconds of training until kNN (k = 200) on the validation part of scenes:fashion-mnist passes 65 %.

SimCLR of tellapart against SimCLR written with lightly's transform, loss and a DataLoader at the setting that
`simclr_step.py` found best (2 workers, 1 thread): the same network from the same weights, operations, batch, rate and
schedule; once more with autocast to bfloat16 added by hand, which the Trainer does by itself. A last line: ours with
the method and settings that get there first. Scoring (every epoch, on a third of the training scenes as neighbours) is
outside the clock. Each contender runs in a process of its own, one after the other.

    python benchmarks/time_to_accuracy.py          # all of them; about twelve minutes of a quiet machine
    python benchmarks/time_to_accuracy.py WHO      # one of ours, peer, peer-bfloat16, best; printed as it goes
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from common import HERE, write
from PIL import Image

from tellapart import embeddings, encoders, open_source, presets
from tellapart.data import ImageSource
from tellapart.evaluation import knn
from tellapart.training.config import TrainConfig

WANTED, EPOCHS, VALIDATION = 0.65, 15, 10_000
BEST = "spread", replace(presets.spread_scenes(), epochs=2)
CONTENDERS = ("ours", "peer", "peer-bfloat16", "best")


def ours(method: str, config: TrainConfig, part: ImageSource) -> Iterator[encoders.Encoder]:
    """The encoder after every epoch of the Trainer."""
    from tellapart.training.trainer import Trainer

    trainer = Trainer(method, config, part)
    for step in trainer:
        if step.number % trainer.per_epoch == 0:
            yield trainer.encoder


def peer(half: bool, part: ImageSource) -> Iterator[encoders.Encoder]:
    """The encoder after every epoch of a loop as lightly's examples write it."""
    from lightly.loss import NTXentLoss
    from lightly.transforms import SimCLRTransform
    from torch.utils.data import DataLoader, Dataset

    from tellapart.training.trainer import build_encoder

    torch.set_num_threads(1)
    config = replace(presets.simclr_scenes(), epochs=EPOCHS)
    transform = SimCLRTransform(
        input_size=32, cj_prob=1.0, cj_strength=1.0, cj_bright=0.4, cj_contrast=0.4, cj_sat=0.4, cj_hue=0.4,
        min_scale=0.2, random_gray_scale=0.2, gaussian_blur=0.0, hf_prob=0.5, normalize=None,
    )  # fmt: skip
    pictures = [Image.fromarray(part.image(i)) for i in range(len(part))]

    class Images(Dataset):
        def __len__(self) -> int:
            return len(pictures)

        def __getitem__(self, i: int) -> list[torch.Tensor]:
            found: list[torch.Tensor] = transform(pictures[i])
            return found

    loader = DataLoader(
        Images(), config.batch_size, shuffle=True, num_workers=2, drop_last=True, persistent_workers=True
    )
    network = build_encoder(config, part).train()
    optimizer = torch.optim.SGD(network.parameters(), lr=config.lr, momentum=0.9, weight_decay=config.weight_decay)
    loss, total, number = NTXentLoss(temperature=0.2), EPOCHS * len(loader), 0
    for _ in range(EPOCHS):
        for first, second in loader:
            for group in optimizer.param_groups:
                group["lr"] = config.lr * 0.5 * (1 + math.cos(math.pi * number / total))
            optimizer.zero_grad(set_to_none=True)
            with torch.autocast("cpu", torch.bfloat16, enabled=half):
                views = network(first), network(second)
            loss(*views).backward()
            optimizer.step()
            number += 1
        yield network


def race(who: str) -> dict[str, float | None]:
    """Seconds and epochs until the accuracy is passed, None where it never was; the better of the two outputs."""
    part, held = open_source("scenes:fashion-mnist").split("train").hold_out(VALIDATION)
    near = part.subset(np.arange(0, len(part), 3))
    encoder_after = {
        "ours": lambda: ours("simclr", replace(presets.simclr_scenes(), epochs=EPOCHS), part),
        "best": lambda: ours(*BEST, part),
        "peer": lambda: peer(False, part),
        "peer-bfloat16": lambda: peer(True, part),
    }
    spent, began = 0.0, time.perf_counter()
    for epoch, encoder in enumerate(encoder_after[who](), 1):
        spent += time.perf_counter() - began
        threads = torch.get_num_threads()
        torch.set_num_threads(2)
        score = 0.0
        for output in ("features", "embedding"):
            a, b = (embeddings.embed(encoder, p, output=output) for p in (near, held))
            score = max(score, knn(a, b, k=200)["knn@200"])
        torch.set_num_threads(threads)
        encoder.train()
        print(who, epoch, round(spent, 1), round(score, 4), file=sys.stderr, flush=True)
        if score > WANTED:
            return {"seconds": round(spent, 1), "epochs": epoch}
        began = time.perf_counter()
    return {"seconds": None, "epochs": None}


def main() -> None:
    """One contender, or all and how much later the peers are there."""
    if len(sys.argv) > 1:
        print(json.dumps(race(sys.argv[1])))
        return
    rows: dict[str, Any] = {"wanted": WANTED, "best is": f"{BEST[0]}, {BEST[1].epochs} epochs, rate {BEST[1].lr}"}
    for who in CONTENDERS:
        command = [sys.executable, str(HERE / "time_to_accuracy.py"), who]
        rows[who] = json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)
    for who in ("ours", "best"):
        for other in ("peer", "peer-bfloat16"):
            there, here = rows[other]["seconds"], rows[who]["seconds"]
            rows[f"{who}, times sooner than {other}"] = round(there / here, 2) if there and here else None
    write("time_to_accuracy", rows)


if __name__ == "__main__":
    main()
