"""What `search` and `embed` do: a run's items as vectors, and the look-alikes of a query among them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..data import ImageSource, SequenceSource, Source, TextSource, audio, image_packing, series
from ..data.files import is_file
from ..encoders import AnyEncoder, TextEncoder
from ..encoders.inference import Output
from ..errors import DataError, require
from ..runtime.console import Console
from ..training.loading import Loaded
from ..views import evaluation_view, first_view
from .choices import IndexKind
from .embeddings import Embeddings, embed
from .index import Index


def embedded(loaded: Loaded, source: Source, output: Output, console: Console) -> Embeddings:
    """The vectors of a source by the encoder of a run."""
    with console.track("embedding", len(source)) as advance:
        found = embed(
            loaded.encoder, source, output=output, progress=lambda done: advance(done, source.many)
        )
    found.provenance["method"] = loaded.run.manifest["method"]
    return found


def stored(loaded: Loaded, source: Source, console: Console) -> Embeddings:
    """The features of the run's source: from its folder, or made and kept there."""
    folder = loaded.run.path / "embeddings"
    step = loaded.run.manifest.get("step")
    if (folder / "items.npz").exists():
        try:
            kept = Embeddings.load(folder)
        except (
            DataError
        ) as error:  # an earlier save was cut off, or a file is damaged: they are made again
            console.say(str(error))
        else:
            if (
                kept.provenance.get("step") == step
                and kept.provenance.get("fingerprint") == source.fingerprint
            ):
                return kept
    found = embedded(loaded, source, "features", console)
    found.provenance["step"] = step
    found.save(folder)
    return found


def index_of(loaded: Loaded, source: Source, kind: IndexKind, console: Console) -> Index:
    """The index of a run's items: exact over the kept features, or an approximate one, built once and kept."""
    vectors = stored(loaded, source, console)
    folder = loaded.run.path / "embeddings"
    if kind == "exact":
        return Index(vectors)
    try:
        index = Index.load(folder)
    except DataError as error:
        console.say(str(error))
    else:
        if index.kind == kind:
            return index
    index = Index(vectors, kind=kind)
    index.save(folder)
    console.say(
        f"built the {kind} index of {len(index):,} {source.many}: recall {index.recall:.3f} of the exact 10 nearest"
    )
    return index


def query(name: str | Path, places: dict[str, int], source: Source, encoder: AnyEncoder) -> Any:
    """What a query names, as a batch of one that `source` could have read.

    The id of an item at its place, a file of the source's kind, or a sentence.

    Raises:
        DataError: neither, or a damaged file.
    """
    path = Path(name)
    if str(name) in places and not is_file(name):
        return first_view(source, source.read(torch.tensor([places[str(name)]])))
    if isinstance(source, TextSource) and isinstance(encoder, TextEncoder):
        return encoder.prepared(
            replace(source, texts=[(str(name),)], rows=np.zeros(1, np.int64))
        ).read(torch.tensor([0]))
    if not is_file(name):
        example = random.Random(0).choice(source.ids)
        raise DataError(
            f"{name} is neither a file nor the id of an item (such as {example}) of {source.name}"
        )
    try:
        if isinstance(source, ImageSource):
            picture, _ = image_packing.decode(path, source.channels)
            first = source.rows[
                0
            ]  # packed items have one short side, with a margin for crops or without
            short = min(source.pixels.height[first], source.pixels.width[first])
            image = np.asarray(image_packing.fit(picture, int(short)))
            return torch.tensor(image if image.ndim == 3 else image[:, :, None]).permute(2, 0, 1)[
                None
            ]
        if isinstance(source, SequenceSource):
            values = audio.decode(path, source.rate)[0] if source.rate else series.read_table(path)
            if values.shape[1] != source.channels or not np.isfinite(values).all():
                raise DataError(f"{source.channels} channel(s) of finite values are needed")
            return {"values": torch.from_numpy(values), "length": torch.tensor([len(values)])}
    except Exception as error:  # the decoders raise many kinds on a damaged file
        raise DataError(f"{path} cannot be read as {source.one}: {error}") from error
    raise DataError(f"{source.name} holds {source.many}, of which nothing but an id can be a query")


@torch.inference_mode()
def features(loaded: Loaded, source: Source, batch: Any) -> np.ndarray[Any, Any]:
    """(F,) the features of a batch of one."""
    view = batch if isinstance(source, TextSource) else evaluation_view(source, batch)
    found: np.ndarray[Any, Any] = loaded.encoder.features(view)[0].numpy()
    return found


def picture(source: ImageSource, batch: Any) -> np.ndarray[Any, Any]:
    """(h, w, C) uint8 of a batch of one."""
    found: np.ndarray[Any, Any]
    if isinstance(batch, dict):
        found = batch["pixels"].view(int(batch["height"]), int(batch["width"]), -1).numpy()
    else:
        found = batch[0].permute(1, 2, 0).numpy()
    return found


def neighbours(
    index: Index,
    vectors: np.ndarray[Any, Any],
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


def described(source: Source, row: int, similarity: float) -> dict[str, Any]:
    """A look-alike as the user gets it."""
    label = None if source.labels is None else int(source.labels[row])
    name = source.classes[label] if label is not None and label >= 0 else None
    return {
        "id": source.all_ids[source.rows[row]],
        "similarity": round(similarity, 4),
        "label": name,
    }
