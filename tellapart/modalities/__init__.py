"""The kinds of data, one class each: what differs between images, sounds, series and sentences.

The interface and the table are in `tellapart.data.modality`. To add a kind of data, subclass
`BaseModality` and pass an instance to `register_modality`; docs/plug-ins.md shows one whole.
"""

from ..data.modality import MODALITIES, Modality, Preview, modality_of, register_modality
from .base import BaseModality

__all__ = [
    "MODALITIES",
    "BaseModality",
    "Modality",
    "Preview",
    "modality_of",
    "register_modality",
]
