"""Classify single frames of sounds with a linear classifier, for labels in time.

The labels are read from NAME.lab beside a sound (`data.audio.read_marks`).

Shapes: N frames, T frames of a sound.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..data import SequenceSource
from ..data.audio import read_marks
from ..embeddings.embeddings import Embeddings
from ..encoders.inference import run_over
from ..errors import DataError
from . import bootstrap, linear
from .bootstrap import Comparison, Score

Array = np.ndarray[Any, Any]
Frames = Callable[
    [Any], tuple[Tensor, Tensor]
]  # view -> vectors (sounds, T, width), how many are no padding
TRAIN, TEST = 10_000, 10_000  # frames, drawn by a fixed seed
BATCH = 16  # sounds at once


def has_marks(source: SequenceSource) -> bool:
    """Whether any of up to 50 sounds spread over the source has its labels beside it."""
    step = max(1, len(source) // 50)
    return bool(source.rate) and any(
        read_marks(source.file(i)) for i in range(0, len(source), step)
    )


def score(
    rows: Mapping[str, Frames],
    train: SequenceSource,
    test: SequenceSource,
    hop: int,
    *,
    baselines: tuple[str, ...],
) -> tuple[dict[str, Score], list[Comparison], dict[str, int]]:
    """Accuracy of a logistic regression on test frames, for every row on the same frames.

    Intervals are a bootstrap over sounds, since the frames of one sound are alike.

    Args:
        rows: name -> what makes frames of a view; all with `hop` steps from frame to frame.
        train: sounds with labels, to fit to.
        test: sounds with labels, to classify.
        hop: steps from frame to frame.
        baselines: the names of the rows to compare with.

    Raises:
        DataError: no sound of a part has labels, or there is one label only.
    """
    names = sorted(
        {name for part in (train, test) for i in range(len(part)) for _, _, name in _marks(part, i)}
    )
    if len(names) < 2:
        raise DataError(
            f"{train.name} needs two labels of frames or more (in NAME.lab), it has {names}"
        )
    drawn = {}
    for key, part, most in (("train", train, TRAIN), ("test", test, TEST)):
        labels = [frame_labels(part, i, hop, names) for i in range(len(part))]
        drawn[key] = _drawn(labels, most)
        if not len(drawn[key][0]):
            raise DataError(f"no sound of the {key} part of {train.name} has labels beside it")
    right = {}
    for name, frames in rows.items():
        known, judged = (
            _vectors(frames, part, *drawn[key]) for key, part in (("train", train), ("test", test))
        )
        predicted, _ = linear.linear_labels(known, judged.vectors, rows=TRAIN)
        right[name] = (predicted == judged.known_labels).astype(float)
    weights = bootstrap.resamples_of_groups(drawn["test"][0])
    scores = {name: bootstrap.score(r, weights) for name, r in right.items()}
    comparisons = [
        bootstrap.compare("frames", (name, r), (baseline, right[baseline]), weights)
        for name, r in right.items()
        if name not in baselines
        for baseline in baselines
    ]
    return (
        scores,
        comparisons,
        {"labels": len(names), "train": len(drawn["train"][0]), "test": len(drawn["test"][0])},
    )


def frame_labels(source: SequenceSource, position: int, hop: int, names: list[str]) -> Array:
    """(T,) the label at the middle of each frame of a sound, -1 where there is none."""
    begin, _ = source.seconds(position)
    count = max(1, int(source.lengths[position]) // hop)
    middle = begin + (np.arange(count) + 0.5) * hop / (source.rate or 1)
    labels = np.full(count, -1)
    for start, end, name in _marks(source, position):
        labels[(middle >= start) & (middle < end)] = names.index(name)
    return labels


def _marks(source: SequenceSource, position: int) -> list[tuple[float, float, str]]:
    return read_marks(source.file(position))


def _drawn(labels: list[Array], most: int) -> tuple[Array, Array, Array]:
    """Up to `most` labelled frames by a fixed seed: their sounds, positions, and labels (N,)."""
    sound = np.concatenate([np.full(len(row), i) for i, row in enumerate(labels)])
    place = np.concatenate([np.arange(len(row)) for row in labels])
    label = np.concatenate(labels)
    known = np.flatnonzero(label >= 0)
    kept = np.sort(np.random.default_rng(0).permutation(known)[:most])
    return sound[kept], place[kept], label[kept]


def _vectors(
    frames: Frames, source: SequenceSource, sound: Array, place: Array, label: Array
) -> Embeddings:
    """The vectors of the chosen frames."""

    def drawn(view: Any, index: Tensor) -> Tensor:
        inside = (sound >= int(index[0])) & (sound <= int(index[-1]))
        return frames(view)[0][sound[inside] - int(index[0]), place[inside]].float()

    parts = run_over(drawn, source, batch=BATCH)
    ids = [f"{source.ids_at(s)}@{p}" for s, p in zip(sound.tolist(), place.tolist(), strict=True)]
    return Embeddings(torch.cat(parts), ids, label)
