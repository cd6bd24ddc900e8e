"""Evaluate an encoder on a source beside its baselines: what eval.json holds."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from ..data import SequenceSource, Source, modality_of
from ..data.sts import pairs_named
from ..embeddings.embeddings import Embeddings
from ..errors import ConfigError, DataError
from ..runtime.console import Console
from ..runtime.version import __version__
from ..training import hardware
from ..training.loading import Subject, parts_of, source_of, untrained
from ..training.model_card import training_state
from . import evaluate_text, frame_probe, label_free, protocol
from .baselines import LogMel
from .rows import Rows, rows_of, sample, view_outputs

GIVEN = "given vectors"  # the row of embeddings that are scored without their encoder


@dataclass(frozen=True)
class Request:
    """How a source is to be scored.

    Attributes:
        protocol: "eval-v1" or "eval-v2".
        data: the source as the user typed it; None: the run's own.
        full: also the tables of `full.everything`.
        console: shows progress.
        stages: options of `full.everything`.
    """

    protocol: str
    data: str | None
    full: bool
    console: Console
    stages: dict[str, int]


def evaluate_subject(
    subject: Subject,
    data: str | None,
    *,
    name: str = protocol.NAME,
    image_size: int | None = None,
    labels: str | Path | None = None,
    checkpoint: str = "last",
    full: bool = False,
    quick: bool = False,
    console: Console,
    **stages: int,
) -> dict[str, Any]:
    """Score an encoder on one source: what eval.json holds.

    Args:
        subject: the encoder, with its run where it has one.
        data: the source; None: the run's own. `sts:FILE` names scored pairs of sentences.
        name: the protocol, "eval-v1" or "eval-v2".
        image_size: side of the view in pixels, where the run does not fix it.
        labels: a file of `id,label` lines; only these items are scored.
        checkpoint: which weights of the run these are; it is recorded.
        full: also the tables of `full.everything`.
        quick: score a seeded sample of up to 1,000 items of each part.
        console: shows progress.
        stages: options of `full.everything`.

    Raises:
        ConfigError: no data for an encoder that has none of its own.
        DataError: data that the encoder cannot read, or one class only.
    """
    began = time.monotonic()
    state = training_state(subject.run.manifest) if subject.run else ""
    about: dict[str, Any] = {"state": state or None}
    if (pairs := pairs_named(data)) is not None:
        result = evaluate_text.evaluate_pairs(subject, pairs, console, name)
        result |= {"subject": subject.name, "data": data}
        return _with_verdict(result, state) | about | provenance(began)
    source = source_of(subject, data, image_size, console.progress, labels)
    before = state
    if quick:
        whole = len(source)
        source, drawn = sample(source)
        about["sample"] = drawn | {"of": whole}
        counts = " and ".join(f"{n:,} {part} items" for part, n in drawn.items())
        counts = counts.replace("items items", "items")
        before += f" On a sample of {counts} of {whole:,} (--quick):"
    request = Request(name, data, full, console, stages)
    result = modality_of(source).evaluate(subject, source, request)
    result = _with_verdict(result, before) | about
    return result | _about(subject, source, labels, checkpoint) | provenance(began)


def score_source(subject: Subject, source: Source, request: Request) -> tuple[dict[str, Any], Rows]:
    """Scores where there are labels, view retrieval where there are none, and geometry.

    Args:
        subject: the encoder.
        source: what it is scored on.
        request: protocol, extent and console.

    Returns:
        The part of eval.json that every modality has, and the rows of the table.
    """
    name, data, console = request.protocol, request.data, request.console
    rows = rows_of(subject, source, console, small=name != protocol.V1)
    console.say("comparing random views of the same items")
    views = view_outputs(rows, subject, source, console.say)
    result: dict[str, Any] = {"protocol": name}
    if source.labels is None or not (source.labels >= 0).any():
        flags = f" --data {data}" if data else ""
        command = f"tellapart eval {subject.name}{flags} --labels few.csv"
        retrieval = {row: label_free.view_retrieval(z) for row, z in views.items()}
        measure = protocol.intervals_of(name, len(next(iter(views.values()))))
        result["verdict"] = label_free.verdict(
            retrieval, rows.baselines, subject.headline, command, measure
        )
        result["view_retrieval"] = {
            row: asdict(measure.score(r, "", 1.0)) for row, r in retrieval.items()
        }
    else:
        table = protocol.score(
            rows.pairs,
            headline=subject.headline,
            few_row=subject.few_row,
            baselines=rows.baselines,
            full=request.full,
            name=name,
            classes=source.classes,
            progress=lambda row: console.say(f"scoring {row}"),
        )
        result = table.to_dict()
    result["geometry"] = {
        row: label_free.of_views(views[row]) | label_free.of_vectors(test or train)
        for row, (train, test) in rows.pairs.items()
    }
    result["baselines"] = rows.baselines
    return result, rows


def frame_labels(subject: Subject, source: SequenceSource, console: Console) -> dict[str, Any]:
    """{"frames": scores of single frames}, or {} where the files have no labels of frames."""
    try:
        if frame_probe.has_marks(source):
            return {"frames": of_frames(subject, source, console)}
    except DataError as error:
        console.say(f"single frames are not scored: {error}")
    return {}


def _with_verdict(result: dict[str, Any], before: str) -> dict[str, Any]:
    return result | {"verdict": f"{before} {result['verdict']}".strip()}


def _about(
    subject: Subject, source: Source, labels: str | Path | None, checkpoint: str
) -> dict[str, Any]:
    about = {
        "subject": subject.name,
        "data": source.name,
        "fingerprint": source.fingerprint,
        **source.about,
    }
    if subject.run:
        about["step"] = subject.run.manifest.get("step")
    return about | {
        "headline": subject.headline,
        "labels": str(labels) if labels else None,
        "checkpoint": checkpoint,
    }


def of_frames(subject: Subject, source: SequenceSource, console: Console) -> dict[str, Any]:
    """How well a linear classifier names single frames, from context c_t and frames z_t.

    The baselines are log-mel bands and the context of the untrained network.

    Args:
        subject: an encoder of sequences.
        source: sounds with labels beside them, with a training and a test part.
        console: shows progress.

    Returns:
        Scores, comparisons and counts; {} without a test part or for another encoder.
    """
    train, test = parts_of(source)
    encoder: Any = subject.encoder
    if test is None or not hasattr(encoder, "context_of"):  # a network of the user has no frames
        return {}
    console.say("scoring single frames")
    hop = encoder.hop
    rows: dict[str, frame_probe.Frames] = {"log-mel": LogMel(source.rate or 1, hop).frames}
    for name, network in untrained(subject, console.say).items():
        fresh: Any = network
        rows[f"{name}, context"] = fresh.context_of
    baselines = tuple(rows)
    rows |= {
        "trained, context": encoder.context_of,
        "trained, frames": encoder.frames_of,
    }
    scores, comparisons, counts = frame_probe.score(rows, train, test, hop, baselines=baselines)
    return {
        "scores": {name: asdict(s) for name, s in scores.items()},
        "comparisons": [asdict(c) for c in comparisons],
        "counts": counts,
    }


def evaluate_vectors(
    path: str | Path, test: str | Path | None, *, full: bool, name: str = protocol.NAME
) -> dict[str, Any]:
    """Score saved embeddings where they have labels, without baselines: what eval.json holds.

    Args:
        path: embeddings of the training part, or of all items.
        test: embeddings of a test part; None: every item is scored by the others.
        full: also shares of the labels.
        name: the protocol.

    Raises:
        DataError: no items, or damaged files.
        ConfigError: widths that differ.
    """
    began, items = time.monotonic(), Embeddings.load(path)
    other = Embeddings.load(test) if test else None
    if not len(items) or (other is not None and not len(other)):
        raise DataError(f"{path if not len(items) else test} holds no items")
    if other is not None and other.vectors.shape[1] != items.vectors.shape[1]:
        raise ConfigError(
            f"widths differ: {items.vectors.shape[1]} in {path}, {other.vectors.shape[1]} in {test}"
        )
    result: dict[str, Any] = {"protocol": name}
    if items.labels is None or not (items.labels >= 0).any():
        result["verdict"] = (
            "These vectors have no labels, so their accuracy on a task cannot be measured."
        )
    else:
        result = protocol.score(
            {GIVEN: (items, other)},
            headline=GIVEN,
            few_row=GIVEN,
            baselines=(),
            full=full,
            name=name,
        ).to_dict()
    result["geometry"] = {GIVEN: label_free.of_vectors(other or items)}
    about: dict[str, Any] = {"subject": str(path), "headline": GIVEN, "baselines": ()}
    return result | about | provenance(began)


def provenance(began: float) -> dict[str, Any]:
    """Seconds since `began`, versions, threads and processor."""
    return {
        "seconds": round(time.monotonic() - began, 1),
        "versions": {
            "tellapart": __version__,
            "torch": torch.__version__,
            "scikit-learn": version("scikit-learn"),
        },
        "threads": torch.get_num_threads(),
        "processor": hardware.processor(),
    }
