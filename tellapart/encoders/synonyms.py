"""Which token may stand for which: WordNet's synonyms where it is installed, else the nearest token embeddings."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import ConfigError
from .text import OWN, TextEncoder

WORDNET = (
    Path("/usr/share/wordnet"),
    Path("/usr/share/wn"),
)  # of the packages wordnet-base and wordnet
KINDS = ("noun", "verb", "adj", "adv")
NEAREST = 5
MARKS = ("\u0120", "\u2581")  # of byte-level and of sentencepiece vocabularies
BLOCK = 1024


def table(encoder: TextEncoder) -> Tensor:
    """(vocabulary, K) tokens that may stand for each, -1 = none; words of one token alone, and of letters.

    Raises:
        ConfigError: an own network without WordNet: the embeddings that it starts from are random.
    """
    words = whole_words(encoder.tokenizer.get_vocab())
    folder = next((p for p in WORDNET if (p / "data.noun").is_file()), None)
    if folder is None:
        if encoder.description["encoder"] in OWN:
            raise ConfigError(
                "--substitution needs WordNet (apt-get install wordnet-base) or a pretrained --encoder, whose nearest "
                "tokens stand in for it"
            )
        return nearest(encoder, sorted(words.values()))
    found = torch.full((encoder.tokenizer.get_vocab_size(), NEAREST), -1)
    for word, others in synonyms(folder).items():
        if word in words:
            rows = sorted(words[o] for o in others if o in words)[:NEAREST]
            found[words[word], : len(rows)] = torch.tensor(rows, dtype=torch.int64)
    return found


def whole_words(vocabulary: dict[str, int]) -> dict[str, int]:
    """Word -> its token, of a vocabulary: where tokens begin words by a mark, those with the mark alone."""
    marked = any(token.startswith(MARKS) for token in vocabulary)
    found = {}
    for token in sorted(vocabulary):
        word = (
            token[1:]
            if token.startswith(MARKS)
            else ""
            if marked or token.startswith("##")
            else token
        )
        if word.isalpha() and len(word) > 1:
            found[word] = vocabulary[token]
    return found


def synonyms(folder: Path) -> dict[str, set[str]]:
    """Word -> the words that share a meaning with it, from WordNet's data files (wndb(5WN))."""
    found: dict[str, set[str]] = {}
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
                found.setdefault(word, set()).update(words - {word})
    return found


@torch.no_grad()
def nearest(encoder: TextEncoder, usable: list[int]) -> Tensor:
    """The same from token embeddings: for each of the `usable` tokens the five of largest cosine."""
    weight = encoder.body.tokens.weight.detach().float().cpu()
    rows = torch.tensor(usable, dtype=torch.int64)
    unit = F.normalize(weight[rows], dim=1)
    found = torch.full((len(weight), NEAREST), -1)
    if len(rows) <= NEAREST:
        return found
    for block in torch.arange(len(rows)).split(BLOCK):
        near = (unit[block] @ unit.T).scatter_(1, block[:, None], -2.0).topk(NEAREST, 1).indices
        found[rows[block]] = rows[near]
    return found
