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
from ..data.endings import REMEDIES
from ..data.files import is_file
from ..data.source import Array
from ..encoders import AnyEncoder
from ..errors import DataError, require
from ..runtime.console import Console, plural
from ..training.loading import Loaded
from ..views import evaluation_view
from .choices import IndexKind
from .embeddings import Embeddings, check, embed
from .index import Index
from .neighbours import RandomPairs


@dataclass(frozen=True)
class Query:
    """A query.

    Attributes:
        vector: (F,) its features.
        row: its source row if it is an item, which is excluded from its own neighbours; else None.
        batch: the embedded batch of one; None if a stored vector was used.
    """

    vector: Array
    row: int | None
    batch: Any


def embedded(encoder: AnyEncoder, source: Source, console: Console) -> Embeddings:
    """Compute the features (S, F) of a source, with a progress bar."""
    with console.track("embedding", len(source)) as advance:
        return embed(encoder, source, progress=lambda done: advance(done, source.many))


def stored(loaded: Loaded, source: Source, console: Console) -> Embeddings:
    """Return the features of a run's source, read from the run folder or computed and saved there.

    Args:
        loaded: the run and its encoder.
        source: S items.
        console: where progress is printed.
    """
    folder = loaded.run.embeddings_folder
    step = loaded.run.manifest.get("step")
    if (folder / "items.npz").exists():
        try:
            kept = Embeddings.load(folder)
        except DataError as error:  # damaged: compute them again
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
    """Return an index, loaded from a folder or built and saved there.

    Args:
        vectors: the items.
        folder: where the index is saved; None: it is not saved.
        kind: kind of index.
        many: plural noun for the items, for the message.
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
    """Save a result in a run; if the run cannot be written, say so and continue."""
    try:
        save()
    except DataError as error:
        console.say(f"the index was not stored and will be built again next time: {error}")


def query(name: str | Path, places: dict[str, int], source: Source, encoder: AnyEncoder) -> Any:
    """Decode a query to a batch of one, in the form that `source` reads.

    Args:
        name: the id of an item, a file, or a sentence, depending on the modality.
        places: source row of each id.
        source: the items to search.
        encoder: the encoder of the run.

    Raises:
        DataError: `name` is neither an id nor readable.
    """
    if str(name) in places and not is_file(name):
        return source.read(torch.tensor([places[str(name)]]))
    return modality_of(source).decode_query(name, source, encoder)


def file_query(name: str | Path, source: Source, decode: Callable[[Path], Any]) -> Any:
    """Decode a file to a batch of one.

    Args:
        name: path of the file.
        source: the items to search.
        decode: maps a path to a batch; any exception means that the file cannot be read.

    Raises:
        DataError: the file does not exist or cannot be read.
    """
    if not is_file(name):
        example = random.Random(0).choice(source.ids)
        raise DataError(
            f"{name} is neither a file nor the id of an item (such as {example}) of {source.name}"
        )
    try:
        return decode(Path(name))
    except Exception as error:  # decoders raise many kinds on a damaged file
        ending = Path(name).suffix.lower()
        remedy = f" ({ending} files are {REMEDIES[ending]})" if ending in REMEDIES else ""
        raise DataError(f"{name} cannot be read as {source.one}: {error}{remedy}") from error


def image_query(path: Path, source: ImageSource) -> Tensor:
    """Read an image file (1, C, H, W) uint8, scaled as the images of the source."""
    # packed images share one short side, with or without a margin for crops
    first = source.rows[0]
    short = min(source.pixels.height[first], source.pixels.width[first])
    reading = source.reading or image_packing.Reading()
    image, _, _ = image_packing.read_image(path, source.channels, int(short), reading)
    return torch.tensor(image).permute(2, 0, 1)[None]


def sequence_query(values: Array, source: SequenceSource) -> dict[str, Tensor]:
    """Convert a sequence (T, C) to a batch of one.

    Args:
        values: (T, C).
        source: the items to search.

    Raises:
        DataError: the number of channels differs, or a value is not finite.
    """
    if values.shape[1] != source.channels or not np.isfinite(values).all():
        raise DataError(f"the query needs {plural(source.channels, 'channel')} of finite values")
    return {"values": torch.from_numpy(values), "length": torch.tensor([len(values)])}


def sentence_query(text: str, source: TextSource, encoder: AnyEncoder) -> Any:
    """Tokenise a sentence for the encoder, repeated in every column of the source."""
    one = replace(source, texts=[(text,) * source.columns], rows=np.zeros(1, np.int64))
    return encoder.prepared(one).read(torch.tensor([0]))


@torch.inference_mode()
def features(encoder: AnyEncoder, source: Source, batch: Any) -> Array:
    """Return the features (F,) of a batch of one."""
    found: Array = encoder.features(evaluation_view(source, batch))[0].numpy()
    return found


def picture(source: ImageSource, batch: Any) -> Array:
    """Return the image (h, w, C) uint8 of a batch of one."""
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
    """Find the k nearest items of each query, without the query itself.

    Args:
        index: the items.
        vectors: (Q, F) queries.
        own: source row of each query, None for queries that are no items.
        k: neighbours of each query, 1 or more.
        threshold: least cosine similarity, in [-1, 1].

    Returns:
        For each query its (row, similarity) pairs, most similar first.

    Raises:
        ConfigError: k or threshold is out of range.
    """
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
    """Describe a neighbour with plain values.

    Args:
        source: the items.
        row: source row of the neighbour.
        similarity: cosine similarity to the query.
        pairs: similarities of random pairs, the reference for the percentile.
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
    """Return the sentences of an item, or the begin and end of a sound or series in its file."""
    details = modality_of(source).details(source, row)
    details.pop("curves", None)
    if texts := details.pop("texts", None):
        details["text"] = " | ".join(texts)
    if "begin" in details:
        details["file"] = str(source.file(row)) if source.all_files else source.ids_at(row)
    return details
