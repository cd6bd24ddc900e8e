"""A local page of a run: the map of its items, look-alikes, scores, curves, duplicates; `serve` shows it."""

from .server import application, serve
from .state import State

__all__ = ["State", "application", "serve"]
