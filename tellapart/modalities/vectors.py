"""The modality of saved vectors, for which only ids and labels are known."""

from __future__ import annotations

from ..data import Source
from .base import BaseModality


class Vectors(BaseModality[Source]):
    """Saved vectors without their data; they can be searched and shown, not read."""

    kind = Source.kind
