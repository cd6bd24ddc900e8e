"""The text modality.

Shapes: S instances in the source, N batch, L tokens, D width, K neighbours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..curation import duplicates, inspect, summary
from ..data import Preview, TextSource, kinds, open_source, text
from ..data.files import Listing
from ..data.modality import OpenOptions
from ..data.open import listed
from ..embeddings import search
from ..encoders import TextEncoder
from ..encoders import text as text_encoders
from ..errors import ConfigError
from ..evaluation import evaluate, evaluate_text
from ..exporters import program
from ..reports.explorer import items
from ..training import build
from ..training.config import TextConfig
from ..training.loading import Subject, require_kind
from ..views.text import TextViews, join_tokens
from .base import BaseModality

DELETED = 0.3  # share of words deleted in a watched view, if training has no view but dropout


class Text(BaseModality[TextSource]):
    """Sentences, pairs of sentences, or documents."""

    kind = "text"
    extensions = kinds.TEXT
    neighbours_by = "words"
    watched_items = 64
    configuration = TextConfig

    def starting_settings(self, method: str) -> None:
        """Return None: every setting comes from a preset."""
        return None

    def open(self, spec: str, path: Path, options: OpenOptions) -> TextSource:
        """Open a file of sentences, or a folder of documents."""
        level = options.reading.label_level
        return self.open_listing(spec, listed(path, self.kind, level), options)

    def open_listing(self, spec: str, listing: Listing, options: OpenOptions) -> TextSource:
        """Open one file of sentences, or documents."""
        return text.text_source(spec, listing)

    def source_for(self, subject: Subject, data: str, options: Mapping[str, Any]) -> TextSource:
        """Open sentences."""
        source: TextSource = require_kind(open_source(data), self.kind, subject.name)
        return source

    def first_view(self, source: TextSource, batch: Any) -> Any:
        """Return the first sentence (N, L) of pairs (N, V, L)."""
        if source.columns == 1:
            return batch
        return {name: value[:, 0] for name, value in batch.items()}

    def join_views(self, views: list[Any]) -> dict[str, Tensor]:
        """Concatenate along the batch, padded to the longest sentence."""
        return join_tokens(views)

    def check_training(self, method: str, source: TextSource) -> None:
        """Accept pairs of sentences only for simcse."""
        if source.columns > 1 and method != "simcse":
            raise ConfigError(
                f"{method} requires single sentences, and {source.name} holds pairs; use simcse, "
                "or a file with one sentence a line"
            )

    def build_encoder(self, config: Any, source: TextSource) -> TextEncoder:
        """Build an encoder with `training.build.text_encoder`."""
        return build.text_encoder(config, source)

    def build_views(self, config: Any, source: TextSource, encoder: Any) -> TextViews:
        """Build views with `training.build.text_views`."""
        return build.text_views(config, source, encoder)

    def watch_views(self, config: Any, source: TextSource) -> TextViews:
        """Return the views of the configuration; if only dropout differs, words are deleted."""
        views: TextViews = config.views_for(source)
        return replace(views, word_deletion=DELETED) if views.nothing else views

    def rebuild_encoder(self, description: dict[str, Any], *, seed: int) -> TextEncoder:
        """Rebuild an encoder with `encoders.text.build`."""
        given = dict(description)
        return text_encoders.build(given.pop("encoder"), seed=seed, **given)

    def preprocessor(self, data: dict[str, Any], description: dict[str, Any]) -> dict[str, Any]:
        """Return tokenizer and token ids."""
        return {
            "tokenizer": "in config.json",
            "values": "token ids (N, L) and a mask of those that are no padding",
        }

    def card(self, description: dict[str, Any]) -> tuple[str, str]:
        """Describe network, length and pooler."""
        network = f"{description['encoder']}, sentences of up to {description['max_length']} tokens"
        return network, f"one vector of a sentence (pooler: {description.get('pooler')})"

    def evaluate(
        self, subject: Subject, source: TextSource, request: evaluate.Request
    ) -> dict[str, Any]:
        """Evaluate pairs, classes (if the data have labels) and geometry."""
        return evaluate_text.evaluate_sentences(
            subject, source, request.full, request.console, request.protocol
        )

    def decode_query(self, name: str | Path, source: TextSource, encoder: Any) -> Any:
        """Tokenise a sentence."""
        return search.sentence_query(str(name), source, encoder)

    def content(self, source: TextSource, row: int) -> bytes:
        """Return the bytes of the item's sentences."""
        return "\t".join(source.texts[source.rows[row]]).encode()

    def comparison(self, source: TextSource) -> None:
        """Return None: only the words are compared."""
        return None

    def content_vectors(self, source: TextSource, compared: Tensor | None) -> Tensor:
        """Return TF-IDF vectors of words and word pairs."""
        return inspect.word_vectors([" ".join(source.texts[r]) for r in source.rows])

    def near_duplicates(
        self, source: TextSource, near: Tensor, compared: Tensor | None
    ) -> list[tuple[int, int]]:
        """Pairs of texts that share most of their words."""
        return duplicates.same_words(source, duplicates.pairs_of(near))

    def alike(self, source: TextSource, compared: Any, item: int, others: list[int]) -> list[bool]:
        """Whether the other texts share most of their words with one."""
        part = source.subset(np.array([item, *others]))
        pairs = torch.tensor([[0, i + 1] for i in range(len(others))])
        equal = {b for a, b in duplicates.same_words(part, pairs) if a == 0}
        return [i + 1 in equal for i in range(len(others))]

    def shared(self, source: TextSource) -> list[int]:
        """How many other pairs share a sentence with each pair."""
        return duplicates.equal_texts(source) if source.columns > 1 else []

    def summary(self, source: TextSource) -> dict[str, Any]:
        """Summarise words, characters and columns."""
        return summary.of_sentences(source)

    def list_lines(
        self, source: TextSource, rows: Sequence[int], data: str, out: Path
    ) -> list[str]:
        """Return the sentences."""
        return inspect.sentence_lines(source, rows, data, out)

    def program(
        self,
        original: Any,
        encoder: Any,
        description: dict[str, Any],
        *,
        rate: int | None,
        fold: bool,
    ) -> program.Standalone:
        """Return a program in plain torch, or one that uses transformers."""
        return program.of_sentences(encoder, description)

    def preview(self, source: TextSource, row: int) -> Preview:
        """Return the sentences."""
        return Preview(words=" | ".join(source.texts[source.rows[row]]))

    def details(self, source: TextSource, row: int) -> dict[str, Any]:
        """Return the sentences, truncated if they are long."""
        return items.sentence_details(source, row)

    def uploaded(self, source: TextSource, raw: bytes, encoder: Any) -> Any:
        """Read an uploaded sentence in UTF-8."""
        return self.decode_query(items.sentence(raw), source, encoder)
