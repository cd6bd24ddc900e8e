"""Embed a source with any encoder, pooled or by patches; a second run embeds only new files.

Shapes: S items, P patches of an item (1 where features are pooled), F width.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..data import Source
from ..encoders import AnyEncoder
from ..encoders.inference import outputs, patches
from ..errors import ConfigError, DataError
from ..runtime.console import Console
from ..training.loading import Subject, images_of, source_of
from .choices import Wanted as Wanted
from .embeddings import Embeddings

Array = np.ndarray[Any, Any]


def embed_subject(
    subject: Subject,
    data: str | None,
    wanted: Wanted,
    out: Path,
    image_size: int | None,
    console: Console,
) -> tuple[Embeddings, int]:
    """Embed a source; vectors in `out` of the same encoder and unchanged items are reused.

    Args:
        subject: the encoder, with its run if it has one.
        data: what to embed; None: the data of the run.
        wanted: the output to compute.
        out: embeddings written by an earlier call, if any.
        image_size: side of a view in pixels; None: the encoder's default.
        console: where progress is printed.

    Returns:
        The embeddings, one row for each item (or patch, "ID#row,column"), and the number of items
        whose vectors were reused.

    Raises:
        ConfigError: the subject has no encoder, or no such output.
    """
    encoder = subject.encoder
    if wanted == "embedding" and subject.run is None:
        raise ConfigError(
            f"{subject.name} has no trained projection head; use --output features or patches"
        )
    source = source_of(subject, data, image_size, progress=console.progress)
    if wanted == "patches":
        images_of(source, "--output patches")
    made_by = identity(encoder, source, wanted)
    before = _kept(out, made_by)
    place = {h: i for i, h in enumerate(before.provenance["hashes"])} if before else {}
    known = [place.get(h) for h in source.hashes] or [None] * len(source)
    new = np.array([i for i, old in enumerate(known) if old is None], np.int64)
    vectors = _together(
        _vectors(encoder, source, new, wanted, console) if len(new) else None, before, known, new
    )
    about = {
        "data": source.name, "fingerprint": source.fingerprint, "output": wanted,
        "hashes": source.hashes, "made_by": made_by, "encoder": subject.name,
        "classes": list(source.classes), "splits": split_names(source),
    }  # fmt: skip
    if subject.run:
        about["method"] = subject.run.manifest["method"]
    return _rows(vectors, source, about), len(source) - len(new)


def split_names(source: Source) -> list[str | None]:
    """Return the name of the split of each item, None for an item in no split; [] without splits.

    Args:
        source: S items.
    """
    names: list[str | None] = [None] * len(source)
    for name, rows in source.splits.items():
        for row in rows.tolist():
            names[row] = name
    return names if source.splits else []


def identity(encoder: AnyEncoder, source: Source, wanted: Wanted) -> str:
    """Return a digest of everything but the item that determines its vector.

    That is the weights, the settings of the source (such as the view size) and the output.
    """
    return weights_digest(encoder, repr((wanted, source.about)))


def weights_digest(encoder: AnyEncoder, about: str = "") -> str:
    """Return a digest of the weights of an encoder.

    Args:
        encoder: the encoder.
        about: a text that is digested before them.
    """
    digest = hashlib.blake2b(about.encode(), digest_size=16)
    for name, value in sorted(encoder.state_dict().items()):
        digest.update(name.encode())
        digest.update(
            value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes()
        )
    return digest.hexdigest()


def _kept(out: Path, made_by: str) -> Embeddings | None:
    """Load the embeddings of an earlier call; None unless the same encoder produced them."""
    if not (out.is_file() or (out / "items.npz").is_file()):
        return None
    try:
        found = Embeddings.load(out)
    except DataError:
        return None
    hashes = found.provenance.get("hashes")
    return (
        found
        if hashes and found.provenance.get("made_by") == made_by and len(found) % len(hashes) == 0
        else None
    )


def _vectors(
    encoder: AnyEncoder, source: Source, rows: Array, wanted: Wanted, console: Console
) -> Array:
    """Embed the n items at `rows`; returns (n, P, F)."""
    part = source.subset(rows)
    with console.track("embedding", len(part)) as advance:

        def told(done: int) -> None:
            advance(done, part.many)

        if wanted != "patches":
            return outputs(encoder, part, (wanted,), progress=told)[wanted].numpy()[:, None]
        return patches(encoder, part, progress=told).numpy()


def _together(
    made: Array | None, before: Embeddings | None, known: list[int | None], new: Array
) -> Array:
    """Merge new and reused vectors into one array (S, P, F) in the order of the source."""
    if before is None:
        if made is None:
            raise DataError("there are no items to embed")
        return made
    old = before.vectors.reshape(len(before.provenance["hashes"]), -1, before.vectors.shape[1])
    found = np.empty((len(known), *old.shape[1:]), np.float32)
    kept = [i for i, row in enumerate(known) if row is not None]
    found[kept] = old[[row for row in known if row is not None]]
    if made is not None:
        found[new] = made
    return found


def _rows(vectors: Array, source: Source, about: dict[str, Any]) -> Embeddings:
    count = vectors.shape[1]
    if about["output"] != "patches":
        return Embeddings(vectors[:, 0], source.ids, source.labels, about)
    side = round(count**0.5)
    names = [f"{name}#{p // side},{p % side}" for name in source.ids for p in range(count)]
    labels = None if source.labels is None else np.repeat(source.labels, count)
    return Embeddings(vectors.reshape(-1, vectors.shape[2]), names, labels, about)
