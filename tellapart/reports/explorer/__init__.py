"""A local page: a map of the items, neighbours, scores, curves and duplicates."""

from .server import application, serve
from .state import State

__all__ = ["State", "application", "serve"]
