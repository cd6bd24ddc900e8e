"""Members of tar and zip archives: listed and read without unpacking, and safe to name."""

from __future__ import annotations

import re
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from .endings import ARCHIVES, TARS
from .opening import open_regular, readable, reason
from .records import LARGEST, Skipped

BLOCK = 512  # bytes of a header of a tar
ENCRYPTED = 0x1  # flag of a member of a zip
_DRIVE = re.compile(r"[A-Za-z]:")


@dataclass(frozen=True)
class Member:
    """A regular file in an archive.

    Attributes:
        name: its path in the archive, with "/" and without "./".
        read: gives its bytes; valid until the next member is asked for.
    """

    name: str
    read: Callable[[], bytes]


def is_tar(path: Path) -> bool:
    """Whether an archive is a tar."""
    return path.name.lower().endswith(TARS)


def stem(path: Path) -> str:
    """The name of an archive without its ending.

    >>> stem(Path("shard-000.tar.gz"))
    'shard-000'
    """
    ending = next(e for e in sorted(ARCHIVES, key=len)[::-1] if path.name.lower().endswith(e))
    return path.name[: -len(ending)]


def members(path: Path) -> Iterator[Member | Skipped]:
    """The files in an archive, in its order, and what cannot be read safely.

    Names that lead out of the archive, links, devices, encrypted members, and what follows a
    damaged header are left out with the reason.

    Args:
        path: the archive.
    """
    try:
        with open_regular(path) as file:
            yield from (_of_tar if is_tar(path) else _of_zip)(path, file)
    except GeneratorExit:
        raise
    except Exception as error:  # the readers raise many kinds on a damaged archive
        yield Skipped(readable(path.name), f"damaged: {reason(error).removeprefix('damaged: ')}")


def safe_member(name: str) -> str | None:
    r"""The name of a member as a relative path; None: it leads out of the archive.

    >>> safe_member("./cats/1.jpg"), safe_member("../x"), safe_member("/etc/x")
    ('cats/1.jpg', None, None)
    >>> safe_member("a\\..\\..\\x"), safe_member("C:\\x")
    (None, None)
    """
    name = name.replace("\\", "/")
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if name.startswith("/") or _DRIVE.match(name) or ".." in parts or "\0" in name or not parts:
        return None
    return "/".join(parts)


def _of_tar(path: Path, file: BinaryIO) -> Iterator[Member | Skipped]:
    with tarfile.open(fileobj=file, mode="r:*") as archive:
        kept: Any = archive
        last = ""
        while (info := archive.next()) is not None:
            kept.members = []  # a million of them need a gigabyte
            last = readable(info.name)
            name = safe_member(info.name)
            if info.isdir():
                continue
            if name is None:
                yield Skipped(f"{path.name}/{last}", "traversal: its name leads out of the archive")
            elif info.issym() or info.islnk():
                yield Skipped(f"{path.name}/{last}", "link: links in archives are not followed")
            elif not info.isreg():
                yield Skipped(f"{path.name}/{last}", "not a regular file: a device or a pipe")
            elif info.size > LARGEST:
                yield Skipped(f"{path.name}/{last}", f"too large: {info.size:,} bytes")
            else:
                yield Member(name, _reader(archive.extractfile(info)))
        if any(rest_of(archive)):  # the reader takes a damaged header for the end
            raise ValueError(f"the header after {last} cannot be read, nor what follows it")


def rest_of(archive: tarfile.TarFile) -> bytes:
    """The block at which the reader of a tar stopped; zeros or nothing at its end.

    Args:
        archive: read to its end, or to a header that is damaged.
    """
    source: Any = archive.fileobj
    source.seek(archive.offset)
    found: bytes = source.read(BLOCK)
    return found


def _reader(source: Any) -> Callable[[], bytes]:
    def read() -> bytes:
        raw: bytes = source.read()
        return raw

    return read


def _of_zip(path: Path, file: BinaryIO) -> Iterator[Member | Skipped]:
    with zipfile.ZipFile(file) as archive:
        for info in archive.infolist():
            shown, name = f"{path.name}/{readable(info.filename)}", safe_member(info.filename)
            kind = stat.S_IFMT(info.external_attr >> 16)
            if info.is_dir():
                continue
            if name is None:
                yield Skipped(shown, "traversal: its name leads out of the archive")
            elif kind == stat.S_IFLNK:
                yield Skipped(shown, "link: links in archives are not followed")
            elif kind not in (0, stat.S_IFREG):
                yield Skipped(shown, "not a regular file: a device or a pipe")
            elif info.flag_bits & ENCRYPTED:
                yield Skipped(shown, "encrypted: unpack the archive with its password first")
            elif info.file_size > LARGEST:
                yield Skipped(shown, f"too large: {info.file_size:,} bytes")
            else:
                yield Member(name, _unzip(archive, info))


def _unzip(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Callable[[], bytes]:
    def read() -> bytes:
        with archive.open(info) as opened:
            raw = opened.read(info.file_size + 1)  # the stated size is an upper bound
        if len(raw) > info.file_size:
            raise ValueError(f"damaged: more than the stated {info.file_size:,} bytes")
        return raw

    return read
