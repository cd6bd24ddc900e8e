"""What is judged and beside what: runs, known networks, files of weights or vectors, and the rows of their table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from . import encoders
from .data import ImageSource, open_source
from .embeddings import Embeddings, embed, embed_both
from .encoders import Encoder, starting, weights
from .errors import ConfigError, DataError, RunError
from .evaluation import baselines, unlabelled
from .evaluation.protocol import Pair
from .run import Run
from .training.config import TrainConfig
from .views.images import ImageViews

ON_EMBEDDING = ("instdisc", "spread")  # DESIGN: the headline is on the embedding where the loss is a memory's
TRANSFORMER_SIZE = 224
Seen = Callable[[Tensor], Tensor]  # views (N, C, P, P) -> vectors (N, width)


@dataclass(frozen=True)
class Subject:
    """What is judged: an encoder (of a run, or of others), or vectors alone.

    Attributes:
        headline: the row of the verdict. few_row: the row whose few labels count, what users take away.
        config: of a run, None otherwise. fresh: the same network before training.
    """

    name: str
    encoder: Encoder | None
    headline: str
    few_row: str
    run: Run | None = None
    config: TrainConfig | None = None
    vectors: Embeddings | None = None
    fresh: Encoder | None = None


@dataclass
class Rows:
    """The rows of a table: embeddings by name, what turns views into each, and which are baselines."""

    pairs: dict[str, Pair] = field(default_factory=dict)
    seen: dict[str, Seen] = field(default_factory=dict)
    baselines: tuple[str, ...] = ()


def open_subject(what: str | Path, *, checkpoint: str = "last", encoder: str | None = None, width: int = 16) -> Subject:
    """Open what a user names: a run folder, timm/NAME, torchvision/NAME, a file of weights, or embeddings (.npz).

    Args:
        checkpoint: of a run: "last", "best-unlabelled", or a file of weights.
        encoder, width: the network of a file of weights; None: found from the names and shapes in it.
    Raises:
        ConfigError: nothing known by this name, or weights that fit no network. RunError: a damaged run.
    """
    path, name = Path(what), str(what)
    if (path / "run.json").is_file():
        return _of_run(Run.open(path), checkpoint)
    if path.suffix == ".npz" or (path / "items.npz").is_file():
        return Subject(name, None, "given vectors", "given vectors", vectors=Embeddings.load(path))
    small_stem: bool | None = None
    if name.startswith(("timm/", "torchvision/")):
        encoder = name
    elif path.is_file():
        encoder, small_stem = starting.network_of(path, encoder)
    else:
        raise ConfigError(
            f"{name} is not a run folder, timm/NAME, torchvision/NAME, a file of weights or embeddings (.npz)"
        )
    shared: dict[str, Any] = {
        "channels": 3, "dim": 128, "head_kind": "linear", "width": width, "seed": 0,
        "size": TRANSFORMER_SIZE if "vit" in encoder else 32, "small_stem": small_stem,
        "mean": torch.tensor(starting.IMAGENET_MEAN), "std": torch.tensor(starting.IMAGENET_STD),
    }  # fmt: skip
    network = starting.start(name, encoder=encoder, **shared)
    shared["small_stem"] = network.backbone.small_stem
    fresh = encoders.build(encoder, **shared)
    return Subject(name, network.eval(), "its features", "its features", fresh=fresh.eval())


def load_encoder(run: Run, checkpoint: str = "last") -> Encoder:
    """The encoder of a run in eval mode: as it ended, as the label-free measures liked it best, or from a file.

    Raises:
        RunError: missing, damaged, or weights of another network.
    """
    about, tensors = run.encoder_files()
    encoder = encoders.build(
        about["encoder"],
        channels=about["channels"],
        size=about["size"],
        dim=about["dim"],
        head_kind=about["head_kind"],
        width=about["width"],
        small_stem=about.get("small_stem"),
    )
    if checkpoint != "last":
        tensors, _ = weights.read(run.checkpoint(checkpoint))
    try:
        encoder.load_state_dict(tensors)
    except RuntimeError as error:
        raise RunError(f"the weights of {run.path} do not fit its config.json: {error}") from error
    return encoder.eval()


def source_of(
    subject: Subject, data: str | None, image_size: int | None, progress: Any = None, labels: str | Path | None = None
) -> ImageSource:
    """The images a subject is judged on: a run's own, or others, at the size it sees.

    Raises:
        ConfigError: no data are named where the subject has none. DataError: other channels than the encoder reads.
    """
    about = subject.run.manifest["data"] if subject.run else {}
    if not data and not about:
        raise ConfigError(f"{subject.name} brings no images; name them with --data")
    config = subject.config
    size = image_size or about.get("image_size") or (TRANSFORMER_SIZE if _fixed_size(subject) else None)
    source = open_source(
        data or about["name"],
        image_size=size,
        large=224,
        cache=config.cache if config else None,
        cache_limit=config.cache_limit if config else 50.0,
        progress=progress,
    )
    for network in (subject.encoder, subject.fresh):
        if network is not None and network.mean.numel() != source.channels:
            if subject.run:
                raise DataError(
                    f"{source.name} has {source.channels} channel(s); the encoder of {subject.name} wants "
                    f"{network.mean.numel()}"
                )
            network.take_channels(source.channels)
    return source.with_labels(labels) if labels else source


def rows_of(subject: Subject, source: ImageSource, say: Callable[[str], None]) -> Rows:
    """The rows of the table for an encoder: pixels, the network before training, its features and embedding."""
    if subject.encoder is None:
        raise ConfigError("vectors alone have no rows beside them")
    train, test = parts_of(source)
    say(f"embedding {len(train) + len(test or ()):,} images")
    pixels = baselines.CentredPixels(train)
    rows = Rows()
    rows.pairs["centred pixels"] = pixels.embed(train), pixels.embed(test) if test else None
    rows.seen["centred pixels"] = pixels
    for name, network in untrained(subject, say).items():
        rows.pairs[name] = embed(network, train), embed(network, test) if test else None
        rows.seen[name] = network.features
    rows.baselines = tuple(rows.pairs)
    wanted: tuple[Any, ...] = ("features", "embedding") if subject.run else ("features",)
    first = embed_both(subject.encoder, train, wanted)
    second = embed_both(subject.encoder, test, wanted) if test else {}
    for output in wanted:
        name = f"trained {output}" if subject.run else subject.headline
        rows.pairs[name] = first[output], second.get(output)
        rows.seen[name] = subject.encoder.features if output == "features" else subject.encoder
    return rows


def untrained(subject: Subject, say: Callable[[str], None]) -> dict[str, Encoder]:
    """The same network before training: from random weights, and from the starting weights of --init."""
    if subject.encoder is None:
        return {}
    config = subject.config
    if config is None:
        return {"random init": subject.fresh} if subject.fresh else {}
    size = int(subject.run.manifest["data"]["image_size"]) if subject.run else TRANSFORMER_SIZE
    mean, std = subject.encoder.mean.flatten(), subject.encoder.std.flatten()
    shared: dict[str, Any] = {
        "channels": len(mean), "size": size, "dim": config.dim, "head_kind": config.head,
        "width": config.width, "mean": mean, "std": std, "seed": config.seed,
    }  # fmt: skip
    stem = subject.encoder.backbone.small_stem
    found = {"random init": encoders.build(config.encoder, small_stem=stem, **shared).eval()}
    if config.init:
        try:
            found["starting weights"] = starting.start(config.init, encoder=config.encoder, **shared).eval()
        except ConfigError as error:
            say(f"without a row for the starting weights, which are gone: {error}")
    return found


def parts_of(source: ImageSource) -> tuple[ImageSource, ImageSource | None]:
    """Training and test part; None where there is one split."""
    if not {"train", "test"} <= source.splits.keys():
        return source, None
    return source.split("train"), source.split("test")


def views_of(subject: Subject, source: ImageSource, items: int = unlabelled.ITEMS) -> Tensor:
    """(N, V, C, P, P) views of up to `items` items, of the test part where there is one: as the run was trained on."""
    train, test = parts_of(source)
    part = test or train
    rows = np.sort(np.random.default_rng(0).permutation(len(part))[:items])
    views = subject.config.views(source.image_size) if subject.config else ImageViews(source.image_size)
    generator = torch.Generator().manual_seed(0)
    images = part.subset(rows).read(torch.arange(len(rows)))
    return torch.stack([views(images, generator) for _ in range(unlabelled.VIEWS)], 1)


@torch.inference_mode()
def seen_views(seen: Seen, views: Tensor) -> Tensor:
    """(N, V, width) what a row makes of views."""
    flat = torch.cat([seen(part) for part in views.flatten(0, 1).split(128)])
    return flat.view(*views.shape[:2], -1).float()


def _of_run(run: Run, checkpoint: str) -> Subject:
    method = run.manifest["method"]
    headline = "trained embedding" if method in ON_EMBEDDING else "trained features"
    config = TrainConfig.from_dict(method, run.manifest["config"])
    return Subject(str(run.path), load_encoder(run, checkpoint), headline, "trained features", run, config)


def _fixed_size(subject: Subject) -> bool:
    """Whether the network reads one size only (a transformer's position embedding)."""
    return subject.encoder is not None and any("pos_embed" in name for name in subject.encoder.state_dict())
