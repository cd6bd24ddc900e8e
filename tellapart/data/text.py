"""Sentences as a source: a line each, or two or three in columns (a pair, and a sentence that is none), or documents.

Shapes: S instances, N batch, V columns, L tokens.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import DataError
from . import files as listings
from .files import Listing
from .source import Array, Source, hash_split

LONGEST = 50_000  # characters of a sentence or document; a longer line is rarely one
HEADINGS = {
    "sent0",
    "sent1",
    "hard_neg",
    "sentence1",
    "sentence2",
    "anchor",
    "positive",
    "negative",
    "premise",
    "text",
}

Encode = Callable[
    [list[str]], list[tuple[list[int], list[int]]]
]  # texts -> of each, token ids and their words


@dataclass(frozen=True)
class Tokens:
    """Sentences as token ids one after another, S x V of them; `word` is the place of each token's word, -1 = none."""

    ids: Array  # (tokens,) int32
    word: Array  # (tokens,) int32
    offset: Array  # (S V + 1,) int64

    def batch(self, rows: Array) -> dict[str, Tensor]:
        """{"ids", "mask", "word"}, each (N, L): the sentences at `rows` (N,), padded to the longest of them."""
        starts, stops = self.offset[rows], self.offset[rows + 1]
        longest = int((stops - starts).max())
        place = starts[:, None] + np.arange(longest)
        inside = place < stops[:, None]
        place = np.minimum(place, len(self.ids) - 1)
        return {
            "ids": torch.from_numpy(np.where(inside, self.ids[place], 0).astype(np.int64)),
            "mask": torch.from_numpy(inside),
            "word": torch.from_numpy(np.where(inside, self.word[place], -1).astype(np.int64)),
        }


@dataclass(frozen=True, kw_only=True)
class TextSource(Source):
    """Sentences.

    Attributes:
        texts: of the whole set; V strings each, of which V is 1, 2 (a pair) or 3 (and a sentence that is no match).
        tokens: what an encoder reads of them, once `tokenised`.
    """

    texts: Sequence[tuple[str, ...]]
    tokens: Tokens | None = None

    kind = "text"
    one, many = "a sentence", "sentences"

    @property
    def columns(self) -> int:
        return len(self.texts[0])

    @property
    def about(self) -> dict[str, Any]:
        return {"columns": self.columns}

    @property
    def described(self) -> str:
        what = {
            1: "sentences",
            2: "pairs of sentences",
            3: "pairs of sentences, each with one that is no match",
        }
        return f"{len(self):,} {what[self.columns]}"

    def text(self, position: int, column: int = 0) -> str:
        """One sentence."""
        return str(self.texts[self.rows[position]][column])

    def column(self, number: int) -> list[str]:
        """All sentences of a column, in the order of the items."""
        return [self.texts[row][number] for row in self.rows]

    def tokenised(self, encode: Encode) -> TextSource:
        """The same source, to be read as tokens."""
        encoded = encode([text for texts in self.texts for text in texts])
        lengths = np.array([len(ids) for ids, _ in encoded], np.int64)
        tokens = Tokens(
            np.fromiter((i for ids, _ in encoded for i in ids), np.int32),
            np.fromiter((w for _, words in encoded for w in words), np.int32),
            np.concatenate([[0], np.cumsum(lengths)]),
        )
        return replace(self, tokens=tokens)

    def read(self, index: Tensor) -> dict[str, Tensor]:
        """Tokens at the positions `index` (N,): {"ids", "mask", "word"}, each (N, L); of several columns (N, V, L)."""
        if self.tokens is None:
            raise DataError(f"{self.name} is not tokenised; an encoder of sentences does that")
        rows = self.rows[index.cpu().numpy()]
        several = (rows[:, None] * self.columns + np.arange(self.columns)).reshape(-1)
        batch = self.tokens.batch(several)
        if self.columns == 1:
            return batch
        return {name: value.view(len(rows), self.columns, -1) for name, value in batch.items()}


