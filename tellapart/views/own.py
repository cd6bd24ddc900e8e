"""User-defined views: a function of a batch, or of one image.

Shapes: N batch, C channels, H and W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ConfigError
from ..runtime import plugins
from . import affine


class OwnViews:
    """Random views by a user-defined function, reproducible from the generator.

    The global generator of torch is seeded for each call and restored afterwards, so that a
    function that uses it (such as torchvision transforms) gives the same views in every run.

    Args:
        function: if it requires two arguments, it is called with (batch, generator) and returns a
            view of every item. Otherwise it is called with each image (C, H, W) uint8, as
            torchvision transforms are, and all results must have one shape.
        name: name for messages.
    """

    def __init__(self, function: Callable[..., Any], name: str) -> None:
        called = function.forward if isinstance(function, nn.Module) else function
        self.function, self.name = function, name
        self.whole = plugins.required(called) >= 2

    def __call__(self, batch: Any, generator: torch.Generator) -> Any:
        """Return a view of every item of a batch."""
        seed = int(torch.randint(1 << 62, (1,), generator=generator, device=generator.device))
        devices = [generator.device] if generator.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(seed)
            view = self.function(batch, generator) if self.whole else self._each(batch)
        count = _length(batch)
        if _length(view) != count:
            raise ConfigError(
                f"the views {self.name} made {_length(view)} views of {count} items; one for each "
                "is needed"
            )
        return view

    def _each(self, batch: Any) -> Tensor:
        """Compute the views of images one by one."""
        if isinstance(batch, dict) and "pixels" not in batch:
            raise ConfigError(
                f"the views {self.name} take one argument, which is for images; for other data "
                "take (batch, generator)"
            )
        views = [self.function(image) for image in affine.parts(batch)]
        shapes = {tuple(view.shape) if isinstance(view, Tensor) else type(view) for view in views}
        if len(shapes) > 1 or not isinstance(views[0], Tensor):
            raise ConfigError(
                f"the views {self.name} must make tensors of one shape, got "
                f"{sorted(map(str, shapes))}; end with a crop to a fixed size, and a tensor"
            )
        return torch.stack(views)


class Branches:
    """Different views of an item for each branch: the first function makes view 0, and so on.

    Called itself, it makes views of the first branch.

    Args:
        branches: one function of (batch, generator) for each view of an item.
    """

    def __init__(self, branches: Sequence[OwnViews]) -> None:
        self.branches = tuple(branches)

    def __call__(self, batch: Any, generator: torch.Generator) -> Any:
        """Return a view of every item, by the function of the first branch."""
        return self.branches[0](batch, generator)


def branch_of(views: Callable[..., Any], number: int) -> Callable[..., Any]:
    """Return the function that makes view `number` of an item.

    Args:
        views: `Branches`, or one function for all views.
        number: 0 for the first view.

    Raises:
        ConfigError: the branches are fewer than the views that the objective compares.
    """
    if not isinstance(views, Branches):
        return views
    if number >= len(views.branches):
        raise ConfigError(
            f"{len(views.branches)} functions of views were given and the objective compares at "
            f"least {number + 1} views; give one function for each, or one for all"
        )
    return views.branches[number]


def registered_views(given: Any) -> str:
    """Remember the user's views, and return their name, or their names divided by commas.

    Args:
        given: a function or its name `module:function`; or a list of them, one for each view.

    Raises:
        ConfigError: a name that cannot be imported.
    """
    if isinstance(given, str):
        given = given.split(",")
    if not isinstance(given, (list, tuple)):
        return plugins.register(given)
    if not given:
        raise ConfigError("an empty list of views was given; at least one function is needed")
    names: list[str] = []
    for number, one in enumerate(given):
        name = plugins.register(one)
        if name in names and one is not given[names.index(name)]:  # two lambdas share their name
            plugins.register(given[names.index(name)], name)
            name = plugins.register(one, f"{name}_{number}")
        names.append(name)
    return ",".join(names)


def own_views(names: str) -> OwnViews | Branches:
    """Return the user's views by the names that `registered_views` returned.

    Args:
        names: `module:function`, or several divided by commas.

    Raises:
        ConfigError: a name that is not registered.
    """
    branches = [OwnViews(plugins.find(name), name) for name in names.split(",")]
    return branches[0] if len(branches) == 1 else Branches(branches)


def own_views_known(names: str) -> bool:
    """Return whether `own_views` can return these.

    Args:
        names: `module:function`, or several divided by commas.
    """
    return all(plugins.known(name) for name in names.split(","))


def _length(batch: Any) -> int:
    """Return the number of items N of a batch or a view."""
    if isinstance(batch, dict):
        if "length" in batch:
            return len(batch["length"])
        return len(batch["height"]) if "height" in batch else len(next(iter(batch.values())))
    return len(batch)
