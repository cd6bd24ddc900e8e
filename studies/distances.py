"""Claim 20: other distances could replace the cosine similarity.

    python studies/distances.py [--minutes M]

Source: the survey this project began with, which proposes Euclidean and Mahalanobis distances and
has no numbers. SimCLR's loss is kept; only the similarity in the exponent changes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from harness import FAILS, HOLDS, PARTLY, UNTESTED, Row, Study, Table, Verdict
from torch import Tensor, nn

from tellapart.data import Source
from tellapart.encoders import AnyEncoder
from tellapart.objectives import Objective, Options
from tellapart.objectives.base import Batch, Embedded, Out, two_views

Similarity = Literal["cosine", "euclidean", "mahalanobis", "dot"]


@dataclass(frozen=True)
class DistanceOptions(Options):
    """Options of `OtherDistance`.

    Args:
        similarity: of two outputs of the head, which are normalised for the cosine alone;
            euclidean and mahalanobis are minus the squared distance; all but the cosine are means
            over the dimensions, so that one temperature suits any width.
        temperature: tau > 0.
    """

    similarity: Similarity = "cosine"
    temperature: float = 0.2


class OtherDistance(Objective):
    """NT-Xent with another similarity.

    Mahalanobis: |M (a - b)|^2 / D with a trained matrix M (D, D), which starts as the identity.
    """

    Options = DistanceOptions
    views = 2

    def __init__(self, options: DistanceOptions, seed: int) -> None:
        super().__init__()
        self.options = options
        self.metric: nn.Module = nn.Identity()

    def attach(self, encoder: AnyEncoder, source: Source) -> None:
        """Make the trained matrix, whose width is that of the head."""
        if self.options.similarity == "mahalanobis":
            linear = nn.Linear(encoder.dim, encoder.dim, bias=False)
            nn.init.eye_(linear.weight)
            self.metric = linear

    def embed(self, encoder: AnyEncoder, batch: Batch) -> Embedded:
        """The outputs of the head before normalisation."""
        return {f"z{i}" if i else "z": encoder.project(view) for i, view in enumerate(batch.views)}

    def loss(self, embedded: Embedded, batch: Batch, generator: torch.Generator) -> Out:
        """Each view is matched with the other one of its image among all views of the batch."""
        a, b = embedded["z"], embedded["z1"]
        rows = self.metric(torch.cat([a, b]))
        logits = similarities(rows, self.options.similarity) / self.options.temperature
        logits = logits.masked_fill(torch.eye(len(rows), dtype=torch.bool), -torch.inf)
        n = len(a)
        target = torch.cat([torch.arange(n, 2 * n), torch.arange(n)])
        unit = nn.functional.normalize
        return two_views(nn.functional.cross_entropy(logits, target), unit(a), unit(b))


def similarities(rows: Tensor, kind: Similarity) -> Tensor:
    """(M, M) similarities of (M, D) rows."""
    if kind == "cosine":
        rows = nn.functional.normalize(rows)
        return rows @ rows.T
    if kind == "dot":
        return rows @ rows.T / rows.shape[1]
    return -(rows[:, None] - rows[None]).square().mean(2)


def row(similarity: Similarity, temperature: float) -> Row:
    """A row with one similarity and temperature."""
    options = {
        "epochs": 3,
        "lr": 0.03,  # 0.1, that of the preset, makes outputs grow where nothing normalises them
        "objective": DistanceOptions(similarity, temperature),
    }
    name = f"{similarity}, tau {temperature:g}"
    return Row(name, "distances:OtherDistance", options, preset="simclr_scenes")


TEMPERATURES = (0.2, 1.0, 5.0)
ROWS = tuple(row(kind, tau) for tau in TEMPERATURES for kind in get_args(Similarity))


def judge(table: Table) -> Verdict:
    """Holds if no other similarity, at its best temperature, is below the best cosine row."""
    if not table.complete():
        return Verdict(UNTESTED, "not every row has been trained with all seeds")
    best = {
        kind: max((r.name for r in ROWS if r.name.startswith(kind)), key=table.mean)
        for kind in get_args(Similarity)
    }
    level = [k for k, name in best.items() if not table.better(best["cosine"], name)]
    shown = ", ".join(f"{name} {100 * table.mean(name):.1f} %" for name in best.values())
    others = len(level) - 1
    word = HOLDS if others == len(best) - 1 else PARTLY if others else FAILS
    return Verdict(word, f"best of each: {shown}")


STUDY = Study(
    "distances",
    "Other similarities in SimCLR's loss",
    ROWS,
    judge,
    note="Hyperbolic distance is not among the rows: it would need a library of its own.",
)

if __name__ == "__main__":
    STUDY.main()
