"""Counts, sizes, formats and lengths of a source, and what could not be used.

Shapes: S items.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..data import (
    BUILTIN,
    KINDS,
    ImageSource,
    SequenceSource,
    Source,
    TextSource,
    image_decoding,
    modality_of,
    notes,
)
from ..data.audio import soundfile
from ..data.files import open_regular
from ..data.source import Array

COMMON = 5  # sizes that are named
SAID = 20  # files named under a heading


def describe(source: Source, data: str) -> dict[str, Any]:
    """Counts, sizes or lengths, formats, and what was left out, as plain values."""
    found: dict[str, Any] = {"counts": _counts(source)}
    found |= modality_of(source).summary(source)
    found["notes"] = [dict(n) for n in source.notes]
    reasons = Counter(notes.kind_of_reason(str(s["reason"])) for s in source.skipped)
    found["skipped"] = {
        "files": len(source.skipped),
        "reasons": dict(reasons.most_common()),
        "first": [dict(s) for s in source.skipped[:SAID]],
    }
    return found


def of_images(source: ImageSource) -> dict[str, Any]:
    """Sizes, and of files their formats and modes."""
    files = [source.file(i) for i in range(len(source))] if source.all_files else []
    of_files = _of_images(files)
    width, height = (a[source.rows].tolist() for a in (source.pixels.width, source.pixels.height))
    sizes = of_files.pop("sizes") or list(zip(width, height, strict=True))
    return {"sizes": _sizes(sizes), "view": source.about, **of_files}


def of_sequences(source: SequenceSource) -> dict[str, Any]:
    """Lengths and channels, and of sounds their rates and formats."""
    unit = "s" if source.rate else "steps"
    found: dict[str, Any] = {"lengths": _spread(source.lengths / (source.rate or 1), unit)}
    found["channels"] = source.channels
    if source.rate:
        files = sorted({source.file(i) for i in range(len(source))})
        found |= {"rate": source.rate, **_of_sounds(files)}
    return found


def of_sentences(source: TextSource) -> dict[str, Any]:
    """Words, characters and columns."""
    texts = [text for c in range(source.columns) for text in source.column(c)]
    return {
        "lengths": _spread(np.array([len(t.split()) for t in texts]), "words"),
        "characters": _spread(np.array([len(t) for t in texts]), "characters"),
        "columns": source.columns,
    }


def folder_of(data: str) -> Path | None:
    """Where the files of a folder or a list are; None of a known set."""
    kind, _, rest = data.partition(":")
    if kind in BUILTIN or kind == "scenes":
        return None
    path = Path(rest if kind in KINDS else data).expanduser()
    return path if path.is_dir() else path.parent


def _counts(source: Source) -> dict[str, Any]:
    labels = source.labels
    per_class: dict[str, int] = {}
    if labels is not None:
        counted = np.bincount(labels[labels >= 0], minlength=len(source.classes)).tolist()
        per_class = {str(name): int(n) for name, n in zip(source.classes, counted, strict=True)}
    return {
        "items": len(source),
        "kind": source.kind,
        "classes": per_class,
        "without_label": 0 if labels is None else int((labels < 0).sum()),
        "splits": {name: len(rows) for name, rows in source.splits.items()},
    }


def _sizes(sizes: list[tuple[int, int]]) -> dict[str, Any]:
    table = np.array(sizes)
    common = Counter(sizes).most_common(COMMON)
    return {
        "width": _spread(table[:, 0], "pixels"),
        "height": _spread(table[:, 1], "pixels"),
        "common": [{"width": int(w), "height": int(h), "count": n} for (w, h), n in common],
        "different": len(set(sizes)),
    }


def _spread(values: Array, unit: str) -> dict[str, Any]:
    numbers = np.asarray(values, np.float64)
    return {
        "min": round(float(numbers.min()), 3),
        "median": round(float(np.median(numbers)), 3),
        "max": round(float(numbers.max()), 3),
        "unit": unit,
    }


def _of_images(files: list[Path]) -> dict[str, Any]:
    """Sizes, formats and modes by the headers of the files, and names with another ending."""
    endings = Image.registered_extensions()
    sizes: list[tuple[int, int]] = []
    formats: Counter[str] = Counter()
    modes: Counter[str] = Counter()
    lying, moving = [], 0
    for path in files:
        try:
            with open_regular(path) as file:
                picture = image_decoding.open_picture(file)
                kind = "JPEG" if picture.format == "MPO" else str(picture.format)
                # EXIF behind the pixels of a PNG would decode it
                cheap = picture.format != "PNG" or "exif" in picture.info
                turned = cheap and picture.getexif().get(0x0112, 1) in (5, 6, 7, 8)
                sizes.append((picture.height, picture.width) if turned else picture.size)
                modes[picture.mode] += 1
                if kind in ("GIF", "WEBP", "PNG", "TIFF"):
                    moving += getattr(picture, "n_frames", 1) > 1
        except Exception:  # it has changed since it was packed, or its EXIF is damaged
            continue
        formats[kind] += 1
        if endings.get(path.suffix.lower()) != kind:
            lying.append({"file": str(path), "is": kind})
    return {
        "sizes": sizes,
        "formats": dict(formats.most_common()),
        "modes": dict(modes.most_common()),
        "wrong_endings": {"files": len(lying), "first": lying[:SAID]},
        "several_frames": moving,
    }


def _of_sounds(files: list[Path]) -> dict[str, Any]:
    formats: Counter[str] = Counter()
    rates: Counter[str] = Counter()
    channels: Counter[str] = Counter()
    lying = []
    same = {"OGA": "OGG", "OPUS": "OGG", "AIF": "AIFF"}
    for path in files:
        try:
            with open_regular(path) as file:
                about = soundfile().info(file)
        except Exception:  # it has changed since it was packed
            continue
        ending = path.suffix[1:].upper()
        if same.get(ending, ending) not in (
            about.format,
            {"WAVEX": "WAV"}.get(about.format),
            "MP3",
        ):
            lying.append({"file": str(path), "is": about.format})
        formats[f"{about.format} {about.subtype}"] += 1
        rates[str(about.samplerate)] += 1
        channels[str(about.channels)] += 1
    return {
        "formats": dict(formats.most_common()),
        "rates": dict(rates.most_common()),
        "channels_of_files": dict(channels.most_common()),
        "wrong_endings": {"files": len(lying), "first": lying[:SAID]},
    }
