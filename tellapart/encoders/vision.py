"""Image backbones: `small-resnet`, and any model of timm or torchvision.

Shapes: N batch, C channels, P side of a view, F feature width.
"""

from __future__ import annotations

import contextlib
import warnings
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import ConfigError, require, unknown
from . import hub
from .choices import Pool

STAGES = ("blocks", "stages", "layers", "features")  # names of the stages of networks
SMALL_IMAGE = 64  # up to this side a ResNet gets the CIFAR stem: 3 x 3, stride 1, no max-pool


class Backbone(nn.Module):
    """Base class of image backbones: maps (N, C, P, P) to (N, F).

    Attributes:
        width: feature width F.
        small_stem: whether a ResNet has the CIFAR stem in place of its own.
    """

    width: int
    small_stem: bool = False  # a ResNet with the CIFAR stem in place of its own

    def maps(self, x: Tensor) -> list[Tensor]:
        """Return one feature map (N, channels, h, w) per stage, first to last."""
        raise NotImplementedError  # every backbone below has its own

    def stages(self) -> list[nn.Module]:
        """Return the stages, which can be frozen one after another, the stem first."""
        return [m for m in self.children() if any(True for _ in m.parameters())]


class SmallResNet(Backbone):
    """A small ResNet for CPUs: 3 x 3 stem, max-pool, three basic residual blocks, average pool.

    Args:
        channels: number of image channels C.
        base: base width w; the blocks have widths w, 2w, 4w and strides 1, 2, 2, so F = 4w.
    """

    def __init__(self, channels: int, base: int = 16) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(channels, base, 3, padding=1, bias=False),
            nn.BatchNorm2d(base),
            nn.ReLU(inplace=True),
        )
        self.pool = nn.MaxPool2d(2)
        self.blocks = nn.ModuleList(
            [
                BasicBlock(base, base, 1),
                BasicBlock(base, 2 * base, 2),
                BasicBlock(2 * base, 4 * base, 2),
            ]
        )
        self.width = 4 * base
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        conv, norm, _ = self.stem
        # ReLU is monotonic, so it commutes with the max-pool: same values and gradients at a
        # quarter of the cost
        x = F.relu(self.pool(norm(conv(x))), inplace=True)
        for block in self.blocks:
            x = block(x)
        return x.mean((2, 3))

    def maps(self, x: Tensor) -> list[Tensor]:
        out = [self.stem(x)]
        x = self.pool(out[0])
        for block in self.blocks:
            x = block(x)
            out.append(x)
        return out

    def stages(self) -> list[nn.Module]:
        return [self.stem, *self.blocks]


class BasicBlock(nn.Module):
    """A basic residual block: two 3 x 3 convolutions and a shortcut (He et al. 2016).

    The shortcut is a 1 x 1 convolution if the shape changes.

    Args:
        inside: input channels.
        outside: output channels.
        stride: stride of the first convolution.
    """

    def __init__(self, inside: int, outside: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inside, outside, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outside)
        self.conv2 = nn.Conv2d(outside, outside, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outside)
        self.shortcut = nn.Sequential()
        if stride != 1 or inside != outside:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inside, outside, 1, stride, bias=False), nn.BatchNorm2d(outside)
            )

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)), inplace=True)
        return F.relu(self.bn2(self.conv2(out)) + self.shortcut(x), inplace=True)


