"""The atomic writer: a failure at any of its steps leaves the former file and nothing else."""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from tellapart.errors import DataError, RunError
from tellapart.runtime import files
from tellapart.runtime.locks import Lock

STEPS = ("create", "write", "sync file", "rename", "sync folder")


def _fail(monkeypatch, step, number=errno.ENOSPC):
    """Let one step of the next write fail."""

    def failing(*_args, **_options):
        raise OSError(number, os.strerror(number))

    real_sync, synced = os.fsync, []

    def sync(descriptor):
        synced.append(1)
        if len(synced) == {"sync file": 1, "sync folder": 2}[step]:
            failing()
        real_sync(descriptor)

    if step == "create":
        real_open = os.open
        monkeypatch.setattr(
            files.os, "open", lambda p, f, *m: failing() if f & os.O_CREAT else real_open(p, f, *m)
        )
    elif step == "write":
        monkeypatch.setattr(files._Hashed, "write", failing)
    elif step == "rename":
        monkeypatch.setattr(files.os, "replace", failing)
    else:
        monkeypatch.setattr(files.os, "fsync", sync)


WRITERS = {
    "write": lambda path: files.write(path, lambda out: out.write(b"new")),
    "write_json": lambda path: files.write_json(path, {"new": 1}),
    "torch.save": lambda path: files.write(path, lambda out: torch.save({"a": torch.ones(9)}, out)),
    "numpy.savez": lambda path: files.write(path, lambda out: np.savez(out, a=np.ones(9))),
}


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("writer", WRITERS)
def test_a_failure_at_any_step_leaves_the_former_file(tmp_path, monkeypatch, step, writer):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with monkeypatch.context() as patched:
        _fail(patched, step)
        with pytest.raises(RunError, match=r"cannot write .*file: the disk is full .* free some"):
            WRITERS[writer](path)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
    if step != "sync folder":  # the rename has happened by then
        assert path.read_bytes() == b"old"
    WRITERS[writer](path)
    assert path.read_bytes() != b"old"


@pytest.mark.parametrize("step", ["create", "sync file", "rename", "sync folder"])
def test_a_library_that_writes_by_name_leaves_the_former_file(tmp_path, monkeypatch, step):
    path = tmp_path / "file.txt"
    path.write_text("old")
    with monkeypatch.context() as patched:
        _fail(patched, step)
        with (
            pytest.raises(DataError, match="cannot write"),
            files.replacing(path, error=DataError) as work,
        ):
            work.write_text("new")
    assert [p.name for p in tmp_path.iterdir()] == ["file.txt"]
    with files.replacing(path) as work:
        assert work.suffix == ".txt"
        work.write_text("new")
    assert path.read_text() == "new"


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "the disk is full"),
        (errno.EDQUOT, "the disk is full"),
        (errno.EFBIG, "the disk is full"),
        (errno.EACCES, "Permission denied; name another place"),
        (errno.EROFS, "Read-only file system; name another place"),
        (errno.EIO, "Input/output error"),
    ],
)
def test_reasons_are_in_words(tmp_path, monkeypatch, number, words):
    _fail(monkeypatch, "write", number)
    with pytest.raises(RunError, match=words):
        files.write_text(tmp_path / "file", "x")


