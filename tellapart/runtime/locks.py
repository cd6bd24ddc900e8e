"""Locks between processes, released when the holder ends for any reason."""

from __future__ import annotations

import contextlib
import errno
import os
import time
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows: msvcrt locks there
    fcntl = None  # type: ignore[assignment]


class Lock:
    """An exclusive lock (flock) on a file that names the holder; released when it ends.

    Args:
        path: file of the lock; it is created, and removed on release.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._number: int | None = None

    def acquire(self, *, wait: float = 0.0) -> bool:
        """Take the lock.

        Args:
            wait: seconds to wait while another process holds it.

        Returns:
            Whether this process holds it now.
        Raises:
            OSError: the file cannot be created.
        """
        deadline = time.monotonic() + wait
        while not self._try():
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.01)
        return True

    def release(self) -> None:
        """Release the lock and remove its file; a no-op if it is not held."""
        if self._number is None:
            return
        if os.name != "nt":
            with contextlib.suppress(OSError):
                self.path.unlink()  # while held, so that waiting processes notice the removal
        os.close(self._number)
        self._number = None
        if os.name == "nt":
            with contextlib.suppress(OSError):
                self.path.unlink()

    def holder(self) -> str:
        """Return "process N", "process N on HOST", or "another process" if unknown."""
        with contextlib.suppress(OSError, ValueError):
            number, _, host = self.path.read_text().strip().partition(" ")
            here = not host or host == _host()
            return f"process {int(number)}" + ("" if here else f" on {host[:80]!a}")
        return "another process"

    def _try(self) -> bool:
        number = os.open(self.path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666)
        if not _locked(number):
            os.close(number)
            return False
        try:
            current = os.stat(self.path).st_ino == os.fstat(number).st_ino
        except FileNotFoundError:
            current = False
        if not current:  # its last holder has removed the file
            os.close(number)
            return self._try()
        os.ftruncate(number, 0)
        os.write(number, f"{os.getpid()} {_host()}\n".encode())
        self._number = number
        return True


def _locked(number: int) -> bool:
    """Lock an open file; False when another process holds the lock."""
    try:
        if fcntl is not None:
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        else:  # pragma: no cover - Windows
            import msvcrt

            os.lseek(number, 1 << 20, os.SEEK_SET)  # a byte behind the text, which stays readable
            getattr(msvcrt, "locking")(number, getattr(msvcrt, "LK_NBLCK"), 1)  # noqa: B009
            os.lseek(number, 0, os.SEEK_SET)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES, errno.EDEADLK):
            return False
        if error.errno in (errno.ENOLCK, errno.ENOTSUP, errno.EINVAL, errno.ENOSYS):
            return True  # the file system has no locks
        raise
    return True


def _host() -> str:
    return os.uname().nodename if hasattr(os, "uname") else os.environ.get("COMPUTERNAME", "")


def hold_folder(folder: Path) -> int | None:
    """Lock a folder; return the descriptor that holds the lock, None if not supported.

    Args:
        folder: the folder.
    """
    if fcntl is None:
        return None
    number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(number)
        if error.errno in (errno.EWOULDBLOCK, errno.EAGAIN):
            raise
        return None  # a file system without locks
    return number
