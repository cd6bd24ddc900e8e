"""Compare backbones in the same detector: the encoder, random weights, the supervised encoder."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import numpy as np

from ..data.detection import BoxSource
from ..encoders import Encoder
from ..errors import ConfigError
from ..runtime.console import Console, plural
from ..training.loading import (
    Subject,
    image_encoder,
    images_of,
    parts_of,
    source_of,
    untrained_images,
)
from .detector import DetectConfig, average_precision, detect, detector, summary, train_detector
from .evaluate import provenance
from .fine_tune import SCRATCH, fine_tune

SUPERVISED_STEPS = 2000  # of the supervised encoder, batches of 64


def compare_as_backbones(
    subject: Subject,
    boxes: dict[str, BoxSource],
    config: DetectConfig,
    *,
    supervised: bool,
    console: Console,
) -> dict[str, Any]:
    """AP, AP50 and AP75 of each row, in [0, 1], trained alike.

    Args: supervised: also a row for the same network trained with the labels of the run's own
    source.
    """
    encoder = image_encoder(subject, "detect")
    if encoder.mean.numel() != 3:
        raise ConfigError(
            f"{subject.name} reads {plural(encoder.mean.numel(), 'channel')}; images with boxes "
            "have 3"
        )
    began, train, test = time.monotonic(), boxes["train"], boxes["test"]
    if train.skipped or test.skipped:
        console.say(f"{plural(train.skipped + test.skipped, 'box', 'boxes')} without area left out")
    scores: dict[str, dict[str, float]] = {}
    for name, encoder in _rows(subject, supervised, console).items():
        model = detector(encoder, len(train.classes), config)
        with console.track(f"detector on {name}", config.steps) as advance:
            train_detector(model, train, config, progress=lambda done: advance(done, "steps"))
        scores[name] = average_precision(test, detect(model, test))
        console.say(
            f"{name}: AP {scores[name]['AP'] * 100:.1f}, AP50 {scores[name]['AP50'] * 100:.1f}"
        )
    about = {"subject": subject.name, "data": train.name, "train": len(train), "test": len(test)}
    settings = {"detector": dataclasses.asdict(config)}
    return {"scores": scores, "verdict": summary(scores)} | about | settings | provenance(began)


def print_detection(result: dict[str, Any], console: Console) -> None:
    """A line for each row, in %."""
    columns = ("AP", "AP50", "AP75")
    rows = [
        (row, *(f"{score[n] * 100:.1f}" for n in columns))
        for row, score in result["scores"].items()
    ]
    console.table(("backbone starts from", *columns), rows, right=(1, 2, 3))
    console.say(result["verdict"])


def _rows(subject: Subject, supervised: bool, console: Console) -> dict[str, Encoder]:
    rows: dict[str, Encoder] = dict(untrained_images(subject, console.say))
    if supervised and subject.run:
        source = images_of(source_of(subject, None, None, console.progress), subject.name)
        train, _ = parts_of(source)
        if train.labels is not None and (train.labels >= 0).any():
            known = train.subset(np.flatnonzero(train.labels >= 0))
            console.say(f"training the supervised encoder on {len(known):,} labelled images")
            schedule = dataclasses.replace(SCRATCH, steps=SUPERVISED_STEPS)
            classes = len(train.classes) or int(train.labels.max()) + 1
            rows["supervised"] = fine_tune(
                rows["random init"], known, classes=classes, schedule=schedule
            ).encoder
    rows["trained" if subject.run else subject.name] = image_encoder(subject, "detect")
    return rows
