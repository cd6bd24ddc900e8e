"""Videos as images: a frame every 1 / fps seconds, by PyAV; the frames of a clip stay together."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import DataError
from ..runtime.extras import optional
from . import specs
from .files import TEST_SHARE
from .notes import counted, note
from .opening import open_regular, readable, reason
from .records import Record, Records, Skipped, file_key

USUAL = 1.0  # frames a second
MOST = 100_000  # frames of one clip


def read(files: Sequence[Path], root: Path, options: Mapping[str, str]) -> Records:
    """The frames of videos.

    Args:
        files: the videos.
        root: the folder that ids are relative to.
        options: `fps`, frames a second; by default 1.

    Raises:
        DataError: an option that is not about videos.
        MissingExtraError: PyAV is missing.
    """
    av = optional("av", "video")
    rate = specs.fps_of(options) or USUAL
    if others := [name for name in options if name != specs.FPS]:
        raise DataError(f"videos have no columns; leave out {', '.join(others)}")
    words = f"{counted(len(files), 'video')} read at {rate:g} frames per second; --fps sets another"
    notes = [note("frames", words, count=len(files))]
    parts = _parts([_name(file, root) for file in files])

    def records() -> Iterator[Record | Skipped]:
        for file in files:
            name = _name(file, root)
            try:
                for seconds, raw in _frames(av, file, rate):
                    yield Record(f"{name}#{seconds:.1f}s", raw, None, parts.get(name))
            except (av.error.FFmpegError, OSError, ValueError) as error:
                yield Skipped(name, f"damaged: {reason(error)}")

    key = repr([file_key(file, rate) for file in files])
    return Records("images", key, records, root, (), notes)


def _name(file: Path, root: Path) -> str:
    return readable(file.relative_to(root).as_posix())


def _parts(names: Sequence[str]) -> dict[str, str]:
    """The split of each clip by the hash of its name, so that its frames stay together."""
    from .source import hash_split

    if len(names) < 2:
        return {}
    found = hash_split(names, TEST_SHARE)
    return {names[int(i)]: part for part, rows in found.items() for i in rows}


def _frames(av: Any, file: Path, rate: float) -> Iterator[tuple[float, bytes]]:
    """Seconds and PNG bytes of a frame in each interval of 1 / rate seconds."""
    with open_regular(file) as opened, av.open(opened, format=None) as container:
        if not container.streams.video:
            raise ValueError("it holds no pictures")
        due, given = 0.0, 0
        for frame in container.decode(video=0):
            seconds = float(frame.time or 0.0)
            if seconds + 1e-6 < due:
                continue
            due = max(due + 1 / rate, seconds)
            raw = io.BytesIO()
            frame.to_image().save(raw, "PNG")
            yield seconds, raw.getvalue()
            given += 1
            if given == MOST:
                return
