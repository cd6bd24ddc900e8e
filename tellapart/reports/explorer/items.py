"""Items as JSON, thumbnails and sounds for the page, and uploads as queries.

Shapes: S items, T time, C channels.
"""

from __future__ import annotations

import io
import itertools
import tempfile
import time
import wave
from pathlib import Path
from typing import Any

import numpy as np

from ...data import (
    Modality,
    SequenceSource,
    Source,
    TextSource,
    audio,
    image_decoding,
    modality_of,
)
from ...embeddings import search
from ...encoders import AnyEncoder
from ...errors import DataError, MissingExtraError
from ...runtime.text import safe
from .. import html
from .guard import Refused
from .state import State

Array = np.ndarray[Any, Any]
NEIGHBOURS = 24  # look-alikes of an item
SIDE = 160  # pixels of a thumbnail
POINTS, CURVES = 160, 3  # of a small curve: points, and channels at most
CHARACTERS = 2000  # shown of a sentence
PIXELS = 40_000_000  # of an image to search for
SECONDS, SAMPLES = (
    60,
    60_000_000,
)  # of a sound to search for: its length, and its frames times its channels
STEPS = 1 << 20  # of a series to search for
LETTERS = 10_000  # of a sentence to search for


def described(state: State, row: int) -> dict[str, Any]:
    """An item: its id and label, and by its kind the sentence, or a small curve."""
    source = state.source
    label = -1 if source.labels is None else int(source.labels[row])
    description: dict[str, Any] = {
        "row": row,
        "id": safe(source.ids_at(row)),
        "label": safe(source.classes[label]) if 0 <= label < len(source.classes) else None,
    }
    return description | modality_of(source).details(source, row)


def sentence_details(source: TextSource, row: int) -> dict[str, Any]:
    """The sentences of an item, cut where they are long."""
    texts = [source.text(row, column)[:CHARACTERS] for column in range(source.columns)]
    return {"texts": texts}


def sequence_details(source: SequenceSource, row: int) -> dict[str, Any]:
    """Where in its file a sequence begins and ends, and a small curve."""
    begin, end = source.seconds(row)
    unit = "s" if source.rate else "steps"
    curves = small_curves(source.sequence(row))
    return {"begin": begin, "end": end, "unit": unit, "curves": curves}


def small_curves(values: Array) -> list[list[float]]:
    """The first channels of a sequence (T, C) as up to 160 values: of each stretch the extreme."""
    whole = np.asarray(values[:, :CURVES], np.float32)
    edges = np.linspace(0, len(whole), min(POINTS, len(whole)) + 1).astype(np.int64)
    away = np.abs(whole - whole.mean(0))
    places = [a + away[a:b].argmax(0) for a, b in itertools.pairwise(edges)]
    return [whole[[p[c] for p in places], c].round(5).tolist() for c in range(whole.shape[1])]


def thumbnail(state: State, row: int) -> bytes:
    """A PNG of an image.

    Raises:
        Refused: 404, the items are no images.
    """
    picture = modality_of(state.source).preview(state.source, row).picture
    if picture is None:
        raise Refused(404, f"{state.source.many} have no pictures")
    return html.thumbnail(picture, SIDE)


def sound(state: State, row: int) -> bytes:
    """A WAV of a sound, as packed.

    Raises:
        Refused: 404, the items are no sounds.
    """
    raw = modality_of(state.source).sound(state.source, row)
    if raw is None:
        raise Refused(404, f"{state.source.many} cannot be heard")
    return raw


def wav(source: SequenceSource, row: int) -> bytes:
    """A sound as a WAV file, as packed."""
    room = io.BytesIO()
    with wave.open(room, "wb") as file:
        file.setnchannels(source.channels)
        file.setsampwidth(2)
        file.setframerate(source.rate or 1)
        file.writeframes(np.ascontiguousarray(source.sequence(row), "<i2").tobytes())
    return room.getvalue()


def like_item(state: State, row: int) -> dict[str, Any]:
    """The neighbours of an item."""
    return _found(state, state.embeddings.vectors[row], row)


