"""Accuracy by budget of labels on the scenes: SimCLR v2's table at our size (docs/results.md).

Takes the encoder of the recipe scenes_simclr (seed 0, 1 or 2: runs/scenes_simclr-SEED) and, for
each share of the labels, trains every way of `evaluation.label_budget` on class-balanced draws. The
test part is scored once.

    python studies/few_labels.py [SEED]        # writes studies/few_labels.json
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

from tellapart import open_source
from tellapart.evaluation.label_budget import Effort, label_budget
from tellapart.training.loading import open_subject, untrained

HERE = Path(__file__).resolve().parent
EFFORTS = {
    0.01: Effort(draws=3),
    0.1: Effort(draws=1),
    0.02: Effort(draws=1, distil=False),
    0.04: Effort(draws=1, distil=False),
    0.2: Effort(draws=1, distil=False),
}


def main() -> None:
    """Every budget, then the file after each."""
    seed = int(sys.argv[1]) if len(sys.argv) > 1 else 2
    subject = open_subject(HERE.parent / "runs" / f"scenes_simclr-{seed}")
    source = open_source("scenes:fashion-mnist")
    fresh = untrained(subject, print)["random init"]
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=HERE
    )
    rows: dict[str, dict[str, dict[str, float]]] = {}
    began = time.process_time()
    for share, effort in EFFORTS.items():
        assert subject.encoder is not None
        rows[f"{share:.0%}"] = label_budget(
            subject.encoder,
            fresh,
            source.split("train"),
            source.split("test"),
            share=share,
            effort=effort,
            say=lambda line: print(line, flush=True),
        )
        about = {"command": f"python studies/few_labels.py {seed}", "commit": commit.stdout.strip()}
        about |= {
            "encoder": f"scenes_simclr, seed {seed}",
            "minutes": round((time.process_time() - began) / 60, 1),
        }
        (HERE / "few_labels.json").write_text(json.dumps(about | {"rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
