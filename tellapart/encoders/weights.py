"""Weights in files, by whoever wrote them: what is unwrapped, which prefix is dropped, and what did not match.

Known: tellapart, MoCo (and v3), DINO, lightly, solo-learn, VISSL, DataParallel, and plain state dicts.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from ..errors import ConfigError

# where checkpoints keep the weights, outermost first; DINO's teacher is the network to use
WRAPPERS = ("classy_state_dict", "base_model", "model", "trunk", "teacher", "state_dict", "encoder")
PREFIXES = (
    "",
    "backbone.",  # tellapart, solo-learn, lightly
    "backbone.model.",
    "module.encoder_q.",  # MoCo
    "encoder_q.",
    "module.base_encoder.",  # MoCo v3
    "module.backbone.",  # DINO
    "_feature_blocks.",  # VISSL
    "encoder.",  # solo-learn before 1.0.6
    "module.",
    "model.",
)
STAGE = re.compile(r"(layer|blocks\.|stages\.)\d")  # a tensor of a stage
# lightly's ResNets are nn.Sequential(*children of torchvision's): numbers in place of names
NUMBERED = {"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3", "7": "layer4"}


def read(path: Path) -> tuple[dict[str, Tensor], str | None]:
    """The tensors of a file by name, unwrapped, and the name of the architecture where the file tells it (MoCo does).

    Raises:
        ConfigError: missing, damaged, or no weights.
    """
    try:
        if path.suffix == ".safetensors":
            return load_file(path), None
        with torch.serialization.safe_globals([argparse.Namespace]):  # MoCo's and DINO's settings
            found: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file fails in many ways
        said = next(
            iter(str(error).splitlines()), ""
        )  # torch goes on with advice that would run what is in it
        raise ConfigError(
            f"{path} cannot be read as weights ({type(error).__name__}: {said})"
        ) from error
    arch = found.get("arch") if isinstance(found, dict) else None
    unwrapped = True
    while unwrapped and isinstance(found, dict):
        inner = next((found[key] for key in WRAPPERS if isinstance(found.get(key), dict)), None)
        unwrapped, found = inner is not None, found if inner is None else inner
    tensors = (
        {k: v for k, v in found.items() if isinstance(v, Tensor)} if isinstance(found, dict) else {}
    )
    if not tensors:
        raise ConfigError(f"{path} holds no weights by name")
    return tensors, arch if isinstance(arch, str) else None


def match(
    weights: dict[str, Tensor], network: torch.nn.Module
) -> tuple[dict[str, Tensor], list[str]]:
    """Weights that fit `network`, by its names, under the best prefix; and stages that do not fit."""
    wanted = network.state_dict()
    best: tuple[dict[str, Tensor], list[str]] = {}, []
    for prefix in PREFIXES:
        for named in (_plain, _numbered):
            here = named(weights, prefix)
            found = {}
            for name, tensor in wanted.items():
                candidate = next(
                    (here[n] for n in (name, name.removeprefix("model.")) if n in here), None
                )
                if candidate is not None and candidate.shape == tensor.shape:
                    found[name] = candidate
            if len(found) > len(best[0]):
                names = {n for name in found for n in (name, name.removeprefix("model."))}
                best = found, sorted(n for n in here if STAGE.match(n) and n not in names)
    return best


def load_into(network: torch.nn.Module, weights: dict[str, Tensor], said: str) -> None:
    """Load all of a network's weights.

    Raises:
        ConfigError: some are missing or shaped otherwise, naming them.
    """
    lacking = missing(weights, network)
    if lacking:
        shown = ", ".join(lacking[:3]) + (", ..." if len(lacking) > 3 else "")
        theirs = ", ".join(sorted(weights)[:3])
        raise ConfigError(
            f"{said} does not fit the encoder: {len(lacking)} of {len(network.state_dict())} tensors are missing, have "
            f"another shape or are too many: {shown}. The file holds {len(weights)}: {theirs}, ... "
            "Give its --encoder (and --width)"
        )
    network.load_state_dict(network.state_dict() | match(weights, network)[0])


def missing(weights: dict[str, Tensor], network: torch.nn.Module) -> list[str]:
    """The names that do not fit: of the network, which `weights` lack or shape otherwise (a count of batches is not
    missed), and stages of a deeper network than this one.
    """
    found, surplus = match(weights, network)
    lacking = sorted(
        n for n in network.state_dict() if n not in found and not n.endswith("num_batches_tracked")
    )
    return lacking or surplus


def _plain(weights: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}


def _numbered(weights: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """As `_plain`, with the numbers of a Sequential ResNet turned back into names."""
    out = {}
    for name, tensor in _plain(weights, prefix).items():
        first, _, rest = name.partition(".")
        out[f"{NUMBERED.get(first, first)}.{rest}"] = tensor
    return out
