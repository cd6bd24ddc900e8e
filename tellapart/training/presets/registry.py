"""The presets by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

PRESETS: dict[str, Callable[[], Any]] = {}
Preset = TypeVar("Preset", bound=Callable[[], Any])


def preset(make: Preset) -> Preset:
    """Register a function that returns a preset; its name starts with that of the method.

    Args:
        make: function without arguments that returns the settings.
    """
    PRESETS[make.__name__] = make
    return make
