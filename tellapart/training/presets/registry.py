"""The presets by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

PRESETS: dict[str, Callable[[], Any]] = {}
Preset = TypeVar("Preset", bound=Callable[[], Any])


def preset(make: Preset) -> Preset:
    """Register the function that makes a preset; its name begins with the name of the method."""
    PRESETS[make.__name__] = make
    return make
