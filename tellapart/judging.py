"""What `eval` does: a subject on a source, scored beside its baselines, as eval.json holds it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from . import thorough
from .console import Console
from .embeddings import Embeddings
from .errors import ConfigError, DataError
from .evaluation import intervals, protocol, unlabelled
from .subjects import Subject, rows_of, seen_views, source_of
from .training import machine
from .version import __version__


def judge(
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
    """What eval.json holds of an encoder on one source; `stages`: as `thorough.everything`."""
    began = time.monotonic()
    source = source_of(subject, data, image_size, console.progress, labels)
    rows = rows_of(subject, source, console.say)
    seen = seen_views(rows, subject, source)
    result: dict[str, Any] = {"protocol": protocol.NAME}
    if source.labels is None or not (source.labels >= 0).any():
        flags = f" --data {data}" if data else ""
        command = f"tellapart eval {subject.name}{flags} --labels few.csv"
        found = {name: unlabelled.view_retrieval(z) for name, z in seen.items()}
        result["verdict"] = unlabelled.verdict(found, rows.baselines, subject.headline, command)
        weights = intervals.resamples(len(next(iter(seen.values()))))
        result["view_retrieval"] = {name: asdict(intervals.score(r, weights)) for name, r in found.items()}
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
        name: unlabelled.of_views(seen[name]) | unlabelled.of_vectors(test or train)
        for name, (train, test) in rows.pairs.items()
    }
    if full:
        result["full"] = thorough.everything(subject, source, rows, console, **stages)
    about: dict[str, Any] = {"subject": subject.name, "data": source.name, "fingerprint": source.fingerprint}
    about |= {"headline": subject.headline, "baselines": rows.baselines, "image_size": source.image_size}
    about |= {"labels": str(labels) if labels else None, "checkpoint": checkpoint}
    return result | about | provenance(began)


def judge_vectors(
    subject: Subject, test: str | Path | None, *, full: bool, say: Callable[[str], None]
) -> dict[str, Any]:
    """What eval.json holds of vectors: scored where they have labels, without baselines."""
    began, items = time.monotonic(), subject.vectors
    if items is None:
        raise ConfigError(f"{subject.name} is an encoder, not vectors")
    other = Embeddings.load(test) if test else None
    if not len(items) or (other is not None and not len(other)):
        raise DataError(f"{subject.name if not len(items) else test} holds no items")
    if other is not None and other.vectors.shape[1] != items.vectors.shape[1]:
        raise ConfigError(
            f"widths differ: {items.vectors.shape[1]} in {subject.name}, {other.vectors.shape[1]} in {test}"
        )
    result: dict[str, Any] = {"protocol": protocol.NAME}
    if items.labels is None or not (items.labels >= 0).any():
        result["verdict"] = "These vectors have no labels, so nothing can tell how good they are for your task."
    else:
        pairs = {subject.headline: (items, other)}
        result = protocol.score(
            pairs, headline=subject.headline, few_row=subject.headline, baselines=(), full=full
        ).to_dict()
    result["geometry"] = {subject.headline: unlabelled.of_vectors(other or items)}
    about: dict[str, Any] = {"subject": subject.name, "headline": subject.headline, "baselines": ()}
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
        "versions": {"tellapart": __version__, "torch": torch.__version__, "scikit-learn": version("scikit-learn")},
        "threads": torch.get_num_threads(),
        "processor": machine.processor(),
    }