def like_upload(state: State, raw: bytes) -> dict[str, Any]:
    """The neighbours of an upload: an image, a sound, a series (.npy, .csv) or a sentence.

    Raises:
        Refused: 413 too large, 415 of another kind.
        DataError: it cannot be read.
    """
    source, encoder = state.source, state.items.encoder
    if encoder is None:
        raise Refused(415, "these are vectors without an encoder; choose an item of the map")
    if not raw:
        raise Refused(422, f"the upload is empty; drop {source.one}")
    batch = modality_of(source).uploaded(source, raw, encoder)
    return _found(state, search.features(encoder, source, batch))


def decode_upload(
    modality: Modality[Any], source: Source, raw: bytes, encoder: AnyEncoder, suffix: str
) -> Any:
    """Bytes as a batch of one, decoded from a temporary file.

    Args:
        modality: that of the source.
        source: the items to search.
        raw: what was dropped, already checked.
        encoder: that of the run.
        suffix: extension of the temporary file.
    Raises:
        DataError: it cannot be read.
    """
    with tempfile.TemporaryDirectory(prefix="tellapart-") as folder:
        path = Path(folder) / f"query{suffix}"
        path.write_bytes(raw)
        try:
            return modality.decode_query(path, source, encoder)
        except DataError as error:
            raise DataError(str(error).replace(str(path), "the uploaded file")) from error


def check_steps(steps: int) -> None:
    """Refuse a series that is too long to search for."""
    if steps > STEPS:
        raise Refused(413, f"{steps:,} steps, {STEPS:,} at most can be searched for")


def _found(state: State, vector: Array, own: int | None = None) -> dict[str, Any]:
    began = time.perf_counter()
    count = min(NEIGHBOURS, len(state.source) - (own is not None))
    neighbours = search.neighbours(state.index, vector[None], [own], count) if count else [[]]
    rows = [
        described(state, row) | {"similarity": round(similarity, 4)}
        for row, similarity in neighbours[0]
    ]
    milliseconds = round(1000 * (time.perf_counter() - began), 1)
    asked = None if own is None else described(state, own)
    return {"item": asked, "neighbours": rows, "milliseconds": milliseconds}


def sentence(raw: bytes) -> str:
    """Bytes as a sentence; refused if they are not UTF-8, empty or too long."""
    try:
        text = raw.decode("utf-8").strip()
    except UnicodeDecodeError as error:
        raise Refused(415, "the text is not UTF-8") from error
    if not text:
        raise Refused(422, "the sentence is empty")
    if len(text) > LETTERS:
        raise Refused(413, f"{len(text):,} characters, {LETTERS:,} at most can be searched for")
    return text


def check_image(raw: bytes) -> None:
    """Refuse what is none, or too large, from its header alone: nothing is decoded here."""
    try:
        width, height = image_decoding.open_picture(io.BytesIO(raw)).size
    except Exception as error:  # a damaged header fails in many ways
        formats = ", ".join(image_decoding.FORMATS)
        raise Refused(415, f"this is not an image that can be read ({formats})") from error
    if width * height > PIXELS:
        raise Refused(
            413,
            f"{width} x {height} is {width * height / 1e6:.0f} megapixels, "
            f"{PIXELS / 1e6:.0f} at most; shrink it",
        )


def check_sound(raw: bytes) -> None:
    """Refuse what is none, or too long, before it is decoded."""
    try:
        about = audio.soundfile().info(io.BytesIO(raw))
    except MissingExtraError:
        raise
    except (
        Exception
    ) as error:  # soundfile's own error is a RuntimeError; a damaged header fails in many ways
        raise Refused(
            415, "this is not a sound that can be read (WAV, FLAC, OGG, MP3, AIFF)"
        ) from error
    if about.frames > SECONDS * about.samplerate or about.frames * about.channels > SAMPLES:
        raise Refused(
            413, f"{about.frames / about.samplerate:,.0f} s of sound, {SECONDS} s at most; cut it"
        )
