"""Run a command on hostile input and check what always holds.

Whatever the input: no traceback, no hang, no other program or connection started, no file of the
user changed, exit status 0 or 2, and an error that is readable on a terminal.
"""

from __future__ import annotations

import contextlib
import faulthandler
import hashlib
import io
import json
import os
import signal
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tellapart import cli

SECONDS = 120  # limit for one command; the slowest takes about one, beside busy processes ten
ROUNDS = int(os.environ.get("HOSTILE_ROUNDS", "1"))  # HOSTILE_ROUNDS=20 tries 20 times as many
PROGRAMS = {
    "subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork",
    "os.forkpty", "os.startfile", "socket.connect", "webbrowser.open",
}  # fmt: skip
_started: list[str] = []
_watching = [False]


class Hang(BaseException):
    """A command that runs longer than SECONDS; no `except Exception` stops it."""


@dataclass(frozen=True)
class Ended:
    """How a command ended: exit status, standard output and standard error."""

    status: int
    out: str
    err: str

    @property
    def result(self) -> Any:
        """What --json printed."""
        return json.loads(self.out)


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    harmless = arguments[:1] == ("uname",)  # run.json names the processor
    if _watching[0] and event in PROGRAMS and not harmless:
        _started.append(f"{event}{arguments!r}"[:300])


sys.addaudithook(_audit)


def content(*folders: Path) -> dict[str, str]:
    """The files below the folders and the hashes of their contents; a folder that is none: {}."""
    found = {}
    for folder in folders:
        for path in [folder] if folder.is_file() else sorted(folder.rglob("*")):
            if path.is_file():
                found[os.fsdecode(path)] = hashlib.blake2b(path.read_bytes()).hexdigest()
    return found


@contextlib.contextmanager
def watched() -> Iterator[None]:
    """Bound the time of what runs inside, and notice programs that it starts."""

    def late(*_: Any) -> None:
        raise Hang(f"more than {SECONDS} s")

    _started.clear()
    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    faulthandler.dump_traceback_later(2 * SECONDS, exit=True)  # a loop in C sees no signal
    _watching[0] = True
    try:
        yield
    finally:
        _watching[0] = False
        faulthandler.cancel_dump_traceback_later()
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def shown(words: Any) -> str:
    """The words of a command in an assertion."""
    return " ".join(f"{str(word)[:200]!r}" for word in words)


def call(*words: Any, keep: tuple[Path, ...] = ()) -> Ended:
    """Run a command in this process and check what always holds.

    Args:
        words: of the command line.
        keep: files and folders of the user, which must not change.

    Returns:
        How it ended; an AssertionError says which of the rules it broke.
    """
    before = content(*keep)
    out, err = io.StringIO(), io.StringIO()
    status: Any = 0
    with (
        watched(), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err),
        warnings.catch_warnings(),
    ):  # fmt: skip
        warnings.simplefilter("default", UserWarning)  # those are for the user
        try:
            cli.main([str(word) for word in words])
        except SystemExit as stop:
            status = stop.code
    ended = Ended(status, out.getvalue(), err.getvalue())
    said = ended.out + ended.err
    assert status in (0, 2), f"exit status {status}: {ended.err[-2000:]}\n{shown(words)}"
    assert "Traceback" not in said, said[-2000:]
    assert "error: unexpected" not in ended.err, ended.err[-2000:]
    assert not [c for c in ended.err if c < " " and c not in "\n\t"], f"raw codes: {ended.err!r}"
    assert not _started, f"programs were started: {_started}"
    assert content(*keep) == before, "a file of the user was changed"
    if status == 2:
        last = ended.err.rstrip().rsplit("error: ", 1)
        assert len(last) == 2, f"no error in words: {said!r}"
        assert 10 < len(last[1]) < 4000, f"no sentence: {last[1][:300]!r}"
    return ended


def accounted(result: Any, files: set[str]) -> set[str]:
    """The files of a folder that an inspection neither uses nor names.

    Args:
        result: of `inspect --json`.
        files: names of all files of the folder.
    """
    left = {entry["path"].partition("#")[0] for entry in result["skipped"]["first"]}
    named = {name for note in result["notes"] for name in note["names"]}
    assert result["counts"]["items"] + len(left) > 0
    return files - left - named
