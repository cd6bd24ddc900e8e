"""The image modality.

Shapes: S instances in the source, N batch, D width, K neighbours.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .. import encoders
from ..curation import duplicates, image_match, inspect, summary
from ..curation.content import Contents, contents
from ..data import ImageSource, Preview, image_folder, kinds, objects, open_source
from ..data.files import Listing
from ..data.modality import OpenOptions
from ..data.open import listed
from ..embeddings import search
from ..encoders import Encoder, hub
from ..encoders.inference import batches_of_images
from ..encoders.patches import PatchEncoder
from ..errors import ConfigError
from ..evaluation import baselines, evaluate, full
from ..evaluation.rows import small_side
from ..exporters import image_program, program
from ..reports.explorer import items
from ..runtime import plugins
from ..runtime.console import plural
from ..training import build, loading
from ..training.config import TrainConfig
from ..training.loading import Subject
from ..views.images import ImageViews, centre_view
from .base import BaseModality


class Images(BaseModality[ImageSource]):
    """Colour or grey images, packed as uint8."""

    kind = "images"
    extensions = kinds.IMAGES
    neighbours_by = "pixels"
    baseline_batch = 512
    watched_items = 256
    configuration = TrainConfig

    def starting_settings(self, method: str) -> None:
        """Return None: every setting comes from a preset."""
        return None

    def open(self, spec: str, path: Path, options: OpenOptions) -> ImageSource:
        """Open a folder of images, a text file that lists them, or a .npy or .npz of uint8."""
        if path.suffix.lower() in kinds.ARRAYS and path.is_file():
            return objects.array_source(
                spec, path, image_size=options.image_size, large=options.large
            )
        level = options.reading.label_level
        return self.open_listing(spec, listed(path, self.kind, level), options)

    def open_listing(self, spec: str, listing: Listing, options: OpenOptions) -> ImageSource:
        """Open image files."""
        return image_folder.image_source(
            spec,
            listing,
            options.cache,
            size=options.image_size,
            large=options.large,
            options=options.reading,
            progress=options.progress,
        )

    def source_for(self, subject: Subject, data: str, options: Mapping[str, Any]) -> ImageSource:
        """Open images at the size the network reads, and adapt it to their channels."""
        size = options.get("image_size") or subject.size
        large = hub.input_of(subject.encoder.description.get("encoder", "")).size
        found = open_source(data, **{**options, "image_size": size, "large": large})
        source = loading.images_of(found, subject.name)
        networks = [loading.image_encoder(subject, data)]
        networks += [subject.fresh] if subject.fresh else []
        for network in networks:
            own = plugins.is_name(network.description.get("encoder"))  # adapts itself, or not
            if network.mean.numel() != source.channels and not own:
                network.take_channels(source.channels)
        return source

    def evaluation_view(self, source: ImageSource, batch: Any) -> Tensor:
        """Return the centre crop of every image."""
        return centre_view(batch, source.image_size)

    def build_encoder(self, config: Any, source: ImageSource) -> Encoder:
        """Build an encoder with `training.build.image_encoder`."""
        return build.image_encoder(config, source)

    def default_views(self, source: ImageSource) -> ImageViews:
        """Return crops, flips and colour changes at the size of the source."""
        return ImageViews(source.image_size)

    def rebuild_encoder(self, description: dict[str, Any], *, seed: int) -> Encoder:
        """Rebuild an encoder with `encoders.build`."""
        given = dict(description)
        return encoders.build(given.pop("encoder"), seed=seed, **given)

    def untrained(self, subject: Subject, say: Callable[[str], None]) -> dict[str, Any]:
        """Return the network with random weights and, after --init, with its initial weights."""
        return loading.untrained_images(subject, say)

    def preprocessor(self, data: dict[str, Any], description: dict[str, Any]) -> dict[str, Any]:
        """Return size, channels, resizing and value range."""
        return {
            "image_size": description["size"],
            "channels": description["channels"],
            "resize": "short side to image_size x 1.15, the middle square of image_size",
            "values": "0..1, or uint8",
            "normalisation": "inside the encoder",
        }

    def card(self, description: dict[str, Any]) -> tuple[str, str]:
        """Describe backbone, channels and size."""
        network = (
            f"{description['encoder']}, {plural(description['channels'], 'channel')}, "
            f"{description['size']} px"
        )
        return network, "the output of the backbone"

    def batches(self, source: ImageSource, device: torch.device) -> list[Tensor]:
        """Split the rows into batches that fit the CPU cache."""
        return batches_of_images(len(source), source.image_size, device)

    def baseline(self, train: ImageSource) -> tuple[str, Callable[[Any], Tensor]]:
        """Use the pixels minus the mean image as features."""
        return "centred pixels", baselines.CentredPixels(train)

    def evaluate(
        self, subject: Subject, source: ImageSource, request: evaluate.Request
    ) -> dict[str, Any]:
        """Evaluate with the standard protocol; `--full` adds stages, label budgets and more."""
        result, rows = evaluate.score_source(subject, source, request)
        if request.full:
            result["full"] = full.everything(
                subject, source, rows, request.console, **request.stages
            )
        return result

    def untrained_side(self, network: Any, source: ImageSource) -> int | None:
        """Return at most 64 pixels, unless the network accepts only one size."""
        return small_side(network, source)

    def decode_query(self, name: str | Path, source: ImageSource, encoder: Any) -> Any:
        """Read an image file, scaled as the images of the source."""
        return search.file_query(name, source, lambda path: search.image_query(path, source))

    def content(self, source: ImageSource, row: int) -> bytes:
        """Return the bytes of shape and pixels."""
        image = source.image(row)
        return repr(image.shape).encode() + image.tobytes()

    def comparison(self, source: ImageSource) -> Contents:
        """Small copies of what is drawn on every image."""
        return contents(source)

    def content_vectors(self, source: ImageSource, compared: Contents) -> Tensor:
        """Colours and shapes of what is drawn."""
        return image_match.vectors(compared)

    def near_duplicates(
        self, source: ImageSource, near: Tensor, compared: Contents
    ) -> list[tuple[int, int]]:
        """Pairs that coincide once one image is laid on the other."""
        return duplicates.same_pictures(compared, near)

    def alike(
        self, source: ImageSource, compared: Contents, item: int, others: list[int]
    ) -> list[bool]:
        """Whether the other images coincide with one in any orientation."""
        return image_match.alike(compared, item, others)

    def summary(self, source: ImageSource) -> dict[str, Any]:
        """Summarise sizes, formats and modes."""
        return summary.of_images(source)

    def training_facts(
        self, source: ImageSource
    ) -> tuple[dict[str, Any], dict[str, str], list[str]]:
        """Return the size of a view, and warnings about tiny or grey images."""
        return inspect.image_facts(source)

    def list_lines(
        self, source: ImageSource, rows: Sequence[int], data: str, out: Path
    ) -> list[str]:
        """Return one line for each path, with a tab and the label."""
        return inspect.path_lines(source, rows)

    def program(
        self,
        original: Any,
        encoder: Any,
        description: dict[str, Any],
        *,
        rate: int | None,
        fold: bool,
    ) -> program.Standalone:
        """Return a program that uses the network's library, or plain torch for patches."""
        if plugins.is_name(description["encoder"]):
            raise ConfigError(
                f"{description['encoder']} is a network of your own, whose program only you have; "
                "save ta.load(run).encoder.backbone.model with torch.save or torch.export"
            )
        # PatchEncoder is an Encoder whose network no library has: its program is ours.
        if isinstance(encoder, PatchEncoder):
            return program.of_patches(encoder, description)
        return image_program.of(original, encoder, description, fold=fold)

    def preview(self, source: ImageSource, row: int) -> Preview:
        """Return the image."""
        return Preview(picture=source.image(row))

    def uploaded(self, source: ImageSource, raw: bytes, encoder: Any) -> Any:
        """Read an uploaded image file of at most 40 megapixels."""
        items.check_image(raw)
        return items.decode_upload(self, source, raw, encoder, ".bin")
