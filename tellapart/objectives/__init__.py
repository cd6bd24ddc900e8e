"""Objectives by name: a loss and its state, one small class per system."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..errors import ConfigError, unknown
from .base import Batch, Embedded, Objective, Out
from .exemplar import Exemplar, ExemplarOptions
from .instdisc import InstDisc, InstDiscOptions

__all__ = [
    "METHODS",
    "Batch",
    "Embedded",
    "Exemplar",
    "ExemplarOptions",
    "InstDisc",
    "InstDiscOptions",
    "Objective",
    "Options",
    "Out",
    "build",
]

Options = InstDiscOptions | ExemplarOptions
METHODS: dict[str, tuple[Callable[[Any, int], Objective], type[Options]]] = {
    "instdisc": (InstDisc, InstDiscOptions),
    "exemplar": (Exemplar, ExemplarOptions),
}


def build(method: str, options: Options, seed: int) -> Objective:
    """The objective `method` with its options.

    Raises:
        ConfigError: an unknown method, or the options of another one.
    """
    if method not in METHODS:
        raise unknown("method", method, METHODS)
    make, kind = METHODS[method]
    if not isinstance(options, kind):
        raise ConfigError(f"{method} takes {kind.__name__}, got {type(options).__name__}")
    return make(options, seed)
