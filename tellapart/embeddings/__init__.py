"""Embeddings with ids, labels and provenance; indexes, search and incremental embedding."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..runtime import lazy

if TYPE_CHECKING:
    from .embeddings import Embeddings, check, embed, embed_both

__all__ = ["Embeddings", "check", "embed", "embed_both"]

__getattr__, __dir__ = lazy.attributes(
    __name__,
    {"embeddings": tuple(__all__)},
    modules=("embeddings", "incremental", "index", "search"),
)
