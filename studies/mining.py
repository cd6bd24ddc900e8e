"""Claim 10: hardest negatives from the start collapse, semi-hard ones do not.

    python studies/mining.py [--minutes M]

Source: Schroff et al. 2015 (arXiv 1503.03832), section 3.2.
"""

from __future__ import annotations

import torch
from harness import FAILS, HOLDS, PARTLY, UNTESTED, Row, Study, Table, Verdict, percent
from torch import Tensor

from tellapart.encoders import AnyEncoder
from tellapart.functional.choices import Mining
from tellapart.objectives import Triplet, TripletOptions
from tellapart.objectives.base import Batch, Embedded, Out

WARM_UP = 400  # steps of semi-hard mining, about one epoch


class Warmed(Triplet):
    """Semi-hard mining for the first steps, then the mining of the options."""

    Options = TripletOptions
    steps: Tensor

    def __init__(self, options: TripletOptions, seed: int) -> None:
        super().__init__(options, seed)
        self.early = Triplet(TripletOptions(options.margin, "semi-hard"), seed)
        self.register_buffer("steps", torch.zeros(1, dtype=torch.int64))

    def loss(self, embedded: Embedded, batch: Batch, generator: torch.Generator) -> Out:
        """The loss of the mining of this step."""
        if int(self.steps) < WARM_UP:
            return self.early.loss(embedded, batch, generator)
        return super().loss(embedded, batch, generator)

    def after_step(self, encoder: AnyEncoder, out: Out) -> None:
        """Count the steps."""
        self.steps.add_(1)


def row(mining: Mining, *, warmed: bool = False) -> Row:
    """A row of the triplet loss; every one sees the same images."""
    options = {"epochs": 4, "objective": TripletOptions(mining=mining)}
    if warmed:
        return Row(f"{mining}, after a warm-up", "mining:Warmed", options, preset="triplet_scenes")
    return Row(f"{mining}, from the start", "triplet", options)


ROWS = (
    row("semi-hard"), row("hard"), row("batch-hard"), row("hard", warmed=True),
    row("batch-hard", warmed=True), row("all"),
)  # fmt: skip
GUESS = 0.15  # k-NN accuracy of ten classes below which nothing was learned


def judge(table: Table) -> Verdict:
    """Holds if hard mining from the start ends near chance, and semi-hard mining does not."""
    semi, hard, batch, warmed = (r.name for r in ROWS[:4])
    if not table.complete(semi, hard, batch, warmed):
        return Verdict(UNTESTED, "the decisive rows have not been trained with all seeds")
    shown = ", ".join(f"{n} {percent(table.values(n))} %" for n in (semi, hard, batch, warmed))
    collapsed = max(table.values(hard, "embedding")) < GUESS
    learned = min(table.values(semi, "embedding")) > GUESS
    worse = table.better(semi, hard)
    word = HOLDS if collapsed and learned else PARTLY if worse and learned else FAILS
    return Verdict(word, f"k-NN of the features: {shown}")


STUDY = Study(
    "mining",
    "Mining of triplets from the start and after a warm-up (FaceNet)",
    ROWS,
    judge,
    decisive=4,
    note="The margin is 0.2 everywhere; the warm-up is 400 steps of semi-hard mining.",
)

if __name__ == "__main__":
    STUDY.main()
