"""tellapart: learn what is alike by telling everything apart.

The verbs of the command line are functions here, with the same names of arguments.
"""

from .data import ImageSource, open_source
from .embeddings import Embeddings
from .encoders import Encoder
from .errors import TellapartError
from .index import Index
from .memory import MemoryBank, Queue
from .run import Run
from .training.config import TrainConfig
from .training.trainer import Trainer
from .verbs import compare, embed, evaluate, load, search, train
from .version import __version__
from .views.images import ImageViews

__all__ = [
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
    "embed",
    "evaluate",
    "load",
    "open_source",
    "search",
    "train",
]
