"""Default implementations for a modality: subclass `BaseModality` to add a kind of data.

A new modality must define `kind`, `configuration` and `build_encoder`; every other hook has a
default that works on plain tensors.

Shapes: S instances in the source, N batch, D width, K neighbours.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from ..data import Modality, Preview, Source, open_source
from ..data.modality import OpenOptions
from ..encoders import rebuild
from ..errors import ConfigError, DataError
from ..evaluation import evaluate
from ..functional.geometry import unit_rows
from ..objectives import OPTIONS
from ..reports.explorer.guard import Refused
from ..training.config import CommonConfig
from ..training.loading import Subject, require_kind

S = TypeVar("S", bound=Source)
BATCH = 256  # items of an inference batch


class BaseModality(Modality[S]):
    """A modality whose items are read as tensors (N, ...), or dicts of such tensors."""

    def open(self, spec: str, path: Path, options: OpenOptions) -> S:
        """Refuse paths: sources of this kind are built in Python."""
        raise DataError(f"{spec}: sources of kind {self.kind!r} cannot be opened from files")

    def open_listing(self, spec: str, listing: Any, options: OpenOptions) -> S:
        """Refuse files: sources of this kind are built in Python."""
        raise DataError(f"{spec}: sources of kind {self.kind!r} cannot be opened from files")

    def source_for(self, subject: Subject, data: str, options: Mapping[str, Any]) -> S:
        """Open data and check their kind."""
        source: S = require_kind(open_source(data, **options), self.kind, subject.name)
        return source

    def evaluation_view(self, source: S, batch: Any) -> Any:
        """The first item of each pair, unchanged."""
        return self.first_view(source, batch)

    def first_view(self, source: S, batch: Any) -> Any:
        """The batch: there are no pairs."""
        return batch

    def join_views(self, views: list[Any]) -> Any:
        """Concatenate along the batch."""
        if isinstance(views[0], dict):
            return {name: torch.cat([view[name] for view in views]) for name in views[0]}
        return torch.cat(views)

    def starting_settings(self, method: str) -> CommonConfig | None:
        """The configuration with its defaults, and the default options of the method."""
        config: CommonConfig = self.configuration(objective=OPTIONS[method]())
        return config

    def check_training(self, method: str, source: S) -> None:
        """Accept every method."""

    def build_views(self, config: Any, source: S, encoder: Any) -> Callable[..., Any]:
        """The views of the configuration."""
        views: Callable[..., Any] = config.views_for(source)
        return views

    def default_views(self, source: S) -> Callable[..., Any]:
        """The views of the configuration's defaults."""
        views: Callable[..., Any] = self.configuration().views_for(source)
        return views

    def watch_views(self, config: Any, source: S) -> Callable[..., Any]:
        """The views of the configuration."""
        views: Callable[..., Any] = config.views_for(source)
        return views

    def rebuild_encoder(self, description: dict[str, Any], *, seed: int) -> Any:
        """Raise ConfigError: a modality must define it for its runs to be reopened."""
        raise ConfigError(
            f"the modality {self.kind!r} does not define rebuild_encoder, so its runs cannot be "
            "opened"
        )

    def untrained(self, subject: Subject, say: Callable[[str], None]) -> dict[str, Any]:
        """Return the network of a run with random weights; empty if there is no run."""
        if subject.run is None or subject.config is None:
            return {}
        fresh = rebuild(subject.run.encoder_files()[0], seed=subject.config.seed)
        trained = dict(subject.encoder.named_buffers())
        with torch.no_grad():
            for name, buffer in fresh.named_buffers():
                if name in ("mean", "std"):  # normalisation comes from the data, not from training
                    buffer.copy_(trained[name])
        return {"random init": fresh.eval()}

    def preprocessor(self, data: dict[str, Any], description: dict[str, Any]) -> dict[str, Any]:
        """Return the kind of the data and the place of the normalisation."""
        return {"kind": self.kind, "normalisation": "inside the encoder"}

    def card(self, description: dict[str, Any]) -> tuple[str, str]:
        """The name of the encoder."""
        return str(description.get("encoder", self.kind)), "the output of the backbone"

    def batches(self, source: S, device: torch.device) -> list[Tensor]:
        """Split the rows into batches of 256 items."""
        return list(torch.arange(len(source)).split(BATCH))

    def baseline(self, train: S) -> tuple[str, Callable[[Any], Tensor]]:
        """Use the flattened values of a view as features."""

        def values(view: Any) -> Tensor:
            parts = [view[name] for name in sorted(view)] if isinstance(view, dict) else [view]
            return torch.cat([part.flatten(1).float() for part in parts], 1)

        return "raw values", values

    def evaluate(self, subject: Subject, source: S, request: evaluate.Request) -> dict[str, Any]:
        """Evaluate with the standard protocol, without the parts for images only."""
        if request.full:
            raise ConfigError(f"--full requires images; {source.name} holds {source.many}")
        return evaluate.score_source(subject, source, request)[0]

    def untrained_side(self, network: Any, source: S) -> int | None:
        """Return None: the untrained baseline sees images of the same side as the encoder."""
        return None

    def decode_query(self, name: str | Path, source: S, encoder: Any) -> Any:
        """Raise DataError: queries must be ids of items."""
        raise DataError(f"a query must be the id of an item of {source.name}, got {name}")

    def content(self, source: S, row: int) -> bytes:
        """Return the bytes of an item's values."""
        batch = source.read(torch.tensor([row]))
        parts = [batch[name] for name in sorted(batch)] if isinstance(batch, dict) else [batch]
        return b"".join(np.ascontiguousarray(p.numpy()).tobytes() for p in parts)

    def comparison(self, source: S) -> Any:
        """The vectors of the baseline, one row per item."""
        _, vectors = self.baseline(source)
        index = torch.arange(len(source)).split(self.baseline_batch)
        return torch.cat([vectors(self.evaluation_view(source, source.read(i))) for i in index])

    def content_vectors(self, source: S, compared: Any) -> Tensor:
        """`compared`, centred and scaled to unit length."""
        if compared is None:
            raise ConfigError(f"the modality {self.kind!r} compares nothing; see content_vectors")
        rows: Tensor = compared
        return unit_rows(rows - rows.mean(0))

    def near_duplicates(self, source: S, near: Tensor, compared: Any) -> list[tuple[int, int]]:
        """None: what makes two items nearly equal is known to the modality alone."""
        return []

    def alike(self, source: S, compared: Any, item: int, others: list[int]) -> list[bool]:
        """No more than `near_duplicates` found."""
        return [False] * len(others)

    def shared(self, source: S) -> list[int]:
        """Nothing: items have no parts."""
        return []

    def summary(self, source: S) -> dict[str, Any]:
        """Return the description of the source."""
        return {"about": source.about}

    def training_facts(self, source: S) -> tuple[dict[str, Any], dict[str, str], list[str]]:
        """Return no additional facts."""
        return {}, {}, []

    def list_lines(self, source: S, rows: Sequence[int], data: str, out: Path) -> list[str]:
        """Return the ids."""
        return [source.ids_at(i) for i in rows]

    def program(
        self,
        original: Any,
        encoder: Any,
        description: dict[str, Any],
        *,
        rate: int | None,
        fold: bool,
    ) -> Any:
        """Raise ConfigError: encoders of this kind cannot be exported."""
        raise ConfigError(f"encoders of kind {self.kind!r} have no exported form")

    def preview(self, source: S, row: int) -> Preview:
        """Return an empty preview: only the id is shown."""
        return Preview()

    def details(self, source: S, row: int) -> dict[str, Any]:
        """Return no details besides id and label."""
        return {}

    def sound(self, source: S, row: int) -> bytes | None:
        """Return None: the items have no sound."""
        return None

    def uploaded(self, source: S, raw: bytes, encoder: Any) -> Any:
        """Reject uploads."""
        raise Refused(415, f"{source.many} cannot be searched for by upload; choose an item")
