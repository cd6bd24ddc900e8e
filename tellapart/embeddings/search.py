"""Search: the stored vectors of a run, queries as vectors, and their nearest items."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..data import ImageSource, SequenceSource, Source, TextSource, image_packing, modality_of
from ..data.files import is_file
from ..data.source import Array
from ..encoders import AnyEncoder
from ..errors import DataError, require
from ..runtime.console import Console
from ..training.loading import Loaded
from ..views import evaluation_view
from .choices import IndexKind
from .embeddings import Embeddings, check, embed
from .index import Index
from .neighbours import RandomPairs


@dataclass(frozen=True)
class Query:
    """What is searched for.

    Attributes:
        vector: (F,) its features.
        row: its source row where it is an item, which is then left out of its own neighbours.
        batch: what was embedded, a batch of one; None where a stored vector was taken.
    """

    vector: Array
    row: int | None
    batch: Any


def embedded(encoder: AnyEncoder, source: Source, console: Console) -> Embeddings:
    """Embed a source, with a progress bar: its features (S, F)."""
    with console.track("embedding", len(source)) as advance:
        return embed(encoder, source, progress=lambda done: advance(done, source.many))


def stored(loaded: Loaded, source: Source, console: Console) -> Embeddings:
    """The features of a run's source: read from its folder, or computed and kept there."""
    folder = loaded.run.embeddings_folder
    step = loaded.run.manifest.get("step")
    if (folder / "items.npz").exists():
        try:
            kept = Embeddings.load(folder)
        except DataError as error:  # damaged: they are computed again
            console.say(str(error))
        else:
            about = kept.provenance
            if about.get("step") == step and about.get("fingerprint") == source.fingerprint:
                return kept
    vectors = embedded(loaded.encoder, source, console)
    vectors.provenance.update(method=loaded.run.manifest["method"], step=step)
    _keep(lambda: vectors.save(folder), console)
    return vectors


def kept_index(
    vectors: Embeddings, folder: Path | None, kind: IndexKind, many: str, console: Console
) -> Index:
    """An index of vectors: read from a folder, or built and kept there.

    Args:
        vectors: the items.
        folder: where it is kept, None: nowhere.
        kind: of the index.
        many: the items in the plural, for the message.
        console: where its recall is printed.
    """
    if folder is not None and (folder / "index.json").is_file():
        try:
            index = Index.load(folder)
        except DataError as error:
            console.say(str(error))
        else:
            if index.kind == kind and check(index.embeddings.vectors) == check(vectors.vectors):
                return index
    index = Index(vectors, kind=kind)
    if folder is not None:
        _keep(lambda: index.save(folder), console)
    console.say(
        f"built the {kind} index of {len(index):,} {many}: recall {index.recall:.3f} of the exact "
        "10 nearest"
    )
    return index


def _keep(save: Callable[[], None], console: Console) -> None:
    """Keep a result in a run; a run that cannot be written is searched all the same."""
    try:
        save()
    except DataError as error:
        console.say(f"not stored, so it is computed again next time: {error}")


def query(name: str | Path, places: dict[str, int], source: Source, encoder: AnyEncoder) -> Any:
    """A query as a batch of one that `source` could have read.

    Args:
        name: the id of an item, or what the modality decodes: a file, or a sentence.
        places: id of each item -> its source row.
        source: the items to search.
        encoder: that of the run.
    Raises:
        DataError: neither an id nor readable.
    """
    if str(name) in places and not is_file(name):
        return source.read(torch.tensor([places[str(name)]]))
    return modality_of(source).decode_query(name, source, encoder)


def file_query(name: str | Path, source: Source, decode: Callable[[Path], Any]) -> Any:
    """A file as a batch of one.

    Args:
        name: path of the file.
        source: the items to search.
        decode: path -> batch; any exception means that the file cannot be read.
    Raises:
        DataError: no such file, or it cannot be read.
    """
    if not is_file(name):
        example = random.Random(0).choice(source.ids)
        raise DataError(
            f"{name} is neither a file nor the id of an item (such as {example}) of {source.name}"
        )
    try:
        return decode(Path(name))
    except Exception as error:  # decoders raise many kinds on a damaged file
        raise DataError(f"{name} cannot be read as {source.one}: {error}") from error


