"""What `search` and `embed` do: a run's items as vectors, and the look-alikes of a query among them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .console import Console
from .data import ImageSource
from .data.packing import decode, fit
from .embeddings import Embeddings, embed
from .encoders.inference import Output
from .errors import ConfigError, DataError
from .index import Index
from .subjects import Loaded
from .views.images import centre_view


def embedded(loaded: Loaded, source: ImageSource, output: Output, console: Console) -> Embeddings:
    """The vectors of a source by the encoder of a run."""
    with console.track("embedding", len(source)) as advance:
        found = embed(loaded.encoder, source, output=output, progress=lambda done: advance(done, "images"))
    found.provenance["method"] = loaded.run.manifest["method"]
    return found


def stored(loaded: Loaded, source: ImageSource, console: Console) -> Embeddings:
    """The features of the run's source: from its folder, or made and kept there."""
    folder = loaded.run.path / "embeddings"
    step = loaded.run.manifest.get("step")
    if (folder / "items.npz").exists():
        kept = Embeddings.load(folder)
        if kept.provenance.get("step") == step and kept.provenance["fingerprint"] == source.fingerprint:
            return kept
    found = embedded(loaded, source, "features", console)
    found.provenance["step"] = step
    found.save(folder)
    return found


def query(name: str | Path, places: dict[str, int], source: ImageSource) -> np.ndarray[Any, Any]:
    """The image (H, W, C) that a query names: a file, or the id of an item at its place.

    Raises:
        DataError: neither, or a damaged file.
    """
    path = Path(name)
    if not path.is_file():
        if str(name) in places:
            return source.image(places[str(name)])
        example = random.Random(0).choice(source.ids)
        raise DataError(f"{name} is neither a file nor the id of an item (such as {example}) of {source.name}")
    try:
        picture, _ = decode(path, source.channels)
    except Exception as error:  # Pillow raises many kinds on a damaged file
        raise DataError(f"{path} cannot be read as an image: {error}") from error
    image = np.asarray(fit(picture, source.image_size))
    return image if image.ndim == 3 else image[:, :, None]


@torch.inference_mode()
def features(loaded: Loaded, image: np.ndarray[Any, Any], size: int) -> np.ndarray[Any, Any]:
    """(F,) the features of one image (H, W, C)."""
    batch = torch.tensor(image).permute(2, 0, 1)[None]
    found: np.ndarray[Any, Any] = loaded.encoder.features(centre_view(batch, size))[0].numpy()
    return found


def neighbours(
    index: Index, vectors: np.ndarray[Any, Any], own: Sequence[int | None], k: int
) -> list[list[tuple[int, float]]]:
    """Rows and similarities of the k nearest, the query itself left out."""
    if k < 1:
        raise ConfigError(f"--k must be 1 or more, got {k}")
    similarity, row = index.search(vectors, min(k + 1, len(index)))
    return [
        [(int(r), float(s)) for r, s in zip(rows, values, strict=True) if int(r) != mine][:k]
        for rows, values, mine in zip(row, similarity, own, strict=True)
    ]


def described(source: ImageSource, row: int, similarity: float) -> dict[str, Any]:
    """A look-alike as the user gets it."""
    label = None if source.labels is None else int(source.labels[row])
    name = source.classes[label] if label is not None and label >= 0 else None
    return {"id": source.all_ids[source.rows[row]], "similarity": round(similarity, 4), "label": name}
