"""tellapart: learn what is alike by telling everything apart.

The verbs of the command line are functions here, with the same names of arguments. Names are loaded
when they are used, so that `import tellapart` takes no time; `tellapart.losses` and its like are
modules of `tellapart.functional`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from .runtime.version import __version__

if TYPE_CHECKING:
    from .api import (
        compare,
        detect,
        embed,
        evaluate,
        explore,
        export,
        inspect,
        load,
        manifest,
        report,
        search,
        train,
    )
    from .data import ImageSource, open_source
    from .embeddings import Embeddings
    from .embeddings.index import Index
    from .encoders import Encoder
    from .errors import TellapartError
    from .functional import geometry as geometry
    from .functional import losses as losses
    from .functional import mutual_information as mutual_information
    from .functional import tiled as tiled
    from .objectives.memory import MemoryBank, Queue
    from .training.config import TrainConfig
    from .training.estimator import Embedder
    from .training.run import Run
    from .training.trainer import Trainer
    from .views.images import ImageViews

_HOMES = {
    "api": (
        "compare", "detect", "embed", "evaluate", "explore", "export", "inspect", "load",
        "manifest", "report", "search", "train",
    ),
    "data": ("ImageSource", "open_source"),
    "embeddings": ("Embeddings",),
    "embeddings.index": ("Index",),
    "encoders": ("Encoder",),
    "errors": ("TellapartError",),
    "objectives.memory": ("MemoryBank", "Queue"),
    "training.config": ("TrainConfig",),
    "training.estimator": ("Embedder",),
    "training.run": ("Run",),
    "training.trainer": ("Trainer",),
    "views.images": ("ImageViews",),
}  # fmt: skip
_HOME = {name: home for home, names in _HOMES.items() for name in names}
_FUNCTIONAL = ("geometry", "losses", "mutual_information", "tiled")

__all__ = [
    "Embedder",
    "Embeddings",
    "Encoder",
    "ImageSource",
    "ImageViews",
    "Index",
    "MemoryBank",
    "Queue",
    "Run",
    "TellapartError",
    "TrainConfig",
    "Trainer",
    "__version__",
    "compare",
    "detect",
    "embed",
    "evaluate",
    "explore",
    "export",
    "inspect",
    "load",
    "manifest",
    "open_source",
    "report",
    "search",
    "train",
]


def __getattr__(name: str) -> Any:
    if name in _FUNCTIONAL:
        value: Any = importlib.import_module(f".functional.{name}", __name__)
    elif name in _HOME:
        value = getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
    else:
        raise AttributeError(f"module 'tellapart' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*__all__, *_FUNCTIONAL})
