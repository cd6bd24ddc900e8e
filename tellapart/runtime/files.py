"""Atomic writing of files, and reading of regular files only.

Every file of the package is written through `write` (or `replacing`, for libraries that write
by name). It creates a scratch file with a unique name in the same folder, writes it, syncs it,
renames it and syncs the folder. A reader therefore sees the old file or the new file, also after
a power failure, and two writers never share a scratch file.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import json
import os
import re
import secrets
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

from ..errors import RunError, TellapartError
from .locks import hold_folder

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
NO_FOLDER_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.EBADF)  # file systems without folder sync
SCRATCH = re.compile(r"^\..*\.(\d+)-[0-9a-f]{8}\.part(\.\w*)?$")
DAY = 86_400.0  # seconds, after which an unlocked scratch folder counts as abandoned
DEPTH = 100  # nested lists and objects of a JSON file, at most
BINARY = getattr(os, "O_BINARY", 0)

ErrorType = type[TellapartError]


# writing ---------------------------------------------------------------------------------------


class Scratch:
    """A file under its scratch name, complete and synced, which `commit` gives its final name.

    Attributes:
        path: the final name.
        work: the scratch name.
        sha256: hexadecimal SHA-256 of the contents.
    """

    def __init__(self, path: Path, target: Path, work: Path, sha256: str, error: ErrorType) -> None:
        self.path, self.work, self.sha256 = path, work, sha256
        self._target, self._error = target, error

    def commit(self) -> None:
        """Rename the scratch file and sync the folder.

        Raises:
            TellapartError: of the class given to `stage`; the scratch file is removed.
        """
        try:
            with words(self.path, self._error):
                os.replace(self.work, self._target)
                sync_folder(self._target.parent)
        except BaseException:
            self.discard()
            raise

    def discard(self) -> None:
        """Remove the scratch file, if it still exists."""
        with contextlib.suppress(OSError):
            self.work.unlink()


def stage(
    path: str | Path,
    fill: Callable[[BinaryIO], Any] | None = None,
    *,
    ending: str = "",
    error: ErrorType = RunError,
) -> Scratch:
    """Write and sync a scratch file next to `path`, creating the folder if it is missing.

    Args:
        path: final name; a symbolic link is followed, so that its target is replaced.
        fill: writes the contents into an open binary file.
        ending: suffix of the scratch file, for libraries that choose a format by it.
        error: class of the error for a file that cannot be written.

    Returns:
        The scratch file; call `commit` or `discard`.
    Raises:
        TellapartError: `path` is no regular file, or cannot be written. No scratch file is left.
    """
    path = Path(path)
    if not path.name:
        raise error(f"cannot write {str(path)!r}: a file name is needed")
    target = Path(os.path.realpath(path)) if path.is_symlink() else path
    work: Path | None = None
    try:
        with words(path, error):
            make_folder(target.parent)
            if target.is_dir():
                raise error(f"cannot write {path}: it is a folder; name a file")
            if target.exists() and not target.is_file():
                raise error(f"cannot write {path}: it is not a regular file")
            work, number = _create(target, ending)
            with os.fdopen(number, "w+b") as file:
                hashed = _Hashed(file)
                if fill is not None:
                    _filled(fill, hashed)
                file.flush()
                os.fsync(file.fileno())
    except BaseException:
        if work is not None:
            with contextlib.suppress(OSError):
                work.unlink()
        raise
    return Scratch(path, target, work, hashed.hash.hexdigest(), error)


def write(path: str | Path, fill: Callable[[BinaryIO], Any], *, error: ErrorType = RunError) -> str:
    """Write a file atomically.

    Args:
        path: final name.
        fill: writes the contents into an open binary file.
        error: class of the error for a file that cannot be written.

    Returns:
        Hexadecimal SHA-256 of the contents.
    Raises:
        TellapartError: the file cannot be written; the previous file is intact.
    """
    scratch = stage(path, fill, error=error)
    scratch.commit()
    return scratch.sha256


def write_text(path: str | Path, text: str, *, error: ErrorType = RunError) -> str:
    """Write a UTF-8 text file as `write` does.

    Args:
        path: path of the file.
        text: the contents.
        error: class of the error for a file that cannot be written.
    """
    return write(path, lambda file: file.write(text.encode()), error=error)


def write_json(path: str | Path, value: Any, *, error: ErrorType = RunError) -> str:
    """Write a JSON file as `write` does; numbers that are not finite are refused by `json`.

    Args:
        path: path of the file.
        value: the contents, as json.dumps accepts them.
        error: class of the error for a file that cannot be written.
    """
    return write_text(path, json.dumps(value, indent=1, allow_nan=False), error=error)


@contextlib.contextmanager
def replacing(path: str | Path, *, error: ErrorType = RunError) -> Iterator[Path]:
    """Yield a scratch path that takes the name `path` when the block ends without an error.

    The scratch path keeps the ending of `path`, by which libraries choose a format.

    Args:
        path: path of the file.
        error: class of the error for a file that cannot be written.

    Raises:
        TellapartError: the file cannot be written; the previous file is intact.
    """
    scratch = stage(path, ending=Path(path).suffix, error=error)
    try:
        with words(scratch.path, error):
            yield scratch.work
            _sync_file(scratch.work)
        scratch.commit()
    finally:
        scratch.discard()


def append(path: str | Path, line: str, *, error: ErrorType = RunError) -> None:
    """Add a line to a text file. A power failure may lose or cut it; `sync` makes it safe.

    Args:
        path: path of the file.
        line: the line without its line end.
        error: class of the error for a file that cannot be written.
    """
    with words(Path(path), error), open(path, "ab") as file:
        file.write(line.encode() + b"\n")


def sync(path: str | Path, *, error: ErrorType = RunError) -> None:
    """Wait until the contents of a file are on the disk; a missing file is accepted.

    Args:
        path: path of the file.
        error: class of the error for a file that cannot be written.
    """
    with words(Path(path), error), contextlib.suppress(FileNotFoundError):
        _sync_file(Path(path))


def make_folder(folder: Path) -> None:
    """Create a folder and its parents, and wait until their names are on the disk.

    Args:
        folder: the folder.
    """
    missing = [f for f in (folder, *folder.parents) if not f.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for created in missing:
        sync_folder(created.parent)


def sync_folder(folder: Path) -> None:
    """Wait until the names in a folder are on the disk, where the system can.

    Args:
        folder: the folder.
    """
    if os.name == "nt":  # Windows opens no folders
        return
    number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(number)
    except OSError as error:
        if error.errno not in NO_FOLDER_SYNC:
            raise
    finally:
        os.close(number)


@contextlib.contextmanager
def words(path: Path, error: ErrorType) -> Iterator[None]:
    """Turn an OSError of writing `path` into an error message with a remedy.

    Args:
        path: the file or folder that is written.
        error: class of the error for a file that cannot be written.

    Raises:
        TellapartError: of class `error`.
    """
    try:
        yield
    except OSError as reason:
        text = reason.strerror or str(reason)
        if reason.errno in FULL:
            text, remedy = f"the disk is full ({text})", "free some space and run it again"
        else:
            remedy = "name another place"
        raise error(f"cannot write {path}: {text}; {remedy}. Earlier files are intact") from reason


class _Hashed(io.RawIOBase):
    """A stream that hashes what is written and remembers the OSError of a failed write.

    torch.save reports a full disk as a RuntimeError that hides the reason.
    """

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__()
        self.file = file
        self.failure: OSError | None = None
        self.hash = hashlib.sha256()

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        try:
            self.file.write(data)
        except OSError as error:
            self.failure = error
            raise
        self.hash.update(data)
        return memoryview(data).nbytes


def _filled(fill: Callable[[BinaryIO], Any], file: _Hashed) -> None:
    try:
        fill(cast(BinaryIO, file))
    except RuntimeError as error:
        if file.failure is not None:
            raise file.failure from error
        raise


def _create(path: Path, ending: str) -> tuple[Path, int]:
    """Create and open a scratch file next to `path`, named after it and this process."""
    name = path.name.encode(errors="surrogateescape")[:100].decode(errors="ignore")
    while True:
        work = path.with_name(f".{name}.{os.getpid()}-{secrets.token_hex(4)}.part{ending}")
        with contextlib.suppress(FileExistsError):
            return work, os.open(work, os.O_RDWR | os.O_CREAT | os.O_EXCL | BINARY, 0o666)


def _sync_file(path: Path) -> None:
    with open(path, "rb+") as file:
        os.fsync(file.fileno())


# scratch files and folders of dead processes --------------------------------------------------


def remove_scratch(folder: Path) -> None:
    """Remove the scratch files of dead processes from `folder`.

    Args:
        folder: the folder.
    """
    with contextlib.suppress(OSError):
        for entry in list(folder.iterdir()):
            if is_scratch(entry.name) and not alive(_owner(entry.name)):
                with contextlib.suppress(OSError):
                    entry.unlink()


def is_scratch(name: str) -> bool:
    """Return whether a file name is that of a scratch file of this package.

    Args:
        name: name of a file without its folder.
    """
    return SCRATCH.match(name) is not None or (name.startswith(".") and name.endswith(".part"))


def _owner(name: str) -> int | None:
    match = SCRATCH.match(name)
    return int(match[1]) if match else None


def alive(process: int | None) -> bool:
    """Return whether a process runs on this machine; an unknown number counts as dead.

    Args:
        process: process id.
    """
    if process is None or not 0 < process < 1 << 31:
        return False
    if os.name == "nt":  # os.kill would end it
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it belongs to another user
        return True
    return True


@contextlib.contextmanager
def appearing_folder(
    folder: Path, *, prefix: str, error: ErrorType = RunError, replace: bool = False
) -> Iterator[Path]:
    """Yield a scratch folder that takes the name `folder` when the block ends without an error.

    The scratch folder is locked while this process lives, so that `remove_scratch_folders` of
    another process leaves it alone. Its files are synced before it is renamed.

    Args:
        folder: final name; may exist as an empty folder.
        prefix: start of the name of the scratch folder, such as ".packing-".
        error: class of the error for a folder that cannot be written.
        replace: accept that another process has created the same folder meanwhile.

    Raises:
        TellapartError: it cannot be written; the scratch folder is removed.
    """
    work: Path | None = None
    held: int | None = None
    try:
        with words(folder, error):
            make_folder(folder.parent)
            work = folder.parent / f"{prefix}{os.getpid()}-{secrets.token_hex(4)}"
            work.mkdir()
            held = hold_folder(work)
            yield work
            for file in work.rglob("*"):
                if file.is_file():
                    _sync_file(file)
            sync_folder(work)
            if folder.is_dir():
                with contextlib.suppress(OSError):
                    folder.rmdir()  # an empty folder gives way
            if replace and folder.exists():
                return
            try:
                os.rename(work, folder)
            except OSError:
                if not (replace and folder.exists()):
                    raise
            sync_folder(folder.parent)
    finally:
        if held is not None:
            os.close(held)
        if work is not None:
            shutil.rmtree(work, ignore_errors=True)


def remove_scratch_folders(parent: Path, prefix: str) -> None:
    """Remove the scratch folders of `appearing_folder` whose process no longer runs.

    Args:
        parent: folder that holds the scratch folders.
        prefix: start of their names, such as ".packing-".
    """
    with contextlib.suppress(OSError):
        for folder in list(parent.glob(f"{prefix}*")):
            if folder.is_dir() and _abandoned(folder, prefix):
                shutil.rmtree(folder, ignore_errors=True)


def _abandoned(folder: Path, prefix: str) -> bool:
    owner = folder.name.removeprefix(prefix).partition("-")[0]
    if not owner.isdecimal():  # of an older version, which did not lock it
        return time.time() - folder.stat().st_mtime > DAY
    if alive(int(owner)):
        return False
    if os.name == "nt":
        return time.time() - folder.stat().st_mtime > DAY
    try:
        held = hold_folder(folder)
    except OSError:
        return False  # a process of another machine or container writes it
    if held is not None:
        os.close(held)
    return True


# reading ---------------------------------------------------------------------------------------


def open_regular(path: str | Path) -> BinaryIO:
    """Open a regular file for reading; a pipe, socket, device or folder is never waited for.

    Args:
        path: path of the file.

    Raises:
        OSError: it is missing, cannot be opened, or is not a regular file.
    """
    if not stat.S_ISREG(os.stat(path).st_mode):  # opening a device may already do something
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    number = os.open(path, os.O_RDONLY | BINARY | getattr(os, "O_NONBLOCK", 0))
    try:
        if not stat.S_ISREG(os.fstat(number).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        return os.fdopen(number, "rb")
    except BaseException:
        with contextlib.suppress(OSError):
            os.close(number)
        raise


def read_bytes(path: str | Path) -> bytes:
    """Return the contents of a regular file.

    Args:
        path: path of the file.

    Raises:
        OSError: it is missing, cannot be read, or is not a regular file.
    """
    with open_regular(path) as file:
        return file.read()


def read_json(path: str | Path) -> Any:
    """Return the value of a UTF-8 JSON file without NaN and infinity.

    Args:
        path: path of the file.

    Raises:
        OSError: it is missing, cannot be read, or is not a regular file.
        ValueError: it is not JSON, or nested deeper than 100 levels.
    """
    return parse_json(read_bytes(path))


def parse_json(raw: bytes, *, finite: bool = True) -> Any:
    """Return the value of a UTF-8 JSON text.

    Args:
        raw: the text.
        finite: refuse NaN and infinity.

    Raises:
        ValueError: it is not JSON, or nested deeper than 100 levels.
    """
    try:
        value = json.loads(raw.decode(), parse_constant=_refused if finite else None)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    level, inner = 0, [value]
    while inner:
        level += 1
        if level > DEPTH:
            raise ValueError(f"it is nested deeper than {DEPTH} levels")
        inner = [v for c in inner if isinstance(c, dict) for v in c.values()] + [
            v for c in inner if isinstance(c, list) for v in c
        ]
    return value


def _refused(name: str) -> None:
    raise ValueError(f"{name} is not a number")


def sha256(path: str | Path) -> str:
    """Return the hexadecimal SHA-256 of a regular file.

    Args:
        path: path of the file.

    Raises:
        OSError: it is missing, cannot be read, or is not a regular file.
    """
    with open_regular(path) as file:
        digest = hashlib.file_digest(file, "sha256")  # type: ignore[arg-type]  # it has readinto
    return digest.hexdigest()
