"""Build the encoder and the views of a training run from its configuration.

Shapes: C channels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from .. import encoders
from ..data import ImageSource, SequenceSource, Source, TextSource, modality_of
from ..encoders import AnyEncoder, Encoder, TextEncoder, pretrained, synonyms
from ..errors import ConfigError, unknown
from ..runtime import plugins
from ..views.own import own_views, own_views_known
from ..views.text import TextViews
from .config import CommonConfig, SequenceConfig, TextConfig, TrainConfig

Views = Callable[[Any, torch.Generator], Any]
STATISTICS, SEQUENCES = 4096, 512  # items that the normalisation is computed from


def build_encoder(config: CommonConfig, source: Source) -> AnyEncoder:
    """Return the untrained encoder of a configuration.

    Args:
        config: the settings.
        source: the training part.

    Raises:
        ConfigError: the settings belong to another kind of data.
    """
    modality = modality_of(source)
    if not isinstance(config, modality.configuration):
        raise ConfigError(
            f"{source.name} holds {source.many}, which require {modality.configuration.__name__}; "
            f"got {type(config).__name__}"
        )
    encoder: AnyEncoder = modality.build_encoder(config, source)
    return encoder


def build_views(config: CommonConfig, source: Source, encoder: AnyEncoder) -> Views:
    """Return the random views of a training: the user's (`config.view`) or the modality's.

    Args:
        config: the settings.
        source: the training part.
        encoder: the encoder in training.
    """
    if config.view:
        return own_views(config.view)
    views: Views = modality_of(source).build_views(config, source, encoder)
    return views


def watched_views(config: CommonConfig, source: Source) -> Views:
    """Return the random views that the monitor compares during training.

    Args:
        config: the settings.
        source: the data.
    """
    if config.view:
        return own_views(config.view)
    views: Views = modality_of(source).watch_views(config, source)
    return views


def scored_views(config: CommonConfig | None, source: Source, say: Callable[[str], None]) -> Views:
    """Return the random views that an evaluation compares: those of the training, if known.

    Args:
        config: settings of the run, None for an encoder without a run.
        source: data to evaluate on.
        say: called with a sentence if the views of the training are not known here.
    """
    modality = modality_of(source)
    if config is None:
        views: Views = modality.default_views(source)
    elif config.view and own_views_known(config.view):
        views = own_views(config.view)
    else:
        if config.view:
            say(
                f"the views {config.view} are not known here; "
                "the built-in ones are compared instead"
            )
        views = config.views_for(source)
    return views


def image_encoder(config: TrainConfig, source: ImageSource) -> Encoder:
    """Return the image encoder of a training, with random weights or those of `config.init`.

    Args:
        config: the settings.
        source: the training part, from which the normalisation is computed.
    """
    mean, std = image_statistics(source)
    shared: dict[str, Any] = {
        "channels": source.channels, "size": source.image_size, "dim": config.dim,
        "head_kind": config.head,
        "width": config.width, "pool": config.pool, "mean": mean, "std": std, "seed": config.seed,
    }  # fmt: skip
    if config.init:
        encoder = pretrained.start(config.init, encoder=config.encoder, **shared)
    else:
        encoder = encoders.build(config.encoder, **shared)
    if "/" in config.encoder:
        _check_depth(encoder, config.encoder, source)
    return encoder


def sequence_encoder(config: SequenceConfig, source: SequenceSource) -> AnyEncoder:
    """Return the encoder of a training on sounds or series, with random weights.

    Args:
        config: the settings.
        source: the training part, from which the normalisation is computed.
    """
    if plugins.is_name(config.encoder):
        return encoders.own.of_sequences(
            config.encoder,
            kind=source.kind,
            channels=source.channels,
            steps=config.views.window,
            head_kind=config.head,
            dim=config.dim,
            seed=config.seed,
        )
    if config.encoder != "frames":
        raise unknown("encoder for sounds and series", config.encoder, ["frames"])
    mean, std = sequence_statistics(source)
    return encoders.sequence.build(
        seed=config.seed, mean=mean, std=std, channels=source.channels, width=config.width,
        context_width=config.context_width, kernels=config.kernels, strides=config.strides,
        norm=config.norm,
        context=config.context, head_kind=config.head, dim=config.dim,
    )  # fmt: skip


def text_encoder(config: TextConfig, source: TextSource) -> TextEncoder:
    """Return the encoder of a training on sentences.

    Args:
        config: the settings.
        source: the training part, from which a vocabulary is learned.
    """
    if plugins.is_name(config.encoder):
        raise ConfigError(
            f"--encoder {config.encoder}: an encoder of sentences needs its tokenizer; "
            "save both as a folder of transformers and name the folder"
        )
    texts = [text for i in range(source.columns) for text in source.column(i)]
    return encoders.text.build(
        config.encoder, seed=config.seed, texts=texts, width=config.width, layers=config.layers,
        vocabulary=config.vocabulary, max_length=config.max_length, dropout=config.dropout,
        pooler=config.pooler,
        head_kind=config.head, dim=config.dim, revision=config.revision,
    )  # fmt: skip


def text_views(config: TextConfig, source: TextSource, encoder: TextEncoder) -> TextViews:
    """Return the views of a training on sentences, with synonyms from the encoder's vocabulary.

    Args:
        config: the settings.
        source: the training part.
        encoder: the encoder in training.
    """
    views = config.views_for(source)
    if config.views.shuffle and not encoder.has_positions:
        raise ConfigError(f"--shuffle has no effect on {config.encoder}, which has no positions")
    return replace(views, synonyms=synonyms.table(encoder)) if config.views.substitution else views


def image_statistics(source: ImageSource) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation (C,) of pixels in [0, 1], from up to 4,096 images.

    Args:
        source: the data.
    """
    index = torch.arange(0, len(source), max(1, len(source) // STATISTICS))
    images = source.read(index)
    if isinstance(images, dict):
        flat = images["pixels"].view(-1, source.channels).double() / 255
    else:
        flat = images.permute(0, 2, 3, 1).reshape(-1, source.channels).double() / 255
    return flat.mean(0).float(), flat.std(0).float()


def sequence_statistics(source: SequenceSource) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation (C,) of up to 512 sequences; sounds are in [-1, 1].

    Args:
        source: the data.
    """
    index = torch.arange(0, len(source), max(1, len(source) // SEQUENCES))
    values = source.read(index)["values"].double()
    if source.kind == "audio":
        return torch.zeros(source.channels), (values / 32768).std(0).float()
    return values.mean(0).float(), values.std(0).float()


def _check_depth(encoder: Encoder, name: str, source: ImageSource) -> None:
    """Run a library network on a blank image, as it may be too deep for small images."""
    encoder.eval()
    try:
        with torch.no_grad():
            encoder.features(torch.zeros(1, source.channels, source.image_size, source.image_size))
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(
            f"{name} cannot read images of {source.image_size} px "
            f"({str(error).splitlines()[0]}); give a larger --image-size, or another --encoder"
        ) from error
    encoder.train()
