"""Vectors with ids, labels and provenance; the index over them; search and incremental embedding."""

from .embeddings import Embeddings, check, embed, embed_both, replacing

__all__ = ["Embeddings", "check", "embed", "embed_both", "replacing"]
