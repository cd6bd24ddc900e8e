"""Sounds and series: everything that differs between sequences and other kinds of data.

Shapes: S instances in the source, N batch, D width, K neighbours.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..curation import duplicates, inspect, summary
from ..data import Preview, SequenceSource, audio, kinds, series
from ..data.files import Listing
from ..data.modality import OpenOptions
from ..data.open import listed
from ..embeddings import search
from ..encoders import AnyEncoder, own, sequence
from ..encoders.inference import batches_of_sequences
from ..evaluation import baselines, evaluate
from ..exporters import program
from ..reports.explorer import items
from ..training import build
from ..training.config import SequenceConfig
from ..training.loading import Subject
from ..views.audio import whole
from .base import BaseModality


class Sequences(BaseModality[SequenceSource]):
    """What sounds and series have in common."""

    default_method = "cpc"
    neighbours_by = "course"
    baseline_batch = 16
    watched_items = 64
    configuration = SequenceConfig

    def starting_settings(self, method: str) -> None:
        """None: every setting comes from a preset."""
        return None

    def evaluation_view(self, source: SequenceSource, batch: Any) -> dict[str, Tensor]:
        """Every sequence from beginning to end, padded with zeros to the longest."""
        return whole(batch)

    def build_encoder(self, config: Any, source: SequenceSource) -> AnyEncoder:
        """As `training.build.sequence_encoder`."""
        return build.sequence_encoder(config, source)

    def rebuild_encoder(self, description: dict[str, Any], *, seed: int) -> AnyEncoder:
        """As `encoders.sequence.build`, or around a network of the user."""
        given = dict(description)
        if "encoder" in given:
            del given["width"]  # follows from the network
            return own.of_sequences(given.pop("encoder"), kind=self.kind, seed=seed, **given)
        return sequence.build(seed=seed, **given)

    def card(self, description: dict[str, Any]) -> tuple[str, str]:
        """Convolutions, context and channels, or the network of the user."""
        if "encoder" in description:
            return f"{description['encoder']}, {description['channels']} channel(s)", "its output"
        strides = "x".join(map(str, description["strides"]))
        network = (
            f"convolutions of stride {strides} and {description['context']}, "
            f"{description['channels']} channel(s)"
        )
        return network, "the context c_t of every frame, or its mean over a sequence"

    def preprocessor(self, data: dict[str, Any], description: dict[str, Any]) -> dict[str, Any]:
        """Channels, sample rate and value range."""
        rate = data.get("rate")
        floats = "(N, channels, steps), float"
        return {
            "channels": description["channels"],
            "sample_rate": rate,
            "values": f"{floats} in -1..1 or int16" if rate else floats,
            "normalisation": "inside the encoder",
        }

    def batches(self, source: SequenceSource, device: torch.device) -> list[Tensor]:
        """As many sequences as fit a number of steps, padding included."""
        return batches_of_sequences(source.lengths)

    def evaluate(
        self, subject: Subject, source: SequenceSource, request: evaluate.Request
    ) -> dict[str, Any]:
        """The table of the protocol, and labels of single frames where the data have them."""
        result = super().evaluate(subject, source, request)
        return result | evaluate.frame_labels(subject, source, request.console)

    def content(self, source: SequenceSource, position: int) -> bytes:
        """The values."""
        return source.sequence(position).tobytes()

    def comparison(self, source: SequenceSource) -> Tensor:
        """(S, D): every sequence stretched to a fixed number of steps."""
        return duplicates.briefs(source)

    def near_duplicates(
        self, source: SequenceSource, near: Tensor, compared: Tensor | None
    ) -> list[tuple[int, int]]:
        """Pairs of about the same length whose courses correlate."""
        return [] if compared is None else duplicates.same_shapes(source.lengths, compared, near)

    def summary(self, source: SequenceSource) -> dict[str, Any]:
        """Lengths, channels, rates and formats."""
        return summary.of_sequences(source)

    def list_lines(
        self, source: SequenceSource, positions: Sequence[int], data: str, out: Path
    ) -> list[str]:
        """The path of each file once, with a tab and the label."""
        return inspect.path_lines(source, positions)

    def program(
        self,
        original: Any,
        encoder: Any,
        description: dict[str, Any],
        *,
        rate: int | None,
        fold: bool,
    ) -> program.Standalone:
        """A program of plain torch."""
        return program.of_signals(encoder, description, rate, fold)

    def details(self, source: SequenceSource, position: int) -> dict[str, Any]:
        """Where in its file the item lies, and a small curve."""
        return items.sequence_details(source, position)


class Audio(Sequences):
    """Sounds, resampled to one rate and packed as int16."""

    kind = "audio"
    extensions = kinds.AUDIO

    def open(self, spec: str, path: Path, options: OpenOptions) -> SequenceSource:
        """A folder of sounds, or a text file that lists them."""
        level = options.reading.label_level
        return self.open_listing(spec, listed(path, self.kind, level), options)

    def open_listing(self, spec: str, listing: Listing, options: OpenOptions) -> SequenceSource:
        """Sound files."""
        return audio.audio_source(
            spec,
            listing,
            options.cache,
            rate=options.sample_rate,
            options=options.reading,
            progress=options.progress,
        )

    def baseline(self, train: SequenceSource) -> tuple[str, Callable[[Any], Tensor]]:
        """The mean loudness of 40 mel bands."""
        return "log-mel means", baselines.LogMel(train.rate or 1)

    def decode_query(self, name: str | Path, source: SequenceSource, encoder: Any) -> Any:
        """A sound file at the sample rate of the source."""
        rate = source.rate or 1
        return search.file_query(
            name, source, lambda path: search.sequence_query(audio.decode(path, rate)[0], source)
        )

    def preview(self, source: SequenceSource, position: int) -> Preview:
        """Its duration."""
        return Preview(detail=f"{source.lengths[position] / (source.rate or 1):.2f} s")

    def sound(self, source: SequenceSource, position: int) -> bytes:
        """The sound as packed."""
        return items.wav(source, position)

    def uploaded(self, source: SequenceSource, raw: bytes, encoder: Any) -> Any:
        """A sound file of at most 60 seconds."""
        items.check_sound(raw)
        return items.decode_upload(self, source, raw, encoder, ".bin")


class Series(Sequences):
    """Tables of numbers over time, packed as float32."""

    kind = "series"
    extensions = kinds.SERIES

    def open(self, spec: str, path: Path, options: OpenOptions) -> SequenceSource:
        """A .npy or .csv of steps x channels, a folder of them, or a list."""
        level = options.reading.label_level
        return self.open_listing(spec, listed(path, self.kind, level), options)

    def open_listing(self, spec: str, listing: Listing, options: OpenOptions) -> SequenceSource:
        """Files of tables."""
        return series.series_source(
            spec,
            listing,
            options.cache,
            options=options.reading,
            progress=options.progress,
        )

    def baseline(self, train: SequenceSource) -> tuple[str, Callable[[Any], Tensor]]:
        """Mean, standard deviation and mean step of each channel."""
        return "channel statistics", baselines.ChannelStatistics()

    def decode_query(self, name: str | Path, source: SequenceSource, encoder: Any) -> Any:
        """A table with the channels of the source."""
        return search.file_query(
            name, source, lambda path: search.sequence_query(series.read_table(path), source)
        )

    def uploaded(self, source: SequenceSource, raw: bytes, encoder: Any) -> Any:
        """A .npy or .csv of at most 2**20 steps."""
        suffix = ".npy" if raw.startswith(b"\x93NUMPY") else ".csv"
        batch = items.decode_upload(self, source, raw, encoder, suffix)
        items.check_steps(len(batch["values"]))
        return batch
