"""Is the encoder good: evaluators take vectors (`Embeddings`), never models."""

from .few_label import few_label
from .knn import knn
from .linear import linear_probe
from .retrieval import retrieval

__all__ = ["few_label", "knn", "linear_probe", "retrieval"]
