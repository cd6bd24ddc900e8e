"""User-defined views: a function of a batch, or of one image.

Shapes: N batch, C channels, H and W pixels.
"""

from __future__ import annotations

from collections.abc import Callable
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


def _length(batch: Any) -> int:
    """Return the number of items N of a batch or a view."""
    if isinstance(batch, dict):
        if "length" in batch:
            return len(batch["length"])
        return len(batch["height"]) if "height" in batch else len(next(iter(batch.values())))
    return len(batch)
