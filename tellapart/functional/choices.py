"""Names of the variants of the losses, free of torch so that the command line can list them."""

from __future__ import annotations

from typing import Literal

Reduction = Literal["out", "in"]
Mining = Literal["semi-hard", "hard", "all", "batch-hard"]
