"""Encoders: a backbone and a projection head for each kind of data."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..runtime import lazy

if TYPE_CHECKING:
    from . import building, sequence, text
    from .building import build, rebuild
    from .encoder import AnyEncoder, Encoder
    from .heads import head, hidden_layers
    from .inference import outputs, prepared, to_device
    from .own import NetworkEncoder
    from .sequence import SequenceEncoder
    from .text import TextEncoder
    from .vision import backbone

__all__ = [
    "AnyEncoder", "Encoder", "NetworkEncoder", "SequenceEncoder", "TextEncoder", "backbone",
    "build", "building", "head", "hidden_layers", "outputs", "prepared", "rebuild", "sequence",
    "text", "to_device",
]  # fmt: skip

__getattr__, __dir__ = lazy.attributes(
    __name__,
    {
        "building": ("build", "rebuild"),
        "encoder": ("AnyEncoder", "Encoder"),
        "heads": ("head", "hidden_layers"),
        "own": ("NetworkEncoder",),
        "inference": ("outputs", "prepared", "to_device"),
        "sequence": ("SequenceEncoder",),
        "text": ("TextEncoder",),
        "vision": ("backbone",),
    },
    modules=(
        "building",
        "hugging_face",
        "hub",
        "norms",
        "own",
        "pretrained",
        "sequence",
        "synonyms",
        "text",
        "vision",
        "weights",
    ),
)
