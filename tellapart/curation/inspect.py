"""Inspect a source before training: contents, duplicates, outliers, labels, defaults.

Shapes: S items, N of a batch, K neighbours.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..data import ImageSource, Source, TextSource, modality_of
from ..data.files import is_file
from ..data.sampler import steps_per_epoch
from ..embeddings.embeddings import embed
from ..errors import ConfigError, DataError
from ..functional import top_k
from ..functional.geometry import unit_rows
from ..runtime.console import Console, plural
from ..training import loading
from ..training.config import CommonConfig
from ..training.presets import named_start, recommended
from ..training.resolve import open_for, resolve, training_part
from . import duplicates, outliers, summary

LISTED = 100  # groups, leaks, outliers and labels that are named
FEW_ITEMS, TINY, LOPSIDED = 1000, 16, 10.0
START = {  # how a kind of data can start from trained weights
    "images": "; start from pretrained weights: --init timm/NAME",
    "text": "; start from a pretrained language model: --encoder FOLDER",
}


@dataclass(frozen=True)
class Seen:
    """An inspected source: the result, and what a page needs to show it.

    Attributes:
        result: plain values.
        source: the items.
        copies: groups of duplicates, as positions.
        near: (S, K) positions of the nearest others of each item.
    """

    result: dict[str, Any]
    source: Source
    copies: duplicates.Copies
    near: Tensor


def inspect_source(
    data: str,
    *,
    method: str | None = None,
    encoder: str | None = None,
    apply: Path | None = None,
    reading: Mapping[str, Any] | None = None,
    console: Console,
) -> Seen:
    """Inspect a source before training.

    Args:
        data: as `data.open_source`.
        method: the method whose defaults are shown; None: the usual one for this kind of data.
        encoder: a run folder, timm/NAME or a file of weights whose features find neighbours; None:
            the contents do.
        reading: settings of `data.options.ReadOptions` that differ from the usual ones, and
            `verify` as for `data.open_source`.
        apply: a new file that lists the items without their duplicates; `--data` takes it.
        console: shows progress.

    Raises:
        DataError: nothing usable in the source, or `apply` exists or cannot be written.
        ConfigError: a method or an encoder that does not fit these data.
    """
    if apply is not None:
        _check_new(apply, data)
    method = method or recommended(data)
    settings = resolve(method, data, None, None, dict(reading or {}))
    source = open_for(data, settings, console.progress)
    console.say(f"comparing {len(source):,} {source.many}")
    modality = modality_of(source)
    looks = modality.comparison(source)
    vectors = modality.content_vectors(source, looks)
    k = min(outliers.NEIGHBOURS, len(source) - 1)
    similarity, near = top_k.top_k_of_others(vectors, k)
    candidates, by = near, modality.neighbours_by
    if encoder:
        by = encoder
        similarity, near = _by_encoder(encoder, data, source, console)
        candidates = torch.cat([near[:, :10], candidates[:, :10]], 1)
    copies = duplicates.find(source, candidates, looks)
    result: dict[str, Any] = {"data": data, "fingerprint": source.fingerprint, "neighbours_by": by}
    result |= summary.describe(source, data)
    result["duplicates"] = _copies_named(source, copies)
    result["outliers"] = _outliers(source, similarity)
    result["labels"] = _odd_labels(source, near)
    result["training"] = _training(method, data, source, settings, copies)
    result["verdict"] = verdict(result)
    if apply is not None:
        keep = duplicates.kept(copies, source.splits, len(source))
        result["applied"] = _write_list(apply, source, data, keep)
        console.say(f"{apply}: {len(keep):,} of {len(source):,} {source.many}; nothing was deleted")
    return Seen(result, source, copies, near)


def verdict(result: dict[str, Any]) -> str:
    """The verdict before training, in one sentence.

    Args:
        result: what `inspect_source` found.
    """
    copies, training = result["duplicates"], result["training"]
    items = result["counts"]["items"]
    parts = [f"No duplicates among {items:,} items"]
    if copies["extra"]:
        exact = copies["exact"]["extra"]
        parts = [f"{copies['extra']:,} of {items:,} items duplicate another ({exact:,} exactly)"]
    if leaks := copies["leaks"]["items"]:
        parts.append(
            f"{plural(leaks, 'training item')} {'is' if leaks == 1 else 'are'} also in the test "
            "part, so test scores would be optimistic"
        )
    if files := result["skipped"]["files"]:
        parts.append(f"{files:,} could not be used")
    if training["false_negatives"]["item"] >= 0.01:
        parts.append(
            f"{training['false_negatives']['item']:.0%} of the items of a batch meet a duplicate, "
            "which contrastive learning treats as a negative"
        )
    return "; ".join(parts) + "."


def word_vectors(texts: list[str]) -> Tensor:
    """(S, D) unit rows: TF-IDF of words and pairs of words, projected to at most 64 axes."""
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer

    try:
        table = TfidfVectorizer(
            ngram_range=(1, 2), max_features=50_000, token_pattern=r"(?u)\b\w+\b"
        ).fit_transform(texts)
    except ValueError:  # no word in any of them
        return torch.zeros(len(texts), 1)
    if min(table.shape) <= 64:
        return unit_rows(torch.from_numpy(table.toarray()).float())
    reduced = TruncatedSVD(64, random_state=0).fit_transform(table)
    return unit_rows(torch.from_numpy(reduced).float())


def _by_encoder(name: str, data: str, source: Source, console: Console) -> tuple[Tensor, Tensor]:
    """Similarities and positions of the nearest others by an encoder's features."""
    subject = loading.open_subject(name)
    if subject.encoder is None:
        raise ConfigError(
            f"{name} holds vectors; --encoder names a run, timm/NAME or a file of weights"
        )
    seen = loading.source_of(subject, data, None, progress=console.progress)
    if seen.ids != source.ids:
        raise ConfigError(
            f"{name} reads other items of {data} than training would; inspect without --encoder"
        )
    with console.track("embedding", len(seen)) as advance:
        found = embed(subject.encoder, seen, progress=lambda done: advance(done, seen.many))
    return outliers.neighbours(found)


