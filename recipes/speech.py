"""CPC on speech, both claims of it: phones named frame by frame, and speakers named from the mean
of c_t.

    python scripts/prepare_speech.py phones data/phones 2400 && python recipes/speech.py phones
    data/phones
    python scripts/prepare_speech.py prompts data/prompts && python recipes/speech.py prompts
    data/prompts

writes speech_phones.json and speech_prompts.json. One thread; labels are read by the classifiers
alone, after training.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from recipe import COMMIT, HERE

from tellapart.data import SequenceSource
from tellapart.embeddings import Embeddings
from tellapart.evaluation import bootstrap, linear
from tellapart.evaluation.baselines import LogMel
from tellapart.evaluation.evaluate import of_frames
from tellapart.objectives import CPCOptions
from tellapart.runtime.console import Console
from tellapart.training import presets, session
from tellapart.training.config import SequenceConfig
from tellapart.training.hardware import hardware
from tellapart.training.loading import open_subject, untrained
from tellapart.training.resolve import open_for, training_part
from tellapart.training.run import Run
from tellapart.training.trainer import Trainer
from tellapart.views.audio import SequenceViews

PHONES = replace(
    presets.cpc_audio(),
    sample_rate=8000,
    kernels=(10, 8, 4, 4),
    strides=(5, 4, 2, 2),  # a frame every 10 ms
    batch_size=16,
    steps=2600,
    lr=1.5e-3,
    context_width=256,
    threads=1,
    objective=CPCOptions(draw="sequence"),  # what stays the same in a sentence is of no use here
)
PROMPTS = replace(  # negatives from other prompts only: the speaker tells them apart first
    presets.cpc_audio(),
    batch_size=16,
    steps=1200,
    lr=1.5e-3,
    context_width=256,
    threads=1,
    objective=CPCOptions(draw="others"),
)
CUTS = (2.0, 1.0, 0.5, 0.25, 0.12)  # seconds of a prompt that are judged


def trained(config: SequenceConfig, data: str, folder: Path) -> dict[str, Any]:
    """Train into a run, and what it cost."""
    source = open_for(f"audio:{data}", config)
    trainer = Trainer("cpc", config, training_part(source, config))
    run = Run.create(folder, session.manifest("cpc", config, source, trainer.source))
    began = time.process_time()
    session.train_into(run, trainer, Console())
    return {
        "command": " ".join(["python", *sys.argv]),
        "config": config.to_dict(),
        "hardware": hardware(trainer.machine),
        "commit": COMMIT,
        "seconds of the processor": round(time.process_time() - began),
        "data": source.described,
    }


def cut(features: Any, source: SequenceSource, seconds: float) -> Embeddings:
    """The features of a random piece of every sound, the same piece whatever makes the features."""
    views = SequenceViews(window=round(seconds * (source.rate or 1)))
    generator = torch.Generator().manual_seed(0)
    with torch.inference_mode():
        parts = [
            features(views(source.read(i), generator)) for i in torch.arange(len(source)).split(32)
        ]
    return Embeddings(torch.cat(parts), source.ids, source.labels)


def speakers(run: Path) -> dict[str, Any]:
    """How often the speaker is named from pieces of a prompt never heard, by each row."""
    subject = open_subject(run)
    source = open_for(subject.run.manifest["data"]["name"], subject.config)
    train, test = source.split("train"), source.split("test")
    rows = {"log-mel means": LogMel(source.rate)} | {
        n: e.features for n, e in untrained(subject, print).items()
    }
    rows["trained features"] = subject.encoder.features
    found: dict[str, Any] = {}
    weights = bootstrap.resamples(len(test))
    for seconds in CUTS:
        right = {}
        for name, features in rows.items():
            near, held = cut(features, train, seconds), cut(features, test, seconds)
            right[name] = (linear.linear_labels(near, held.vectors)[0] == held.known_labels).astype(
                np.float64
            )
        found[f"{seconds:g} s"] = {
            name: asdict(bootstrap.score(r, weights)) for name, r in right.items()
        }
        ours, theirs = (("trained", right["trained features"]), ("log-mel", right["log-mel means"]))
        found[f"{seconds:g} s"]["against log-mel"] = asdict(
            bootstrap.compare("speaker", ours, theirs, weights)
        )
        print(seconds, {n: round(float(r.mean()), 4) for n, r in right.items()}, flush=True)
    return found


def main() -> None:
    """Train and judge what the command line names."""
    torch.set_num_threads(1)
    what, data = sys.argv[1:3]
    run = HERE.parent / "runs" / f"speech-{what}"
    result = trained(PHONES if what == "phones" else PROMPTS, data, run)
    if what == "phones":
        subject = open_subject(run)
        result["frames"] = of_frames(subject, open_for(f"audio:{data}", PHONES), Console())
        print({n: round(s["value"], 4) for n, s in result["frames"]["scores"].items()})
    else:
        result["speakers"] = speakers(run)
    (HERE / f"speech_{what}.json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
