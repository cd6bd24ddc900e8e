"""Networks of timm: the input each was trained on, local hub folders, and a hub that is offline."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from ..errors import ConfigError
from ..runtime import files

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SIZE = 224  # side in pixels that most networks were trained with
MOST_PIXELS = 4096  # side of an input, at most
WAIT = 3.0  # seconds to wait for the hub
PROXIES = ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY")


class Input(NamedTuple):
    """The input of a published network: normalisation, size and interpolation.

    Attributes:
        mean: channel means of values in [0, 1], subtracted before the network.
        std: channel standard deviations, by which the values are divided.
        size: side of an image in pixels.
        interpolation: how images were resized, as timm names it.
    """

    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    size: int = SIZE
    interpolation: str = "bicubic"


class HubFolder(NamedTuple):
    """A local folder in the layout of timm's hub: config.json and the weights.

    Attributes:
        encoder: name of the network, timm/NAME.
        weights: file of the weights.
        input: what the network reads, as config.json says.
    """

    encoder: str
    weights: Path
    input: Input


def input_of(encoder: str) -> Input:
    """Return the input that a published network was trained on.

    Args:
        encoder: timm/NAME (the values are those of its `pretrained_cfg`); other networks were
            trained with ImageNet's mean and standard deviation at 224 px.

    >>> input_of("timm/tf_efficientnet_lite0").mean
    (0.5, 0.5, 0.5)
    """
    library, _, name = encoder.partition("/")
    if library != "timm":
        return Input()
    import timm

    if not timm.is_model(name):
        return Input()
    found = timm.get_pretrained_cfg(name)
    return _input(vars(found) if found else {})


def _input(cfg: dict[str, Any]) -> Input:
    """Return the input that a `pretrained_cfg` describes; missing values are ImageNet's.

    Raises:
        ConfigError: a value has the wrong type or range.
    """
    mean, std = cfg.get("mean") or IMAGENET_MEAN, cfg.get("std") or IMAGENET_STD
    shape = cfg.get("input_size") or (3, SIZE, SIZE)
    try:
        mean, std = tuple(float(v) for v in mean), tuple(float(v) for v in std)
        size = int(shape[-1])
    except (TypeError, ValueError, IndexError) as error:
        raise ConfigError(f"the pretrained_cfg of this network is damaged: {error}") from error
    valid = len(mean) == len(std) and all(s > 0 for s in std) and 1 <= size <= MOST_PIXELS
    if not valid:
        raise ConfigError(
            f"the pretrained_cfg of this network is damaged: mean {mean}, std {std}, size {size}"
        )
    return Input(mean, std, size, str(cfg.get("interpolation") or "bicubic"))


def hub_folder(path: Path) -> HubFolder | None:
    """Return what a local folder in the layout of timm's hub holds; None if it is none.

    Args:
        path: a folder with config.json (which names an architecture) and model.safetensors or
            pytorch_model.bin.

    Raises:
        ConfigError: config.json is damaged, or names an architecture that timm does not have.
    """
    config = path / "config.json"
    names = ("model.safetensors", "pytorch_model.bin")
    weights = next((path / name for name in names if (path / name).is_file()), None)
    if weights is None or not config.is_file():
        return None
    try:
        found = files.read_json(config)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{config} is damaged: {error}") from error
    architecture = found.get("architecture") if isinstance(found, dict) else None
    if not isinstance(architecture, str):
        return None
    import timm

    if not timm.is_model(architecture):
        raise ConfigError(f"{config} names the architecture {architecture!r}, which timm lacks")
    cfg = found.get("pretrained_cfg")
    return HubFolder(
        f"timm/{architecture}", weights, _input(cfg if isinstance(cfg, dict) else found)
    )


@contextmanager
def no_retries() -> Iterator[None]:
    """Use the local cache alone inside the block if the hub of Hugging Face does not answer.

    Otherwise every file of a network is asked for five times, which takes a minute.
    """
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = before or not _answers(constants.ENDPOINT)
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def _answers(endpoint: str) -> bool:
    """Return whether a server accepts connections; with a proxy it cannot be known."""
    if any(os.environ.get(name) for name in PROXIES):
        return True
    place = urlsplit(endpoint)
    try:
        address = (place.hostname or "", place.port or 443)
        socket.create_connection(address, timeout=WAIT).close()
    except OSError:
        return False
    return True
