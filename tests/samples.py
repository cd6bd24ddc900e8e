"""Shared test inputs: seeded generators, sentences, small sequence and sentence encoders."""

from __future__ import annotations

import numpy as np
import torch

from tellapart.encoders import sequence, text

WORDS = [
    "the",
    "a",
    "red",
    "green",
    "blue",
    "cat",
    "dog",
    "bird",
    "sees",
    "likes",
    "near",
    "big",
    "small",
    "house",
]
WORDS += ["tree", "and", "runs", "sleeps"]


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def some_sentences(n=80, seed=0):
    random = np.random.default_rng(seed)
    return [" ".join(random.choice(WORDS, random.integers(4, 9))) + f" {i}" for i in range(n)]


def small_sequence_encoder(**given):
    shared = {"channels": 1, "width": 12, "context_width": 10, "kernels": (8, 4), "strides": (4, 2)}
    return sequence.build(seed=0, **(shared | given))


def small_text_encoder(name="small-transformer", **given):
    shared = {"texts": some_sentences(), "width": 32, "layers": 2, "vocabulary": 400, "dim": 16}
    return text.build(name, seed=0, **(shared | given))


def open_like(texts):
    from tellapart.data import TextSource

    return TextSource(
        name="t", all_ids=[str(i) for i in range(len(texts))], all_labels=None, classes=(),
        parts={}, fingerprint="",
        texts=[(t,) for t in texts],
    )  # fmt: skip
