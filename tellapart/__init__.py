"""tellapart: learn what is alike by telling everything apart.

The verbs of the command line are functions here, with the same names of arguments.
"""

from typing import TYPE_CHECKING, Any

from .data import ImageSource, open_source
from .embeddings import Embeddings
from .encoders import Encoder
from .errors import TellapartError
from .index import Index
from .memory import MemoryBank, Queue
from .run import Run
from .training.config import TrainConfig
from .training.trainer import Trainer
from .verbs import compare, detect, embed, evaluate, explore, export, inspect, load, report, search, train
from .version import __version__
from .views.images import ImageViews

if TYPE_CHECKING:
    from .embedder import Embedder

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
    "open_source",
    "report",
    "search",
    "train",
]


def __getattr__(name: str) -> Any:
    """`Embedder` is read when it is asked for: scikit-learn takes longer to import than all else."""
    if name == "Embedder":
        from .embedder import Embedder

        return Embedder
    raise AttributeError(f"module 'tellapart' has no attribute {name!r}")
