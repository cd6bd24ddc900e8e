"""The interface of an objective: a loss and its state, behind methods that the Trainer calls.

`embed` and `loss` read; `after_step` is the only writer.

Shapes: N batch, V views, D embedding width, S instances.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..data import Source
from ..encoders import AnyEncoder
from ..errors import DataError

# every value (N, ...): the only tensors a Trainer may cache and replay
Embedded = dict[str, Tensor]


class Batch(NamedTuple):
    """V views of the same N instances, and which rows of the source they are."""

    views: list[Any]  # V of (N, ...) tensors, or dicts of them
    index: Tensor  # type: ignore[assignment]  # (N,) int64; hides tuple.index
    label: Tensor | None = None  # (N,) only for objectives that need it


class Out(NamedTuple):
    """A loss to minimise, numbers to log, and what `after_step` has to write."""

    loss: Tensor
    logs: dict[str, Tensor]
    writes: dict[str, Tensor]


class Objective(nn.Module):
    """A loss and its state.

    Attributes:
        views: how many views of an instance it compares.
        needs_labels: whether batches must carry labels.
        needs_whole_batch: whether `embed_whole` is called beside `embed_piece`.
        sharded: names in the state dict that hold a row per instance of this process's share.
    """

    views: int = 1
    needs_labels: bool = False
    needs_whole_batch: bool = False
    sharded: tuple[str, ...] = ()

    def attach(self, encoder: AnyEncoder, source: Source) -> None:
        """Prepare what depends on the encoder or the data; called once, before the first step."""

    def embed(self, encoder: AnyEncoder, batch: Batch) -> Embedded:
        """Run the network on the views.

        Args:
            encoder: the encoder that is trained.
            batch: V views of N instances.

        Returns:
            Tensors whose first axis has N rows.
        """
        return {f"z{i}" if i else "z": encoder(view) for i, view in enumerate(batch.views)}

    def embed_piece(self, encoder: AnyEncoder, batch: Batch) -> Embedded:
        """Compute what of `embed` each row gives alone; gradient caching calls it per micro-batch.

        Args:
            encoder: the encoder that is trained.
            batch: some consecutive instances of a batch.

        Returns:
            As `embed`, without the entries of `embed_whole`.
        """
        return self.embed(encoder, batch)

    def embed_whole(
        self, encoder: AnyEncoder, batch: Batch, bounds: list[tuple[int, int]]
    ) -> Embedded:
        """Compute the constant entries of `embed` that need the views of the whole batch.

        Args:
            encoder: the encoder that is trained.
            batch: all views of the batch.
            bounds: first row and end of the pieces in which a network may run.

        Returns:
            Entries of `embed` without a gradient, over all N instances.
        """
        return {}

    def loss(self, embedded: Embedded, batch: Batch, generator: torch.Generator) -> Out:
        """Compute the loss of embedded views; writes nothing.

        Args:
            embedded: what `embed` returned.
            batch: the batch; its views may be missing.
            generator: for every random draw; the same on every process.

        Returns:
            The loss, numbers to log, and what `after_step` has to write.
        """
        raise NotImplementedError  # each objective is this function

    def chance(self, n: int) -> float | None:
        """Give the loss if every row, memory included, coincides.

        Args:
            n: batch size over all processes.

        Returns:
            Nats, or None if there is no closed form.
        """
        return None

    def information_limit(self, n: int) -> float | None:
        """Give the value whose difference to the loss bounds the mutual information of two views.

        Args:
            n: batch size over all processes.

        Returns:
            The largest value of that bound, nats; None if there is no such bound.
        """
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
