"""Sources: images, sounds, series and sentences, read from files or built in."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..runtime import lazy
from .kinds import BUILTIN, KINDS, kind_of
from .modality import MODALITIES, Modality, Preview, modality_of, register_modality

if TYPE_CHECKING:
    from .cache import Cache, default_folder
    from .images import ImageSource, Pixels
    from .open import Progress, open_source
    from .sequences import SequenceSource
    from .source import Source
    from .text import TextSource

__all__ = [
    "BUILTIN",
    "KINDS",
    "MODALITIES",
    "Cache",
    "ImageSource",
    "Modality",
    "Pixels",
    "Preview",
    "Progress",
    "SequenceSource",
    "Source",
    "TextSource",
    "default_folder",
    "kind_of",
    "modality_of",
    "open_source",
    "register_modality",
]

__getattr__, __dir__ = lazy.attributes(
    __name__,
    {
        "cache": ("Cache", "default_folder"),
        "images": ("ImageSource", "Pixels"),
        "open": ("Progress", "open_source"),
        "sequences": ("SequenceSource",),
        "source": ("Source",),
        "text": ("TextSource",),
    },
    modules=(
        "audio", "builtin", "detection", "files", "image_folder", "image_packing", "images",
        "kinds", "multi_object_scenes", "objects", "sampler", "scenes", "sequences", "series",
        "source", "sts", "text",
    ),
)  # fmt: skip