def _copies_named(source: Source, copies: duplicates.Copies) -> dict[str, Any]:
    labels = source.labels

    def group(members: list[int]) -> list[str]:
        return [source.ids_at(i) for i in members]

    def named(groups: list[list[int]]) -> dict[str, Any]:
        return {
            "groups": len(groups),
            "items": sum(map(len, groups)),
            "extra": sum(len(g) - 1 for g in groups),
            "first": [group(g) for g in groups[:LISTED]],
        }

    leaks = duplicates.leaks(copies, source.splits)
    told = [
        {
            "train": source.ids_at(int(x["train"])),
            "test": source.ids_at(int(x["test"])),
            "kind": x["kind"],
        }
        for x in leaks
    ]
    odd = [
        g for g in copies.together if labels is not None and len(set(labels[g].tolist()) - {-1}) > 1
    ]
    return {
        "exact": named(copies.exact),
        "near": named(copies.near),
        "extra": sum(len(g) - 1 for g in copies.together),
        "leaks": {
            "items": len(leaks),
            "exact": sum(x["kind"] == "exact" for x in leaks),
            "first": told[:LISTED],
        },
        "of_several_labels": {"groups": len(odd), "first": [group(g) for g in odd[:LISTED]]},
    }  # fmt: skip


def _outliers(source: Source, similarity: Tensor) -> dict[str, Any]:
    scores = outliers.outlier_scores(similarity)
    order = np.argsort(-scores, kind="stable")[:LISTED]
    return {
        "median": round(float(np.median(scores)), 4),
        "first": [
            {"id": source.ids_at(int(i)), "score": round(float(scores[i]), 4)} for i in order
        ],
    }


def _odd_labels(source: Source, near: Tensor) -> dict[str, Any] | None:
    if source.labels is None:
        return None
    found = outliers.suspect_labels(source.labels, near)
    return {
        "items": len(found),
        "first": [
            {
                "id": source.ids_at(one["row"]), "label": str(source.classes[one["label"]]),
                "neighbours": str(source.classes[one["neighbours"]]), "share": one["share"],
            }
            for one in found[:LISTED]
        ],
    }  # fmt: skip


def _training(
    method: str, data: str, source: Source, settings: CommonConfig, copies: duplicates.Copies
) -> dict[str, Any]:
    """The settings `train` would choose, why, and how often duplicates meet in a batch."""
    part = training_part(source, settings)
    batch = min(settings.batch_size, len(part))
    inside = set(part.rows.tolist())
    sizes = [sum(int(source.rows[i]) in inside for i in group) for group in copies.together]
    risk = duplicates.in_a_batch([s for s in sizes if s > 1], len(part), batch)
    if shared := modality_of(part).shared(part):
        colliding = duplicates.collisions(shared, len(part), batch)
        risk = max(risk, colliding, key=lambda found: found["item"])
    steps = settings.steps or max(1, round(settings.epochs * steps_per_epoch(len(part), batch)))
    preset = named_start(method, data)
    chosen: dict[str, Any] = {"method": method, "preset": preset, "items": len(part)}
    facts, _, _ = modality_of(source).training_facts(source)
    chosen |= facts | {
        "batch_size": batch,
        "epochs": settings.epochs,
        "steps": steps,
        "encoder": settings.encoder,
        "lr": settings.lr,
    }
    return {
        **chosen,
        "why": _reasons(source, chosen),
        "false_negatives": {name: round(value, 6) for name, value in risk.items()},
        "warnings": _warnings(source, part, settings, steps),
    }


def _reasons(source: Source, chosen: dict[str, Any]) -> dict[str, str]:
    split = (
        "the training part"
        if "train" in source.splits and len(source.splits) > 1
        else "all of them"
    )
    why = {
        "preset": f"the settings of {chosen['method']} for {source.kind}",
        "items": f"{split}, {chosen['items']:,} of {len(source):,} {source.many}",
        "batch_size": "that of the preset, at most as many as there are items",
        "steps": (
            f"{chosen['epochs']:g} epochs of {chosen['items']:,} items in batches of "
            f"{chosen['batch_size']:,}"
        ),
    }
    return why | modality_of(source).training_facts(source)[1]


