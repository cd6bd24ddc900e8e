"""Objectives by name: a loss and its state, one small class per system."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from ..errors import ConfigError, unknown
from ..runtime import lazy
from .options import (
    OPTIONS,
    CPCOptions,
    ExemplarOptions,
    InstDiscOptions,
    MarginOptions,
    MoCoOptions,
    NCEOptions,
    Options,
    SimCLROptions,
    SimCSEOptions,
    SpreadOptions,
    SupConOptions,
    TripletOptions,
)

if TYPE_CHECKING:
    from .base import Batch, Embedded, Objective, Out
    from .cpc import CPC
    from .exemplar import Exemplar
    from .instdisc import InstDisc
    from .margin import Margin
    from .moco import MoCo
    from .nce import NCE
    from .simclr import SimCLR
    from .simcse import SimCSE
    from .spread import Spread
    from .supcon import SupCon
    from .triplet import Triplet

__all__ = [
    "CPC",
    "METHODS",
    "NCE",
    "OPTIONS",
    "Batch",
    "CPCOptions",
    "Embedded",
    "Exemplar",
    "ExemplarOptions",
    "InstDisc",
    "InstDiscOptions",
    "Margin",
    "MarginOptions",
    "MoCo",
    "MoCoOptions",
    "NCEOptions",
    "Objective",
    "Options",
    "Out",
    "SimCLR",
    "SimCLROptions",
    "SimCSE",
    "SimCSEOptions",
    "Spread",
    "SpreadOptions",
    "SupCon",
    "SupConOptions",
    "Triplet",
    "TripletOptions",
    "build",
    "objective_class",
]

METHODS = {
    "instdisc": "InstDisc",
    "exemplar": "Exemplar",
    "spread": "Spread",
    "moco": "MoCo",
    "simclr": "SimCLR",
    "supcon": "SupCon",
    "margin": "Margin",
    "triplet": "Triplet",
    "nce": "NCE",
    "cpc": "CPC",
    "simcse": "SimCSE",
}
"""Name of a method -> its class, in the module of the same name."""

__getattr__, __dir__ = lazy.attributes(
    __name__,
    {method: (name,) for method, name in METHODS.items()}
    | {"base": ("Batch", "Embedded", "Objective", "Out")},
    modules=(*METHODS, "alias_table", "memory", "options", "own"),
)


def objective_class(method: str) -> type[Objective]:
    """The class of a method.

    Raises:
        ConfigError: an unknown method, with the nearest one.
    """
    if method not in METHODS:
        raise unknown("method", method, METHODS)
    objective: type[Objective] = getattr(
        importlib.import_module(f".{method}", __name__), METHODS[method]
    )
    return objective


def build(method: str, options: Options, seed: int) -> Objective:
    """The objective `method` with its options.

    Raises:
        ConfigError: an unknown method, or the options of another one.
    """
    if method in OPTIONS and not isinstance(options, OPTIONS[method]):
        raise ConfigError(
            f"{method} takes {OPTIONS[method].__name__}, got {type(options).__name__}"
        )
    if method in OPTIONS and method not in METHODS:  # registered by a user
        from . import own  # needs torch, which the names of the methods do not

        return own.build(method, options, seed)
    return objective_class(method)(options, seed)
