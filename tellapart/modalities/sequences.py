"""The modalities of sequences: sounds and series.

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
from ..runtime.console import plural
from ..training import build
from ..training.config import SequenceConfig
from ..training.loading import Subject
from ..views.audio import whole
from .base import BaseModality


class Sequences(BaseModality[SequenceSource]):
    """Base class of sounds and series."""

    neighbours_by = "course"
    baseline_batch = 16
    watched_items = 64
    configuration = SequenceConfig

    def starting_settings(self, method: str) -> None:
        """Return None: every setting comes from a preset."""
        return None

    def evaluation_view(self, source: SequenceSource, batch: Any) -> dict[str, Tensor]:
        """Return whole sequences, padded with zeros to the longest."""
        return whole(batch)

    def build_encoder(self, config: Any, source: SequenceSource) -> AnyEncoder:
        """Build an encoder with `training.build.sequence_encoder`."""
        return build.sequence_encoder(config, source)

    def rebuild_encoder(self, description: dict[str, Any], *, seed: int) -> AnyEncoder:
        """Rebuild an encoder, which may contain a user-defined network."""
        given = dict(description)
        if "encoder" in given:
            del given["width"]  # follows from the network
            return own.of_sequences(given.pop("encoder"), kind=self.kind, seed=seed, **given)
        return sequence.build(seed=seed, **given)

    def card(self, description: dict[str, Any]) -> tuple[str, str]:
        """Describe convolutions, context and channels, or the user-defined network."""
        if "encoder" in description:
            return (
                f"{description['encoder']}, {plural(description['channels'], 'channel')}",
                "its output",
            )
        strides = "x".join(map(str, description["strides"]))
        network = (
            f"convolutions of stride {strides} and {description['context']}, "
            f"{plural(description['channels'], 'channel')}"
        )
        return network, "the context c_t of every frame, or its mean over a sequence"

    def preprocessor(self, data: dict[str, Any], description: dict[str, Any]) -> dict[str, Any]:
        """Return channels, sample rate and value range."""
        rate = data.get("rate")
        floats = "(N, channels, steps), float"
        return {
            "channels": description["channels"],
            "sample_rate": rate,
            "values": f"{floats} in -1..1 or int16" if rate else floats,
            "normalisation": "inside the encoder",
        }

    def batches(self, source: SequenceSource, device: torch.device) -> list[Tensor]:
        """Split the rows into batches of a limited number of steps, padding included."""
        return batches_of_sequences(source.lengths)

    def evaluate(
        self, subject: Subject, source: SequenceSource, request: evaluate.Request
    ) -> dict[str, Any]:
        """Evaluate with the standard protocol, and on frame labels if the data have them."""
        result = super().evaluate(subject, source, request)
        return result | evaluate.frame_labels(subject, source, request.console)

    def content(self, source: SequenceSource, row: int) -> bytes:
        """Return the bytes of the values."""
        return source.sequence(row).tobytes()

    def comparison(self, source: SequenceSource) -> Tensor:
        """Return every sequence resampled to a fixed number of steps: (S, D)."""
        return duplicates.briefs(source)

    def near_duplicates(
        self, source: SequenceSource, near: Tensor, compared: Tensor | None
    ) -> list[tuple[int, int]]:
        """Pairs of about the same length whose courses correlate."""
        if compared is None:
            return []
        return duplicates.same_shapes(source.lengths, compared, duplicates.pairs_of(near))

    def alike(
        self, source: SequenceSource, compared: Tensor, item: int, others: list[int]
    ) -> list[bool]:
        """Whether the other sequences have about the same length and course."""
        pairs = torch.tensor([[item, other] for other in others])
        close = {b for _, b in duplicates.same_shapes(source.lengths, compared, pairs)}
        return [other in close for other in others]

    def summary(self, source: SequenceSource) -> dict[str, Any]:
        """Summarise lengths, channels, rates and formats."""
        return summary.of_sequences(source)

    def list_lines(
        self, source: SequenceSource, rows: Sequence[int], data: str, out: Path
    ) -> list[str]:
        """Return one line for each file, with a tab and the label."""
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
        """Return a program in plain torch."""
        return program.of_signals(encoder, description, rate, fold)

    def details(self, source: SequenceSource, row: int) -> dict[str, Any]:
        """Return the row of the item in its file, and a small curve."""
        return items.sequence_details(source, row)


class Audio(Sequences):
    """Sounds, resampled to one rate and packed as int16."""

    kind = "audio"
    extensions = kinds.AUDIO

    def open(self, spec: str, path: Path, options: OpenOptions) -> SequenceSource:
        """Open a folder of sounds, or a text file that lists them."""
        level = options.reading.label_level
        return self.open_listing(spec, listed(path, self.kind, level), options)

    def open_listing(self, spec: str, listing: Listing, options: OpenOptions) -> SequenceSource:
        """Open sound files."""
        return audio.audio_source(
            spec,
            listing,
            options.cache,
            rate=options.sample_rate,
            options=options.reading,
            progress=options.progress,
        )

    def baseline(self, train: SequenceSource) -> tuple[str, Callable[[Any], Tensor]]:
        """Use the mean loudness of 40 mel bands as features."""
        return "log-mel means", baselines.LogMel(train.rate or 1)

    def decode_query(self, name: str | Path, source: SequenceSource, encoder: Any) -> Any:
        """Read a sound file at the sample rate of the source."""
        rate = source.rate or 1
        return search.file_query(
            name, source, lambda path: search.sequence_query(audio.decode(path, rate)[0], source)
        )

    def preview(self, source: SequenceSource, row: int) -> Preview:
        """Return the preview, with the duration."""
        return Preview(detail=f"{source.lengths[row] / (source.rate or 1):.2f} s")

    def sound(self, source: SequenceSource, row: int) -> bytes:
        """Return the sound as stored."""
        return items.wav(source, row)

    def uploaded(self, source: SequenceSource, raw: bytes, encoder: Any) -> Any:
        """Read an uploaded sound file of at most 60 seconds."""
        items.check_sound(raw)
        return items.decode_upload(self, source, raw, encoder, ".bin")


class Series(Sequences):
    """Tables of numbers over time, packed as float32."""

    kind = "series"
    extensions = kinds.SERIES

    def open(self, spec: str, path: Path, options: OpenOptions) -> SequenceSource:
        """Open a .npy or .csv of steps x channels, a folder of them, or a list."""
        level = options.reading.label_level
        return self.open_listing(spec, listed(path, self.kind, level), options)

    def open_listing(self, spec: str, listing: Listing, options: OpenOptions) -> SequenceSource:
        """Open table files."""
        return series.series_source(
            spec,
            listing,
            options.cache,
            options=options.reading,
            progress=options.progress,
        )

    def baseline(self, train: SequenceSource) -> tuple[str, Callable[[Any], Tensor]]:
        """Use mean, standard deviation and mean step of each channel as features."""
        return "channel statistics", baselines.ChannelStatistics()

    def decode_query(self, name: str | Path, source: SequenceSource, encoder: Any) -> Any:
        """Read a table with the channels of the source."""
        return search.file_query(
            name, source, lambda path: search.sequence_query(series.read_table(path), source)
        )

    def uploaded(self, source: SequenceSource, raw: bytes, encoder: Any) -> Any:
        """Read an uploaded .npy or .csv of at most 2**20 steps."""
        suffix = ".npy" if raw.startswith(b"\x93NUMPY") else ".csv"
        batch = items.decode_upload(self, source, raw, encoder, suffix)
        items.check_steps(len(batch["values"]))
        return batch
