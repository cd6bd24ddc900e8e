"""Loss and gradient of a step, with the batch embedded at once or in micro-batches.

Gradient caching (Gao et al. 2021, arXiv 2101.06983): a contrastive loss depends on all pairs of
rows of a batch, so that accumulating gradients over small batches gives another loss. Here the
pieces are embedded without a graph, the loss and its gradient are computed from the embeddings of
the whole batch, and each piece is embedded again to propagate the gradient of its rows into the
network.

The gradient is exact if the embedding of a row does not depend on its piece. With BatchNorm it
does, unless BatchNorm normalises groups of rows (`--bn split`, the default with `--micro-batch`),
because a piece holds whole groups. Dropout is replayed exactly, but its draws differ from those of
the whole batch. With several views the running statistics of BatchNorm see the groups in another
order.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..encoders import AnyEncoder
from ..encoders.norms import batchnorms
from ..objectives import Batch, Embedded, Objective, Out


class Pieces(NamedTuple):
    """A batch that can be computed in parts.

    Attributes:
        size: rows of the batch.
        part: function of (start, stop) that returns the views of these rows. It seeds the global
            random state and returns the same views at every call.
        rows: the batch without its views.
    """

    size: int
    part: Callable[[int, int], Batch]
    rows: Batch


Backward = Callable[[], None]


def whole(
    objective: Objective,
    encoder: AnyEncoder,
    pieces: Pieces,
    noise: torch.Generator,
    autocast: torch.autocast,
) -> tuple[Out, Backward]:
    """Compute the loss of a batch embedded at once.

    Args:
        objective: the loss.
        encoder: the network.
        pieces: the batch.
        noise: generator of the objective's draws.
        autocast: precision of the network.

    Returns:
        The loss, and a function that computes its gradient.
    """
    batch = pieces.part(0, pieces.size)
    with autocast:
        embedded = objective.embed(encoder, batch)
    out = objective.loss(embedded, pieces.rows, noise)
    return out, out.loss.backward


def cached(
    objective: Objective,
    encoder: AnyEncoder,
    pieces: Pieces,
    noise: torch.Generator,
    autocast: torch.autocast,
    micro: int,
) -> tuple[Out, Backward]:
    """Compute the same loss and gradient with the network run on `micro` instances at a time.

    Args:
        objective: the loss.
        encoder: the network.
        pieces: the batch.
        noise: generator of the objective's draws.
        autocast: precision of the network.
        micro: instances per piece; with a split BatchNorm at least one group.

    Returns:
        The loss, and a function that computes its gradient.
    """
    bounds = piece_bounds(pieces.size, micro, encoder.bn_rows if batchnorms(encoder) else None)

    def embed(start: int, stop: int) -> Embedded:
        batch = pieces.part(start, stop)
        with autocast:
            return objective.embed_piece(encoder, batch)

    constant: Embedded = {}
    if objective.needs_whole_batch:
        batch = pieces.part(0, pieces.size)
        with torch.no_grad(), autocast:
            constant = objective.embed_whole(encoder, batch, bounds)

    with torch.no_grad(), frozen_statistics(encoder, objective):
        parts = [embed(*bound) for bound in bounds]
    embedded = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    leaves = {
        name: value.requires_grad_()
        for name, value in embedded.items()
        if value.is_floating_point()
    }
    out = objective.loss(embedded | constant, pieces.rows, noise)

    def backward() -> None:
        out.loss.backward()
        for start, stop in bounds:
            _send_on(
                embed(start, stop),
                {n: v.grad[start:stop] for n, v in leaves.items() if v.grad is not None},
            )

    return out, backward


def piece_bounds(size: int, micro: int, group: int | None = None) -> list[tuple[int, int]]:
    """Return the first row and the end of each piece of a batch.

    Args:
        size: rows of the batch.
        micro: rows of a piece. A last piece of one row, which BatchNorm refuses, joins the one
            before.
        group: rows of a group of a split BatchNorm, which makes size // group groups, the first
            ones a row larger. Each piece holds whole groups, as many as `micro` has room for and at
            least one, so that it is split as the whole batch is. A batch of fewer than two groups
            is one piece.

    Returns:
        Bounds (start, stop) in order.

    >>> piece_bounds(7, 3), piece_bounds(8, 3), piece_bounds(10, 4, group=3)
    ([(0, 3), (3, 7)], [(0, 3), (3, 6), (6, 8)], [(0, 4), (4, 7), (7, 10)])
    """
    if group and size < 2 * group:
        return [(0, size)]
    if group:
        least, more = divmod(size, size // group)
        ends = [i * least + min(i, more) for i in range(1, size // group + 1)]
        starts = [0]
        for end, following in itertools.pairwise(ends):
            if following - starts[-1] > micro:
                starts.append(end)
    else:
        starts = list(range(0, size, micro))
    if len(starts) > 1 and size - starts[-1] == 1 and micro > 1:
        starts.pop()
    return list(zip(starts, [*starts[1:], size], strict=True))


def _send_on(part: Embedded, grads: dict[str, Tensor]) -> None:
    names = [name for name in grads if part[name].requires_grad]
    torch.autograd.backward([part[name] for name in names], [grads[name] for name in names])


@contextmanager
def frozen_statistics(*modules: nn.Module) -> Iterator[None]:
    """Let BatchNorm normalise by its batch, as in training, without updating running statistics."""
    norms = [norm for norm in batchnorms(*modules) if norm.track_running_stats]
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True
