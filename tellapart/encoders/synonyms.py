"""Substitutes of tokens: WordNet synonyms if installed, else the nearest token embeddings."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from ..errors import ConfigError
from ..functional.geometry import unit_rows
from ..functional.top_k import top_k_of_others
from .text import OWN, TextEncoder

WORDNET = (
    Path("/usr/share/wordnet"),
    Path("/usr/share/wn"),
)  # paths of the packages wordnet-base and wordnet
KINDS = ("noun", "verb", "adj", "adv")
NEAREST = 5
MARKS = ("\u0120", "\u2581")  # beginning of a word in byte-level and in sentencepiece vocabularies


def table(encoder: TextEncoder) -> Tensor:
    """Return the substitutes of each token: (vocabulary, K) token ids, -1 = none.

    Only words that consist of letters and are a single token have substitutes.

    Args:
        encoder: its tokenizer, and its token embeddings if WordNet is not installed.

    Raises:
        ConfigError: WordNet is not installed and the token embeddings are random (no pretrained
            network).
    """
    words = whole_words(encoder.tokenizer.get_vocab())
    folder = next((p for p in WORDNET if (p / "data.noun").is_file()), None)
    if folder is None:
        if encoder.description["encoder"] in OWN:
            raise ConfigError(
                "--substitution needs WordNet (apt-get install wordnet-base) or a pretrained "
                "--encoder, whose nearest tokens stand in for it"
            )
        return nearest(encoder, sorted(words.values()))
    neighbours = torch.full((encoder.tokenizer.get_vocab_size(), NEAREST), -1)
    for word, others in synonyms(folder).items():
        if word in words:
            rows = sorted(words[o] for o in others if o in words)[:NEAREST]
            neighbours[words[word], : len(rows)] = torch.tensor(rows, dtype=torch.int64)
    return neighbours


def whole_words(vocabulary: dict[str, int]) -> dict[str, int]:
    """Return the token id of each word that is a single token.

    If the vocabulary marks the beginning of words, only tokens with the mark are words.
    """
    marked = any(token.startswith(MARKS) for token in vocabulary)
    words = {}
    for token in sorted(vocabulary):
        word = (
            token[1:]
            if token.startswith(MARKS)
            else ""
            if marked or token.startswith("##")
            else token
        )
        if word.isalpha() and len(word) > 1:
            words[word] = vocabulary[token]
    return words


def synonyms(folder: Path) -> dict[str, set[str]]:
    """Read the synonyms of each word from the data files of WordNet (format: wndb(5WN))."""
    by_word: dict[str, set[str]] = {}
    for kind in KINDS:
        for line in (
            (folder / f"data.{kind}").read_text(encoding="utf-8", errors="replace").splitlines()
        ):
            if line.startswith("  "):  # the licence
                continue
            cells = line.split(" ")
            count = int(cells[3], 16)
            words = {cells[4 + 2 * i].lower().partition("(")[0] for i in range(count)}
            for word in words:
                by_word.setdefault(word, set()).update(words - {word})
    return by_word


@torch.no_grad()
def nearest(encoder: TextEncoder, usable: list[int]) -> Tensor:
    """Return the substitutes of `usable` tokens: the five of highest cosine similarity."""
    weight = encoder.body.tokens.weight.detach().float().cpu()
    rows = torch.tensor(usable, dtype=torch.int64)
    neighbours = torch.full((len(weight), NEAREST), -1)
    if len(rows) > NEAREST:
        neighbours[rows] = rows[top_k_of_others(unit_rows(weight[rows]), NEAREST)[1]]
    return neighbours