def test_an_interruption_leaves_nothing(tmp_path):
    def stop(_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        files.write(tmp_path / "file", stop)
    assert not list(tmp_path.iterdir())


def test_the_digest_is_that_of_the_file(tmp_path):
    digest = files.write(tmp_path / "a", lambda out: torch.save({"x": torch.arange(99)}, out))
    assert digest == files.sha256(tmp_path / "a")
    assert torch.equal(torch.load(tmp_path / "a")["x"], torch.arange(99))


def test_folders_devices_and_empty_names_are_no_files(tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(RunError, match="it is a folder; name a file"):
        files.write_text(tmp_path / "folder", "x")
    with pytest.raises(RunError, match="a file name is needed"):
        files.write_text(Path(""), "x")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(RunError, match="not a regular file"):
        files.write_text(tmp_path / "pipe", "x")
    assert not (tmp_path / "pipe").is_file()
    if Path("/dev/null").exists():
        with pytest.raises(RunError, match="not a regular file"):
            files.write_text("/dev/null", "x")
        assert Path("/dev/null").is_char_device()


def test_a_symbolic_link_is_followed(tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "there" / "file")
    files.write_text(tmp_path / "link", "x")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "there" / "file").read_text() == "x"


def test_only_regular_files_are_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(tmp_path / "socket"))
        for name in ("pipe", "folder", "socket"):
            with pytest.raises(OSError, match="not a regular file"):
                files.open_regular(tmp_path / name)
    with pytest.raises(OSError, match="not a regular file"):
        files.read_bytes("/dev/zero")
    (tmp_path / "file").write_bytes(b"x")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    assert files.read_bytes(tmp_path / "link") == b"x"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[" * 5000,
        "[" * 200 + "]" * 200,
        '{"a": NaN}',
        "1" * 5000,
        "\udcff",
        '{"a": Infinity}',
    ],
)
def test_bad_json_is_a_value_error(text):
    with pytest.raises(ValueError):  # noqa: PT011 - json's own messages differ
        files.parse_json(text.encode(errors="surrogatepass"))


def test_json_round_trip(tmp_path):
    value = {"a": [1, 2.5, None, "é"], "b": {"c": True}}
    files.write_json(tmp_path / "x.json", value)
    assert (
        files.read_json(tmp_path / "x.json")
        == value
        == json.loads((tmp_path / "x.json").read_text())
    )


HOLD = """
import sys, time
from pathlib import Path
from tellapart.runtime import files
from tellapart.runtime.locks import Lock
lock = Lock(Path(sys.argv[1]) / "lock")
assert lock.acquire()
with files.appearing_folder(Path(sys.argv[1]) / "entry", prefix=".packing-") as work:
    (work / "part").write_text("x")
    print("ready", flush=True)
    time.sleep(600)
"""


def test_locks_and_scratch_folders_end_with_their_process(tmp_path):
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout.readline() == "ready\n"
    lock = Lock(tmp_path / "lock")
    assert not lock.acquire()
    assert lock.holder() == f"process {holder.pid}"
    files.remove_scratch_folders(tmp_path, ".packing-")
    assert len(list(tmp_path.glob(".packing-*"))) == 1  # its process lives
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert lock.acquire()
    lock.release()
    assert not (tmp_path / "lock").exists()
    files.remove_scratch_folders(tmp_path, ".packing-")
    assert not list(tmp_path.glob(".packing-*"))


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    def interrupted():
        with files.appearing_folder(tmp_path / "out", prefix=".x-") as work:
            (work / "a").write_text("x")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        interrupted()
    assert not list(tmp_path.iterdir())
    (tmp_path / "out").mkdir()
    with files.appearing_folder(tmp_path / "out", prefix=".x-") as work:
        (work / "a").write_text("x")
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
    with (
        pytest.raises(RunError, match="cannot write"),
        files.appearing_folder(tmp_path / "out", prefix=".x-"),
    ):
        pass
    with files.appearing_folder(tmp_path / "out", prefix=".x-", replace=True) as work:
        (work / "b").write_text("x")
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["a"]


def test_scratch_files_of_dead_processes_are_removed(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    (tmp_path / f".last.pt.{process.pid}-0123abcd.part").write_text("dead")
    (tmp_path / ".run.json.part").write_text("of an older version")
    (tmp_path / f".last.pt.{os.getpid()}-0123abcd.part").write_text("alive")
    (tmp_path / ".hidden").write_text("not ours")
    files.remove_scratch(tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == {
        f".last.pt.{os.getpid()}-0123abcd.part", ".hidden"
    }  # fmt: skip