class TimmBackbone(Backbone):
    """Any timm model without its classifier.

    Args:
        name: name of the model in timm.
        channels: number of image channels C.
        size: side P of a view in pixels.
        pretrained: load the published weights, from the local cache or the hub.
        small_stem: whether a ResNet gets the CIFAR stem.
        pool: features of a vision transformer, as in `backbone`.

    Raises:
        ConfigError: an unknown model, weights that cannot be fetched, a size that it cannot read,
            or `pool` for a network without a class token.
    """

    def __init__(
        self,
        name: str,
        channels: int,
        size: int,
        pretrained: bool,
        small_stem: bool,
        pool: Pool = "auto",
    ) -> None:
        super().__init__()
        import timm

        if not timm.is_model(name):
            raise unknown("timm model", name, timm.list_models())
        options: dict[str, Any] = {"img_size": size} if takes_size(name) else {}
        options |= {"num_classes": 0, "in_chans": channels}
        try:
            with hub.no_retries() if pretrained else contextlib.nullcontext():
                model: Any = timm.create_model(name, pretrained=pretrained, **options)
        except Exception as error:  # timm raises many kinds, such as an unreachable hub
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            if pretrained and _is_offline(error):
                reason = (
                    "its weights are not in the local cache and the hub cannot be reached; give "
                    f"them as a file: --init FILE --encoder timm/{name}"
                )
            raise ConfigError(f"timm/{name} could not be made: {reason}") from error
        self.model, self.width, self.pool = model, int(model.num_features), pool
        self.small_stem = small_stem and cifar_stem(self.model)
        if pool == "auto":
            return
        require(
            getattr(model, "num_prefix_tokens", 0) > 0,
            f"--pool {pool} requires a vision transformer with a class token; timm/{name} has none",
        )
        self.width *= 2 if pool == "both" else 1

    def forward(self, x: Tensor) -> Tensor:
        if self.pool == "auto":
            out: Tensor = self.model(x)
            return out
        tokens: Tensor = self.model.forward_features(x)  # (N, L, width)
        first, patches = tokens[:, 0], tokens[:, self.model.num_prefix_tokens :].mean(1)
        chosen = {
            "token": (first,), "mean": (patches,), "both": (first, patches),
        }[self.pool]  # fmt: skip
        norm = getattr(self.model, "fc_norm", None) or nn.Identity()
        return torch.cat([norm(part) for part in chosen], 1)

    def maps(self, x: Tensor) -> list[Tensor]:
        out: list[Tensor] = self.model.forward_intermediates(x, intermediates_only=True)
        return out

    def stages(self) -> list[nn.Module]:
        return _library_stages(self.model)


class TorchvisionBackbone(Backbone):
    """Any torchvision classifier without its last linear layer."""

    def __init__(
        self, name: str, channels: int, size: int, pretrained: bool, small_stem: bool
    ) -> None:
        super().__init__()
        import torchvision.models

        known = torchvision.models.list_models(module=torchvision.models)
        if name not in known:
            raise unknown("torchvision model", name, known)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # initialisation notices of old models
                self.model = torchvision.models.get_model(
                    name, weights="DEFAULT" if pretrained else None
                )
        except Exception as error:  # the weights could not be fetched
            raise ConfigError(f"torchvision/{name} could not be made: {error}") from error
        self.small_stem = small_stem and cifar_stem(self.model)
        self.width = _drop_classifier(self.model)
        take_channels(self.model, channels)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.model(x)
        return out.flatten(1)

    def maps(self, x: Tensor) -> list[Tensor]:
        stages = getattr(self.model, "features", None) or nn.ModuleList(
            m
            for n, m in self.model.named_children()
            if n not in ("avgpool", "fc", "classifier", "heads", "head")
        )
        out: list[Tensor] = []
        for stage in stages:
            x = stage(x)
            if x.ndim == 4 and out and out[-1].shape[2:] == x.shape[2:]:
                out.pop()  # keep the last map of each resolution
            out.append(x)
        return [m for m in out if m.ndim == 4]

    def stages(self) -> list[nn.Module]:
        return _library_stages(self.model)


def backbone(
    name: str,
    *,
    channels: int,
    size: int,
    width: int = 16,
    pretrained: bool = False,
    small_stem: bool | None = None,
    pool: Pool = "auto",
) -> Backbone:
    """Build a backbone by name.

    Args:
        name: "small-resnet", "timm/NAME" or "torchvision/NAME".
        channels: number of image channels C, 1 or more.
        size: side P of a view in pixels.
        width: base width of small-resnet.
        pretrained: load the weights published by the library.
        small_stem: whether a ResNet gets the CIFAR stem; None: up to 64 px, unless `pretrained`.
        pool: features of a vision transformer: its class token (token), the mean of its patches
            (mean), both side by side (2F), or what the network was trained with (auto).

    Raises:
        ConfigError: the name is unknown, the library cannot build the model, or `pool` is given
            for a network that is not a vision transformer of timm.

    >>> backbone("small-resnet", channels=3, size=32).width
    64
    """
    kind, _, inner = name.partition("/")
    if small_stem is None:
        small_stem = size <= SMALL_IMAGE and not pretrained
    require(
        pool == "auto" or kind == "timm",
        f"--pool {pool} requires a vision transformer, timm/NAME; got {name}",
    )
    if name == "small-resnet":
        return SmallResNet(channels, width)
    if kind == "timm" and inner:
        return TimmBackbone(inner, channels, size, pretrained, small_stem, pool)
    if kind == "torchvision" and inner:
        return TorchvisionBackbone(inner, channels, size, pretrained, small_stem)
    raise unknown("encoder", name, ["small-resnet", "timm/resnet18", "torchvision/resnet18"])


