"""The data cache: a damaged entry is removed and made again; nothing of dead processes stays."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from tellapart import api
from tellapart.data import cache as caches
from tellapart.data import image_packing
from tellapart.data.cache import SEAL, Cache, content_digest
from tellapart.errors import DataError
from tellapart.runtime.console import Console


def _make(calls):
    def make(path, limit):
        calls.append(1)
        with image_packing.appearing(path) as work:
            (work / "small.json").write_text('{"a": 1}')
            (work / "large.bin").write_bytes(np.arange(1 << 20, dtype=np.int32).tobytes())

    return make


def _cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _flip(path, place=7):
    raw = bytearray(path.read_bytes())
    raw[place] ^= 1
    path.write_bytes(raw)


DAMAGE = {
    "cut": lambda e: _cut(e / "small.json"),
    "cut large": lambda e: _cut(e / "large.bin"),
    "longer": lambda e: (e / "large.bin").write_bytes((e / "large.bin").read_bytes() + b"x"),
    "removed": lambda e: (e / "large.bin").unlink(),
    "flipped": lambda e: _flip(e / "small.json"),
    "flipped large": lambda e: _flip(e / "large.bin"),
    "seal removed": lambda e: (e / SEAL).unlink(),
    "seal cut": lambda e: _cut(e / SEAL),
    "seal of wrong types": lambda e: (e / SEAL).write_text('{"block": "x", "files": []}'),
    "empty": lambda e: [shutil.rmtree(e), e.mkdir()],
}


@pytest.mark.parametrize("how", DAMAGE)
def test_a_damaged_entry_is_made_again(tmp_path, how):
    calls, said = [], []
    cache = Cache(tmp_path, say=said.append)
    entry = cache.entry("key", _make(calls))
    assert cache.entry("key", _make(calls)) == entry
    assert (len(calls), said) == (1, [])
    DAMAGE[how](entry)
    cache.entry("key", _make(calls))
    assert (entry / "small.json").read_text() == '{"a": 1}'
    assert len(calls) == 2
    cache.entry("key", _make(calls))
    assert len(calls) == 2
    if "seal removed" not in how and how != "empty":
        assert "is made again" in said[0]


def test_large_entries_are_checked_at_random_and_whole_on_verify(tmp_path, monkeypatch):
    monkeypatch.setattr(caches, "BLOCK", 1 << 10)  # 4,096 blocks
    calls = []
    entry = Cache(tmp_path).entry("key", _make(calls))
    _flip(entry / "large.bin", 2_000_000)
    found = [caches.damage(entry, whole=False) for _ in range(20)]
    assert found.count(None) >= 15  # 16 of 4,096 blocks each time
    assert caches.damage(entry, whole=True) == "block 1953 of large.bin has changed"
    Cache(tmp_path, verify=True).entry("key", _make(calls))
    assert len(calls) == 2


def test_changed_sources_of_equal_size_and_time_are_noticed_on_verify(tmp_path):
    source = tmp_path / "a.png"
    source.write_bytes(b"old")
    digests = [(source, content_digest(source))]
    calls, said = [], []
    Cache(tmp_path / "cache").entry("key", _make(calls), lambda _: digests)
    before = source.stat()
    source.write_bytes(b"new")
    os.utime(source, ns=(before.st_atime_ns, before.st_mtime_ns))
    Cache(tmp_path / "cache").entry("key", _make(calls), lambda _: digests)
    assert len(calls) == 1
    verified = Cache(tmp_path / "cache", verify=True, say=said.append)
    verified.entry("key", _make(calls), lambda _: digests)
    assert len(calls) == 2
    assert "1 source files have changed, the first" in said[0]


def test_inspect_verifies_the_cached_copy(photos, monkeypatch, tmp_path, capsys):
    """A picture overwritten by one of equal size and time."""
    monkeypatch.setenv("TELLAPART_CACHE", str(tmp_path / "cache"))
    for i in range(3):
        pixels = np.random.default_rng(i).integers(0, 255, (20, 20, 3), np.uint8)
        Image.fromarray(pixels).save(photos / f"{i}.bmp")
    quiet = Console(quiet=True)
    before = api.inspect(str(photos), console=quiet)
    assert before["duplicates"]["exact"]["groups"] == 0
    stat = (photos / "1.bmp").stat()
    (photos / "1.bmp").write_bytes((photos / "0.bmp").read_bytes())
    os.utime(photos / "1.bmp", ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert api.inspect(str(photos), console=quiet)["duplicates"]["exact"]["groups"] == 0
    after = api.inspect(str(photos), verify=True, console=quiet)
    assert after["duplicates"]["exact"]["first"] == [["0.bmp", "1.bmp"]]
    assert "1 source files have changed, the first" in capsys.readouterr().err


def test_the_cache_is_marked_for_backups(tmp_path):
    Cache(tmp_path / "cache").entry("key", _make([]))
    tag = (tmp_path / "cache" / "CACHEDIR.TAG").read_text()
    assert tag.startswith("Signature: 8a477f597d28d172789f06886806bc55")


KILLED = """
import os, signal, sys
from pathlib import Path
from tellapart.data import image_packing
from tellapart.data.cache import Cache
def make(path, limit):
    with image_packing.appearing(path) as work:
        (work / "a").write_text("x")
        os.kill(os.getpid(), signal.SIGKILL)
Cache(Path(sys.argv[1])).entry("key", make)
"""


def test_scratch_folders_of_killed_packings_are_cleared(tmp_path):
    for _ in range(2):
        done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False)
        assert done.returncode == -signal.SIGKILL
    Cache(tmp_path).entry("key", _make([]))
    assert sorted(p.name for p in (tmp_path / "packed").iterdir()) == ["key"]


def test_a_cache_that_cannot_be_written_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot write"):
        Cache(tmp_path / "file").entry("key", _make([]))


def test_a_failed_packing_leaves_nothing(tmp_path):
    def make(path, limit):
        raise DataError("no room")

    with pytest.raises(DataError, match="no room"):
        Cache(tmp_path).entry("key", make)
    assert not list((tmp_path / "packed").iterdir())


def test_the_oldest_entries_give_way(tmp_path):
    for number in range(3):
        entry = Cache(tmp_path, limit=9e6).entry(str(number), _make([]))
        os.utime(entry, (number, number))
    assert sorted(p.name for p in (tmp_path / "packed").iterdir()) == ["1", "2"]
