"""Names of outputs and indexes, free of torch so that the command line can list them."""

from __future__ import annotations

from typing import Literal

Wanted = Literal["features", "embedding", "patches"]
IndexKind = Literal["exact", "flat", "hnsw", "ivf-pq"]
