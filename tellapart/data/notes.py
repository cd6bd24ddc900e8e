"""Notes: what happened to a person's files on the way to a source, counted by kind and named.

A note is plain values, so that it can stand in run.json:
{"kind": "other endings", "count": 12, "text": "12 files with other endings left out: ...",
"names": the first of them}.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Note = dict[str, Any]
NAMED = 20  # names that a note keeps
SHOWN = 3  # names in a sentence


def note(kind: str, text: str, *, count: int = 0, names: Iterable[str] = ()) -> dict[str, Any]:
    """One note.

    Args:
        kind: what it is about, in two or three words; one source has one note of a kind.
        text: a sentence for the plan.
        count: how many files, lines or columns it is about; 0 where that is no question.
        names: which ones; the first 20 are kept.
    """
    return {"kind": kind, "count": count, "text": text, "names": list(names)[:NAMED]}


def counted(number: int, one: str, many: str | None = None) -> str:
    """A number with its noun.

    >>> counted(1, "file"), counted(1200, "file"), counted(2, "series", "series")
    ('1 file', '1,200 files', '2 series')
    """
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def tally(things: Iterable[str], most: int = 8) -> str:
    """Each thing and how often it is there, the most frequent first.

    >>> tally([".heic", ".jfif", ".heic"])
    '.heic (2), .jfif (1)'
    """
    counts = Counter(things)
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    shown = ", ".join(f"{name} ({count:,})" for name, count in ranked[:most])
    left = len(ranked) - most
    return f"{shown} and {left:,} more" if left > 0 else shown


def shown(names: Sequence[str]) -> str:
    """The first names in a sentence.

    >>> shown(["a", "b", "c", "d"])
    'a, b, c and 1 more'
    """
    left = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {left:,} more" if left > 0 else "")


def kind_of_reason(reason: str) -> str:
    """The kind of a reason for which a file was left out: what stands before its first colon.

    >>> kind_of_reason("too large: 30,000 x 20,000 pixels need 2.4 GB")
    'too large'
    """
    return reason.partition(": ")[0]


def skipped_lines(skipped: Sequence[Mapping[str, str]]) -> list[str]:
    """One sentence for each kind of reason, the most frequent first, with its first file."""
    kinds: dict[str, list[Mapping[str, str]]] = {}
    for entry in skipped:
        kinds.setdefault(kind_of_reason(entry["reason"]), []).append(entry)
    return [
        f"{len(entries):,} left out, {kind}; the first: {entries[0]['path']}"
        + (f" ({detail})" if (detail := entries[0]["reason"].partition(": ")[2]) else "")
        for kind, entries in sorted(kinds.items(), key=lambda item: (-len(item[1]), item[0]))
    ]
