"""The tables of `eval --full`: stages, SGD linear layer, retrieval, label budgets, transforms."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..data import ImageSource, Source
from ..encoders import Encoder
from ..runtime.console import Console
from ..training.loading import Subject, image_encoder, images_of, parts_of, untrained_images
from .label_budget import Effort, label_budget
from .linear import ROWS, linear_labels
from .protocol import SHARES
from .retrieval import retrieval
from .rows import Rows
from .sgd_linear import sgd_linear
from .stage_probe import DIMENSIONS, has_maps, stage_vectors
from .transform_probe import what_is_discarded

PER_CLASS = (1, 4, 16)
DISTILLED = (0.01, 0.1)  # the budgets whose teacher is distilled

Part = dict[str, dict[str, Any]]  # row -> column -> share in [0, 1]


def everything(
    subject: Subject,
    source: Source,
    rows: Rows,
    console: Console,
    *,
    stage_dims: int = DIMENSIONS,
    stage_rows: int = ROWS,
) -> dict[str, Part]:
    """The tables of `--full`; without labels or a test part, only those that need neither.

    Args:
        subject: the encoder.
        source: images.
        rows: the embeddings of the evaluation table.
        console: shows progress.
        stage_dims: dimensions of the vectors of a stage, at most.
        stage_rows: training items of the classifier of a stage, at most.
    """
    parts: dict[str, Part] = {}
    encoder, images = image_encoder(subject, "--full"), images_of(source, "--full")
    train, test = parts_of(images)
    if test is not None:
        console.say("Transformation probe")
        discarded = what_is_discarded(encoder, train, test)
        if subject.run is None:
            del discarded["embedding (z)"]  # the head of others' weights is a fresh one
        parts["transformation of an image predicted by a linear classifier, %"] = discarded
    if test is None or source.labels is None or not (source.labels >= 0).any():
        return parts
    labelled = {
        name: (a.labelled(), b.labelled()) for name, (a, b) in rows.pairs.items() if b is not None
    }
    if repeated(test):
        console.say("retrieval among the test items")
        parts["retrieval among the test items, %"] = {
            name: retrieval(b) for name, (_, b) in labelled.items()
        }
    console.say("a linear layer by SGD")
    parts["linear layer by SGD for 100 epochs, %"] = {
        name: {"accuracy": sgd_linear(a, b)[0]}
        for name, (a, b) in labelled.items()
        if name not in rows.baselines
    }
    if has_maps(encoder, images.image_size):
        console.say("Linear SVM per stage")
        networks = fresh_of(subject) | {"trained": encoder}
        parts["one-vs-all linear SVM on each stage, %"] = _stages(
            networks, train, test, stage_dims, stage_rows
        )
    parts |= _budgets(encoder, fresh_of(subject)["random init"], train, test, console)
    return parts


def _stages(
    networks: dict[str, Encoder], train: ImageSource, test: ImageSource, dimensions: int, rows: int
) -> Part:
    scores: Part = {}
    known = np.flatnonzero(np.asarray(train.labels) >= 0)
    train = train.subset(np.sort(np.random.default_rng(0).permutation(known)[:rows]))
    for name, encoder in networks.items():
        pairs = zip(
            stage_vectors(encoder, train, dimensions=dimensions),
            stage_vectors(encoder, test, dimensions=dimensions),
            strict=True,
        )
        scores[name] = {}
        for number, (fit, judged) in enumerate(pairs, 1):
            judged = judged.labelled()
            answer, _ = linear_labels(fit, judged.vectors, "svm", rows=rows)
            scores[name][f"stage {number}"] = float((answer == judged.known_labels).mean())
    return scores


def fresh_of(subject: Subject) -> dict[str, Encoder]:
    """The untrained networks of images."""
    return untrained_images(subject, lambda _: None)


def smallest_of(part: ImageSource) -> int:
    """The size of a part's smallest class."""
    labels = np.asarray(part.labels)
    return int(np.unique(labels[labels >= 0], return_counts=True)[1].min())


def repeated(part: ImageSource) -> bool:
    """Whether a class of the part has two items."""
    labels = np.asarray(part.labels)
    return bool((np.unique(labels[labels >= 0], return_counts=True)[1] > 1).any())


def _budgets(
    encoder: Encoder, fresh: Encoder, train: ImageSource, test: ImageSource, console: Console
) -> dict[str, Part]:
    """One table: way x budget; the columns that the smallest class allows."""
    budgets: dict[str, dict[str, Any]] = {f"{s:.0%}": {"share": s} for s in SHARES}
    smallest = smallest_of(train)
    budgets |= {f"{n} a class": {"per_class": n} for n in PER_CLASS if n <= smallest}
    table: Part = {}
    for name, budget in budgets.items():
        effort = Effort(distil=budget.get("share") in DISTILLED)
        scores = label_budget(encoder, fresh, train, test, **budget, effort=effort, say=console.say)
        for way, score in scores.items():
            table.setdefault(way, {})[name] = score
    return {"accuracy by number of labels, %": table}
