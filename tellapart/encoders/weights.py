"""Read checkpoints of many libraries: unwrap them, strip name prefixes, report mismatches.

Supported: tellapart, MoCo (and v3), DINO, lightly, solo-learn, VISSL, timm, torch.compile,
DataParallel and plain state dictionaries.
"""

from __future__ import annotations

import argparse
import math
import pickle
import re
import warnings
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load as load_safetensors
from torch import Tensor

from ..errors import ConfigError
from ..runtime import files

# Keys under which checkpoints keep weights. Averaged weights come first: they are the ones to use.
WRAPPERS = (
    "state_dict_ema", "model_ema", "ema_state_dict", "teacher", "classy_state_dict", "base_model",
    "model_state_dict", "model", "trunk", "state_dict", "encoder", "network", "net",
)  # fmt: skip
# Prefixes of names, taken off one after another until nothing changes.
PREFIXES = (
    "module.", "model.", "net.", "network.", "backbone.", "encoder_q.", "base_encoder.", "encoder.",
    "_feature_blocks.", "trunk.", "teacher.", "student.", "online_encoder.", "visual.",
)  # fmt: skip
# Inserted by torch's wrappers anywhere in a name.
INSERTED = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")
STAGE = re.compile(r"(layer|blocks\.|stages\.)\d")  # a tensor of a stage
# lightly's ResNets are nn.Sequential(*children of torchvision's): numbers in place of names
NUMBERED = {"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3", "7": "layer4"}
POSITIONS = ("pos_embed", "pos_embedding")
NESTED = 10  # dictionaries in dictionaries, at most
MOST = 20_000  # tensors of a file, at most; the largest networks of timm hold about 2,500
GLOBAL = re.compile(r"GLOBAL ([A-Za-z_][\w.]{0,100})")

Weights = dict[str, Tensor]


def read(path: Path) -> tuple[Weights, str | None]:
    """Read the tensors of a checkpoint.

    Args:
        path: a .safetensors file, or a file written by torch.save. Code in it is never executed.

    Returns:
        The tensors by name, and the architecture if the file names one (those of MoCo do).

    Raises:
        ConfigError: the file is missing or damaged, contains Python objects, or has no weights.
    """
    try:
        if path.suffix == ".safetensors":
            return _named(load_safetensors(files.read_bytes(path)), path), None
        with (
            files.open_regular(path) as file,
            warnings.catch_warnings(action="ignore"),  # torch's own, about the file
            torch.serialization.safe_globals([argparse.Namespace]),  # settings of MoCo and DINO
        ):
            content: Any = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file fails in many ways
        raise ConfigError(_refusal(path, error)) from error
    arch = content.get("arch") if isinstance(content, dict) else None
    for _ in range(NESTED):
        inner = _inner(content)
        if inner is None:
            break
        content = inner
    return _named(content, path), arch if isinstance(arch, str) else None


def _refusal(path: Path, error: Exception) -> str:
    """Return why a file cannot be read; torch's own message advises disabling its safe loader."""
    text = str(error)
    if isinstance(error, OSError):
        return f"{path} cannot be read as weights: {error.strerror or error}"
    if "TorchScript" in text or "torchscript" in text:
        return (
            f"{path} cannot be read as weights: it is a TorchScript program. Save the state_dict() "
            "of the network, best as .safetensors"
        )
    if isinstance(error, pickle.UnpicklingError) and (name := GLOBAL.search(text)):
        return (
            f"{path} cannot be read as weights: it holds a Python object ({name[1]}), and reading "
            "it could run code. Save the state_dict() of the network, best as .safetensors"
        )
    return (
        f"{path} cannot be read as weights ({type(error).__name__}): it is damaged, or no file of "
        "torch.save or safetensors"
    )


def _inner(content: Any) -> dict[Any, Any] | None:
    """Return the dictionary of weights nested in a dictionary; None if there is none."""
    if not isinstance(content, dict):
        return None
    return next(
        (content[key] for key in WRAPPERS if isinstance(content.get(key), dict) and content[key]),
        None,
    )


def _named(content: Any, path: Path) -> Weights:
    """Return the dense tensors by name, without the prefixes that torch's wrappers insert.

    Raises:
        ConfigError: there are no tensors, or more than any network has.
    """
    items = content.items() if isinstance(content, dict) else ()
    tensors = {
        name: t
        for name, t in items
        if isinstance(name, str)
        and isinstance(t, Tensor)
        and t.layout == torch.strided
        and not (t.is_quantized or t.is_meta)
    }
    if not tensors:
        raise ConfigError(f"{path} holds no weights by name")
    if len(tensors) > MOST:
        raise ConfigError(f"{path} holds {len(tensors):,} tensors; at most {MOST:,} are read")
    for part in INSERTED:
        tensors = {name.replace(part, ""): t for name, t in tensors.items()}
    return tensors


