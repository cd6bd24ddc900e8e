"""What `report` writes: one self-contained HTML file of a run, readable without a script and printed."""

from __future__ import annotations

import os
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from ..curation import outliers
from ..data import ImageSource, Source, TextSource
from ..data.source import Array
from ..embeddings import search
from ..embeddings.embeddings import Embeddings, replacing
from ..encoders.inference import prepared
from ..errors import DataError
from ..evaluation import score_table
from ..functional import top_k
from ..runtime.console import Console
from ..training.loading import Loaded, parts_of
from . import html

RANDOM_ITEMS, NEIGHBOURS = 8, 9
SHOWN = 12  # groups of duplicates, outliers and odd labels
CONFUSION_K, MOST_CLASSES = 20, 20
CURVES = (
    ("loss", ("loss",)),
    (
        "how the embeddings vary: standard deviation (1 = centred), uniformity",
        ("std", "uniformity"),
    ),
    ("effective rank, directions", ("effective_rank",)),
    ("learning rate", ("lr",)),
)


def write(loaded: Loaded, out: Path, console: Console) -> dict[str, Any]:
    """Write the page of a run and say what is in it.

    Returns:
        {"out", "verdict", "sections", "bytes"}.
    Raises:
        DataError: `out` cannot be written. As `like_the_run` where the source is gone.
    """
    source = prepared(loaded.encoder, loaded.source(console=console))
    vectors = search.stored(loaded, source, console)
    similarity, near = outliers.neighbours(vectors)
    sections: dict[str, list[str]] = {
        "Scores against the baselines": _scores(loaded),
        "Training": _training(loaded),
        f"Look-alikes of {RANDOM_ITEMS} {source.many} drawn at random": _look_alikes(
            source, similarity, near
        ),
        "What is taken for what": _confusion(source, vectors),
        "Nearly the same": _duplicates(source, similarity, near),
        "Unlike all others": _outliers(source, similarity),
        "Labels that do not fit": _odd_labels(source, near),
        "Where it comes from": [html.facts(_provenance(loaded))],
    }
    manifest = loaded.run.manifest
    verdict = _verdict(loaded)
    parts = [
        html.text(
            f"{manifest['method']} on {manifest['data'].get('name')}, {len(source):,} {source.many}",
            kind="soft",
        ),
        html.text(verdict, kind="verdict"),
    ]
    for name, made in sections.items():
        if made:
            parts += [html.heading(name), *made]
    _save(out, html.document(f"{loaded.run.path.name}: an encoder judged", parts))
    size = out.stat().st_size
    console.say(f"report: {out} ({size / 1e6:.1f} MB)")
    return {
        "out": str(out),
        "verdict": verdict,
        "sections": [n for n, made in sections.items() if made],
        "bytes": size,
    }


def _verdict(loaded: Loaded) -> str:
    judged = loaded.run.read_json("eval.json")
    if judged:
        return str(judged["verdict"])
    trained = loaded.run.manifest.get("verdict") or {}
    said = f"Training: {trained['sentence']}. " if trained else ""
    return f"{said}Nothing has judged this encoder yet: tellapart eval {loaded.run.path}"


def _scores(loaded: Loaded) -> list[str]:
    judged = loaded.run.read_json("eval.json")
    if not judged:
        return [
            html.text(f"not judged yet; this makes the scores: tellapart eval {loaded.run.path}")
        ]
    made = []
    for table in score_table.tables(judged):
        made += [html.text(table.title), html.table(table.heads, table.rows)]
        made += [html.text(note, kind="soft") for note in table.notes]
    return made


def _training(loaded: Loaded) -> list[str]:
    rows = loaded.run.metrics()
    made = []
    for title, names in CURVES:
        lines = {
            n: [(float(r["step"]), float(r[n])) for r in rows if r.get(n) is not None]
            for n in names
        }
        lines = {n: line for n, line in lines.items() if line}
        if not lines:
            continue
        chance = rows[-1].get("chance") if names == ("loss",) else None
        made += [
            html.text(
                title + (", nats; dashed: the loss when all embeddings coincide" if chance else ""),
                kind="soft",
            ),
            html.curves(lines, level=("chance", float(chance)) if chance else None),
        ]
    return made or [html.text("no steps were logged")]


def _look_alikes(source: Source, similarity: Tensor, near: Tensor) -> list[str]:
    count = min(RANDOM_ITEMS, len(source))
    made = []
    for row in np.sort(np.random.default_rng(0).permutation(len(source))[:count]).tolist():
        alike = zip(
            near[row, :NEIGHBOURS].tolist(), similarity[row, :NEIGHBOURS].tolist(), strict=True
        )
        made.append(
            html.row(
                [
                    _shown(source, row, kind="query"),
                    *(_shown(source, r, f"{s:.2f} ") for r, s in alike),
                ]
            )
        )
    return made