def text_source(name: str, listing: Listing) -> TextSource:
    """The sentences of one file, or the documents of a folder of .txt files (one each; folders are labels).

    Left out and listed: empty lines, lines above 50,000 characters, rows with other than the usual number of columns.

    Raises:
        DataError: not UTF-8, or fewer than two sentences.
    """
    if len(listing.files) == 1:
        texts, ids, skipped = _lines(listing.files[0])
        hashes = [hashlib.blake2b("\t".join(t).encode(), digest_size=16).hexdigest() for t in texts]
        identity = listings.identity(
            name,
            Listing(listing.root, ids, [None] * len(ids), [None] * len(ids), []),
            range(len(ids)),
            hashes,
            skipped,
        ) | {"all_files": ()}
    else:
        texts, kept, skipped = _documents(listing)
        hashes = [hashlib.blake2b(t[0].encode(), digest_size=16).hexdigest() for t in texts]
        identity = listings.identity(name, listing, kept, hashes, skipped)
    if len(texts) < 2:
        raise listings.too_few(name, "sentence", "sentences", len(texts), skipped)
    if (
        len(texts[0]) > 1
    ):  # a fifth of the pairs is kept for judging, by the hash of their first sentence
        identity["parts"] = hash_split([t[0] for t in texts], listings.TEST_SHARE)
    return TextSource(**identity, texts=texts, duplicates=len(hashes) - len(set(hashes)))


def read_utf8(path: Path) -> str:
    """The text of a file.

    Raises:
        DataError: it is not there, or not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} is not UTF-8 (byte {error.start:,}); convert it: iconv -f ISO-8859-1 -t UTF-8 {path.name}"
        ) from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error


Skipped = list[dict[str, str]]


def _lines(path: Path) -> tuple[list[tuple[str, ...]], list[str], Skipped]:
    """Texts, ids (line numbers) and what was left out."""
    rows = _rows(path)
    if rows and len(rows[0][1]) > 1 and {c.strip().lower() for c in rows[0][1]} & HEADINGS:
        rows = rows[1:]
    columns = max(
        1, min(3, round(float(np.median([len(cells) for _, cells in rows if any(cells)] or [1]))))
    )
    texts, ids, skipped = [], [], []
    for number, cells in rows:
        given = [cell.strip() for cell in cells]
        if not any(given):
            reason = "empty"
        elif len(given) != columns or not all(given):
            reason = f"{len([c for c in given if c])} sentence(s) in it, {columns} are needed"
        elif max(map(len, given)) > LONGEST:
            reason = f"{max(map(len, given)):,} characters, {LONGEST:,} at most"
        else:
            texts.append(tuple(given))
            ids.append(str(number))
            continue
        skipped.append({"path": f"{path.name}:{number}", "reason": reason})
    return texts, ids, skipped


def _rows(path: Path) -> list[tuple[int, list[str]]]:
    """Line numbers and cells: tabs in .tsv, commas and quotes in .csv, whole lines otherwise."""
    whole = read_utf8(path)
    if path.suffix.lower() == ".csv":
        reader = csv.reader(whole.splitlines(keepends=True))
        try:
            return [(reader.line_num, cells) for cells in reader]
        except csv.Error as error:
            raise DataError(f"{path}, line {reader.line_num}: {error}") from error
    lines = whole.split("\n")
    if lines and not lines[-1]:
        lines.pop()
    tabs = path.suffix.lower() == ".tsv"
    return [(number, line.split("\t") if tabs else [line]) for number, line in enumerate(lines, 1)]


def _documents(listing: Listing) -> tuple[list[tuple[str, ...]], list[int], Skipped]:
    texts: list[tuple[str, ...]] = []
    kept: list[int] = []
    skipped: Skipped = []
    for number, path in enumerate(listing.files):
        try:
            text = " ".join(read_utf8(path).split())
            if not text:
                raise DataError("empty")
            texts.append((text[:LONGEST],))
            kept.append(number)
        except DataError as error:
            skipped.append({"path": listing.names[number], "reason": str(error)})
    return texts, kept, skipped
