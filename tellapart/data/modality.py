"""The interface of one kind of data, and the table of the kinds there are.

Everything that differs between images, sounds, series and sentences is asked of one `Modality`
object. The code that asks (a trainer, a report, a search) names no kind itself. The built-in
modalities live in `tellapart.modalities`, the room below `api`, because they call functions of
every room beneath it; this module imports none of them: it resolves the names in `MODALITIES` when
they are first needed.

Shapes: S instances in the source, N batch, D width, K neighbours.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from ..errors import ConfigError, unknown
from . import kinds
from .options import ReadOptions

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from .source import Array, Source

S = TypeVar("S", bound="Source")
Progress = Callable[[int, int], None]  # files done, of how many


@dataclass(frozen=True)
class OpenOptions:
    """How a source is opened.

    Attributes:
        cache: folder of decoded data, as `data.cache.Cache`.
        image_size: side of an image view in pixels, or None to decide from the data.
        sample_rate: sample rate of sounds in Hz, or None to decide from the data.
        large: image size chosen for images of more than 64 pixels, in pixels.
        progress: called with the number of files done and the number of all files.
        reading: which labels, which range of values, which pieces.
    """

    cache: Any
    image_size: int | None = None
    sample_rate: int | None = None
    large: int = 64
    progress: Progress | None = None
    reading: ReadOptions = field(default_factory=ReadOptions)


@dataclass(frozen=True)
class Preview:
    """One item as a page or a sheet shows it.

    Attributes:
        picture: (H, W, C) uint8, or None if the item is not a picture.
        words: text of the item, "" if it has none.
        detail: a short measure of the item, such as "2.31 s", or "".
    """

    picture: Array | None = None
    words: str = ""
    detail: str = ""


class Modality(Generic[S]):
    """One kind of data. Each hook names the code that asks for it.

    `tellapart.modalities.BaseModality` implements every hook for which a sensible default exists;
    subclass that one, and register an instance with `register_modality`.

    Attributes:
        kind: name of the kind: the prefix of `--data kind:PATH`, and the `kind` of its sources.
        extensions: file extensions, in lower case with their dot (data.open).
        default_method: method that `train` and `inspect` take if none is named; those of the
            built-in kinds are in training/presets.
        neighbours_by: what the vectors of `content_vectors` compare, for the report of `inspect`.
        baseline_batch: items per batch of a baseline (evaluation.baselines).
        watched_items: items that the label-free measures of a checkpoint use (evaluation.monitor).
    """

    kind: str
    extensions: Collection[str] = ()
    default_method: str = "simclr"
    neighbours_by: str = "values"
    baseline_batch: int = 256
    watched_items: int = 64

    # data ---------------------------------------------------------------------------------------

    def open(self, spec: str, path: Path, options: OpenOptions) -> S:
        """Open the files at `path` as a source. Asked by `data.open_source`.

        Args:
            spec: what the user typed; the name of the source.
            path: an existing file or folder.
            options: image size, cache and the rest.
        """
        raise NotImplementedError

    def open_listing(self, spec: str, listing: Any, options: OpenOptions) -> S:
        """Open listed files as a source. Asked by `data.open_source` for lists and frames of paths.

        Args:
            spec: name of the source.
            listing: a `data.files.Listing`.
            options: image size, cache and the rest.
        """
        raise NotImplementedError

    def source_for(self, subject: Any, data: str, options: Mapping[str, Any]) -> S:
        """Open data for an encoder that belongs to no run. Asked by training.loading.

        Args:
            subject: a `training.loading.Subject`.
            data: what the user typed.
            options: keyword arguments for `data.open_source`.
        """
        raise NotImplementedError

    # views --------------------------------------------------------------------------------------

    def evaluation_view(self, source: S, batch: Any) -> Any:
        """The deterministic view of a batch that `source.read` returned. Asked by views."""
        raise NotImplementedError

    def first_view(self, source: S, batch: Any) -> Any:
        """The first item of each pair, as a batch; sources without pairs return the batch."""
        raise NotImplementedError

    def join_views(self, views: list[Any]) -> Any:
        """Concatenate views of consecutive parts of a batch. Asked by training.trainer."""
        raise NotImplementedError

    # training -----------------------------------------------------------------------------------

    @property
    def configuration(self) -> type[Any]:
        """Subclass of `training.config.CommonConfig` with this modality's settings."""
        raise NotImplementedError

    def starting_settings(self, method: str) -> Any | None:
        """Settings where no preset is named `METHOD_KIND`; None: there are none."""
        raise NotImplementedError

    def check_training(self, method: str, source: S) -> None:
        """Raise ConfigError if `method` cannot learn from `source`. Asked by training.trainer."""
        raise NotImplementedError

    def build_encoder(self, config: Any, source: S) -> Any:
        """A new encoder for a training, on the CPU. Asked by training.build."""
        raise NotImplementedError

    def build_views(self, config: Any, source: S, encoder: Any) -> Callable[..., Any]:
        """The random views of a training, of (batch, generator). Asked by training.build."""
        raise NotImplementedError

    def default_views(self, source: S) -> Callable[..., Any]:
        """Random views for an encoder that belongs to no run. Asked by evaluation.rows."""
        raise NotImplementedError

    def watch_views(self, config: Any, source: S) -> Callable[..., Any]:
        """Random views that the monitor compares while training. Asked by evaluation.monitor."""
        raise NotImplementedError

    # a saved run --------------------------------------------------------------------------------

    def rebuild_encoder(self, description: dict[str, Any], *, seed: int) -> Any:
        """The encoder of a config.json with random weights. Asked by `encoders.rebuild`.

        Args:
            description: content of config.json without "format" and "kind".
            seed: of the weights.
        """
        raise NotImplementedError

    def untrained(self, subject: Any, say: Callable[[str], None]) -> dict[str, Any]:
        """The same network before training, by row name. Asked by training.loading.

        Args:
            subject: a `training.loading.Subject`.
            say: called with a sentence about a row that cannot be made.
        """
        raise NotImplementedError

    def preprocessor(self, data: dict[str, Any], description: dict[str, Any]) -> dict[str, Any]:
        """Content of preprocessor.json: how an input becomes what the encoder reads.

        Args:
            data: the "data" entry of run.json.
            description: content of config.json.
        """
        raise NotImplementedError

    def card(self, description: dict[str, Any]) -> tuple[str, str]:
        """Network and features in words, for the model card (training.model_card)."""
        raise NotImplementedError

    # running an encoder -------------------------------------------------------------------------

    def batches(self, source: S, device: torch.device) -> list[Tensor]:
        """Source rows of each inference batch, in order. Asked by encoders.inference."""
        raise NotImplementedError

    # evaluation ---------------------------------------------------------------------------------

    def baseline(self, train: S) -> tuple[str, Callable[[Any], Tensor]]:
        """Name and function (views -> vectors (N, D)) of the baseline. Asked by evaluation.

        Args:
            train: the training split, from which a baseline may take statistics.
        """
        raise NotImplementedError

    def evaluate(self, subject: Any, source: S, request: Any) -> dict[str, Any]:
        """Score an encoder on a source, as eval.json holds it. Asked by evaluation.evaluate.

        Args:
            subject: a `training.loading.Subject`.
            source: what it is scored on.
            request: an `evaluation.evaluate.Request`.
        """
        raise NotImplementedError

    def untrained_side(self, network: Any, source: S) -> int | None:
        """Side of the images that an untrained baseline sees, in pixels; None: as the encoder."""
        raise NotImplementedError

    # search -------------------------------------------------------------------------------------

    def decode_query(self, name: str | Path, source: S, encoder: Any) -> Any:
        """A file or text as a batch of one, as `source` could have read it (embeddings.search).

        Raises:
            DataError: it cannot be read as an item of this kind.
        """
        raise NotImplementedError

    # inspect ------------------------------------------------------------------------------------

    def content(self, source: S, row: int) -> bytes:
        """Content of one item that is not a file, for exact duplicates (curation.duplicates)."""
        raise NotImplementedError

    def comparison(self, source: S) -> Any:
        """The values that near duplicates are compared by, (S, ...); None: the vectors alone."""
        raise NotImplementedError

    def content_vectors(self, source: S, compared: Any) -> Tensor:
        """(S, D) unit rows from the contents alone. Asked by curation.inspect.

        Args:
            source: S items.
            compared: what `comparison` returned.
        """
        raise NotImplementedError

    def near_duplicates(self, source: S, near: Tensor, compared: Any) -> list[tuple[int, int]]:
        """Pairs of positions with nearly the same content. Asked by curation.duplicates.

        Args:
            source: S items.
            near: (S, K) rows of the nearest others of each item.
            compared: what `comparison` returned.
        """
        raise NotImplementedError

    def alike(self, source: S, compared: Any, item: int, others: list[int]) -> list[bool]:
        """Whether each other item is a near duplicate of `item`. Asked by curation.duplicates.

        Args:
            source: S items.
            compared: what `comparison` returned.
            item: a position.
            others: positions to compare with it.
        """
        raise NotImplementedError

    def shared(self, source: S) -> list[int]:
        """How many other items share a part with each item (S,), such as one sentence of a pair.

        [] where items have no parts. Asked by curation.inspect.
        """
        raise NotImplementedError

    def summary(self, source: S) -> dict[str, Any]:
        """Sizes, lengths and file formats. Asked by curation.summary."""
        raise NotImplementedError

    def training_facts(self, source: S) -> tuple[dict[str, Any], dict[str, str], list[str]]:
        """Settings that the data decide, the reason of each, and warnings (curation.inspect)."""
        raise NotImplementedError

    def list_lines(self, source: S, rows: Sequence[int], data: str, out: Path) -> list[str]:
        """Lines of the list of kept items that `inspect --apply` writes (curation.inspect).

        Args:
            source: the items.
            rows: those to keep.
            data: what the user typed.
            out: the file to be written.
        Raises:
            DataError: these items cannot be listed in a file.
        """
        raise NotImplementedError

    # export -------------------------------------------------------------------------------------

    def program(
        self,
        original: Any,
        encoder: Any,
        description: dict[str, Any],
        *,
        rate: int | None,
        fold: bool,
    ) -> Any:
        """The encoder as an `exporters.program.Standalone`. Asked by exporters.export.

        Args:
            original: the encoder of the run.
            encoder: a copy, after BatchNorm folding and rounding.
            description: content of config.json.
            rate: sample rate of sounds in Hz.
            fold: whether BatchNorm is folded into the convolutions of `encoder`.
        Raises:
            ConfigError: this kind of data has no exported form.
        """
        raise NotImplementedError

    # pages --------------------------------------------------------------------------------------

    def preview(self, source: S, row: int) -> Preview:
        """One item for a page. Asked by the reports and the contact sheet."""
        raise NotImplementedError

    def details(self, source: S, row: int) -> dict[str, Any]:
        """JSON fields of one item for the explorer beside its id and label."""
        raise NotImplementedError

    def sound(self, source: S, row: int) -> bytes | None:
        """One item as a WAV file, None if it cannot be heard. Asked by the explorer."""
        raise NotImplementedError

    def uploaded(self, source: S, raw: bytes, encoder: Any) -> Any:
        """Bytes dropped on the explorer as a batch of one, checked before they are decoded."""
        raise NotImplementedError