def _confusion(source: Source, vectors: Embeddings) -> list[str]:
    """How often the neighbours in the training part call an item of each class what, %."""
    train, test = parts_of(source)
    if test is None or source.labels is None or not 2 <= len(source.classes) <= MOST_CLASSES:
        return []
    place = {name: row for row, name in enumerate(vectors.ids)}
    fit, held = (vectors.take(np.array([place[i] for i in part.ids])) for part in (train, test))
    fit, held = fit.labelled().at_most(20_000), held.labelled().at_most(5_000)
    k = min(CONFUSION_K, len(fit))
    _, row = top_k.top_k(outliers.unit_rows(held), outliers.unit_rows(fit), k)
    votes = np.zeros((len(held), len(source.classes)), np.int64)
    np.add.at(votes, (np.arange(len(held))[:, None], fit.known_labels[row.numpy()]), 1)
    counts = np.zeros((len(source.classes), len(source.classes)))
    np.add.at(counts, (held.known_labels, votes.argmax(1)), 1)
    shares = 100 * counts / counts.sum(1, keepdims=True).clip(1)
    said = (
        f"Of the test items of the class to the left, % that most of their {k} nearest training items call the class "
        "above."
    )
    return [html.text(said, kind="soft"), _heat(list(source.classes), shares)]


def _heat(names: Sequence[str], shares: Array) -> str:
    heads = "".join(f"<th>{escape(n)}</th>" for n in names)
    body = ""
    for name, row in zip(names, shares, strict=True):
        cells = "".join(
            f'<td class="number" style="background:rgba(11,107,203,{v / 250:.2f})">{v:.0f}</td>'
            for v in row
        )
        body += f"<tr><th>{escape(name)}</th>{cells}</tr>"
    return f'<div class="wide"><table><thead><tr><th></th>{heads}</tr></thead><tbody>{body}</tbody></table></div>'


def _duplicates(source: Source, similarity: Tensor, near: Tensor) -> list[str]:
    pairs = outliers.alike_pairs(similarity, near, above=0.995)
    if not pairs:
        return [
            html.text("No two items have nearly the same vector (cosine similarity 0.995 or more).")
        ]
    groups = outliers.groups([(a, b) for a, b, _ in pairs], len(near))
    said = (
        f"Pairs with a cosine similarity of 0.995 or more: {len(pairs):,}, in groups: {len(groups):,}. Alike to this "
        "encoder, not always the same thing. tellapart inspect compares the contents."
    )
    return [html.text(said)] + [
        html.row([_shown(source, r) for r in g[:SHOWN]]) for g in groups[: SHOWN // 2]
    ]


def _outliers(source: Source, similarity: Tensor) -> list[str]:
    scores = outliers.outlier_scores(similarity)
    rows = np.argsort(-scores, kind="stable")[:SHOWN]
    said = "The items farthest from their ten nearest others (1 minus the mean cosine similarity)."
    return [
        html.text(said, kind="soft"),
        html.row([_shown(source, int(r), f"{scores[r]:.2f} ") for r in rows]),
    ]


def _odd_labels(source: Source, near: Tensor) -> list[str]:
    found = outliers.suspect_labels(source.labels, near)
    if source.labels is None:
        return []
    if not found:
        return [html.text("No item has neighbours that agree on another label.")]
    shown = [
        _shown(
            source,
            one["row"],
            f"{source.classes[one['neighbours']]}? ({one['share'] * 100:.0f} %) ",
        )
        for one in found[:SHOWN]
    ]
    said = f"Items whose label is not that of four fifths of their 20 neighbours, worth a look: {len(found):,}."
    return [html.text(said), html.row(shown)]


def _shown(source: Source, row: int, before: str = "", *, kind: str = "") -> str:
    """One item: a picture, or its words, with its label."""
    label = source.labels[row] if source.labels is not None else -1
    name = str(source.classes[label]) if label >= 0 else Path(source.ids_at(row)).name
    if isinstance(source, ImageSource):
        return html.figure(source.image(row), before + name, kind=kind)
    words = (
        " | ".join(source.texts[source.rows[row]])
        if isinstance(source, TextSource)
        else source.ids_at(row)
    )
    return html.figure(None, before + (words if len(words) < 80 else words[:79] + "…"), kind=kind)


def _provenance(loaded: Loaded) -> dict[str, Any]:
    manifest = loaded.run.manifest
    data, hardware = manifest["data"], manifest.get("hardware") or {}
    return {
        "run": loaded.run.path,
        "method": manifest["method"],
        "data": data.get("name"),
        "fingerprint of the data": data.get("fingerprint"),
        "licence of the data": data.get("licence") or "unknown",
        "files left out": len(manifest.get("skipped") or data.get("skipped") or ()),
        "steps": f"{manifest.get('step', 0):,}",
        "seconds": manifest.get("seconds", "-"),
        "hardware": ", ".join(f"{k} {v}" for k, v in hardware.items()),
        "versions": ", ".join(f"{k} {v}" for k, v in (manifest.get("versions") or {}).items()),
        "settings that matter": ", ".join(
            f"{k} {manifest['config'].get(k)}" for k in ("encoder", "epochs", "batch_size", "lr", "seed", "init")
            if manifest["config"].get(k) is not None
        ),
    }  # fmt: skip


def _save(out: Path, text: str) -> None:
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        if out.is_dir():
            raise IsADirectoryError(None, "it is a folder; --out names a file")
        with replacing(out) as work:
            work.write_text(text, encoding="utf-8")
    except OSError as error:
        raise DataError(
            f"cannot write {out}: {error.strerror or os.strerror(error.errno or 0)}"
        ) from error
