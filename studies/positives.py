"""Claim 17: more positives per anchor help, and L_out is better than L_in.

    python studies/positives.py [--minutes M]

Source: Khosla et al. 2020 (arXiv 2004.11362), eq. 2 and 3 (L_out 78.7, L_in 67.4 %) and the table
of positives (1, 3, 5, 7, 9: 69.3, 76.6, 78.0, 78.4, 78.3 %, ImageNet).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from harness import UNTESTED, Row, Study, Table, Verdict, verdict_of
from torch import Tensor

from tellapart.objectives import SupCon, SupConOptions
from tellapart.objectives.base import Batch, Embedded, Out, two_views


@dataclass(frozen=True)
class Options(SupConOptions):
    """Options of `Capped`.

    Args:
        positives: of each anchor: its other view, and random rows of its class.
    """

    temperature: float = 0.3  # of the preset supcon_scenes
    positives: int = 1


class Capped(SupCon):
    """L_out with at most so many positives per anchor; the rest of the class are negatives.

    With one positive it is SimCLR on labelled batches.
    """

    Options = Options

    def loss(self, embedded: Embedded, batch: Batch, generator: torch.Generator) -> Out:
        """The mean over the anchors of the mean negative log softmax of the chosen positives."""
        a, b = embedded["z"], embedded["z1"]
        assert batch.label is not None
        options = self.options
        assert isinstance(options, Options)
        rows, labels = torch.cat([a, b]), batch.label.repeat(2)
        chosen = choose(labels, options.positives, generator).to(rows.device)
        logits = (rows @ rows.T / options.temperature).fill_diagonal_(-torch.inf)
        log_p = logits.log_softmax(1).masked_fill(~chosen, 0.0)
        return two_views(-(log_p.sum(1) / chosen.sum(1)).mean(), a, b)


def choose(labels: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """(2N, 2N): which rows are positives of which anchor.

    Args:
        labels: (2N,) those of the first views, then of the second.
        count: positives of an anchor, the other view of its image first.
        generator: draws the others.
    """
    n = len(labels)
    order = torch.rand(n, n, generator=generator)
    order[labels[:, None].cpu() != labels[None].cpu()] = 2.0  # after all of the same class
    order.fill_diagonal_(3.0)
    own = torch.arange(n)
    order[own, (own + n // 2) % n] = -1.0
    rank = order.argsort(1).argsort(1)
    return (rank < count) & (order < 2.0)


def capped(count: int) -> Row:
    """A row of SupCon with at most `count` positives per anchor."""
    options = {"epochs": 4, "objective": Options(positives=count)}
    return Row(
        "1 positive" if count == 1 else f"{count} positives",
        "positives:Capped",
        options,
        preset="supcon_scenes",
    )


ROWS = (
    capped(1), capped(5),
    Row("all positives, L_out", "supcon", {"epochs": 4}),
    Row("all positives, L_in", "supcon", {"epochs": 4, "objective": {"reduction": "in"}}),
    capped(3), capped(9),
)  # fmt: skip


def judge(table: Table) -> Verdict:
    """Parts: 5 positives over 1; all over 5 is not required; L_out over L_in."""
    one, five, out, inside = (r.name for r in ROWS[:4])
    if not table.complete(one, five, out, inside):
        return Verdict(UNTESTED, "the decisive rows have not been trained with all seeds")
    parts = {
        "more positives help (5 over 1)": table.better(five, one),
        "L_out is better than L_in": table.better(out, inside),
    }
    return verdict_of(parts)


STUDY = Study(
    "positives",
    "Positives per anchor, L_out and L_in (SupCon)",
    ROWS,
    judge,
    decisive=4,
    note="Batches of 64 of ten classes hold about 12 positives of an anchor.",
)

if __name__ == "__main__":
    STUDY.main()