def takes_size(name: str) -> bool:
    """Return whether a timm model is built for one image size.

    Args:
        name: name of the model in timm.
    """
    import timm

    known = timm.get_pretrained_cfg(name) if timm.is_model(name) else None
    return "vit" in name or "swin" in name or bool(known and known.fixed_input_size)


def _is_offline(error: BaseException | None) -> bool:
    """Return whether an error, or one of its causes, is that the hub cannot be reached."""
    names = ("LocalEntryNotFoundError", "OfflineModeIsEnabled", "ConnectError", "URLError")
    while error is not None:
        if type(error).__name__ in names or isinstance(error, ConnectionError):
            return True
        error = error.__cause__ or error.__context__
    return False


def cifar_stem(model: nn.Module) -> bool:
    """Replace the stem of a ResNet by a 3 x 3 convolution of stride 1 without max-pool, in place.

    Args:
        model: a ResNet of timm or torchvision.

    Returns:
        Whether the model has a stem that could be replaced.
    """
    conv = getattr(model, "conv1", None)
    if not isinstance(conv, nn.Conv2d) or not hasattr(model, "maxpool"):
        return False
    model.conv1 = nn.Conv2d(conv.in_channels, conv.out_channels, 3, 1, 1, bias=False)
    nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")
    model.maxpool = nn.Identity()
    return True


def split_stages(body: Backbone) -> tuple[nn.Module, nn.Module, int, int]:
    """Split a ResNet before its last stage.

    Args:
        body: a ResNet backbone.

    Returns:
        The first part, the last stage, the channels between them, and the channels at the end.

    Raises:
        ConfigError: the network is not a ResNet.
    """
    if isinstance(body, SmallResNet):
        first, last = nn.Sequential(body.stem, body.pool, *body.blocks[:-1]), body.blocks[-1]
    else:
        model = getattr(body, "model", body)
        layers = resnet_layers(model)
        if not layers:
            raise ConfigError(
                "only a ResNet can be cut before its last stage; use the pyramid (--head fpn)"
            )
        stem = [
            getattr(model, name)
            for name in ("conv1", "bn1", "act1", "relu", "maxpool")
            if hasattr(model, name)
        ]
        first, last = nn.Sequential(*stem, *layers[:-1]), layers[-1]
    between = next(m for m in last.modules() if isinstance(m, nn.Conv2d)).in_channels
    return first, last, between, body.width


def resnet_layers(model: nn.Module) -> list[nn.Module]:
    """Return layer1 to layer4 of a timm or torchvision ResNet; empty for other networks."""
    names = [f"layer{i}" for i in range(1, 5)]
    return [getattr(model, n) for n in names] if all(hasattr(model, n) for n in names) else []


def _library_stages(model: nn.Module) -> list[nn.Module]:
    """Return the stem, the stages (blocks of a transformer) and the rest of a library's network."""
    layers = resnet_layers(model)
    if layers:
        return [nn.ModuleList([model.get_submodule("conv1"), model.get_submodule("bn1")]), *layers]
    children = {n: m for n, m in model.named_children() if any(True for _ in m.parameters())}
    name = next((n for n in STAGES if isinstance(children.get(n), nn.Sequential)), None)
    name = name or next((n for n in STAGES if isinstance(children.get(n), nn.ModuleList)), None)
    if name is None:
        return list(children.values())
    place = list(children).index(name)
    before, after = list(children.values())[:place], list(children.values())[place + 1 :]
    blocks = [m for m in children[name].children() if any(True for _ in m.parameters())]
    parts = [nn.ModuleList(part) for part in (before, after)]
    return [*parts[:1][: len(before)], *blocks, *parts[1:][: len(after)]]


def _drop_classifier(model: nn.Module) -> int:
    """Replace the last linear layer by an identity and return its input width."""
    name, last = [(n, m) for n, m in model.named_modules() if isinstance(m, nn.Linear)][-1]
    parent = model.get_submodule(name.rpartition(".")[0])
    setattr(parent, name.rpartition(".")[2], nn.Identity())
    return last.in_features


def take_channels(model: nn.Module, channels: int) -> None:
    """Adapt the first convolution to C channels, in place, by averaging its filters over channels.

    Args:
        model: an image network.
        channels: number of image channels C.
    """
    _name, conv = next((n, m) for n, m in model.named_modules() if isinstance(m, nn.Conv2d))
    if conv.in_channels == channels:
        return
    with torch.no_grad():
        weight = (
            conv.weight.mean(1, keepdim=True).expand(-1, channels, -1, -1)
            * conv.in_channels
            / channels
        )
        conv.in_channels, conv.weight = channels, nn.Parameter(weight.contiguous())
