"""Output while a command runs: a progress bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import functools
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

from .text import safe

if TYPE_CHECKING:
    from rich.console import Console as Terminal

WIDE = 9  # number of columns from which tables use narrow gaps, to fit 80 characters


class Advance(Protocol):
    """Called with the amount of work done so far, and a short text."""

    def __call__(self, done: int, text: str = "") -> None: ...


class Console:
    """Prints to standard error, so that standard output holds only results.

    Args:
        quiet: print nothing.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self.quiet = quiet

    @functools.cached_property
    def terminal(self) -> Terminal:
        """The terminal as a rich console; rich is imported at the first message."""
        from rich.console import Console as Terminal

        return Terminal(stderr=True, highlight=False, soft_wrap=True, markup=False, emoji=False)

    def say(self, text: str) -> None:
        """Print one line or several; names and labels in them cannot control the terminal."""
        if not self.quiet:
            self.terminal.print(safe(text, lines=True))

    def table(
        self,
        heads: Sequence[str],
        rows: Iterable[Sequence[object]],
        *,
        title: str = "",
        right: Iterable[int] = (),
    ) -> None:
        """Print a table of plain text: cells take no markup and no control characters.

        Args:
            heads: the column headings; all empty prints no heading.
            rows: the cells of each row; a cell may hold line ends.
            title: a line above the table.
            right: numbers of the columns that are aligned to the right.
        """
        if self.quiet:
            return
        from rich.box import SIMPLE_HEAD
        from rich.table import Table

        grid = Table(
            title=safe(title) or None,
            title_justify="left",
            show_header=any(heads),
            padding=(0, int(len(heads) < WIDE), 0, 0),
            box=SIMPLE_HEAD,
        )
        aligned = set(right)
        for column, head in enumerate(heads):
            number = column in aligned
            grid.add_column(
                safe(head, lines=True), justify="right" if number else "left", no_wrap=number
            )
        for row in rows:
            grid.add_row(*(safe(cell, lines=True) for cell in row))
        self.terminal.print(grid)

    @contextlib.contextmanager
    def track(
        self, what: str, total: int, *, done: int = 0, every: float = 5.0
    ) -> Iterator[Advance]:
        """Show progress: a bar with the time left, or lines without a terminal.

        Args:
            what: name of the work.
            total: amount of work.
            done: amount done before.
            every: seconds between two lines without a terminal.
        """
        if self.quiet:
            yield _silent
        elif self.terminal.is_terminal:
            from rich import progress

            columns = (
                progress.TextColumn(safe(what), markup=False),
                progress.BarColumn(),
                progress.MofNCompleteColumn(),
                progress.TimeRemainingColumn(),
                progress.TextColumn("{task.fields[text]}", markup=False),
            )
            with progress.Progress(*columns, console=self.terminal, transient=True) as bar:
                task = bar.add_task(what, total=total, completed=done, text="")

                def advance(done: int, text: str = "") -> None:
                    bar.update(task, completed=done, text=safe(text))

                yield advance
        else:
            yield self._lines(what, total, done, every)

    def progress(self, what: str, done: int, total: int) -> None:
        """Show one step of some work, for callers that only know done and total."""
        if self.quiet:
            return
        if self.terminal.is_terminal:
            print(
                f"\r{safe(what)}: {done:,}/{total:,}",
                end="\n" if done >= total else "",
                file=sys.stderr,
                flush=True,
            )
        elif done >= total:
            self.say(f"{what}: {total:,} done")

    def _lines(self, what: str, total: int, first: int, every: float) -> Advance:
        began = last = time.monotonic()

        def advance(done: int, text: str = "") -> None:
            nonlocal last
            now = time.monotonic()
            if now - last < every and done < total:
                return
            last = now
            left = (now - began) / max(1, done - first) * (total - done)
            self.say(f"{what} {done:,}/{total:,}  {text}  {clock(left)} left")

        return advance


def _silent(done: int, text: str = "") -> None:
    """Show nothing."""


def clock(seconds: float) -> str:
    """Return a duration as text.

    Args:
        seconds: the duration in seconds.

    >>> clock(75), clock(3725), clock(4.2)
    ('1 min 15 s', '1 h 2 min', '4 s')
    """
    s = round(seconds)
    if s < 60:
        return f"{s} s"
    if s < 3600:
        return f"{s // 60} min {s % 60} s"
    return f"{s // 3600} h {s % 3600 // 60} min"


def plural(count: int, one: str, many: str | None = None) -> str:
    """Return a count with its noun.

    Args:
        count: how many.
        one: the noun for one.
        many: the noun for any other number; None: `one` with an s.

    >>> plural(1, "image"), plural(1200, "image"), plural(0, "class", "classes")
    ('1 image', '1,200 images', '0 classes')
    """
    return f"{count:,} {one if count == 1 else many or one + 's'}"
