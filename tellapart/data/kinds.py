"""The kind of the data that a name stands for, read from the endings of files; free of torch and numpy."""

from __future__ import annotations

import itertools
import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

IMAGES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif"}
AUDIO = {".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".au"}
SERIES = {".npy", ".csv"}
TEXT = {".txt", ".tsv"}
KINDS = {"images": IMAGES, "audio": AUDIO, "series": SERIES, "text": TEXT}  # registered ones, too
BUILTIN = ("digits", "fashion-mnist", "cifar10", "stl10")
LOOKED_AT = 5000  # files of a folder that its kind is read from


def kind_of(spec: str) -> str:
    """The kind of the data that a name stands for: "images", "audio", "series" or "text".

    >>> kind_of("digits"), kind_of("audio:calls/"), kind_of("scenes:digits")
    ('images', 'audio', 'images')
    """
    kind = spec.partition(":")[0]
    if kind in KINDS:
        return kind
    path = Path(spec).expanduser()
    if not spec or kind in (*BUILTIN, "scenes") or not path.exists():
        return "images"
    return kind_of_path(path)


def kind_of_path(path: Path) -> str:
    """The kind of most of the files in a folder or a list; a folder of texts holds nothing else."""
    others = [kind for kind in KINDS if kind != "text"]
    if path.is_dir():
        names = (name for _, _, files in os.walk(path) for name in files)
        counts = _counted(itertools.islice(names, LOOKED_AT))
        if not any(counts[kind] for kind in others):
            return "text" if counts["text"] else "images"
        return max(others, key=lambda kind: counts[kind])
    for kind, extensions in KINDS.items():  # one file of these is a source, not a list
        if kind not in ("images", "audio", "text") and path.suffix.lower() in extensions:
            return kind
    lines = _first_lines(path)
    counts = _counted(lines)
    best = max(others, key=lambda kind: counts[kind])
    if 2 * counts[best] > len(lines):
        return best
    return "images" if lines and _is_file(path.parent / lines[0]) else "text"


def _counted(names: Iterable[str]) -> dict[str, int]:
    endings = Counter(Path(name).suffix.lower() for name in names)
    return {kind: sum(endings[e] for e in extensions) for kind, extensions in KINDS.items()}


def _first_lines(path: Path) -> list[str]:
    with open(path, encoding="utf-8", errors="replace") as file:
        lines = (line.partition("\t")[0].strip() for line in itertools.islice(file, 200))
        return [line for line in lines if line]


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name that no file can have
        return False
