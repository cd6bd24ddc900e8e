"""An encoder that starts from existing weights: a pretrained backbone, a run of ours, or a file of weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from ..errors import ConfigError
from . import build
from .encoder import Encoder


def describe(init: str) -> dict[str, Any]:
    """The settings that the weights bring: {"encoder", "width"}; nothing for a bare file of weights.

    Raises:
        ConfigError: no such weights.
    """
    if init.startswith(("timm/", "torchvision/")):
        return {"encoder": init}
    folder = _encoder_folder(init)
    return {name: _about(folder)[name] for name in ("encoder", "width")} if folder else {}


def start(
    init: str,
    *,
    encoder: str,
    width: int,
    channels: int,
    size: int,
    dim: int,
    head_kind: str,
    seed: int,
    mean: Tensor | None = None,
    std: Tensor | None = None,
) -> Encoder:
    """The encoder with the backbone, stem and normalisation of `init` and a fresh head.

    Args:
        init: "timm/NAME" or "torchvision/NAME" (pretrained), a run folder or its encoder/, or a file of weights
            (.safetensors, .pt) for the backbone `encoder`.
        mean, std: the normalisation where the weights bring none. others: as `encoders.build`.
    Raises:
        ConfigError: no such weights, damaged ones, or weights of another network.
    """
    shared: dict[str, Any] = {"channels": channels, "size": size, "dim": dim, "head_kind": head_kind}
    shared |= {"width": width, "seed": seed, "mean": mean, "std": std}
    if init.startswith(("timm/", "torchvision/")):
        return _pretrained(init, shared)
    folder = _encoder_folder(init)
    about = _about(folder) if folder else {}
    if folder and about["channels"] != channels:
        raise ConfigError(f"--init {init} reads {about['channels']} channel(s), the data have {channels}")
    made = build(encoder, **shared, small_stem=about.get("small_stem"))
    weights = _weights(folder / "model.safetensors" if folder else Path(init))
    for name in ("mean", "std"):
        own = made.get_buffer(name)
        if name in weights and weights[name].shape == own.shape:
            own.copy_(weights[name])
    _load_backbone(made, weights, init)
    return made


def _about(folder: Path) -> dict[str, Any]:
    """The description of an encoder of ours."""
    try:
        found: dict[str, Any] = json.loads((folder / "config.json").read_text())
        if not {"encoder", "width", "channels"} <= found.keys():
            raise KeyError("encoder, width, channels")
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise ConfigError(
            f"--init: {folder}/config.json is not that of an encoder of tellapart ({type(error).__name__}: {error}); "
            "of other weights give the file itself"
        ) from error
    return found


def _pretrained(name: str, shared: dict[str, Any]) -> Encoder:
    made = build(name, **shared, pretrained=True)
    config = getattr(getattr(made.backbone, "model", None), "pretrained_cfg", None) or {}
    mean, std = config.get("mean", (0.485, 0.456, 0.406)), config.get("std", (0.229, 0.224, 0.225))  # ImageNet's
    if shared["channels"] == len(mean):
        made.mean.copy_(torch.tensor(mean).view(1, -1, 1, 1))
        made.std.copy_(torch.tensor(std).view(1, -1, 1, 1))
    else:
        made.mean.fill_(sum(mean) / len(mean))
        made.std.fill_(sum(std) / len(std))
    return made


def _encoder_folder(init: str) -> Path | None:
    """The folder with config.json and model.safetensors that `init` names; None for a file."""
    path = Path(init)
    for folder in (path / "encoder", path):
        if (folder / "config.json").is_file() and (folder / "model.safetensors").is_file():
            return folder
    if path.is_file():
        return None
    raise ConfigError(
        f"--init {init} is neither timm/NAME, torchvision/NAME, a run folder with an encoder, nor a file of weights"
    )


def _weights(path: Path) -> dict[str, torch.Tensor]:
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        found: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file fails in many ways
        raise ConfigError(f"--init {path} cannot be read as weights ({type(error).__name__}: {error})") from error
    for key in ("encoder", "state_dict", "model"):  # a checkpoint of ours, of others
        if isinstance(found, dict) and isinstance(found.get(key), dict):
            found = found[key]
    if not isinstance(found, dict) or not all(isinstance(v, torch.Tensor) for v in found.values()):
        raise ConfigError(f"--init {path} holds no weights by name")
    return found


def _load_backbone(encoder: Encoder, weights: dict[str, torch.Tensor], init: str) -> None:
    wanted = encoder.backbone.state_dict()
    inner = "model." if all(name.startswith("model.") for name in wanted) else ""
    found = {}
    for name in wanted:
        for candidate in (f"backbone.{name}", name, name.removeprefix(inner)):
            if candidate in weights and weights[candidate].shape == wanted[name].shape:
                found[name] = weights[candidate]
                break
    missing = wanted.keys() - found.keys()
    if missing:
        raise ConfigError(
            f"--init {init} does not fit the encoder: {len(missing)} of {len(wanted)} tensors are missing or have "
            f"another shape, {sorted(missing)[0]} among them; give its --encoder and --width"
        )
    encoder.backbone.load_state_dict(found)
