"""Baselines of the recipes: raw pixels (centred or not) and untrained encoders, kNN on the
test part.

python studies/baselines.py      writes studies/baselines.json
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import torch

from tellapart import Embeddings, open_source
from tellapart.embeddings import embeddings
from tellapart.evaluation import knn
from tellapart.evaluation.baselines import CentredPixels
from tellapart.training.presets import instdisc_fashion_mnist, instdisc_scenes
from tellapart.training.trainer import build_encoder

KS = (1, 5, 20, 200)


def main() -> None:
    """Three seeds of the untrained encoder; pixels have none."""
    found = {}
    for data, preset in (
        ("scenes:fashion-mnist", instdisc_scenes()),
        ("fashion-mnist", instdisc_fashion_mnist()),
    ):
        source = open_source(data)
        train, test = source.split("train"), source.split("test")
        pixels = CentredPixels(train)
        near, held = pixels.embed(train), pixels.embed(test)
        rows = {"centred pixels": knn(near, held, k=KS)}
        mean = train.read(torch.arange(len(train))).float().flatten(1).mean(0).numpy() / 255
        if (
            source.channels == 1
        ):  # channels first and last coincide, so the mean picture can be put back
            near, held = (Embeddings(e.vectors + mean, e.ids, e.labels) for e in (near, held))
            rows["raw pixels"] = knn(near, held, k=KS)
        for seed in (0, 1, 2):
            encoder = build_encoder(replace(preset, seed=seed), train).eval()
            scores = knn(embeddings.embed(encoder, train), embeddings.embed(encoder, test), k=KS)
            rows[f"untrained encoder, seed {seed}"] = scores
        found[data] = rows
        print(data, rows, flush=True)
        Path(__file__).with_suffix(".json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
