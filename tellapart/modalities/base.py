"""Defaults of a modality: subclass `BaseModality` to add a kind of data.

A new modality has to define `kind`, `configuration` and `build_encoder`; every other hook has a
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
        """Every method can learn from it."""

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
        """Refuse: a modality whose runs are opened again has to define it."""
        raise ConfigError(
            f"the modality {self.kind!r} does not define rebuild_encoder, so its runs cannot be opened"
        )

    def untrained(self, subject: Subject, say: Callable[[str], None]) -> dict[str, Any]:
        """The same network with random weights, if it is that of a run."""
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
        """The kind of the data and what run.json says about them."""
        return {"kind": self.kind, "normalisation": "inside the encoder"}

    def card(self, description: dict[str, Any]) -> tuple[str, str]:
        """The name of the encoder."""
        return str(description.get("encoder", self.kind)), "the output of the backbone"

    def batches(self, source: S, device: torch.device) -> list[Tensor]:
        """256 items each."""
        return list(torch.arange(len(source)).split(BATCH))

    def baseline(self, train: S) -> tuple[str, Callable[[Any], Tensor]]:
        """The values of a view as a vector."""

        def values(view: Any) -> Tensor:
            parts = [view[name] for name in sorted(view)] if isinstance(view, dict) else [view]
            return torch.cat([part.flatten(1).float() for part in parts], 1)

        return "raw values", values

    def evaluate(self, subject: Subject, source: S, request: evaluate.Request) -> dict[str, Any]:
        """The table of the protocol, without the parts that only images have."""
        if request.full:
            raise ConfigError(f"--full requires images; {source.name} holds {source.many}")
        return evaluate.score_source(subject, source, request)[0]

    def untrained_side(self, network: Any, source: S) -> int | None:
        """As the encoder."""
        return None

    def decode_query(self, name: str | Path, source: S, encoder: Any) -> Any:
        """Refuse: only ids of items can be searched for."""
        raise DataError(f"a query must be the id of an item of {source.name}, got {name}")

    def content(self, source: S, position: int) -> bytes:
        """The bytes of the values."""
        batch = source.read(torch.tensor([position]))
        parts = [batch[name] for name in sorted(batch)] if isinstance(batch, dict) else [batch]
        return b"".join(np.ascontiguousarray(p.numpy()).tobytes() for p in parts)

    def comparison(self, source: S) -> Tensor | None:
        """The vectors of the baseline, one row per item."""
        _, vectors = self.baseline(source)
        index = torch.arange(len(source)).split(self.baseline_batch)
        return torch.cat([vectors(self.evaluation_view(source, source.read(i))) for i in index])

    def content_vectors(self, source: S, compared: Tensor | None) -> Tensor:
        """`compared`, centred and scaled to unit length."""
        if compared is None:
            raise ConfigError(f"the modality {self.kind!r} compares nothing; see content_vectors")
        return unit_rows(compared - compared.mean(0))

    def near_duplicates(
        self, source: S, near: Tensor, compared: Tensor | None
    ) -> list[tuple[int, int]]:
        """None: what makes two items nearly equal is known to the modality alone."""
        return []

    def summary(self, source: S) -> dict[str, Any]:
        """What the source says about itself."""
        return {"about": source.about}

    def training_facts(self, source: S) -> tuple[dict[str, Any], dict[str, str], list[str]]:
        """Nothing."""
        return {}, {}, []

    def list_lines(self, source: S, positions: Sequence[int], data: str, out: Path) -> list[str]:
        """The ids."""
        return [source.ids_at(i) for i in positions]

    def program(
        self,
        original: Any,
        encoder: Any,
        description: dict[str, Any],
        *,
        rate: int | None,
        fold: bool,
    ) -> Any:
        """Refuse: there is no exported form."""
        raise ConfigError(f"encoders of kind {self.kind!r} have no exported form")

    def preview(self, source: S, position: int) -> Preview:
        """The id alone."""
        return Preview()

    def details(self, source: S, position: int) -> dict[str, Any]:
        """Nothing beside id and label."""
        return {}

    def sound(self, source: S, position: int) -> bytes | None:
        """Nothing to hear."""
        return None

    def uploaded(self, source: S, raw: bytes, encoder: Any) -> Any:
        """Refuse uploads."""
        raise Refused(415, f"{source.many} cannot be searched for by upload; choose an item")