MODALITIES: dict[str, str | Modality[Any]] = {
    "images": "tellapart.modalities.images:Images",
    "audio": "tellapart.modalities.sequences:Audio",
    "series": "tellapart.modalities.sequences:Series",
    "text": "tellapart.modalities.text:Text",
}
"""Kind -> modality, or where the class is; `modality_of` replaces the latter on first use."""


def modality_of(what: Source | str) -> Modality[Any]:
    """The modality of a source, or of a kind by name.

    Args:
        what: a source, or a kind such as "images".
    Raises:
        ConfigError: an unknown kind.
    """
    kind = what if isinstance(what, str) else what.kind
    found = MODALITIES.get(kind)
    if found is None:
        raise unknown("kind of data", kind, MODALITIES)
    if isinstance(found, str):
        module, _, name = found.partition(":")
        found = MODALITIES[kind] = getattr(importlib.import_module(module), name)()
    return found


def register_modality(modality: Modality[Any]) -> None:
    """Add a kind of data; every verb can then use its sources.

    A modality registered under the same kind before is replaced.

    Args:
        modality: its `kind` must differ from the built-in kinds.
    Raises:
        ConfigError: the kind is a built-in one.
    """
    if modality.kind in BUILTIN_KINDS:
        raise ConfigError(
            f"the kind {modality.kind!r} is built in; give the modality a kind of its own"
        )
    MODALITIES[modality.kind] = modality
    kinds.KINDS[modality.kind] = set(modality.extensions)


BUILTIN_KINDS = tuple(MODALITIES)
MODALITIES["instances"] = "tellapart.modalities.vectors:Vectors"  # not opened from files
