"""What `eval` does: a subject on a source, scored beside its baselines, as eval.json holds it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from ..data import SequenceSource, Source, TextSource
from ..embeddings.embeddings import Embeddings
from ..encoders import SequenceEncoder
from ..errors import ConfigError, DataError
from ..runtime.console import Console
from ..runtime.version import __version__
from ..training import hardware
from ..training.loading import Subject, images_of, parts_of, source_of, untrained
from ..training.model_card import training_state
from . import bootstrap, evaluate_text, frame_probe, label_free, protocol
from . import full as full_evaluation
from .baselines import LogMel
from .rows import rows_of, seen_views

GIVEN = "given vectors"  # the one row of embeddings that are judged without their encoder


def judge(subject: Subject, data: str | None, **options: Any) -> dict[str, Any]:
    """Evaluate an encoder on one source.

    Args:
        subject: the encoder.
        data: as `data.open_source`, or `sts:FILE`; None: the data of its run.
        options: those of `_judge`, which computes the scores.

    Returns:
        What eval.json holds. The verdict begins with the state of a training that did not finish.
    """
    result = _judge(subject, data, **options)
    state = training_state(subject.run.manifest) if subject.run else ""
    return result | {"verdict": f"{state} {result['verdict']}".strip(), "state": state or None}


def _judge(
    subject: Subject,
    data: str | None,
    *,
    image_size: int | None = None,
    labels: str | Path | None = None,
    checkpoint: str = "last",
    full: bool = False,
    console: Console,
    **stages: int,
) -> dict[str, Any]:
    """The scores; `stages` are options of `full.everything`."""
    began = time.monotonic()
    if data and data.startswith("sts:"):
        return (
            evaluate_text.judge_pairs(subject, data[4:], console)
            | {"subject": subject.name, "data": data}
            | provenance(began)
        )
    source = source_of(subject, data, image_size, console.progress, labels)
    if full and not isinstance(source, TextSource):
        images_of(source, "--full")
    if isinstance(source, TextSource):
        found = evaluate_text.judge_sentences(subject, source, full, console)
        return found | _about(subject, source, labels, checkpoint) | provenance(began)
    rows = rows_of(subject, source, console.say)
    seen = seen_views(rows, subject, source)
    result: dict[str, Any] = {"protocol": protocol.NAME}
    if source.labels is None or not (source.labels >= 0).any():
        flags = f" --data {data}" if data else ""
        command = f"tellapart eval {subject.name}{flags} --labels few.csv"
        found = {name: label_free.view_retrieval(z) for name, z in seen.items()}
        result["verdict"] = label_free.verdict(found, rows.baselines, subject.headline, command)
        weights = bootstrap.resamples(len(next(iter(seen.values()))))
        result["view_retrieval"] = {
            name: asdict(bootstrap.score(r, weights)) for name, r in found.items()
        }
    else:
        table = protocol.score(
            rows.pairs,
            headline=subject.headline,
            few_row=subject.few_row,
            baselines=rows.baselines,
            full=full,
            progress=lambda name: console.say(f"scoring {name}"),
        )
        result = table.to_dict()
    result["geometry"] = {
        name: label_free.of_views(seen[name]) | label_free.of_vectors(test or train)
        for name, (train, test) in rows.pairs.items()
    }
    if isinstance(source, SequenceSource):
        try:
            if frame_probe.has_marks(source):
                result["frames"] = of_frames(subject, source, console)
        except DataError as error:
            console.say(f"single frames are not judged: {error}")
    if full:
        result["full"] = full_evaluation.everything(subject, source, rows, console, **stages)
    result["baselines"] = rows.baselines
    return result | _about(subject, source, labels, checkpoint) | provenance(began)


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
        "headline": subject.headline, "labels": str(labels) if labels else None, "checkpoint": checkpoint,
    }  # fmt: skip


def of_frames(subject: Subject, source: SequenceSource, console: Console) -> dict[str, Any]:
    """How well single frames are named from context c_t and frames z_t, beside log-mel and the untrained context."""
    train, test = parts_of(source)
    if test is None or not isinstance(subject.encoder, SequenceEncoder):
        return {}
    console.say("naming single frames")
    hop = subject.encoder.hop
    rows: dict[str, frame_probe.Frames] = {"log-mel": LogMel(source.rate or 1, hop).frames}
    for name, network in untrained(subject, console.say).items():
        if isinstance(network, SequenceEncoder):
            rows[f"{name}, context"] = network.context_of
    baselines = tuple(rows)
    rows |= {
        "trained, context": subject.encoder.context_of,
        "trained, frames": subject.encoder.frames_of,
    }
    scores, comparisons, counts = frame_probe.score(rows, train, test, hop, baselines=baselines)
    return {
        "scores": {name: asdict(s) for name, s in scores.items()},
        "comparisons": [asdict(c) for c in comparisons],
        "counts": counts,
    }


def judge_vectors(path: str | Path, test: str | Path | None, *, full: bool) -> dict[str, Any]:
    """What eval.json holds of vectors: scored where they have labels, without baselines."""
    began, items = time.monotonic(), Embeddings.load(path)
    other = Embeddings.load(test) if test else None
    if not len(items) or (other is not None and not len(other)):
        raise DataError(f"{path if not len(items) else test} holds no items")
    if other is not None and other.vectors.shape[1] != items.vectors.shape[1]:
        raise ConfigError(
            f"widths differ: {items.vectors.shape[1]} in {path}, {other.vectors.shape[1]} in {test}"
        )
    result: dict[str, Any] = {"protocol": protocol.NAME}
    if items.labels is None or not (items.labels >= 0).any():
        result["verdict"] = (
            "These vectors have no labels, so nothing can tell how good they are for your task."
        )
    else:
        result = protocol.score(
            {GIVEN: (items, other)}, headline=GIVEN, few_row=GIVEN, baselines=(), full=full
        ).to_dict()
    result["geometry"] = {GIVEN: label_free.of_vectors(other or items)}
    about: dict[str, Any] = {"subject": str(path), "headline": GIVEN, "baselines": ()}
    return result | about | provenance(began)


def transfer_verdict(found: Mapping[str, Mapping[str, Any]]) -> str:
    """On how many sources the encoder is shown to beat every baseline."""
    better = []
    for name, result in found.items():
        here = [
            c
            for c in result.get("comparisons", ())
            if c["row"] == result["headline"] and c["column"] == protocol.HEADLINE
        ]
        if here and all(c["low"] > 0 for c in here):
            better.append(name)
    return (
        f"By its 200 nearest neighbours the encoder is better than every baseline on {len(better)} of {len(found)} "
        f"sources{': ' + ', '.join(better) if better else ''}."
    )


def provenance(began: float) -> dict[str, Any]:
    """How long it took, with what."""
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
