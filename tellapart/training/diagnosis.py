"""Diagnose from metrics.jsonl whether a training learns.

The chance level is the loss when all embeddings coincide. A healthy run can start above it (a
random bank adds about 1 / (2 D tau^2)), and a collapsed run is exactly on it. The verdict
therefore depends on the trend of the loss and the spread of the embeddings, not on the level of
the loss.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

COLLAPSED_STD = 0.05  # spread of unit rows; 1 = centred on the sphere
NEAR = 0.05  # of the ceiling of a bound of mutual information
COLLAPSED_RANK = 1.5
AT_CHANCE = 0.01  # of the chance level
EASIER = 0.05  # of all triplets
FALL = 0.02  # smallest fall of the loss, of its highest level, that counts as a trend

Row = Mapping[str, float]


@dataclass(frozen=True)
class Verdict:
    """A verdict.

    Attributes:
        kind: "learning", "collapsed", "at chance", "flat" or "too early".
        sentence: the finding, its cause and a remedy.
    """

    kind: str
    sentence: str


def judge(rows: Sequence[Row]) -> Verdict:
    """Return the verdict on the lines of metrics.jsonl so far.

    Args:
        rows: the lines, in the order of their steps.

    >>> line = {"std": 0.9, "effective_rank": 40.0}
    >>> rows = [{"step": s, "loss": 5 - s / 100} | line for s in range(0, 200, 20)]
    >>> judge(rows).kind
    'learning'
    """
    if len(rows) < 5:
        return Verdict("too early", f"too early to say: {len(rows)} logged steps, 5 are needed")
    if since := _collapsed_since(rows):
        return Verdict(
            "collapsed",
            f"collapsed since step {since:.0f}: all embeddings nearly coincide (standard deviation "
            f"{rows[-1]['std']:.3f}, effective rank {rows[-1].get('effective_rank', 1.0):.1f}). "
            "Lower --lr; where the loss has a temperature, raise it",
        )
    size = max(1, len(rows) // 5)
    start, now = (
        max(_mean(rows[i : i + size]) for i in range(len(rows) - size + 1)),
        _mean(rows[-size:]),
    )
    chance = rows[-1].get("chance")
    fallen = start - now > FALL * abs(start)
    if chance is not None and abs(now - chance) < AT_CHANCE * chance and not fallen:
        return Verdict(
            "at chance",
            f"at chance: the loss {now:.2f} is that of embeddings that all coincide "
            f"({chance:.2f}), and it does not fall. Raise --lr, train for longer, or check that "
            "the views keep what distinguishes the items",
        )
    if "easy" in rows[-1]:
        before, after = (
            sum(row["easy"] for row in part) / size for part in (rows[:size], rows[-size:])
        )
        if after - before > EASIER:
            return Verdict(
                "learning",
                f"learning: easy triplets rose from {before:.0%} to {after:.0%}; the mean loss of "
                f"the others is {now:.2f}{_held_out(rows)}",
            )
    if not fallen:
        return Verdict(
            "flat",
            f"no clear fall of the loss yet ({start:.2f} at its highest, {now:.2f} now). "
            "Train for longer (--epochs), or raise --lr",
        )
    at_chance = f", chance {chance:.2f}" if chance is not None else ""
    directions = f"{rows[-1].get('effective_rank', 1.0):.0f} directions"
    return Verdict(
        "learning",
        f"learning: the loss fell from {start:.2f} to {now:.2f}{at_chance}; embeddings vary in "
        f"{directions}{_held_out(rows)}{_ceiling(rows[-size:])}",
    )


def _ceiling(rows: Sequence[Row]) -> str:
    """Return a clause if the mutual information bound has reached its largest possible value."""
    if "information" not in rows[-1]:
        return ""
    now = sum(r["information"] for r in rows) / len(rows)
    most = rows[-1]["information"] + rows[-1]["loss"]
    if now < (1 - NEAR) * most:
        return ""
    return (
        f"; the views share at least {now:.2f} nats, within 5 % of the {most:.2f} that this number "
        "of candidates can show; a larger --batch-size or more negatives would raise the bound"
    )


def _held_out(rows: Sequence[Row]) -> str:
    """Return a clause about the held-out items, if they were measured."""
    for name, measure in (
        ("held_out_knn", "k-NN accuracy (k = 20)"),
        ("held_out_view_retrieval", "retrieval of another view"),
    ):
        seen = [(row["step"], row[name]) for row in rows if name in row]
        if len(seen) > 1:
            best = max(seen, key=lambda look: look[1])
            words = f"; {measure} on held-out items went from {seen[0][1]:.1%} to {seen[-1][1]:.1%}"
            return words + (
                f", after {best[1]:.1%} at step {best[0]:.0f}"
                if best[1] - seen[-1][1] > 0.01
                else ""
            )
    return ""


def _collapsed_since(rows: Sequence[Row]) -> float | None:
    """Return the first step of the collapse that lasts to the end, None without a collapse."""
    since = None
    for row in reversed(rows):
        if row.get("std", 1.0) > COLLAPSED_STD and row.get("effective_rank", 2.0) > COLLAPSED_RANK:
            break
        since = row["step"]
    return since


def _mean(rows: Sequence[Row]) -> float:
    return sum(r["loss"] for r in rows) / len(rows)
