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
        name: what the user named: a run folder, an encoder, or a file of vectors.
        source: S items; of vectors without data only ids and labels are known.
        vectors: their features (S, F).
        encoder: what embeds a query, None for saved vectors.
        run: the run, None where there was no training.
        folder: where derived results are kept, None: nowhere.
    """

    name: str
    source: Source
    vectors: Embeddings
    encoder: AnyEncoder | None = None
    run: Run | None = None
    folder: Path | None = None

    def index(self, kind: IndexKind, console: Console) -> Index:
        """The index of the vectors; an approximate one of a run is built once and kept."""
        if kind == "exact":
            return Index(self.vectors)
        return search.kept_index(self.vectors, self.folder, kind, self.source.many, console)

    def query(self, name: str | Path, rows: dict[str, int]) -> search.Query:
        """A query as a vector: the id of an item, a file of the kind of the data, or a sentence.

        Args:
            name: what to look for.
            rows: id -> source row of each item.

        Raises:
            DataError: neither an id nor readable, or a file where there is no encoder.
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
    """Open a run, any other encoder, or saved vectors, and embed the items where that is needed.

    Args:
        what: a run folder, timm/NAME, torchvision/NAME, a file of weights, or vectors (.npz, or a
            folder that `embed` wrote).
        data: the items; by default those of the run. Beside vectors it shows what they belong to.
        checkpoint: of a run: "last", "best-unlabelled" or a file of weights.
        encoder: architecture of a file of weights, if it cannot be inferred.
        width: base width of small-resnet in a file of weights.
        image_size: side of a view in pixels.
        console: where progress is printed.

    Raises:
        ConfigError: nothing known by this name, or an encoder without data.
        DataError: the data are gone, or do not belong to the vectors.
        RunError: a damaged run.
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
    """An encoder that belongs to no run, over named data."""
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
            f"{error}\n{run.path} was trained on {run.manifest['data']['name']}: put it back, or "
            f"say where it is now with --data WHERE"
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
    """Ids and labels of saved vectors as a source that cannot be read."""
    known = -1 if vectors.labels is None else int(vectors.labels.max(initial=-1))
    return Source(
        name=str(vectors.provenance.get("data") or path), all_ids=vectors.ids,
        all_labels=vectors.labels if known >= 0 else None,
        classes=[str(label) for label in range(known + 1)], parts={},
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
    """The nearest items of each query.

    Args:
        collection: the items.
        queries: as `Collection.query` returns them.
        k: neighbours of each query.
        threshold: least cosine similarity.
        kind: of the index.
        console: where progress is printed.

    Returns:
        For each query its neighbours, best first: {"row", "id", "similarity", "percentile" (% of
        random pairs that are less similar), "random_pairs" ({"mean", "std"}), "label"}, and of
        sentences "text", of sounds and series "begin", "end", "unit".
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
