"""Encoders that start from existing weights: a pretrained backbone, a run, or a checkpoint."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..data.notes import shown
from ..errors import ConfigError, require
from ..runtime import files, schemas
from ..runtime.console import plural
from . import hub
from .building import build, rebuild
from .choices import Pool
from .encoder import AnyEncoder, Encoder
from .hub import IMAGENET_MEAN as IMAGENET_MEAN
from .hub import IMAGENET_STD as IMAGENET_STD
from .vision import backbone
from .weights import load_into, missing, read

RGB: dict[str, Any] = {
    "channels": 3,
    "mean": torch.tensor(IMAGENET_MEAN),
    "std": torch.tensor(IMAGENET_STD),
}
GUESSES = (
    *(f"torchvision/resnet{n}" for n in (18, 34, 50, 101, 152)),
    *(f"timm/vit_{n}_patch16_224.dino" for n in ("small", "base")),
    "timm/vit_tiny_patch16_224",
    "timm/vit_small_patch8_224.dino",
)  # the most common architectures of published weights; DINO and MoCo v3 use ImageNet's statistics


OWN_PARTS = ("head.", "mean", "std")  # of an encoder of tellapart, beside its backbone


class Network(NamedTuple):
    """Architecture of a checkpoint.

    Attributes:
        encoder: name of the backbone.
        small_stem: whether it has the CIFAR stem; None: the name determines it.
        width: base width; None: the name determines it.
    """

    encoder: str
    small_stem: bool | None = None
    width: int | None = None


def describe(init: str, encoder: str | None = None) -> dict[str, Any]:
    """Return the settings that the weights determine: {"encoder", "width"}.

    Args:
        init: as in `start`.
        encoder: architecture of the checkpoint; None: inferred from its tensor names and shapes.

    Raises:
        ConfigError: there are no such weights, or the architecture cannot be inferred.
    """
    if init.startswith(("timm/", "torchvision/")):
        return {"encoder": init}
    if from_hub := hub.hub_folder(Path(init)):
        return {"encoder": from_hub.encoder}
    if folder := _encoder_folder(init):
        return {name: _about(folder)[name] for name in ("encoder", "width")}
    network = network_of(Path(init), encoder)
    return {"encoder": network.encoder} | (
        {} if network.width is None else {"width": network.width}
    )


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
    small_stem: bool | None = None,
    pool: Pool = "auto",
) -> Encoder:
    """Build an encoder with the backbone, stem and normalisation of `init` and a new head.

    Args:
        init: "timm/NAME" or "torchvision/NAME" (pretrained), a run folder or its encoder/, a local
            folder in the layout of timm's hub, or a checkpoint (.safetensors, .pt) of `encoder`.
        encoder: name of the backbone.
        width: base width of small-resnet.
        channels: number of image channels C.
        size: side P of a view in pixels.
        dim: embedding width D.
        head_kind: kind of projection head, as in `heads.head`.
        seed: seed of the random weights.
        mean: (C,) channel means, used if the weights include none; published networks use those of
            `hub.input_of`.
        std: (C,) channel standard deviations, used as `mean`.
        small_stem: whether the checkpoint has the CIFAR stem; None: inferred.
        pool: features of a vision transformer, as in `vision.backbone`.

    Raises:
        ConfigError: the weights do not exist, are damaged, or belong to another network.
    """
    shared: dict[str, Any] = {
        "channels": channels,
        "size": size,
        "dim": dim,
        "head_kind": head_kind,
        "pool": pool,
    }
    shared |= {"width": width, "seed": seed, "mean": mean, "std": std}
    if init.startswith(("timm/", "torchvision/")):
        network = build(init, **shared, pretrained=True)
        return _published(network, hub.input_of(init), channels)
    if from_hub := hub.hub_folder(Path(init)):
        weights, _ = read(from_hub.weights)
        network = build(from_hub.encoder, **shared | RGB, small_stem=False)
        unused = load_into(network.backbone, weights, init)
        return _published(network, from_hub.input, channels, unused)
    folder = _encoder_folder(init)
    about = _about(folder) if folder else {}
    if folder and about["channels"] != channels:
        raise ConfigError(
            f"--init {init} reads {plural(about['channels'], 'channel')}; the data have {channels}"
        )
    if folder:
        small_stem = about.get("small_stem")
    elif small_stem is None:
        small_stem = network_of(Path(init), encoder).small_stem
    weights, _ = read(folder / "model.safetensors" if folder else Path(init))
    if not folder and encoder.startswith(("timm/", "torchvision/")):
        network = build(encoder, **shared | RGB, small_stem=small_stem)
        unused = load_into(network.backbone, weights, init)
        return _published(network, hub.input_of(encoder), channels, unused)
    network = build(encoder, **shared, small_stem=small_stem)
    for name in ("mean", "std"):
        own = network.get_buffer(name)
        if name in weights and weights[name].shape == own.shape:
            own.copy_(weights[name])
    unused = load_into(network.backbone, weights, init)
    network.start_notes = _not_loaded(n for n in unused if not n.startswith(OWN_PARTS))
    return network


def exported(folder: Path) -> AnyEncoder | None:
    """Open an encoder of images that `tellapart export` wrote; None: the folder holds none.

    Args:
        folder: with config.json, preprocessor.json and model.safetensors.

    Returns:
        The encoder in eval mode, with a head of random weights: an export has features alone.

    Raises:
        ConfigError: a file is damaged, or BatchNorm was folded into the convolutions.
    """
    names = ("config.json", "preprocessor.json", "model.safetensors")
    if not all((folder / name).is_file() for name in names):
        return None
    try:
        about, read_as = (files.read_json(folder / name) for name in names[:2])
        if not (isinstance(about, dict) and isinstance(read_as, dict) and "folded" in about):
            return None
        require(
            not about.pop("folded"),
            f"{folder} was exported with --fold-batchnorm, which has another network; name the run "
            "or an export without it",
        )
        about.pop("bf16", None)
        schemas.check(about, schemas.ImageEncoder, folder / names[0], error=ConfigError)
        network = rebuild(about)
        for name in ("mean", "std"):
            own = network.get_buffer(name)
            own.copy_(torch.tensor(read_as[name], dtype=own.dtype).view_as(own))
    except ConfigError:
        raise
    except (OSError, ValueError, TypeError, KeyError, RuntimeError) as error:
        raise ConfigError(
            f"{folder} is a damaged export ({error}); export the run again"
        ) from error
    load_into(network.get_submodule("backbone"), read(folder / names[2])[0], str(folder))
    return network.eval()


def _about(folder: Path) -> dict[str, Any]:
    """Read and validate the description of a run's encoder.

    Raises:
        ConfigError: it is damaged, or does not describe an image encoder.
    """
    file = folder / "config.json"
    try:
        about = files.read_json(file)
        kind = about.get("kind", "images") if isinstance(about, dict) else None
        if kind != "images":
            raise ConfigError(f"--init {folder} holds an encoder of {kind}, not of images")
        schemas.check(about, schemas.ImageEncoder, file, error=ConfigError)
        _check_digest(folder)
    except (OSError, ValueError) as error:
        if isinstance(error, ConfigError) and "holds an encoder" in str(error):
            raise
        raise ConfigError(
            f"--init: {file} does not describe an encoder of tellapart ({error}); for other "
            "weights give the file itself"
        ) from error
    return dict(about)


def _check_digest(folder: Path) -> None:
    """Compare the weights of a run with the digest in its run.json, if there is one.

    Raises:
        ConfigError: they differ.
    """
    manifest = folder.parent / "run.json"
    known = files.read_json(manifest) if manifest.is_file() else {}
    digests = known.get("files") if isinstance(known, dict) else None
    name = f"{folder.name}/model.safetensors"
    wanted = digests.get(name) if isinstance(digests, dict) else None
    following = known.get("files_next") if isinstance(known, dict) else None
    accepted = {wanted, following.get(name) if isinstance(following, dict) else None} - {None}
    if accepted and files.sha256(folder / "model.safetensors") not in accepted:
        raise ConfigError(
            f"--init: {folder}/model.safetensors is damaged: its SHA-256 is not that of run.json"
        )


def _published(
    pretrained: Encoder, read: hub.Input, channels: int, unused: Iterable[str] = ()
) -> Encoder:
    """Set the normalisation of a published network and adapt it to the number of channels."""
    for name, values in (("mean", read.mean), ("std", read.std)):
        pretrained.register_buffer(name, torch.tensor(values).view(1, -1, 1, 1))
    statistics = "; ".join(
        f"{name} {', '.join(f'{v:g}' for v in part)}"
        for name, part in (("mean", read.mean), ("standard deviation", read.std))
    )
    pretrained.start_notes = [
        f"normalisation of the starting weights: {statistics}; trained at {read.size} px",
        *_not_loaded(unused),
    ]
    if read.interpolation not in ("bicubic", "random"):
        pretrained.start_notes.append(
            f"they were trained on images resized by {read.interpolation} interpolation; here "
            "images are resized by bicubic interpolation"
        )
    if channels != len(read.mean):
        pretrained.take_channels(channels)
    return pretrained


def _not_loaded(names: Iterable[str]) -> list[str]:
    """Return a note on the tensors of a checkpoint that the network does not have."""
    unused = [name[:80] for name in names]
    if not unused:
        return []
    return [f"not loaded from the weights: {plural(len(unused), 'tensor')}: {shown(unused)}"]


def _encoder_folder(init: str) -> Path | None:
    """Return the folder with config.json and model.safetensors; None if `init` is a file."""
    path = Path(init)
    for folder in (path / "encoder", path):
        if (folder / "config.json").is_file() and (folder / "model.safetensors").is_file():
            return folder
    if path.is_file():
        return None
    raise ConfigError(
        f"--init {init} is neither timm/NAME, torchvision/NAME, a run folder with an encoder, "
        "nor a file of weights"
    )


def network_of(path: Path, encoder: str | None) -> Network:
    """Infer the architecture of a checkpoint.

    Candidates are small-resnet, the architecture named in the file, then the most common ones.

    Args:
        path: the checkpoint.
        encoder: name of the backbone, so that only its stem or width is inferred; None: infer all.

    Raises:
        ConfigError: no candidate fits.
    """
    weights, arch = read(path)
    width = next((len(t) for name, t in weights.items() if name.endswith("stem.0.weight")), None)
    if (
        encoder in (None, "small-resnet")
        and width
        and any(n.endswith("blocks.0.conv1.weight") for n in weights)
    ):
        return Network("small-resnet", width=width)
    names = [encoder] if encoder else [*([f"torchvision/{arch}"] if arch else []), *GUESSES]
    for name in names:
        for small in (False, True) if "resnet" in name else (None,):
            try:
                with torch.device("meta"):
                    network = backbone(name, channels=3, size=224, small_stem=small)
            except ConfigError:
                if encoder:
                    raise
                continue  # torchvision does not have this architecture
            if not missing(weights, network):
                return Network(name, small)
    if encoder:
        return Network(encoder)  # loading it reports what is missing
    shown = ", ".join(sorted(weights)[:3])
    raise ConfigError(
        f"{path} fits none of the networks tried ({', '.join(names)}): it holds {len(weights)} "
        f"tensors, {shown}, ... Give its --encoder"
    )
