"""Claim 6: what the invariant and spreading feature owes to its augmentations and to its loss.

    python studies/ye_ablations.py [--minutes M]

Source: Ye et al. 2019 (arXiv 1904.03436), Table 5 (83.6 % with, 37.4 % without augmentation).
"""

from __future__ import annotations

from typing import Any

from harness import FAILS, HOLDS, PARTLY, UNTESTED, Row, Study, Table, Verdict

NO_CROP: dict[str, Any] = {"area": (1.0, 1.0), "aspect": (1.0, 1.0)}


def row(name: str, **options: Any) -> Row:
    """A row of `spread` over its preset."""
    return Row(name, "spread", {"epochs": 3, **options})


ROWS = (
    row("all augmentations"),
    row("none", **NO_CROP, flip=0.0, jitter=0.0, grayscale=0.0),
    row("without crops", **NO_CROP),
    row("without colour", jitter=0.0),
    row("without grey", grayscale=0.0),
    row("without flips", flip=0.0),
    row("released code's loss", objective={"loss": "released"}),
)


def judge(table: Table) -> Verdict:
    """Holds if the full set beats none, and leaving one out never raises the accuracy."""
    names = [r.name for r in ROWS[:6]]
    if not table.complete(*names):
        return Verdict(UNTESTED, "the decisive rows have not been trained with all seeds")
    gain = table.difference(names[0], names[1])
    harmful = [n for n in names[2:] if table.better(n, names[0])]
    if gain[1] <= 0:
        return Verdict(FAILS, "augmentation is not shown to help")
    said = f"augmentation brings {gain[0]:.1f} points ({gain[1]:.1f} to {gain[2]:.1f})"
    if harmful:
        return Verdict(PARTLY, f"{said}, but accuracy rises {', '.join(harmful)}")
    return Verdict(HOLDS, f"{said}, and no single augmentation hurts")


STUDY = Study(
    "ye_ablations",
    "Augmentations and loss of the invariant and spreading feature (Ye et al., Table 5)",
    ROWS,
    judge,
    decisive=6,
    metric="embedding",
)

if __name__ == "__main__":
    STUDY.main()
