"""tellapart: learn what is alike by telling everything apart.

The verbs of the command line are functions here, with the same names of arguments.
"""

__version__ = "0.1.0"

from .data import ImageSource, open_source
from .embeddings import Embeddings
from .encoders import Encoder
from .errors import TellapartError
from .index import Index
from .memory import MemoryBank
from .run import Run
from .training.config import TrainConfig
from .training.trainer import Trainer
from .verbs import embed, evaluate, load, search, train
from .views.images import ImageViews

__all__ = [
    "Embeddings",
    "Encoder",
    "ImageSource",
    "ImageViews",
    "Index",
    "MemoryBank",
    "Run",
    "TellapartError",
    "TrainConfig",
    "Trainer",
    "embed",
    "evaluate",
    "load",
    "open_source",
    "search",
    "train",
]
