"""Objectives that a user brings: a class, an object, or a function of two views' embeddings.

Shapes: N batch, D width.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..errors import ConfigError
from ..runtime import plugins
from .base import Batch, Embedded, Objective, Out, two_views
from .options import OPTIONS, Options


@dataclass(frozen=True)
class NoOptions(Options):
    """The options of an objective that has none."""


class FunctionObjective(Objective):
    """A loss of two views of the same items.

    Args:
        function: (a, b), unit rows (N, D) each, to a scalar.
    """

    def __init__(self, function: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.function, self.views = function, 2

    def loss(self, embedded: Embedded, batch: Batch, generator: torch.Generator) -> Out:
        """The value of the function."""
        a, b = embedded["z"], embedded["z1"]
        loss = self.function(a, b)
        if not isinstance(loss, Tensor) or loss.ndim:
            raise ConfigError("a loss function must return a tensor with one value")
        return two_views(loss, a, b)


def register(value: Any) -> str:
    """Remember an objective of the user and return the name of its method.

    Args:
        value: a name `module:object`, or a subclass of `Objective` (called without arguments, or
            with (options, seed) as the built-in ones), an object of one, or a function
            (a, b) -> loss. A class may have `Options`, a frozen dataclass derived from
            `objectives.Options`.

    Raises:
        ConfigError: none of these.
    """
    name = plugins.register(value)
    found = plugins.find(name)
    objective = isinstance(found, Objective) or (
        inspect.isclass(found) and issubclass(found, Objective)
    )
    if not objective and (inspect.isclass(found) or not callable(found)):
        raise ConfigError(
            f"{name} is neither a class or object of tellapart.objectives.Objective nor a "
            "function of two views' embeddings"
        )
    options = getattr(found, "Options", NoOptions)
    if not (inspect.isclass(options) and issubclass(options, Options)):
        raise ConfigError(f"{name}.Options must derive from tellapart.objectives.Options")
    OPTIONS[name] = options
    return name


def build(name: str, options: Options, seed: int) -> Objective:
    """A fresh objective of the user.

    Args:
        name: as `register` returned it.
        options: its options.
        seed: as of the built-in objectives.

    Raises:
        ConfigError: it is not known here.
    """
    factory: Any = plugins.find(name)
    if isinstance(factory, Objective):
        return copy.deepcopy(factory)
    if not inspect.isclass(factory):
        return FunctionObjective(factory)
    make: Any = factory
    objective: Objective = make(options, seed) if plugins.required(make) >= 2 else make()
    return objective
