"""The state of the page: items, their map and their colours; what takes long is computed once.

Kept in RUN/embeddings/, each under the step and the fingerprint of the data it was made from.

Shapes: S items, F feature width.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...curation import outliers
from ...embeddings.collection import Collection, open_collection
from ...embeddings.index import Index
from ...embeddings.neighbours import RandomPairs
from ...errors import DataError, MissingExtraError, RunError
from ...functional import tiled
from ...functional.geometry import unit_rows
from ...runtime import files
from ...runtime.console import Console
from ...runtime.text import safe
from ...training.model_card import training_state
from .later import Later

Array = np.ndarray[Any, Any]
CLUSTERS = 10  # where there are no classes to count
TEMPERATURE = 0.07  # of the loss shown per item: InstDisc's
BLOCK = 4096  # rows of that loss at a time
ALIKE = (0.98, 0.99, 0.995, 0.999)  # cosine similarities above which items are shown as nearly one
GROUPS, IN_A_GROUP, LISTED = 24, 12, 60  # shown of each list


class State:
    """A collection opened for the page.

    Args:
        items: the items, their vectors, and the encoder and the run where there are any.
    """

    def __init__(self, items: Collection) -> None:
        self.items, self.run, self.folder = items, items.run, items.folder
        self.source, self.embeddings = items.source, items.vectors
        self.index = Index(self.embeddings)
        count = len(self.source)

        def rows() -> Array:
            return unit_rows(np.asarray(self.embeddings.vectors))

        self.pca = self._kept("map-pca", lambda: centred(principal_map(rows())), (count, 2))
        self.later = Later(
            {
                "map/umap": lambda: self._kept(
                    "map-umap", lambda: centred(umap_map(rows())), (count, 2)
                ),
                "colour/cluster": lambda: self._kept("colour-cluster", self._clusters, (count,)),
                "colour/outlier": lambda: self._kept("colour-outlier", self._outliers, (count,)),
                "colour/loss": lambda: self._kept(
                    "colour-loss", lambda: told_apart(rows()), (count,)
                ),
                "findings": self._findings,
            }
        )

    @classmethod
    def open(
        cls,
        what: str | Path,
        *,
        data: str | None = None,
        console: Console | None = None,
        **options: Any,
    ) -> State:
        """Open a run, another encoder over data, or vectors; `options` as `open_collection`.

        Raises:
            RunError: a damaged run, or one without an encoder.
            ConfigError: an encoder without data.
            DataError: its data are gone.
        """
        return cls(open_collection(what, data, console=console, **options))

    def about(self) -> dict[str, Any]:
        """The facts that the page shows about the run, or about the vectors."""
        manifest, source = self.run.manifest if self.run else {}, self.source
        made_by = self.embeddings.provenance.get("encoder", Path(self.items.name).name)
        return {
            "run": safe(Path(self.items.name).name),
            "command": safe(self.items.name),
            "method": manifest.get("method") or safe(made_by),
            "data": safe(source.name),
            "kind": source.kind,
            "many": source.many,
            "one": source.one,
            "items": len(source),
            "width": int(self.embeddings.vectors.shape[1]),
            "classes": [safe(name) for name in source.classes],
            "labelled": bool(source.labels is not None and (source.labels >= 0).any()),
            "trained": self.run is not None,
            "searchable": self.items.encoder is not None,
            "steps": manifest.get("step"),
            "status": manifest.get("status", "finished"),
            "state": training_state(manifest),
            "verdict": (manifest.get("verdict") or {}).get("sentence"),
            "random_pairs": str(RandomPairs.of(self.embeddings.vectors)),
            "umap": importlib.util.find_spec("umap") is not None,
            "fingerprint": source.fingerprint[:12],
        }

    @property
    def labels(self) -> Array:
        """(S,) float32, -1 = none."""
        labels = self.source.labels
        return (
            np.full(len(self.source), -1, np.float32)
            if labels is None
            else labels.astype(np.float32)
        )

    def _kept(self, name: str, make: Callable[[], Array], shape: tuple[int, ...]) -> Array:
        """Values float32 of `shape`: stored ones of the same features, else computed and stored."""
        if self.folder is None:
            fresh: Array = make().astype(np.float32)
            return fresh
        step = self.run.manifest.get("step") if self.run else None
        key = f"{step} {self.source.fingerprint}"
        path = self.folder / f"{name}.npz"
        with (
            contextlib.suppress(Exception),  # NumPy raises many kinds on a damaged file
            np.load(path) as file,
        ):
            values: Array = file["values"]
            if str(file["key"]) == key and values.shape == shape and values.dtype == np.float32:
                return values
        computed: Array = make().astype(np.float32)
        with contextlib.suppress(RunError):  # a run that cannot be written is shown all the same
            files.write(path, lambda out: np.savez(out, values=computed, key=key))
        return computed

    def _clusters(self) -> Array:
        """(S,) the k-means cluster of each item, the largest first: one per class, else 10."""
        from sklearn.cluster import MiniBatchKMeans

        labels = self.source.labels
        known = 0 if labels is None else len(np.unique(labels[labels >= 0]))
        count = min(known if known > 1 else CLUSTERS, len(self.source))
        cluster = MiniBatchKMeans(count, n_init=3, batch_size=4096, random_state=0).fit_predict(
            unit_rows(self.embeddings.vectors)
        )
        place = np.empty(count, np.int64)
        place[np.argsort(-np.bincount(cluster, minlength=count), kind="stable")] = np.arange(count)
        ordered: Array = place[cluster]
        return ordered

    @functools.cached_property
    def _near(self) -> tuple[torch.Tensor, torch.Tensor]:
        """One search for the neighbours of every item, for all that is found in them."""
        return outliers.neighbours(self.embeddings)

    def _outliers(self) -> Array:
        return outliers.outlier_scores(self._near[0])

    def _findings(self) -> dict[str, Any]:
        """Groups of items that are nearly one, the farthest items, and labels that do not fit."""
        score = self._kept("colour-outlier", self._outliers, (len(self.source),))
        pairs = outliers.alike_pairs(*self._near, above=ALIKE[0])
        alike = []
        for above in ALIKE:
            duplicate_pairs = [(a, b) for a, b, s in pairs if s >= above]
            duplicate_groups = outliers.groups(duplicate_pairs, len(self.source))
            alike.append(
                {
                    "above": above,
                    "pairs": len(duplicate_pairs),
                    "groups": len(duplicate_groups),
                    "items": sum(map(len, duplicate_groups)),
                    "shown": [
                        {"size": len(g), "rows": g[:IN_A_GROUP]} for g in duplicate_groups[:GROUPS]
                    ],
                }
            )
        suspects = outliers.suspect_labels(self.embeddings.labels, self._near[1])
        return {
            "alike": alike,
            "outliers": [
                {"row": int(r), "score": round(float(score[r]), 4)}
                for r in np.argsort(-score)[:LISTED]
            ],
            "suspects": suspects[:LISTED],
            "suspected": len(suspects),
        }


def principal_map(rows: Array) -> Array:
    """(S, 2) two principal components of rows (S, F), the largest loading of each positive."""
    from sklearn.decomposition import PCA

    count = min(2, *rows.shape)
    fitted = PCA(count, random_state=0).fit(rows)
    sign = np.sign([axis[np.abs(axis).argmax()] or 1.0 for axis in fitted.components_])
    placed = np.zeros((len(rows), 2), np.float32)
    placed[:, :count] = fitted.transform(rows) * sign
    return placed


def umap_map(rows: Array) -> Array:
    """(S, 2) the rows (S, F) as UMAP lays them out, seeded.

    Raises:
        MissingExtraError: umap-learn is not installed. DataError: fewer than 4 items.
    """
    if len(rows) < 4:
        raise DataError(f"UMAP needs 4 items or more, there are {len(rows)}")
    try:
        from umap import UMAP
    except ImportError as error:
        raise MissingExtraError("umap-learn", "map") from error
    start = "spectral" if len(rows) > 100 else "random"
    layout = UMAP(
        n_neighbors=min(15, len(rows) - 1), metric="cosine", init=start, random_state=0, n_jobs=1
    )
    placed: Array = layout.fit_transform(rows)
    return placed


def centred(points: Array) -> Array:
    """Points (S, 2) centred and scaled so that the larger side spans -1 to 1."""
    low, high = points.min(0), points.max(0)
    half = float((high - low).max()) / 2 or 1.0
    moved: Array = (points - (low + high) / 2) / half
    return moved


def told_apart(rows: Array) -> Array:
    """(S,) nats: the instance softmax of each row (S, F) against all rows, itself the positive.

    -log(exp(1 / t) / sum over j of exp(x_i . x_j / t)), t = 0.07: near 0 where an item differs from
    all others, ln S where all coincide. It is of the features without views, so it is not the loss
    that training logged.

    >>> [f"{nats:.3f}" for nats in told_apart(np.ones((4, 1), np.float32))]
    ['1.386', '1.386', '1.386', '1.386']
    """
    all_rows = torch.from_numpy(rows)
    with torch.inference_mode():
        sums = [
            tiled.logsumexp(part, all_rows, temperature=TEMPERATURE)
            for part in all_rows.split(BLOCK)
        ]
        distances: Array = (torch.cat(sums) - 1 / TEMPERATURE).clamp_min(0).numpy()
    return distances
