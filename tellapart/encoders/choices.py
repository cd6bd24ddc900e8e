"""Names of the variants of the encoders, free of torch so that the command line can list them."""

from __future__ import annotations

from typing import Literal

Head = Literal["none", "linear", "mlp", "linear-bn", "mlp-bn", "mlp3-bn", "tanh"]
Context = Literal["gru", "lstm"]
Norm = Literal["channel", "batch"]
Pooler = Literal["cls", "mean", "first-last"]
Pool = Literal["auto", "token", "mean", "both"]
Output = Literal["features", "embedding"]
