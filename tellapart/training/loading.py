"""Open encoders (of runs, libraries and checkpoint files) and the data sources they read."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from .. import encoders
from ..data import ImageSource, Source, modality_of
from ..encoders import AnyEncoder, Encoder, hub, hugging_face, pretrained, weights
from ..errors import ConfigError, DataError, MissingExtraError, RunError, require
from ..objectives import OPTIONS
from ..runtime import plugins, schemas
from ..runtime.console import Console
from ..runtime.text import safe
from .config import CommonConfig
from .resolve import open_for
from .run import Run

# DESIGN: methods with a memory bank are scored on the embedding
ON_EMBEDDING = ("instdisc", "spread")
TRANSFORMER_SIZE = 224
Kind = TypeVar("Kind", bound=Source)

# Kind of encoder for each built-in kind of data; plug-ins define their own.
ENCODER_KINDS = {"images": "images", "audio": "sequence", "series": "sequence", "text": "text"}


@dataclass(frozen=True)
class Subject:
    """An encoder to use or evaluate, of a run or from elsewhere.

    Attributes:
        name: path or name of the encoder.
        encoder: the encoder in eval mode.
        headline: row of the score table that the verdict is about.
        few_row: row of the few-label scores that the verdict is about.
        run: the run, None if the encoder has none.
        config: settings of the run, None if there is no run.
        fresh: the same network with random weights.
        size: the only image size in pixels that the network reads, None if it reads any.
    """

    name: str
    encoder: AnyEncoder
    headline: str
    few_row: str
    run: Run | None = None
    config: CommonConfig | None = None
    fresh: Encoder | None = None
    size: int | None = None


@dataclass(frozen=True)
class Loaded:
    """A run opened for use: the encoder in eval mode, the run and, on demand, its data source."""

    encoder: AnyEncoder
    run: Run

    def source(self, data: str | None = None, *, console: Console | None = None) -> Source:
        """Return the source of the run, or another one read with the settings of the run.

        Args:
            data: data to open; None: those of the run.
            console: where progress is printed; None: nowhere.
        """
        return like_the_run(self.run, data, progress=console.progress if console else None)


def open_subject(
    what: Any,
    *,
    checkpoint: str = "last",
    encoder: Any = None,
    width: int = 16,
    image_size: int | None = None,
    kind: str = "images",
) -> Subject:
    """Open an encoder.

    Args:
        what: a run folder, timm/NAME, torchvision/NAME, hf:NAME (transformers, also a folder), a
            file of weights, an `nn.Module`, or module:name of a network or of a function that
            returns one.
        checkpoint: of a run: "last", "best-unlabelled", or a file of weights.
        encoder: architecture of a file of weights, if it cannot be inferred; of a run that was
            trained with a network of the user, that network or its module:name.
        width: base width of small-resnet in a file of weights.
        image_size: side of a view, for a network that reads one size only.
        kind: the kind of data that an `nn.Module` reads.

    Raises:
        ConfigError: an unknown name, or weights that fit no network.
        RunError: a damaged run.
    """
    if isinstance(what, str) and what.startswith(hugging_face.PREFIX):
        require(checkpoint == "last", f"--checkpoint goes with a run, and {what} is none")
        return _of_hub(what, image_size)
    if not isinstance(what, str | Path) or plugins.is_name(what):
        return _of_user(what, kind)
    path, name = Path(what), str(what)
    if Run.exists(path):
        run = Run.open(path)
        if encoder is not None:
            remember_network(run, encoder)
        return _of_run(run, checkpoint)
    require(checkpoint == "last", f"--checkpoint requires a run; {name} is not one")
    require(not is_embeddings(path), f"{name} holds vectors, not an encoder; name an encoder")
    from_hub = hub.hub_folder(path) if path.is_dir() else None
    if from_hub is None and (network := pretrained.exported(path)) is not None:
        return _of_export(name, network)
    if from_hub is None and path.is_dir() and (path / "config.json").is_file():
        return _of_hub(name, image_size)
    small_stem: bool | None = None
    wide: int | None = None
    if name.startswith(("timm/", "torchvision/")):
        encoder = name
    elif from_hub:
        encoder = from_hub.encoder
    elif path.is_file():
        encoder, small_stem, wide = pretrained.network_of(path, encoder)
    else:
        raise ConfigError(
            f"{name} is not a run folder, timm/NAME, torchvision/NAME, hf:NAME, a file of weights "
            "or embeddings (.npz, .parquet)"
        )
    shared: dict[str, Any] = {
        **pretrained.RGB, "dim": 128, "head_kind": "linear", "width": wide or width, "seed": 0,
        "size": image_size or (hub.input_of(encoder).size if encoder.startswith("timm/") else 32),
        "small_stem": small_stem,
    }  # fmt: skip
    network = pretrained.start(name, encoder=encoder, **shared)
    shared["small_stem"] = network.backbone.small_stem
    fresh = encoders.build(encoder, **shared)
    return Subject(
        name,
        network.eval(),
        "its features",
        "its features",
        fresh=fresh.eval(),
        size=only_size(network, shared["size"]),
    )


def remember_network(run: Run, encoder: Any) -> None:
    """Let a run use a network of the user again.

    Args:
        run: trained with such a network.
        encoder: the network, what makes it, or its module:name.

    Raises:
        ConfigError: the run was not trained with a network of the user.
    """
    name = run.manifest.get("config", {}).get("encoder")
    require(
        plugins.is_name(name),
        f"{run.path} is a run of {name}, which stores its network; leave out --encoder",
    )
    plugins.register(encoder, name)


def _of_export(name: str, network: AnyEncoder) -> Subject:
    """An exported encoder of images, with the same network of random weights beside it."""
    random: Any = encoders.rebuild(network.description).eval()
    size = int(network.description["size"])
    return Subject(name, network, "its features", "its features", fresh=random, size=size)


def _of_hub(name: str, image_size: int | None) -> Subject:
    """A network of transformers, which belongs to no run."""
    encoder, fresh, size = hugging_face.open_hub(name)
    require(
        image_size in (None, size),
        f"{name} reads images of {size} px; leave out --image-size {image_size}",
    )
    # only images have a row of random weights here
    random = fresh if isinstance(fresh, Encoder) else None
    return Subject(name, encoder, "its features", "its features", fresh=random, size=size)


def _of_user(what: Any, kind: str) -> Subject:
    """A network of the user, which belongs to no run."""
    name = plugins.register(what)
    network = encoders.own.network_of(name, 0)
    if kind == "images":
        encoder: AnyEncoder = encoders.own.of_images(network, name)
        fresh = encoders.own.random_twin(encoders.own.of_images(network, name), 0).eval()
        return Subject(name, encoder.eval(), "its features", "its features", fresh=fresh)
    encoder = encoders.NetworkEncoder(network, kind=kind, width=1, head_kind="none")
    return Subject(name, encoder.eval(), "its features", "its features")


def is_embeddings(path: Any) -> bool:
    """Whether a path holds saved `Embeddings`: .npz, .parquet, or a folder of vectors or shards.

    Args:
        path: a file or folder.
    """
    if not isinstance(path, str | Path):
        return False
    folder = Path(path)
    return folder.suffix in (".npz", ".parquet") or any(
        (folder / name).is_file() for name in ("items.npz", "plan.json")
    )


def load_encoder(run: Run, checkpoint: str = "last") -> AnyEncoder:
    """The encoder of a run in eval mode: the last checkpoint, the best label-free one, or a file.

    Args:
        run: the run.
        checkpoint: "last", "best-unlabelled", or a file of weights.

    Raises:
        RunError: missing, damaged, or weights of another network.
    """
    about, tensors = run.encoder_files()
    place = run.encoder_folder / "config.json"
    data = run.manifest["data"].get("kind", "images")
    own = plugins.is_name(about.get("encoder"))
    if not own and about.get("kind", "images") != ENCODER_KINDS.get(data, about.get("kind")):
        raise RunError(f"{place} describes no encoder of {data}, which the run was trained on")
    try:
        encoder = encoders.rebuild(about) if own else _built(about, tensors, place)
    except (RunError, MissingExtraError, ConfigError):
        raise
    except Exception as error:  # the description may ask for anything of timm and transformers
        reason = safe(str(error)[: schemas.LONGEST])
        raise RunError(f"{place} describes no encoder that can be built: {reason}") from error
    if checkpoint != "last":
        tensors, _ = weights.read(run.checkpoint(checkpoint))
    try:
        encoder.load_state_dict(tensors)
    except RuntimeError as error:
        which = f"the weights of {run.path}" if checkpoint == "last" else run.checkpoint(checkpoint)
        raise RunError(f"{which} do not fit its config.json: {error}") from error
    return encoder.eval()


def _built(about: dict[str, Any], tensors: dict[str, Tensor], place: Path) -> AnyEncoder:
    """The encoder of a description, once it is known to be no larger than the weights.

    Raises:
        RunError: the description asks for other tensors than the file of weights holds.
    """
    try:
        with torch.device("meta"):  # shapes alone: no memory is taken
            wanted = {name: t.shape for name, t in encoders.rebuild(about).state_dict().items()}
    except NotImplementedError:  # a network that cannot be built so
        return encoders.rebuild(about)
    held = {name: t.shape for name, t in tensors.items()}
    if wanted != held:
        other = sorted(n for n in wanted.keys() | held.keys() if wanted.get(n) != held.get(n))
        raise RunError(
            f"{place} describes a network of other shapes than model.safetensors holds: {other[0]}"
        )
    return encoders.rebuild(about)


def source_of(
    subject: Subject,
    data: str | None,
    image_size: int | None,
    progress: Any = None,
    labels: str | Path | None = None,
) -> Source:
    """Open the data that an encoder is evaluated on, at the image size that it reads.

    Args:
        subject: the encoder.
        data: data to open; None: those of its run.
        image_size: side of a view in pixels; None: that of the run, or decided from the images.
        progress: called with the progress of reading; None: nothing is shown.
        labels: file of id,label lines that replaces the labels.

    Raises:
        ConfigError: no data are given and the encoder has none of its own.
        DataError: the number of channels is not the one that the encoder reads.
    """
    about = subject.run.manifest["data"] if subject.run else {}
    if not data and not about:
        raise ConfigError(f"{subject.name} has no training data of its own; pass --data")
    if subject.run:
        same = like_the_run(subject.run, data, image_size=image_size, progress=progress)
        return same.with_labels(labels) if labels else same
    options = {"image_size": image_size, "progress": progress}
    source: Source = modality_of(subject.encoder.kinds[0]).source_for(subject, data or "", options)
    return source.with_labels(labels) if labels else source


def like_the_run(
    run: Run, data: str | None, *, image_size: int | None = None, progress: Any = None
) -> Source:
    """Open the source of a run, or another one with the image size and sample rate of the run.

    Args:
        run: the run.
        data: data to open; None: those of the run.
        image_size: side of a view in pixels; None: that of the run.
        progress: called with the progress of reading; None: nothing is shown.

    Raises:
        DataError: the kind of data, the channels or the sample rate differ from those of the run.
    """
    about, config = run.manifest["data"], config_of(run)
    seen = {"image_size": image_size or about.get("image_size"), "sample_rate": about.get("rate")}
    names = {f.name for f in dataclasses.fields(config)}
    config = dataclasses.replace(config, **{k: v for k, v in seen.items() if k in names})
    where = about["name"] if data is None else data
    source = open_for(where, config, progress, about.get("ranges"))
    kind = about.get("kind", "images")
    if source.kind != kind:
        raise DataError(
            f"{source.name} holds {source.many}; the encoder of {run.path} was trained on {kind}"
        )
    for name, unit in (("channels", "channels"), ("rate", "Hz")):
        if source.about.get(name) != about.get(name):
            raise DataError(
                f"{source.name} has {source.about.get(name)} {unit}; "
                f"the encoder of {run.path} needs {about.get(name)}"
            )
    return source


def require_kind(source: Source, kind: str, name: str) -> Any:
    """Return the source if it is of this kind.

    Args:
        source: the opened data.
        kind: the required kind.
        name: feature that requires it, for the message.

    Raises:
        DataError: the source is of another kind.
    """
    if source.kind != kind:
        raise DataError(f"{name} requires {kind}, and {source.name} holds {source.many}")
    return source


def images_of(source: Source, name: str) -> ImageSource:
    """Return the source if it holds images.

    Args:
        source: the opened data.
        name: feature that requires images, for the message.

    Raises:
        ConfigError: the source is of another kind.
    """
    # The one place that turns a Source into an ImageSource for functions of images alone.
    if not isinstance(source, ImageSource):
        raise ConfigError(f"{name} requires images, and {source.name} holds {source.many}")
    return source


def image_encoder(subject: Subject, name: str) -> Encoder:
    """Return the encoder of a subject if it reads images.

    Args:
        subject: an encoder to use or to score.
        name: feature that requires an image encoder, for the message.

    Raises:
        ConfigError: the encoder reads another kind of data.
    """
    # The one place that turns an AnyEncoder into an Encoder for functions of images alone.
    if not isinstance(subject.encoder, Encoder):
        raise ConfigError(f"{name} requires an image encoder, which {subject.name} is not")
    return subject.encoder


def untrained(subject: Subject, say: Callable[[str], None]) -> dict[str, AnyEncoder]:
    """Return the network before training: with random weights, and with those of --init if given.

    Args:
        subject: an encoder to use or to score.
        say: called with a sentence about a row that cannot be made.
    """
    kind = subject.run.manifest["data"].get("kind", "images") if subject.run else None
    return modality_of(kind or subject.encoder.kinds[0]).untrained(subject, say)


def untrained_images(subject: Subject, say: Callable[[str], None]) -> dict[str, Encoder]:
    """Return what `untrained` does, for an image encoder.

    Args:
        subject: the encoder.
        say: called with a sentence about a row that cannot be made.
    """
    config = subject.config
    if config is None:
        return {"random init": subject.fresh} if subject.fresh else {}
    encoder = image_encoder(subject, "a row of the untrained network")
    size = int(subject.run.manifest["data"]["image_size"]) if subject.run else TRANSFORMER_SIZE
    mean, std = encoder.mean.flatten(), encoder.std.flatten()
    shared: dict[str, Any] = {
        "channels": len(mean), "size": size, "dim": config.dim, "head_kind": config.head,
        "width": config.width, "mean": mean, "std": std, "seed": config.seed,
        "pool": getattr(config, "pool", "auto"),
    }  # fmt: skip
    stem = encoder.backbone.small_stem
    networks = {"random init": encoders.build(config.encoder, small_stem=stem, **shared).eval()}
    if plugins.is_name(config.encoder) and isinstance(plugins.find(config.encoder), nn.Module):
        networks["starting weights"] = networks["random init"]  # as the module was passed
        networks["random init"] = encoders.own.random_twin(networks["random init"], config.seed)
    if config.init:
        try:
            start = pretrained.start(config.init, encoder=config.encoder, **shared)
            networks["starting weights"] = start.eval()
        except ConfigError as error:
            say(f"the table has no row for the starting weights, which cannot be loaded: {error}")
    return networks


def parts_of(source: Kind) -> tuple[Kind, Kind | None]:
    """Return the training part and the test part, which is None without a test split.

    Args:
        source: the data.
    """
    if not {"train", "test"} <= source.splits.keys():
        return source, None
    return source.split("train"), source.split("test")


def _of_run(run: Run, checkpoint: str) -> Subject:
    method = run.manifest["method"]
    headline = "trained embedding" if method in ON_EMBEDDING else "trained features"
    config = config_of(run)
    return Subject(
        str(run.path), load_encoder(run, checkpoint), headline, "trained features", run, config
    )


def config_of(run: Run) -> CommonConfig:
    """Return the settings that a run was trained with.

    Args:
        run: the run.

    Raises:
        RunError: a setting of run.json is unknown, or has another type or range than it should.
    """
    manifest, file = run.manifest, run.path / "run.json"
    method, values = manifest["method"], {"objective": {}, **manifest["config"]}
    kind = modality_of(manifest["data"].get("kind", "images")).configuration
    schemas.check_fields(values, kind, file, at="config")
    if (views := getattr(kind(), "views", None)) is not None and dataclasses.is_dataclass(views):
        schemas.check_fields(values, type(views), file, at="config")  # stored flat
    if method in OPTIONS:
        schemas.check_fields(values["objective"], OPTIONS[method], file, at="config.objective")
    try:
        config: CommonConfig = kind.from_dict(method, values)
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        reason = safe(str(error)[: schemas.LONGEST])
        raise RunError(f"{file}: config: {reason}") from error
    return config


def only_size(network: Encoder, built: int) -> int | None:
    """Return the image size in pixels that a network is limited to, None if it reads any size.

    Position embeddings and attention windows fix the size to the one that it was built for.

    Args:
        network: the image encoder.
        built: side in pixels that it was built for.
    """
    names = network.state_dict()
    fixed = any("pos_embed" in n or "pos_embedding" in n or "relative_position" in n for n in names)
    return built if fixed else None
