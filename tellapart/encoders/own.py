"""Encoders around a user-defined network: an `nn.Module`, or a class or function that returns one.

Images are passed as float in [0, 1], without normalisation; other data as the modality reads them.

Shapes: N batch, C channels, P side of a view, F feature width, D embedding width.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ConfigError
from ..runtime import plugins
from .encoder import AnyEncoder, Encoder
from .heads import head
from .vision import Backbone


class OwnBackbone(Backbone):
    """A user-defined image network; a feature map (N, F, h, w) is averaged over its positions.

    Args:
        network: maps (N, C, P, P) to (N, F) or (N, F, h, w). It may have a method `maps`, which
            returns one feature map per stage.
        name: name for messages.
        width: feature width F.
    """

    model: nn.Module

    def __init__(self, network: nn.Module, name: str, width: int) -> None:
        super().__init__()
        self.model, self.name, self.width = network, name, width

    def forward(self, x: Tensor) -> Tensor:
        out = self.model(x)
        return pooled(out, self.name, len(x))

    def maps(self, x: Tensor) -> list[Tensor]:
        """Return the feature maps of the network, one per stage.

        Raises:
            ConfigError: the network has no `maps`.
        """
        if not hasattr(self.model, "maps"):
            raise ConfigError(f"{self.name} has no method maps, so it has no feature maps")
        network: Any = self.model
        stage_maps: list[Tensor] = network.maps(x)
        return stage_maps


class NetworkEncoder(AnyEncoder):
    """An encoder for any kind of data: a user-defined network with a projection head.

    Args:
        network: maps a view to features (N, F). For sounds and series it receives the values
            (N, C, T), and the lengths (N,) if it requires a second argument.
        kind: the kind of data it reads.
        width: feature width F.
        head_kind: kind of projection head, as in `heads.head`.
        dim: embedding width D; with the head "none" it is F.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        kind: str,
        width: int,
        head_kind: str = "linear",
        dim: int = 128,
    ) -> None:
        super().__init__()
        self.network, self.kinds, self.width = network, (kind,), width
        self.head, self.dim = head(head_kind, width, dim), width if head_kind == "none" else dim
        self.register_buffer("zero", torch.zeros(()), persistent=False)
        self.lengths = plugins.required(network.forward) >= 2
        self.description = {
            "kind": kind, "width": width, "head_kind": head_kind, "dim": self.dim,
        }  # fmt: skip

    @property
    def device(self) -> torch.device:
        """The device of its buffers."""
        return self.get_buffer("zero").device

    def features(self, x: Any) -> Tensor:
        """Compute the features (N, F)."""
        if isinstance(x, dict) and "values" in x and "length" in x:
            values = x["values"]
            out = self.network(values, x["length"]) if self.lengths else self.network(values)
            return pooled(out, type(self.network).__name__, len(values))
        out = self.network(x)
        return pooled(out, type(self.network).__name__, len(out))


def network_of(name: str, seed: int, **given: Any) -> nn.Module:
    """Return a new copy of a user-defined network.

    Args:
        name: the name returned by `plugins.register`. A module is copied with its weights; a class
            or function is called with those of `given` that it accepts.
        seed: seed of the weights that a class or function draws.
        given: channels, size and other settings.

    Raises:
        ConfigError: the name is unknown, or no `nn.Module` is returned.
    """
    value = plugins.find(name)
    if isinstance(value, nn.Module):
        return copy.deepcopy(value)
    if not callable(value):
        raise ConfigError(
            f"{name} is {type(value).__name__}, neither an nn.Module nor what makes one"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = plugins.called(value, given | {"seed": seed})
    if not isinstance(network, nn.Module):
        raise ConfigError(f"{name} made {type(network).__name__}, not an nn.Module")
    return network


def reset(network: nn.Module, seed: int) -> nn.Module:
    """Return a copy of a network with every layer that has `reset_parameters` re-initialised."""
    fresh = copy.deepcopy(network)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for module in fresh.modules():
            draw = getattr(module, "reset_parameters", None)
            if callable(draw):
                draw()
    return fresh


def width_of(
    network: nn.Module, name: str, view: Any, features: Callable[[Any], Tensor] | None = None
) -> int:
    """Determine the feature width F by running the network on two empty items.

    Args:
        network: the user-defined network.
        name: name for messages.
        view: a view of two empty items.
        features: calls the network; None: call it directly.

    Raises:
        ConfigError: the network fails on the view.
    """
    training = network.training
    try:
        with torch.no_grad():
            network.eval()
            out = (features or network)(view)
    except Exception as error:  # the code of a user fails in any way
        shape = tuple(view.shape) if isinstance(view, Tensor) else type(view).__name__
        raise ConfigError(f"{name} fails on a view of shape {shape}: {error}") from error
    finally:
        network.train(training)
    return pooled(out, name, 2).shape[1]


def pooled(out: Any, name: str, count: int) -> Tensor:
    """Return features (N, F); a map (N, F, ...) is averaged over its positions.

    Args:
        out: output of the network.
        name: name for messages.
        count: number of items N.

    Raises:
        ConfigError: the output has another form.
    """
    if not isinstance(out, Tensor) or out.ndim < 2 or len(out) != count:
        shape = tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__
        raise ConfigError(f"{name} must give features ({count}, F), it gives {shape}")
    return out if out.ndim == 2 else out.flatten(2).mean(2)


def random_twin(encoder: Encoder, seed: int) -> Encoder:
    """Return a copy of an image encoder with a re-initialised, user-defined backbone.

    Args:
        encoder: an encoder whose backbone is an `OwnBackbone`.
        seed: seed of the weights.
    """
    twin = copy.deepcopy(encoder)
    twin.add_module("backbone", reset(encoder.backbone, seed))
    return twin


def of_images(value: nn.Module, name: str) -> Encoder:
    """Build an image encoder without a head, for images of any size and number of channels.

    Args:
        value: the network; it receives values in [0, 1].
        name: name for messages.
    """
    encoder = Encoder(
        OwnBackbone(value, name, 0), nn.Identity(), 0, mean=torch.zeros(1), std=torch.ones(1)
    )
    encoder.description = {"encoder": name, "head_kind": "none", "dim": 0}
    return encoder


def of_sequences(
    name: str, *, kind: str, channels: int, steps: int, head_kind: str, dim: int, seed: int
) -> NetworkEncoder:
    """Build an encoder of sounds or series around a user-defined network.

    Args:
        name: the name returned by `plugins.register`.
        kind: "audio" or "series".
        channels: number of channels C.
        steps: length of a view in steps.
        head_kind: kind of projection head, as in `heads.head`.
        dim: embedding width D.
        seed: seed of the weights of the network and the head.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = network_of(name, seed, channels=channels, steps=steps)
        view = {"values": torch.zeros(2, channels, steps), "length": torch.tensor([steps, steps])}
        probe = NetworkEncoder(network, kind=kind, width=1, head_kind="none")
        width = width_of(network, name, view, probe.features)
        encoder = NetworkEncoder(network, kind=kind, width=width, head_kind=head_kind, dim=dim)
    encoder.description |= {"encoder": name, "channels": channels, "steps": steps}
    return encoder
