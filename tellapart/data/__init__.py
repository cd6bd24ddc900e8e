"""Sources: images, sounds, series and sentences, read from files or built in."""

from .cache import Cache, default_folder
from .images import ImageSource, Pixels
from .open import BUILTIN, KINDS, Progress, kind_of, open_source
from .sequences import SequenceSource
from .source import Source
from .text import TextSource

__all__ = [
    "BUILTIN",
    "KINDS",
    "Cache",
    "ImageSource",
    "Pixels",
    "Progress",
    "SequenceSource",
    "Source",
    "TextSource",
    "default_folder",
    "kind_of",
    "open_source",
]
