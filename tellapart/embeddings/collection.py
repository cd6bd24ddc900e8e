"""Items with their vectors: what `search`, `explore` and `report` work on.

A collection comes from a run, from any other encoder over named data, or from saved vectors.

Shapes: S items, F feature width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..data import Source, kind_of, open_source
from ..data.files import is_file
from ..encoders import AnyEncoder, prepared
from ..errors import ConfigError, DataError
from ..runtime import plugins
from ..runtime.console import Console
from ..training import loading
from ..training.run import Run
from . import search
from .choices import IndexKind
from .embeddings import Embeddings, check
from .index import Index
from .neighbours import RandomPairs


@dataclass(frozen=True)
class Collection:
    """Items and their vectors, in the same order.

    Attributes:
        name: the run folder, encoder or file of vectors, as the user named it.
        source: S items; for vectors without data it has only ids and labels.
        vectors: their features (S, F).
        encoder: embeds queries; None for saved vectors.
        run: the run; None if the encoder was not trained here.
        folder: where derived results are saved; None: they are not saved.
    """

    name: str
    source: Source
    vectors: Embeddings
    encoder: AnyEncoder | None = None
    run: Run | None = None
    folder: Path | None = None

    def index(self, kind: IndexKind, console: Console) -> Index:
        """Return an index of the vectors; an approximate index of a run is built once and saved.

        Args:
            kind: kind of index.
            console: where the recall of a new index is printed.
        """
        if kind == "exact":
            return Index(self.vectors)
        return search.kept_index(self.vectors, self.folder, kind, self.source.many, console)

    def query(self, name: str | Path, rows: dict[str, int]) -> search.Query:
        """Convert a query to a vector.

        Args:
            name: the id of an item, a file of the same kind as the data, or a sentence.
            rows: source row of each id.

        Raises:
            DataError: `name` is neither an id nor readable, or there is no encoder to embed a file.
        """
        row = None if is_file(name) else rows.get(str(name))
        if self.encoder is None:
            if row is None:
                raise DataError(
                    f"{name} is not the id of an item of {self.name} (such as "
                    f"{self.source.ids_at(0)}); vectors without an encoder are searched by id"
                )
            return search.Query(self.vectors.vectors[row], row, None)
        batch = search.query(name, rows, self.source, self.encoder)
        return search.Query(search.features(self.encoder, self.source, batch), row, batch)


def open_collection(
    what: Any,
    data: str | None = None,
    *,
    checkpoint: str = "last",
    encoder: Any = None,
    width: int = 16,
    image_size: int | None = None,
    console: Console | None = None,
) -> Collection:
    """Open a run, any other encoder, or saved vectors, and embed the items if necessary.

    Args:
        what: a run folder, timm/NAME, torchvision/NAME, a file of weights, or vectors (.npz,
            .parquet, or a folder that `embed` wrote).
        data: the items; default: the data of the run. With vectors: the data they belong to.
        checkpoint: of a run: "last", "best-unlabelled" or a file of weights.
        encoder: architecture of the checkpoint, if it cannot be inferred.
        width: base width of small-resnet in a file of weights.
        image_size: side of a view in pixels.
        console: where progress is printed.

    Raises:
        ConfigError: the name is unknown, or an encoder has no data.
        DataError: the data are missing, or do not belong to the vectors.
        RunError: the run is damaged.
    """
    console = console or Console()
    if not isinstance(what, str | Path) or plugins.is_name(what):
        return _of_encoder(what, data, encoder, width, image_size, console)
    path = Path(what)
    if loading.is_embeddings(path) and not (path / "run.json").is_file():
        return _of_vectors(path, data, console)
    if (path / "run.json").is_file() or (path.is_dir() and not (path / "config.json").is_file()):
        run = Run.open(path)
        if encoder is not None:
            loading.remember_network(run, encoder)
        return _of_run(run, data, checkpoint, console)
    return _of_encoder(what, data, encoder, width, image_size, console)


def _of_encoder(
    what: Any,
    data: str | None,
    encoder: Any,
    width: int,
    image_size: int | None,
    console: Console,
) -> Collection:
    """Embed named data with an encoder that belongs to no run."""
    subject = loading.open_subject(
        what,
        encoder=encoder,
        width=width,
        image_size=image_size,
        kind=kind_of(data or ""),
    )
    if data is None:
        raise ConfigError(f"{what} has no data of its own; pass --data")
    source = prepared(
        subject.encoder, loading.source_of(subject, data, image_size, console.progress)
    )
    return Collection(
        subject.name, source, search.embedded(subject.encoder, source, console), subject.encoder
    )


def _of_run(run: Run, data: str | None, checkpoint: str, console: Console) -> Collection:
    loaded = loading.Loaded(loading.load_encoder(run, checkpoint), run)
    try:
        source = prepared(loaded.encoder, loaded.source(data, console=console))
    except DataError as error:
        if data is not None:
            raise
        raise DataError(
            f"{error}\n{run.path} was trained on {run.manifest['data']['name']}: restore it, "
            "or give its new place with --data"
        ) from error
    own = source.fingerprint == run.manifest["data"]["fingerprint"]
    if data is None and not own:
        console.say(f"{source.name} has changed since {run.path} was trained on it")
    if (data is None or own) and checkpoint == "last":
        vectors = search.stored(loaded, source, console)
        return Collection(
            str(run.path), source, vectors, loaded.encoder, run, run.embeddings_folder
        )
    vectors = search.embedded(loaded.encoder, source, console)
    return Collection(str(run.path), source, vectors, loaded.encoder, run)


def _of_vectors(path: Path, data: str | None, console: Console) -> Collection:
    vectors = Embeddings.load(path)
    if not len(vectors):
        raise DataError(f"{path} holds no items")
    if data is None:
        return Collection(str(path), _bare(path, vectors), vectors)
    source = open_source(data, progress=console.progress)
    rows = {name: row for row, name in enumerate(source.ids)}
    lost = [name for name in vectors.ids if name not in rows]
    if lost:
        raise DataError(
            f"{len(lost):,} of {len(vectors):,} ids of {path} are not in {data}, the first: "
            f"{lost[0]!r}; leave out --data to work on the vectors alone"
        )
    return Collection(str(path), source.subset(np.array([rows[i] for i in vectors.ids])), vectors)


def _bare(path: Path, vectors: Embeddings) -> Source:
    """Return a source with the ids and labels of saved vectors, which has no content to read."""
    known = -1 if vectors.labels is None else int(vectors.labels.max(initial=-1))
    names = vectors.provenance.get("classes")
    named = isinstance(names, list) and len(names) > known
    return Source(
        name=str(vectors.provenance.get("data") or path), all_ids=vectors.ids,
        all_labels=vectors.labels if known >= 0 else None,
        classes=list(map(str, names or [])) if named else [str(i) for i in range(known + 1)],
        parts={},
        fingerprint=f"vectors-{check(vectors.vectors):08x}",
    )  # fmt: skip


def find(
    collection: Collection,
    queries: Sequence[search.Query],
    *,
    k: int,
    threshold: float,
    kind: IndexKind,
    console: Console,
) -> list[list[dict[str, Any]]]:
    """Find the nearest items of each query.

    Args:
        collection: the items.
        queries: from `Collection.query`.
        k: neighbours of each query.
        threshold: least cosine similarity.
        kind: kind of index.
        console: where progress is printed.

    Returns:
        For each query its neighbours, most similar first: {"id", "similarity", "percentile" (% of
        random pairs that are less similar), "random_pairs" ({"mean", "std"}), "label"}. Sentences
        add "text"; sounds and series add "begin", "end" and "unit".
    """
    source, items = collection.source, collection.index(kind, console)
    vectors = np.stack([query.vector for query in queries])
    own = [query.row for query in queries]
    near = search.neighbours(items, vectors, own, min(k, len(source)), threshold)
    pairs = RandomPairs.of(collection.vectors.vectors)
    return [
        [search.described(source, row, similarity, pairs) for row, similarity in best]
        for best in near
    ]
