"""Shared by all tests: a private cache, one thread, and small real data."""

from __future__ import annotations

import os
from pathlib import Path

# Set before torch is loaded, and inherited by every program that a test starts.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest
import torch
from PIL import Image
from samples import some_sentences

from tellapart.data import open_source
from tellapart.data.builtin import DEBIAN_FASHION

# the files with the longest tests, which two workers start with: no worker waits for one at the end
LONGEST = (
    "test_kills.py", "test_distributed.py", "test_docs.py", "test_evaluate.py", "test_shards.py",
    "test_run.py", "test_demo.py",
)  # fmt: skip


def pytest_collection_modifyitems(items):
    """Put the longest files first; the order inside a file stays."""
    place = {name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path.name, len(place)))


@pytest.fixture(scope="session", autouse=True)
def _private_cache(tmp_path_factory):
    os.environ["TELLAPART_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def digits():
    return open_source("digits")


@pytest.fixture(scope="session")
def fashion():
    if not any(DEBIAN_FASHION.glob("train-images*")):
        pytest.skip(
            "Debian's dataset-fashion-mnist is not installed: apt-get install dataset-fashion-mnist"
        )
    return open_source("fashion-mnist")


@pytest.fixture
def photos(tmp_path) -> Path:
    """24 colour pictures of three kinds in sub-folders, of unequal sizes."""
    random = np.random.default_rng(0)
    for kind, hue in (("red", 0), ("green", 1), ("blue", 2)):
        folder = tmp_path / "photos" / kind
        folder.mkdir(parents=True)
        for i in range(8):
            h, w = random.integers(40, 90, 2)
            pixels = random.integers(0, 120, (h, w, 3), dtype=np.uint8)
            pixels[..., hue] += 130
            Image.fromarray(pixels).save(folder / f"{i}.png")
    return tmp_path / "photos"


@pytest.fixture
def lines(tmp_path):
    path = tmp_path / "sentences.txt"
    path.write_text("\n".join(some_sentences()) + "\n", encoding="utf-8")
    return path
