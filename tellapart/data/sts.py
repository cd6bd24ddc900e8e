"""Pairs of texts with human similarity scores: files of STS tasks, and sets inside gensim."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import DataError, unknown
from .notes import counted
from .text import read_utf8

PREFIX = "sts:"  # of --data: scored pairs, not a source
GENSIM = ("lee", "wordsim353", "simlex999")


@dataclass(frozen=True)
class ScoredPairs:
    """Texts, and pairs of them (first, second, score): P pairs.

    Attributes:
        texts: each text once. first, second: rows of `texts`.
        score: by people, higher = more alike.
        subset: of each pair, where a task has several ("MSRpar", ...).
        skipped: lines left out and why.
    """

    name: str
    texts: list[str]
    first: list[int]
    second: list[int]
    score: list[float]
    subset: list[str]
    skipped: list[dict[str, str]]

    def __len__(self) -> int:
        return len(self.score)


def pairs_named(data: str | None) -> str | None:
    """Return the pairs that --data names, for `open_pairs`; None: it names a source.

    >>> pairs_named("sts:lee"), pairs_named("photos/"), pairs_named(None)
    ('lee', None, None)
    """
    return data.removeprefix(PREFIX) if data and data.startswith(PREFIX) else None


def open_pairs(spec: str) -> ScoredPairs:
    """The pairs that a user names.

    Args:
        spec: lee, wordsim353 or simlex999 (in the gensim package); a file of score, sentence,
            sentence in tabs; one of STS-B (7 columns or more: the score in the fifth) or SICK (a
            heading with relatedness_score); or a folder of STS12-16 (STS.input.NAME.txt with
            STS.gs.NAME.txt), whose subsets are scored together.
    Raises:
        DataError: missing, not UTF-8, or fewer than three pairs.
    """
    if spec in GENSIM:
        return _of_gensim(spec)
    path = Path(spec).expanduser()
    if not path.exists():
        raise DataError(
            f"{path} does not exist (an STS file or folder, or a known set: "
            f"{unknown('set', spec, GENSIM)})"
        )
    rows: list[tuple[str, str, str, float]] = []
    skipped: list[dict[str, str]] = []
    if path.is_dir():
        for inputs in sorted(path.glob("STS.input.*.txt")):
            name = inputs.name.removeprefix("STS.input.").removesuffix(".txt")
            scores, both = (_split(p) for p in (inputs.with_name(f"STS.gs.{name}.txt"), inputs))
            if len(scores) != len(both):
                raise DataError(f"{inputs} has {len(both)} lines and its scores {len(scores)}")
            lines = [f"{s}\t{line}" for s, line in zip(scores, both, strict=True)]
            rows += _rows(name, lines, skipped)
    else:
        rows += _rows(path.stem, _split(path), skipped)
    return _joined(spec, rows, skipped)


def _split(path: Path) -> list[str]:
    """The lines of a file: other separators than the line feed may stand inside a sentence."""
    return read_utf8(path).removesuffix("\n").replace("\r\n", "\n").split("\n")


def _rows(
    name: str, lines: list[str], skipped: list[dict[str, str]]
) -> list[tuple[str, str, str, float]]:
    """(subset, first, second, score) of every usable line."""
    heading = lines[0].lower().split("\t") if lines else []
    place = (0, 1, 2)  # of score, first, second
    if "relatedness_score" in heading:
        if not {"sentence_a", "sentence_b"} <= set(heading):
            raise DataError(
                f"{name}: a heading with relatedness_score must also have sentence_A and sentence_B"
            )
        place = (
            heading.index("relatedness_score"),
            heading.index("sentence_a"),
            heading.index("sentence_b"),
        )
        lines = lines[1:]
    elif len(heading) >= 7:
        place = (4, 5, 6)
    found = []
    for number, line in enumerate(lines, 1):
        cells = line.split("\t")
        try:
            first, second = cells[place[1]].strip(), cells[place[2]].strip()
            if not first or not second:
                raise ValueError("an empty sentence")
            score = float(cells[place[0]])
            if not math.isfinite(score):
                raise ValueError("a score that is no number")
            found.append((name, first, second, score))
        except (ValueError, IndexError) as error:  # STS16 leaves pairs without a score in its files
            skipped.append(
                {
                    "path": f"{name}:{number}",
                    "reason": f"not score, sentence and sentence ({error})",
                }
            )
    return found


def _joined(
    name: str, rows: Sequence[tuple[str, str, str, float]], skipped: list[dict[str, str]]
) -> ScoredPairs:
    if len(rows) < 3:
        why = (
            f"; the first left out: {skipped[0]['path']}: {skipped[0]['reason']}" if skipped else ""
        )
        raise DataError(
            f"{name} holds {counted(len(rows), 'scored pair')}; 3 or more are needed{why}"
        )
    texts = list(dict.fromkeys(t for _, a, b, _ in rows for t in (a, b)))
    place = {text: i for i, text in enumerate(texts)}
    return ScoredPairs(
        name,
        texts,
        [place[a] for _, a, _, _ in rows],
        [place[b] for _, _, b, _ in rows],
        [score for *_, score in rows],
        [subset for subset, *_ in rows],
        skipped,
    )


def _of_gensim(name: str) -> ScoredPairs:
    spec = importlib.util.find_spec("gensim")
    if spec is None or spec.origin is None:
        raise DataError(f"{name} is a part of the package gensim; type: pip install gensim")
    folder = Path(spec.origin).parent / "test" / "test_data"
    if name == "lee":
        texts = (folder / "lee.cor").read_text(encoding="latin-1").splitlines()
        values = [
            [float(v) for v in line.split()]
            for line in read_utf8(folder / "similarities0-1.txt").splitlines()
        ]
        pairs = [
            (i, j) for j in range(len(texts)) for i in range(j)
        ]  # the upper triangle alone is filled
        return ScoredPairs(
            name, texts, [i for i, _ in pairs], [j for _, j in pairs],
            [values[i][j] for i, j in pairs], [name] * len(pairs), [],
        )  # fmt: skip
    lines = read_utf8(
        folder / {"wordsim353": "wordsim353.tsv", "simlex999": "simlex999.txt"}[name]
    ).splitlines()
    cells = [line.split("\t") for line in lines if line and not line.startswith("#")]
    return _joined(name, [(name, a, b, float(score)) for a, b, score in cells], [])
