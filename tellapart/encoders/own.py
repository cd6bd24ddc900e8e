"""Encoders around a network that a user brings: an `nn.Module`, or a class or function that makes one.

Images reach the network as float in [0, 1], without normalisation; other data as the modality reads
them. Shapes: N batch, C channels, P side of a view, F feature width, D embedding width.
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
    """A network of images (N, C, P, P) to (N, F); a feature map (N, F, h, w) is averaged over places.

    Args:
        network: the module. It may have `maps`, one feature map per stage.
        name: for messages.
        width: F.
    """

    model: nn.Module

    def __init__(self, network: nn.Module, name: str, width: int) -> None:
        super().__init__()
        self.model, self.name, self.width = network, name, width

    def forward(self, x: Tensor) -> Tensor:
        out = self.model(x)
        return pooled(out, self.name, len(x))

    def maps(self, x: Tensor) -> list[Tensor]:
        """The feature maps of the network.

        Raises:
            ConfigError: the network has no `maps`.
        """
        if not hasattr(self.model, "maps"):
            raise ConfigError(f"{self.name} has no method maps, so it has no feature maps")
        network: Any = self.model
        found: list[Tensor] = network.maps(x)
        return found


class NetworkEncoder(AnyEncoder):
    """An encoder of any kind of data around a network, with a head.

    Args:
        network: called with a view (for sounds and series with the values (N, C, T), and the lengths
            (N,) if it requires a second argument); gives (N, F).
        kind: the kind of data it reads.
        width: F.
        head_kind: as `heads.head`.
        dim: D; with the head "none" it is F.
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
        """(N, F)."""
        if isinstance(x, dict) and "values" in x and "length" in x:
            values = x["values"]
            out = self.network(values, x["length"]) if self.lengths else self.network(values)
            return pooled(out, type(self.network).__name__, len(values))
        out = self.network(x)
        return pooled(out, type(self.network).__name__, len(out))


def network_of(name: str, seed: int, **given: Any) -> nn.Module:
    """A fresh copy of a network of the user.

    Args:
        name: as `plugins.register` returned it. A module is copied with the weights it was passed
            with; a class or function is called, with those of `given` that it takes.
        seed: of the weights that a class or function draws.
        given: channels, size and the like.

    Raises:
        ConfigError: unknown here, or it makes no `nn.Module`.
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
    """A copy of a network with random weights, as far as its layers know how to draw them."""
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
    """F, from a run over two empty items.

    Args:
        network: that of the user.
        name: for messages.
        view: two empty items.
        features: calls the network; None: the network itself.

    Raises:
        ConfigError: the network fails on them.
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
    """(N, F) from (N, F), or from a map (N, F, ...) its mean over places.

    Raises:
        ConfigError: something else.
    """
    if not isinstance(out, Tensor) or out.ndim < 2 or len(out) != count:
        shape = tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__
        raise ConfigError(f"{name} must give features ({count}, F), it gives {shape}")
    return out if out.ndim == 2 else out.flatten(2).mean(2)


def random_twin(encoder: Encoder, seed: int) -> Encoder:
    """A copy of an image encoder around a network of the user, with random weights.

    Args:
        encoder: its backbone is an `OwnBackbone`.
        seed: of the weights.
    """
    twin = copy.deepcopy(encoder)
    twin.add_module("backbone", reset(encoder.backbone, seed))
    return twin


def of_images(value: nn.Module, name: str) -> Encoder:
    """An encoder of images around a module, without a head, for images of any size and channels.

    Args:
        value: the network; it sees values in [0, 1].
        name: for messages.
    """
    encoder = Encoder(
        OwnBackbone(value, name, 0), nn.Identity(), 0, mean=torch.zeros(1), std=torch.ones(1)
    )
    encoder.description = {"encoder": name, "head_kind": "none", "dim": 0}
    return encoder


def of_sequences(
    name: str, *, kind: str, channels: int, steps: int, head_kind: str, dim: int, seed: int
) -> NetworkEncoder:
    """An encoder of sounds or series around a network of the user.

    Args:
        name: as `plugins.register` returned it.
        kind: "audio" or "series".
        channels: C.
        steps: of a view.
        head_kind: as `heads.head`.
        dim: D.
        seed: of the weights that a class or function draws, and of the head.
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
