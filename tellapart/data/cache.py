"""Where decoded data is kept between runs: a folder of entries, bounded in size.

An entry is sealed when it is complete: `.seal.json` holds the size of each of its files and a
checksum of each block. An entry whose seal is missing or does not fit is removed and made again.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import shutil
import time
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from msgspec import Meta, Struct

from ..errors import DataError, require
from ..runtime import files, schemas
from ..runtime.locks import Lock

Make = Callable[[Path, float], None]
Contents = Callable[[Path], Iterable[tuple[Path, str]]]

SEAL = ".seal.json"
SCRATCH = ".packing-"
BLOCK = 1 << 20  # bytes that share a checksum
LOOKS = 16  # blocks of large files that are checked at each opening, at random
TAG = "CACHEDIR.TAG"  # tells backups that the folder can be made again: bford.info/cachedir
SIGNATURE = "Signature: 8a477f597d28d172789f06886806bc55\n# A cache of tellapart.\n"
PATIENCE = 6 * 3600.0  # seconds to wait for another process that packs the same files


class SealedFile(Struct):
    """A file of an entry: its size and the CRC-32 of each block."""

    bytes: Annotated[int, Meta(ge=0)]
    blocks: list[int]


class Seal(Struct):
    """.seal.json of an entry."""

    block: Annotated[int, Meta(ge=1)]
    files: dict[str, SealedFile]


def default_folder() -> Path:
    """$TELLAPART_CACHE, else $XDG_CACHE_HOME/tellapart, else ~/.cache/tellapart."""
    if named := os.environ.get("TELLAPART_CACHE"):
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tellapart"


@dataclass(frozen=True)
class Cache:
    """Entries by key.

    Attributes:
        folder: where they are.
        limit: bytes of all entries together; the oldest used are removed first.
        verify: check every block of an entry, and the contents of its source files, instead of
            some blocks.
        say: told why an entry is made again.
    """

    folder: Path
    limit: float = 50e9
    verify: bool = False
    say: Callable[[str], None] = lambda _: None

    def __post_init__(self) -> None:
        require(self.limit > 0, f"--cache-limit must be above 0 GB, got {self.limit / 1e9:g}")

    def entry(
        self, key: str, make: Make, contents: Contents | None = None, *, summary: bool = False
    ) -> Path:
        """The folder of an entry, which is made unless it is there and intact.

        Args:
            key: name of the entry.
            make: make(folder, largest size in bytes) creates the folder.
            contents: the source files of an entry and the digests of their contents, as
                `content_digest` computes them; compared with the files when `verify` is set.
            summary: a summary of source files, which keeps no digests of them: `verify` makes it
                again.
        Raises:
            DataError: the cache cannot be written, or `make` failed.
        """
        path = self.folder / "packed" / key
        if self.verify and summary:
            shutil.rmtree(path, ignore_errors=True)
        if (path / SEAL).exists() and self._usable(path, contents):
            with contextlib.suppress(OSError):  # a cache that can only be read
                os.utime(path)
            return path
        lock = Lock(path.parent / f".{key}.lock")
        with files.words(self.folder, DataError):
            files.make_folder(path.parent)
            lock.acquire(wait=PATIENCE)
        try:
            # Another process may have made it while this one waited.
            if not ((path / SEAL).exists() and self._usable(path, contents)):
                self._make(path, make)
        finally:
            lock.release()
        return path

    def _make(self, path: Path, make: Make) -> None:
        if not (self.folder / TAG).exists():
            files.write_text(self.folder / TAG, SIGNATURE, error=DataError)
        files.remove_scratch_folders(path.parent, SCRATCH)
        shutil.rmtree(path, ignore_errors=True)
        make(path, self.limit)
        files.write_json(path / SEAL, _sealed(path), error=DataError)
        self._trim(keep=path)

    def _usable(self, path: Path, contents: Contents | None) -> bool:
        """Whether an entry is intact; says why, where it is not."""
        fault = damage(path, whole=self.verify)
        if fault is None and self.verify and contents is not None:
            changed = [
                file
                for file, digest in contents(path)
                if content_digest(file) not in (digest, None)
            ]
            if changed:
                fault = f"{len(changed):,} source files have changed, the first: {changed[0]}"
        if fault is not None:
            self.say(f"the cached copy in {path} is not used ({fault}); it is made again")
        return fault is None

    def _trim(self, keep: Path) -> None:
        entries = [p for p in keep.parent.iterdir() if p.is_dir() and not p.name.startswith(".")]
        sizes = {p: sum(f.stat().st_size for f in p.rglob("*") if f.is_file()) for p in entries}
        total = sum(sizes.values())
        for path in sorted(entries, key=lambda p: p.stat().st_mtime):
            if total <= self.limit:
                return
            if path != keep:
                shutil.rmtree(path, ignore_errors=True)  # maps already open stay readable on POSIX
                total -= sizes[path]


def content_digest(file: Path) -> str | None:
    """Digest of the contents of a source file, as packed entries keep it; None if unreadable."""
    try:
        return hashlib.blake2b(files.read_bytes(file), digest_size=16).hexdigest()
    except OSError:
        return None


def damage(path: Path, *, whole: bool) -> str | None:
    """The damage of an entry, None for an intact one.

    Args:
        path: its folder.
        whole: check every block; else sizes, small files, and some blocks of large ones.
    """
    try:
        seal = files.read_json(path / SEAL)
        schemas.check(seal, Seal, path / SEAL)
        block, sealed = seal["block"], seal["files"]
        found = {f.relative_to(path).as_posix() for f in _files(path)}
        if lost := sorted(sealed.keys() - found):
            return f"{lost[0]} is missing"
        places = []
        for name, about in sealed.items():
            size = (path / name).stat().st_size
            if size != about["bytes"] or len(about["blocks"]) != -(-size // block):
                return f"{name} has {size:,} bytes, not {about['bytes']:,}"
            places += [(name, number) for number in range(len(about["blocks"]))]
        large = [p for p in places if len(sealed[p[0]]["blocks"]) > 1]
        looks = random.Random(time.time_ns())  # the generators of the training are left alone
        chosen = places if whole or len(large) <= LOOKS else looks.sample(large, LOOKS)
        chosen = chosen if chosen is places else chosen + [p for p in places if p not in set(large)]
        for name, number in sorted(chosen):
            with files.open_regular(path / name) as file:
                file.seek(number * block)
                if zlib.crc32(file.read(block)) != sealed[name]["blocks"][number]:
                    return f"block {number} of {name} has changed"
    except Exception as error:  # a damaged seal fails in many ways
        return f"{SEAL}: {str(error)[:200]}"
    return None


def _sealed(path: Path) -> dict[str, object]:
    """The seal of a complete entry."""
    found = {}
    for file in _files(path):
        blocks = []
        with files.open_regular(file) as opened:
            while part := opened.read(BLOCK):
                blocks.append(zlib.crc32(part))
        found[file.relative_to(path).as_posix()] = {"bytes": file.stat().st_size, "blocks": blocks}
    return {"block": BLOCK, "files": found}


def _files(path: Path) -> list[Path]:
    return sorted(f for f in path.rglob("*") if f.is_file() and f.name != SEAL)
