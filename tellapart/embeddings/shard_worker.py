"""A worker of shards: the encoder loaded once, items decoded by threads, parts written.

Shapes: N items of a piece, F width.
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..data import ImageSource, image_decoding, image_folder, manifest
from ..data.image_packing import MARGIN, Reading
from ..data.images import Pixels
from ..data.manifest import Item, Manifest
from ..data.opening import reason
from ..data.options import ReadOptions
from ..data.source import Array
from ..encoders import AnyEncoder, Encoder, hub
from ..encoders.inference import Output, function_of, run_over
from ..errors import ConfigError, DataError, StoreError, require
from ..runtime import plugins
from ..training import loading
from ..training.loading import Subject
from . import shards
from .incremental import weights_digest
from .shards import Done, Plan, Precision
from .store import Store

SURVEYED = 4096  # items whose headers decide how all are read
SLICES = 16  # of the manifest, in which they lie
PIECE = 512  # items that are decoded before they are embedded
HEAVY = 1 << 18  # bytes of a file that may need much memory to decode
LARGE = 1 << 26  # bytes of decoding a picture, of which one at a time is decoded
FETCHERS = 16  # threads that read from a store, where each waits for answers
TRIES = 3
WAITS = (2.0, 8.0)  # seconds before a shard is tried again
# An item that is not there or is no file. Other failures concern the disk or the network.
OF_ITEM = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EACCES, errno.EPERM, errno.ELOOP,
           errno.ENAMETOOLONG, errno.EINVAL)  # fmt: skip
GONE = re.compile(r"NoSuchBucket|bucket does not exist", re.IGNORECASE)


@dataclass(frozen=True)
class Job:
    """All that a worker process needs: plain values.

    Attributes:
        subject: name of the encoder, as `loading.open_subject` takes it.
        checkpoint, encoder, width: as for `loading.open_subject`.
        data: path or url of the manifest.
        out: path or url of the folder of shards.
        plan: of the folder.
        threads: of torch, in this worker.
    """

    subject: str
    checkpoint: str
    encoder: str | None
    width: int
    data: str
    out: str
    plan: Plan
    threads: int = 1


def open_encoder(job: Job) -> AnyEncoder:
    """The encoder of a job.

    Args:
        job: the job.

    Raises:
        DataError: its weights are not those of the plan.
    """
    subject = loading.open_subject(
        job.subject, checkpoint=job.checkpoint, encoder=job.encoder, width=job.width
    )
    encoder = adapted(subject, int(job.plan.view["channels"]))
    if weights_digest(encoder) != job.plan.encoder:
        raise DataError(f"{job.subject} has other weights than when {job.out} was begun")
    return encoder


def adapted(subject: Subject, channels: int) -> Encoder:
    """The encoder of a subject for images of so many channels.

    Args:
        subject: an encoder of images.
        channels: 1 or 3.

    Raises:
        ConfigError: it reads no images.
    """
    encoder = loading.image_encoder(subject, "embedding a manifest")
    own = plugins.is_name(encoder.description.get("encoder"))  # adapts itself, or not
    if subject.run is None and encoder.mean.numel() != channels and not own:
        encoder.take_channels(channels)
    return encoder


def make_plan(
    subject: Subject,
    opened: Manifest,
    *,
    output: str,
    precision: Precision,
    shard_size: int,
    image_size: int | None,
    before: Plan | None = None,
) -> tuple[Plan, AnyEncoder]:
    """Decide all that decides the vectors of a manifest.

    Args:
        subject: the encoder.
        opened: the manifest.
        output: "features" or "embedding".
        precision: of the stored vectors.
        shard_size: rows of a shard.
        image_size: side of a view in pixels; None: that of the run, or decided from the images.
        before: the plan of the folder; its view is kept where nothing else is asked for.

    Returns:
        The plan, and the encoder.
    Raises:
        ConfigError: the encoder reads no images.
        DataError: none of the first items can be read, or an id is repeated.
    """
    require(output in ("features", "embedding"), f"--output {output} needs --out FILE.npz")
    require(1 <= shard_size <= 1 << 20, f"--shard-size must lie in 1..1048576, got {shard_size}")
    if output == "embedding" and subject.run is None:
        raise ConfigError(f"{subject.name} has no trained projection head; use --output features")
    same = before is not None and before.manifest == opened.fingerprint
    view = _kept_view(subject, before.view, image_size) if before and same else None
    if view is None:
        view = _view(subject, opened, image_size)
    if not same:
        opened.check_ids()
    encoder = adapted(subject, int(view["channels"]))
    source = image_source([np.zeros((8, 8, int(view["channels"])), np.uint8)], view)
    width = Embedding(encoder, output).vectors(source).shape[1]
    plan = Plan(
        manifest=opened.fingerprint, encoder=weights_digest(encoder), view=view, output=output,
        precision=precision, shard_size=shard_size, rows=len(opened), width=width,
        about={"data": opened.place, "encoder": subject.name},
    )  # fmt: skip
    return plan, encoder


def _kept_view(
    subject: Subject, view: Mapping[str, Any], image_size: int | None
) -> Mapping[str, Any] | None:
    """The view of an earlier plan; None where it must be decided again."""
    size = image_size or (subject.run and subject.run.manifest["data"].get("image_size"))
    return view if size in (None, view.get("image_size")) else None


def _view(subject: Subject, opened: Manifest, image_size: int | None) -> dict[str, Any]:
    """How items are read and seen, from the run or from the headers of a sample."""
    about: Mapping[str, Any] = subject.run.manifest["data"] if subject.run else {}
    kind = about.get("kind", "images")
    require(kind == "images", f"a manifest holds images; {subject.name} was trained on {kind}")
    config = loading.config_of(subject.run) if subject.run else None
    options = ReadOptions()
    fit = getattr(config, "fit", None) or options.fit
    megapixels = getattr(config, "max_megapixels", None) or options.max_megapixels
    headers, values = _survey(opened, megapixels)
    channels, native, uniform = image_folder.shape_of(headers)
    large = hub.input_of(str(subject.encoder.description.get("encoder", ""))).size
    size = image_size or about.get("image_size") or subject.size
    size = size or (native if native <= image_folder.SMALL else large)
    given = about.get("ranges") or {}
    ranges = {k: image_folder.range_of(k, v) for k, v in values.items() if len(v)} | given
    view = {
        "kind": "images", "image_size": size, "channels": about.get("channels") or channels,
        "whole": uniform and native == size, "fit": fit, "max_megapixels": megapixels,
        "ranges": ranges,
    }  # fmt: skip
    found: dict[str, Any] = json.loads(json.dumps(view))  # as it is read again from plan.json
    return found


def _survey(
    opened: Manifest, megapixels: float
) -> tuple[list[image_folder.Header], dict[str, Array]]:
    """The headers of a sample of a manifest, and the values of its deep pictures by kind."""
    if len(opened) <= SURVEYED:
        spans = [(0, len(opened))]
    else:
        count = SURVEYED // SLICES
        starts = np.linspace(0, len(opened) - count, SLICES).astype(int).tolist()
        spans = [(start, count) for start in starts]
    values: dict[str, list[Array]] = {}
    headers, failures = [], []

    def seen(item: Item) -> tuple[image_folder.Header, Array] | str:
        try:
            file = io.BytesIO(manifest.read(item))
            header = image_folder.header_of(file)
            deep = header.deep
            file.seek(0)
            return header, image_folder.values_of(file, megapixels) if deep else np.zeros(0)
        except StoreError:
            raise
        except Exception as error:  # embedding lists it, with the reason
            return f"{item.id}: {reason(error)}"

    with ThreadPoolExecutor(FETCHERS) as pool:
        for start, count in spans:
            stream = opened.stream(start, count, 64)
            while part := list(islice(stream, 64)):
                for result in pool.map(seen, part):
                    if isinstance(result, str):
                        failures.append(result)
                        continue
                    headers.append(result[0])
                    if len(result[1]):
                        values.setdefault(result[0].deep, []).append(result[1])
    if not headers:
        raise DataError(
            f"none of {len(failures):,} items of {opened.place} can be read as an image; the "
            f"first: {failures[0]}"
        )
    return headers, {kind: np.concatenate(parts) for kind, parts in values.items()}


def image_source(images: list[Array], view: Mapping[str, Any]) -> ImageSource:
    """Decoded images (h, w, C) uint8 as a source.

    Args:
        images: N images.
        view: of the plan.
    """
    heights = np.array([i.shape[0] for i in images], np.int64)
    widths = np.array([i.shape[1] for i in images], np.int64)
    channels = int(view["channels"])
    lengths = heights * widths * channels
    flat = np.concatenate([i.reshape(-1) for i in images])
    offset = np.cumsum(lengths) - lengths
    return ImageSource(
        name="", all_ids=[""] * len(images), all_labels=None, classes=(), parts={},
        fingerprint="", pixels=Pixels(flat, offset, heights, widths, channels),
        image_size=int(view["image_size"]),
    )  # fmt: skip


class Embedding:
    """One output of an encoder, prepared once.

    Args:
        encoder: of images; it is set to eval mode.
        output: "features" or "embedding".
    """

    def __init__(self, encoder: AnyEncoder, output: str) -> None:
        wanted: Output = "embedding" if output == "embedding" else "features"
        self._device, self._function = encoder.device, function_of(encoder, (wanted,))

    def vectors(self, source: ImageSource) -> Array:
        """The vectors (N, F) float32 of a source, in its order.

        Args:
            source: N images.
        """
        parts = run_over(self._function, source, device=self._device, parallel=True)
        found: Array = torch.cat([output for (output,) in parts]).numpy()
        return found


@dataclass(frozen=True)
class _Read:
    """An item that was read: an image and the hash of its bytes, or why it could not be used."""

    item: Item
    image: Array | None = None
    digest: str = ""
    why: str = ""
    unread: bool = False


class Worker:
    """Embeds shards.

    Args:
        job: what to embed.
        encoder: of the job; None: it is opened, and compared with the plan.
        index: number of this worker on its machine; it chooses a GPU.
    """

    def __init__(self, job: Job, encoder: AnyEncoder | None = None, index: int = 0) -> None:
        self.plan, self.view = job.plan, job.plan.view
        self.store = Store(job.out)
        self.manifest = Manifest(job.data)
        encoder = encoder or open_encoder(job)
        if torch.cuda.is_available():
            encoder = encoder.to(torch.device("cuda", index % torch.cuda.device_count()))
        self._embedding = Embedding(encoder, self.plan.output)
        ranges = {k: (float(a), float(b)) for k, (a, b) in self.view["ranges"].items()}
        self._reading = Reading(self.view["fit"], ranges, float(self.view["max_megapixels"]))
        self._short = round(self.view["image_size"] * MARGIN)
        self._loader = ThreadPoolExecutor(1)
        remote = "uri" in self.manifest.columns
        self._readers = ThreadPoolExecutor(max(job.threads, FETCHERS if remote else 1))
        self._large = threading.Lock()
        self._ahead: tuple[int, Iterator[Item], Future[list[_Read]]] | None = None

    def close(self) -> None:
        """End the threads, and close the manifest."""
        self._loader.shutdown(cancel_futures=True)
        self._readers.shutdown(cancel_futures=True)
        self.manifest.close()

    def try_shard(self, shard: int, then: int | None = None) -> Done:
        """Embed a shard, three times at most.

        Args:
            shard: number of the shard.
            then: the shard after it, whose items are read ahead.

        Returns:
            What was written, or why it could not be.
        """
        began = time.monotonic()
        for attempt in range(TRIES):
            try:
                rows, errors = self._shard(shard, then)
            except Exception as error:  # of a store, a disk, a device, or a lack of memory
                self._ahead = None
                failure = f"{type(error).__name__}: {error}"[:400]
                if attempt + 1 < TRIES:
                    time.sleep(WAITS[attempt])
                continue
            return Done(shard, rows, errors, seconds=time.monotonic() - began)
        return Done(shard, failure=failure, seconds=time.monotonic() - began)

    def _shard(self, shard: int, then: int | None) -> tuple[int, int]:
        """Embed and write a shard; the numbers of vectors and of errors."""
        rows: dict[str, list[Any]] = {"id": [], "hash": [], "label": [], "split": []}
        made: list[Array] = []
        errors: list[tuple[str, str]] = []
        unread = 0
        for piece in self._pieces(shard, then):
            unread += sum(one.unread for one in piece)
            good = [one for one in piece if one.image is not None]
            vectors = self._vectors([one.image for one in good if one.image is not None])
            finite = np.asarray(np.isfinite(vectors).all(axis=1))
            errors += [(one.item.id, one.why) for one in piece if one.image is None]
            for one, fine in zip(good, finite.tolist(), strict=True):
                if not fine:
                    errors.append((one.item.id, "not finite: its vector, or too large for float16"))
                    continue
                rows["id"].append(one.item.id)
                rows["hash"].append(one.digest)
                rows["label"].append(one.item.label)
                rows["split"].append(one.item.split)
            made.append(vectors[finite])
        if unread > 1 and unread == self.plan.rows_of(shard)[1]:
            raise DataError(
                f"none of its {unread:,} items can be read; the first: {errors[0][0]}: "
                f"{errors[0][1]}"
            )
        shards.write_part(self.store, self.plan, shard, rows, np.concatenate(made), errors)
        return len(rows["id"]), len(errors)

    def _vectors(self, images: list[Array]) -> Array:
        """The vectors (N, F) of decoded images, in the precision that is stored."""
        kind = np.dtype(self.plan.precision)
        if not images:
            return np.zeros((0, self.plan.width), kind)
        vectors = self._embedding.vectors(image_source(images, self.view))
        with np.errstate(over="ignore"):  # what is too large becomes infinite, and an error
            return vectors.astype(kind)

    def _pieces(self, shard: int, then: int | None) -> Iterator[list[_Read]]:
        """The items of a shard, a piece at a time, while the next piece is read."""
        if self._ahead is None or self._ahead[0] != shard:
            self._ahead = self._begin(shard)
        _, stream, future = self._ahead
        self._ahead = None
        while piece := future.result():
            future = self._loader.submit(self._read, stream)
            if len(piece) < PIECE and then is not None and self._ahead is None:
                self._ahead = self._begin(then)
            yield piece

    def _begin(self, shard: int) -> tuple[int, Iterator[Item], Future[list[_Read]]]:
        stream = self.manifest.stream(*self.plan.rows_of(shard), PIECE)
        return shard, stream, self._loader.submit(self._read, stream)

    def _read(self, stream: Iterator[Item]) -> list[_Read]:
        """The next piece of a stream of items, decoded by threads."""
        return list(self._readers.map(self._one, islice(stream, PIECE)))

    def _one(self, item: Item) -> _Read:
        try:
            raw = manifest.read(item)
        except StoreError:
            raise
        except (OSError, ValueError) as error:
            if isinstance(error, OSError) and (
                GONE.search(str(error)) or (error.errno and error.errno not in OF_ITEM)
            ):
                raise
            return _Read(item, why=reason(error), unread=True)
        digest = hashlib.blake2b(raw, digest_size=16).hexdigest()
        try:
            return _Read(item, self._decoded(raw), digest)
        except Exception as error:  # the readers raise many kinds on a damaged file
            return _Read(item, why=reason(error))

    def _decoded(self, raw: bytes) -> Array:
        """One image (h, w, C) uint8, as packing makes it."""
        guard: Any = nullcontext()
        if len(raw) > HEAVY:
            cost = image_decoding.cost(image_decoding.open_picture(io.BytesIO(raw)))
            if cost.bytes(self._short, self._reading.fit) > LARGE:
                guard = self._large
        side, channels = self.view["image_size"], self.view["channels"]
        with guard:
            if self.view["whole"]:
                found = self._decode(raw, channels, None)
                if found.shape[:2] == (side, side):
                    return found
            return self._decode(raw, channels, self._short)

    def _decode(self, raw: bytes, channels: int, short: int | None) -> Array:
        return image_decoding.decode_image(
            io.BytesIO(raw), channels, short=short, fit=self._reading.fit,
            ranges=self._reading.ranges, megapixels=self._reading.megapixels,
        ).image  # fmt: skip


def job_of(subject: Any, given: Mapping[str, Any], data: str, out: str, plan: Plan) -> Job:
    """The job of a worker in another process, which opens the encoder by its name.

    Args:
        subject: the encoder, as given by the user.
        given: checkpoint, encoder and width.
        data: the manifest.
        out: the folder of shards.
        plan: of the folder.

    Raises:
        ConfigError: the encoder is a Python object, which has no name.
    """
    named = isinstance(subject, str | Path)
    encoder = given.get("encoder")
    if not named or not (encoder is None or isinstance(encoder, str)):
        raise ConfigError(
            "--workers opens the encoder in other processes: name a run, an exported folder, "
            "timm/NAME or a file of weights, or leave out --workers"
        )
    return Job(
        str(subject), str(given.get("checkpoint", "last")), encoder, int(given.get("width", 16)),
        data, out, plan,
    )  # fmt: skip


Told = Callable[[Done], None]
