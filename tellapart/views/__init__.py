"""Random views of a batch, and the deterministic view of evaluation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..runtime import lazy

if TYPE_CHECKING:
    from . import affine as affine
    from . import audio as audio
    from . import colour as colour
    from . import images as images
    from . import text as text
    from .evaluation import evaluation_view as evaluation_view
    from .evaluation import first_view as first_view
    from .settings import ImageViews as ImageViews
    from .settings import SequenceViews as SequenceViews
    from .settings import TextViews as TextViews

__getattr__, __dir__ = lazy.attributes(
    __name__,
    {
        "evaluation": ("evaluation_view", "first_view"),
        "settings": ("ImageViews", "SequenceViews", "TextViews"),
    },
    modules=("affine", "audio", "colour", "images", "text"),
)
