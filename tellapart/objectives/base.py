"""What an objective is: a loss and the state it needs, behind four verbs that the Trainer calls.

`embed` and `loss` read; `after_step` is the only writer. Shapes: N batch, D width, S instances.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..data import Source
from ..encoders import AnyEncoder
from ..errors import DataError

Embedded = dict[
    str, Tensor
]  # every value (N, ...): the only tensors a Trainer may cache and replay


class Batch(NamedTuple):
    """V views of the same N instances, and which rows of the source they are."""

    views: list[Any]  # V of (N, ...) tensors, or dicts of them
    index: Tensor  # type: ignore[assignment]  # (N,) int64; hides tuple.index, which nobody needs here
    label: Tensor | None = None  # (N,) only for objectives that need it


class Out(NamedTuple):
    """A loss to minimise, numbers to log, and what `after_step` has to write."""

    loss: Tensor
    logs: dict[str, Tensor]
    writes: dict[str, Tensor]


class Objective(nn.Module):
    """A loss and its state.

    Attributes:
        views: how many views of an instance it compares. needs_labels: whether batches must carry labels.
        bounds_information: whether chance - loss is a lower bound of the mutual information of what it compares.
        sharded: names in the state dict that hold a row for each instance this rank reads, not for all.
    """

    views: int = 1
    needs_labels: bool = False
    bounds_information: bool = False
    sharded: tuple[str, ...] = ()

    def attach(self, encoder: AnyEncoder, source: Source) -> None:
        """Once, before the first step: whatever depends on the encoder or the data."""

    def embed(self, encoder: AnyEncoder, batch: Batch) -> Embedded:
        """Run the network on the views."""
        return {f"z{i}" if i else "z": encoder(view) for i, view in enumerate(batch.views)}

    def loss(self, embedded: Embedded, batch: Batch, generator: torch.Generator) -> Out:
        """The loss of embedded views; writes nothing."""
        raise NotImplementedError  # each objective is this function

    def chance(self, n: int) -> float | None:
        """The loss when every row, memory included, coincides; None without a closed form. n: global batch."""
        return None

    def after_step(self, encoder: AnyEncoder, out: Out) -> None:
        """Write memory; not called when a step was skipped."""


def two_views(loss: Tensor, a: Tensor, b: Tensor, logs: dict[str, Tensor] | None = None) -> Out:
    """The Out of an objective that compares two views (N, D) and writes nothing."""
    positive = (a.detach() * b.detach()).sum(1).mean()
    return Out(loss, {"positive": positive} | (logs or {}), {"z": a.detach()})


def classes(batch: Batch) -> Tensor:
    """(N,) the label of each item, and a class of its own (-1 - index) for one without."""
    if batch.label is None:
        raise DataError("this method learns from labels, and the batch has none")
    return torch.where(batch.label >= 0, batch.label, -1 - batch.index)
