"""Open and name files safely: regular files only, any coding of text and names; without numpy."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from ..errors import DataError
from .notes import Note

BLOCK = 1 << 20  # bytes that are read at once
MOST_TEXT = 1 << 30  # bytes of a file that is read as one text


@dataclass(frozen=True)
class Listing:
    """Files in a fixed order, with what is known of each, and what was left out.

    Attributes:
        root: the folder that names are relative to.
        names: of the files, as the file system spells them.
        labels: the class of each file, None where it has none.
        splits: the split of each file ("train", "test", or another name), None where it has none.
        skipped: what could not be read: {"path", "reason"}.
        notes: what was left out or changed, counted by kind.
        ids: of the files, where they differ from their names; None: they do not.
        classes: every class in the order of their numbers; (): they are sorted.
    """

    root: Path
    names: list[str]
    labels: list[str | None]
    splits: list[str | None]
    skipped: list[dict[str, str]] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)
    ids: list[str] | None = None
    classes: tuple[str, ...] = ()

    @property
    def files(self) -> list[Path]:
        return [self.root / n for n in self.names]

    def without(self, rows: Sequence[int], notes: Sequence[Note]) -> Listing:
        """The listing less the files at `rows`, with notes on why."""
        out = set(rows)
        keep = [i for i in range(len(self.names)) if i not in out]
        return Listing(
            self.root,
            [self.names[i] for i in keep],
            [self.labels[i] for i in keep],
            [self.splits[i] for i in keep],
            self.skipped,
            [*self.notes, *notes],
            None if self.ids is None else [self.ids[i] for i in keep],
            self.classes,
        )


def open_regular(path: str | Path) -> BinaryIO:
    """Open a regular file for reading; a pipe, a device or a folder is never opened as data.

    Raises:
        ValueError: it is something else, with what it is.
        OSError: it is not there, or may not be read.
    """
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    number = os.open(path, flags | getattr(os, "O_CLOEXEC", 0))
    mode = os.fstat(number).st_mode
    if not stat.S_ISREG(mode):
        os.close(number)
        raise ValueError(f"not a regular file: it is {_what(mode)}")
    return os.fdopen(number, "rb")


def _what(mode: int) -> str:
    kinds = {
        stat.S_IFDIR: "a folder",
        stat.S_IFIFO: "a pipe",
        stat.S_IFCHR: "a device",
        stat.S_IFBLK: "a device",
        stat.S_IFSOCK: "a socket",
    }
    return kinds.get(stat.S_IFMT(mode), "something else")


def digest_of(file: BinaryIO) -> str:
    """The hash of a whole file, read in blocks."""
    file.seek(0)
    digest = hashlib.blake2b(digest_size=16)
    while block := file.read(BLOCK):
        digest.update(block)
    return digest.hexdigest()


def reason(error: BaseException) -> str:
    """Why a file is left out, from whatever its reader raised; the kind stands before a colon."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror[0].lower() + error.strerror[1:]
    if isinstance(error, MemoryError):
        return "too large: there is not enough memory to read it"
    if type(error) in (ValueError, DataError, OSError) and str(error):
        return str(error)
    return f"damaged: {type(error).__name__}: {error}"


def decode_text(raw: bytes) -> str:
    """Bytes as text: UTF-8, or UTF-16 and UTF-32 with or without their mark; the mark is dropped.

    Raises:
        UnicodeDecodeError: none of them.
    """
    for mark, coding in (
        (b"\xef\xbb\xbf", "utf-8-sig"),
        (b"\xff\xfe\0\0", "utf-32"),
        (b"\0\0\xfe\xff", "utf-32"),
        (b"\xff\xfe", "utf-16"),
        (b"\xfe\xff", "utf-16"),
    ):
        if raw.startswith(mark):
            return raw.decode(coding)
    head = raw[:4096]
    if len(raw) % 2 == 0 and b"\0" in head:
        for start, coding in ((1, "utf-16-le"), (0, "utf-16-be")):
            half = head[start::2]
            if half.count(0) > 0.6 * len(half):
                return raw.decode(coding)
    return raw.decode("utf-8")


def read_bytes(path: str | Path, most: int = MOST_TEXT) -> bytes:
    """The bytes of a regular file.

    Raises:
        ValueError: it is none, or larger than `most` bytes.
        OSError: it cannot be read.
    """
    with open_regular(path) as file:
        raw = file.read(most + 1)
    if len(raw) > most:
        raise ValueError(f"too large: more than {most / 1e9:.1f} GB of text")
    return raw


def readable(name: str) -> str:
    r"""A file name as an id: bytes that are not UTF-8 are spelled \xNN.

    >>> print(readable("caf\udce9.png"))
    caf\xe9.png
    """
    return os.fsencode(name).decode("utf-8", "backslashreplace") if _odd(name) else name


def _odd(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return True
    return False


def is_file(name: str | Path) -> bool:
    """Whether this names a regular file; a long sentence does not."""
    try:
        return Path(name).is_file()
    except (OSError, ValueError):
        return False
