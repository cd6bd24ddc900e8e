"""Seconds of training until kNN (k = 200) on the validation part of scenes:fashion-mnist passes 65 %.

SimCLR of tellapart against SimCLR written with lightly's transform, loss and a DataLoader at the setting that
`simclr_step.py` found best (2 workers, 1 thread): the same network from the same weights, operations, batch, rate and
schedule. (The Trainer runs the network in bfloat16 where the processor has it; what that would give the peer is in
`simclr_step.py`.) Two more lines of ours: `spread`, the first without labels, and `supcon`, which has them. Scoring
(every half epoch, on a third of the training scenes as neighbours) is outside the clock. Each contender runs in a
process of its own, one after the other.

    python benchmarks/time_to_accuracy.py          # all of them; about ten minutes of a quiet machine
    python benchmarks/time_to_accuracy.py WHO      # one of peer, simclr, spread, supcon; printed as it goes
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
from common import HERE, warn_if_busy, write
from PIL import Image

from tellapart import embeddings, encoders, open_source, presets
from tellapart.data import ImageSource
from tellapart.evaluation import knn

WANTED, EPOCHS, VALIDATION = 0.65, 15, 10_000
OURS = ("simclr", "spread", "supcon")


def ours(method: str, part: ImageSource) -> Iterator[encoders.Encoder]:
    """The encoder after every half epoch of the Trainer."""
    from tellapart.training.trainer import Trainer

    trainer = Trainer(method, replace(presets.named(f"{method}_scenes"), epochs=EPOCHS), part)
    for step in trainer:
        if step.number % (trainer.per_epoch // 2) == 0:
            yield trainer.encoder


def peer(part: ImageSource) -> Iterator[encoders.Encoder]:
    """The encoder after every half epoch of a loop as lightly's examples write it."""
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
            loss(network(first), network(second)).backward()
            optimizer.step()
            number += 1
            if number % (len(loader) // 2) == 0:
                yield network


def race(who: str) -> dict[str, float | None]:
    """Seconds and half epochs until the accuracy is passed, None where it never was; the better of the two outputs."""
    part, held = open_source("scenes:fashion-mnist").split("train").hold_out(VALIDATION)
    near = part.subset(np.arange(0, len(part), 3))
    spent, began = 0.0, time.perf_counter()
    for half, encoder in enumerate(peer(part) if who == "peer" else ours(who, part), 1):
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
    for who in ("peer", *OURS):
        command = [sys.executable, str(HERE / "time_to_accuracy.py"), who]
        rows[who] = json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)
    theirs = rows["peer"]["seconds"]
    for who in OURS:
        here = rows[who]["seconds"]
        rows[f"{who}, times sooner"] = round(theirs / here, 2) if theirs and here else None
    write("time_to_accuracy", rows)


if __name__ == "__main__":
    main()
