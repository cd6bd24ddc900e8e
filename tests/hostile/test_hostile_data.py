"""Damaged images, sounds, tables and texts: each is used or named, and nothing else happens.

Files of a folder stand beside good ones, so that one bad file can never end the others.
"""

from __future__ import annotations

import hostile_corpus as corpus
import pytest
from hostile_corpus import damaged, random_of, save
from hostile_harness import ROUNDS, accounted, call

FOLDERS = 20  # files of one folder that are damaged
GOOD = 4


def _folder(root, names, make, seed):
    """A folder of good files and damaged ones of all formats in turn."""
    for i in range(GOOD):
        name = names[(seed + i) % len(names)]
        save(root / f"good{i}.{name.rpartition('-')[2]}", make(name, random_of(seed, i)))
    for i in range(FOLDERS):
        name = names[(seed * FOLDERS + i) % len(names)]
        random = random_of(seed, "damage", i)
        ending = name.rpartition("-")[2]
        save(root / f"bad{i}.{ending}", damaged(make(name, random), seed + i, random))
    return root


def _use_folder(root, kind):
    """Inspect a folder: all of its files are used, or named with a reason."""
    ended = call("inspect", f"{kind}:{root}", "--json", keep=(root,))
    assert ended.status == 0, ended.err
    used = ended.result["counts"]["items"]
    assert used >= GOOD
    left = accounted(ended.result, {p.name for p in root.iterdir()})
    assert len(left) <= used, f"neither used nor named: {sorted(left)}"
    assert all(entry["reason"] for entry in ended.result["skipped"]["first"])


@pytest.mark.parametrize("seed", range(8 * ROUNDS))
def test_damaged_pictures_are_used_or_named(tmp_path, seed):
    _use_folder(_folder(tmp_path / "pictures", corpus.PICTURES, corpus.picture, seed), "images")


@pytest.mark.parametrize("seed", range(4 * ROUNDS))
def test_damaged_sounds_are_used_or_named(tmp_path, seed):
    _use_folder(_folder(tmp_path / "sounds", corpus.SOUNDS, corpus.sound, seed), "audio")


@pytest.mark.parametrize("seed", range(3 * ROUNDS))
def test_damaged_series_are_used_or_named(tmp_path, seed):
    names = ("x-npy", "x-csv")

    def make(name, random):
        return corpus.table(name.rpartition("-")[2], random)

    _use_folder(_folder(tmp_path / "series", names, make, seed), "series")


@pytest.mark.parametrize("seed", range(6 * ROUNDS))
@pytest.mark.parametrize("ending", ["csv", "tsv", "txt", "npy"])
def test_a_damaged_table_ends_in_words(tmp_path, ending, seed):
    random = random_of(ending, seed)
    path = save(tmp_path / f"t.{ending}", damaged(corpus.table(ending, random), seed, random))
    call("inspect", path, "--json", keep=(path,))


@pytest.mark.parametrize("seed", range(8 * ROUNDS))
@pytest.mark.parametrize("ending", ["txt", "tsv", "csv", "jsonl"])
def test_damaged_sentences_end_in_words(tmp_path, ending, seed):
    random = random_of(ending, "text", seed)
    path = save(tmp_path / f"t.{ending}", damaged(corpus.text(ending, random), seed, random))
    call("inspect", f"text:{path}" if seed % 2 else path, "--json", keep=(path,))
