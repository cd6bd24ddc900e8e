"""Nearest neighbours among embeddings: exact search in tiles.

Shapes: S items, Q queries, K neighbours, D width.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from . import nearest
from .embeddings import Embeddings
from .errors import require

Array = np.ndarray[Any, Any]


class Index:
    """Search by cosine similarity.

    >>> index = Index(Embeddings(np.eye(3), "abc"))
    >>> similarity, row = index.search(np.array([[1.0, 0.1, 0.0]]), k=2)
    >>> row
    array([[0, 1]])
    """

    def __init__(self, embeddings: Embeddings) -> None:
        require(len(embeddings) > 0, "an index needs one item or more")
        self.embeddings = embeddings
        self._rows = F.normalize(torch.from_numpy(np.array(embeddings.vectors)), dim=1)

    def __len__(self) -> int:
        return len(self._rows)

    def search(self, vectors: Any, k: int) -> tuple[Array, Array]:
        """The k items nearest to each vector, best first.

        Args:
            vectors: (Q, D). k: 1 to S.
        Returns:
            similarity (Q, K) float32 in [-1, 1], row (Q, K) int64.
        Raises:
            ConfigError: k outside 1..S, or another width.
        """
        queries = torch.as_tensor(np.asarray(vectors, np.float32))
        width = self._rows.shape[1]
        require(queries.ndim == 2 and queries.shape[1] == width, f"vectors (Q, {width}), got {tuple(queries.shape)}")
        similarity, row = nearest.top_k(F.normalize(queries, dim=1), self._rows, k)
        return similarity.numpy(), row.numpy()
