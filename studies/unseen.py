"""The unseen-class protocol of Ye et al. 2019: learn on some classes without labels, retrieve among others.

Trains `spread` (both forms of its loss) and `instdisc` on the scenes of classes 0 to 4 and scores the test scenes of
classes 5 to 9, each a query among the others: recall at 1, 2, 4, 8 (a neighbour of the same class among the first k)
and NMI of k-means with five clusters. Labels choose the classes and score, nothing else.

    python studies/unseen.py        # writes studies/unseen.json; one seed, 3 epochs a row
"""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.cluster import KMeans
from sklearn.metrics import normalized_mutual_info_score

from tellapart import embeddings, open_source, presets
from tellapart.data import ImageSource
from tellapart.evaluation import baselines
from tellapart.nearest import top_k
from tellapart.objectives import SpreadOptions
from tellapart.training.trainer import Trainer, build_encoder

HERE = Path(__file__).resolve().parent
KS = (1, 2, 4, 8)


def main() -> None:
    """Every row, then the file."""
    source = open_source("scenes:fashion-mnist")
    seen, unseen = of_classes(source.split("train"), range(5)), of_classes(source.split("test"), range(5, 10))
    config = replace(presets.spread_scenes(), epochs=3, threads=1)
    rows = {
        "centred pixels": score(baselines.pixels(seen, unseen)[1]),
        "untrained encoder": score(embeddings.embed(build_encoder(config, seen).eval(), unseen)),
    }
    released = SpreadOptions(temperature=0.1, loss="released")
    for name, method, settings in (
        ("spread", "spread", config),
        ("spread, released", "spread", replace(config, objective=released)),
        ("instdisc", "instdisc", replace(presets.instdisc_scenes(), epochs=3, threads=1)),
    ):
        trainer = Trainer(method, settings, seen)
        for _ in trainer:
            pass
        rows[name] = score(embeddings.embed(trainer.encoder, unseen, output="embedding"))
        print(name, rows[name], flush=True)
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=HERE)
    about = {"command": "python studies/unseen.py", "commit": commit.stdout.strip(), "seeds": 1, "epochs": 3}
    (HERE / "unseen.json").write_text(json.dumps(about | {"rows": rows}, indent=1) + "\n")


def of_classes(part: ImageSource, classes: range) -> ImageSource:
    """The items of some classes."""
    return part.subset(np.flatnonzero(np.isin(part.labels, list(classes))))


def score(found: embeddings.Embeddings) -> dict[str, Any]:
    """Recall at k over all items as queries, and NMI."""
    z = torch.nn.functional.normalize(torch.from_numpy(np.array(found.vectors)), dim=1)
    labels = found.known_labels
    near = top_k(z, z, max(KS) + 1)[1].numpy()
    other = near != np.arange(len(z))[:, None]
    other[other.all(1), -1] = False
    same = labels[near[other].reshape(len(z), max(KS))] == labels[:, None]
    clusters = KMeans(5, n_init=3, random_state=0).fit_predict(z.numpy())
    recall = {f"R@{k}": round(float(same[:, :k].any(1).mean()), 4) for k in KS}
    return recall | {"NMI": round(float(normalized_mutual_info_score(labels, clusters)), 4)}


if __name__ == "__main__":
    main()
