"""The page that `report` writes: an encoder, its scores and its neighbours in one HTML file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from ..curation import outliers
from ..data import Source
from ..embeddings.collection import Collection
from ..embeddings.embeddings import Embeddings
from ..embeddings.neighbours import RandomPairs, nearest
from ..errors import DataError
from ..evaluation import score_table
from ..runtime.console import Console
from ..training.loading import parts_of
from ..training.model_card import training_state
from . import html

QUERIES, NEIGHBOURS = 8, 9
SHOWN = 12  # items of a group, outliers and suspect labels
GROUPS = 6
ALIKE = 0.995  # cosine similarity of vectors that are nearly equal
CONFUSION_K, MOST_CLASSES = 20, 20
CONFUSION_TRAIN, CONFUSION_TEST = 20_000, 5_000  # items of the confusion table, at most
CURVES = (
    ("Loss", ("loss",)),
    (
        "Spread of the embeddings: standard deviation (1 = centred), uniformity",
        ("std", "uniformity"),
    ),
    ("Effective rank, directions", ("effective_rank",)),
    ("Learning rate", ("lr",)),
)


def write(items: Collection, out: Path, console: Console) -> dict[str, Any]:
    """Write the page of a run, of another encoder, or of saved vectors.

    Args:
        items: as `open_collection` returns it.
        out: the file.
        console: told where the page is.

    Returns:
        {"out", "verdict", "sections", "bytes"}.

    Raises:
        DataError: `out` cannot be written, or there are fewer than two items.
    """
    source, run = items.source, items.run
    if len(source) < 2:
        raise DataError(f"a report needs two items or more, {source.name} has {len(source)}")
    similarity, neighbours = outliers.neighbours(items.vectors)
    scores = run.evaluation() if run else None
    method = run.manifest["method"] if run else items.vectors.provenance.get("encoder", items.name)
    values = {
        "title": f"{Path(items.name).name}: evaluation report",
        "subtitle": f"{method} on {source.name}, {len(source):,} {source.many}",
        "verdict": _verdict(items, scores),
        "notes": _notes(run.manifest, scores) if run else [],
        "scores": (score_table.tables(scores) if scores else []) if run else None,
        "evaluate": _evaluate(items),
        "charts": _charts(run.metrics()) if run else None,
        "many": source.many,
        "random": str(RandomPairs.of(items.vectors.vectors)),
        "neighbours": _neighbours(source, similarity, neighbours),
        "confusion": _confusion(source, items.vectors),
        "duplicates": _duplicates(source, similarity, neighbours),
        "outliers": _outliers(source, similarity),
        "suspects": _suspects(source, neighbours),
        "provenance": _provenance(items),
    }
    size = html.write(out, "run_report.html", values, console)
    sections = [name for name, value in values.items() if isinstance(value, list | dict) and value]
    return {"out": str(out), "verdict": values["verdict"], "sections": sections, "bytes": size}


def _evaluate(items: Collection) -> str:
    data = "" if items.run or items.encoder is None else f" --data {items.source.name}"
    return f"tellapart eval {items.name}{data}"


def _verdict(items: Collection, scores: Mapping[str, Any] | None) -> str:
    """The verdict of the evaluation, else that of the training; first the state of the training."""
    manifest = items.run.manifest if items.run else {}
    state = training_state(manifest)
    if scores:
        verdict = str(scores["verdict"])
        return verdict if state in verdict else f"{state} {verdict}"
    trained = manifest.get("verdict") or {}
    sentence = f"Training: {trained['sentence']}." if trained else ""
    parts = (state, sentence, f"Not evaluated yet: {_evaluate(items)}")
    return " ".join(part for part in parts if part)


def _notes(manifest: Mapping[str, Any], scores: Mapping[str, Any] | None) -> list[str]:
    """A warning where the scores are those of an earlier step."""
    if not scores or scores.get("step") in (None, manifest.get("step")):
        return []
    return [
        f"The scores are those of step {scores['step']:,}; the run is now at step "
        f"{manifest.get('step') or 0:,}. Evaluate it again."
    ]


def _charts(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Curves of what was logged."""
    charts = []
    for title, names in CURVES:
        lines = {
            name: [(float(r["step"]), float(r[name])) for r in rows if r.get(name) is not None]
            for name in names
        }
        lines = {name: line for name, line in lines.items() if line}
        chance = rows[-1].get("chance") if lines and names == ("loss",) else None
        if chance:
            title += ", nats; dashed: the loss when all embeddings coincide"
        if lines:
            level = ("chance", float(chance)) if chance else None
            charts.append(html.chart(title, lines, level=level))
    return charts


