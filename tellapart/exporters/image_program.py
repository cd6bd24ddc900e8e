"""Image encoders as programs that need only torch and the library of the network.

The program (see `program`) builds the network with its library, so that the weights have the names
that the library uses.
"""

from __future__ import annotations

import inspect
import re
from typing import Any

from torch import nn

from ..encoders import Encoder, vision
from ..errors import ConfigError
from .program import (
    IMAGE_VIEW,
    Standalone,
    assigned,
    check_description,
    decoding_source,
    reading_constants,
)  # fmt: skip


def of(
    encoder: Encoder, changed: Encoder, description: dict[str, Any], *, fold: bool
) -> Standalone:
    """Return the program of an image encoder, with the weights of its changed copy.

    Args:
        encoder: the encoder of the run.
        changed: the copy whose weights are exported (folded or rounded).
        description: content of config.json of the encoder.
        fold: whether BatchNorm is folded into the convolutions of `changed`.
    """
    check_description(description)
    program = _program(encoder, description, fold)
    return Standalone(
        program,
        _plain(changed.backbone),
        {"images": {0: "batch"}},
        "IMAGE",
        {"example.py": EXAMPLE},
    )


def _plain(backbone: nn.Module) -> nn.Module:
    """Return the network of the library without its wrapper; small-resnet has no wrapper."""
    return getattr(backbone, "model", backbone)


def _program(encoder: Encoder, description: dict[str, Any], fold: bool) -> str:
    """Return model.py: it builds the network, loads its weights and preprocesses an image."""
    name, channels = description["encoder"], description["channels"]
    library, _, inner = name.partition("/")
    if description.get("pool", "auto") != "auto":
        raise ConfigError(
            f"export writes the pooling that {name} was trained with; this encoder has --pool "
            f"{description['pool']}: train with --pool auto, or use it through tellapart"
        )
    lines: list[str]
    imports = []
    if library == "timm":
        imports = ["import timm"]
        size = f", img_size={description['size']!r}" if vision.takes_size(inner) else ""
        lines = [
            f"network = timm.create_model({inner!r}, num_classes=0, in_chans={channels!r}{size})"
        ]
    elif library == "torchvision":
        imports = ["import torchvision"]
        lines = [
            f"network = torchvision.models.get_model({inner!r}, weights=None)",
            *_without_classifier(encoder),
        ]
    else:
        lines = [f"network = SmallResNet({channels!r}, {description['width']!r})"]
    if encoder.backbone.small_stem:
        conv = _plain(encoder.backbone).get_submodule("conv1")
        lines += [
            f"network.conv1 = nn.Conv2d({channels!r}, {conv.out_channels!r}, 3, 1, 1, bias=False)"
            "  # for small images",
            "network.maxpool = nn.Identity()",
        ]
    elif library == "torchvision" and channels != 3:
        copied = f"nn.Parameter(first.weight[:, :1].repeat(1, {channels!r}, 1, 1))"
        lines += [
            f"first = network.get_submodule({_first_convolution(encoder)!r})"
            "  # one filter, repeated",
            f"first.in_channels, first.weight = {channels!r}, {copied}",
        ]
    lines += ["network.eval()"]
    if fold:
        imports += ["from torch.fx.experimental.optimization import fuse"]
        lines += ["network = fuse(network)  # BatchNorm lies in the convolutions"]
    own = "" if library in ("timm", "torchvision") else "\n\n" + _source_of_small_resnet().rstrip()
    values = {
        "imports": "\n".join(sorted([*imports, "import torch"])), "network": own,
        "build": "\n    ".join(lines),
        "constants": assigned(reading_constants(description)), "decoding": decoding_source(),
        "view": IMAGE_VIEW, "mean": repr(encoder.mean.flatten().tolist()),
        "std": repr(encoder.std.flatten().tolist()),
    }  # fmt: skip
    # in one pass, so that placeholders inside values are not replaced
    return re.sub(r"@(\w+)@", lambda found: values[found[1]], MODEL)


def _without_classifier(encoder: Encoder) -> list[str]:
    """Return the lines that remove the classifier."""
    names = [n for n, m in _plain(encoder.backbone).named_modules() if isinstance(m, nn.Identity)]
    last = names[-1]
    parent, _, child = last.rpartition(".")
    place = f"network.get_submodule({parent!r})" if parent else "network"
    return [f"setattr({place}, {child!r}, nn.Identity())"]


def _first_convolution(encoder: Encoder) -> str:
    names: list[str] = [
        name
        for name, module in _plain(encoder.backbone).named_modules()
        if isinstance(module, nn.Conv2d)
    ]
    return names[0]


def _source_of_small_resnet() -> str:
    """Return the source of small-resnet without its base class."""
    block, body = (inspect.getsource(c) for c in (vision.BasicBlock, vision.SmallResNet))
    return f"{block}\n\n{body.replace('(Backbone)', '(nn.Module)')}"


EXAMPLE = '''"""python example.py IMAGE [IMAGE ...] prints how alike the images are to the first."""
import sys

import torch
from model import load, view

sys.argv[1:] or sys.exit(__doc__)
with torch.inference_mode():
    features = load()(torch.cat([view(name) for name in sys.argv[1:]]))
print(features.shape, torch.cosine_similarity(features[:1], features).tolist())
'''

MODEL = '''"""An encoder of images: load() gives it, view(FILE) prepares an image for it."""
from __future__ import annotations

from pathlib import Path

@imports@
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

@constants@
@decoding@@network@


class Encoder(nn.Module):
    """Images (N, C, P, P) with values in 0..1 to features (N, F)."""

    def __init__(self, network):
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.tensor(@mean@).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(@std@).view(1, -1, 1, 1))

    def forward(self, images):
        images = ((images - self.mean) / self.std).contiguous(memory_format=torch.channels_last)
        return self.network(images).flatten(1)


def load(file=Path(__file__).parent / "model.safetensors"):
    """The encoder with its weights, in eval mode."""
    @build@
    weights = load_file(file)
    network.load_state_dict(
        {name: w.float() if w.is_floating_point() else w for name, w in weights.items()}
    )
    return Encoder(network).eval().to(memory_format=torch.channels_last)


@view@'''
