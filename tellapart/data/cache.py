"""Where decoded data is kept between runs: a folder of entries, bounded in size, the oldest used removed first."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..errors import DataError, require

Make = Callable[[Path, float], None]


def default_folder() -> Path:
    """$TELLAPART_CACHE, else $XDG_CACHE_HOME/tellapart, else ~/.cache/tellapart."""
    if named := os.environ.get("TELLAPART_CACHE"):
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tellapart"


@dataclass(frozen=True)
class Cache:
    """Entries by key. `limit` is in bytes and covers all of them together."""

    folder: Path
    limit: float = 50e9

    def __post_init__(self) -> None:
        require(self.limit > 0, f"--cache-limit must be above 0 GB, got {self.limit / 1e9:g}")

    def entry(self, key: str, make: Make) -> Path:
        """The folder of `key`, made by make(folder, largest size in bytes) unless it is there."""
        path = self.folder / "packed" / key
        if not path.exists():
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise DataError(
                    f"cannot write the cache {self.folder}: {error.strerror}; give another --cache"
                ) from error
            make(path, self.limit)
            self._trim(keep=path)
        os.utime(path)
        return path

    def _trim(self, keep: Path) -> None:
        entries = [p for p in keep.parent.iterdir() if p.is_dir() and not p.name.startswith(".")]
        sizes = {p: sum(f.stat().st_size for f in p.iterdir()) for p in entries}
        total = sum(sizes.values())
        for path in sorted(entries, key=lambda p: p.stat().st_mtime):
            if total <= self.limit:
                return
            if path != keep:
                shutil.rmtree(path, ignore_errors=True)  # maps already open stay readable on POSIX
                total -= sizes[path]