def _neighbours(
    source: Source, similarity: Tensor, neighbours: Tensor
) -> list[list[dict[str, Any]]]:
    """Random items, each with its nearest neighbours."""
    count = min(QUERIES, len(source))
    picked = np.sort(np.random.default_rng(0).permutation(len(source))[:count])
    return [
        [html.item(source, row, query=True)]
        + [
            html.item(source, other, f"{value:.2f}")
            for other, value in zip(
                neighbours[row, :NEIGHBOURS].tolist(),
                similarity[row, :NEIGHBOURS].tolist(),
                strict=True,
            )
        ]
        for row in picked.tolist()
    ]


def _confusion(source: Source, vectors: Embeddings) -> dict[str, Any] | None:
    """Per class of the test items, the classes that most of their neighbours have, %."""
    train, test = parts_of(source)
    if test is None or source.labels is None or not 2 <= len(source.classes) <= MOST_CLASSES:
        return None
    place = {name: row for row, name in enumerate(vectors.ids)}
    fit, held = (vectors.take(np.array([place[i] for i in part.ids])) for part in (train, test))
    fit = fit.labelled().at_most(CONFUSION_TRAIN)
    held = held.labelled().at_most(CONFUSION_TEST)
    k, classes = min(CONFUSION_K, len(fit)), len(source.classes)
    _, row = nearest(held.vectors, fit.vectors, k)
    votes = np.zeros((len(held), classes), np.int64)
    np.add.at(votes, (np.arange(len(held))[:, None], fit.known_labels[row.numpy()]), 1)
    counts = np.zeros((classes, classes))
    np.add.at(counts, (held.known_labels, votes.argmax(1)), 1)
    shares = 100 * counts / counts.sum(1, keepdims=True).clip(1)
    return {"k": k, "names": list(source.classes), "shares": shares.tolist()}


def _duplicates(source: Source, similarity: Tensor, neighbours: Tensor) -> dict[str, Any]:
    """The largest groups of items whose vectors are nearly equal."""
    pairs = outliers.alike_pairs(similarity, neighbours, above=ALIKE)
    groups = outliers.groups([(a, b) for a, b, _ in pairs], len(neighbours))
    shown = [[html.item(source, row) for row in group[:SHOWN]] for group in groups[:GROUPS]]
    return {"above": ALIKE, "pairs": len(pairs), "count": len(groups), "groups": shown}


def _outliers(source: Source, similarity: Tensor) -> list[dict[str, Any]]:
    scores = outliers.outlier_scores(similarity)
    rows = np.argsort(-scores, kind="stable")[:SHOWN]
    return [html.item(source, int(row), f"{scores[row]:.2f}") for row in rows]


def _suspects(source: Source, neighbours: Tensor) -> dict[str, Any] | None:
    """Items whose neighbours agree on another label; None without labels."""
    if source.labels is None:
        return None
    suspects = outliers.suspect_labels(source.labels, neighbours)
    shown = [
        html.item(
            source, x["row"], f"{source.classes[x['neighbours']]}? ({x['share'] * 100:.0f} %)"
        )
        for x in suspects[:SHOWN]
    ]
    return {"count": len(suspects), "shown": shown}


def _provenance(items: Collection) -> dict[str, Any]:
    """Where the encoder, or the vectors, come from: name -> value."""
    if items.run is None:
        about = {k: v for k, v in items.vectors.provenance.items() if isinstance(v, str | int)}
        return {"vectors of": items.name, "data": items.source.name, **about}
    manifest = items.run.manifest
    data, config = manifest["data"], manifest["config"]
    settings = ("encoder", "epochs", "batch_size", "lr", "seed", "init")
    return {
        "run": items.run.path,
        "method": manifest["method"],
        "data": data.get("name"),
        "fingerprint of the data": data.get("fingerprint"),
        "licence of the data": data.get("licence") or "unknown",
        "files left out": len(manifest.get("skipped") or data.get("skipped") or ()),
        "steps": f"{manifest.get('step') or 0:,}",
        "seconds": manifest.get("seconds", "-"),
        "hardware": _named(manifest.get("hardware")),
        "versions": _named(manifest.get("versions")),
        "main settings": _named({k: config[k] for k in settings if config.get(k) is not None}),
    }


def _named(values: Mapping[str, Any] | None) -> str:
    return ", ".join(f"{name} {value}" for name, value in (values or {}).items())
