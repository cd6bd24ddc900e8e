"""Encoders of the transformers library, by folder or hub name: image and sentence networks.

Code in a folder or a hub repository is never executed.

Shapes: N batch, C channels, P side of a view, L tokens or patches, F feature width.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..data.files import is_file
from ..errors import ConfigError, MissingExtraError, require
from ..runtime.files import read_json
from . import text
from .encoder import AnyEncoder, Encoder
from .vision import Backbone

PREFIX = "hf:"
POOLERS = {"mean": "mean", "cls": "cls"}  # of sentence-transformers -> ours
OLD_POOLERS = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls"}
TOKENS = 128  # length of sentences where the folder gives none
SAFE: dict[str, Any] = {"trust_remote_code": False}


class HubBackbone(Backbone):
    """An image network of transformers: maps (N, 3, P, P) to (N, F).

    The feature is the class token after the last layer where there is one, otherwise the mean over
    positions.

    Args:
        model: the transformers model.
        width: F.
    """

    def __init__(self, model: Any, width: int) -> None:
        super().__init__()
        self.model: Any = model
        self.width = width
        self.has_class_token = any(name.endswith("cls_token") for name in model.state_dict())

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.model(pixel_values=x).last_hidden_state
        if out.ndim == 4:
            return out.mean((2, 3))
        return out[:, 0] if self.has_class_token else out.mean(1)


class HubEncoder(Encoder):
    """An image encoder of transformers; grey images are repeated to its three channels."""

    def take_channels(self, channels: int) -> None:
        """Accept grey images, whose channel is repeated by the normalisation.

        Raises:
            ConfigError: images of another number of channels.
        """
        require(channels == 1, f"the network reads 3 channels, the images have {channels}")


def open_hub(name: str) -> tuple[AnyEncoder, AnyEncoder | None, int | None]:
    """Open an image or sentence encoder of transformers.

    Args:
        name: a folder or hub name, with or without "hf:".

    Returns:
        The encoder, the same network with random weights (images only), and the side in pixels
        that it reads (images only).

    Raises:
        ConfigError: it cannot be loaded, asks for its own code, or reads another kind of data.
        MissingExtraError: transformers is not installed.
    """
    where = name.removeprefix(PREFIX)
    try:
        import transformers
    except ImportError as error:
        raise MissingExtraError("transformers", "text") from error
    try:
        config = transformers.AutoConfig.from_pretrained(where, **SAFE)
    except Exception as error:  # loading an arbitrary folder can raise any exception
        raise _unreadable(name, error) from error
    require(
        not hasattr(config, "conv_stride") and not hasattr(config, "num_mel_bins"),
        f"{name} is a network of sounds ({config.model_type}), which cannot be opened yet; name an "
        "encoder of images or sentences",
    )
    if hasattr(config, "vocab_size") or not hasattr(config, "num_channels"):
        return _sentences(where), None, None
    require(config.num_channels == 3, f"{name} reads {config.num_channels} channels, not 3")
    try:
        reading: Any = transformers.AutoImageProcessor
        processor = reading.from_pretrained(where, **SAFE).to_dict()
        automatic: Any = transformers.AutoModel
        model = automatic.from_pretrained(where, **SAFE)
        fresh = automatic.from_config(config, **SAFE)
    except Exception as error:  # as above
        raise _unreadable(name, error) from error
    size = _side(processor) or int(getattr(config, "image_size", 224))
    return _images(model, name, processor, size), _images(fresh, name, processor, size), size


def _images(model: Any, name: str, processor: dict[str, Any], size: int) -> HubEncoder:
    model.eval()
    normalised = processor.get("do_normalize", True)
    mean = torch.tensor(processor["image_mean"] if normalised else [0.0] * 3)
    std = torch.tensor(processor["image_std"] if normalised else [1.0] * 3)
    body = HubBackbone(model, 1)
    with torch.no_grad():
        body.width = body(torch.zeros(1, 3, size, size)).shape[1]
    encoder = HubEncoder(body, nn.Identity(), body.width, mean=mean, std=std)
    encoder.description = {"encoder": name, "head_kind": "none", "dim": body.width}
    return encoder.eval()


def _side(processor: dict[str, Any]) -> int | None:
    """The side in pixels of what an image processor gives."""
    for key in ("crop_size", "size") if processor.get("do_center_crop") else ("size",):
        found: Any = processor.get(key) or {}
        side: Any = (
            found.get("height") or found.get("shortest_edge") if hasattr(found, "get") else found
        )
        if side:
            return int(side)
    return None


def _sentences(where: str) -> AnyEncoder:
    """A sentence encoder, with the pooling and length of a sentence-transformers folder."""
    settings: dict[str, Any] = {"pooler": "mean"}
    folder = Path(where)
    if is_file(folder / "modules.json"):
        settings = {"pooler": _pooler(folder), "max_length": _tokens(folder)}
    return text.build(where, seed=0, head_kind="none", **settings).eval()


def _pooler(folder: Path) -> Any:
    """The pooling of a sentence-transformers folder.

    Raises:
        ConfigError: it is neither of the mean nor of the first token.
    """
    modules = read_json(folder / "modules.json")
    names = [
        str(module.get("path")) for module in modules if str(module.get("type")).endswith("Pooling")
    ]
    require(len(names) == 1, f"{folder}/modules.json must name one module of pooling")
    about = read_json(folder / names[0] / "config.json")
    found = [kind for key, kind in OLD_POOLERS.items() if about.get(key) is True]
    if "pooling_mode" in about:
        found = [POOLERS.get(str(about["pooling_mode"]), "")]
    others = [k for k, v in about.items() if k.startswith("pooling_mode_") and v is True]
    if len(found) != 1 or not found[0] or len(others) > 1:
        raise ConfigError(f"{folder} pools in another way than by mean or cls, which are supported")
    return found[0]


def _tokens(folder: Path) -> int:
    file = folder / "sentence_bert_config.json"
    found = read_json(file).get("max_seq_length") if is_file(file) else None
    return found if isinstance(found, int) and found > 0 else TOKENS


def _unreadable(name: str, error: Exception) -> ConfigError:
    if "trust_remote_code" in str(error) or "custom code" in str(error):
        return ConfigError(f"{name} brings its own Python code, which is never run")
    reason = next(iter(str(error).splitlines()), type(error).__name__)
    return ConfigError(f"{name} is not a network of transformers that can be loaded ({reason})")
