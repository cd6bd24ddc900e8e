"""Accuracy for a budget of labels: frozen features, fine-tuning, distillation, from scratch.

Shapes: N test items, C classes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .. import encoders
from ..data import ImageSource
from ..embeddings.embeddings import embed
from ..encoders import Encoder
from ..errors import DataError
from . import bootstrap
from .few_label import balanced, few_label, labels_per_class
from .fine_tune import DISTIL, SCRATCH, TUNE, Classifier, Schedule, distil, fine_tune, right

Array = np.ndarray[Any, Any]
FROZEN, TUNED, MIDDLE = (
    "frozen features, linear",
    "fine-tuned",
    "fine-tuned from the head's first layer",
)
SELF, SMALLER, ALONE = (
    "distilled into itself",
    "distilled into a smaller network",
    "supervised from scratch",
)


@dataclass(frozen=True)
class Effort:
    """How much is spent on a label budget.

    Attributes:
        draws: of the labelled subset.
        tune: schedule of fine-tuning.
        scratch: schedule of training from scratch.
        student: schedule of distillation.
        distil: whether the teacher of the first draw is distilled.
        temperature: of the distillation, > 0.
    """

    draws: int = 2
    tune: Schedule = TUNE
    scratch: Schedule = SCRATCH
    student: Schedule = DISTIL
    distil: bool = True
    temperature: float = 1.0


def label_budget(
    encoder: Encoder,
    untrained: Encoder,
    train: ImageSource,
    test: ImageSource,
    *,
    per_class: int | None = None,
    share: float | None = None,
    effort: Effort | None = None,
    say: Callable[[str], None] | None = None,
) -> dict[str, dict[str, float]]:
    """Accuracy of every way to use a budget of labels, on the same class-balanced draws.

    Args:
        encoder: the trained network.
        untrained: the same network with random weights, for the row from scratch.
        train: labels outside a draw are not read; distillation reads all its images.
        test: labelled images to classify.
        per_class: the budget, as `few_label`.
        share: the budget, as `few_label`.
        effort: draws and schedules.
        say: called with a line of progress.

    Returns:
        Way -> {"value": mean over draws in [0, 1], "low", "high": 95 % bootstrap over test items,
        "std": over draws, "draws"}. The distilled rows have one draw.

    Raises:
        DataError: no labels.
        ConfigError: a budget that the smallest class does not allow.
    """
    effort = effort or Effort()
    if train.labels is None or test.labels is None:
        raise DataError(f"{train.name} has no labels")
    known = train.subset(np.flatnonzero(train.labels >= 0))
    judged = test.subset(np.flatnonzero(test.labels >= 0))
    features, others = embed(encoder, known), embed(encoder, judged)
    count, classes = (
        labels_per_class(features, per_class, share),
        int(features.known_labels.max()) + 1,
    )
    correct: dict[str, list[Array]] = {}
    correct[FROZEN] = [few_label(features, others, per_class=per_class, share=share, draws=1,
                     seed=d)[1]
                     for d in range(effort.draws)]  # fmt: skip
    for draw in range(effort.draws):
        few = known.subset(balanced(features.known_labels, count, seed=draw))
        ways = _tuned(encoder, untrained, few, classes, effort, draw)
        if effort.distil and draw == 0:
            ways |= _distilled(ways[MIDDLE if MIDDLE in ways else TUNED], encoder, train, effort)
        for way, model in ways.items():
            correct.setdefault(way, []).append(right(model, judged))
            if say:
                say(f"{len(few):,} labels, draw {draw}, {way}: {correct[way][-1].mean():.1%}")
    weights = bootstrap.resamples(len(judged))
    return {way: _summary(draws, weights) for way, draws in correct.items()}


def _tuned(
    encoder: Encoder, untrained: Encoder, few: ImageSource, classes: int, effort: Effort, draw: int
) -> dict[str, Classifier]:
    tune, scratch = replace(effort.tune, seed=draw), replace(effort.scratch, seed=draw)
    ways = {
        ALONE: fine_tune(untrained, few, classes=classes, schedule=scratch),
        TUNED: fine_tune(encoder, few, classes=classes, schedule=tune),
    }
    if encoders.hidden_layers(encoder.head):
        ways[MIDDLE] = fine_tune(encoder, few, classes=classes, head_layers=1, schedule=tune)
    return ways


def _distilled(
    teacher: Classifier, encoder: Encoder, train: ImageSource, effort: Effort
) -> dict[str, Classifier]:
    """The teacher's answers on all images, learned by its own network and by a smaller one."""
    mean, std = encoder.mean.flatten(), encoder.std.flatten()
    own_width = getattr(encoder.backbone, "width", 64) // 4
    small = encoders.build(
        "small-resnet",
        channels=len(mean),
        size=train.image_size,
        width=max(8, min(16, own_width // 2)),
        mean=mean, std=std,
    ).to(encoder.mean.device)  # fmt: skip
    shared: dict[str, Any] = {"temperature": effort.temperature, "schedule": effort.student}
    return {
        SELF: distil(teacher, teacher.encoder, train, **shared),
        SMALLER: distil(teacher, small, train, **shared),
    }


def _summary(draws: list[Array], weights: Array) -> dict[str, float]:
    score = bootstrap.score(np.mean(draws, 0), weights)
    means = [float(d.mean()) for d in draws]
    std = float(np.std(means, ddof=1)) if len(means) > 1 else 0.0
    return {
        "value": score.value,
        "low": score.low,
        "high": score.high,
        "std": std,
        "draws": len(draws),
    }
