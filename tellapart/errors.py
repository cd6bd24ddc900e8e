"""Every error a user can cause, each saying what was given, what is needed and what to type.

TellapartError
├── ConfigError (ValueError)          a flag or an argument outside its range
├── DataError (ValueError)            a source that cannot be read, or holds too little
│   └── StoreError                    a store of files that cannot be reached, or refuses
├── RunError                          a run folder that is missing, in use, damaged, not writable
├── IncompleteError                   part of the work failed; the rest is written (exit status 3)
├── TrainingError                     training cannot go on: the loss is not a number
└── MissingExtraError (ImportError)   an optional package; the message holds the pip command
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

SHOWN = 60  # names of a list that is shown whole; a library has a thousand networks


class TellapartError(Exception):
    """The base of every error raised on purpose; the command line prints it without a traceback."""

    status = 2  # of the command line


class ConfigError(TellapartError, ValueError):
    """A flag or an argument outside its range."""


class DataError(TellapartError, ValueError):
    """A source that cannot be read, or that holds too little."""


class StoreError(DataError):
    """A store (S3, HTTP, a hub) that cannot be reached or refuses; it concerns all of its files."""


class RunError(TellapartError):
    """A run folder that is missing, in use, damaged or cannot be written."""


class IncompleteError(TellapartError):
    """Part of the work failed, and the rest is written; the exit status is 3."""

    status = 3


class TrainingError(TellapartError):
    """Training cannot go on."""


class MissingExtraError(TellapartError, ImportError):
    """An optional package is not installed."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"{package} is not installed; type: pip install 'tellapart[{extra}]'")


def unknown(kind: str, given: str, known: Iterable[str]) -> ConfigError:
    """The error for an unknown name, with the nearest known one; of a long list the nearest few.

    >>> print(unknown("method", "instdsic", ["instdisc", "exemplar"]))
    unknown method 'instdsic'; did you mean 'instdisc'? (known: exemplar, instdisc)
    """
    names = sorted(known)
    similar = difflib.get_close_matches(given, names, n=5, cutoff=0.5)
    hint = f"; did you mean {similar[0]!r}?" if similar else ""
    if len(names) <= SHOWN:
        return ConfigError(f"unknown {kind} {given!r}{hint} (known: {', '.join(names)})")
    others = f"nearest: {', '.join(similar)}; " if similar else ""
    return ConfigError(f"unknown {kind} {given!r}{hint} ({others}{len(names):,} are known)")


def require(condition: bool, message: str) -> None:
    """Raise ConfigError(message) unless `condition` holds."""
    if not condition:
        raise ConfigError(message)
