"""CPC's two ablations on spoken sentences: how many steps ahead are predicted, and where the
negatives come from.

    python scripts/prepare_speech.py phones FOLDER 2400
    python studies/cpc.py FOLDER [STEPS]      writes studies/cpc.json

Each row trains from nothing for 600 steps of 16 windows of 1.28 s at 8,000 Hz (a frame every 10
ms), one seed. Scored by the linear classifier of single frames (`evaluation.frames`) on sentences
never heard, and by the speaker named from the mean of c_t; beside log-mel and the untrained
network. van den Oord 2018, table 2.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from tellapart import open_source
from tellapart.embeddings import embed
from tellapart.evaluation import frame_probe, linear_probe
from tellapart.evaluation.baselines import LogMel
from tellapart.objectives import CPCOptions
from tellapart.training import presets
from tellapart.training.trainer import Trainer, build_encoder

ROWS: dict[str, CPCOptions] = {f"{k} steps": CPCOptions(steps=k) for k in (2, 4, 8, 12)}
ROWS |= {
    "12 steps, not the own sequence": CPCOptions(draw="others"),
    "12 steps, the own sequence alone": CPCOptions(draw="sequence"),
    "12 steps, the same speaker": CPCOptions(draw="label"),
    "12 steps, the same speaker, not the own sequence": CPCOptions(draw="label-others"),
}


def main() -> None:
    """All rows; the file is written after each."""
    torch.set_num_threads(1)
    folder, steps = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 600
    source = open_source(f"audio:{folder}", sample_rate=8000)
    train, test = source.split("train"), source.split("test")
    config = replace(
        presets.cpc_audio(),
        kernels=(10, 8, 4, 4),
        strides=(5, 4, 2, 2),
        batch_size=16,
        steps=steps,
        lr=1e-3,
        threads=1,
        context_width=256,
    )
    fresh = build_encoder(config, train).eval()
    scores, _, counts = frame_probe.score(
        {"log-mel": LogMel(8000, fresh.hop).frames, "random init": fresh.context_of},
        train,
        test,
        fresh.hop,
        baselines=(),
    )
    found: dict[str, Any] = {"steps": steps, "counts": counts, "rows": {}}
    for name, score in scores.items():
        found["rows"][name] = {"phones": [score.value, score.low, score.high]}
    for name, options in ROWS.items():
        began = time.process_time()
        trainer = Trainer("cpc", replace(config, objective=options), train)
        loss = [step.loss for step in trainer][-50:]
        seconds = time.process_time() - began
        encoder = trainer.encoder.eval()
        score = frame_probe.score(
            {"c": encoder.context_of}, train, test, encoder.hop, baselines=()
        )[0]["c"]
        speaker = linear_probe(embed(encoder, train), embed(encoder, test))["logistic"]
        found["rows"][name] = {
            "phones": [round(v, 4) for v in (score.value, score.low, score.high)],
            "speaker": round(speaker, 4),
            "loss": round(sum(loss) / len(loss), 3),
            "seconds": round(seconds),
        }
        print(name, found["rows"][name], file=sys.stderr, flush=True)
        Path(__file__).with_suffix(".json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
