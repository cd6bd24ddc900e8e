"""Sizes in the header of a WAV or AIFF file, set right where a recorder or a pipe left them open.

Recorders write sizes before they know them (0, the largest number, or off by some bytes), and a
decoder that believes them reads too little. A sound is cut off only where its chunk of samples
promises more than the file holds, and the promise is none of the values that say "unknown".
"""

from __future__ import annotations

import io
import struct
from typing import Any, BinaryIO

from ..errors import DataError

OPEN = {0, 0x7FFFFFFF, 0x7FFFF000, 0x80000000, 0xFFFFFFFF}  # sizes that say "until the end"
SLACK = 64  # bytes: a size that is wrong by so much counted its own header
MOST_HEADER = 1 << 20  # bytes in which the samples must begin


def repaired(file: BinaryIO) -> Any:
    """The file with sizes that agree with its length; the same file where they do already.

    Raises:
        DataError: samples are missing at its end.
    """
    file.seek(0, io.SEEK_END)
    length = file.tell()
    file.seek(0)
    head = file.read(12)
    file.seek(0)
    kinds = {b"RIFF": ("<I", b"data", b"WAVE"), b"FORM": (">I", b"SSND", (b"AIFF", b"AIFC"))}
    if len(head) < 12 or head[:4] not in kinds:
        return file
    form, wanted, inside = kinds[head[:4]]
    if head[8:12] != inside and head[8:12] not in inside:
        return file
    place = _chunk(file, form, wanted, length)
    if place is None:
        file.seek(0)
        return file
    (promised,) = struct.unpack(form, _at(file, place + 4, 4))
    held = length - place - 8
    size = promised
    unknown = promised in OPEN or 0x7FFFF000 <= promised <= 0x80000100
    if unknown or _runs_on(file, place, promised, length, form):
        size = held
    elif promised > held:
        if promised - held > SLACK:
            raise DataError(f"cut off: {promised - held:,} of {promised:,} bytes are missing")
        size = held
    (outer,) = struct.unpack(form, head[4:8])
    file.seek(0)
    if size == promised and outer == length - 8:
        return file
    outer, size = (struct.pack(form, min(n, 0xFFFFFFFF)) for n in (length - 8, size))
    return _Patched(file, {4: outer, place + 4: size})


def _at(file: BinaryIO, place: int, count: int) -> bytes:
    file.seek(place)
    return file.read(count)


def _chunk(file: BinaryIO, form: str, wanted: bytes, length: int) -> int | None:
    """Where the chunk of samples begins."""
    place = 12
    while place + 8 <= min(length, MOST_HEADER):
        head = _at(file, place, 8)
        if head[:4] == wanted:
            return place
        (size,) = struct.unpack(form, head[4:8])
        place += 8 + size + size % 2
    return None


def _runs_on(file: BinaryIO, place: int, promised: int, length: int, form: str) -> bool:
    """Whether samples go on behind the end that was promised: no chunk begins there."""
    end = place + 8 + promised + promised % 2
    if end + 8 > length:  # at most some bytes of padding
        return False
    head = _at(file, end, 8)
    (size,) = struct.unpack(form, head[4:8])
    named = all(32 <= byte < 127 for byte in head[:4]) or not any(head)
    return not (named and end + 8 + size <= length + SLACK) and head[:3] not in (b"TAG", b"ID3")


class _Patched(io.RawIOBase):
    """A file in which some bytes of the header read otherwise."""

    def __init__(self, file: BinaryIO, patches: dict[int, bytes]) -> None:
        super().__init__()
        self._file = file
        self._patches = patches

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._file.tell()

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def readinto(self, buffer: Any) -> int:
        start = self._file.tell()
        raw = bytearray(self._file.read(len(buffer)))
        for place, patch in self._patches.items():
            for i, byte in enumerate(patch, place - start):
                if 0 <= i < len(raw):
                    raw[i] = byte
        buffer[: len(raw)] = raw
        return len(raw)
