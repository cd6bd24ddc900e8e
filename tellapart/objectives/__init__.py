"""Objectives by name: a loss and its state, one small class per system."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..errors import ConfigError, unknown
from .base import Batch, Embedded, Objective, Out
from .cpc import CPC, CPCOptions
from .exemplar import Exemplar, ExemplarOptions
from .instdisc import InstDisc, InstDiscOptions
from .margin import Margin, MarginOptions
from .moco import MoCo, MoCoOptions
from .nce import NCE, NCEOptions
from .simclr import SimCLR, SimCLROptions
from .simcse import SimCSE, SimCSEOptions
from .spread import Spread, SpreadOptions
from .supcon import SupCon, SupConOptions
from .triplet import Triplet, TripletOptions

__all__ = [
    "CPC",
    "METHODS",
    "NCE",
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
]

Options = (
    InstDiscOptions
    | ExemplarOptions
    | SpreadOptions
    | MoCoOptions
    | SimCLROptions
    | SupConOptions
    | MarginOptions
    | TripletOptions
    | NCEOptions
    | CPCOptions
    | SimCSEOptions
)
METHODS: dict[str, tuple[Callable[[Any, int], Objective], type[Options]]] = {
    "instdisc": (InstDisc, InstDiscOptions),
    "exemplar": (Exemplar, ExemplarOptions),
    "spread": (Spread, SpreadOptions),
    "moco": (MoCo, MoCoOptions),
    "simclr": (SimCLR, SimCLROptions),
    "supcon": (SupCon, SupConOptions),
    "margin": (Margin, MarginOptions),
    "triplet": (Triplet, TripletOptions),
    "nce": (NCE, NCEOptions),
    "cpc": (CPC, CPCOptions),
    "simcse": (SimCSE, SimCSEOptions),
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
