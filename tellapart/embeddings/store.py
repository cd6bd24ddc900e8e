"""The folder that shards are written to: on a disk, or in an object store.

A file appears whole or not at all. `create` never replaces a file, so that of two writers of one
name the first wins: a hard link on a disk, a conditional put in a store.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from ..data import remote
from ..errors import DataError
from ..runtime import files


class Store:
    """A folder of shards.

    Args:
        place: path of a folder, or url of one in an object store.

    Attributes:
        path: the folder; None for an object store.
    """

    def __init__(self, place: str | Path) -> None:
        self.place = str(place).rstrip("/") or str(place)
        self.path = None if remote.is_url(self.place) else Path(self.place)
        self._system: Any = None
        if self.path is None:
            self._system, self._inner = remote.file_system(self.place)

    def __str__(self) -> str:
        return self.place

    def names(self) -> list[str]:
        """The names of the files, sorted; [] if the folder does not exist.

        Raises:
            DataError: it cannot be listed, or is a file.
        """
        if self.path is not None:
            try:
                found = os.listdir(self.path)
            except FileNotFoundError:
                return []
            except OSError as error:
                raise DataError(f"{self} cannot be listed: {error.strerror}") from error
            return sorted(n for n in found if not n.startswith("."))
        try:
            listed = remote.asked(
                self.place, lambda: self._system.ls(self._inner, detail=False, refresh=True)
            )
        except FileNotFoundError:
            return []
        return sorted(str(name).rsplit("/", 1)[-1] for name in listed)

    def exists(self, name: str) -> bool:
        """Whether there is a file.

        Args:
            name: of the file.
        """
        if self.path is not None:
            return (self.path / name).is_file()
        self._system.invalidate_cache()
        return bool(remote.asked(self.place, lambda: self._system.exists(self._at(name))))

    def open(self, name: str) -> Any:
        """Open a file for reading from any place in it.

        Args:
            name: of the file.

        Raises:
            OSError: it is not there.
        """
        if self.path is not None:
            return files.open_regular(self.path / name)
        return remote.asked(self.place, lambda: self._system.open(self._at(name), "rb"))

    def read(self, name: str) -> bytes:
        """The bytes of a file.

        Args:
            name: of the file.

        Raises:
            OSError: it is not there.
        """
        if self.path is not None:
            return files.read_bytes(self.path / name)
        return bytes(remote.asked(self.place, lambda: self._system.cat_file(self._at(name))))

    def create(self, name: str, fill: Callable[[BinaryIO], Any]) -> bool:
        """Write a file, unless there is one of this name.

        Args:
            name: of the file.
            fill: writes the contents into an open binary file.

        Returns:
            Whether it was written; False: another writer was faster.
        Raises:
            DataError: it cannot be written.
        """
        if self.path is not None:
            scratch = files.stage(self.path / name, fill, error=DataError)
            try:
                with files.words(scratch.path, DataError):
                    return _linked(scratch.work, scratch.path)
            finally:
                scratch.discard()
        import io

        raw = io.BytesIO()
        fill(raw)

        def put() -> bool:
            try:
                self._system.pipe_file(self._at(name), raw.getvalue(), mode="create")
            except FileExistsError:
                return False
            except OSError as error:
                if "PreconditionFailed" in str(error) or remote.status_of(error) == 412:
                    return False
                raise
            return True

        try:
            return remote.asked(self.place, put)
        except FileNotFoundError as error:
            raise DataError(f"cannot write {self}/{name}: {error}") from error

    def replace(self, name: str, fill: Callable[[BinaryIO], Any]) -> None:
        """Write a file, in place of an earlier one.

        Args:
            name: of the file.
            fill: writes the contents into an open binary file.

        Raises:
            DataError: it cannot be written.
        """
        if self.path is not None:
            files.write(self.path / name, fill, error=DataError)
            return
        self.remove(name)
        self.create(name, fill)

    def remove(self, name: str) -> None:
        """Remove a file; a missing one is accepted.

        Args:
            name: of the file.
        """
        with contextlib.suppress(FileNotFoundError):
            if self.path is not None:
                (self.path / name).unlink()
            else:
                remote.asked(self.place, lambda: self._system.rm_file(self._at(name)))

    def _at(self, name: str) -> str:
        return f"{self._inner.rstrip('/')}/{name}"


def _linked(work: Path, path: Path) -> bool:
    """Give a complete scratch file its name; False where another file has it."""
    try:
        os.link(work, path)
    except FileExistsError:
        return False
    except OSError:  # a file system without hard links
        if path.exists():
            return False
        os.replace(work, path)
    files.sync_folder(path.parent)
    return True
