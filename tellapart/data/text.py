"""Sentences as a source: a line each, pairs or triples in columns, or documents.

A triple is a pair and a sentence that does not match it.

Shapes: S instances, N batch, V columns, L tokens.
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import DataError
from . import files as listings
from .columns import SENTENCES as HEADINGS
from .files import Listing
from .folders import split_of
from .lists import SPLIT
from .notes import Note, counted, note, shown
from .source import Array, Source, hash_split

LONGEST = 50_000  # characters of a sentence or document; a longer line is rarely one
LABELS = {"label", "labels", "class", "category", "target", "topic"}

Encode = Callable[
    [list[str]], list[tuple[list[int], list[int]]]
]  # texts -> of each, token ids and their words


@dataclass(frozen=True)
class Tokens:
    """Sentences as token ids one after another, S x V of them.

    Attributes:
        ids: of the tokens. word: place of each token's word, -1 = none.
        offset: where each sentence begins.
    """

    ids: Array  # (tokens,) int32
    word: Array  # (tokens,) int32
    offset: Array  # (S V + 1,) int64

    def batch(self, rows: Array) -> dict[str, Tensor]:
        """{"ids", "mask", "word"}, each (N, L): the sentences at `rows` (N,), padded."""
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
        texts: of the whole set; V strings each, of which V is 1, 2 (a pair) or 3 (and a sentence
            that does not match).
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

    def text(self, row: int, column: int = 0) -> str:
        """One sentence.

        Args:
            row: source row.
            column: of a pair.
        """
        return str(self.texts[self.rows[row]][column])

    def column(self, number: int) -> list[str]:
        """All sentences of a column, in the order of the items."""
        return [self.texts[set_row][number] for set_row in self.rows]

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
        """Tokens at source rows `index` (N,): {"ids", "mask", "word"}, (N, L), or (N, V, L)."""
        if self.tokens is None:
            raise DataError(f"{self.name} is not tokenised; an encoder of sentences does that")
        set_rows = self.rows[index.cpu().numpy()]
        several = (set_rows[:, None] * self.columns + np.arange(self.columns)).reshape(-1)
        batch = self.tokens.batch(several)
        if self.columns == 1:
            return batch
        return {name: value.view(len(set_rows), self.columns, -1) for name, value in batch.items()}


def text_source(name: str, listing: Listing) -> TextSource:
    """The sentences of one file, or the documents of a folder of .txt files (folders are labels).

    Left out and listed: empty lines, lines above 50,000 characters, rows with other than the usual
    number of columns. With a heading, the columns that are named as text are read, and one that is
    named as label gives classes.

    Raises:
        DataError: not UTF-8, or fewer than two sentences.
    """
    if len(listing.files) == 1:
        lines = _lines(listing.files[0])
        texts, skipped = lines.texts, lines.skipped
        rows = Listing(
            listing.root, lines.ids, lines.labels, lines.splits, [], [*listing.notes, *lines.notes]
        )
        return sentences_source(name, rows, texts, skipped)
    texts, kept, skipped = _documents(listing)
    if len(texts) < 2:
        raise listings.too_few(name, "sentence", "sentences", len(texts), skipped)
    hashes = _hashes(texts)
    identity = listings.identity(name, listing, kept, hashes, skipped)
    return TextSource(**identity, texts=texts, duplicates=len(hashes) - len(set(hashes)))


def sentences_source(
    name: str,
    listing: Listing,
    texts: Sequence[tuple[str, ...]],
    skipped: Sequence[dict[str, str]],
) -> TextSource:
    """Sentences in memory as a source; a fifth of pairs without splits is kept for evaluation.

    Args:
        name: what the user typed.
        listing: ids, labels and splits of the sentences.
        texts: one to three strings of each item.
        skipped: what could not be used.

    Raises:
        DataError: fewer than two sentences.
    """
    if len(texts) < 2:
        raise listings.too_few(name, "sentence", "sentences", len(texts), skipped)
    hashes = _hashes(texts)
    identity = listings.identity(name, listing, range(len(texts)), hashes, skipped)
    identity["all_files"] = ()
    if len(texts[0]) > 1 and "train" not in listing.splits:
        identity["parts"] = hash_split(_linked(texts), listings.TEST_SHARE)
    return TextSource(**identity, texts=texts, duplicates=len(hashes) - len(set(hashes)))


def _hashes(texts: Sequence[tuple[str, ...]]) -> list[str]:
    return [hashlib.blake2b("\t".join(t).encode(), digest_size=16).hexdigest() for t in texts]


def _linked(texts: Sequence[tuple[str, ...]]) -> list[str]:
    """A key of each pair, equal for pairs that share a sentence, so that they stay on one side.

    Pairs that share a sentence are linked, and linked pairs form a component. Where one component
    holds more than half of all pairs, no split can keep it together; then pairs that share their
    second sentence (the answer, the hypothesis) stay together.
    """
    parent = list(range(len(texts)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    first: dict[str, int] = {}
    for i, columns in enumerate(texts):
        for text in columns[:2]:
            parent[root(i)] = root(first.setdefault(text, i))
    roots = [root(i) for i in range(len(texts))]
    largest = max(Counter(roots).values())
    if largest > len(texts) / 2:
        return [columns[1] for columns in texts]
    smallest: dict[int, str] = {}  # the key does not depend on the order of the lines
    for r, columns in zip(roots, texts, strict=True):
        smallest[r] = min(smallest.get(r, columns[0]), columns[0])
    return [smallest[r] for r in roots]


def read_utf8(path: Path) -> str:
    """The text of a file in UTF-8, or in UTF-16 or UTF-32, which their marks or zeros tell.

    Raises:
        DataError: it is not there, or in another coding.
    """
    name = listings.readable(str(path))
    try:
        return listings.decode_text(listings.read_bytes(path)).replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{name} is not UTF-8 (byte {error.start:,}); convert it from the coding it has, such "
            f"as: iconv -f ISO-8859-1 -t UTF-8 {listings.readable(path.name)}"
        ) from error
    except (OSError, ValueError) as error:
        raise DataError(f"{name} cannot be read: {listings.reason(error)}") from error


Skipped = list[dict[str, str]]


@dataclass(frozen=True)
class _Lines:
    """A file of sentences: texts, their line numbers, labels and splits, and what is left out."""

    texts: list[tuple[str, ...]]
    ids: list[str]
    labels: list[str | None]
    splits: list[str | None]
    skipped: Skipped
    notes: list[Note]


def _lines(path: Path) -> _Lines:
    rows, notes = _rows(path), []
    width = max((len(cells) for _, cells in rows), default=1)
    if width > 1 and all(len(c) < width or not c[-1].strip() for _, c in rows):
        rows = [(n, c[:-1] if len(c) == width else c) for n, c in rows]
        text = f"the empty last column of {listings.readable(path.name)} left out"
        notes.append(note("empty column", text, count=1))
    heading = [cell.strip().lower() for cell in rows[0][1]] if rows else []
    label: int | None = None
    split: int | None = None
    if len(heading) > 1 and {*heading} & HEADINGS:
        rows = rows[1:]
        places = [i for i, name in enumerate(heading) if name in HEADINGS][:3]
        label = next((i for i, name in enumerate(heading) if name in LABELS), None)
        split = next((i for i, name in enumerate(heading) if name in SPLIT), None)
        used = {*places, label, split}
        unused = [h for i, h in enumerate(heading) if i not in used]
        if unused:
            text = f"{counted(len(unused), 'column')} not used: {shown(unused)}"
            notes.append(note("columns", text, count=len(unused), names=unused))
        columns = len(places)
    else:
        usual = [len(cells) for _, cells in rows if any(cells)] or [1]
        columns = max(1, min(3, round(float(np.median(usual)))))
        places = []
    found = _Lines([], [], [], [], [], notes)
    for number, cells in rows:
        given = [cell.strip() for cell in cells]
        if places:
            given = [given[i] if i < len(given) else "" for i in places]
        if not any(given):
            reason = "empty"
        elif len(given) != columns or not all(given):
            reason = f"other columns: {len([c for c in given if c])} in it, {columns} are needed"
        elif max(map(len, given)) > LONGEST:
            reason = f"too long: {max(map(len, given)):,} characters, {LONGEST:,} at most"
        else:
            found.texts.append(tuple(given))
            found.ids.append(str(number))
            found.labels.append(_cell(cells, label))
            part = _cell(cells, split)
            found.splits.append(None if part is None else split_of(part) or part.lower())
            continue
        name = listings.readable(path.name)
        found.skipped.append({"path": f"{name}:{number}", "reason": reason})
    return found


def _cell(cells: Sequence[str], place: int | None) -> str | None:
    """The cell at a place without blanks, None where there is none."""
    return cells[place].strip() or None if place is not None and place < len(cells) else None


def _rows(path: Path) -> list[tuple[int, list[str]]]:
    """Line numbers and cells: tabs in .tsv, commas and quotes in .csv, whole lines otherwise."""
    whole = read_utf8(path)
    if path.suffix.lower() == ".csv":
        reader = csv.reader(io.StringIO(whole, newline=""))
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
    cut: list[str] = []
    skipped: Skipped = []
    for number, path in enumerate(listing.files):
        try:
            text = " ".join(read_utf8(path).split())
            if not text:
                raise DataError("empty")
        except DataError as error:
            skipped.append({"path": listing.names[number], "reason": str(error)})
            continue
        if len(text) > LONGEST:
            cut.append(listings.readable(listing.names[number]))
        texts.append((text[:LONGEST],))
        kept.append(number)
    if cut:
        words = f"{counted(len(cut), 'document')} cut at {LONGEST:,} characters: {shown(cut)}"
        listing.notes.append(note("cut", words, count=len(cut), names=cut))
    return texts, kept, skipped
