"""How far measures without labels rank encoders as kNN accuracy does: runs that differ, and their
checkpoints.

Eight trainings on the scenes, good and bad on purpose (a shortcut left open, a temperature too
high, a rate too high), each looked at eight times: every label-free measure as the training's watch
takes it, and kNN (k = 20) of 1,000 held-out items among 5,000. Reported: Spearman's rank
correlation of each measure with kNN over all checkpoints, over the runs' last ones, and within runs
(mean); and the accuracy lost by taking the checkpoint that a measure ranks best, per run.

    python studies/unlabelled.py        # writes studies/unlabelled.json; one seed, 600 steps a run
"""

from __future__ import annotations

import json
import subprocess
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from tellapart import open_source
from tellapart.evaluation.monitor import Watch
from tellapart.objectives import SimCLROptions
from tellapart.training import presets
from tellapart.training.trainer import Trainer

HERE = Path(__file__).resolve().parent
STEPS, LOOKS, BATCH = 600, 8, 128
SHARED = {
    "steps": STEPS,
    "batch_size": BATCH,
    "threads": 1,
    "validation": 10_000,
    "eval_every": STEPS // LOOKS,
}
RUNS: dict[str, tuple[str, Any]] = {
    "simclr": ("simclr", presets.simclr_scenes()),
    "spread": ("spread", presets.spread_folder()),
    "instdisc": ("instdisc", presets.instdisc_scenes()),
    "moco": ("moco", presets.moco_scenes()),
    "simclr, temperature 1": (
        "simclr",
        replace(presets.simclr_scenes(), objective=SimCLROptions(temperature=1.0)),
    ),
    "simclr, colours kept": ("simclr", replace(presets.simclr_scenes(), jitter=0.0, grayscale=0.0)),
    "simclr, crops of 0.8 and more": ("simclr", replace(presets.simclr_scenes(), area=(0.8, 1.0))),
    "simclr, rate 2": ("simclr", replace(presets.simclr_scenes(), lr=2.0)),
}
SMALLER_IS_BETTER = {
    "features_alignment",
    "features_uniformity",
    "features_alpha_ReQ",
    "features_hubness",
}


def main() -> None:
    """Every run, then the file."""
    source, points, began = open_source("scenes:fashion-mnist"), [], time.process_time()
    for name, (method, preset) in RUNS.items():
        config = replace(preset, **SHARED)
        watch = Watch(
            config, source, batch=10_000, views_per_item=2
        )  # looks as large as the study wants them
        watch.queries, watch.bank = (
            watch.queries.subset(np.arange(1000)),
            watch.bank.subset(np.arange(5000)),
        )
        trainer = Trainer(method, config, watch.part)
        for step in trainer:
            if step.number % (STEPS // LOOKS) == 0:
                row = watch.checkpoint(trainer.encoder).row | watch.look(trainer.encoder)
                points.append({"run": name, "step": step.number} | row)
        print(name, points[-1], flush=True)
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=HERE
    )
    about = {
        "command": "python studies/unlabelled.py",
        "commit": commit.stdout.strip(),
        "seeds": 1,
        "steps": STEPS,
    }
    about |= {"minutes": round((time.process_time() - began) / 60, 1)}
    found = {"measures": correlations(points), "points": points}
    (HERE / "unlabelled.json").write_text(json.dumps(about | found, indent=1) + "\n")


def correlations(points: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """For each measure, signed so that more is better: its rank correlations with kNN, and what its
    choice loses.
    """
    out = {}
    for measure in sorted(k for k in points[0] if k.startswith("features_")):
        sign = -1.0 if measure in SMALLER_IS_BETTER else 1.0
        by_run = [[p for p in points if p["run"] == run] for run in RUNS]
        last = [run[-1] for run in by_run]
        within = [_rank(run, measure, sign) for run in by_run]
        lost = []
        for run in by_run:
            chosen = max(run, key=lambda p: sign * p[measure])
            lost.append(max(p["held_out_knn"] for p in run) - chosen["held_out_knn"])
        picked = max(last, key=lambda p: sign * p[measure])
        out[measure] = {
            "all checkpoints": _rank(points, measure, sign),
            "last checkpoints": _rank(last, measure, sign),
            "within runs, mean": round(float(np.mean(within)), 3),
            "lost by its choice within a run, mean": round(float(np.mean(lost)), 4),
            "lost by its choice among runs": round(
                max(p["held_out_knn"] for p in last) - picked["held_out_knn"], 4
            ),
        }
    return out


def _rank(points: list[dict[str, Any]], measure: str, sign: float) -> float:
    return round(
        float(
            spearmanr(
                [sign * p[measure] for p in points], [p["held_out_knn"] for p in points]
            ).statistic
        ),
        3,
    )


if __name__ == "__main__":
    main()
