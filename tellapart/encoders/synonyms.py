"""Which token may stand for which: WordNet's synonyms where it is installed, else the nearest token embeddings."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from .text import TextEncoder

WORDNET = (Path("/usr/share/wordnet"), Path("/usr/share/wn"))  # of the packages wordnet-base and wordnet
KINDS = ("noun", "verb", "adj", "adv")
NEAREST = 5
BLOCK = 1024


def table(encoder: TextEncoder) -> Tensor:
    """(vocabulary, K) tokens that may stand for each, -1 = none; single-token words of letters alone."""
    words = {i: w for w, i in encoder.tokenizer.get_vocab().items() if _word(w)}
    folder = next((p for p in WORDNET if (p / "data.noun").is_file()), None)
    if folder is None:
        return _nearest(encoder, sorted(words))
    places = {_word(w): i for i, w in words.items()}
    found = torch.full((encoder.tokenizer.get_vocab_size(), NEAREST), -1)
    for word, others in synonyms(folder).items():
        if word in places:
            rows = sorted(places[o] for o in others if o in places)[:NEAREST]
            found[places[word], : len(rows)] = torch.tensor(rows, dtype=torch.int64)
    return found


def synonyms(folder: Path) -> dict[str, set[str]]:
    """Word -> the words that share a meaning with it, from WordNet's data files (wndb(5WN))."""
    found: dict[str, set[str]] = {}
    for kind in KINDS:
        for line in (folder / f"data.{kind}").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("  "):  # the licence
                continue
            cells = line.split(" ")
            count = int(cells[3], 16)
            words = {cells[4 + 2 * i].lower().partition("(")[0] for i in range(count)}
            for word in words:
                found.setdefault(word, set()).update(words - {word})
    return found


@torch.no_grad()
def _nearest(encoder: TextEncoder, usable: list[int]) -> Tensor:
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


def _word(token: str) -> str:
    """The word that a token is, "" where it is a piece of one: byte-level tokens begin words by a space."""
    if token.startswith(("\u0120", "\u2581")):
        token = token[1:]
    elif token.startswith("##"):
        return ""
    return token if token.isalpha() and len(token) > 1 else ""