def match(weights: Weights, network: torch.nn.Module) -> tuple[Weights, list[str]]:
    """Match weights with the tensors of a network, under the name prefix that matches most.

    Args:
        weights: tensors by name, from `read`.
        network: any network; on the meta device only shapes are compared.

    Returns:
        The tensors by their names in the network, with position embeddings resized to its grid, and
        the names of stages in `weights` that the network does not have.
    """
    wanted = network.state_dict()
    best: tuple[Weights, list[str]] = {}, []
    for plain in _variants(weights):
        for here in (plain, _numbered(plain)):
            matched = {}
            for name, tensor in wanted.items():
                candidate = here.get(name, here.get(name.removeprefix("model.")))
                if candidate is None:
                    continue
                if candidate.shape != tensor.shape and name.endswith(POSITIONS):
                    candidate = _resized(candidate, tensor)
                if candidate is not None and candidate.shape == tensor.shape:
                    matched[name] = candidate
            if len(matched) > len(best[0]):
                names = {n for name in matched for n in (name, name.removeprefix("model."))}
                best = matched, sorted(n for n in here if STAGE.match(n) and n not in names)
    return best


def load_into(network: torch.nn.Module, weights: Weights, source: str) -> list[str]:
    """Load all weights of a network.

    Args:
        network: the network whose tensors are replaced.
        weights: tensors by name, from `read`.
        source: name of the checkpoint, for the message.

    Returns:
        The names of tensors of the checkpoint that the network does not have, such as those of a
        classifier.

    Raises:
        ConfigError: tensors are missing or have another shape.
    """
    lacking = missing(weights, network)
    if lacking:
        shown = ", ".join(lacking[:3]) + (", ..." if len(lacking) > 3 else "")
        first_names = ", ".join(f"{name[:80]!a}" for name in sorted(weights)[:3])
        raise ConfigError(
            f"{source} does not fit the encoder: {len(lacking)} of {len(network.state_dict())} "
            f"tensors are missing, have another shape, or are too many: {shown}. The file holds "
            f"{len(weights)}: {first_names}, ... Give the --encoder (and --width) it was trained "
            "with"
        )
    matched = match(weights, network)[0]
    network.load_state_dict(network.state_dict() | matched)
    used = {id(tensor) for tensor in matched.values()}
    return sorted(n for n, t in weights.items() if id(t) not in used and not n.endswith(POSITIONS))


def missing(weights: Weights, network: torch.nn.Module) -> list[str]:
    """Return the names of tensors that do not match.

    Returns:
        Tensors of the network that `weights` lack or have in another shape, except batch counters;
        if there are none, the stages of `weights` that the network does not have.
    """
    matched, surplus = match(weights, network)
    lacking = sorted(
        n
        for n in network.state_dict()
        if n not in matched and not n.endswith("num_batches_tracked")
    )
    return lacking or [n[:80] for n in surplus]


def _variants(weights: Weights) -> list[Weights]:
    """Return the weights below every sequence of known prefixes that occurs in their names."""
    variants, seen = [weights], {frozenset(weights)}
    for names in variants:  # the loop appends to the list
        for prefix in PREFIXES:
            inner = {
                name.removeprefix(prefix): t for name, t in names.items() if name.startswith(prefix)
            }
            if inner and (key := frozenset(inner)) not in seen and len(variants) < 64:
                seen.add(key)
                variants.append(inner)
    return variants


def _resized(old: Tensor, new: Tensor) -> Tensor | None:
    """Resize a position embedding (1, L, F) to another grid of patches; None if it has no grid.

    As `resample_abs_pos_embed` of timm: bicubic, with the tokens before the patches unchanged.
    """
    if old.ndim != 3 or new.ndim != 3 or old.shape[2] != new.shape[2] or len(old) != 1:
        return None
    for prefix in (1, 0, 2, 5):  # a class token, none, distilled, registers
        sides = [math.isqrt(max(0, t.shape[1] - prefix)) for t in (old, new)]
        if all(
            s > 0 and s * s + prefix == t.shape[1] for s, t in zip(sides, (old, new), strict=True)
        ):
            if new.is_meta:  # shapes alone are compared
                return torch.empty_like(new)
            from timm.layers.pos_embed import resample_abs_pos_embed

            resized: Tensor = resample_abs_pos_embed(
                old.float(), [sides[1]] * 2, [sides[0]] * 2, num_prefix_tokens=prefix
            )
            return resized
    return None


def _numbered(weights: Weights) -> Weights:
    """Rename the numbered stages of a ResNet saved as nn.Sequential to the usual names."""
    out = {}
    for name, tensor in weights.items():
        first, _, rest = name.partition(".")
        out[f"{NUMBERED.get(first, first)}.{rest}"] = tensor
    return out