def image_query(path: Path, source: ImageSource) -> Tensor:
    """An image file (1, C, H, W) uint8, packed as the images of the source."""
    # packed images share one short side, with or without a margin for crops
    first = source.rows[0]
    short = min(source.pixels.height[first], source.pixels.width[first])
    reading = source.reading or image_packing.Reading()
    image, _, _ = image_packing.read_image(path, source.channels, int(short), reading)
    return torch.tensor(image).permute(2, 0, 1)[None]


def sequence_query(values: Array, source: SequenceSource) -> dict[str, Tensor]:
    """A sequence (T, C) as a batch of one.

    Raises:
        DataError: other channels than the source has, or values that are not finite.
    """
    if values.shape[1] != source.channels or not np.isfinite(values).all():
        raise DataError(f"{source.channels} channel(s) of finite values are needed")
    return {"values": torch.from_numpy(values), "length": torch.tensor([len(values)])}


def sentence_query(text: str, source: TextSource, encoder: AnyEncoder) -> Any:
    """A sentence as tokens of the encoder, in every column of the source."""
    one = replace(source, texts=[(text,) * source.columns], rows=np.zeros(1, np.int64))
    return encoder.prepared(one).read(torch.tensor([0]))


@torch.inference_mode()
def features(encoder: AnyEncoder, source: Source, batch: Any) -> Array:
    """(F,) the features of a batch of one."""
    found: Array = encoder.features(evaluation_view(source, batch))[0].numpy()
    return found


def picture(source: ImageSource, batch: Any) -> Array:
    """(h, w, C) uint8 of a batch of one."""
    found: Array
    if isinstance(batch, dict):
        found = batch["pixels"].view(int(batch["height"]), int(batch["width"]), -1).numpy()
    else:
        found = batch[0].permute(1, 2, 0).numpy()
    return found


def neighbours(
    index: Index,
    vectors: Array,
    own: Sequence[int | None],
    k: int,
    threshold: float = -1.0,
) -> list[list[tuple[int, float]]]:
    """Rows and similarities of the k nearest that are similar enough, the query itself left out."""
    require(k >= 1, f"--k must be 1 or more, got {k}")
    require(-1 <= threshold <= 1, f"--threshold is a cosine similarity in -1..1, got {threshold}")
    similarity, row = index.search(vectors, min(k + 1, len(index)))
    return [
        [
            (int(r), float(s))
            for r, s in zip(rows, values, strict=True)
            if int(r) not in (mine, -1) and s >= threshold
        ][:k]
        for rows, values, mine in zip(row, similarity, own, strict=True)
    ]


def described(source: Source, row: int, similarity: float, pairs: RandomPairs) -> dict[str, Any]:
    """A neighbour in plain values.

    Args:
        source: the items.
        row: its source row.
        similarity: cosine similarity with the query.
        pairs: similarities of random pairs, which say how high this one is.
    """
    label = -1 if source.labels is None else int(source.labels[row])
    percentile = pairs.percentile(similarity)
    return {
        "id": source.ids_at(row),
        "similarity": round(similarity, 4),
        "percentile": None if percentile is None else round(percentile, 2),
        "random_pairs": pairs.to_dict(),
        "label": source.classes[label] if 0 <= label < len(source.classes) else None,
        **content(source, row),
    }


def content(source: Source, row: int) -> dict[str, Any]:
    """What an item says: its sentences, or where in its file a sound or series begins and ends."""
    details = modality_of(source).details(source, row)
    details.pop("curves", None)
    if texts := details.pop("texts", None):
        details["text"] = " | ".join(texts)
    if "begin" in details:
        details["file"] = str(source.file(row)) if source.all_files else source.ids_at(row)
    return details
