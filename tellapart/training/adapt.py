"""Adapting a pretrained network: what is trained, how fast, and how far it may move.

Shapes: N rows of a batch, V views, F feature width.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..encoders import AnyEncoder, Encoder
from ..encoders.norms import batchnorms
from ..errors import ConfigError, MissingExtraError
from ..objectives import Batch, Embedded, Objective, Out
from .config import CommonConfig

Groups = list[dict[str, Any]]
ANCHOR = "anchor"  # entry of the embedded rows, and of the logs


def prepare(encoder: AnyEncoder, config: CommonConfig) -> None:
    """Freeze stages and BatchNorm statistics, and add LoRA updates, in place.

    Args:
        encoder: the encoder before training.
        config: `freeze`, `freeze_bn` and `lora`.

    Raises:
        ConfigError: the network has no stages, or fewer than are to be frozen.
        MissingExtraError: LoRA without peft.
    """
    asked = [n for n in ("freeze", "freeze_bn", "lora") if getattr(config, n)]
    if config.layer_decay < 1:
        asked.append("layer_decay")
    if not asked and not config.anchor:
        return
    flag = (asked or [ANCHOR])[0].replace("_", "-")
    images = _of_images(encoder)
    if images is None:
        raise ConfigError(f"--{flag} requires an encoder of images")
    stages = images.backbone.stages()
    if config.freeze:
        if config.freeze >= len(stages):
            raise ConfigError(
                f"--freeze {config.freeze} leaves nothing to train: {config.encoder} has "
                f"{len(stages)} stages"
            )
        _freeze(images, stages[: config.freeze])
    if config.freeze_bn:
        images.fixed += batchnorms(images.backbone)
    if config.lora:
        _add_lora(images, config)


def _freeze(encoder: Encoder, stages: Sequence[nn.Module]) -> None:
    """Keep the weights and statistics of the first stages, and the positions before them."""
    encoder.fixed += stages
    inside = {id(p) for stage in encoder.backbone.stages() for p in stage.parameters()}
    for parameter in encoder.backbone.parameters():
        if id(parameter) not in inside:  # class token and positions
            parameter.requires_grad_(False)
    for stage in stages:
        stage.requires_grad_(False)


def groups(config: CommonConfig, encoder: AnyEncoder, others: Iterable[nn.Parameter]) -> Groups:
    """Return the trained parameters by the scale of their learning rate.

    With `layer_decay` d, stage i of L has the scale d^(L - i); the head and the objective have 1
    (BEiT, Bao et al. 2021, appendix).

    Args:
        config: the settings.
        encoder: the encoder.
        others: further trained parameters, those of the objective.
    """
    trained = [p for p in (*encoder.parameters(), *others) if p.requires_grad]
    images = _of_images(encoder)
    if config.layer_decay == 1 or images is None:
        return [{"params": trained}]
    stages = images.backbone.stages()
    scale = {id(p): config.layer_decay ** len(stages) for p in images.backbone.parameters()}
    for i, stage in enumerate(stages):
        scale |= {id(p): config.layer_decay ** (len(stages) - 1 - i) for p in stage.parameters()}
    by_scale: dict[float, list[nn.Parameter]] = {}
    for parameter in trained:
        by_scale.setdefault(scale.get(id(parameter), 1.0), []).append(parameter)
    return [{"params": by_scale[s], "scale": s} for s in sorted(by_scale)]


class Anchor:
    """An objective with a term that keeps features near those of the starting weights.

    The term of a row is |f / |f| - g / |g||^2, with f its features and g those of the starting
    weights for the same views, averaged over the views. It guards against forgetting, as the
    proximal term of L2-SP (Li et al. 2018) does in the space of the weights.

    Args:
        objective: the objective.
        encoder: the encoder with its starting weights, of which a copy is kept.
        weight: weight of the term.
    """

    def __init__(self, objective: Objective, encoder: AnyEncoder, weight: float) -> None:
        self.objective, self.weight = objective, weight
        self.start = copy.deepcopy(encoder.get_submodule("backbone")).eval().requires_grad_(False)

    def __getattr__(self, name: str) -> Any:
        """An attribute of the objective."""
        if name.startswith("__") or name == "objective":  # while it is copied
            raise AttributeError(name)
        return getattr(self.objective, name)

    def embed(self, encoder: AnyEncoder, batch: Batch) -> Embedded:
        """Embed a batch, and add the distance (N,) of its features to the starting ones."""
        return self._anchored(self.objective.embed, encoder, batch)

    def embed_piece(self, encoder: AnyEncoder, batch: Batch) -> Embedded:
        """Embed a micro-batch, as `embed`."""
        return self._anchored(self.objective.embed_piece, encoder, batch)

    def _anchored(self, embed: Any, encoder: AnyEncoder, batch: Batch) -> Embedded:
        seen: list[Tensor] = []

        def measure(_: nn.Module, inputs: tuple[Tensor, ...], features: Tensor) -> None:
            with torch.no_grad():
                target = self.start(inputs[0])
            a, b = F.normalize(features.float(), dim=1), F.normalize(target.float(), dim=1)
            seen.append((a - b).square().sum(1))

        hook = encoder.get_submodule("backbone").register_forward_hook(measure)
        try:
            embedded: Embedded = embed(encoder, batch)
        finally:
            hook.remove()
        return embedded | {ANCHOR: torch.cat(seen).view(-1, len(batch.index)).mean(0)}

    def loss(self, embedded: Embedded, batch: Batch, generator: torch.Generator) -> Out:
        """Return the loss of the objective plus the weighted mean distance."""
        inner = {name: value for name, value in embedded.items() if name != ANCHOR}
        out, distance = self.objective.loss(inner, batch, generator), embedded[ANCHOR].mean()
        return out._replace(
            loss=out.loss + self.weight * distance, logs=out.logs | {ANCHOR: distance.detach()}
        )


class Average:
    """An exponential moving average of the weights of an encoder.

    Args:
        encoder: the encoder; the average starts from its weights.
        decay: share that the average keeps per step.
    """

    def __init__(self, encoder: AnyEncoder, decay: float) -> None:
        self.decay = decay
        self.weights = {n: p.detach().clone() for n, p in encoder.named_parameters()}

    def update(self, encoder: AnyEncoder) -> None:
        """Move the average towards the weights of the encoder."""
        for name, parameter in encoder.named_parameters():
            self.weights[name].lerp_(parameter.detach(), 1 - self.decay)

    def applied(self, encoder: AnyEncoder) -> None:
        """Give an encoder the averaged weights, in place; its buffers stay."""
        with torch.no_grad():
            for name, parameter in encoder.named_parameters():
                parameter.copy_(self.weights[name])


def _add_lora(encoder: Encoder, config: CommonConfig) -> None:
    """Add low-rank updates to the linear layers of a transformer (Hu et al. 2021), in place."""
    try:
        import peft
    except ImportError as error:
        raise MissingExtraError("peft", "lora") from error
    names = [n for n, m in encoder.backbone.named_modules() if isinstance(m, nn.Linear)]
    if not names:
        raise ConfigError(
            f"--lora {config.lora} updates linear layers, and {config.encoder} has none; it is "
            "meant for transformers (timm/vit_small_patch16_224)"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        settings = peft.LoraConfig(
            r=config.lora, lora_alpha=2 * config.lora, target_modules=names, bias="none"
        )
        encoder.backbone.requires_grad_(False)
        peft.inject_adapter_in_model(settings, encoder.backbone)


def merged(encoder: AnyEncoder) -> AnyEncoder:
    """Return a copy of an encoder with its LoRA updates added to the weights of its layers.

    Args:
        encoder: the encoder in training.
    """
    from peft.tuners.lora import LoraLayer

    plain = copy.deepcopy(encoder)
    for name, module in [*plain.named_modules()]:
        if isinstance(module, LoraLayer):
            module.merge()
            parent, _, child = name.rpartition(".")
            setattr(plain.get_submodule(parent), child, module.get_base_layer())
    return plain


def _of_images(encoder: AnyEncoder) -> Encoder | None:
    """Return an encoder of images, None for others."""
    # only backbones of images have stages
    return encoder if isinstance(encoder, Encoder) else None
