"""Judging an encoder: evaluators take arrays (`Embeddings`), never models."""

from .few_label import few_label
from .knn import knn
from .linear import linear_probe

__all__ = ["few_label", "knn", "linear_probe"]