def image_facts(source: ImageSource) -> tuple[dict[str, Any], dict[str, str], list[str]]:
    """The size of a view, why it was chosen, and warnings about tiny or grey images."""
    size = source.image_size
    why = (
        "the side of these images"
        if source.pixels.shape == (size, size)
        else "their own side up to 64 pixels, 64 or 224 (by the network) for larger ones"
    )
    warnings = []
    side = int(min(source.pixels.height.min(), source.pixels.width.min()))
    if side < TINY:
        warnings.append(
            f"the smallest image has a side of {plural(side, 'pixel')}: crops of it show little"
        )
    if source.channels == 1:
        warnings.append("the images are gray: --hue, --saturation and --grayscale change nothing")
    return {"image_size": size}, {"image_size": why}, warnings


def _warnings(source: Source, part: Source, settings: CommonConfig, steps: int) -> list[str]:
    found = []
    if len(part) < FEW_ITEMS:
        found.append(
            f"{len(part):,} {part.many} are few to learn from; 1,000 or more are usual"
            f"{START.get(part.kind, '')}"
        )
    if settings.batch_size > len(part):
        found.append(
            f"the batch of {settings.batch_size:,} is larger than the data and becomes "
            f"{len(part):,}"
        )
    if steps < 200:
        few = "is" if steps == 1 else "are"
        found.append(f"{plural(steps, 'step')} {few} few: raise --epochs")
    found += modality_of(source).training_facts(source)[2]
    if source.labels is not None:
        counts = np.bincount(source.labels[source.labels >= 0], minlength=len(source.classes))
        if counts.max() >= LOPSIDED * max(1, counts.min()):
            most, least = source.classes[int(counts.argmax())], source.classes[int(counts.argmin())]
            found.append(
                f"classes are uneven: {counts.max():,} of {most}, {counts.min():,} of {least}"
            )
    if source.skipped:
        be = "is" if len(source.skipped) == 1 else "are"
        found.append(
            f"{plural(len(source.skipped), 'entry', 'entries')} could not be used and {be} left out"
        )
    return found


def _check_new(path: Path, data: str) -> None:
    if path.exists():
        raise DataError(f"{path} exists and is left as it is; give a new file name")
    if summary.folder_of(data) is None:
        raise DataError(
            f"{data} is a built-in set without files of its own, so {path} would list nothing"
        )


def _write_list(path: Path, source: Source, data: str, keep: list[int]) -> dict[str, Any]:
    """Write a list of files, one path and label a line; of sentences, their lines."""
    lines = modality_of(source).list_lines(source, keep, data, path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "x", encoding="utf-8", errors="surrogateescape") as file:
            file.write("".join(f"{line}\n" for line in lines))
    except OSError as error:
        raise DataError(f"cannot write {path}: {error.strerror}") from error
    return {"file": str(path), "items": len(keep), "dropped": len(source) - len(keep)}


def path_lines(source: Source, positions: Sequence[int]) -> list[str]:
    """A file a line, each once: path, label and split in tabs, as far as the source has them.

    Args:
        source: the items.
        positions: those to keep.
    """
    files = [(source.file(position), position) for position in positions]
    part = _split_names(source)
    lines = (_line(file.parent.resolve() / file.name, source, i, part) for file, i in files)
    return list(dict.fromkeys(lines))


def sentence_lines(source: TextSource, positions: Sequence[int], data: str, out: Path) -> list[str]:
    """The sentences a line each, columns divided by tabs.

    Args:
        source: the items.
        positions: those to keep.
        data: what the user typed.
        out: the file to be written.
    Raises:
        DataError: the source is a folder of documents, or `out` has the wrong extension.
    """
    place = data.removeprefix("text:")
    if not is_file(Path(place).expanduser()):
        raise DataError(
            f"{data} is a folder of documents, which a list cannot name; move the duplicates out "
            "of the folder yourself"
        )
    wanted = ".txt" if source.columns == 1 else ".tsv"
    if out.suffix != wanted:
        raise DataError(f"these sentences need a file that ends in {wanted}, got {out}")
    return ["\t".join(source.texts[source.rows[i]]) for i in positions]


def _split_names(source: Source) -> dict[int, str]:
    """The split of each position; empty where all of the source is one part."""
    if len(source.splits) < 2:
        return {}
    return {int(i): name for name, rows in source.splits.items() for i in rows}


def _line(file: Path, source: Source, position: int, part: Mapping[int, str]) -> str:
    name = str(file.absolute())
    if "\n" in name or "\r" in name:
        raise DataError(f"a list of paths cannot name {name!r}: it has the end of a line in it")
    label = -1 if source.labels is None else int(source.labels[position])
    cells = [name, source.classes[label] if label >= 0 else "", part.get(position, "")]
    while not cells[-1]:
        cells.pop()
    room = io.StringIO()
    csv.writer(room, delimiter="\t", lineterminator="").writerow(cells)
    return room.getvalue()
